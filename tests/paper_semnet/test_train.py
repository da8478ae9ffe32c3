"""SEMNet's training: schedule, resume, precision, and that it learns."""

import random
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.training import halving
from paper_semnet import Config
from paper_semnet.config import Degradation
from paper_semnet.data import training_pairs
from paper_semnet.train import SEMNet, train_semnet
from tests.helpers import check_runs_equal, check_survives_kills, final_weights, read_metrics
from tests.paper_semnet import oracle

QUICK = replace(Config.tiny(), steps=30, specimens=4, lq_patch=16, hq_crop=64, batch=2, checkpoint_every=10, validate_every=15)
FLAGS = ["--preset", "tiny", "--steps", "30", "--specimens", "4", "--lq-patch", "16", "--hq-crop", "64", "--batch", "2", "--checkpoint-every", "10"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    train_semnet(QUICK, folder)
    return folder


@pytest.mark.parametrize("update", [1, 199_999, 200_000, 200_001, 399_999, 400_000, 544_000])
def test_rate_of_each_update(update):
    config = Config.paper()
    schedule = halving(config.learning_rate, config.halve_at)
    assert float(schedule(update - 1)) == pytest.approx(oracle.learning_rate(update), rel=1e-6)


def test_optimizer_is_the_papers():
    adam = SEMNet(replace(Config.tiny(), learning_rate=1e-4)).solvers["adam"]
    assert (adam.beta_1, adam.beta_2, adam.epsilon) == (0.9, 0.999, 1e-8)


def test_presets_keep_losses_and_degradation():
    paper, small = Config.paper(), Config.small()
    for name in ("l1_weight", "histogram_weight", "tv_weight", "histogram_kind", "histogram_bins", "histogram_tau", "degradation", "ema_decay", "specimens"):
        assert getattr(paper, name) == getattr(small, name)
    assert (paper.steps, paper.batch) == (544_000, 4)


def test_run_folder(reference):
    rows = read_metrics(reference)
    assert [int(r["step"]) for r in rows] == [15, 30]
    last = rows[-1]
    for name, weight in (("L1", 1.0), ("L_hist", 0.1), ("L_TV", 0.01)):
        assert float(last[f"{name}*w"]) == pytest.approx(weight * float(last[name]), rel=1e-4)
    assert float(last["loss"]) == pytest.approx(sum(float(last[f"{name}*w"]) for name in ("L1", "L_hist", "L_TV")), rel=1e-4)
    assert {"data_wait", "seconds", "val_psnr", "val_ssim", "val_psnr_classical", "val_ssim_classical"} <= set(last)
    for part in ("config.json", "final.weights.h5", "raw.weights.h5", "previews/0000030.png", "checkpoints/ckpt-30/state.index"):
        assert (reference / part).is_file()


def test_resumed_run_is_bit_identical(reference, tmp_path):
    train_semnet(replace(QUICK, steps=13), tmp_path / "run")
    train_semnet(QUICK, tmp_path / "run", resume=True)
    check_runs_equal(reference, tmp_path / "run")
    shown = [{k: v for k, v in row.items() if k.startswith("val")} for row in (read_metrics(reference)[-1], read_metrics(tmp_path / "run")[-1])]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_wide_networks_repeat_bit_for_bit(precision):
    config = replace(Config.small(), precision=precision, blocks=1)
    rng = np.random.default_rng(0)
    low = rng.random((4, 64, 64, 1), np.float32)
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        trainer = SEMNet(config)
        step = tf.function(trainer.train_step)
        for _ in range(6):
            step((low, np.kron(low, np.ones((1, 2, 2, 1), np.float32))))
        weights.append(trainer.networks["raw"].get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_killed_run_is_bit_identical(reference, tmp_path):
    """Three kills: before the first checkpoint, between two and after the second, each a random moment after a random step."""
    check_survives_kills("semnet", FLAGS, reference, tmp_path / "run", [random.Random(a).randrange(a, a + 9) for a in (1, 11, 18)])


@pytest.mark.parametrize("change", [{"seed": 1}, {"precision": "mixed_bfloat16"}, {"batch": 4}, {"degradation": Degradation(passes=1)}])
def test_a_changed_run_is_refused(reference, change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}: .* -> .*resume with the same flags") as refusal:
        train_semnet(replace(QUICK, steps=40, **change), reference, resume=True)
    assert len(str(refusal.value).splitlines()) == 1


def test_average_follows_its_equation():
    trainer = SEMNet(replace(QUICK, ema_decay=0.9))
    expected = [w.astype(np.float64) for w in trainer.networks["raw"].get_weights()]
    batch = tuple(np.stack(a) for a in zip(*(training_pairs(QUICK)(i) for i in range(2)), strict=True))
    for _ in range(3):
        trainer.train_step(batch)
        expected = [0.9 * e + 0.1 * w for e, w in zip(expected, trainer.networks["raw"].get_weights(), strict=True)]
    for average, e in zip(trainer.networks["final"].get_weights(), expected, strict=True):
        np.testing.assert_allclose(average, e, atol=1e-6)


def test_one_step_is_adam_on_the_weighted_losses():
    """The update of the loop equals Adam written from its equations, on the gradient of L1 + 0.1 L_hist + 0.01 L_TV."""
    from paper_semnet.losses import histogram, l1, total_variation

    trainer = SEMNet(QUICK)
    network = trainer.networks["raw"]
    low, high = (np.stack(a) for a in zip(*(training_pairs(QUICK)(i) for i in range(2)), strict=True))
    before = network.get_weights()
    with tf.GradientTape() as tape:
        y = network(low, training=True)
        loss = l1(high, y) + 0.1 * histogram(high, y) + 0.01 * total_variation(y)
    gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
    trainer.train_step((low, high))
    for old, gradient, new in zip(before, gradients, network.get_weights(), strict=True):
        expected, _, _ = oracle.adam(old, np.asarray(gradient), 0, 0, 1, QUICK.learning_rate)
        np.testing.assert_allclose(new, expected, atol=1e-6)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_steps_are_finite(precision, tmp_path):
    trainer = train_semnet(replace(QUICK, precision=precision, steps=3), tmp_path / "run")
    assert isinstance(trainer.solvers["adam"], keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
    assert all(np.isfinite(w).all() for w in final_weights(tmp_path / "run"))
    network = trainer.networks["raw"]
    assert network.get_layer("conv_body").compute_dtype == precision.removeprefix("mixed_")
    assert all(v.dtype == "float32" for v in network.trainable_variables)
    assert network.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"  # the policy did not leak


def test_overfits_four_pairs():
    """The total loss on four fixed, degraded pairs falls more than tenfold in 500 steps."""
    config = Config.tiny()
    trainer = SEMNet(config)
    pairs = training_pairs(config)
    batch = tuple(np.stack(arrays) for arrays in zip(*(pairs(i) for i in range(4)), strict=True))
    step = tf.function(trainer.train_step)
    losses = [float(step(batch)["loss"]) for _ in range(500)]
    assert losses[-1] < losses[0] / 10
