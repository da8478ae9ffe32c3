"""The losses of DLSS-STEM: against NumPy and OpenCV, by hand, and where their gradients go."""

from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from paper_dlss import losses
from paper_dlss.config import Config
from paper_dlss.sampling import mask

CONFIG = Config.tiny()


def images(seed=0, batch=2, side=24):
    return np.random.default_rng(seed).uniform(-1, 1, (batch, side, side, 1)).astype(np.float32)


# --- Blur ---

TAPS = {5: (losses.blur, [0.16893, 0.21475, 0.23264, 0.21475, 0.16893], 2.5), 3: (losses.blur3, [0.30780, 0.38440, 0.30780], 1.5)}


@pytest.mark.parametrize("size", [5, 3])
def test_taps(size):
    """An impulse gives the taps; constants stay; OpenCV blurs alike, border included."""
    function, taps, sigma = TAPS[size]
    impulse = np.zeros((1, 11, 11, 1), np.float32)
    impulse[0, 5, 5, 0] = 1
    response = np.asarray(function(impulse))[0, ..., 0]
    reach = size // 2
    np.testing.assert_allclose(response[5 - reach : 6 + reach, 5 - reach : 6 + reach], np.outer(taps, taps), atol=1e-5)
    assert response.sum() == pytest.approx(1, rel=1e-6) and np.count_nonzero(response) == size**2
    np.testing.assert_allclose(np.asarray(function(np.full((1, 8, 8, 1), -0.7, np.float32))), -0.7, rtol=1e-6)
    drawn = images()
    for ours, image in zip(np.asarray(function(drawn)), drawn, strict=True):
        np.testing.assert_allclose(ours[..., 0], cv2.GaussianBlur(image[..., 0], (size, size), sigma), atol=1e-6)


def test_half_size_targets():
    drawn = images(1)
    mean, decimate = CONFIG, replace(CONFIG, halving="decimate")
    np.testing.assert_allclose(losses.half(drawn, mean), drawn.reshape(2, 12, 2, 12, 2, 1).mean((2, 4)), atol=1e-6)
    np.testing.assert_array_equal(losses.half(drawn, decimate), drawn[:, ::2, ::2])
    blurred = [cv2.GaussianBlur(image[..., 0], (5, 5), 2.5) for image in drawn]
    halved = [cv2.resize(image, (12, 12), interpolation=cv2.INTER_LINEAR) for image in blurred]  # half-pixel centres
    np.testing.assert_allclose(losses.half_target(drawn, mean)[..., 0], halved, atol=1e-6)
    legacy = [cv2.GaussianBlur(image[::2, ::2, 0], (5, 5), 2.5) for image in drawn]
    np.testing.assert_allclose(losses.half_target(drawn, replace(decimate, blur_before_halving=False))[..., 0], legacy, atol=1e-6)


# --- Errors ---


def test_squared_error_is_one_number_per_image():
    output, target = images(2), images(3)
    expected = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(output, target, strict=True)]
    np.testing.assert_allclose(losses.squared_error(output, target), expected, rtol=1e-5)
    found = losses.squared_error(tf.cast(output, tf.bfloat16), target)
    assert found.dtype == tf.float32 and found.shape == (2,)


@pytest.mark.parametrize("step", [4, 5, 7])
def test_known_pixels_add_nothing(step):
    """Probed pixels: no loss, no gradient, whatever the output says there; all others are as before, and the mean is over all pixels."""
    output, target = tf.Variable(images(4)), images(5)
    known = mask(24, step)
    for given in (known, tf.stack([known, known])):
        with tf.GradientTape() as tape:
            error = losses.squared_error(output, target, given)
            total = tf.reduce_sum(error)
        gradient, probed = tape.gradient(total, output).numpy()[..., 0], np.asarray(known) > 0
        assert probed.any() and (gradient[:, probed] == 0).all() and (gradient[:, ~probed] != 0).all()
        difference = (output.numpy() - target)[..., 0].astype(float)
        difference[:, probed] = 0
        np.testing.assert_allclose(error, (difference**2).mean((1, 2)), rtol=1e-5)
        np.testing.assert_allclose(gradient, 2 * difference / 24**2, atol=1e-7)


# --- Adversarial stage ---


def test_adversarial_losses_by_hand():
    fake, real = [np.array([[0.5]]), np.array([[-1.0]]), np.array([[2.0]])], [np.array([[1.0]]), np.array([[0.0]]), np.array([[3.0]])]
    assert float(losses.adversarial(fake)) == pytest.approx((0.25 + 4 + 1) / 3)
    assert float(losses.discriminator(real, fake)) == pytest.approx((0.25 + 0 + 1 + 1 + 4 + 4) / 3)


def test_adversarial_losses_are_means():
    rng = np.random.default_rng(6)
    fake, real = ([rng.normal(size=(4, 1)).astype(np.float32) for _ in range(3)] for _ in range(2))
    assert float(losses.adversarial(fake)) == pytest.approx(np.mean((np.stack(fake) - 1.0) ** 2), rel=1e-5)
    assert float(losses.discriminator(real, fake)) == pytest.approx(np.mean(np.stack(fake) ** 2) + np.mean((np.stack(real) - 1.0) ** 2), rel=1e-5)
    assert losses.adversarial([tf.cast(scores, tf.float16) for scores in fake]).dtype == tf.float32


def test_discriminators_and_generator_pull_apart():
    fake, real = tf.Variable([[0.4]]), tf.Variable([[0.3]])
    with tf.GradientTape(persistent=True) as tape:
        reward, judged = losses.adversarial([fake]), losses.discriminator([real], [fake])
    assert float(tape.gradient(reward, fake)[0, 0]) == pytest.approx(-1.2)
    assert float(tape.gradient(judged, fake)[0, 0]) == pytest.approx(0.8) and float(tape.gradient(judged, real)[0, 0]) == pytest.approx(-1.4)


# --- Error predictor ---


def test_predictor_has_the_papers_size():
    predictor = losses.build_predictor(CONFIG)
    assert predictor.count_params() == 23_001 == (25 + 1) * 100 + 101 * 200 + 201
    crops = images(7, 20, 5)
    value = crops.reshape(20, 25).astype(float)
    for k, (kernel, bias) in enumerate(zip(predictor.get_weights()[::2], predictor.get_weights()[1::2], strict=True)):
        value = value @ kernel + bias
        value = np.maximum(value, 0) if k < 2 else value
    np.testing.assert_allclose(predictor(crops), value, atol=1e-5)


def test_noise_crops_are_cut_where_told():
    (crop,) = images(8, 1, 32)
    corners = np.array([[0, 0], [0.5, 0.25], [0.999999, 0.999999], [0, 0.999999]], np.float32)
    places = [(0, 0), (14, 7), (27, 27), (0, 27)]
    found = np.asarray(losses.noise_crops(crop[None], tf.constant(corners), 5))
    for cut, (top, left) in zip(found, places, strict=True):
        np.testing.assert_array_equal(cut, crop[top : top + 5, left : left + 5])


def test_predictor_loss_and_weight():
    predicted, error, mu1 = tf.Variable([[1.0], [4.0]]), tf.Variable([3.0]), tf.Variable(20.0)
    with tf.GradientTape(persistent=True) as tape:
        loss, weight = losses.predictor_loss(predicted, error), losses.predictor_weight(mu1, predicted, 0.1)
    assert float(loss) == pytest.approx((4 + 1) / 2) and float(weight) == pytest.approx(20 / 2.5)
    np.testing.assert_allclose(tape.gradient(loss, predicted), [[-2.0], [1.0]])
    assert [tape.gradient(*pair) for pair in ((loss, error), (weight, predicted), (weight, mu1))] == [None] * 3
    assert float(losses.predictor_weight(20.0, tf.constant([[-5.0], [1.0]]), 0.1)) == pytest.approx(200)


def test_decay_is_of_kernels_only():
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()])
    kernel = network.layers[0].get_weights()[0]
    network.layers[0].bias.assign([3.0, 4.0])
    assert float(losses.decay(network, 1e-2)) == pytest.approx(1e-2 * np.sum(kernel.astype(float) ** 2) / 2, rel=1e-5)
