"""Image operators and the average of weights against tensorflow-addons (kept numbers), SciPy and OpenCV."""

import cv2
import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from common.layers import dense_warp, gaussian_filter
from common.training import update_average
from tests.common.test_layers import built, close, pulled, random, reference


@pytest.mark.parametrize("name", ["5_reflect", "3_reflect", "9_symmetric", "7_constant"])
def test_gaussian_filter_is_that_of_addons(name):
    a = reference(f"gaussian/{name}")
    x = tf.constant(a["x"])
    output, (gradient,) = pulled(lambda: gaussian_filter(x, float(a["sigma"]), int(a["size"]) // 2, name.split("_")[1]), a["cotangent"], x)
    close(output, a["output"])
    close(gradient, a["d_x"])


def test_gaussian_filter_is_that_of_scipy_and_opencv():
    images = random(2, 21, 19, 2)
    for border, mode in {"reflect": "mirror", "symmetric": "reflect", "constant": "constant"}.items():
        for sigma, radius in ((0.7, None), (2.0, None), (2.5, 2)):
            expected = scipy.ndimage.gaussian_filter(images.astype(np.float64), (0, sigma, sigma, 0), mode=mode, radius=radius and (0, radius, radius, 0))
            close(gaussian_filter(images, sigma, radius, border), expected)
    close(gaussian_filter(images, 2.5, 2)[0, ..., 0], cv2.GaussianBlur(images[0, ..., 0], (5, 5), 2.5))


def test_gaussian_filter_of_dlss_keeps_flat_images_where_keras_own_darkens_the_border():
    impulse = np.zeros((1, 9, 9, 1), np.float32)
    impulse[0, 4, 4] = 1
    taps = gaussian_filter(impulse, 2.5, 2).numpy()[0, :, :, 0].sum(1)
    np.testing.assert_allclose(taps, [0, 0, 0.16893, 0.21475, 0.23264, 0.21475, 0.16893, 0, 0], atol=1e-5)
    flat = np.ones((1, 9, 9, 1), np.float32)
    np.testing.assert_allclose(gaussian_filter(flat, 2.5, 2), 1, atol=1e-6)
    assert keras.ops.image.gaussian_blur(flat, (5, 5), (2.5, 2.5)).numpy()[0, 0, 0, 0] == pytest.approx(0.61632**2, abs=1e-4)
    with pytest.raises(ValueError, match="sigma of a Gaussian blur is 0; it must be above 0"):
        gaussian_filter(flat, 0)


def test_warp_is_that_of_addons_with_the_opposite_sign():
    a = reference("warp")
    x, flow = tf.constant(a["x"]), tf.constant(-a["flow"])
    output, (of_x, of_flow) = pulled(lambda: dense_warp(x, flow), a["cotangent"], x, flow)
    close(output, a["output"])
    close(of_x, a["d_x"])
    close(of_flow, -a["d_flow"])


@pytest.mark.parametrize("shape", [(9, 10), (1, 6), (5, 1)])
def test_warp_is_that_of_scipy(shape):
    images, flow = random(2, *shape, 2), 3 * random(2, *shape, 2, seed=1)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    warp = tf.function(dense_warp, input_signature=[tf.TensorSpec((None, None, None, 2))] * 2)
    expected = np.zeros_like(images)
    for b in range(2):
        for c in range(2):
            expected[b, ..., c] = scipy.ndimage.map_coordinates(images[b, ..., c], grid + np.moveaxis(flow[b], -1, 0), order=1, mode="nearest")
    close(warp(images, flow), expected)
    close(warp(images, 0 * flow), images)


def test_flow_of_zero_has_a_gradient_up_to_the_last_pixel():
    ramp, flow = np.arange(6, dtype=np.float32)[None, None, :, None] + np.zeros((1, 4, 1, 1), np.float32), tf.zeros((1, 4, 6, 2))
    _, (gradient,) = pulled(lambda: dense_warp(ramp, flow), 1.0, flow)
    np.testing.assert_array_equal(gradient[..., 1], 1)
    np.testing.assert_array_equal(gradient[..., 0], 0)
    beyond = flow + [0.0, 9.0]
    _, (gradient,) = pulled(lambda: dense_warp(ramp, beyond), 1.0, beyond)
    np.testing.assert_array_equal(gradient, 0)


def test_warp_of_half_precision_images_keeps_its_place():
    images = (np.arange(600) % 7).astype(np.float16)[None, None, :, None] * np.ones((1, 3, 1, 1), np.float16)
    flow = np.zeros((1, 3, 600, 2), np.float16)
    flow[..., 1] = 0.5  # column 599.5 has no half-precision neighbour closer than 0.5
    warped = dense_warp(images, flow)
    assert warped.dtype == tf.float16
    close(warped[0, 0, :-1, 0], (images[0, 0, :-1, 0] + images[0, 0, 1:, 0]) / 2)


def test_average_of_weights_is_that_of_addons():
    a = reference("moving_average")
    network, average = (built(keras.layers.EinsumDense("a,a->a", 7), (7,)) for _ in range(2))
    average.kernel.assign(a["start"])
    for weights, expected in zip(a["weights"], a["averages"], strict=True):
        network.kernel.assign(weights)
        update_average(average, network, float(a["decay"]))
        close(average.kernel, expected)
