"""Measure DLSS-STEM: `python -m paper_dlss.evaluate --out DIR` (the same as `empapers evaluate dlss`).

Simulated crops that no training draws, and the user's micrographs (items that start with "R: "), whose crops are taken for the truth as in the paper. At every
scan step of the weights, and at steps that they have not seen: the paper's Table 2 and Figures 2, 4, 5, 6, 7 and 8; its Table 3, ratio of Laplacians and
deconvolution; and spectra, which it does not report. Classical methods as the paper measured them ("legacy"), and at their best: interpolated where the samples
lie ("aligned"), with a Gaussian that is tuned for every step on other simulated crops. `comparisons.measure` says how the network is run and scored.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.evaluation import item, write_results, write_table
from common.metrics import bootstrap_interval, ratio_interval
from common.papers import STEPS

from . import baselines, figures
from .baselines import blurred
from .casts import CASTS
from .comparisons import (
    BAND,
    BLURRED,
    INPUT,
    NETWORK,
    SHARP,
    TARGET,
    TUNED,
    Crops,
    Measured,
    Supersampler,
    edge_curves,
    mal_ratio,
    measure,
    mse,
    pictures,
    recorded,
    simulated,
    spectral_distance,
    tune_all,
    unit,
)
from .config import Config
from .deconvolution import deconvolved, remove_spikes
from .published import TABLE_2, TABLE_3, TAIL, TAILS

CONVENTION = (
    "grey levels: the range of each crop is [0, 1]; root MSE: square root of the mean over crops of the mean squared error of all pixels, not clipped, against "
    "the crop blurred by 5 x 5 pixels with sigma 2.5; networks trained on the crop's range do not know it, classical methods do; 95 % bootstrap intervals over "
    "crops"
)
UNSEEN = (3, 11, 12)  # steps of Fig. 6 beyond those of the unified network
SHOWN = (4, 5, 10)  # steps of example sheets and spectra
FRAME = 20  # pixels; removing more gains little [P]
NOISY = 0.05  # share of a crop's range above which its own noise is listed
FEW = 8  # crops for what takes long or is looked at: spectra, deconvolution


def evaluate_dlss(
    out: Path,
    weights: str = "small",
    seed: int = 0,
    data: Path | None = None,
    images: int = 40,
    recorded_images: int | None = None,
    side: int = 512,
    steps: tuple[int, ...] = (),
    others: tuple[str, ...] = (),
    tuning_images: int = 12,
) -> dict:
    """Write results.json, tables and figures into a folder; returns the items of results.json.

    Args:
        out: the folder, made if missing.
        weights: a shipped name, a .weights.h5 file or a run folder.
        seed: of the simulated crops and of the draw from recorded ones.
        data: a folder of micrographs to measure on as well, four crops of each at most, or an HDF5 file of python -m paper_dlss.pack, its test crops.
        images: how many simulated crops are measured.
        recorded_images: how many recorded crops are measured, a random draw; all of them if not given.
        side: of all crops, in pixels.
        steps: scan steps beside those of the weights; 3, 11 and 12 for weights that know several, if none are given.
        others: further weights to compare at the steps that they know, such as individual, one-stage or adversarial ones.
        tuning_images: simulated crops on which the classical methods are tuned.
    """
    if min(images, tuning_images, 1 if recorded_images is None else recorded_images) < 1:
        raise ValueError(f"images, recorded_images and tuning_images must be at least 1, got {images}, {recorded_images} and {tuning_images}")
    if side < 64 or side % 32:
        raise ValueError(f"side must be divisible by 32 and at least 64, got {side}")
    if wrong := [step for step in steps if step not in STEPS]:
        raise ValueError(f"steps must be from {STEPS[0]} to {STEPS[-1]}, got {wrong[0]}")
    network, rivals = Supersampler.load(weights), load_rivals(others)
    if side != 512 and any(each.config.network == "one_stage" for each in (network, *rivals.values())):
        raise ValueError(f"the one-stage network makes images of 512 pixels, so side must be 512, got {side}")
    scan_steps = all_steps(network.config, steps)
    tracks = {"": simulated("test", seed, side, images)}
    if data is not None:
        tracks["R: "] = recorded(data, seed, side, recorded_images, network.trained_on)
    out.mkdir(parents=True, exist_ok=True)
    sigmas = tune_all(simulated("tuning", seed, min(side, 256), tuning_images), scan_steps)
    items, fits, notes = {}, {}, {"not run": not_run(others)}
    for track, crops in tracks.items():
        measured = measure(network, crops, scan_steps, sigmas, f"{track}crops")
        few = {step: [pictures(network, crop, step, measured.best(step), sigmas[step]) for crop in first(crops, FEW)] for step in shown_steps(measured)}
        error, fit = pixel_errors(measured, network.config), quadratic(measured, network.config)
        found = error_items(measured, network.config) | hindsight_items(crops, measured)
        found |= rival_items(rivals, crops, measured) | cast_items(network, crops, measured)
        found |= edge_items(error, len(crops)) | spectrum_items(few) | laplacian_items(crops) | deconvolution_items(crops)
        items |= {track + name: entry for name, entry in found.items()}
        fits[track or "S: "] = fit
        if track:
            notes[track] = recorded_notes(crops, measured)
        prefix = track.replace(": ", "_")
        write_tables(out, prefix, crops, measured)
        figures.draw_coverage(out / f"{prefix}coverage.png", measured, network.config.scan_steps, fit)
        figures.draw_histograms(out / f"{prefix}histograms.png", measured, TAIL)
        figures.draw_error_map(out / f"{prefix}error_map.png", error)
        figures.draw_edges(out / f"{prefix}edges.png", error)
        figures.draw_examples(
            out / f"{prefix}examples.png", {f"{crops.name(k)}, step {s}": images[k] for s, images in few.items() for k in range(len(images[:3]))}
        )
        figures.draw_spectra(out / f"{prefix}spectra.png", few)
        figures.draw_deconvolution(out / f"{prefix}deconvolution.png", {f"step {step}": undone(images[0]) for step, images in few.items()})
    tuned = {f"step {step}": {method: round(sigma, 4) for method, sigma in found.items()} for step, found in sigmas.items()}
    write_results(out, "dlss", str(weights), seed, items, CONVENTION, sigmas=tuned, fits=fits, notes=notes)
    return items


def load_rivals(others: tuple[str, ...]) -> dict[str, Supersampler]:
    """Further networks by the last part of their name, which is the run's or the weights'; ValueError where two have the same."""
    names = [Path(name).name.removesuffix(".weights.h5") for name in others]
    if twice := [name for name in names if names.count(name) > 1 or name == NETWORK]:
        raise ValueError(f"two networks would be called {twice[0]!r} in the results; rename one of them")
    return {name: Supersampler.load(weights) for name, weights in zip(names, others, strict=True)}


def all_steps(config: Config, more: tuple[int, ...] = ()) -> list[int]:
    """The steps of the weights and more: those of Fig. 6 for a unified network where none are given. ValueError for more of the one-stage network's one."""
    if config.network == "one_stage":
        if set(more) - set(config.scan_steps):
            raise ValueError(f"the one-stage network knows step {config.scan_steps[0]} alone; leave steps out")
        return list(config.scan_steps)
    return sorted({*config.scan_steps, *(more or (UNSEEN if len(config.scan_steps) > 1 else ()))})


def shown_steps(measured: Measured) -> list[int]:
    return [step for step in SHOWN if step in measured.errors] or list(measured.errors)[:3]


def first(crops: Crops, count: int) -> list[np.ndarray]:
    return [crops[k] for k in range(min(len(crops), count))]


def published_as(config: Config) -> str | None:
    """Which row of Table 2 is this network's."""
    if config.network == "one_stage" or config.target == "sharp" or config.steps > 2 * config.plateau:
        return None
    return "unified" if len(config.scan_steps) > 1 else "individual"


def not_run(others: tuple[str, ...]) -> list[str]:
    """What the paper measures with more networks or other crops than are at hand."""
    missing = [] if others else ["Fig. 10, one stage against two, and the individual networks of Table 2: not run; give their weights as --others"]
    return [*missing, "Table 2 on the paper's 20,000 test crops: not run unless --data holds them; published numbers stand beside other images"]


def recorded_notes(crops: Crops, measured: Measured) -> list[str]:
    """What was left out, and crops with much noise of their own: these stay, for the blur of the target leaves a fifth of it."""
    noisy = (f"{crops.name(k)}: noise {noise:.1%} of the range" for k, noise in enumerate(measured.noise) if noise > NOISY)
    return [*getattr(crops.source, "notes", ()), *noisy]


# --- Tables 2 and 3, Figures 2, 4 and 6 ---


def root_item(errors: np.ndarray, baseline: float | None = None, published: tuple | None = None, **more) -> dict:
    """Root MSE of the crops' mean squared errors as an item, with the square root of their standard deviation. published: both of them."""
    more = {"deviation": float(np.sqrt(np.std(errors))), "published_deviation": published and published[1], **more}
    interval = np.sqrt(ratio_interval(errors, np.ones(len(errors)))).tolist()
    return item(float(np.sqrt(np.mean(errors))), "[0, 1]", baseline, published and published[0], len(errors), interval, **more)


def ratio_items(name: str, ours: np.ndarray, theirs: np.ndarray, **more) -> dict:
    """Our root MSE over theirs; crops are resampled in pairs. With the share of crops made worse. Nothing where some draw of crops has no error of theirs."""
    with np.errstate(invalid="ignore", divide="ignore"):
        interval = np.sqrt(ratio_interval(ours, theirs)).tolist()
    if not np.isfinite(interval).all():
        return {}
    return {name: item(float(np.sqrt(np.sum(ours) / np.sum(theirs))), "", 1.0, None, len(ours), interval, worse=float(np.mean(ours > theirs)), **more)}


def error_items(measured: Measured, config: Config) -> dict:
    """Every method at every step, the network beside the best tuned interpolation; and the tails of Fig. 4."""
    items, ours = {}, published_as(config)
    for step, errors in measured.errors.items():
        best = measured.best(step)
        for method, found in errors.items():
            published = TABLE_2.get(ours if method == NETWORK else method, {}).get(step)
            more = {"method": best, "seen": step in config.scan_steps} if method == NETWORK else {}
            items[f"root MSE, step {step}: {method}"] = root_item(found, measured.root(step, best) if method in (NETWORK, BLURRED) else None, published, **more)
        items |= ratio_items(f"ratio to the best tuned aligned interpolation, step {step}", errors[NETWORK], errors[best], method=best)
        tail = TAILS.get(ours, {}).get(step)
        beyond = errors[NETWORK] > TAIL
        items[f"share of crops with MSE above {TAIL}, step {step}"] = item(float(beyond.mean()), published=tail and tail / 20_000, n=len(beyond))
    return items


def hindsight_items(crops: Crops, measured: Measured) -> dict:
    """Against more than a user can have: the best aligned interpolation, its Gaussian chosen for these very crops."""
    items, images = {}, [unit(crop) for crop in crops]
    for step, errors in measured.errors.items():
        best = measured.best(step)
        method = best.removeprefix("aligned ").removesuffix(TUNED)
        sigma = baselines.tune(method, images, step)
        theirs = np.array([mse(baselines.aligned(image, step, method, sigma), blurred(image)) for image in images])
        items |= ratio_items(f"ratio to it with a Gaussian tuned on these very crops, step {step}", errors[NETWORK], theirs, method=best, sigma=sigma)
    return items


def quadratic(measured: Measured, config: Config) -> dict:
    """Fig. 2: p_raw of these crops, the quadratic of mean squared error in nominal coverage; empty for fewer than three steps."""
    seen = [step for step in measured.errors if step in config.scan_steps]
    if len(seen) < 3:
        return {}
    coefficients = np.polyfit([step**-2.0 for step in seen], [measured.root(step, NETWORK) ** 2 for step in seen], 2)
    return dict(zip(("square", "linear", "constant"), map(float, coefficients), strict=True))


def rival_items(rivals: dict[str, Supersampler], crops: Crops, measured: Measured) -> dict:
    """Other weights on the same crops, beside the network: individual networks, the one-stage network of Fig. 10."""
    items = {}
    for name, rival in rivals.items():
        for step in (s for s in rival.config.scan_steps if s in measured.errors):
            errors = np.array(
                [mse(unit(rival(crop, step)), blurred(unit(crop))) for crop in tqdm(crops, desc=f"{name}, step {step}", unit="crop", leave=False)]
            )
            published = TABLE_2.get(published_as(rival.config), {}).get(step)
            items[f"root MSE, step {step}: {name}"] = root_item(errors, measured.root(step, NETWORK), published)
            items |= ratio_items(f"ratio of {name} to the network, step {step}", errors, measured.errors[step][NETWORK])
    return items


def cast_items(network: Supersampler, crops: Crops, measured: Measured) -> dict:
    """Table 3, at the step nearest to 5: root MSE with inputs of fewer bits, beside that with float32 ones, and the relative change."""
    if network.config.network == "one_stage":
        return {}
    step = min(network.config.scan_steps, key=lambda s: abs(s - 5))
    plain, items = measured.root(step, NETWORK), {}
    published = TABLE_3 if step == 5 else {}
    for name, cast in CASTS.items():
        errors = np.array([mse(unit(network(crop, step, cast)), blurred(unit(crop))) for crop in tqdm(crops, desc=f"{name} inputs", unit="crop", leave=False)])
        entry = root_item(errors, plain, (published[name], None) if name in published else None)
        items[f"root MSE, step {step}: {name} input"] = entry
        if plain:
            told = published[name] / published["float32"] - 1 if name in published else None
            items[f"relative change of root MSE, step {step}: {name} input"] = item(entry["value"] / plain - 1, published=told, n=len(errors))
    return items


# --- Figures 7 and 8 ---


def pixel_errors(measured: Measured, config: Config) -> np.ndarray:
    """Fig. 7: root MSE of every pixel over all crops and all steps of the weights; the paper draws one step for each crop."""
    seen = [measured.squared[step] for step in config.scan_steps]
    return np.sqrt(sum(seen) / len(seen) / len(measured.noise))


def edge_items(error: np.ndarray, crops: int) -> dict:
    """Fig. 8 in one number."""
    fall = edge_curves(error)[1]
    return {f"fall of root MSE without a frame of {FRAME} px": item(float(fall[FRAME]), "", 0.0, 0.01, crops)} if error.any() else {}


# --- Beside errors ---


def spectrum_items(few: dict[int, list[dict]]) -> dict:
    """How far the network's spectrum is from that of the target and of the sharp crop, beside the best tuned interpolation's."""
    items = {}
    for step, crops in few.items():
        best = next(name for name in crops[0] if name not in (INPUT, NETWORK, TARGET, SHARP))
        for reference in (TARGET, SHARP):
            pairs = np.array([[spectral_distance(images[name], images[reference]) for name in (NETWORK, best)] for images in crops])
            pairs = pairs[np.isfinite(pairs).all(1)]
            if len(pairs):
                ours, theirs = pairs.T
                name = f"spectral distance to the {reference} below {BAND} cycles/px, step {step}"
                items[name] = item(float(ours.mean()), "", float(theirs.mean()), None, len(ours), bootstrap_interval(ours), method=best)
    return items


def laplacian_items(crops: Crops) -> dict:
    """How much more alike neighbouring pixels are than neighbouring samples."""
    ratios = [ratio for ratio in (mal_ratio(crop) for crop in crops) if np.isfinite(ratio)]
    return {"ratio of mean absolute Laplacians": item(float(np.mean(ratios)), "", 1.0, 0.93, len(ratios), bootstrap_interval(ratios))} if ratios else {}


def deconvolution_items(crops: Crops) -> dict:
    """The paper's two numbers, which measure different things, and what is left of the second after deconvolution. n: crops."""
    found = []
    for crop in tqdm(first(crops, FEW), desc="deconvolution", unit="crop", leave=False):
        sharp = unit(crop)
        restored, residual = deconvolved(blurred(sharp))
        found.append((residual, mse(blurred(sharp), sharp), mse(restored, sharp)))
    published = {"what is left of the blurred crop": 6.28e-8, "blurred crop against crop": 3.03e-3, "deconvolved crop against crop": None}
    columns = zip(published.items(), np.transpose(found), strict=True)
    return {f"deconvolution, MSE: {name}": item(float(v.mean()), "", None, told, len(v), bootstrap_interval(v)) for (name, told), v in columns}


def undone(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The other half of Fig. 5: the network's output, deconvolved, and without the spikes at the transfer zeros; beside the sharp crop."""
    restored = deconvolved(images[NETWORK])[0]
    return {NETWORK: images[NETWORK], "deconvolved": restored, "without spikes": remove_spikes(restored), SHARP: images[SHARP]}


# --- Tables ---


def write_tables(out: Path, prefix: str, crops: Crops, measured: Measured) -> None:
    """Table 2, with a column for each step's root MSE and the root of its standard deviation; and the root MSE of every single crop."""
    methods = dict.fromkeys(method for errors in measured.errors.values() for method in errors)
    rows = []
    for method in methods:
        columns = {f"step {s}": rounded(measured.root(s, method)) for s in measured.errors}
        rows.append({"method": method} | columns | {f"step {s}, deviation": rounded(np.sqrt(np.std(e[method]))) for s, e in measured.errors.items()})
    write_table(out / f"{prefix}table_2.csv", rows)
    singles = [(k, step, errors) for k in range(len(crops)) for step, errors in measured.errors.items()]
    rows = [{"crop": crops.name(k), "step": step} | {method: rounded(np.sqrt(e[k])) for method, e in errors.items()} for k, step, errors in singles]
    write_table(out / f"{prefix}crops.csv", rows)


def rounded(value: float) -> float:
    return round(float(value), 4)


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["evaluate", "dlss", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
