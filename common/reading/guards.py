"""Damaged files: what the libraries below do not notice, never come back from, or tell only the terminal."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

C_LIBRARIES = re.compile(r"libpng (warning|error)|JPEG|JFIF|Huffman|progression|marker|SOS|TIFF|^\[ ?(WARN|ERROR|INFO):|^\w+: Warning")
OPENCV_PREFIX = re.compile(r"^\[[^]]*\] global \S+ \w+ ")
MRC_BYTES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 6: 2, 12: 2}  # per pixel of each mode
DM_LONGEST = 2**14  # bytes of a string, fields of a structure; real ones have some dozens
LOCK = threading.Lock()  # there is only one stderr


class Refusal(ValueError):
    """A reason that already says what to do."""


class NoSuchFrame(Refusal):
    """The file is fine, and holds fewer images than that."""


@contextlib.contextmanager
def overheard() -> Iterator[list[str]]:
    """The lines that C libraries write to stderr meanwhile: libjpeg and libpng say there, and only there, that a file is damaged."""
    heard: list[str] = []
    with LOCK, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield heard
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            for line in filter(str.strip, file.read().decode("utf-8", "replace").splitlines()):
                if C_LIBRARIES.search(line):
                    heard.append(OPENCV_PREFIX.sub("", line).strip())
                else:  # another thread had something to say
                    os.write(2, f"{line}\n".encode())


class Log(logging.Handler):
    """What tifffile and RosettaSciIO log in this thread, which nobody would otherwise keep from the terminal."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines, self.thread = [], threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.lines.append(" ".join(record.getMessage().split()))

    def __enter__(self) -> list[str]:
        for name in ("tifffile", "rsciio"):
            logging.getLogger(name).addHandler(self)
        return self.lines

    def __exit__(self, *_) -> None:
        for name in ("tifffile", "rsciio"):
            logging.getLogger(name).removeHandler(self)


def check_heaps(path: Path) -> None:
    """Refuse an HDF5 file with a heap of strings in which the HDF5 library would go round for ever: a free object of no size."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        heap = -1
        while (heap := raw.find(b"GCOL\x01\0\0\0", heap + 1)) >= 0:
            at, end = heap + 16, min(len(raw), heap + int.from_bytes(raw[heap + 8 : heap + 16], "little"))
            while at + 16 <= end:
                index, size = int.from_bytes(raw[at : at + 2], "little"), int.from_bytes(raw[at + 8 : at + 16], "little")
                if index == 0 and size < 16:
                    raise Refusal("its heap of strings is damaged; copy the file again")
                at += 16 + -(-size // 8) * 8 if index else size


def check_mrc(path: Path) -> None:
    """Refuse an MRC file that ends before its image does; its reader would first plan for what the header declares."""
    stamp = np.fromfile(path, "u1", 1, offset=212)
    header = np.fromfile(path, ">i4" if stamp.size and stamp[0] == 0x11 else "<i4", 24)
    if not stamp.size:
        raise Refusal("it ends within its header; copy the file again")
    columns, rows, sections, mode, extended = *header[:4].tolist(), int(header[23])
    needed = columns * rows * sections * MRC_BYTES.get(mode, 1) + 1024 + extended
    if min(columns, rows, sections) < 1 or extended < 0 or needed > path.stat().st_size:
        raise Refusal(f"it declares {sections} x {rows} x {columns} pixels and ends before them; copy the file again")


def check_dm(path: Path) -> None:
    """Refuse a DM3 or DM4 file in whose damaged tags RosettaSciIO would go on for hours: it gathers strings and structures in quadratic time."""
    from rsciio.digitalmicrograph._api import DigitalMicrographReader

    def bounded(number: int, most: int = DM_LONGEST) -> int:
        if not 0 <= number <= most:
            raise Refusal("its tags are damaged; copy the file again")
        return number

    class Reader(DigitalMicrographReader):
        def parse_string_definition(self):
            return bounded(super().parse_string_definition())

        def parse_struct_definition(self):
            at = self.f.tell()
            self.read_l_or_q(self.f, "big")
            bounded(self.read_l_or_q(self.f, "big"))
            self.f.seek(at)
            return super().parse_struct_definition()

        def read_array(self, size, *rest, **more):
            return super().read_array(bounded(size, path.stat().st_size), *rest, **more)

    with path.open("rb") as file:
        Reader(file).parse_file()
