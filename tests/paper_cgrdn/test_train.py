"""CGRDN's training: what each kind of step does, runs that are killed and resumed in both stages, and that it learns."""

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.__main__ import main
from paper_cgrdn import Config, losses
from paper_cgrdn.train import CGRDN, train_cgrdn
from tests.helpers import check_runs_equal, check_survives_kills, checkpointed, read_metrics
from tests.paper_cgrdn import oracle

FLAGS = "--preset tiny --side 32 --modalities lrtem hrsem --specimens 4 --features 4 --growth 3 --dense-layers 2 --epoch 16 --pixel-steps 6 --steps 10".split()
FLAGS += "--batch 2 --ema-decay 0.5 --checkpoint-every 2 --validate-every 10 --validation-images 2".split()
QUICK = replace(Config.tiny(), side=32, modalities=("lrtem", "hrsem"), specimens=4, features=4, growth=3, dense_layers=2, epoch=16, pixel_steps=6, steps=10,
                batch=2, ema_decay=0.5, checkpoint_every=2, validate_every=10, validation_images=2)  # fmt: skip


def batch_of(seed=0, count=2, side=32):
    rng = np.random.default_rng(seed)
    target = rng.normal(0, 0.8, (count, side, side, 1)).astype(np.float32)
    return tf.constant(target + rng.normal(0, 0.6, target.shape).astype(np.float32)), tf.constant(target)


def built(config=QUICK):
    keras.utils.set_random_seed(config.seed)
    return CGRDN(config)


def stepped(trainer, batch, kind):
    return {name: float(value) for name, value in trainer.train_step(batch, kind).items()}


# --- Steps ---


def test_kinds_of_steps():
    kinds = [CGRDN.kind(SimpleNamespace(config=Config.paper()), step) for step in (1, 60_000, 60_001, 80_000)]
    assert kinds == ["pixel", "pixel", "adversarial", "adversarial"]


@pytest.mark.parametrize("kind", ["pixel", "adversarial"])
def test_losses_of_a_step(kind):
    """Everything that is logged, from the outputs before the step and the equations."""
    trainer, (distorted, target) = built(replace(QUICK, instance_noise=0.0)), batch_of(1)
    raw, judge = trainer.networks["raw"], trainer.networks["discriminator"]
    output = np.asarray(raw(distorted))[..., 0]
    y = np.asarray(target)[..., 0]
    w = oracle.adaptive_weight(y)
    weights = {"L1": (5, "l1"), "L2": (4, "l2"), "MLWT": (0.2, "mlwt"), "Fourier": (0.4, "fourier"), "mean": (8, "mean_constraint"),
               "std": (4, "std_constraint"), "gradient_x": (0.8, "gradient_x"), "gradient_y": (0.8, "gradient_y")}  # fmt: skip
    expected = {name: getattr(oracle, function)(w * y, w * output) for name, (_, function) in weights.items()}
    total = sum(weight * expected[name] for name, (weight, _) in weights.items())
    if kind == "adversarial":
        both = [tf.concat(pair, 0) for pair in ((distorted, distorted), (target, output[..., None]))]
        before = judge.get_weights()
        scores = np.split(np.asarray(judge(both, training=True))[..., 0], 2)
        expected["L_adv"] = oracle.generator_loss(*scores)
        judge.set_weights(before)
        total += 5e-4 * expected["L_adv"]
        expected |= {"L_D": oracle.discriminator_loss(*scores), "D_real": scores[0].mean(), "D_fake": scores[1].mean()}
    logs = stepped(trainer, (distorted, target), kind)
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert logs["loss"] == pytest.approx(total + logs["decay"], rel=1e-4) and 0 < logs["decay"] < 1e-4
    assert logs["error"] == pytest.approx(oracle.l1(y, output), rel=1e-4)
    assert ("L_D" in logs) == (kind == "adversarial")


def test_solvers_of_the_paper():
    """Epsilon 1e-5; beta_1 of 0.9, of the discriminator 0.5, risen from 0; the generator's gradient is clipped in the second stage only (C1; rates chosen)."""
    config = replace(QUICK, **{name: getattr(Config.paper(), name) for name in ("learning_rate", "adversarial_rate", "discriminator_rate", "epoch")})
    solvers = built(config).solvers
    found = {name: (float(s.schedule(512)), float(s._learning_rate(512)), s.epsilon, s.global_clipnorm) for name, s in solvers.items()}
    expected = {"adam": (0.9, 2e-4, 1e-5, None), "adam_adversarial": (0.9, 2e-5, 1e-5, 1.0), "adam_discriminator": (0.5, 1e-4, 1e-5, None)}
    for name, numbers in expected.items():
        assert found[name][:3] == pytest.approx(numbers[:3], rel=1e-5) and found[name][3] == numbers[3], name
    assert all(float(s.schedule(0)) == 0 and s.beta_2 == 0.999 for s in solvers.values())


@pytest.mark.parametrize("kind", ["pixel", "adversarial"])
def test_what_a_step_changes(kind):
    """The generator in both kinds, the discriminator in the adversarial one; the product is their average."""
    trainer = built()
    before = {name: network.get_weights() for name, network in trainer.networks.items()}
    trainer.train_step(batch_of(2), kind)
    changed = {name: any((a != b).any() for a, b in zip(before[name], network.get_weights(), strict=True)) for name, network in trainer.networks.items()}
    assert changed == {"final": True, "raw": True, "discriminator": kind == "adversarial"}
    for average, old, new in zip(*(trainer.networks[n].get_weights() if n else before["final"] for n in ("final", None, "raw")), strict=True):
        np.testing.assert_allclose(average, 0.5 * old + 0.5 * new, atol=1e-7)
    assert int(trainer.state["steps"]) == 1


def test_instance_noise():
    """In half of all batches; of its own for target and output, and not larger than a tenth of the target's deviation."""
    trainer, (_, target) = built(), batch_of(3)
    noisy, shares = 0, []
    for step in range(200):
        trainer.state["steps"].assign(step)
        real, fake = trainer.noisy(target, target)
        if np.abs(real - target).max() > 0:
            noisy += 1
            assert not np.array_equal(real, fake)
            shares += list(np.std(real - target, (1, 2, 3)) / np.std(target, (1, 2, 3)))
    assert 75 < noisy < 125 and 0 < min(shares) < 0.02 and 0.08 < max(shares) < 0.11
    again = trainer.noisy(target, target)
    for one, other in zip((real, fake), again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("changes", [{"precision": "mixed_bfloat16"}, {"precision": "mixed_float16"}, {"network": "grdn"}, {"loss_weights": "C"}])
def test_other_ways_are_finite(changes):
    trainer = built(replace(QUICK, **changes))
    for number, kind in enumerate(("pixel", "adversarial")):
        assert all(np.isfinite(value) for value in stepped(trainer, batch_of(number), kind).values())
    for network in trainer.networks.values():
        assert all(v.dtype == "float32" and np.isfinite(v.numpy()).all() for v in network.variables)


def test_an_identity_pair_is_met_with_finite_gradients():
    """Output and target can be equal to the last bit: no loss may divide by the error."""
    trainer = built(replace(QUICK, last_share=0.0))
    _, target = batch_of(4)
    logs = stepped(trainer, (target, target), "pixel")
    assert all(np.isfinite(value) for value in logs.values()) and logs["L1"] == 0
    assert all(np.isfinite(w).all() for w in trainer.networks["raw"].get_weights())


def test_discriminator_learns_to_tell():
    trainer, batch = built(replace(QUICK, discriminator_rate=1e-2, adversarial_rate=1e-12)), batch_of(5)
    trained = tf.function(trainer.train_step)
    seen = [float(trained(batch, "adversarial")["L_D"]) for _ in range(40)]
    assert np.mean(seen[-5:]) < 0.8 * seen[0]
    assert float(losses.discriminator(tf.zeros((1, 2, 2, 1)), tf.zeros((1, 2, 2, 1)))) == pytest.approx(2 * np.log(2), rel=1e-5)


# --- Runs ---


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    train_cgrdn(QUICK, folder)
    return folder


def test_run_folder(reference):
    (row,) = read_metrics(reference)
    assert int(row["step"]) == 10 and all(np.isfinite(float(value)) for value in row.values())
    assert {"L1", "MLWT*w", "L_adv", "L_D", "error", "val_gain_db", "val_gain_db_gaussian"} <= row.keys()
    assert all((reference / f"{name}.weights.h5").is_file() for name in ("final", "raw", "discriminator"))
    iterations = {
        name.split("/")[0]: int(value) for name, value in checkpointed(reference, 10).items() if value.dtype == np.int64 and name.startswith("solver")
    }
    assert iterations == {"solver_adam": 6, "solver_adam_adversarial": 4, "solver_adam_discriminator": 4}


@pytest.mark.parametrize("step", [4, 8])
def test_resumed_run_is_bit_identical(reference, tmp_path, step):
    """In either stage."""
    run = tmp_path / "run"
    train_cgrdn(replace(QUICK, steps=step), run)
    train_cgrdn(QUICK, run, resume=True)
    check_runs_equal(reference, run)


def test_killed_run_is_bit_identical(reference, tmp_path):
    check_survives_kills("cgrdn", FLAGS, reference, tmp_path / "run", [3, 8])


def test_learns(tmp_path):
    """Of one modality and few specimens: the error falls, and held-out images gain."""
    config = replace(Config.tiny(), modalities=("lrtem",), specimens=12, steps=250, pixel_steps=250, validate_every=250, checkpoint_every=250, epoch=1000)
    train_cgrdn(config, tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert float(rows[-1]["error"]) < 0.8 * float(rows[0]["error"]) and float(rows[-1]["val_gain_db"]) > 3


def test_the_adversarial_stage_is_for_one_device(tmp_path):
    with pytest.raises(ValueError, match="means over the whole batch"):
        train_cgrdn(QUICK, tmp_path / "run", strategy=SimpleNamespace(num_replicas_in_sync=2))
    assert not (tmp_path / "run").exists()


def test_bad_input_is_one_line(tmp_path, capsys):
    for flags, message in (
        (["--side", "34"], "multiple of 4"),
        (["--modalities", "hrtem", "--network", "mr_unet"], "256"),
        (["--data", str(tmp_path / "none")], "none"),
    ):
        assert main(["train", "cgrdn", *FLAGS, *flags, "--out", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and message in said[0] and not (tmp_path / "run").exists()
