"""Classical supersampling, what the network must beat: as the paper measured it, on another grid than the network's, and aligned with the probed pixels.

CX is the author's comparison script; see this package's README.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np
from scipy.sparse import csr_matrix

from common.classical import cubic_kernel

from .sampling import count, scan, start

METHODS = ("nearest", "bilinear", "bicubic", "lanczos")
OPENCV = {"nearest": cv2.INTER_NEAREST, "area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}
LANCZOS = 4  # lobes, as OpenCV's has
SIGMAS = tuple(k / 20 for k in range(25))  # scan steps, candidates when tuning


def blurred(image: np.ndarray) -> np.ndarray:
    """The blur of the targets, of a NumPy image: 5 x 5 taps, sigma 2.5, mirrored at the border without repeating it [P, C68]."""
    return cv2.GaussianBlur(np.ascontiguousarray(image, np.float32), (5, 5), 2.5, borderType=cv2.BORDER_REFLECT_101)


# --- As the paper measured ---


def legacy(crop: np.ndarray, step: int, method: str) -> np.ndarray:
    """The published baseline: (side, side) -> (c, c) float32, c = side - side mod step, values in the crop's units; method: one of OPENCV [CX].

    The first c pixels are resized to the number of samples by the nearest pixel, which is the top left one of each block, and back by the method. Two slips are
    kept: c / count is an integer for some steps only, so the grid is not the network's, and all but the nearest take samples for the centres of their blocks.
    """
    size, samples = len(crop) - len(crop) % step, count(len(crop), step)
    few = cv2.resize(np.ascontiguousarray(crop[:size, :size], np.float32), (samples, samples), interpolation=cv2.INTER_NEAREST)
    return cv2.resize(few, (size, size), interpolation=OPENCV[method])


def legacy_target(crop: np.ndarray, step: int) -> np.ndarray:
    """What `legacy` is compared with, (c, c): the blur of the first c pixels [CX]."""
    size = len(crop) - len(crop) % step
    return blurred(crop[:size, :size])


# --- Aligned ---


def aligned(crop: np.ndarray, step: int, method: str, sigma: float = 0.0) -> np.ndarray:
    """(side, side) -> the same shape: the probed pixels of a crop, interpolated where they lie, then a Gaussian of `sigma` pixels; one of METHODS."""
    rows, columns = (weights(n, start(n, step), step, count(n, step), method) for n in crop.shape)
    return smoothed(_interpolated(scan(crop, step), rows, columns), sigma)


def aligned_whole(scanned: np.ndarray, step: int, method: str, sigma: float = 0.0) -> np.ndarray:
    """(n, m) -> (n step, m step): a whole scan, its point k on pixel (step - 1) // 2 + step k."""
    rows, columns = (weights(n * step, (step - 1) // 2, step, n, method) for n in scanned.shape)
    return smoothed(_interpolated(scanned, rows, columns), sigma)


def usual_sigma(step: int) -> float:
    """Pixels, of the Gaussian after cubic interpolation: near what tuning finds on simulated crops, 2.2 for step 4 to 3.5 for step 10."""
    return 1.4 + 0.21 * step


def smoothed(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of `sigma` pixels, none where that is 0."""
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image


def _interpolated(samples: np.ndarray, rows: csr_matrix, columns: csr_matrix) -> np.ndarray:
    return np.ascontiguousarray((columns @ (rows @ samples.astype(np.float32)).T).T)


@lru_cache(maxsize=64)
def weights(side: int, first: int, step: int, samples: int, method: str) -> csr_matrix:
    """(side, samples) float32: how much each sample counts in each pixel of an axis. Sample k lies on pixel first + step k; beyond the ends they repeat.

    Of two equally near samples "nearest" takes the lower, "bicubic" is Keys' with a = -0.5. Rows sum to 1. ValueError for an unknown method.
    """
    position = (np.arange(side) - first) / step
    if method == "nearest":
        taps = np.ceil(position - 0.5)[:, None]
        values = np.ones_like(taps)
    elif method in METHODS:
        radius, kernel = {
            "bilinear": (1, lambda x: 1 - np.abs(x)),
            "bicubic": (2, cubic_kernel),
            "lanczos": (LANCZOS, lambda x: np.sinc(x) * np.sinc(x / LANCZOS)),
        }[method]
        taps = np.floor(position)[:, None] + np.arange(1 - radius, radius + 1)
        values = kernel(position[:, None] - taps)
        values /= values.sum(1, keepdims=True)
    else:
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    pixels = np.broadcast_to(np.arange(side)[:, None], taps.shape)
    taps = np.clip(taps, 0, samples - 1).astype(int)
    return csr_matrix((values.ravel().astype(np.float32), (pixels.ravel(), taps.ravel())), (side, samples))  # weights of the same sample are added


def tune(method: str, crops: Iterable[np.ndarray], step: int, candidates: Iterable[float] = SIGMAS) -> float:
    """The sigma in pixels with the least mean squared error of `aligned` against the blurred crops; these should be used for nothing else.

    crops: (side, side) float32, each in [0, 1]. candidates: in scan steps.
    """
    sigmas = [step * share for share in candidates]
    errors = np.zeros(len(sigmas))
    for crop in crops:
        interpolated, target = aligned(crop, step, method), blurred(crop)
        errors += [np.mean((smoothed(interpolated, sigma) - target) ** 2, dtype=np.float64) for sigma in sigmas]
    return sigmas[int(np.argmin(errors))]
