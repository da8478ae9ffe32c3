"""From the microscopes' files to training pairs: `python -m paper_ssum_cyclegan.preprocess --optical FRAMES --sem SEM.tif --out PAIRS`.

Focus, correction, stitching, registration, a common pixel size, crops; regions of the mosaic, not crops, are dealt out to training, validation and test.
Without an SEM image the mosaic alone: to pick landmarks in, or to be converted.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro

from common.data import image_files
from common.micrograph import Micrograph, load_frames, save_micrograph

from .correction import Correction, normalise
from .data import SCALE
from .focus import all_in_focus
from .registration import LEAST_AGREEMENT, Overlaid, agreement, landmark_affine, refine, register_automatically, resample, rotation, size_ratio
from .stitching import Mosaic, overlapping, stitch

SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
PREVIEW = 2048  # px, longest side of overlay.png
LARGEST_SIZE_ERROR = 0.1  # relative: landmarks that disagree more with the calibrations, or these, are mistaken


def preprocess(
    optical: Path,
    out: Path,
    sem: Path | None = None,
    positions: Path | None = None,
    landmarks: Path | None = None,
    z_stack: bool = False,
    pixel_optical: float | None = None,
    pixel_sem: float | None = None,
    side: int = 512,
    stride: int = 256,
    reduction: int = 2,
    search: int = 16,
    equalise: bool = False,
    refinement: bool = False,
    correction: Annotated[Correction, tyro.conf.arg(name="")] = Correction(),  # noqa: B008
) -> None:
    """Make training pairs: OUT/train, OUT/val and OUT/test get NNNN_optical.tif and NNNN_sem.tif, OUT/mosaic.tif the stitched frames, to be converted by what
    was trained on the pairs: 16 bit, [0, 1] as 0 to 65535, all of one pixel size. OUT/mosaic.png shows the frames before they are reduced, OUT/overlay.png the
    registration, OUT/preprocess.json holds every number. Without an SEM image there is the mosaic alone.

    Args:
        optical: a superlens image, or a folder of frames.
        out: folder for the results; must not hold pairs.
        sem: the SEM image of the same place.
        positions: stage log of the frames, CSV with the columns file, row, column: where each frame's first pixel lies, in optical pixels.
        landmarks: CSV with the columns optical_row, optical_column, sem_row, sem_column, at least four places in pixels of mosaic.png and of the SEM image.
        z_stack: every optical file is a stack of focal planes.
        pixel_optical: nm per pixel of the frames, where their files do not tell.
        pixel_sem: nm per pixel of the SEM image, where its file does not tell.
        side: of a crop, in pixels of the registered mosaic.
        stride: from crop to crop in the training region; crops for validation and test do not overlap.
        reduction: crops and mosaic are averaged over so many pixels each way: 512 become 256.
        search: largest error, in px, of the stage log between neighbouring frames.
        equalise: give frames gains that make their overlaps equally bright.
        refinement: improve the matrix of the landmarks by correlating edges.
        correction: which corrections the frames get.
    """
    if side < 16 or not 0 < stride <= side or search < 1:
        raise ValueError(f"side is {side}, stride {stride}, search {search}; give a side from 16 px, a stride from 1 px to the side and a search from 1 px")
    if reduction < 1 or side % reduction:
        raise ValueError(f"crops of {side} px cannot be averaged over {reduction} x {reduction}; give a divisor of the side")
    if sem is None and (landmarks is not None or refinement or pixel_sem is not None):
        raise ValueError("landmarks, refinement and pixel_sem belong to an SEM image; give --sem")
    if any((out / name).exists() for name in SPLITS):
        raise ValueError(f"{out} holds pairs already; give another folder, or remove them")
    files, places = _frames(optical, positions)
    frames, sizes = [], []
    for file in files:
        frame, size = _read(file, z_stack)
        if frames and frame.shape != frames[0].shape:
            raise ValueError(f"{file} has {frame.shape} pixels, {files[0]} {frames[0].shape}; all frames must have one shape")
        try:
            frames.append(correction.of_frame(frame))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        sizes.append(size)
    if len(files) > 1 and not overlapping(places, frames[0].shape):
        raise ValueError(f"by {positions} no two frames overlap; it must give places in pixels of the frames")
    optical_nm = _pixel_size(files, sizes, pixel_optical, "--pixel-optical")
    if sem is not None:
        other, sem_size = _read(sem, False)
        nm = optical_nm, _pixel_size([sem], [sem_size], pixel_sem, "--pixel-sem")
    points = _table(landmarks, ("optical_row", "optical_column", "sem_row", "sem_column"))[1] if landmarks else None

    mosaic = stitch(frames, places, search, equalise)
    where = mosaic.weight > 0
    image = correction.of_mosaic(mosaic.image, where)
    out.mkdir(parents=True, exist_ok=True)
    _write_png(out / "mosaic.png", image)  # before registration: landmarks are picked in it
    rejected = sum(not each.accepted for each in mosaic.links)
    print(f"{len(files)} frames, {len(mosaic.links)} links, {rejected} rejected, {len(mosaic.alone)} frames placed by the stage log")
    if sem is None:
        _write_mosaic(out / "mosaic.tif", image, optical_nm, reduction * optical_nm)
        print(f"mosaic of {reduction * optical_nm:.4g} nm/px -> {out}")
        return
    if points is None:
        matrix, residuals = register_automatically(image, other, nm[0] / nm[1], where), None
    else:
        matrix, residuals = landmark_affine(points[:, :2], points[:, 2:])
        matrix = refine(image, other, matrix, where) if refinement else matrix
    found, size_error = agreement(image, other, matrix, where), size_ratio(matrix) * nm[1] / nm[0]
    if abs(size_error - 1) > LARGEST_SIZE_ERROR:
        raise ValueError(
            f"by the landmarks an optical pixel has {size_error * nm[0]:.4g} nm, not {nm[0]:.4g}; correct them, --pixel-optical or --pixel-sem ({nm[1]:.4g} nm)"
        )
    both = resample(image, other, matrix, *nm, where)
    pair = both.optical, normalise(both.sem, where=both.valid)
    _write_png(out / "overlay.png", _overlay(*pair, both.valid))
    mirrored = ", mirrored" if np.linalg.det(matrix[:, :2]) < 0 else ""
    print(f"rotation {rotation(matrix):+.2f} deg{mirrored}, {size_ratio(matrix):.4f} SEM px on an optical one, edges correlate by {found:.2f}")
    if found < LEAST_AGREEMENT:
        print(f"that is little: look at {out / 'overlay.png'}, edges of both images should lie on each other; if not, correct the landmarks")
    numbers = {
        "optical": [str(file) for file in files],
        "sem": str(sem),
        "pixel_size_nm": {"optical": nm[0], "sem": nm[1], "pairs": reduction * both.pixel_size},
        "correction": vars(correction),
        "stitching": _stitching(mosaic, places, search),
        "registration": _registration(matrix, residuals, nm, found, both),
    }
    report = out / "preprocess.json"
    report.write_text(json.dumps(numbers, indent=1))  # crops may be refused
    corners = crops(both.valid, side, stride)
    _write_mosaic(out / "mosaic.tif", image, optical_nm, reduction * both.pixel_size)
    for split, each in corners.items():
        _write_pairs(out / split, pair, each, side, reduction, both.pixel_size)
    numbers["crops"] = {"side": side, "stride": stride, "reduction": reduction, "corners": corners}
    numbers["counts"] = {split: len(each) for split, each in corners.items()}
    report.write_text(json.dumps(numbers, indent=1))
    counts = ", ".join(f"{len(each)} {split}" for split, each in corners.items())
    print(f"{counts} pairs of {side // reduction} px, {reduction * both.pixel_size:.4g} nm/px -> {out}")


# --- Reading ---


def _frames(optical: Path, positions: Path | None) -> tuple[list[Path], np.ndarray]:
    """The frames' files and nominal places (n, 2)."""
    if positions is not None:
        names, places = _table(positions, ("row", "column"), "file")
        folder = optical if optical.is_dir() else optical.parent
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or len(set(names)) < len(names):
            raise ValueError(f"{positions} names {missing[0] + f', which is not in {folder}' if missing else 'a file twice'}; correct it")
        left = sorted({path.name for path in image_files(folder)} - set(names)) if optical.is_dir() else []
        if left:
            print(f"{len(left)} images of {folder} are left out, for {positions} does not name them: {', '.join(left[:3])}{', ...' if left[3:] else ''}")
        return [folder / name for name in names], places
    files = image_files(optical) if optical.is_dir() else [optical]
    if len(files) > 1:
        raise ValueError(f"{optical} holds {len(files)} frames; give --positions, a CSV file with the columns file, row, column")
    return files, np.zeros((1, 2))


def _table(path: Path, columns: tuple[str, ...], key: str | None = None) -> tuple[list[str], np.ndarray]:
    """The column `key` (or nothing) and the numbers (n, columns) of a CSV file with a header. ValueError for what is missing, or no number."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        numbers = np.array([[float(row[column]) for column in columns] for row in rows])
        if not rows or not np.isfinite(numbers).all():
            raise ValueError
        return [row[key] for row in rows] if key else [], numbers
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} is not a CSV file in UTF-8 with the columns {', '.join(filter(None, (key, *columns)))} and a number in each; correct it"
        ) from None


def _read(path: Path, stack: bool) -> tuple[np.ndarray, float | None]:
    """Image (height, width) float32, of a stack the sharp one, and nm per pixel or None."""
    slices = load_frames(path)
    if len(slices) > 1 and not stack:
        raise ValueError(f"{path} holds {len(slices)} images; give --z-stack if they are focal planes, or one image a file")
    images = [np.float32(each.data) for each in slices]
    if len({image.shape for image in images}) > 1:
        raise ValueError(f"{path} has focal planes of several sizes, {sorted({image.shape for image in images})}; they must have one")
    if not all(np.isfinite(image).all() for image in images):
        raise ValueError(f"{path} has pixels that are not finite; replace them")
    return all_in_focus(np.stack(images))[0] if stack else images[0], slices[0].pixel_size


def _pixel_size(files: list[Path], found: list[float | None], given: float | None, flag: str) -> float:
    sizes = [given] if given is not None else found
    if None in sizes:
        raise ValueError(f"{files[sizes.index(None)]} has no pixel size; give {flag} in nm")
    if not min(sizes) > 0 or not max(sizes) <= 1.001 * min(sizes):
        raise ValueError(f"the pixel sizes {min(sizes):g} to {max(sizes):g} nm are not one positive number; give {flag} in nm")
    return float(sizes[0])


# --- Crops ---


def crops(valid: np.ndarray, side: int, stride: int) -> dict[str, list[tuple[int, int]]]:
    """First pixels (row, column) of the crops of every split, all of whose pixels are valid, (height, width) bool.

    The longer axis, as far as crops reach, is cut into three regions, 80, 10 and 10 % of it but a crop at least: no crop of one split overlaps one of another.
    Within a region crops stand on a lattice, of `stride` in training and of `side` elsewhere, whose origin is where most of them are valid, in sixteenths of
    a step. Raises ValueError where a region holds no crop.
    """
    size = f"{valid.shape[0]} x {valid.shape[1]} px"
    too_small = ValueError(f"the registered mosaic of {size} is too small for three regions of {side} px; give more frames or a smaller --side")
    if min(valid.shape) < side:
        raise too_small
    area = cv2.integral(np.uint8(valid))
    full = area[side:, side:] - area[:-side, side:] - area[side:, :-side] + area[:-side, :-side] == side**2
    axis = int(valid.shape[1] > valid.shape[0])
    usable = np.flatnonzero(full.any(1 - axis))
    if not len(usable):
        raise too_small
    low, high = int(usable[0]), int(usable[-1]) + side
    held = {split: max(side, int(SPLITS[split] * (high - low))) for split in ("val", "test")}
    bounds = [low, high - sum(held.values()), high - held["test"], high]
    found = {}
    for split, first, last in zip(SPLITS, bounds, bounds[1:], strict=False):
        step = stride if split == "train" else side
        box = [slice(0, n) for n in full.shape]
        box[axis] = slice(first, max(last - side + 1, first))
        region = full[tuple(box)]
        phases = range(0, step, max(step // 16, 1))
        row, column = max(((r, c) for r in phases for c in phases), key=lambda at: int(region[at[0] :: step, at[1] :: step].sum()))
        lattice = np.argwhere(region[row::step, column::step]) * step + [row + box[0].start, column + box[1].start]
        if not len(lattice):
            raise too_small
        found[split] = [(int(r), int(c)) for r, c in lattice]
    return found


# --- Writing ---


def _write_pairs(folder: Path, pair: tuple[np.ndarray, np.ndarray], corners: list[tuple[int, int]], side: int, reduction: int, pixel_size: float) -> None:
    """pixel_size: nm, before the reduction; so are the corners."""
    folder.mkdir()
    for number, (row, column) in enumerate(corners):
        for name, image in zip(("optical", "sem"), pair, strict=True):
            crop = image[row : row + side, column : column + side].reshape(side // reduction, reduction, -1, reduction).mean((1, 3))
            save_micrograph(folder / f"{number:04d}_{name}.tif", Micrograph(_codes(crop), reduction * pixel_size, {"row": row, "column": column, **SCALE}))


def _write_mosaic(path: Path, image: np.ndarray, pixel_size: float, wanted: float) -> None:
    """The mosaic, averaged to pixels of the wanted size, which are no smaller; both in nm."""
    reduced = cv2.resize(np.float32(image), None, fx=pixel_size / wanted, fy=pixel_size / wanted, interpolation=cv2.INTER_AREA)
    save_micrograph(path, Micrograph(_codes(reduced), wanted))


def _codes(image: np.ndarray) -> np.ndarray:
    """[0, 1] as 16 bit."""
    return np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16)


def _write_png(path: Path, image: np.ndarray) -> None:
    """[0, 1] as 8 bit."""
    if not cv2.imwrite(str(path), np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)):
        raise OSError(f"cannot write {path}; choose a folder that you may write to")


def _overlay(optical: np.ndarray, sem: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The SEM image in green, the optical one in magenta, (height, width, 3)."""
    picture = np.where(valid[..., None], np.dstack([optical, sem, optical]), 0)
    reduction = max(1.0, max(valid.shape) / PREVIEW)
    return cv2.resize(picture, None, fx=1 / reduction, fy=1 / reduction, interpolation=cv2.INTER_AREA)


def _stitching(mosaic: Mosaic, nominal: np.ndarray, search: int) -> dict:
    links = [
        {"first": each.first, "second": each.second, "shift": each.shift.tolist(), "ncc": each.ncc, "accepted": each.accepted, "reason": each.reason}
        for each in mosaic.links
    ]
    moved = mosaic.places - mosaic.places.mean(0) - nominal + nominal.mean(0)
    return {
        "search": search,
        "nominal": nominal.tolist(),
        "places": mosaic.places.tolist(),
        "stage_error_rms_px": float(np.sqrt((moved**2).sum(1).mean())),
        "alone": list(mosaic.alone),
        "links": links,
    }


def _registration(matrix: np.ndarray, residuals: np.ndarray | None, nm: tuple[float, float], found: float, both: Overlaid) -> dict:
    """rotation, ratio to the calibrations' own, agreement of edges; residuals of the landmarks in nm, before any refinement."""
    lengths = None if residuals is None else np.linalg.norm(residuals, axis=1) * nm[1]
    return {
        "matrix": matrix.tolist(),
        "rotation_deg": rotation(matrix),
        "mirrored": bool(np.linalg.det(matrix[:, :2]) < 0),
        "size_against_calibration": size_ratio(matrix) * nm[1] / nm[0],
        "agreement": found,
        "landmark_residuals_nm": None if lengths is None else lengths.tolist(),
        "landmark_rms_nm": None if lengths is None else float(np.sqrt((lengths**2).mean())),
        "corner": both.corner,
        "shape": both.valid.shape,
    }


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(preprocess, "python -m paper_ssum_cyclegan.preprocess", tensorflow=False))
