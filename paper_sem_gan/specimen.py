"""The specimen of the paper's images, simulated: gold particles on a carbon film, as a fine probe sees them, with the truth about every gap.

Places are (row, column) in nm from the field's centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from .gaps import FURTHEST, Particles, neighbours

OVERSAMPLING = 4  # specimen pixels per high-magnification pixel
ROUND = 1.1  # radius of the circle that cuts a particle's corners, relative to the drawn radius
CELL = 4.0  # nm, grid on which free places are looked for


@dataclass(frozen=True, eq=False)
class Field:
    """A specimen as the probe sees it, without noise, and the truth about its particles.

    image      (h, w) float32, signal in [0, 1], one pixel per `grid` nm, margin included; position 0, 0 is its centre
    grid       nm per pixel of `image`
    shape      (height, width) of the high-magnification scan, in pixels of `pixel_size` nm
    centres    (n, 2) nm; radii (n,) nm, of the disc of equal area; of every particle, those in the margin too
    pairs      (m, 2) indices of neighbours; edges (m,) nm between their outlines along the line of centres, <= 0: they touch
    """

    image: np.ndarray
    grid: float
    shape: tuple[int, int]
    pixel_size: float
    centres: np.ndarray
    radii: np.ndarray
    pairs: np.ndarray
    edges: np.ndarray


@dataclass(frozen=True)
class Specimen:
    """What the specimens are made of, lengths in nm; ranges are drawn once per field.

    The paper gives the particles' sizes only. Gaps, coverage, probe and carbon are chosen so that the gap statistics of the two scans come out like its own.
    Over 12 fields 13.5 % (10 to 18 % by field) of the gaps of the high-magnification scan are undetected on the other, upsampled, and widths differ by 4.5 nm
    (paper: 13.9 % and 3.8 nm). Wider gaps or a darker carbon lower the share, a finer probe, noise or smaller particles raise the difference.
    """

    diameter: tuple[float, float] = (58.0, 78.0)  # median by number; the paper gives 5-150 nm for all
    spread: tuple[float, float] = (0.35, 0.55)  # standard deviation of the logarithm of the diameter
    coverage: tuple[float, float] = (0.6, 0.8)  # by discs, before the gaps are opened
    gap: tuple[float, float] = (7.0, 10.0)  # median between particles that grew towards each other
    gap_spread: float = 0.45  # standard deviation of its logarithm
    touching: tuple[float, float] = (0.04, 0.12)  # share of those pairs that have met
    probe: float = 3.0  # standard deviation of probe and escape depth together
    carbon: tuple[float, float] = (0.35, 0.45)  # signal of the film, gold is 1


def _texture(rng: np.random.Generator, shape: tuple[int, int], octaves: int = 8, growth: float = 1.25) -> np.ndarray:
    """Random relief of unit deviation and all wavelengths from 4 to 2^octaves pixels, the longer the stronger by `growth` per octave, (h, w) float32."""
    relief = np.zeros((1, 1), np.float32)
    for octave in range(octaves, 0, -1):
        size = tuple((n >> octave) + 2 for n in shape)
        relief = cv2.resize(relief, size[::-1], interpolation=cv2.INTER_LINEAR) + np.float32(growth**octave) * rng.standard_normal(size, np.float32)
    return cv2.resize(relief, shape[::-1], interpolation=cv2.INTER_LINEAR) / np.float32(relief.std())


def _place(rng: np.random.Generator, extent: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Random sequential addition, largest first: centres (n, 2) in nm from the corner, radii (n,) of what found room; discs may overlap by a quarter radius."""
    free = np.full(np.ceil(extent / CELL).astype(int), 1e6, np.float32)
    centres, kept = [], []
    for radius in np.sort(radii)[::-1]:
        rows, columns = rng.integers(0, free.shape[0], 64), rng.integers(0, free.shape[1], 64)
        fits = np.flatnonzero(free[rows, columns] > 0.75 * radius)
        if not len(fits):
            continue
        centre = CELL * (np.array([rows[fits[0]], columns[fits[0]]]) + rng.uniform(-0.5, 0.5, 2))
        top, left = np.maximum((centre - 2 * radius) // CELL, 0).astype(int)
        window = free[top : int((centre[0] + 2 * radius) / CELL) + 2, left : int((centre[1] + 2 * radius) / CELL) + 2]
        dy = np.arange(top, top + window.shape[0], dtype=np.float32)[:, None] * CELL - np.float32(centre[0])
        dx = np.arange(left, left + window.shape[1], dtype=np.float32)[None] * CELL - np.float32(centre[1])
        np.minimum(window, np.sqrt(dy * dy + dx * dx) - np.float32(radius), out=window)
        centres.append(centre)
        kept.append(radius)
    return np.array(centres), np.array(kept)


def _outlines(rng: np.random.Generator, centres: np.ndarray, radii: np.ndarray, made_of: Specimen) -> list[np.ndarray]:
    """Half-planes (k, 3) that bound each particle: outward normal divided by the distance from the centre (row, column, 1/nm), and that distance.

    A particle has a few crystal facets of its own; towards each neighbour it ends where the two would meet, drawn back by half of that pair's gap.
    """
    outlines = []
    for radius in radii:
        count = rng.integers(5, 9)
        angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count + rng.uniform(0, 2 * np.pi)
        distance = radius * np.clip(1 + 0.15 * rng.normal() * np.cos(2 * (angles - rng.uniform(0, np.pi))) + 0.06 * rng.normal(size=count), 0.75, 1.3)
        outlines.append([*zip(np.sin(angles), np.cos(angles), distance, strict=True)])
    pairs = cKDTree(centres).query_pairs(2.6 * float(radii.max()), output_type="ndarray")
    offset = centres[pairs[:, 1]] - centres[pairs[:, 0]]
    distance = np.hypot(*offset.T)
    first, second = radii[pairs].T
    gap = rng.uniform(*made_of.gap) * np.exp(made_of.gap_spread * rng.normal(size=len(pairs)))
    close = distance < 1.15 * (first + second) + gap
    pairs, offset, distance, first, second, gap = (x[close] for x in (pairs, offset, distance, first, second, gap))
    met = rng.random(len(pairs)) < rng.uniform(*made_of.touching)
    border = (distance**2 + first**2 - second**2) / (2 * distance)  # from the first centre, along the radical line
    smaller = np.minimum(first, second)
    gap = np.where(met, -0.15 * smaller, gap)  # grown into each other
    back_small = np.minimum(gap / 2, 0.3 * smaller)  # a small particle cannot give way as far
    back = np.where(first <= second, back_small, gap - back_small)
    normal = offset / distance[:, None]
    from_first, from_second = np.maximum(border - back, 0.4 * first), np.maximum(distance - border - (gap - back), 0.4 * second)
    for (i, j), (ny, nx), t, u in zip(pairs, normal, from_first, from_second, strict=True):
        outlines[i].append((ny, nx, t))
        outlines[j].append((-ny, -nx, u))
    planes = [np.array(o, np.float32) for o in outlines]
    return [np.column_stack([p[:, :2] / p[:, 2:], p[:, 2]])[p[:, 2] < 1.6 * r] for p, r in zip(planes, radii, strict=True)]


def _sharpness(radius: float) -> int:
    """Doublings of the exponent that rounds the corners: small particles are rounder, as diffusion rounds all over the same length."""
    return 3 if radius < 18 else 4


def _reach(planes: np.ndarray, radius: float, directions: np.ndarray) -> np.ndarray:
    """Distance in nm from the centre to the outline along unit vectors u (m, 2): (R^-p + sum_k max(0, n_k . u / d_k)^p)^(-1/p).

    The polygon of the half-planes with its corners rounded, inside a circle of R = 1.1 radius.
    """
    power = 2 ** _sharpness(radius)
    return ((np.maximum(directions @ planes[:, :2].T.astype(float), 0) ** power).sum(1) + (ROUND * radius) ** -power) ** (-1 / power)


def _gold(rng: np.random.Generator, shape: tuple[int, int], grid: float, centres: np.ndarray, radii: np.ndarray, outlines: list) -> tuple:
    """Distance to the nearest outline along its radius (pixels, negative inside) and the gold's signal there, both (h, w) float32; centres from the corner."""
    signed, signal, seam = np.full(shape, 1e3, np.float32), np.ones(shape, np.float32), np.full(shape, 1e3, np.float32)
    rim, escape = rng.uniform(0.5, 0.9), rng.uniform(4.0, 8.0) / grid
    contrast, lean = rng.uniform(0.05, 0.11), rng.uniform(0.03, 0.1)
    for centre, radius, planes in zip(centres / grid, radii, outlines, strict=True):
        far = 1.35 * radius / grid + 3
        top, left = np.maximum(centre - far, 0).astype(int)
        box = (slice(top, int(centre[0] + far) + 2), slice(left, int(centre[1] + far) + 2))
        window = signed[box]
        y = np.arange(top, top + window.shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
        x = np.arange(left, left + window.shape[1], dtype=np.float32)[None] - np.float32(centre[1])
        level = (planes[:, 0, None, None] * y + planes[:, 1, None, None] * x) * np.float32(grid)
        np.maximum(level, 0, out=level)
        for _ in range(_sharpness(radius)):
            level *= level
        distance = np.sqrt(y * y + x * x)
        level = level.sum(0) + (np.maximum(distance, 0.1) * np.float32(grid / (ROUND * radius))) ** 2 ** _sharpness(radius)
        for _ in range(_sharpness(radius)):
            level = np.sqrt(level)
        inside = distance - distance / level  # the level set is homogeneous: |position| / level is the outline in that direction
        direction = rng.uniform(0, 2 * np.pi)
        across = (np.float32(np.sin(direction)) * y + np.float32(np.cos(direction)) * x) * np.float32(grid / radius)
        tone = (0.75 + 0.25 * min(radius / 25, 1)) * (1 + contrast * np.clip(rng.normal(), -2, 2)) + lean * across
        if radius > 22 and rng.random() < 0.4:  # a twin lamella
            tone += rng.normal(0, contrast) * (np.abs(across - np.float32(rng.uniform(-0.5, 0.5))) < rng.uniform(0.1, 0.3))
        tone *= 1 + np.float32(rim) * np.exp(np.minimum(inside, 0) / np.float32(escape))
        np.minimum(seam[box], np.abs(inside - window) + 4 * np.maximum(np.maximum(inside, window), 0), out=seam[box])
        nearer = inside < window
        np.copyto(window, inside, where=nearer)
        np.copyto(signal[box], tone, where=nearer)
    # Where two particles have met, a grain boundary groove is left.
    return signed, signal * (1 - np.float32(rng.uniform(0.15, 0.35)) * np.exp(-((seam * np.float32(grid / 3)) ** 2)))


def simulate_field(seed, shape: tuple[int, int] = (884, 1024), pixel_size: float = 7.1, margin: float = 460.0, made_of: Specimen | None = None) -> Field:
    """Draw a specimen of gold particles on carbon, a pure function of the seed.

    seed: int or sequence of ints; shape: (height, width) of the high-magnification scan in pixels of pixel_size nm; margin: nm drawn around it on every side,
    for shifted, rotated and larger scans.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    made_of = made_of or Specimen()
    grid = pixel_size / OVERSAMPLING
    pixels = tuple(OVERSAMPLING * n + 2 * int(np.ceil(margin / grid)) for n in shape)
    extent = np.array(pixels) * grid
    median, spread, coverage = (rng.uniform(*limits) for limits in (made_of.diameter, made_of.spread, made_of.coverage))
    radii = np.clip(median * np.exp(spread * rng.normal(size=int(2 * extent.prod() / median**2) + 8)), 5, 150) / 2
    radii = radii[: np.searchsorted(np.cumsum(np.pi * radii**2), coverage * extent.prod()) + 1]
    centres, radii = _place(rng, extent, radii)
    outlines = _outlines(rng, centres, radii, made_of)
    signed, gold = _gold(rng, pixels, grid, centres, radii, outlines)

    texture = _texture(rng, pixels)
    share = np.clip(0.5 - signed, 0, 1)
    small = cv2.resize(share, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    enclosed = cv2.resize(cv2.GaussianBlur(small, (0, 0), rng.uniform(8, 14) / (4 * grid)), pixels[::-1], interpolation=cv2.INTER_LINEAR)
    carbon = rng.uniform(*made_of.carbon) * (1 + rng.uniform(0.06, 0.14) * texture) * (1 - rng.uniform(0.3, 0.6) * enclosed)
    signal = carbon + share * (gold * (1 + rng.uniform(0.01, 0.03) * texture) - carbon)
    image = cv2.GaussianBlur(np.clip(0.03 + 0.48 * signal, 0, 1), (0, 0), made_of.probe / grid)

    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    around = np.column_stack([np.sin(angles), np.cos(angles)])
    equal_area = np.array([np.sqrt(np.mean(_reach(p, r, around) ** 2)) for p, r in zip(outlines, radii, strict=True)])
    pairs = neighbours(Particles(centres, equal_area))
    edges = _edges(centres, radii, outlines, pairs)
    near = edges < FURTHEST
    return Field(image, grid, tuple(shape), pixel_size, centres - (extent - grid) / 2, equal_area, pairs[near], edges[near])


def _edges(centres: np.ndarray, radii: np.ndarray, outlines: list, pairs: np.ndarray) -> np.ndarray:
    """Gaps (m,) in nm between the outlines of pairs (m, 2), along the line of centres."""
    offset = centres[pairs[:, 1]] - centres[pairs[:, 0]]
    distance = np.hypot(*offset.T)
    edges = distance.copy()
    for column, sign in ((0, 1), (1, -1)):
        order = np.argsort(pairs[:, column], kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(pairs[order, column])) + 1):
            owner = pairs[rows[0], column]
            edges[rows] -= _reach(outlines[owner], radii[owner], sign * offset[rows] / distance[rows, None])
    return edges
