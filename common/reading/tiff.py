"""TIFF, the format with the most dialects: plain, ImageJ's, OME's and the instruments' (those are in `common.reading.vendors`)."""

from __future__ import annotations

import json
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import tifffile

from .formats import MAX_RATIO, METADATA_KEY, Raw, Size, check_bytes, describe, length, nm_per, pair, pick, reciprocal, to_grey, to_json
from .guards import Refusal, overheard
from .vendors import beside, of_tiff, resolution

if TYPE_CHECKING:
    from ..micrograph import Micrograph

PRINT_DENSITY = 1000.0  # pixels per cm: up to 2540 dpi a resolution tag speaks of paper, as no micrograph has pixels above 10 um
IMAGEJ_DTYPES = ("uint8", "uint16", "int16", "float32")  # what ImageJ's variant of TIFF can hold
EXACT_KEY = "pixel_size_nm"  # the exact value in our own files


def read_tiff(path: Path, frame: int | None) -> Raw:
    # is_ome=False: an OME header may name further files, and only the file that was asked for is to be opened.
    with tifffile.TiffFile(path, is_ome=False) as tif:
        len(tif.pages)  # walks the whole chain and breaks circles, in which `series` would go round for ever
        series = [s for s in tif.series if not s.keyframe.is_reduced] or list(tif.series)
        counts = [math.prod(s.shape) // max(1, math.prod(s.keyframe.shape)) for s in series]
        which, index = pick(counts, frame, [describe("", s) for s in series])
        page = series[which].keyframe
        notes: list[str] = []
        data = _image(path, series[which], index, counts[which], notes)
        imagej = tif.imagej_metadata or {}
        own = imagej or (tif.shaped_metadata or ({},))[0]
        ours = METADATA_KEY in own
        instruments = [] if ours else [*of_tiff(tif, page, data), *filter(None, [beside(path, data.shape)])]
        vendors = ({"imagej": imagej} if imagej else {}) | {instrument.name: instrument.values for instrument in instruments}
        raw = Raw(data, metadata=json.loads(own[METADATA_KEY]) if ours else vendors, notes=notes)
        raw.notes += [note for instrument in instruments for note in instrument.notes] + reciprocal(imagej.get("unit"))
        exact, stated = length(own.get(EXACT_KEY), 1.0), next((instrument.size for instrument in instruments if instrument.size), None)
        tag = None if any(i.notes for i in instruments) or reciprocal(imagej.get("unit")) else _resolution_size(page, imagej)
        # A program that rescales the image but keeps the description leaves a stale value behind, which the tag gives away.
        raw.size = (exact, exact) if exact and (tag is None or math.isclose(tag[0], exact, rel_tol=1e-3)) else stated or tag
    raw.bar = next((instrument.bar for instrument in instruments if instrument.bar), None)
    raw.data = to_grey(data, raw.notes)
    return raw


def _image(path: Path, series: tifffile.TiffPageSeries, index: int, count: int, notes: list[str]) -> np.ndarray:
    key = series.keyframe
    if key.dtype is None:
        raise Refusal(f"its pixels of {key.bitspersample} bits are of an unknown kind; save it with 8 or 16 bits")
    plain = key.compression == tifffile.COMPRESSION.NONE and key.bitspersample == 8 * key.dtype.itemsize
    check_bytes(key.shape, key.dtype, path.stat().st_size, 1 if plain else MAX_RATIO)
    if len(key.dataoffsets) < math.prod(key.chunked):
        raise Refusal(f"it has {len(key.dataoffsets)} of the {math.prod(key.chunked)} pieces of its image; copy the file again")
    if len(series.pages) == count:
        try:
            data = series.pages[index].asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            data = _through_opencv(path, series.pages[index].index, key, notes)
    else:  # ImageJ and tifffile may describe a whole stack, of any size, in its first page
        pixels = math.prod(key.shape)
        dtype = key.dtype.newbyteorder(series.parent.byteorder)
        data = series.parent.filehandle.read_array(dtype, pixels, series.dataoffset + index * pixels * dtype.itemsize).reshape(key.shape)
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


def _through_opencv(path: Path, index: int, key: tifffile.TiffPage, notes: list[str]) -> np.ndarray:
    """LZW and the like, which tifffile leaves to the imagecodecs package and OpenCV decodes for the usual dtypes."""
    if key.photometric == tifffile.PHOTOMETRIC.MINISBLACK and key.samplesperpixel == 1:
        with overheard() as heard:
            decoded, pages = cv2.imreadmulti(os.fspath(path), start=index, count=1, flags=cv2.IMREAD_UNCHANGED)
        notes += [f"it is damaged, parts of the image may be wrong ({heard[0]})"] if heard else []
        if decoded and pages[0].dtype == key.dtype.newbyteorder("=") and pages[0].shape == key.shape:
            return pages[0]
    raise Refusal(f"its compression ({key.compression.name}) needs another decoder; install imagecodecs or save the image uncompressed")


def _resolution_size(page: tifffile.TiffPage, imagej: dict) -> Size:
    """From the resolution tags, in ImageJ's unit where there is one."""
    density, nm = resolution(page), nm_per(imagej.get("unit"))
    # Inches, and centimetres up to PRINT_DENSITY, are a printer's default and no calibration.
    if nm is None and page.resolutionunit == tifffile.RESUNIT.CENTIMETER and density and density[0] > PRINT_DENSITY:
        nm = 1e7
    return pair(1 / density[0], 1 / density[1], nm) if density else None


def write_tiff(path: Path, micrograph: Micrograph) -> None:
    data, size = micrograph.data, micrograph.pixel_size
    imagej = data.dtype.name in IMAGEJ_DTYPES and data.nbytes < 2**31  # ImageJ's variant knows no BigTIFF
    density = _rational((1.0 if imagej else 1e7) / size) if size else None
    # "=" would end a value in ImageJ's description; inside a JSON string its escape means the same.
    description = {"axes": "YX", METADATA_KEY: to_json(micrograph.metadata).replace("=", "\\u003d")}
    description |= ({EXACT_KEY: float(size)} if size else {}) | ({"unit": "nm"} if density else {})
    resolution = {"resolution": (density, density), "resolutionunit": "NONE" if imagej else "CENTIMETER"} if density else {}
    tifffile.imwrite(path, data, imagej=imagej, photometric="minisblack", metadata=description, **resolution)


def _rational(value: float) -> tuple[int, int] | None:
    """The closest fraction of two 32-bit integers, as TIFF's resolution needs it; None where there is no good one."""
    largest = 2**32 - 1
    fraction = Fraction(value).limit_denominator(max(1, min(largest, int(largest / value))))
    good = fraction.numerator <= largest and math.isclose(fraction, value, rel_tol=1e-6)
    return (fraction.numerator, fraction.denominator) if good else None
