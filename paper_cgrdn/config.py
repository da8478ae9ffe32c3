"""Every number of CGRDN, with its reason. P is the paper; C0 and C1 are its published training scripts, M the published networks; see this package's README."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from common.papers import require

MODALITIES = ("hrtem", "lrtem", "hrstem", "lrstem", "hrsem", "lrsem")
Modality = Literal["hrtem", "lrtem", "hrstem", "lrstem", "hrsem", "lrsem"]
MULTIPLE = 4  # of sides, for two halvings


@dataclass(frozen=True)
class Config:
    """CGRDN: network, losses, data and the two stages of training. The defaults are the published size, and the optimiser of five of the six networks."""

    # data
    modalities: tuple[Modality, ...] = ("hrstem",)  # the paper has one network for each [P]; several share one network, drawn at random
    side: int = 256  # pixels of a patch (C1)
    specimens: int = 4096  # clean pictures that patches are cut from; the paper's number is not known
    # network
    network: Literal["cgrdn", "grdn", "mr_unet"] = "cgrdn"  # the other two are what the authors compared with (C0)
    features: int = 64  # channels of the trunk, F0 (M)
    growth: int = 32  # channels that a dense layer adds, G (M)
    dense_layers: int = 8  # of a residual dense block, L: size code 9 (M, C1)
    dense_blocks: int = 4  # of a group, R (M)
    groups: int = 4  # B (M)
    halvings: int = 1  # of the trunk's size (M); 2 is ours: a quarter of the work and twice the reach for the same trunk
    outer_features: int = 64  # channels before the last halving and after it is undone; the trunk's (M)
    last_share: float = 0.1  # of the last kernel at the start, so that training begins near identity; theirs is not known
    discriminator_base: int = 64  # channels after the first convolution (C1)
    # losses
    loss_weights: Literal["A", "B", "C"] = "A"  # set of loss weights, see `losses.WEIGHTS`; A is the full basket (C0), C the last published script's
    adversarial_weight: float = 5e-4  # in the second stage (C0, C1)
    deviation_floor: float = 0.1  # of standard deviations in losses (C1)
    weight_cap: float = 10.0  # of the adaptive weight (C1); with this floor it changes nothing
    fourier_power: float = 0.125  # n (C1)
    fourier_floor: float = 1e-9  # of |FFT| (C1)
    smoothing: float = 0.05  # real images count 1 - this for the discriminator (C1)
    instance_noise: float = 0.5  # chance of a batch that the discriminator sees target and output with noise (C1)
    # optimisation
    steps: int = 80_000  # not known; 60,000 to 100,000 are proposed
    pixel_steps: int = 60_000  # of the first stage, without an adversary; what remains of `steps` is the second
    batch: int = 4  # (C0, C1)
    learning_rate: float = 2e-4  # of the first stage; not known, the scripts hold the last states of fine-tuning
    adversarial_rate: float = 2e-5  # of the generator in the second stage; not known
    discriminator_rate: float = 1e-4  # not known; C1 has the generator's
    beta_1: float = 0.9  # (C1); 0.5 in the line for HRSTEM, which has no weight decay either
    discriminator_beta: float = 0.5  # (C1)
    epsilon: float = 1e-5  # (C1)
    epoch: int = 62_500  # steps between two falls of the rate: 250,000 examples in batches of 4 (C0)
    rate_decay: float = 0.9  # of an epoch (C1); C0 has 0.8
    kernel_decay: float = 1e-8  # times the sum of squares of kernels (C1)
    bias_decay: float = 1e-7  # of biases (C1)
    clip_norm: float = 1.0  # of the generator's gradient in the second stage; not in the scripts
    ema_decay: float = 0.999  # of the moving average of the weights, which is the product; not in the scripts
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16", "auto"] = "float32"
    # run
    seed: int = 0
    checkpoint_every: int = 1024  # (C1), or half of all steps where that is more
    validate_every: int = 5000
    validation_images: int = 24

    def __post_init__(self):
        sizes = ("features", "outer_features", "growth", "dense_layers", "dense_blocks", "groups", "discriminator_base")
        require(self, (*sizes, "specimens", "steps", "pixel_steps", "batch", "epoch"), "at least 1", lambda value: value >= 1)
        require(self, ("checkpoint_every", "validate_every", "validation_images"), "at least 1", lambda value: value >= 1)
        positive = ("deviation_floor", "weight_cap", "fourier_power", "fourier_floor", "learning_rate", "adversarial_rate", "discriminator_rate", "epsilon")
        require(self, (*positive, "clip_norm"), "a positive number", lambda value: 0 < value < math.inf)
        require(self, ("last_share", "adversarial_weight", "kernel_decay", "bias_decay"), "zero or a positive number", lambda value: 0 <= value < math.inf)
        require(self, ("beta_1", "discriminator_beta", "ema_decay", "smoothing"), "in [0, 1)", lambda value: 0 <= value < 1)
        require(self, ("instance_noise",), "in [0, 1]", lambda value: 0 <= value <= 1)
        require(self, ("rate_decay",), "in (0, 1]", lambda value: 0 < value <= 1)
        require(self, ("seed",), "in 0 .. 2^32 - 1", lambda value: 0 <= value < 2**32)
        require(self, ("modalities",), f"one or more of {', '.join(MODALITIES)}", lambda value: value and set(value) <= set(MODALITIES))
        require(self, ("halvings",), "1 or 2", lambda value: value in (1, 2))
        require(self, ("side",), f"at least 32 and a multiple of {MULTIPLE}", lambda value: value % MULTIPLE == 0 and value >= 32)
        if self.network == "mr_unet" and self.side != 256:
            raise ValueError(f"MR-UNet takes patches of 256 pixels only, got side {self.side}")

    @classmethod
    def paper(cls) -> Config:
        """The published network, size 9: 7,035,521 parameters, 115 billion multiply-adds for 256 x 256 pixels."""
        return cls()

    @classmethod
    def small(cls) -> Config:
        """One network for all six modalities, on a shallower trunk at a quarter of the size; for an hour and three quarters of two CPU cores."""
        return replace(cls(), modalities=MODALITIES, side=128, specimens=2400, halvings=2, outer_features=32, features=96, growth=48, dense_layers=4,
                       dense_blocks=2, groups=3, discriminator_base=16, loss_weights="C", steps=48_000, pixel_steps=47_200, learning_rate=7e-4, epoch=3_000,
                       rate_decay=0.8, precision="auto", checkpoint_every=1000, validate_every=2000, validation_images=60)  # fmt: skip

    @classmethod
    def tiny(cls) -> Config:
        """For tests: seconds."""
        return replace(cls(), modalities=("hrstem", "lrtem"), side=64, specimens=8, features=16, outer_features=16, growth=8, dense_layers=3,
                       dense_blocks=2, groups=2, discriminator_base=4, steps=200, pixel_steps=150, learning_rate=2e-3, epoch=100, ema_decay=0.95,
                       checkpoint_every=50, validate_every=100, validation_images=4)  # fmt: skip
