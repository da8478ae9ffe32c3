"""Damaged micrographs for `tests.fuzz`: small valid files of every format, and what can happen to them."""

from __future__ import annotations

import shutil
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import tifffile

from common.micrograph import Micrograph, load_micrograph, save_micrograph

GROUPS = ("tiff", "png", "jpeg", "dm", "emd-velox", "emd-ncem", "tia", "mrc", "hspy", "hdf5")
EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 10**5, 10**6, 10**8, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
NUMBERS = ("u1", "<u2", ">u2", "<u4", ">u4", "<u8", ">u8")


# --- Files to start from ---


@dataclass
class Specimen:
    """A valid file, what must lie beside it (end of the name -> bytes), and where in it the bytes lie that are no pixels."""

    name: str
    data: bytes
    beside: dict[str, bytes]
    structure: np.ndarray


def specimens(real: Path | None, folder: Path) -> dict[str, list[Specimen]]:
    """All groups; those that nobody here writes (dm, emd-velox, tia) are empty without real files."""
    made: dict[str, list[Path]] = {group: [] for group in GROUPS}
    rng = np.random.default_rng(0)
    grey, deep = rng.integers(0, 256, (24, 20), np.uint8), rng.integers(0, 60000, (20, 24), np.uint16)
    stack = rng.integers(0, 60000, (3, 10, 12), np.uint16)

    def new(group: str, name: str) -> Path:
        made[group].append(folder / f"{group}_{name}")
        return made[group][-1]

    for group, extension in (("tiff", "tif"), ("hspy", "hspy")):
        for image in (grey, deep, deep.astype(np.float32)):
            save_micrograph(new(group, f"own_{image.dtype}.{extension}"), Micrograph(image, 1.5, {"detector": "HAADF", "kV": [200.0, None]}))
    tifffile.imwrite(new("tiff", "pages.tif"), stack, photometric="minisblack")
    tifffile.imwrite(new("tiff", "tiles.tif"), deep, tile=(16, 16), compression="zlib", predictor=True)
    tifffile.imwrite(new("tiff", "big.tif"), deep, bigtiff=True, byteorder=">")
    tifffile.imwrite(new("tiff", "planar.tif"), np.stack([grey] * 3), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(new("tiff", "palette.tif"), grey, photometric="palette", colormap=rng.integers(0, 65536, (3, 256), np.uint16))
    cv2.imwrite(str(new("tiff", "lzw.tif")), deep)
    for name, image in {"grey": grey, "deep": deep, "rgb": np.dstack([grey] * 3), "rgba": np.dstack([deep] * 4)}.items():
        cv2.imwrite(str(new("png", f"{name}.png")), image)
    for name, image, progressive in (("grey", grey, 0), ("progressive", grey, 1), ("rgb", np.dstack([grey, grey.T[:20].repeat(2, 0)[:24, :20], grey]), 0)):
        cv2.imwrite(str(new("jpeg", f"{name}.jpg")), image, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    new("mrc", "image.mrc").write_bytes(mrc(deep.astype(np.float32)[None]))
    new("mrc", "stack.mrc").write_bytes(mrc(stack.astype(np.int16)))
    with h5py.File(new("hdf5", "chunks.h5"), "w") as file:
        file.create_dataset("a/stack", data=stack, chunks=(1, 5, 12), compression="gzip", shuffle=True)
    with h5py.File(new("hdf5", "image.h5"), "w") as file:  # as `save_micrograph` does, but for the version of the format, whose time stamps would differ
        file["data"] = deep
        file["data"].attrs.update(pixel_size=1.5, unit="nm", micrograph_json='{"detector": "HAADF"}')
    with h5py.File(new("emd-ncem", "own.emd"), "w") as file:
        file.attrs.update(version_major=0, version_minor=2)
        group = file.create_group("data/image")
        group.attrs["emd_group_type"] = 1
        group["data"] = deep
        for k, name in enumerate("yx"):
            axis = group.create_dataset(f"dim{k + 1}", data=np.arange(deep.shape[k]) * 0.5)
            axis.attrs.update(name=name, units="[n_m]")
    if real:
        for path in sorted(p for p in real.rglob("*") if p.suffix in SHRINK):
            group = group_of(path)
            SHRINK[path.suffix](path, new(group, path.name))
        shutil.copytree(real / "raw_formats", folder, dirs_exist_ok=True, ignore=lambda _, names: [n for n in names if not n.endswith((".ser", ".emi"))])
        made["tia"] += sorted(p for p in folder.glob("*.*") if p.suffix == ".emi" or (p.suffix == ".ser" and p.stat().st_size < 500_000))
    return {group: [specimen(path) for path in paths] for group, paths in made.items()}


def specimen(path: Path) -> Specimen:
    raw = path.read_bytes()
    mask = np.ones(len(raw), bool)
    for frame in (None, *range(8)):
        try:
            pixels = load_quietly(path, frame).data
        except ValueError:
            continue
        for ordered in (pixels, pixels[::-1], pixels.astype(pixels.dtype.newbyteorder(">"))):
            if (start := raw.find(np.ascontiguousarray(ordered).tobytes())) >= 0:
                mask[start : start + pixels.nbytes] = False
    beside = {p.name.removeprefix(path.stem): p.read_bytes() for p in path.parent.glob(f"{path.stem}_*.ser")} if path.suffix == ".emi" else {}
    return Specimen(path.name, raw, beside, np.flatnonzero(mask))


def load_quietly(path: Path, frame: int | None = None) -> Micrograph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_micrograph(path, frame)


def group_of(path: Path) -> str:
    """Velox and Berkeley share an extension."""
    if path.suffix == ".emd":
        with h5py.File(path) as file:
            return "emd-velox" if "Data/Image" in file else "emd-ncem"
    return {".tif": "tiff", ".png": "png", ".jpg": "jpeg", ".dm3": "dm", ".dm4": "dm", ".mrc": "mrc", ".hspy": "hspy"}[path.suffix]


def shrink_tiff(path: Path, target: Path) -> None:
    """The first page's corner, with the tags of FEI and Zeiss and the palette."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        extra = [(code, tag.dtype, tag.count, tag.value if isinstance(tag.value, bytes) else raw_value(path, tag), True)
                 for code in (34118, 34680, 34682) if (tag := page.tags.get(code))]  # fmt: skip
        image = load_quietly(path, 0 if len(tif.pages) > 1 else None).data[:32, :32]
        colours = (
            {"photometric": "palette", "colormap": page.colormap} if page.colormap is not None and image.dtype == np.uint8 else {"photometric": "minisblack"}
        )
    tifffile.imwrite(target, image, extratags=extra, metadata=None, **colours)


def raw_value(path: Path, tag: tifffile.TiffTag) -> bytes:
    return path.read_bytes()[tag.valueoffset : tag.valueoffset + tag.valuebytecount]


def shrink_raster(path: Path, target: Path) -> None:
    cv2.imwrite(str(target), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:48, :48])


def shrink_hdf5(path: Path, target: Path) -> None:
    """The corner of every image in the file, everything else as it is."""

    def copy(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim > 1 and item.dtype != np.uint8:
            part = item[tuple(slice(32) for _ in item.shape)]
            new = small.create_dataset(name, data=part, chunks=part.shape, compression=item.compression)
        elif isinstance(item, h5py.Dataset):
            source.copy(item, small, name)
            return
        else:
            new = small.require_group(name)
        new.attrs.update(item.attrs)

    with h5py.File(path) as source, h5py.File(target, "w") as small:
        small.attrs.update(source.attrs)
        source.visititems(copy)


def shrink_mrc(path: Path, target: Path) -> None:
    target.write_bytes(mrc(load_quietly(path).data[None, :32, :32]))


def mrc(stack: np.ndarray) -> bytes:
    """MRC 2014: a header of 1024 bytes, then (n, H, W) int8, int16 or float32."""
    header = np.zeros(256, "<i4")
    header[:3] = header[7:10] = stack.shape[::-1]
    header[3] = {"int8": 0, "int16": 1, "float32": 2}[stack.dtype.name]
    header[10:13] = np.array(stack.shape[::-1], "<f4").view("<i4")
    header[16:19] = 1, 2, 3
    header[52:54] = np.frombuffer(b"MAP \x44\x44\0\0", "<i4")
    return header.tobytes() + stack.tobytes()


SHRINK = {".tif": shrink_tiff, ".png": shrink_raster, ".jpg": shrink_raster, ".emd": shrink_hdf5, ".hspy": shrink_hdf5, ".mrc": shrink_mrc}
SHRINK |= dict.fromkeys((".dm3", ".dm4"), shutil.copyfile)  # nobody writes these


# --- Damage ---


def mutation(group: list[Specimen], rng: np.random.Generator) -> tuple[Specimen, str, dict[str, bytes], list[str]]:
    """(what it was, extension, end of the name -> bytes, what was done)."""
    start = group[rng.integers(len(group))]
    extension = Path(start.name).suffix
    parts = {extension: start.data, **start.beside}
    which = list(parts)[rng.integers(len(parts))]
    structure = start.structure if which == extension else np.arange(len(parts[which]))
    done = [which] if start.beside else []
    data = bytearray(parts[which])
    for _ in range(rng.geometric(0.5)):
        damage = DAMAGE[rng.integers(len(DAMAGE))]
        damage(data, position(len(data), structure, rng), group, rng)
        done.append(damage.__name__)
    if extension == ".png" and rng.random() < 0.7:
        mend(data)
        done.append("mend")
    parts[which] = bytes(data)
    if rng.random() < 0.02:
        extension = EXTENSIONS[rng.integers(len(EXTENSIONS))]
        parts[extension] = parts.pop(Path(start.name).suffix)
        done.append(f"named {extension}")
    return start, extension, parts, done


def position(length: int, structure: np.ndarray, rng: np.random.Generator) -> int:
    """Half of the time near the beginning of what is no pixel, a third of the time elsewhere in it, else anywhere."""
    draw = rng.random()
    if draw < 0.83 and len(structure):
        k = int(rng.exponential(400)) if draw < 0.5 else int(rng.integers(len(structure)))
        return min(int(structure[min(k, len(structure) - 1)]), max(0, length - 1))
    return int(rng.integers(max(1, length)))


def flip(data: bytearray, at: int, group, rng) -> None:
    for k in range(at, min(len(data), at + int(rng.integers(1, 4)))):
        data[k] ^= 1 << int(rng.integers(8))


def fill(data: bytearray, at: int, group, rng) -> None:
    end = min(len(data), at + int(rng.geometric(1 / 16)))
    data[at:end] = (bytes(end - at), b"\xff" * (end - at), rng.bytes(end - at))[rng.integers(3)]


def number(data: bytearray, at: int, group, rng) -> None:
    """An integer becomes an extreme one, its neighbour, its double or its negative."""
    kind = np.dtype(NUMBERS[rng.integers(len(NUMBERS))])
    at -= at % kind.itemsize if rng.random() < 0.5 else 0
    if at + kind.itemsize > len(data):
        return
    old = int(np.frombuffer(data, kind, 1, at)[0])
    value = (EXTREMES[rng.integers(len(EXTREMES))], old + 1, old - 1, 2 * old, -old)[rng.choice(5, p=(0.6, 0.1, 0.1, 0.1, 0.1))]
    data[at : at + kind.itemsize] = np.array(value % 256**kind.itemsize, kind).tobytes()


def truncate(data: bytearray, at: int, group, rng) -> None:
    del data[at - at % int(rng.choice((1, 16, 512, 4096))) :]


def delete(data: bytearray, at: int, group, rng) -> None:
    del data[at : at + int(rng.geometric(1 / 32))]


def insert(data: bytearray, at: int, group, rng) -> None:
    data[at:at] = rng.bytes(int(rng.geometric(1 / 32)))


def repeat(data: bytearray, at: int, group, rng) -> None:
    data[at:at] = data[at : at + int(rng.geometric(1 / 64))]


def splice(data: bytearray, at: int, group, rng) -> None:
    """The beginning of this file and the end of another one."""
    other = group[rng.integers(len(group))].data
    data[at:] = other[position(len(other), np.arange(0), rng) if rng.random() < 0.5 else at :]


def mend(data: bytearray) -> None:
    """Make the checksums of a PNG's chunks true again: else hardly any damage would get past them."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big") if end + 4 <= len(data) else b""
        at = end + 4


DAMAGE = (flip, flip, fill, number, number, number, truncate, delete, insert, repeat, splice)
EXTENSIONS = (".tif", ".png", ".jpg", ".bmp", ".dm3", ".dm4", ".emd", ".ser", ".emi", ".mrc", ".hspy", ".h5", ".hdf5", ".blo", ".npy", ".xyz")
