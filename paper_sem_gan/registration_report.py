"""Registering files: aligned TIFFs, a report and a picture of each pair. The command is `python -m paper_sem_gan.registration LR HR --out DIR`."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import tyro

from common.__main__ import first_line
from common.data import image_files
from common.micrograph import Micrograph, load_micrograph, save_micrograph
from common.training import write_atomically

from .elastic import identity, warp
from .registration import Pair, apply_affine, nominal_map, register

SQUARE = 32  # px of the checkerboard
DETAIL = 256  # px shown of it


def register_files(low: tyro.conf.Positional[Path], high: tyro.conf.Positional[Path], out: Path, scale: float | None = None) -> None:
    """Register pairs of scans: OUT/low and OUT/high get the accepted ones as TIFF, ready for `train sem_gan --pairs OUT`; OUT/figures a picture of each;
    OUT/report.json what was found, rejected pairs and their reasons included.

    Args:
        low: a low-magnification scan, or a folder of them.
        high: the high-magnification scan of the same field, or a folder of equally named files.
        out: where to write; existing results of the same names are replaced.
        scale: pixels of the high scan on one of the low scan, along one axis; where it is not given, the ratio of the pixel sizes, or 2 where a file has none.
    """
    if scale is not None and not 1 <= scale < 100:
        raise ValueError(f"scale is {scale}; give the pixels of the high scan on one of the low scan, from 1 on")
    reports, pairs = {}, _pairs(low, high)
    for name, low_path, high_path in pairs:
        files = {"low": str(low_path), "high": str(high_path)}
        try:
            first, second = load_micrograph(low_path), load_micrograph(high_path)
            known = first.pixel_size and second.pixel_size
            ratio = scale if scale is not None else first.pixel_size / second.pixel_size if known else 2.0
            pair = register(first.data, second.data, ratio)
        except (ValueError, OSError) as error:
            if len(pairs) == 1:
                raise
            reports[name] = files | {"accepted": False, "reason": first_line(error)}
            print(f"{name}: rejected: {first_line(error)}")
            continue
        _write(out, name, pair, first, second, ratio)
        if pair.report["accepted"] and round(ratio) != 2:
            warnings.warn(f"{name}: magnifications differ by {ratio:.3g}; SEM-GAN trains on pairs that differ by two", stacklevel=2)
        reports[name] = files | {"nominal_scale": ratio} | pair.report
        write_atomically(out / "report.json", json.dumps(reports, indent=2))
        print(f"{name}: {_line(pair)}")
    if not any(report["accepted"] for report in reports.values()):
        reasons = f"{next(iter(reports.values()))['reason']}" if len(reports) == 1 else f"none of {len(reports)} pairs, see {out / 'report.json'}"
        raise ValueError(f"nothing could be registered: {reasons}")


def _pairs(low: Path, high: Path) -> list[tuple[str, Path, Path]]:
    """(name, low, high) of one pair of files, or of two folders whose files have equal names up to the extension."""
    if not (low.is_dir() and high.is_dir()):
        return [(low.stem, low, high)]
    found = [{path.stem: path for path in image_files(folder)} for folder in (low, high)]
    for folder, files in zip((low, high), found, strict=True):
        if len(files) < len(image_files(folder)):
            raise ValueError(f"{folder} holds files that differ by their extension only; keep one of each")
    alone = sorted(found[0].keys() ^ found[1].keys())
    if alone:
        raise ValueError(f"{', '.join(alone[:5])} {'are' if alone[1:] else 'is'} in only one of {low} and {high}; name both scans of a pair alike")
    return [(name, found[0][name], found[1][name]) for name in found[0]]


def _line(pair: Pair) -> str:
    report = pair.report
    if not report["accepted"]:
        return f"rejected: {report['reason']}"
    return (
        f"{pair.high.shape[0]} x {pair.high.shape[1]} px, rotation {report['rotation_deg']:+.2f} deg, scale {report['scale']:.4f}, "
        f"shift {report['shift'][0]:+.1f}, {report['shift'][1]:+.1f} px, drift {report['elastic_p95']:.1f} px, "
        f"left {report['residual_p95']:.2f} px, correlation {report['ncc_before']:.2f} -> {report['ncc_after']:.2f}"
    )


def _write(out: Path, name: str, pair: Pair, low: Micrograph, high: Micrograph, scale: float) -> None:
    """Both images and the picture; of a rejected pair nothing is left, not even from an earlier run."""
    paths = out / "low" / f"{name}.tif", out / "high" / f"{name}.tif", out / "figures" / f"{name}.png"
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    if not pair.report["accepted"]:
        return
    aligned, dtype = pair.high, high.data.dtype
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        aligned = np.clip(np.rint(aligned.astype(np.float64)), limits.min, limits.max).astype(dtype)
    size = low.pixel_size / round(scale) if low.pixel_size else high.pixel_size
    save_micrograph(paths[0], low.replace(data=pair.low))
    save_micrograph(paths[1], high.replace(data=aligned, pixel_size=size))
    write_atomically(paths[2], picture(pair, low.data.shape, high.data, scale))


def picture(pair: Pair, low_shape: tuple[int, int], high: np.ndarray, scale: float) -> bytes:
    """PNG: both images, checkerboards of them before and after, the elastic part of the map, and its strength.

    low_shape: of the low scan as recorded; high: the high scan as recorded, (height, width).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shape = pair.upsampled.shape
    own = identity(shape)
    corner = round(scale) * np.array(pair.report["low_crop"][:2])
    before = warp(high.astype(np.float32), apply_affine(nominal_map(low_shape, high.shape, scale), own + corner))
    top, left = ((n - min(n, DETAIL)) // 2 for n in shape)
    detail = np.s_[top : top + DETAIL, left : left + DETAIL]
    odd = (own // SQUARE).sum(-1) % 2 == 1
    first, unaligned, second = ((image - image.mean()) / max(float(image.std()), 1e-12) for image in (pair.upsampled, before, pair.high))
    design = np.column_stack([own.reshape(-1, 2), np.ones(own.size // 2)])
    affine, *_ = np.linalg.lstsq(design, pair.map.reshape(-1, 2).astype(np.float64), rcond=None)
    drift = pair.map - (design @ affine).reshape(pair.map.shape)
    figure = Figure(figsize=(15, 9.5), layout="constrained")
    axes = figure.subplots(2, 3)
    images = {
        "low, Lanczos-upsampled": first,
        "high, registered": second,
        "": None,
        f"before: correlation {pair.report['ncc_before']:.2f}": np.where(odd, first, unaligned)[detail],
        f"after: correlation {pair.report['ncc_after']:.2f}": np.where(odd, first, second)[detail],
        "low minus high, after": (first - second)[detail],
    }
    for axis, (title, image) in zip(axes.flat, images.items(), strict=True):
        axis.set(title=title, xticks=[], yticks=[])
        if image is not None:
            axis.imshow(image, "gray", vmin=-2.5, vmax=2.5, interpolation="nearest")
    step = max(1, min(shape) // 24)
    rows, columns = (np.arange(step // 2, n, step) for n in shape)
    vectors = drift[rows[:, None], columns]
    field = axes[0, 2]
    field.set(title=f"drift, 95th percentile {pair.report['elastic_p95']:.2f} px; arrows x 8")
    shown = field.imshow(np.linalg.norm(drift, axis=-1), "viridis")
    field.quiver(columns, rows, vectors[..., 1], vectors[..., 0], angles="xy", scale_units="xy", scale=1 / 8, color="w", width=0.003)
    figure.colorbar(shown, ax=field, label="px of the high scan")
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()
