"""DLSS-STEM's data: crops of real or simulated scans, numbered examples of them, and what restoring a sparse scan asks of the physics.

P is the paper; C68, K and W are the author's scripts; see this package's README.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import tifffile
from tqdm import tqdm

from common.data import SimulatedImages, dihedral, example_rng, image_files, intensity_range, listing_hash, magnified
from common.micrograph import Micrograph, load_micrograph
from common.papers import Paper
from common.reading.guards import Log

from .baselines import aligned_whole, blurred, usual_sigma
from .config import Config

Split = Literal["train", "val", "test"]
SPLITS = ("train", "val", "test")
HELD_OUT = 512  # simulated specimens of a split that nothing is trained on, at most
HDF5 = (".h5", ".hdf5")


def prepare_crop(crop: np.ndarray) -> np.ndarray:
    """A raw crop stretched from its own extremes to [-1, 1], float32 of the same shape.

    NaN and infinite pixels are 0 before that [P, C68]. A uniform crop gives 0, as does one whose range is below a millionth of its largest magnitude: C68's
    threshold is absolute, and takes data of low intensity for blank.
    """
    with np.errstate(over="ignore"):
        crop = np.nan_to_num(np.asarray(crop, np.float32), nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)  # the range of float32 overflows float32
    low, high = crop.min(), crop.max()
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return np.zeros(crop.shape, np.float32)
    return (2 * (crop - low) / (high - low) - 1).astype(np.float32)


# --- Sources: sequences of raw crops, (side, side) float32 ---


class FolderCrops(Sequence):
    """The crops of one split of a folder of micrographs, read when asked for; the last 256 are kept.

    folder: with folders train, val and test in it, as the published crops have; or flat, and then split by micrograph in the order of names: the first 75 %
    for training, 10 % for validation, 15 % for tests [K, W]. Each micrograph is tiled from its top left, the remainder and smaller ones dropped [K, W].
    Unreadable files are skipped with a warning; the scripts put zeros in their place and go on [C68]. ValueError where nothing is left.
    Tiles of large micrographs read the whole file each; `python -m paper_dlss.pack` makes one file of them all.
    """

    def __init__(self, folder: str | Path, side: int, split: Split):
        self.side, self.tiles = side, []
        self._file = lru_cache(maxsize=1)(lambda path: load_micrograph(path).data)
        self._crop = lru_cache(maxsize=256)(self._readable)
        for path in tqdm(split_files(folder, split), desc=f"{split} files", unit="file", leave=False, delay=2):
            try:
                height, width = image_shape(path)
            except (ValueError, OSError) as error:
                warnings.warn(f"skipped: {error}", stacklevel=2)
                continue
            self.tiles += [(path, top, left) for top in range(0, height - side + 1, side) for left in range(0, width - side + 1, side)]
        if not self.tiles:
            raise ValueError(f"{folder} holds no readable {split} micrograph of at least {side} x {side} pixels; give larger ones or a smaller --side")

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, k: int) -> np.ndarray:
        return self._crop(range(len(self))[k])

    def read(self, k: int) -> np.ndarray:
        """Crop k; ValueError where its file cannot be read."""
        path, top, left = self.tiles[k]
        crop = self._file(path)[top : top + self.side, left : left + self.side]
        if crop.shape != (self.side, self.side):
            raise ValueError(f"{path} has no {self.side} x {self.side} pixels at ({top}, {left}); it has a data bar there, or was replaced")
        with np.errstate(over="ignore"):
            return crop.astype(np.float32)

    def _readable(self, k: int) -> np.ndarray:
        """Crop k, or the next one that can be read: damage that a file's header does not show must not end a run of days."""
        for other in (*range(k, len(self)), *range(k)):
            try:
                return self.read(other)
            except (ValueError, OSError) as error:
                warnings.warn(f"skipped: {error}", stacklevel=2)
        raise ValueError(f"none of the {len(self)} crops can be read any more; is {self.tiles[0][0].parent} still there?")


def split_files(folder: str | Path, split: Split) -> list[Path]:
    """The micrographs of one split, see `FolderCrops`; a flat folder needs three, for a micrograph belongs to one split only."""
    folder = Path(folder)
    if any((folder / name).is_dir() for name in SPLITS):
        return image_files(folder / split)
    files = image_files(folder)
    if len(files) < 3:
        raise ValueError(f"{folder} holds {len(files)} micrographs; give at least three to split, or folders {', '.join(SPLITS)} in it")
    validation, test = (max(1, round(share * len(files))) for share in (0.1, 0.15))
    edges = (0, len(files) - validation - test, len(files) - test, len(files))
    which = SPLITS.index(split)
    return files[edges[which] : edges[which + 1]]


def image_shape(path: Path) -> tuple[int, int]:
    """Rows and columns; from the header of a plain TIFF, without its pixels. ValueError or OSError where it cannot be read."""
    if path.suffix.lower() in (".tif", ".tiff"):
        try:
            with Log(), tifffile.TiffFile(path, is_ome=False) as tif:
                page = tif.pages[0]
                whole = all(at + n <= path.stat().st_size for at, n in zip(page.dataoffsets, page.databytecounts, strict=True))
                instruments = max(tag.code for tag in page.tags) >= 700  # their tags, which may tell of a data bar
                if whole and not instruments and page.ndim == 2 and [series.shape for series in tif.series] == [page.shape]:
                    return page.shape
        except Exception:  # whatever a damaged header does to its parser: the reader below says what is wrong
            pass
    return load_micrograph(path).data.shape


class PackedCrops(Sequence):
    """The crops of one split of an HDF5 file of `python -m paper_dlss.pack`, read when asked for: a dataset (n, side, side) of the split's name.

    ValueError where the file holds no such thing.
    """

    def __init__(self, path: str | Path, split: Split):
        import h5py

        try:
            self._data, self._lock = h5py.File(path, "r")[split], threading.Lock()
            self.shape = self._data.shape
            good = len(self.shape) == 3 and self.shape[0] > 0 and self.shape[1] == self.shape[2] and self._data.dtype.kind in "iuf"
        except (OSError, KeyError, AttributeError):
            good = False
        if not good:
            raise ValueError(f"{path} holds no {split} crops; make it with python -m paper_dlss.pack")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, k: int) -> np.ndarray:
        with self._lock:
            return self._data[range(len(self))[k]].astype(np.float32)


class SimulatedCrops(Sequence):
    """More simulated crops than any run asks for; crop k depends on (seed, split, k) only. Splits, whatever their names, share no specimen.

    `config.crops` specimens of 512 x 512 pixels (at most `HELD_OUT` for other splits than train) are drawn when first needed and kept as 16 bit.
    """

    def __init__(self, config: Config, split: str):
        seed = int(example_rng(config.seed, 0, f"{split} specimens").integers(2**62))
        self.seed, self.side, self.split = config.seed, config.side, split
        self.specimens = SimulatedImages(seed, config.crops if split == "train" else min(config.crops, HELD_OUT), (max(512, config.side),) * 2)

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, k: int) -> np.ndarray:
        rng = example_rng(self.seed, range(len(self))[k], f"{self.split} crop")
        specimen = self.specimens[int(rng.integers(len(self.specimens)))]
        image = exposed(magnified(specimen, self.side, math.exp(rng.uniform(0, math.log(4))), rng), rng)
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5))
        return recorded(image, math.exp(rng.uniform(math.log(30), math.log(300_000))), 0.03 * rng.uniform() ** 3, rng)


def exposed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window in [0, 1] as an operator sets brightness and contrast: stretched from its extremes to levels of which some saturate, with a tone curve of
    exponent 0.7 to 1.8, and inverted in a quarter of all cases: bright field."""
    low, high = image.min(), image.max()
    black, white = rng.uniform(-0.1, 0.3), rng.uniform(0.7, 1.1)
    image = np.clip(black + (white - black) * (image - low) / max(high - low, 1e-3), 0, 1) ** np.float32(math.exp(rng.uniform(math.log(0.7), math.log(1.8))))
    return 1 - image if rng.random() < 0.25 else image


def recorded(image: np.ndarray, dose: float, read_noise: float, rng: np.random.Generator) -> np.ndarray:
    """A noise-free image in [0, 1] as it is counted: shot noise of `dose` electrons per pixel at white, and Gaussian noise of `read_noise`; float32."""
    return (rng.poisson(image * dose) / dose).astype(np.float32) + np.float32(read_noise) * rng.standard_normal(image.shape, np.float32)


def open_source(config: Config, data: Path | None, split: Split = "train") -> Sequence[np.ndarray]:
    """The crops of one split: simulated, or of a folder of micrographs or a packed HDF5 file. FileNotFoundError and ValueError say what is wrong."""
    if data is None:
        return SimulatedCrops(config, split)
    data = Path(data)
    if not data.exists():
        raise FileNotFoundError(f"no such file or folder: {data}")
    if data.is_dir():
        return FolderCrops(data, config.side, split)
    if data.suffix.lower() not in HDF5:
        raise ValueError(f"{data} is no folder of micrographs and no .h5 file of crops; give one of these")
    source = PackedCrops(data, split)
    if source.shape[1] != config.side:
        raise ValueError(f"{data} holds crops of {source.shape[1]} pixels, not of {config.side}; set --side, or pack again")
    return source


def describe_data(config: Config, data: Path | None) -> dict:
    """What `open_source` draws from, for config.json: a folder or file, the number of its micrographs or crops, and a hash of their names and sizes."""
    if data is None:
        return {"simulated specimens": config.crops}
    data = Path(data)
    if not data.is_dir():
        import h5py

        with h5py.File(data, "r") as file:
            crops = {split: len(file[split]) for split in SPLITS if split in file}
            return {"crops": {"file": str(data), **crops, "sha256": str(file.attrs.get("sha256", ""))}}
    files = source_files(data)
    return {"crops": {"folder": str(data), "files": len(files), "sha256": listing_hash(data, files)}}


def source_files(folder: Path) -> list[Path]:
    """The micrographs of all splits."""
    parts = [folder / split for split in SPLITS if (folder / split).is_dir()]
    return [file for part in parts or [folder] for file in image_files(part)]


# --- Examples ---


@dataclass(frozen=True)
class Examples:
    """`examples(i)` gives (crop, which): (side, side, 1) float32 in [-1, 1], and (1,) float32, the index of a step in `config.scan_steps`.

    stream: "train", or "prefill" for the replay buffer's first slots: a random crop, one of the eight flips and quarter turns of the square, any step [P].
    "validation" and "test": crop i as it is, the steps taking turns.
    """

    config: Config
    source: Sequence[np.ndarray]
    stream: Literal["train", "prefill", "validation", "test"] = "train"

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        steps = len(self.config.scan_steps)
        if self.stream in ("train", "prefill"):
            rng = example_rng(self.config.seed, index, self.stream)
            k, mode, which = (int(rng.integers(n)) for n in (len(self.source), 8, steps))
        else:
            k, mode, which = index % len(self.source), 0, index % steps
        return dihedral(prepare_crop(self.source[k]), mode)[..., None], np.array([which], np.float32)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.config.side, self.config.side, 1), (1,)


# --- What restoring asks: scan point k lies on pixel (step - 1) // 2 + step k of the result, so infilling is repetition ---


def at_step(paper: Paper, step: int) -> Paper:
    """The paper for scans of one step: it enlarges by that."""
    functions = {"prepare": prepare, "halo": halo, "acquire": acquire, "classical": classical, "samples": samples}
    stepped = {name: partial(function, step=step) for name, function in functions.items()}
    symmetries = paper.symmetries if step % 2 else ()  # a scan point lies in the middle of its block only where the step is odd
    return replace(paper, scale=step, symmetries=symmetries, statistics=statistics, finish=finish, multiple=32 // math.gcd(32, step), **stepped)


def statistics(images, dtype="float32"):
    """The least and largest sample of each scan, (batch, 1, 1, 2) float32: the network restores on the scale of its samples. images: (batch, n, m, 1) raw.

    Samples further beyond the 0.1 and 99.9 % quantiles than these are apart do not count: one hot sample must not leave the rest in a corner of the scale. It
    then enters the network outside [0, 1].
    A uniform scan of value v gets a narrow range around v, so that it enters the network as 0.5, as in training, and comes back as v.
    """
    from keras import ops

    images = ops.cast(images, "float32")
    quantiles = intensity_range(images)
    dark, bright = quantiles[..., :1], quantiles[..., 1:]
    low = ops.maximum(ops.min(images, axis=(1, 2, 3), keepdims=True), dark - (bright - dark))
    high = ops.minimum(ops.max(images, axis=(1, 2, 3), keepdims=True), bright + (bright - dark))
    size = ops.maximum(ops.abs(low), ops.abs(high))
    around = ops.where(high - low <= 1e-6 * size, ops.where(size > 0, size / 4096, 0.5), 0.0)
    return ops.concatenate([low - ((high + around) - high), high + around], axis=-1)  # to the last bit as far below as above


def prepare(images, state, step: int):
    """Raw scan -> network input: (batch, n, m, 1) -> (batch, n step, m step, 1) in [0, 1], every scan point repeated step x step times."""
    from keras import ops

    low, high = state[..., :1], state[..., 1:]
    # From the middle of the range, where a uniform scan lies to the last bit.
    return ops.repeat(ops.repeat((images - (low + high) / 2) / (high - low) + 0.5, step, axis=1), step, axis=2)


def finish(output, state):
    """Network output in [-1, 1] -> raw intensities."""
    low, high = state[..., :1], state[..., 1:]
    return output * ((high - low) / 2) + (low + high) / 2


def halo(config: Config, step: int) -> int | None:
    """Scan points around one that can change its restoration; None where the network takes the means of the whole image."""
    from .generator import receptive_radius

    radius = receptive_radius(config)
    return None if radius is None else math.ceil(radius / step)


def acquire(restored: np.ndarray, step: int) -> np.ndarray:
    """(n step, m step) -> (3, n, m) float32: what the scan may have recorded of a restoration, at its own points.

    The network restores the specimen blurred (5 x 5, sigma 2.5), a sample is sharp: so the restoration itself, and two sharpened by what that blur removes.
    """
    restored = np.ascontiguousarray(restored, np.float32)
    removed = restored - blurred(restored)
    point = np.s_[(step - 1) // 2 :: step]
    return np.stack([(restored + amount * removed)[point, point] for amount in (0.0, 0.5, 1.0)])


def classical(part: np.ndarray, state: np.ndarray, noise: float, step: int) -> np.ndarray:
    """(n, m) -> (n step, m step) in the same units: cubic interpolation of the scan points where they lie, then a Gaussian that grows with the step."""
    return aligned_whole(part, step, "bicubic", usual_sigma(step))


def samples(seed: int = 0, step: int = 5) -> list[tuple[str, Micrograph, np.ndarray]]:
    """For the demo: (name, sparse scan as a uint8 Micrograph, uint8 truth on the restored grid, `step` times as large), three simulated specimens.

    The truth is the noise-free specimen with the blur that the network restores it with.
    """
    from common.specimens import simulate

    found, side = [], 480 // step * step
    for k, name in enumerate(("gold", "powder", "lattice")):
        rng = example_rng(seed, k, "sample")
        specimen = simulate(name, (seed, k, 77), (512, 512))
        image = cv2.GaussianBlur(magnified(specimen.image, side, 2.0, rng), (0, 0), 1.0)
        scan = recorded(image, 2000.0, 0.01, rng)[(step - 1) // 2 :: step, (step - 1) // 2 :: step]
        scan, truth = (np.round(np.clip(a, 0, 1) * 255).astype(np.uint8) for a in (scan, blurred(image)))
        found.append((name, Micrograph(scan, pixel_size=specimen.pixel_size / 2 * step, source=f"simulated {name}"), truth))
    return found
