"""The table of docs/files.md: every file of a folder, what was read from it, and whether another reader says the same.

python -m tests.files_table --data DIR --out docs/files.md
"""

import importlib
import re
import warnings
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from common.micrograph import Micrograph, load_micrograph

BEGIN, END = "<!-- table: made by python -m tests.files_table -->", "<!-- end of the table -->"
SOURCES = {  # beginning of a file's name: the public repository on github.com that it is from
    "emps": "by256/emps", "plant": "RickGummy/SEM-Image-Processing-Toolkit", "catalyst": "ArdaGen/STEM-Automated-Nanoparticle-Analysis-YOLOv8-SAM",
    "rock": "bnsreenu/python_for_microscopists", "shale": "bnsreenu/python_for_microscopists", "ic_": "DegateCommunity/Degate",
    "warwick": "Jeffrey-Ede/partial-STEM", "derived_nan": "Jeffrey-Ede/partial-STEM", "cryoem": "rsanchezgarc/micrograph_cleaner_em",
    "cryoet": "hanjinliu/cylindra", "velox_haadf": "pycroscopy/SciFiDatasets", "dust": "ercius/openNCEM", "derived_sto": "ercius/openNCEM",
    "float32_nonsquare": "ercius/openNCEM", "lattice": "ercius/openNCEM", "sto": "ercius/openNCEM", "velox_ceta": "ercius/openNCEM",
    "zeiss": "hyperspy/rosettasciio", "fei": "hyperspy/rosettasciio", "haadf": "hyperspy/rosettasciio", "imagej": "hyperspy/rosettasciio",
    "multi": "hyperspy/rosettasciio",
}  # fmt: skip
NOTES = {
    "cryoem_micrograph.mrc": "the header says 1 A, which programs write for *not set*: none is right",
    "lattice_NCEM.emd": "RosettaSciIO hands the rows over as columns; the rows are as h5py reads them",
    "zeiss_sem_512.tif": "the tag's 5.825 nm are for 1024 columns; the field of 5.965 um has 512",
    "multi_signal.dm3": "its other signal is a plot, not an image",
    "cryoet_microtubule_stack.tif": "ImageJ's header states 1.052 and nm; RosettaSciIO reads the number without its unit",
    "float32_nonsquare.dm4": "pixels of two sizes, 0.2 x 1 nm: both in the metadata",
}
PLUGINS = dict.fromkeys((".dm3", ".dm4"), "digitalmicrograph") | dict.fromkeys((".ser", ".emi"), "tia")
PLUGINS |= {".tif": "tiff", ".emd": "emd", ".mrc": "mrc", ".hspy": "hspy"}
NM = {"pm": 1e-3, "Å": 0.1, "A": 0.1, "nm": 1.0, "n_m": 1.0, "um": 1e3, "µm": 1e3, "mm": 1e6, "cm": 1e7, "m": 1e9}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in {*PLUGINS, ".png", ".jpg"})


def read(path: Path) -> tuple[Micrograph, int]:
    """The whole first image with its bar, and the number of images."""
    try:
        return load_micrograph(path, keep_bar=True), 1
    except ValueError as error:
        count = int(re.search(r"pass frame=0\.\.(\d+)", str(error))[1]) + 1
        return load_micrograph(path, frame=0, keep_bar=True), count


def other_reader(path: Path) -> tuple[str, np.ndarray, list[float | None]]:
    """(its name, (images, height, width) of the first signal that is an image, nm per pixel along y and x)."""
    if path.suffix not in PLUGINS:
        return "Pillow", np.asarray(Image.open(path).convert("L"))[None], [None, None]  # BT.601 of colours
    try:
        signals = importlib.import_module(f"rsciio.{PLUGINS[path.suffix]}").file_reader(str(path))
    except ValueError:  # a predictor that tifffile leaves to imagecodecs
        return "Pillow", np.asarray(Image.open(path))[None], [None, None]
    signal, axes = next((signal, axes) for signal in signals if len(axes := [axis for axis in signal["axes"] if not axis["navigate"]]) == 2)
    sizes = [axis["scale"] * NM[axis["units"]] if axis["units"] in NM else None for axis in axes]
    return "RosettaSciIO", signal["data"].reshape(-1, *signal["data"].shape[-2:]), sizes


def row(path: Path, folder: Path) -> str:
    micrograph, count = read(path)
    name, pictures, sizes = other_reader(path)
    x, y = micrograph.metadata.get("pixel_size_xy", [micrograph.pixel_size] * 2)
    same_size = all(a == b or (a and b and abs(a / b - 1) < 1e-6) for a, b in zip((y, x), sizes, strict=True))
    tolerance = 1 if path.suffix == ".jpg" or path.parent.name == "optical" else 0  # rounding of luminances, decoders of JPEG
    same, turned = (
        micrograph.data.shape == p.shape and np.allclose(micrograph.data, p, rtol=0, atol=tolerance, equal_nan=True) for p in (pictures[0], pictures[0].T)
    )
    said = ["pixels" if same else "pixels, turned" if turned else "**other pixels**"]
    said += (["size"] if x else []) if same_size else [f"it says {sizes[1]:.4g} nm" if sizes[1] else "it says no size"]
    said += ["number of images"] if len(pictures) == count > 1 else []
    bar = micrograph.metadata.get("data_bar", {}).get("rows")
    cells = [
        f"`{path.relative_to(folder)}`",
        next(repository for start, repository in SOURCES.items() if path.name.startswith(start)),
        f"{bar[0] if bar else len(micrograph.data)}x{micrograph.data.shape[1]}",
        micrograph.data.dtype,
        f"{micrograph.pixel_size:.4g}" if micrograph.pixel_size else f"{x:.4g}, {y:.4g}" if x else "none",
        count,
        "{}:{}".format(*bar) if bar else "",
        f"{name}: {', '.join(said)}",
        NOTES.get(path.name, ""),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def table(folder: Path) -> str:
    head = "| file | from | rows x columns | dtype | nm per pixel (x, y) | images | bar left out | agrees with | note |"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return "\n".join([head, re.sub(r"[^|]+", "---", head), *(row(path, folder) for path in files(folder))])


def main(data: Path, out: Path) -> None:
    """Write the table between its two marks.

    Args:
        data: folder of micrographs.
        out: Markdown file that has the marks.
    """
    text = out.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    out.write_text(f"{before}{BEGIN}\n\n{table(data)}\n\n{END}{after}")


if __name__ == "__main__":
    tyro.cli(main)
