"""One sharp image from a stack of focal planes: the step that gives the superlens its effective depth of field."""

from __future__ import annotations

import cv2
import numpy as np

WINDOW = 9  # px, side of the square over which sharpness is averaged
SMOOTHING = 4.5  # px, sigma of the depth map's filter


def sharpness(image: np.ndarray) -> np.ndarray:
    """Mean squared Laplacian over WINDOW x WINDOW pixels, (height, width) float32."""
    return cv2.boxFilter(cv2.Laplacian(np.float32(image), cv2.CV_32F, borderType=cv2.BORDER_REFLECT) ** 2, -1, (WINDOW, WINDOW))


def all_in_focus(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sharpest slice at every pixel, blended between neighbouring slices.

    stack: (n, height, width), the slices in the order of their focus, of one place.
    Returns the image (height, width) float32 in the stack's units, and the depth map (height, width) float32: the place in the stack, 0 to n - 1, between
    slices too. The depth is the slice of largest `sharpness`, smoothed with weights that say by how much it stands out from the stack's median: bare places
    take the depth of structures around them. Raises ValueError for anything but a stack of finite images.
    """
    stack = np.asarray(stack, np.float32)
    if stack.ndim != 3 or not stack.size or not np.isfinite(stack).all():
        raise ValueError(f"a focal stack is (n, height, width) finite numbers, got an array of shape {stack.shape}")
    energy = np.stack([sharpness(image) for image in stack])
    certainty = energy.max(0) - np.median(energy, 0)
    certainty += np.float32(1e-6 * certainty.mean() + 1e-30)  # a bare image has some depth, too
    index = energy.argmax(0).astype(np.float32)
    smooth = [cv2.GaussianBlur(part, (0, 0), SMOOTHING, borderType=cv2.BORDER_REFLECT) for part in (certainty * index, certainty)]
    depth = np.float32(np.clip(smooth[0] / smooth[1], 0, len(stack) - 1))
    below = np.minimum(depth.astype(np.int64), max(len(stack) - 2, 0))
    above = np.minimum(below + 1, len(stack) - 1)
    lower, upper = (np.take_along_axis(stack, k[None], 0)[0] for k in (below, above))
    return lower + np.float32(depth - below) * (upper - lower), depth
