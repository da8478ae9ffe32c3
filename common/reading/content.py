"""What a file is, by its first bytes: extensions lie, and downloads end as something else."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np

from .guards import Refusal, check_heaps

SIGNATURES = {b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF", b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG",
              b"\x89HDF\r\n\x1a\n": "HDF5", b"II\x97\1": "SER"}  # fmt: skip
KINDS = dict.fromkeys((".tif", ".tiff"), "TIFF") | dict.fromkeys((".jpg", ".jpeg"), "JPEG") | dict.fromkeys((".h5", ".hdf5", ".hspy", ".emd"), "HDF5")
KINDS |= {".png": "PNG", ".bmp": "BMP", ".dm3": "DM3", ".dm4": "DM4", ".mrc": "MRC", ".ser": "SER"}
OTHERS = {b"%PDF": "a PDF document", b"PK\3\4": "a zip archive", b"\x1f\x8b": "a gzip archive", b"7z\xbc\xaf": "a 7-Zip archive", b"Rar!": "a RAR archive",
          b"GIF8": "a GIF picture", b"RIFF": "a WebP picture", b"\0\0\0\x0cjP": "a JPEG 2000 picture", b"version https://git-lfs": "a Git LFS pointer",
          b"<!DOCTYPE": "a web page", b"<html": "a web page", b"\x93NUMPY": "a NumPy array"}  # fmt: skip
REMEDY = {"archive": "unpack it", "picture": "save it as PNG or TIFF", "pointer": "fetch the file itself with git lfs pull", "page": "download the file itself",
          "array": "save it with save_micrograph"}  # fmt: skip


def kind_of(path: Path) -> str | None:
    """One of the kinds above, or None where the first bytes are not known; refuses what cannot be a micrograph."""
    if path.is_dir():
        raise Refusal("it is a folder; give one file in it")
    if path.suffix.lower() == ".emi" and not any(re.fullmatch(rf"{re.escape(path.stem)}_\d\.ser", other.name) for other in path.parent.iterdir()):
        raise Refusal(f"an .emi holds no pixels, and its {path.stem}_1.ser is not in the folder; put it there or give another file")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise Refusal("the file is empty; copy it again from where it came from")
    for start, name in OTHERS.items():
        if head.startswith(start):
            raise Refusal(f"it is {name}; {REMEDY.get(name.split()[-1], 'give the image itself')}")
    if path.suffix.lower() in (".txt", ".hdr"):
        stem = path.stem if path.suffix.lower() == ".txt" else re.sub(r"-\w+$", "", path.stem)
        images = sorted(other.name for other in path.parent.iterdir() if other.stem == stem and other.suffix.lower() in KINDS)
        raise Refusal(f"it is a text beside an image; give the image{f', {images[0]}' if images else ''}")
    if head.startswith(b"II\x97\1") and path.suffix.lower() != ".ser":  # its reader asks for the extension
        raise Refusal("it is a SER file of TIA; rename it to .ser")
    return next((kind for start, kind in SIGNATURES.items() if head.startswith(start)), None) or _by_header(head)


def _by_header(head: bytes) -> str | None:
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    if head[208:212] == b"MAP ":
        return "MRC"
    if len(head) >= 16 and head[:3] == bytes(3) and head[3] in (3, 4):  # version, length of the file in 4 or 8 bytes, byte order
        (order,) = struct.unpack_from(">I", head, 8 if head[3] == 3 else 12)
        return f"DM{head[3]}" if order in (0, 1) else None
    return None


def hdf5_dialect(path: Path) -> str | None:
    """hspy or emd for the files of HyperSpy, Berkeley and Velox."""
    import h5py

    check_heaps(path)
    with h5py.File(path, "r") as file:
        if np.asarray(file.attrs.get("file_format", "")).astype(str) == "HyperSpy":
            return "hspy"
        return "emd" if "version_major" in file.attrs or {"Version", "Data"} <= file.keys() else None
