"""Lanczos upsampling by two: what turns a scan into the network's input."""

from __future__ import annotations

import numpy as np

RADIUS = 3  # of the kernel, in pixels of the scan; the paper does not state it


def lanczos_phases(scale: int = 2, radius: int = RADIUS) -> np.ndarray:
    """(scale, 2 radius + 1) weights: output pixel s k + p is the sum over t of phases[p, t] times pixel k + t - radius.

    L(x) = sinc(x) sinc(x / radius), pixel centres aligned (output pixel j lies at (j + 1/2) / scale - 1/2), each phase normalised to sum 1.
    """
    position = (np.arange(scale) + 0.5) / scale - 0.5
    distance = np.arange(-radius, radius + 1)[None] - position[:, None]
    weights = np.where(np.abs(distance) < radius, np.sinc(distance) * np.sinc(distance / radius), 0.0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def upsample(images, scale: int = 2):
    """(batch, height, width, 1) -> (batch, scale height, scale width, 1) float32 by separable Lanczos-3, the border replicated."""
    from keras import ops

    phases = lanczos_phases(scale)
    images = ops.cast(images, "float32")
    kernel = phases.T[:, None, None, :]  # (taps, 1, 1, phases)
    for axis in (1, 2):
        length = ops.shape(images)[axis]
        images = ops.take(images, ops.clip(ops.arange(-RADIUS, length + RADIUS), 0, length - 1), axis=axis)
    rows = ops.conv(images, kernel, padding="valid")  # (batch, height, width + 2 radius, phases)
    height, width = ops.shape(rows)[1], ops.shape(rows)[2]
    rows = ops.reshape(ops.transpose(rows, (0, 1, 3, 2)), (-1, height * scale, width, 1))
    columns = ops.conv(rows, ops.transpose(kernel, (1, 0, 2, 3)), padding="valid")
    return ops.reshape(columns, (-1, height * scale, (width - 2 * RADIUS) * scale, 1))


def lanczos(image: np.ndarray, scale: int = 2) -> np.ndarray:
    """The same for one NumPy image, (height, width) -> (scale height, scale width) float32."""
    phases = lanczos_phases(scale)
    for _ in range(2):
        padded = np.pad(image.astype(np.float32), [(RADIUS, RADIUS), (0, 0)], mode="edge")
        parts = [sum(w * padded[t : t + len(image)] for t, w in enumerate(weights)) for weights in phases]
        image = np.stack(parts, 1).reshape(-1, image.shape[1]).T
    return np.ascontiguousarray(image)
