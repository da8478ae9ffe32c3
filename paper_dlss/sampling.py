"""The sampling grid of a sparse scan, and what the network sees of it. P is the paper, C68 its published unified script; see this package's README.

Functions of a step take a Python integer or an integer tensor, so that one training graph serves every step; they use `keras.ops`, which is imported when
first needed, because classical baselines need the grid and no network.
"""

from __future__ import annotations

import numpy as np

# --- The grid ---


def start(side, step):
    """The first probed pixel along an axis of `side` pixels, (side mod step) // 2 [C68]."""
    return side % step // 2


def count(side, step):
    """How many pixels are probed along an axis: 103 of 512 with step 5 [P]."""
    return (side - start(side, step) + step - 1) // step


def nearest(side, step):
    """(side,) int32: for each pixel of an axis the position of the nearest probed one, of two equally near ones the lower [C68]; edge blocks reach the border.

    A column of steps, (n, 1), gives one row each, (n, side).
    """
    from keras import ops

    first = start(side, step)
    block = (ops.arange(side, dtype="int32") - first + (step - 1) // 2) // step
    return first + step * ops.clip(block, 0, count(side, step) - 1)


def mask(side, step):
    """(side, side) float32, 1 on probed pixels and 0 elsewhere."""
    from keras import ops

    probed = ops.cast((ops.arange(side, dtype="int32") - start(side, step)) % step == 0, "float32")
    return probed[:, None] * probed


def scan(image: np.ndarray, step: int) -> np.ndarray:
    """(height, width) -> (n, m): the probed pixels of one image."""
    height, width = image.shape
    return image[start(height, step) :: step, start(width, step) :: step]


# --- What the network sees ---


def infill(crops, step):
    """(batch, side, side, 1) -> the same shape: every pixel takes the value of its nearest probed one.

    step: one for all crops, or a tensor (batch,) with one each.
    """
    from keras import ops

    places = nearest(ops.shape(crops)[1], ops.reshape(ops.cast(step, "int32"), (-1, 1)))
    rows = ops.take_along_axis(crops, places[:, :, None, None], axis=1)
    return ops.take_along_axis(rows, places[:, None, :, None], axis=2)


def sample_range(filled, zeros_in_range: bool = False) -> tuple:
    """(low, size), both (batch, 1, 1, 1): least probed value of each crop, and how far the largest is above it; 0 where all are alike.

    filled: infilled crops, which hold every probed value and no other. zeros_in_range: the range also holds 0, mid-grey, which C68 has at all pixels that are
    not probed when it takes it.
    """
    from keras import ops

    low, high = ops.min(filled, axis=(1, 2, 3), keepdims=True), ops.max(filled, axis=(1, 2, 3), keepdims=True)
    if zeros_in_range:
        low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    return low, ops.where(high - low < 1e-6, 0.0, high - low)  # of crops in [-1, 1] [C68]


def sparse_input(crops, step, zeros_in_range: bool = False):
    """The network's input, (batch, side, side, 1) float32 in [0, 1]: probed values of each crop stretched from their own least to their own largest, infilled.

    Input and crop are thereby on different scales: what was not probed cannot be known. Samples that are all alike give 0.5.
    """
    from keras import ops

    filled = infill(crops, step)
    low, size = sample_range(filled, zeros_in_range)
    return ops.where(size > 0, (filled - low) / ops.where(size > 0, size, 1.0), 0.5)


def target_scale(crops, step, config) -> tuple:
    """(low, scale) with crops = low + scale targets: (0, 1) where targets are the crops [P]; else the samples' range is that of targets in [-1, 1]."""
    if config.target_range == "crop":
        return 0.0, 1.0
    from keras import ops

    low, size = sample_range(infill(crops, step), config.zeros_in_range)
    return low + size / 2, ops.where(size > 0, size / 2, 1.0)


# --- How much harder fewer samples are ---


def _squared_error(coverage):
    """Mean squared error in [0, 1] units to be expected at a coverage, p_raw(c) of equation 1 [P]."""
    return 0.002211 - 0.037887 * coverage + 0.289451 * coverage**2


MEAN_SQUARED_ERROR = float(np.mean([_squared_error(s**-2.0) for s in range(4, 11)]))  # of the paper's steps, 0.00148725


def coverage_p(step):
    """p(c), equation 2 [P]: the error to be expected with a step, over its mean for steps 4 to 10; float32. c is the nominal coverage, 1 / step^2 [C68]."""
    from keras import ops

    return _squared_error(1.0 / ops.square(ops.cast(step, "float32"))) / MEAN_SQUARED_ERROR
