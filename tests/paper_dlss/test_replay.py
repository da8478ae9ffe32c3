"""Experience replay against a simulation of section 11 in NumPy with the same coins; what slots hold; checkpoints."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from paper_dlss.config import Config
from paper_dlss.replay import Replay, uniform

TINY = replace(Config.tiny(), side=32, replay_slots=5)


def example(i):
    """A crop that tells which example it is, and a `which` of its own."""
    return np.full((32, 32, 1), i, np.float32), np.array([i % 7], np.float32)


def buffer(config=TINY):
    return Replay(config, [example(-1 - k) for k in range(config.replay_slots)])


def simulated(coins, errors, slots, share=0.2):
    """Section 11 in plain Python: for every step (replayed, stored, number shown), and the controller's numbers after it. Slots hold numbers of examples."""
    held = [-1 - k for k in range(slots)]
    mean, square, tracker, threshold, found = 1.5, 4.0, 0.2, 0.0, []
    for i, ((coin, read, write), error) in enumerate(zip(coins, errors, strict=True)):
        replayed = coin < share
        shown = held[int(read * slots)] if replayed else i
        stored = not replayed and error > threshold
        if stored:
            held[int(write * slots)] = i
        mean, square = 0.99 * mean + 0.01 * error, 0.99 * square + 0.01 * error**2
        tracker = 0.99 * tracker + (0.01 if stored else 0)
        std = np.sqrt(square - mean**2)
        threshold = 0.99 * threshold + 0.01 * (mean - 5 * std if tracker < 0.2 else mean + 5 * std)
        found.append((replayed, stored, shown, mean, square, tracker, threshold))
    return found, held


def run(replay, errors, batch=1):
    """The same by the code under test; batches are cut from the list of errors."""

    @tf.function
    def one(crops, which, errors, step):
        crops, which, replayed = replay.draw(crops, which, step)
        replay.keep(crops, which, errors, replayed, step)
        return replayed, crops[:, 0, 0, 0], which[:, 0]

    found = []
    for step in range(len(errors) // batch):
        numbers = range(step * batch, (step + 1) * batch)
        crops, which = (np.stack(arrays) for arrays in zip(*map(example, numbers), strict=True))
        shown = [a.numpy() for a in one(crops, which, tf.constant(errors[step * batch : (step + 1) * batch], tf.float32), tf.constant(step, tf.int64))]
        found.append((*shown, replay.mean.numpy(), replay.square.numpy(), replay.stored.numpy(), replay.threshold.numpy()))
    return found


def coins(steps, batch=1):
    """(coin, slot to read, slot to write) for each example, as numbers in [0, 1)."""
    return np.concatenate([uniform(TINY.seed, "replay", step, (3, batch)).numpy().T for step in range(steps)])


@pytest.mark.parametrize("batch", [1, 3])
def test_follows_the_controller(batch):
    errors = np.exp(np.random.default_rng(0).normal(0, 0.8, 300)).astype(np.float32)
    replay = buffer()
    found, (expected, held) = run(replay, errors, batch), simulated(coins(300 // batch, batch), errors, 5)
    if batch == 1:
        for (replayed, crop, which, *numbers), (replay_due, _, shown, *numbers_due) in zip(found, expected, strict=True):
            assert replayed[0] == replay_due and crop[0] == shown and which[0] == shown % 7
            np.testing.assert_allclose(numbers, numbers_due, rtol=1e-3, atol=1e-4)
        assert replay.crops.numpy()[:, 5, 5, 0].tolist() == held
    else:  # a batch is drawn before any of it is stored, all else is one example after the other
        replayed = np.concatenate([f[0] for f in found])
        np.testing.assert_array_equal(replayed, [e[0] for e in expected])
        np.testing.assert_allclose(found[-1][3:], expected[-1][3:], rtol=1e-3, atol=1e-4)
    assert sum(e[0] for e in expected) > 30 and sum(e[1] for e in expected) > 30


def test_slots_hold_their_own_step():
    """The scripts' bug: a new crop beside a former example's coverage."""
    replay = buffer()
    run(replay, np.full(100, 1e3, np.float32))  # all of them worth keeping at first
    numbers = replay.crops.numpy()[:, 0, 0, 0]
    assert (numbers >= 0).any()
    np.testing.assert_array_equal(replay.which.numpy()[:, 0], numbers % 7)


def test_a_fifth_is_stored_and_replayed_in_the_long_run():
    errors = np.exp(np.random.default_rng(1).normal(0.5, 0.6, 4000)).astype(np.float32)
    replay = buffer()
    crops, which = (tf.constant(a[None]) for a in example(0))

    @tf.function
    def all_steps(errors):
        counts = tf.zeros(2, tf.int32)
        for step in tf.range(4000):
            _, _, replayed = replay.draw(crops, which, step)
            stored = tf.logical_and(~replayed[0], errors[step] > replay.threshold)
            replay.keep(crops, which, errors[step][None], replayed, step)
            counts += tf.cast(tf.stack([replayed[0], stored]), tf.int32) * tf.cast(step >= 1000, tf.int32)
        return counts

    replayed, stored = all_steps(errors).numpy() / 3000
    assert replayed == pytest.approx(0.2, abs=0.02) and stored == pytest.approx(0.2, abs=0.02)


def test_coins_belong_to_seed_stream_and_step():
    one = uniform(3, "replay", 7, (100,)).numpy()
    np.testing.assert_array_equal(one, uniform(3, "replay", tf.constant(7, tf.int64), (100,)).numpy())
    for other in (uniform(4, "replay", 7, (100,)), uniform(3, "corners", 7, (100,)), uniform(3, "replay", 8, (100,))):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.4 and not np.equal(one, other).any()
    many = uniform(2**32 - 1, "replay", 2_000_000, (20_000,)).numpy()
    assert 0 <= many.min() and many.max() < 1 and many.mean() == pytest.approx(0.5, abs=0.01)


def test_checkpoints_hold_all_of_it(tmp_path):
    replay, other = buffer(), buffer()
    run(replay, np.full(30, 5.0, np.float32))
    path = tf.train.Checkpoint(replay=replay).write(str(tmp_path / "state"))
    tf.train.Checkpoint(replay=other).read(path).assert_consumed()
    assert len(replay.variables) == 6
    for a, b in zip(replay.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
