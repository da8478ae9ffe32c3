"""Reading and writing micrographs: round trips, calibration, refusals, and real instrument files where they are at hand."""

import importlib
import os
import re
import struct
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import common.formats as formats
import common.micrograph as module
import common.tiff as tiff
from common.micrograph import Micrograph, load_micrograph, save_micrograph

REAL = os.environ.get("EMPAPERS_REAL_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="EMPAPERS_REAL_DATA names no folder of real micrographs")

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32", "float64"]
METADATA = {"detector": "HAADF = 1", "high_tension": 2e5, "unit µ": ["a\nb", None, True], "": {"x/y": 1}}


def image(dtype="uint16", shape=(7, 5), seed=0):
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True) if info else rng.normal(0, 100, shape).astype(dtype)


def refused(call, *args, error=ValueError, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def load_refused(path, **kwargs):
    message = refused(load_micrograph, path, **kwargs)
    assert message.startswith(f"cannot read {path}: ") and ";" in message
    return message


# --- Round trips -----------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    extension=st.sampled_from([".tif", ".TIFF", ".h5", ".hdf5", ".hspy"]),
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    pixel_size=st.none() | st.floats(1e-4, 1e7),
    seed=st.integers(0, 99),
)
def test_round_trip(extension, dtype, shape, pixel_size, seed):
    saved = Micrograph(image(dtype, shape, seed), pixel_size, METADATA)
    if saved.data.dtype.kind == "f":
        saved.data.flat[0] = np.nan
    with tempfile.TemporaryDirectory() as folder:
        path = save_micrograph(Path(folder) / f"image{extension}", saved)
        loaded = load_micrograph(path)
        assert os.listdir(folder) == [path.name]
    assert loaded.data.dtype == saved.data.dtype and loaded.data.dtype.isnative
    np.testing.assert_array_equal(loaded.data, saved.data)
    assert loaded.pixel_size == pixel_size
    assert loaded.metadata == METADATA and loaded.source == str(path)


@settings(max_examples=20, deadline=None)
@given(dtype=st.sampled_from(["uint8", "uint16"]), shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 99))
def test_round_trip_png(dtype, shape, seed):
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_micrograph(save_micrograph(Path(folder) / "µ.png", Micrograph(image(dtype, shape, seed))))
    np.testing.assert_array_equal(loaded.data, image(dtype, shape, seed), strict=True)
    assert loaded.pixel_size is None


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-8, 1e9))
def test_resolution_is_a_fraction_of_two_32_bit_integers(value):
    number, per = tiff._rational(value)
    assert 0 < number < 2**32 and 0 < per < 2**32
    assert number / per == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("dtype", ["uint16", "float64"])
@pytest.mark.parametrize("pixel_size", [0.0123, 5.825, 2615.0])
def test_tiff_calibration_is_seen_by_another_reader(tmp_path, dtype, pixel_size):
    path = save_micrograph(tmp_path / "a.tif", Micrograph(image(dtype), pixel_size))
    with tifffile.TiffFile(path) as tif:
        number, per = tif.pages[0].tags["XResolution"].value
        unit_nm = 1 if tif.is_imagej else 1e7
        assert tif.is_imagej == (dtype == "uint16") and (not tif.is_imagej or tif.imagej_metadata["unit"] == "nm")
    assert unit_nm * per / number == pytest.approx(pixel_size, rel=1e-6)


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


# --- TIFF ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32", "float64"])
def test_big_endian_tiff_becomes_native(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", image(dtype), byteorder=">")
    np.testing.assert_array_equal(load_micrograph(tmp_path / "a.tif").data, image(dtype), strict=True)


@pytest.mark.parametrize(
    ("unit", "density", "nm"),
    [("nm", 4.0, 0.25), ("um", 4.0, 250.0), ("\\u00B5m", 4.0, 250.0), ("micron", 4.0, 250.0), ("mm", 100.0, 1e4), ("A", 0.5, 0.2)]
    + [("inch", 300.0, None), ("pixel", 1.0, None), ("1/nm", 4.0, None), ("", 4.0, None)],
)
def test_imagej_unit(tmp_path, unit, density, nm):
    tifffile.imwrite(tmp_path / "a.tif", image(), imagej=True, resolution=(density, density), metadata={"unit": unit})
    assert load_micrograph(tmp_path / "a.tif").pixel_size == (nm and pytest.approx(nm))


@pytest.mark.parametrize(
    ("unit", "density", "nm"), [("INCH", 72, None), ("INCH", 1e6, None), ("CENTIMETER", 118.11, None), ("CENTIMETER", 1e7, 1.0), ("NONE", 1e7, None)]
)
def test_plain_resolution_tag(tmp_path, unit, density, nm):
    tifffile.imwrite(tmp_path / "a.tif", image(), resolution=(density, density), resolutionunit=unit)
    assert load_micrograph(tmp_path / "a.tif").pixel_size == (nm and pytest.approx(nm))


def test_different_pixel_sizes_are_both_kept(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", image(), imagej=True, resolution=(4.0, 2.0), metadata={"unit": "nm"})
    with pytest.warns(UserWarning, match="no single pixel size"):
        loaded = load_micrograph(tmp_path / "a.tif")
    assert loaded.pixel_size is None and loaded.metadata["pixel_size_xy"] == pytest.approx([0.25, 0.5])


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"truncate": True}, {"compression": "zlib"}, {"byteorder": ">", "metadata": None}])
def test_tiff_stack_asks_for_a_frame(tmp_path, options):
    stack = image("uint16", (3, 6, 8))
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", **options)
    assert "frame=0..2" in load_refused(tmp_path / "a.tif")
    assert "3x6x8" in load_refused(tmp_path / "a.tif")
    for frame in range(3):
        np.testing.assert_array_equal(load_micrograph(tmp_path / "a.tif", frame=frame).data, stack[frame])
    for frame in (3, -1):
        assert "frame=0..2" in load_refused(tmp_path / "a.tif", frame=frame)


def test_pages_of_different_shape_and_a_thumbnail(tmp_path):
    pages = [image("uint8", (6, 8)), image("uint16", (5, 4))]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pages:
            writer.write(page, photometric="minisblack")
        writer.write(pages[0][::2, ::2], photometric="minisblack", subfiletype=1)
    assert "frame=0..1" in load_refused(tmp_path / "a.tif")
    for frame, page in enumerate(pages):
        np.testing.assert_array_equal(load_micrograph(tmp_path / "a.tif", frame=frame).data, page, strict=True)


def test_palette_white_is_zero_and_planar_colour(tmp_path):
    grey = image("uint8", (6, 8))
    tifffile.imwrite(tmp_path / "white.tif", grey, photometric="miniswhite")
    np.testing.assert_array_equal(load_micrograph(tmp_path / "white.tif").data, 255 - grey)
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    overlay = ramp.copy()
    overlay[:, 9::9] = [[65535], [0], [0]]
    for name, palette, expected in (("zeiss", overlay, grey), ("inverted", ramp[:, ::-1], 255 - grey)):
        tifffile.imwrite(tmp_path / f"{name}.tif", grey, photometric="palette", colormap=palette)
        np.testing.assert_array_equal(load_micrograph(tmp_path / f"{name}.tif").data, expected, strict=True)
    tifffile.imwrite(tmp_path / "planar.tif", np.stack([grey] * 3), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(load_micrograph(tmp_path / "planar.tif").data, grey, strict=True)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_lzw_tiff(tmp_path, dtype):
    cv2.imwrite(str(tmp_path / "a.tif"), image(dtype, (40, 50)), [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    np.testing.assert_array_equal(load_micrograph(tmp_path / "a.tif").data, image(dtype, (40, 50)), strict=True)


# --- PNG and JPEG ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 4])
def test_grey_rgb_is_collapsed_without_a_warning(tmp_path, channels):
    grey = image("uint16", (6, 8))
    colour = np.stack([grey] * 3 + [np.full_like(grey, 65535)], axis=-1)[..., :channels]
    cv2.imwrite(str(tmp_path / "a.png"), colour)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(load_micrograph(tmp_path / "a.png").data, grey, strict=True)


@pytest.mark.parametrize("extension", [".png", ".tif", ".h5"])
def test_colour_becomes_luminance(tmp_path, extension):
    rgb = np.zeros((2, 5, 3), np.uint8)
    rgb[:, :3] = np.diag([100, 200, 250])
    path = tmp_path / f"a{extension}"
    if extension == ".png":
        cv2.imwrite(str(path), rgb[..., ::-1])
    elif extension == ".tif":
        tifffile.imwrite(path, rgb, photometric="rgb")
    else:
        with h5py.File(path, "w") as file:
            file["image"] = rgb
    with pytest.warns(UserWarning, match="luminance"):
        data = load_micrograph(path).data
    np.testing.assert_array_equal(data, np.tile(np.array([30, 117, 28, 0, 0], np.uint8), (2, 1)), strict=True)  # 0.299, 0.587, 0.114


def test_png_cannot_hold_floats_or_the_pixel_size(tmp_path):
    assert ".tif" in refused(save_micrograph, tmp_path / "a.png", Micrograph(image("float32")))
    with pytest.warns(UserWarning, match="pixel size"):
        save_micrograph(tmp_path / "a.png", Micrograph(image("uint8"), 1.0))
    assert os.listdir(tmp_path) == ["a.png"]


# --- HDF5 and RosettaSciIO -------------------------------------------------------------------------------------------


def write_hdf5(path, attributes=(), **datasets):
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=data).attrs.update(attributes)
    return path


def test_hdf5_finds_the_only_image(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", {"pixel_size": 0.5, "unit": "um"}, entry__image=image().astype(">u2"), axis=np.arange(4.0), note="text")
    loaded = load_micrograph(path)
    np.testing.assert_array_equal(loaded.data, image(), strict=True)
    assert loaded.pixel_size == 500.0 and loaded.metadata["unit"] == "um"


def test_hdf5_refusals(tmp_path):
    stack = image("float32", (4, 6, 8))
    path = write_hdf5(tmp_path / "stack.h5", stack=stack)
    assert "frame=0..3" in load_refused(path) and "frame=0..3" in load_refused(path, frame=4)
    np.testing.assert_array_equal(load_micrograph(path, frame=2).data, stack[2])
    message = load_refused(write_hdf5(tmp_path / "two.h5", a=image(), g__b=image("float32")))
    assert "a 7x5 uint16" in message and "g/b 7x5 float32" in message
    assert "spectrum 9 float64" in load_refused(write_hdf5(tmp_path / "line.h5", spectrum=np.zeros(9)))
    assert "complex" in load_refused(write_hdf5(tmp_path / "complex.h5", wave=np.zeros((3, 3), complex)))
    assert "shape" in load_refused(write_hdf5(tmp_path / "empty.h5", a=np.zeros((0, 3))))
    assert "no image" in load_refused(write_hdf5(tmp_path / "nothing.h5"))


@pytest.mark.parametrize("extension", [".h5", ".hspy", ".emd"])
def test_hdf5_that_reaches_into_other_files(tmp_path, extension):
    write_hdf5(tmp_path / "other.h5", a=image())
    with h5py.File(tmp_path / f"link{extension}", "w") as file:
        file["a"] = h5py.ExternalLink("other.h5", "a")
    assert "a lies in another file" in load_refused(tmp_path / f"link{extension}")
    layout = h5py.VirtualLayout((7, 5), "u2")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "a", (7, 5))
    with h5py.File(tmp_path / f"virtual{extension}", "w") as file:
        file.create_virtual_dataset("a", layout)
    assert "a lies in another file" in load_refused(tmp_path / f"virtual{extension}")
    with h5py.File(tmp_path / f"external{extension}", "w") as file:
        file.create_dataset("a", (7, 5), "u1", external=[(str(tmp_path / "other.h5"), 0, 35)])
    assert "a lies in another file" in load_refused(tmp_path / f"external{extension}")


@pytest.mark.parametrize("extension", [".h5", ".hspy", ".emd"])
def test_declared_size_is_checked_before_decoding_hdf5(tmp_path, extension):
    path = tmp_path / f"bomb{extension}"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (2**20, 2**20), "u2", chunks=(1024, 1024))
    assert "GiB" in load_refused(path)


def test_declared_size_is_checked_before_decoding_tiff(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", image("uint16", (3, 64, 64)), photometric="minisblack", compression="zlib")
    monkeypatch.setattr(formats, "MAX_BYTES", 64 * 64 * 2)
    assert load_micrograph(tmp_path / "a.tif", frame=1).data.shape == (64, 64)
    monkeypatch.setattr(formats, "MAX_BYTES", 64 * 64 * 2 - 1)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("decoded"))
    assert "MAX_BYTES" in load_refused(tmp_path / "a.tif", frame=1)


def test_mrc_header_in_angstrom_and_missing_calibration(tmp_path):
    for cell, expected in ((5.0, 0.5), (0.0, None)):
        header = bytearray(1024)
        struct.pack_into("<4i", header, 0, 5, 7, 1, 2)
        struct.pack_into("<3i3f", header, 28, 5, 7, 1, 5 * cell, 7 * cell, cell)
        header[208:214] = b"MAP DD"
        (tmp_path / "a.mrc").write_bytes(bytes(header) + image("float32").tobytes())
        loaded = load_micrograph(tmp_path / "a.mrc")
        np.testing.assert_array_equal(loaded.data, image("float32"), strict=True)
        assert type(loaded.data) is np.ndarray and loaded.pixel_size == (expected and pytest.approx(expected))


def signal(shape, signal_axes, units="nm", scale=0.2, title="", dtype="uint16", names="zyx"):
    names = names[-len(shape) :]
    axes = [
        {"name": n, "size": s, "scale": scale, "offset": 0.0, "units": units, "navigate": i not in signal_axes}
        for i, (n, s) in enumerate(zip(names, shape, strict=True))
    ]
    return {"data": image(dtype, shape), "axes": axes, "metadata": {"General": {"title": title}}, "original_metadata": {}}


def load_signals(monkeypatch, tmp_path, signals, **kwargs):
    monkeypatch.setattr(importlib.import_module("rsciio.digitalmicrograph"), "file_reader", lambda _: signals)
    (tmp_path / "a.dm4").touch()
    return load_refused(tmp_path / "a.dm4", **kwargs) if kwargs.pop("refuse", False) else load_micrograph(tmp_path / "a.dm4", **kwargs)


def test_signals_that_are_not_images_are_passed_over(monkeypatch, tmp_path):
    picture = signal((6, 8), (0, 1), title="HAADF")
    others = [signal((9,), (0,)), signal((6, 8, 9), (2,), title="EELS"), signal((6, 9), (1,), title="line scan")]
    loaded = load_signals(monkeypatch, tmp_path, [*others, picture])
    np.testing.assert_array_equal(loaded.data, picture["data"])
    assert loaded.pixel_size == 0.2 and loaded.metadata["General"]["title"] == "HAADF"
    with pytest.raises(ValueError, match="no image .*EELS 6x8x9 uint16"):
        load_signals(monkeypatch, tmp_path, others)


def test_several_signals_ask_for_a_frame(monkeypatch, tmp_path):
    signals = [signal((6, 8), (0, 1), title="HAADF"), signal((2, 3, 4), (1, 2), title="movie")]
    with pytest.raises(ValueError, match=re.escape("3 images (HAADF 6x8 uint16, movie 2x3x4 uint16); pass frame=0..2")):
        load_signals(monkeypatch, tmp_path, signals)
    np.testing.assert_array_equal(load_signals(monkeypatch, tmp_path, signals, frame=2).data, signals[1]["data"][1])


@pytest.mark.parametrize(
    ("units", "nm"), [("Å", 0.02), ("A", 0.02), ("µm", 200.0), ("μm", 200.0), ("m", 2e8), ("pm", 2e-4), ("n_m", 0.2), ("1/nm", None), ("", None), (None, None)]
)
def test_units_of_axes(monkeypatch, tmp_path, units, nm):
    assert load_signals(monkeypatch, tmp_path, [signal((6, 8), (0, 1), units)]).pixel_size == (nm and pytest.approx(nm))


def test_axes_named_x_y_are_put_into_rows_and_columns(monkeypatch, tmp_path):
    picture = signal((6, 8), (0, 1), names="XY")
    np.testing.assert_array_equal(load_signals(monkeypatch, tmp_path, [picture]).data, picture["data"].T)


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


def test_missing_file_folder_and_frame_of_a_single_image(tmp_path):
    assert str(tmp_path / "no.tif") in refused(load_micrograph, tmp_path / "no.tif", error=FileNotFoundError)
    (tmp_path / "folder.tif").mkdir()
    load_refused(tmp_path / "folder.tif")
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


# --- Real instrument files -------------------------------------------------------------------------------------------

REAL_IMAGES = [  # file, shape, dtype, nm per pixel
    ("zeiss_sem_1k.tif", (768, 1024), "uint8", 2614.5),
    ("zeiss_sem_512.tif", (384, 512), "uint8", 11.65),  # its field is 5.965 um wide; the 5.825 nm of its header are for 1024 pixels
    ("fei_helios_16bit_blank.tif", (471, 512), "uint16", 3372.4),
    ("derived_nan_inf_bigendian.tif", (512, 512), "float32", None),
    ("sto_TIA.ser", (1024, 1024), "uint16", 0.01001),
    ("derived_sto_crop.hspy", (512, 512), "uint16", 0.01001),
    ("velox_haadf_image.emd", (512, 512), "uint16", 5.302),
    ("velox_ceta_signed.emd", (512, 512), "int16", 3.139),
    ("lattice_NCEM.emd", (1024, 1024), "uint16", 0.01225),
    ("multi_signal.dm3", (512, 512), "uint16", 0.01775),
    ("cryoem_micrograph.mrc", (927, 959), "float32", 0.1),
]
REAL_STACKS = [
    ("haadf_preview_5frames_1.ser", 5, (128, 128), 0.3844),
    ("haadf_preview_5frames.emi", 5, (128, 128), 0.3844),
    ("imagej_stack_bigendian_float32.tif", 2, (68, 68), 168.67),
    ("cryoet_microtubule_stack.tif", 36, (206, 94), 1.052),
]
RSCIIO_PLUGIN = {".tif": "tiff", ".ser": "tia", ".emd": "emd", ".hspy": "hspy", ".dm3": "digitalmicrograph"}


@needs_real_data
@pytest.mark.parametrize(("name", "shape", "dtype", "pixel_size"), REAL_IMAGES)
def test_real_image(tmp_path, name, shape, dtype, pixel_size):
    loaded = load_micrograph(Path(REAL, "raw_formats", name))
    assert (loaded.data.shape, loaded.data.dtype, loaded.data.dtype.isnative) == (shape, dtype, True)
    assert loaded.pixel_size == (pixel_size and pytest.approx(pixel_size, rel=1e-3))
    for extension in (".tif", ".h5", ".hspy"):
        again = load_micrograph(save_micrograph(tmp_path / f"a{extension}", loaded))
        np.testing.assert_array_equal(again.data, loaded.data, strict=True)
        assert (again.pixel_size, again.metadata) == (loaded.pixel_size, loaded.metadata)


@needs_real_data
@pytest.mark.parametrize(
    "name", ["zeiss_sem_1k.tif", "zeiss_sem_512.tif", "fei_helios_16bit_blank.tif", "sto_TIA.ser", "velox_haadf_image.emd", "lattice_NCEM.emd"]
)
def test_real_pixel_size_agrees_with_rosettasciio(name):
    path = Path(REAL, "raw_formats", name)
    axis = importlib.import_module(f"rsciio.{RSCIIO_PLUGIN[path.suffix]}").file_reader(str(path))[0]["axes"][-1]
    nm = {"nm": 1, "n_m": 1, "µm": 1e3, "um": 1e3, "m": 1e9, "mm": 1e6}[axis["units"]]
    assert load_micrograph(path).pixel_size == pytest.approx(axis["scale"] * nm, rel=1e-6)


@needs_real_data
@pytest.mark.parametrize(("name", "count", "shape", "pixel_size"), REAL_STACKS)
def test_real_stack(name, count, shape, pixel_size):
    path = Path(REAL, "raw_formats", name)
    assert f"frame=0..{count - 1}" in load_refused(path)
    frames = [load_micrograph(path, frame=frame) for frame in range(count)]
    assert {frame.data.shape for frame in frames} == {shape}
    assert frames[0].pixel_size == pytest.approx(pixel_size, rel=1e-3)


@needs_real_data
def test_real_berkeley_emd_keeps_its_rows():
    path = Path(REAL, "raw_formats", "lattice_NCEM.emd")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(load_micrograph(path).data, file["data/single/data"][()])


@needs_real_data
def test_real_pixels_of_two_sizes():
    with pytest.warns(UserWarning, match="no single pixel size"):
        loaded = load_micrograph(Path(REAL, "raw_formats", "float32_nonsquare.dm4"))
    assert loaded.pixel_size is None and loaded.metadata["pixel_size_xy"] == pytest.approx([1.0, 0.2])


@needs_real_data
def test_every_real_file_is_an_image_or_one_line():
    files = [path for path in Path(REAL).rglob("*") if path.is_file() and path.suffix != ".md"]
    assert files
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            try:
                assert load_micrograph(path).data.ndim == 2
            except ValueError as error:
                assert str(error).startswith(f"cannot read {path}: ") and "\n" not in str(error)
