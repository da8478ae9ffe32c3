"""Gaps between neighbouring particles: which exist, how wide they are, and what a restoration does to them (the paper's Figure 3).

Positions are (row, column) in pixels of the image, pixel centres at whole numbers; lengths named `edge`, `width` and `excess` are in nm.
The paper gives the two rules, 60 % for existence and 80 % for width; everything else is chosen here and said where it is done.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import Delaunay, QhullError, cKDTree

from common.metrics import ratio_interval

EXISTS_BELOW = 0.6  # of the peak (paper)
WIDTH_AT = 0.8  # of the highest intensity of the two particles (paper)
STEP = 0.25  # pixels along a profile
FURTHEST = 100.0  # nm between edges; particles further apart are no neighbours


@dataclass(frozen=True, eq=False)
class Particles:
    """centres (n, 2) and radii (n,) in pixels, the radii of the discs of equal area."""

    centres: np.ndarray
    radii: np.ndarray


@dataclass(frozen=True, eq=False)
class Gaps:
    """A frozen list of places to measure. first, second (n, 2): centres of the particles; radii (n, 2), all in pixels; edge (n,) nm between their outlines."""

    first: np.ndarray
    second: np.ndarray
    radii: np.ndarray
    edge: np.ndarray

    def __len__(self) -> int:
        return len(self.edge)

    def __getitem__(self, chosen) -> Gaps:
        """The gaps of an index array or a mask."""
        return Gaps(self.first[chosen], self.second[chosen], self.radii[chosen], self.edge[chosen])


@dataclass(frozen=True, eq=False)
class Measured:
    """One image's gaps. exists (n,) bool; width_nm (n,), NaN without a gap or beside a particle dimmer than the 80 % level; excess (n,) nm, width - edge."""

    exists: np.ndarray
    width_nm: np.ndarray
    excess: np.ndarray


def joined(parts: list[Measured]) -> Measured:
    """The measurements of several images as one."""
    return Measured(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("exists", "width_nm", "excess")))


# --- where the gaps are ---------------------------------------------------------------------------------------------------------------------------------


def particles(image: np.ndarray, pixel_size: float, smallest: float = 25.0) -> Particles:
    """Bright particles on a darker ground: Gaussian of one pixel, Otsu's threshold, watershed of the distance to the ground.

    image: (height, width) float; pixel_size: nm; smallest: nm, diameter of the disc of equal area below which nothing counts.
    """
    from skimage.feature import peak_local_max
    from skimage.filters import threshold_otsu
    from skimage.segmentation import watershed

    smooth = cv2.GaussianBlur(np.float32(image), (0, 0), 1)
    if np.ptp(smooth) <= 1e-5 * np.abs(smooth).max():  # blurring a constant leaves rounding
        return Particles(np.zeros((0, 2)), np.zeros(0))
    mask = smooth > threshold_otsu(smooth)
    depth = cv2.GaussianBlur(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), (0, 0), 1)
    peaks = peak_local_max(depth, min_distance=2, exclude_border=False, labels=mask.astype(np.int32))
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-depth, markers, mask=mask).ravel()
    area = np.bincount(labels, minlength=len(peaks) + 1)
    rows, columns = np.indices(mask.shape).reshape(2, -1)
    kept = np.flatnonzero(np.sqrt(4 / np.pi * area) * pixel_size >= smallest)
    kept = kept[kept > 0]
    centres = np.column_stack([np.bincount(labels, weights=place, minlength=len(area))[kept] / area[kept] for place in (rows, columns)])
    return Particles(centres, np.sqrt(area[kept] / np.pi))


def neighbours(found: Particles) -> np.ndarray:
    """Index pairs (m, 2), first < second, sorted, of Delaunay neighbours whose line of centres crosses no third particle."""
    count = len(found.radii)
    try:
        triangles = Delaunay(found.centres).simplices
    except (QhullError, ValueError):  # fewer than three, or all in a line
        order = np.lexsort(found.centres.T[::-1])
        return np.sort(np.column_stack([order[:-1], order[1:]]), axis=1)
    edges = np.concatenate([triangles[:, [0, 1, 2]], triangles[:, [1, 2, 0]], triangles[:, [2, 0, 1]]])
    start, end, third = (found.centres[edges[:, k]] for k in range(3))
    along, reach = end - start, third - start
    part = np.einsum("ij,ij->i", along, reach) / np.einsum("ij,ij->i", along, along)
    off = np.abs(along[:, 0] * reach[:, 1] - along[:, 1] * reach[:, 0]) / np.hypot(*along.T)
    blocked = (part > 0) & (part < 1) & (off < found.radii[edges[:, 2]])
    pairs = np.sort(edges[:, :2], axis=1)
    keys = pairs[:, 0] * count + pairs[:, 1]
    keys = np.setdiff1d(keys, keys[blocked])
    return np.column_stack([keys // count, keys % count])


def candidate_gaps(found: Particles, pixel_size: float, furthest: float = FURTHEST) -> Gaps:
    """The gaps between neighbours whose outlines (discs of equal area) are less than `furthest` nm apart."""
    pairs = neighbours(found)
    first, second = found.centres[pairs[:, 0]], found.centres[pairs[:, 1]]
    radii = found.radii[pairs]
    edge = (np.hypot(*(second - first).T) - radii.sum(1)) * pixel_size
    return Gaps(first, second, radii, edge)[edge < furthest]


# --- how wide they are ----------------------------------------------------------------------------------------------------------------------------------


def profiles(image: np.ndarray, gaps: Gaps) -> list[np.ndarray]:
    """Grey levels from centre to centre every quarter pixel, mean of three lines a pixel apart, cubic interpolation: one array per gap."""
    along = gaps.second - gaps.first
    length = np.hypot(*along.T)
    along = along / length[:, None]
    counts = (length / STEP).astype(int) + 1
    owner = np.repeat(np.arange(len(gaps)), counts)
    distance = STEP * (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts))
    line = gaps.first[owner] + distance[:, None] * along[owner]
    across = along[owner][:, ::-1] * [1, -1]
    spots = np.stack([line - across, line, line + across], 1)
    values = map_coordinates(np.asarray(image, np.float64), spots.reshape(-1, 2).T, order=3, mode="nearest").reshape(-1, 3).mean(1)
    return np.split(values, np.cumsum(counts)[:-1]) if len(gaps) else []


def _crossing(profile: np.ndarray, level: float) -> float:
    """Index, linearly interpolated, at which a profile that starts below the level first reaches it; NaN if never."""
    above = int(np.argmax(profile >= level))
    if profile[above] < level:
        return np.nan
    return above - (profile[above] - level) / (profile[above] - profile[above - 1])


def measure(image: np.ndarray, gaps: Gaps, pixel_size: float, peak: str = "smaller", background: bool = False) -> Measured:
    """Apply the paper's two rules to every gap of a list.

    The minimum is looked for between the middles of the two radii, so that the darker top of an edge-brightened particle is no gap; the peaks are the maxima on
    its two sides. A gap exists if the minimum is below 60 % of the `peak`: the "smaller" of the two (a dim neighbour makes no gap) or the "larger".
    It reaches from the minimum to where either side first comes up to 80 % of the larger peak.

    image: (height, width) float; pixel_size: nm; background: subtract the carbon, the 5 % quantile within 100 nm of the gap's middle (the paper does not).
    """
    if peak not in ("smaller", "larger"):
        raise ValueError(f"the peak of the 60 % rule is {peak!r}; choose 'smaller' or 'larger'")
    exists, width = np.zeros(len(gaps), bool), np.full(len(gaps), np.nan)
    middles = np.rint((gaps.first + gaps.second) / 2).astype(int)
    around = int(np.ceil(FURTHEST / pixel_size))
    for k, profile in enumerate(profiles(image, gaps)):
        if background:
            row, column = np.maximum(middles[k] - around, 0)
            profile = profile - np.quantile(image[row : middles[k, 0] + around + 1, column : middles[k, 1] + around + 1], 0.05)
        last = len(profile) - 1
        start = min(int(gaps.radii[k, 0] / (2 * STEP)), last // 2)
        end = max(last - int(gaps.radii[k, 1] / (2 * STEP)), start)
        lowest = start + int(np.argmin(profile[start : end + 1]))
        peaks = profile[: lowest + 1].max(), profile[lowest:].max()
        exists[k] = profile[lowest] < EXISTS_BELOW * (min(peaks) if peak == "smaller" else max(peaks))
        if exists[k]:
            level = WIDTH_AT * max(peaks)
            width[k] = STEP * pixel_size * (_crossing(profile[lowest::-1], level) + _crossing(profile[lowest:], level))
    return Measured(exists, width, width - gaps.edge)


# --- what a restoration does to them --------------------------------------------------------------------------------------------------------------------


def _share(values: np.ndarray, fields: np.ndarray | None, seed: int) -> dict:
    """Mean, its 95 % interval over resampled fields (or single values, where no fields are given) and the number of values."""
    if not np.size(values):
        return {"n": 0}
    fields = np.arange(len(values)) if fields is None else np.unique(fields, return_inverse=True)[1]
    interval = ratio_interval(np.bincount(fields, weights=values), np.bincount(fields), seed)
    return {"value": float(np.mean(values)), "interval": interval, "n": len(values)}


def statistics(output: Measured, reference: Measured, fields: np.ndarray | None = None, seed: int = 0) -> dict:
    """The numbers of Figure 3 of one image against the high-magnification scan, both measured at the same gaps.

    fields: (n,) which field each gap is of; gaps of one field are not independent, so intervals resample fields. Returns a dict:
    undetected   share of the gaps that exist in the reference and not here;
    difference   mean |w - w_reference| in nm over gaps resolved in both;  bias  mean of w - w_reference over the same;
    gaussian     mean and standard deviation (maximum likelihood) of the widths of gaps resolved in both, in nm.
    The first three are {"value", "interval", "n"} with 95 % intervals, {"n": 0} where there is nothing to count.
    """

    def chosen(values: np.ndarray, which: np.ndarray) -> dict:
        return _share(values[which], None if fields is None else fields[which], seed)

    both = output.exists & reference.exists & np.isfinite(output.width_nm)
    error = output.width_nm - reference.width_nm
    widths, resolved = output.width_nm[both], both & np.isfinite(reference.width_nm)
    return {
        "undetected": chosen(~output.exists, reference.exists),
        "difference": chosen(np.abs(error), resolved),
        "bias": chosen(error, resolved),
        "gaussian": {"mean": float(widths.mean()), "sigma": float(widths.std())} if len(widths) else {},
    }


def false_gaps(measured: Measured, gaps: Gaps, fields: np.ndarray | None = None, seed: int = 0) -> dict:
    """Share of touching pairs (edge <= 0, by the truth) at which a gap is seen: {"value", "interval", "n"}; fields as in `statistics`."""
    touching = gaps.edge <= 0
    return _share(measured.exists[touching], None if fields is None else fields[touching], seed)


def compare_particles(found: Particles, reference: Particles, tolerance: float = 1.0) -> dict[str, tuple[int, int]]:
    """Invented and lost particles: those whose centre lies in no particle of the other side, grown by `tolerance` pixels.

    {"hallucinated": (how many, of the found ones), "lost": (how many, of the reference's)}. Splitting or merging particles is neither.
    """
    return {"hallucinated": (_without(found, reference, tolerance), len(found.radii)), "lost": (_without(reference, found, tolerance), len(reference.radii))}


def _without(some: Particles, others: Particles, tolerance: float) -> int:
    if not len(some.radii) or not len(others.radii):
        return len(some.radii)
    near = cKDTree(some.centres).sparse_distance_matrix(cKDTree(others.centres), float(others.radii.max()) + tolerance, output_type="ndarray")
    inside = near["v"] <= others.radii[near["j"]] + tolerance
    return len(some.radii) - len(np.unique(near["i"][inside]))
