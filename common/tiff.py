"""TIFF, the format with the most dialects: plain, ImageJ's, FEI/Thermo's and Zeiss's."""

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

from .formats import METADATA_KEY, Raw, Refusal, Size, check_bytes, describe, nm_per, pair, pick, to_grey, to_json

if TYPE_CHECKING:
    from .micrograph import Micrograph

PRINT_DENSITY = 1000.0  # pixels per cm: up to 2540 dpi a resolution tag speaks of paper, as no micrograph has pixels above 10 um
IMAGEJ_DTYPES = ("uint8", "uint16", "int16", "float32")  # what ImageJ's variant of TIFF can hold
EXACT_KEY = "pixel_size_nm"  # the exact value in our own files


def read_tiff(path: Path, frame: int | None) -> Raw:
    # is_ome=False: an OME header may name further files, and only the file that was asked for is to be opened.
    with tifffile.TiffFile(path, is_ome=False) as tif:
        series = [s for s in tif.series if not s.keyframe.is_reduced] or list(tif.series)
        counts = [math.prod(s.shape) // max(1, math.prod(s.keyframe.shape)) for s in series]
        which, index = pick(counts, frame, [describe("", s) for s in series])
        data = _tiff_image(path, series[which], index, counts[which])
        own = tif.imagej_metadata or (tif.shaped_metadata or ({},))[0]
        vendors = {name: values for name in ("imagej", "fei", "sem") if (values := getattr(tif, f"{name}_metadata"))}
        size = _tiff_pixel_size(series[which].keyframe, own, vendors)
    return to_grey(data, path), size, json.loads(own[METADATA_KEY]) if METADATA_KEY in own else vendors


def _tiff_image(path: Path, series: tifffile.TiffPageSeries, index: int, count: int) -> np.ndarray:
    key = series.keyframe
    if len(series.pages) == count:
        check_bytes(key.shape, key.dtype)
        try:
            data = series.pages[index].asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            data = _tiff_through_opencv(path, series.pages[index].index, key)
    else:  # ImageJ and tifffile may describe a whole stack in its first page
        check_bytes(series.shape, series.dtype)
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
    raise Refusal(f"its compression ({key.compression.name}) needs another decoder; install imagecodecs or save the image uncompressed")


def _tiff_pixel_size(page: tifffile.TiffPage, own: dict, vendors: dict) -> Size:
    """Our own exact value, the instrument's (FEI/Thermo, Zeiss), or the resolution tag, in this order."""
    tags = [page.tags[name].value for name in ("XResolution", "YResolution") if name in page.tags]
    density = [value[0] / value[1] for value in tags if isinstance(value, tuple) and len(value) == 2 and all(value)]
    nm = nm_per(vendors.get("imagej", {}).get("unit"))
    # Inches, and centimetres up to PRINT_DENSITY, are a printer's default and no calibration.
    if nm is None and density and page.resolutionunit == tifffile.RESUNIT.CENTIMETER and density[0] > PRINT_DENSITY:
        nm = 1e7
    tag = pair(1 / density[0], 1 / density[1], nm) if len(density) == 2 else None
    exact = pair(own.get(EXACT_KEY), own.get(EXACT_KEY), 1.0)
    # A program that rescales the image but keeps the description leaves a stale value behind, which the tag gives away.
    if exact and (tag is None or math.isclose(tag[0], exact[0], rel_tol=1e-3)):
        return exact
    scan = vendors.get("fei", {}).get("Scan", {})
    return pair(scan.get("PixelWidth"), scan.get("PixelHeight"), 1e9) or _zeiss_pixel_size(vendors.get("sem", {}), page.imagewidth) or tag


def _zeiss_pixel_size(sem: dict, width: int) -> Size:
    """From the header in metres for a field 1024 pixels wide, whatever the image's width; the stated size of the image's pixels overrules it."""
    header, stated = sem.get("", ()), sem.get("ap_image_pixel_size", ())
    nominal = pair(header[3], header[3], 1e9 * 1024 / width) if len(header) > 3 else None
    exact = pair(stated[1], stated[1], nm_per(stated[2])) if len(stated) == 3 else None
    return exact if exact and not (nominal and math.isclose(nominal[0], exact[0], rel_tol=1e-3)) else nominal  # the header has more digits


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
