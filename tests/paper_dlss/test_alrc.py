"""Adaptive learning rate clipping: the specification's worked example, gradients, moments against a loop in NumPy, batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.precision import building
from paper_dlss.alrc import ALRC


def loop(batches, mu1=25.0, mu2=900.0, n=3.0, decay=0.999):
    """The algorithm of section 9 in float64: clipped losses, factors of the gradients and moments after each batch."""
    found = []
    for losses in batches:
        limit = mu1 + n * np.sqrt(mu2 - mu1**2 + 1e-8)
        clipped = [loss if loss < limit else limit for loss in losses]
        mu1 = decay * mu1 + (1 - decay) * sum(clipped) / len(clipped)
        mu2 = decay * mu2 + (1 - decay) * sum(c * c for c in clipped) / len(clipped)
        found.append((clipped, [c / loss for c, loss in zip(clipped, losses, strict=True)], mu1, mu2))
    return found


def clip(alrc, losses):
    """(clipped, gradient of their sum)."""
    losses = tf.Variable(losses, dtype=tf.float32)
    with tf.GradientTape() as tape:
        clipped = alrc(losses)
        total = tf.reduce_sum(clipped)
    return clipped.numpy(), tape.gradient(total, losses).numpy()


def test_worked_example():
    """A loss of 100 at the start: limit 74.7494, gradient times 0.747494, and the moments that follow."""
    alrc = ALRC()
    assert float(alrc.limit()) == pytest.approx(25 + 3 * 16.5831, abs=1e-3)
    clipped, gradient = clip(alrc, 100.0)
    assert clipped.shape == () and clipped == pytest.approx(74.7494, abs=1e-4)
    assert gradient == pytest.approx(0.747494, abs=1e-6)
    assert float(alrc.mu1) == pytest.approx(25.049749, abs=1e-5) and float(alrc.mu2) == pytest.approx(904.687469, abs=1e-3)


@pytest.mark.parametrize("loss", [0.0, 1e-30, 3.0, 74.0])
def test_ordinary_losses_pass(loss):
    clipped, gradient = clip(ALRC(), loss)
    assert clipped == np.float32(loss) and gradient == 1


@pytest.mark.parametrize("settings", [{}, {"mean": 2.0, "square": 5.0, "sigma": 1.5, "decay": 0.9}])
@pytest.mark.parametrize("batch", [1, 3])
def test_clips_and_learns_as_the_algorithm_says(settings, batch):
    rng, names = np.random.default_rng(batch), {"mean": "mu1", "square": "mu2", "sigma": "n", "decay": "decay"}
    batches = np.exp(rng.normal(3, 1.5, (40, batch))).astype(np.float32)
    alrc, some = ALRC(**settings), 0
    for losses, (clipped, factors, mu1, mu2) in zip(batches, loop(batches, **{names[k]: v for k, v in settings.items()}), strict=True):
        ours, gradient = clip(alrc, losses)
        np.testing.assert_allclose(ours, clipped, rtol=1e-4)
        np.testing.assert_allclose(gradient, factors, rtol=1e-4)
        np.testing.assert_allclose([float(alrc.mu1), float(alrc.mu2)], [mu1, mu2], rtol=1e-4)
        some += min(factors) < 1
    assert some >= 5 and (gradient > 0).all()


def test_each_loss_of_a_batch_is_clipped_by_itself():
    clipped, gradient = clip(ALRC(), [10.0, 1000.0, 74.0])
    np.testing.assert_allclose(clipped, [10, 74.7494, 74], rtol=1e-5)
    np.testing.assert_allclose(gradient, [1, 0.0747494, 1], rtol=1e-5)


def test_steady_losses_are_not_clipped_in_the_end():
    """Losses that are all alike leave no variance, which rounding must not turn into a NaN; ten times too large a start is forgotten."""
    alrc = ALRC(mean=250.0, square=90_000.0, decay=0.9)
    for _ in range(300):
        clipped, _ = clip(alrc, 1.7)
    assert clipped == pytest.approx(1.7, rel=1e-6) and np.isfinite(float(alrc.limit()))


def test_moments_below_the_square_of_the_mean_are_refused():
    with pytest.raises(ValueError, match="square must exceed the square of mean"):
        ALRC(mean=25.0, square=30.0)


def test_float32_under_every_policy_and_no_trainable_weights():
    with building("mixed_float16"):
        alrc = ALRC()
        assert alrc(tf.constant([1e6], tf.float32)).dtype == tf.float32
    assert [v.dtype for v in alrc.variables] == ["float32"] * 2 and not alrc.trainable_variables
    other = ALRC.from_config(keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(alrc)).get_config())
    assert (other.mean, other.square, other.sigma, other.decay) == (25.0, 900.0, 3.0, 0.999)
