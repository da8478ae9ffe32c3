"""What every simulated specimen is made of: the container, and the few drawing tools the families share."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np


@dataclass(frozen=True)
class Specimen:
    """A noise-free, calibrated picture of a specimen: the truth that restorations are compared with.

    image: (height, width) float32 in [0, 1], emitted (SEM) or scattered (STEM) signal per pixel, without noise and without the probe's blur.
    pixel_size: nm per pixel.
    name: the family that drew it (a key of `common.specimens.SPECIMENS`).
    parameters: every drawn parameter (lengths in nm), so that a picture can be explained and particles can be counted.
    """

    image: np.ndarray
    pixel_size: float
    name: str
    parameters: dict = field(default_factory=dict)


def pixel_grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column coordinates of the pixel centres, each (height, width) float32, in pixels."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    return rows, columns


def log_uniform(rng: np.random.Generator, low: float, high: float, size=None):
    """Draw from [low, high] with equal probability per octave (sizes and doses span decades)."""
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], exponent: float = 2.0, smallest: float = 0.0, largest: float = np.inf) -> np.ndarray:
    """Isotropic random texture with power spectrum ~ 1/f^exponent, zero mean, unit standard deviation, (height, width) float32.

    smallest, largest: wavelengths in pixels outside which nothing is kept. The field is periodic over a slightly larger frame, then cropped, so its edges do not match.
    """
    height, width = (cv2.getOptimalDFTSize(int(n * 1.1) + 1) for n in shape)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    f = np.hypot(fy, fx)
    amplitude = np.zeros_like(f)
    keep = (f > 0) & (f >= 1 / largest) & (f <= (1 / smallest if smallest else np.inf))
    amplitude[keep] = f[keep] ** (-exponent / 2)
    spectrum = amplitude * np.exp(2j * np.pi * rng.random(f.shape))
    noise = np.fft.irfft2(spectrum, (height, width))[: shape[0], : shape[1]]
    return ((noise - noise.mean()) / (noise.std() + 1e-12)).astype(np.float32)


def coverage(signed_distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """Share of each pixel inside a shape, from the signed distance to its outline in pixels (negative inside): an antialiased mask in [0, 1]."""
    return np.clip(0.5 - signed_distance / softness, 0.0, 1.0).astype(np.float32)


def normalise(image: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Spread an image over [0, 1] as an operator sets brightness and contrast: robust range, then (with rng) a random margin and a mild gamma."""
    low, high = np.percentile(image, [0.05, 99.95])
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    if rng is not None:
        black, white, gamma = rng.uniform(0.0, 0.15), rng.uniform(0.75, 1.0), np.exp(rng.normal(0, 0.2))
        image = black + (white - black) * image**gamma
    return image.astype(np.float32)
