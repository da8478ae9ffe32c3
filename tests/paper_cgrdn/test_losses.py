"""CGRDN's losses and schedule against independent NumPy versions; properties that the equations promise."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from paper_cgrdn import Config, losses
from paper_cgrdn.generator import build_generator
from paper_cgrdn.schedule import StaircaseRate, rising_beta
from tests.paper_cgrdn import oracle

CONFIG = Config.tiny()
PLAIN = ("l1", "l2", "mlwt", "fourier", "mean_constraint", "std_constraint", "gradient_x", "gradient_y", "laplacian")


def batch(seed=0, shape=(3, 20, 24)):
    rng = np.random.default_rng(seed)
    y = rng.normal(rng.normal(0, 0.3, (shape[0], 1, 1)), 1.5, shape).astype(np.float32)
    return y, (y + rng.normal(0.1, 0.4, shape)).astype(np.float32)


def value(name, y, p):
    return float(getattr(losses, name)(tf.constant(y[..., None]), tf.constant(p[..., None])))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("shape", [(3, 20, 24), (1, 16, 16)])
def test_terms_equal_their_equations(name, shape):
    y, p = batch(1, shape)
    assert value(name, y, p) == pytest.approx(getattr(oracle, name)(y, p), rel=2e-5)


def test_large_differences_are_cut_and_flat_targets_have_a_floor():
    y, p = batch(2)
    p = p.copy()
    p[0, 3, 3] = 1e4
    for name in ("gradient_x", "gradient_y"):
        assert value(name, y, p) == pytest.approx(getattr(oracle, name)(y, p), rel=2e-5)
    flat = np.zeros_like(y)
    assert value("mlwt", flat, p) == pytest.approx(oracle.mlwt(flat, p), rel=2e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_equal_images_have_no_loss_and_finite_gradients(name):
    y, _ = batch(3)
    assert value(name, y, y) == pytest.approx(1e-9**0.125 if name == "fourier" else 0, abs=1e-6)
    p = tf.Variable(y[..., None])
    with tf.GradientTape() as tape:
        loss = getattr(losses, name)(tf.constant(y[..., None]), p)
    gradient = tape.gradient(loss, p)
    assert gradient is None or np.isfinite(gradient).all()


def test_adaptive_weight():
    rng = np.random.default_rng(4)
    y = rng.normal(0, 1, (4, 16, 16)) * np.array([3.0, 0.5, 0.02, 0.0])[:, None, None]
    found = np.ravel(losses.adaptive_weight(tf.constant(y[..., None], tf.float32), CONFIG))
    np.testing.assert_allclose(found, np.ravel(oracle.adaptive_weight(y)), rtol=1e-5)
    assert found[2] == found[3] == 10


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_sets_of_weights(name):
    y, p = batch(5)
    y *= 0.4
    w = oracle.adaptive_weight(y)
    weights = {"A": (5, 4, 0.2, 0.4, 8, 4, 0.8, 0.8), "B": (5, 0, 0, 0.4, 0, 0, 0, 0), "C": (10, 0, 0, 0, 0, 0, 0, 0)}[name]
    expected = sum(weight * getattr(oracle, term)(w * y, w * p) for term, weight in zip(PLAIN, weights, strict=False))
    found = losses.terms(tf.constant(y[..., None]), tf.constant(p[..., None]), replace(CONFIG, loss_weights=name))
    assert float(sum(weight * term for term, weight in found.values())) == pytest.approx(expected, rel=2e-5)


def test_noisier_inputs_do_not_change_what_an_error_costs():
    """The same specimen behind four times the noise: standardised by it, target and error shrink, and the adaptive weight undoes that."""
    y, p = (a[..., None] for a in batch(6))
    one, other = (losses.terms(tf.constant(share * y), tf.constant(share * p), CONFIG) for share in (0.8, 0.2))
    for term in one:
        assert float(one[term][0]) == pytest.approx(float(other[term][0]), rel=1e-4), term


# --- Adversarial ---


def test_relativistic_losses():
    rng = np.random.default_rng(7)
    r, f = (rng.normal(size=(2, 4, 5, 1)).astype(np.float32) for _ in range(2))
    assert float(losses.discriminator(tf.constant(r), tf.constant(f))) == pytest.approx(oracle.discriminator_loss(r[..., 0], f[..., 0]), rel=1e-5)
    assert float(losses.adversarial(tf.constant(r), tf.constant(f))) == pytest.approx(oracle.generator_loss(r[..., 0], f[..., 0]), rel=1e-5)
    same = tf.constant(np.full((1, 4, 4, 1), 0.7, np.float32))
    assert float(losses.discriminator(same, same)) == pytest.approx(2 * np.log(2), rel=1e-5)
    assert float(losses.adversarial(same, same)) == pytest.approx(2 * np.log(2), rel=1e-5)


def test_weight_decay_leaves_the_last_layer_alone():
    network = build_generator(CONFIG)
    for v in network.trainable_variables:
        v.assign(np.full(v.shape, 0.5, np.float32))
    kernels, biases = (
        sum(v.numpy().size for layer in network.layers if layer.name != "last" for v in layer.trainable_variables if (v.name == "bias") == bias) / 4
        for bias in (False, True)
    )
    assert float(losses.weight_decay(network, CONFIG)) == pytest.approx(1e-8 * kernels + 1e-7 * biases, rel=1e-4)


# --- Schedule ---


@pytest.mark.parametrize(("epoch", "decay"), [(62_500, 0.9), (2000, 0.8), (100, 0.9), (1, 0.9), (100, 1 - 2**-10)])
def test_rates(epoch, decay):
    rate, beta = StaircaseRate(2e-4, epoch, decay), rising_beta(0.9, epoch)
    borders = {epoch // 2, epoch - 1, epoch, epoch + 1, 5 * epoch + epoch // 3, 1000 * epoch, 1003 * epoch - 1}
    steps = sorted({0, 1, 100, 511, 512, 513, *borders, *(2 * epoch - k for k in range(1, 40))})
    for step in (s for s in steps if s >= 0):
        assert float(rate(step)) == pytest.approx(oracle.learning_rate(step, 2e-4, epoch, decay), rel=1e-5), step
        assert float(beta(step)) == pytest.approx(oracle.beta1(step, 0.9, epoch), abs=1e-6)


def test_check_values_of_the_schedule():
    rate = StaircaseRate(2e-4, 62_500, 0.9)
    assert [float(rate(s)) for s in (0, 512, 62_500, 3 * 62_500)] == pytest.approx([2e-8, 2e-4, 1.8e-4, 2e-4 * 0.9**3], rel=1e-5)
