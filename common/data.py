"""From numbered examples to tf.data batches, and image sources that training draws from.

The rule that everything rests on: example i is a pure function of (seed, i). A run is therefore resumed by a number.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from .devices import share
from .micrograph import load_micrograph

IMAGE_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".h5", ".hdf5", ".dm3", ".dm4", ".emd", ".ser", ".mrc", ".hspy"}
FAMILIES = ("gold", "powder", "porous", "grains", "fibres", "chip", "section", "lattice")  # in this order: picture k of a seed must stay what it is


def example_rng(seed: int, index: int, stream: str = "train") -> np.random.Generator:
    """The generator of example `index`; streams (training, validation, a second batch of the same step) are independent of each other."""
    return np.random.default_rng((seed, index, *stream.encode()))


def batches(
    example: Callable[[int], tuple[np.ndarray, ...]],
    shapes: Sequence[tuple[int, ...]],
    batch: int,
    start: int = 0,
):
    """An endless tf.data.Dataset of float32 batches of `example(i)` for i = start, start + 1, ...

    example: index -> arrays of the given shapes, a pure function; it runs in threads, so it must not write to shared state.
    start: the first index; a run resumed at step s starts at s * batch.
    In the scope of a tf.distribute.Strategy the batches are shares of `batch` examples, one after the other for each device of this worker, and worker w of n
    makes the w-th n-th of every joint batch and nothing else: all devices together see what one device would. ValueError if equal shares are not possible.
    """
    import tensorflow as tf

    worker, workers, each = share(batch, tf.distribute.get_strategy())
    mine = batch // workers
    cv2.setNumThreads(1)  # examples run in parallel already; OpenCV's own threads would fight the training step for cores

    def one(index):
        return tuple(np.ascontiguousarray(a, np.float32) for a in example(int(index)))

    def load(index):
        arrays = tf.numpy_function(one, [index], [tf.float32] * len(shapes))
        return tuple(tf.ensure_shape(a, s) for a, s in zip(arrays, shapes, strict=True))

    joint = tf.data.Dataset.range(start + worker * mine, np.iinfo(np.int64).max - batch, batch)
    indices = joint.flat_map(lambda first: tf.data.Dataset.range(first, first + mine))
    dataset = indices.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(each, drop_remainder=True).prefetch(4)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))  # else devices ask each other before every step who has data
    options = tf.data.Options()
    options.threading.private_threadpool_size = os.cpu_count() or 1  # training runs one operation at a time; examples must not wait for their turn there
    return dataset.with_options(options)


def intensity_range(images):
    """Black and white of each image: its 0.1 and 99.9 % quantiles over 256 x 256 evenly spaced pixels.

    images: (batch, height, width, 1) float32, finite. Returns (batch, 1, 1, 2) float32. Quantiles rather than extremes, because one hot pixel must not darken
    the rest; evenly spaced pixels, because an exported graph must not sort 67 million of them. Where the quantiles coincide the extremes are taken; a
    constant image of value v gives v and a little more (1 for ordinary values).
    """
    from keras import ops

    images = ops.cast(images, "float32")
    everything = ops.reshape(images, (ops.shape(images)[0], -1))
    for axis in (1, 2):
        images = ops.take(images, ops.arange(256) * ops.shape(images)[axis] // 256, axis=axis)
    values = ops.sort(ops.reshape(images, (-1, 256 * 256)), axis=-1)
    low, high = values[:, 65:66], values[:, 65470:65471]
    flat = high <= low
    low, high = ops.where(flat, ops.min(everything, axis=-1, keepdims=True), low), ops.where(flat, ops.max(everything, axis=-1, keepdims=True), high)
    high = ops.where(high > low, high, low + ops.maximum(1.0, 1e-6 * ops.abs(low)))
    return ops.reshape(ops.concatenate([low, high], axis=-1), (-1, 1, 1, 2))


def grey_scale(images, dtype="float32"):
    """What [0, 1] means for raw images of a pixel type: 0 and 255 where that is uint8, as papers with 8-bit data have it, `intensity_range` elsewhere.

    images: (batch, height, width, 1). Returns (batch, 1, 1, 2) float32.
    """
    from keras import ops

    if np.dtype(dtype) == np.uint8:
        return ops.tile(ops.reshape(ops.convert_to_tensor([0.0, 255.0]), (1, 1, 1, 2)), (ops.shape(images)[0], 1, 1, 1))
    return intensity_range(images)


def to_unit_range(images, state):
    """(x - black) / (white - black), with `state` from `grey_scale` or `intensity_range`; pixels beyond black and white lie outside [0, 1]."""
    return (images - state[..., :1]) / (state[..., 1:] - state[..., :1])


def from_unit_range(images, state):
    """The inverse of `to_unit_range`."""
    return images * (state[..., 1:] - state[..., :1]) + state[..., :1]


# --- Pictures and windows of them ---


def dihedral(image: np.ndarray, mode: int) -> np.ndarray:
    """One of the eight flips and quarter turns of the square."""
    turned = np.rot90(image, mode % 4)
    return np.ascontiguousarray(turned[:, ::-1] if mode >= 4 else turned)


def magnified(picture: np.ndarray, side: int, magnification: float, rng: np.random.Generator) -> np.ndarray:
    """(side, side) in [0, 1]: a random window of side / magnification pixels, enlarged by cubic interpolation."""
    window = round(side / magnification)
    top, left = (int(rng.integers(n - window + 1)) for n in picture.shape)
    return np.clip(cv2.resize(picture[top : top + window, left : left + window], (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)


def image_files(folder: str | Path) -> list[Path]:
    """The image files in a folder, sorted by name. ValueError if there is none, NotADirectoryError if it is no folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give a folder of images")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"{folder} holds no image; expected files such as .tif, .png or .dm4")
    return files


def listing_hash(folder: Path, files: list[Path]) -> str:
    """SHA-256 of names and sizes: whether a folder still holds what it held."""
    return hashlib.sha256("\n".join(f"{f.relative_to(folder).as_posix()} {f.stat().st_size}" for f in files).encode()).hexdigest()


class FolderImages(Sequence):
    """The images of a folder as (height, width) float32 in [0, 1] by `intensity_range`, read when asked for; the last 256 are kept as 16 bit.

    Images with a side below `smallest` are reflected up to it; pixels that are not finite become the median.
    """

    def __init__(self, folder: str | Path, smallest: int):
        self.files, self.smallest = image_files(folder), smallest
        self._read = lru_cache(maxsize=256)(self._read_uncached)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, k: int) -> np.ndarray:
        return self._read(range(len(self.files))[k]).astype(np.float32) / 65535

    def _read_uncached(self, k: int) -> np.ndarray:
        data = load_micrograph(self.files[k]).data.astype(np.float32)
        finite = np.isfinite(data)
        if not finite.all():
            if not finite.any():
                raise ValueError(f"{self.files[k]} holds no finite pixel; take it out of the folder")
            data = np.where(finite, data, np.median(data[finite]))
        image = np.clip(to_unit_range(data, np.asarray(intensity_range(data[None, ..., None]))[0, 0]), 0, 1)
        short = [(max(0, self.smallest - n) // 2, max(0, self.smallest - n + 1) // 2) for n in image.shape]
        return np.round(np.pad(image, short, mode="symmetric") * 65535).astype(np.uint16)


class SimulatedImages(Sequence):
    """`count` simulated micrographs as (height, width) float32 in [0, 1]; image k depends on (seed, k) only, is drawn when first asked for and kept as 16 bit.

    families: of `common.specimens`, which take turns. Each specimen is blurred by a probe of 0.3 to 1.1 px: with that, the spectra of the simulated micrographs
    lie where those of good real ones do.
    """

    def __init__(self, seed: int, count: int, shape: tuple[int, int] = (512, 512), families: Sequence[str] = FAMILIES):
        self.seed, self.count, self.shape, self.families = seed, count, shape, tuple(families)
        self._draw = lru_cache(maxsize=count)(self._draw_uncached)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> np.ndarray:
        if not 0 <= k < self.count:
            raise IndexError(k)
        return self._draw(k).astype(np.float32) / 65535

    def name(self, k: int) -> str:
        """The family of image k and its number, for tables."""
        return f"{self.families[k % len(self.families)]}-{k}"

    def _draw_uncached(self, k: int) -> np.ndarray:
        from .specimens import simulate

        specimen = simulate(self.families[k % len(self.families)], (self.seed, k), self.shape)
        sigma = example_rng(self.seed, k, "probe").uniform(0.3, 1.1)
        return np.round(np.clip(cv2.GaussianBlur(specimen.image, (0, 0), sigma), 0, 1) * 65535).astype(np.uint16)
