"""SSUM CycleGAN: optical images from a scanning microsphere superlens to the look of a scanning electron microscope."""

from common.papers import Paper, lazy

from .config import Config

PAPER = Paper(
    name="ssum_cyclegan",
    title="Scanning-superlens optical images to the look and depth of field of an SEM",
    citation="H. Sun et al., Deep learning-driven conversion of scanning superlens microscopy to high depth-of-field SEM-like imaging, "
    "Microsystems & Nanoengineering (2025), doi:10.1038/s41378-025-01060-9",
    scale=1,
    presets={"paper": Config.paper(), "reference": Config.reference(), "small": Config.small(), "tiny": Config.tiny()},
    build_generator=lazy("paper_ssum_cyclegan.generator:build_generator"),
    build_discriminator=lazy("paper_ssum_cyclegan.discriminator:build_discriminator"),
    statistics=lazy("paper_ssum_cyclegan.data:statistics"),
    prepare=lazy("paper_ssum_cyclegan.data:prepare"),
    finish=lazy("paper_ssum_cyclegan.data:finish"),
    halo=lazy("paper_ssum_cyclegan.generator:receptive_radius"),
    multiple=8,  # two halvings, and two pixels at least between them to be mirrored
    symmetries=("flip_rows", "flip_columns", "transpose"),  # a camera has no fast axis
    acquire=lazy("paper_ssum_cyclegan.data:acquire"),
    classical=lazy("paper_ssum_cyclegan.data:classical"),
    train=lazy("paper_ssum_cyclegan.train:train_ssum_cyclegan"),
    evaluate=lazy("paper_ssum_cyclegan.evaluate:evaluate_ssum_cyclegan"),
    samples=lazy("paper_ssum_cyclegan.data:samples"),
)

__all__ = ["PAPER", "Config"]
