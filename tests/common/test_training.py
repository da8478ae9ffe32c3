"""The loop itself, on a trainer of one weight: folders, refusals, numbers that are not finite, interruptions."""

import json
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.data import batches
from common.training import NonFinite, Run, Trainer, minimise, train, weighted_sum
from tests.helpers import newest_step, read_metrics


@dataclass(frozen=True)
class Line:
    steps: int = 12
    batch: int = 2
    rate: float = 0.1
    seed: int = 0
    checkpoint_every: int = 4
    validate_every: int = 6


class Fit(Trainer):
    """y = w x with w -> 3."""

    def __init__(self, config):
        network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        solver = keras.optimizers.SGD(config.rate)
        solver.build(network.trainable_variables)
        super().__init__({"final": network}, {"sgd": solver})

    def train_step(self, batch):
        x, y = batch
        return minimise(self.solvers["sgd"], self.networks["final"], lambda: weighted_sum({"L2": (keras.ops.mean((self.networks["final"](x) - y) ** 2), 1.0)}))


def run(config, out, poison=None, **more):
    def example(i):
        x = np.full(1, 0.5 + i % 3, np.float32)
        return x, 3 * x if i != poison else np.full(1, np.nan, np.float32)

    return train("line", config, lambda: Fit(config), lambda step: batches(example, [(1,), (1,)], config.batch, step * config.batch), out, log_every=3, **more)


def test_learns_and_leaves_a_folder(tmp_path):
    trainer = run(Line(steps=60), tmp_path / "run", validate=lambda t: {"val_w": float(t.networks["final"].get_weights()[0][0, 0])})
    assert trainer.networks["final"].get_weights()[0][0, 0] == pytest.approx(3, abs=1e-3)
    rows = read_metrics(tmp_path / "run")
    assert [int(r["step"]) for r in rows] == list(range(3, 61, 3))
    assert float(rows[-1]["val_w"]) == pytest.approx(3, abs=1e-3)
    assert [bool(r["val_w"]) for r in rows[:4]] == [False, True, False, True]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["rate"] == 0.1


def test_a_number_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(NonFinite, match="L2.* step 10.*ckpt-8"):
        run(Line(), tmp_path / "run", poison=19)
    assert newest_step(tmp_path / "run") == 8
    weights = tf.train.load_checkpoint(str(tmp_path / "run" / "checkpoints" / "ckpt-8"))
    values = [weights.get_tensor(n) for n in weights.get_variable_to_shape_map() if n.endswith("VARIABLE_VALUE") and "save_counter" not in n]
    assert all(np.isfinite(v).all() for v in values)


def test_exploding_weights_are_not_saved(tmp_path):
    with pytest.raises(NonFinite):
        run(Line(rate=1e30), tmp_path / "run")
    assert newest_step(tmp_path / "run") == 0


def test_folder_in_use_is_refused(tmp_path):
    run(Line(), tmp_path / "run")
    with pytest.raises(FileExistsError, match="--resume"):
        run(Line(), tmp_path / "run")


def test_changed_configuration_is_refused_but_more_steps_are_not(tmp_path):
    run(Line(), tmp_path / "run")
    with pytest.raises(ValueError, match="rate: 0.1 -> 0.2"):
        run(Line(rate=0.2), tmp_path / "run", resume=True)
    run(Line(steps=20), tmp_path / "run", resume=True)
    assert newest_step(tmp_path / "run") == 20
    with pytest.raises(ValueError, match="--steps 20 or more"):
        run(Line(steps=15), tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="data: None -> "):
        run(Line(steps=20), tmp_path / "run", resume=True, data={"sem": "elsewhere"})


def test_resume_without_a_checkpoint_starts_at_zero(tmp_path, capsys):
    run(Line(), tmp_path / "run", resume=True)
    assert "starting at step 0" in capsys.readouterr().out


def test_finished_run_resumes_to_nothing(tmp_path):
    first = run(Line(), tmp_path / "run").networks["final"].get_weights()
    again = run(Line(), tmp_path / "run", resume=True).networks["final"].get_weights()
    np.testing.assert_array_equal(first, again)


def test_interruption_saves_and_resumes_identically(tmp_path):
    def interrupt(trainer):
        if interrupt.armed:
            interrupt.armed = False
            raise KeyboardInterrupt
        return {}

    interrupt.armed = True
    with pytest.raises(KeyboardInterrupt):
        run(Line(), tmp_path / "run", validate=interrupt)
    assert newest_step(tmp_path / "run") == 6
    resumed = run(Line(), tmp_path / "run", validate=interrupt, resume=True)
    whole = run(Line(), tmp_path / "other")
    np.testing.assert_array_equal(resumed.networks["final"].get_weights(), whole.networks["final"].get_weights())


def test_batches_are_numbered_examples():
    def first(**more):
        return next(iter(batches(lambda i: (np.full(1, i, np.float32),), [(1,)], 3, **more)))[0].numpy().ravel().tolist()

    assert first() == [0, 1, 2]
    assert first(start=6) == [6, 7, 8]


def test_folder_of_another_paper_is_refused(tmp_path):
    Run.open(tmp_path / "run", "line", Line(), resume=False).describe()
    with pytest.raises(ValueError, match="paper: line -> other"):
        Run.open(tmp_path / "run", "other", Line(), resume=True)
