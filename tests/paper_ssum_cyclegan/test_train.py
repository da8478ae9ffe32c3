"""The SSUM CycleGAN's training: what one step does, the pool, the rate, runs that are killed and resumed, and that it learns."""

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.__main__ import main
from common.layers import dense_warp
from paper_ssum_cyclegan import Config, losses
from paper_ssum_cyclegan.train import SSUMCycleGAN, falling_rate, train_ssum_cyclegan, validation
from tests.helpers import check_runs_equal, check_survives_kills, read_metrics
from tests.paper_ssum_cyclegan import oracle

FLAGS = "--preset tiny --side 32 --pairs 2 --width 4 --trunk 4 --blocks 2 --shift 3 --pool 4 --ema-decay 0.5 --steps 10 --constant-steps 4".split()
FLAGS += "--falling-steps 8 --batch 2 --checkpoint-every 2 --validate-every 10 --validation-pairs 1".split()
QUICK = replace(Config.tiny(), side=32, pairs=2, width=4, trunk=4, blocks=2, shift=3, pool=4, ema_decay=0.5, steps=10, constant_steps=4, falling_steps=8,
                batch=2, checkpoint_every=2, validate_every=10, validation_pairs=1)  # fmt: skip
EVERYTHING = {"adversarial_weight": 2.0, "identity_weight": 0.5, "shift_l1_weight": 2.0, "lowres_l1_weight": 3.0, "registration_weight": 20.0}


def batch_of(seed=0, count=2, side=32):
    rng = np.random.default_rng(seed)
    return tuple(tf.constant(rng.uniform(-1, 1, (count, side, side, 1)).astype(np.float32)) for _ in range(2))


def built(config=QUICK):
    keras.utils.set_random_seed(config.seed)
    return SSUMCycleGAN(config)


def stepped(trainer, batch):
    return {name: float(value) for name, value in trainer.train_step(batch, "").items()}


# --- One step ---


@pytest.mark.parametrize("kind", ["log", "least_squares"])
def test_losses_of_a_step(kind):
    """Everything that is logged, from the outputs before the step and the equations."""
    trainer, (x, y) = built(replace(QUICK, dropout=0.0, norm="instance", adversarial=kind, **EVERYTHING)), batch_of(1)
    net = trainer.networks
    judge = {name: net[name].get_weights() for name in ("D_X", "D_Y")}
    fake_y, fake_x = net["G"](x).numpy(), net["F"](y).numpy()
    flow = net["R"]([tf.constant(fake_y), y]).numpy()
    adversarial = oracle.generator_log_loss if kind == "log" else oracle.generator_least_squares
    expected = {
        "G_adv": adversarial(net["D_Y"](fake_y).numpy()),
        "F_adv": adversarial(net["D_X"](fake_x).numpy()),
        "cycle_x": np.abs(net["F"](fake_y) - x).mean(),
        "cycle_y": np.abs(net["G"](fake_x) - y).mean(),
        "identity": np.abs(net["G"](y) - y).mean() + np.abs(net["F"](x) - x).mean(),
        "shift_L1": np.mean(oracle.shift_l1(fake_y, y.numpy(), 3, interior=True)),
        "lowres_L1": oracle.lowres_l1(fake_y, y.numpy()),
        "registered_L1": np.abs(dense_warp(fake_y, flow) - y).mean(),
        "roughness": oracle.flow_roughness(flow),
    }
    weights = {"G_adv": 2, "F_adv": 2, "cycle_x": 10, "cycle_y": 10, "identity": 5, "shift_L1": 2, "lowres_L1": 3, "registered_L1": 20, "roughness": 10}
    judged = oracle.discriminator_log_loss if kind == "log" else oracle.discriminator_least_squares
    assert all(np.array_equal(a, b) for name, before in judge.items() for a, b in zip(before, net[name].get_weights(), strict=True))
    both = {"D_Y": judged(net["D_Y"](y).numpy(), net["D_Y"](fake_y).numpy()), "D_X": judged(net["D_X"](x).numpy(), net["D_X"](fake_x).numpy())}
    logs = stepped(trainer, (x, y))
    for name, value in (expected | both).items():
        np.testing.assert_allclose(logs[name], value, rtol=2e-3, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(logs["loss"], sum(weights.get(name, 1) * value for name, value in expected.items()), rtol=2e-3)


def test_a_step_of_pix2pix():
    """Discriminators see what was converted beside what it became, this step's alone, and L1 weighs 100."""
    config = replace(QUICK, dropout=0.0, norm="instance", conditional=True, pool=0, cycle_weight=0.0, shift_l1_weight=100.0, shift=0)
    trainer, (x, y) = built(config), batch_of(1)
    net = trainer.networks
    fake_y, fake_x = net["G"](x).numpy(), net["F"](y).numpy()
    beside = lambda a, b: np.concatenate([a, b], axis=-1)  # noqa: E731
    D_Y, D_X = (lambda image, name=name: net[name](image).numpy() for name in ("D_Y", "D_X"))
    expected = {
        "G_adv": oracle.generator_log_loss(D_Y(beside(x, fake_y))),
        "F_adv": oracle.generator_log_loss(D_X(beside(y, fake_x))),
        "shift_L1": np.abs(fake_y - y).mean(),
        "D_Y": oracle.discriminator_log_loss(D_Y(beside(x, y)), D_Y(beside(x, fake_y))),
        "D_X": oracle.discriminator_log_loss(D_X(beside(y, x)), D_X(beside(y, fake_x))),
    }
    logs = stepped(trainer, (x, y))
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=2e-3, err_msg=name)
    np.testing.assert_allclose(logs["loss"], expected["G_adv"] + expected["F_adv"] + 100 * expected["shift_L1"], rtol=2e-3)
    assert not any(name.startswith("pool") for name in trainer.state)
    kept = built(replace(config, pool=4))
    stepped(kept, (x, y))
    np.testing.assert_allclose(kept.state["pool_Y"][:2], beside(x, fake_y), atol=1e-5)


def test_a_step_moves_every_network_and_the_average():
    trainer = built(replace(QUICK, **EVERYTHING))
    before = {name: network.get_weights() for name, network in trainer.networks.items()}
    assert all(np.array_equal(a, b) for a, b in zip(before["final"], before["G"], strict=True))
    stepped(trainer, batch_of())
    for name, network in trainer.networks.items():
        moved = [not np.array_equal(a, b) for a, b in zip(before[name], network.get_weights(), strict=True)]
        assert all(moved), name
    for a, b, start in zip(trainer.networks["final"].get_weights(), trainer.networks["G"].get_weights(), before["G"], strict=True):
        np.testing.assert_allclose(a, 0.5 * (start + b), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("which", ["cycle_x", "cycle_y"])
def test_either_cycle_teaches_both_generators(monkeypatch, which):
    """A step of gradient descent on one cycle alone moves all weights as an independent gradient says."""
    trainer, (x, y) = built(replace(QUICK, dropout=0.0, norm="instance", cycle_weight=1.0)), batch_of(3)
    monkeypatch.setattr(losses, "adversarial", lambda on_fake, kind: 0.0 * tf.reduce_mean(on_fake))
    monkeypatch.setattr(losses, "l1", lambda a, b: tf.reduce_mean(tf.abs(a - b)) * float(b is (x if which == "cycle_x" else y)))
    player = trainer.players["adam"]
    trainer.solvers["adam"] = keras.optimizers.SGD(1.0)
    trainer.solvers["adam"].build(player.trainable_variables)
    G, F = trainer.networks["G"], trainer.networks["F"]
    with tf.GradientTape() as tape:
        error = tf.reduce_mean(tf.abs(F(G(x)) - x)) if which == "cycle_x" else tf.reduce_mean(tf.abs(G(F(y)) - y))
    gradients = tape.gradient(error, player.trainable_variables)
    before = [v.numpy() for v in player.trainable_variables]
    trainer.train_step((x, y), "")
    for v, start, gradient in zip(player.trainable_variables, before, gradients, strict=True):
        np.testing.assert_allclose(start - v.numpy(), gradient, rtol=1e-3, atol=1e-6)
    assert all(max(np.abs(g).max() for g in tape_of) > 1e-4 for tape_of in (gradients[: len(G.trainable_variables)], gradients[len(G.trainable_variables) :]))


def test_statistics_of_a_generator_are_those_of_its_own_images():
    """Not of converted images, and with identity not of the other domain, whose brightness differs here."""
    trainer, (x, y) = built(replace(QUICK, identity_weight=0.5, dropout=0.0)), batch_of(4)
    y = y + 3.0
    G = trainer.networks["G"]
    inside = keras.Model(G.inputs, G.get_layer("first_conv").output)(x).numpy()
    before = G.get_layer("first_norm").moving_mean.numpy()
    trainer.train_step((x, y), "")
    np.testing.assert_allclose(G.get_layer("first_norm").moving_mean, 0.9 * before + 0.1 * inside.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)


# --- Pool and rate ---


def test_pool_of_former_outputs():
    trainer, shown = built(replace(QUICK, pool=50, side=32)), []
    for step in range(200):
        fakes = tf.ones((2, 32, 32, 1)) * tf.reshape(tf.constant([2.0 * step, 2.0 * step + 1]), (2, 1, 1, 1))
        shown += trainer.from_pool("Y", fakes)[:, 0, 0, 0].numpy().astype(int).tolist()
        trainer.state["steps"].assign_add(1)
    assert shown[:50] == list(range(50))
    swaps = oracle.pool_swaps(shown, 50)
    assert 0.4 < len(swaps) / 350 < 0.6
    assert not trainer.state["pool_X"].numpy().any()


def test_numbers_of_the_presets():
    """Each is written down a second time here: lambda, pool, rate and epochs are CycleGAN's, what is not are the text's or chosen."""
    both = {"pairs": 704, "side": 256, "discriminator_base": 64, "cycle_weight": 10, "adversarial_weight": 1, "pool": 50, "learning_rate": 2e-4, "beta_1": 0.5,
            "shift_l1_weight": 0, "lowres_l1_weight": 0, "registration_weight": 0, "ema_decay": 0, "paired": True, "literal_strides": False, "blocks": 9,
            "rotations": (0, 30, 45, 60, 90), "scales": (0.8, 1, 1.25), "rectifier": "leaky", "upsampling": "subpixel", "network": "ssum"}  # fmt: skip
    paper = {"width": 64, "trunk": 64, "norm": "batch", "dropout": 0.5, "long_skip": True, "adversarial": "log", "identity_weight": 0, "batch": 4,
             "steps": 35_200}  # fmt: skip
    reference = {"width": 64, "trunk": 256, "norm": "instance", "dropout": 0, "long_skip": False, "adversarial": "least_squares", "identity_weight": 0.5,
                 "batch": 1, "steps": 140_800}  # fmt: skip
    for config, numbers in ((Config.paper(), both | paper), (Config.reference(), both | reference)):
        assert {name: getattr(config, name) for name in numbers} == numbers
        assert config.steps * config.batch == 200 * 704 and config.constant_steps == config.falling_steps == config.steps // 2


def test_both_solvers_have_beta_1():
    solvers = built(replace(QUICK, beta_1=0.3)).solvers
    assert {name: (solver.beta_1, solver.beta_2) for name, solver in solvers.items()} == {"adam": (0.3, 0.999), "adam_discriminators": (0.3, 0.999)}


def test_rate_is_constant_then_falls():
    config = replace(Config.paper(), steps=35_200)
    rate = falling_rate(config)
    for epoch, expected in ((1, 2e-4), (100, 2e-4), (150, 1e-4), (200, 0.0)):
        assert float(rate(epoch * 176)) == pytest.approx(expected, abs=2e-6)
    found = [float(rate(step)) for step in range(0, 35_200, 500)]
    np.testing.assert_allclose(found, [oracle.decayed_step(step, 176, 2e-4, 100, 100) for step in range(0, 35_200, 500)], atol=2e-8)
    assert type(rate).from_config(rate.get_config())(30_000) == rate(30_000)
    for solver in built().solvers.values():  # constant for 4 updates, then 8 to 0
        for update, share in ((0, 1), (4, 1), (8, 0.5), (12, 0)):
            solver.iterations.assign(update)
            assert float(solver.learning_rate) == pytest.approx(share * QUICK.learning_rate, abs=1e-9)
    with pytest.raises(ValueError, match="learning rate is 0 after"):
        replace(QUICK, steps=13)


# --- Runs ---


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    run = tmp_path_factory.mktemp("ssum") / "run"
    train_ssum_cyclegan(QUICK, run)
    return run


def test_resumed_run_is_bit_identical(reference, tmp_path):
    train_ssum_cyclegan(replace(QUICK, steps=4), tmp_path / "run")
    train_ssum_cyclegan(QUICK, tmp_path / "run", resume=True)
    check_runs_equal(reference, tmp_path / "run")


def test_killed_run_is_bit_identical(reference, tmp_path):
    check_survives_kills("ssum_cyclegan", FLAGS, reference, tmp_path / "run", [3, 8])


def test_run_folder(reference):
    names = {path.name for path in reference.iterdir()}
    assert {f"{name}.weights.h5" for name in ("final", "G", "F", "D_Y", "D_X")} <= names
    row = read_metrics(reference)[-1]
    assert {"val_gain_db", "val_gain_db_aligned", "val_cycle_error", "G_adv", "F_adv", "cycle_x", "cycle_y", "D_Y", "D_X"} <= set(row)


def test_validation_measures_the_conversion_against_the_optical_image():
    rng = np.random.default_rng(0)
    optical, sem = (rng.random((64, 64)).astype(np.float32) for _ in range(2))

    def same(image, training):
        return image

    def knows(image, training):
        return tf.constant(2 * sem[None, ..., None] - 1)

    assert validation(same, same, [(optical, sem)]) == pytest.approx({"val_gain_db": 0, "val_gain_db_aligned": 0, "val_cycle_error": 0}, abs=1e-6)
    found = validation(knows, same, [(optical, sem)])
    assert found["val_gain_db"] > 30 and found["val_gain_db_aligned"] > 30
    assert found["val_cycle_error"] == pytest.approx(np.abs(sem - optical).mean(), rel=1e-4)
    assert validation(same, knows, [(optical, sem)])["val_cycle_error"] == pytest.approx(np.abs(sem - optical).mean(), rel=1e-4)


def test_learns_from_pairs(tmp_path):
    """With weak adversaries: at full weight so short a training ends elsewhere on a processor that rounds differently."""
    config = replace(Config.tiny(), dropout=0.0, adversarial_weight=0.1, shift_l1_weight=20.0, steps=300, constant_steps=300, learning_rate=1e-3,
                     checkpoint_every=300, validate_every=300, batch=2, seed=1)  # fmt: skip
    train_ssum_cyclegan(config, tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert float(rows[-1]["shift_L1"]) < 0.75 * float(rows[0]["shift_L1"]) and float(rows[-1]["cycle_x"]) < float(rows[0]["cycle_x"])


def test_one_device_and_the_command_line(tmp_path, capsys):
    with pytest.raises(ValueError, match="one pool"):
        train_ssum_cyclegan(QUICK, tmp_path / "run", strategy=SimpleNamespace(num_replicas_in_sync=1))
    assert main(["train", "ssum_cyclegan", "--preset", "tiny", "--side", "30", "--out", str(tmp_path / "run")]) == 2
    assert "multiple of 4" in capsys.readouterr().err
    assert main(["train", "ssum_cyclegan", "--preset", "tiny", "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()
