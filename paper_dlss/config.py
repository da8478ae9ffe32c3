"""Every number of DLSS-STEM, with its reason. P is the paper; C54, C68, C69, CM2 and K are the author's scripts; see this package's README."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from common.papers import require


@dataclass(frozen=True)
class Config:
    """DLSS-STEM: sampling, networks, losses, learning policy and schedule. The defaults are the paper's unified network."""

    # sampling
    scan_steps: tuple[int, ...] = (4, 5, 6, 7, 8, 9, 10)  # drawn uniformly per example (unified) [P]; one alone makes an individual network
    side: int = 512  # pixels of a crop [P]
    zeros_in_range: bool = False  # scale samples by a range that always holds mid-grey, as C68 does by a slip
    target_range: Literal["crop", "samples"] = (
        "crop"  # what -1 and 1 mean in targets [P, C68]; "samples": in the input, as in CM2, so that results have its units
    )
    # networks
    network: Literal["two_stage", "one_stage"] = "two_stage"
    inner: tuple[int, ...] = (64, 128, 256, 512, 768)  # channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the side (C54); fewer numbers, fewer halvings
    inner_blocks: int = 6  # residual blocks of three convolutions, at the smallest size (C54)
    outer: int = 32  # channels at full size, twice as many at half (C54)
    outer_blocks: int = 3
    activation: Literal["relu", "leaky"] = "relu"  # [P]; the scripts have leaky ones, 0.1 in three early layers and 0.01
    normalised: Literal["all", "ends"] = "all"  # mean-only normalisation after every convolution but the last [P], or only where the scripts have it
    statistics: Literal["running", "batch", "hybrid"] = "running"  # of the channel means; C68 has "batch"
    momentum: float = 0.99  # of the channel means [P]
    tracked: int | None = 100  # steps in which running means are followed, then frozen; [P] freezes at half (None), which diverges, see README
    biases: bool = False  # [P] has none, the scripts have them in all layers
    upsampling: Literal["transposed", "bilinear"] = "transposed"  # (C54); the legend of the paper's figure says bilinear
    halving: Literal["mean", "decimate"] = "mean"  # bilinear with half-pixel centres; TensorFlow 1 took every other pixel
    skips: bool = False  # the inner network's encoder maps are added to its decoder's of their size; a switch of the scripts that is off (C68)
    residual: bool = False  # the outer network's output is added to its blurred input, so that training starts from an interpolation; ours
    data_initialisation: bool = True  # one pass of uniform noise sets the gains [P]; never executed in the scripts
    # losses
    target: Literal["blurred", "sharp"] = "blurred"  # [P] published both; sharp ones come with the error predictor
    blur_before_halving: bool = True  # of the half-size target [P]; C68 halves first
    loss_scale: float = 200.0  # of the mean squared error in [-1, 1] (C68)
    trainer_loss: float = 1.0  # weight of the inner network's auxiliary loss [P]
    known_pixels: bool | None = None  # probed pixels add no loss; None: with sharp targets only, for the sample is not the blurred target
    coverage: Literal["given", "tracked", "none"] = "given"  # p(c) by the paper's quadratic, or each step's own average of the loss
    coverage_decay: float = 0.99  # of tracked p(c)
    clip_sigma: float = 3.0  # n of adaptive learning rate clipping [P]
    clip_mean: float = 25.0  # start of mu_1 [P]
    clip_square: float = 900.0  # start of mu_2; [P] prints 30, which lies below mu_1^2
    clip_decay: float = 0.999  # [P]
    # error predictor, with sharp targets
    predictor_crops: int = 20  # [P]
    predictor_side: int = 5  # pixels [P]
    predictor_floor: float = 0.1  # epsilon [P]
    predictor_rate: float = 3e-4  # [P]
    # experience replay
    replay: bool = True
    replay_slots: int = 50  # (C68)
    replay_share: float = 0.2  # chance of a replay, and the share of examples worth one [P]
    # adversarial stage: steps beyond twice the plateau
    adversarial_weight: float = 1.0  # times the mean over three discriminators [P]; C68 has 6, C54 has 3
    adversarial_blur: Literal["3x3", "5x5"] = "3x3"  # of the output in L_out [P]; C68 has the target's
    discriminator_head: Literal["sum", "linear"] = "sum"  # (C54); the legend of the paper's figure lists a linear layer
    discriminator_initialiser: Literal["normal", "glorot"] = "normal"  # N(0, 0.03) [P]
    discriminator_base: int = 64  # channels after the first convolution (C54)
    discriminator_rate: float = 1e-4  # [P]
    discriminator_beta: float = 0.5  # beta_1 [P]
    adversarial_rate: float = 1e-4  # of the generator in this stage [P]
    # optimisation
    steps: int = 1_000_000  # [P]; its Table 2 is measured here. 2,000,000 adds the adversarial stage
    plateau: int = 500_000  # steps of a column of Table 1 [P]
    batch: int = 1  # [P]
    learning_rate: float = 3e-4  # [P]
    trainer_rate: float = 2.0  # times the generator's, for the trainer head [P]; the scripts have 1
    beta_falls: bool = True  # beta_1 from 0.9 to 0.5 in the second half [P]; C68 stays at 0.9
    weight_decay: float = 0.0  # of kernels: 1e-5 sum(v^2) / 2 in the one-stage script
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16", "auto"] = "float32"
    ema_decay: float = 0.0  # of the moving average of the weights, which is the product; 0: the last weights [P]
    # data, where no folder is given
    crops: int = 4096  # simulated specimens that crops are drawn from
    # run
    seed: int = 0
    checkpoint_every: int = 10_000
    validate_every: int = 10_000

    def __post_init__(self):
        at_least_one = ("side", "inner_blocks", "outer", "outer_blocks", "predictor_crops", "predictor_side", "replay_slots", "discriminator_base")
        require(self, (*at_least_one, "steps", "plateau", "batch", "crops", "checkpoint_every", "validate_every"), "at least 1", lambda value: value >= 1)
        positive = ("loss_scale", "clip_sigma", "clip_mean", "clip_square", "predictor_floor", "predictor_rate", "discriminator_rate", "adversarial_rate",
                    "learning_rate", "trainer_rate")  # fmt: skip
        require(self, positive, "a positive number", lambda value: 0 < value < math.inf)
        require(self, ("trainer_loss", "adversarial_weight", "weight_decay"), "zero or a positive number", lambda value: 0 <= value < math.inf)
        require(self, ("momentum", "coverage_decay", "clip_decay", "discriminator_beta", "ema_decay"), "in [0, 1)", lambda value: 0 <= value < 1)
        require(self, ("replay_share",), "in (0, 1)", lambda value: 0 < value < 1)
        require(self, ("tracked",), "zero or more", lambda value: value is None or value >= 0)
        require(self, ("seed",), "in 0 .. 2^32 - 1", lambda value: 0 <= value < 2**32)
        require(self, ("scan_steps",), "one or more steps from 2 to 16", lambda value: value and all(2 <= s <= 16 for s in value))
        require(self, ("inner",), "two to five numbers of channels", lambda value: 2 <= len(value) <= 5 and min(value) >= 1)
        require(self, ("side",), "divisible by 32", lambda value: value % 32 == 0)
        if self.clip_square <= self.clip_mean**2:
            raise ValueError(f"clip_square must exceed the square of clip_mean, got {self.clip_square} and {self.clip_mean}")
        if self.network == "one_stage":
            if self.scan_steps != (5,) or self.side != 512:
                raise ValueError("the one-stage network is for scan step 5 and crops of 512 pixels")
            if self.steps > 2 * self.plateau:
                raise ValueError("the one-stage network has no adversarial stage; give at most twice the plateau in steps")
        if self.target == "sharp" and self.batch > 1:
            raise ValueError("sharp targets are weighted image by image, so batch must be 1")

    @classmethod
    def paper(cls) -> Config:
        """The paper's unified network: 106 million parameters, a million steps; weeks on a CPU."""
        return cls()

    @classmethod
    def legacy_code(cls) -> Config:
        """What the published scripts executed (C68), slips included: the published numbers came from it."""
        return replace(cls(), zeros_in_range=True, activation="leaky", normalised="ends", statistics="batch", biases=True, halving="decimate",
                       data_initialisation=False, blur_before_halving=False, trainer_loss=2.0, trainer_rate=1.0, beta_falls=False, adversarial_weight=6.0,
                       adversarial_blur="5x5", discriminator_initialiser="glorot")  # fmt: skip

    @classmethod
    def one_stage(cls) -> Config:
        """The paper's baseline, section on one-stage training: scan step 5 only, 103 x 103 to 512 x 512."""
        return replace(cls(), network="one_stage", scan_steps=(5,), coverage="none", replay=False, steps=100_000, plateau=50_000, batch=16, learning_rate=1e-3,
                       weight_decay=1e-5, checkpoint_every=1000, validate_every=1000)  # fmt: skip

    @classmethod
    def small(cls) -> Config:
        """The shipped weights: the paper's losses, policy and steps on a narrow network and crops of half the side, under an hour on two CPU cores."""
        return replace(cls(), side=256, batch=4, target_range="samples", inner=(32, 40, 48, 72, 104), outer=16, biases=True, skips=True, residual=True,
                       ema_decay=0.999, steps=16_000, plateau=8_000, learning_rate=5e-4, adversarial_rate=2e-4, discriminator_base=16,
                       precision="auto", crops=2048, checkpoint_every=1000, validate_every=1000)  # fmt: skip

    @classmethod
    def tiny(cls) -> Config:
        """For tests: seconds."""
        return replace(cls(), side=64, inner=(8, 8, 12, 12, 16), inner_blocks=1, outer=8, outer_blocks=1, biases=True, discriminator_base=4, crops=16,
                       steps=200, plateau=100, tracked=20, replay_slots=5, learning_rate=1e-3, checkpoint_every=50, validate_every=100)  # fmt: skip
