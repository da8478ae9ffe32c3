"""Casts of the network's input: exact where they are right, and wrong where the published script is."""

import ctypes
import struct

import numpy as np
import pytest

from paper_dlss.casts import CASTS, to_float16, to_uint8, to_wrapping_int8

VALUES = np.concatenate([np.linspace(0, 1, 4097), np.arange(257) / 256, np.random.default_rng(0).random(1000)]).astype(np.float32)


def test_float16_rounds_to_the_nearest_half():
    packed = b"".join(struct.pack("<e", float(v)) for v in VALUES)
    np.testing.assert_array_equal(to_float16(VALUES), np.array(struct.unpack(f"<{len(VALUES)}e", packed), np.float32))


def test_uint8_has_256_levels_and_is_nearest():
    cast = to_uint8(np.linspace(0, 1, 10_001, dtype=np.float32))
    np.testing.assert_allclose(np.unique(cast), np.arange(256) / 255, atol=1e-7)
    assert np.abs(cast - np.linspace(0, 1, 10_001)).max() <= 0.5 / 255 + 1e-6


def test_wrapping_int8_is_a_signed_byte_without_room_for_128():
    expected = [(ctypes.c_int8(int(min(max(256 * float(v) - 127, -127), 128))).value + 127) / 256 for v in VALUES]  # int() cuts towards zero
    np.testing.assert_allclose(to_wrapping_int8(VALUES), expected, atol=1e-7)


def test_the_brightest_turn_black_only_where_the_script_casts():
    bright, below = np.float32([255 / 256, 0.998, 1.0]), np.float32([0.0, 0.3, 254.99 / 256])
    np.testing.assert_array_equal(to_wrapping_int8(bright), np.full(3, -1 / 256, np.float32))
    assert np.abs(to_uint8(bright) - bright).max() < 0.003
    assert np.abs(to_wrapping_int8(below) - below).max() <= 1 / 256


@pytest.mark.parametrize("name", CASTS)
def test_shape_and_type_stay(name):
    cast = CASTS[name](np.zeros((1, 4, 5, 1), np.float32))
    assert cast.shape == (1, 4, 5, 1) and cast.dtype == np.float32
