"""CGRDN's data: clean pictures, numbered pairs of a distorted and a clean patch, and what restoring a micrograph asks of the physics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data import FolderImages, SimulatedImages, dihedral, example_rng, image_files, listing_hash, magnified
from common.micrograph import Micrograph

from .config import Config
from .distortions import RECIPES, Pair, distort

# What the clean pictures of a modality show, taking turns: crystals at high resolution, everything else at low.
PICTURES = {
    "hrtem": ("phase_contrast", "crystal", "phase_contrast", "medley"),
    "hrstem": ("crystal", "lattice", "crystal", "medley"),
    "lrtem": ("medley", "medley", "phase_contrast", "section", "powder", "porous", "fibres", "grains"),
    "lrstem": ("medley", "medley", "crystal", "section", "powder", "porous", "fibres", "gold"),
    "hrsem": ("gold", "powder", "porous", "fibres", "chip"),
    "lrsem": ("grains", "section", "powder", "porous", "fibres", "chip", "gold", "medley"),
}
CONTRAST = (0.03, 0.7)  # standard deviation over mean of a clean patch
STRONGEST = 1.5  # of patches that are dark but for a few bright places, as dark-field images are; half of the recorded ones that were looked at exceed 0.7
SIDE = 512  # pixels of a clean picture
FLATTEST = 1e-3  # standard deviation of a picture in [0, 1] that still shows something
FLAT = 1e-6  # deviation over mean below which float32 tells nothing; no number in raw units, so that a x + b is restored to a y + b
TINIEST = 1e-30  # deviation of an image of zeros
GAUSSIAN = 0.25  # strength of `classical`, in units of the image's deviation; chosen


# --- Clean patches ---


def sources(config: Config, split: str = "train", data: Path | None = None) -> dict[str, Sequence[np.ndarray]]:
    """Modality -> clean pictures in [0, 1]: simulated, `config.specimens` in all, or of a folder of clean images for all modalities alike.

    Picture k of a modality depends on (seed, split, modality, k) only; splits, whatever their names, share none.
    """
    if data is not None:
        folder = FolderImages(data, config.side)
        return dict.fromkeys(config.modalities, folder)
    count = math.ceil(config.specimens / len(config.modalities))
    found = {}
    for modality in config.modalities:
        seed = int(example_rng(config.seed, 0, f"{split} {modality} pictures").integers(2**62))
        found[modality] = SimulatedImages(seed, count, (max(SIDE, config.side),) * 2, PICTURES[modality])
    return found


def describe_data(config: Config, data: Path | None) -> dict:
    """What `sources` draws from, for config.json."""
    if data is None:
        return {"simulated specimens": config.specimens}
    files = image_files(data)
    return {"clean": {"folder": str(data), "images": len(files), "sha256": listing_hash(Path(data), files)}}


def clean_patch(picture: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side) float32, the signal that is to be expected without any distortion, of mean 1: a window of a picture, enlarged up to twice, in one of the
    eight orientations, of a contrast (deviation over mean) that is log-uniform in `CONTRAST`, or up to `STRONGEST` as far as no more than a fiftieth of the
    patch falls below 0, where it is cut off.
    """
    patch = dihedral(magnified(picture, side, math.exp(rng.uniform(0, math.log(2))), rng), int(rng.integers(8)))
    depth = float(np.mean(patch, dtype=np.float64) - np.quantile(patch, 0.02)) / max(float(np.std(patch, dtype=np.float64)), FLATTEST)
    highest = min(max(CONTRAST[1], 1 / max(depth, FLATTEST)), STRONGEST)
    return with_contrast(patch, math.exp(rng.uniform(math.log(CONTRAST[0]), math.log(highest))))


def with_contrast(picture: np.ndarray, contrast: float) -> np.ndarray:
    """An affine map of a picture in [0, 1] to mean 1 and this deviation, clipped at 0 and brought back to mean 1; float32. Flat pictures become 1: the steps of
    their 16-bit codes are no texture."""
    picture = np.asarray(picture, np.float64)
    deviation = picture.std()
    if deviation < FLATTEST:
        return np.ones(picture.shape, np.float32)
    signal = np.maximum(1 + contrast * (picture - picture.mean()) / deviation, 0)
    return (signal / signal.mean()).astype(np.float32)


# --- Pairs ---


@dataclass(frozen=True)
class Pairs:
    """`pairs(i)` gives (distorted, target), both (side, side, 1) float32 and standardised by the *distorted* image's mean and deviation (C1).

    stream: "train", where modality and picture are drawn; in others modalities take turns, and no pair is an identity, which has nothing to gain.
    """

    config: Config
    sources: dict[str, Sequence[np.ndarray]]
    stream: str = "train"

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pair = self.raw(index)
        mean, deviation = moments(pair.distorted)
        return tuple(((image - mean) / deviation).astype(np.float32)[..., None] for image in (pair.distorted, pair.target))

    def raw(self, index: int) -> Pair:
        """Pair i in codes, with the record of what was drawn."""
        rng = example_rng(self.config.seed, index, self.stream)
        modalities = self.config.modalities
        training = self.stream == "train"
        modality = modalities[int(rng.integers(len(modalities))) if training else index % len(modalities)]
        pictures = self.sources[modality]
        clean = clean_patch(pictures[int(rng.integers(len(pictures)))], self.config.side, rng)
        return distort(clean, RECIPES[modality], rng, identity=training)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.config.side, self.config.side, 1),) * 2


def moments(image: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of an image as `statistics` takes them."""
    mean, deviation = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    return mean, max(deviation, FLAT * abs(mean), TINIEST)


# --- What restoring asks ---


def statistics(images, dtype="float32"):
    """Mean and standard deviation, at least a millionth of the mean, of each image, (batch, 1, 1, 2) float32. images: (batch, height, width, 1) raw."""
    from keras import ops

    images = ops.cast(images, "float32")
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    mean = mean + ops.mean(images - mean, axis=(1, 2, 3), keepdims=True)  # a second look at what float32 rounded away
    deviation = ops.sqrt(ops.mean((images - mean) ** 2, axis=(1, 2, 3), keepdims=True))
    return ops.concatenate([mean, ops.maximum(ops.maximum(deviation, FLAT * ops.abs(mean)), TINIEST)], axis=-1)


def prepare(images, state):
    """Raw intensities -> network input, of mean 0 and deviation 1."""
    return (images - state[..., :1]) / state[..., 1:]


def finish(output, state):
    """Network output -> raw intensities."""
    return output * state[..., 1:] + state[..., :1]


def acquire(restored: np.ndarray) -> np.ndarray:
    """(height, width) -> (1, height, width): what a microscope may have recorded of a restoration, noise and scan distortions aside, is that image."""
    return np.asarray(restored, np.float32)[None]


def classical(part: np.ndarray, state: np.ndarray, noise: float) -> np.ndarray:
    """(height, width) raw -> the same shape and units: a Gaussian as wide as the noise asks for."""
    from common.classical import gaussian

    mean, deviation = (np.float32(value) for value in np.ravel(state))
    return gaussian((part - mean) / deviation, 1, GAUSSIAN, noise / deviation) * deviation + mean


def samples(seed: int = 0) -> list[tuple[str, Micrograph, np.ndarray]]:
    """For the demo: (name, distorted Micrograph of 480 x 480 uint8, its truth), one of every modality, at 20 electrons per pixel."""
    from common.specimens import simulate

    found = []
    for k, (modality, recipe) in enumerate(RECIPES.items()):
        family = PICTURES[modality][0]
        specimen = simulate(family, (seed, k, 55), (480, 480))
        pair = distort(with_contrast(specimen.image, 0.4), recipe, example_rng(seed, k, "demo"), dose=20.0, identity=False, warp=False)
        low, high = np.quantile(pair.target, (0.001, 0.999))
        span = 2 * (high - low)  # room for noise on both sides
        distorted, truth = (np.round(np.clip((image - low) / span + 0.25, 0, 1) * 255).astype(np.uint8) for image in (pair.distorted, pair.target))
        found.append((modality, Micrograph(distorted, specimen.pixel_size, source=f"simulated {family}"), truth))
    return found
