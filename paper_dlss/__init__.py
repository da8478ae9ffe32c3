"""DLSS-STEM: scanning transmission electron micrographs from scans that probed only every s-th pixel, by a two-stage convolutional network."""

from common.papers import Paper, lazy

from .config import Config

_at_step = lazy("paper_dlss.data:at_step")


def _without_step(*arguments):
    raise ValueError("dlss needs the scan step: use PAPER.scaled(step, config)")


def _scan_steps(config: Config) -> tuple[int, ...]:
    if config.network == "one_stage":
        raise ValueError("dlss: the one-stage network takes scans of 103 x 103 points only, so it cannot restore others; use a two-stage one")
    return config.scan_steps


PAPER = Paper(
    name="dlss",
    title="STEM supersampling: full micrographs from sparse scans",
    citation="J. M. Ede, Deep learning supersampled scanning transmission electron microscopy, arXiv:1910.10467 (2019)",
    scale=None,  # the scan step
    presets={"paper": Config.paper(), "legacy_code": Config.legacy_code(), "one_stage": Config.one_stage(), "small": Config.small(), "tiny": Config.tiny()},
    build_generator=lazy("paper_dlss.generator:build_generator"),
    build_discriminator=lazy("paper_dlss.discriminator:build_discriminator"),
    statistics=_without_step,
    prepare=_without_step,
    finish=_without_step,
    halo=_without_step,
    multiple=32,  # of the infilled image: five halvings; `at_step` counts scan points
    symmetries=("flip_rows",),  # a scan mirrored along its fast axis is not a scan
    acquire=_without_step,
    classical=_without_step,
    train=lazy("paper_dlss.train:train_dlss"),
    evaluate=lazy("paper_dlss.evaluate:evaluate_dlss"),
    samples=lazy("paper_dlss.data:samples"),
    at_step=lambda step: _at_step(PAPER, step),
    scan_steps=_scan_steps,
)

__all__ = ["PAPER", "Config"]
