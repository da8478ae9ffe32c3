"""Trust maps: how much each restored pixel is to be doubted, in the image's own units. Bright means: do not believe it.

A ranking, no error bar: what left no trace in the input raises no doubt, and true errors are several times larger.

Three questions are asked of a restoration, and none needs the truth:
- Would another acquisition have given the same? Noise like the image's own is added once more, and the result must not change much.
- Would the same specimen, mounted the other way round, have given the same? Mirrored by the symmetries that the physics of the acquisition allows.
- Could the microscope have recorded the input if the restoration were true? What no acquisition explains is doubt, even where the network never wavers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np

from .data import example_rng
from .papers import Paper

DRAWS = 6  # second looks at each tile; a few more or less hardly change the ranking of pixels
NOISE = 0.5  # of the image's own noise is added in each; all of it ranks pixels a little less well
SPREAD_WIDTH = 2.0  # output pixels over which squared deviations are averaged: six draws alone are grainy
RESIDUAL_WIDTH = 1.5  # input pixels over which the residual must agree with itself to count as structure
SIGNIFICANT = 4.0  # standard deviations of that averaged residual which noise may reach
PROBE = 256  # input pixels: side of the part in which noise is looked at, or less where that restores to more than a tile

FLIPS = {"flip_rows": lambda a: a[::-1], "flip_columns": lambda a: a[:, ::-1], "transpose": lambda a: a.T}


@dataclass(frozen=True)
class Probe:
    """What the acquisition looks like in one image. noise: (n, m) float32, a piece of its noise; floor: what a smoothed residual may reach by noise alone."""

    noise: np.ndarray
    floor: float


def group(symmetries: tuple[str, ...]) -> list[tuple[Callable, Callable]]:
    """All different products of the named flips, each with its inverse; the identity first."""
    found = []
    for count in range(len(symmetries) + 1):
        for names in combinations(symmetries, count):
            found.append((_chain([FLIPS[n] for n in names]), _chain([FLIPS[n] for n in reversed(names)])))
    return found


def _chain(functions: list[Callable]) -> Callable:
    def apply(array):
        for function in functions:
            array = function(array)
        return array

    return apply


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def probe(part: np.ndarray, restored: np.ndarray, paper: Paper) -> Probe:
    """Noise of an image from one part of it, (height, width) raw intensities, and its restoration: what the best-fitting acquisition leaves over."""
    residuals = part - paper.acquire(restored)
    floor = SIGNIFICANT * float(np.median(np.abs(_agreeing(residuals)))) / 0.6745
    noise = residuals[np.argmin((residuals**2).mean((1, 2)))]
    structure = blur(noise, RESIDUAL_WIDTH)
    noise = noise - np.where(np.abs(structure) > floor, structure, 0)  # it would be seen again wherever the noise is put
    return Probe(noise - noise.mean(), floor)


def _agreeing(residuals: np.ndarray) -> np.ndarray:
    """Per pixel the smallest locally averaged residual among those of all allowed acquisitions, (n, height, width) -> (height, width)."""
    smooth = np.stack([blur(r, RESIDUAL_WIDTH) for r in residuals])
    return np.take_along_axis(smooth, np.abs(smooth).argmin(0)[None], 0)[0]


def doubt(part: np.ndarray, restored: np.ndarray, rows: slice, columns: slice, run: Callable, look: Probe, paper: Paper) -> np.ndarray:
    """The trust map of one tile, float32 in the image's units, of the size of `restored`.

    part: (height, width) raw intensities; restored: run(part), `paper.scale` times as large. rows, columns: where the tile lies in the image, so that
    neighbouring tiles get the same noise. sqrt(spread^2 + excess^2): spread is the root mean square change over DRAWS second looks, excess is the part of
    the residual beyond what noise may reach.
    """
    symmetries, squares = group(paper.symmetries), np.zeros_like(restored)
    for draw in range(DRAWS):
        rng = example_rng(0, draw, "trust")
        dy, dx = (int(rng.integers(n)) for n in look.noise.shape)
        size = np.float32(NOISE * rng.choice((-1, 1)))
        indices = [
            (np.arange(s.start, s.start + n) + shift) % m for s, n, shift, m in zip((rows, columns), part.shape, (dy, dx), look.noise.shape, strict=True)
        ]
        forward, backward = symmetries[draw % len(symmetries)]
        again = backward(run(np.ascontiguousarray(forward(part + size * look.noise[np.ix_(*indices)]))))
        squares += (again - restored) ** 2 / DRAWS
    excess = np.maximum(np.abs(_agreeing(part - paper.acquire(restored))) - look.floor, 0)
    excess = cv2.resize(excess, restored.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.sqrt(blur(squares, SPREAD_WIDTH) + excess**2).astype(np.float32)
