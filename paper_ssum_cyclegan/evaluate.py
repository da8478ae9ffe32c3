"""Measure the SSUM CycleGAN: `python -m paper_ssum_cyclegan.evaluate --out DIR` (the same as `empapers evaluate ssum_cyclegan`).

Simulated chips that no training draws, beside the optical image itself and the best linear filter; the widths of their lines in nm; what was invented and lost;
what disturbed inputs and layouts of other kinds ("curves: ") cost; and the user's registered pairs (items that start with "R: ").
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common.evaluation import drop_undefined, item, paired_gain, write_results, write_table
from common.metrics import bootstrap_interval, radial_spectrum_distance
from common.papers import paper
from common.restoring import load_network, mirrored

from . import figures
from .baselines import tune, wiener
from .cases import Case, recorded_cases, simulated
from .config import Config
from .experiments import disturbance_items, tile_items
from .layouts import draw_curves
from .measures import affine_fit, aligned, difference_maps, edge_ratio, invented, psnr, scores
from .metrology import summary, width_errors

CONVENTION = (
    "PSNR and SSIM: 8-bit display images, 2 border pixels left out; EPI: correlation of Laplacians; fit: after the best affine grey scale; aligned: "
    "after the best whole shift of up to 8 pixels, then the fit; truth without noise where simulated; both sides alike; 95 % bootstrap intervals over images"
)
NETWORK, OPTICAL, WIENER, SEM = "network", "optical", "Wiener", "sem"
VIEWS = {"": "", "_fit": ", fitted", "_aligned": ", aligned and fitted", "_ecc": ", aligned to a fraction of a pixel and fitted"}
CANDIDATES = [(0.0, 0.1), *product((1.0, 1.5, 2.0, 2.5, 3.0), (0.05, 0.1, 0.2, 0.4))]  # of the filter for widths: sigma, noise


def evaluate_ssum_cyclegan(
    out: Path,
    weights: str = "small",
    seed: int = 0,
    data: Path | None = None,
    chips: int = 24,
    tuning_chips: int = 12,
    disturbed: int = 8,
    curves: int = 24,
    ensemble: bool = False,
) -> dict:
    """Write results.json, tables and figures into a folder; returns the items of results.json.

    Args:
        out: the folder, made if missing.
        weights: a shipped name, a .weights.h5 file or a run folder; a run folder has the other generator too, for the cycle error, and its losses are drawn.
        seed: of all simulated chips.
        data: a folder of registered pairs to measure on as well, such as `test` of what `paper_ssum_cyclegan.preprocess` wrote.
        chips: simulated chips of 512 x 512 pixels.
        tuning_chips: others, on which the linear filter is tuned and the offsets of line widths are found.
        disturbed: chips whose optical images are disturbed in all ways; 0 leaves that and tiles out.
        curves: chips whose layouts are of kinds that no training draws, each in the same two microscopes as the chip of its number; 0 leaves that out.
        ensemble: measure the mean of the conversions of each image's eight mirror images, as `empapers restore --ensemble` makes it.
    """
    if min(chips, tuning_chips) < 1 or min(disturbed, curves) < 0:
        raise ValueError(f"chips and tuning_chips must be at least 1, disturbed and curves 0 or more, got {chips}, {tuning_chips}, {disturbed}, {curves}")
    once, config = Restorer.load(weights)
    restore = mirrored(once, paper("ssum_cyclegan")) if ensemble else once
    recorded = recorded_cases(data) if data is not None else []
    out.mkdir(parents=True, exist_ok=True)
    tuning, cases = simulated(config, "tuning", seed, tuning_chips), simulated(config, "test", seed, chips)
    filters = Filters.tuned(tuning)
    methods = {OPTICAL: lambda image: image, WIENER: filters, NETWORK: restore}
    converted = convert(cases, methods)
    found_simulated = measure(cases, converted)
    items, rows = simulated_items(cases, found_simulated, restore), table_rows("simulated", found_simulated)
    measured = [[images | {WIENER: filters.for_widths(images[OPTICAL])} for images in each] for each in (convert(tuning, methods), converted)]
    offsets = {name: median(errors) for name, (errors, _) in widths(tuning, measured[0]).items()}
    items |= width_items(cases, measured[1], offsets)
    if disturbed:
        more, table = disturbance_items([(case.optical, case.sem) for case in cases[:disturbed]], restore, seed)
        items |= more
        items |= tile_items(once.network, config, seed, min(disturbed, 3))
        write_table(out / "disturbances.csv", table)
    if curves:
        others = simulated(config, "test", seed, curves, draw_curves)
        images = convert(others, methods)
        found = measure(others, images)
        items |= {f"curves: {name}": value for name, value in simulated_items(others, found, restore).items()}
        rows += table_rows("curves", found)
        figures.draw_examples(out / "curves.png", [(*each.values(), case.sem) for each, case in zip(images[:8], others[:8], strict=True)])
    if recorded:
        found = measure(recorded, convert(recorded, methods))
        items |= score_items("R: ", found, published=1.64)
        rows += table_rows("recorded", found)
    notes = {"filters": [f"Wiener {filters.numbers} for scores, {filters.width_numbers} for widths: sigma in pixels, noise over the deviation"]}
    notes["ensemble"] = ["every conversion is the mean over mirror images"] if ensemble else []
    notes["offsets"] = [f"{name}: {offset[0]:.1f} nm off line widths" for name, offset in offsets.items()]
    reverse = Restorer.reverse(weights, config)
    if reverse is not None:
        errors = [float(np.abs(reverse(images[NETWORK]) - images[OPTICAL]).mean()) for images in converted]
        items["cycle error of optical images"] = item(float(np.mean(errors)), "of the range", None, None, len(errors), bootstrap_interval(errors))
        if (log := Path(weights) / "metrics.csv").is_file():
            figures.draw_losses(out / "losses.png", log)
    else:
        notes["not run"] = ["cycle error and losses: give --weights the run folder, which has the other generator and the log"]
    notes["without a number"] = drop_undefined(items)
    write_table(out / "scores.csv", rows)
    write_table(out / "chips.csv", chip_rows(cases, found_simulated))
    bright, dark = ([k for k, case in enumerate(cases) if case.dark_metal == which] for which in (False, True))
    shown = [(*(converted[k][name] for name in (OPTICAL, WIENER, NETWORK)), cases[k].sem) for k in (*bright[:3], *dark[:1])]
    shown += [(*(method(1 - cases[k].optical) for method in methods.values()), cases[k].sem) for k in dark[:1]]  # and its negative
    figures.draw_examples(out / "examples.png", shown)
    write_results(out, "ssum_cyclegan", str(weights), seed, items, CONVENTION, notes=notes)
    return items


# --- Networks ---


class Restorer:
    """image (height, width) float32 in [0, 1] -> its conversion, the same; one pass, mirrored up to what the network takes."""

    def __init__(self, network):
        self.network = network
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
        height, width = image.shape
        padded = np.pad(np.float32(image), [(0, -n % paper("ssum_cyclegan").multiple) for n in image.shape], "symmetric")
        return (np.asarray(self.run(2 * tf.constant(padded[None, ..., None]) - 1))[0, :height, :width, 0] + 1) / 2


@dataclass(frozen=True)
class Filters:
    """The linear filter that competes: Wiener's, and the grey scale, slope and intercept, that fits its images to SEM images best. Another one for widths."""

    numbers: tuple[float, float]
    scale: tuple[float, float]
    width_numbers: tuple[float, float]

    @classmethod
    def tuned(cls, cases: Sequence[Case]) -> Filters:
        """On these cases, which should serve nothing else: on the fitted PSNR of their middles, and on the median error of their line widths."""
        middles = [tuple(image[128:384, 128:384] for image in (case.optical, case.sem)) for case in cases]
        numbers = tune(middles, lambda sem, image: psnr(sem, affine_fit(sem, image)))
        filtered = [np.stack([wiener(optical, *numbers), sem]).reshape(2, -1) for optical, sem in middles]
        slope, intercept = np.polyfit(*np.concatenate(filtered, axis=1).astype(np.float64), 1)

        def width_error(numbers: tuple[float, float]) -> float:
            errors, lines = widths(cases, [{WIENER: wiener(case.optical, *numbers)} for case in cases])[WIENER]
            value = summary(errors - median(errors), lines)["width_median_error"]
            return value if np.isfinite(value) else np.inf

        return cls(numbers, (float(slope), float(intercept)), min(CANDIDATES, key=width_error))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        slope, intercept = self.scale
        return np.float32(slope) * wiener(image, *self.numbers) + np.float32(intercept)

    def for_widths(self, image: np.ndarray) -> np.ndarray:
        return wiener(image, *self.width_numbers)


# --- Scores ---


def convert(cases: Sequence[Case], methods: dict[str, Callable]) -> list[dict[str, np.ndarray]]:
    """For each case, method -> what it makes of the optical image."""
    return [{name: method(case.optical) for name, method in methods.items()} for case in cases]


def measure(cases: Sequence[Case], converted: Sequence[dict]) -> dict[str, dict[str, np.ndarray]]:
    """Name of a number -> method -> (cases,): `measures.scores`; differences on edges and elsewhere; what was invented and lost; spectra."""
    found: dict[str, dict[str, list[float]]] = {}
    for case, images in zip(tqdm(cases, desc="chips", unit="image", leave=False), converted, strict=True):
        for name, image in images.items():
            y, g = aligned(case.sem, image)
            differences, structures = difference_maps(y, affine_fit(y, g)), invented(case.sem, image)
            numbers = scores(case.sem, image, ecc=True) | {
                "on edges": differences.on_edges,
                "elsewhere": differences.elsewhere,
                "invented": structures.invented / image.size * 1e6,
                "invented area": structures.share(1),
                "lost area": structures.share(-1),
                "gradients": edge_ratio(case.sem, image),
                "spectrum": radial_spectrum_distance(y, g),
            }
            for number, value in numbers.items():
                found.setdefault(number, {}).setdefault(name, []).append(value)
    return {number: {name: np.array(values) for name, values in methods.items()} for number, methods in found.items()}


def simulated_items(cases: Sequence[Case], found: dict, restore: Callable) -> dict:
    """All that scores say of chips whose contrast is known."""
    return score_items("", found) | contrast_items(cases, found) | inverted_items(cases, found, restore)


def score_items(prefix: str, found: dict, published: float | None = None) -> dict:
    """published: the paper's gain in PSNR over the optical image, which says something about recorded pairs only."""
    items = {}
    for score, unit_ in (("psnr", "dB"), ("ssim", ""), ("epi", "")):
        for key, label in VIEWS.items():
            values = found[f"{score}{key}"]
            for rival in (OPTICAL, WIENER):
                theirs = published if (score, rival, key) == ("psnr", OPTICAL, "") else None
                name = f"{prefix}{score.upper()} gain over the {'optical image' if rival == OPTICAL else 'tuned Wiener filter'}{label}"
                items[name] = paired_gain(values[NETWORK], values[rival], unit_, theirs)
    labels = {"on edges": "mean difference on edges", "elsewhere": "mean difference elsewhere", "invented": "invented structures per megapixel"}
    labels |= {"invented area": "invented, share of the area", "lost area": "lost, share of the area", "gradients": "sum of gradients over the truth's"}
    labels |= {"spectrum": "distance of spectra"}
    for number, label in labels.items():
        ours, theirs = found[number][NETWORK], found[number][OPTICAL]
        items[prefix + label] = item(
            float(ours.mean()), "", float(theirs.mean()), None, len(ours), bootstrap_interval(ours), Wiener=float(found[number][WIENER].mean())
        )
    return items


def contrast_items(cases: Sequence[Case], found: dict) -> dict:
    """Gains of chips whose metal is the brighter material in the optical image, and of those where it is the darker one; the fit gives that image its sign."""
    items, dark = {}, np.array([case.dark_metal for case in cases])
    for label, which in (("bright metal", ~dark), ("dark metal", dark)):
        for score, unit_ in (("psnr_fit", "dB"), ("epi_fit", "")):
            if which.any():
                ours, theirs = (found[score][name][which] for name in (NETWORK, OPTICAL))
                items[f"{label}: {score.split('_')[0].upper()} gain over the optical image, fitted"] = paired_gain(ours, theirs, unit_)
    return items


def inverted_items(cases: Sequence[Case], found: dict, restore: Callable) -> dict:
    """Gains of chips with dark metal whose optical image is turned into its negative first, as anybody can who knows which material is metal."""
    dark, items = [k for k, case in enumerate(cases) if case.dark_metal], {}
    if not dark:
        return items
    given = [scores(cases[k].sem, restore(1 - cases[k].optical)) for k in dark]
    for score, unit_ in (("psnr_fit", "dB"), ("epi_fit", "")):
        ours, theirs = np.array([each[score] for each in given]), found[score][OPTICAL][dark]
        items[f"dark metal, negative given: {score.split('_')[0].upper()} gain over the optical image, fitted"] = paired_gain(ours, theirs, unit_)
    return items


def chip_rows(cases: Sequence[Case], found: dict) -> list[dict]:
    """One row for each simulated chip: which ones got worse, and where structures were invented."""
    rows = []
    for k, case in enumerate(cases):
        gain = found["psnr_fit"][NETWORK][k] - found["psnr_fit"][OPTICAL][k]
        numbers = {"gain, fitted, dB": gain} | {name: found[name][NETWORK][k] for name in ("psnr_fit", "invented", "invented area", "lost area")}
        rows.append({"chip": k, "dark metal": case.dark_metal} | {name: round(float(value), 4) for name, value in numbers.items()})
    return rows


def table_rows(label: str, found: dict) -> list[dict]:
    return [{"images": label, "method": name} | {number: round(float(values[name].mean()), 4) for number, values in found.items()} for name in found["psnr"]]


# --- Line widths ---


def widths(cases: Sequence[Case], converted: Sequence[dict]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Method, or the SEM image itself -> errors of widths and pitches in nm, (n, 2), and the lines, (n, 5), of all cases. Optical images have no rims."""
    names, lines = [*converted[0], SEM], np.concatenate([case.lines for case in cases])
    errors: dict[str, list] = {name: [np.empty((0, 2))] for name in names}
    for case, images in zip(cases, converted, strict=True):
        if len(case.lines):
            for name, found in width_errors(images | {SEM: case.sem}, case.sem, case.lines, case.pixel_size, blurred=(OPTICAL, WIENER)).items():
                errors[name].append(found)
    return {name: (np.concatenate(found), lines) for name, found in errors.items()}


def median(errors: np.ndarray) -> np.ndarray:
    """(n, 2) -> (2,), over what was found; 0 where nothing was."""
    return np.array([np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else 0.0 for column in errors.T])


def width_items(cases: Sequence[Case], converted: Sequence[dict], offsets: dict[str, np.ndarray]) -> dict:
    """Errors of line widths and pitches: medians of absolute ones, after each kind of image was given the offset that it needs on other chips."""
    errors = {name: errors - offsets[name] for name, (errors, _) in widths(cases, converted).items()}
    lines = np.concatenate([case.lines for case in cases])
    found = {name: summary(each, lines) for name, each in errors.items()}
    items = {}
    for what in ("width", "pitch"):
        for number, unit_ in (("median_error", "nm"), ("spread", "nm"), ("found", "")):
            key, label = f"{what}_{number}", {"median_error": "median error", "spread": "spread", "found": "share found"}[number]
            more = {name: found[name][key] for name in (WIENER, SEM)}
            items[f"line {what}, {label}"] = item(found[NETWORK][key], unit_, found[OPTICAL][key], None, len(lines), **more)
    chip = np.repeat(np.arange(len(cases)), [len(case.lines) for case in cases])
    ours, theirs = (np.abs(errors[name][:, 0]) for name in (NETWORK, OPTICAL))
    name = "line width, median error over the optical image's"
    items[name] = item(found[NETWORK]["width_median_error"] / found[OPTICAL]["width_median_error"], "", 1.0, None, len(cases), median_ratio(ours, theirs, chip))
    return items


def median_ratio(ours: np.ndarray, theirs: np.ndarray, group: np.ndarray, draws: int = 2000) -> tuple[float, float] | None:
    """95 % interval of the ratio of both medians, of what was found, over things that come in groups (lines of a chip), by resampling whole groups."""
    members, rng = [np.flatnonzero(group == one) for one in np.unique(group)], np.random.default_rng(0)
    if not (members and np.isfinite(ours).any() and np.isfinite(theirs).any()):
        return None
    picks = (np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))]) for _ in range(draws))
    return tuple(float(q) for q in np.nanquantile([np.nanmedian(ours[pick]) / np.nanmedian(theirs[pick]) for pick in picks], (0.025, 0.975)))


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["evaluate", "ssum_cyclegan", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
