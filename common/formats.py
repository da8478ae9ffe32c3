"""Formats with one reader each: PNG and JPEG, HDF5, whatever RosettaSciIO reads; and what all readers share. TIFF has a file of its own.

A reader takes (path, frame) and returns (data, pixel size, metadata); `common.micrograph` turns that into a Micrograph.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from .micrograph import Micrograph

MAX_BYTES = 8 * 2**30  # 64k x 64k pixels of 16 bits still pass; a 1 kB file that declares terabytes does not
METADATA_KEY = "micrograph_json"  # where our own TIFF, HDF5 and HSPY files carry the metadata
NM_PER_UNIT = {"pm": 1e-3, "a": 0.1, "å": 0.1, "angstrom": 0.1, "ångström": 0.1, "nm": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3, "micron": 1e3,
               "microns": 1e3, "micrometer": 1e3, "mm": 1e6, "cm": 1e7, "m": 1e9}  # fmt: skip


Size = tuple[float, float] | None  # (x, y) in nm per pixel
Raw = tuple[np.ndarray, Size, dict]  # what each _read_* function returns


class Refusal(ValueError):
    """A reason that already says what to do."""


# --- Shared by the readers ---


def pick(counts: list[int], frame: int | None, holds: list[str]) -> tuple[int, int]:
    """(which group, index in it) of the image that is meant, where group i holds counts[i] images."""
    total = sum(counts)
    if total == 0:
        raise Refusal(f"it holds no image ({listing(holds)}); give a file with a 2-D image")
    if frame is None and total > 1:
        raise Refusal(f"it holds {total} images ({listing(holds)}); pass frame=0..{total - 1} to choose one")
    if frame is not None and not 0 <= frame < total:
        raise Refusal(f"frame {frame} does not exist; pass frame=0..{total - 1}")
    group = next(group for group in range(len(counts)) if (frame or 0) < sum(counts[: group + 1]))
    return group, (frame or 0) - sum(counts[:group])


def listing(items: list[str]) -> str:
    return ", ".join(items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "") or "nothing"


def describe(name: str, array: Any) -> str:
    return f"{name} {'x'.join(map(str, array.shape)) or 'scalar'} {array.dtype}".strip()


def check_bytes(shape: tuple[int, ...], dtype: np.dtype) -> None:
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise Refusal(f"it declares {size / 2**30:.3g} GiB, the limit is {MAX_BYTES / 2**30:.3g} GiB; if you trust it, raise common.formats.MAX_BYTES")


def to_grey(data: np.ndarray, path: Path) -> np.ndarray:
    """(H, W), or (H, W, 1 | 3 | 4) in the order R, G, B, alpha -> (H, W) of the same dtype; alpha says nothing about the specimen."""
    if data.ndim != 3 or data.shape[2] not in (1, 3, 4):
        return data
    rgb = data[..., :3]
    if (rgb == rgb[..., :1]).all():
        return rgb[..., 0]
    warnings.warn(f"{path} is a colour image: its BT.601 luminance is used", stacklevel=2)
    luminance = rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return (np.rint(luminance) if data.dtype.kind in "iu" else luminance).astype(data.dtype)


def nm_per(unit: Any) -> float | None:
    """nm per unit of length; None for no unit, pixels, inches (printers) and reciprocal lengths (diffraction patterns)."""
    text = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else unit if isinstance(unit, str) else ""
    # ImageJ escapes the micro sign, Unicode has two of it and two of the angstrom, Berkeley's EMD writes [n_m].
    text = text.replace("\\u00B5", "µ").replace("\u03bc", "µ").replace("\u212b", "Å").replace("_", "")
    return NM_PER_UNIT.get(text.strip(" []\0").lower())


def pair(x: Any, y: Any, factor: float | None) -> Size:
    """The two sizes times factor; None unless all are there, finite and not zero. An axis that runs backwards has a negative scale."""
    try:
        size = abs(float(x) * factor), abs(float(y) * factor)
    except (TypeError, ValueError):
        return None
    return size if all(0 < value < math.inf for value in size) else None


def isotropic(size: Size, metadata: dict, path: Path) -> float | None:
    """One number for both axes; where they differ, None, and both are kept in metadata["pixel_size_xy"]."""
    if size is None or abs(size[0] - size[1]) <= 1e-3 * max(size):
        return size[0] if size else None
    metadata["pixel_size_xy"] = list(size)
    warnings.warn(f"{path} has pixels of {size[0]:.4g} x {size[1]:.4g} nm: no single pixel size, both are in metadata['pixel_size_xy']", stacklevel=3)
    return None


def to_json(metadata: dict) -> str:
    def plain(value: Any) -> Any:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value.tolist() if hasattr(value, "tolist") else str(value)

    return json.dumps(metadata, default=plain, skipkeys=True)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".;") or type(error).__name__


# --- PNG, JPEG, BMP ---


def read_raster(path: Path, frame: int | None) -> Raw:
    pick([1], frame, [])
    data = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if data is None:
        raise ValueError("OpenCV cannot decode it")
    return to_grey(data[..., 2::-1] if data.ndim == 3 else data, path), None, {}


def write_png(path: Path, micrograph: Micrograph) -> None:
    if micrograph.data.dtype.name not in ("uint8", "uint16"):
        raise Refusal(f"PNG holds uint8 and uint16, not {micrograph.data.dtype}; use .tif")
    if micrograph.pixel_size is not None:
        warnings.warn("PNG does not keep the pixel size; use .tif to keep it", stacklevel=3)
    cv2.imencode(".png", micrograph.data)[1].tofile(path)


# --- HDF5 ---


def read_hdf5(path: Path, frame: int | None) -> Raw:
    import h5py

    with h5py.File(path, "r") as file:
        found = hdf5_datasets(file)
        images = {name: item for name, item in found.items() if item.ndim in (2, 3) and item.dtype.kind in "iufc"}
        holds = [describe(name, item) for name, item in (images or found).items()]
        if len(images) > 1:
            raise Refusal(f"it holds several image datasets ({listing(holds)}); save the one you want in a file of its own")
        dataset = next(iter(images.values()), np.empty((0, 0, 0)))
        is_stack = dataset.ndim == 3 and dataset.shape[2] not in (1, 3, 4)
        _, index = pick([len(dataset) if is_stack else 1], frame, holds)
        check_bytes(dataset.shape[is_stack:], dataset.dtype)
        data = to_grey(dataset[index] if is_stack else dataset[()], path)
        attributes = {**file.attrs, **dataset.attrs}
    sizes = np.ravel(attributes.get("pixel_size", ()))  # one number, or (..., y, x)
    size = pair(sizes[-1], sizes[-2:][0], nm_per(attributes.get("unit", attributes.get("units", "nm")))) if sizes.size else None
    return data, size, json.loads(attributes[METADATA_KEY]) if METADATA_KEY in attributes else attributes


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


def write_hdf5(path: Path, micrograph: Micrograph) -> None:
    import h5py

    # From version 1.8 of the format on an attribute may exceed 64 KiB, as the metadata of some instruments do.
    with h5py.File(path, "w", libver=("v108", "v110")) as file:
        dataset = file.create_dataset("data", data=micrograph.data)
        dataset.attrs[METADATA_KEY] = to_json(micrograph.metadata)
        if micrograph.pixel_size is not None:
            dataset.attrs.update(pixel_size=float(micrograph.pixel_size), unit="nm")


# --- Everything else, through RosettaSciIO ---


def read_rsciio(path: Path, frame: int | None) -> Raw:
    """A signal with two image axes counts as one image or a stack; spectra and spectrum images are passed over."""
    signals = _rsciio_signals(path)
    images = [(image, signal) for signal in signals if (image := _rsciio_stack(signal)) is not None]
    holds = [describe(signal["metadata"].get("General", {}).get("title", ""), signal["data"]) for signal in signals]
    which, index = pick([len(stack) for (stack, *_), _ in images], frame, holds)
    (stack, y, x), signal = images[which]
    data = np.asarray(stack[index])
    if data.dtype.names:  # RosettaSciIO's RGB pixels are records
        data = np.stack([data[name] for name in data.dtype.names], axis=-1)
    scales = [(axis.get("scale") or 0) * (nm_per(axis.get("units")) or 0) for axis in (x, y)]
    axes = [{key: axis.get(key) for key in ("name", "scale", "units")} for axis in (y, x)]
    own = signal.get("original_metadata", {}).get(METADATA_KEY)
    return to_grey(data, path), pair(*scales, 1.0), json.loads(own) if own else {**signal["metadata"], "axes": axes}


def _rsciio_signals(path: Path) -> list[dict]:
    import h5py
    import rsciio

    extension = path.suffix.lower()[1:]
    plugins = [spec for spec in rsciio.IO_PLUGINS if extension in map(str.lower, spec["file_extensions"])]
    if not plugins:
        raise Refusal(f"the extension {path.suffix or '(none)'} is unknown; use TIFF, PNG, JPEG, HDF5 or a format that RosettaSciIO reads")
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            for dataset in hdf5_datasets(file).values():  # the plugins read the whole file
                check_bytes(dataset.shape or (), dataset.dtype)
    errors = []
    for spec in sorted(plugins, key=lambda spec: spec["name"].lower() != extension):  # .mrc: MRC before MRCZ, which needs another package
        try:
            return importlib.import_module(spec["api"]).file_reader(os.fspath(path))
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _rsciio_stack(signal: dict) -> tuple[np.ndarray, dict, dict] | None:
    """(data (n, H, W), y axis, x axis), or None where the signal is no image."""
    data, axes = signal["data"], signal["axes"]
    image_axes = [i for i, axis in enumerate(axes) if not axis.get("navigate")]
    if not image_axes and len(axes) == 2:  # a map, whose two axes both count as navigation
        image_axes = [0, 1]
    if len(image_axes) != 2 or data.ndim != len(axes):
        return None
    if [str(axes[i].get("name")).lower() for i in image_axes] == ["x", "y"]:  # RosettaSciIO hands Berkeley's EMD over transposed
        image_axes.reverse()
    stack = np.moveaxis(data, image_axes, (-2, -1))
    return stack.reshape(-1, *stack.shape[-2:]), axes[image_axes[0]], axes[image_axes[1]]


def write_hspy(path: Path, micrograph: Micrograph) -> None:
    from rsciio.hspy import file_writer

    scale = {"scale": 1.0, "units": None} if micrograph.pixel_size is None else {"scale": float(micrograph.pixel_size), "units": "nm"}
    axes = [{"name": name, "size": size, "offset": 0.0, "navigate": False, **scale} for name, size in zip("yx", micrograph.data.shape, strict=True)]
    title = Path(micrograph.source or "micrograph").stem
    signal = {"data": micrograph.data, "axes": axes, "metadata": {"General": {"title": title}, "Signal": {"signal_type": ""}}}
    signal |= {"original_metadata": {METADATA_KEY: to_json(micrograph.metadata)}, "attributes": {"_lazy": False}}
    signal |= {name: {} for name in ("package_info", "learning_results", "models", "tmp_parameters")}  # the writer asks for them
    file_writer(os.fspath(path), signal, show_progressbar=False)
