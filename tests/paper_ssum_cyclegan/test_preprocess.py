"""The way from files to pairs, on a simulated chip seen by both microscopes."""

import csv
import json
import sys

import cv2
import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter, map_coordinates

from common.__main__ import run_tool
from common.micrograph import Micrograph, load_micrograph, save_micrograph
from common.specimens import simulate
from paper_ssum_cyclegan.data import SCALE
from paper_ssum_cyclegan.preprocess import crops, preprocess

SIDE, GRID, STEP, RATIO = 128, (3, 6), 90, 1.5  # px of a frame; frames; px between them; SEM pixels on an optical one


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["preprocess", *map(str, arguments)])
    return run_tool(preprocess, "python -m paper_ssum_cyclegan.preprocess", tensorflow=False)


def sem_places(optical):
    """True SEM place of places (2, ...) in the optical picture: 2 degrees, 1.5 times as many pixels."""
    a = np.radians(2)
    turn = RATIO * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.tensordot(turn, optical, 1) + np.reshape([60, 25], (2,) + (1,) * (np.ndim(optical) - 1))


@pytest.fixture(scope="module")
def microscopes(tmp_path_factory):
    """A folder with frames, stage log and SEM image; the frames' true places in the optical picture."""
    folder = tmp_path_factory.mktemp("chip")
    (folder / "frames").mkdir()
    rng = np.random.default_rng(0)
    picture = simulate("chip", 24, (560, 960)).image  # the SEM's grid
    sem = picture + 0.03 * rng.standard_normal(picture.shape)
    save_micrograph(folder / "sem.tif", Micrograph(np.uint16(np.clip(sem * 40000 + 2000, 0, 65535)), 20.0))
    nominal = np.array([(r, c) for r in range(GRID[0]) for c in range(GRID[1])], float) * STEP + 8
    true = nominal + rng.normal(0, 3, nominal.shape)
    blurred, y_x = gaussian_filter(1 - picture, 2.5 * RATIO), np.indices((SIDE, SIDE))
    shading = 1 - 0.1 * ((2 * y_x / SIDE - 1) ** 2).sum(0)
    with (folder / "positions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "row", "column"])
        for k, (place, log) in enumerate(zip(true, nominal, strict=True)):
            cut = map_coordinates(blurred, sem_places(y_x + place[:, None, None]), order=3, mode="mirror") * shading
            frame = cut + 0.01 * rng.standard_normal(cut.shape)
            save_micrograph(folder / "frames" / f"f{k:02d}.tif", Micrograph(np.uint16(np.clip(frame * 30000 + 3000, 0, 65535)), 30.0))
            writer.writerow([f"f{k:02d}.tif", *log])
    return folder, true


def arguments(folder, out):
    given = ["--optical", folder / "frames", "--sem", folder / "sem.tif", "--positions", folder / "positions.csv"]
    return [*given, "--side", 96, "--stride", 48, "--reduction", 1, "--out", out]


def truth_of(numbers, true):
    """The matrix from the mosaic to the SEM image: what a mosaic at the mean of its frames' true places would have."""
    places = np.array(numbers["stitching"]["places"])
    offset = (true - places).mean(0)
    corners = np.array([[0, 0], [0, 400], [250, 0], [250, 400.0]])
    return corners, sem_places((corners + offset).T).T


@pytest.fixture(scope="module")
def made(microscopes, tmp_path_factory):
    folder, true = microscopes
    out = tmp_path_factory.mktemp("out") / "pairs"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run(monkeypatch, *arguments(folder, out), "--flat") == 0
    return out, json.loads((out / "preprocess.json").read_text()), true


def test_the_whole_chain_registers_to_less_than_a_pixel(made):
    out, numbers, true = made
    error = np.array(numbers["stitching"]["places"]) - true
    assert np.linalg.norm(error - error.mean(0), axis=1).max() < 0.3 and not numbers["stitching"]["alone"]
    matrix = np.array(numbers["registration"]["matrix"])
    corners, expected = truth_of(numbers, true)
    assert np.linalg.norm(corners @ matrix[:, :2].T + matrix[:, 2] - expected, axis=1).max() / RATIO < 1
    assert numbers["registration"]["rotation_deg"] == pytest.approx(2, abs=0.2) and numbers["registration"]["mirrored"] is False
    assert numbers["registration"]["size_against_calibration"] == pytest.approx(1, abs=0.01)
    shifts = []
    for path in sorted((out / "train").glob("*_sem.tif")):
        sem = load_micrograph(path).data.astype(np.float32)
        optical = 65535 - load_micrograph(str(path).replace("_sem", "_optical")).data.astype(np.float32)
        surface = cv2.matchTemplate(cv2.GaussianBlur(sem, (0, 0), 2.5), optical[8:-8, 8:-8], cv2.TM_CCOEFF_NORMED)
        shifts.append(np.array(np.unravel_index(surface.argmax(), surface.shape)) - 8)
    assert np.abs(np.median(shifts, 0)).max() <= 1 and (np.abs(shifts).max(1) <= 1).mean() > 0.8


def test_files_hold_calibrated_16_bit_pairs_that_do_not_overlap_between_splits(made):
    out, numbers, _ = made
    assert numbers["pixel_size_nm"] == {"optical": 30, "sem": 20, "pairs": 30}
    boxes = {}
    for split, count in numbers["counts"].items():
        files = sorted((out / split).iterdir())
        assert [f.name for f in files] == [f"{k:04d}_{name}.tif" for k in range(count) for name in ("optical", "sem")] and count > 0
        for path in files:
            micrograph = load_micrograph(path)
            assert micrograph.data.dtype == np.uint16 and micrograph.data.shape == (96, 96) and micrograph.pixel_size == 30
            assert {name: micrograph.metadata[name] for name in SCALE} == SCALE  # or training would give every crop a grey scale of its own
            boxes.setdefault(split, set()).add((micrograph.metadata["row"], micrograph.metadata["column"]))
        assert sorted(map(list, boxes[split])) == sorted(numbers["crops"]["corners"][split])
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert all(max(abs(a - c), abs(b - d)) >= 96 for a, b in boxes[one] for c, d in boxes[other])
    levels = np.concatenate([load_micrograph(f).data.ravel() for f in (out / "train").glob("*_optical.tif")])
    assert levels.max() > 60000 and levels.min() < 5000 and len(np.unique(levels)) > 2000
    mosaic, overlay = cv2.imread(str(out / "mosaic.png"), cv2.IMREAD_UNCHANGED), cv2.imread(str(out / "overlay.png"))
    assert mosaic.ndim == 2 and overlay.shape[:2] == tuple(numbers["registration"]["shape"])


def test_landmarks_and_a_second_run(made, microscopes, monkeypatch, tmp_path, capsys):
    out, numbers, true = made
    folder, _ = microscopes
    assert run(monkeypatch, *arguments(folder, out)) == 2
    assert "holds pairs already" in capsys.readouterr().err
    corners, places = truth_of(numbers, true)
    with (tmp_path / "landmarks.csv").open("w") as file:
        file.write("optical_row, optical_column, sem_row, sem_column\n")
        for line in np.hstack([corners, places + [[2, 0], [-2, 0], [-2, 0], [2, 0]]]):
            file.write(",".join(f"{v:.3f}" for v in line) + "\n")
    assert run(monkeypatch, *arguments(folder, tmp_path / "hand"), "--landmarks", tmp_path / "landmarks.csv") == 0
    found = json.loads((tmp_path / "hand" / "preprocess.json").read_text())["registration"]
    assert found["landmark_rms_nm"] == pytest.approx(2 * 20, rel=0.01)  # a saddle, which no affine map follows
    matrix = np.array(found["matrix"])
    np.testing.assert_allclose(corners @ matrix[:, :2].T + matrix[:, 2], places, atol=0.01)
    said = capsys.readouterr().out
    assert "pairs of 96 px, 30 nm/px" in said and "that is little" not in said
    assert run(monkeypatch, *arguments(folder, tmp_path / "size"), "--landmarks", tmp_path / "landmarks.csv", "--pixel-optical", 90) == 2
    assert "an optical pixel has 30 nm, not 90" in capsys.readouterr().err and not (tmp_path / "size" / "train").exists()
    rows = (tmp_path / "landmarks.csv").read_text().splitlines()
    moved = [",".join([*row.split(",")[:3], str(float(row.split(",")[3]) + 40)]) for row in rows[1:]]  # as if another corner had been picked
    (tmp_path / "wrong.csv").write_text("\n".join([rows[0], *moved]))
    assert run(monkeypatch, *arguments(folder, tmp_path / "wrong"), "--landmarks", tmp_path / "wrong.csv") == 0
    assert "that is little: look at" in capsys.readouterr().out


def test_frames_that_the_log_does_not_name_are_told_of(microscopes, monkeypatch, tmp_path, capsys):
    folder, _ = microscopes
    lines = (folder / "positions.csv").read_text().splitlines()
    (tmp_path / "p.csv").write_text("\n".join(lines[:3]))
    given = ["--optical", folder / "frames", "--positions", tmp_path / "p.csv", "--out", tmp_path / "out"]
    assert run(monkeypatch, *given) == 0
    said = capsys.readouterr().out
    assert f"{len(lines) - 3} images of" in said and "f02.tif, f03.tif, f04.tif, ..." in said and "2 frames" in said


def test_the_mosaic_and_the_pairs_are_reduced_alike(made, microscopes, monkeypatch, tmp_path, capsys):
    """First the mosaic alone, to pick landmarks in; then, into the same folder, pairs. Both have the pixels that a network is to see."""
    out, numbers, _ = made
    folder, _ = microscopes
    given = arguments(folder, tmp_path / "pairs")
    given[given.index("--reduction") + 1] = 2
    alone = [flag for k, flag in enumerate(given) if "--sem" not in (flag, given[k - 1])]
    assert run(monkeypatch, *alone, "--flat") == 0 and "mosaic of 60 nm/px" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "pairs").iterdir()) == ["mosaic.png", "mosaic.tif"]
    first = load_micrograph(tmp_path / "pairs" / "mosaic.tif")
    assert run(monkeypatch, *given, "--flat") == 0 and "pairs of 48 px, 60 nm/px" in capsys.readouterr().out
    mosaic, whole = load_micrograph(tmp_path / "pairs" / "mosaic.tif"), load_micrograph(out / "mosaic.tif")
    assert (mosaic.pixel_size, whole.pixel_size) == (60, 30) and mosaic.data.dtype == np.uint16
    np.testing.assert_array_equal(mosaic.data, first.data)
    height, width = (n // 2 for n in whole.data.shape)
    means = whole.data[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3))
    np.testing.assert_allclose(mosaic.data[:height, :width], means, atol=1)
    for name in ("optical", "sem"):
        fine, coarse = (load_micrograph(path / "train" / f"0000_{name}.tif") for path in (out, tmp_path / "pairs"))
        assert coarse.pixel_size == 60 and coarse.metadata["row"] == fine.metadata["row"]
        np.testing.assert_allclose(coarse.data, fine.data.reshape(48, 2, 48, 2).mean((1, 3)), atol=1)
    assert run(monkeypatch, *given[:-2], "--reduction", 5, "--out", tmp_path / "b") == 2
    assert "divisor of the side" in capsys.readouterr().err


def test_a_focal_stack_becomes_one_frame(monkeypatch, tmp_path):
    picture = simulate("chip", 30, (300, 500)).image
    sharp, soft = (gaussian_filter(1 - picture, sigma) for sigma in (1.5, 5.0))
    left = np.arange(500) < 250
    tifffile.imwrite(tmp_path / "stack.tif", np.uint16(20000 * np.stack([np.where(left, sharp, soft), np.where(left, soft, sharp)])), photometric="minisblack")
    save_micrograph(tmp_path / "sem.tif", Micrograph(np.float32(picture), 25.0))
    (tmp_path / "l.csv").write_text("optical_row,optical_column,sem_row,sem_column\n0,0,0,0\n0,9,0,9\n9,0,9,0\n9,9,9,9\n")
    flags = ["--optical", tmp_path / "stack.tif", "--sem", tmp_path / "sem.tif", "--landmarks", tmp_path / "l.csv", "--side", 96]
    assert run(monkeypatch, *flags, "--stride", 96, "--pixel-optical", 25, "--z-stack", "--out", tmp_path / "out") == 0
    mosaic = cv2.imread(str(tmp_path / "out" / "mosaic.png"), cv2.IMREAD_UNCHANGED).astype(float)
    assert np.corrcoef(mosaic.ravel(), sharp.ravel())[0, 1] > 0.99 > np.corrcoef(np.where(left, soft, sharp).ravel(), sharp.ravel())[0, 1]


def test_regions_are_shares_of_the_longer_axis_but_a_crop_at_least():
    found = crops(np.ones((512, 6800), bool), 512, 256)
    columns = {split: [c for _, c in places] for split, places in found.items()}
    assert max(columns["train"]) + 512 <= 5440 <= min(columns["val"]) and max(columns["val"]) + 512 <= 6120 <= min(columns["test"])
    assert columns["train"][:3] == [0, 256, 512]
    assert {split: len(places) for split, places in crops(np.ones((1600, 700), bool), 512, 256).items()} == {"train": 1, "val": 1, "test": 1}
    holed = np.ones((512, 6800), bool)
    holed[100, 1000] = False
    assert all(not column <= 1000 < column + 512 for _, column in crops(holed, 512, 256)["train"])
    ragged = np.ones((530, 6850), bool)
    ragged[:9, ::700], ragged[:, -13:], ragged[::200, :7] = False, False, False
    found = crops(ragged, 512, 256)
    assert min(map(len, found.values())) >= 1 and all(ragged[r : r + 512, c : c + 512].all() for places in found.values() for r, c in places)
    for small in (np.ones((512, 1535), bool), np.ones((500, 6800), bool), np.zeros((512, 6800), bool)):
        with pytest.raises(ValueError, match="too small for three regions"):
            crops(small, 512, 256)


def test_errors_are_one_line(microscopes, monkeypatch, tmp_path, capsys):
    folder, _ = microscopes
    base = arguments(folder, tmp_path / "out")

    def refused(*arguments):
        assert run(monkeypatch, *arguments) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1
        return said[0]

    assert "too small for three regions of 512 px" in refused(*base[:6], "--out", tmp_path / "small")
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["mosaic.png", "overlay.png", "preprocess.json"]
    assert "give --positions" in refused(*base[:4], "--out", tmp_path / "a")
    assert "search" in refused(*base, "--search", 0)
    assert "give --sem" in refused(*base[:2], *base[4:], "--landmarks", folder / "positions.csv")
    (tmp_path / "p.csv").write_text("file,row,column\nf00.tif,0,0\nghost.tif,0,90\n")
    assert "names ghost.tif, which is not in" in refused(*base[:5], tmp_path / "p.csv", *base[6:])
    (tmp_path / "p.csv").write_text("name,row,column\nf00.tif,0,x\n")
    assert "columns file, row, column" in refused(*base[:5], tmp_path / "p.csv", *base[6:])
    (tmp_path / "p.csv").write_bytes("file,row,column\nf00.tif,0,0 \xb5m\n".encode("latin-1"))
    assert "p.csv is not a CSV file in UTF-8" in refused(*base[:5], tmp_path / "p.csv", *base[6:])
    (tmp_path / "p.csv").write_text("file,row,column\nf00.tif,0,0\nf01.tif,0,90000\n")
    assert "no two frames overlap" in refused(*base[:5], tmp_path / "p.csv", *base[6:])
    save_micrograph(tmp_path / "bare.tif", Micrograph(np.ones((300, 300), np.float32)))
    assert "give --pixel-sem" in refused("--optical", folder / "frames" / "f00.tif", "--sem", tmp_path / "bare.tif", "--out", tmp_path / "a")
    assert "positive" in refused(*base, "--pixel-sem", -3)
    (tmp_path / "frames").mkdir()
    (tmp_path / "p.csv").write_text("file,row,column\na.tif,0,0\nb.tif,0,90\n")
    odd = ["--optical", tmp_path / "frames", "--positions", tmp_path / "p.csv", "--out", tmp_path / "odd"]
    image = np.random.default_rng(0).random((128, 128)).astype(np.float32)
    save_micrograph(tmp_path / "frames" / "a.tif", Micrograph(image, 30.0))
    save_micrograph(tmp_path / "frames" / "b.tif", Micrograph(image))
    assert "b.tif has no pixel size" in refused(*odd)
    save_micrograph(tmp_path / "frames" / "b.tif", Micrograph(image[:99], 30.0))
    assert "b.tif has (99, 128) pixels" in refused(*odd)
    save_micrograph(tmp_path / "frames" / "b.tif", Micrograph(0 * image, 30.0))
    assert "b.tif: the image's background is not positive" in refused(*odd, "--flat")
    tifffile.imwrite(tmp_path / "frames" / "b.tif", np.stack([image, image]), photometric="minisblack")
    assert "give --z-stack" in refused(*odd)
    with tifffile.TiffWriter(tmp_path / "frames" / "b.tif") as file:
        file.write(image), file.write(image[:99])
    assert "focal planes of several sizes" in refused(*odd, "--z-stack")
    save_micrograph(tmp_path / "bare.tif", Micrograph(np.random.default_rng(0).normal(size=(500, 900)).astype(np.float32), 20.0))
    assert "not found" in refused(*base[:3], tmp_path / "bare.tif", *base[4:])
