"""Measure the SSUM CycleGAN: `python -m paper_ssum_cyclegan.evaluate --out DIR` (the same as `empapers evaluate ssum_cyclegan`).

Simulated chips that no training draws, beside the optical image itself and the best linear filter; the widths of their lines in nm; what was invented and lost;
what disturbed inputs cost; and the user's registered pairs (items that start with "R: ").
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common.data import example_rng
from common.evaluation import drop_undefined, item, paired_gain, write_results, write_table
from common.metrics import bootstrap_interval
from common.papers import paper
from common.restoring import load_network

from . import figures
from .baselines import tune, wiener
from .config import Config
from .data import FolderPairs, unit
from .disturbances import DISTURBANCES
from .measures import affine_fit, aligned, difference_maps, invented, psnr, radial_spectrum_distance, scores
from .metrology import summary, width_errors

CONVENTION = (
    "PSNR and SSIM: 8-bit display images, 2 border pixels left out; EPI: correlation of Laplacians; fit: after the best affine grey scale; aligned: "
    "after the best whole shift of up to 8 pixels, then the fit; both sides alike; 95 % bootstrap intervals over images"
)
NETWORK, OPTICAL, WIENER, SEM = "network", "optical", "Wiener", "sem"
VIEWS = {"": "", "_fit": ", fitted", "_aligned": ", aligned and fitted"}
SIDE = 512  # pixels of simulated chips


@dataclass(frozen=True, eq=False)
class Case:
    """One place: optical image and SEM image, (height, width) float32 in [0, 1], and the true lines where they are known."""

    optical: np.ndarray
    sem: np.ndarray
    lines: np.ndarray
    pixel_size: float


def evaluate_ssum_cyclegan(
    out: Path, weights: str = "small", seed: int = 0, data: Path | None = None, chips: int = 24, tuning_chips: int = 12, disturbed: int = 8
) -> dict:
    """Write results.json, tables and figures into a folder; returns the items of results.json.

    Args:
        out: the folder, made if missing.
        weights: a shipped name, a .weights.h5 file or a run folder; a run folder has the other generator too, for the cycle error, and its losses are drawn.
        seed: of all simulated chips.
        data: a folder of registered pairs to measure on as well, such as `test` of what `paper_ssum_cyclegan.preprocess` wrote.
        chips: simulated chips of 512 x 512 pixels.
        tuning_chips: others, on which the linear filter is tuned and the offsets of line widths are found.
        disturbed: chips whose optical images are disturbed in all ways; 0 leaves that out.
    """
    if min(chips, tuning_chips) < 1 or disturbed < 0:
        raise ValueError(f"chips and tuning_chips must be at least 1, disturbed 0 or more, got {chips}, {tuning_chips}, {disturbed}")
    restore, config = Restorer.load(weights)
    recorded = FolderPairs(data, config.reduction, 64) if data is not None else []
    out.mkdir(parents=True, exist_ok=True)
    tuning = simulated(config, "tuning", seed, tuning_chips)
    filter_numbers = tune([(case.optical, case.sem) for case in tuning], lambda sem, image: psnr(sem, affine_fit(sem, image)))
    filtered = partial(wiener, sigma=filter_numbers[0], noise=filter_numbers[1])
    methods = {OPTICAL: lambda image: image, WIENER: filtered, NETWORK: restore}
    offsets = {name: median(errors) for name, (errors, _) in widths(tuning, methods).items()}
    cases = simulated(config, "test", seed, chips)
    found = measure(cases, methods)
    items, rows = score_items("", found), table_rows("simulated", found)
    items |= width_items(cases, methods, offsets)
    if disturbed:
        more, table = disturbance_items(cases[:disturbed], restore, seed)
        items |= more
        write_table(out / "disturbances.csv", table)
    if len(recorded):
        recorded = [Case(optical, sem, np.empty((0, 5)), np.nan) for optical, sem in recorded]
        found = measure(recorded, methods)
        items |= score_items("R: ", found)
        rows += table_rows("recorded", found)
    notes = {
        "Wiener": ["sigma {:g} px, noise {:g}".format(*filter_numbers)],
        "offsets": [f"{name}: {value[0]:.1f} nm off line widths" for name, value in offsets.items()],
    }
    reverse = Restorer.reverse(weights, config)
    if reverse is not None:
        errors = [float(np.abs(reverse(restore(case.optical)) - case.optical).mean()) for case in cases]
        items["cycle error of optical images"] = item(float(np.mean(errors)), "of the range", None, None, len(errors), bootstrap_interval(errors))
        figures.draw_losses(out / "losses.png", Path(weights) / "metrics.csv")
    else:
        notes["not run"] = ["cycle error and losses: give --weights the run folder, which has the other generator and the log"]
    notes["without a number"] = drop_undefined(items)
    write_table(out / "scores.csv", rows)
    figures.draw_examples(out / "examples.png", [(case.optical, filtered(case.optical), restore(case.optical), case.sem) for case in cases[:4]])
    write_results(out, "ssum_cyclegan", str(weights), seed, items, CONVENTION, notes=notes)
    return items


# --- Networks ---


class Restorer:
    """image (height, width) float32 in [0, 1], sides multiples of 4 -> its conversion, the same."""

    def __init__(self, network):
        self.run = tf.function(partial(network, training=False), reduce_retracing=True)

    @classmethod
    def load(cls, weights: str) -> tuple[Restorer, Config]:
        """weights: a shipped name, a .weights.h5 file or a run folder."""
        network, config = load_network(paper("ssum_cyclegan"), weights)
        return cls(network), config

    @classmethod
    def reverse(cls, weights: str, config: Config) -> Restorer | None:
        """The generator from SEM to optical images of a run folder."""
        file = Path(weights) / "F.weights.h5"
        if not file.is_file():
            return None
        network = paper("ssum_cyclegan").build_generator(config)
        network.load_weights(file)
        return cls(network)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return (np.asarray(self.run(2 * tf.constant(np.float32(image)[None, ..., None]) - 1))[0, ..., 0] + 1) / 2


# --- Cases and scores ---


def simulated(config: Config, stream: str, seed: int, count: int) -> list[Case]:
    """Chips that no training draws, without misalignment: the truth must be true."""
    from .simulator import simulate_pair

    cases = []
    for k in range(count):
        pair = simulate_pair((seed, k, *stream.encode()), (SIDE, SIDE), config.pixel_size)
        cases.append(Case(unit(pair.optical), unit(pair.sem), pair.layout.lines, pair.layout.pixel_size))
    return cases


def measure(cases: Sequence[Case], methods: dict[str, Callable]) -> dict[str, dict[str, np.ndarray]]:
    """Name of a number -> method -> (cases,): `measures.scores`; differences on edges and elsewhere, invented and lost, all aligned and fitted; spectra."""
    found: dict[str, dict[str, list[float]]] = {}
    for case in tqdm(cases, desc="chips", unit="image", leave=False):
        for name, method in methods.items():
            image = method(case.optical)
            y, g = aligned(case.sem, image)
            g = affine_fit(y, g)
            differences, structures = difference_maps(y, g), invented(case.sem, image)
            numbers = scores(case.sem, image) | {
                "on edges": differences.on_edges,
                "elsewhere": differences.elsewhere,
                "invented": structures.invented_per_megapixel,
                "lost": structures.lost_per_megapixel,
                "spectrum": radial_spectrum_distance(y, g),
            }
            for number, value in numbers.items():
                found.setdefault(number, {}).setdefault(name, []).append(value)
    return {number: {name: np.array(values) for name, values in methods.items()} for number, methods in found.items()}


def score_items(prefix: str, found: dict) -> dict:
    items = {}
    for score, unit_ in (("psnr", "dB"), ("ssim", ""), ("epi", "")):
        for key, label in VIEWS.items():
            values = found[f"{score}{key}"]
            for rival in (OPTICAL, WIENER):
                published = 1.64 if (score, rival, key) == ("psnr", OPTICAL, "") else None
                name = f"{prefix}{score.upper()} gain over the {'optical image' if rival == OPTICAL else 'tuned Wiener filter'}{label}"
                items[name] = paired_gain(values[NETWORK], values[rival], unit_, published)
    labels = {"on edges": "mean difference on edges", "elsewhere": "mean difference elsewhere", "invented": "invented structures per megapixel"}
    labels |= {"lost": "lost structures per megapixel", "spectrum": "distance of spectra"}
    for number, label in labels.items():
        ours, theirs = found[number][NETWORK], found[number][OPTICAL]
        items[prefix + label] = item(
            float(ours.mean()), "", float(theirs.mean()), None, len(ours), bootstrap_interval(ours), Wiener=float(found[number][WIENER].mean())
        )
    return items


def table_rows(label: str, found: dict) -> list[dict]:
    return [{"images": label, "method": name} | {number: round(float(values[name].mean()), 4) for number, values in found.items()} for name in found["psnr"]]


# --- Line widths ---


def widths(cases: Iterable[Case], methods: dict[str, Callable]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Method, or the SEM image itself -> errors of widths and pitches in nm, (n, 2), and the lines, (n, 5), of all cases. Optical images have no rims."""
    errors: dict[str, list] = {}
    cases = [case for case in cases if len(case.lines)]
    for case in cases:
        images = {name: method(case.optical) for name, method in methods.items()} | {SEM: case.sem}
        for name, found in width_errors(images, case.sem, case.lines, case.pixel_size, blurred=(OPTICAL, WIENER)).items():
            errors.setdefault(name, []).append(found)
    lines = np.concatenate([case.lines for case in cases]) if cases else np.empty((0, 5))
    return {name: (np.concatenate(found), lines) for name, found in errors.items()}


def median(errors: np.ndarray) -> np.ndarray:
    """(n, 2) -> (2,), over what was found; 0 where nothing was."""
    return np.array([np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else 0.0 for column in errors.T])


def width_items(cases: Sequence[Case], methods: dict[str, Callable], offsets: dict[str, np.ndarray]) -> dict:
    """Errors of line widths and pitches: medians of absolute ones, after each kind of image was given the offset that it needs on other chips."""
    found = {name: summary(errors - offsets[name], lines) for name, (errors, lines) in widths(cases, methods).items()}
    items = {}
    for what in ("width", "pitch"):
        for number, unit_ in (("median_error", "nm"), ("spread", "nm"), ("found", "")):
            key, label = f"{what}_{number}", {"median_error": "median error", "spread": "spread", "found": "share found"}[number]
            more = {name: found[name][key] for name in (WIENER, SEM)}
            items[f"line {what}, {label}"] = item(found[NETWORK][key], unit_, found[OPTICAL][key], None, sum(len(case.lines) for case in cases), **more)
    return items


# --- Robustness ---


def disturbance_items(cases: Sequence[Case], restore: Callable, seed: int) -> tuple[dict, list[dict]]:
    """How much PSNR (aligned and fitted) and EPI fall where the optical image is noisier, blurrier, brighter, turned or displaced (the paper's Fig. S5)."""
    plain = [scores(case.sem, restore(case.optical)) for case in cases]
    items, rows = {}, []
    for name, disturb in DISTURBANCES.items():
        seen = [scores(*restored_pair(case, disturb, restore, example_rng(seed, k, name))) for k, case in enumerate(cases)]
        falls = {score: np.array([now[score] - before[score] for now, before in zip(seen, plain, strict=True)]) for score in ("psnr_aligned", "epi_aligned")}
        rows.append({"disturbance": name} | {score: round(float(values.mean()), 4) for score, values in falls.items()})
        values = falls["psnr_aligned"]
        items[f"disturbed, {name}: change of PSNR, aligned and fitted"] = item(float(values.mean()), "dB", 0.0, None, len(values), bootstrap_interval(values))
    return items, rows


def restored_pair(case: Case, disturb: Callable, restore: Callable, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The SEM image, moved along where the disturbance moves things, and the restoration of the disturbed optical image."""
    optical, sem = disturb(case.optical, case.sem, rng)
    return sem, restore(unit(optical))


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["evaluate", "ssum_cyclegan", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
