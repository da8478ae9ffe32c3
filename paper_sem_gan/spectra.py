"""Spatial frequencies of micrographs: radially averaged magnitudes (the paper's Figure 4) and the Fourier ring correlation of two images.

Frequencies are in cycles per nm. A scan of pixel size p knows nothing above its Nyquist frequency 1 / (2 p): 0.0352 per nm at 14.2 nm, 0.0704 at 7.1 nm.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

RESOLVED = 1 / 7  # correlation that two noisy halves reach at the resolution limit (Rosenthal and Henderson 2003)


def _spectrum(image: np.ndarray) -> np.ndarray:
    """Transform of the image without its mean behind a Hann window, (height, width) complex128, zero frequency first."""
    window = np.hanning(image.shape[0] + 2)[1:-1, None] * np.hanning(image.shape[1] + 2)[None, 1:-1]  # without the zeros at its ends
    image = np.asarray(image, np.float64)
    return fft.fft2((image - image.mean()) * window)


def _rings(shape: tuple[int, int], pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Ring of every sample of the transform, (height, width) int, and the rings' mean frequencies; a ring is as wide as one sample along the longer side.

    Ring 0 holds the zero frequency and the corners beyond the Nyquist frequency, which are known along the diagonals only.
    """
    frequency = np.hypot(fft.fftfreq(shape[0])[:, None], fft.fftfreq(shape[1])[None])
    ring = np.rint(frequency * max(shape)).astype(int)
    ring[ring > max(shape) // 2] = 0
    return ring, np.bincount(ring.ravel(), weights=frequency.ravel()) / np.bincount(ring.ravel()) / pixel_size


def magnitude_spectrum(image: np.ndarray) -> np.ndarray:
    """|FFT| of a (height, width) image, mean removed, Hann window, zero frequency in the middle, (height, width) float64."""
    return fft.fftshift(np.abs(_spectrum(image)))


def radial_average(image: np.ndarray, pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (n,) in cycles per nm and the mean of |FFT| over each ring (n,), from the first ring beside zero to the Nyquist frequency.

    image: (height, width); pixel_size: nm.
    """
    ring, frequency = _rings(image.shape, pixel_size)
    magnitude = np.bincount(ring.ravel(), weights=np.abs(_spectrum(image)).ravel()) / np.bincount(ring.ravel())
    return frequency[1:], magnitude[1:]


def spectral_distance(image: np.ndarray, reference: np.ndarray, pixel_size: float, low: float, high: float) -> float:
    """Mean over rings from `low` to `high` cycles per nm of |log10 of the ratio of the radial averages|: 0 for equal spectra, 0.3 for a factor of two.

    Both images (height, width) of the same shape; pixel_size: nm. Raises ValueError where the shapes differ or no ring lies in the band.
    """
    _check(image, reference)
    frequency, one = radial_average(image, pixel_size)
    other = radial_average(reference, pixel_size)[1]
    band = (frequency >= low) & (frequency <= high)
    if not band.any():
        raise ValueError(f"no frequency of the image lies between {low} and {high} cycles per nm; it reaches {frequency[-1]:.4f}")
    if not (one[band].all() and other[band].all()):
        raise ValueError(f"an image without any signal between {low} and {high} cycles per nm has no spectrum to compare; is it constant?")
    return float(np.mean(np.abs(np.log10(one[band] / other[band]))))


def ring_correlation(first: np.ndarray, second: np.ndarray, pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Fourier ring correlation: frequencies (n,) in cycles per nm and Re sum(F1 conj F2) / sqrt(sum |F1|^2 sum |F2|^2) over each ring (n,).

    Saxton and Baumeister 1982. Both images (height, width) of the same shape; pixel_size: nm. A ring in which an image is empty correlates with 0.
    """
    _check(first, second)
    ring, frequency = _rings(first.shape, pixel_size)
    one, other = _spectrum(first), _spectrum(second)
    shared, power, other_power = (np.bincount(ring.ravel(), weights=part.ravel()) for part in ((one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2))
    scale = np.sqrt(power * other_power)
    return frequency[1:], np.divide(shared, scale, out=np.zeros_like(scale), where=scale > 0)[1:]


def wiener_gains(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The isotropic linear filter that brings the first images of the pairs closest to the second ones: frequencies in cycles per pixel and gains, (n,) each.

    Gain of a ring: Re sum(F2 conj F1) / sum |F1|^2 over all pairs, each (height, width), cut to the smallest of them.
    """
    height, width = np.min([first.shape for first, _ in pairs], axis=0)
    ring, frequency = _rings((height, width), 1.0)
    shared = power = 0.0
    for first, second in pairs:
        _check(first, second)
        one, other = _spectrum(first[:height, :width]), _spectrum(second[:height, :width])
        shared = shared + np.bincount(ring.ravel(), weights=(other * one.conj()).real.ravel())
        power = power + np.bincount(ring.ravel(), weights=np.abs(one).ravel() ** 2)
    return frequency[1:], shared[1:] / power[1:]


def filtered(image: np.ndarray, frequency: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """(height, width) float32 with every spatial frequency multiplied by its gain, the mean kept; the image is mirrored at its borders."""
    height, width = image.shape
    mirrored = np.pad(np.asarray(image, np.float64), ((0, height), (0, width)), mode="symmetric")
    radius = np.hypot(fft.fftfreq(2 * height)[:, None], fft.rfftfreq(2 * width)[None])
    gain = np.interp(radius, frequency, gains)
    gain[0, 0] = 1.0
    return fft.irfft2(fft.rfft2(mirrored) * gain, mirrored.shape)[:height, :width].astype(np.float32)


def resolution(frequency: np.ndarray, correlation: np.ndarray, threshold: float = RESOLVED) -> float:
    """Where a ring correlation first falls below the threshold, in cycles per nm, linearly interpolated; its last frequency if it never does."""
    below = np.flatnonzero(correlation < threshold)
    if not len(below):
        return float(frequency[-1])
    k = below[0]
    if k == 0:
        return float(frequency[0])
    return float(np.interp(-threshold, -correlation[[k - 1, k]], frequency[[k - 1, k]]))


def _check(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape:
        raise ValueError(f"cannot compare spectra of images of different sizes, {first.shape} and {second.shape}; crop them to the same field")
