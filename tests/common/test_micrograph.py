"""Reading and writing micrographs: round trips, refusals, all or nothing."""

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import common.micrograph as module
import common.reading.tiff as tiff
from common.micrograph import Micrograph, load_frames, load_micrograph, save_micrograph
from tests.common.micrograph_helpers import DTYPES, METADATA, image, load_refused, refused

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)

# --- Round trips -----------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    extension=st.sampled_from([".tif", ".TIFF", ".h5", ".hdf5", ".hspy"]),
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    pixel_size=st.none() | st.floats(1e-4, 1e7),
    metadata=st.just(METADATA) | st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    seed=st.integers(0, 99),
)
def test_round_trip(extension, dtype, shape, pixel_size, metadata, seed):
    saved = Micrograph(image(dtype, shape, seed), pixel_size, metadata)
    if saved.data.dtype.kind == "f":
        saved.data.flat[0] = np.nan
    with tempfile.TemporaryDirectory() as folder:
        path = save_micrograph(Path(folder) / f"image{extension}", saved)
        loaded = load_micrograph(path)
        assert os.listdir(folder) == [path.name]
    assert loaded.data.dtype == saved.data.dtype and loaded.data.dtype.isnative
    np.testing.assert_array_equal(loaded.data, saved.data)
    assert loaded.pixel_size == pixel_size
    assert loaded.metadata == metadata and loaded.source == str(path)


@settings(max_examples=20, deadline=None)
@given(dtype=st.sampled_from(["uint8", "uint16"]), shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 99))
def test_round_trip_png(dtype, shape, seed):
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_micrograph(save_micrograph(Path(folder) / "µ.png", Micrograph(image(dtype, shape, seed))))
    np.testing.assert_array_equal(loaded.data, image(dtype, shape, seed), strict=True)
    assert loaded.pixel_size is None


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32", "float64", "int32"]),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    pixel_size=st.floats(3e-3, 1e5),  # below, centimetres do not fit into the tag
    seed=st.integers(0, 99),
)
def test_other_readers_see_the_same(dtype, shape, pixel_size, seed):
    """tifffile, ImageJ's unit and resolution, OpenCV, h5py and RosettaSciIO, called directly."""
    saved = Micrograph(image(dtype, shape, seed), pixel_size)
    with tempfile.TemporaryDirectory() as folder:
        paths = {extension: save_micrograph(Path(folder) / f"a{extension}", saved) for extension in (".tif", ".h5", ".hspy")}
        with tifffile.TiffFile(paths[".tif"]) as tif:
            pictures = [tif.asarray()]
            number, per = tif.pages[0].tags["XResolution"].value
            imagej = tif.imagej_metadata
            sizes = [per / number * (1 if imagej else 1e7)]
            assert bool(imagej) == (dtype in tiff.IMAGEJ_DTYPES) and (not imagej or imagej["unit"] == "nm")
        with h5py.File(paths[".h5"]) as file:
            pictures.append(file["data"][()])
            sizes.append(file["data"].attrs["pixel_size"])
            assert file["data"].attrs["unit"] == "nm"
        (signal,) = importlib.import_module("rsciio.hspy").file_reader(str(paths[".hspy"]))
        pictures.append(signal["data"])
        sizes += [axis["scale"] for axis in signal["axes"]]
        assert {axis["units"] for axis in signal["axes"]} == {"nm"}
        if dtype in ("uint8", "uint16"):
            with pytest.warns(UserWarning, match="pixel size"):
                pictures.append(cv2.imread(str(save_micrograph(Path(folder) / "a.png", saved)), cv2.IMREAD_UNCHANGED))
    for picture in pictures:
        np.testing.assert_array_equal(picture.reshape(shape), saved.data)
        assert picture.dtype == saved.data.dtype
    assert sizes == pytest.approx([pixel_size] * len(sizes), rel=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-8, 1e9))
def test_resolution_is_a_fraction_of_two_32_bit_integers(value):
    number, per = tiff._rational(value)
    assert 0 < number < 2**32 and 0 < per < 2**32
    assert number / per == pytest.approx(value, rel=1e-6)


def test_stale_exact_pixel_size_gives_way_to_the_resolution_tag(tmp_path):
    path = save_micrograph(tmp_path / "a.tif", Micrograph(image(), 2.0))
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name in ("XResolution", "YResolution"):
            tif.pages[0].tags[name].overwrite((1, 4))
    assert load_micrograph(path).pixel_size == 4.0


def test_large_metadata_and_growth(tmp_path):
    saved = Micrograph(image(), 1.5, {"log": "x" * 200_000})
    for name in ("a.h5", "b.tif", "c.hspy", "d.h5"):
        saved = load_micrograph(save_micrograph(tmp_path / name, saved))
    assert saved.metadata == {"log": "x" * 200_000} and saved.pixel_size == 1.5


def test_big_endian_array_is_written_with_its_values(tmp_path):
    for name in ("a.png", "a.tif", "a.h5", "a.hspy"):
        np.testing.assert_array_equal(load_micrograph(save_micrograph(tmp_path / name, Micrograph(image().astype(">u2")))).data, image())


# --- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".tif", ".png", ".jpg", ".h5", ".dm3", ".dm4", ".emd", ".ser", ".mrc", ".hspy", ".xyz", ""])
@pytest.mark.parametrize("content", [b"", b"II*\0nonsense", bytes(range(256)) * 8])
def test_damaged_files_end_in_one_line(tmp_path, extension, content):
    (tmp_path / f"a{extension}").write_bytes(content)
    load_refused(tmp_path / f"a{extension}")


@pytest.mark.parametrize("extension", [".tif", ".png", ".h5", ".hspy"])
def test_truncated_files_end_in_one_line(tmp_path, extension):
    path = save_micrograph(tmp_path / f"a{extension}", Micrograph(image("uint16", (64, 64))))
    path.write_bytes(path.read_bytes()[:-2000])
    load_refused(path)


def test_frame_of_a_single_image(tmp_path):
    path = save_micrograph(tmp_path / "a.png", Micrograph(image()))
    assert load_micrograph(path, frame=0).data.shape == (7, 5)
    assert "frame=0..0" in load_refused(path, frame=1)


def test_tiff_of_complex_pixels_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 3), np.complex64))
    assert "complex" in load_refused(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("data", "pixel_size"),
    [(np.zeros(3), None), (np.zeros((0, 3)), None), (np.zeros((3, 3), complex), None), ([[1.0]], None)]
    + [(np.zeros((3, 3)), size) for size in (0.0, -1.0, np.nan, np.inf)],
)
def test_micrograph_validates_itself(data, pixel_size):
    refused(Micrograph, data, pixel_size)


def test_replace_keeps_the_rest():
    first = Micrograph(image(), 2.0, {"a": 1}, "source")
    second = first.replace(pixel_size=1.0)
    assert (second.pixel_size, second.metadata, second.source) == (1.0, {"a": 1}, "source") and second.data is first.data


# --- Writing all or nothing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".tif", ".png", ".h5", ".hspy"])
def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, extension):
    path = save_micrograph(tmp_path / f"a{extension}", Micrograph(image(seed=1)))

    def fail(temporary, _):
        temporary.write_bytes(b"half")
        raise RuntimeError("disk\nfull")

    monkeypatch.setitem(module.WRITERS, extension, fail)
    assert "disk full" in refused(save_micrograph, path, Micrograph(image(seed=2)))
    assert os.listdir(tmp_path) == [path.name]
    np.testing.assert_array_equal(load_micrograph(path).data, image(seed=1))


@pytest.mark.parametrize("extension", [".tif", ".png", ".h5", ".hspy"])
def test_unwritable_folder(tmp_path, extension):
    (tmp_path / "file").touch()
    for folder in ("missing", "file"):
        message = refused(save_micrograph, tmp_path / folder / f"a{extension}", Micrograph(image()), error=OSError)
        assert message.startswith("cannot write") and str(tmp_path / folder) in message


def test_unknown_extension_to_write(tmp_path):
    assert ".hspy" in refused(save_micrograph, tmp_path / "a.jpg", Micrograph(image("uint8")))


def test_file_mode_follows_the_umask(tmp_path):
    (tmp_path / "plain").touch()
    path = save_micrograph(tmp_path / "a.tif", Micrograph(image()))
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_importing_the_module_stays_light():
    code = "import sys, common, paper_semnet; print([m for m in ('tensorflow', 'rsciio', 'h5py') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_all_frames_and_none_is_lost_to_damage(tmp_path, monkeypatch):
    stack = np.arange(3 * 8 * 9, dtype=np.uint16).reshape(3, 8, 9)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal([frame.data for frame in load_frames(tmp_path / "stack.tif")], stack)
    read = module._read

    def damaged(path, frame):
        if frame == 1:
            raise OSError("bad block")
        return read(path, frame)

    monkeypatch.setattr(module, "_read", damaged)
    with pytest.raises(ValueError, match="bad block"):
        load_frames(tmp_path / "stack.tif")
