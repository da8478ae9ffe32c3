"""Pack a folder of micrographs into one HDF5 file of crops: `python -m paper_dlss.pack FOLDER --out crops.h5`.

Training then reads one small piece of one open file per crop, whatever the size of the set and of its micrographs: `empapers train dlss --data crops.h5`.
"""

from __future__ import annotations

import os
import uuid
import warnings
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from .data import HDF5, SPLITS, FolderCrops, listing_hash, source_files


def pack(folder: tyro.conf.Positional[Path], out: Path, side: int = 512, seed: int = 0) -> Path:
    """Write datasets train, val and test of (n, side, side) float32 crops as they are in their files, shuffled within each, one chunk per crop.

    The splits are those of `FolderCrops`. Memory holds one micrograph at a time; the file appears whole or not at all.

    Args:
        folder: micrographs, or folders train, val and test of them.
        out: the .h5 file to write; must not exist.
        side: pixels of a crop.
        seed: of the order in which crops are stored.
    """
    import h5py

    folder, out = Path(folder), Path(out)
    if side < 1:
        raise ValueError(f"side must be at least 1, got {side}")
    if out.suffix.lower() not in HDF5:
        raise ValueError(f"{out} must end in .h5")
    if out.exists():
        raise FileExistsError(f"{out} exists; choose another --out or remove it")
    present = [split for split in SPLITS if (folder / split).is_dir()] or SPLITS
    sources = {split: FolderCrops(folder, side, split) for split in present}
    temporary = out.with_name(f".{uuid.uuid4().hex}{out.suffix}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with h5py.File(temporary, "w") as file:
            file.attrs.update(side=side, seed=seed, sha256=listing_hash(folder, source_files(folder)))
            counts = {split: _write(file, split, source, seed) for split, source in sources.items()}
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{out}: {', '.join(f'{count} {split}' for split, count in counts.items())} crops of {side} x {side} pixels")
    return out


def _write(file, split: str, source: FolderCrops, seed: int) -> int:
    """One split; returns the number of its crops. Micrographs are read in their order, each once, and their crops scattered over the file."""
    shape = (source.side, source.side)
    data = file.create_dataset(split, (len(source), *shape), "float32", chunks=(1, *shape), maxshape=(len(source), *shape))
    gaps = set()
    for k, place in enumerate(tqdm(np.random.default_rng(seed).permutation(len(source)), desc=split, unit="crop", leave=False)):
        try:
            data[place] = source.read(k)
        except ValueError as error:
            warnings.warn(f"skipped: {error}", stacklevel=2)
            gaps.add(int(place))
    count = len(source) - len(gaps)
    last = [place for place in range(count, len(source)) if place not in gaps]
    for gap, place in zip(sorted(gaps), last, strict=False):
        data[gap] = data[place]
    data.resize(count, axis=0)
    return count


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(pack, "python -m paper_dlss.pack", tensorflow=False))
