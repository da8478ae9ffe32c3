"""Secondary-electron pictures of fibrous specimens: mats, wires, rods, nanotubes."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from .base import Specimen, expose, fit_kind, fractal_noise, log_uniform

# kind: diameter (nm), diameter (pixels), length / diameter, bend (rad per persistence length), persistence length / diameter, strands per bundle
_FIBRES = {
    "nanotubes": ((4, 80), (1.3, 7), (100, 1000), (0.2, 0.8), (8, 40), (1, 6)),
    "nanowires": ((20, 400), (2, 14), (20, 300), (0.0, 0.15), (20, 80), (1, 2)),
    "rods": ((40, 4000), (7, 60), (2.5, 12), (0.0, 0.03), (5, 10), (1, 1)),
    "electrospun": ((60, 3000), (5, 50), (100, 1000), (0.1, 0.8), (6, 25), (1, 2)),
    "fibrils": ((20, 500), (3, 18), (60, 500), (0.05, 0.5), (10, 40), (2, 9)),
    "felt": ((800, 20000), (14, 90), (10, 100), (0.05, 0.5), (4, 12), (1, 1)),
}


def _wander(rng: np.random.Generator, s: np.ndarray, spacing: float, table: np.ndarray) -> np.ndarray:
    """A smooth random function of arc length with unit standard deviation that changes over `spacing` pixels, read from a periodic table."""
    position = rng.uniform(0, table.size) + s * (16 / spacing)
    whole = position.astype(np.int64)
    part = position - whole
    return table[whole % table.size] * (1 - part) + table[(whole + 1) % table.size] * part


def _path(rng: np.random.Generator, shape, length: float, bend: float, persistence: float, heading: float, table: np.ndarray) -> np.ndarray:
    """A smooth random curve through the frame, sampled every 0.6 pixel: columns x, y, heading (rad), arc length (pixels)."""
    s = np.arange(0, length, 0.6)
    theta = np.cumsum(_wander(rng, s, persistence, table)) * 0.6 * bend / persistence
    theta += heading - theta.mean() + 0.3 * bend * _wander(rng, s, persistence, table)
    x, y = np.cumsum(np.cos(theta)) * 0.6, np.cumsum(np.sin(theta)) * 0.6
    anchor = rng.integers(s.size)
    x += rng.uniform(-0.05, 1.05) * shape[1] - x[anchor]
    y += rng.uniform(-0.05, 1.05) * shape[0] - y[anchor]
    return np.stack([x, y, theta, s], 1).astype(np.float32)


def _strand(rng: np.random.Generator, spine: np.ndarray, size: float, look: dict) -> tuple[np.ndarray, np.ndarray]:
    """One strand of a bundle that follows `spine`: its own path (same columns) and its radius along it, with beads and round or flat ends, in pixels."""
    path = spine.copy()
    s = path[:, 3]
    if look["strands"] > 1:
        sway = 0.7 * size * np.sqrt(look["strands"] - 1) * (rng.normal() + 0.6 * _wander(rng, s, 40 * size, look["table"]))
        path[:, 0] -= sway * np.sin(path[:, 2])
        path[:, 1] += sway * np.cos(path[:, 2])
        path[:, 2] += np.arctan(np.gradient(sway, s))
    radius = 0.5 * size * np.clip(1 + look["uneven"] * _wander(rng, s, 2 * size, look["table"]), 0.5, 1.6)
    for centre in rng.uniform(0, s[-1], rng.poisson(look["beads"] * s[-1] / size)):
        radius *= 1 + rng.uniform(0.5, 2.5) * np.exp(-(((s - centre) / (size * rng.uniform(1, 2.5))) ** 2))
    if rng.random() < 0.5:
        radius *= np.sqrt(np.clip(1 - np.clip(1 - np.minimum(s, s[-1] - s) / (0.5 * size), 0, 1) ** 2, 0.02, 1))
    return path, np.maximum(radius, 0.3).astype(np.float32)


def _tube(rng: np.random.Generator, path: np.ndarray, radius: np.ndarray, shape, look: dict) -> tuple[np.ndarray, ...]:
    """Pixels covered by a tube: flat index, coverage in [0, 1], signal (1 is the brightest flank of the uppermost layer)."""
    total, reach = path[-1, 3], float(radius.max()) + 1
    inside = (path[:, 0] > -reach) & (path[:, 0] < shape[1] + reach) & (path[:, 1] > -reach) & (path[:, 1] < shape[0] + reach)
    taper = np.gradient(radius, 0.6)[inside]
    path, radius = path[inside], radius[inside]
    # 0.7 pixel is just under 1 / sqrt(2), the widest grid of samples that misses no pixel in any orientation.
    across = np.arange(-reach, reach + 0.7, 0.7, dtype=np.float32)
    nx, ny = -np.sin(path[:, 2]), np.cos(path[:, 2])
    column, row = np.rint(path[:, :1] + across * nx[:, None]), np.rint(path[:, 1:2] + across * ny[:, None])
    keep = np.nonzero((column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0]) & (np.abs(across) <= radius[:, None] + 1))
    column, row, sample = column[keep], row[keep], keep[0]
    nx, ny, dx, dy = nx[sample], ny[sample], column - path[sample, 0], row - path[sample, 1]
    offset, ahead = dx * nx + dy * ny, dx * ny - dy * nx
    along = path[sample, 3] + ahead
    r = np.maximum(radius[sample] + taper[sample] * ahead, 0.3)
    low, high = np.clip((offset - 0.5) / r, -1, 1), np.clip((offset + 0.5) / r, -1, 1)
    # The mean height of the cylinder over the pixel, not its value at the centre: a thin bright rim would break up into dots.
    arc_low, arc_high = np.arcsin(low), np.arcsin(high)
    area = 0.5 * (high * np.sqrt(1 - high * high) + arc_high - low * np.sqrt(1 - low * low) - arc_low)
    flank = np.clip(1 - area / np.maximum(high - low, 1e-4), 0, 1) ** look["sharpness"]
    u = 0.5 * (low + high)
    if look["faceted"]:
        edge = (np.abs(u) - 0.55) * r
        flank = 0.35 * flank + 0.5 * np.clip(edge + 0.5, 0, 1) + 0.5 * np.exp(-(edge**2))
    light = look["side"] * (nx * np.cos(look["towards"]) + ny * np.sin(look["towards"])) * u
    relief, start = look["relief"], rng.integers(1024)
    texture = relief[(0.5 * (arc_low + arc_high) * r + start).astype(int) % 256, (along + start).astype(int) % 1024] * look["roughness"]
    texture += look["banding"] * np.sin(2 * np.pi * along / look["band"])
    tone = np.exp(rng.normal(0, 0.1)) * np.interp(along, np.linspace(0, total, 12), rng.normal(1, 0.1, 12)).astype(np.float32)
    signal = tone * (0.4 + light + look["rim"] * flank) * (1 + texture * np.minimum(1, r / 4))
    alpha = np.clip((high - low) * r, 0, 1) * np.clip(np.minimum(along, total - along) + 0.5, 0, 1)
    return (row * shape[1] + column).astype(np.int64), alpha, signal


def fibres(seed, shape=(480, 640), pixel_size: float | None = None) -> Specimen:
    """Secondary-electron picture of overlapping fibres, wires, rods or tubes, (height, width) in [0, 1]; 2 to 200 nm per pixel.

    Every fibre is a cylinder: its flanks, seen at grazing incidence, are brighter than its crest, one side faces the detector,
    deeper layers are darker (few electrons escape), out of focus, and shadowed where an upper fibre passes over them.
    """
    rng = np.random.default_rng(seed)
    drawn = float(log_uniform(rng, 2, 200))
    pixel_size = drawn if pixel_size is None else float(pixel_size)
    kind, diameter = fit_kind(rng, _FIBRES, pixel_size)
    _, _, lengths, bends, persistences, strands = _FIBRES[kind]
    spread, bend, persistence = rng.uniform(0.03, 0.35), rng.uniform(*bends), diameter * float(log_uniform(rng, *persistences))
    length, diagonal = diameter * float(log_uniform(rng, *lengths)), float(np.hypot(*shape))
    heading, disorder = rng.uniform(0, np.pi), float(rng.choice([0.1, 0.4, 3.0], p=[0.2, 0.25, 0.55]))
    # No more than some 1000 fibres: beyond, thin short ones merge into a texture and only cost time.
    cover, layers = min(float(log_uniform(rng, 0.5, 4.5)), 1000 * diameter * min(length, diagonal) / (shape[0] * shape[1])), int(rng.integers(5, 11))
    fade, shadow, defocus = rng.uniform(0.25, 0.9), rng.uniform(0.2, 0.7), log_uniform(rng, 0.05, 2.5)
    relief = fractal_noise(rng, (256, 1024), rng.uniform(0.8, 2.2), largest=40)
    if kind in ("felt", "fibrils") or rng.random() < 0.3:
        relief = cv2.resize(relief[:, : rng.integers(40, 200)], (1024, 256), interpolation=cv2.INTER_CUBIC)
        relief = 0.8 * relief / relief.std() + 0.4 * fractal_noise(rng, (256, 1024), 1.0)
    table = gaussian_filter1d(rng.normal(0, 1, 16384), 9.6, mode="wrap")
    table /= table.std()
    look = {
        "rim": rng.uniform(0.2, 1.0), "sharpness": rng.uniform(1.0, 4.0), "side": rng.uniform(0.0, 0.35), "towards": rng.uniform(0, 2 * np.pi),
        "roughness": float(log_uniform(rng, 0.015, 0.2)), "uneven": rng.uniform(0, 0.02 if kind in ("rods", "nanowires") else 0.08),
        "faceted": kind == "rods" and rng.random() < 0.6, "beads": rng.uniform(0.01, 0.04) * (kind in ("electrospun", "nanotubes") and rng.random() < 0.35),
        # Collagen repeats every 67 nm; where that cannot be resolved, any periodic twist.
        "banding": rng.uniform(0.05, 0.2) * (kind == "fibrils" and rng.random() < 0.6), "band": max(67.0 / pixel_size, 0.5 * diameter, 4.0),
        "strands": strands[1], "relief": relief, "table": table,
    }  # fmt: skip
    ground = 1 + rng.uniform(0, 0.12) * fractal_noise(rng, shape, 3.2) + rng.uniform(0.02, 0.12) * fractal_noise(rng, shape, 1.3)
    canvas, count = (rng.uniform(0.05, 0.4) * (1 - fade) * ground).astype(np.float32), 0
    for layer in range(layers):
        height = layer / (layers - 1)
        tubes, budget = [], cover * canvas.size / layers
        while budget > 0:
            size = diameter * np.exp(rng.normal(0, spread))
            reach = max(min(length * np.exp(rng.normal(0, 0.25)), 1.5 * diagonal), 2 * size)
            spine = _path(rng, shape, reach, bend, persistence, heading + rng.normal(0, disorder), table)
            for _ in range(int(rng.integers(strands[0], strands[1] + 1))):
                tubes.append(_tube(rng, *_strand(rng, spine, size, look), shape, look))
                # The samples cover each pixel about twice; a fibre that misses the frame must use up something too.
                budget -= max(0.42 * tubes[-1][0].size, 20 * size)
        mask = np.zeros(canvas.size, np.float32)
        for index, alpha, _ in tubes:
            mask[index] = np.maximum(mask[index], alpha)
        canvas *= 1 - shadow * cv2.GaussianBlur(mask.reshape(shape), (0, 0), max(0.5 * diameter, 1.0))
        if height < 0.6 and defocus > 0.4:
            canvas = cv2.GaussianBlur(canvas, (0, 0), defocus)
        flat = canvas.ravel()
        for index, alpha, signal in tubes:
            flat[index] += alpha * ((height * fade + 1 - fade) * signal - flat[index])
        count += len(tubes)
    canvas *= 1 + rng.uniform(0, 0.12) * fractal_noise(rng, shape, 3.0)
    lengths_nm = {"diameter": diameter * pixel_size, "length": length * pixel_size, "persistence": persistence * pixel_size}
    drawn_look = {k: look[k] for k in ("rim", "roughness", "faceted", "beads", "banding")}
    parameters = {"kind": kind, **lengths_nm, "diameter_spread": spread, "bend": bend, "coverage": cover, "disorder": disorder, "count": count, **drawn_look}
    return Specimen(expose(canvas, rng), pixel_size, "fibres", parameters)
