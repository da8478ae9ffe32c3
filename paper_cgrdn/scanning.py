"""What scanning does to an image (STEM, SEM): one function a step, S1 to S10 of the distortion model.

Pixel (i, j) is visited at t_ij = i (Nx td + tf) + j td: columns j are the fast axis, td is the dwell time, tf the fly-back. Times here are in dwell times and
frequencies in cycles per dwell time, unless a unit is given. Counting, readout noise, hot and dead pixels, clipping and rounding are those of `camera`.
W is the literature, F the paper's figures, "chosen" is ours. Images are (height, width) float32.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.signal import lfilter

from common.specimens.base import gradient, log_uniform

MAINS = 50.0  # Hz


def edge_brightening(image: np.ndarray, amplitude: float) -> np.ndarray:
    """S10, SEM: slopes emit more electrons. I (1 + A s), s the steepness in [0, 1] of its 99 % quantile; the mean is kept. Part of the target."""
    steep = np.hypot(*gradient(cv2.GaussianBlur(image, (0, 0), 1.0)))
    brighter = image * (1 + np.float32(amplitude) * np.minimum(steep / max(np.quantile(steep, 0.99), 1e-6), 1))
    return np.float32(brighter * (image.mean() / max(brighter.mean(), 1e-12)))


def probe_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """S1: Gaussian probe and source size, sigma in pixels. Part of the target."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) if sigma > 0 else image


# --- Displacement (S2, S8) ---


def pixel_times(shape: tuple[int, int], flyback: float, row_constant: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Times at which rows begin (height,) and those within a row (width,), whose sums are t_ij; row_constant: what happens within a row is not resolved."""
    height, width = shape
    return np.arange(height) * (width + flyback), np.zeros(width) if row_constant else np.arange(width, dtype=np.float64)


def waves(rows: np.ndarray, columns: np.ndarray, frequencies: np.ndarray, amplitudes: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """sum_k A_k sin(2 pi f_k t_ij + phi_k), (height, width), with `rows` and `columns` of `pixel_times`; by the sum formula, for speed."""
    u = 2 * np.pi * rows[:, None] * frequencies + phases
    v = 2 * np.pi * columns[:, None] * frequencies
    per_row, per_column = np.hstack((amplitudes * np.sin(u), amplitudes * np.cos(u))), np.hstack((np.cos(v), np.sin(v)))
    return np.einsum("ik,jk->ij", np.float32(per_row), np.float32(per_column))  # not a matrix product, whose threads would fight the training for cores


def displacement(shape: tuple[int, int], drift: float, jitter: float, count: int, flyback: float, row_constant: bool, rng: np.random.Generator) -> np.ndarray:
    """S2, where the probe is instead of where it should be, along one axis: (height, width) float32 in pixels.

    d = linear drift + random walk per row + white noise per row + `count` sinusoids of amplitude ~ 1 / sqrt(f) (form W, the noise module of abTEM).
    drift: pixels per frame. jitter: standard deviation (pixels) of all that is not drift; random shares of its variance go to the three parts (chosen), the
    sinusoids' to the white noise where there are none. Frequencies are log-uniform from one cycle per frame to two per row (chosen).
    """
    rows, columns = pixel_times(shape, flyback, row_constant)
    duration = rows[-1] + shape[1]
    white, walk, wave = jitter * np.sqrt(rng.dirichlet(np.ones(3)))
    steps = np.cumsum(rng.standard_normal(shape[0]))
    steps = (steps - steps.mean()) / max(steps.std(), 1e-12)
    per_row = (white if count else np.hypot(white, wave)) * rng.standard_normal(shape[0]) + walk * steps
    frequencies, phases = log_uniform(rng, 1 / duration, 2 / (shape[1] + flyback), count), rng.uniform(0, 2 * np.pi, count)
    amplitudes = wave * np.sqrt(2 / frequencies / max((1 / frequencies).sum(), 1e-12))
    field = per_row[:, None] + drift * (rows[:, None] + columns) / duration + waves(rows, columns, frequencies, amplitudes, phases)
    return field.astype(np.float32)


def interlacing(height: int, offset: float) -> np.ndarray:
    """S8: horizontal displacement (height, 1) float32 of a frame whose odd rows, scanned in another pass or direction, lie `offset` pixels apart."""
    return np.float32(offset) * (np.arange(height, dtype=np.float32)[:, None] % 2)


def linear_part(field: np.ndarray) -> np.ndarray:
    """Least-squares a + b i + c j of a (height, width) field, same shape: the part of a displacement that no single frame can tell from its specimen."""
    i, j = (np.arange(n) - (n - 1) / 2 for n in field.shape)
    down, along = i @ field.mean(1) / max(i @ i, 1), field.mean(0) @ j / max(j @ j, 1)
    return (field.mean() + down * i[:, None] + along * j).astype(np.float32)


def scan_distortion(image: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """S2: I(i + dy, j + dx), cubic, mirrored at the frame, never negative; dy, dx in pixels, broadcast to (height, width)."""
    rows, columns = (np.arange(n, dtype=np.float32) for n in image.shape)
    columns = np.broadcast_to(columns + dx, image.shape).astype(np.float32)
    rows = np.broadcast_to(rows[:, None] + dy, image.shape).astype(np.float32)
    return np.maximum(cv2.remap(image, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101), 0)


# --- Detection ---


def decay(lifetime: float) -> float:
    """exp(-td / tau) for a lifetime tau in dwell times."""
    return float(np.exp(-1 / lifetime))


def fast_scan_response(counts: np.ndarray, r: float, w: float = 0.0, q: float = 0.0) -> np.ndarray:
    """S4: a detector that still glows when the probe has moved on; N * h along the stream of rows, h_m = (1 - w) (1 - r) r^m + w (1 - q) q^m, m >= 0.

    Causal and of unit sum: streaks run to the right, and over the end of a row into the next. Before its first pixel the stream is taken to have been at the
    mean of the first row. Physics W (Mullarkey et al. 2023: streaks appear where the detector decays more slowly than the probe moves).
    """
    stream, before = counts.ravel(), counts[0].mean()
    result = np.zeros_like(stream)
    for share, p in ((1 - w, r), (w, q)):
        if share:
            result += np.float32(share) * lfilter(np.float32([1 - p]), np.float32([1, -p]), stream, zi=np.float32([p * before]))[0]
    return result.reshape(counts.shape)


def pmt_noise(counts: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """S5: N + sqrt(N) Normal(0, s_p), the multiplication of a photomultiplier is itself random."""
    return counts + np.sqrt(np.maximum(counts, 0)) * (np.float32(deviation) * rng.standard_normal(counts.shape, np.float32))


def row_offsets(height: int, deviation: float, rho: float, rng: np.random.Generator) -> np.ndarray:
    """S6: black level b_i of each row, (height, 1) float32 in counts, AR(1): b_i = rho b_(i-1) + noise, of the given deviation.

    The mean of the frame is subtracted: D finds no offset between distorted images and their targets.
    """
    white = rng.standard_normal(height + 1)
    offsets, _ = lfilter([np.sqrt(1 - rho**2)], [1, -rho], white[1:], zi=[rho * white[0]])
    return np.float32(deviation * (offsets - offsets.mean()))[:, None]


def line_dropouts(counts: np.ndarray, rows: np.ndarray, starts: np.ndarray, lengths: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """S7: segments one row high, pixels start to start + length, fall to `levels` of their values (F: black line segments)."""
    counts = counts.copy()
    for row, start, length, level in zip(rows, starts, lengths, levels, strict=True):
        counts[row, start : start + length] *= np.float32(level)
    return counts


def hum(counts: np.ndarray, amplitude: float, dwell: float, flyback: float, phase: float) -> np.ndarray:
    """S9: N (1 + A sin(2 pi 50 Hz t + phi)), mains on the beam current or the detector; dwell in seconds, fly-back in dwell times."""
    rows, columns = pixel_times(counts.shape, flyback)
    return counts * (1 + waves(rows, columns, np.array([MAINS * dwell]), np.array([amplitude]), np.array([phase]))).astype(np.float32)


def charging(counts: np.ndarray, amplitude: float, lifetime: float) -> np.ndarray:
    """S10, SEM: a share A of the signal follows, or with A < 0 opposes, what the probe met over the last `lifetime` dwell times. The mean is kept.

    (1 - A) N + A N * h, h_m = (1 - q) q^m: bright, or the more usual dark, streaks to the right of bright structures.
    """
    return fast_scan_response(counts, 0.0, amplitude, decay(lifetime))


def intensity_drift(counts: np.ndarray, amplitude: float) -> np.ndarray:
    """S10, SEM: N times 1 - A/2 in the first row to 1 + A/2 in the last: the emission drifts while a frame is scanned."""
    return counts * np.linspace(1 - amplitude / 2, 1 + amplitude / 2, counts.shape[0], dtype=np.float32)[:, None]
