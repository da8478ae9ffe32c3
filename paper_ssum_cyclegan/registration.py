"""An optical mosaic and an SEM image of the same place on one grid.

Points are (row, column) in pixels, pixel centres at whole numbers. A matrix (2, 3) takes optical pixels to SEM pixels: sem = M[:, :2] @ optical + M[:, 2].
The paper aligned by hand: `landmark_affine`. `refine` and `register_automatically` compare gradient magnitudes, in which edges are bright whatever the
contrast of either image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .stitching import correlation_surface

SCALES = 6.0, 3.0, 1.5  # px of the coarser image, sigmas of the smoothing
LARGEST_ROTATION, LARGEST_SIZE_ERROR = 6.0, 0.04  # degrees, relative: what the automatic search covers
COARSE_SIDE, FINE_SIDE = 192, 512  # px of the longer image in that search, and in the search for rivals
LEAST_SHARED = 0.4  # of the smaller image
RIVAL = 0.98  # of the highest correlation: a place elsewhere that has so much may be the true one as well
NEAR = 8  # px of the grid: elsewhere is farther away
LEAST_AGREEMENT = 0.35
WORSE = 0.02  # agreement that refining may lose, of what rounding and interpolation leave to chance
CORRECTION = 8, 0.03  # px of the coarser image, and share of its longer side: no corner may be moved by more in refining


@dataclass(frozen=True, eq=False)
class Overlaid:
    """Two images on one grid, (height, width) float32 each; valid, bool, where both have pixels; pixel_size in nm; corner (2,), the place of the grid's first
    pixel in the image of larger pixels."""

    optical: np.ndarray
    sem: np.ndarray
    valid: np.ndarray
    pixel_size: float
    corner: tuple[int, int]


def landmark_affine(optical_points: np.ndarray, sem_points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares matrix (2, 3) of at least four landmarks, (n, 2) in both images, and the residuals (n, 2) in SEM pixels.

    Raises ValueError for fewer, and for landmarks on a line (or nearly: spread across it below 2 % of that along).
    """
    pairs = [np.asarray(points, np.float64) for points in (optical_points, sem_points)]
    if pairs[0].shape != pairs[1].shape or pairs[0].ndim != 2 or pairs[0].shape[1] != 2 or not all(np.isfinite(points).all() for points in pairs):
        raise ValueError(f"landmarks are finite (n, 2) arrays of one length, got {pairs[0].shape} and {pairs[1].shape}")
    if len(pairs[0]) < 4:
        raise ValueError(f"{len(pairs[0])} landmarks are too few; give at least 4")
    for points, name in zip(pairs, ("optical image", "SEM image"), strict=True):
        spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
        if spread[1] < 0.02 * spread[0] or spread[0] == 0:
            raise ValueError(f"the landmarks of the {name} lie on a line; choose some beside it")
    design = np.column_stack([pairs[0], np.ones(len(pairs[0]))])
    matrix = np.linalg.lstsq(design, pairs[1], rcond=None)[0].T
    return matrix, pairs[1] - design @ matrix.T


def size_ratio(matrix: np.ndarray) -> float:
    """SEM pixels on one optical pixel, along an axis."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def rotation(matrix: np.ndarray) -> float:
    """Degrees from rows towards columns, of the rotation nearest to the matrix."""
    left, _, right = np.linalg.svd(matrix[:, :2])
    return float(np.degrees(np.arctan2((left @ right)[1, 0], (left @ right)[0, 0])))


def warped(image: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """The image at places matrix @ (row, column, 1) for every pixel of a grid, smoothed first where the grid is coarser; (height, width) float32."""
    ratio = size_ratio(matrix)
    image = np.float32(image)
    if ratio > 1.05:
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * np.sqrt(ratio**2 - 1), borderType=cv2.BORDER_REFLECT)
    swapped = matrix[::-1][:, [1, 0, 2]]  # OpenCV's points are (column, row)
    return cv2.warpAffine(image, swapped, shape[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=border)


def covered(shape: tuple[int, int], matrix: np.ndarray, grid: tuple[int, int], where: np.ndarray | None = None) -> np.ndarray:
    """Bool, `grid`: which places of a grid lie on an image of the given shape, and on its pixels `where`, with room for interpolation."""
    seen = np.ones(shape, np.float32) if where is None else np.float32(where)
    return warped(seen, matrix, grid, cv2.BORDER_CONSTANT) > 0.99


def composed(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The matrix (2, 3) that applies `inner`, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def inverse(matrix: np.ndarray) -> np.ndarray:
    turned = np.linalg.inv(matrix[:, :2])
    return np.column_stack([turned, -turned @ matrix[:, 2]])


def edges(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gradient magnitude after a Gaussian of `sigma` pixels, in units of its mean, strong edges compressed: float32, (height, width)."""
    smooth = cv2.GaussianBlur(np.float32(image), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    magnitude = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 0, 1), cv2.Sobel(smooth, cv2.CV_32F, 1, 0))
    return np.sqrt(magnitude / max(float(magnitude.mean()), 1e-30))


def _on_coarser(optical, sem, matrix, where):
    """(coarser image, finer one on its grid, the matrix that was used, valid, whether the optical image is the coarser), of two images and a matrix."""
    forward = size_ratio(matrix) >= 1
    coarse, fine, used = (optical, sem, matrix) if forward else (sem, optical, inverse(matrix))
    valid = covered(fine.shape, used, coarse.shape, None if forward else where)
    return coarse, warped(fine, used, coarse.shape), used, valid & where if forward and where is not None else valid, forward


def agreement(optical: np.ndarray, sem: np.ndarray, matrix: np.ndarray, where: np.ndarray | None = None) -> float:
    """Correlation, -1 to 1, of the images' gradient magnitudes at the finest of SCALES over what they share; 0 where that is nothing."""
    coarse, fine, _, valid, _ = _on_coarser(optical, sem, matrix, where)
    if valid.sum() < 256:
        return 0.0
    one, two = (edges(image, SCALES[-1])[valid] for image in (coarse, fine))
    return float(np.corrcoef(one, two)[0, 1]) if one.std() > 0 and two.std() > 0 else 0.0


def refine(optical: np.ndarray, sem: np.ndarray, start: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """The matrix near `start`, within CORRECTION, that maximises the enhanced correlation coefficient of gradient magnitudes.

    where: bool like optical, its usable pixels. Scales go from coarse to fine, each with an affine correction. Raises ValueError where that does not
    converge, leads farther away, or to less agreement than `start` has (but for WORSE) or LEAST_AGREEMENT.
    """
    matrix = np.asarray(start, np.float64)
    for sigma in SCALES:
        coarse, fine, used, valid, forward = _on_coarser(optical, sem, matrix, where)
        margin = int(3 * sigma)  # the border of the shared area is an edge in one image only
        valid = cv2.erode(np.uint8(valid), np.ones((2 * margin + 1,) * 2, np.uint8), borderValue=0)
        step = np.eye(2, 3, dtype=np.float32)
        try:
            criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-6)
            cv2.findTransformECC(edges(coarse, sigma), edges(fine, sigma), step, cv2.MOTION_AFFINE, criteria, valid, 1)
        except cv2.error:
            raise ValueError("the optical and the SEM image could not be registered from this start; check the landmarks, or give more of them") from None
        used = composed(used, np.float64(step[::-1][:, [1, 0, 2]]))
        matrix = used if forward else inverse(used)
    height, width = coarse.shape
    corners = np.array([(0, 0, 1), (0, width, 1), (height, 0, 1), (height, width, 1)], float).T
    change = composed(inverse(start), matrix) if forward else composed(start, inverse(matrix))  # of the coarser image onto itself
    moved = float(np.linalg.norm(change @ corners - corners[:2], axis=0).max())
    found, least = agreement(optical, sem, matrix, where), max(agreement(optical, sem, start, where) - WORSE, LEAST_AGREEMENT)
    if moved > max(CORRECTION[0], CORRECTION[1] * max(height, width)) or found < least:
        raise ValueError(f"registration moved a corner by {moved:.0f} px to where edges correlate by {found:.2f} ({least:.2f} are needed); check the landmarks")
    return matrix


def register_automatically(optical: np.ndarray, sem: np.ndarray, scale_hint: float, where: np.ndarray | None = None) -> np.ndarray:
    """The matrix without landmarks: every rotation and size within the limits above is tried on reduced images, with every shift, then the best is refined.

    scale_hint: SEM pixels on one optical pixel. Raises ValueError where the images agree too little in the end, or as well in another place.
    """
    if not (np.isfinite(scale_hint) and scale_hint > 0):
        raise ValueError(f"the ratio of the pixel sizes is {scale_hint}; give a positive number")
    best, start = -1.0, None
    small = Reduced(optical, sem, scale_hint, COARSE_SIDE)
    for degrees in np.arange(-LARGEST_ROTATION, LARGEST_ROTATION + 0.1, 1.0):
        for size in 1 + LARGEST_SIZE_ERROR * np.linspace(-1, 1, 5):
            turn = np.radians(degrees)
            linear = scale_hint * size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            surface = small.surface(linear)
            if surface.max() > best:
                best, start = float(surface.max()), small.matrix(linear, surface)
    try:
        matrix = refine(optical, sem, start, where)
    except ValueError as error:
        raise ValueError(f"the SEM image was not found in the optical mosaic ({str(error).split(';')[0]}); give landmarks") from None
    surface = Reduced(optical, sem, scale_hint, FINE_SIDE).surface(matrix[:, :2])
    row, column = np.unravel_index(surface.argmax(), surface.shape)
    best = float(surface.max())
    surface[max(row - NEAR, 0) : row + NEAR + 1, max(column - NEAR, 0) : column + NEAR + 1] = -1
    if (rival := float(surface.max())) > RIVAL * best:
        raise ValueError(f"the SEM image fits the optical mosaic in more than one place (correlations {best:.2f} and {rival:.2f}); give landmarks")
    return matrix


class Reduced:
    """Gradient magnitudes of both images on a grid that gives the longer one `side` pixels, to be compared at every shift."""

    def __init__(self, optical: np.ndarray, sem: np.ndarray, scale_hint: float, side: int):
        longest = max(*optical.shape, *(n / scale_hint for n in sem.shape))
        self.reduction = max(longest / side, 1.0, 1 / scale_hint)  # optical pixels on one of the grid
        self.sem = np.float32(sem)
        self.shape = tuple(int(n / (scale_hint * self.reduction)) for n in sem.shape)
        whole = np.column_stack([self.reduction * np.eye(2), np.full(2, (self.reduction - 1) / 2)])
        self.optical = edges(warped(optical, whole, tuple(int(n / self.reduction) for n in optical.shape)), 1.0)

    def _grid(self, linear: np.ndarray) -> np.ndarray:
        """From the grid around the SEM image to its pixels, for a linear part (2, 2) of the matrix."""
        linear = self.reduction * linear
        return np.column_stack([linear, (np.array(self.sem.shape) - 1) / 2 - linear @ (np.array(self.shape) - 1) / 2])

    def surface(self, linear: np.ndarray) -> np.ndarray:
        """Correlation at every shift; -1 where less than LEAST_SHARED is shared."""
        surface, area = correlation_surface(self.optical, edges(warped(self.sem, self._grid(linear), self.shape), 1.0))
        return np.where(area >= LEAST_SHARED * min(self.optical.size, np.prod(self.shape)), surface, -1)

    def matrix(self, linear: np.ndarray, surface: np.ndarray) -> np.ndarray:
        """The matrix whose shift is where the surface is highest."""
        shift = np.array(np.unravel_index(surface.argmax(), surface.shape)) - (np.array(self.shape) - 1)
        to_grid = np.column_stack([np.eye(2) / self.reduction, 0.5 / self.reduction - 0.5 - shift])
        return composed(self._grid(linear), to_grid)


def resample(optical: np.ndarray, sem: np.ndarray, matrix: np.ndarray, optical_pixel: float, sem_pixel: float, where: np.ndarray | None = None) -> Overlaid:
    """Both images on the grid of the one with larger pixels, cut to what they share; the finer one is smoothed and interpolated, the other left as it is.

    optical_pixel, sem_pixel: nm; where: bool like optical, its usable pixels. Raises ValueError where the images share nothing.
    """
    coarse, fine, _, valid, forward = _on_coarser(np.float32(optical), sem, matrix, where)
    if not valid.any():
        raise ValueError("the optical and the SEM image share no place; check the landmarks")
    rows, columns = (np.flatnonzero(valid.any(axis)) for axis in (1, 0))
    cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    images = (coarse[cut], fine[cut]) if forward else (fine[cut], coarse[cut])
    return Overlaid(*map(np.float32, images), valid[cut], optical_pixel if forward else sem_pixel, (int(rows[0]), int(columns[0])))
