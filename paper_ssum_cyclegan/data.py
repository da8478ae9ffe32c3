"""SSUM CycleGAN's data: registered pairs of optical and SEM images, numbered patches of them, and what restoring a micrograph asks of the physics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from common.data import example_rng, from_unit_range, image_files, intensity_range, listing_hash, to_unit_range
from common.micrograph import Micrograph, load_micrograph

from .config import Config

SIMULATED = (512, 512)  # pixels of a simulated chip
POINT_SPREADS = (1.7, 2.4, 3.1)  # pixels, standard deviations: 80 to 145 nm across half the height, at 20 nm per pixel
DEVIATION = 0.25  # of a chip's picture, over its range
LEAST_NOISE = 0.8  # over that deviation: less makes halos around every line; with the widest point spread what simulated chips choose (`baselines.tune`)
SUFFIXES = ("_optical", "_sem")  # of the two files of a pair
SCALE = {"black": 0, "white": 65535}  # in the metadata of pairs whose grey scale is that of the whole mosaic; others get one of their own

Pair = tuple[np.ndarray, np.ndarray]  # optical and SEM, (height, width) float32 in [0, 1]


# --- Pairs ---


def unit(image: np.ndarray) -> np.ndarray:
    """Any image as float32 in [0, 1], black and white as `common.data.intensity_range` has them."""
    image = np.asarray(image, np.float32)
    return np.clip(to_unit_range(image, np.asarray(intensity_range(image[None, ..., None]))[0, 0]), 0, 1)


def _grey(micrograph: Micrograph) -> np.ndarray:
    """A file of a pair as float32 in [0, 1]: between the black and white that it names, as those of `preprocess` do, or its own."""
    black, white = (micrograph.metadata.get(name) for name in SCALE)
    if black is None or white is None:
        return unit(micrograph.data)
    return np.clip((np.float32(micrograph.data) - black) / (white - black), 0, 1)


class _Pairs(Sequence):
    """Pairs that are made when first asked for and kept as 16 bit."""

    def __init__(self, count: int):
        self.count = count
        self._kept = lru_cache(maxsize=count)(self._stored)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> Pair:
        if not 0 <= k < self.count:
            raise IndexError(k)
        return tuple(image.astype(np.float32) / 65535 for image in self._kept(k))

    def _stored(self, k: int) -> Pair:
        return tuple(np.round(image * 65535).astype(np.uint16) for image in self.make(k))


class SimulatedPairs(_Pairs):
    """Chips seen twice; pair k depends on (seed, split, k) only, and splits share none."""

    def __init__(self, config: Config, split: str, count: int):
        super().__init__(count)
        self.config, self.seed = config, int(example_rng(config.seed, 0, f"{split} chips").integers(2**62))

    def make(self, k: int) -> Pair:
        from .simulator import simulate_pair

        pair = simulate_pair((self.seed, k), SIMULATED, self.config.pixel_size, self.config.misalignment)
        return unit(pair.optical), unit(pair.sem)


class FolderPairs(_Pairs):
    """The pairs of a folder, of at least `side` pixels each way: NAME_optical and NAME_sem files of equal shape; no pixel is averaged."""

    def __init__(self, folder: Path, side: int):
        self.files, self.side = pair_files(folder), side
        super().__init__(len(self.files))

    def make(self, k: int) -> Pair:
        files = [load_micrograph(path) for path in self.files[k]]
        images, name = [np.asarray(file.data, np.float32) for file in files], self.files[k][0]
        if images[0].shape != images[1].shape:
            raise ValueError(f"{name} has {images[0].shape} pixels, its SEM image {images[1].shape}; register them first, with paper_ssum_cyclegan.preprocess")
        if not all(np.isfinite(image).all() for image in images):
            raise ValueError(f"{name} or its SEM image has pixels that are not finite; take the pair out of the folder")
        if min(images[0].shape) < self.side:
            raise ValueError(f"{name} has {images[0].shape[0]} x {images[0].shape[1]} pixels; patches of {self.side} need more: give a smaller --side")
        return tuple(_grey(file) for file in files)


def pair_files(folder: Path) -> list[tuple[Path, Path]]:
    """Files NAME_optical.* and NAME_sem.* of a folder, by name. ValueError for a file without its other half, or with two."""
    halves: dict[str, dict[str, Path]] = {}
    for path in image_files(folder):
        for suffix in SUFFIXES:
            if path.stem.lower().endswith(suffix):
                found = halves.setdefault(path.stem[: -len(suffix)], {})
                if suffix in found:
                    raise ValueError(f"{found[suffix]} and {path} are the same half of a pair; take one out of the folder")
                found[suffix] = path
    alone = [name for name, found in halves.items() if len(found) < 2]
    if alone or not halves:
        raise ValueError(f"{folder} must hold pairs NAME_optical and NAME_sem; " + (f"{alone[0]} lacks one" if alone else "it holds none"))
    return [tuple(found[suffix] for suffix in SUFFIXES) for _, found in sorted(halves.items())]


def training_pairs(config: Config, data: Path | None) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """Pairs to train on and pairs to validate on: simulated chips, or the folders `train` and `val` that `paper_ssum_cyclegan.preprocess` writes."""
    if data is None:
        return SimulatedPairs(config, "train", config.pairs), SimulatedPairs(config, "val", config.validation_pairs)
    found = tuple(FolderPairs(Path(data) / split, config.side) for split in ("train", "val"))
    for pairs in found:
        for k in range(len(pairs)):  # a bad pair must not stop a training that has begun
            pairs[k]
    return found


def describe_data(config: Config, data: Path | None) -> dict:
    """What `training_pairs` draws from, for config.json; pixel_size in nm, that of the first file."""
    if data is None:
        return {"simulated chips": config.pairs}
    files = [path for split in ("train", "val") for pair in pair_files(Path(data) / split) for path in pair]
    return {"pairs": {"folder": str(data), "images": len(files), "pixel_size": load_micrograph(files[0]).pixel_size, "sha256": listing_hash(Path(data), files)}}


# --- Patches ---


@dataclass(frozen=True)
class Patches:
    """The training set: `patches(i)` gives (optical, SEM), both (side, side, 1) float32 in [-1, 1].

    If `config.paired` they are cut, turned, mirrored and scaled alike, else drawn independently.
    """

    config: Config
    pairs: Sequence[Pair]

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = example_rng(self.config.seed, index)
        views = []
        for domain in range(2):
            if domain == 0 or not self.config.paired:
                pair = self.pairs[int(rng.integers(len(self.pairs)))]
                where = placed(pair[0].shape, self.config, rng)
            views.append(cut(pair[domain], where, self.config.side))
        return tuple((2 * view - 1)[..., None] for view in views)

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        return ((self.config.side, self.config.side, 1),) * 2


def placed(shape: tuple[int, int], config: Config, rng: np.random.Generator) -> np.ndarray:
    """(2, 3), patch (column, row, 1) -> picture (column, row): a random place, flip, rotation and scale of which no pixel lies outside the picture.

    Where a turned patch would not fit, it is enlarged until it does: corners are never made up.
    """
    angle, scale = math.radians(rng.choice(config.rotations)), float(rng.choice(config.scales))
    cosine, sine = math.cos(angle), math.sin(angle)
    reach = (config.side - 1) / 2 * (abs(cosine) + abs(sine))  # of the turned square
    scale = max(scale, 2 * reach / (min(shape) - 1))
    flips = rng.choice((-1.0, 1.0), 2)
    turn = np.array([[cosine, -sine], [sine, cosine]]) * flips / scale
    centre = np.array([rng.uniform(reach / scale, n - 1 - reach / scale) if n - 1 > 2 * reach / scale else (n - 1) / 2 for n in shape[::-1]])
    first = centre - turn @ np.full(2, (config.side - 1) / 2)
    if np.allclose(np.abs(turn), np.rint(np.abs(turn)), atol=1e-9):  # pixels stay pixels, or interpolation would smooth the noise of every patch
        turn, first = np.rint(turn), np.rint(first)
    return np.column_stack([turn, first])


def cut(picture: np.ndarray, where: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float32 in [0, 1] by cubic interpolation."""
    patch = cv2.warpAffine(picture, where, (side, side), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT)
    return np.clip(patch, 0, 1)


# --- What restoring asks ---


def statistics(images, dtype="float32"):
    """Black and white of each image, (batch, 1, 1, 2): quantiles for 8 bit too, since the contrast of an optical image says nothing of the SEM's."""
    return intensity_range(images)


def prepare(images, state):
    """Raw intensities -> [-1, 1]."""
    from keras import ops

    return 2 * ops.clip(to_unit_range(images, state), 0, 1) - 1


def finish(output, state):
    """[-1, 1] -> from the optical image's black to its white: an SEM look has no unit of its own."""
    return from_unit_range((output + 1) / 2, state)


def acquire(restored: np.ndarray) -> np.ndarray:
    """(height, width) -> (n, height, width): what the superlens may have shown of it, point spreads of 80 to 145 nm at 20 nm per pixel, and either contrast."""
    blurred = [cv2.GaussianBlur(np.float32(restored), (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for sigma in POINT_SPREADS]
    return np.stack([*blurred, *(2 * image.mean() - image for image in blurred)])


def classical(part: np.ndarray, state: np.ndarray, noise: float) -> np.ndarray:
    """(height, width) -> the same shape and units: the widest point spread undone by Wiener's filter, as far as the noise allows."""
    from .baselines import wiener

    black, white = (float(value) for value in np.ravel(state))
    deviation = DEVIATION * (white - black)
    return wiener((part - black) / (white - black), POINT_SPREADS[-1], max(noise / deviation, LEAST_NOISE)) * (white - black) + black


def samples(seed: int = 0) -> list[tuple[str, Micrograph, np.ndarray]]:
    """For the demo: (name, optical Micrograph of a simulated chip, 480 x 480 uint8, its SEM image between the same black and white)."""
    from .simulator import simulate_pair

    found = []
    for k in range(3):
        pair = simulate_pair((seed, k, 77), (480, 480))
        optical = np.round(unit(pair.optical) * 255).astype(np.uint8)
        black, white = np.asarray(intensity_range(optical[None, ..., None].astype(np.float32))).ravel()
        truth = np.round(np.clip(black + unit(pair.sem) * (white - black), 0, 255)).astype(np.uint8)
        found.append((f"chip {k}", Micrograph(optical, pair.layout.pixel_size, source=f"simulated chip {k}"), truth))
    return found
