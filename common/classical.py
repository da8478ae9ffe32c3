"""Classical restorations: what a network must beat. Each takes and gives (height, width) float32 in [0, 1] (not clipped).

A tuned method has one free number k: its strength is k times the noise estimated in the image itself, and k is chosen once, on simulated micrographs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np


def cubic_kernel(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys' cubic interpolation kernel; a = -0.5 is what the literature's "bicubic" means (OpenCV has -0.75)."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def bicubic(image: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge by an integer factor with pixel centres aligned (no shift), the border replicated."""
    if scale == 1:
        return image.astype(np.float32)
    padded = cv2.copyMakeBorder(image.astype(np.float32), 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    out = np.empty((image.shape[0] * scale, image.shape[1] * scale), np.float32)
    taps = np.arange(-2, 3)
    weights = [cubic_kernel((p + 0.5) / scale - 0.5 - taps) for p in range(scale)]
    for i, wy in enumerate(weights):
        for j, wx in enumerate(weights):
            out[i::scale, j::scale] = cv2.sepFilter2D(padded, -1, wx, wy)[2:-2, 2:-2]
    return out


def upscale(image: np.ndarray, scale: int, sigma: float = 0.0) -> np.ndarray:
    """Bicubic enlargement, then a Gaussian of `sigma` output pixels: the abstract's classical restoration."""
    enlarged = bicubic(image, scale)
    return cv2.GaussianBlur(enlarged, (0, 0), sigma) if sigma > 0 else enlarged


def estimate_noise(image: np.ndarray) -> float:
    """Standard deviation of white noise, from the median of the finest diagonal Haar coefficients (Donoho and Johnstone 1994: robust to edges)."""
    return float(np.median(np.abs(_diagonal(image))) / 0.6745)


def _diagonal(image: np.ndarray) -> np.ndarray:
    """Diagonal Haar coefficients over the last two axes: white noise keeps its variance in them, smooth structure vanishes."""
    height, width = (n // 2 * 2 for n in image.shape[-2:])
    image = image[..., :height, :width]
    return (image[..., ::2, ::2] - image[..., 1::2, ::2] - image[..., ::2, 1::2] + image[..., 1::2, 1::2]) / 2


def signal_dependent_noise(image: np.ndarray, block: int = 8) -> tuple[float, float]:
    """Gain and offset of the noise variance, var = gain * signal + offset, both >= 0, fitted to the quieter half of the image's blocks."""
    height, width = (n // block * block for n in image.shape)
    tiles = image[:height, :width].reshape(height // block, block, width // block, block).swapaxes(1, 2).reshape(-1, block, block)
    if len(tiles) < 8:
        return 0.0, estimate_noise(image) ** 2
    mean, variance = tiles.mean((1, 2)), (_diagonal(tiles) ** 2).mean((1, 2))
    order = np.argsort(mean)
    groups = [g for g in np.array_split(order, 16) if len(g)]
    level = np.array([mean[g].mean() for g in groups])
    quiet = np.array([np.mean(np.sort(variance[g])[: max(1, len(g) // 2)]) for g in groups])
    gain, offset = np.polyfit(level, quiet, 1) if np.ptp(level) > 1e-3 else (0.0, quiet.mean())
    if gain < 0 or offset < 0:  # one of the two laws alone
        gain, offset = (0.0, quiet.mean()) if gain < 0 else (max(0.0, (level * quiet).sum() / (level**2).sum()), 0.0)
    return float(gain), float(max(offset, 1e-8))


def anscombe(image: np.ndarray, gain: float, offset: float) -> np.ndarray:
    """Generalised Anscombe transform: makes noise of variance gain * x + offset a noise of variance 1 (the plain scaling where gain is 0)."""
    if gain < 1e-6:
        return image / np.sqrt(offset)
    return 2 / gain * np.sqrt(np.maximum(gain * image + 0.375 * gain**2 + offset, 0))


def inverse_anscombe(transformed: np.ndarray, gain: float, offset: float) -> np.ndarray:
    """Algebraic inverse of `anscombe`."""
    if gain < 1e-6:
        return transformed * np.sqrt(offset)
    return (gain * transformed / 2) ** 2 / gain - 0.375 * gain - offset / gain


def gaussian(image: np.ndarray, scale: int, k: float, noise: float | None = None) -> np.ndarray:
    """Bicubic, then a Gaussian whose sigma is k * 10 * sqrt(noise) output pixels (noisier images want wider kernels, less than proportionally).

    noise: standard deviation, for a tile that of its whole image; estimated in the image itself when None.
    """
    return upscale(image, scale, k * 10 * (estimate_noise(image) if noise is None else noise) ** 0.5)


def nonlocal_means(image: np.ndarray, scale: int, k: float, stabilise: bool = True) -> np.ndarray:
    """Non-local means of strength k * estimated noise (5x5 patches, 13x13 search), behind the Anscombe transform where asked, then bicubic."""
    from skimage.restoration import denoise_nl_means

    gain, offset = signal_dependent_noise(image) if stabilise else (0.0, 1.0)
    stable = anscombe(image.astype(np.float32), gain, offset).astype(np.float32)
    sigma = estimate_noise(stable)
    quiet = denoise_nl_means(stable, patch_size=5, patch_distance=6, h=max(k * sigma, 1e-6), sigma=sigma, fast_mode=True) if sigma > 1e-6 else stable
    return bicubic(inverse_anscombe(quiet, gain, offset), scale)


METHODS: dict[str, tuple[Callable, tuple[float, ...]]] = {  # name -> (method, candidates for k)
    "bicubic": (lambda image, scale, k: bicubic(image, scale), (0.0,)),
    "bicubic + Gaussian": (gaussian, (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)),
    "non-local means": (partial(nonlocal_means, stabilise=False), (0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0)),
    "non-local means, stabilised": (nonlocal_means, (0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0)),
}


def tune_all(pairs: Sequence[tuple[np.ndarray, np.ndarray]], scale: int, score: Callable) -> dict[str, float]:
    """The strength of every method of `METHODS` with the best mean score on simulated pairs, which should be used for nothing else."""
    return {name: tune(method, candidates, pairs, scale, score) for name, (method, candidates) in METHODS.items()}


def tune(method: Callable, candidates: Sequence[float], pairs: Sequence[tuple[np.ndarray, np.ndarray]], scale: int, score: Callable) -> float:
    """The k with the best mean `score(truth, image)` over (low, high) pairs."""
    return max(candidates, key=lambda k: np.mean([score(high, method(low, scale, k)) for low, high in pairs]))
