"""Cross-sections cut by a focused ion beam: layered devices, wiring levels, deep trenches, lamellae, rock and tissue."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import cKDTree

from .base import Specimen, blob, coverage, fractal_noise, gradient, log_uniform, normalise, pixel_grid, polycrystal


def _line_noise(rng: np.random.Generator, length: int, exponent: float, smallest: float = 2.0) -> np.ndarray:
    """One-dimensional 1/f^exponent noise along a profile, (length,) float32, zero mean, unit deviation, wavelengths above `smallest` pixels."""
    f = np.fft.rfftfreq(2 * length)
    amplitude = np.where((f > 0) & (f < 1 / smallest), np.maximum(f, 1e-6) ** (-exponent / 2), 0)
    profile = np.fft.irfft(amplitude * np.exp(2j * np.pi * rng.random(f.size)), 2 * length)[:length]
    return ((profile - profile.mean()) / (profile.std() + 1e-9)).astype(np.float32)


def _outline(field: np.ndarray, level: float) -> np.ndarray:
    """Approximate signed distance in pixels (negative where field > level) to the contour of a smooth field, within 4 pixels of it."""
    return np.clip((level - field) / np.maximum(np.hypot(*gradient(field)), 1e-4), -4, 4)


def _stretched(rng: np.random.Generator, shape: tuple[int, int], along: float, exponent: float, smallest: float, vertical: bool = False) -> np.ndarray:
    """Fractal noise elongated `along` times in x (or y), (height, width) float32, unit deviation."""
    small = (int(shape[0] / along) + 8, shape[1]) if vertical else (shape[0], int(shape[1] / along) + 8)
    return cv2.resize(fractal_noise(rng, small, exponent, smallest), shape[::-1], interpolation=cv2.INTER_CUBIC)


def _block(picture: np.ndarray, x: float, top: float, bottom: float, widths: tuple[float, float], radius: float, wander: np.ndarray | float = 0.0):
    """Window of the picture around an upright body with an upper and a lower width, and the signed distance to its rounded outline (negative inside)."""
    margin = int(max(widths) / 2 + 12)
    y0, y1, x0, x1 = int(max(top - 12, 0)), int(max(bottom + 12, 0)), int(max(x - margin, 0)), int(max(x + margin, 0))
    window = picture[y0:y1, x0:x1]
    rows, columns = np.mgrid[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]].astype(np.float32)
    share = np.clip((rows - top) / max(bottom - top, 1), 0, 1)
    centre = x + (wander[y0 : y0 + window.shape[0], None] if isinstance(wander, np.ndarray) else wander)
    half = (widths[0] + (widths[1] - widths[0]) * share) / 2
    radius = min(radius, min(widths) / 2, (bottom - top) / 2)
    across, down = np.abs(columns - centre) - half + radius, np.abs(rows - (top + bottom) / 2) - (bottom - top) / 2 + radius
    return window, np.minimum(np.maximum(across, down), 0) + np.hypot(np.maximum(across, 0), np.maximum(down, 0)) - radius


def _put(window: np.ndarray, distance: np.ndarray, level: np.ndarray | float, edge: float, width: float) -> None:
    """Paint a body with a bright (edge > 0) or dark rim of the given width in pixels, in place."""
    inside = coverage(distance, 1.2)
    window[:] = window * (1 - inside) + level * inside + edge * np.exp(-np.abs(distance) / width)


def _materials(rng: np.random.Generator, shape: tuple[int, int]) -> list[np.ndarray]:
    """Surface textures of differently prepared materials, each (height, width), unit deviation: amorphous, polycrystalline, columnar, porous."""
    amorphous = fractal_noise(rng, shape, rng.uniform(0.3, 2.0), smallest=1.6)
    grains = polycrystal(rng, shape, log_uniform(rng, 5, 30))
    columnar = cv2.resize(polycrystal(rng, (shape[0] // 5 + 4, shape[1]), log_uniform(rng, 4, 15)), shape[::-1], interpolation=cv2.INTER_CUBIC)
    porous = -3 * coverage(_outline(fractal_noise(rng, shape, 2.0, smallest=log_uniform(rng, 4, 15)), rng.uniform(1.0, 2.0)), 1.5)
    return [amorphous, grains, columnar, porous]


def _stack(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """Deposited layers, sedimentary strata or a superlattice: rough interfaces that inherit each other's shape, folds, steps and faults, vacuum above."""
    height, width = shape
    textures, columns = _materials(rng, shape), np.arange(width, dtype=np.float32)
    surface = height * rng.choice([-0.05, rng.uniform(0.05, 0.4)])
    profile = surface + rng.choice([0.0, rng.normal(0, 0.15)]) * (columns - width / 2)
    profile = profile + rng.choice([0.0, 2.0, 15.0]) * rng.uniform(0.3, 1) * _line_noise(rng, width, 3.0, 40)
    for _ in range(int(rng.integers(0, 4))):
        profile = profile + rng.normal(0, 0.06) * height * np.tanh((columns - rng.uniform(0, width)) / log_uniform(rng, 0.8, 40))
    superlattice, thickness = rng.random() < 0.3, height * log_uniform(rng, 0.012, 0.2)
    pair, spread, rough = rng.uniform(0.1, 0.9, 2), rng.uniform(0.1, 1.0), rng.choice([0.2, 0.6, 2.0, 5.0]) * rng.uniform(0.5, 1.2)
    edge, edge_width = rng.choice([0.0, 0.1, 0.3]) * rng.choice([1, 1, -1]), rng.uniform(0.7, 2.5)
    picture, layers = np.full(shape, rng.uniform(0.0, 0.12), np.float32) + 0.02 * textures[0], 0
    while profile.min() < height and layers < 60:
        level = pair[layers % 2] if superlattice else rng.uniform(0.05, 0.95)
        depth = thickness * (1 if superlattice else np.exp(rng.normal(0, spread)))
        texture = textures[rng.choice(4, p=(0.5, 0.2, 0.15, 0.15))]
        top = max(int(profile.min()) - 6, 0)
        distance = profile - np.arange(top, height, dtype=np.float32)[:, None]
        body = level * (1 + rng.uniform(0.01, 0.12) * texture[top:])
        _put(picture[top:], distance, body, 0.6 * rng.uniform(0.2, 1) if layers == 0 else edge * rng.uniform(0.2, 1), edge_width)
        profile = profile + np.maximum(depth * (1 + rng.uniform(0, 0.2) * _line_noise(rng, width, 2.5, 20)), 0.5)
        profile = cv2.GaussianBlur(profile[None].astype(np.float32), (0, 0), max(depth * rng.uniform(0.05, 0.5), 0.3))[0]
        profile = profile + min(rough, 0.15 * depth) * _line_noise(rng, width, rng.uniform(1.5, 3.0), rng.uniform(2.5, 10))
        layers += 1
    return picture, {"layers": layers, "thickness": thickness, "roughness": rough}


def _levels(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """Wiring levels in cross-section: tapered metal lines with liners and keyhole voids, plugs between the levels, etch-stop films, substrate below."""
    textures = _materials(rng, shape)
    oxide, metal = rng.uniform(0.15, 0.4), rng.uniform(0.5, 0.95)
    picture = (oxide * (1 + rng.uniform(0.01, 0.06) * textures[0])).astype(np.float32)
    pitch, y, levels = log_uniform(rng, 9, 45), shape[0] * rng.uniform(0.85, 1.05), 0
    film, rim, taper, void = rng.normal(0.1, 0.1), rng.uniform(-0.1, 0.35), rng.uniform(0.6, 1.0), rng.choice([0, 0.05, 0.3])
    _put(picture[int(y) :], int(y) - np.arange(int(y), shape[0], dtype=np.float32)[:, None], rng.uniform(0.1, 0.5), 0.2, 1.5)
    while y > -pitch and levels < 20:
        tall, gap, duty = pitch * rng.uniform(0.6, 2.2), pitch * rng.uniform(0.5, 1.8), rng.uniform(0.35, 0.65)
        top, x = y - gap - tall, -rng.uniform(0, pitch)
        for line in (top, top + tall + 0.5 * gap) if rng.random() < 0.7 else (top,):
            band = picture[max(int(line) - 6, 0) : max(int(line) + 6, 0)]
            band += film * np.exp(-(((np.arange(len(band)) + max(int(line) - 6, 0) - line)[:, None] / 1.2) ** 2))
        while x < shape[1] + pitch:
            span = 1 if rng.random() < 0.85 else int(rng.integers(2, 7))
            if rng.random() < 0.85:
                wide, centre = pitch * (span - 1 + duty), x + pitch * span / 2
                window, distance = _block(picture, centre, top, top + tall, (wide, wide * (taper if span == 1 else 0.95)), pitch * 0.12)
                shade = metal + rng.normal(0, 0.04) + 0.06 * textures[1][: window.shape[0], : window.shape[1]]
                _put(window, distance, shade, rim, rng.uniform(0.8, 1.4))
                if rng.random() < void:
                    window, distance = _block(picture, centre, top + tall * 0.3, top + tall * rng.uniform(0.5, 0.9), (wide * 0.2, wide * 0.12), wide)
                    _put(window, distance, 0.05, 0.1, 0.8)
                if rng.random() < 0.3:
                    window, distance = _block(picture, centre, top + tall - 1, y + 2, (pitch * duty * 0.8, pitch * duty * 0.8 * taper), 1.0)
                    _put(window, distance, metal * 0.95, rim * 0.5, 1.0)
            x += pitch * span
        y, levels, pitch = top, levels + 1, pitch * rng.choice([1, 1, 1.3, 1.8])
    return picture, {"levels": levels, "pitch": pitch}


def _trenches(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """High-aspect trenches, channel holes or free pillars etched into a plain or laminated body: lined, filled with a seam, or empty and dark."""
    height, width = shape
    textures, rows = _materials(rng, shape), np.arange(height, dtype=np.float32)[:, None]
    picture = np.full(shape, rng.uniform(0.25, 0.6), np.float32) * (1 + rng.uniform(0.01, 0.08) * textures[0])
    surface, pitch = height * rng.uniform(-0.1, 0.3), log_uniform(rng, 10, 110)
    if rng.random() < 0.5:
        period = log_uniform(rng, 5, 30)
        phase = (rows - surface + 0.8 * _line_noise(rng, width, 2.0, 8)) / period
        triangle = np.abs(phase - np.round(phase)) * period
        picture = picture + rng.uniform(-0.3, 0.3) * coverage(triangle - period * rng.uniform(0.15, 0.35))
    _put(picture[: max(int(surface) + 4, 0)], rows[: max(int(surface) + 4, 0)] - surface, rng.uniform(0.02, 0.2), rng.uniform(0.1, 0.6), 1.5)
    depth, duty, taper, wander = height * rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.65), rng.uniform(0.5, 1.05), rng.choice([0, 0.4, 1.5])
    fill, liner, empty, rim = rng.uniform(0.02, 0.9), rng.uniform(0.2, 0.95), rng.random() < 0.4, rng.uniform(0.05, 0.6)
    scatter, radius, x = rng.choice([0.0, 0.03, 0.2]), pitch * rng.uniform(0.05, 0.4), -rng.uniform(0, pitch)
    while x < width + pitch:
        wide, bottom = pitch * duty * np.exp(rng.normal(0, 0.04)), surface + depth * np.exp(rng.normal(0, scatter))
        window, distance = _block(picture, x, surface - (8 if empty else 0), bottom, (wide, wide * taper), radius, wander * _line_noise(rng, height, 2.5, 15))
        gloom = np.linspace(rng.uniform(0.05, 0.35), 0.01, len(window))[:, None] if empty else fill
        _put(window, distance, gloom, rim if empty else 0.0, rng.uniform(0.8, 2.5))
        if not empty:
            film = max(wide * 0.08, 0.8)
            window += (liner - window) * 0.8 * coverage(np.abs(distance + film) - film / 2)
            window *= 1 - rng.choice([0.0, 0.0, 0.8]) * coverage(distance + wide * taper * 0.44)
        x += pitch
    return picture, {"pitch": pitch, "depth": depth}


def _lamella(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """A milled face between dark side cuts, with terraces left by the passes of the beam, a protective strip on top and redeposited flanks."""
    height, width = shape
    rows, columns = pixel_grid(shape)
    picture = np.full(shape, rng.uniform(0.02, 0.15), np.float32)
    for _ in range(int(rng.integers(3, 9))):
        fold = _stretched(rng, shape, rng.uniform(2, 5), rng.uniform(3.4, 4.2), 16, vertical=True) - rng.normal(0, 0.8)
        # Redeposited sheets overlap like drapery: bright along the free edge, fading slowly over the sheet and abruptly off it.
        picture = np.maximum(picture, rng.uniform(0.15, 0.7) * np.exp(-np.abs(fold) / np.where(fold > 0, rng.uniform(0.15, 0.8), 0.03)))
    picture *= np.clip(1 - np.abs(columns / width - rng.uniform(0.1, 0.9)) * rng.uniform(0.3, 1.5), 0, 1)
    left, right, top = width * rng.uniform(-0.1, 0.3), width * rng.uniform(0.65, 1.1), height * rng.uniform(-0.1, 0.35)
    lean, cut = rng.normal(0, 0.03), width * rng.uniform(0.02, 0.1)
    wall = 1.5 * _line_noise(rng, height, 2.5, 6)[:, None] + lean * rows
    face = np.maximum(left + wall - columns, columns - right + wall)
    picture *= 1 - 0.97 * coverage(face - cut, cut * 0.4)
    _put(picture, face, 0.45 + 0.2 * rows / height * rng.normal(), rng.uniform(0.1, 0.5), rng.uniform(1, 3))
    relief = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(4, 40))):
        x, y, wide = rng.uniform(left, right), rng.uniform(top, height), width * log_uniform(rng, 0.01, 0.25)
        sway = rng.uniform(0.3, 1) * _line_noise(rng, height, 3, 10)
        window, distance = _block(relief, x, y, height + 60, (wide, wide * rng.uniform(0.95, 1.1)), rng.uniform(2, 10), sway)
        below = np.arange(window.shape[0], dtype=np.float32)[:, None] + max(int(y - 12), 0) - y
        crest = rng.uniform(0.1, 0.5) * np.exp(-np.maximum(below, 0) / rng.uniform(5, 20)) + rng.normal(0, 0.08)
        window += rng.normal(0, 0.05) * coverage(distance, 2) + crest * np.exp(-np.abs(distance) / rng.uniform(1, 3))
    picture += relief * coverage(face, 6)
    strip = np.maximum(rows - top - _line_noise(rng, width, 2.0, 4), face)
    pad = rng.uniform(0.03, 0.3) + 0.02 * fractal_noise(rng, shape, 1.0, 2) + 0.15 * coverage(np.maximum(strip + rng.uniform(0.02, 0.15) * height, -40), 4)
    _put(picture, strip, pad, rng.uniform(0.2, 0.7), rng.uniform(0.8, 2.0))
    return picture, {"face_width": right - left, "side_cut": cut}


def _rock(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """Polished rock, shale or cement: mineral grains of a few grey levels, bedding, heavy inclusions, cracks and pores with charging rims."""
    along, size = log_uniform(rng, 1, 4), log_uniform(rng, 15, 120)
    minerals = cv2.resize(polycrystal(rng, (shape[0], max(int(shape[1] / along), 16)), size), shape[::-1], interpolation=cv2.INTER_LINEAR)
    rows, columns = (axis + size * rng.uniform(0.02, 0.12) * fractal_noise(rng, shape, 3.2, smallest=6) for axis in pixel_grid(shape))
    minerals = cv2.remap(minerals, np.float32(columns), np.float32(rows), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    fine = fractal_noise(rng, shape, rng.uniform(0.3, 1.5), smallest=1.6)
    picture = 0.5 + rng.uniform(0.01, 0.08) * minerals + rng.uniform(0.1, 0.4) * coverage(rng.uniform(1.6, 2.6) - minerals) + rng.uniform(0.004, 0.03) * fine
    for low, high in ((0.65, 1.0), (0.25, 0.42), (0.0, 0.12)):
        level, density = rng.uniform(low, high), rng.uniform(1.0, 2.5)
        field = _stretched(rng, shape, log_uniform(rng, 1, 4), rng.uniform(2.8, 3.6), log_uniform(rng, 4, 12)) + rng.choice([0, 0.5]) * minerals
        distance = _outline(field, density)
        _put(picture, distance, level * (1 + rng.uniform(0.01, 0.06) * fine), rng.choice([0, 0, 0.15, 0.4]) * rng.random(), rng.uniform(0.7, 1.5))
    for scale in (size, size * 0.4):
        # Pores follow the junctions of grains and open up only here and there.
        opening = rng.uniform(0.5, 5) * (fractal_noise(rng, shape, 2.8, smallest=5) - rng.uniform(0.2, 2.0))
        pore = np.clip(_walls(rng, shape, max(scale, 12)) - opening, -20, 20)
        _put(picture, pore, rng.uniform(0.02, 0.3), rng.choice([0, 0, 0.1, 0.3]), rng.uniform(0.7, 1.5))
    return picture, {"grain_size": size, "elongation": along}


def _walls(rng: np.random.Generator, shape: tuple[int, int], size: float) -> np.ndarray:
    """Distance in pixels from each pixel to the nearest border between cells about `size` pixels wide, with sinuous borders, (height, width) float32."""
    half = (shape[0] // 2 + 1, shape[1] // 2 + 1)
    bent = [axis + size * rng.uniform(0.05, 0.2) * fractal_noise(rng, half, 3.4, smallest=max(size / 10, 4)) for axis in pixel_grid(half)]
    # Searched at half the resolution for speed: the gap between the two nearest centres' distances is then the distance to the border in full pixels.
    centres = rng.uniform(-size / 2, np.array(half) + size / 2, (int((half[0] + size) * (half[1] + size) * 4 / size**2) + 3, 2))
    nearest, _ = cKDTree(centres).query(np.stack(bent, -1), k=2)
    return cv2.resize(np.float32(nearest[..., 1] - nearest[..., 0]), shape[::-1], interpolation=cv2.INTER_CUBIC)


def _membranes(phase: np.ndarray, width: float) -> np.ndarray:
    """Stacked membranes wherever a phase field crosses an integer, each `width` pixels wide, (height, width) in [0, 1]."""
    return np.exp(-((np.abs(phase - np.round(phase)) / np.maximum(np.hypot(*gradient(phase)), 1e-3) / width) ** 2))


def _tissue(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """Resin-embedded, stained tissue: cell outlines, lamellar stacks, organelles with cristae, vesicles and granular plasm; dark or bright stain."""
    rows, columns = pixel_grid(shape)
    size, membrane, stain = log_uniform(rng, 40, 250), rng.uniform(0.8, 2.2), rng.uniform(0.15, 0.5)
    plasm, granules = fractal_noise(rng, shape, 3.0, smallest=size), fractal_noise(rng, shape, rng.uniform(0.2, 1.2), smallest=rng.uniform(2, 5))
    picture = 0.6 + rng.uniform(0.02, 0.08) * plasm + rng.uniform(0.01, 0.07) * granules
    folds = fractal_noise(rng, shape, 3.2, smallest=size / 3)
    gap, wall = rng.uniform(1, 5), _walls(rng, shape, size)
    outside = coverage(wall - gap)
    picture = picture * (1 - outside) + rng.uniform(0.3, 0.9) * outside - stain * np.exp(-(((wall - gap) / membrane) ** 2))
    if rng.random() < 0.5:
        angle, period = rng.uniform(0, np.pi), log_uniform(rng, 5, 30)
        phase = (np.cos(angle) * columns + np.sin(angle) * rows) / period + folds * size / period * rng.uniform(0.1, 0.6)
        where = coverage(_outline(fractal_noise(rng, shape, 3.2, smallest=size / 2), rng.uniform(-0.5, 0.8)), 2)
        picture -= stain * 0.8 * where * _membranes(phase, min(membrane, period / 5))
    warp = [0.15 * fractal_noise(rng, shape, 3.4, smallest=10) for _ in range(2)]
    for _ in range(int(rng.integers(5, 60))):
        radius, (x, y), turn, aspect = size * log_uniform(rng, 0.04, 0.5), rng.uniform(0, 1, 2) * shape[::-1], rng.uniform(0, np.pi), rng.uniform(0.4, 1)
        reach = int(radius * 1.6) + 4
        part = np.s_[max(int(y) - reach, 0) : int(y) + reach, max(int(x) - reach, 0) : int(x) + reach]
        u, v = (columns[part] - x) / radius + warp[0][part], (rows[part] - y) / radius + warp[1][part]
        u, v = u * np.cos(turn) + v * np.sin(turn), (v * np.cos(turn) - u * np.sin(turn)) / aspect
        distance = (np.hypot(u, v) - 1) * radius * np.sqrt(aspect)
        window, inside = picture[part], coverage(distance)
        window += (rng.uniform(0.3, 0.8) - window) * 0.6 * inside
        if radius > 12 and rng.random() < 0.7:
            window -= stain * 0.6 * coverage(distance + 3) * _membranes(u * radius / rng.uniform(6, 12) + 0.5 * np.sin(3 * v), membrane)
        window -= stain * np.exp(-((distance / membrane) ** 2))
    return (picture if rng.random() < 0.6 else 1 - picture), {"cell_size": size, "membrane": membrane}


def _voids(rng: np.random.Generator, picture: np.ndarray) -> int:
    """Open deep dark pores with a bright lower lip, each trailing a streak where it disturbed the beam below it, in place; returns the count."""
    places = rng.uniform(0, 1, (int(log_uniform(rng, 1, 20)), 2)) * picture.shape[::-1]
    places = [(x, y) for x, y in places if picture[int(y), int(x)] > 0.15]
    for x, y in places:
        radius, aspect = log_uniform(rng, 1.5, 0.04 * max(picture.shape)), log_uniform(rng, 0.5, 1.6)
        left, right, tail = max(int(x - 3 * radius), 0), int(x + 3 * radius), radius * rng.uniform(5, 40)
        below = picture[int(y) : int(y + tail), left:right]
        streak = np.exp(-(((np.arange(below.shape[1]) + left - x) / (radius * rng.uniform(0.3, 1))) ** 2))[None] * np.linspace(1, 0, len(below))[:, None]
        below *= 1 + rng.normal(0, 0.15) * streak
        window, distance = blob(rng, picture, x, y, radius, aspect)
        window *= 1 - 0.93 * coverage(distance, 1.5)
        window += rng.uniform(0, 0.4) * np.exp(-np.abs(distance) / rng.uniform(0.7, 1.8)) * np.clip(0.5 + gradient(distance)[1], 0, 1.5)
    return len(places)


def _curtains(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Milling streaks along y that start, fade and fan out slightly, (height, width), unit deviation, a pixel to tens of pixels wide."""
    coarse = np.stack([_line_noise(rng, shape[1], rng.uniform(0.8, 2.0), rng.uniform(2, 5)) for _ in range(int(rng.integers(2, 6)))])
    streaks = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    streaks += 2 * np.clip(streaks - 1.2, 0, 2)
    rows, columns = pixel_grid(shape)
    columns += (rows - shape[0] / 2) * np.float32(rng.normal(0, 0.01) + rng.normal(0, 0.03) * (columns / shape[1] - 0.5))
    return cv2.remap(streaks, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


MODES = {"stack": _stack, "levels": _levels, "trenches": _trenches, "lamella": _lamella, "rock": _rock, "tissue": _tissue}


def section(seed: int | tuple[int, ...], shape: tuple[int, int] = (480, 640), pixel_size: float | None = None) -> Specimen:
    """A face milled by a focused ion beam, seen by its secondary or backscattered electrons, the beam having come from above.

    image: (height, width) float32 in [0, 1]; milling leaves vertical streaks (curtains), edges are bright, holes are dark. pixel_size: nm, 1 to 50 when drawn.
    parameters: mode, curtaining (relative), voids (count), then the mode's own lengths in nm (pitch, roughness, ...) and counts (layers, levels).
    """
    rng = np.random.default_rng(seed)
    mode = str(rng.choice(list(MODES), p=(0.28, 0.14, 0.16, 0.16, 0.13, 0.13)))
    # Rock grains and cells are only looked at from further away than devices.
    pixel = float(pixel_size or log_uniform(rng, *{"rock": (5, 50), "tissue": (3, 15)}.get(mode, (1, 50))))
    picture, drawn = MODES[mode](rng, shape)
    # Nothing milled is drawn with a ruler: a small smooth displacement roughens every outline.
    rows, columns = (axis + log_uniform(rng, 0.05, 0.6) * fractal_noise(rng, shape, rng.uniform(2.0, 3.2), 4, 60) for axis in pixel_grid(shape))
    picture = cv2.remap(np.float32(picture), np.float32(columns), np.float32(rows), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    voids = _voids(rng, picture) if mode not in ("rock", "tissue") and rng.random() < 0.4 else 0
    strength = rng.choice([0.01, 0.03, 0.07, 0.14]) * rng.uniform(0.5, 1.3) * (0.3 if mode in ("rock", "tissue") else 1.0)
    picture = picture * (1 + strength * _curtains(rng, shape))
    if rng.random() < 0.4:
        haze = np.clip((np.arange(shape[0]) / shape[0] - rng.uniform(0.4, 0.9)) * rng.uniform(1, 4), 0, 1)[:, None]
        picture = picture * (1 - 0.7 * haze) + haze * rng.uniform(0, 0.4) * (1 + 0.1 * _stretched(rng, shape, 4, 2.5, 4, vertical=True))
    picture = picture * (1 + rng.uniform(0, 0.2) * fractal_noise(rng, shape, 3.2, smallest=max(shape) / 3))
    picture = picture + rng.uniform(0.002, 0.02) * fractal_noise(rng, shape, rng.uniform(0.5, 1.8), smallest=1.5)
    parameters = {name: float(value) if name in ("layers", "levels", "elongation") else float(value * pixel) for name, value in drawn.items()}
    return Specimen(normalise(picture, rng), pixel, "section", {"mode": mode, "curtaining": float(strength), "voids": voids} | parameters)
