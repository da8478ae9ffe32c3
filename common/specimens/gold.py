"""Gold islands evaporated on a carbon film, the usual resolution test of a scanning electron microscope, as its secondary electrons show them."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import cKDTree

from .base import Specimen, coverage, fractal_noise, gradient, log_uniform, normalise

SMALLEST_RADIUS_PIXELS = 1.1  # below this an island is a single grey pixel and cannot be counted
LARGEST_COUNT = 1700  # islands on 512 x 512 pixels, keeps the drawing time bounded


def _place(rng: np.random.Generator, frame: tuple[int, int], radii: np.ndarray, overlap: float, coverage_wanted: float) -> tuple[np.ndarray, np.ndarray]:
    """Random sequential addition, largest first: centres (n, 2) as row, column in pixels, and the radii (n,) in pixels that found room.

    overlap: share of the smaller radius by which two discs may interpenetrate before the gap between them is cut (0: discs never meet).
    """
    free = np.full(frame, 1e6, np.float32)  # distance to the nearest placed outline, exact only as far as later (smaller) islands need it
    centres, kept, covered = [], [], 0.0
    for radius in np.sort(radii)[::-1]:
        rows, columns = rng.integers(0, frame[0], 160), rng.integers(0, frame[1], 160)
        fits = np.flatnonzero(free[rows, columns] > radius * (1 - overlap))
        if not len(fits):
            continue
        row, column = rows[fits[0]], columns[fits[0]]
        reach = int(2 * radius + 4)
        top, left = max(row - reach, 0), max(column - reach, 0)
        window = free[top : row + reach + 1, left : column + reach + 1]
        dy = np.arange(top, top + window.shape[0], dtype=np.float32)[:, None] - row
        dx = np.arange(left, left + window.shape[1], dtype=np.float32)[None] - column
        np.minimum(window, np.sqrt(dy * dy + dx * dx) - radius, out=window)
        centres.append((row, column))
        kept.append(radius)
        covered += np.pi * radius**2 / (frame[0] * frame[1])
        if covered > coverage_wanted:
            break
    return np.array(centres, float).reshape(-1, 2) + rng.uniform(-0.5, 0.5, (len(kept), 2)), np.array(kept)


def _facets(rng: np.random.Generator, radius: float, irregularity: float, elongation: float) -> np.ndarray:
    """Half-planes (n, 3) bounding one island: outward normal (row, column) and distance from the centre in pixels."""
    count = rng.integers(5, 10)
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.35, 0.35, count)) / count + rng.uniform(0, 2 * np.pi)
    stretch = 1 + elongation * abs(rng.normal()) * np.cos(2 * (angles - rng.uniform(0, np.pi)))
    return np.column_stack([np.sin(angles), np.cos(angles), radius * np.clip(stretch * rng.normal(1, irregularity, count), 0.55, 1.6)])


def _cuts(rng, centres: np.ndarray, radii: np.ndarray, gap: float, spread: float, touching: float) -> list[list[tuple[float, float, float]]]:
    """Half-planes that keep each island off its neighbours: the radical line of every close pair, drawn back by half that pair's gap (pixels).

    touching: share of the pairs that have met; a grain-boundary groove one pixel wide is left between them.
    """
    cuts: list[list[tuple[float, float, float]]] = [[] for _ in radii]
    if len(radii) < 2:
        return cuts
    pairs = cKDTree(centres).query_pairs(3.2 * float(radii.max()) + gap, output_type="ndarray")
    offset = centres[pairs[:, 1]] - centres[pairs[:, 0]]
    distance = np.hypot(offset[:, 0], offset[:, 1])
    first, second = radii[pairs[:, 0]], radii[pairs[:, 1]]
    close = distance < 1.6 * (first + second) + gap
    pairs, offset, distance, first, second = pairs[close], offset[close], distance[close], first[close], second[close]
    half_gap = 0.5 * gap * np.exp(rng.normal(0, spread, len(pairs))) * (rng.random(len(pairs)) >= touching)
    from_first = (distance**2 + first**2 - second**2) / (2 * distance)
    normal = offset / distance[:, None]
    for (i, j), (ny, nx), d, t, g in zip(pairs.tolist(), normal.tolist(), distance.tolist(), from_first.tolist(), half_gap.tolist(), strict=True):
        cuts[i].append((ny, nx, t - g))
        cuts[j].append((-ny, -nx, d - t - g))
    return cuts


def _draw_islands(rng, shape, margin, centres, radii, gap, spread, smallest, style):
    """Signed distance to the nearest outline (pixels, negative inside), each pixel's island radius (pixels) and its crystal tone, and the equivalent radii
    of the islands (pixels, 0 where an island came out below `smallest` and was left out).

    style: irregularity, elongation, sharpness (corner radius is about the island's radius / sharpness), twins (share of islands with twin lamellae),
    touching (share of neighbours in contact), warp and wavelength (amplitude and scale, in pixels, of the smooth distortion that bends straight
    edges; neighbours share it, so gaps stay open).
    """
    frame = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    shift = [style["warp"] * fractal_noise(rng, frame, 3.5, smallest=style["wavelength"] / 2, largest=3 * style["wavelength"]) for _ in range(2)]
    signed = np.full(frame, 1e3, np.float32)
    size, tone = np.zeros(frame, np.float32), np.zeros(frame, np.float32)
    equivalent = np.zeros(len(radii))
    typical = float(np.percentile(radii, 80)) if len(radii) else 1.0
    cuts = _cuts(rng, centres, radii, gap, spread, style["touching"])
    for k, ((row, column), radius) in enumerate(zip(centres, radii, strict=True)):
        planes = _facets(rng, radius, style["irregularity"], style["elongation"])
        if cuts[k]:
            near = np.array(cuts[k])
            planes = np.concatenate([planes, near[near[:, 2] < 1.5 * radius]])
        reach = int(1.6 * radius + 3 + 2 * style["warp"])
        top, left = max(int(row) - reach, 0), max(int(column) - reach, 0)
        box = (slice(top, int(row) + reach + 1), slice(left, int(column) + reach + 1))
        window = signed[box]
        y = shift[0][box] + (np.arange(top, top + window.shape[0], dtype=np.float32)[:, None] - np.float32(row))
        x = shift[1][box] + (np.arange(left, left + window.shape[1], dtype=np.float32)[None] - np.float32(column))
        planes = planes.astype(np.float32)
        # Corners of small islands round off first: the diffusion length is the same for all.
        sharpness = np.float32(style["sharpness"] * np.clip(np.sqrt(radius / typical), 0.35, 1.3) / radius)
        # A soft maximum over half-planes rounds the corners, as surface diffusion does.
        beyond = planes[:, :1, None] * y + planes[:, 1:2, None] * x - planes[:, 2:, None]
        inside = np.log(np.exp(np.clip(sharpness * beyond, -60, 60)).sum(0)) / sharpness
        equivalent[k] = np.sqrt(coverage(inside).sum() / np.pi)
        if equivalent[k] < smallest:  # a sliver between larger neighbours would have been absorbed by them
            equivalent[k] = 0
            continue
        nearer = inside < window
        lean = rng.normal(0, 0.5, 2) / radius  # the top facet is seldom level
        shade = (rng.normal() + lean[0] * y + lean[1] * x).astype(np.float32)
        if radius > 5 and rng.random() < style["twins"]:
            # Twin lamellae are parallel and alternate between two orientations.
            angle, step = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.9)
            across = np.float32(np.sin(angle)) * y + np.float32(np.cos(angle)) * x
            for sign, where in enumerate(np.sort(rng.uniform(-0.7, 0.7, rng.integers(1, 5))) * radius):
                shade += np.float32(step * (-1) ** sign) * np.clip(across - np.float32(where) + 0.5, 0, 1)
        np.copyto(window, inside, where=nearer)
        np.copyto(size[box], np.float32(radius), where=nearer)
        np.copyto(tone[box], shade, where=nearer)
    crop = (slice(margin, margin + shape[0]), slice(margin, margin + shape[1]))
    return signed[crop], size[crop], tone[crop], equivalent


def _carbon(rng: np.random.Generator, shape: tuple[int, int], pixel_size: float) -> np.ndarray:
    """Emission of the bare film, mean 1: grains of a few nm, slow thickness and charging variations, (height, width)."""
    grain = log_uniform(rng, 3.0, 20.0) / pixel_size
    fine = fractal_noise(rng, shape, rng.uniform(1.0, 2.4), smallest=2.0, largest=max(2 * grain, 12.0))
    slow = fractal_noise(rng, shape, rng.uniform(2.5, 3.5), smallest=max(grain, 5.0))
    return 1 + rng.uniform(0.04, 0.16) * fine + rng.uniform(0.03, 0.2) * slow


def _emission(rng: np.random.Generator, signed, size, tone, pixel_size: float) -> np.ndarray:
    """Secondary-electron signal (carbon about 1, gold 2-5): tilt and edge enhancement of the islands' relief, crystal tone, shadowed gaps."""
    shape = signed.shape
    depth = np.maximum(-signed, 0)
    rim = rng.uniform(0.25, 1.0) * np.maximum(size, 1)
    flank = np.clip(depth / rim, 0, 1)
    height = rng.uniform(0.4, 1.2) * rim * np.sqrt(1 - (1 - flank) ** 2)
    roughness = fractal_noise(rng, shape, rng.uniform(1.6, 3.0), smallest=2.0, largest=max(25 / pixel_size, 16))
    height = height + rng.uniform(0.05, 0.5) * roughness * np.minimum(1, depth / 2)
    dx, dy = gradient(height)
    tilt = np.minimum(np.sqrt(1 + dy * dy + dx * dx), 3.0) - 1
    azimuth = rng.uniform(0, 2 * np.pi)
    facing = (np.sin(azimuth) * dy + np.cos(azimuth) * dx) / (1 + tilt)
    escape = rng.uniform(1.5, 5.0) / pixel_size
    edge = np.exp(-depth / max(escape, 0.7))
    thickness = (size / max(float(size.max()), 1.0)) ** 0.5
    gold = rng.uniform(1.8, 4.5) * (1 + rng.uniform(0, 0.4) * (thickness - 0.7) + rng.uniform(0.03, 0.16) * tone)
    gold *= 1 + rng.uniform(0.1, 0.5) * tilt + rng.uniform(0, 0.25) * facing + rng.uniform(0.1, 0.6) * edge + rng.uniform(0.01, 0.05) * roughness
    mask = coverage(signed)
    reach = max(rng.uniform(3, 15) / pixel_size, 1.0)
    shadow = 1 - rng.uniform(0.3, 0.75) * cv2.GaussianBlur(mask, (0, 0), reach)
    halo = 1 + rng.uniform(0, 0.4) * np.exp(-np.maximum(signed, 0) / max(2 * escape, 1.0))
    return mask * gold + (1 - mask) * _carbon(rng, shape, pixel_size) * shadow * halo


def gold_on_carbon(seed, shape=(480, 640), pixel_size: float | None = None) -> Specimen:
    """Gold islands, 5-150 nm across, on a carbon film: bright faceted grains with brighter rims, dark gaps of a few nm, small islands between large ones.

    seed: int or tuple of ints; shape: (height, width) in pixels; pixel_size: nm, drawn from 0.4-4 nm when None.
    parameters: `centres` (n, 2) row, column in nm and `radii` (n,) in nm, the radii of the discs of equal area, of the islands whose centre is in the frame.
    """
    rng = np.random.default_rng(seed)
    pixel_size = float(log_uniform(rng, 0.4, 4.0)) if pixel_size is None else float(pixel_size)
    diameter = float(np.clip(log_uniform(rng, 9, 90) * pixel_size, 5, 120))
    sigma = rng.uniform(0.15, 0.75)
    dense = rng.random() < 0.7
    wanted, overlap = (rng.uniform(0.75, 1.2), rng.uniform(0.1, 0.45)) if dense else (rng.uniform(0.05, 0.5), rng.uniform(0.0, 0.2))
    gap, spread = float(log_uniform(rng, 1.5, 8.0)), rng.uniform(0.2, 0.7)
    gap = min(gap, 0.35 * diameter)
    style = {
        "irregularity": rng.uniform(0.03, 0.16),
        "elongation": rng.uniform(0.0, 0.3),
        "sharpness": float(log_uniform(rng, 5, 24)),
        "twins": rng.uniform(0, 0.8),
        "touching": rng.choice([0.0, 1.0]) * rng.uniform(0, 0.3),
        "wavelength": max(0.5 * diameter / pixel_size * rng.uniform(1.5, 4.0), 8.0),
        "warp": rng.uniform(0.02, 0.12) * 0.5 * diameter / pixel_size,
    }
    median = 0.5 * diameter / pixel_size
    smallest, largest = max(SMALLEST_RADIUS_PIXELS, 2.5 / pixel_size), 75 / pixel_size
    area = shape[0] * shape[1]
    count = int(np.clip(3 * wanted * area / (np.pi * median**2), 30, LARGEST_COUNT * area / 512**2))
    radii = np.clip(median * np.exp(rng.normal(0, sigma, count)), smallest, largest)
    if rng.random() < 0.6:  # a second, finer generation nucleates on the carbon left bare
        finer = np.clip(median * rng.uniform(0.12, 0.35), smallest, largest)
        radii = np.concatenate([radii, np.maximum(finer * np.exp(rng.normal(0, 0.3, int(rng.uniform(0.3, 1.5) * min(count, 500)))), smallest)])
    margin = int(min(1.3 * radii.max(), 120)) + 4
    centres, radii = _place(rng, (shape[0] + 2 * margin, shape[1] + 2 * margin), radii, overlap, wanted)
    signed, size, tone, equivalent = _draw_islands(rng, shape, margin, centres, radii, gap / pixel_size, spread, 0.8 * smallest, style)
    image = _emission(rng, signed, size, tone, pixel_size)
    image = image / (1 + rng.uniform(0.0, 0.25) * image)  # the amplifier compresses the brightest rims
    image = image * (1 + rng.uniform(0, 0.12) * fractal_noise(rng, shape, 3.5))
    centres = centres - margin
    kept = np.all((centres >= 0) & (centres < np.array(shape)), axis=1) & (equivalent > 0)
    parameters = {
        "centres": centres[kept] * pixel_size,
        "radii": equivalent[kept] * pixel_size,
        "median_diameter": diameter,
        "size_spread": sigma,
        "gap": gap,
        "gap_spread": spread,
        "coverage": float(coverage(signed).mean()),
        **{key: value * pixel_size if key in ("warp", "wavelength") else value for key, value in style.items()},
    }
    return Specimen(normalise(image, rng), pixel_size, "gold", parameters)
