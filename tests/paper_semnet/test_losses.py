"""SEMNet's losses against independent NumPy versions, closed forms and the properties that the terms are there for."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_semnet import Config
from paper_semnet.losses import histogram, l1, logistic_distribution, losses, soft_histogram, total_variation
from tests.paper_semnet import oracle


def pair(seed=0, shape=(3, 20, 24, 1), low=-0.1, high=1.1):
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, shape).astype(np.float32), rng.beta(2, 4, shape).astype(np.float32)


def test_l1_and_total_variation_equal_the_equations():
    target, prediction = pair()
    assert float(l1(target, prediction)) == pytest.approx(oracle.l1(target, prediction), rel=1e-5)
    assert float(total_variation(prediction)) == pytest.approx(oracle.total_variation(prediction), rel=1e-5)


def test_total_variation_of_a_ramp_is_its_slope():
    ramp = np.broadcast_to(0.01 * np.arange(30.0, dtype=np.float32)[None, :, None, None], (1, 30, 20, 1))
    assert float(total_variation(ramp)) == pytest.approx(0.01, rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([16, 64]), st.sampled_from(["mean", "histogan"]))
def test_hellinger_equals_the_equation(seed, bins, reduction):
    target, prediction = pair(seed)
    ours = float(histogram(target, prediction, "hellinger", reduction, bins))
    assert ours == pytest.approx(oracle.histogram_hellinger(target, prediction, bins=bins, reduction=reduction), abs=2e-6)
    squared = float(histogram(target, prediction, "hellinger_sq", reduction, bins))
    assert squared == pytest.approx(oracle.histogram_hellinger(target, prediction, bins=bins, reduction=reduction, squared=True), abs=2e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([16, 64]))
def test_emd_equals_the_equation(seed, bins):
    target, prediction = pair(seed)
    assert float(histogram(target, prediction, "emd", bins=bins)) == pytest.approx(oracle.histogram_emd(target, prediction, bins=bins), abs=2e-6)


def test_emd_of_a_brightness_shift_is_the_shift():
    image = np.random.default_rng(0).uniform(0.2, 0.7, (1, 64, 64, 1)).astype(np.float32)
    assert float(histogram(image, image + 0.1, "emd")) == pytest.approx(0.1, abs=0.002)


def test_histograms_sum_to_one():
    image = pair()[0]
    np.testing.assert_allclose(keras.ops.sum(soft_histogram(image), -1), 1, atol=1e-5)
    distribution = np.asarray(logistic_distribution(image))
    np.testing.assert_allclose(distribution[..., -1], 1, atol=1e-4)
    assert (np.diff(distribution, axis=-1) > -1e-6).all()


def test_equal_images_cost_nothing_and_disjoint_ones_most():
    image = pair(low=0)[0]
    assert float(l1(image, image)) == 0
    assert float(histogram(image, image)) <= 1e-6
    black, white = np.zeros((1, 16, 16, 1), np.float32), np.ones((1, 16, 16, 1), np.float32)
    assert 0.5 < float(histogram(black, white)) <= 1


@pytest.mark.parametrize("kind", ["hellinger", "hellinger_sq", "emd"])
def test_histogram_does_not_see_positions(kind):
    image = pair(low=0)[0]
    shuffled = np.random.default_rng(1).permutation(image.reshape(len(image), -1), axis=1).reshape(image.shape)
    assert float(histogram(image, shuffled, kind)) == pytest.approx(0, abs=2e-6)


@pytest.mark.parametrize("kind", ["hellinger", "hellinger_sq", "emd"])
@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_gradient_is_finite_on_flat_images(kind, level):
    prediction = tf.Variable(tf.fill((2, 8, 8, 1), level))
    with tf.GradientTape() as tape:
        value = histogram(tf.fill((2, 8, 8, 1), level), prediction, kind)
    assert np.isfinite(tape.gradient(value, prediction)).all()


def test_values_measured_for_the_specification():
    """The table of the specification for noise of 15/255 on a natural patch holds in kind: order and rough size of the terms."""
    from skimage.data import camera

    image = camera()[200:344, 200:344].astype(np.float32)[None, ..., None] / 255
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 15 / 255, image.shape), 0, 1).astype(np.float32)
    assert float(l1(image, noisy)) == pytest.approx(0.0445, abs=0.006)
    assert 0.1 < float(total_variation(noisy)) < 0.2
    assert 0 < float(histogram(image, noisy, "emd")) < float(histogram(image, noisy)) < 0.3


def test_terms_and_weights_of_the_abstract():
    target, prediction = pair()
    terms = losses(target, prediction, Config.paper())
    assert {name: weight for name, (_, weight) in terms.items()} == {"L1": 1.0, "L_hist": 0.1, "L_TV": 0.01}
    assert set(losses(target, prediction, replace(Config.paper(), histogram_weight=0.0, tv_weight=0.0))) == {"L1"}
