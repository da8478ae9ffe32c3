"""What is done to stored pairs: x and y stay on one grid and one scale."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_cgrdn import postprocessing


def pair(shape=(96, 128), seed=0):
    rng = np.random.default_rng(seed)
    y = cv2.GaussianBlur(rng.uniform(0, 200, shape).astype(np.float32), (0, 0), 2.0)
    return rng.poisson(y).astype(np.float32), y


def test_warp_matrix_turns_and_magnifies_about_the_centre():
    matrix = postprocessing.warp_matrix((101, 201), 90.0, 2.0, (0.0, 0.0))
    for point, expected in (((100, 50), (100, 50)), ((101, 50), (100, 52)), ((100, 51), (98, 50))):
        u, v, w = matrix @ (*point, 1)
        assert (u / w, v / w) == pytest.approx(expected)


def test_perspective_changes_the_magnification_by_its_share():
    matrix = postprocessing.warp_matrix((100, 200), 0.0, 1.0, (0.05, 0.0))
    weights = [(matrix @ (column, 49.5, 1))[2] / (matrix @ (99.5, 49.5, 1))[2] for column in (-0.5, 199.5)]
    assert np.diff(weights)[0] == pytest.approx(0.05)


@pytest.mark.parametrize("interpolation", postprocessing.INTERPOLATION)
def test_warp_moves_both_images_alike(interpolation):
    x, y = pair()
    matrix = postprocessing.warp_matrix(x.shape, 20.0, 0.9, (0.03, -0.02))
    one, other, outside = postprocessing.warp(y, y, matrix, interpolation)
    np.testing.assert_array_equal(np.maximum(one, 0), other)
    assert 0.1 < outside.mean() < 0.6
    assert other[~outside].min() > 0.5 * y.min()  # nothing of the emptiness beyond the frame is mixed in
    still, _, nothing = postprocessing.warp(x, y, np.eye(3), interpolation)
    np.testing.assert_allclose(still, x, atol=1e-3)
    assert not nothing.any()


def test_filled_pixels_are_equal_and_the_others_untouched():
    x, y = pair()
    where = np.random.default_rng(0).random(x.shape) < 0.3
    a, b = postprocessing.fill(x, y, where, 12.5)
    assert a.dtype == b.dtype == np.float32
    assert set(a[where]) == set(b[where]) == {np.float32(12.5)}
    np.testing.assert_array_equal(a[~where], x[~where])
    np.testing.assert_array_equal(b[~where], y[~where])


def test_blur_correlates_white_noise_as_the_published_pair():
    noise = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    seen = postprocessing.blur(noise, 0.66)  # 0.64 px if a Gaussian were not sampled at pixels
    correlation = [(seen[:, 1:] * seen[:, :-1]).mean(), (seen[1:, 1:] * seen[:-1, :-1]).mean(), (seen[:, 2:] * seen[:, :-2]).mean()] / seen.var()
    np.testing.assert_allclose(correlation, (0.54, 0.28, 0.09), atol=0.025)  # measured in pair 2 (D)


def test_binning_averages_blocks_and_keeps_size_and_place():
    x, _ = pair()
    seen = postprocessing.binning(x)
    assert seen.shape == x.shape
    assert seen.mean() == pytest.approx(x.mean(), rel=0.01)
    ramp = np.tile(np.arange(64, dtype=np.float32), (64, 1))
    np.testing.assert_allclose(postprocessing.binning(ramp)[:, 2:-2], ramp[:, 2:-2], atol=1e-3)
    assert postprocessing.binning(x[:-1, :-1]).shape == (95, 127)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(postprocessing.OVERLAYS),
    row=st.floats(0, 1, exclude_max=True),
    column=st.floats(0, 1, exclude_max=True),
    size=st.floats(0.1, 0.5),
    thickness=st.integers(1, 3),
    label=st.text("AB30", min_size=3, max_size=7),
)
def test_overlays_mark_pixels_near_their_place(kind, row, column, size, thickness, label):
    mask = postprocessing.overlay((100, 140), kind, row, column, size, thickness, label)
    assert mask.shape == (100, 140) and mask.dtype == bool
    rows, columns = np.nonzero(mask)
    reach = 140 * size + 2 * thickness + 2
    assert (np.abs(columns - column * 140) <= reach).all() and (np.abs(rows - row * 100) <= reach).all()
    if kind in ("rectangle", "scale bar"):
        assert mask[int(row * 100), int(column * 140)]


def test_unknown_overlays_are_refused():
    with pytest.raises(ValueError, match="unknown overlay"):
        postprocessing.overlay((64, 64), "arrow", 0.5, 0.5, 0.2, 1, "A")


@settings(max_examples=40, deadline=None)
@given(st.floats(-500, 500), st.floats(1e-2, 1e4), st.floats(27_000, 63_000), st.integers(0, 10))
def test_codes_are_one_whole_numbered_scale(shift, gain, highest, seed):
    x, y = (np.float32(gain * image + shift) for image in pair((32, 32), seed))
    a, b, offset, scale = postprocessing.codes(x, y, highest)
    assert min(a.min(), b.min()) == 0 and max(a.max(), b.max()) == pytest.approx(highest, abs=1)
    for coded, image in ((a, x), (b, y)):
        np.testing.assert_array_equal(coded, np.uint16(coded))
        np.testing.assert_allclose(coded / scale + offset, image, atol=0.51 / scale + 1e-5 * abs(shift))
    same, equal, *_ = postprocessing.codes(x, x.copy(), highest)
    np.testing.assert_array_equal(same, equal)


def test_a_constant_pair_is_all_zero():
    a, b, *_ = postprocessing.codes(np.full((8, 8), 3, np.float32), np.full((8, 8), 3, np.float32), 60_000)
    assert not a.any() and not b.any()
