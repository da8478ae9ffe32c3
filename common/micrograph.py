"""Micrographs on disk: one frozen record, one reader, one writer.

TIFF is read with tifffile, PNG, JPEG and BMP with OpenCV, HDF5 with h5py, the microscopes' own formats (dm3, dm4, emd, ser, mrc, hspy, ...) with RosettaSciIO.
A data bar that the instrument's metadata tell of is left out; NaN and infinite pixels are kept: they are for restoring to meet.
"""

import dataclasses
import json
import math
import operator
import os
import uuid
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .reading.content import KINDS, hdf5_dialect, kind_of
from .reading.formats import METADATA_KEY, Raw, isotropic, one_line, read_hdf5, to_json, write_hdf5
from .reading.guards import Log, NoSuchFrame, Refusal
from .reading.raster import read_raster, write_png
from .reading.rosetta import other_extensions, read_rosetta, write_hspy
from .reading.tiff import read_tiff, write_tiff


@dataclass(frozen=True, eq=False)
class Micrograph:
    """One image of a microscope.

    data        (H, W) integers or floats in the file's own dtype and native byte order; NaN and infinities are possible
    pixel_size  nm per pixel along x and y, or None where it is unknown
    metadata    what the instrument wrote, as JSON-like values
    source      the path it was read from, or None

    Raises ValueError where data is not a non-empty 2-D array of real numbers, or pixel_size is not positive and finite.
    """

    data: np.ndarray
    pixel_size: float | None = None
    metadata: dict = field(default_factory=dict)
    source: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.data, np.ndarray) or self.data.dtype.kind not in "iuf":
            raise Refusal(f"the pixels are {getattr(self.data, 'dtype', type(self.data))}; real numbers are needed (of complex ones take modulus or phase)")
        if self.data.ndim != 2 or not self.data.size:
            raise Refusal(f"the array has shape {self.data.shape}; a micrograph is one non-empty (H, W) image")
        if self.pixel_size is not None and not (math.isfinite(self.pixel_size) and self.pixel_size > 0):
            raise Refusal(f"pixel_size is {self.pixel_size}; give a positive number of nm per pixel, or None")

    def replace(self, **changes: Any) -> "Micrograph":
        """The same micrograph with some fields changed."""
        return dataclasses.replace(self, **changes)


def load_micrograph(path: str | os.PathLike, frame: int | None = None, *, keep_bar: bool = False) -> Micrograph:
    """Read one image; frame (0-based) chooses among several (pages, a stack, several detectors or datasets).

    The first bytes decide the format where they are known, else the extension; a warning tells where the two differ.
    A data bar that the instrument's metadata tell of is left out with a warning, unless keep_bar; metadata["data_bar"] has its rows [first, end) in the file.
    An RGB file whose channels are equal becomes one channel; a coloured one becomes its BT.601 luminance, with a warning.
    Raises FileNotFoundError, or a ValueError of one line: "cannot read PATH: reason; what to do".
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with Log() as logged:
            raw = _read(path, None if frame is None else operator.index(frame))
        raw.notes += [f"its reader says: {line}" for line in logged[:1]]
        if not isinstance(raw.metadata, dict):
            raise Refusal(f"its {METADATA_KEY} is no JSON object; remove it")
        raw.metadata = json.loads(to_json(raw.metadata))
        pixel_size, data = isotropic(raw), raw.data
        if raw.bar:
            first, known_from = raw.bar
            raw.metadata["data_bar"] = {"rows": [first, len(data)], "known_from": known_from} | ({"kept": True} if keep_bar else {})
            if not keep_bar:
                raw.notes.append(f"rows {first}:{len(data)} are a data bar ({known_from}) and were left out, keep_bar=True (--keep-bar) keeps them")
                data = data[:first]
        micrograph = Micrograph(_own(data), pixel_size, raw.metadata, str(path))
    except Refusal as error:
        raise ValueError(f"cannot read {path}: {one_line(error)}") from error
    except PermissionError as error:
        raise ValueError(f"cannot read {path}: you may not open it; ask its owner for permission") from error
    except Exception as error:  # on a damaged file a parser raises anything from KeyError to struct.error
        raise ValueError(f"cannot read {path}: {one_line(error)}; check that the file is complete and is what its extension says") from error
    for note in raw.notes:
        warnings.warn(f"{path}: {one_line(note)}", stacklevel=2)
    return micrograph


def load_frames(path: str | os.PathLike) -> list[Micrograph]:
    """All images of a file, in its order; errors are those of `load_micrograph`, also for a damaged one in the middle."""
    found = [load_micrograph(path, 0)]
    while True:
        try:
            found.append(load_micrograph(path, len(found)))
        except ValueError as error:
            if not isinstance(error.__cause__, NoSuchFrame):
                raise
            return found


def _read(path: Path, frame: int | None) -> Raw:
    claimed = KINDS.get(path.suffix.lower())
    if claimed is None and path.suffix.lower() in other_extensions():
        return read_rosetta(path, frame)
    kind = kind_of(path) or claimed
    raw = READERS.get(kind, read_rosetta)(path, frame)
    if claimed and kind != claimed:
        raw.notes.append(f"it is a {kind} file, whatever its extension says, and was read as one")
    return raw


def _own(data: np.ndarray) -> np.ndarray:
    """Native and contiguous; a copy, unless it is all there is: neither a memory map of the file nor the rest of a stack is to live on behind a view."""
    base = data if data.base is None else data.base
    whole = type(base) is np.ndarray and base.base is None and base.nbytes == data.nbytes
    return np.array(data, dtype=data.dtype.newbyteorder("="), order="C", copy=None if whole and type(data) is np.ndarray else True)


def _read_any_hdf5(path: Path, frame: int | None) -> Raw:
    dialect = hdf5_dialect(path)
    return read_rosetta(path, frame, dialect) if dialect else read_hdf5(path, frame)


def save_micrograph(path: str | os.PathLike, micrograph: Micrograph) -> Path:
    """Write .tif, .tiff, .png, .h5, .hdf5 or .hspy in the micrograph's own dtype; the file appears whole or not at all.

    TIFF (in ImageJ's variant where that knows the dtype), HDF5 and HSPY keep pixel_size and metadata exactly; PNG takes uint8 and uint16 only and
    keeps neither, with a warning. Raises ValueError for an extension or dtype that cannot be written, OSError where the folder does not allow it.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        if path.suffix.lower() not in WRITERS:
            raise Refusal(f"the extension {path.suffix or '(none)'} is not one of ours; use .tif, .png, .h5 or .hspy")
        temporary.touch(exist_ok=False)  # asks the folder before a format library can wrap its answer
        native = micrograph.data.astype(micrograph.data.dtype.newbyteorder("="), copy=False)  # OpenCV would not notice foreign bytes
        notes = WRITERS[path.suffix.lower()](temporary, micrograph.replace(data=native)) or []
        os.replace(temporary, path)
    except Refusal as error:
        raise ValueError(f"cannot write {path}: {error}") from error
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or one_line(error)}; choose an existing folder that you may write to") from error
    except Exception as error:
        raise ValueError(f"cannot write {path}: {one_line(error)}; another extension may hold this image") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
    for note in notes:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    return path


READERS = dict.fromkeys(("PNG", "JPEG", "BMP"), read_raster) | {"TIFF": read_tiff, "HDF5": _read_any_hdf5}
READERS |= {kind: partial(read_rosetta, extension=kind.lower()) for kind in ("DM3", "DM4", "MRC", "SER")}
WRITERS = {".tif": write_tiff, ".tiff": write_tiff, ".png": write_png, ".h5": write_hdf5, ".hdf5": write_hdf5, ".hspy": write_hspy}
