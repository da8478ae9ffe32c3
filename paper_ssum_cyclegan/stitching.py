"""Frames of a scan to one mosaic: pairwise correlation, places of all frames by least squares, feathered blending.

Places are (row, column) in pixels of a frame's first pixel, pixel centres at whole numbers. A link between two overlapping frames may tell both components of
their shift, one (where the overlap shows parallel lines only, its normal), or none (where it repeats itself, or shows nothing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import shift as interpolated

BAND = 1.0, 10.0  # px, sigmas: what is finer is noise, what is coarser is shading
LEAST_NCC = 0.3
LEAST_OVERLAP = 10  # px, a side of the overlap at the nominal places
LEAST_AREA = 0.35  # of the nominal overlap, at any shift that is tried
RIVAL = 0.02, 5.0  # below the highest correlation, fixed and in standard errors of it: a place that comes so near may be the true one as well
NEAR = 4.0  # px: a rival so close belongs to the same peak
ROUNDS = 4  # of the refinement
LARGEST_RESIDUAL = 1.5  # px by which a link may miss what the others agree on
LOOSE = 1e-4  # of a link's stiffness: what gives way so easily is not held
NOMINAL, ANCHOR = 1e-4, 1e-7  # weights of the stage log, relative to a median link: between neighbours, and of single frames


@dataclass(frozen=True, eq=False)
class Link:
    """What the overlap of two frames says: place of `second` minus place of `first` is `shift`, (2,) px.

    precision  (2, 2), weight of the shift in least squares; of rank one where only one direction is told
    reason     why it was left out, "" where it was accepted
    """

    first: int
    second: int
    shift: np.ndarray
    ncc: float
    precision: np.ndarray
    reason: str = ""

    @property
    def accepted(self) -> bool:
        return not self.reason


@dataclass(frozen=True, eq=False)
class Mosaic:
    """What `stitch` gives.

    image   (height, width) float32, the median where no frame lies
    weight  (height, width) float32, 0 there
    places  (n, 2) float64 in the image
    links   one per pair of overlapping frames
    alone   frames that the accepted links do not tie to most others: they keep the stage's word, in one direction or both
    """

    image: np.ndarray
    weight: np.ndarray
    places: np.ndarray
    links: tuple[Link, ...]
    alone: tuple[int, ...]


def stitch(frames: Sequence[np.ndarray], places: np.ndarray, search: int = 16, equalise: bool = False) -> Mosaic:
    """Refine the places of frames and blend them.

    frames: n images (height, width) of one shape; places: (n, 2) from the stage log; search: largest error, in px, of the log between two neighbours;
    equalise: multiply frames by gains that make overlaps equally bright. Raises ValueError for arrays that do not fit.
    """
    frames, places = [np.asarray(frame, np.float32) for frame in frames], np.asarray(places, np.float64)
    if not frames or any(frame.shape != frames[0].shape or frame.ndim != 2 for frame in frames):
        raise ValueError(f"frames must be images of one shape, got {sorted({frame.shape for frame in frames}) or 'none'}")
    if places.shape != (len(frames), 2) or not np.isfinite(places).all():
        raise ValueError(f"{len(frames)} frames need {len(frames)} finite places (row, column), got an array of shape {places.shape}")
    if not all(np.isfinite(frame).all() for frame in frames):
        raise ValueError("a frame has pixels that are not finite; replace them")
    pairs = overlapping(places, frames[0].shape)
    links, places = consistent([link(frames[i], frames[j], i, j, places[j] - places[i], search) for i, j in pairs], places)
    alone = not_linked(links, len(frames))
    apart = set(alone)
    places = refined(frames, [each for each in links if each.accepted or each.ncc >= LEAST_NCC and not apart & {each.first, each.second}], places)
    image, weight, places = blend(frames, places, equal_gains(frames, places) if equalise else np.ones(len(frames)))
    return Mosaic(image, weight, places, tuple(links), alone)


def overlapping(places: np.ndarray, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Pairs of frames of which at least LEAST_OVERLAP rows and columns overlap."""
    inside = np.all(np.array(shape) - np.abs(places[:, None] - places[None]) >= LEAST_OVERLAP, axis=-1)
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(inside, 1))]


# --- One pair ---


def correlation_surface(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised cross-correlation of two images over their common area, for every whole shift, and that area in px.

    Entry [h2 - 1 + r, w2 - 1 + c] is for `second` lying r rows below and c columns right of `first`'s corner: both (h1 + h2 - 1, w1 + w2 - 1) float64.
    """
    size = [m + n - 1 for m, n in zip(first.shape, second.shape, strict=True)]
    fast = [next_fast_len(n, True) for n in size]

    def sums(a, b):
        return irfft2(a * b, fast)[: size[0], : size[1]]

    first, second = first.astype(np.float64) - first.mean(), second.astype(np.float64)[::-1, ::-1] - second.mean()
    a, aa, b, bb, one, other = (rfft2(image, fast) for image in (first, first**2, second, second**2, np.ones(first.shape), np.ones(second.shape)))
    area = np.maximum(np.rint(sums(one, other)), 1)
    mean_a, mean_b = sums(a, other) / area, sums(one, b) / area
    spread = np.sqrt(np.maximum(sums(aa, other) / area - mean_a**2, 0) * np.maximum(sums(one, bb) / area - mean_b**2, 0))
    floor = 1e-6 * first.std() * second.std() + 1e-30
    return np.where(spread > floor, (sums(a, b) / area - mean_a * mean_b) / np.maximum(spread, floor), 0), area


def link(first: np.ndarray, second: np.ndarray, i: int, j: int, nominal: np.ndarray, search: int) -> Link:
    """Where frame j lies with respect to frame i, within `search` px per axis of `nominal`, (2,)."""
    whole = np.rint(nominal).astype(int)
    cuts = [_strips(n, shift, search) for n, shift in zip(first.shape, whole, strict=True)]
    one, two = (band(image)[cuts[0][k], cuts[1][k]] for k, image in enumerate((first, second)))
    origin = whole - [cut[0].start - cut[1].start for cut in cuts]  # of the second strip in the first, at the nominal shift
    surface, area = correlation_surface(one, two)
    lags = [origin[axis] + np.arange(-search, search + 1) + two.shape[axis] - 1 for axis in (0, 1)]
    lags = [lag[(lag >= 0) & (lag < n)] for lag, n in zip(lags, surface.shape, strict=True)]
    window = np.ix_(*lags)
    middle = np.array([lag[0] for lag in lags]) - (np.array(two.shape) - 1) - origin + whole  # the shift of the window's first entry
    surface, area = surface[window], area[window]
    full = np.prod(np.array(first.shape) - np.abs(whole))
    surface = np.where(area >= LEAST_AREA * full, surface, -1)
    peak = np.array(np.unravel_index(surface.argmax(), surface.shape))
    ncc = float(surface[tuple(peak)])
    error = (1 - ncc**2) / np.sqrt(area[tuple(peak)] / (4 * np.pi * BAND[0] ** 2))
    normals, reason = _directions(surface, peak, ncc - RIVAL[0] - RIVAL[1] * error)
    if ncc < LEAST_NCC:
        reason = "low correlation"
    elif np.any(((peak == 0) | (peak == np.array(surface.shape) - 1)) & (np.abs(normals) > 0.5).any(0)):  # along what the link tells
        reason = "at the limit of the search"
    weight = area[tuple(peak)] * ncc**2 / max(1 - ncc**2, 1e-3)
    return Link(i, j, middle + peak + _vertex(surface, peak), ncc, weight * normals.T @ normals, reason)


def band(image: np.ndarray) -> np.ndarray:
    """The image between the two sigmas of BAND."""
    fine, coarse = (cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for sigma in BAND)
    return fine - coarse


def _strips(n: int, shift: int, search: int) -> tuple[slice, slice]:
    """Parts of two frames of n pixels that may overlap where the shift is right to `search` px."""
    return slice(max(shift - search, 0), min(n + shift + search, n)), slice(max(-shift - search, 0), min(n - shift + search, n))


def _directions(surface: np.ndarray, peak: np.ndarray, threshold: float) -> tuple[np.ndarray, str]:
    """Unit vectors (k, 2) of the directions in which the peak of a correlation surface is the only one, k of 2, 1 or 0; and what is wrong where 0."""
    rivals = np.argwhere(surface >= threshold) - peak
    if np.hypot(*rivals.T).max() <= NEAR:
        return np.eye(2), ""
    _, _, axes = np.linalg.svd(rivals.astype(float), full_matrices=True)
    if np.abs(rivals @ axes[1]).max() <= NEAR:
        return axes[1:], ""
    return np.zeros((0, 2)), "ambiguous"


def _vertex(surface: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Offset (2,) of the vertex of the quadratic through 3 x 3 values around a peak, at most one px; 0 along a ridge, and at the border."""
    if np.any(peak == 0) or np.any(peak == np.array(surface.shape) - 1):
        return np.zeros(2)
    p = surface[peak[0] - 1 : peak[0] + 2, peak[1] - 1 : peak[1] + 2]
    slope = np.array([p[2].mean() - p[0].mean(), p[:, 2].mean() - p[:, 0].mean()]) / 2
    cross = (p[2, 2] + p[0, 0] - p[2, 0] - p[0, 2]) / 4
    curvature = [(p[2] - 2 * p[1] + p[0]) @ [1, 3, 1] / 5, (p[:, 2] - 2 * p[:, 1] + p[:, 0]) @ [1, 3, 1] / 5]
    step, *_ = np.linalg.lstsq(-np.array([[curvature[0], cross], [cross, curvature[1]]]), slope, rcond=0.02)
    return np.clip(step, -1, 1)


# --- All pairs ---


def consistent(links: list[Link], nominal: np.ndarray) -> tuple[list[Link], np.ndarray]:
    """Least-squares places (n, 2), and the links without those that miss what the others agree on by more than LARGEST_RESIDUAL, the worst first."""
    while True:
        places = solve(links, nominal)
        misses = [_residual(each, places) if each.accepted else 0.0 for each in links]
        worst = int(np.argmax(misses)) if links else 0
        if not links or misses[worst] <= LARGEST_RESIDUAL:
            return links, places
        links = [replace(each, reason="contradicts the others") if k == worst else each for k, each in enumerate(links)]


def _residual(each: Link, places: np.ndarray) -> float:
    """Length in px of the part of a link's misfit that the link tells of."""
    values, axes = np.linalg.eigh(each.precision)
    return float(np.linalg.norm((axes.T @ (places[each.second] - places[each.first] - each.shift))[values > 0.5 * values[1]]))


def not_linked(links: Sequence[Link], n: int) -> tuple[int, ...]:
    """Frames that the accepted links do not tie, in both directions, to the largest group of frames that are tied.

    What can move without straining a link is a null vector of the links' equations; frames that move alike in all of them are tied.
    """
    strain = np.zeros((n, 2, n, 2))
    for each in (each for each in links if each.accepted):
        for a, b, sign in ((each.first, each.first, 1), (each.second, each.second, 1), (each.first, each.second, -1), (each.second, each.first, -1)):
            strain[a, :, b] += sign * each.precision / np.linalg.norm(each.precision, 2)
    values, vectors = np.linalg.eigh(strain.reshape(2 * n, 2 * n))
    loose = vectors[:, values < LOOSE].reshape(n, -1)
    products = loose @ loose.T
    alike = np.add.outer(products.diagonal(), products.diagonal()) - 2 * products < 0.01 / n  # squared distances
    return tuple(int(k) for k in np.flatnonzero(~alike[alike.sum(1).argmax()]))


def solve(links: Sequence[Link], nominal: np.ndarray) -> np.ndarray:
    """The places (n, 2) that minimise sum (x_j - x_i - s_ij)^T P_ij (x_j - x_i - s_ij) over the accepted links.

    Two feeble terms settle what no link tells: neighbours keep their nominal shift, single frames their nominal place.
    """
    scale = np.median([np.linalg.norm(each.precision, 2) for each in links if each.accepted] or [1.0])
    n = len(nominal)
    left, right = ANCHOR * np.einsum("ij,ab->iajb", np.eye(n), np.eye(2)), ANCHOR * nominal
    for each in links:
        i, j = each.first, each.second
        measured, weak = each.precision / scale * each.accepted, NOMINAL * np.eye(2)
        for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            left[a, :, b] += sign * (measured + weak)
        pull = measured @ each.shift + weak @ (nominal[j] - nominal[i])
        right[i] -= pull
        right[j] += pull
    return np.linalg.solve(left.reshape(2 * n, 2 * n), right.reshape(-1)).reshape(n, 2)


def refined(frames: Sequence[np.ndarray], links: Sequence[Link], places: np.ndarray) -> np.ndarray:
    """Places (n, 2) at which the squared differences of all overlaps are least, started so close that every overlap shows the same lines: Gauss-Newton steps.

    What links tell little of, such as the shift along lines, counts little here; `places` hold where nothing is told.
    """
    start = places
    for _ in range(ROUNDS):
        steps = [gradient_link(frames[each.first], frames[each.second], each, places[each.second] - places[each.first]) for each in links]
        places = solve(steps, start)
    return places


def gradient_link(first: np.ndarray, second: np.ndarray, each: Link, shift: np.ndarray) -> Link:
    """A link's shift to first order around `shift`, and its precision: a(p) = (b - grad b . step)(p - shift) times a gain plus an offset, both linear in p."""
    whole = np.rint(shift).astype(int)
    cuts = [_strips(n, k, 0) for n, k in zip(first.shape, whole, strict=True)]
    if min(cut[0].stop - cut[0].start for cut in cuts) < LEAST_OVERLAP:
        return replace(each, precision=np.zeros((2, 2)), reason="")
    one, two = first[cuts[0][0], cuts[1][0]], second[cuts[0][1], cuts[1][1]]
    two = interpolated(two, shift - whole, order=3, mode="nearest")
    one, two = (cv2.GaussianBlur(part, (0, 0), BAND[0], borderType=cv2.BORDER_REFLECT) for part in (one, two))
    inner = np.s_[2:-2, 2:-2]
    slopes = np.stack([part[inner].ravel() for part in np.gradient((one + two) / 2)], 1).astype(np.float64)
    one, two = one[inner], two[inner]
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in one.shape), indexing="ij")
    nuisance = np.stack([part.ravel() for part in (np.ones_like(two), y, x, two, two * y, two * x)], 1).astype(np.float64)
    basis, _ = np.linalg.qr(nuisance)
    slopes, rest = (part - basis @ (basis.T @ part) for part in (-slopes, one.ravel().astype(np.float64)))
    inside = slopes.T @ slopes
    step = np.linalg.lstsq(inside, slopes.T @ rest, rcond=1e-3)[0]
    step *= min(1, 2 / max(np.linalg.norm(step), 1e-9))
    variance = np.mean((rest - slopes @ step) ** 2)
    return replace(each, reason="", shift=shift + step, precision=inside / max(variance, 1e-12))


def equal_gains(frames: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    """Gains (n,), of geometric mean 1, that make the means of overlaps equal by least squares of their logarithms; ValueError for one not positive."""
    pairs, whole = overlapping(places, frames[0].shape), np.rint(places).astype(int)
    rows, ratios = np.zeros((len(pairs) + 1, len(frames))), np.zeros(len(pairs) + 1)
    rows[-1] = 1
    for k, (i, j) in enumerate(pairs):
        cuts = [_strips(n, shift, 0) for n, shift in zip(frames[0].shape, whole[j] - whole[i], strict=True)]
        means = [float(frames[which][cuts[0][side], cuts[1][side]].mean()) for side, which in enumerate((i, j))]
        if min(means) <= 0:
            raise ValueError(f"the overlap of frames {i} and {j} is not positive on average, so gains cannot be equalised; leave that out")
        rows[k, i], rows[k, j], ratios[k] = 1, -1, np.log(means[1] / means[0])
    return np.exp(np.linalg.lstsq(rows, ratios, rcond=None)[0])


def blend(frames: Sequence[np.ndarray], places: np.ndarray, gains: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mosaic and weight, (height, width) float32, and the places in them. Frames are interpolated once (cubic splines), and fade linearly to their borders."""
    places = np.round(places, 6)  # a whole place must stay one, or its frame would be interpolated
    places = places - np.floor(places.min(0))
    corners = np.floor(places).astype(int)
    shape = np.array(frames[0].shape)
    image, weight = np.zeros((2, *(corners.max(0) + shape)), np.float32)
    for frame, place, corner, gain in zip(frames, places, corners, gains, strict=True):
        part = place - corner
        moved = interpolated(frame, part, order=3, mode="mirror") if part.any() else frame
        fades = [np.where((u := np.arange(n) - f) >= 0, np.minimum(u, n - 1 - u) + 1, 0) for n, f in zip(shape, part, strict=True)]
        weights = np.float32(np.outer(*fades))
        where = np.s_[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
        image[where] += np.float32(gain) * weights * moved
        weight[where] += weights
    covered = weight > 0
    np.divide(image, weight, out=image, where=covered)
    image[~covered] = np.median(image[covered])
    return image, weight, places
