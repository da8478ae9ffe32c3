"""How restorations are measured, in one convention that is printed with every number."""

from __future__ import annotations

import numpy as np

CONVENTION = (
    "grey images clipped to [0, 1], times 255, rounded half to even to 8 bit; 2 pixels cut off each border; PSNR with peak 255 in float64; "
    "SSIM with an 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance, valid area; means over images, 95 % bootstrap intervals"
)

BAND = 0.02, 0.4  # cycles per px: below lies shading, above it mostly noise
CODE = 1 / 255  # what an 8-bit file rounds to; nothing in a spectrum is known better


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


def radial_spectrum_distance(truth: np.ndarray, image: np.ndarray) -> float:
    """Mean over rings from 0.02 to 0.4 cycles per px of |ln of the ratio of mean powers|: 0 for equal spectra, ln 4 for noise of twice the deviation.

    Both (height, width) on a scale on which the truth spans about [0, 1]. The image gets the deviation of the truth first, for contrast is no structure. Means
    are removed and a Hann window is used; a ring is as wide as one sample along the shorter side; the power of rounding to 8 bits is added to both.
    """
    from scipy import fft, ndimage

    truth, image = np.asarray(truth, np.float64), np.asarray(image, np.float64)
    if truth.ndim != 2 or truth.shape != image.shape:
        raise ValueError(f"cannot compare images of shapes {truth.shape} and {image.shape}; give two (height, width) images of one size")
    if not (np.isfinite(truth).all() and np.isfinite(image).all()):
        raise ValueError("cannot compare images with pixels that are not finite; replace them")
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in truth.shape))
    frequency = np.hypot(fft.fftfreq(truth.shape[0])[:, None], fft.rfftfreq(truth.shape[1])[None])
    ring = np.rint(frequency * min(truth.shape)).astype(int)
    band = (frequency >= BAND[0]) & (frequency <= BAND[1])

    def power(values):
        scaled = (values - values.mean()) * (truth.std() / max(float(values.std()), 1e-12))
        spectrum = np.abs(fft.rfft2(scaled * window)) ** 2 / (window**2).sum()
        return ndimage.mean(spectrum[band], ring[band], np.unique(ring[band])) + CODE**2 / 12

    return float(np.abs(np.log(power(image) / power(truth))).mean())
