"""Optical images that are worse than those of the training, for the robustness tests that the paper shows in Fig. S5; what it tried is not known."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

# (optical, SEM, both (height, width) float32 in [0, 1], generator) -> (disturbed optical, SEM of the same place)
Disturbance = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def noise(optical, sem, rng, sigma: float):
    return np.float32(optical + rng.normal(0, sigma, optical.shape)), sem


def blur(optical, sem, rng, sigma: float):
    return cv2.GaussianBlur(optical, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), sem


def gain(optical, sem, rng, factor: float):
    """Clipped at white, as a camera would."""
    return np.minimum(optical * np.float32(factor), 1), sem


def gamma(optical, sem, rng, exponent: float):
    return optical ** np.float32(exponent), sem


def rotation(optical, sem, rng, degrees: float):
    """Both images alike: a chip that lies askew."""
    turn = cv2.getRotationMatrix2D(tuple((n - 1) / 2 for n in optical.shape[::-1]), degrees, 1.0)
    return tuple(cv2.warpAffine(image, turn, image.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT) for image in (optical, sem))


def shift(optical, sem, rng, pixels: int):
    """The optical image alone, down and to the right: a network of strides must convert it alike wherever it lies."""
    return cv2.warpAffine(optical, np.float32([[1, 0, pixels], [0, 1, pixels]]), optical.shape[::-1], borderMode=cv2.BORDER_REFLECT), sem


DISTURBANCES: dict[str, Disturbance] = {
    **{f"noise of {n}/255": partial(noise, sigma=n / 255) for n in (5, 10, 20)},
    **{f"blur of {sigma} px": partial(blur, sigma=sigma) for sigma in (0.5, 1.0, 2.0)},
    "gain 1.2": partial(gain, factor=1.2),  # less than 1 is undone by the grey scale
    **{f"gamma {exponent}": partial(gamma, exponent=exponent) for exponent in (0.8, 1.2)},
    **{f"rotation of {degrees} degrees": partial(rotation, degrees=degrees) for degrees in (2, 5)},
    **{f"shift of {pixels} px": partial(shift, pixels=pixels) for pixels in (2, 5)},
}
