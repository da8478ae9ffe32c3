"""SEM-GAN's runs: their folders, resumed, killed, refused, spoiled, in mixed precision and on two devices."""

import json
import random
import shutil
import subprocess
from dataclasses import replace

import cv2
import numpy as np
import pytest

import paper_sem_gan.data
from common.__main__ import main
from common.training import NonFinite
from paper_sem_gan.data import Patches
from paper_sem_gan.train import train_sem_gan
from tests.helpers import check_runs_equal, check_survives_kills, checkpointed, newest_step, read_metrics, report, start
from tests.paper_sem_gan.devices import JOINT, QUICK
from tests.paper_sem_gan.test_data import picture, write_pairs

FLAGS = "--preset tiny --base 2 --levels 2 --discriminator-base 1 --patch 16 --stride 14 --warm-up 6 --calibration 8 --steps 24 --checkpoint-every 4".split()
FLAGS += ["--validate-every", "12"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder of three registered pairs."""
    return write_pairs(tmp_path_factory.mktemp("pairs"), [(32, 36), (40, 32), (32, 32)])


@pytest.fixture(scope="module")
def reference(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    train_sem_gan(QUICK, folder, pairs=pairs)
    return folder


def test_run_folder(reference):
    rows = read_metrics(reference)
    assert [int(row["step"]) for row in rows] == [12, 24]
    assert {"L1", "TV", "A", "L1*w", "TV*w", "A*w", "loss", "L_D", "D_real", "D_fake", "share_L1", "share_TV", "share_A", "alpha", "beta", "data_wait"} <= set(
        rows[1]
    )
    assert float(rows[1]["val_L1_lanczos"]) > 0 and float(rows[1]["val_L1"]) > 0
    for part in ("config.json", "final.weights.h5", "discriminator.weights.h5", "previews/0000024.png", "checkpoints/ckpt-24/state.index"):
        assert (reference / part).is_file()
    held = checkpointed(reference, 24)
    for name in ("alpha", "beta", "L1", "TV", "A"):
        (found,) = [value for key, value in held.items() if key.startswith(f"state_{name}/")]
        assert np.isfinite(found) and found > 0
    assert float(rows[1]["alpha"]) == pytest.approx(float(next(v for k, v in held.items() if k.startswith("state_alpha/"))), rel=1e-5)


def test_resumed_at_every_border_is_bit_identical(reference, pairs, tmp_path):
    """Stopped at the end of warm-up, inside calibration, at its end, and before an update of the discriminator."""
    for last in (6, 10, 14, 19, 24):
        train_sem_gan(replace(QUICK, steps=last), tmp_path / "run", resume=True, pairs=pairs)
        assert newest_step(tmp_path / "run") == last
    check_runs_equal(reference, tmp_path / "run")


def test_killed_run_is_bit_identical(reference, pairs, tmp_path):
    """Killed before calibration, in it and after it, each a random moment after a random step; alpha, beta and the averages are compared too."""
    steps = [random.Random(first).randrange(first, last) for first, last in ((2, 6), (9, 12), (15, 18))]
    check_survives_kills("sem_gan", [*FLAGS, "--pairs", str(pairs)], reference, tmp_path / "run", steps)


def test_run_on_simulated_fields(monkeypatch, tmp_path):
    asked = []

    def simulated_fields(numbers, seed):
        asked.append((list(numbers), seed))
        return [(picture((48, 40), k), picture((48, 40), k)) for k in numbers]

    monkeypatch.setattr(paper_sem_gan.data, "simulated_fields", simulated_fields)
    train_sem_gan(replace(QUICK, fields=5, steps=2, seed=9), tmp_path / "run")
    assert asked == [(list(range(5)), 9)]
    assert (tmp_path / "run" / "final.weights.h5").is_file() and newest_step(tmp_path / "run") == 2
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"] == {"simulated fields": 5}
    assert float(read_metrics(tmp_path / "run")[-1]["val_L1_lanczos"]) == 0


def test_unfit_pairs_end_the_command_in_one_line(pairs, tmp_path, capsys):
    folder = shutil.copytree(pairs, tmp_path / "pairs")
    (folder / "high" / "b.tif").rename(folder / "high" / "z.tif")
    assert main(["train", "sem_gan", *FLAGS, "--pairs", str(folder), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "must hold files of equal names" in said[0]
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_refused_before_fields_are_drawn(reference, monkeypatch):
    monkeypatch.setattr(paper_sem_gan.data, "simulated_fields", lambda *a: pytest.fail("fields were drawn for nothing"))
    with pytest.raises(FileExistsError, match="--resume"):
        train_sem_gan(QUICK, reference)


def test_held_out_fields_of_unequal_size_make_a_preview(tmp_path):
    folder = write_pairs(tmp_path / "pairs", [(32, 32), (32, 32), (40, 32), (32, 36)], "abcd")
    train_sem_gan(replace(QUICK, steps=1, held_out=0.5), tmp_path / "run", pairs=folder)
    assert cv2.imread(str(tmp_path / "run" / "previews" / "0000001.png"), cv2.IMREAD_GRAYSCALE).shape == (128, 192)


def test_other_pairs_or_numbers_do_not_go_on_with_a_run(reference, pairs, tmp_path):
    other = shutil.copytree(pairs, tmp_path / "other")
    with pytest.raises(ValueError, match="data: .* -> .*resume with the same flags"):
        train_sem_gan(QUICK, reference, resume=True, pairs=other)
    with pytest.raises(ValueError, match="beta: None -> 2.0"):
        train_sem_gan(replace(QUICK, beta=2.0), reference, resume=True, pairs=pairs)


@pytest.mark.parametrize(("stream", "said"), [("generator", "L1.* step 4; .*ckpt-2"), ("discriminator", "L_D.* step 4; .*ckpt-2")])
def test_a_number_that_is_not_finite_stops_the_run(stream, said, pairs, tmp_path, monkeypatch):
    draw = Patches.draw

    def spoiled(self, index, which):
        low, high = draw(self, index, which)
        return (low, high * np.nan) if which == stream and index >= 3 * QUICK.batch else (low, high)

    monkeypatch.setattr(Patches, "draw", spoiled)
    with pytest.raises(NonFinite, match=said):
        train_sem_gan(replace(QUICK, warm_up=0, calibration=0, alpha=0.1, beta=1.0, checkpoint_every=2), tmp_path / "run", pairs=pairs)
    assert newest_step(tmp_path / "run") == 2


def test_two_devices_calibrate_and_train_as_one(pairs, tmp_path):
    """Both go on inside calibration: the difference at the end against the change since then, for weights and moments, and what was calibrated."""
    train_sem_gan(JOINT, tmp_path / "one", pairs=pairs)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "ckpt-10")
    found = report(start("tests.paper_sem_gan.devices", str(pairs), str(tmp_path / "two"), stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    assert len(found["fingerprints"]) == 2 and len(set(found["fingerprints"])) == 1
    assert all(len(values) == 2 and values[0] == values[1] > 0 for values in found["state"].values())
    before, after, shared = (checkpointed(tmp_path / run, step) for run, step in (("one", 5), ("one", 10), ("two", 10)))
    assert shared.keys() == after.keys()
    for solver in ("adam", "adam_discriminator"):
        for part in ("_trainable_variables", "_variables"):  # the optimizer's list is where the network's weights are filed
            names = [name for name in after if name.startswith(f"solver_{solver}/{part}/") and after[name].ndim]
            assert len(names) > 20
            change, difference = (np.sqrt(sum(np.sum((after[n].astype(float) - base[n]) ** 2) for n in names)) for base in (before, shared))
            assert difference < 1e-4 * change
    for name in after:
        if name.startswith("state_"):
            assert shared[name] == pytest.approx(after[name], rel=1e-5)
