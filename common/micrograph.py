"""Micrographs on disk: one frozen record, one reader, one writer.

TIFF is read with tifffile, PNG, JPEG and BMP with OpenCV, HDF5 with h5py, the microscopes' own formats (dm3, dm4, emd, ser, mrc, hspy, ...) with RosettaSciIO.
Data bars are not cropped, and NaN or infinite pixels are kept: that is for restoring to meet.
"""

import dataclasses
import json
import math
import operator
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .formats import Refusal, isotropic, one_line, read_hdf5, read_raster, read_rsciio, to_json, write_hdf5, write_hspy, write_png
from .tiff import read_tiff, write_tiff


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


def load_micrograph(path: str | os.PathLike, frame: int | None = None) -> Micrograph:
    """Read one image; the extension decides the format, frame (0-based) chooses among several (pages, a stack, several detectors).

    An RGB file whose channels are equal becomes one channel; a coloured one becomes its BT.601 luminance, with a warning.
    Raises FileNotFoundError, or a ValueError of one line: "cannot read PATH: reason; what to do".
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        data, size, metadata = READERS.get(path.suffix.lower(), read_rsciio)(path, None if frame is None else operator.index(frame))
        metadata = json.loads(to_json(metadata))
        pixel_size = isotropic(size, metadata, path)
        # A copy, so that neither a memory map of the file nor the rest of a stack lives on behind the view.
        return Micrograph(np.array(data, dtype=data.dtype.newbyteorder("="), order="C"), pixel_size, metadata, str(path))
    except Refusal as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    except Exception as error:  # on a damaged file a parser raises anything from KeyError to struct.error
        raise ValueError(f"cannot read {path}: {one_line(error)}; check that the file is complete and is what its extension says") from error


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
        WRITERS[path.suffix.lower()](temporary, micrograph.replace(data=native))
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
    return path


READERS = (
    dict.fromkeys((".tif", ".tiff"), read_tiff) | dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), read_raster) | dict.fromkeys((".h5", ".hdf5"), read_hdf5)
)
WRITERS = {".tif": write_tiff, ".tiff": write_tiff, ".png": write_png, ".h5": write_hdf5, ".hdf5": write_hdf5, ".hspy": write_hspy}
