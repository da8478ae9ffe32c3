"""Measure SEM-GAN: `python -m paper_sem_gan.evaluate --out DIR` (the same as `empapers evaluate sem_gan`).

Simulated fields of gold on carbon that no training draws, or a folder of registered pairs: the paper's gap statistics (Fig. 3), spectra (Fig. 4),
cross-sections (Fig. 2) and inference rate, and what it does not report: false gaps, invented particles, ring correlation. Every figure also for bicubic and
Lanczos upsampling, for the isotropic linear filter of the Lanczos image with the least squared error (fitted on simulated fields used for nothing else), for an
unsharp mask tuned on the gaps of the same fields, and for the same network trained on L1 alone.
"""

from __future__ import annotations

import itertools
import statistics as averages
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from tqdm import tqdm

from common.classical import bicubic
from common.data import to_unit_range
from common.evaluation import item, write_results, write_table
from common.metrics import bootstrap_interval, psnr, ratio_interval, ssim
from common.papers import paper
from common.restoring import compiled, find_weights, load_network, restore_array

from .config import Config
from .data import PIXEL_SIZE, SCALE, as_field, grey_state, recorded_pairs, registered_field, simulated_fields
from .fields import true_gaps
from .figures import draw_field, draw_gaps, draw_spectra
from .gaps import Gaps, Measured, candidate_gaps, compare_particles, false_gaps, joined, measure, particles, statistics
from .spectra import filtered, resolution, ring_correlation, spectral_distance, wiener_gains

TEST_SEED = 1_000_000  # of specimens that no training with a smaller seed draws; an evaluation seed is added
TUNING_SEED = 2_000_000  # of those on which the linear filter is tuned
BAND = (0.0352, 0.0704)  # cycles per nm, between the Nyquist frequencies of the two magnifications
PUBLISHED = {"undetected, input": 13.9, "undetected": 3.7, "difference, input": 3.8, "difference": 2.1, "rate": 3.66}
DWELL = 30e-6  # s per pixel
INPUT, LINEAR, SHARPENED, OURS, L1_ONLY = "Lanczos (input)", "Wiener (tuned)", "unsharp mask (tuned)", "SEM-GAN", "L1 only"


@dataclass(frozen=True, eq=False)
class Case:
    """One field: the scan as recorded, (h, w); images by method and the reference, (2h, 2w) float32 in [0, 1]; touching: pairs that do, by the truth."""

    low: np.ndarray
    images: dict[str, np.ndarray]
    reference: np.ndarray
    touching: Gaps | None


def evaluate_sem_gan(
    out: Path,
    weights: str = "small",
    seed: int = 0,
    data: Path | None = None,
    fields: int = 12,
    shape: tuple[int, int] = (884, 1024),
    l1_weights: str | None = None,
    peak: Literal["smaller", "larger"] = "smaller",
    background: bool = False,
) -> dict:
    """Write results.json, tables and figures into a folder; returns the items of results.json.

    Args:
        out: the folder, made if missing.
        weights: a shipped name, a .weights.h5 file or a run folder.
        seed: of the simulated fields.
        data: a folder of registered pairs (low and high inside) instead of simulated fields, not the ones trained on; training holds out the last by name.
        fields: how many fields are simulated.
        shape: height and width of their high-magnification scans.
        l1_weights: the same network trained on L1 alone, to compare with; the shipped one for weights of its configuration and data, else none.
        peak: of which of two particles a gap has to fall below 60 per cent.
        background: subtract the carbon around each gap first; the paper takes the grey levels as they are.
    """
    if min(fields, *shape) < 1:
        raise ValueError(f"fields and shape must be at least 1, got {fields} and {shape}")
    if not 0 <= seed < TUNING_SEED - TEST_SEED:
        raise ValueError(f"seed must be in 0 .. {TUNING_SEED - TEST_SEED - 1}, got {seed}; others draw the specimens of training or tuning")
    networks = load_networks(weights, l1_weights)
    pairs = recorded_pairs(data) if data else None
    out.mkdir(parents=True, exist_ok=True)
    tuning = simulated_fields(range(4), TUNING_SEED, shape)
    if not tuning:
        raise ValueError(f"no field of {shape} pixels could be registered; give a larger --shape")
    filters = Filters.tuned(tuning)
    cases = list(recorded_cases(pairs, networks, filters) if pairs else simulated_cases(range(fields), seed, shape, networks, filters))
    if not cases:
        raise ValueError(f"no field of {shape} pixels could be registered, so there is nothing to measure; give a larger --shape")
    measured = [measure_case(case, peak, background) for case in tqdm(cases, desc="gaps", unit="field")]
    if not any(m["measured"]["reference"].exists.any() for m in measured):
        raise ValueError("no gap between bright particles was found in the high-magnification images; without --data, simulated fields are measured")
    items = gap_items(measured, cases) | image_items(cases) | rate_items(next(iter(networks.values())))
    rows = (
        {"field": k, "gaps": len(m["gaps"]), **{n: psnr(c.reference, i) for n, i in c.images.items()}}
        for k, (c, m) in enumerate(zip(cases, measured, strict=True))
    )
    write_table(out / "fields.csv", list(rows))
    draw_gaps(out / "gaps.png", {name: joined([m["measured"][name] for m in measured]) for name in (*cases[0].images, "reference")})
    draw_spectra(out / "spectra.png", cases, PIXEL_SIZE, BAND)
    draw_field(out / "fields.png", cases[:4])
    radius, amount = filters.unsharp
    write_results(out, "sem_gan", str(weights), seed, items, notes={"tuned": [f"unsharp mask: radius {radius:g} pixels, amount {amount:g}"]})
    return items


# --- Cases ---


def load_networks(weights: str, l1_weights: str | None) -> dict:
    """Methods and their (network, config): the weights to measure, and the same network trained on L1 alone.

    Where none is named, that is the shipped one, for weights of the same configuration and training data.
    """
    sem_gan = paper("sem_gan")
    network = load_network(sem_gan, weights)
    if without_adversary(network[1]):
        return {L1_ONLY: network}
    if l1_weights is None:
        (_, ours), (_, shipped) = find_weights(sem_gan, weights), find_weights(sem_gan, "l1")
        twin = replace(load_network(sem_gan, "l1")[1], **{name: getattr(network[1], name) for name in ("warm_up", "calibration", "alpha", "beta")})
        l1_weights = "l1" if twin == network[1] and trained_on(ours) == trained_on(shipped) else None
    return {OURS: network} | ({L1_ONLY: load_network(sem_gan, l1_weights)} if l1_weights else {})


def without_adversary(config: Config) -> bool:
    """Whether a training with this configuration was on L1 alone."""
    return config.steps <= config.warm_up or config.alpha == config.beta == 0


def trained_on(description: dict) -> dict:
    """The training data that a card or a run's config.json tells of."""
    return description["training"]["data"] if "training" in description else description.get("data")


@dataclass(frozen=True, eq=False)
class Filters:
    """What was tuned on other fields: the gains of the linear filter, and (radius in pixels, amount) of the unsharp mask."""

    gains: tuple[np.ndarray, np.ndarray]
    unsharp: tuple[float, float]

    @classmethod
    def tuned(cls, fields: list) -> Filters:
        """The linear filter with the least squared error, and the unsharp mask that leaves the fewest gaps of the reference undetected."""
        gaps = [candidate_gaps(particles(high, PIXEL_SIZE), PIXEL_SIZE) for _, high in fields]
        there = [measure(high, g, PIXEL_SIZE).exists for (_, high), g in zip(fields, gaps, strict=True)]

        def undetected(unsharp: tuple[float, float]) -> float:
            found = [measure(sharpened(low, *unsharp), g, PIXEL_SIZE).exists[e] for (low, _), g, e in zip(fields, gaps, there, strict=True)]
            return float(np.mean(~np.concatenate(found)))

        return cls(wiener_gains(fields), min(itertools.product((1.0, 2.0, 3.0), (0.25, 0.5, 1.0, 1.5)), key=undetected))


def sharpened(image: np.ndarray, radius: float, amount: float) -> np.ndarray:
    """Unsharp mask: image + amount (image - its Gaussian blur of that radius)."""
    return image + np.float32(amount) * (image - cv2.GaussianBlur(image, (0, 0), radius))


def upsampled_and_restored(low: np.ndarray, upsampled: np.ndarray, networks: dict, filters: Filters) -> dict[str, np.ndarray]:
    """Every method's image of one scan, on the scale of its network input."""
    state = grey_state(low)
    images = {"bicubic": bicubic(to_unit_range(low.astype(np.float32), state), SCALE), INPUT: upsampled}
    images |= {LINEAR: filtered(upsampled, *filters.gains), SHARPENED: sharpened(upsampled, *filters.unsharp)}
    restored = {name: restore_array(low, paper("sem_gan"), *network, dtype=low.dtype) for name, network in networks.items()}
    return images | {name: to_unit_range(image, state) for name, image in restored.items()}


def simulated_cases(numbers, seed: int, shape: tuple[int, int], networks: dict, filters: Filters):
    """Fields of seeds that no training draws, scanned twice and registered; those whose registration is rejected are skipped, with a warning."""
    for k in tqdm(numbers, desc="fields", unit="field"):
        truth, low, pair = registered_field((TEST_SEED + seed, k), shape)
        if not pair.report["accepted"]:
            continue
        upsampled, reference = as_field(pair.low, pair.high)
        corner = tuple(SCALE * n for n in pair.report["low_crop"][:2])
        gaps = true_gaps(truth, low, SCALE, corner, pair.high.shape)
        yield Case(pair.low, upsampled_and_restored(pair.low, upsampled, networks, filters), reference, gaps[gaps.edge <= 0])


def recorded_cases(pairs: list[tuple[np.ndarray, np.ndarray]], networks: dict, filters: Filters):
    """A user's registered pairs; which particles touch is not known there."""
    for low, high in pairs:
        upsampled, reference = as_field(low, high)
        yield Case(low, upsampled_and_restored(low, upsampled, networks, filters), reference, None)


# --- Figures 2 and 3: gaps and particles ---


def measure_case(case: Case, peak: str = "smaller", background: bool = False) -> dict:
    """The gaps of one field, found in the reference and measured in every image at the same places; false gaps and invented particles."""
    found = particles(case.reference, PIXEL_SIZE)
    gaps = candidate_gaps(found, PIXEL_SIZE)
    images = case.images | {"reference": case.reference}
    measured = {name: measure(image, gaps, PIXEL_SIZE, peak, background) for name, image in images.items()}
    touching = {name: measure(image, case.touching, PIXEL_SIZE, peak, background) for name, image in images.items()} if case.touching else None
    compared = {name: compare_particles(particles(image, PIXEL_SIZE), found) for name, image in images.items()}
    return {"gaps": gaps, "measured": measured, "touching": touching, "particles": compared}


def gap_items(cases: list[dict], fields: list[Case]) -> dict:
    """The numbers of Fig. 3 for every method, the input's as baseline; false gaps at touching pairs; invented and lost particles per 1,000.

    Intervals resample fields. What no image shows (a width where no gap is resolved) is no item. The paper's numbers stand beside simulated fields only.
    """
    names, items, simulated = list(fields[0].images), {}, fields[0].touching is not None

    def together(name: str, kind: str = "measured") -> Measured:
        return joined([case[kind][name] for case in cases])

    def add(key: str, unit: str, scale: float, found: dict[str, dict], published: dict) -> None:
        for name, value in found.items():
            if value["n"]:
                before = scale * found[INPUT]["value"] if found[INPUT]["n"] else None
                interval = [scale * n for n in value["interval"]]
                items[f"{key}: {name}"] = item(scale * value["value"], unit, before, published.get(name), value["n"], interval)

    which = np.repeat(np.arange(len(cases)), [len(case["gaps"]) for case in cases])
    found = {name: statistics(together(name), together("reference"), which) for name in names}
    for key, unit, scale in (("undetected", "%", 100), ("difference", "nm", 1), ("bias", "nm", 1)):
        told = {INPUT: PUBLISHED.get(f"{key}, input"), OURS: PUBLISHED.get(key)} if simulated else {}
        add(f"gaps {key}", unit, scale, {name: found[name][key] for name in names}, told)
    for name in names:
        if widths := found[name]["gaussian"]:
            items[f"gaps width: {name}"] = item(widths["mean"], "nm", found[INPUT]["gaussian"].get("mean"), sigma=widths["sigma"])
    for key in ("hallucinated", "lost"):
        counts = {name: np.array([case["particles"][name][key] for case in cases]) for name in names}
        shares = {
            name: {"n": int(of.sum())} | ({"value": count.sum() / of.sum(), "interval": ratio_interval(count, of)} if of.all() else {"n": 0})
            for name, (count, of) in ((name, each.T) for name, each in counts.items())
        }
        add(f"particles {key} per 1000", "", 1000, shares, {})
    if simulated and sum(len(case.touching) for case in fields):
        touching = Gaps(*(np.concatenate([getattr(case.touching, part) for case in fields]) for part in ("first", "second", "radii", "edge")))
        which = np.repeat(np.arange(len(fields)), [len(case.touching) for case in fields])
        false = {name: false_gaps(together(name, "touching"), touching, which) for name in (*names, "reference")}
        add("false gaps between touching particles", "%", 100, false, {})
    return items


# --- Figure 4: spectra; fidelity; rate ---


def image_items(cases: list[Case]) -> dict:
    """Spectral distance and ring correlation in the band that only the high magnification records, PSNR and SSIM, means over fields."""
    scores = {
        "spectral distance, 0.035 to 0.070 cycles/nm": ("log10", lambda image, truth: spectral_distance(image, truth, PIXEL_SIZE, *BAND)),
        "spectral distance below 0.035 cycles/nm": ("log10", lambda image, truth: spectral_distance(image, truth, PIXEL_SIZE, 0.002, BAND[0])),
        "ring correlation, 0.035 to 0.070 cycles/nm": ("", band_correlation),
        "frequency at which the ring correlation falls below 1/7": ("cycles/nm", lambda image, truth: resolution(*ring_correlation(image, truth, PIXEL_SIZE))),
        "PSNR": ("dB", lambda image, truth: psnr(truth, image)),
        "SSIM": ("", lambda image, truth: ssim(truth, image)),
    }
    items = {}
    for score, (unit, measured) in scores.items():
        values = {name: [measured(case.images[name], case.reference) for case in cases] for name in cases[0].images}
        for name, found in values.items():
            items[f"{score}: {name}"] = item(float(np.mean(found)), unit, float(np.mean(values[INPUT])), n=len(found), interval=bootstrap_interval(found))
    return items


def band_correlation(image: np.ndarray, truth: np.ndarray) -> float:
    """Mean Fourier ring correlation between the Nyquist frequencies of the two magnifications."""
    frequency, correlation = ring_correlation(image, truth, PIXEL_SIZE)
    return float(correlation[(frequency >= BAND[0]) & (frequency <= BAND[1])].mean())


def rate_items(network, side: int = 780, repeats: int = 5) -> dict:
    """Restored images of 780 x 780 pixels per second, median after a warm-up; the microscope's time for the same field at both magnifications, and its dose."""
    run, image = compiled(paper("sem_gan"), network[0]), np.random.default_rng(0).integers(0, 256, (1, side // 2, side // 2, 1)).astype(np.float32)
    state = np.array([0, 255], np.float32).reshape(1, 1, 1, 2)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run(image, state).numpy()
        seconds.append(time.perf_counter() - began)
    took, scan = averages.median(seconds[1:]), (side // 2) ** 2 * DWELL
    return {
        "inference rate at 780 x 780": item(1 / took, "images/s", published=PUBLISHED["rate"], n=repeats),
        "acquisition time of that field at low magnification over inference time": item(scan / took, "", published=16.0),
        "acquisition time and dose, high over low magnification": item(float(SCALE**2), "", published=4.0),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["evaluate", "sem_gan", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
