"""What the SSUM CycleGAN's evaluation tries beside scores: disturbed optical images, and tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from common.data import example_rng
from common.evaluation import item
from common.metrics import bootstrap_interval
from common.papers import paper
from common.restoring import restore_array

from .data import unit
from .disturbances import DISTURBANCES
from .measures import affine_fit, psnr, scores
from .simulator import simulate_pair


def disturbance_items(pairs: Sequence[tuple[np.ndarray, np.ndarray]], restore: Callable, seed: int) -> tuple[dict, list[dict]]:
    """How much PSNR and EPI, aligned and fitted, fall where optical images of pairs (optical, SEM) are disturbed; items, and a table of both scores."""
    plain = [scores(sem, restore(optical)) for optical, sem in pairs]
    items, rows = {}, []
    for name, disturb in DISTURBANCES.items():
        seen = []
        for k, (optical, sem) in enumerate(pairs):
            disturbed, moved = disturb(optical, sem, example_rng(seed, k, name))
            seen.append(scores(moved, restore(unit(disturbed))))
        falls = {score: np.array([now[score] - before[score] for now, before in zip(seen, plain, strict=True)]) for score in ("psnr_aligned", "epi_aligned")}
        rows.append({"disturbance": name} | {score: round(float(values.mean()), 4) for score, values in falls.items()})
        values = falls["psnr_aligned"]
        items[f"disturbed, {name}: change of PSNR, aligned and fitted"] = item(float(values.mean()), "dB", 0.0, None, len(values), bootstrap_interval(values))
    return items, rows


def tile_items(network, config, seed: int, count: int, side: int = 2048) -> dict:
    """Chips restored in nine overlapping tiles, as large images are, against the whole: with instance normalisation each has a normalisation of its own."""
    differences, falls = [], []
    for k in range(count):
        pair = simulate_pair((seed, k, *b"tiles"), (side, side), config.pixel_size)
        whole, tiled = (restore_array(unit(pair.optical), paper("ssum_cyclegan"), network, config, tile=tile) for tile in (side, side // 2))
        differences.append(np.abs(tiled - whole))
        falls.append(float(np.diff([psnr(pair.sem_clean, affine_fit(pair.sem_clean, image)) for image in (whole, tiled)])[0]))
    name = "tiles against the whole: "
    return {
        name + "mean difference": item(float(np.mean(differences)), "of the range", 0.0, None, count),
        name + "largest difference": item(float(np.max(differences)), "of the range", 0.0, None, count),
        name + "change of PSNR, fitted": item(float(np.mean(falls)), "dB", 0.0, None, count),
    }
