"""SEM-GAN's losses against independent NumPy versions, numbers worked out by hand, and the shares that the paper states."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_sem_gan import Config
from paper_sem_gan.losses import adversarial, discriminator, l1, total_variation, weights_for_shares
from tests.paper_sem_gan import oracle

SHARES = (0.14, 0.02, 0.84)  # L1, TV, adversarial


def drawn(seed, shape=(3, 11, 7, 1)):
    """(target, output, D of real images, D of outputs)."""
    rng = np.random.default_rng(seed)
    images = [rng.uniform(-0.2, 1.2, shape).astype(np.float32) for _ in range(2)]
    return (*images, *(rng.uniform(0.01, 0.99, (shape[0], 1)).astype(np.float32) for _ in range(2)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(3, 11, 7, 1), (1, 1, 9, 1), (2, 6, 1, 1), (1, 1, 1, 1)]))
def test_terms_equal_the_equations(seed, shape):
    target, output, real, fake = drawn(seed, shape)
    assert float(l1(target, output)) == pytest.approx(oracle.l1(output, target), rel=1e-5)
    assert float(total_variation(output)) == pytest.approx(oracle.total_variation(output), rel=1e-5)
    assert float(adversarial(fake)) == pytest.approx(oracle.adversarial(fake), rel=1e-5)
    assert float(discriminator(real, fake)) == pytest.approx(oracle.discriminator_loss(real, fake), rel=1e-5)
    assert all(keras.ops.shape(term) == () for term in (l1(target, output), total_variation(output), adversarial(fake), discriminator(real, fake)))


def test_numbers_by_hand():
    g = np.array([[0.0, 0.5, 0.25], [1.0, 0.5, 0.75]], np.float32)[None, ..., None]
    z = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], np.float32)[None, ..., None]
    assert float(l1(z, g)) == pytest.approx((0.5 + 0 + 0.25 + 0.5 + 0 + 0.25) / 6)
    down, across = 1.0 + 0.0 + 0.5, 0.5 + 0.25 + 0.5 + 0.25
    assert float(total_variation(g)) == pytest.approx((down + across) / 6)
    assert float(adversarial(np.array([[0.25], [1.0]]))) == pytest.approx((0.75**2 + 0) / 2)
    assert float(discriminator(np.array([[0.5]]), np.array([[0.5]]))) == pytest.approx(0.5)
    assert float(discriminator(np.array([[1.0], [0.9]]), np.array([[0.0], [0.2]]))) == pytest.approx((0 + 0.01) / 2 + (0 + 0.04) / 2)


@pytest.mark.parametrize(("height", "width"), [(5, 9), (128, 128)])
def test_total_variation_of_an_edge_is_its_length(height, width):
    edge = np.zeros((2, height, width, 1), np.float32)
    assert float(total_variation(edge)) == 0
    edge[:, :, width // 2 :] = 1
    assert float(total_variation(edge)) * height * width == pytest.approx(height, rel=1e-5)
    assert oracle.total_variation_sum(edge[0, ..., 0]) == height


def test_total_variation_does_not_depend_on_the_patch():
    """Per pixel: a checkerboard of steps of 0.1 has 0.2 for every size but for the border."""
    for side in (32, 256):
        board = (0.1 * (np.add.outer(np.arange(side), np.arange(side)) % 2)).astype(np.float32)[None, ..., None]
        assert float(total_variation(board)) == pytest.approx(0.2 * (side - 1) / side, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_weights_give_the_stated_shares(seed):
    """84, 14 and 2 % within a point on fixed tensors, and alpha and beta by the formulas of the specification."""
    target, output, _, fake = drawn(seed, (4, 32, 32, 1))
    output, fake = target + 0.1 * (output - 0.5), 0.6 * fake  # A stays where it is not clipped
    values = float(l1(target, output)), float(total_variation(output)), float(adversarial(fake))
    alpha, beta = (float(w) for w in weights_for_shares(*values, SHARES))
    assert (alpha, beta) == pytest.approx(oracle.final_weights(*values), rel=1e-5)
    for share, stated in zip(oracle.shares(*values, alpha, beta), (0.84, 0.14, 0.02), strict=True):
        assert share == pytest.approx(stated, abs=1e-5)
    total = oracle.generator_loss(output, target, fake, alpha, beta)
    assert total * 0.14 == pytest.approx(values[0], rel=1e-4)


def test_examples_of_the_specification():
    alpha, beta = weights_for_shares(0.03, 0.05, 0.25, SHARES)
    assert float(alpha) == pytest.approx(0.086, abs=5e-4) and float(beta) == pytest.approx(0.72, rel=1e-6)
    alpha, beta = weights_for_shares(7.65, 12.75, 0.25, SHARES)  # on 0 .. 255: alpha stays, beta grows with the range
    assert float(alpha) == pytest.approx(0.086, abs=5e-4) and float(beta) == pytest.approx(183.6, rel=1e-6)


def test_a_lost_game_does_not_blow_up_the_weights():
    for a, counted in ((1e-9, 0.1), (0.05, 0.1), (0.3, 0.3), (1.0, 1.0), (1.7, 1.0)):
        assert float(weights_for_shares(0.03, 0.05, a, SHARES)[1]) == pytest.approx(6 * 0.03 / counted, rel=1e-5)
    assert np.isfinite(float(weights_for_shares(0.03, 0.0, 0.25, SHARES)[0]))


def test_shares_of_the_config_are_the_papers():
    for config in (Config.paper(), Config.small(), Config.tiny()):
        assert (config.l1_share, config.tv_share, config.adversarial_share) == SHARES


def test_directions_of_the_gradients():
    """G is rewarded for D(G(x)) going up, D for D(z) going up and D(G(x)) going down; flat images have finite gradients."""
    real, fake, g = (tf.Variable(v) for v in ([[0.4]], [[0.6]], np.full((1, 4, 4, 1), 0.5, np.float32)))
    with tf.GradientTape(persistent=True) as tape:
        reward, judged, flat = adversarial(fake), discriminator(real, fake), l1(tf.fill((1, 4, 4, 1), 0.5), g) + total_variation(g)
    for value, variable, expected in ((reward, fake, -2 * 0.4), (judged, real, -2 * 0.6), (judged, fake, 2 * 0.6)):
        assert float(tape.gradient(value, variable)[0, 0]) == pytest.approx(expected)
    assert np.isfinite(tape.gradient(flat, g)).all()
