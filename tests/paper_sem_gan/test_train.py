"""SEM-GAN's training: what each kind of step does, calibration, Adam on the written losses, and that it learns."""

from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from paper_sem_gan import Config
from paper_sem_gan.data import Patches, as_field, read_pairs
from paper_sem_gan.generator import build_generator
from paper_sem_gan.train import SEMGAN
from tests.paper_sem_gan import oracle
from tests.paper_sem_gan.devices import QUICK
from tests.paper_sem_gan.test_data import write_pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder of three registered pairs."""
    return write_pairs(tmp_path_factory.mktemp("pairs"), [(32, 36), (40, 32), (32, 32)])


def batch_of(patches, step):
    size = patches.config.batch
    return tuple(np.stack(arrays) for arrays in zip(*(patches(i) for i in range((step - 1) * size, step * size)), strict=True))


def noise_batch(config, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(size=(config.batch, config.patch, config.patch, 1)).astype(np.float32) for _ in range(4))


def numbers(trainer):
    return {name: float(variable) for name, variable in trainer.state.items()}


# --- Schedule ---


def test_kinds_of_the_papers_steps():
    """500 steps on L1, 500 of calibration, 48,000 of training of which every fourth is followed by one of the discriminator: 12,000."""
    config = Config.paper()
    kinds = [SEMGAN.kind(trainer_like(config), step) for step in range(1, config.steps + 1)]
    assert kinds[:500] == ["warm-up"] * 500 and "warm-up" not in kinds[500:]
    assert [step for step, kind in enumerate(kinds, 1) if "last" in kind] == [1000] == [config.warm_up + config.calibration]
    assert all("calibration" in kind for kind in kinds[500:1000]) and not any("calibration" in kind for kind in kinds[1000:])
    due = [step for step, kind in enumerate(kinds, 1) if kind.endswith("+D")]
    assert due == [step for step in oracle.discriminator_updates(config.steps) if step > 500]
    assert len(kinds[1000:]) == 48_000 and sum(step > 1000 for step in due) == 12_000


def trainer_like(config):
    """What `kind` looks at of a trainer."""
    return type("Like", (), {"config": config})()


def test_optimizers_are_the_papers():
    trainer = SEMGAN(replace(QUICK, learning_rate=1e-4, discriminator_rate=1e-5))
    for name, rate in (("adam", 1e-4), ("adam_discriminator", 1e-5)):
        adam = trainer.solvers[name]
        assert (adam.beta_1, adam.beta_2, adam.epsilon, adam.clipnorm) == (0.9, 0.999, 1e-8, None)
        assert float(adam.learning_rate) == pytest.approx(rate)
    assert SEMGAN(replace(QUICK, clip_norm=0.5)).solvers["adam"].clipnorm == 0.5
    paper, small = Config.paper(), Config.small()
    same = ("levels", "convolutions", "stem", "warm_up", "calibration", "calibration_decay", "discriminator_every", "patch", "stride", "fields", "held_out")
    assert all(getattr(paper, name) == getattr(small, name) for name in same)
    assert (paper.steps, paper.batch, paper.learning_rate, paper.discriminator_rate, paper.discriminator_every) == (49_000, 12, 1e-4, 1e-5, 4)


@pytest.fixture(scope="module")
def watched(pairs):
    """A run by hand: the trainer, and for each step its logs, its weights of the losses and which network it changed."""
    trainer, patches, seen = SEMGAN(QUICK), Patches(QUICK, read_pairs(pairs)), []
    trainer.networks["discriminator"].get_layer("dense2").bias.assign([-0.5])  # A starts away from 1/4, which provisional weights take it for
    step = tf.function(trainer.train_step)
    for number in range(1, 25):
        before = {name: network.get_weights() for name, network in trainer.networks.items()}
        logs = {name: float(value) for name, value in step(batch_of(patches, number), trainer.kind(number)).items()}
        changed = {name: any((a != b).any() for a, b in zip(before[name], net.get_weights(), strict=True)) for name, net in trainer.networks.items()}
        seen.append((number, logs, numbers(trainer), changed))
    return trainer, seen


def test_the_generator_learns_at_every_step_and_the_discriminator_at_every_fourth(watched):
    for number, logs, _, changed in watched[1]:
        assert changed["final"]
        assert changed["discriminator"] == (number > 6 and number in oracle.discriminator_updates(24)) == ("L_D" in logs)


def test_calibration_follows_its_loop(watched):
    """Averages, provisional and final weights are those of a plain loop over the logged L1, TV and A; after it they never move again."""
    terms = [(logs["L1"], logs.get("TV"), logs.get("A")) for _, logs, _, _ in watched[1]]
    used, averages = oracle.calibration(terms, QUICK.warm_up, QUICK.calibration, QUICK.calibration_decay)
    for (number, logs, state, _), weights, average in zip(watched[1], used, averages, strict=True):
        if number <= 6:
            assert set(logs) == {"L1", "L1*w", "loss"} and logs["loss"] == logs["L1"]
            assert all(np.isnan(value) for value in state.values())
            continue
        assert (logs["TV*w"] / logs["TV"], logs["A*w"] / logs["A"]) == pytest.approx(weights, rel=1e-4)
        assert logs["loss"] == pytest.approx(logs["L1"] + weights[0] * logs["TV"] + weights[1] * logs["A"], rel=1e-4)
        assert [state[name] for name in ("L1", "TV", "A")] == pytest.approx(average, rel=1e-4)
        if number >= 14:
            assert (state["alpha"], state["beta"]) == pytest.approx(oracle.final_weights(*average), rel=1e-4)
            assert state == watched[1][13][2]


@pytest.mark.parametrize("scores", [0.05, 0.4, 0.6])
def test_shares_at_work(scores):
    """On a frozen batch, with networks that hardly move, the logged shares are 84, 14 and 2 % within a point once calibration is over."""
    config = replace(QUICK, learning_rate=1e-7, discriminator_rate=1e-7, warm_up=1, calibration=3)
    trainer, batch = SEMGAN(config), noise_batch(config)
    trainer.networks["discriminator"].get_layer("dense2").bias.assign([np.log(scores / (1 - scores))])
    for number in range(1, 6):
        logs = trainer.train_step(batch, trainer.kind(number))
    for name, share in (("A", 0.84), ("L1", 0.14), ("TV", 0.02)):
        assert float(logs[f"share_{name}"]) == pytest.approx(share, abs=0.005)
    assert float(logs["A"]) == pytest.approx((1 - scores) ** 2, rel=0.2)
    state = numbers(trainer)
    assert oracle.shares(state["L1"], state["TV"], state["A"], state["alpha"], state["beta"]) == pytest.approx((0.84, 0.14, 0.02), abs=1e-4)


def test_shares_in_a_real_training(watched):
    state = watched[1][-1][2]
    assert 0.1 < state["A"] < 1
    assert oracle.shares(state["L1"], state["TV"], state["A"], state["alpha"], state["beta"]) == pytest.approx((0.84, 0.14, 0.02), abs=0.01)
    for _, logs, _, _ in watched[1][14:]:
        assert sum(logs[f"share_{name}"] for name in ("L1", "TV", "A")) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("given", [{"alpha": 0.3}, {"beta": 2.0}, {"alpha": 0.3, "beta": 0.0}])
def test_weights_given_by_hand_are_kept(given):
    config = replace(QUICK, warm_up=1, calibration=2, **given)
    trainer, batch = SEMGAN(config), noise_batch(config)
    for number in (1, 2, 3, 4):
        logs = trainer.train_step(batch, trainer.kind(number))
        found = numbers(trainer)
        assert all(found[name] == pytest.approx(value) for name, value in given.items())
    assert float(logs["loss"]) == pytest.approx(float(logs["L1"] + found["alpha"] * logs["TV"] + found["beta"] * logs["A"]), rel=1e-5)
    both = replace(config, calibration=0, alpha=0.1, beta=0.2)
    assert [SEMGAN.kind(trainer_like(both), step) for step in (1, 2, 4)] == ["warm-up", "training", "training+D"]
    with pytest.raises(ValueError, match="alpha and beta must be given where calibration is 0"):
        replace(config, calibration=0, alpha=0.1, beta=None)


def test_steps_are_adam_on_the_written_losses():
    """Three steps of both networks, weights and moments, against gradients of eq. 1 and 4 spelled out with TensorFlow and Adam from its equations."""
    config = replace(QUICK, alpha=0.3, beta=0.7)
    trainer = SEMGAN(config)
    generator, judge = trainer.networks["final"], trainer.networks["discriminator"]
    moments = {network: [(0.0, 0.0)] * len(network.weights) for network in (generator, judge)}

    def expected(network, loss, rate, t):
        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, [v.value for v in network.trainable_variables])
        found = [oracle.adam(w, g, *mv, t, rate, eps=1e-8) for w, g, mv in zip(network.get_weights(), gradients, moments[network], strict=True)]
        moments[network] = [(m, v) for _, m, v in found]
        return [w for w, _, _ in found]

    def check(network, weights, solver, rate):
        for new, w in zip(network.get_weights(), weights, strict=True):
            np.testing.assert_allclose(new, w, atol=0.01 * rate)
        ours = [(m.numpy(), v.numpy()) for m, v in zip(solver._momentums, solver._velocities, strict=True)]
        for (m, v), (m_ours, v_ours) in zip(moments[network], ours, strict=True):
            np.testing.assert_allclose(m_ours, m, rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(v_ours, v, rtol=1e-3, atol=1e-9)

    twin = build_generator(config)
    for t in (1, 2, 3):
        low, high, low_d, high_d = batch = noise_batch(config, t)

        def eq_1(low=low, high=high):
            g = generator(low)
            tv = tf.reduce_mean(tf.image.total_variation(g)) / config.patch**2
            return tf.reduce_mean(tf.abs(g - high)) + 0.3 * tv + 0.7 * tf.reduce_mean(tf.square(1 - judge(g)))

        def eq_4(low_d=low_d, high_d=high_d):
            return tf.reduce_mean(judge(twin(low_d)) ** 2) + tf.reduce_mean((1 - judge(high_d)) ** 2)

        updated = expected(generator, eq_1, config.learning_rate, t)
        twin.set_weights(updated)  # the discriminator sees its own batch through the generator as just updated
        judged = expected(judge, eq_4, config.discriminator_rate, t)
        trainer.train_step(batch, "training+D")
        check(generator, updated, trainer.solvers["adam"], config.learning_rate)
        check(judge, judged, trainer.solvers["adam_discriminator"], config.discriminator_rate)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_steps_are_finite(precision):
    config = replace(QUICK, precision=precision, patch=32, warm_up=1, calibration=3)
    trainer = SEMGAN(config)
    for number in range(1, 6):
        logs = trainer.train_step(noise_batch(config, number), trainer.kind(number))
        assert all(np.isfinite(float(value)) for value in logs.values())
    assert trainer.kind(4) == "last calibration+D"
    assert {isinstance(solver, keras.optimizers.LossScaleOptimizer) for solver in trainer.solvers.values()} == {precision == "mixed_float16"}
    for network, layer in zip(trainer.networks.values(), ("centre", "block1_conv1"), strict=True):
        assert network.get_layer(layer).compute_dtype == precision.removeprefix("mixed_")
        assert all(v.dtype == "float32" and np.isfinite(v.numpy()).all() for v in network.variables) and network.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"  # the policy did not leak
    state = numbers(trainer)
    assert oracle.shares(state["L1"], state["TV"], state["A"], state["alpha"], state["beta"]) == pytest.approx((0.84, 0.14, 0.02), abs=0.01)


# --- Learning ---


def test_wide_networks_repeat_bit_for_bit():
    config = replace(Config.small(), patch=32, batch=2)
    ends = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        trainer = SEMGAN(replace(config, alpha=0.1, beta=1.0))
        step = tf.function(trainer.train_step)
        for seed in range(2):
            step(noise_batch(config, seed), "training+D")
        ends.append([w for network in trainer.networks.values() for w in network.get_weights()])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)


def test_overfits_four_patches():
    """L1 on four fixed patches falls below that of bicubic enlargement within 300 steps at base 8: still in the paper's warm-up."""
    config, rng = replace(Config.tiny(), warm_up=Config.paper().warm_up), np.random.default_rng(0)
    rows, columns = np.mgrid[0:32, 0:32]
    fields, bicubic = [], []
    for _ in range(4):
        specimen = np.full((32, 32), 0.3, np.float32)  # particles with sharp rims on a darker film
        for row, column, radius in rng.uniform((0, 0, 3), (32, 32, 8), (5, 3)):
            distance = np.hypot(rows - row, columns - column) - radius
            specimen = np.maximum(specimen, np.clip(0.5 - distance, 0, 1) * (0.7 + 0.3 * np.exp(-(distance**2) / 8))).astype(np.float32)
        scan = cv2.resize(specimen, (16, 16), interpolation=cv2.INTER_LINEAR) + rng.normal(0, 0.02, (16, 16))
        scan = np.round(255 * np.clip(scan, 0, 1)).astype(np.uint8)
        fields.append(as_field(scan, specimen))
        bicubic.append(cv2.resize(scan / np.float32(255), (32, 32), interpolation=cv2.INTER_CUBIC))
    low, high = (np.stack(images)[..., None] for images in zip(*fields, strict=True))
    limit = oracle.l1(np.stack(bicubic)[..., None], high)
    trainer, values = SEMGAN(config), []
    step = tf.function(trainer.train_step)
    for number in range(1, 301):
        values.append(float(step((low, high, low, high), trainer.kind(number))["L1"]))
        if max(values[-5:]) < 0.9 * limit:
            break
    assert max(values[-5:]) < 0.9 * limit < values[0]
