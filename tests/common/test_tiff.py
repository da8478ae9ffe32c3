"""TIFF: dialects, calibration, stacks, palettes."""

import cv2
import numpy as np
import pytest
import tifffile

from common.micrograph import load_micrograph
from tests.common.micrograph_helpers import image, load_refused


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32", "float64"])
def test_big_endian_tiff_becomes_native(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", image(dtype), byteorder=">")
    np.testing.assert_array_equal(load_micrograph(tmp_path / "a.tif").data, image(dtype), strict=True)


@pytest.mark.parametrize(
    ("unit", "density", "nm"),
    [("nm", 4.0, 0.25), ("um", 4.0, 250.0), ("\\u00B5m", 4.0, 250.0), ("micron", 4.0, 250.0), ("mm", 100.0, 1e4), ("A", 0.5, 0.2)]
    + [("microns", 4.0, 250.0), ("inch", 300.0, None), ("pixel", 1.0, None), ("", 4.0, None)],
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


def test_imagej_unit_in_latin_1(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", image(), imagej=True, resolution=(4.0, 4.0), metadata={"unit": "um"})
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes().replace(b"unit=um", b"unit=\xb5m"))
    assert load_micrograph(tmp_path / "a.tif").pixel_size == pytest.approx(250)


def test_imagej_reciprocal_unit(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", image(), imagej=True, resolution=(4.0, 4.0), metadata={"unit": "1/nm"})
    with pytest.warns(UserWarning, match="diffraction"):
        assert load_micrograph(tmp_path / "a.tif").pixel_size is None


@pytest.mark.parametrize("density", [(0, 1), (1, 0), (0, 0)])
def test_resolution_of_zero_or_infinity(tmp_path, density):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image(), imagej=True, resolution=(4.0, 4.0), metadata={"unit": "nm"})
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["XResolution"].overwrite(density)
    assert load_micrograph(path).pixel_size is None


def test_twelve_bits_in_sixteen_keep_their_dtype_and_values(tmp_path):
    data = image("uint16", (20, 30)) >> 4
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    np.testing.assert_array_equal(load_micrograph(tmp_path / "a.tif").data, data, strict=True)


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
