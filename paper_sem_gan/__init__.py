"""SEM-GAN: x2 resolution enhancement of SEM micrographs with a U-Net trained adversarially on registered pairs of scans."""

from common.papers import Paper, lazy

from .config import Config

PAPER = Paper(
    name="sem_gan",
    title="SEM x2 super-resolution with a GAN, from a scan at half the magnification",
    citation="de Haan et al., Resolution enhancement in scanning electron microscopy using deep learning, Scientific Reports 9, 12050 (2019)",
    scale=2,
    presets={"paper": Config.paper(), "small": Config.small(), "tiny": Config.tiny()},
    build_generator=lazy("paper_sem_gan.generator:build_generator"),
    build_discriminator=lazy("paper_sem_gan.discriminator:build_discriminator"),
    statistics=lazy("common.data:grey_scale"),
    prepare=lazy("paper_sem_gan.data:prepare"),
    finish=lazy("common.data:from_unit_range"),
    halo=lazy("paper_sem_gan.generator:receptive_radius"),
    multiple=8,  # four halvings of the upsampled image
    symmetries=("flip_rows",),  # a scan mirrored along its fast axis is not a scan
    acquire=lazy("paper_sem_gan.data:acquire"),
    classical=lazy("paper_sem_gan.data:classical"),
    train=lazy("paper_sem_gan.train:train_sem_gan"),
    evaluate=lazy("paper_sem_gan.evaluate:evaluate_sem_gan"),
    samples=lazy("paper_sem_gan.data:samples"),
)

__all__ = ["PAPER", "Config"]
