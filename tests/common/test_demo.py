"""The demo: a report of simulated samples, a report of the user's file, and papers that a file does not suit."""

from dataclasses import replace

import numpy as np
import pytest

from common import Micrograph, load_micrograph, paper, papers, save_micrograph
from common.__main__ import main
from common.restoring import weights_folder


def test_report_of_the_users_file(tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 4000, (70, 90)).astype(np.uint16)
    save_micrograph(tmp_path / "mine.tif", Micrograph(image, pixel_size=4.0))
    assert main(["demo", "--input", str(tmp_path / "mine.tif"), "--out", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out" / "report.html") in capsys.readouterr().out
    assert "<img" in (tmp_path / "out" / "report.html").read_text()
    assert load_micrograph(tmp_path / "out" / "semnet_restored.tif").pixel_size == pytest.approx(2.0, rel=1e-6)


def test_papers_without_weights_are_skipped_aloud(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("common.demo.find_weights", lambda *_: (_ for _ in ()).throw(FileNotFoundError("no weights 'small'")))
    assert main(["demo", "--out", str(tmp_path / "out")]) == 0
    assert "semnet: skipped, no weights" in capsys.readouterr().err
    assert "Skipped" in (tmp_path / "out" / "report.html").read_text()


@pytest.fixture
def free(monkeypatch):
    """A world with one paper, SEMNet, whose scale is a scan step that the user names."""
    semnet = paper("semnet")
    entry = replace(semnet, scale=None, at_step=lambda step: replace(semnet, scale=step), scan_steps=lambda config: (2,))
    monkeypatch.setattr("common.demo.papers", lambda: {"semnet": entry})


def test_samples_say_their_scan_step(free, tmp_path):
    assert main(["demo", "--out", str(tmp_path / "out")]) == 0
    assert "truth</figcaption>" in (tmp_path / "out" / "report.html").read_text()


def test_papers_that_need_a_scan_step_leave_the_users_file_alone(free, tmp_path, capsys):
    save_micrograph(tmp_path / "mine.tif", Micrograph(np.zeros((20, 20), np.uint8)))
    assert main(["demo", "--input", str(tmp_path / "mine.tif"), "--out", str(tmp_path / "out")]) == 0
    assert "semnet: skipped, it needs the scan step" in capsys.readouterr().err
    assert "empapers restore semnet FILE --step S" in (tmp_path / "out" / "report.html").read_text()


def test_wrong_file_leaves_nothing(tmp_path, capsys):
    assert main(["demo", "--input", str(tmp_path / "no.tif"), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
    assert "no.tif" in capsys.readouterr().err


def test_report_of_simulated_samples(tmp_path, capsys):
    """The report shows every sample with its truth, and the restored micrographs lie beside it."""
    assert main(["demo", "--out", str(tmp_path / "out")]) == 0
    report = (tmp_path / "out" / "report.html").read_text()
    for entry in (each for each in papers().values() if weights_folder(each).is_dir()):
        samples = entry.samples(0)
        assert report.count("truth</figcaption>") >= len(samples)
        assert all((tmp_path / "out" / f"{entry.name}_{name}.tif").is_file() for name, _, _ in samples)
