"""Measure CGRDN: `python -m paper_cgrdn.evaluate --out DIR` (the same as `empapers evaluate cgrdn`).

Simulated pairs of specimens that no training draws, for every modality; every distortion alone; the user's micrographs with simulated distortions added (items
that start with "R: "); atomic columns of a known crystal; what becomes of pure noise and of a vacancy. Beside classical filters tuned on other simulated pairs.
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
from common.evaluation import item, write_results, write_table
from common.metrics import bootstrap_interval
from common.micrograph import load_micrograph
from common.papers import paper
from common.restoring import load_network

from . import figures
from .baselines import METHODS, tune
from .config import Config
from .data import clean_patch, finish, prepare, sources, statistics, with_contrast
from .distortions import Pair, distort, optional_steps
from .experiments import column_items, hallucination_items
from .recipes import RECIPES

CONVENTION = (
    "PSNR: peak is the range of the target; SSIM: Gaussian window of sigma 1.5, data range of the target; error: mean absolute error in units of the distorted "
    "image's standard deviation; both sides on the same target; 95 % bootstrap intervals over images"
)
NETWORK, INPUT = "network", "distorted"
DOSES = (2.0, 200.0)  # electrons per pixel, log-uniform, of distortions that are added to recorded micrographs
NOISY = 0.05  # share of a micrograph's range above which its own noise makes it no truth
PER_IMAGE = 2  # crops of one micrograph


def evaluate_cgrdn(
    out: Path,
    weights: str = "small",
    seed: int = 0,
    data: Path | None = None,
    images: int = 24,
    side: int = 256,
    tuning_images: int = 6,
    alone: int = 4,
    draws: int = 100,
) -> dict:
    """Write results.json, tables and figures into a folder; returns the items of results.json.

    Args:
        out: the folder, made if missing.
        weights: a shipped name, a .weights.h5 file or a run folder.
        seed: of all simulated images and distortions.
        data: a folder of micrographs to measure on as well; distortions are added to them, and what they show counts as the truth.
        images: simulated pairs of each modality.
        side: pixels of all images.
        tuning_images: pairs of each modality on which the classical methods are tuned.
        alone: images on which each distortion is measured alone; 0 leaves that out.
        draws: of noise, for the atomic columns; 0 leaves these out.
    """
    if min(images, tuning_images) < 1 or min(alone, draws) < 0:
        raise ValueError(f"images and tuning_images must be at least 1, alone and draws at least 0, got {images}, {tuning_images}, {alone} and {draws}")
    if side < 64 or side % 2:
        raise ValueError(f"side must be even and at least 64, got {side}")
    restore, config = Restorer.load(weights)
    crops, notes = recorded(data, side) if data is not None else ([], [])
    out.mkdir(parents=True, exist_ok=True)
    items, rows, shown, strengths = {}, [], {}, {}
    for modality in config.modalities:
        strengths[modality] = tune(arrays(simulated(config, modality, "tuning", seed, side, tuning_images)), psnr)
        pairs = simulated(config, modality, "test", seed, side, images)
        found = measure(restore, pairs, strengths[modality], modality)
        items |= score_items(f"{modality}: ", found)
        rows += table_rows(modality, found)
        shown[modality] = example(restore, pairs, found, strengths[modality])
    items |= mean_items(items, config.modalities)
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
        items |= column_items(restore, seed, draws) | hallucination_items(restore, seed)
    write_table(out / "scores.csv", rows)
    figures.draw_examples(out / "examples.png", shown)
    told = {modality: {name: k for name, k in found.items()} for modality, found in strengths.items()}
    write_results(out, "cgrdn", str(weights), seed, items, CONVENTION, classical=told, notes={"recorded": notes, "not run": not_run()})
    return items


# --- The network ---


class Restorer:
    """image (height, width) raw, even sides -> its restoration in the same units. Statistics of the whole image, no tiles."""

    def __init__(self, network):
        self.run = tf.function(partial(network, training=False), reduce_retracing=True)

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
    error = np.mean((image.astype(np.float64) - target) ** 2)
    return float(10 * np.log10(np.ptp(target).astype(np.float64) ** 2 / max(error, 1e-12 * np.ptp(target).astype(np.float64) ** 2)))


def ssim(target: np.ndarray, image: np.ndarray) -> float:
    span = float(np.ptp(target))
    return float(
        structural_similarity(target.astype(np.float64), image.astype(np.float64), data_range=span, gaussian_weights=True, use_sample_covariance=False)
    )


def measure(restore: Callable, pairs: Sequence[Pair], strengths, label: str) -> dict:
    """ "psnr", "ssim", "error" -> method -> (pairs,): the distorted image, the network, and every classical method at its tuned strength.

    strengths: method -> k, or one such table for each pair.
    """
    found: dict[str, dict[str, list[float]]] = {"psnr": {}, "ssim": {}, "error": {}}
    for k, pair in enumerate(tqdm(pairs, desc=label, unit="image", leave=False)):
        x, y, deviation = pair.distorted, pair.target, max(float(pair.distorted.std()), 1e-12)
        table = strengths[k] if isinstance(strengths, list) else strengths
        images = {INPUT: x, NETWORK: restore(x)} | {name: METHODS[name][0](x, strength) for name, strength in table.items()}
        for name, image in images.items():
            for score, value in (("psnr", psnr(y, image)), ("ssim", ssim(y, image)), ("error", float(np.abs(image - y).mean()) / deviation)):
                found[score].setdefault(name, []).append(value)
    return {score: {name: np.array(values) for name, values in methods.items()} for score, methods in found.items()}


def best(found: dict) -> str:
    """The classical method with the highest mean PSNR on these very images."""
    return max((name for name in found["psnr"] if name not in (INPUT, NETWORK)), key=lambda name: found["psnr"][name].mean())


def score_items(prefix: str, found: dict) -> dict:
    """The network's gain over the input and over the best classical method, with intervals and the share of images made worse."""
    items, rival = {}, best(found)
    for other, name in ((INPUT, "the distorted image"), (rival, "the best tuned classical method")):
        gain = found["psnr"][NETWORK] - found["psnr"][other]
        more = {"method": rival} if other == rival else {}
        items[f"{prefix}PSNR gain over {name}"] = item(float(gain.mean()), "dB", 0.0, 6.51 if rival.startswith("BM3D") and other == rival else None, len(gain),
                                                       bootstrap_interval(gain), worse=float(np.mean(gain < 0)), **more)  # fmt: skip
    items[f"{prefix}PSNR"] = item(float(found["psnr"][NETWORK].mean()), "dB", float(found["psnr"][rival].mean()), None, len(gain))
    gain = found["ssim"][NETWORK] - found["ssim"][rival]
    items[f"{prefix}SSIM gain over the best tuned classical method"] = item(float(gain.mean()), "", 0.0, None, len(gain), bootstrap_interval(gain))
    items[f"{prefix}error"] = item(
        float(found["error"][NETWORK].mean()), "deviations of the distorted image", float(found["error"][rival].mean()), None, len(gain)
    )
    return items


def mean_items(items: dict, modalities: Sequence[str]) -> dict:
    """The mean over modalities of the gain over the best tuned classical method of each."""
    gains = [items[f"{modality}: PSNR gain over the best tuned classical method"]["value"] for modality in modalities]
    return {"all modalities: PSNR gain over the best tuned classical method": item(float(np.mean(gains)), "dB", 0.0, None, len(gains))}


def table_rows(modality: str, found: dict) -> list[dict]:
    return [{"modality": modality, "method": name} | {score: round(float(values[name].mean()), 4) for score, values in found.items()} for name in found["psnr"]]


# --- Pairs ---


def simulated(config: Config, modality: str, stream: str, seed: int, side: int, count: int) -> list[Pair]:
    """Pairs that no training draws, none of them an identity, whose PSNR would be infinite."""
    one = replace(config, modalities=(modality,), side=side, seed=seed, specimens=max(count, 8))
    pictures, pairs = sources(one, stream)[modality], []
    for k in range(count):
        rng = example_rng(seed, k, f"{stream} {modality}")
        pairs.append(distort(clean_patch(pictures[k % len(pictures)], side, rng), RECIPES[modality], rng, identity=False))
    return pairs


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
                clean = with_contrast(clean_patch(pictures[k % len(pictures)], side, rng), 0.4)
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


def not_run() -> list[str]:
    """What the paper or its specification asks for and this evaluation does not measure."""
    missing = [] if "BM3D, stabilised" in METHODS else ["BM3D: install the package bm3d"]
    return [*missing, "other networks (GRDN, MR-UNet): train them with --network and evaluate their runs"]


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["evaluate", "cgrdn", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
