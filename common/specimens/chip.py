"""Top views of integrated circuits: wiring, standard cells, memories, resist gratings, contact holes."""

from __future__ import annotations

import cv2
import numpy as np

from .base import Specimen, blob, coverage, fractal_noise, gradient, log_uniform, normalise, polycrystal


def _fill(canvas: np.ndarray, x0: float, y0: float, x1: float, y1: float, value: float = 1.0) -> None:
    """Draw (or with value 0 erase) one axis-aligned rectangle, edges in pixels, with exact area coverage."""
    top, left = max(int(np.floor(y0)), 0), max(int(np.floor(x0)), 0)
    bottom, right = min(int(np.ceil(y1)), canvas.shape[0]), min(int(np.ceil(x1)), canvas.shape[1])
    if bottom <= top or right <= left:
        return
    rows, columns = np.arange(top, bottom), np.arange(left, right)
    cover = np.outer(np.minimum(rows + 1, y1) - np.maximum(rows, y0), np.minimum(columns + 1, x1) - np.maximum(columns, x0))
    window = canvas[top:bottom, left:right]
    if value > 0:
        np.maximum(window, cover * value, out=window)
    else:
        window *= 1 - cover


def _wiring(rng: np.random.Generator, shape: tuple[int, int], pitch: float, duty: float) -> np.ndarray:
    """Routed tracks along x: segments with gaps, jogs to the next track, wide supply lines and dummy fill where nothing runs; drawn mask in [0, 1]."""
    canvas = np.zeros(shape, np.float32)
    width, length, empty = pitch * duty, pitch * log_uniform(rng, 4, 40), rng.uniform(0.02, 0.45)
    fill_side = pitch * rng.uniform(0.5, 1.6)
    for y in np.arange(0, shape[0], pitch):
        if rng.random() < 0.04:
            _fill(canvas, 0, y, shape[1], y + rng.integers(1, 5) * pitch + width)
        else:
            x = -rng.exponential(length)
            while x < shape[1]:
                run = pitch + rng.exponential(length)
                if rng.random() > empty:
                    _fill(canvas, x, y, x + run - pitch * 0.6, y + width)
                    if rng.random() < 0.25:
                        corner = x + rng.uniform(0, max(run - pitch, 1))
                        _fill(canvas, corner, y, corner + width, y + pitch * rng.integers(1, 4) + width)
                elif rng.random() < 0.3 and run > 4 * pitch:
                    for left in np.arange(x + pitch, x + run - 2 * pitch, 2 * fill_side):
                        _fill(canvas, left, y, left + fill_side, y + width)
                x += run
    return canvas


def _vias(rng: np.random.Generator, wires: np.ndarray, pitch: float, side: float, density: float) -> np.ndarray:
    """Square contacts at track crossings, only where a wire runs; mask in [0, 1]."""
    canvas = np.zeros_like(wires)
    for row in range(int(wires.shape[0] / pitch)):
        for column in np.flatnonzero(rng.random(int(wires.shape[1] / pitch)) < density):
            y, x = (row + 0.25) * pitch, (column + 0.25) * pitch
            if wires[min(int(y), wires.shape[0] - 1), min(int(x), wires.shape[1] - 1)] > 0.5:
                _fill(canvas, x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return canvas


def _cells(rng: np.random.Generator, shape: tuple[int, int], pitch: float, duty: float) -> np.ndarray:
    """Rows of standard cells from a small library, mirrored in alternate rows and bounded by supply rails; mask in [0, 1]."""
    tracks, width = int(rng.integers(7, 13)), pitch * duty
    height = round(tracks * pitch)
    library = []
    for _ in range(int(rng.integers(4, 9))):
        columns = int(rng.integers(2, 9))
        cell = np.zeros((height, max(round(columns * pitch), 2)), np.float32)
        for column in range(columns):
            x = (column + 0.3) * pitch
            for _ in range(int(rng.integers(1, 3))):
                y0, y1 = np.sort(rng.integers(2, tracks, 2)) * pitch
                _fill(cell, x, y0, x + width, y1 + width)
            if column + 1 < columns and rng.random() < 0.45:
                y = rng.integers(2, tracks - 1) * pitch
                _fill(cell, x, y, x + pitch * rng.integers(1, 3) + width, y + width)
            if rng.random() < 0.3:
                _fill(cell, x, 0, x + width, pitch * rng.uniform(1.5, 3))
        library.append(cell)
    canvas, gap = np.zeros(shape, np.float32), int(pitch * rng.choice([0, 0, 1, 3]))
    for row, top in enumerate(range(-int(rng.integers(height)), shape[0], height + gap)):
        x = -int(rng.integers(0, int(2 * pitch)))
        while x < shape[1]:
            cell = library[rng.integers(len(library))][:: 1 if row % 2 else -1]
            if rng.random() < 0.93:
                y0, y1, x0, x1 = max(top, 0), min(top + height, shape[0]), max(x, 0), min(x + cell.shape[1], shape[1])
                canvas[y0:y1, x0:x1] = cell[y0 - top : y1 - top, x0 - x : x1 - x]
            x += cell.shape[1]
        rail = top if row % 2 else top + height
        _fill(canvas, 0, rail - width * 1.2, shape[1], rail + width * 1.2)
    return canvas


def _memory(rng: np.random.Generator, shape: tuple[int, int], pitch: float, duty: float) -> np.ndarray:
    """Mirror-symmetric unit cell repeated as an array, interrupted by strap columns; mask in [0, 1]."""
    rows, columns = rng.integers(2, 6, 2)
    half = np.zeros((max(int(rows * pitch), 4), max(int(columns * pitch), 4)), np.float32)
    for _ in range(int(rows * columns * rng.uniform(0.4, 1.0)) + 1):
        y, x, length = rng.integers(rows) * pitch + pitch / 4, rng.integers(columns) * pitch + pitch / 4, pitch * rng.choice([0.5, 1, 2, 3])
        vertical, thick = rng.random() < 0.5, pitch * duty * rng.choice([1, 1, 1.5])
        _fill(half, x, y, x + (thick if vertical else length), y + (length if vertical else thick))
    half = np.vstack([half, half[::-1]]) if rng.random() < 0.8 else half
    unit = np.hstack([half, half[:, ::-1]]) if rng.random() < 0.8 else half
    canvas = np.tile(unit, (shape[0] // unit.shape[0] + 1, shape[1] // unit.shape[1] + 1))[: shape[0], : shape[1]].copy()
    if rng.random() < 0.4:
        x, strap = rng.uniform(0, shape[1]), pitch * rng.uniform(2, 5)
        _fill(canvas, x, 0, x + strap, shape[0], 0.0)
        _fill(canvas, x + strap * 0.3, 0, x + strap * 0.7, shape[0])
    return canvas


def _grating(rng: np.random.Generator, shape: tuple[int, int], pitch: float, duty: float) -> np.ndarray:
    """Parallel lines along y, perhaps ending at a line-end gap or a field edge, perhaps with a second pitch; mask in [0, 1]."""
    canvas, x = np.zeros(shape, np.float32), -rng.uniform(0, pitch)
    change, ratio = (rng.uniform(0, shape[1]), log_uniform(rng, 0.5, 2.5)) if rng.random() < 0.3 else (np.inf, 1.0)
    ends = rng.uniform(0.1, 0.9) * shape[0] if rng.random() < 0.35 else None
    gap, stagger = pitch * rng.uniform(0.6, 3), pitch * rng.choice([0, 0, 1, 3])
    line = 0
    while x < shape[1]:
        step = pitch * (ratio if x > change else 1.0)
        _fill(canvas, x, 0, x + step * duty, shape[0])
        if ends is not None:
            y = ends + stagger * (line % 2)
            _fill(canvas, x - 1, y, x + step * duty + 1, y + gap, 0.0)
        x, line = x + step, line + 1
    return canvas


def _holes(rng: np.random.Generator, shape: tuple[int, int], pitch: float, duty: float) -> np.ndarray:
    """Contact holes or dots on a square, staggered or hexagonal lattice, some missing or of another size; mask in [0, 1]."""
    canvas, aspect, stagger = np.zeros(shape, np.float32), rng.choice([1, 1, 1, 1.6, 2.5]), rng.choice([0.0, 0.5])
    row_pitch, missing, spread = pitch * (aspect if not stagger else aspect * rng.choice([0.5, 0.866, 1])), rng.choice([0, 0.02, 0.3]), rng.uniform(0, 0.08)
    side = pitch * duty
    for row in range(int(shape[0] / row_pitch) + 2):
        for column in range(-1, int(shape[1] / pitch) + 1):
            if rng.random() >= missing:
                a, y, x = side * np.exp(rng.normal(0, spread)), row * row_pitch, (column + stagger * (row % 2)) * pitch
                _fill(canvas, x, y, x + a, y + a * min(aspect, row_pitch / pitch * 1.2))
    return canvas


def _bends(rng: np.random.Generator, shape: tuple[int, int], pitch: float, duty: float) -> np.ndarray:
    """Bundles of wide wires with 45 degree corners, and pads, as on upper levels and old processes; mask in [0, 1]."""
    canvas, shift = np.zeros(shape, np.uint8), 16.0
    for _ in range(int(rng.integers(2, 7))):
        start, direction = rng.uniform(0, 1, 2) * shape[::-1], int(rng.integers(8))
        points = [start - 2 * max(shape) * np.array([np.cos(direction * np.pi / 4), np.sin(direction * np.pi / 4)]), start]
        for _ in range(int(rng.integers(1, 5))):
            direction += rng.choice([-1, 1])
            angle = direction * np.pi / 4
            points.append(points[-1] + rng.uniform(3, 15) * pitch * np.array([np.cos(angle), np.sin(angle)]))
        thickness = max(int(pitch * duty * rng.choice([1, 1, 2, 4])), 2)
        for wire in range(int(rng.integers(1, 7))):
            offset = wire * (thickness + pitch * (1 - duty)) * np.array([-np.sin(angle), np.cos(angle)])
            cv2.polylines(canvas, [np.int32((np.array(points) + offset) * shift)], False, 255, thickness, cv2.LINE_AA, 4)
    mask = canvas.astype(np.float32) / 255
    for _ in range(int(rng.integers(0, 6))):
        (x, y), side = rng.uniform(0, 1, 2) * shape[::-1], pitch * rng.uniform(2, 6)
        _fill(mask, x, y, x + side, y + side * rng.choice([0.5, 1, 1]))
    return mask


def _print(mask: np.ndarray, shape: tuple[int, int], blur: float, angle: float, bias: float) -> np.ndarray:
    """Signed distance in pixels (negative inside) to the outline that lithography prints: the mask blurred (round corners), turned and cut at a threshold."""
    aerial = cv2.GaussianBlur(mask, (0, 0), blur)
    turn = cv2.getRotationMatrix2D(((mask.shape[1] - 1) / 2, (mask.shape[0] - 1) / 2), angle, 1.0)
    turn[:, 2] -= (np.array(mask.shape[::-1]) - shape[::-1]) / 2
    aerial = cv2.warpAffine(aerial, turn, shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    near = np.clip((0.5 + bias - aerial) / np.maximum(np.hypot(*gradient(aerial)), 1e-3), -3, 3)
    inside = (aerial > 0.5 + bias).astype(np.uint8)
    far = np.clip(cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5) - cv2.distanceTransform(inside, cv2.DIST_L2, 5), -1e3, 1e3)
    # The distance transform counts whole pixels; the aerial image knows the outline to a fraction of one, but only close to it.
    blend = np.clip(np.abs(far) - 1.0, 0, 1)
    return np.float32(near * (1 - blend) + np.sign(far) * (np.abs(far) - 0.5) * blend)


def _damage(rng: np.random.Generator, mask: np.ndarray, pitch: float) -> int:
    """Open and bridge lines in place at a few points; returns how many."""
    count = int(rng.poisson(3)) if rng.random() < 0.6 else 0
    for _ in range(count):
        x, y, a, b = *(rng.uniform(0, 1, 2) * mask.shape[::-1]), *(pitch * rng.uniform(0.2, 0.7, 2))
        _fill(mask, x - a, y - b, x + a, y + b, float(rng.random() < 0.5))
    return count


def _render(rng: np.random.Generator, floor: np.ndarray, distance: np.ndarray, pitch: float, level: np.ndarray | float, buried: bool) -> np.ndarray:
    """Put one patterned layer on the picture below it: material, shadowed spaces and a bright edge that falls off faster outside than inside."""
    if buried:
        return floor + (level - floor) * coverage(distance, rng.uniform(1.5, 4)) * rng.uniform(0.2, 0.6)
    inside = coverage(distance, rng.uniform(1.0, 1.6))
    dx, dy = gradient(distance)
    detector, lean = rng.uniform(0, 2 * np.pi), rng.choice([0, 0.2, 0.5, 0.9])
    side = 1 + lean * np.clip(dx * np.cos(detector) + dy * np.sin(detector), -1, 1)
    inner, outer = max(pitch * rng.uniform(0.03, 0.16), 0.8), max(pitch * rng.uniform(0.01, 0.05), 0.6)
    from_edge = np.sqrt(distance**2 + 0.1)
    bloom = np.exp(-from_edge / np.where(distance < 0, inner, outer)) * side
    shadow = rng.uniform(0, 0.6) * np.exp(-np.maximum(distance, 0) / (pitch * rng.uniform(0.05, 0.3)))
    picture = floor * (1 - shadow) * (1 - inside) + level * inside
    picture = picture + rng.choice([0.1, 0.25, 0.5, 0.9]) * rng.uniform(0.6, 1.2) * bloom
    # A detector saturates softly: overlapping blooms must not push everything else into the dark.
    return np.where(picture > 0.7, 0.7 + 0.5 * np.tanh((picture - 0.7) / 0.5), picture)


def _particles(rng: np.random.Generator, picture: np.ndarray, pitch: float) -> int:
    """Irregular debris with bright rims and a soft shadow, drawn in place; returns the count."""
    count = int(rng.poisson(4)) if rng.random() < 0.3 else 0
    for _ in range(count):
        radius = max(pitch * log_uniform(rng, 0.08, 1.2), 1.5)
        window, distance = blob(rng, picture, *(rng.uniform(0, 1, 2) * picture.shape[::-1]), radius, log_uniform(rng, 0.75, 1.3))
        inside = coverage(distance)
        body = rng.uniform(0.2, 0.8) + 0.5 * np.exp(np.minimum(distance, 0) / max(radius * 0.25, 0.8)) + 0.12 * fractal_noise(rng, window.shape, 2.0, 2)
        window[:] = window * (1 - inside) * (1 - 0.5 * np.exp(-np.maximum(distance, 0) / (0.5 * radius))) + body * inside
    return count


MODES = {"wiring": _wiring, "cells": _cells, "memory": _memory, "grating": _grating, "holes": _holes, "bends": _bends}


def chip(seed: int | tuple[int, ...], shape: tuple[int, int] = (480, 640), pixel_size: float | None = None) -> Specimen:
    """A circuit seen from above: secondary-electron picture of one patterned level, with the levels below it shining through.

    image: (height, width) float32 in [0, 1]; raised edges are white lines, spaces are shadowed, metals show grains. pixel_size: nm, 1 to 50 when drawn.
    parameters: mode; pitch, line_width, edge_roughness (deviation), roughness_length, corner_radius in nm; angle in degrees; buried_layers, particles, defects.
    """
    rng = np.random.default_rng(seed)
    pixel = float(pixel_size or log_uniform(rng, 1, 50))
    mode = str(rng.choice(list(MODES), p=(0.24, 0.2, 0.16, 0.18, 0.12, 0.1)))
    pitch = max(log_uniform(rng, 7, 80) if mode != "cells" else log_uniform(rng, 6, 30), 26 / pixel)
    duty = float(rng.uniform(0.35, 0.62))
    angle = rng.choice([0.0, 90.0]) + rng.choice([0.0, rng.normal(0, 2), rng.uniform(-45, 45)], p=(0.4, 0.4, 0.2))
    turn = np.deg2rad(angle)
    canvas_shape = tuple(int(np.ceil(n)) + 8 for n in np.abs([[np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ shape)
    blur = max(pitch * min(duty, 1 - duty) * rng.uniform(0.12, 0.4), 0.8)
    roughness, length = min(rng.uniform(0.05, 0.9) + pitch * rng.uniform(0, 0.012), pitch * 0.04), log_uniform(rng, 4, max(pitch, 12))

    texture = fractal_noise(rng, shape, rng.uniform(0.6, 2.2), smallest=rng.uniform(1.4, 4))
    fine = fractal_noise(rng, shape, rng.uniform(0, 1.2), smallest=1.5, largest=log_uniform(rng, 4, 20))
    picture = rng.uniform(0.08, 0.6) * (1 + rng.uniform(0.02, 0.15) * texture)
    buried = int(rng.integers(0, 3))
    for level in range(buried):
        under_pitch = max(pitch * log_uniform(rng, 0.5, 2.5), 5)
        under = rng.choice([_wiring, _grating, _cells, _holes])(rng, canvas_shape, under_pitch, duty)
        printed = _print(under, shape, max(0.1 * under_pitch, 0.8), angle + 90 * (level % 2 == 0), 0.0)
        picture = _render(rng, picture, printed, under_pitch, rng.uniform(0.0, 0.7), buried=True)

    mask = MODES[mode](rng, canvas_shape, pitch, duty)
    if rng.random() < 0.25:
        border, neighbour = int(rng.uniform(0.2, 0.8) * canvas_shape[1]), str(rng.choice(list(MODES)[:5]))
        mask[:, border:] = MODES[neighbour](rng, canvas_shape, pitch * rng.choice([1.0, rng.uniform(1, 3)]), duty)[:, border:]
        _fill(mask, border - pitch, 0, border + pitch * rng.uniform(0, 2), canvas_shape[0], 0.0)
    defects = _damage(rng, mask, pitch)
    distance = _print(mask, shape, blur, angle, rng.uniform(-0.08, 0.08))
    distance = distance + roughness * fractal_noise(rng, shape, rng.uniform(2.2, 3.2), smallest=max(length / 2, 4), largest=6 * length)
    recessed = rng.random() < (0.7 if mode == "holes" else 0.15)
    distance = np.float32(-distance if recessed else distance)
    metal = rng.uniform(0.35, 0.85) * (1 + rng.uniform(0.01, 0.08) * texture[::-1] + log_uniform(rng, 0.005, 0.08) * fine)
    if rng.random() < 0.5:
        metal = metal + rng.uniform(0.02, 0.1) * polycrystal(rng, shape, max(pitch * rng.uniform(0.2, 1.5), 4))
    picture = _render(rng, picture, distance, pitch, metal, buried=False)
    if mode in ("wiring", "cells", "bends") and rng.random() < 0.7:
        side = pitch * duty * rng.uniform(0.6, 1.0)
        plugs = _print(_vias(rng, mask, pitch, side, rng.uniform(0.03, 0.4)), shape, max(side * 0.25, 0.8), angle, 0.0)
        picture = _render(rng, picture, plugs, pitch * 0.5, rng.uniform(0.1, 1.1), buried=False)
    particles = _particles(rng, picture, pitch)

    shading = 1 + rng.uniform(0, 0.12) * fractal_noise(rng, shape, 3.0, smallest=max(shape) / 3)
    image = normalise((picture + rng.uniform(0.003, 0.02) * fine) * shading, rng)
    lengths = {"pitch": pitch, "line_width": pitch * duty, "edge_roughness": roughness, "roughness_length": length, "corner_radius": blur}
    parameters = {"mode": mode} | {name: float(value * pixel) for name, value in lengths.items()}
    parameters |= {"angle": float(angle), "buried_layers": buried, "particles": particles, "defects": defects}
    return Specimen(image, pixel, "chip", parameters)
