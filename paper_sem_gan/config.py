"""Every number of SEM-GAN, with its reason. [P] is the paper; C1..C7 are public codes of the same laboratory; see this package's README."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from common.papers import require


@dataclass(frozen=True)
class Config:
    """SEM-GAN: networks, losses, optimisation and data. The defaults are the paper."""

    # networks
    base: int = 32  # channels after the first convolution; not legible in [P], inferred from its speed and the sister networks
    levels: int = 4  # times the U-Net halves (C1, C2: 128 to 8 pixels)
    convolutions: Literal[2, 3] = 2  # per block: caption of [P]; C1 and C2 have three
    stem: bool = True  # a convolution before the first block (C3); without it the first block would start from one channel
    strict_second_changes: bool = False  # also in up blocks only the last convolution changes the channels; C3 narrows in the first
    residual: bool = False  # add the input to the output; in no code of the family
    discriminator_base: int = 32  # one channel setting serves both networks in the codes
    # losses
    l1_share: float = 0.14  # of L_G at work [P]; the third letter of eq. 1 has no legible value, these shares have
    tv_share: float = 0.02  # [P]
    adversarial_share: float = 0.84  # [P]
    alpha: float | None = None  # weight of total variation; None: calibrated to its share
    beta: float | None = None  # weight of the adversarial term; None: calibrated to its share
    warm_up: int = 500  # generator steps on L1 alone, before calibration
    calibration: int = 500  # steps in which the shares are measured; both come before the 48,000
    calibration_decay: float = 0.99  # of the averages of L1, TV and A
    # optimisation
    steps: int = 49_000  # warm-up and calibration, then 48,000 generator steps [P]
    batch: int = 12  # not stated; C1, and 48,000 steps are then 300 epochs
    learning_rate: float = 1e-4  # generator, constant (C1, C4, C5, C7)
    discriminator_rate: float = 1e-5  # (C1, C4, C5, C7)
    discriminator_every: int = 4  # generator steps [P]
    clip_norm: float | None = None  # per-tensor gradient norm of the generator; C2 has 0.5, C1 none
    adam_epsilon: float = 1e-8  # TensorFlow 1
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16", "auto"] = "float32"  # TensorFlow 1.8
    # data
    patch: int = 128  # high-resolution pixels [P]
    stride: int = 112  # between patches: gives the 48 of each 924 x 780 field that 1920 patches of 40 fields mean
    fields: int = 47  # simulated pairs of fields, where no folder is given: 40 to train on [P], the others held out
    held_out: float = 0.15  # share of the fields kept for validation: whole fields, never patches of training fields
    # run
    seed: int = 0
    checkpoint_every: int = 1000  # C1
    validate_every: int = 1000

    def __post_init__(self):
        counts = ("base", "levels", "discriminator_base", "steps", "batch", "discriminator_every", "patch", "stride", "checkpoint_every", "validate_every")
        require(self, counts, "at least 1", lambda value: value >= 1)
        require(self, ("warm_up", "calibration"), "zero or more", lambda value: value >= 0)
        require(self, ("fields",), "at least 2", lambda value: value >= 2)
        require(self, ("learning_rate", "discriminator_rate", "adam_epsilon"), "a positive number", lambda value: 0 < value < math.inf)
        require(self, ("alpha", "beta"), "zero or a positive number", lambda value: value is None or 0 <= value < math.inf)
        require(self, ("clip_norm",), "a positive number", lambda value: value is None or 0 < value < math.inf)
        require(self, ("l1_share", "tv_share", "adversarial_share", "held_out"), "in (0, 1)", lambda value: 0 < value < 1)
        require(self, ("calibration_decay",), "in [0, 1)", lambda value: 0 <= value < 1)
        require(self, ("seed",), "in 0 .. 2^32 - 3", lambda value: 0 <= value < 2**32 - 2)
        require(self, ("levels",), "at most 4, for tiles lie on a grid of 8 pixels of the scan", lambda value: value <= 4)
        require(
            self,
            ("patch",) if self.precision != "float32" else (),
            "at least 32 in mixed precision, for the discriminator halves five times",
            lambda value: value >= 32,
        )
        if self.base < 2 and not self.stem:
            raise ValueError("base must be at least 2 where there is no stem")
        if (self.alpha is None or self.beta is None) and not self.calibration:
            raise ValueError("alpha and beta must be given where calibration is 0")

    @classmethod
    def paper(cls) -> Config:
        """The paper: 12,546,977 and 10,481,889 parameters; 80 minutes on its graphics card, a day or two on two CPU cores."""
        return cls()

    @classmethod
    def small(cls) -> Config:
        """The shipped weights: the paper's losses and data on narrower networks, trained for under two hours on two CPU cores."""
        return replace(cls(), base=12, discriminator_base=12, steps=13_000, batch=8, learning_rate=3e-4, discriminator_rate=3e-5, precision="auto")

    @classmethod
    def tiny(cls) -> Config:
        """For tests: seconds."""
        return replace(cls(), base=8, levels=3, discriminator_base=4, warm_up=20, calibration=20, steps=200, batch=4, patch=64, stride=56, fields=4,
                       learning_rate=1e-3, discriminator_rate=1e-4, checkpoint_every=50, validate_every=100)  # fmt: skip
