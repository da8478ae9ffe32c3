"""SEMNet: denoising and x2 super-resolution of SEM micrographs with a small residual-in-residual dense network."""

from common.papers import Paper, lazy

from .config import Config, Degradation

PAPER = Paper(
    name="semnet",
    title="SEM denoising and x2 super-resolution",
    citation="SEMNet (abstract), Microscopy and Microanalysis, 2024",
    scale=2,
    presets={"paper": Config.paper(), "small": Config.small(), "tiny": Config.tiny()},
    build_generator=lazy("paper_semnet.generator:build_generator"),
    build_discriminator=lambda config: None,
    statistics=lazy("common.data:grey_scale"),
    prepare=lazy("common.data:to_unit_range"),
    finish=lazy("common.data:from_unit_range"),
    halo=lazy("paper_semnet.generator:receptive_radius"),
    multiple=1,
    symmetries=("flip_rows",),  # a scan mirrored along its fast axis is not a scan
    acquire=lazy("paper_semnet.data:acquire"),
    classical=lazy("paper_semnet.data:classical"),
    train=lazy("paper_semnet.train:train_semnet"),
    evaluate=lazy("paper_semnet.evaluate:evaluate_semnet"),
    samples=lazy("paper_semnet.data:samples"),
)

__all__ = ["PAPER", "Config", "Degradation"]
