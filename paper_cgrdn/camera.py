"""What a TEM camera does to an image: one function a step, T1 to T12 of the table in this package's README.

D is what the published pairs prove, F its figures, W the literature; "chosen" is ours. Images are (height, width) float32 in counts (electrons
per pixel), rows first. Functions take every number of their step; only the noise itself, and which single pixels fail and how far, are drawn here.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dctn, idctn

REFERENCE_AREA = 65_536  # pixels; rates of failing pixels are per this area, that of the published pairs (256 x 256)
DARKEST_BAND = 0.1  # gain; bands may overlap, and no amplifier turns a signal negative (chosen)


def mtf(shape: tuple[int, int], a: float, b: float, c: float) -> np.ndarray:
    """T1, modulation transfer function of a detector on the grid of `filtered`, (height, width) float32 in (0, 1], 1 at zero frequency.

    M = [a exp(-g^2 / (2 b^2)) + (1 - a) exp(-g^2 / (2 c^2))] sinc(gx / 2) sinc(gy / 2), g in units of the Nyquist frequency: a share `a` of the signal spread
    widely, the rest narrowly, and the aperture of a square pixel. Form W (ATOMO).
    """
    gy, gx = (np.arange(n) / n for n in shape)
    square = gy[:, None] ** 2 + gx[None] ** 2
    spread = a * np.exp(-square / (2 * b**2)) + (1 - a) * np.exp(-square / (2 * c**2))
    return np.float32(spread * np.sinc(gy / 2)[:, None] * np.sinc(gx / 2)[None])


def filtered(image: np.ndarray, transfer: np.ndarray) -> np.ndarray:
    """An image times a transfer function in frequency space (T1, T3), the mean kept.

    A cosine transform is the Fourier transform of the image with its mirror images around it: no edge is lit from the opposite one.
    """
    return idctn(dctn(np.float32(image)) * transfer)


def noise_transfer(counts: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    """T3: recorded counts spread by the square root of an MTF, signal and noise alike."""
    return filtered(counts, np.sqrt(mtf(counts.shape, a, b, c)))


def counting(expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """T2, S3: N = Poisson(expected counts); negative expectations count as none."""
    return rng.poisson(np.maximum(expected, 0)).astype(np.float32)


def dark_current(counts: np.ndarray, electrons: float, rng: np.random.Generator) -> np.ndarray:
    """T4: N + Poisson(d) - d, thermal electrons of mean d whose mean the camera subtracts: variance d, mean 0."""
    return counts + rng.poisson(electrons, counts.shape).astype(np.float32) - np.float32(electrons)


def readout(counts: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """T5, S6: N + Normal(0, s_r), independent of the signal; s_r in counts."""
    return counts + np.float32(deviation) * rng.standard_normal(counts.shape, np.float32)


def quadrants(counts: np.ndarray, gains: np.ndarray, offsets: np.ndarray, split: tuple[int, int]) -> np.ndarray:
    """T6: g_q N + o_q, a sensor read by four amplifiers (D). gains, offsets (counts): (2, 2); split: first row and column of the lower and right quadrants."""
    row, column = (np.int64(np.arange(n) >= at) for n, at in zip(counts.shape, split, strict=True))
    where = np.ix_(row, column)
    return counts * np.float32(gains)[where] + np.float32(offsets)[where]


def gain_pattern(counts: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """T7: N (1 + Normal(0, s)), what flat-fielding leaves of the pixels' own gains."""
    return counts * (1 + np.float32(deviation) * rng.standard_normal(counts.shape, np.float32))


def bands(counts: np.ndarray, centres: np.ndarray, amplitudes: np.ndarray, widths: np.ndarray, axis: int) -> np.ndarray:
    """T8: N (1 + sum_k A_k exp(-(i - i_k)^2 / (2 w_k^2))), bands of rows (axis 0) or columns (axis 1); centres and widths in pixels (D)."""
    i = np.arange(counts.shape[axis])[:, None]
    gain = np.maximum(1 + (amplitudes * np.exp(-((i - centres) ** 2) / (2 * np.square(widths)))).sum(1), DARKEST_BAND)
    return counts * np.float32(gain[:, None] if axis == 0 else gain[None])


def random_walks(shape: tuple[int, int], rate: float, longest: int, rng: np.random.Generator) -> np.ndarray:
    """Pixels (n, 2) int of Poisson(rate) walks per `REFERENCE_AREA`, each of 1 to `longest` steps between pixels
    that touch by sides or corners, or stay; walks end at the frame."""
    pixels = [np.empty((0, 2), np.int64)]
    for _ in range(rng.poisson(rate * shape[0] * shape[1] / REFERENCE_AREA)):
        steps = rng.integers(-1, 2, (int(rng.integers(1, longest + 1)), 2))
        steps[0] = rng.integers(shape)
        pixels.append(np.cumsum(steps, axis=0))
    pixels = np.concatenate(pixels)
    return pixels[((pixels >= 0) & (pixels < shape)).all(1)]


def xray_hits(counts: np.ndarray, rate: float, longest: int, excess: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """T9, S9: pixels on random walks become U(0.6, 1) Nmax, Nmax = excess max(N): X-rays and cosmic rays that deposit far more than an electron (D).

    Returns the image and the pixels (n, 2).
    """
    pixels = random_walks(counts.shape, rate, longest, rng)
    counts, brightest = counts.copy(), excess * counts.max()
    counts[tuple(pixels.T)] = brightest * rng.uniform(0.6, 1, len(pixels))
    return counts, pixels


def dead_pixels(counts: np.ndarray, rate: float, longest: int, brightest: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """T10, S9: clusters of pixels at U(0, brightest) of the mean (D). Returns the image and the pixels (n, 2)."""
    pixels = random_walks(counts.shape, rate, longest, rng)
    counts, mean = counts.copy(), counts.mean()
    counts[tuple(pixels.T)] = mean * rng.uniform(0, brightest, len(pixels))
    return counts, pixels


def clipping(counts: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """T11, S11: clipped at two of its own quantiles, both in [0, 1] (D: 4.3 % of one image at the highest code)."""
    return np.clip(counts, *np.quantile(counts, (lower, upper)).astype(np.float32))


def quantise(counts: np.ndarray, gain: float) -> np.ndarray:
    """T12: rounded to whole codes of a converter with `gain` codes per count; still in counts."""
    return np.rint(counts * np.float32(gain)) / np.float32(gain)


def eight_bit(counts: np.ndarray) -> np.ndarray:
    """T12: rounded to 256 levels from the least to the largest value, as an export to an 8-bit file does; still in counts."""
    low = counts.min()
    step = max((counts.max() - low) / 255, np.finfo(np.float32).tiny)
    return low + step * np.rint((counts - low) / step)
