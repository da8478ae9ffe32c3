"""Damaged files that libraries swallow, never come back from, or complain about to the terminal only."""

import logging
import os
import signal
import struct
import warnings

import cv2
import h5py
import numpy as np
import pytest
import tifffile

from common.micrograph import Micrograph, load_micrograph, save_micrograph
from common.reading.guards import overheard
from tests.common.micrograph_helpers import image, load_refused

PICTURE = image("uint8", (64, 80))


@pytest.fixture
def soon():
    """An endless loop in Python code ends in an exception."""

    def ring(*_):
        pytest.fail("an endless loop")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_damaged_jpeg_is_read_with_a_warning_and_a_silent_terminal(tmp_path, capfd):
    content = bytearray(cv2.imencode(".jpg", PICTURE)[1].tobytes())
    content[len(content) // 2 : len(content) // 2 + 30] = b"Z" * 30
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.warns(UserWarning, match="it is damaged, parts of the image may be wrong"):
        assert load_micrograph(tmp_path / "a.jpg").data.shape == PICTURE.shape
    assert tuple(capfd.readouterr()) == ("", "")


def test_half_a_png_is_refused_with_its_reason_and_a_silent_terminal(tmp_path, capfd):
    content = bytearray(cv2.imencode(".png", PICTURE)[1].tobytes())
    content[20:24] = bytes(4)  # no rows
    (tmp_path / "a.png").write_bytes(content)
    assert "OpenCV cannot decode it (" in load_refused(tmp_path / "a.png")
    assert tuple(capfd.readouterr()) == ("", "")


def test_png_with_a_chunk_longer_than_the_file(tmp_path, monkeypatch):
    content = bytearray(cv2.imencode(".png", PICTURE)[1].tobytes())
    struct.pack_into(">I", content, content.index(b"IDAT") - 4, 2**31 - 1)
    (tmp_path / "a.png").write_bytes(content)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert "ends within one of its chunks" in load_refused(tmp_path / "a.png")


def test_png_with_something_behind_its_end(tmp_path):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", PICTURE)[1].tobytes() + b"\xff" * 99)
    np.testing.assert_array_equal(load_micrograph(tmp_path / "a.png").data, PICTURE)


def test_whole_files_are_read_without_a_word(tmp_path, capfd):
    for extension in (".jpg", ".png", ".bmp", ".tif"):
        cv2.imwrite(str(tmp_path / f"a{extension}"), PICTURE)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_micrograph(tmp_path / f"a{extension}")
    assert tuple(capfd.readouterr()) == ("", "")


def test_other_threads_keep_their_stderr(capfd):
    with overheard() as heard:
        os.write(2, b"progress 10 %\nlibpng error: bad\n")
    assert heard == ["libpng error: bad"] and capfd.readouterr().err == "progress 10 %\n"


def test_what_tifffile_logs_becomes_a_warning(tmp_path, capfd):
    tifffile.imwrite(tmp_path / "a.tif", PICTURE, photometric="minisblack", metadata=None, software="x" * 20)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        at = tif.pages[0].tags["Software"].offset
    with open(tmp_path / "a.tif", "r+b") as file:
        file.seek(at + 2)
        file.write(struct.pack("<H", 99))  # a data type that does not exist
    with pytest.warns(UserWarning, match="its reader says: .*invalid data type"):
        np.testing.assert_array_equal(load_micrograph(tmp_path / "a.tif").data, PICTURE)
    assert tuple(capfd.readouterr()) == ("", "")


def test_what_rosettasciio_logs_becomes_a_warning(tmp_path, monkeypatch, capfd):
    import rsciio.hspy

    really = rsciio.hspy.file_reader
    monkeypatch.setattr(rsciio.hspy, "file_reader", lambda path: logging.getLogger("rsciio.hspy").warning("odd\nheader") or really(path))
    save_micrograph(tmp_path / "a.hspy", Micrograph(PICTURE))
    with pytest.warns(UserWarning, match="its reader says: odd header"):
        load_micrograph(tmp_path / "a.hspy")
    assert tuple(capfd.readouterr()) == ("", "")


def test_tiff_whose_pages_go_round_in_a_circle(tmp_path, soon):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for k in range(3):
            writer.write(PICTURE[k:], photometric="minisblack", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        first, last = tif.pages[0].offset, tif.pages[2].offset
    with open(tmp_path / "a.tif", "r+b") as file:
        file.seek(last)
        (count,) = struct.unpack("<H", file.read(2))
        file.seek(last + 2 + 12 * count)
        file.write(struct.pack("<I", first))
    with pytest.warns(UserWarning, match="its reader says"):
        np.testing.assert_array_equal(load_micrograph(tmp_path / "a.tif", frame=0).data, PICTURE)


def test_tiff_with_too_few_pieces(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", PICTURE, photometric="minisblack", metadata=None, rowsperstrip=8, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages[0].tags["ImageLength"].overwrite(6400)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("decoded"))
    assert "8 of the 800 pieces" in load_refused(tmp_path / "a.tif")


@pytest.mark.parametrize(("kind", "declared"), [(15, (0, 2**31)), (18, (2**31,)), (20, (15, 0, 0, 2**31))])  # a structure, a string, empty structures
def test_dm_tags_that_would_take_hours(tmp_path, soon, kind, declared):
    header = struct.pack(">IIIBBI", 3, 10**6, 1, 1, 0, 1)
    tag = struct.pack(">BH", 21, 1) + b"a%%%%" + struct.pack(f">II{len(declared)}I", 2 if kind == 18 else 9, kind, *declared)
    (tmp_path / "a.dm3").write_bytes(header + tag + bytes(500_000))
    assert "its tags are damaged" in load_refused(tmp_path / "a.dm3")


@pytest.mark.parametrize("extension", [".h5", ".hspy", ".emd", ".nxs"])
def test_hdf5_in_whose_heap_the_library_would_go_round_for_ever(tmp_path, monkeypatch, extension):
    path = tmp_path / f"a{extension}"
    with h5py.File(path, "w") as file:
        file["data"] = PICTURE
        file.attrs["note"] = "some text"
    content = bytearray(path.read_bytes())
    at = heap = content.index(b"GCOL\x01\0\0\0")
    size = int.from_bytes(content[heap + 8 : heap + 16], "little")
    at += 16
    while int.from_bytes(content[at : at + 2], "little"):
        at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
    assert at < heap + size
    content[at + 8 : at + 16] = bytes(8)
    path.write_bytes(content)
    monkeypatch.setattr(h5py, "File", lambda *_, **__: pytest.fail("opened"))
    assert "heap of strings is damaged" in load_refused(path)


def test_names_in_a_file_do_not_reach_the_terminal_as_they_are(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("a\nb", "\x1b[31mred", "x" * 5000):
            file[name] = PICTURE
    message = load_refused(tmp_path / "a.h5")
    assert message.isprintable() and len(message) < 1000 and message.endswith("pass frame=0..2 (--frame) to choose one")


def test_own_metadata_that_are_no_object(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = PICTURE
        file["data"].attrs["micrograph_json"] = "[1, 2]"
    assert "no JSON object" in load_refused(tmp_path / "a.h5")


def test_readers_that_are_not_for_micrographs_are_not_asked(tmp_path):
    for name in ("a.npy", "a.csv", "a.xml", "a.nc", "a.rpl"):
        (tmp_path / name).write_bytes(b"\x93NUMPY" if name == "a.npy" else b"some text")
        assert ("NumPy array" if name == "a.npy" else "is unknown") in load_refused(tmp_path / name)


def test_an_image_is_not_copied_without_need_nor_kept_with_its_neighbours(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([PICTURE] * 3), imagej=True, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", image("uint16"), byteorder=">")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loaded in (load_micrograph(tmp_path / "a.png"), load_micrograph(tmp_path / "a.tif", frame=1), load_micrograph(tmp_path / "b.tif")):
            base = loaded.data if loaded.data.base is None else loaded.data.base
            assert base.nbytes == loaded.data.nbytes and loaded.data.flags.writeable and loaded.data.flags.c_contiguous and loaded.data.dtype.isnative
