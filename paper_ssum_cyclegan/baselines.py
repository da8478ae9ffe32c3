"""What the SSUM CycleGAN must beat: the optical image itself, and the best linear filter with the best grey scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import cv2
import numpy as np

SIGMAS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)  # pixels, of the point spread that is undone; 0 is the image as it is
NOISES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # over the image's deviation


def wiener(image: np.ndarray, sigma: float, noise: float) -> np.ndarray:
    """Wiener's deconvolution of a Gaussian point spread: H / (H^2 + noise^2) in Fourier space, scaled to keep the mean; same shape and units, float32.

    sigma: pixels; noise: the amplitude of noise over that of the picture, the same at all frequencies. Borders are mirrored.
    """
    if not sigma:
        return np.asarray(image, np.float32)
    border = int(4 * sigma) + 1
    padded = cv2.copyMakeBorder(np.float32(image), *(border,) * 4, cv2.BORDER_REFLECT)
    rows, columns = np.fft.fftfreq(padded.shape[0])[:, None], np.fft.rfftfreq(padded.shape[1])
    transfer = np.exp(-2 * (np.pi * sigma) ** 2 * (rows**2 + columns**2))
    gain = transfer / (transfer**2 + noise**2) * (1 + noise**2)
    return np.fft.irfft2(np.fft.rfft2(padded) * gain, padded.shape)[border:-border, border:-border].astype(np.float32)


def tune(pairs: Iterable[tuple[np.ndarray, np.ndarray]], score: Callable) -> tuple[float, float]:
    """(sigma, noise) with the best mean of `score(sem, filtered optical)` over (optical, SEM) pairs, which should serve nothing else."""
    pairs = list(pairs)
    candidates = [(0.0, NOISES[0]), *product(SIGMAS[1:], NOISES)]
    return max(candidates, key=lambda numbers: np.mean([score(sem, wiener(optical, *numbers)) for optical, sem in pairs]))
