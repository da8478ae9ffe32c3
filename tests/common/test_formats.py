"""PNG and JPEG, HDF5, and the formats read through RosettaSciIO."""

import importlib
import os
import re
import struct
import warnings

import cv2
import h5py
import numpy as np
import pytest
import tifffile

import common.reading.formats as formats
import common.reading.rosetta as rosetta
from common.micrograph import Micrograph, load_micrograph, save_micrograph
from tests.common.micrograph_helpers import image, load_refused, refused

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
    assert "spectrum 9 float64" in load_refused(write_hdf5(tmp_path / "line.h5", spectrum=np.zeros(9)))
    assert "complex" in load_refused(write_hdf5(tmp_path / "complex.h5", wave=np.zeros((3, 3), complex)))
    assert "shape" in load_refused(write_hdf5(tmp_path / "empty.h5", a=np.zeros((0, 3))))
    assert "no image" in load_refused(write_hdf5(tmp_path / "nothing.h5"))


def test_hdf5_with_several_datasets_counts_through_all_of_them(tmp_path):
    single, stack, colour = image(), image("float32", (2, 3, 6, 8)), np.repeat(image("uint8", (4, 9, 7, 1)), 3, axis=-1)
    path = write_hdf5(tmp_path / "a.h5", a=single, g__b=stack, h=colour, line=np.zeros(4))
    assert "11 images (a 7x5 uint16, g/b 2x3x6x8 float32, h 4x9x7x3 uint8); pass frame=0..10" in load_refused(path)
    for frame, expected in enumerate([single, *stack.reshape(6, 6, 8), *colour[..., 0]]):
        np.testing.assert_array_equal(load_micrograph(path, frame=frame).data, expected, strict=True)


@pytest.mark.parametrize(
    ("attributes", "nm"),
    [({"pixel_size": 2.0}, 2.0), ({"pixel_size": [9.0, 0.5, 0.5], "units": "µm"}, 500.0), ({"element_size_um": [1.0, 0.004, 0.004]}, 4.0)]
    + [({"pixel_size": size}, None) for size in (0.0, -1.0, np.nan, np.inf, "none")]
    + [({"pixel_size": 2.0, "unit": unit}, None) for unit in ("px", "", "dpi")],
)
def test_hdf5_pixel_size(tmp_path, attributes, nm):
    assert load_micrograph(write_hdf5(tmp_path / "a.h5", attributes, data=image())).pixel_size == (nm and pytest.approx(nm))


def test_hdf5_reciprocal_pixel_size(tmp_path):
    with pytest.warns(UserWarning, match="diffraction"):
        assert load_micrograph(write_hdf5(tmp_path / "a.h5", {"pixel_size": 2.0, "unit": "1/nm"}, data=image())).pixel_size is None


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


@pytest.mark.filterwarnings("ignore:.*1 A per pixel")
def test_mrc_header_in_angstrom_and_missing_calibration(tmp_path):
    for cell, expected in ((5.0, 0.5), (0.0, None), (1.0, None), (1.01, 0.101)):
        header = bytearray(1024)
        struct.pack_into("<4i", header, 0, 5, 7, 1, 2)
        struct.pack_into("<3i3f", header, 28, 5, 7, 1, 5 * cell, 7 * cell, cell)
        header[208:214] = b"MAP DD"
        (tmp_path / "a.mrc").write_bytes(bytes(header) + image("float32").tobytes())
        loaded = load_micrograph(tmp_path / "a.mrc")
        np.testing.assert_array_equal(loaded.data, image("float32"), strict=True)
        assert type(loaded.data) is np.ndarray and loaded.pixel_size == (expected and pytest.approx(expected))


def test_mrc_header_of_one_angstrom_is_said_to_be_no_calibration(tmp_path):
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 5, 7, 1, 2)
    struct.pack_into("<3i3f", header, 28, 5, 7, 1, 5, 7, 1)
    header[208:214] = b"MAP DD"
    (tmp_path / "a.mrc").write_bytes(bytes(header) + image("float32").tobytes())
    with pytest.warns(UserWarning, match="1 A per pixel"):
        load_micrograph(tmp_path / "a.mrc")


def signal(shape, signal_axes, units="nm", scale=0.2, title="", dtype="uint16", names="zyx"):
    names = names[-len(shape) :]
    axes = [
        {"name": n, "size": s, "scale": scale, "offset": 0.0, "units": units, "navigate": i not in signal_axes}
        for i, (n, s) in enumerate(zip(names, shape, strict=True))
    ]
    return {"data": image(dtype, shape), "axes": axes, "metadata": {"General": {"title": title}}, "original_metadata": {}}


def load_signals(monkeypatch, tmp_path, signals, **kwargs):
    monkeypatch.setattr(importlib.import_module("rsciio.digitalmicrograph"), "file_reader", lambda _: signals)
    monkeypatch.setitem(rosetta.CHECKS, "dm4", lambda _: None)
    (tmp_path / "a.dm4").write_bytes(b"as good as any")
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
    ("units", "nm"),
    [("Å", 0.02), ("A", 0.02), ("µm", 200.0), ("μm", 200.0), ("m", 2e8), ("pm", 2e-4), ("n_m", 0.2), ("micron", 200.0)]
    + [("nanometres", 0.2), ("", None), (None, None), ("px", None), ("inch", None), ("s", None)],
)
def test_units_of_axes(monkeypatch, tmp_path, units, nm):
    assert load_signals(monkeypatch, tmp_path, [signal((6, 8), (0, 1), units)]).pixel_size == (nm and pytest.approx(nm))


def test_axes_named_x_y_are_put_into_rows_and_columns(monkeypatch, tmp_path):
    picture = signal((6, 8), (0, 1), names="XY")
    np.testing.assert_array_equal(load_signals(monkeypatch, tmp_path, [picture]).data, picture["data"].T)


def test_axes_of_a_diffraction_pattern(monkeypatch, tmp_path):
    for units in ("1/nm", "nm^-1", "Å⁻¹", "mrad"):
        with pytest.warns(UserWarning, match="diffraction"):
            assert load_signals(monkeypatch, tmp_path, [signal((6, 8), (0, 1), units)]).pixel_size is None


@pytest.mark.parametrize(("scale", "nm"), [(-0.2, 0.2), (0.0, None), (np.nan, None), (np.inf, None)])
def test_odd_scales_of_axes(monkeypatch, tmp_path, scale, nm):
    assert load_signals(monkeypatch, tmp_path, [signal((6, 8), (0, 1), scale=scale)]).pixel_size == nm


def test_hspy_stack_and_several_signals_in_one_file(tmp_path):
    from rsciio.hspy import file_writer

    stack = signal((3, 6, 8), (1, 2)) | {"attributes": {"_lazy": False}}
    stack |= {name: {} for name in ("package_info", "learning_results", "models", "tmp_parameters")}
    file_writer(str(tmp_path / "a.hspy"), stack, show_progressbar=False)
    assert "3 images" in load_refused(tmp_path / "a.hspy") and "frame=0..2" in load_refused(tmp_path / "a.hspy")
    np.testing.assert_array_equal(load_micrograph(tmp_path / "a.hspy", frame=2).data, stack["data"][2])
    renamed = (tmp_path / "a.hspy").rename(tmp_path / "a.h5")
    loaded = load_micrograph(renamed, frame=1)
    assert loaded.pixel_size == pytest.approx(0.2) and loaded.data.base is None  # the rest of the stack is free to go


def test_berkeley_emd_with_several_images(tmp_path):
    pictures = {"first": image("uint16", (6, 8)), "second": image("float32", (5, 4))}
    with h5py.File(tmp_path / "a.emd", "w") as file:
        file.attrs.update(version_major=0, version_minor=2)
        for name, data in pictures.items():
            group = file.create_group(f"data/{name}")
            group.attrs["emd_group_type"] = 1
            group["data"] = data
            for i, size in enumerate(data.shape):
                axis = group.create_dataset(f"dim{i + 1}", data=np.arange(size) * 0.5)
                axis.attrs.update(name="yx"[i], units="[n_m]")
    assert "it holds 2 images (first 6x8 uint16, second 5x4 float32); pass frame=0..1" in load_refused(tmp_path / "a.emd")
    for frame, data in enumerate(pictures.values()):
        loaded = load_micrograph(tmp_path / "a.emd", frame=frame)
        np.testing.assert_array_equal(loaded.data, data, strict=True)
        assert loaded.pixel_size == pytest.approx(0.5)
