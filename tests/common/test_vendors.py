"""Pixel sizes and data bars from instrument metadata: files built from the documented layouts, RosettaSciIO as the second reader where it knows the dialect."""

import importlib
import struct
import warnings

import cv2
import numpy as np
import pytest
import tifffile

from common.micrograph import load_micrograph, save_micrograph
from tests.common.micrograph_helpers import image, load_refused

FEI, ZEISS, TESCAN, SIS = 34682, 34118, 50431, 33560
PICTURE = image("uint8", (120, 100))


def write(path, data, *tags, **options):
    tifffile.imwrite(path, data, photometric="minisblack", metadata=None, extratags=[(*tag, True) for tag in tags], **options)
    return path


def quietly(path, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_micrograph(path, **kwargs)


def cut_at(path, row, data, known_from):
    """The bar starts at row: left out with one warning, or kept on request, and remembered in the metadata either way."""
    with pytest.warns(UserWarning, match=f"rows {row}:{len(data)} are a data bar .*keep_bar=True") as caught:
        loaded = load_micrograph(path)
    assert len(caught) == 1 and caught[0].filename == __file__
    np.testing.assert_array_equal(loaded.data, data[:row], strict=True)
    bar = loaded.metadata["data_bar"]
    assert bar["rows"] == [row, len(data)] and known_from in bar["known_from"]
    kept = quietly(path, keep_bar=True)
    np.testing.assert_array_equal(kept.data, data, strict=True)
    assert kept.metadata["data_bar"] == bar | {"kept": True} and kept.pixel_size == loaded.pixel_size
    again = quietly(save_micrograph(path.with_name("again.tif"), loaded))
    assert again.metadata == loaded.metadata and again.data.shape == loaded.data.shape
    return loaded


def whole(path, data=PICTURE):
    loaded = quietly(path)
    np.testing.assert_array_equal(loaded.data, data, strict=True)
    assert "data_bar" not in loaded.metadata
    return loaded


def rosetta_nm(path, plugin="tiff"):
    axis = importlib.import_module(f"rsciio.{plugin}").file_reader(str(path))[0]["axes"][-1]
    return axis["scale"] * {"nm": 1, "µm": 1e3, "um": 1e3, "m": 1e9}[axis["units"]]


# --- FEI, Thermo Fisher ----------------------------------------------------------------------------------------------


def fei(path, text="", size="[Scan]\r\nPixelWidth=2.5e-009\r\nPixelHeight=2.5e-009\r\n", data=PICTURE):
    return write(path, data, (FEI, "s", 0, f"[User]\r\nDate=01/01/2020\r\n\r\n{size}\r\n{text}"))


@pytest.mark.parametrize(
    "text", ["[Image]\r\nResolutionX=100\r\nResolutionY=111\r\n[PrivateFei]\r\nDatabarHeight=9\r\n", "[PrivateFei]\r\nDatabarHeight=9\r\n"]
)
def test_fei_bar(tmp_path, text):
    path = fei(tmp_path / "a.tif", text)
    assert cut_at(path, 111, PICTURE, "FEI tag").pixel_size == pytest.approx(rosetta_nm(path)) == 2.5


@pytest.mark.parametrize(
    "text",
    ["", "[Image]\r\nResolutionX=100\r\nResolutionY=120\r\n[PrivateFei]\r\nDatabarHeight=9\r\n"]  # a bar was designed, but not drawn
    + [f"[Image]\r\nResolutionX=100\r\nResolutionY={rows}\r\n" for rows in ("130", "0", "-3", "nonsense")]
    + [f"[PrivateFei]\r\nDatabarHeight={rows}\r\n" for rows in ("0", "120", "-5", "nan")],
)
def test_fei_without_a_bar(tmp_path, text):
    assert whole(fei(tmp_path / "a.tif", text)).pixel_size == pytest.approx(2.5)


def test_fei_image_that_was_resized_has_no_pixel_size(tmp_path):
    with pytest.warns(UserWarning, match="200 columns, the image has 100"):
        loaded = load_micrograph(fei(tmp_path / "a.tif", "[Image]\r\nResolutionX=200\r\nResolutionY=100\r\n"))
    assert loaded.pixel_size is None and loaded.data.shape == (120, 100)


def test_fei_pixel_size_may_stand_under_the_scan_of_its_beam(tmp_path):
    path = fei(tmp_path / "a.tif", size="[Scan]\r\nPixelWidth=0\r\nPixelHeight=0\r\n[IScan]\r\nPixelWidth=3e-9\r\nPixelHeight=3e-9\r\n")
    assert whole(path).pixel_size == pytest.approx(3)


# --- Zeiss -----------------------------------------------------------------------------------------------------------


def zeiss(path, data):
    header = "\r\n".join(["0", "0", "0", "5e-009", *["0"] * 20])
    return write(path, data, (ZEISS, "s", 0, f"{header}\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 51.2 nm\r\n"))


def with_bar(data, top=100, bottom=118, frame=0, fill=255):
    drawn = data.copy()
    drawn[top : bottom + 1, 2:-1] = frame
    drawn[top + 1 : bottom, 3:-2] = fill
    drawn[top + 5 : top + 12, 20:70:2] = frame  # writing
    return drawn


@pytest.mark.parametrize("values", [{}, {"fill": 243}, {"frame": 255, "fill": 0}, {"bottom": 119}, {"top": 80}])
def test_zeiss_bar(tmp_path, values):
    data = with_bar(PICTURE, **values)
    assert cut_at(zeiss(tmp_path / "a.tif", data), values.get("top", 100), data, "Zeiss").pixel_size == pytest.approx(51.2)


def test_zeiss_bar_is_known_by_its_whole_frame(tmp_path):
    sides = with_bar(PICTURE)
    sides[105, [2, -2]] = 7
    grey = with_bar(PICTURE)
    grey[101:118, 3:-2] = image("uint8", (17, 95))  # a frame drawn around a part of the image
    shaded, ragged = with_bar(PICTURE), with_bar(PICTURE)
    shaded[112:118, 3:-2] = 200  # above and below it is filled with different values
    ragged[[101, 117], 3:50] = image("uint8", (2, 47))
    pictures = [
        shaded,
        ragged,
        PICTURE,
        PICTURE * 0,
        PICTURE | 255,
        with_bar(PICTURE, bottom=112),
        with_bar(PICTURE, top=40),
        sides,
        grey,
        with_bar(PICTURE * 0),
    ]
    for k, data in enumerate(pictures):
        whole(zeiss(tmp_path / f"{k}.tif", data), data)


def test_zeiss_header_counts_for_1024_columns(tmp_path):
    header = "\r\n".join(["0", "0", "0", "5e-009", *["0"] * 20])
    assert whole(write(tmp_path / "a.tif", PICTURE, (ZEISS, "s", 0, header + "\r\n"))).pixel_size == pytest.approx(5 * 1024 / 100)


def test_bars_are_left_alone_where_no_instrument_tells_of_them(tmp_path):
    data = with_bar(PICTURE)
    whole(write(tmp_path / "a.tif", data), data)
    cv2.imwrite(str(tmp_path / "a.png"), data)
    whole(tmp_path / "a.png", data)


# --- TESCAN ----------------------------------------------------------------------------------------------------------

TESCAN_TEXT = "[MAIN]\r\nDevice=MIRA3 LMH\r\nMagnification=5000\r\nPixelSizeX=2.5e-9\r\nPixelSizeY=2.5e-9\r\nImageStripSize={}\r\n\r\n[SEM]\r\nHV=5000.0\r\n"


def test_tescan_tag(tmp_path):
    thumbnail = b"\xff\xd8\nJunk=7\n\xff\xd9"
    blob = thumbnail + TESCAN_TEXT.format(12).encode() + b"\0"
    loaded = cut_at(write(tmp_path / "a.tif", PICTURE, (TESCAN, "B", len(blob), blob)), 108, PICTURE, "ImageStripSize 12")
    assert loaded.pixel_size == pytest.approx(2.5)
    assert loaded.metadata["tescan"]["HV"] == "5000.0" and "Junk" not in loaded.metadata["tescan"]


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_tescan_header_file(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    cv2.imwrite(str(path), PICTURE)
    header = tmp_path / f"a-{extension}.hdr"
    header.write_text(TESCAN_TEXT.format(12))
    assert cut_at(path, 108, PICTURE, header.name).pixel_size == pytest.approx(2.5)
    for strip in ("0", "120", "-1", ""):
        header.write_text(TESCAN_TEXT.format(strip))
        assert whole(path).pixel_size == pytest.approx(2.5)
    assert f"the image, {path.name}" in load_refused(header)


# --- Text beside an image: JEOL, Hitachi -----------------------------------------------------------------------------

JEOL = "$CM_FORMAT JEOL-SEM\r\n$CM_FULL_SIZE {}\r\n$CM_ACCEL_VOLT 5.00\r\n$$SM_MICRON_BAR {}\r\n$$SM_MICRON_MARKER {}\r\n"
HITACHI = "[SemImageFile]\r\nInstructName=SU8000\r\nDataSize={}\r\nPixelSize={}\r\n"


@pytest.mark.parametrize("extension", [".tif", ".bmp", ".png"])
@pytest.mark.parametrize(("text", "encoding"), [(JEOL.format("100 112", 80, "1um"), "ascii"), (JEOL.format("100 112", 80, "1µm"), "latin-1"),
                                                (JEOL.format("100 112", 40, "500nm"), "utf-8"), (HITACHI.format("100x112", 12.5), "utf-16")])  # fmt: skip
def test_text_beside_the_image(tmp_path, extension, text, encoding):
    path = tmp_path / f"a{extension}"
    cv2.imwrite(str(path), PICTURE)
    path.with_suffix(".txt").write_bytes(text.encode(encoding))
    assert cut_at(path, 112, PICTURE, "a.txt").pixel_size == pytest.approx(12.5)
    assert f"the image, {path.name}" in load_refused(path.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("text", "nm"),
    [(JEOL.format("100 120", 80, "1um"), 12.5), (JEOL.format("", 80, "1um"), 12.5), (JEOL.format("100 112", 0, "1um").replace("112", "120"), None)]
    + [(JEOL.format("100 120", 80, marker), None) for marker in ("", "um", "1", "1 furlong", "0um")]
    + [(HITACHI.format("100x120", 2.5), 2.5), (HITACHI.format("", "nan"), None), ("0 0.5 0.5 0.2 0.2\n", None), ("", None)],
)
def test_text_without_a_bar(tmp_path, text, nm):
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    (tmp_path / "a.txt").write_text(text)
    assert whole(tmp_path / "a.png").pixel_size == (nm and pytest.approx(nm))


def test_text_about_an_image_of_another_size_is_not_believed(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    (tmp_path / "a.txt").write_text(JEOL.format("1280 96", 80, "1um"))
    with pytest.warns(UserWarning, match="1280 columns, the image has 100"):
        loaded = load_micrograph(tmp_path / "a.png")
    assert loaded.pixel_size is None and loaded.data.shape == PICTURE.shape


def test_text_beside_our_own_file_is_not_asked_again(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    (tmp_path / "a.txt").write_text(JEOL.format("100 112", 80, "1um"))
    with pytest.warns(UserWarning, match="data bar"):
        loaded = load_micrograph(tmp_path / "a.png")
    larger = loaded.replace(data=np.repeat(np.repeat(loaded.data, 2, 0), 2, 1), pixel_size=3.0)
    assert quietly(save_micrograph(tmp_path / "a.tif", larger)).pixel_size == 3.0


# --- Further dialects of TIFF ----------------------------------------------------------------------------------------

SIGHTX = """<TemReporter><DateTime>2020-01-01T00:00:00.0000000+00:00</DateTime><Instruments>JEM</Instruments><Eos><EosMode>eosTEM</EosMode></Eos>
<ElectronGun><AccelerationVoltage>200000</AccelerationVoltage><BeamCurrent>1</BeamCurrent></ElectronGun><IlluminationSystem><ImageField>imfBF</ImageField>
</IlluminationSystem><ImageFormingSystem><ImageFormingMode>imfMAG</ImageFormingMode><ModeString>{}</ModeString><SelectorString>x</SelectorString>
<SelectorValue>{}</SelectorValue><SelectorUnitString>cm</SelectorUnitString></ImageFormingSystem></TemReporter>"""


@pytest.mark.parametrize(("unit", "density"), [("CENTIMETER", 1538.4), ("INCH", 4000)])
def test_sightx(tmp_path, unit, density):
    options = {"resolution": (density, density), "resolutionunit": unit}
    make = (271, "s", 0, "JEOL Ltd.")
    path = write(tmp_path / "a.tif", PICTURE, make, description=SIGHTX.format("MAG", 50000), **options)
    assert whole(path).pixel_size == pytest.approx({"CENTIMETER": 1e7, "INCH": 2.54e7}[unit] / density / 50000) == pytest.approx(rosetta_nm(path), rel=1e-6)
    with pytest.warns(UserWarning, match="no pixel size"):
        assert load_micrograph(write(tmp_path / "b.tif", PICTURE, make, description=SIGHTX.format("DIFF", 80), **options)).pixel_size is None


def test_gatan_tiff(tmp_path):
    def tags(unit):
        return [(65003, "s", 0, unit), (65004, "s", 0, unit), (65009, "d", 1, 0.25), (65010, "d", 1, 0.25)]

    path = write(tmp_path / "a.tif", PICTURE, *tags("nm"), resolution=(1e5, 1e5), resolutionunit="CENTIMETER")
    assert whole(path).pixel_size == pytest.approx(0.25) == pytest.approx(rosetta_nm(path))
    with pytest.warns(UserWarning, match="diffraction"):
        assert load_micrograph(write(tmp_path / "b.tif", PICTURE, *tags("1/nm"))).pixel_size is None


def test_olympus_sis(tmp_path):
    path = write(tmp_path / "a.tif", PICTURE, (SIS, "B", 200, bytes(200)))
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[0].tags[SIS].valueoffset
    header = struct.pack("<4s6xhhhhh6x32sH", b"SIS0", 0, 0, 1, 0, 120, b"image", 1)
    general = struct.pack("<10xhdd8xd2x34s32s", -9, 2.5, 2.5, 1000.0, b"camera", b"picture")
    content = path.read_bytes()
    path.write_bytes(content[:at] + header + struct.pack("<hhI", 1, 1, at + 80) + bytes(80 - len(header) - 8) + general + content[at + 80 + len(general) :])
    assert whole(path).pixel_size == pytest.approx(2.5) == pytest.approx(rosetta_nm(path))


@pytest.mark.parametrize(
    ("metadata", "nm"),
    [
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}, 250),
        ({"PhysicalSizeX": 2.5, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 2.5, "PhysicalSizeYUnit": "nm"}, 2.5),
    ]
    + [({"PhysicalSizeX": 3, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 3, "PhysicalSizeYUnit": "Å"}, 0.3), ({}, None), ({"PhysicalSizeX": 0.25}, None)]
    + [({"PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1, "PhysicalSizeYUnit": "pixel"}, None)],
)
def test_ome_tiff(tmp_path, metadata, nm):
    tifffile.imwrite(tmp_path / "a.ome.tif", PICTURE, ome=True, photometric="minisblack", metadata={"axes": "YX", **metadata})
    assert whole(tmp_path / "a.ome.tif").pixel_size == (nm and pytest.approx(nm))


def test_ome_tiff_opens_no_other_file(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.ome.tif", PICTURE, ome=True, photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        text = tif.ome_metadata.replace("<TiffData", '<TiffData FirstZ="0"').replace(
            'PlaneCount="1"/>', 'PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:1</UUID></TiffData>'
        )
    tifffile.imwrite(tmp_path / "b.ome.tif", PICTURE, photometric="minisblack", metadata=None, description=text.encode())
    tifffile.imwrite(tmp_path / "c.ome.tif", PICTURE, photometric="minisblack", metadata=None, description=text.encode())
    opened, really = [], tifffile.FileHandle.open
    monkeypatch.setattr(tifffile.FileHandle, "open", lambda handle: (opened.append(handle), really(handle)))
    assert "b.ome.tif" in text
    whole(tmp_path / "c.ome.tif")
    assert len(opened) == 1


def test_ome_tiff_whose_images_differ(tmp_path):
    pixels = '<Pixels PhysicalSizeX="{0}" PhysicalSizeY="{0}"/>'
    for second, nm in ((2, None), (1, 1000)):
        write(tmp_path / "a.tif", PICTURE, description=f"<OME>{pixels.format(1)}{pixels.format(second)}</OME>".encode())
        assert whole(tmp_path / "a.tif").pixel_size == nm
