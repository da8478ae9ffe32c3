"""What the SSUM CycleGAN is measured on: simulated chips with their true lines, and the user's registered pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data import intensity_range, to_unit_range

from .config import Config
from .data import FolderPairs, unit
from .layouts import draw_layout
from .simulator import simulate_pair

SIDE = 512  # pixels of simulated chips


@dataclass(frozen=True, eq=False)
class Case:
    """One place: optical image and SEM image, (height, width) float32 in [0, 1], the true lines, and whether metal is dark optically, where that is known."""

    optical: np.ndarray
    sem: np.ndarray
    lines: np.ndarray
    pixel_size: float
    dark_metal: bool = False


def simulated(config: Config, stream: str, seed: int, count: int, draw: Callable = draw_layout) -> list[Case]:
    """Chips that no training draws, without misalignment, and their SEM images without noise on the grey scale of the noisy ones: the truth must be true."""
    cases = []
    for k in range(count):
        pair = simulate_pair((seed, k, *stream.encode()), (SIDE, SIDE), config.pixel_size, draw=draw)
        range_ = np.asarray(intensity_range(pair.sem[None, ..., None]))[0, 0]
        truth = np.clip(to_unit_range(pair.sem_clean, range_), 0, 1)
        dark = pair.parameters["optical"]["contrast"] < 0
        cases.append(Case(unit(pair.optical), truth, pair.layout.lines, pair.layout.pixel_size, dark))
    return cases


def recorded_cases(folder: Path) -> list[Case]:
    """The registered pairs of a folder, whose lines are not known. ValueError, with the file's name, for one that nothing can be measured on."""
    pairs = FolderPairs(folder, 64)
    for files, images in zip(pairs.files, pairs, strict=True):
        for file, image in zip(files, images, strict=True):
            if image.min() == image.max():
                raise ValueError(f"{file} is blank, so nothing can be measured on it; take the pair out of the folder")
    return [Case(optical, sem, np.empty((0, 5)), np.nan) for optical, sem in pairs]
