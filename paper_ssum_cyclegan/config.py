"""Every number of the SSUM CycleGAN, with its reason. P is the paper's text, CG the public CycleGAN code; see this package's README."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from common.papers import require


@dataclass(frozen=True)
class Config:
    """SSUM CycleGAN: networks, losses, data, optimisation. The defaults are what the paper says, and CycleGAN's where it says nothing."""

    # data
    pairs: int = 704  # registered pairs (P); so many simulated chips, of 512 x 512 pixels each, where no folder is given
    side: int = 256  # pixels of a patch (P)
    pixel_size: float = 20.0  # nm, of simulated chips: patches of 5 um
    misalignment: float = 0.0  # pixels, the largest displacement between the two views of a simulated chip; the paper aligns by hand
    paired: bool = True  # both images of a pair in the same step, in the same position (P: registered pairs); else each domain is drawn on its own
    rotations: tuple[float, ...] = (0.0, 30.0, 45.0, 60.0, 90.0)  # degrees, beside both flips (P)
    scales: tuple[float, ...] = (0.8, 1.0, 1.25)  # "various sizes" (P); the sizes are ours
    # generators
    network: Literal["ssum", "resnet", "unet"] = "ssum"  # the others are what it is compared with: CycleGAN's and pix2pix' generators
    width: int = 64  # channels at full size (P)
    trunk: int = 64  # channels of the residual blocks (P); 256 in CG
    blocks: int = 9  # (P)
    norm: Literal["batch", "instance"] = "batch"  # of the generators (P)
    rectifier: Literal["leaky", "prelu"] = "leaky"  # LeakyReLU is named (P), slope 0.2 chosen; "adaptively learn the parameters of the rectifier" is PReLU
    dropout: float = 0.5  # within each block, in training only; used (P), its rate and place are CG's
    long_skip: bool = True  # around the residual blocks, with one more convolution: "skip connections" (P), as in the SRGAN generator that the text describes
    normalised_upsampling: bool = False  # SRGAN's sub-pixel convolutions have a bias and are not normalised, CycleGAN's transposed ones are
    upsampling: Literal["subpixel", "resize"] = "subpixel"  # two trained sub-pixel convolutions (P)
    # discriminators
    discriminator_base: int = 64  # (P)
    literal_strides: bool = False  # all of "the first four layers" at stride 2 (P): sees 94 pixels, while the paper says 70
    conditional: bool = False  # they see what was converted beside what it became, as in pix2pix (Isola et al. 2017)
    # losses
    adversarial: Literal["log", "least_squares"] = "log"  # eq. 1 (P)
    adversarial_weight: float = 1.0  # of both generators (P); 0, with cycle_weight 0, leaves the losses on pairs alone, to see what the others add
    cycle_weight: float = 10.0  # lambda; not in the text, CG's
    identity_weight: float = 0.0  # times lambda; not in the text, 0.5 in CG
    shift_l1_weight: float = 0.0  # L1 at the best shift of up to `shift` pixels; ours, for pairs aligned by hand
    shift: int = 4  # 0 is plain L1. More, alone, leaves all that is converted free to be displaced alike (by 3 pixels, seen): give lowres_l1_weight with it
    lowres_l1_weight: float = 0.0  # L1 between means of 4 x 4 pixels; ours
    registration_weight: float = 0.0  # L1 behind a learned registration (RegGAN, 20 there); ours
    smoothness_weight: float = 10.0  # of its flow (RegGAN)
    pool: int = 50  # former outputs that the discriminators are shown again (CG); 0 for none
    # optimisation; nothing of it is in the text
    steps: int = 35_200  # 200 epochs of 704 pairs (CG: epochs)
    constant_steps: int = 17_600  # at the full rate (CG: 100 epochs)
    falling_steps: int = 17_600  # then, linearly to 0 (CG: 100 epochs)
    batch: int = 4  # statistics of a batch of one are not those used afterwards; CG has 1, with instance normalisation
    learning_rate: float = 2e-4
    beta_1: float = 0.5
    ema_decay: float = 0.0  # of the average of the generator's weights, which is the product; 0 is the generator itself
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16", "auto"] = "float32"
    # run
    seed: int = 0
    checkpoint_every: int = 1000
    validate_every: int = 2000
    validation_pairs: int = 16

    def __post_init__(self):
        counts = ("pairs", "width", "trunk", "discriminator_base", "steps", "constant_steps", "falling_steps", "batch")
        require(self, (*counts, "checkpoint_every", "validate_every", "validation_pairs"), "at least 1", lambda value: value >= 1)
        require(self, ("blocks", "shift", "pool"), "at least 0", lambda value: value >= 0)
        require(self, ("pixel_size", "learning_rate"), "a positive number", lambda value: 0 < value < math.inf)
        terms = ("adversarial", "cycle", "identity", "shift_l1", "lowres_l1", "registration", "smoothness")
        weights = (*(f"{term}_weight" for term in terms), "misalignment")
        require(self, weights, "zero or a positive number", lambda value: 0 <= value < math.inf)
        require(self, ("dropout", "beta_1", "ema_decay"), "in [0, 1)", lambda value: 0 <= value < 1)
        require(self, ("seed",), "in 0 .. 2^32 - 1", lambda value: 0 <= value < 2**32)
        require(self, ("side",), "at least 32 and a multiple of 4", lambda value: value % 4 == 0 and value >= 32)
        require(self, ("rotations", "scales"), "at least one", bool)
        require(self, ("scales",), "positive numbers", lambda value: min(value) > 0)
        if self.steps > self.constant_steps + self.falling_steps:
            raise ValueError(
                f"the learning rate is 0 after constant_steps {self.constant_steps} and falling_steps {self.falling_steps}, got steps {self.steps}; raise them"
            )
        if self.network == "unet" and self.side & (self.side - 1):
            raise ValueError(f"the U-Net takes patches whose side is a power of 2, got side {self.side}")
        if not self.paired and (self.shift_l1_weight or self.lowres_l1_weight or self.registration_weight or self.conditional):
            raise ValueError(
                "losses on pairs need pairs: with --no-paired give --shift-l1-weight 0 --lowres-l1-weight 0 --registration-weight 0 --no-conditional"
            )
        if self.shift >= self.side // 2:
            raise ValueError(f"shift must be less than half the side of a patch, got {self.shift} and {self.side}")

    @classmethod
    def paper(cls) -> Config:
        """`ssum64`: the widths of the text, 1,078,657 parameters in each generator."""
        return cls()

    @classmethod
    def reference(cls) -> Config:
        """`resnet9_256`: the same text read as CycleGAN's own widths, with that code's losses and batch.

        12,466,305 parameters in each generator; 12,476,801 with batch normalisation.
        """
        return replace(cls(), trunk=256, long_skip=False, normalised_upsampling=True, norm="instance", dropout=0.0, adversarial="least_squares",
                       identity_weight=0.5, batch=1, steps=140_800, constant_steps=70_400, falling_steps=70_400)  # fmt: skip

    @classmethod
    def small(cls) -> Config:
        """Narrow generators that also learn from the pairs, by L1, which simulated chips fit; for an hour on two CPU cores.

        With instance normalisation, for it tells far better than batch normalisation which of two materials is the raised one (README).
        """
        return replace(cls(), pairs=400, side=128, width=24, trunk=48, blocks=6, norm="instance", dropout=0.0, discriminator_base=24, shift_l1_weight=20.0,
                       shift=0, batch=2, learning_rate=4e-4, steps=7_000, constant_steps=3_500, falling_steps=3_500, ema_decay=0.999,
                       precision="auto")  # fmt: skip

    @classmethod
    def tiny(cls) -> Config:
        """For tests: seconds."""
        return replace(cls(), pairs=4, side=64, width=16, trunk=16, blocks=3, discriminator_base=4, steps=100, constant_steps=50, falling_steps=50,
                       checkpoint_every=50, validate_every=50, validation_pairs=2)  # fmt: skip
