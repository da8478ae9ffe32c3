"""Lays a high-magnification scan on a low-magnification one of the same field: `python -m paper_sem_gan.registration LR HR --out DIR`.

The grid is that of the Lanczos-upsampled low scan, so that a network's input is interpolated by nothing else; the high scan is interpolated once, through one
map that holds shift, rotation, size error and drift. Coordinates are (row, column), pixel centres at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import map_coordinates

from .elastic import SMOOTHING, elastic, identity, inside, residual_shifts, warp
from .upsampling import lanczos

SMALLEST = 128  # px, a side of the high scan
BLOCKS = 6  # per axis, of the coarse match
BAND = 1.0, 10.0  # sigmas, px of the low scan: what is finer is noise, what is coarser is shading
AGREEMENT = 3.0  # px of the low scan: drift and a block's own error
LEAST_AGREEING = 0.2  # of the blocks
LARGEST_ROTATION, LARGEST_SIZE_ERROR = 10.0, 0.1  # degrees, relative: beyond them the microscope was set differently
LARGEST_REPEAT = 0.75  # correlation of a scan's middle with another place of it
LEAST_SIDE = 0.5  # of the high scan, in the common rectangle
LEAST_NCC = 0.3  # of the smoothed images in the end
LARGEST_RESIDUAL = 0.5  # px, 95th percentile
CHECKING_BLOCK = 72  # px: other and larger blocks than those that the field was fitted to


@dataclass(frozen=True, eq=False)
class Pair:
    """A registered pair; where report["accepted"] is False, only the report, which has the reason.

    low        (height / scale, width / scale), the crop of the low-magnification scan as recorded, in its own dtype
    upsampled  (height, width) float32, its Lanczos-3 upsampling
    high       (height, width) float32, the high-magnification scan on that grid, in its own units
    map        (height, width, 2) float32, the row and column of the high-magnification scan that each pixel comes from
    report     JSON-like, lengths in px of the high-magnification scan: accepted; reason, None where accepted; low_crop, the row, column, height and width of
               `low` in its scan; rotation_deg, scale (1 is nominal) and shift of the centre, of the affine map nearest to `map`; elastic_p95, the length of
               the rest; residual_mean and residual_p95, what a last correlation still finds; ncc_before (both centres on each other), ncc_affine and ncc_after,
               after smoothing by 1 px; folding, the share of pixels at which the map folds
    """

    low: np.ndarray | None
    upsampled: np.ndarray | None
    high: np.ndarray | None
    map: np.ndarray | None
    report: dict


class Rejected(Exception):
    """Why a pair cannot be trusted."""


def register(low: np.ndarray, high: np.ndarray, scale: float = 2) -> Pair:
    """Register two scans whose centres show about the same spot.

    low, high: (height, width) of any real dtype, brightness and contrast; `scale` pixels of `high` lie on one of `low`, and the grid has round(scale).
    A pair that cannot be trusted (blank, unrelated, of inverted contrast, repeating itself, folded, left with more than LARGEST_RESIDUAL) is rejected: it has
    no images, only the report. Deterministic. Raises ValueError where the arrays cannot be a pair at all.
    """
    factor, low = round(scale), np.asarray(low)
    low_values, high = _checked(low, "low"), _checked(high, "high")
    if factor < 1 or min(high.shape) < SMALLEST or min(low.shape) * scale < SMALLEST:
        raise ValueError(f"low is {low.shape}, high {high.shape} and scale {scale:g}; give sides of {SMALLEST} pixels of high at least, and a scale from 1 on")
    report = {"accepted": False, "reason": None}
    try:
        return Pair(*_registered(low, low_values, high, scale, factor, report), report | {"accepted": True})
    except Rejected as why:
        return Pair(None, None, None, None, report | {"reason": str(why)})


def _checked(image: np.ndarray, name: str) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 2 or image.dtype.kind not in "uif":
        raise ValueError(f"{name} is {image.dtype} of shape {image.shape}; give one (height, width) image of real numbers")
    if not np.isfinite(image).all():
        raise ValueError(f"{name} has pixels that are not finite; replace them")
    return image.astype(np.float32)


def _registered(recorded, low, high, scale, factor, report):
    low, high_values, high = _standardised(low, "low"), high, _standardised(high, "high")
    affine = coarse_map(low, high, scale)
    box = _footprint(affine, low.shape, high.shape, factor)
    fixed = lanczos(low[box], factor)
    points = identity(fixed.shape) + np.float32([factor * side.start for side in box])
    start = apply_affine(affine, points)
    try:
        where = elastic(fixed, high, start)
    except ValueError as error:
        raise Rejected(str(error)) from error
    rows, columns = _common_rectangle(inside(where, high.shape), factor)
    cut = (slice(rows.start * factor, rows.stop * factor), slice(columns.start * factor, columns.stop * factor))
    where, start, points = where[cut], start[cut], points[cut]
    if min(np.divide(where.shape[:2], high.shape)) < LEAST_SIDE:
        raise Rejected(f"only {where.shape[0]} x {where.shape[1]} pixels are common to both scans; move the stage less between them")
    crop = tuple(slice(side.start + part.start, side.start + part.stop) for side, part in zip(box, (rows, columns), strict=True))
    report["low_crop"] = [crop[0].start, crop[1].start, crop[0].stop - crop[0].start, crop[1].stop - crop[1].start]
    nominal = apply_affine(nominal_map(low.shape, high.shape, scale), points)
    report |= _describe(fixed[cut], high, where, start, nominal)
    _judge(report)
    # What the interpolation blurs, a network learns to blur: of a wave of 3 px, half-way between pixels, a spline leaves 0.87, OpenCV's cubic kernel 0.78.
    aligned = map_coordinates(high_values, where.transpose(2, 0, 1), order=3, mode="mirror")
    low_crop = recorded[crop].copy()
    return low_crop, lanczos(low_crop, factor), aligned, where


def _standardised(image: np.ndarray, name: str) -> np.ndarray:
    spread = float(image.std(dtype=np.float64))
    if not spread > 1e-5 * float(np.abs(image).max()):
        raise Rejected(f"{name} is blank; record it again")
    return (image - image.mean(dtype=np.float64).astype(np.float32)) / np.float32(spread)


# --- Affine maps: (2, 3), places on the upsampled grid of all of `low` -> places in `high` ---


def apply_affine(affine: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.float32(places @ affine[:, :2].T + affine[:, 2])


def nominal_map(low: tuple[int, int], high: tuple[int, int], scale: float) -> np.ndarray:
    """Both centres on each other, no rotation, nominal size; arguments are the shapes of the scans as recorded."""
    factor = round(scale)
    ratio = scale / factor
    middle = (factor * np.array(low) - 1) / 2
    return np.column_stack([ratio * np.eye(2), (np.array(high) - 1) / 2 - ratio * middle])


def coarse_map(low: np.ndarray, high: np.ndarray, scale: float) -> np.ndarray:
    """The affine map (2, 3) on which the places agree where blocks of `high`, reduced by `scale`, are found in `low`.

    Normalised cross-correlation of each block over all of `low`, then random sample consensus. Blocks bear rotation and size error that spoil the correlation
    of whole images, and one that fails harms nothing. (Of ten simulated pairs with 5 % noise, log-polar spectra gave nine to 0.5 degrees and 1 %, blocks all
    ten to 0.1 degrees and 0.1 %.)
    Raises Rejected where too few agree, or where `low` looks the same elsewhere.
    """
    factor = round(scale)
    size = tuple(int(n / scale) for n in high.shape)
    reducing = np.float32([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])
    reduced = cv2.warpAffine(
        cv2.GaussianBlur(high, (0, 0), 0.4 * scale), reducing, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    low, reduced = _band(low), _band(reduced)
    repeat, place = _repeat(low)
    if repeat > LARGEST_REPEAT:
        raise Rejected(f"low looks the same {place[0]:+d}, {place[1]:+d} px further (correlation {repeat:.2f}); take a field that does not repeat itself")
    side = int(np.clip(min(size) // 5, 24, 96))
    found, matched, opposite = [], [], []
    for top in np.linspace(0, size[0] - side, BLOCKS).astype(int):
        for left in np.linspace(0, size[1] - side, BLOCKS).astype(int):
            _, _, lowest, highest = cv2.minMaxLoc(cv2.matchTemplate(low, reduced[top : top + side, left : left + side], cv2.TM_CCOEFF_NORMED))
            found.append((top, left))
            matched.append(highest[::-1])
            opposite.append(lowest[::-1])
    in_high = scale * (np.array(found) + side / 2) - 0.5
    affine, agreeing = _consensus(factor * (np.array(matched) + side / 2) - 0.5, in_high, factor, scale)
    if agreeing < LEAST_AGREEING * len(found):
        if _consensus(factor * (np.array(opposite) + side / 2) - 0.5, in_high, factor, scale)[1] >= LEAST_AGREEING * len(found):
            raise Rejected("the contrast of one scan is inverted; invert it back")
        raise Rejected(f"{agreeing} of {len(found)} blocks agree on one place; the two scans must show the same field")
    return affine


def _band(image: np.ndarray) -> np.ndarray:
    fine, coarse = (cv2.GaussianBlur(image, (0, 0), sigma) for sigma in BAND)
    return fine - coarse


def _consensus(places: np.ndarray, in_high: np.ndarray, factor: int, scale: float) -> tuple[np.ndarray, int]:
    """The affine map on which most pairs agree, and how many; none where it is not what a microscope does by mistake."""
    affine, agree = cv2.estimateAffine2D(places, in_high, ransacReprojThreshold=AGREEMENT * scale, maxIters=5000, confidence=0.9999)
    if affine is None:
        return np.zeros((2, 3)), 0
    rotation, size = decompose(affine)
    stretches = np.linalg.svd(affine[:, :2], compute_uv=False) * factor / scale
    plausible = abs(rotation) < LARGEST_ROTATION and abs(stretches - 1).max() < LARGEST_SIZE_ERROR and np.linalg.det(affine[:, :2]) > 0
    return affine, int(agree.sum()) if plausible else 0


def decompose(affine: np.ndarray) -> tuple[float, float]:
    """Rotation in degrees (from rows towards columns, of the rotation nearest to the matrix) and size, the square root of the determinant."""
    left, _, right = np.linalg.svd(affine[:, :2])
    turn = left @ right
    return float(np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))), float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))


def _repeat(low: np.ndarray) -> tuple[float, tuple[int, int]]:
    """The highest correlation of the middle of `low` with another place of it, and the way there."""
    top, left = (n // 4 for n in low.shape)
    surface = cv2.matchTemplate(low, low[top : low.shape[0] - top, left : low.shape[1] - left], cv2.TM_CCOEFF_NORMED)
    peaks = np.where(surface == cv2.dilate(surface, np.ones((7, 7))), surface, -1)
    peaks[max(top - 3, 0) : top + 4, max(left - 3, 0) : left + 4] = -1
    row, column = np.unravel_index(peaks.argmax(), peaks.shape)
    return float(peaks[row, column]), (int(row) - top, int(column) - left)


# --- What both scans show ---


def _footprint(affine, low, high, factor) -> tuple[slice, slice]:
    """The pixels of `low` that hold all of `high`, and some around."""
    corners = np.array([(row, column) for row in (0, high[0] - 1) for column in (0, high[1] - 1)], float)
    places = ((corners - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T + 0.5) / factor
    first, last = np.floor(places.min(0)).astype(int) - 8, np.ceil(places.max(0)).astype(int) + 8
    box = tuple(slice(max(int(a), 0), min(int(b), n)) for a, b, n in zip(first, last, low, strict=True))
    if min(side.stop - side.start for side in box) * factor < LEAST_SIDE * min(high):
        raise Rejected("low does not show what high shows; centre both on the same spot")
    return box


def _common_rectangle(usable: np.ndarray, factor: int) -> tuple[slice, slice]:
    """Rows and columns of `low` whose pixels are usable (height, width) throughout: sides are taken off where they have most that is not."""
    height, width = (n // factor for n in usable.shape)
    cells = usable[: height * factor, : width * factor].reshape(height, factor, width, factor).all((1, 3))
    top, bottom, left, right = 0, height, 0, width
    while top < bottom and left < right and not cells[top:bottom, left:right].all():
        kept = cells[top:bottom, left:right]
        worst = int(np.argmin([kept[0].mean(), kept[-1].mean(), kept[:, 0].mean(), kept[:, -1].mean()]))
        top, bottom, left, right = top + (worst == 0), bottom - (worst == 1), left + (worst == 2), right - (worst == 3)
    return slice(top, bottom), slice(left, right)


# --- The verdict ---


def _describe(fixed, high, where, start, nominal) -> dict:
    """Figures of the report; fixed: (height, width) on the grid, where, start, nominal: maps (height, width, 2)."""
    own = identity(fixed.shape).reshape(-1, 2)
    design = np.column_stack([own - own.mean(0), np.ones(len(own))])
    fitted, *_ = np.linalg.lstsq(design, where.reshape(-1, 2).astype(np.float64), rcond=None)
    rotation, size = decompose(fitted.T)
    nominal_size = decompose(np.stack([nominal[1, 0] - nominal[0, 0], nominal[0, 1] - nominal[0, 0]], 1))[1]
    fixed, high = (cv2.GaussianBlur(image, (0, 0), SMOOTHING) for image in (fixed, high))
    _, left, precision = residual_shifts(fixed, high, where, CHECKING_BLOCK)
    left, weights = np.linalg.norm(left, axis=1), np.trace(precision, axis1=1, axis2=2)  # a bare block's shift is noise, and says so
    (rr, rc), (cr, cc) = (np.gradient(where[..., k]) for k in (0, 1))
    return {
        "rotation_deg": rotation,
        "scale": size / nominal_size,
        "shift": [float(x) for x in fitted[2] - nominal.reshape(-1, 2).mean(0)],
        "elastic_p95": float(np.percentile(np.linalg.norm(design @ fitted - where.reshape(-1, 2), axis=1), 95)),
        "residual_mean": float(np.average(left, weights=weights)) if len(left) else None,
        "residual_p95": float(np.quantile(left, 0.95, weights=weights, method="inverted_cdf")) if len(left) else None,
        "ncc_before": _correlation(fixed, high, nominal),
        "ncc_affine": _correlation(fixed, high, start),
        "ncc_after": _correlation(fixed, high, where),
        "folding": float((rr * cc - rc * cr <= 0).mean()),
    }


def _correlation(fixed, high, where) -> float:
    both = inside(where, high.shape)
    return float(np.corrcoef(fixed[both], warp(high, where)[both])[0, 1]) if both.any() else 0.0


def _judge(report: dict) -> None:
    if report["folding"] > 0:
        raise Rejected(f"the map folds at {report['folding']:.1%} of the pixels; the drift is too strong to follow")
    if report["ncc_after"] < LEAST_NCC:
        raise Rejected(f"after registration the scans correlate by {report['ncc_after']:.2f} only; they do not show the same, or too little above the noise")
    if report["residual_p95"] is None or report["residual_p95"] > LARGEST_RESIDUAL:
        raise Rejected(f"shifts of {report['residual_p95'] or np.nan:.2f} px (95th percentile) are left; the drift is too strong, or the noise")


if __name__ == "__main__":
    from common.__main__ import run_tool

    from .registration_report import register_files

    raise SystemExit(run_tool(register_files, "python -m paper_sem_gan.registration", tensorflow=False))
