"""Network inputs stored with fewer bits: what the paper's Table 3 asks of the unified and individual networks.

An input is float32 in [0, 1]; every function casts it to a narrower type and back to float32, so that the network itself computes as ever.
"""

from __future__ import annotations

import numpy as np


def to_float16(x: np.ndarray) -> np.ndarray:
    """Through 16-bit floating point, as the scripts do it [P, CX]."""
    return x.astype(np.float16).astype(np.float32)


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Through 8-bit integers, 0 to 255 over the range, rounded: what the paper's text describes."""
    return np.round(255 * x).astype(np.uint8).astype(np.float32) / 255


def to_wrapping_int8(x: np.ndarray) -> np.ndarray:
    """Through *signed* 8-bit integers of 256 x - 127, truncated towards zero, as CX does it.

    That number reaches 128, for which a signed byte has no room: values of 255/256 and more come back as -1/256. The brightest pixels turn black, and the
    published row of 8-bit errors is theirs.
    """
    whole = np.trunc(np.clip(256 * np.asarray(x, np.float64) - 127, -127, 128)).astype(np.int64)
    return ((whole.astype(np.int8).astype(np.float32) + 127) / 256).astype(np.float32)


CASTS = {"float16": to_float16, "uint8": to_uint8, "wrapping int8": to_wrapping_int8}
