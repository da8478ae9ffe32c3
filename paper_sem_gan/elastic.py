"""Pyramid elastic registration: block correlation with ever smaller blocks, down to a fraction of a pixel."""

from __future__ import annotations

from math import comb

import cv2
import numpy as np
from scipy import sparse
from scipy.interpolate import BSpline
from scipy.sparse.linalg import spsolve

LEVELS = ((112, 2, 4), (56, 1, 3), (40, 1, 1), (40, 1, 1), (40, 1, 1), (40, 1, 1))  # block, px; binning, px; search radius, binned px
SMOOTHING = 1.0  # px: keeps the band that both scans have recorded, and most of the noise out
LEAST_NCC = 0.5  # of a block that counts
LEAST_SHARE = 0.2  # of a block's window that both images must show
KNOT_SPACING = 36  # px: a wave of 200 px has five and a half knots, which cubic splines follow
STIFFNESS = 0.005  # roughness against data; from 0.002 to 0.01 the result is the same within a tenth
TOLERANCE = 1.0  # px from the smooth field at which a block counts half
CONVERGED = 0.1  # px, 95th percentile of the last change
CUBIC = 3


def identity(shape: tuple[int, int]) -> np.ndarray:
    """Each pixel's own place, (height, width, 2) float32 as row, column."""
    return np.stack(np.mgrid[: shape[0], : shape[1]], -1).astype(np.float32)


def warp(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The image (or field) at places (height, width, 2) given as row, column; cubic, the border replicated, float32."""
    return cv2.remap(image, np.ascontiguousarray(where[..., ::-1], np.float32), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def inside(where: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Whether a cubic interpolation at each place (height, width, 2) needs no pixel from beyond an image of this shape, (height, width) bool."""
    return ((where >= 1) & (where <= np.subtract(shape, 2))).all(-1)


# --- One level: where the blocks are ---


def hann_windows(size: int, blocks: int) -> np.ndarray:
    """(2 blocks + 1, size) float32: windows of size / blocks pixels that overlap by half, the first and last centred on the borders; a whole one sums to 1."""
    distance = (np.arange(size) + 0.5) * blocks / size - np.arange(2 * blocks + 1)[:, None] / 2
    return np.float32((1 + np.cos(2 * np.pi * distance)) * (abs(distance) < 0.5) * blocks / size)


def block_shifts(fixed: np.ndarray, moving: np.ndarray, mask: np.ndarray, blocks: tuple[int, int], radius: int) -> tuple[np.ndarray, ...]:
    """Where the blocks of `fixed` lie in `moving`, by weighted normalised cross-correlation over all shifts of at most `radius` pixels.

    fixed, moving: (height, width) float32 of any brightness and contrast; mask: (height, width) bool, what both show.
    Returns, for each of the k blocks that have a clear peak of at least LEAST_NCC: the place (k, 2) that it speaks of, which is the centre of gravity of its
    squared gradients (a block with one particle tells where that particle is); the shift (k, 2) with fixed(p) = moving(p + shift), from a quadratic through
    3 x 3 samples; and the precision (k, 2, 2) of the shift up to a common factor: minus the peak's Hessian, over the unexplained share 1 - r^2.
    """
    over_rows, over_columns = (hann_windows(size, count) for size, count in zip(fixed.shape, blocks, strict=True))
    mask = np.float32(mask)
    share = over_rows @ mask @ over_columns.T

    def mean(image):
        """Of each block. Windows separate, so all blocks together are two small matrix products; no FFT is needed for so few shifts."""
        return over_rows @ (image * mask) @ over_columns.T / np.maximum(share, 1e-3)

    fixed, moving = fixed - fixed.mean(), cv2.copyMakeBorder(moving - moving.mean(), *[radius] * 4, cv2.BORDER_REPLICATE)
    mean_fixed = mean(fixed)
    power_fixed = mean(fixed**2) - mean_fixed**2
    side = 2 * radius + 1
    ncc = np.empty((side, side, *share.shape), np.float32)
    for i, j in np.ndindex(side, side):
        moved = moving[i : i + fixed.shape[0], j : j + fixed.shape[1]]
        mean_moved = mean(moved)
        power_moved = mean(moved**2) - mean_moved**2
        ncc[i, j] = (mean(fixed * moved) - mean_fixed * mean_moved) / np.sqrt(np.maximum(power_fixed * power_moved, 1e-12))
    energy = cv2.Sobel(fixed, -1, 1, 0, scale=0.125) ** 2 + cv2.Sobel(fixed, -1, 0, 1, scale=0.125) ** 2
    rows, columns = np.arange(fixed.shape[0], dtype=np.float32)[:, None], np.arange(fixed.shape[1], dtype=np.float32)
    places = np.stack([mean(energy * rows), mean(energy * columns)], -1) / np.maximum(mean(energy), 1e-12)[..., None]
    shifts, heights, hessians, clear = _peaks(ncc)
    good = clear & (heights >= LEAST_NCC) & (share > LEAST_SHARE)
    precision = -hessians / np.maximum(1 - heights**2, 0.02)[..., None, None]
    return places[good], shifts[good], precision[good]


def _peaks(surfaces: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of n x m surfaces (side, side, n, m): the maxima's places from the middle (n, m, 2), heights (n, m), Hessians (n, m, 2, 2), and which are peaks."""
    side = len(surfaces)
    highest = surfaces.reshape(side * side, *surfaces.shape[2:]).argmax(0)
    i, j = np.clip(highest // side, 1, side - 2), np.clip(highest % side, 1, side - 2)
    a, b = np.indices(highest.shape)
    near = np.stack([[surfaces[i + di, j + dj, a, b] for dj in (-1, 0, 1)] for di in (-1, 0, 1)])
    slope = np.stack([(near[2] - near[0]).sum(0), (near[:, 2] - near[:, 0]).sum(0)], -1) / 6  # least squares over the nine
    rr, cc = (near[2] - 2 * near[1] + near[0]).sum(0) / 3, (near[:, 2] - 2 * near[:, 1] + near[:, 0]).sum(0) / 3
    rc = (near[2, 2] - near[2, 0] - near[0, 2] + near[0, 0]) / 4
    curved = (rr < 0) & (cc < 0) & (rr * cc - rc**2 > 1e-3 * np.maximum(rr, cc) ** 2)
    hessians = np.where(curved[..., None, None], np.stack([np.stack([rr, rc], -1), np.stack([rc, cc], -1)], -2), -np.eye(2, dtype=np.float32))
    offset = -np.linalg.solve(hessians, slope[..., None])[..., 0]
    clear = curved & (abs(offset).max(-1) < 1)
    return np.stack([i, j], -1) - side // 2 + offset, near[1, 1], hessians, clear


# --- The smooth field through them ---


def _roughness(n: int, m: int) -> sparse.csr_matrix:
    """Quadratic form of the squared third differences of n x m coefficients: nothing for what is quadratic, little for slow drift.

    With second differences, a stiffness that suppresses the noise as well also flattens a wave of 200 px.
    """

    def difference(size, order):
        return sparse.csr_matrix(np.diff(np.eye(size), order, axis=0))

    pieces = ((difference(n, k), difference(m, 3 - k), comb(3, k)) for k in range(4))
    return sum(weight * sparse.kron(along_rows.T @ along_rows, along_columns.T @ along_columns) for along_rows, along_columns, weight in pieces)


def _basis(places: np.ndarray, size: int) -> sparse.csr_matrix:
    """Cubic B-splines of an axis of `size` pixels at k places, (k, intervals + 3)."""
    intervals = max(2, round(size / KNOT_SPACING))
    knots = np.arange(-CUBIC, intervals + CUBIC + 1) * (size / intervals) - 0.5
    return BSpline.design_matrix(np.clip(places, -0.5, size - 0.5), knots, CUBIC)


def smooth_field(places: np.ndarray, values: np.ndarray, precision: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The field (height, width, 2) float32 near `values` (k, 2) at `places` (k, 2) under their precisions (k, 2, 2), that is smooth.

    Penalised B-splines (Eilers and Marx, Statist. Sci. 11, 1996) on two axes; values far from the field count less (Cauchy weights, reweighted).
    """
    along_rows, along_columns = (_basis(places[:, k], shape[k]) for k in (0, 1))
    n, m = along_rows.shape[1], along_columns.shape[1]
    columns = along_rows.indices.reshape(-1, CUBIC + 1)[:, :, None] * m + along_columns.indices.reshape(-1, CUBIC + 1)[:, None]
    products = along_rows.data.reshape(-1, CUBIC + 1)[:, :, None] * along_columns.data.reshape(-1, CUBIC + 1)[:, None]
    basis = sparse.csr_matrix((products.ravel(), columns.ravel(), np.arange(len(places) + 1) * (CUBIC + 1) ** 2), (len(places), n * m))
    precision = precision / np.median(np.trace(precision, axis1=1, axis2=2) / 2)
    rough = sparse.block_diag([STIFFNESS * _roughness(n, m) + 1e-6 * sparse.eye(n * m)] * 2)
    weights = np.ones(len(places))
    for _ in range(4):
        p = precision * weights[:, None, None]
        data = sparse.bmat([[basis.T @ sparse.diags(p[:, a, b]) @ basis for b in (0, 1)] for a in (0, 1)])
        wanted = np.concatenate([basis.T @ (p[:, a] * values).sum(-1) for a in (0, 1)])
        coefficients = spsolve((data + rough).tocsc(), wanted, permc_spec="MMD_AT_PLUS_A").reshape(2, n * m)
        left = values - basis @ coefficients.T
        squares = np.einsum("ka,kab,kb->k", left, precision, left) / (np.trace(precision, axis1=1, axis2=2) / 2)  # along what a block knows only
        weights = 1 / (1 + squares / TOLERANCE**2)
    rows, columns = (_basis(np.arange(size), size).toarray() for size in shape)
    return np.stack([rows @ part.reshape(n, m) @ columns.T for part in coefficients], -1).astype(np.float32)


# --- All levels ---


def elastic(fixed: np.ndarray, moving: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """The map (height, width, 2) float32, row and column, with fixed(p) = moving(map(p)), from a start that is at most about 8 pixels off.

    fixed: (height, width), moving: any shape, float32 of any brightness and contrast; start: a map, the identity if None.
    Each level warps `moving` anew by the whole map so far, correlates smaller blocks over smaller shifts, and fits the whole displacement by one smooth field;
    the last level repeats until the 95th percentile of the change is below CONVERGED. Blocks overlap by half. Raises ValueError where hardly any is found.
    """
    own = identity(fixed.shape)
    where = own if start is None else np.float32(start)
    fixed, moving = (cv2.GaussianBlur(np.float32(image), (0, 0), SMOOTHING) for image in (fixed, moving))
    for block, binning, radius in LEVELS:
        places, shifts, precision = residual_shifts(fixed, moving, where, block, binning, radius)
        if len(places) < 8:
            raise ValueError(f"{len(places)} blocks of the one image are found in the other; the two must show the same field")
        target = warp(where, (places + shifts)[None])[0] - places
        previous, where = where, own + smooth_field(places, target, precision, fixed.shape)
        if radius == 1 and np.percentile(np.linalg.norm(where - previous, axis=-1), 95) < CONVERGED:
            break
    return where


def residual_shifts(fixed, moving, where, block: int, binning: int = 1, radius: int = 1) -> tuple[np.ndarray, ...]:
    """`block_shifts` of smoothed images under a map (height, width, 2), in pixels of `fixed`, with blocks of about `block` pixels."""
    counts = tuple(max(1, round(size / block)) for size in fixed.shape)
    size = tuple(n // binning for n in fixed.shape[::-1])
    images = [image[: size[1] * binning, : size[0] * binning] for image in (fixed, warp(moving, where), np.float32(inside(where, moving.shape)))]
    first, second, mask = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images) if binning > 1 else images
    places, shifts, precision = block_shifts(first, second, mask == 1, counts, radius)
    return (places + 0.5) * binning - 0.5, shifts * binning, precision / binning**2
