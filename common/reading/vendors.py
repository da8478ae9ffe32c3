"""What instruments write about their images: the pixel size, and the data bar (the strip with scale bar and text that many SEMs burn into the picture).

From tags of a TIFF: FEI and Thermo Fisher, Zeiss, TESCAN, JEOL SightX, Gatan, Olympus SIS, OME. From a text beside the image: JEOL, Hitachi, TESCAN.
A bar is believed only where such metadata are there; nothing is ever guessed from the pixels of an unknown instrument.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from .formats import Size, length, nm_per, pair, reciprocal

TESCAN_TAG = 50431
GATAN_TAGS = (65003, 65004, 65009, 65010)  # unit along x and y, size along x and y
SIDECAR_BYTES = 2**18  # of a text beside an image; they are a few kB
LINE = 4  # pixels by which a line of a data bar's frame may fall short of the whole width


class Instrument(NamedTuple):
    """name and values go into the metadata; bar is its first row and how it is known."""

    name: str
    values: dict
    size: Size = None
    bar: tuple[int, str] | None = None
    notes: Sequence[str] = ()


# --- Tags of a TIFF ---


def of_tiff(tif: tifffile.TiffFile, page: tifffile.TiffPage, data: np.ndarray) -> Iterator[Instrument]:
    """The instruments that speak in a TIFF of one of its images, (H, W) or (H, W, channels)."""
    if values := tif.fei_metadata:
        yield _fei(values, data.shape)
    if values := tif.sem_metadata:
        first = _zeiss_bar(data)
        yield Instrument("sem", values, _zeiss_pixel_size(values, data.shape[1]), first and (first, "Zeiss tag, frame of the bar in the pixels"))
    if TESCAN_TAG in page.tags:
        # The text follows a thumbnail, whose bytes may look like text, too.
        blob = page.tags[TESCAN_TAG].value
        text = blob if isinstance(blob, str) else bytes(blob).rpartition(b"\xff\xd9")[2].decode("latin-1")
        if found := _tescan(text, data.shape, f"TESCAN tag {TESCAN_TAG}"):
            yield found
    if "TemReporter" in page.description:
        yield _sightx(page)
    if all(tag in page.tags for tag in GATAN_TAGS):
        unit_x, unit_y, x, y = (page.tags[tag].value for tag in GATAN_TAGS)
        values = {"units": [unit_x, unit_y], "scale": [x, y]}
        size = pair(x, y, nm_per(unit_x)) if unit_x == unit_y else None
        yield Instrument("gatan", values, size, notes=reciprocal(unit_x))
    if values := tif.sis_metadata:
        yield Instrument("sis", values, pair(values.get("pixelsizex"), values.get("pixelsizey"), 1e9))
    if "<OME" in page.description:
        yield _ome(page.description)


def _fei(values: dict, shape: tuple[int, ...]) -> Instrument:
    """[Scan] holds the pixel size in metres, [Image] the size of the image without the bar, [PrivateFei] the height of the bar."""
    image, private = values.get("Image", {}), values.get("PrivateFei", values.get("PrivateFEI", {}))
    rows, columns, bar = (_whole(group.get(key)) for group, key in ((image, "ResolutionY"), (image, "ResolutionX"), (private, "DatabarHeight")))
    if columns not in (None, shape[1]):
        note = f"the FEI tag speaks of {columns} columns, the image has {shape[1]}: it was resized, and neither pixel size nor data bar is known"
        return Instrument("fei", values, notes=[note])
    scans = [values.get(name, {}) for name in ("Scan", "EScan", "IScan")]
    size = next((size for scan in scans if (size := pair(scan.get("PixelWidth"), scan.get("PixelHeight"), 1e9))), None)
    if rows is not None:
        return Instrument("fei", values, size, (rows, f"FEI tag, ResolutionY {rows} of {shape[0]} rows") if 0 < rows < shape[0] else None)
    known = bar is not None and 0 < bar < shape[0]
    return Instrument("fei", values, size, (shape[0] - bar, f"FEI tag, DatabarHeight {bar}") if known else None)


def _zeiss_pixel_size(sem: dict, width: int) -> Size:
    """From the header in metres for a field 1024 pixels wide, whatever the image's width; the stated size of the image's pixels overrules it."""
    header, stated = sem.get("", ()), sem.get("ap_image_pixel_size", ())
    nominal = length(header[3], 1e9 * 1024 / width) if len(header) > 3 else None
    exact = length(stated[1], nm_per(stated[2])) if len(stated) == 3 else None
    size = exact if exact and not (nominal and abs(nominal / exact - 1) < 1e-3) else nominal  # the header has more digits
    return size and (size, size)


def _zeiss_bar(data: np.ndarray) -> int | None:
    """First row of the bar that SmartSEM draws at the bottom: a frame of one value, one pixel wide, filled with another; None where it is not all there.

    Outside the frame a pixel or two of the image may be left. The tag does not tell whether a bar was drawn.
    """
    if data.ndim != 2 or data.dtype.kind not in "iu" or min(data.shape) < 64:
        return None
    lower = data[len(data) // 2 :]
    for end in range(len(lower), len(lower) - 3, -1):
        frame, width = _most_common(lower[end - 1])
        if width < data.shape[1] - LINE:
            continue
        drawn = lower[:end] == frame
        left, right = np.flatnonzero(drawn[-1])[[0, -1]]
        share = drawn.mean(1)
        full = share >= 1 - LINE / data.shape[1]
        for top in np.flatnonzero((share[:-2] < 0.5) & full[1:-1] & (share[2:] < 0.1)) + 1:
            inside = lower[[top + 1, end - 2], left + 1 : right]
            (fill, first), (other, last) = map(_most_common, inside)
            if drawn[top:, [left, right]].all() and fill == other and min(first, last) >= 0.9 * inside.shape[1]:
                return int(len(data) // 2 + top)
    return None


def _most_common(row: np.ndarray) -> tuple[Any, int]:
    values, counts = np.unique(row, return_counts=True)
    return values[counts.argmax()], int(counts.max())


def _tescan(text: str, shape: tuple[int, ...], known_from: str) -> Instrument | None:
    """Lines of key=value with the pixel size in metres and ImageStripSize, the rows of the bar."""
    values = dict(re.findall(r"^\s*([A-Za-z]\w*)=([^\r\n]*?)\s*$", text.replace("\0", "\n"), re.MULTILINE))
    if "PixelSizeX" not in values or "PixelSizeY" not in values:
        return None
    strip = _whole(values.get("ImageStripSize")) or 0
    bar = (shape[0] - strip, f"{known_from}, ImageStripSize {strip}") if 0 < strip < shape[0] else None
    return Instrument("tescan", values, pair(values["PixelSizeX"], values["PixelSizeY"], 1e9), bar)


def _sightx(page: tifffile.TiffPage) -> Instrument:
    """TEM by JEOL SightX: the resolution tag is that of the detector, the description knows the magnification."""
    forming = re.search(r"<ImageFormingSystem\b.*?</ImageFormingSystem>", page.description, re.DOTALL)
    values = dict(re.findall(r"<(ModeString|SelectorValue|SelectorUnitString)>([^<]*)<", forming[0] if forming else ""))
    values |= dict(re.findall(r"<(EosMode|AccelerationVoltage)>([^<]*)<", page.description))
    unit = {tifffile.RESUNIT.INCH: 2.54e7, tifffile.RESUNIT.CENTIMETER: 1e7}.get(page.resolutionunit, 0)
    density, magnification = resolution(page), length(values.get("SelectorValue"), 1)
    if values.get("EosMode") == "eosTEM" and values.get("ModeString") == "MAG" and density and magnification:
        return Instrument("sightx", values, pair(1 / density[0], 1 / density[1], unit / magnification))
    return Instrument("sightx", values, notes=["its SightX metadata state no magnification of an image: no pixel size"])


def resolution(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """The resolution tags, pixels per unit along x and y."""
    tags = [page.tags[name].value for name in ("XResolution", "YResolution") if name in page.tags]
    density = [value[0] / value[1] for value in tags if isinstance(value, tuple) and len(value) == 2 and all(value)]
    return (density[0], density[1]) if len(density) == 2 else None


def _ome(description: str) -> Instrument:
    """PhysicalSizeX and PhysicalSizeY, in micrometres where no unit is given; None where several images state different ones."""
    pixels = [dict(re.findall(r'(PhysicalSize[XY](?:Unit)?)="([^"]*)"', element)) for element in re.findall(r"<(?:\w+:)?Pixels\b[^>]*", description)]
    sizes = {tuple(length(p.get(f"PhysicalSize{axis}"), nm_per(p.get(f"PhysicalSize{axis}Unit", "µm"))) for axis in "XY") for p in pixels}
    return Instrument("ome", {"description": description}, pair(*sizes.pop(), 1.0) if len(sizes) == 1 else None)


# --- Text beside an image ---


def beside(path: Path, shape: tuple[int, ...]) -> Instrument | None:
    """What a text of the same name says about an image: NAME.txt by JEOL or Hitachi, NAME-tif.hdr by TESCAN. Other texts are not looked at further."""
    names = {path.with_suffix(".txt"), path.with_suffix(".TXT"), path.with_name(f"{path.stem}-{path.suffix[1:]}.hdr")}
    for text in (name for name in sorted(names) if name.is_file()):
        if found := _sidecar(text, shape):
            return found
    return None


def _sidecar(path: Path, shape: tuple[int, ...]) -> Instrument | None:
    with path.open("rb") as file:
        content = file.read(SIDECAR_BYTES)
    text = _decode(content)
    if path.suffix.lower() == ".hdr":
        return _tescan(text, shape, path.name)
    if "$CM_" in text:
        values = dict(re.findall(r"^(\${1,2}\w+)[ \t]+(.*?)\s*$", text, re.MULTILINE))
        marker = re.fullmatch(r"([\d.]+)\s*([^\d\s.]+)", values.get("$$SM_MICRON_MARKER", ""))
        bar = length(values.get("$$SM_MICRON_BAR"), 1)  # pixels
        size = length(marker[1], nm_per(marker[2])) if marker and bar else None
        return _of_full_size("jeol", values, size and (size / bar, size / bar), values.get("$CM_FULL_SIZE", ""), shape, f"{path.name}, $CM_FULL_SIZE")
    if "[SemImageFile]" in text:
        values = dict(re.findall(r"^(\w+)=(.*?)\s*$", text, re.MULTILINE))
        size = pair(values.get("PixelSize"), values.get("PixelSize"), 1.0)
        return _of_full_size("hitachi", values, size, values.get("DataSize", ""), shape, f"{path.name}, DataSize")
    return None


def _decode(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace").replace("\r\n", "\n")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return content.decode("latin-1").replace("\r\n", "\n")


def _of_full_size(name: str, values: dict, size: Size, full: str, shape: tuple[int, ...], known_from: str) -> Instrument:
    """full is the size of the scanned field, "columns rows": an image of more rows has a bar, one of other columns was resized."""
    columns, rows = (*map(int, re.findall(r"\d{1,9}", full)[:2]), 0, 0)[:2]
    if columns and columns != shape[1]:
        return Instrument(name, values, notes=[f"{known_from} speaks of {columns} columns, the image has {shape[1]}: its pixel size is not used"])
    return Instrument(name, values, size, (rows, f"{known_from} {full}") if 0 < rows < shape[0] and columns else None)


def _whole(value: Any) -> int | None:
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
