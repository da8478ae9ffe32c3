"""Micrographs on disk: one frozen record, one reader, one writer.

TIFF is read with tifffile, PNG, JPEG and BMP with OpenCV, HDF5 with h5py, the microscopes' own formats (dm3, dm4, emd, ser, mrc, hspy, ...) with RosettaSciIO.
Data bars are not cropped, and NaN or infinite pixels are kept: that is for restoring to meet.
"""

import dataclasses
import importlib
import json
import math
import operator
import os
import uuid
import warnings
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

MAX_BYTES = 8 * 2**30  # 64k x 64k pixels of 16 bits still pass; a 1 kB file that declares terabytes does not
PRINT_DENSITY = 1000.0  # pixels per cm: up to 2540 dpi a resolution tag speaks of paper, as no micrograph has pixels above 10 um
IMAGEJ_DTYPES = ("uint8", "uint16", "int16", "float32")  # what ImageJ's variant of TIFF can hold
EXACT_KEY, METADATA_KEY = "pixel_size_nm", "micrograph_json"  # what our own files carry
NM_PER_UNIT = {"pm": 1e-3, "a": 0.1, "å": 0.1, "angstrom": 0.1, "ångström": 0.1, "nm": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3, "micron": 1e3,
               "microns": 1e3, "micrometer": 1e3, "mm": 1e6, "cm": 1e7, "m": 1e9}  # fmt: skip

Size = tuple[float, float] | None  # (x, y) in nm per pixel
Raw = tuple[np.ndarray, Size, dict]  # what each _read_* function returns


class _Refusal(ValueError):
    """A reason that already says what to do."""


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
            raise _Refusal(f"the pixels are {getattr(self.data, 'dtype', type(self.data))}; real numbers are needed (of complex ones take modulus or phase)")
        if self.data.ndim != 2 or not self.data.size:
            raise _Refusal(f"the array has shape {self.data.shape}; a micrograph is one non-empty (H, W) image")
        if self.pixel_size is not None and not (math.isfinite(self.pixel_size) and self.pixel_size > 0):
            raise _Refusal(f"pixel_size is {self.pixel_size}; give a positive number of nm per pixel, or None")

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
        data, size, metadata = READERS.get(path.suffix.lower(), _read_rsciio)(path, None if frame is None else operator.index(frame))
        metadata = json.loads(_to_json(metadata))
        pixel_size = _isotropic(size, metadata, path)
        # A copy, so that neither a memory map of the file nor the rest of a stack lives on behind the view.
        return Micrograph(np.array(data, dtype=data.dtype.newbyteorder("="), order="C"), pixel_size, metadata, str(path))
    except _Refusal as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    except Exception as error:  # on a damaged file a parser raises anything from KeyError to struct.error
        raise ValueError(f"cannot read {path}: {_one_line(error)}; check that the file is complete and is what its extension says") from error


def save_micrograph(path: str | os.PathLike, micrograph: Micrograph) -> Path:
    """Write .tif, .tiff, .png, .h5, .hdf5 or .hspy in the micrograph's own dtype; the file appears whole or not at all.

    TIFF (in ImageJ's variant where that knows the dtype), HDF5 and HSPY keep pixel_size and metadata exactly; PNG takes uint8 and uint16 only and
    keeps neither, with a warning. Raises ValueError for an extension or dtype that cannot be written, OSError where the folder does not allow it.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        if path.suffix.lower() not in WRITERS:
            raise _Refusal(f"the extension {path.suffix or '(none)'} is not one of ours; use .tif, .png, .h5 or .hspy")
        temporary.touch(exist_ok=False)  # asks the folder before a format library can wrap its answer
        native = micrograph.data.astype(micrograph.data.dtype.newbyteorder("="), copy=False)  # OpenCV would not notice foreign bytes
        WRITERS[path.suffix.lower()](temporary, micrograph.replace(data=native))
        os.replace(temporary, path)
    except _Refusal as error:
        raise ValueError(f"cannot write {path}: {error}") from error
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or _one_line(error)}; choose an existing folder that you may write to") from error
    except Exception as error:
        raise ValueError(f"cannot write {path}: {_one_line(error)}; another extension may hold this image") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
    return path


# --- Shared by the readers -------------------------------------------------------------------------------------------


def _pick(counts: list[int], frame: int | None, holds: list[str]) -> tuple[int, int]:
    """(which group, index in it) of the image that is meant, where group i holds counts[i] images."""
    total = sum(counts)
    if total == 0:
        raise _Refusal(f"it holds no image ({_listing(holds)}); give a file with a 2-D image")
    if frame is None and total > 1:
        raise _Refusal(f"it holds {total} images ({_listing(holds)}); pass frame=0..{total - 1} to choose one")
    if frame is not None and not 0 <= frame < total:
        raise _Refusal(f"frame {frame} does not exist; pass frame=0..{total - 1}")
    group = next(group for group in range(len(counts)) if (frame or 0) < sum(counts[: group + 1]))
    return group, (frame or 0) - sum(counts[:group])


def _listing(items: list[str]) -> str:
    return ", ".join(items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "") or "nothing"


def _describe(name: str, array: Any) -> str:
    return f"{name} {'x'.join(map(str, array.shape)) or 'scalar'} {array.dtype}".strip()


def _check_bytes(shape: tuple[int, ...], dtype: np.dtype) -> None:
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise _Refusal(f"it declares {size / 2**30:.3g} GiB, the limit is {MAX_BYTES / 2**30:.3g} GiB; if you trust it, raise common.micrograph.MAX_BYTES")


def _to_grey(data: np.ndarray, path: Path) -> np.ndarray:
    """(H, W), or (H, W, 1 | 3 | 4) in the order R, G, B, alpha -> (H, W) of the same dtype; alpha says nothing about the specimen."""
    if data.ndim != 3 or data.shape[2] not in (1, 3, 4):
        return data
    rgb = data[..., :3]
    if (rgb == rgb[..., :1]).all():
        return rgb[..., 0]
    warnings.warn(f"{path} is a colour image: its BT.601 luminance is used", stacklevel=2)
    luminance = rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return (np.rint(luminance) if data.dtype.kind in "iu" else luminance).astype(data.dtype)


def _nm_per(unit: Any) -> float | None:
    """nm per unit of length; None for no unit, pixels, inches (printers) and reciprocal lengths (diffraction patterns)."""
    text = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else unit if isinstance(unit, str) else ""
    # ImageJ escapes the micro sign, Unicode has two of it and two of the angstrom, Berkeley's EMD writes [n_m].
    text = text.replace("\\u00B5", "µ").replace("\u03bc", "µ").replace("\u212b", "Å").replace("_", "")
    return NM_PER_UNIT.get(text.strip(" []\0").lower())


def _pair(x: Any, y: Any, factor: float | None) -> Size:
    """The two sizes times factor; None unless all are there, finite and not zero. An axis that runs backwards has a negative scale."""
    try:
        size = abs(float(x) * factor), abs(float(y) * factor)
    except (TypeError, ValueError):
        return None
    return size if all(0 < value < math.inf for value in size) else None


def _isotropic(size: Size, metadata: dict, path: Path) -> float | None:
    """One number for both axes; where they differ, None, and both are kept in metadata["pixel_size_xy"]."""
    if size is None or abs(size[0] - size[1]) <= 1e-3 * max(size):
        return size[0] if size else None
    metadata["pixel_size_xy"] = list(size)
    warnings.warn(f"{path} has pixels of {size[0]:.4g} x {size[1]:.4g} nm: no single pixel size, both are in metadata['pixel_size_xy']", stacklevel=3)
    return None


def _to_json(metadata: dict) -> str:
    def plain(value: Any) -> Any:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value.tolist() if hasattr(value, "tolist") else str(value)

    return json.dumps(metadata, default=plain, skipkeys=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".;") or type(error).__name__


# --- PNG, JPEG, BMP --------------------------------------------------------------------------------------------------


def _read_raster(path: Path, frame: int | None) -> Raw:
    _pick([1], frame, [])
    data = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if data is None:
        raise ValueError("OpenCV cannot decode it")
    return _to_grey(data[..., 2::-1] if data.ndim == 3 else data, path), None, {}


def _write_png(path: Path, micrograph: Micrograph) -> None:
    if micrograph.data.dtype.name not in ("uint8", "uint16"):
        raise _Refusal(f"PNG holds uint8 and uint16, not {micrograph.data.dtype}; use .tif")
    if micrograph.pixel_size is not None:
        warnings.warn("PNG does not keep the pixel size; use .tif to keep it", stacklevel=3)
    cv2.imencode(".png", micrograph.data)[1].tofile(path)


# --- TIFF ------------------------------------------------------------------------------------------------------------


def _read_tiff(path: Path, frame: int | None) -> Raw:
    # is_ome=False: an OME header may name further files, and only the file that was asked for is to be opened.
    with tifffile.TiffFile(path, is_ome=False) as tif:
        series = [s for s in tif.series if not s.keyframe.is_reduced] or list(tif.series)
        counts = [math.prod(s.shape) // max(1, math.prod(s.keyframe.shape)) for s in series]
        which, index = _pick(counts, frame, [_describe("", s) for s in series])
        data = _tiff_image(path, series[which], index, counts[which])
        own = tif.imagej_metadata or (tif.shaped_metadata or ({},))[0]
        vendors = {name: values for name in ("imagej", "fei", "sem") if (values := getattr(tif, f"{name}_metadata"))}
        size = _tiff_pixel_size(series[which].keyframe, own, vendors)
    return _to_grey(data, path), size, json.loads(own[METADATA_KEY]) if METADATA_KEY in own else vendors


def _tiff_image(path: Path, series: tifffile.TiffPageSeries, index: int, count: int) -> np.ndarray:
    key = series.keyframe
    if len(series.pages) == count:
        _check_bytes(key.shape, key.dtype)
        try:
            data = series.pages[index].asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            data = _tiff_through_opencv(path, series.pages[index].index, key)
    else:  # ImageJ and tifffile may describe a whole stack in its first page
        _check_bytes(series.shape, series.dtype)
        data = series.asarray().reshape(count, *key.shape)[index]
    if key.samplesperpixel > 1 and key.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        return np.moveaxis(data, 0, -1)
    if key.photometric == tifffile.PHOTOMETRIC.MINISWHITE and data.dtype.kind == "u":
        return data.dtype.type(2**key.bitspersample - 1) - data
    if key.photometric == tifffile.PHOTOMETRIC.PALETTE:
        # Zeiss writes grey values with a palette that is grey but for some overlay colours: there the indices are the image.
        ramp = np.linspace(0, 65535, key.colormap.shape[1])
        if (np.abs(key.colormap - ramp) < 257).all(axis=0).mean() < 0.5:
            return (key.colormap.T[data] >> 8).astype(np.uint8)
    return data


def _tiff_through_opencv(path: Path, index: int, key: tifffile.TiffPage) -> np.ndarray:
    """LZW and the like, which tifffile leaves to the imagecodecs package and OpenCV decodes for the usual dtypes."""
    if key.photometric == tifffile.PHOTOMETRIC.MINISBLACK and key.samplesperpixel == 1:
        decoded, pages = cv2.imreadmulti(os.fspath(path), start=index, count=1, flags=cv2.IMREAD_UNCHANGED)
        if decoded and pages[0].dtype == key.dtype.newbyteorder("=") and pages[0].shape == key.shape:
            return pages[0]
    raise _Refusal(f"its compression ({key.compression.name}) needs another decoder; install imagecodecs or save the image uncompressed")


def _tiff_pixel_size(page: tifffile.TiffPage, own: dict, vendors: dict) -> Size:
    """Our own exact value, the instrument's (FEI/Thermo, Zeiss), or the resolution tag, in this order."""
    tags = [page.tags[name].value for name in ("XResolution", "YResolution") if name in page.tags]
    density = [value[0] / value[1] for value in tags if isinstance(value, tuple) and len(value) == 2 and all(value)]
    nm = _nm_per(vendors.get("imagej", {}).get("unit"))
    # Inches, and centimetres up to PRINT_DENSITY, are a printer's default and no calibration.
    if nm is None and density and page.resolutionunit == tifffile.RESUNIT.CENTIMETER and density[0] > PRINT_DENSITY:
        nm = 1e7
    tag = _pair(1 / density[0], 1 / density[1], nm) if len(density) == 2 else None
    exact = _pair(own.get(EXACT_KEY), own.get(EXACT_KEY), 1.0)
    # A program that rescales the image but keeps the description leaves a stale value behind, which the tag gives away.
    if exact and (tag is None or math.isclose(tag[0], exact[0], rel_tol=1e-3)):
        return exact
    scan = vendors.get("fei", {}).get("Scan", {})
    return _pair(scan.get("PixelWidth"), scan.get("PixelHeight"), 1e9) or _zeiss_pixel_size(vendors.get("sem", {}), page.imagewidth) or tag


def _zeiss_pixel_size(sem: dict, width: int) -> Size:
    """From the header in metres for a field 1024 pixels wide, whatever the image's width; the stated size of the image's pixels overrules it."""
    header, stated = sem.get("", ()), sem.get("ap_image_pixel_size", ())
    nominal = _pair(header[3], header[3], 1e9 * 1024 / width) if len(header) > 3 else None
    exact = _pair(stated[1], stated[1], _nm_per(stated[2])) if len(stated) == 3 else None
    return exact if exact and not (nominal and math.isclose(nominal[0], exact[0], rel_tol=1e-3)) else nominal  # the header has more digits


def _write_tiff(path: Path, micrograph: Micrograph) -> None:
    data, size = micrograph.data, micrograph.pixel_size
    imagej = data.dtype.name in IMAGEJ_DTYPES and data.nbytes < 2**31  # ImageJ's variant knows no BigTIFF
    density = _rational((1.0 if imagej else 1e7) / size) if size else None
    # "=" would end a value in ImageJ's description; inside a JSON string its escape means the same.
    description = {"axes": "YX", METADATA_KEY: _to_json(micrograph.metadata).replace("=", "\\u003d")}
    description |= ({EXACT_KEY: float(size)} if size else {}) | ({"unit": "nm"} if density else {})
    resolution = {"resolution": (density, density), "resolutionunit": "NONE" if imagej else "CENTIMETER"} if density else {}
    tifffile.imwrite(path, data, imagej=imagej, photometric="minisblack", metadata=description, **resolution)


def _rational(value: float) -> tuple[int, int] | None:
    """The closest fraction of two 32-bit integers, as TIFF's resolution needs it; None where there is no good one."""
    largest = 2**32 - 1
    fraction = Fraction(value).limit_denominator(max(1, min(largest, int(largest / value))))
    good = fraction.numerator <= largest and math.isclose(fraction, value, rel_tol=1e-6)
    return (fraction.numerator, fraction.denominator) if good else None


# --- HDF5 ------------------------------------------------------------------------------------------------------------


def _read_hdf5(path: Path, frame: int | None) -> Raw:
    import h5py

    with h5py.File(path, "r") as file:
        found = _hdf5_datasets(file)
        images = {name: item for name, item in found.items() if item.ndim in (2, 3) and item.dtype.kind in "iufc"}
        holds = [_describe(name, item) for name, item in (images or found).items()]
        if len(images) > 1:
            raise _Refusal(f"it holds several image datasets ({_listing(holds)}); save the one you want in a file of its own")
        dataset = next(iter(images.values()), np.empty((0, 0, 0)))
        is_stack = dataset.ndim == 3 and dataset.shape[2] not in (3, 4)
        _, index = _pick([len(dataset) if is_stack else 1], frame, holds)
        _check_bytes(dataset.shape[is_stack:], dataset.dtype)
        data = _to_grey(dataset[index] if is_stack else dataset[()], path)
        attributes = {**file.attrs, **dataset.attrs}
    sizes = np.ravel(attributes.get("pixel_size", ()))  # one number, or (..., y, x)
    size = _pair(sizes[-1], sizes[-2:][0], _nm_per(attributes.get("unit", attributes.get("units", "nm")))) if sizes.size else None
    return data, size, json.loads(attributes[METADATA_KEY]) if METADATA_KEY in attributes else attributes


def _hdf5_datasets(file: Any) -> dict[str, Any]:
    """All datasets of an open file by name; refuses a file whose data lie partly in others."""
    import h5py

    outside: list[str] = []
    found: dict[str, h5py.Dataset] = {}
    file.visititems_links(lambda name, link: outside.append(name) if isinstance(link, h5py.ExternalLink) else None)
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    outside += [name for name, item in found.items() if item.is_virtual or item.external]
    if outside:
        raise _Refusal(f"{_listing(outside)} lies in another file; copy the data into one file")
    return found


def _write_hdf5(path: Path, micrograph: Micrograph) -> None:
    import h5py

    # From version 1.8 of the format on an attribute may exceed 64 KiB, as the metadata of some instruments do.
    with h5py.File(path, "w", libver=("v108", "v110")) as file:
        dataset = file.create_dataset("data", data=micrograph.data)
        dataset.attrs[METADATA_KEY] = _to_json(micrograph.metadata)
        if micrograph.pixel_size is not None:
            dataset.attrs.update(pixel_size=float(micrograph.pixel_size), unit="nm")


# --- Everything else, through RosettaSciIO ---------------------------------------------------------------------------


def _read_rsciio(path: Path, frame: int | None) -> Raw:
    """A signal with two image axes counts as one image or a stack; spectra and spectrum images are passed over."""
    signals = _rsciio_signals(path)
    images = [(image, signal) for signal in signals if (image := _rsciio_stack(signal)) is not None]
    holds = [_describe(signal["metadata"].get("General", {}).get("title", ""), signal["data"]) for signal in signals]
    which, index = _pick([len(stack) for (stack, *_), _ in images], frame, holds)
    (stack, y, x), signal = images[which]
    data = np.asarray(stack[index])
    if data.dtype.names:  # RosettaSciIO's RGB pixels are records
        data = np.stack([data[name] for name in data.dtype.names], axis=-1)
    scales = [(axis.get("scale") or 0) * (_nm_per(axis.get("units")) or 0) for axis in (x, y)]
    axes = [{key: axis.get(key) for key in ("name", "scale", "units")} for axis in (y, x)]
    own = signal.get("original_metadata", {}).get(METADATA_KEY)
    return _to_grey(data, path), _pair(*scales, 1.0), json.loads(own) if own else {**signal["metadata"], "axes": axes}


def _rsciio_signals(path: Path) -> list[dict]:
    import h5py
    import rsciio

    extension = path.suffix.lower()[1:]
    plugins = [spec for spec in rsciio.IO_PLUGINS if extension in map(str.lower, spec["file_extensions"])]
    if not plugins:
        raise _Refusal(f"the extension {path.suffix or '(none)'} is unknown; use TIFF, PNG, JPEG, HDF5 or a format that RosettaSciIO reads")
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            for dataset in _hdf5_datasets(file).values():  # the plugins read the whole file
                _check_bytes(dataset.shape or (), dataset.dtype)
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


def _write_hspy(path: Path, micrograph: Micrograph) -> None:
    from rsciio.hspy import file_writer

    scale = {"scale": 1.0, "units": None} if micrograph.pixel_size is None else {"scale": float(micrograph.pixel_size), "units": "nm"}
    axes = [{"name": name, "size": size, "offset": 0.0, "navigate": False, **scale} for name, size in zip("yx", micrograph.data.shape, strict=True)]
    title = Path(micrograph.source or "micrograph").stem
    signal = {"data": micrograph.data, "axes": axes, "metadata": {"General": {"title": title}, "Signal": {"signal_type": ""}}}
    signal |= {"original_metadata": {METADATA_KEY: _to_json(micrograph.metadata)}, "attributes": {"_lazy": False}}
    signal |= {name: {} for name in ("package_info", "learning_results", "models", "tmp_parameters")}  # the writer asks for them
    file_writer(os.fspath(path), signal, show_progressbar=False)


READERS = (
    dict.fromkeys((".tif", ".tiff"), _read_tiff) | dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), _read_raster) | dict.fromkeys((".h5", ".hdf5"), _read_hdf5)
)
WRITERS = {".tif": _write_tiff, ".tiff": _write_tiff, ".png": _write_png, ".h5": _write_hdf5, ".hdf5": _write_hdf5, ".hspy": _write_hspy}
