"""The loop itself, on a trainer of one weight: folders, refusals, numbers that are not finite, interruptions."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass

import keras
import numpy as np
import pytest

from common.checkpoints import UNREADABLE, read
from common.data import batches
from common.training import NonFinite, Run, Trainer, _better, minimise, train, weighted_sum
from tests.helpers import checkpointed, newest_step, read_metrics, report, start


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

    def train_step(self, batch, kind=""):
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
    assert all(np.isfinite(v).all() for v in checkpointed(tmp_path / "run", 8).values())


def test_exploding_weights_are_not_saved(tmp_path):
    with pytest.raises(NonFinite):
        run(Line(rate=1e30), tmp_path / "run")
    assert newest_step(tmp_path / "run") == 0


@pytest.mark.parametrize(("choose", "expected"), [(max, 8), (min, 12)])
def test_the_best_validation_is_kept(tmp_path, choose, expected):
    """Also by a run that is stopped after a validation and before the checkpoint that follows it, and goes on."""
    found = {4: 2.0, 8: 3.0, 12: 1.0, 16: 2.5}
    config, weights = Line(steps=16, validate_every=4, checkpoint_every=6), {}

    def validate(trainer):
        step = int(trainer.solvers["sgd"].iterations)
        weights[step] = trainer.networks["final"].get_weights()[0]
        if step == validate.stop:
            validate.stop = None
            raise NonFinite("stopped here")
        return {"val_score": found[step], "val_other": -step}

    for stop in (None, 16):
        validate.stop, folder = stop, tmp_path / str(stop)
        if stop:
            with pytest.raises(NonFinite):
                run(config, folder, validate=validate, best=("val_score", choose))
        run(config, folder, validate=validate, best=("val_score", choose), resume=bool(stop))
        best = Fit(config).networks["final"]
        best.load_weights(folder / "best.weights.h5")
        np.testing.assert_array_equal(best.get_weights()[0], weights[expected])
        assert read_metrics(folder)[-1]["val_score"] == "2.5"


def test_a_number_that_is_not_finite_is_no_best_one():
    rows = [{"val": "2"}, {"loss": "1"}, {"val": ""}]
    assert not any(_better(rows, {"val": value}, "val", choose) for value in ("nan", "inf", "-inf", "2") for choose in (min, max))
    assert _better(rows, {"val": "3"}, "val", max) and not _better(rows, {"val": "3"}, "val", min)
    assert _better([], {"val": "3"}, "val", max)


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


@dataclass(frozen=True)
class PreciseLine(Line):
    precision: str = "auto"


def test_automatic_precision_is_settled_when_a_run_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("common.training.resolve", lambda precision: precision.replace("auto", "float32"))
    run(PreciseLine(steps=4), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["precision"] == "float32"
    run(PreciseLine(steps=6), tmp_path / "run", resume=True)
    monkeypatch.setattr("common.training.resolve", lambda precision: precision.replace("auto", "mixed_bfloat16"))  # another machine
    with pytest.raises(ValueError, match="precision: float32 -> mixed_bfloat16"):
        run(PreciseLine(steps=8), tmp_path / "run", resume=True)
    run(PreciseLine(steps=8, precision="float32"), tmp_path / "run", resume=True)


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


def shorten(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path, byte):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "data shortened": lambda index, data: shorten(data, 0.7),
    "data empty": lambda index, data: shorten(data, 0),
    "data zeroed": lambda index, data: data.write_bytes(bytes(data.stat().st_size)),
    "data with one bit changed": lambda index, data: flip(data, 5),
    "data missing": lambda index, data: data.unlink(),
    "index shortened": lambda index, data: shorten(index, 0.7),
    "index empty": lambda index, data: shorten(index, 0),
    "index zeroed": lambda index, data: index.write_bytes(bytes(index.stat().st_size)),
    "index with one bit changed": lambda index, data: flip(index, 20),
    "index of noise": lambda index, data: index.write_bytes(np.random.default_rng(0).bytes(400)),
    "index missing": lambda index, data: index.unlink(),
    "both missing": lambda index, data: (index.unlink(), data.unlink()),
}


def damage(run, step, kind):
    folder = run / "checkpoints" / f"ckpt-{step}"
    DAMAGE[kind](folder / "state.index", folder / "state.data-00000-of-00001")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 12 steps that nothing disturbed, with a checkpoint of each fourth, and its weight."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, run(Line(), folder).networks["final"].get_weights()[0]


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_checkpoint_is_set_aside_and_the_one_before_goes_on(whole, tmp_path, kind):
    shutil.copytree(whole[0], tmp_path / "run")
    damage(tmp_path / "run", 12, kind)
    with pytest.warns(UserWarning, match=r"^[^\n]*ckpt-12 \([^\n]+\) cannot be read and was set aside; going on from ckpt-8$"):
        resumed = run(Line(), tmp_path / "run", resume=True)
    np.testing.assert_array_equal(resumed.networks["final"].get_weights()[0], whole[1])
    assert {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()} == {"ckpt-4", "ckpt-8", "ckpt-12", "damaged-12"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(Line(), tmp_path / "run", resume=True)


def test_no_changed_byte_passes_for_a_good_checkpoint(whole, tmp_path):
    """TensorFlow's own checksums cover every byte that matters: whatever byte is changed, reading fails or gives the same numbers."""
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    good, refused = checkpointed(tmp_path, 12), 0
    for path in (tmp_path / "checkpoints" / "ckpt-12").iterdir():
        content = path.read_bytes()
        for byte in range(len(content)):
            path.write_bytes(content[:byte] + bytes([content[byte] ^ 16]) + content[byte + 1 :])
            try:
                read(tmp_path / "checkpoints" / "ckpt-12" / "state")
            except UNREADABLE:
                refused += 1
                continue
            assert all(np.array_equal(good[name], array) for name, array in checkpointed(tmp_path, 12).items())
        path.write_bytes(content)
    assert refused > 1000


def test_several_damaged_checkpoints(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    damage(tmp_path / "run", 12, "data zeroed")
    damage(tmp_path / "run", 8, "index missing")
    with pytest.warns(UserWarning, match="ckpt-12 .*ckpt-8 .*going on from ckpt-4"):
        resumed = run(Line(), tmp_path / "run", resume=True)
    np.testing.assert_array_equal(resumed.networks["final"].get_weights()[0], whole[1])


def test_a_run_without_any_good_checkpoint_is_refused_and_left_as_it_is(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    for step in (4, 8, 12):
        damage(tmp_path / "run", step, "data empty")
    for _ in range(2):
        with pytest.raises(ValueError, match="^[^\n]*holds no checkpoint that can be read: ckpt-12 .*ckpt-8 .*ckpt-4 .*start anew with another --out$"):
            run(Line(), tmp_path / "run", resume=True)


def test_a_checkpoint_that_was_being_written_does_not_count(whole, tmp_path):
    shutil.copytree(whole[0] / "checkpoints" / "ckpt-4", tmp_path / "run" / "checkpoints" / "partial")
    resumed = run(Line(), tmp_path / "run", resume=True)
    np.testing.assert_array_equal(resumed.networks["final"].get_weights()[0], whole[1])
    assert {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()} == {"ckpt-4", "ckpt-8", "ckpt-12"}


def test_a_refused_run_leaves_no_folder(tmp_path):
    def example(i):
        return np.zeros(1), np.zeros(1)

    def fail():
        raise ValueError("no such network")

    with pytest.raises(ValueError, match="no such network"):
        train("line", Line(), fail, lambda step: batches(example, [(1,), (1,)], 2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory):
    return report(start("tests.common.full_disk", str(tmp_path_factory.mktemp("full")), stdout=subprocess.PIPE, stderr=subprocess.PIPE))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize(
    ("case", "newest", "said"),
    [
        ("metrics", 4, "metrics.csv cannot be written"),
        ("preview", 4, "0000006.png cannot be written"),
        ("checkpoint", 4, "the checkpoint of step 8 cannot be written to .*checkpoints .File too large.; make room there and go on with --resume"),
        ("last checkpoint", 8, "the checkpoint of step 12 cannot be written"),
        ("weights", 12, "final.weights.h5 cannot be written"),
    ],
)
def test_full_disk_stops_with_one_line_and_the_run_goes_on_when_there_is_room(whole, full_disk, case, newest, said):
    found = full_disk[case]
    assert found["status"] == 2
    assert re.match(f"empapers: .*{said}", found["said"])
    assert found["newest"] == newest
    assert not found["partial"]
    np.testing.assert_array_equal(np.float32(found["weights"]), whole[1])


def test_batches_are_numbered_examples():
    def first(**more):
        return next(iter(batches(lambda i: (np.full(1, i, np.float32),), [(1,)], 3, **more)))[0].numpy().ravel().tolist()

    assert first() == [0, 1, 2]
    assert first(start=6) == [6, 7, 8]


def test_folder_of_another_paper_is_refused(tmp_path):
    Run.open(tmp_path / "run", "line", Line(), resume=False).describe()
    with pytest.raises(ValueError, match="paper: line -> other"):
        Run.open(tmp_path / "run", "other", Line(), resume=True)
