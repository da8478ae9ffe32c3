"""The SSUM CycleGAN's losses against an independent NumPy version and closed forms."""

import numpy as np
import pytest
import tensorflow as tf

from common.layers import dense_warp
from paper_ssum_cyclegan import losses
from tests.paper_ssum_cyclegan import oracle

RNG = np.random.default_rng(0)
REAL, FAKE = (RNG.normal(shift, 1, (2, 5, 6, 1)).astype(np.float32) for shift in (0.4, -0.3))
G, Y = (RNG.uniform(-1, 1, (3, 16, 20, 1)).astype(np.float32) for _ in range(2))


def test_adversarial_losses():
    np.testing.assert_allclose(losses.discriminator(REAL, FAKE), oracle.discriminator_log_loss(REAL, FAKE), rtol=1e-5)
    np.testing.assert_allclose(losses.adversarial(FAKE), oracle.generator_log_loss(FAKE), rtol=1e-5)
    np.testing.assert_allclose(losses.discriminator(REAL, FAKE), -0.5 * oracle.gan_value(REAL, FAKE), rtol=1e-5)  # eq. 1
    np.testing.assert_allclose(losses.discriminator(REAL, FAKE, "least_squares"), oracle.discriminator_least_squares(REAL, FAKE), rtol=1e-5)
    np.testing.assert_allclose(losses.adversarial(FAKE, "least_squares"), oracle.generator_least_squares(FAKE), rtol=1e-5)


def test_a_sure_discriminator_still_teaches_the_generator():
    logits = tf.constant(np.full((1, 4, 4, 1), -30, np.float32))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.adversarial(logits)
    np.testing.assert_allclose(tf.reduce_sum(tape.gradient(loss, logits)), -1, rtol=1e-5)


def test_losses_between_images():
    np.testing.assert_allclose(10 * (losses.l1(G, Y) + losses.l1(Y, G)), oracle.cycle_loss(Y, G, G, Y), rtol=1e-5)
    np.testing.assert_allclose(losses.lowres_l1(G, Y), oracle.lowres_l1(G, Y), rtol=1e-5)
    np.testing.assert_allclose(losses.shift_l1(G, Y, 3), np.mean(oracle.shift_l1(G, Y, 3, interior=True)), rtol=1e-5)


def test_shift_l1_forgives_shifts_up_to_its_radius_and_each_image_its_own():
    scene = RNG.uniform(-1, 1, (30, 30)).astype(np.float32)
    cut = [scene[5 + row : 25 + row, 5 + column : 25 + column][..., None] for row, column in ((0, 0), (2, -1), (-2, 2))]
    y = np.stack([cut[0]] * 3)
    assert losses.shift_l1(np.stack(cut), y, 2) < 1e-7
    assert losses.shift_l1(np.stack(cut), y, 1) > 0.2
    np.testing.assert_allclose(losses.shift_l1(np.stack(cut), y, 0), losses.l1(np.stack(cut), y), rtol=1e-6)


@pytest.mark.parametrize("flow", [np.zeros((3, 16, 20, 2)), RNG.normal(0, 2, (3, 16, 20, 2))])
def test_registration_terms(flow):
    flow = flow.astype(np.float32)
    registered = 20 * losses.l1(dense_warp(G, flow), Y) + 10 * losses.roughness(flow)
    np.testing.assert_allclose(registered, oracle.registration_loss(G, Y, flow), rtol=1e-4)


def test_roughness_of_a_slope():
    rows, columns = np.mgrid[:8, :9].astype(np.float32)
    np.testing.assert_allclose(losses.roughness(np.stack([3 * rows, 0 * columns], -1)[None]), 9 / 2, rtol=1e-6)  # one of two components
