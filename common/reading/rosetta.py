"""The microscopes' own formats (dm3, dm4, emd, ser, mrc, hspy, ...), read and written through RosettaSciIO, which is imported only when one is met."""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .formats import METADATA_KEY, Raw, check_bytes, describe, hdf5_datasets, nm_per, pair, pick, reciprocal, to_grey, to_json
from .guards import Refusal, check_dm, check_heaps, check_mrc

if TYPE_CHECKING:
    from ..micrograph import Micrograph

LONGEST_METADATA = 1_000_000  # characters of JSON
CHECKS = {"mrc": check_mrc, "ali": check_mrc, "dm3": check_dm, "dm4": check_dm}
PLUGINS = ("Blockfile", "Bruker", "DigitalMicrograph", "EMD", "HSPY", "JEOL", "MRC", "MRCZ", "NeXus", "Phenom", "Semper", "TIA", "TVIPS")  # of microscopes
MRC_NOT_SET = 0.1  # nm: programs that do not know the size write 1 A per pixel


def read_rosetta(path: Path, frame: int | None, extension: str | None = None) -> Raw:
    """A signal with two image axes counts as one image or a stack; spectra and spectrum images are passed over. extension: where the file's own is wrong."""
    import h5py

    if extension is None and h5py.is_hdf5(path):
        check_heaps(path)
    extension = extension or path.suffix.lower()[1:]
    CHECKS.get(extension, lambda _: None)(path)
    signals, plugin = _signals(path, extension)
    stacks = [(*_stack(signal), signal) for signal in signals]
    holds = [describe(signal["metadata"].get("General", {}).get("title", ""), data) for data, *_, signal in stacks]
    images = [stack for stack in stacks if stack[1]]
    which, index = pick([math.prod(data.shape[:-2]) for data, *_ in images], frame, holds)
    data, y, x, signal = images[which]
    data = np.asarray(data[np.unravel_index(index, data.shape[:-2])])
    if data.dtype.names:  # RosettaSciIO's RGB pixels are records
        data = np.stack([data[name] for name in data.dtype.names], axis=-1)
    # An axis that runs backwards has a negative scale.
    scales = [abs(axis.get("scale") or 0) * (nm_per(axis.get("units")) or 0) for axis in (x, y)]
    axes = [{key: axis.get(key) for key in ("name", "scale", "units")} for axis in (y, x)]
    original = signal.get("original_metadata", {})
    own = original.get(METADATA_KEY)
    raw = Raw(data, pair(*scales, 1.0), json.loads(own) if own else {**signal["metadata"], "axes": axes, **instrument(original)})
    raw.notes += reciprocal(x.get("units"), y.get("units"))
    if plugin == "MRC" and raw.size and np.allclose(raw.size, MRC_NOT_SET, rtol=1e-6, atol=0):
        raw.size = None
        raw.notes.append("its header says 1 A per pixel, which MRC writers put where the size is not known: no pixel size")
    raw.data = to_grey(data, raw.notes)
    return raw


def instrument(original: dict) -> dict:
    """{"original_metadata": all that the instrument wrote}, or nothing where that is longer than LONGEST_METADATA."""
    return {"original_metadata": original} if original and len(to_json(original)) <= LONGEST_METADATA else {}


def microscope_plugins() -> list[dict]:
    import rsciio

    logger = logging.getLogger("rsciio")  # its own handler writes to the terminal; what is said is kept by `guards.Log`
    for handler in [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]:
        logger.removeHandler(handler)
    return [spec for spec in rsciio.IO_PLUGINS if spec["name"] in PLUGINS]


def other_extensions() -> set[str]:
    """The extensions of formats that are not known by their first bytes."""
    known = {f".{extension.lower()}" for plugin in microscope_plugins() for extension in plugin["file_extensions"]}
    return known - {".emi", ".map"}  # an .emi is looked at first; a .map is JEOL's, or CCP4's, which is MRC


def _signals(path: Path, extension: str) -> tuple[list[dict], str]:
    """The signals of a file, and the name of the plugin that read it."""
    import h5py

    plugins = [spec for spec in microscope_plugins() if extension in map(str.lower, spec["file_extensions"])]
    if not plugins:
        raise Refusal(f"the extension {path.suffix or '(none)'} is unknown; use TIFF, PNG, JPEG, HDF5 or a format that RosettaSciIO reads")
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            for dataset in hdf5_datasets(file).values():  # the plugins read the whole file
                check_bytes(dataset.shape or (), dataset.dtype, dataset.id.get_storage_size())
    errors = []
    for spec in sorted(plugins, key=lambda spec: spec["name"].lower() != extension):  # .mrc: MRC before MRCZ, which needs another package
        try:
            return importlib.import_module(spec["api"]).file_reader(os.fspath(path)), spec["name"]
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _stack(signal: dict) -> tuple[np.ndarray, dict | None, dict | None]:
    """(data (..., H, W), y axis, x axis), or (data, None, None) where the signal is no image."""
    data, axes = signal["data"], signal["axes"]
    image_axes = [i for i, axis in enumerate(axes) if not axis.get("navigate")]
    if not image_axes and len(axes) == 2:  # a map, whose two axes both count as navigation
        image_axes = [0, 1]
    if len(image_axes) != 2 or data.ndim != len(axes):
        return data, None, None
    if [str(axes[i].get("name")).lower() for i in image_axes] == ["x", "y"]:  # RosettaSciIO hands Berkeley's EMD over transposed
        image_axes.reverse()
    return np.moveaxis(data, image_axes, (-2, -1)), axes[image_axes[0]], axes[image_axes[1]]


def write_hspy(path: Path, micrograph: Micrograph) -> None:
    from rsciio.hspy import file_writer

    scale = {"scale": 1.0, "units": None} if micrograph.pixel_size is None else {"scale": float(micrograph.pixel_size), "units": "nm"}
    axes = [{"name": name, "size": size, "offset": 0.0, "navigate": False, **scale} for name, size in zip("yx", micrograph.data.shape, strict=True)]
    title = Path(micrograph.source or "micrograph").stem
    signal = {"data": micrograph.data, "axes": axes, "metadata": {"General": {"title": title}, "Signal": {"signal_type": ""}}}
    signal |= {"original_metadata": {METADATA_KEY: to_json(micrograph.metadata)}, "attributes": {"_lazy": False}}
    signal |= {name: {} for name in ("package_info", "learning_results", "models", "tmp_parameters")}  # the writer asks for them
    file_writer(os.fspath(path), signal, show_progressbar=False)
