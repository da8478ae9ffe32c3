"""Measure SEM-GAN: `python -m paper_sem_gan.evaluate --out DIR` (the same as `empapers evaluate sem_gan`).

Simulated fields of gold on carbon that no training draws, or a folder of registered pairs: the paper's gap statistics (Fig. 3), spectra (Fig. 4),
cross-sections (Fig. 2) and inference rate, and what it does not report: false gaps, invented particles, ring correlation. Every figure also for bicubic and
Lanczos upsampling, for the best linear filter (tuned on simulated fields used for nothing else) and for the same network trained on L1 alone.
"""

from __future__ import annotations

import statistics as averages
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.classical import bicubic
from common.data import to_unit_range
from common.evaluation import item, write_results, write_table
from common.metrics import bootstrap_interval, psnr, ssim
from common.papers import paper
from common.restoring import compiled, find_weights, load_network, restore_array

from .data import SCALE, as_field, grey_state, quantised, recorded_pairs, simulated_fields
from .fields import acquire as scan_twice
from .fields import simulate_field, true_gaps
from .figures import draw_field, draw_gaps, draw_spectra
from .gaps import Gaps, Measured, candidate_gaps, compare_particles, false_gaps, measure, particles, statistics
from .registration import register
from .spectra import filtered, ring_correlation, spectral_distance, wiener_gains

TEST_SEED = 1_000_000  # of specimens that no training draws; an evaluation seed is added
TUNING_SEED = 2_000_000  # of those on which the linear filter is tuned
PIXEL_SIZE = 7.1  # nm, of the high-magnification scan
BAND = (0.0352, 0.0704)  # cycles per nm, between the Nyquist frequencies of the two magnifications
PUBLISHED = {"undetected, input": 13.9, "undetected": 3.7, "difference, input": 3.8, "difference": 2.1, "rate": 3.66}
DWELL = 30e-6  # s per pixel
INPUT, LINEAR, OURS, L1_ONLY = "Lanczos (input)", "Wiener (tuned)", "SEM-GAN", "L1 only"


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
    l1_weights: str = "l1",
) -> dict:
    """Write results.json, tables and figures into a folder; returns the items of results.json.

    Args:
        out: the folder, made if missing.
        weights: a shipped name, a .weights.h5 file or a run folder.
        seed: of the simulated fields.
        data: a folder of registered pairs (low and high inside) instead of simulated fields; pixels of the paper's size are assumed.
        fields: how many fields are simulated.
        shape: height and width of their high-magnification scans.
        l1_weights: the same network trained on L1 alone, to compare with; left out where there is none.
    """
    if min(fields, *shape) < 1:
        raise ValueError(f"fields and shape must be at least 1, got {fields} and {shape}")
    networks = load_networks(weights, l1_weights)
    gains = wiener_gains(simulated_fields(range(4), TUNING_SEED, shape))
    cases = list(recorded_cases(data, networks, gains) if data else simulated_cases(range(fields), seed, shape, networks, gains))
    measured = [measure_case(case) for case in tqdm(cases, desc="gaps", unit="field")]
    items = gap_items(measured, cases) | image_items(cases) | rate_items(next(iter(networks.values())))
    out.mkdir(parents=True, exist_ok=True)
    write_table(
        out / "fields.csv",
        [
            {"field": k, "gaps": len(m["gaps"]), **{n: psnr(c.reference, i) for n, i in c.images.items()}}
            for k, (c, m) in enumerate(zip(cases, measured, strict=True))
        ],
    )
    draw_gaps(out / "gaps.png", {name: joined(measured, name) for name in (*cases[0].images, "reference")})
    draw_spectra(out / "spectra.png", cases, PIXEL_SIZE, BAND)
    draw_field(out / "fields.png", cases[:4])
    write_results(out, "sem_gan", str(weights), seed, items)
    return items


# --- Cases ---


def load_networks(weights: str, l1_weights: str) -> dict:
    """Methods and their (network, config): the weights to measure, and the same network trained on L1 alone where it is found."""
    sem_gan = paper("sem_gan")
    network = load_network(sem_gan, weights)
    if network[1].alpha == network[1].beta == 0:
        return {L1_ONLY: network}
    try:
        find_weights(sem_gan, l1_weights)
    except FileNotFoundError:
        print(f"no weights {l1_weights!r}: the comparison with L1 alone is left out")
        return {OURS: network}
    return {OURS: network, L1_ONLY: load_network(sem_gan, l1_weights)}


def upsampled_and_restored(low: np.ndarray, upsampled: np.ndarray, networks: dict, gains) -> dict[str, np.ndarray]:
    """Every method's image of one scan, on the scale of its network input."""
    state = grey_state(low)
    images = {"bicubic": bicubic(to_unit_range(low.astype(np.float32), state), SCALE), INPUT: upsampled, LINEAR: filtered(upsampled, *gains)}
    restored = {name: restore_array(low, paper("sem_gan"), *network, dtype=low.dtype) for name, network in networks.items()}
    return images | {name: to_unit_range(image, state) for name, image in restored.items()}


def simulated_cases(numbers, seed: int, shape: tuple[int, int], networks: dict, gains):
    """Fields of seeds that no training draws, scanned twice and registered; those whose registration is rejected are skipped and told."""
    for k in tqdm(numbers, desc="fields", unit="field"):
        truth = simulate_field((TEST_SEED + seed, k), shape)
        low, high = scan_twice(truth, (TEST_SEED + seed, k))
        pair = register(quantised(low.image), quantised(high.image))
        if not pair.report["accepted"]:
            print(f"field {k} was left out: {pair.report['reason']}")
            continue
        upsampled, reference = as_field(pair.low, pair.high)
        corner = tuple(SCALE * n for n in pair.report["low_crop"][:2])
        gaps = true_gaps(truth, low, SCALE, corner, pair.high.shape)
        yield Case(pair.low, upsampled_and_restored(pair.low, upsampled, networks, gains), reference, gaps[gaps.edge <= 0])


def recorded_cases(folder: Path, networks: dict, gains):
    """A user's registered pairs; which particles touch is not known there."""
    for low, high in recorded_pairs(folder):
        upsampled, reference = as_field(low, high)
        yield Case(low, upsampled_and_restored(low, upsampled, networks, gains), reference, None)


# --- Figures 2 and 3: gaps and particles ---


def measure_case(case: Case) -> dict:
    """The gaps of one field, found in the reference and measured in every image at the same places; false gaps and invented particles."""
    found = particles(case.reference, PIXEL_SIZE)
    gaps = candidate_gaps(found, PIXEL_SIZE)
    images = case.images | {"reference": case.reference}
    measured = {name: measure(image, gaps, PIXEL_SIZE) for name, image in images.items()}
    touching = {name: measure(image, case.touching, PIXEL_SIZE) for name, image in images.items()} if case.touching else None
    compared = {name: compare_particles(particles(image, PIXEL_SIZE), found) for name, image in images.items()}
    return {"gaps": gaps, "measured": measured, "touching": touching, "particles": compared, "count": len(found.radii)}


def joined(cases: list[dict], name: str, kind: str = "measured") -> Measured:
    """One image's measurements over all fields."""
    parts = [case[kind][name] for case in cases]
    return Measured(*(np.concatenate([getattr(part, field) for part in parts]) for field in ("exists", "width_nm", "bias")))


def gap_items(cases: list[dict], fields: list[Case]) -> dict:
    """The numbers of Fig. 3 for every method, the input's as baseline; false gaps at touching pairs; invented and lost particles per 1,000."""
    names, reference = list(fields[0].images), joined(cases, "reference")
    items = {}
    found = {name: statistics(joined(cases, INPUT), joined(cases, name), reference) for name in names}
    before = found[INPUT]["output"]
    for name in names:
        after = found[name]["output"]
        for key, unit, scale in (("undetected", "%", 100), ("difference", "nm", 1), ("bias", "nm", 1)):
            value, told = after[key], PUBLISHED.get(f"{key}, input" if name == INPUT else key) if name in (INPUT, OURS) else None
            interval = [scale * n for n in value["interval"]]
            items[f"gaps {key}: {name}"] = item(scale * value["value"], unit, scale * before[key]["value"], told, value["n"], interval)
        items[f"gaps width: {name}"] = item(after["gaussian"]["mean"], "nm", before["gaussian"]["mean"], n=value["n"], sigma=after["gaussian"]["sigma"])
        for key in ("hallucinated", "lost"):
            weights = [case["count"] for case in cases]
            items[f"particles {key} per 1000: {name}"] = item(
                float(np.average([case["particles"][name][key] for case in cases], weights=weights)), n=sum(weights)
            )
    if fields[0].touching is not None:
        touching = Gaps(*(np.concatenate([getattr(case.touching, field) for case in fields]) for field in ("first", "second", "radii", "edge")))
        false = {name: false_gaps(joined(cases, name, "touching"), touching) for name in (*names, "reference")}
        for name, share in false.items():
            if share["n"]:
                interval = [100 * n for n in share["interval"]]
                items[f"false gaps between touching particles: {name}"] = item(
                    100 * share["value"], "%", 100 * false[INPUT]["value"], n=share["n"], interval=interval
                )
    return items


# --- Figure 4: spectra; fidelity; rate ---


def image_items(cases: list[Case]) -> dict:
    """Spectral distance and ring correlation in the band that only the high magnification records, PSNR and SSIM, means over fields."""
    scores = {
        "spectral distance, 0.035 to 0.070 cycles/nm": ("log10", lambda image, truth: spectral_distance(image, truth, PIXEL_SIZE, *BAND)),
        "spectral distance below 0.035 cycles/nm": ("log10", lambda image, truth: spectral_distance(image, truth, PIXEL_SIZE, 0.002, BAND[0])),
        "ring correlation, 0.035 to 0.070 cycles/nm": ("", band_correlation),
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
