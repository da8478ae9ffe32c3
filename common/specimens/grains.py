"""Solids in section or fracture: etched and channelling-contrast polycrystals, multiphase rock, composites, and fracture surfaces."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import cKDTree

from .base import Specimen, coverage, fractal_noise, gradient, log_uniform, normalise, pixel_grid, power_law

KINDS = ("metal", "rock", "composite", "fracture")


def _cells(rows: np.ndarray, columns: np.ndarray, seeds: np.ndarray, candidates: int = 8) -> tuple[np.ndarray, ...]:
    """Power diagram (Voronoi with sizes) of seeds (n, 3): row, column, radius in pixels, at warped coordinates rows, columns.

    Returns the cell of each pixel, the cell across its nearest boundary (both int), the distances to that boundary and to the own seed (float32, pixels).
    """
    shape, block = rows.shape, 4
    lift = np.sqrt(np.maximum(seeds[:, 2].max() ** 2 - seeds[:, 2] ** 2, 0))
    tree = cKDTree(np.column_stack([seeds[:, :2], lift]))
    candidates = min(candidates, len(seeds))
    centre = (slice(block // 2, None, block),) * 2
    coarse = np.column_stack([np.pad(a, ((0, block), (0, block)), mode="edge")[centre].ravel() for a in (rows, columns)])
    coarse_shape = np.pad(rows, ((0, block), (0, block)))[centre].shape
    _, near = tree.query(np.column_stack([coarse, np.zeros(len(coarse))]), k=candidates)
    near = near.reshape(*coarse_shape, candidates)
    position = seeds.astype(np.float32)
    best = second = np.full(shape, np.inf, np.float32)
    first = other = np.zeros(shape, np.int32)
    for k in range(candidates):
        index = np.repeat(np.repeat(near[..., k], block, 0), block, 1)[: shape[0], : shape[1]].astype(np.int32)
        seed = position[index]
        power = (rows - seed[..., 0]) ** 2 + (columns - seed[..., 1]) ** 2 - seed[..., 2] ** 2
        closer = power < best
        next_best = power < second
        other = np.where(closer, first, np.where(next_best, index, other))
        second = np.where(closer, best, np.where(next_best, power, second))
        first = np.where(closer, index, first)
        best = np.where(closer, power, best)
    gap = position[first, :2] - position[other, :2]
    # distances are measured in warped coordinates; where the warp stretches, they are brought back to pixels so that edges stay antialiased
    stretch = sum(np.hypot(*gradient(warped.astype(np.float32))) ** 2 for warped in (rows, columns))
    boundary = (second - best) / (2 * np.hypot(gap[..., 0], gap[..., 1]) + 1e-3) / np.sqrt(np.maximum(stretch / 2, 1))
    own = np.sqrt(np.maximum(best + position[first, 2] ** 2, 0))
    return first, other, boundary, own


def _seeds(rng: np.random.Generator, shape: tuple[int, int], size: float, spread: float) -> np.ndarray:
    """Grain centres (n, 3): row, column, radius in pixels, for a mean grain diameter size and a relative spread of diameters."""
    margin = 1.5 * size
    count = int(np.clip((shape[0] + 2 * margin) * (shape[1] + 2 * margin) / size**2, 6, 6000))
    seeds = np.column_stack([rng.uniform(-margin, n + margin, count) for n in shape])
    radius = 0.5 * size * np.exp(spread * rng.normal(size=count))
    return np.column_stack([seeds, np.minimum(radius, 1.5 * size)])


def _blend(values: np.ndarray, first: np.ndarray, other: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """Per-grain values (n,) as an antialiased map."""
    share = np.clip(0.5 + boundary, 0.5, 1)
    return share * values[first] + (1 - share) * values[other]


def _level(field: np.ndarray, threshold: float) -> np.ndarray:
    """Antialiased mask of field > threshold, for fields that are smooth on the pixel scale."""
    return coverage((threshold - field) / (np.hypot(*gradient(field)) + 1e-3))


def _stamp(image: np.ndarray, place: np.ndarray, radius: float, aspect: float, angle: float, level: float, corners: int, ripple: np.ndarray, rim: float):
    """Paint one flat inclusion in place: ellipse (corners 0) or rounded polygon, outline modulated by ripple ((k,) relative amplitudes), rim added there."""
    (row, column), reach = place, radius * 1.6 + 3
    top, bottom = max(0, int(row - reach)), min(image.shape[0], int(row + reach) + 2)
    left, right = max(0, int(column - reach)), min(image.shape[1], int(column + reach) + 2)
    if top >= bottom or left >= right:
        return
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(row)
    dx = np.arange(left, right, dtype=np.float32)[None] - np.float32(column)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = cosine * dx + sine * dy, (cosine * dy - sine * dx) * np.float32(aspect)
    distance = np.sqrt(u * u + v * v) + 1e-3
    outline = np.float32(radius)
    if radius > 2.5:
        turn = np.arctan2(v, u)
        if corners:
            sector = 2 * np.pi / corners
            outline = radius * np.cos(np.pi / corners) / np.cos(np.mod(turn, sector) - sector / 2) * 1.15
        outline = outline * (1 + sum(a * np.cos((k + 2) * turn + 7 * angle * (k + 1)) for k, a in enumerate(ripple.astype(np.float32))))
    outside = (distance - outline) / np.float32(0.5 + 0.5 * aspect)
    opaque = coverage(outside)
    painted = level + rim * np.exp(-np.abs(outside) / 1.2) if rim else level
    image[top:bottom, left:right] += opaque * (painted - image[top:bottom, left:right])


def _inclusions(rng: np.random.Generator, image: np.ndarray, count: int, smallest: float, largest: float, levels: np.ndarray, places=()) -> None:
    """Paint count inclusions with power-law radii (pixels) in place; places: (n, 2) rows and columns to choose from, if any."""
    power = rng.uniform(1.0, 2.4)
    radii = power_law(rng, smallest, largest, power, count)
    positions = rng.uniform(0, 1, (count, 2)) * image.shape
    if len(places):
        positions = places[rng.integers(0, len(places), count)] + rng.normal(0, 0.7, (count, 2))
    corners, elongation, direction, aligned = int(rng.choice([0, 0, 3, 4, 5, 6])), rng.uniform(0, 0.9), rng.uniform(0, np.pi), rng.random() < 0.4
    raggedness, rim = rng.uniform(0, 0.08), float(rng.choice([0.0, rng.uniform(-0.15, 0.3)]))
    for place, radius in zip(positions, radii, strict=True):
        angle = direction + rng.normal(0, 0.15) if aligned else rng.uniform(0, np.pi)
        aspect = np.exp(elongation * abs(rng.normal()))
        ripple = raggedness * rng.normal(size=5) if radius > 2.5 else np.zeros(0)
        _stamp(image, place, radius, aspect, angle, float(levels[rng.integers(len(levels))]), corners, ripple, rim)


def _scratches(rng: np.random.Generator, image: np.ndarray, count: int) -> None:
    """Polishing scratches, thin dark or bright lines mostly along one direction, drawn in place."""
    rows, columns = pixel_grid(image.shape)
    main = rng.uniform(0, np.pi)
    for _ in range(count):
        angle = main + rng.normal(0, 0.1)
        across = (rows - rng.uniform(0, image.shape[0])) * np.float32(np.cos(angle)) - (columns - rng.uniform(0, image.shape[1])) * np.float32(np.sin(angle))
        image += np.float32(rng.normal(0, 0.08)) * np.exp(-((across / np.float32(log_uniform(rng, 0.6, 1.5))) ** 2))


def _metal(rng: np.random.Generator, shape: tuple[int, int], size: float) -> tuple[np.ndarray, dict]:
    """Polycrystal: grey per grain (channelling), boundaries grooved or bright, twins, lamellae, etch texture, precipitates, pores, scratches."""
    rows, columns = pixel_grid(shape)
    warp = rng.uniform(0.0, 0.12) * size
    stretch, turn = rng.choice([1.0, rng.uniform(1.0, 4.0)]), rng.uniform(0, np.pi)
    y = rows + warp * fractal_noise(rng, shape, 4.0, largest=2 * size, smallest=max(4, size / 8))
    x = columns + warp * fractal_noise(rng, shape, 4.0, largest=2 * size, smallest=max(4, size / 8))
    if stretch > 1:
        long, wide = (np.cos(turn) * x + np.sin(turn) * y) / stretch, np.cos(turn) * y - np.sin(turn) * x
        y, x = wide - wide.min(), long - long.min()
    seeds = _seeds(rng, (int(y.max()) + 1, int(x.max()) + 1), size, rng.uniform(0.1, 0.7))
    first, other, boundary, _ = _cells(y, x, seeds)
    count, contrast = len(seeds), rng.uniform(0.05, 0.3)
    grey = (0.5 + contrast * rng.normal(size=count)).clip(0.1, 0.95).astype(np.float32)
    image = _blend(grey, first, other, boundary)

    angle = rng.uniform(0, np.pi, count).astype(np.float32)
    normal = np.stack([np.cos(angle), np.sin(angle)], -1)
    along = (normal[first, 0] * rows + normal[first, 1] * columns).astype(np.float32)
    inside = np.clip(boundary - 0.5, 0, 1)
    twins, lamellae = rng.random() < 0.6, rng.random() < 0.35
    if twins:
        width = np.where(rng.random(count) < 0.5, size * rng.uniform(0.05, 0.25, count), 0).astype(np.float32)
        middle = (normal * seeds[:, :2]).sum(1) if stretch == 1 else (normal * np.array(shape) * rng.random((count, 2))).sum(1)
        band = coverage(np.abs(along - middle.astype(np.float32)[first]) - width[first]) * (width[first] > 0)
        image = image + band * inside * (0.5 + contrast * rng.normal(size=count) - grey).astype(np.float32)[first]
    if lamellae:
        period = log_uniform(rng, 3.5, max(5.0, size / 6), count).astype(np.float32)
        wander = fractal_noise(rng, shape, 3.0, smallest=6, largest=size)
        phase = 2 * np.pi * along / period[first] + rng.uniform(0.2, 0.9) * wander
        strength = (rng.uniform(0.1, 0.3) * (rng.random(count) < rng.uniform(0.2, 0.9))).astype(np.float32)
        image = image + strength[first] * inside * np.tanh(rng.uniform(0.5, 3) * np.minimum(period[first] / 6, 1) * np.cos(phase))

    bend = fractal_noise(rng, (shape[0] + 64, shape[1] + 64), 3.2)
    etch = fractal_noise(rng, (shape[0] + 64, shape[1] + 64), rng.uniform(0.5, 2.2), smallest=rng.choice([1.5, 2.5, 4.0]), largest=max(10, 0.4 * size))
    shift = rng.integers(0, 64, (count, 2)).astype(np.int32)
    gather = (rows.astype(np.int32) + shift[first, 0], columns.astype(np.int32) + shift[first, 1])
    roughness = (log_uniform(rng, 0.006, 0.07) * np.exp(rng.normal(0, 0.5, count))).astype(np.float32)
    image = image + rng.uniform(0.0, 0.08) * bend[gather] + roughness[first] * etch[gather]

    groove, reach = rng.choice([0.0, rng.uniform(0.1, 0.45)]), log_uniform(rng, 0.7, 3.0)
    uneven = np.clip(1 + 0.5 * fractal_noise(rng, shape, 2.0, largest=size), 0, 2)
    image = image + rng.choice([-1, -1, 1]) * groove * uneven * np.exp(-((boundary / reach) ** 2))
    if groove and rng.random() < 0.5:
        image = image + 0.4 * groove * np.exp(-(((boundary - 2 * reach) / reach) ** 2))
    if rng.random() < 0.6:
        places = np.argwhere(boundary < 1.0) if rng.random() < 0.5 else np.zeros((0, 2))
        _inclusions(rng, image, int(rng.integers(20, 500)), 0.9, max(2.0, 0.12 * size), rng.uniform(0, 1, 2), places)
    if rng.random() < 0.4:
        _inclusions(rng, image, int(rng.integers(5, 80)), 1.0, max(2.0, 0.2 * size), np.array([0.0, 0.05]))
    if rng.random() < 0.4:
        _scratches(rng, image, int(rng.integers(2, 14)))
    return image, {"grains": count, "channelling_contrast": float(contrast), "groove": float(groove), "twins": bool(twins), "lamellae": bool(lamellae)}


def _crack(rng: np.random.Generator, image: np.ndarray, depth: float, field: np.ndarray, width: float) -> np.ndarray:
    """Darken along the zero line of a smooth field, (height, width): a wandering crack of varied width in pixels."""
    opening = width * np.clip(fractal_noise(rng, image.shape, 3.0) + 0.2, 0, 2)
    return image * (1 - depth * coverage(np.abs(field) / (np.hypot(*gradient(field)) + 1e-4) - opening) * np.clip(opening, 0, 1))


def _rock(rng: np.random.Generator, shape: tuple[int, int], size: float) -> tuple[np.ndarray, dict]:
    """Multiphase section by backscattered electrons: one grey per mineral, ragged boundaries, pores along boundaries, cracks, heavy grains."""
    rows, columns = pixel_grid(shape)
    warp = rng.uniform(0.05, 0.25) * size
    exponent = rng.uniform(3.2, 4.2)
    y = rows + warp * fractal_noise(rng, shape, exponent, smallest=3, largest=2 * size)
    x = columns + warp * fractal_noise(rng, shape, exponent, smallest=3, largest=2 * size)
    seeds = _seeds(rng, shape, size, rng.uniform(0.2, 0.8))
    first, other, boundary, _ = _cells(y, x, seeds)
    phases = int(rng.integers(2, 6))
    level = np.sort(rng.uniform(0.2, 0.75, phases))
    phase = rng.choice(phases, len(seeds), p=rng.dirichlet(np.full(phases, 0.6)))
    grey = (level[phase] + rng.uniform(0, 0.03) * rng.normal(size=len(seeds))).astype(np.float32)
    image = _blend(grey, first, other, boundary)
    for _ in range(rng.integers(0, 3)):
        ragged = fractal_noise(rng, shape, rng.uniform(3.2, 4.5), smallest=3, largest=size * rng.uniform(1, 5))
        mask = _level(ragged, rng.uniform(0.3, 1.8))
        image = image + mask * (np.float32(rng.uniform(0.1, 0.8)) - image)
    roughness = rng.uniform(0.005, 0.05, phases).astype(np.float32)[phase][first]
    image = image + roughness * fractal_noise(rng, shape, rng.uniform(1.0, 2.4), smallest=1.8) + rng.uniform(0, 0.03) * fractal_noise(rng, shape, 3.5)
    if rng.random() < 0.6:
        _inclusions(rng, image, int(rng.integers(20, 600)), 0.8, max(2.5, 0.3 * size), rng.uniform(0.05, 0.9, 3))
    gap = rng.uniform(-2.0, 0.6) + rng.uniform(0.5, 2.0) * fractal_noise(rng, shape, 3.2, smallest=3, largest=2 * size)
    image = image * (1 - rng.uniform(0.4, 1.0) * coverage(boundary - gap) * np.clip(gap, 0, 1))
    pores = fractal_noise(rng, shape, rng.uniform(3.0, 4.2), smallest=3, largest=size * rng.uniform(0.5, 3))
    pores = pores - rng.uniform(0.0, 1.0) * np.minimum(boundary / (0.2 * size), 1)
    image = image * (1 - rng.uniform(0.6, 1.0) * _level(pores.astype(np.float32), rng.uniform(1.3, 2.8)))
    for _ in range(rng.integers(0, 4)):
        angle = rng.uniform(0, np.pi)
        line = (rows - rng.uniform(0, shape[0])) * np.cos(angle) - (columns - rng.uniform(0, shape[1])) * np.sin(angle)
        field = (line + rng.uniform(4, 30) * fractal_noise(rng, shape, 3.5, smallest=6)).astype(np.float32)
        image = _crack(rng, image, rng.uniform(0.5, 1.0), field, rng.uniform(0.5, 2.5))
    if rng.random() < 0.5:
        _inclusions(rng, image, int(rng.integers(2, 40)), 1.0, max(3.0, 0.4 * size), rng.uniform(0.85, 1.0, 1))
    return image, {"phases": phases, "warp": float(warp), "boundary_exponent": float(exponent)}


def _composite(rng: np.random.Generator, shape: tuple[int, int], size: float) -> tuple[np.ndarray, dict]:
    """Dead leaves: overlapping pieces of power-law size, each with its own grey and texture (ceramics, clastic rock, filled polymer)."""
    image = np.full(shape, rng.uniform(0.1, 0.6), np.float32)
    levels = rng.uniform(0.05, 0.95, rng.integers(2, 40))
    largest = size * rng.uniform(1.0, 2.0)
    for _ in range(int(rng.integers(3, 7))):
        smallest = max(1.2, rng.uniform(0.05, 0.5) * size)
        _inclusions(rng, image, int(np.clip(2.0 * image.size / (smallest * largest), 30, 400)), smallest, largest, levels)
    texture = fractal_noise(rng, shape, rng.uniform(1.0, 2.4), smallest=1.6)
    image = image + (0.01 + rng.uniform(0.02, 0.15) * np.abs(image - rng.uniform(0, 1))) * texture
    return image, {"levels": len(levels), "largest": float(largest)}


def _fracture(rng: np.random.Generator, shape: tuple[int, int], size: float) -> tuple[np.ndarray, dict]:
    """Fracture surface: height field of ductile dimples, cleavage facets with river lines, or rough rubble; emission from slope, ridges and depth."""
    rows, columns = pixel_grid(shape)
    mode = str(rng.choice(["dimples", "cleavage", "rough"]))
    rough = fractal_noise(rng, shape, rng.uniform(4.0, 5.5)) * min(shape) * rng.uniform(0.02, 0.15)
    patchy = np.clip(0.6 + fractal_noise(rng, shape, 4.0), 0.05, 2)
    fine = patchy * fractal_noise(rng, shape, rng.uniform(2.2, 3.4), largest=size)
    warp = rng.uniform(0.02, 0.12) * size
    y = rows + warp * fractal_noise(rng, shape, 4.0, smallest=4, largest=3 * size)
    x = columns + warp * fractal_noise(rng, shape, 4.0, smallest=4, largest=3 * size)
    seeds = _seeds(rng, shape, size, rng.uniform(0.3, 0.9))
    first, _, boundary, own = _cells(y, x, seeds)
    height = rough + log_uniform(rng, 0.08, 0.8) * fine
    if mode == "dimples":
        # each void is a bowl about its seed, so that neighbours meet in a cusped ridge; smaller voids sit on the walls of large ones
        steep, depth = rng.uniform(0.3, 1.0), rng.uniform(0.6, 1.4, len(seeds)).astype(np.float32)
        height = height + steep * np.minimum(own, own**2 / size) * depth[first] + 0.15 * size * np.exp(-boundary / 2) * rng.random()
        if rng.random() < 0.7:
            fraction = rng.uniform(0.2, 0.45)
            small = _seeds(rng, shape, max(6.0, size * fraction), 0.7)
            _, _, _, inner = _cells(y, x, small, 6)
            height = height + steep * inner**2 / (fraction * size + 4) * np.clip(fractal_noise(rng, shape, 4.0, largest=4 * size), 0, 1)
    elif mode == "cleavage":
        count = len(seeds)
        tilt = rng.normal(0, rng.uniform(0.1, 0.6), (count, 2)).astype(np.float32)
        plane = tilt[first, 0] * (y - seeds[first, 0].astype(np.float32)) + tilt[first, 1] * (x - seeds[first, 1].astype(np.float32))
        height = 0.4 * height + plane + 0.2 * size * rng.normal(size=count).astype(np.float32)[first]
        angle = rng.uniform(0, 2 * np.pi, count).astype(np.float32)[first]
        across = np.cos(angle) * y + np.sin(angle) * x + 0.3 * warp * fractal_noise(rng, shape, 3.0, smallest=4)
        for scale in (0.35, 0.12):
            period = max(5.0, scale * size)
            stair = np.mod(across / period, 1.0)
            height = height + rng.uniform(0.05, 0.25) * period * np.minimum(stair, 6 * (1 - stair)) * np.clip(fractal_noise(rng, shape, 3.0) + 0.5, 0, 2)
    else:
        ridges = np.abs(fractal_noise(rng, shape, rng.uniform(3.6, 4.6), largest=4 * size))
        ledge = np.floor(ridges * 3) + np.clip(8 * (np.mod(ridges * 3, 1) - 0.875), 0, 1)
        height = height - rng.uniform(0.1, 0.4) * size * (ridges if rng.random() < 0.5 else ledge * 0.4)
    height = cv2.GaussianBlur(height.astype(np.float32), (0, 0), 0.6)
    slope_x, slope_y = gradient(height)
    facing = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    angle, side = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.4)
    image = 0.4 + rng.uniform(0.3, 0.9) * (1 - facing) + side * (np.cos(angle) * slope_x + np.sin(angle) * slope_y) * facing
    for reach, weight in ((1.5, 0.25), (0.15 * size, 0.2), (0.7 * size, 0.25)):
        relief = height - cv2.GaussianBlur(height, (0, 0), reach)
        image = image + rng.uniform(0.3, 1.0) * weight * np.tanh(relief / (relief.std() * 1.5 + 1e-6))
    image = image * (1 + rng.uniform(0.01, 0.05) * fractal_noise(rng, shape, 1.2, smallest=1.6))
    if rng.random() < 0.5:
        _inclusions(rng, image, int(rng.integers(5, 120)), 0.8, max(2.0, 0.1 * size), rng.uniform(0.5, 1.0, 2))
    return image, {"mode": mode}


def grains(seed, shape: tuple[int, int] = (480, 640), pixel_size: float | None = None) -> Specimen:
    """A polished, etched or broken solid: grains, phases, pores, cracks or fracture relief.

    seed: int or tuple of ints. shape: (height, width) in pixels. pixel_size: nm per pixel (1 to 500; drawn if None). Image (height, width) float32 in [0, 1].
    """
    rng = np.random.default_rng(seed)
    pixel_size = float(log_uniform(rng, 1.0, 500.0)) if pixel_size is None else float(pixel_size)
    kind = str(rng.choice(KINDS, p=[0.33, 0.27, 0.15, 0.25]))
    size = float(log_uniform(rng, 14.0, 0.35 * min(shape)))
    image, details = {"metal": _metal, "rock": _rock, "composite": _composite, "fracture": _fracture}[kind](rng, shape, size)
    image = normalise(image * (1 + rng.uniform(0, 0.1) * fractal_noise(rng, shape, 4.0)), rng)
    details |= {name: details[name] * pixel_size for name in ("warp", "largest") if name in details}
    return Specimen(image, pixel_size, "grains", {"kind": kind, "grain_size": size * pixel_size, **details})
