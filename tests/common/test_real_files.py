"""Files of real instruments, where they are at hand."""

import importlib
import os
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.micrograph import load_micrograph, save_micrograph
from tests import files_table
from tests.common.micrograph_helpers import load_refused

REAL = os.environ.get("EMPAPERS_REAL_DATA")
pytestmark = pytest.mark.skipif(not REAL, reason="EMPAPERS_REAL_DATA names no folder of real micrographs")


REAL_IMAGES = [  # file, shape, dtype, nm per pixel
    ("zeiss_sem_1k.tif", (691, 1024), "uint8", 2614.5),
    ("zeiss_sem_512.tif", (350, 512), "uint8", 11.65),  # its field is 5.965 um wide; the 5.825 nm of its header are for 1024 pixels
    ("fei_helios_16bit_blank.tif", (442, 512), "uint16", 3372.4),
    ("derived_nan_inf_bigendian.tif", (512, 512), "float32", None),
    ("sto_TIA.ser", (1024, 1024), "uint16", 0.01001),
    ("derived_sto_crop.hspy", (512, 512), "uint16", 0.01001),
    ("velox_haadf_image.emd", (512, 512), "uint16", 5.302),
    ("velox_ceta_signed.emd", (512, 512), "int16", 3.139),
    ("lattice_NCEM.emd", (1024, 1024), "uint16", 0.01225),
    ("multi_signal.dm3", (512, 512), "uint16", 0.01775),
    ("cryoem_micrograph.mrc", (927, 959), "float32", None),
]
REAL_STACKS = [
    ("haadf_preview_5frames_1.ser", 5, (128, 128), 0.3844),
    ("haadf_preview_5frames.emi", 5, (128, 128), 0.3844),
    ("imagej_stack_bigendian_float32.tif", 2, (68, 68), 168.67),
    ("cryoet_microtubule_stack.tif", 36, (206, 94), 1.052),
]
RSCIIO_PLUGIN = {".tif": "tiff", ".ser": "tia", ".emd": "emd", ".hspy": "hspy", ".dm3": "digitalmicrograph"}


@pytest.mark.parametrize(("name", "shape", "dtype", "pixel_size"), REAL_IMAGES)
def test_real_image(tmp_path, name, shape, dtype, pixel_size):
    loaded = load_micrograph(Path(REAL, "raw_formats", name))
    assert (loaded.data.shape, loaded.data.dtype, loaded.data.dtype.isnative) == (shape, dtype, True)
    assert loaded.pixel_size == (pixel_size and pytest.approx(pixel_size, rel=1e-3))
    if name == "velox_haadf_image.emd":
        assert loaded.metadata["original_metadata"]["Optics"]["AccelerationVoltage"] == "200000"
    for extension in (".tif", ".h5", ".hspy"):
        again = load_micrograph(save_micrograph(tmp_path / f"a{extension}", loaded))
        np.testing.assert_array_equal(again.data, loaded.data, strict=True)
        assert (again.pixel_size, again.metadata) == (loaded.pixel_size, loaded.metadata)


@pytest.mark.parametrize(
    "name", ["zeiss_sem_1k.tif", "zeiss_sem_512.tif", "fei_helios_16bit_blank.tif", "sto_TIA.ser", "velox_haadf_image.emd", "lattice_NCEM.emd"]
)
def test_real_pixel_size_agrees_with_rosettasciio(name):
    path = Path(REAL, "raw_formats", name)
    axis = importlib.import_module(f"rsciio.{RSCIIO_PLUGIN[path.suffix]}").file_reader(str(path))[0]["axes"][-1]
    nm = {"nm": 1, "n_m": 1, "µm": 1e3, "um": 1e3, "m": 1e9, "mm": 1e6}[axis["units"]]
    assert load_micrograph(path).pixel_size == pytest.approx(axis["scale"] * nm, rel=1e-6)


@pytest.mark.parametrize(("name", "count", "shape", "pixel_size"), REAL_STACKS)
def test_real_stack(name, count, shape, pixel_size):
    path = Path(REAL, "raw_formats", name)
    assert f"frame=0..{count - 1}" in load_refused(path)
    frames = [load_micrograph(path, frame=frame) for frame in range(count)]
    assert {frame.data.shape for frame in frames} == {shape}
    assert frames[0].pixel_size == pytest.approx(pixel_size, rel=1e-3)


def test_real_berkeley_emd_keeps_its_rows():
    path = Path(REAL, "raw_formats", "lattice_NCEM.emd")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(load_micrograph(path).data, file["data/single/data"][()])


def test_real_pixels_of_two_sizes():
    with pytest.warns(UserWarning, match="no single pixel size"):
        loaded = load_micrograph(Path(REAL, "raw_formats", "float32_nonsquare.dm4"))
    assert loaded.pixel_size is None and loaded.metadata["pixel_size_xy"] == pytest.approx([1.0, 0.2])


def test_every_real_file_is_an_image_or_one_line():
    files = [path for path in Path(REAL).rglob("*") if path.is_file() and path.suffix != ".md"]
    assert files
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            try:
                assert load_micrograph(path).data.ndim == 2
            except ValueError as error:
                assert str(error).startswith(f"cannot read {path}: ") and "\n" not in str(error)


def test_committed_table_is_what_the_command_gives():
    assert files_table.table(Path(REAL)) in Path(__file__).parents[2].joinpath("docs/files.md").read_text()
