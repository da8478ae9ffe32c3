"""What an evaluation of DLSS-STEM compares: crops that no training draws, networks and classical methods at every scan step, errors, spectra, Laplacians."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from keras import ops
from tqdm import tqdm

from common.classical import estimate_noise
from common.data import example_rng, image_files
from common.micrograph import load_micrograph
from common.papers import paper
from common.restoring import find_weights, load_network

from . import baselines
from .baselines import blurred
from .config import Config
from .data import SimulatedCrops, describe_data, image_shape, open_source, prepare_crop, split_files
from .sampling import scan, sparse_input, target_scale
from .train import probed

NETWORK, BLURRED, INPUT, TARGET, SHARP = "network", "network, output blurred", "infilled input", "target (blurred)", "sharp crop"
TUNED = " + Gaussian"  # of the tuned width, after an aligned interpolation
PER_IMAGE = 4  # crops of one micrograph
BAND = 0.35  # cycles per pixel, below which spectra are compared


# --- Crops ---


class RecordedCrops(Sequence):
    """Crops of (side, side) pixels of a user's micrographs, `PER_IMAGE` of each at most, spread over its tiles; `notes` say what was left out.

    folder: with any files that `load_micrograph` reads, or with a folder `test` of them. Of a folder that a network was trained on, as its card's "data" says
    in `trained_on`, only the micrographs that training leaves for tests. ValueError where no crop is left.
    """

    def __init__(self, folder: str | Path, side: int, trained_on: dict | None = None):
        folder = Path(folder)
        has_test = (folder / "test").is_dir()
        seen = False
        if trained_on and folder.is_dir() and not has_test:
            seen = describe_data(Config(), folder)["crops"]["sha256"] == trained_on.get("crops", {}).get("sha256")
        files = split_files(folder, "test") if has_test or seen else image_files(folder)
        self.side, self.tiles, self.notes = side, [], [f"the weights were trained in this folder: only its {len(files)} test files are scored"] if seen else []
        self._file = lru_cache(maxsize=2)(lambda path: load_micrograph(path).data)
        for path in files:
            try:
                height, width = image_shape(path)
            except (ValueError, OSError) as error:
                self.notes.append(f"{path.name}: not scored, {str(error).splitlines()[0]}")
                continue
            tiles = [(path, top, left) for top in range(0, height - side + 1, side) for left in range(0, width - side + 1, side)]
            if tiles:
                self.tiles += [tiles[k] for k in sorted({round(k) for k in np.linspace(0, len(tiles) - 1, PER_IMAGE)})]
            else:
                self.notes.append(f"{path.name}: not scored, {height} x {width} pixels are too few")
        if not self.tiles:
            raise ValueError(f"{folder} holds no readable micrograph of at least {side} x {side} pixels; give larger ones or a smaller --side")

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, k: int) -> np.ndarray:
        path, top, left = self.tiles[k]
        with np.errstate(over="ignore"):
            return self._file(path)[top : top + self.side, left : left + self.side].astype(np.float32)

    def name(self, k: int) -> str:
        path, top, left = self.tiles[k]
        return f"{path.name} at {top}, {left}"


@dataclass(frozen=True, eq=False)
class Crops(Sequence):
    """Chosen crops of a source, each stretched to [-1, 1] as training does it."""

    source: Sequence
    chosen: Sequence[int]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, k: int) -> np.ndarray:
        return prepare_crop(self.source[self.chosen[k]])

    def name(self, k: int) -> str:
        return self.source.name(self.chosen[k]) if isinstance(self.source, RecordedCrops) else f"crop {self.chosen[k]}"


def simulated(stream: str, seed: int, side: int, count: int) -> Crops:
    """Simulated crops of a stream of its own, "test" or "tuning"; training draws "train" and "val"."""
    return Crops(SimulatedCrops(replace(Config(), side=side, seed=seed), stream), range(count))


def recorded(data: Path, seed: int, side: int, count: int | None, trained_on: dict | None) -> Crops:
    """Crops of a folder of micrographs or the test crops of a packed HDF5 file; `count` of them by a frozen draw, all where None."""
    source = open_source(replace(Config(), side=side), data, "test") if Path(data).is_file() else RecordedCrops(data, side, trained_on)
    drawn = example_rng(seed, 0, "recorded").permutation(len(source))[:count]
    return Crops(source, sorted(int(k) for k in drawn))


def unit(image: np.ndarray) -> np.ndarray:
    """[-1, 1] -> [0, 1]."""
    return (image + 1) / 2


# --- Networks ---


@dataclass(frozen=True, eq=False)
class Supersampler:
    """A trained network: crop (side, side) in [-1, 1] -> what it restores of the probed pixels, the same shape, not clipped.

    trained_on: the training data that its card or run tells of.
    """

    config: Config
    run: Callable
    trained_on: dict | None

    @classmethod
    def load(cls, weights: str) -> Supersampler:
        """weights: a shipped name, a .weights.h5 file or a run folder."""
        network, config = load_network(paper("dlss"), weights)
        card = find_weights(paper("dlss"), weights)[1]
        return cls(config, tf.function(partial(network, training=False), reduce_retracing=True), card.get("training", card).get("data"))

    def __call__(self, crop: np.ndarray, step: int, cast: Callable | None = None) -> np.ndarray:
        """cast: what happens to the two-stage network's input, a NumPy array in [0, 1], on its way."""
        crops = ops.convert_to_tensor(crop[None, ..., None])
        if self.config.network == "one_stage":
            scans, (low, scale) = probed(crops, self.config)
            return ops.convert_to_numpy(self.run(scans) * scale + low)[0, ..., 0]
        inputs = sparse_input(crops, step, self.config.zeros_in_range)
        if cast:
            inputs = ops.convert_to_tensor(cast(ops.convert_to_numpy(inputs)))
        low, scale = target_scale(crops, step, self.config)
        return ops.convert_to_numpy(self.run(inputs) * scale + low)[0, ..., 0]

    def as_trained(self, output: np.ndarray) -> np.ndarray | None:
        """The output as training compares it with blurred crops: after the targets' blur where it learned sharp ones, after the adversarial stage's where it
        went through that. None where training compares it as it is."""
        adversarial = self.config.steps > 2 * self.config.plateau
        if self.config.target == "sharp" or (adversarial and self.config.adversarial_blur == "5x5"):
            return blurred(output)
        return cv2.GaussianBlur(output, (3, 3), 1.5, borderType=cv2.BORDER_REFLECT_101) if adversarial else None


# --- Errors ---


def tune_all(crops: Iterable[np.ndarray], steps: Iterable[int]) -> dict[int, dict[str, float]]:
    """step -> method -> sigma in pixels of the Gaussian that brings each aligned interpolation closest to the blurred crops, which serve nothing else."""
    crops = [unit(crop) for crop in crops]
    chosen = [(step, method) for step in steps for method in baselines.METHODS]
    found: dict[int, dict[str, float]] = {}
    for step, method in tqdm(chosen, desc="tuning", unit="method", leave=False):
        found.setdefault(step, {})[method] = baselines.tune(method, crops, step)
    return found


@dataclass(frozen=True, eq=False)
class Measured:
    """Mean squared errors in [0, 1] units. errors: step -> method -> (crops,); squared: step -> (side, side), the network's, summed over crops.

    noise: (crops,) standard deviation of the crops' own noise. The paper takes such crops for the truth, too; the blur of the target leaves a fifth of it.
    """

    errors: dict[int, dict[str, np.ndarray]]
    squared: dict[int, np.ndarray]
    noise: np.ndarray

    def root(self, step: int, method: str) -> float:
        """The square root of the mean, as in the paper's Table 2."""
        return float(np.sqrt(np.mean(self.errors[step][method])))

    def best(self, step: int) -> str:
        """The aligned interpolation with a tuned Gaussian that has the least error on these very crops."""
        return min((name for name in self.errors[step] if name.endswith(TUNED)), key=partial(self.root, step))


def measure(network: Supersampler, crops: Crops, steps: Sequence[int], sigmas: dict[int, dict[str, float]], label: str = "crops") -> Measured:
    """The network and all classical methods on all crops.

    Targets are the crops blurred 5 x 5, sigma 2.5. The network's input is stretched from the least to the largest *sample*; its output comes back to the crop's
    grey levels by the same two numbers where its targets had them (`target_range`), else it is taken for an image on the crop's scale, from the least to the
    largest *pixel*, as it was trained. Such a network does not know the crop's extremes; the classical methods, which interpolate probed pixels of the
    stretched crop, do. The paper's comparison has the same asymmetry.
    """
    rows: dict[int, list[dict[str, float]]] = {step: [] for step in steps}
    squared, noise = dict.fromkeys(steps, 0.0), []
    for crop in tqdm(crops, desc=label, unit="crop", leave=False):
        sharp = unit(crop)
        target = blurred(sharp)
        noise.append(estimate_noise(sharp))
        for step in steps:
            output = network(crop, step)
            error = (unit(output) - target).astype(np.float64) ** 2
            squared[step] = squared[step] + error
            again = network.as_trained(output)
            rows[step].append({NETWORK: error.mean()} | ({} if again is None else {BLURRED: mse(unit(again), target)}) | classical(sharp, step, sigmas[step]))
    errors = {step: {name: np.array([row[name] for row in found]) for name in found[0]} for step, found in rows.items()}
    return Measured(errors, squared, np.array(noise))


def classical(crop: np.ndarray, step: int, sigmas: dict[str, float]) -> dict[str, float]:
    """Mean squared errors of the classical methods on a crop in [0, 1]."""
    target, shifted = blurred(crop), baselines.legacy_target(crop, step)
    errors = {f"legacy {method}": mse(baselines.legacy(crop, step, method), shifted) for method in baselines.OPENCV}
    for method, sigma in sigmas.items():
        image = baselines.aligned(crop, step, method)
        errors |= {f"aligned {method}": mse(image, target), f"aligned {method}{TUNED}": mse(baselines.smoothed(image, sigma), target)}
    return errors


def mse(image: np.ndarray, target: np.ndarray) -> float:
    return float(np.mean((image - target).astype(np.float64) ** 2))


def pictures(network: Supersampler, crop: np.ndarray, step: int, best: str, sigmas: dict[str, float]) -> dict[str, np.ndarray]:
    """What a crop becomes, in [0, 1]: infilled input, network, the interpolation called "aligned METHOD + Gaussian", target, sharp crop."""
    sharp, method = unit(crop), best.removeprefix("aligned ").removesuffix(TUNED)
    smooth = baselines.aligned(sharp, step, method, sigmas[method])
    return {INPUT: baselines.aligned(sharp, step, "nearest"), NETWORK: unit(network(crop, step)), best: smooth, TARGET: blurred(sharp), SHARP: sharp}


# --- Where errors are, and at which frequencies ---


def edge_distance(side: int) -> np.ndarray:
    """(side, side) int: pixels from the nearest edge, 1 on it."""
    along = np.minimum(np.arange(side) + 1, side - np.arange(side))
    return np.minimum(along[:, None], along)


def edge_curves(error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two curves of a per-pixel root MSE, (side, side): its mean at distances 1, 2, ... from the edge; and by which share its mean over the rest falls when a
    frame of 0, 1, ... pixels is removed. Both (side / 2,)."""
    distance = edge_distance(len(error)).ravel() - 1
    total, pixels = np.bincount(distance, error.ravel()), np.bincount(distance)
    rest = np.cumsum(total[::-1])[::-1] / np.cumsum(pixels[::-1])[::-1]
    return total / pixels, 1 - rest / rest[0]


def amplitudes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radially averaged spectrum of a square image: frequencies (n,) in cycles per pixel, above 0 and up to a half, and the root of the mean of |FFT|^2 on each
    ring, one sample wide. The image is without its mean, behind a Hann window."""
    side = len(image)
    window = np.hanning(side + 2)[1:-1]
    power = np.abs(np.fft.fft2((image - image.mean(dtype=np.float64)) * window[:, None] * window)) ** 2
    ring = np.rint(side * np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))).astype(int).ravel()
    inside = slice(1, side // 2 + 1)
    return np.arange(side // 2 + 1)[inside] / side, np.sqrt(np.bincount(ring, power.ravel())[inside] / np.bincount(ring)[inside])


def spectral_distance(image: np.ndarray, reference: np.ndarray) -> float:
    """Mean |log10 of the ratio| of the two images' `amplitudes` below BAND: 0 for equal ones, 0.3 for a factor of two everywhere; NaN where one has none."""
    (frequency, one), (_, other) = amplitudes(image), amplitudes(reference)
    one, other = one[frequency < BAND], other[frequency < BAND]
    return float(np.mean(np.abs(np.log10(one / other)))) if one.all() and other.all() else float("nan")


# --- Spatial correlation ---


def mean_absolute_laplacian(image: np.ndarray) -> float:
    """Mean over inner pixels of |4-neighbour Laplacian|."""
    image = np.asarray(image, np.float64)
    return float(np.abs(image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:] - 4 * image[1:-1, 1:-1]).mean())


def mal_ratio(crop: np.ndarray, step: int = 5) -> float:
    """Mean absolute Laplacian of the crop's middle, as large as its scan with `step`, over that of the scan; NaN where that is 0.

    [P] has 103 x 103 segments and 0.93 on average: neighbouring pixels are more alike than samples. It does not say which segment, nor which Laplacian.
    """
    few = scan(crop, step)
    top, left = ((n - m) // 2 for n, m in zip(crop.shape, few.shape, strict=True))
    below = mean_absolute_laplacian(few)
    return mean_absolute_laplacian(crop[top : top + len(few), left : left + few.shape[1]]) / below if below else float("nan")
