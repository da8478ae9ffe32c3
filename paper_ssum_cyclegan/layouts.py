"""Random Manhattan layouts of one raised metal level, drawn with their true line widths and pitches.

Every kind of structure is a list of rectangles (top, left, bottom, right) in pixels, painted by the exact share of each pixel's area. Lithography rounds what
is painted: blurred with a Gaussian and cut at one half, which leaves straight edges where they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.special import ndtri

from common.specimens.base import coverage, fractal_noise, gradient, log_uniform

WIDTHS = 80.0, 400.0  # nm, the narrowest is what the superlens resolves
PITCHES = 1.6, 3.0  # in line widths
STRAIGHT = 20  # pixels that a line listed for metrology runs straight on both sides of its place
_MARGIN = STRAIGHT + 12  # pixels of canvas beyond the frame: room for a rotation and for lines that leave the frame


@dataclass(frozen=True, eq=False)
class Layout:
    """One level of a chip, seen from above.

    mask  (height, width) float32 in [0, 1], the share of each pixel covered by raised metal;  pixel_size  nm
    lines  (n, 5) float, places where a line runs straight for `STRAIGHT` pixels both ways and nothing touches it: row and column of its centre in pixels, its
        width in nm, its pitch in nm (nan unless equal lines run at that distance on both sides), 1 where it is vertical. Widths are as drawn: roughness
        moves the mean over the straight piece by about 1 nm.
    parameters  what was drawn, lengths in nm, angles in degrees
    """

    mask: np.ndarray
    pixel_size: float
    lines: np.ndarray
    parameters: dict = field(default_factory=dict)


def _covered(count: int, start: float, stop: float) -> np.ndarray:
    """Share of each of `count` unit intervals between `start` and `stop`."""
    edges = np.clip(np.arange(count + 1.0), start, stop)
    return np.diff(edges)


def paint(canvas: np.ndarray, rectangles, erase: bool = False) -> None:
    """Paint rectangles (top, left, bottom, right), in pixels from the canvas's corner, by exact area; or erase them. In place, clipped at the canvas."""
    for top, left, bottom, right in rectangles:
        y0, y1 = max(int(top), 0), min(int(np.ceil(bottom)), canvas.shape[0])
        x0, x1 = max(int(left), 0), min(int(np.ceil(right)), canvas.shape[1])
        if y1 > y0 and x1 > x0:
            share = np.outer(_covered(y1 - y0, top - y0, bottom - y0), _covered(x1 - x0, left - x0, right - x0))
            window = canvas[y0:y1, x0:x1]
            if erase:
                window *= 1 - share
            else:
                np.maximum(window, share, out=window)


# --- Kinds of structure: (rng, height, width of the block, line width, pitch in pixels) -> rectangles, rectangles to erase ---


def _routes(rng: np.random.Generator, rows: int, columns: int, straight: float, filled: float) -> list[tuple[int, int, int, int]]:
    """Nets on a grid of tracks that never touch, mostly along the rows: straight runs (row, column, row, column) of grid points.

    straight: mean length of a run along the rows, in tracks. filled: share of the grid where a net may start.
    """
    free = np.ones((rows + 2, columns + 2), bool)
    free[[0, -1]] = free[:, [0, -1]] = False
    runs = []
    starts = rng.permutation(rows * columns)[: int(filled * rows * columns)]
    turns = rng.random((len(starts), 2))
    for start, (turn, along) in zip(starts, turns, strict=True):
        row, column = start // columns + 1, start % columns + 1
        if not free[row, column]:
            continue
        free[row, column] = False
        step = (0, 1 if turn < 0.5 else -1)
        for length in rng.geometric(1 / straight, 1 + int(4 * along**2)):
            steps, first = (length if step[0] == 0 else 1 + length % 4), (row, column)
            for _ in range(steps):
                if not free[row + step[0], column + step[1]]:
                    break
                row, column = row + step[0], column + step[1]
                free[row, column] = False
            if (row, column) == first:
                break
            runs.append((first[0] - 1, first[1] - 1, row - 1, column - 1))
            step = (step[1], step[0]) if length % 2 else (-step[1], -step[0])
    return runs


def _wires(runs, width: float, pitch: float) -> list[tuple[float, float, float, float]]:
    """Rectangles of runs between grid points, the first grid point half a pitch from the corner."""
    low, high = (pitch - width) / 2, (pitch + width) / 2
    return [(min(a, c) * pitch + low, min(b, d) * pitch + low, max(a, c) * pitch + high, max(b, d) * pitch + high) for a, b, c, d in runs]


def _wiring(rng, height, breadth, width, pitch):
    """Routed wires with jogs and gaps."""
    runs = _routes(rng, int(height / pitch), int(breadth / pitch), log_uniform(rng, 5, 40), rng.uniform(0.15, 1))
    return _wires(runs, width, pitch), []


def _grating(rng, height, breadth, width, pitch):
    """Lines and spaces, perhaps cut once across all lines, in step or staggered."""
    lefts = np.arange((pitch - width) / 2, breadth - width, pitch)
    ends = np.tile([0.0, height], (len(lefts), 1))
    cut = rng.uniform(0.2, 0.8) * height + (np.arange(len(lefts)) % 2) * pitch * rng.choice([0, 0, 2])
    gap = max(pitch - width, 2.0) * rng.uniform(1, 2.5)
    if rng.random() < 0.4:
        ends = np.vstack((np.stack((ends[:, 0], cut), 1), np.stack((cut + gap, ends[:, 1]), 1)))
        lefts = np.tile(lefts, 2)
    return [(top, left, bottom, left + width) for (top, bottom), left in zip(ends, lefts, strict=True)], []


def _cells(rng, height, breadth, width, pitch):
    """Rows of standard cells from a small library, alternate rows mirrored, wide supply rails between them."""
    rail = width * rng.uniform(1.4, 2.5)
    clear = (rail + pitch - width) / 2  # the outermost tracks keep their space from the rails' centres
    rows = max(round(height / (rng.integers(6, 11) * pitch + 2 * clear)), 1)
    period = (height - rail) / rows
    tracks = int((period - 2 * clear) / pitch)
    library = []
    for columns in rng.integers(3, 9, int(rng.integers(4, 8))):
        runs = [(b, a, d, c) for a, b, c, d in _routes(rng, columns, tracks, 3, rng.uniform(0.3, 0.9))]
        library.append((columns * pitch, _wires(runs, width, pitch)))
    rectangles = [(row * period, 0, row * period + rail, breadth) for row in range(rows + 1)]
    for row in range(rows):
        x, low, high = 0.0, row * period + rail / 2 + clear, row * period + rail / 2 + clear + tracks * pitch
        while x < breadth:
            length, cell = library[rng.integers(len(library))]
            if x + length <= breadth and rng.random() < 0.93:
                rectangles += [(high - c, x + b, high - a, x + d) if row % 2 else (low + a, x + b, low + c, x + d) for a, b, c, d in cell]
            x += length
    return rectangles, []


def _contacts(rng, height, breadth, width, pitch):
    """Vias as square studs, or contact holes in a plate, on a square or staggered lattice, some missing."""
    pitch, missing, stagger = max(pitch, 2 * width), rng.choice([0, 0.05, 0.4]), rng.choice([0.0, 0.5])
    squares = []
    for row in range(int(height / pitch)):
        for column in np.flatnonzero(rng.random(int(breadth / pitch - stagger)) >= missing):
            y, x = (row + 0.5) * pitch - width / 2, (column + 0.5 + stagger * (row % 2)) * pitch - width / 2
            squares.append((y, x, y + width, x + width))
    return (squares, []) if rng.random() < 0.6 else ([(0, 0, height, breadth)], squares)


def _pads(rng, height, breadth, width, pitch):
    """Pads in a row or two, each with a bundle of leads that end at different lengths; some pads are slotted."""
    rectangles, holes, leads = [], [], int(rng.integers(2, 6))
    side = min(max(leads * pitch, 4 * width) * rng.uniform(1, 1.6), height / 2, breadth)
    rows, columns = max(int(height / (2.2 * side)), 1), max(int(breadth / (side + pitch * rng.uniform(1, 3))), 1)
    for top in np.arange(rows) * height / rows:
        for left in np.arange(columns) * breadth / columns:
            rectangles.append((top, left, top + side, left + side))
            if rng.random() < 0.4:
                holes += [(top + 2 * width, left + x, top + side - 2 * width, left + x + width) for x in np.arange(2 * width, side - 3 * width, 3 * width)]
            for x in left + (np.arange(leads) + 0.5) * side / leads - width / 2:
                rectangles.append((top + side - 1, x, top + side + (height / rows - side) * rng.uniform(0.3, 0.9), x + width))
    return rectangles, holes


KINDS = {"wiring": _wiring, "grating": _grating, "cells": _cells, "contacts": _contacts, "pads": _pads}

# --- Putting them together ---


def _blocks(rng: np.random.Generator, top: int, left: int, bottom: int, right: int, smallest: int) -> list[tuple[int, int, int, int]]:
    """Cut a rectangle of pixels at random, down to blocks whose sides are at least `smallest`."""
    longest = max(bottom - top, right - left)
    if longest < 2.2 * smallest or rng.random() < 0.15:
        return [(top, left, bottom, right)]
    cut = int(longest * rng.uniform(0.3, 0.7))
    if bottom - top >= right - left:
        return _blocks(rng, top, left, top + cut, right, smallest) + _blocks(rng, top + cut, left, bottom, right, smallest)
    return _blocks(rng, top, left, bottom, left + cut, smallest) + _blocks(rng, top, left + cut, bottom, right, smallest)


def _is_line(across: np.ndarray, place: float, width: float, distances, clear: float) -> bool:
    """Whether a piece of canvas, its first axis along the line, shows nothing within `clear` pixels of the outermost of the equal lines at these distances."""
    low, high = place + min(distances) - width / 2 - clear, place + max(distances) + width / 2 + clear
    if low < 0 or high > across.shape[1]:
        return False
    start, stop = int(low), int(np.ceil(high))
    expected = sum(_covered(stop - start, place + at - width / 2 - start, place + at + width / 2 - start) for at in distances)
    inner = np.s_[1:-1]  # the outermost pixels are only in part within the limits
    return bool(np.abs(across[:, start:stop] - expected)[:, inner].max() < 1e-3)


def _straight_lines(canvas: np.ndarray, rectangles: np.ndarray, pitches: np.ndarray, pixel_size: float) -> np.ndarray:
    """Lines as in `Layout`, on the canvas: every 40 pixels along each rectangle that is long and narrow enough and touched by nothing there."""
    lines = []
    for (top, left, bottom, right), pitch in zip(rectangles, pitches, strict=True):
        vertical = bottom - top > right - left
        start, stop, edge, width = (top, bottom, left, right - left) if vertical else (left, right, top, bottom - top)
        if width > 1.5 * WIDTHS[1] / pixel_size or width * pixel_size < WIDTHS[0] - 1e-6:
            continue
        along, middle = (canvas if vertical else canvas.T), edge + width / 2
        start, stop = max(start, 0), min(stop, along.shape[0])
        for place in np.arange(start + STRAIGHT + 4, stop - STRAIGHT - 4, 2 * STRAIGHT):
            piece = along[int(place) - STRAIGHT - 1 : int(place) + STRAIGHT + 2]
            if not _is_line(piece, middle, width, [0], 2 + 0.2 * width):
                continue
            repeated = _is_line(piece, middle, width, [-pitch, 0, pitch], 1.5)
            row, column = (place, middle) if vertical else (middle, place)
            lines.append((row - 0.5, column - 0.5, width * pixel_size, pitch * pixel_size if repeated else np.nan, vertical))
    return np.array(lines, float).reshape(-1, 5)


def _roughen(rng: np.random.Generator, distance: np.ndarray, pixel_size: float) -> dict:
    """Rough edges, in place; returns their deviation and correlation length in nm."""
    roughness, length = rng.uniform(1.5, 5), log_uniform(rng, 60, 250)
    noise = fractal_noise(rng, distance.shape, 2.0, smallest=max(60 / pixel_size, 3), largest=max(2 * length / pixel_size, 8))
    distance += np.float32(roughness / pixel_size) * noise
    return {"edge_roughness": float(roughness), "roughness_length": float(length)}


def _checked(shape: tuple[int, int], pixel_size: float) -> None:
    if len(shape) != 2 or min(shape) < 32:
        raise ValueError(f"a layout needs at least 32 x 32 pixels, got shape {tuple(shape)}")
    if not 5 <= pixel_size <= 30:
        raise ValueError(f"lines of 80 nm need pixels of 5 to 30 nm, got {pixel_size}")


def draw_layout(seed, shape: tuple[int, int] = (512, 512), pixel_size: float = 20.0) -> Layout:
    """A random layout of blocks, each of one kind (`KINDS`), line width (80 to 400 nm, log-uniform) and pitch (1.6 to 3 widths).

    seed: int or sequence of ints. pixel_size: nm, 5 to 30. Corners are rounded by lithography, edges rough with a deviation of 1.5 to 5 nm; half of the
    layouts are rotated, by up to 1 degree.
    ValueError for a frame below 32 pixels or another pixel size.
    """
    _checked(shape, pixel_size)
    rng = np.random.default_rng(seed)
    size = tuple(n + 2 * _MARGIN for n in shape)
    canvas, distance = np.zeros(size), np.full(size, 3.0, np.float32)
    rectangles, pitches, blocks = [np.zeros((0, 4))], [np.zeros(0)], []
    for block in _blocks(rng, 0, 0, *size, smallest=120):
        top, left, bottom, right = block
        kind = str(rng.choice(list(KINDS), p=(0.36, 0.22, 0.22, 0.11, 0.09)))
        longest = max(WIDTHS[0], min(WIDTHS[1], min(bottom - top, right - left) * pixel_size / 10))
        width = float(log_uniform(rng, WIDTHS[0], longest)) / pixel_size
        pitch, turned = width * rng.uniform(*PITCHES), rng.random() < 0.5
        border = max(pitch - width, 3.0)
        inner = np.array((bottom - top, right - left)) - 2 * border
        drawn, holes = (np.array(each, float).reshape(-1, 4) for each in KINDS[kind](rng, *(inner[::-1] if turned else inner), width, pitch))
        drawn, holes = ((each[:, [1, 0, 3, 2]] if turned else each) + border for each in (drawn, holes))
        view = canvas[top:bottom, left:right]
        paint(view, drawn)
        paint(view, holes, erase=True)
        blur = max(min(width, pitch - width) * rng.uniform(0.12, 0.28), 0.6)
        aerial = np.clip(cv2.GaussianBlur(view, (0, 0), blur), 1e-4, 1 - 1e-4)
        distance[top:bottom, left:right] = -np.hypot(blur, 12**-0.5) * ndtri(aerial)  # exact next to a straight edge, a pixel being a box of variance 1/12
        rectangles.append(drawn + (top, left, top, left))
        pitches.append(np.full(len(drawn), pitch))
        blocks.append({"kind": kind, "line_width": width * pixel_size, "pitch": pitch * pixel_size, "corner_blur": blur * pixel_size})

    angle = float(rng.choice([0.0, rng.uniform(-1, 1)]))
    turn = cv2.getRotationMatrix2D(((size[1] - 1) / 2, (size[0] - 1) / 2), angle, 1.0)
    turn[:, 2] -= _MARGIN
    distance = cv2.warpAffine(distance, turn, shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    roughness = _roughen(rng, distance, pixel_size)

    lines = _straight_lines(canvas, np.concatenate(rectangles), np.concatenate(pitches), pixel_size)
    lines[:, :2] = (np.column_stack((lines[:, 1::-1], np.ones(len(lines)))) @ turn.T)[:, ::-1]
    across = lines[:, 2] / 2 / pixel_size + 2
    margin = np.where(lines[:, 4:] > 0, np.column_stack((across * 0 + STRAIGHT, across)), np.column_stack((across, across * 0 + STRAIGHT)))
    inside = np.all((lines[:, :2] >= margin) & (lines[:, :2] <= np.array(shape) - 1 - margin), axis=1)
    parameters = {"blocks": blocks, "angle": angle} | roughness
    return Layout(coverage(distance), float(pixel_size), lines[inside], parameters)


# --- Kinds that no training draws: (rng, rows and columns of all pixels, line width, pitch in pixels) -> signed distance in pixels, negative on the metal ---


def _polar(rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radius and angle about a random place of the frame."""
    y, x = y - rng.uniform(0, y.shape[0]), x - rng.uniform(0, x.shape[1])
    return np.hypot(y, x), np.arctan2(y, x)


def _rings(rng, y, x, width, pitch):
    """Concentric rings."""
    radius, _ = _polar(rng, y, x)
    return np.abs(radius % pitch - pitch / 2) - width / 2


def _spokes(rng, y, x, width, pitch):
    """A star whose spokes start from a disc, where they have that width and pitch, and are three times as wide in the frame's farthest corner."""
    radius, angle = _polar(rng, y, x)
    disc = radius.max() / 3
    turn = 2 * np.pi / round(2 * np.pi * disc / pitch)
    off = np.abs(angle % turn - turn / 2)
    return np.minimum(radius * (off - turn * width / pitch / 2), radius - disc)


def _labyrinth(rng, y, x, width, pitch):
    """Winding lines without a direction."""
    noise = fractal_noise(rng, y.shape, 0.0, smallest=0.85 * pitch, largest=1.2 * pitch)
    steepness = np.hypot(*gradient(noise))
    return (np.quantile(noise, 1 - width / pitch) - noise) / np.maximum(steepness, 0.3 * steepness.mean())


CURVES = {"rings": _rings, "spokes": _spokes, "labyrinth": _labyrinth}


def draw_curves(seed, shape: tuple[int, int] = (512, 512), pixel_size: float = 20.0) -> Layout:
    """A layout of one of `CURVES`, which no training draws, its widths, pitches and roughness those of `draw_layout`; what a network makes of it is what it
    takes for granted. None of its lines is listed. Arguments and errors as in `draw_layout`.
    """
    _checked(shape, pixel_size)
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(list(CURVES)))
    width = float(log_uniform(rng, *WIDTHS)) / pixel_size
    pitch = width * rng.uniform(*PITCHES)
    distance = np.float32(CURVES[kind](rng, *np.indices(shape, dtype=np.float32), width, pitch))
    parameters = {"kind": kind, "line_width": width * pixel_size, "pitch": pitch * pixel_size} | _roughen(rng, distance, pixel_size)
    return Layout(coverage(distance), float(pixel_size), np.empty((0, 5)), parameters)
