"""The command line: what it prints, what it writes, and one line for whatever is wrong."""

import json

import cv2
import numpy as np
import pytest
import tifffile

from common import Micrograph, load_micrograph, paper, save_micrograph
from common.__main__ import main
from paper_semnet import Config
from tests.helpers import publish_untrained


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(publish_untrained(paper("semnet"), Config.tiny(), tmp_path_factory.mktemp("weights")))


def refused(capsys, *arguments):
    """Exit status 2 and one line on stderr, which is returned."""
    status = main(list(map(str, arguments)))
    lines = capsys.readouterr().err.splitlines()
    assert status == 2
    assert len(lines) == 1 and lines[0].startswith("empapers: ")
    return lines[0]


def test_papers(capsys):
    assert main(["papers"]) == 0
    assert "semnet" in capsys.readouterr().out


def test_restore_files_and_folders(capsys, weights, tmp_path):
    image = np.random.default_rng(0).integers(0, 60000, (40, 50)).astype(np.uint16)
    (tmp_path / "in").mkdir()
    save_micrograph(tmp_path / "in" / "a.tif", Micrograph(image, 3.0))
    cv2.imwrite(str(tmp_path / "in" / "b.png"), image)
    assert main(["restore", "semnet", str(tmp_path / "in"), "--weights", weights, "--out", str(tmp_path / "out")]) == 0
    first, second = load_micrograph(tmp_path / "out" / "a_semnet.tif"), load_micrograph(tmp_path / "out" / "b_semnet.png")
    assert first.pixel_size == pytest.approx(1.5, rel=1e-6) and first.data.shape == (80, 100) and first.data.dtype == np.uint16
    np.testing.assert_array_equal(first.data, second.data)


def test_restore_a_frame_of_a_stack(capsys, weights, tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.random.default_rng(0).integers(0, 255, (3, 20, 22)).astype(np.uint8), photometric="minisblack")
    assert "frame" in refused(capsys, "restore", "semnet", tmp_path / "s.tif", "--weights", weights, "--out", tmp_path / "o")
    assert main(["restore", "semnet", str(tmp_path / "s.tif"), "--frame", "1", "--weights", weights, "--out", str(tmp_path / "o")]) == 0


def test_one_bad_file_does_not_stop_the_others(capsys, weights, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tif").write_bytes(b"nonsense")
    cv2.imwrite(str(tmp_path / "in" / "b.png"), np.zeros((20, 20), np.uint8))
    assert main(["restore", "semnet", str(tmp_path / "in"), "--weights", weights, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "a.tif" in error and "1 of 2 files" in error
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b_semnet.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "unknown command 'fly'"),
        (["train"], "name a paper first"),
        (["train", "nonsense", "--out", "x"], "unknown paper 'nonsense'"),
        (["train", "semnet", "--preset", "huge", "--out", "x"], "unknown preset 'huge'"),
        (["train", "semnet", "--preset", "tiny"], "--out"),
        (["train", "semnet", "--preset", "tiny", "--stepz", "3", "--out", "x"], "--stepz"),
        (["train", "semnet", "--preset", "tiny", "--steps", "many", "--out", "x"], "many"),
        (["restore", "semnet", "missing.tif", "--weights", "WEIGHTS", "--out", "x"], "missing.tif"),
        (["restore", "semnet", "--out", "x"], "at least one"),
        (["export", "semnet", "--format", "pickle", "--out", "x"], "pickle"),
        (["evaluate", "semnet", "--weights", "nowhere", "--out", "x"], "nowhere"),
        (["train", "semnet", "--preset", "tiny", "--validate-every", "0", "--out", "x"], "validate_every must be at least 1"),
        (["train", "semnet", "--preset", "tiny", "--sem", "no_folder", "--out", "x"], "no_folder is not a folder"),
        (["restore", "semnet", "a/x.tif", "b/x.dm4", "--weights", "WEIGHTS", "--out", "x"], "several inputs would be written to"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, monkeypatch, weights, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *(weights if word == "WEIGHTS" else word for word in arguments))
    assert not list(tmp_path.iterdir())  # nothing was written, not even a folder


def test_every_config_field_is_a_flag(tmp_path, capsys):
    flags = "--preset tiny --steps 2 --specimens 1 --validation-images 1 --tail 95 --degradation.passes 1 --degradation.gaussian-sigma 3 4 --halve-at 1".split()
    assert main(["train", "semnet", *flags, "--out", str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["tail"] == "95" and config["degradation"]["passes"] == 1 and config["degradation"]["gaussian_sigma"] == [3, 4] and config["halve_at"] == [1]
    assert config["features"] == Config.tiny().features
    capsys.readouterr()  # progress
    assert "is not empty" in refused(capsys, "train", "semnet", *flags, "--out", tmp_path / "run")
    assert main(["restore", "semnet", str(_png(tmp_path)), "--weights", str(tmp_path / "run"), "--out", str(tmp_path / "o")]) == 0


def _png(folder):
    cv2.imwrite(str(folder / "p.png"), np.arange(400, dtype=np.uint8).reshape(20, 20))
    return folder / "p.png"


def test_help_of_the_program_and_of_commands(capsys):
    assert main(["--help"]) == 0
    assert "restore PAPER" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["restore", "semnet", "--help"])
    assert stop.value.code == 0
    assert "--frame" in capsys.readouterr().out
