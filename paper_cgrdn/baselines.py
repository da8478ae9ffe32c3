"""What CGRDN must beat: classical filters, each with its strength tuned on simulated pairs of the modality.

A strength k is relative to the noise that is estimated in the image itself, so that one k serves all doses. Images are distorted ones in any units. All filters
first replace pixels that stand far out of their neighbourhood (X-ray hits, dead pixels) by its median, as anybody would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec

import cv2
import numpy as np
from scipy.ndimage import median_filter
from scipy.signal import wiener

from common import classical
from common.classical import anscombe, estimate_noise, gaussian, inverse_anscombe, nonlocal_means, signal_dependent_noise

SPAN = (0.005, 0.995)  # quantiles that become 0 and 1 before filtering: common.classical's strengths are for such images
OUTLIER = 8.0, 0.4  # standard deviations of the noise, and share of the range, that a pixel may differ from the median of 5 x 5
HINDSIGHT = "Gaussian, with hindsight"  # a row of its own in tables: no user can choose so well


def in_unit_range(method: Callable) -> Callable:
    """A filter for images in about [0, 1] as one for images in any units."""

    def filtered(image: np.ndarray, k: float) -> np.ndarray:
        low, high = np.quantile(image, SPAN)
        span = max(high - low, np.finfo(np.float32).tiny)
        return method(despiked(((image - low) / span).astype(np.float32)), k) * span + low

    return filtered


def despiked(image: np.ndarray) -> np.ndarray:
    """An image in about [0, 1], its outliers replaced by the median of their 5 x 5 pixels."""
    middle = median_filter(image, 5, mode="mirror")
    noise, share = OUTLIER
    return np.where(np.abs(image - middle) > max(noise * estimate_noise(image), share), middle, image)


def _median(image, k):
    side = 2 * round(k * 10 * estimate_noise(image) ** 0.5) + 1
    return median_filter(image, side, mode="mirror")


def _wiener(image, k):
    """The locally adaptive filter of Lim (1990), 5 x 5 pixels, k times the estimated noise."""
    noise = max(k * estimate_noise(image), 1e-6)
    return wiener(np.pad(image, 2, "reflect"), 5, noise**2)[2:-2, 2:-2].astype(np.float32)


def _bm3d(image, k):
    """Dabov et al. (2007) behind the generalised Anscombe transform, of k times the estimated noise."""
    from bm3d import bm3d

    gain, offset = signal_dependent_noise(image)
    stable = anscombe(image, gain, offset).astype(np.float32)
    sigma = estimate_noise(stable)
    return inverse_anscombe(bm3d(stable, k * sigma).astype(np.float32), gain, offset) if sigma > 1e-6 else image


METHODS: dict[str, tuple[Callable, tuple[float, ...]]] = {  # name -> (filter of (image, k), candidates for k)
    "Gaussian": (in_unit_range(lambda image, k: gaussian(image, 1, k)), (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0)),
    "median": (in_unit_range(_median), (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.1, 1.5)),
    "Wiener": (in_unit_range(_wiener), (0.5, 0.8, 1.0, 1.3, 1.7, 2.3, 3.2, 4.5, 6.4)),
    "non-local means": (in_unit_range(lambda image, k: nonlocal_means(image, 1, k, stabilise=False)), (0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.3, 3.2)),
    "non-local means, stabilised": (in_unit_range(lambda image, k: nonlocal_means(image, 1, k)), (0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.3, 3.2)),
}
if find_spec("bm3d"):  # not among the requirements
    METHODS["BM3D, stabilised"] = in_unit_range(_bm3d), (1.0, 1.3, 1.7, 2.3, 3.2, 4.5)


def tune(pairs: Iterable[tuple[np.ndarray, np.ndarray]], score: Callable, methods: Iterable[str] = METHODS) -> dict[str, float]:
    """Method -> the k of its candidates with the best mean `score(target, image)` over (distorted, target) pairs, which should serve nothing else."""
    pairs = list(pairs)
    return {name: classical.tune(lambda image, _, k, method=METHODS[name][0]: method(image, k), METHODS[name][1], pairs, 1, score) for name in methods}


def oracle_gaussian(image: np.ndarray, target: np.ndarray, sigmas: Iterable[float] = tuple(np.geomspace(0.3, 8, 20))) -> np.ndarray:
    """The Gaussian-filtered image that is closest to the target: more than any tuning can know."""
    found = [image, *(cv2.GaussianBlur(np.float32(image), (0, 0), sigma) for sigma in sigmas)]
    return min(found, key=lambda blurred: float(np.mean((blurred - target) ** 2)))
