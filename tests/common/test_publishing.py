"""Shipping weights: what lands is what was measured, and float16 storage restores the same image."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from common import paper, publishing
from common.publishing import copy_weights, publish, training_curve
from common.restoring import load_network, restore_array, weights_folder


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A weights folder of its own, and an evaluation that records the sha256 of what it was asked to measure."""
    shelf = tmp_path / "shelf"
    asked = []
    monkeypatch.setattr(publishing, "weights_folder", lambda _: shelf)

    def evaluate(out, weights, **more):
        assert (shelf / "small.json").exists() == bool(asked)  # nothing is shipped before it is measured
        asked.append(weights)
        measured = json.loads(Path(weights.replace(".weights.h5", ".json")).read_text())["sha256"]
        assert measured == hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        found = {"items": {"measured": {"value": measured, "n": len(asked)}}, "convention": f"c{len(asked)}", "notes": {"n": len(asked)}}
        (out / "results.json").write_text(json.dumps(found | ({"classical": {"blur": 1.5}} if len(asked) > 1 else {})))

    monkeypatch.setattr(publishing, "paper_by_name", lambda name: replace(paper(name), evaluate=evaluate))
    return shelf


def finished(run):
    """A run folder with what publishing reads beside the weights."""
    (run / "config.json").write_text(json.dumps(json.loads((run / "config.json").read_text()) | {"data": "simulated", "versions": {}}))
    (run / "metrics.csv").write_text("step,seconds,loss,val_L1\n50,8.0,0.5,\n100,16.5,0.25,0.125\n150,24,0.2,\n")
    return run


@pytest.mark.parametrize("half", [False, True])
def test_the_card_describes_the_weights_that_were_measured(weights, shelf, tmp_path, half):
    run = finished(weights)
    target = publish("semnet", tmp_path / "results", run, "empapers train", half=half)
    card = json.loads((shelf / "small.json").read_text())
    assert card["results"]["measured"]["value"] == card["sha256"]
    assert card["training"] == {
        "command": "empapers train",
        "data": "simulated",
        "seconds": 24,
        "curve": [{"step": 100, "loss": 0.25, "val_L1": 0.125}],
        "versions": {},
    }
    image = np.random.default_rng(0).integers(0, 256, (40, 48)).astype(np.uint8)
    before, after = (restore_array(image, paper("semnet"), *load_network(paper("semnet"), path)) for path in (run, target))
    if half:
        assert target.stat().st_size < 0.75 * (run / "final.weights.h5").stat().st_size
        assert 0 < np.abs(before - after).max() < 0.5  # of 255: eleven bits of each weight are kept
    else:
        np.testing.assert_array_equal(before, after)


def test_shipped_weights_can_be_measured_again(weights, shelf, tmp_path):
    target = publish("semnet", tmp_path / "first", finished(weights), "empapers train", half=True)
    stored, card = target.read_bytes(), json.loads((shelf / "small.json").read_text())
    assert publish("semnet", tmp_path / "second") == target
    again = json.loads((shelf / "small.json").read_text())
    assert target.read_bytes() == stored
    measured = {"results": {"measured": {"value": card["sha256"], "n": 2}}, "classical": {"blur": 1.5}, "convention": "c2", "notes": {"n": 2}}
    assert again == card | measured and list(again) == list(card)
    assert card["results"]["measured"]["n"] == 1 and card["classical"] == {}


def test_weights_that_cannot_be_measured_again_are_refused(weights, shelf, tmp_path):
    with pytest.raises(ValueError, match="--run and --command go together"):
        publish("semnet", tmp_path / "results", half=True)
    with pytest.raises(ValueError, match="--run and --command go together"):
        publish("semnet", tmp_path / "results", finished(weights))
    with pytest.raises(FileNotFoundError, match="no weights"):
        publish("semnet", tmp_path / "results")
    publish("semnet", tmp_path / "results", finished(weights), "empapers train")
    (shelf / "small.weights.h5").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged"):
        publish("semnet", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_weights_beyond_float16_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["layer/vars/0"] = np.float32([1e5])
    with pytest.raises(ValueError, match="layer/vars/0 holds weights that float16 cannot hold"):
        copy_weights(tmp_path / "a.h5", tmp_path / "b.h5", half=True)


def test_a_run_that_was_never_validated_has_no_curve(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,seconds,loss\n50,8.0,0.5\n")
    assert training_curve(tmp_path / "metrics.csv") == {"seconds": 8, "curve": []}


def test_shipped_files_are_plain_copies(tmp_path):
    source = weights_folder(paper("semnet")) / "small.weights.h5"
    copy_weights(source, tmp_path / "copy.h5", half=False)
    with h5py.File(source) as old, h5py.File(tmp_path / "copy.h5") as new:
        names = []
        old.visit(names.append)
        assert names and all(name in new and dict(old[name].attrs) == dict(new[name].attrs) for name in names)
