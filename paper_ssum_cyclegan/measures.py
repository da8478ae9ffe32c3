"""How near a restored chip image comes to its SEM truth: fidelity, edges, alignment and invented structures.

Throughout, y is the SEM truth and g the image judged, both (height, width) float32 in [0, 1] of one shape, and a shift is (row, column) in pixels. PSNR and
SSIM are those of `common.metrics`, in its convention. The paper names PSNR and EPI and defines neither; its pairs were aligned by hand, so every score also
comes after an affine fit of grey levels and after the best whole-pixel shift. Line widths are in `metrology`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude, grey_dilation, grey_erosion, label, laplace, sobel
from skimage.morphology import disk

from common.metrics import psnr, ssim

from .stitching import correlation_surface

RADIUS = 8  # px, how far alignment looks
EDGES = 0.1  # share of the pixels that an edge mask holds
LEVEL = 0.2  # of the truth's contrast: a weaker difference is no structure
SLOPE = 0.04  # of the truth's contrast per px: a weaker gradient is no edge
COUNTERPART = 0.4  # an edge is matched by one of this share of its gradient
AREA = 6  # px of strong difference, and of unmatched edges, that a structure has at least


def _checked(y: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, g = np.asarray(y, np.float32), np.asarray(g, np.float32)
    if y.ndim != 2 or y.shape != g.shape:
        raise ValueError(f"cannot compare images of shapes {y.shape} and {g.shape}; give two (height, width) images of one size")
    if not (np.isfinite(y).all() and np.isfinite(g).all()):
        raise ValueError("cannot compare images with pixels that are not finite; replace them")
    return y, g


# Fidelity and edges


def epi(y: np.ndarray, g: np.ndarray) -> float:
    """Edge preservation index in [-1, 1]: sum(dA dB) / sqrt(sum dA^2 sum dB^2), dA and dB the Laplacians of y and g less their means; 0 where one is flat.

    The Laplacian has four neighbours, and the outermost pixels are left out.
    """
    a, b = (laplace(np.float64(image))[1:-1, 1:-1] for image in _checked(y, g))
    a, b = a - a.mean(), b - b.mean()
    product = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / product) if product else 0.0


def edge_ratio(y: np.ndarray, g: np.ndarray) -> float:
    """sum |grad g| / sum |grad y| by central differences: below 1 for a blurred image, above 1 for a noisy one. Raises ValueError where y is constant."""
    truth, judged = (float(np.hypot(*np.gradient(np.float64(image))).sum()) for image in _checked(y, g))
    if not truth:
        raise ValueError("the truth is constant: it has no edges to compare with")
    return judged / truth


def affine_fit(y: np.ndarray, g: np.ndarray) -> np.ndarray:
    """a g + b, float32, with a and b of least squares to y: brightness, contrast and its sign no longer count. A constant g becomes the mean of y."""
    y, g = _checked(y, g)
    centred = np.float64(g) - g.mean(dtype=np.float64)
    variance = (centred**2).mean()
    slope = (centred * y).mean() / variance if variance else 0.0
    return np.float32(slope * centred + y.mean(dtype=np.float64))


# Alignment


def _correlations(y: np.ndarray, g: np.ndarray, radius: int) -> np.ndarray:
    """Correlation coefficients of y(p) and g(p + shift) over the area they share, (2 radius + 1, 2 radius + 1), shift 0 in the middle; 0 where one is flat."""
    y, g = _checked(y, g)
    if min(y.shape) <= 2 * radius:
        raise ValueError(f"images of {y.shape} are too small for shifts up to {radius} px; give sides above {2 * radius}")
    surface, _ = correlation_surface(y, g)  # of where g lies, the reverse of what it shows
    middle = tuple(slice(n - 1 - radius, n + radius) for n in y.shape)
    return surface[middle][::-1, ::-1]


def best_shift(y: np.ndarray, g: np.ndarray, radius: int = RADIUS) -> tuple[int, int]:
    """The shift of up to `radius` px along each axis at which g(p + shift) shows what y shows at p.

    It maximises the absolute correlation coefficient over the common area, for the optical image may have inverted contrast; of equal ones, as in a grating,
    the shortest. Raises ValueError for sides of no more than 2 radius.
    """
    size = np.abs(_correlations(y, g, radius))
    rows, columns = np.nonzero(size >= size.max() - 1e-9)
    shortest = np.argmin((rows - radius) ** 2 + (columns - radius) ** 2)
    return int(rows[shortest] - radius), int(columns[shortest] - radius)


def aligned(y: np.ndarray, g: np.ndarray, radius: int = RADIUS) -> tuple[np.ndarray, np.ndarray]:
    """y and g after `best_shift`, both cropped to the area they share."""
    y, g = _checked(y, g)
    shift = best_shift(y, g, radius)
    of_y = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, y.shape, strict=True))
    of_g = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, y.shape, strict=True))
    return y[of_y], g[of_g]


def ecc_aligned(y: np.ndarray, g: np.ndarray, radius: int = RADIUS) -> tuple[np.ndarray, np.ndarray]:
    """y and g after an affine map to a fraction of a pixel, both cropped to the area they share; g is interpolated (bicubic), hence a little smoother.

    The map maximises the enhanced correlation coefficient (Evangelidis and Psarakis 2008) from `best_shift` on. Where that does not converge, moves a corner by
    more than radius + 2 px or correlates less than the whole-pixel shift, the result is that of `aligned`.
    """
    y, g = _checked(y, g)
    whole = aligned(y, g, radius)
    row, column = best_shift(y, g, radius)
    before = _correlations(*whole, 0).item()
    matrix = np.float32([[1, 0, column], [0, 1, row]])
    try:
        _, matrix = cv2.findTransformECC(y, g * np.float32(np.sign(before)), matrix, cv2.MOTION_AFFINE, (3, 100, 1e-6), None, 5)
    except cv2.error:
        return whole
    height, width = y.shape
    corners = np.array([[x, v, 1] for x in (0, width - 1) for v in (0, height - 1)])
    furthest = np.abs(corners @ matrix.T - corners[:, :2]).max()
    if not furthest <= radius + 2:
        return whole
    margin = int(np.ceil(furthest)) + 1
    inside = (slice(margin, height - margin), slice(margin, width - margin))
    result = y[inside], cv2.warpAffine(g, matrix, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT)[inside]
    return result if abs(_correlations(*result, 0).item()) > abs(before) else whole


def scores(y: np.ndarray, g: np.ndarray, radius: int = RADIUS, ecc: bool = False) -> dict[str, float]:
    """psnr (dB), ssim and epi as they are, `_fit` after `affine_fit`, `_aligned` after `aligned` and the fit.

    With `ecc`, which takes a second, also `_ecc` after `ecc_aligned` and the fit.
    """
    moved = {"_aligned": aligned(y, g, radius)} | ({"_ecc": ecc_aligned(y, g, radius)} if ecc else {})
    pairs = {"": (y, g), "_fit": (y, affine_fit(y, g))} | {suffix: (near, affine_fit(near, image)) for suffix, (near, image) in moved.items()}
    return {name + suffix: measure(*pair) for suffix, pair in pairs.items() for name, measure in (("psnr", psnr), ("ssim", ssim), ("epi", epi))}


# Where the errors are


@dataclass(frozen=True, eq=False)
class Differences:
    """Fig. S7: signed  g - y, absolute  |g - y|, edges  the strongest 10 % of Sobel gradients of y, all (height, width); mean |g - y| on and off edges."""

    signed: np.ndarray
    absolute: np.ndarray
    edges: np.ndarray
    on_edges: float
    elsewhere: float


def difference_maps(y: np.ndarray, g: np.ndarray) -> Differences:
    """Where g errs, on the edges of y and elsewhere. Raises ValueError where y has no edges."""
    y, g = _checked(y, g)
    gradient = np.hypot(sobel(y, 0), sobel(y, 1))
    edges = gradient > np.quantile(gradient, 1 - EDGES)
    if not edges.any():
        raise ValueError("the truth is constant: it has no edges to look at")
    signed = g - y
    absolute = np.abs(signed)
    return Differences(signed, absolute, edges, float(absolute[edges].mean()), float(absolute[~edges].mean()))


@dataclass(frozen=True, eq=False)
class Structures:
    """invented, lost  counts; where  int8 map of the area judged: 1 invented, -1 lost, 0 neither.

    What is lost grows together where much is: compare images by the shares of their area, not by counts.
    """

    invented: int
    lost: int
    where: np.ndarray

    def share(self, kind: int) -> float:
        """Of the area judged, invented (1) or lost (-1)."""
        return float((self.where == kind).mean())


def invented(y: np.ndarray, g: np.ndarray, tolerance: int = 2, radius: int = RADIUS) -> Structures:
    """Structures of g that y does not have, and structures of y that g has lost. Raises ValueError where y is constant.

    Both are aligned, fitted and smoothed by 1 px. They differ where one leaves the range that the other spans within `tolerance` px, by more than LEVEL of the
    truth's contrast (1st to 99th percentile); pieces less than twice that apart are one structure, of at least AREA pixels. What has its edges in g
    only is invented, in y only lost: AREA pixels or more, steeper than SLOPE, where the other image has no gradient of COUNTERPART that within `tolerance` px.
    A wrong grey level between right edges is neither. Nor is what fits into `tolerance` px beside something of its brightness: a bridge over a narrow gap, say.
    """
    y, g = aligned(y, g, radius)
    near = disk(tolerance)
    contrast = np.subtract(*np.percentile(y, (99, 1)))
    if not contrast:
        raise ValueError("the truth is constant: nothing in it can be lost")
    g = affine_fit(y, g)
    smooth_y, smooth_g, slope_y, slope_g = (filtered(image, 1.0) for filtered in (gaussian_filter, gaussian_gradient_magnitude) for image in (y, g))

    def leaves(image, other):
        return np.maximum(image - grey_dilation(other, footprint=near), grey_erosion(other, footprint=near) - image) > LEVEL * contrast

    def unmatched(slope, other):
        return (slope > SLOPE * contrast) & (COUNTERPART * slope > grey_dilation(other, footprint=near))

    strong = leaves(smooth_g, smooth_y) | leaves(smooth_y, smooth_g)
    pieces, count = label(cv2.dilate(np.uint8(strong), near), np.ones((3, 3)))
    area, edges_g, edges_y = (np.bincount(pieces[mask], minlength=count + 1) for mask in (strong, unmatched(slope_g, slope_y), unmatched(slope_y, slope_g)))
    kind = np.where((area >= AREA) & (np.maximum(edges_g, edges_y) >= AREA), np.sign(edges_g - edges_y), 0)
    kind[0] = 0
    return Structures(int((kind == 1).sum()), int((kind == -1).sum()), np.int8(kind[pieces]))
