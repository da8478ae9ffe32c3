"""Measure CGRDN: `python -m paper_cgrdn.evaluate --out DIR` (the same as `empapers evaluate cgrdn`).

Simulated pairs of specimens that no training draws, for every modality; every distortion alone; the user's micrographs with simulated distortions added (items
that start with "R: "); atomic columns of a known crystal; what becomes of pure noise, of a vacancy and of a recorded series. Beside classical filters tuned on
other simulated pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
from skimage.metrics import structural_similarity
from tqdm import tqdm

from common.data import example_rng, image_files
from common.evaluation import drop_undefined, item, paired_gain, write_results, write_table
from common.metrics import bootstrap_interval, radial_spectrum_distance
from common.micrograph import load_micrograph
from common.papers import paper
from common.restoring import load_network, mirrored

from . import figures
from .baselines import HINDSIGHT, METHODS, oracle_gaussian, tune
from .config import MULTIPLE, Config
from .data import clean_patch, finish, prepare, sources, statistics, with_contrast
from .distortions import Pair, distort, optional_steps
from .experiments import column_items, frames_of, hallucination_items, removal_items, series_items, tile_items
from .recipes import RECIPES

CONVENTION = (
    "PSNR: peak is the range of the target; SSIM: Gaussian window of sigma 1.5, data range of the target; error: mean absolute error in units of the distorted "
    "image's standard deviation; spectra: mean |ln of power over the target's| over rings; both sides on the same target; 95 % bootstrap intervals over images"
)
NETWORK, INPUT = "network", "distorted"
SCORES = ("psnr", "ssim", "error", "spectrum")
LESS_IS_BETTER = ("error", "spectrum")
DOSES = (2.0, 200.0)  # electrons per pixel, log-uniform, of distortions that are added to recorded micrographs
NOISY = 0.05  # share of a micrograph's range above which its own noise makes it no truth
PER_IMAGE = 2  # crops of one micrograph


def evaluate_cgrdn(
    out: Path,
    weights: str = "small",
    seed: int = 0,
    data: Path | None = None,
    series: Path | None = None,
    images: int = 24,
    side: int = 256,
    tuning_images: int = 24,
    alone: int = 4,
    draws: int = 100,
    ensemble: bool = False,
) -> dict:
    """Write results.json, tables and figures into a folder; returns the items of results.json.

    Args:
        out: the folder, made if missing.
        weights: a shipped name, a .weights.h5 file or a run folder.
        seed: of all simulated images and distortions.
        data: a folder of micrographs to measure on as well; distortions are added to them, and what they show counts as the truth.
        series: a stack of frames of one object: is a restored frame closer to the mean of the others?
        images: simulated pairs of each modality.
        side: pixels of all images.
        tuning_images: pairs of each modality, of at most 128 x 128 pixels, on which the classical methods are tuned.
        alone: images on which each distortion is measured alone; 0 leaves that out.
        draws: of noise, for the atomic columns; 0 leaves these out.
        ensemble: measure the mean of each image's restoration and its mirror image's, as `empapers restore --ensemble` makes it.
    """
    if min(images, tuning_images) < 1 or alone < 0 or draws < 0 or draws == 1:
        raise ValueError(f"images and tuning_images must be at least 1, alone 0 or more, draws 0 or from 2, got {images}, {tuning_images}, {alone}, {draws}")
    if side < 64 or side % MULTIPLE:
        raise ValueError(f"side must be a multiple of {MULTIPLE} and at least 64, got {side}")
    once, config = Restorer.load(weights)
    restore = mirrored(once, paper("cgrdn")) if ensemble else once
    if config.network == "mr_unet" and (side != 256 or series is not None):
        raise ValueError(f"MR-UNet takes images of 256 x 256 pixels only, and no frames of a series; got side {side}")
    frames = frames_of(series) if series is not None else None
    crops, notes = recorded(data, side) if data is not None else ([], [])
    out.mkdir(parents=True, exist_ok=True)
    items, rows, shown, strengths, everything = {}, [], {}, {}, []
    for modality in config.modalities:
        strengths[modality] = tune(arrays(simulated(config, modality, "tuning", seed, min(side, 128), tuning_images)), psnr)
        pairs = simulated(config, modality, "test", seed, side, images)
        found = measure(restore, pairs, strengths[modality], modality)
        items |= score_items(f"{modality}: ", found)
        rows += table_rows(modality, found)
        shown[modality] = example(restore, pairs, found, strengths[modality])
        everything.append(found)
    items |= score_items("all modalities: ", pooled(everything))
    if alone:
        found, more = distortion_items(restore, config, strengths, seed, side, alone)
        items |= found
        write_table(out / "distortions.csv", more)
    if crops:
        found = measure(restore, damaged(crops, config, seed), [strengths[modality_of(k, config)] for k in range(len(crops))], "recorded")
        items |= score_items("R: ", found)
        rows += table_rows("recorded", found)
        write_table(out / "recorded.csv", [{"crop": name, **{m: round(float(v[k]), 3) for m, v in found["psnr"].items()}} for k, (name, _) in enumerate(crops)])
    if draws:
        items |= column_items(restore, seed, draws) | hallucination_items(restore, seed) | removal_items(restore, seed)
        if config.network != "mr_unet":  # which knows one size only
            items |= tile_items(once.network, config, seed)
    if frames is not None:
        items |= series_items(restore, frames, series.name)
    write_table(out / "scores.csv", rows)
    figures.draw_examples(out / "examples.png", shown)
    notes = {
        "ensemble": ["every restoration is the mean over mirror images"] if ensemble else [],
        "recorded": notes,
        "not run": not_run(data, series),
        "edges": edges(strengths),
        "without a number": drop_undefined(items),
    }
    write_results(out, "cgrdn", str(weights), seed, items, CONVENTION, strengths=strengths, notes=notes)
    return items


# --- The network ---


class Restorer:
    """image (height, width) raw, sides multiples of 4 -> its restoration in the same units. Statistics of the whole image, no tiles."""

    def __init__(self, network):
        self.network, self.run = network, tf.function(partial(network, training=False), reduce_retracing=True)

    @classmethod
    def load(cls, weights: str) -> tuple[Restorer, Config]:
        """weights: a shipped name, a .weights.h5 file or a run folder."""
        network, config = load_network(paper("cgrdn"), weights)
        return cls(network), config

    def __call__(self, image: np.ndarray) -> np.ndarray:
        images = tf.constant(np.float32(image)[None, ..., None])
        state = statistics(images)
        return np.asarray(finish(self.run(prepare(images, state)), state))[0, ..., 0]


# --- Scores ---


def psnr(target: np.ndarray, image: np.ndarray) -> float:
    """10 log10(range of the target squared / mean squared error), in dB."""
    peak = max(float(np.ptp(target)), 1e-18) ** 2
    return float(10 * np.log10(peak / max(np.mean((image.astype(np.float64) - target) ** 2), 1e-12 * peak)))


def ssim(target: np.ndarray, image: np.ndarray) -> float:
    span = float(np.ptp(target))
    return float(
        structural_similarity(target.astype(np.float64), image.astype(np.float64), data_range=span, gaussian_weights=True, use_sample_covariance=False)
    )


def measure(restore: Callable, pairs: Sequence[Pair], strengths, label: str) -> dict:
    """Scores of all images against the targets, name of the score -> method -> (pairs,).

    `SCORES` of the distorted image, the network, and every classical method at its tuned strength; "harm": what the network does to the undistorted image, its
    mean absolute change over its standard deviation.
    strengths: method -> k, or one such table for each pair.
    """
    found: dict[str, dict[str, list[float]]] = {score: {} for score in (*SCORES, "harm")}
    for k, pair in enumerate(tqdm(pairs, desc=label, unit="image", leave=False)):
        x, y, deviation = pair.distorted, pair.target, max(float(pair.distorted.std()), 1e-12)
        black, span = float(y.min()), max(float(np.ptp(y)), 1e-12)
        table = strengths[k] if isinstance(strengths, list) else strengths
        images = {INPUT: x, NETWORK: restore(x)} | {name: METHODS[name][0](x, strength) for name, strength in table.items()}
        images[HINDSIGHT] = oracle_gaussian(x, y)
        found["harm"].setdefault(NETWORK, []).append(float(np.abs(restore(y) - y).mean()) / max(float(y.std()), 1e-12))
        for name, image in images.items():
            spectrum = radial_spectrum_distance((y - black) / span, (image - black) / span)
            values = psnr(y, image), ssim(y, image), float(np.abs(image - y).mean()) / deviation, spectrum
            for score, value in zip(SCORES, values, strict=True):
                found[score].setdefault(name, []).append(value)
    return {score: {name: np.array(values) for name, values in methods.items()} for score, methods in found.items()}


def best(found: dict, score: str = "psnr") -> str:
    """The classical method with the best mean score on these very images; the one with hindsight does not compete."""
    rivals = [name for name in found[score] if name not in (INPUT, NETWORK, HINDSIGHT)]
    return (min if score in LESS_IS_BETTER else max)(rivals, key=lambda name: found[score][name].mean())


def pooled(everything: Sequence[dict]) -> dict:
    """The scores of all modalities as one set, every modality's best classical method as one rival."""
    scores = {score: {name: np.concatenate([found[score][name] for found in everything]) for name in (INPUT, NETWORK, HINDSIGHT)} for score in SCORES}
    for score, methods in scores.items():
        methods["best of each modality"] = np.concatenate([found[score][best(found, score)] for found in everything])
    return scores | {"harm": {NETWORK: np.concatenate([found["harm"][NETWORK] for found in everything])}}


def score_items(prefix: str, found: dict) -> dict:
    """The network's gains over the input, the best classical method (for each score its own), BM3D where it is there, and a Gaussian chosen with hindsight."""
    items = {}
    for score, unit in (("psnr", "dB"), ("ssim", "")):
        ours, rival, label = found[score][NETWORK], best(found, score), score.upper()
        items[f"{prefix}{label} gain over the best tuned classical method"] = paired_gain(ours, found[score][rival], unit) | {"method": rival}
        items[f"{prefix}{label} gain over the distorted image"] = paired_gain(ours, found[score][INPUT], unit)
        items[f"{prefix}{label} gain over the {HINDSIGHT}"] = paired_gain(ours, found[score][HINDSIGHT], unit)
    bm3d = next((name for name in found["psnr"] if name.startswith("BM3D")), None)
    if bm3d:
        items[f"{prefix}PSNR gain over BM3D"] = paired_gain(found["psnr"][NETWORK], found["psnr"][bm3d], "dB", 6.51)
    for score, label, unit in (("error", "error", "deviations of the distorted image"), ("spectrum", "distance of spectra", "")):
        ours, rival = found[score][NETWORK], best(found, score)
        items[prefix + label] = item(float(ours.mean()), unit, float(found[score][rival].mean()), None, len(ours), bootstrap_interval(ours), method=rival)
    harm = found["harm"][NETWORK]
    items[f"{prefix}change of an undistorted image"] = item(float(harm.mean()), "of its deviation", 0.0, None, len(harm), bootstrap_interval(harm))
    return items


def table_rows(modality: str, found: dict) -> list[dict]:
    return [{"modality": modality, "method": name} | {score: round(float(found[score][name].mean()), 4) for score in SCORES} for name in found["psnr"]]


# --- Pairs ---


def simulated(config: Config, modality: str, stream: str, seed: int, side: int, count: int) -> list[Pair]:
    """Pairs that no training draws, none of them an identity, whose PSNR would be infinite."""
    one = replace(config, modalities=(modality,), side=side, seed=seed, specimens=max(count, 8))
    pictures, pairs = sources(one, stream)[modality], []
    for k in range(count):
        rng = example_rng(seed, k, f"{stream} {modality}")
        pairs.append(distort(shown_patch(pictures, k, side, rng), RECIPES[modality], rng, identity=False))
    return pairs


def shown_patch(pictures: Sequence[np.ndarray], k: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """A clean patch of picture k, or of another where that shows nothing: a uniform target has no range to measure errors by."""
    patch = clean_patch(pictures[k % len(pictures)], side, rng)
    while not patch.std():
        patch = clean_patch(pictures[int(rng.integers(len(pictures)))], side, rng)
    return patch


def arrays(pairs: Sequence[Pair]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(pair.distorted, pair.target) for pair in pairs]


def recorded(folder: Path, side: int) -> tuple[list[tuple[str, np.ndarray]], list[str]]:
    """(name, crop of side x side) of a folder's micrographs, `PER_IMAGE` of each at most, and what was left out.

    Images with more than `NOISY` of noise are halved by the mean of 2 x 2 pixels first, and left out if that does not help or leaves too few pixels.
    """
    from common.classical import estimate_noise

    found, notes = [], []
    for path in image_files(folder):
        try:
            image = np.asarray(load_micrograph(path).data, np.float64)
        except (ValueError, OSError) as error:
            notes.append(f"{path.name}: not scored, {str(error).splitlines()[0]}")
            continue
        image = np.where(np.isfinite(image), image, np.median(image[np.isfinite(image)]) if np.isfinite(image).any() else 0.0)
        span = np.ptp(np.quantile(image, (0.001, 0.999)))
        if span > 0 and estimate_noise(image) > NOISY * span:
            height, width = (n // 2 * 2 for n in image.shape)
            image = image[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
            notes.append(f"{path.name}: halved, its own noise is above {NOISY:.0%} of its range")
        if not span > 0 or estimate_noise(image) > NOISY * span or min(image.shape) < side:
            notes.append(f"{path.name}: not scored, uniform, too noisy or smaller than {side} pixels")
            continue
        tiles = [(top, left) for top in range(0, image.shape[0] - side + 1, side) for left in range(0, image.shape[1] - side + 1, side)]
        for k in sorted({round(k) for k in np.linspace(0, len(tiles) - 1, PER_IMAGE)}):
            top, left = tiles[k]
            crop = image[top : top + side, left : left + side]
            if crop.std() > 0.01 * span:
                found.append((f"{path.name} at {top}, {left}", crop))
    if not found:
        raise ValueError(f"{folder} holds no micrograph of at least {side} x {side} pixels with little noise; give better ones or a smaller --side")
    return found, notes


def modality_of(k: int, config: Config) -> str:
    return config.modalities[k % len(config.modalities)]


def damaged(crops: Sequence[tuple[str, np.ndarray]], config: Config, seed: int) -> list[Pair]:
    """Recorded crops as clean signals of mean 1, distorted by the modalities of the weights in turn, at 2 to 200 electrons per pixel; not warped."""
    pairs = []
    for k, (_, crop) in enumerate(crops):
        rng = example_rng(seed, k, "recorded")
        crop = crop - min(crop.min(), 0)
        dose = float(np.exp(rng.uniform(*np.log(DOSES))))
        signal = (crop / crop.mean()).astype(np.float32)
        pairs.append(distort(signal, RECIPES[modality_of(k, config)], rng, dose=dose, identity=False, warp=False))
    return pairs


def distortion_items(restore: Callable, config: Config, strengths: dict, seed: int, side: int, count: int) -> tuple[dict, list[dict]]:
    """Every distortion alone, at 100 electrons per pixel: mean PSNR of the network beside the input's and the best classical method's."""
    items, rows = {}, []
    for modality in config.modalities:
        pictures = sources(replace(config, modalities=(modality,), side=side, seed=seed, specimens=max(count, 8)), "test")[modality]
        for name in ("counting", *optional_steps(RECIPES[modality])):
            pairs = []
            for k in range(count):
                rng = example_rng(seed, k, f"alone {modality} {name}")
                clean = with_contrast(shown_patch(pictures, k, side, rng), 0.4)
                pairs.append(distort(clean, RECIPES[modality], rng, dose=100.0, only=() if name == "counting" else (name,), identity=False))
            found = measure(restore, pairs, strengths[modality], f"{modality}, {name}")
            ours, rival = (float(found["psnr"][method].mean()) for method in (NETWORK, best(found)))
            items[f"{modality}: PSNR, {name} alone"] = item(ours, "dB", rival, None, count, method=best(found), distorted=float(found["psnr"][INPUT].mean()))
            rows.append({"modality": modality, "distortion": name} | {method: round(float(v.mean()), 2) for method, v in found["psnr"].items()})
    return items, rows


def example(restore: Callable, pairs: Sequence[Pair], found: dict, strengths: dict) -> list[dict[str, np.ndarray]]:
    """Three pairs as pictures, the middle of the gains and its quartiles."""
    gain, rival = found["psnr"][NETWORK] - found["psnr"][best(found)], best(found)
    chosen = np.argsort(gain)[[len(gain) // 4, len(gain) // 2, (3 * len(gain)) // 4]]
    return [
        {
            INPUT: pairs[k].distorted,
            rival: METHODS[rival][0](pairs[k].distorted, strengths[rival]),
            NETWORK: restore(pairs[k].distorted),
            "target": pairs[k].target,
        }
        for k in chosen
    ]


def edges(strengths: dict) -> list[str]:
    """Tuned strengths at the upper end of their candidates, where a wider search might have found better ones."""
    chosen = [(modality, name, k) for modality, found in strengths.items() for name, k in found.items()]
    return [f"{modality}, {name}: the best strength, {k:g}, is the largest candidate" for modality, name, k in chosen if k == METHODS[name][1][-1]]


def not_run(data: Path | None, series: Path | None) -> list[str]:
    """What could be measured and was not."""
    missing = [] if any(name.startswith("BM3D") for name in METHODS) else ["BM3D: install the package bm3d"]
    missing += [] if data is not None else ["recorded micrographs: give a folder as --data"]
    missing += [] if series is not None else ["a recorded series: give a stack as --series"]
    return [*missing, "other networks (GRDN, MR-UNet): train them with --network and evaluate their runs"]


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["evaluate", "cgrdn", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
