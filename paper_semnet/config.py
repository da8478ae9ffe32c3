"""Every number of SEMNet, with its reason. [A] is the abstract; other sources are named in the paper's README."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from common.papers import require


@dataclass(frozen=True)
class Degradation:
    """How a low-quality image is made from a high-quality one. Ranges are uniform unless a comment says otherwise."""

    passes: int = 2  # second-order degradation, as in the lineage's extended model (KAIR); the abstract gives no order
    blur_probability: float = 1.0  # every pass blurs (KAIR)
    anisotropic_probability: float = 0.5  # half of the blurs are elliptical (KAIR)
    kernel_sizes: tuple[int, int] = (7, 25)  # odd kernel sizes in pixels (KAIR: 2 * U{2..11} + 3)
    anisotropic_variance: tuple[float, float] = (0.0, 6.0)  # px^2 along each axis (KAIR: U(0, 4 + scale))
    isotropic_sigma: tuple[float, float] = (0.0, 2.4)  # px (KAIR: U(0, 2 + 0.2 scale))
    resize_up_probability: float = 0.2  # "up-downscaling" [A], shares of KAIR
    resize_down_probability: float = 0.7
    resize_up: tuple[float, float] = (1.0, 2.0)
    resize_down: tuple[float, float] = (0.25, 1.0)  # KAIR: 0.5 / scale
    resize_methods: tuple[str, ...] = ("bilinear", "bicubic", "area")  # none of them antialiased, as in OpenCV
    gaussian_probability: float = 1.0  # both noises are central to the abstract
    gaussian_sigma: tuple[int, int] = (2, 25)  # integers, in units of 1/255 [A]
    poisson_probability: float = 0.5  # between KAIR's 0.1 and always; the bicubic baseline is 0.5 dB apart
    poisson_log10: tuple[float, float] = (2.0, 4.0)  # log10 of the expected count at white [A]: 1e2..1e4
    shuffle_probability: float = 0.1  # all operations of all passes in random order (KAIR)
    sharpen_probability: float = 0.0  # unsharp-masked target; off: it would invent contrast
    jpeg_probability: float = 0.0  # quality 30..95; off: microscopes do not write JPEG
    quantise: bool = True  # the result is an 8-bit image

    def __post_init__(self):
        require(self, [f.name for f in fields(self) if f.name.endswith("_probability")], "in [0, 1]", lambda value: 0 <= value <= 1)
        require(self, ("passes",), "at least 1", lambda value: value >= 1)
        pairs = ("kernel_sizes", "anisotropic_variance", "isotropic_sigma", "resize_up", "resize_down", "gaussian_sigma", "poisson_log10")
        require(self, pairs, "two finite numbers, the smaller first", lambda value: -math.inf < value[0] <= value[1] < math.inf)


@dataclass(frozen=True)
class Config:
    """SEMNet: network, losses, optimisation and data. The defaults are the paper."""

    # network
    blocks: int = 6  # RRDBs [A]
    features: int = 64  # not stated; the lineage's width
    growth: int = 32  # not stated; the lineage's growth
    channels: int = 1  # micrographs are grey; 3 replicates the grey level
    tail: Literal["94", "95"] = "94"  # 94 convolutions [A]; 95 adds the lineage's high-resolution convolution
    initialiser: Literal["esrgan", "kair"] = "esrgan"
    # losses
    l1_weight: float = 1.0  # [A]
    histogram_weight: float = 0.1  # [A]
    tv_weight: float = 0.01  # [A]
    histogram_kind: Literal["hellinger", "hellinger_sq", "emd"] = "hellinger"  # reference missing in the abstract; see README
    histogram_reduction: Literal["mean", "histogan"] = "mean"
    histogram_bins: int = 64  # HistoGAN
    histogram_tau: float = 0.02  # HistoGAN
    # optimisation
    steps: int = 544_000  # 5.44e5 [A]
    batch: int = 4  # [A]
    learning_rate: float = 1e-4  # [A]
    halve_at: tuple[int, ...] = (200_000, 400_000)  # multiples of 2e5 [A]: the update of that number is the first at the new rate
    adam_epsilon: float = 1e-8  # not stated; the lineage's (Keras' own default is 1e-7)
    ema_decay: float = 0.999  # lineage
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16", "auto"] = "float32"
    # data
    hq_crop: int = 320  # pixels that are degraded together (KAIR)
    lq_patch: int = 72  # pixels the network sees (KAIR); the target is twice as wide
    specimens: int = 1300  # simulated micrographs drawn when no folder is given; the abstract had 1300 SEM images
    degradation: Degradation = field(default_factory=Degradation)
    # bookkeeping
    seed: int = 0
    checkpoint_every: int = 5_000  # lineage
    validate_every: int = 5_000
    validation_images: int = 25  # the abstract's test set has 25

    def __post_init__(self):
        counts = ("blocks", "features", "growth", "channels", "steps", "batch", "hq_crop", "lq_patch", "specimens", "checkpoint_every", "validate_every")
        require(self, counts + ("validation_images",), "at least 1", lambda value: value >= 1)
        require(self, ("learning_rate", "adam_epsilon", "histogram_tau"), "a positive number", lambda value: 0 < value < math.inf)
        require(self, ("l1_weight", "histogram_weight", "tv_weight"), "zero or a positive number", lambda value: 0 <= value < math.inf)
        require(self, ("ema_decay",), "in [0, 1)", lambda value: 0 <= value < 1)
        require(self, ("seed",), "in 0 .. 2^32 - 3", lambda value: 0 <= value < 2**32 - 2)  # seeds of 32 bits; validation and tuning take the next two

    @classmethod
    def paper(cls) -> Config:
        """The abstract's network and schedule: 4,391,617 parameters; estimated at three hours on a large GPU, weeks on a CPU."""
        return cls()

    @classmethod
    def small(cls) -> Config:
        """The shipped weights: the paper's losses and degradation on a narrower network, trained for under two hours on two CPU cores."""
        steps = 16_000
        return replace(
            cls(),
            blocks=2,
            features=48,
            steps=steps,
            learning_rate=4e-4,  # a narrower network and a 34 times shorter schedule want larger steps
            halve_at=tuple(round(steps * share) for share in (200 / 544, 400 / 544)),  # the paper's shares of the schedule
            precision="auto",
            hq_crop=192,  # what lies further from the patch does not reach it
            lq_patch=64,
            checkpoint_every=1_000,
            validate_every=2_000,
        )

    @classmethod
    def tiny(cls) -> Config:
        """Seconds on a CPU: for tests and for the notebook."""
        return replace(
            cls(),
            blocks=1,
            features=16,
            growth=8,
            steps=200,
            learning_rate=2e-3,
            halve_at=(),
            ema_decay=0.95,  # an average over 1000 steps would outlast the run
            hq_crop=128,
            lq_patch=32,
            specimens=8,
            checkpoint_every=50,
            validate_every=100,
            validation_images=2,
        )
