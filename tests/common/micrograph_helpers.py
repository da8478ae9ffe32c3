"""What the tests of micrograph files share: images of every dtype, and refusals of one line."""

import numpy as np
import pytest

from common.micrograph import load_micrograph

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32", "float64"]
METADATA = {"detector": "HAADF = 1", "high_tension": 2e5, "unit µ": ["a\nb", None, True], "": {"x/y": 1}}


def image(dtype="uint16", shape=(7, 5), seed=0):
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True) if info else rng.normal(0, 100, shape).astype(dtype)


def refused(call, *args, error=ValueError, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def load_refused(path, **kwargs):
    message = refused(load_micrograph, path, **kwargs)
    assert message.startswith(f"cannot read {path}: ") and ";" in message
    return message
