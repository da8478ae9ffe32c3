"""What happens to recorded images before they are stored (the last steps of the table in this package's README): x is a distorted image, y its target.

Both are (height, width) float32 in counts until `codes`. D is what the published pairs prove, F the paper's figures, "chosen" is ours.
"""

from __future__ import annotations

import cv2
import numpy as np

INTERPOLATION = {"nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
BORDERS = {"mean": np.mean, "median": np.median, "zero": lambda image: 0.0, "max": np.max}
OVERLAYS = ("rectangle", "text", "scale bar", "circle")
GLYPHS = "ABCDEFGHKLMNPRSTUVXZ0123456789"


def warp_matrix(shape: tuple[int, int], angle: float, scale: float, perspective: tuple[float, float]) -> np.ndarray:
    """3 x 3 homography about the centre: turn by `angle` (degrees), magnify by `scale`, tilt by `perspective` (change of magnification over the frame)."""
    height, width = shape
    to_centre = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
    cos, sin = scale * np.cos(np.deg2rad(angle)), scale * np.sin(np.deg2rad(angle))
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [perspective[0] / width, perspective[1] / height, 1]])
    return np.linalg.inv(to_centre) @ turn @ to_centre


def warp(x: np.ndarray, y: np.ndarray, matrix: np.ndarray, interpolation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x and y resampled alike, as drift alignment and rotation do (F), and the mask of the pixels that the frame does not reach.

    interpolation: a key of `INTERPOLATION`. A pixel that mixes frame and outside is outside.
    """
    whole = np.ones(x.shape, np.float32)
    x, y, inside = (cv2.warpPerspective(image, matrix, x.shape[::-1], flags=INTERPOLATION[interpolation]) for image in (x, y, whole))
    return x, np.maximum(y, 0), np.abs(inside - 1) > 1e-3


def fill(x: np.ndarray, y: np.ndarray, where: np.ndarray, value: float) -> tuple[np.ndarray, np.ndarray]:
    """x and y with one value, noise-free, wherever the mask is set: borders of warped frames (F, D) and overlays (F, D)."""
    value = np.float32(value)
    return np.where(where, value, x), np.where(where, value, y)


def blur(x: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing of a stored image, sigma in pixels (D: 0.64 px, in one of eight)."""
    return cv2.GaussianBlur(x, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def binning(x: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, brought back to the size of x by linear interpolation."""
    small = cv2.resize(x, (max(x.shape[1] // 2, 1), max(x.shape[0] // 2, 1)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, x.shape[::-1], interpolation=cv2.INTER_LINEAR)


def overlay(shape: tuple[int, int], kind: str, row: float, column: float, size: float, thickness: int, label: str) -> np.ndarray:
    """Mask (height, width) bool of one annotation of `OVERLAYS`.

    row, column: its place, and size: its width or radius, all as shares of the frame; thickness: of lines, in pixels; label: the letters of a text.
    """
    height, width = shape
    top, left, extent = int(row * height), int(column * width), max(int(size * width), 2)
    mask = np.zeros(shape, np.uint8)
    if kind == "rectangle":
        cv2.rectangle(mask, (left, top), (left + extent, top + max(extent // 2, 1)), 1, cv2.FILLED)
    elif kind == "text":
        font = cv2.FONT_HERSHEY_SIMPLEX
        natural = cv2.getTextSize(label, font, 1.0, thickness)[0][0]
        cv2.putText(mask, label, (left, top), font, extent / natural, 1, thickness)
    elif kind == "scale bar":
        cv2.rectangle(mask, (left, top), (left + extent, top + 2 * thickness), 1, cv2.FILLED)
    elif kind == "circle":
        cv2.circle(mask, (left, top), extent // 2, 1, thickness)
    else:
        raise ValueError(f"unknown overlay {kind!r}; known are {', '.join(OVERLAYS)}")
    return mask > 0


def codes(x: np.ndarray, y: np.ndarray, highest: float) -> tuple[np.ndarray, np.ndarray, float, float]:
    """The pair as whole uint16 codes, still float32: one offset and one scale for both, the least value of the pair 0, the largest `highest` (D).

    Returns x, y, and offset and scale, with code = (counts - offset) * scale.
    """
    offset = min(x.min(), y.min())
    scale = highest / max(max(x.max(), y.max()) - offset, 1e-12)
    x, y = (np.rint((np.float64(image) - offset) * scale).astype(np.float32) for image in (x, y))
    return x, y, float(offset), float(scale)
