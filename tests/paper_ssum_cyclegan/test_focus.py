"""All-in-focus images against stacks whose depth is known."""

import cv2
import numpy as np
import pytest

from paper_ssum_cyclegan.focus import all_in_focus, sharpness


def texture(shape, seed=0):
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 1.0) / 0.28


def stack_of(truth, depth, n):
    """Slice k is blurred by a Gaussian of 1.5 px per slice of distance, pixel by pixel."""
    blurred = {}
    for k in np.linspace(0, n - 1, 8 * (n - 1) + 1):
        blurred[k] = cv2.GaussianBlur(truth, (0, 0), 1.5 * k) if k else truth
    keys = np.array(sorted(blurred))
    images = np.stack([blurred[k] for k in keys])
    return np.stack([np.take_along_axis(images, np.abs(np.abs(depth - k)[None] - keys[:, None, None]).argmin(0)[None], 0)[0] for k in range(n)])


def test_sharpness_is_the_mean_squared_laplacian():
    image = texture((20, 24))
    p = np.pad(image, 1, mode="symmetric").astype(np.float64)
    laplacian = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * p[1:-1, 1:-1]
    assert sharpness(image)[10, 12] == pytest.approx((laplacian[6:15, 8:17] ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("along", [0, 1])
def test_a_tilted_surface_is_sharp_everywhere(along):
    truth = texture((128, 128))
    depth = np.moveaxis(np.broadcast_to(np.linspace(0, 4, 128, dtype=np.float32), (128, 128)), 1, along)
    stack = stack_of(truth, depth, 5) + 0.02 * np.random.default_rng(1).standard_normal((5, 128, 128)).astype(np.float32)
    image, found = all_in_focus(stack)
    assert image.dtype == found.dtype == np.float32 and image.shape == found.shape == (128, 128)
    assert np.abs(found - depth).mean() < 0.25
    errors = [((part - truth) ** 2).mean() for part in stack]
    assert ((image - truth) ** 2).mean() < 0.4 * min(errors)


def test_slices_blend_and_bare_places_take_their_neighbours_depth():
    truth = texture((96, 96))
    truth[:, 40:56] = 0  # nothing to see in the middle
    stack = stack_of(truth, np.full((96, 96), 2.0, np.float32), 4)
    image, depth = all_in_focus(stack + 1e-4 * np.random.default_rng(0).standard_normal(stack.shape))
    np.testing.assert_allclose(depth, 2, atol=0.1)
    np.testing.assert_allclose(image, truth, atol=0.1)
    level = np.arange(3, dtype=np.float32)[:, None, None] + np.zeros((3, 64, 64), np.float32)
    level[0, :, :32] += texture((64, 32))
    level[2, :, 32:] += texture((64, 32), 1)
    image, depth = all_in_focus(level)
    border = depth[:, 24:40].mean(0)
    assert (np.diff(border) > 0).all() and (border[0], border[-1]) == pytest.approx((0, 2), abs=0.3)  # through slice 1, not by a jump
    assert image[:, 31:33].mean() == pytest.approx(1, abs=0.4)


def test_one_slice_is_itself_and_a_bare_stack_has_no_nan():
    image = texture((32, 32))
    np.testing.assert_array_equal(all_in_focus(image[None])[0], image)
    assert np.isfinite(all_in_focus(np.zeros((3, 32, 32)))[0]).all()


@pytest.mark.parametrize("stack", [np.zeros((8, 8)), np.zeros((0, 8, 8)), np.full((2, 8, 8), np.nan)])
def test_what_is_no_stack_is_refused(stack):
    with pytest.raises(ValueError, match="focal stack"):
        all_in_focus(stack)
