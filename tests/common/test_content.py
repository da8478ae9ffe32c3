"""Files that are not what their name says, folders, texts, and headers that promise more than the file can hold."""

import struct
import zlib

import cv2
import h5py
import numpy as np
import pytest
import tifffile

from common.micrograph import Micrograph, load_micrograph, save_micrograph
from tests.common.micrograph_helpers import image, load_refused, refused

PICTURE = image("uint8", (30, 40))


def mrc(path, data, cell=5.0, declared=None):
    header = bytearray(1024)
    rows, columns = declared or data.shape
    struct.pack_into("<4i", header, 0, columns, rows, 1, 2)
    struct.pack_into("<3i3f", header, 28, columns, rows, 1, columns * cell, rows * cell, cell)
    header[208:214] = b"MAP DD"
    path.write_bytes(bytes(header) + data.tobytes())
    return path


# --- Wrong extensions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".tif", ".png", ".jpg", ".bmp", ".h5", ".emd", ".dm3", ".ser", ".mrc"])
@pytest.mark.parametrize("real", [".tif", ".png", ".bmp", ".h5", ".hspy"])
def test_the_content_decides_and_the_user_is_told(tmp_path, real, extension):
    path = tmp_path / f"real{real}"
    if real in (".png", ".bmp"):
        cv2.imwrite(str(path), PICTURE)
    else:
        save_micrograph(path, Micrograph(PICTURE, 2.5))
    named = path.rename(tmp_path / f"named{extension}")
    if {real, extension} < {".h5", ".hspy", ".emd"} or real == extension:
        loaded = load_micrograph(named)
    else:
        with pytest.warns(UserWarning, match="whatever its extension says"):
            loaded = load_micrograph(named)
    np.testing.assert_array_equal(loaded.data, PICTURE, strict=True)
    assert loaded.pixel_size == (None if real in (".png", ".bmp") else 2.5)


@pytest.mark.parametrize("name", ["a", "a.dat", "a.map", "a.rec", "a.mrcs"])
def test_extensions_that_claim_nothing(tmp_path, name):
    data = image("float32", (30, 40))
    loaded = load_micrograph(mrc(tmp_path / name, data))
    np.testing.assert_array_equal(loaded.data, data, strict=True)
    assert loaded.pixel_size == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"%PDF-1.7", "PDF document"), (b"PK\3\4rest", "zip archive; unpack"), (b"\x1f\x8b\x08", "gzip archive"), (b"GIF89a", "GIF picture; save it as PNG")]
    + [(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer; fetch"), (b"<!DOCTYPE html>", "web page; download"), (b"", "the file is empty")]
    + [(b"\x93NUMPY\1\0", "NumPy array; save"), (b"II\x97\1" + bytes(30), "SER file of TIA; rename")],
)
@pytest.mark.parametrize("extension", [".tif", ".jpg", ".dm3", ".hspy", ""])
def test_files_that_are_something_else(tmp_path, content, said, extension):
    (tmp_path / f"a{extension}").write_bytes(content)
    assert said in load_refused(tmp_path / f"a{extension}")


def test_folders_texts_and_half_a_pair(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    assert "a folder; give one file" in load_refused(tmp_path / "folder.tif")
    assert "a folder; give one file" in load_refused(tmp_path)
    assert str(tmp_path / "no.tif") in refused(load_micrograph, tmp_path / "no.tif", error=FileNotFoundError)
    (tmp_path / "a.txt").write_text("notes")
    assert load_refused(tmp_path / "a.txt").endswith("give the image")
    (tmp_path / "a.bmp").touch()
    assert load_refused(tmp_path / "a.txt").endswith("give the image, a.bmp")
    (tmp_path / "[a].emi").write_bytes(b"JK\0\2rest")
    assert "its [a]_1.ser is not in the folder" in load_refused(tmp_path / "[a].emi")


# --- Headers that promise too much -----------------------------------------------------------------------------------


def png_header(rows, columns):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 16, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(9)))
        + chunk(b"IEND", b"")
    )


def jpeg_header(rows, columns):
    content = bytearray(cv2.imencode(".jpg", PICTURE)[1].tobytes())
    at = content.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", content, at, rows, columns)
    return bytes(content)


@pytest.mark.parametrize("content", [png_header(20_000, 20_000), jpeg_header(20_000, 20_000)])
def test_raster_that_promises_more_than_it_holds(tmp_path, monkeypatch, content):
    (tmp_path / "a.png").write_bytes(content)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert "bytes of pixels and stores" in load_refused(tmp_path / "a.png")


def test_tiff_that_promises_more_than_it_holds(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "plain.tif", PICTURE, photometric="minisblack", metadata=None)
    tifffile.imwrite(tmp_path / "packed.tif", PICTURE, photometric="minisblack", metadata=None, compression="zlib")
    for name, rows in (("plain", 60), ("packed", 10_000_000)):
        with tifffile.TiffFile(tmp_path / f"{name}.tif", mode="r+") as tif:
            tif.pages[0].tags["ImageLength"].overwrite(rows)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("decoded"))
    for name in ("plain", "packed"):
        assert "bytes of pixels and stores" in load_refused(tmp_path / f"{name}.tif")


def test_tiff_stack_that_ends_early(tmp_path):
    stack = image("uint16", (9, 64, 64))
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, photometric="minisblack")
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[: 5 * 64 * 64 * 2])
    load_refused(tmp_path / "a.tif", frame=8)


@pytest.mark.parametrize("extension", [".h5", ".hspy", ".emd"])
def test_hdf5_that_was_never_filled(tmp_path, extension):
    with h5py.File(tmp_path / f"a{extension}", "w") as file:
        file.create_dataset("data", (2**14, 2**14), "u1", chunks=(1024, 1024))
    assert "never filled" in load_refused(tmp_path / f"a{extension}")


def test_constant_images_that_compress_well_are_not_suspected(tmp_path):
    data = np.zeros((6000, 6000), np.uint16)  # 72 MB, above what passes without a question
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=data, compression="gzip", compression_opts=9)
    cv2.imwrite(str(tmp_path / "a.png"), data, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack", compression="zlib")
    for extension in (".h5", ".png", ".tif"):
        assert (tmp_path / f"a{extension}").stat().st_size < data.nbytes / 500
        assert load_micrograph(tmp_path / f"a{extension}").data.shape == data.shape


def test_mrc_that_promises_more_than_it_holds(tmp_path):
    assert "ends before them" in load_refused(mrc(tmp_path / "a.mrc", image("float32", (30, 40)), declared=(30_000, 40_000)))
