"""Packing a folder of micrographs into one HDF5 file: the same crops, no damage, no half-written file, little memory."""

import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile

import paper_dlss.pack
from common.__main__ import run_tool
from paper_dlss import Config
from paper_dlss.data import SPLITS, FolderCrops, PackedCrops, describe_data, open_source
from paper_dlss.pack import pack


def write_folder(folder, counts=(5, 2, 3), shape=(70, 100)):
    """Folders train, val and test of float32 micrographs, as the published crops are stored."""
    for split, count in zip(SPLITS, counts, strict=True):
        (folder / split).mkdir(parents=True)
        for k in range(count):
            image = np.random.default_rng((k, count)).normal(100, 30, shape).astype(np.float32)
            tifffile.imwrite(folder / split / f"{split}{k}.tif", image)
    return folder


def sorted_crops(source):
    return np.stack(sorted(source, key=lambda crop: tuple(crop[0, :2])))


def test_a_packed_file_holds_the_folder(tmp_path):
    folder = write_folder(tmp_path / "crops")
    tifffile.imwrite(folder / "train" / "small.tif", np.zeros((31, 100), np.float32))
    out = pack(folder, tmp_path / "crops.h5", side=32)
    for split, count in zip(SPLITS, (5 * 6, 2 * 6, 3 * 6), strict=True):
        plain, packed = FolderCrops(folder, 32, split), PackedCrops(out, split)
        assert len(plain) == len(packed) == count
        assert packed[0].shape == (32, 32) and packed[0].dtype == np.float32
        np.testing.assert_array_equal(sorted_crops(plain), sorted_crops(packed))
        assert not np.array_equal(np.stack(list(plain)), np.stack(list(packed)))  # shuffled
    with h5py.File(out, "r") as file:
        assert file["train"].chunks == (1, 32, 32) and file["train"].dtype == np.float32
    again = pack(folder, tmp_path / "again.h5", side=32)
    other = pack(folder, tmp_path / "other.h5", side=32, seed=1)
    np.testing.assert_array_equal(np.stack(list(PackedCrops(out, "train"))), np.stack(list(PackedCrops(again, "train"))))
    assert not np.array_equal(np.stack(list(PackedCrops(out, "train"))), np.stack(list(PackedCrops(other, "train"))))


def test_a_packed_file_is_a_source(tmp_path):
    config = replace(Config.tiny(), side=32)
    folder = write_folder(tmp_path / "crops")
    out = pack(folder, tmp_path / "crops.h5", side=32)
    source = open_source(config, out, "val")
    assert isinstance(source, PackedCrops) and len(source) == 12
    with pytest.raises(IndexError):
        source[12]
    described = describe_data(config, out)["crops"]
    assert (described["train"], described["val"], described["test"]) == (30, 12, 18)
    assert described["sha256"] == describe_data(config, folder)["crops"]["sha256"]
    with pytest.raises(ValueError, match="holds crops of 32 pixels, not of 64"):
        open_source(Config.tiny(), out)
    with ThreadPoolExecutor(8) as pool:
        for k, crop in enumerate(pool.map(lambda k: source[k % 12], range(200))):
            np.testing.assert_array_equal(crop, source[k % 12])


def test_files_that_hold_no_crops(tmp_path):
    (tmp_path / "text.h5").write_text("nothing")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["train"], file["val"] = np.zeros((5, 32, 30)), np.zeros(3)
        file.create_group("test")
    for name in ("text.h5", "other.h5"):
        for split in SPLITS:
            with pytest.raises(ValueError, match=rf"{name} holds no {split} crops; make it with python -m paper_dlss.pack"):
                PackedCrops(tmp_path / name, split)


def test_a_flat_folder_is_split_by_micrograph(tmp_path):
    for k in range(4):
        tifffile.imwrite(tmp_path / f"{k}.tif", np.full((64, 64), k, np.float32))
    out = pack(tmp_path, tmp_path / "out" / "crops.h5", side=32)
    levels = [{float(crop.mean()) for crop in PackedCrops(out, split)} for split in SPLITS]
    assert levels == [{0.0, 1.0}, {2.0}, {3.0}]


def test_unreadable_files_leave_no_gap(tmp_path):
    """Damage that shows only when pixels are read: the crops that are left close up."""
    folder = write_folder(tmp_path / "crops", (6, 1, 1))
    for k in (1, 4):
        path = folder / "train" / f"train{k}.tif"
        tifffile.imwrite(path, np.random.default_rng(k).normal(size=(70, 100)).astype(np.float32), compression="zlib")
        content = bytearray(path.read_bytes())
        content[-5000:-1000] = bytes(4000)
        path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"skipped: cannot read .*train[14]\.tif") as told:
        out = pack(folder, tmp_path / "crops.h5", side=32)
    assert len({str(w.message) for w in told}) == 2
    packed = sorted_crops(PackedCrops(out, "train"))
    plain = FolderCrops(folder, 32, "train")
    good = [plain.read(k) for k, (path, *_) in enumerate(plain.tiles) if path.stem not in ("train1", "train4")]
    np.testing.assert_array_equal(packed, sorted_crops(good))


def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    folder, out = write_folder(tmp_path / "crops"), tmp_path / "new" / "crops.h5"

    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(paper_dlss.pack, "_write", full)
    with pytest.raises(OSError, match="no space left"):
        pack(folder, out, side=32)
    assert not list(out.parent.iterdir())
    for wrong, match in ((tmp_path / "crops.tif", "must end in .h5"), (folder / "train" / "train0.tif", "must end in .h5")):
        with pytest.raises(ValueError, match=match):
            pack(folder, wrong, side=32)
    out.write_text("mine")
    with pytest.raises(FileExistsError, match="exists; choose another --out"):
        pack(folder, out, side=32)
    assert out.read_text() == "mine"
    with pytest.raises(ValueError, match="holds no readable train micrograph of at least 128 x 128"):
        pack(folder, tmp_path / "large.h5", side=128)


def test_memory_holds_one_micrograph(tmp_path):
    """24 MB of crops, packed and read with a few."""
    folder = write_folder(tmp_path / "crops", (22, 1, 1), (512, 512))
    tracemalloc.start()
    out = pack(folder, tmp_path / "crops.h5", side=256)
    source = PackedCrops(out, "train")
    assert len(source) == 88 and sum(crop.nbytes for crop in source) > 22e6
    assert tracemalloc.get_traced_memory()[1] < 6e6
    tracemalloc.stop()


def test_command_line(tmp_path, monkeypatch, capsys):
    folder = write_folder(tmp_path / "crops")
    command = ["pack", str(folder), "--out", str(tmp_path / "crops.h5"), "--side", "32"]
    monkeypatch.setattr(sys, "argv", command)
    assert run_tool(pack, "python -m paper_dlss.pack", tensorflow=False) == 0
    assert "30 train, 12 val, 18 test crops of 32 x 32 pixels" in capsys.readouterr().out
    assert run_tool(pack, "python -m paper_dlss.pack", tensorflow=False) == 2
    assert capsys.readouterr().err.count("\n") == 1
