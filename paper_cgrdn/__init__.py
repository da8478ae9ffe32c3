"""CGRDN: restoring single-shot TEM, STEM and SEM images with a concatenated grouped residual dense network."""

from common.papers import Paper, lazy

from .config import MULTIPLE, Config

PAPER = Paper(
    name="cgrdn",
    title="Restoring TEM, STEM and SEM images from all distortions of a single shot",
    citation="I. Lobato, T. Friedrich, S. Van Aert, Deep convolutional neural networks to restore single-shot electron microscopy images, "
    "npj Computational Materials 10 (2024), doi:10.1038/s41524-023-01188-0",
    scale=1,
    presets={"paper": Config.paper(), "small": Config.small(), "tiny": Config.tiny()},
    build_generator=lazy("paper_cgrdn.generator:build_generator"),
    build_discriminator=lazy("paper_cgrdn.discriminator:build_discriminator"),
    statistics=lazy("paper_cgrdn.data:statistics"),
    prepare=lazy("paper_cgrdn.data:prepare"),
    finish=lazy("paper_cgrdn.data:finish"),
    halo=lazy("paper_cgrdn.generator:receptive_radius"),
    multiple=MULTIPLE,
    symmetries=("flip_rows",),  # a scan mirrored along its fast axis is not a scan
    acquire=lazy("paper_cgrdn.data:acquire"),
    classical=lazy("paper_cgrdn.data:classical"),
    train=lazy("paper_cgrdn.train:train_cgrdn"),
    evaluate=lazy("paper_cgrdn.evaluate:evaluate_cgrdn"),
    samples=lazy("paper_cgrdn.data:samples"),
)

__all__ = ["PAPER", "Config"]
