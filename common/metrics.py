"""How restorations are measured, in one convention that is printed with every number."""

from __future__ import annotations

import numpy as np

CONVENTION = (
    "grey images clipped to [0, 1], times 255, rounded half to even to 8 bit; 2 pixels cut off each border; PSNR with peak 255 in float64; "
    "SSIM with an 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance, valid area; means over images, 95 % bootstrap intervals"
)


def to_8bit(image: np.ndarray) -> np.ndarray:
    """(height, width) float in [0, 1] to uint8 as the convention says; uint8 passes through."""
    return image if image.dtype == np.uint8 else np.round(np.clip(image, 0, 1) * 255.0).astype(np.uint8)


def _pair(truth, image, crop):
    if truth.shape != image.shape:
        raise ValueError(f"cannot compare images of different sizes, {truth.shape} and {image.shape}")
    inside = (slice(crop, -crop or None),) * 2
    return to_8bit(truth)[inside].astype(np.float64), to_8bit(image)[inside].astype(np.float64)


def psnr(truth: np.ndarray, image: np.ndarray, crop: int = 2) -> float:
    """Peak signal-to-noise ratio in dB, (height, width) uint8 or float in [0, 1]; infinite for equal images."""
    a, b = _pair(truth, image, crop)
    error = np.mean((a - b) ** 2)
    return float(10 * np.log10(255.0**2 / error)) if error else float("inf")


def ssim(truth: np.ndarray, image: np.ndarray, crop: int = 2) -> float:
    """Structural similarity in [-1, 1], (height, width) uint8 or float in [0, 1], at least 11 pixels a side after the crop."""
    from skimage.metrics import structural_similarity

    a, b = _pair(truth, image, crop)
    return float(structural_similarity(a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False))


def bootstrap_interval(values, seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """95 % interval of the mean of per-image values, by resampling the images."""
    values, rng = np.asarray(values, np.float64), np.random.default_rng(seed)
    means = [rng.choice(values, values.size).mean() for _ in range(draws)]
    return tuple(float(q) for q in np.quantile(means, [0.025, 0.975]))


def ratio_interval(sums, counts, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of sum(sums) / sum(counts), a mean over things that come in groups (gaps of a field, say), by resampling whole groups."""
    sums, counts, rng = np.asarray(sums, np.float64), np.asarray(counts, np.float64), np.random.default_rng(seed)
    picks = (rng.integers(len(sums), size=len(sums)) for _ in range(draws))
    return tuple(float(q) for q in np.quantile([sums[pick].sum() / counts[pick].sum() for pick in picks], [0.025, 0.975]))


def rank_correlation(error: np.ndarray, trust: np.ndarray, block: int = 8) -> float:
    """Spearman's correlation between the error of a restoration and its trust map, both as root mean squares over block x block pixels; 1 is a perfect ranking.

    One pixel's error is one draw from what the map predicts, hence the blocks; block=1 compares single pixels.
    """
    from scipy.stats import spearmanr

    def reduced(values):
        height, width = (n // block * block for n in values.shape)
        tiles = values[:height, :width].astype(np.float64).reshape(height // block, block, width // block, block)
        return np.sqrt((tiles**2).mean((1, 3)))

    return float(spearmanr(reduced(error), reduced(trust), axis=None).statistic)
