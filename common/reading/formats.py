"""What all readers share, and HDF5.

A reader takes (path, frame) and returns a Raw; `common.micrograph` turns that into a Micrograph.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .guards import NoSuchFrame, Refusal

if TYPE_CHECKING:
    from ..micrograph import Micrograph

MAX_BYTES = 8 * 2**30  # 64k x 64k pixels of 16 bits still pass; a 1 kB file that declares terabytes does not
MAX_RATIO = 1300  # no lossless scheme that is read here shrinks an image further: deflate ends at 1032, LZW at 1290
SMALL = 2**26  # bytes that may be filled without asking what the file holds
LONGEST = 600  # characters of a message
METADATA_KEY = "micrograph_json"  # where our own TIFF, HDF5 and HSPY files carry the metadata
NM_PER_UNIT = {"pm": 1e-3, "a": 0.1, "å": 0.1, "angstrom": 0.1, "ångström": 0.1, "ångstrom": 0.1, "nm": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3,
               "micron": 1e3, "micrometer": 1e3, "mm": 1e6, "millimeter": 1e6, "cm": 1e7, "m": 1e9, "meter": 1e9}  # fmt: skip


Size = tuple[float, float] | None  # (x, y) in nm per pixel


@dataclass
class Raw:
    """What a reader found: the pixels, their size in nm, metadata; the first row of a data bar with how it is known; lines that the user should see."""

    data: np.ndarray
    size: Size = None
    metadata: dict = field(default_factory=dict)
    bar: tuple[int, str] | None = None
    notes: list[str] = field(default_factory=list)


# --- Which image, and is it possible? ---


def pick(counts: list[int], frame: int | None, holds: list[str]) -> tuple[int, int]:
    """(which group, index in it) of the image that is meant, where group i holds counts[i] images."""
    total = sum(counts)
    if total == 0:
        raise Refusal(f"it holds no image ({listing(holds)}); give a file with a 2-D image")
    if frame is None and total > 1:
        raise Refusal(f"it holds {total} images ({listing(holds)}); pass frame=0..{total - 1} (--frame) to choose one")
    if frame is not None and not 0 <= frame < total:
        raise NoSuchFrame(f"frame {frame} does not exist; pass frame=0..{total - 1} (--frame)")
    group = next(group for group in range(len(counts)) if (frame or 0) < sum(counts[: group + 1]))
    return group, (frame or 0) - sum(counts[:group])


def listing(items: list[str]) -> str:
    return ", ".join(items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "") or "nothing"


def describe(name: str, array: Any) -> str:
    return f"{name} {'x'.join(map(str, array.shape)) or 'scalar'} {array.dtype}".strip()


def check_bytes(shape: Iterable[int], dtype: np.dtype, stored: float = math.inf, ratio: int = MAX_RATIO) -> None:
    """Refuse an image above MAX_BYTES, and one that the stored bytes cannot fill even where they were compressed by ratio."""
    size = math.prod(map(int, shape)) * dtype.itemsize
    if size > MAX_BYTES:
        raise Refusal(f"it declares {size / 2**30:.3g} GiB, the limit is {MAX_BYTES / 2**30:.3g} GiB; if you trust it, raise common.reading.formats.MAX_BYTES")
    if size > stored * ratio and (ratio == 1 or size > SMALL):
        raise Refusal(f"it declares {size} bytes of pixels and stores {stored:.0f}; copy the file again, it is damaged or was never filled")


# --- Colour, units, sizes, metadata ---


def to_grey(data: np.ndarray, notes: list[str]) -> np.ndarray:
    """(H, W), or (H, W, 1 | 3 | 4) in the order R, G, B, alpha -> (H, W) of the same dtype; alpha says nothing about the specimen."""
    if data.ndim != 3 or data.shape[2] not in (1, 3, 4):
        return data
    rgb = data[..., :3]
    if (rgb == rgb[..., :1]).all():
        return rgb[..., 0]
    notes.append("it is a colour image, its BT.601 luminance is used")
    luminance = rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return (np.rint(luminance) if data.dtype.kind in "iu" else luminance).astype(data.dtype)


def unit_name(unit: Any) -> str:
    text = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else unit if isinstance(unit, str) else ""
    # ImageJ escapes the micro sign, Unicode has two of it and two of the angstrom, Berkeley's EMD writes [n_m].
    return text.replace("\\u00B5", "µ").replace("\u03bc", "µ").replace("\u212b", "Å").replace("_", "").strip(" []\0").lower()


def nm_per(unit: Any) -> float | None:
    """nm per unit of length; None for no unit, pixels, inches (printers) and reciprocal lengths (diffraction patterns)."""
    name = unit_name(unit).replace("metre", "meter")
    return NM_PER_UNIT.get(name, NM_PER_UNIT.get(name.removesuffix("s")))


def reciprocal(*units: Any) -> list[str]:
    """The line for the user where a unit is an inverse length or an angle."""
    found = [name for name in map(unit_name, units) if re.search(r"^1\s*/|\^?-1$|⁻¹$|rad$", name)]
    return [f"its axes are in {found[0]}, as of a diffraction pattern: no pixel size in nm"] if found else []


def length(value: Any, factor: float | None) -> float | None:
    """value times factor; None unless both are there, finite and positive."""
    try:
        product = float(value) * factor
    except (TypeError, ValueError):
        return None
    return product if 0 < product < math.inf else None


def pair(x: Any, y: Any, factor: float | None) -> Size:
    """Both sizes times factor; None unless both are known."""
    size = length(x, factor), length(y, factor)
    return size if all(size) else None


def isotropic(raw: Raw) -> float | None:
    """One number for both axes; where they differ, None, and both are kept in metadata["pixel_size_xy"]."""
    if raw.size is None or abs(raw.size[0] - raw.size[1]) <= 1e-3 * max(raw.size):
        return raw.size[0] if raw.size else None
    raw.metadata["pixel_size_xy"] = list(raw.size)
    x, y = raw.size
    raw.notes.append(f"its pixels are {x:.4g} x {y:.4g} nm: no single pixel size, both are in metadata['pixel_size_xy']")
    return None


def to_json(metadata: dict) -> str:
    def plain(value: Any) -> Any:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value.tolist() if hasattr(value, "tolist") else str(value)

    return json.dumps(metadata, default=plain, skipkeys=True)


def one_line(error: Exception | str) -> str:
    """One printable line of at most LONGEST characters: a file may put line breaks and escape sequences into its names."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split())).rstrip(".;")
    text = text if " " in text else f"{type(error).__name__} {text}".strip()  # a KeyError says no more than the key
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


# --- HDF5 ---


def read_hdf5(path: Path, frame: int | None) -> Raw:
    """The images of all datasets, in the order of their names; a dataset of more than two axes is a stack, one that ends in 1, 3 or 4 channels has colour."""
    import h5py

    with h5py.File(path, "r") as file:
        found = hdf5_datasets(file)
        images = {name: item for name, item in found.items() if item.ndim > 1 and item.dtype.kind in "iufc"}
        holds = [describe(name, item) for name, item in (images or found).items()]
        shapes = [item.shape[-3:] if item.ndim > 2 and item.shape[-1] in (1, 3, 4) else item.shape[-2:] for item in images.values()]
        stacks = [item.shape[: item.ndim - len(shape)] for item, shape in zip(images.values(), shapes, strict=True)]
        which, index = pick([math.prod(stack) for stack in stacks], frame, holds)
        dataset = list(images.values())[which]
        check_bytes(shapes[which], dataset.dtype, dataset.id.get_storage_size())
        data = dataset[np.unravel_index(index, stacks[which])]
        attributes = {**file.attrs, **dataset.attrs}
    raw = Raw(data, hdf5_pixel_size(attributes), json.loads(attributes[METADATA_KEY]) if METADATA_KEY in attributes else attributes)
    raw.notes += reciprocal(attributes.get("unit", attributes.get("units")))
    raw.data = to_grey(data, raw.notes)
    return raw


def hdf5_datasets(file: Any) -> dict[str, Any]:
    """All datasets of an open file by name; refuses a file whose data lie partly in others."""
    import h5py

    outside: list[str] = []
    found: dict[str, h5py.Dataset] = {}
    file.visititems_links(lambda name, link: outside.append(name) if isinstance(link, h5py.ExternalLink) else None)
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    outside += [name for name, item in found.items() if item.is_virtual or item.external]
    if outside:
        raise Refusal(f"{listing(outside)} lies in another file; copy the data into one file")
    return found


def hdf5_pixel_size(attributes: dict) -> Size:
    """From the attributes pixel_size, one number or (..., y, x), with unit (nm where there is none), or ImageJ's and ilastik's element_size_um, (z, y, x)."""
    micrometres = np.ravel(attributes.get("element_size_um", ()))
    sizes = np.ravel(attributes.get("pixel_size", micrometres))
    unit = attributes.get("unit", attributes.get("units", "nm")) if "pixel_size" in attributes else "um"
    return pair(sizes[-1], sizes[-2:][0], nm_per(unit)) if sizes.size else None


def write_hdf5(path: Path, micrograph: Micrograph) -> None:
    import h5py

    # From version 1.8 of the format on an attribute may exceed 64 KiB, as the metadata of some instruments do.
    with h5py.File(path, "w", libver=("v108", "v110")) as file:
        dataset = file.create_dataset("data", data=micrograph.data)
        dataset.attrs[METADATA_KEY] = to_json(micrograph.metadata)
        if micrograph.pixel_size is not None:
            dataset.attrs.update(pixel_size=float(micrograph.pixel_size), unit="nm")
