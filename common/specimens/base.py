"""What every simulated specimen is made of: the container, and the few drawing tools the families share."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.fft import dctn, idctn

PASS, STOP = 0.3, 0.45  # cycles per pixel: a band-limited picture keeps everything below the first and nothing above the second, 0.9 of Nyquist


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


def power_law(rng: np.random.Generator, smallest: float, largest: float, power: float, count: int) -> np.ndarray:
    """Draw `count` sizes from [smallest, largest] of which a share ~ size^-power is larger than a given size, as fragments are."""
    return (smallest**-power + rng.random(count) * (largest**-power - smallest**-power)) ** (-1 / power)


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], exponent: float = 2.0, smallest: float = 0.0, largest: float = np.inf) -> np.ndarray:
    """Isotropic random texture with power spectrum ~ 1/f^exponent, zero mean, unit standard deviation, (height, width) float32.

    smallest, largest: wavelengths in pixels outside which nothing is kept. The field is periodic over a larger frame, then cropped, so its edges do not match.
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


def gradient(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of a (height, width) field along x and y, per pixel, float32."""
    field = np.float32(field)
    return cv2.Sobel(field, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(field, cv2.CV_32F, 0, 1, scale=0.125)


def coverage(signed_distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """Share of each pixel inside a shape, from the signed distance to its outline in pixels (negative inside): an antialiased mask in [0, 1]."""
    return np.clip(0.5 - signed_distance / softness, 0.0, 1.0).astype(np.float32)


def polycrystal(rng: np.random.Generator, shape: tuple[int, int], size: float) -> np.ndarray:
    """Polycrystal: one grey level per grain, zero mean, unit deviation, grains of about `size` pixels, antialiased borders."""
    seeds = np.ones((shape[0] * 2, shape[1] * 2), np.uint8)
    count = max(int(shape[0] * shape[1] / size**2), 2)
    seeds[rng.integers(seeds.shape[0], size=count), rng.integers(seeds.shape[1], size=count)] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    levels = rng.normal(0, 1, labels.max() + 1).astype(np.float32)[labels]
    return cv2.resize(levels, shape[::-1], interpolation=cv2.INTER_AREA)


def blob(rng: np.random.Generator, picture: np.ndarray, x: float, y: float, radius: float, aspect: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Window of the picture around an irregular rounded body, and the signed distance to its outline there (pixels, negative inside)."""
    reach = int(radius * 2.5 * max(aspect, 1 / aspect)) + 6
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    window = picture[top : int(y) + reach, left : int(x) + reach]
    rows, columns = np.mgrid[top : top + window.shape[0], left : left + window.shape[1]].astype(np.float32)
    theta = np.arctan2(rows - y, columns - x)
    bumps = sum(rng.normal(0, 0.3 / k**1.4) * np.cos(k * theta + rng.uniform(0, 6.3)) for k in range(1, 14))
    distance = np.hypot((rows - y) * aspect, (columns - x) / aspect) - radius * np.clip(1 + bumps, 0.4, 1.7)
    return window, np.float32(distance)


def normalise(image: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Spread an image over [0, 1] as an operator sets brightness and contrast: robust range, then (with rng) a random margin and a mild gamma."""
    low, high = np.percentile(image, [0.05, 99.95])
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    if rng is not None:
        black, white, gamma = rng.uniform(0.0, 0.15), rng.uniform(0.75, 1.0), np.exp(rng.normal(0, 0.2))
        image = black + (white - black) * image**gamma
    return image.astype(np.float32)


def expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Set brightness and contrast as an operator does: the mean near mid-grey although rims are far brighter than the rest; (height, width) in [0, 1]."""
    image = normalise(image)
    gamma = np.clip(np.log(rng.uniform(0.2, 0.55)) / np.log(max(image.mean(), 0.02)), 0.45, 1.5)
    return normalise(image**gamma, rng)


def fit_kind(rng: np.random.Generator, kinds: dict, pixel_size: float) -> tuple[str, float]:
    """Choose a kind whose sizes are visible at this magnification and draw its typical size: name, size in pixels."""
    spans = {k: (max(pixels[0], nm[0] / pixel_size), min(pixels[1], nm[1] / pixel_size)) for k, (nm, pixels, *_) in kinds.items()}
    names = [k for k, (small, large) in spans.items() if small < large]
    if not names:
        raise ValueError(f"no structure of this family can be resolved at {pixel_size} nm per pixel")
    name = names[rng.integers(len(names))]
    return name, float(log_uniform(rng, *spans[name]))


def band_limit(image: np.ndarray, shape: tuple[int, int], transfer=None) -> np.ndarray:
    """Low-pass to 0.9 of Nyquist and reduce to `shape` (height, width), which divides the image's, without aliases; float32.

    transfer: function of the spatial frequency in cycles per pixel of the result, to blur on the way. The cosine transform continues the picture by reflection.
    Coarse pixel k covers fine pixels factor * k to factor * (k + 1) - 1, so position p of the result is factor * p + (factor - 1) / 2 of the image.
    """
    spectrum = dctn(np.float32(image), norm="ortho")[: shape[0], : shape[1]]
    frequency = np.hypot(np.arange(shape[0])[:, None] / (2 * shape[0]), np.arange(shape[1]) / (2 * shape[1])).astype(np.float32)
    window = 0.5 + 0.5 * np.cos(np.pi * np.clip((frequency - PASS) / (STOP - PASS), 0, 1))
    if transfer is not None:
        window = window * transfer(frequency)
    return idctn(spectrum * np.float32(window * np.sqrt(shape[0] * shape[1] / image.size)), norm="ortho")


def finish(image: np.ndarray) -> np.ndarray:
    """Band-limit a picture and spread it over [0, 1], linearly, since clipping would add the frequencies just removed; float32. A constant one becomes 0."""
    limited = band_limit(image, image.shape)
    limited = limited - limited.min()
    return limited / max(float(limited.max()), 1e-12)


def lobes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Uneven background: one to three Gaussians 0.2 to 0.8 of the frame wide, bright or dark, on a plane, spread over [0, 1]; (height, width) float32."""
    y, x = (np.linspace(0, 1, n, dtype=np.float32) for n in shape)
    field = np.float32(rng.normal(0, 0.7)) * y[:, None] + np.float32(rng.normal(0, 0.7)) * x
    for _ in range(rng.integers(1, 4)):
        (row, column), width = rng.uniform(-0.2, 1.2, 2), rng.uniform(0.2, 0.8)
        height = np.float32(rng.choice([-1, 1]) * rng.uniform(0.5, 1.5))
        field += height * np.outer(np.exp(-((y - row) ** 2) / (2 * width**2)), np.exp(-((x - column) ** 2) / (2 * width**2)))
    return (field - field.min()) / (np.ptp(field) + 1e-9)
