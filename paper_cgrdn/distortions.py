"""The chain that turns a clean image into a training pair.

`python -m paper_cgrdn.distortions --out sheet.png` draws every distortion of a modality alone, to be looked at before a training.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.specimens import simulate
from common.specimens.base import log_uniform

from . import camera, postprocessing, scanning
from .config import Modality
from .recipes import RECIPES, Recipe, TemRecipe
from .steps import CAMERA, SCAN, Frame, transfer

_STORING = ("warp", "blur", "binning", "overlays")


@dataclass(frozen=True)
class Pair:
    """One training pair. Both images are whole uint16 codes held as float32, on one scale; the least of the pair is 0.

    distorted, target: (height, width) float32.
    draws: (step, numbers) of every step that happened, in order; "codes" tells how to return to electrons per pixel, counts = code / scale + offset.
    """

    distorted: np.ndarray
    target: np.ndarray
    draws: tuple[tuple[str, dict], ...]


def optional_steps(recipe: Recipe) -> tuple[str, ...]:
    """Names of the steps that `distort` can be limited to with `only`, in their order."""
    first = ("mtf", *CAMERA) if isinstance(recipe, TemRecipe) else ("edge_brightening", "probe_blur", "displacement", "interlacing", *SCAN)
    return tuple(name for name in (*first, *_STORING) if hasattr(recipe, f"{name}_probability"))


def distort(
    image: np.ndarray,
    recipe: Recipe,
    rng: np.random.Generator,
    dose: float | None = None,
    only: Collection[str] | None = None,
    identity: bool = True,
    warp: bool = True,
) -> Pair:
    """A distorted image and its target, both from one clean image; a function of the generator's state alone.

    image: (height, width) float32, >= 0, mean about 1: the expected signal per pixel. The target is the dose times this image as the optics and, in TEM, the
    detector's MTF (unless `mtf_in_target` is False) leave it; in scans it is shifted by the part of the probe's displacement that is linear over the frame.
    dose: electrons per pixel; drawn where None. only: of `optional_steps`, those that happen, each for certain; nothing else happens but counting, and no
    identity. identity=False: no pair without distortion. warp=False: the frame is not resampled.
    ValueError for an image that cannot be one, or an unknown step.
    """
    unknown = set(only or ()) - set(optional_steps(recipe))
    if unknown:
        raise ValueError(f"unknown steps {', '.join(sorted(unknown))}; known are {', '.join(optional_steps(recipe))}")
    image = np.ascontiguousarray(image, np.float32)
    if image.ndim != 2 or not np.isfinite(image).all() or image.min() < 0:
        raise ValueError(f"expected one finite image >= 0, got shape {image.shape}")
    frame = Frame(recipe, rng, float(log_uniform(rng, *recipe.dose) if dose is None else dose), image.shape, only)
    if only is None and rng.random() < recipe.identity_probability and identity:
        frame.record("identity", electrons=frame.dose)
        return _stored(frame.dose * image, frame.dose * image, frame)
    tem = isinstance(recipe, TemRecipe)
    expected, target = _camera_signal(image, frame) if tem else _scan_signal(image, frame)
    # A generator of its own: how many numbers Poisson's takes hangs on the last bit of what is expected, which differs between processors.
    x, y = camera.counting(expected, np.random.default_rng(rng.integers(2**63))), target
    frame.record("counting", electrons=frame.dose)
    for name, step in (CAMERA if tem else SCAN).items():
        if frame.happens(name):
            x, numbers = step(x, frame)
            frame.record(name, **numbers)
    return _stored(*_postprocessed(x, y, frame, warp), frame)


def _camera_signal(image: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts of x, and the target: the same (T1), or what it was before the detector's transfer function."""
    clean = image
    if frame.happens("mtf"):
        numbers = transfer(frame)
        image = np.maximum(camera.filtered(image, camera.mtf(image.shape, **numbers)), 0)
        frame.record("mtf", **numbers)
    dose = np.float32(frame.dose)
    return dose * image, dose * (image if frame.recipe.mtf_in_target else clean)


def _scan_signal(image: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts of x, and the target, which only the linear part of the displacement shifts (S1, S2, S8, S10)."""
    r = frame.recipe
    if frame.happens("edge_brightening"):
        amplitude = frame.uniform(r.edge_brightening)
        image = scanning.edge_brightening(image, amplitude)
        frame.record("edge_brightening", amplitude=amplitude)
    if frame.happens("probe_blur"):
        sigma = frame.uniform(r.probe_blur)
        image = scanning.probe_blur(image, sigma)
        frame.record("probe_blur", sigma=sigma)
    share = frame.uniform(r.flyback)
    frame.flyback = frame.shape[1] * share / (1 - share)
    dy, dx = np.zeros((2, *frame.shape), np.float32)
    if frame.happens("displacement"):
        dy, dx = _displacement(frame)
    if frame.happens("interlacing"):  # where the probe is, before any electron is counted: a row shifted later would have smoother noise than its neighbours
        offset = frame.uniform(r.interlacing)
        dx = dx + scanning.interlacing(frame.shape[0], offset)
        frame.record("interlacing", offset=offset)
    image = np.float32(frame.dose) * image
    if not (dy.any() or dx.any()):
        return image, image
    return scanning.scan_distortion(image, dy, dx), scanning.scan_distortion(image, scanning.linear_part(dy), scanning.linear_part(dx))


def _displacement(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Vertical and horizontal displacements of the probe, (height, width) each; their rows' means are recorded."""
    r, rng = frame.recipe, frame.rng
    length, direction = frame.uniform((0, r.drift)), frame.uniform((0, 2 * np.pi))
    drift = length * np.sin(direction), length * np.cos(direction)
    jitter, vertical, count = frame.log(r.jitter), frame.uniform(r.vertical), int(rng.integers(r.waves + 1))
    row_constant = bool(rng.random() < r.row_constant_probability)
    fields = [
        scanning.displacement(frame.shape, along, deviation, count, frame.flyback, row_constant, rng)
        for along, deviation in zip(drift, (vertical * jitter, jitter), strict=True)
    ]
    means = {name: d.mean(1) for name, d in zip(("dy", "dx"), fields, strict=True)}
    frame.record("displacement", drift=drift, jitter=jitter, vertical=vertical, waves=count, row_constant=row_constant, flyback=frame.flyback, **means)
    return tuple(fields)


def _postprocessed(x: np.ndarray, y: np.ndarray, frame: Frame, warp: bool) -> tuple[np.ndarray, np.ndarray]:
    """Resampling, smoothing, binning and overlays. The border is filled after x is smoothed, or smoothing would carry noise into it."""
    r, rng, outside = frame.recipe, frame.rng, None
    if frame.happens("warp") and warp:
        numbers = {"angle": frame.uniform(r.angle), "scale": frame.log(r.scale), "perspective": frame.uniform(r.perspective, 2)}
        interpolation, border = (str(rng.choice(list(kinds))) for kinds in (postprocessing.INTERPOLATION, postprocessing.BORDERS))
        value = float(postprocessing.BORDERS[border](y))
        x, y, outside = postprocessing.warp(x, y, postprocessing.warp_matrix(frame.shape, **numbers), interpolation)
        frame.record("warp", **numbers, interpolation=interpolation, border=border, value=value)
    if frame.happens("blur"):
        sigma = frame.uniform(r.blur)
        x = postprocessing.blur(x, sigma)
        frame.record("blur", sigma=sigma)
    if frame.happens("binning"):
        x = postprocessing.binning(x)
        frame.record("binning")
    if outside is not None:
        x, y = postprocessing.fill(x, y, outside, value)
    for _ in range(frame.up_to(r.overlays) if frame.happens("overlays") else 0):
        numbers, value = _overlay(rng), rng.choice((0.0, rng.random(), 1.0)) * y.max()
        x, y = postprocessing.fill(x, y, postprocessing.overlay(frame.shape, **numbers), value)
        frame.record("overlays", **numbers, value=value)
    return x, y


def _overlay(rng: np.random.Generator) -> dict:
    """Numbers of one annotation."""
    label = "".join(rng.choice(list(postprocessing.GLYPHS), rng.integers(3, 8)))
    kind = str(rng.choice(postprocessing.OVERLAYS))
    return {"kind": kind, "row": rng.random(), "column": rng.random(), "size": rng.uniform(0.1, 0.5), "thickness": int(rng.integers(1, 4)), "label": label}


def _stored(x: np.ndarray, y: np.ndarray, frame: Frame) -> Pair:
    """The pair in codes."""
    highest = frame.uniform(frame.recipe.highest)
    x, y, offset, scale = postprocessing.codes(x, y, highest)
    frame.record("codes", offset=offset, scale=scale)
    return Pair(x, y, tuple(frame.draws))


def contact_sheet(out: Path, modality: Modality = "hrstem", seed: int = 0, dose: float = 100.0) -> None:
    """Draw every distortion of a modality alone beside its target, and three whole draws, to be looked at before a training.

    Args:
        out: the picture to write, such as sheet.png.
        modality: whose recipe.
        seed: of the specimen and of the draws.
        dose: electrons per pixel.
    """
    from matplotlib.figure import Figure

    recipe = RECIPES[modality]
    image = simulate("lattice" if modality.startswith("hr") else "powder", seed, (256, 256)).image
    rows = [("counting", ())] + [(name, (name,)) for name in optional_steps(recipe)] + [("whole chain", None)] * 3
    figure = Figure(figsize=(7.5, 3.2 * len(rows)), layout="constrained")
    for k, (axes, (name, only)) in enumerate(zip(figure.subplots(len(rows), 2), rows, strict=True)):
        pair = distort(image / image.mean(), recipe, np.random.default_rng((seed, k)), None if only is None else dose, only, identity=False)
        low, high = np.quantile(np.stack((pair.distorted, pair.target)), (0.001, 0.999))
        for axis, picture in zip(axes, (pair.target, pair.distorted), strict=True):
            axis.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel(name)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(contact_sheet, "python -m paper_cgrdn.distortions", tensorflow=False))
