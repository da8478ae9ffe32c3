"""The command line: what it prints, what it writes, and one line for whatever is wrong."""

import json

import cv2
import numpy as np
import pytest
import tifffile

from common import Micrograph, load_micrograph, paper, save_micrograph
from common.__main__ import first_line, main
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
    for frame in "12":
        assert main(["restore", "semnet", str(tmp_path / "s.tif"), "--frame", frame, "--weights", weights, "--out", str(tmp_path / "o")]) == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["s_f1_semnet.tif", "s_f2_semnet.tif"]
    assert load_micrograph(tmp_path / "o" / "s_f2_semnet.tif").metadata["restored"]["frame"] == 2


def test_a_result_never_replaces_an_input_and_names_differ(capsys, weights, tmp_path):
    for name in ("a.tif", "a.png", "b.tif", "b_semnet.tif", "b_semnet_trust.png"):
        cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 255, (20, 20)).astype(np.uint8))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    told = ["restore", "semnet", "--weights", weights]
    assert "is a folder of inputs" in refused(capsys, *told, tmp_path, "--out", tmp_path)
    for name in ("b_semnet.tif", "b_semnet_trust.png"):
        assert f"{name} is an input" in refused(capsys, *told, tmp_path / "b.tif", tmp_path / name, "--out", tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert main([*told, str(tmp_path), "--out", str(tmp_path / "o")]) == 0
    names = ["a_png_semnet.png", "a_tif_semnet.tif", "b_semnet.tif", "b_semnet_semnet.tif", "b_semnet_trust_semnet.png"]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == names


def test_where_nothing_can_be_written_is_said_first(capsys, weights, tmp_path, monkeypatch):
    told = ["restore", "semnet", _png(tmp_path), "--weights", weights, "--out"]
    assert "p.png is no folder" in refused(capsys, *told, tmp_path / "p.png" / "out")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "is read-only" in refused(capsys, *told, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_integers_of_few_levels_are_told_of_and_can_be_floats(capsys, weights, tmp_path):
    counts = np.random.default_rng(0).poisson(3, (40, 40)).astype(np.uint8)
    save_micrograph(tmp_path / "counts.tif", Micrograph(counts, 2.0))
    told = ["restore", "semnet", str(tmp_path / "counts.tif"), "--weights", weights, "--out"]
    assert main([*told, str(tmp_path / "o")]) == 0 and "give floats (--as-float)" in capsys.readouterr().err
    assert main([*told, str(tmp_path / "f"), "--as-float"]) == 0 and not capsys.readouterr().err
    found = load_micrograph(tmp_path / "f" / "counts_semnet.tif")
    assert found.data.dtype == np.float32 and found.pixel_size == 1.0 and len(np.unique(found.data)) > 1000


def test_a_calibrated_png_becomes_a_tiff(weights, tmp_path):
    cv2.imwrite(str(tmp_path / "h.png"), np.random.default_rng(0).integers(0, 255, (20, 20)).astype(np.uint8))
    (tmp_path / "h.txt").write_text("[SemImageFile]\nInstructName=S\nPixelSize=4.96\nDataSize=20x20\n")
    assert main(["restore", "semnet", str(tmp_path / "h.png"), "--weights", weights, "--out", str(tmp_path / "o")]) == 0
    assert load_micrograph(tmp_path / "o" / "h_semnet.tif").pixel_size == pytest.approx(2.48)


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
        (["restore", "semnet", "a/x.tif", "b/x.tif", "--weights", "WEIGHTS", "--out", "x"], "several inputs would be written to"),
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


def test_what_a_graph_raises_is_the_line_that_says_why():
    assert first_line(ValueError("in user code:\n\n    File train.py, line 3\n")) == "    File train.py, line 3"
