"""PNG, JPEG and BMP, read and written with OpenCV."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .formats import Raw, check_bytes, pick, to_grey
from .guards import Refusal, overheard
from .vendors import beside

if TYPE_CHECKING:
    from ..micrograph import Micrograph


def read_raster(path: Path, frame: int | None) -> Raw:
    pick([1], frame, [])
    content = np.fromfile(path, np.uint8)
    check_bytes(declared_raster(content.data), np.dtype(np.uint8), content.size)
    with overheard() as heard:
        data = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if data is None:
        raise ValueError(f"OpenCV cannot decode it{f' ({heard[-1]})' if heard else ''}")
    raw = Raw(data, notes=[f"it is damaged, parts of the image may be wrong ({heard[0]})"] if heard else [])
    raw.data = to_grey(data[..., 2::-1] if data.ndim == 3 else data, raw.notes)
    if instrument := beside(path, raw.data.shape):
        raw.size, raw.metadata, raw.bar = instrument.size, {instrument.name: instrument.values}, instrument.bar
        raw.notes += instrument.notes
    return raw


def declared_raster(content: memoryview) -> tuple[int, ...]:
    """(bytes,) or (rows, columns) that a PNG, BMP or JPEG declares, before anything is decoded; (0,) for others and for nonsense."""
    try:
        if content[:4] == b"\x89PNG":
            columns, rows, depth, colour = struct.unpack_from(">IIBB", content, 16)
            at, name = 8, b""
            while at < len(content) and name != b"IEND":  # OpenCV believes the length of a chunk and fetches the memory for it
                size, name = struct.unpack_from(">I4s", content, at)
                at += 12 + size
            if at > len(content):
                raise Refusal("it ends within one of its chunks; copy the file again")
            return (rows * columns * depth * {2: 3, 4: 2, 6: 4}.get(colour, 1) // 8,)
        if content[:2] == b"BM":
            return tuple(abs(n) for n in struct.unpack_from("<ii", content, 18))
        at = 2
        while content[:2] == b"\xff\xd8":
            marker, size = struct.unpack_from(">HH", content, at)
            if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):  # a start of frame, not a table
                return struct.unpack_from(">HH", content, at + 5)
            if marker < 0xFF01 or marker == 0xFFDA or size < 2:  # no marker, or the pixels begin
                break
            at += 2 + size
    except struct.error:
        pass
    return (0,)


def write_png(path: Path, micrograph: Micrograph) -> list[str]:
    if micrograph.data.dtype.name not in ("uint8", "uint16"):
        raise Refusal(f"PNG holds uint8 and uint16, not {micrograph.data.dtype}; use .tif")
    cv2.imencode(".png", micrograph.data)[1].tofile(path)
    return [] if micrograph.pixel_size is None else ["PNG does not keep the pixel size; use .tif to keep it"]
