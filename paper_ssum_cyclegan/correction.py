"""What is done to an optical image before it is paired: shading, noise, contrast, edges, grey scale.

The paper names these steps without a method; all but the last are off unless asked for. Images are (height, width), results float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from skimage.exposure import equalize_adapthist
from skimage.restoration import denoise_nl_means

from common.classical import estimate_noise

LEVELS = 1024  # of the equalisation; fewer are seen as steps, more leave a tile's histogram to chance


def flat_field(image: np.ndarray, sigma: float = 50.0) -> np.ndarray:
    """The image divided by its background, a Gaussian mean of `sigma` pixels, its own mean kept. ValueError where the background is not positive."""
    image = np.float32(image)
    background = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    if not background.min() > 0:
        raise ValueError("the image's background is not positive everywhere, so nothing can be divided by it; leave the flat field out")
    flat = image / background
    return flat * (image.mean() / flat.mean())


def denoise(image: np.ndarray, method: Literal["median", "nlm"]) -> np.ndarray:
    """Median of 3 x 3 pixels, or non-local means (5 x 5 patches, 13 x 13 search) of strength 0.8 times the noise estimated in the image."""
    image = np.float32(image)
    if method == "median":
        return cv2.medianBlur(image, 3)
    if method != "nlm":
        raise ValueError(f"denoising is median or nlm, not {method!r}")
    noise = estimate_noise(image)
    return np.float32(denoise_nl_means(image, 5, 6, h=0.8 * noise, sigma=noise)) if noise > 0 else image


def clahe(image: np.ndarray, clip: float = 2.0) -> np.ndarray:
    """Histogram equalisation by tiles of an eighth of the image, in [0, 1]; `clip` bounds the gain in contrast, as OpenCV counts it.

    OpenCV's own has 256 levels, or, at 16 bits, 65536 bins for the few thousand pixels of a tile and so no bound; here there are LEVELS.
    """
    low, high = float(np.min(image)), float(np.max(image))
    if not high > low:
        raise ValueError("the image is blank or not finite, there is no contrast to equalise")
    return np.float32(equalize_adapthist((np.float32(image) - low) / (high - low), clip_limit=clip / LEVELS, nbins=LEVELS))


def unsharp(image: np.ndarray, amount: float = 0.5, radius: float = 2.0) -> np.ndarray:
    """I + amount (I - G I), G a Gaussian mean of sigma `radius` pixels; nothing is clipped."""
    image = np.float32(image)
    return image + np.float32(amount) * (image - cv2.GaussianBlur(image, (0, 0), radius, borderType=cv2.BORDER_REFLECT))


def normalise(image: np.ndarray, low: float = 0.5, high: float = 99.5, where: np.ndarray | None = None) -> np.ndarray:
    """Percentiles `low` and `high` to 0 and 1, clipped: a few hot pixels neither set the scale nor leave the range that the networks can give.

    where: bool (height, width), the pixels whose percentiles count; all when None. ValueError for a blank image.
    """
    image = np.float32(image)
    dark, bright = np.percentile(image if where is None else image[where], (low, high))
    if not bright > dark:
        raise ValueError(f"the image is blank or not finite: its percentiles {low:g} and {high:g} are {dark:g} and {bright:g}")
    return np.clip((image - np.float32(dark)) / np.float32(bright - dark), 0, 1)


@dataclass(frozen=True)
class Correction:
    """Which steps are done. Those of a single frame come before stitching, those of the grey scale after it, or frames would get a scale each."""

    flat: bool = False  # divide every frame by its background
    denoise: Literal["no", "median", "nlm"] = "no"  # median of 3 x 3 pixels, or non-local means
    contrast: bool = False  # equalise the histogram by tiles
    sharpen: bool = False  # unsharp mask

    def of_frame(self, image: np.ndarray) -> np.ndarray:
        """Flat field and denoising, in the image's own units."""
        image = flat_field(image) if self.flat else np.float32(image)
        return image if self.denoise == "no" else denoise(image, self.denoise)

    def of_mosaic(self, image: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """Contrast, sharpening and grey scale, in [0, 1]; where: pixels that count for the scale."""
        image = clahe(image) if self.contrast else image
        return normalise(unsharp(image) if self.sharpen else image, where=where)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """All steps on an image that is not stitched, in [0, 1]."""
        return self.of_mosaic(self.of_frame(image))
