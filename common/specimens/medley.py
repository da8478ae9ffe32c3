"""Pictures at low magnification, of no specimen in particular: blobs, aggregates, grains, textures, lines, fine lattices, masks and insets, thrown together.

A network that restores any micrograph needs edges, dots, lines and textures of every size and sign more than it needs true specimens. Shares and ranges are our
choice, after what the published low-resolution panels of CGRDN show (Lobato, Friedrich, Van Aert, npj Computational Materials 10, 2024).
"""

from __future__ import annotations

import cv2
import numpy as np

from .base import Specimen, blob, coverage, finish, fractal_noise, lobes, log_uniform, pixel_grid
from .crystal import OUTLINES, arrange, draw_columns, generic_cell, outline
from .lattice import splat

SHARES = {"grains": 0.3, "texture": 0.5, "blobs": 0.6, "lattice": 0.15, "lines": 0.3}  # of the pictures; drawn in this order, one over the other
MASKED, INSET = 0.5, 0.1
HABITS = ("flat", "ball", "soft", "shell", "lump", "rod", "aggregate")


def _grains(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """Voronoi cells, 10 to 300, each with a grey level and a linear shading, and boundary lines bright, dark or absent; (height, width), about [-1, 2]."""
    # base.polycrystal has no shading and keeps its borders to itself.
    count = int(min(log_uniform(rng, 10, 300), shape[0] * shape[1] / 60))
    fine = (shape[0] * 2, shape[1] * 2)
    seeds = np.ones(fine, np.uint8)
    seeds[rng.integers(fine[0], size=count), rng.integers(fine[1], size=count)] = 0
    centres = np.argwhere(seeds == 0)
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    owner = np.zeros(labels.max() + 1, int)
    owner[labels[centres[:, 0], centres[:, 1]]] = np.arange(len(centres))
    grain = owner[labels]
    shading = float(rng.uniform(0, 0.5)) * (rng.random() < 0.7)
    size = np.sqrt(fine[0] * fine[1] / count)
    slopes = rng.normal(0, shading / size, (len(centres), 2)).astype(np.float32)
    levels = rng.uniform(0, 1, len(centres)).astype(np.float32) - (slopes * centres).sum(1).astype(np.float32)
    rows, columns = pixel_grid(fine)
    image = levels[grain] + slopes[grain, 0] * rows + slopes[grain, 1] * columns
    line, width = float(rng.choice([0, rng.uniform(-1, 1)], p=[0.3, 0.7])), float(log_uniform(rng, 0.7, 3.0))
    inner = np.ones(fine, np.uint8)
    inner[:, 1:][grain[:, 1:] != grain[:, :-1]] = 0
    inner[1:][grain[1:] != grain[:-1]] = 0
    to_border = cv2.distanceTransform(inner, cv2.DIST_L2, 5)
    image = image + np.float32(line) * coverage(to_border - width, softness=2.0)
    note = {"grains": len(centres), "grain_shading": shading, "grain_line": line, "grain_line_width": width}
    return cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), note


def _texture(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """Gaussian random field of power 1/f^b, b 1-3 (a whiter one would be noise, no specimen), below 0.1-0.8 of Nyquist, as it is or folded into ridges or into
    two phases; zero mean, (height, width)."""
    power, cut, form = float(rng.uniform(1, 3)), float(rng.uniform(0.1, 0.8)), str(rng.choice(["plain", "ridges", "phases"], p=[0.6, 0.2, 0.2]))
    field = fractal_noise(rng, shape, power, smallest=2 / cut)
    if form == "ridges":
        field = np.float32(1) - np.sqrt(field**2 + np.float32(0.05))
    elif form == "phases":
        field = np.tanh(field * np.float32(log_uniform(rng, 1.5, 8.0)))
    return field, {"texture_power": power, "texture_cut": cut, "texture_form": form}


def _body(rng: np.random.Generator, picture: np.ndarray, centre: np.ndarray, radius: float, habit: str, aspect: float, soft: float):
    """Window of a picture around one body, and its relative thickness there: a view and a map of the same shape."""
    if habit == "lump":
        window, distance = blob(rng, picture, centre[1], centre[0], radius, aspect**0.3)
    else:
        reach = int(radius * max(aspect, 1) * (2.2 if habit == "soft" else 1) + 2 * soft) + 3
        top, left = max(int(centre[0]) - reach, 0), max(int(centre[1]) - reach, 0)
        window = picture[top : int(centre[0]) + reach + 1, left : int(centre[1]) + reach + 1]
        y = np.arange(top, top + window.shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
        x = np.arange(left, left + window.shape[1], dtype=np.float32) - np.float32(centre[1])
        angle = rng.uniform(0, np.pi)
        y, x = np.float32(np.cos(angle)) * y - np.float32(np.sin(angle)) * x, np.float32(np.sin(angle)) * y + np.float32(np.cos(angle)) * x
        if habit == "rod":
            distance = np.hypot(y, np.maximum(np.abs(x) - np.float32(radius * (aspect - 1)), 0)) - np.float32(radius)
        else:
            distance = np.hypot(y, x / np.float32(aspect)) - np.float32(radius)
    if window.size == 0:
        return window, distance
    if habit in ("ball", "aggregate", "rod"):
        thickness = np.sqrt(np.clip(1 - np.maximum(1 + distance / np.float32(radius), 0) ** 2, 0, 1))
        return window, thickness if soft < 1.5 else cv2.GaussianBlur(thickness, (0, 0), 0.4 * soft)
    if habit == "soft":
        return window, np.exp(-1.5 * np.clip(1 + distance / np.float32(radius), 0, None) ** 2)
    edge = 1 / (1 + np.exp(np.clip(4 * distance / np.float32(max(soft, 1.0)), -30, 30)))
    if habit == "shell":
        edge = edge * np.where(distance < -0.45 * radius, 1.0, 0.4)
    return window, edge


def _blobs(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """Up to 80 bodies of 2-40 pixels radius that add up, (height, width) float32 from 0 where there are none; radii and centres in pixels in the note.

    habit: plates with a hard or soft edge, balls by their projected thickness, Gaussian spots, cores in shells, lumps, rods, or an aggregate of balls with
    small bright particles on it, as a catalyst on its support.
    """
    habit = str(rng.choice(HABITS, p=[0.16, 0.18, 0.12, 0.06, 0.15, 0.08, 0.25]))
    image = np.zeros(shape, np.float32)
    typical = float(log_uniform(rng, 2, 40 if habit != "aggregate" else 12))
    fewest = min(int(0.03 * shape[0] * shape[1] / (np.pi * typical**2)) + 1, 60)  # so that there is something to see
    count, spread = int(rng.integers(fewest, 81)), float(rng.uniform(0.02, 0.6))
    radii = np.clip(typical * np.exp(rng.normal(0, spread, count)), 2, 40)
    aspect = float(rng.uniform(2, 6)) if habit == "rod" else float(1 + rng.exponential(0.15))
    radii = radii[: max(int(np.searchsorted(np.cumsum(np.pi * radii**2 * aspect), 0.8 * shape[0] * shape[1])), 1)]
    centres = rng.uniform(0, 1, (len(radii), 2)) * np.array(shape)
    soft, mixed = float(rng.uniform(0, 8)) * (rng.random() < 0.6), rng.random() < 0.15
    levels = np.clip(rng.normal(1, rng.uniform(0, 0.4), len(radii)), 0.2, 2) * np.where(mixed & (rng.random(len(radii)) < 0.5), -1, 1)
    note = {"habit": habit, "radii": radii, "centres": centres, "blob_edge": soft, "blob_aspect": aspect, "blob_levels": levels}
    if habit == "aggregate":
        balls = int(rng.integers(8, 40))
        size = float(log_uniform(rng, max(8, 2 * typical), 40))
        walk = np.cumsum(rng.normal(0, size * rng.uniform(0.7, 1.3), (balls, 2)), 0)
        places = np.array(shape) * rng.uniform(0.25, 0.75, 2) + walk - walk.mean(0)
        for place in places:
            window, thickness = _body(rng, image, place, float(size * np.exp(rng.normal(0, 0.3))), "ball", 1.0, 2.0)
            window += np.float32(rng.uniform(0.3, 1.0)) * thickness
        image += np.float32(rng.uniform(0, 0.2)) * np.sqrt(image) * fractal_noise(rng, shape, rng.uniform(1.5, 3.0), smallest=3)
        chosen = places[rng.integers(len(places), size=len(radii))] + rng.normal(0, 0.7 * size, (len(radii), 2))
        note |= {"support_radius": size, "support_balls": balls, "centres": chosen}
        levels, soft, centres = levels * float(rng.uniform(0.8, 2.5)), min(soft, 2.0), chosen
    fringe = float(rng.normal(0, 0.3)) * (rng.random() < 0.3 and habit in ("flat", "ball", "lump", "rod"))
    for centre, radius, level in zip(centres, radii, levels, strict=True):
        if habit == "aggregate" and rng.random() < 0.5:
            centre = centre + rng.normal(0, 2 * radius, 2)
        window, thickness = _body(rng, image, centre, radius, habit, aspect, soft)
        if window.size:
            window += np.float32(level) * thickness
            if fringe:  # of a defocused edge
                window += np.float32(fringe) * (cv2.GaussianBlur(thickness, (0, 0), 1.0) - cv2.GaussianBlur(thickness, (0, 0), 2.5))
    return image, note | {"blob_fringe": fringe}


def _lines(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """One to ten filaments or cracks of 0.7-3 pixels full width, height 1 where one runs alone, (height, width) float32."""
    form, count = str(rng.choice(["filament", "crack"])), int(rng.integers(1, 11))
    step, points, widths = 0.5, [], []
    for _ in range(count):
        length, width = float(rng.uniform(0.2, 1.4) * max(shape)), float(log_uniform(rng, 0.7, 3.0))
        knots = max(int(length / step), 4)
        if form == "filament":  # curvature wanders
            heading = np.cumsum(np.cumsum(rng.normal(0, log_uniform(rng, 1e-4, 2e-3), knots)) + rng.normal(0, 0.003))
        else:  # straight pieces that turn at once
            heading = np.repeat(np.cumsum(rng.normal(0, rng.uniform(0.2, 0.7), knots)), int(rng.integers(6, 30)))[:knots]
        heading = heading + rng.uniform(0, 2 * np.pi)
        path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], 1) * step, 0)
        points.append(path - path[rng.integers(knots)] + rng.uniform(0, 1, 2) * np.array(shape))
        widths.append(np.full(knots, max(width / 2.355, 0.6)))
    points, sigma = np.concatenate(points), np.concatenate(widths)
    near = np.all((points > -8) & (points < np.array(shape) + 8), axis=1)
    image = splat(shape, points[near], step / (np.sqrt(2 * np.pi) * sigma[near]), sigma[near]) if near.any() else np.zeros(shape, np.float32)
    return image, {"lines": count, "line_form": form, "line_width": float(2.355 * sigma.mean())}


def _lattice(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """A lattice of 3-8 pixels, whole or within an outline, heights up to about 1, (height, width) float32."""
    cell = generic_cell(rng, 3.0, 8.0)
    sigma = max(float(rng.uniform(0.2, 0.35)) * cell.spacing, 0.7)
    found = arrange(rng, shape, cell, "grain" if rng.random() < 0.3 else "none", float(rng.uniform(0, 0.02)) * (rng.random() < 0.4), margin=4 * sigma)
    image = draw_columns(shape, found.positions, found.peaks / found.peaks.max(), sigma)
    if rng.random() < 0.6:
        distance, thickness = outline(rng, shape, str(rng.choice(OUTLINES)))
        image = image * coverage(distance, softness=3.0) * thickness
    return image, {"lattice_spacing": cell.spacing, "lattice_width": sigma}


DRAW = {"grains": _grains, "texture": _texture, "blobs": _blobs, "lattice": _lattice, "lines": _lines}


def _content(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, dict]:
    """A picture of zero mean and unit deviation with at least one component of `SHARES`, masked at times; lengths in its note in pixels."""
    chosen = [name for name, share in SHARES.items() if rng.random() < share] or [str(rng.choice(["blobs", "texture", "grains"]))]
    image, note, weights = np.zeros(shape, np.float32), {"components": chosen}, []
    for name in chosen:
        part, details = DRAW[name](rng, shape)
        weight = float(log_uniform(rng, 0.15, 1.0)) * float(rng.choice([-1, 1]))
        weight *= 0.5 if name == "texture" and len(chosen) > 1 else 1.0
        image = image + np.float32(weight / max(float(part.std()), 0.15)) * part
        weights.append(weight)
        note |= details
    note["weights"] = weights
    note["mask"] = str(rng.choice(OUTLINES)) if rng.random() < MASKED else "none"
    if note["mask"] != "none":
        distance, thickness = outline(rng, shape, note["mask"])
        soft, thick, level = float(log_uniform(rng, 1.0, 8.0)), float(rng.uniform(-2, 2)) * (rng.random() < 0.5), float(rng.uniform(-1, 1))
        ground = np.float32(np.percentile(image, 50 + 50 * level))  # the mask's outside is a bright or dark ground, plain or with a faint texture
        grit = float(log_uniform(rng, 0.03, 0.5)) * (rng.random() < 0.5)
        if grit:
            ground = ground + np.float32(grit * image.std()) * fractal_noise(rng, shape, rng.uniform(1, 3), smallest=2.5)
        image = ground + (image - ground + np.float32(thick * image.std()) * thickness) * coverage(distance, softness=soft)
        note |= {"mask_edge": soft, "mask_thickness": thick, "mask_level": level, "mask_grit": grit}
    return (image - image.mean()) / max(float(image.std()), 1e-6), note


def medley(seed, shape: tuple[int, int] = (480, 640), pixel_size: float | None = None) -> Specimen:
    """A medley of what micrographs at low magnification are made of, in both contrasts, on an uneven background.

    seed: int or tuple of ints; shape: (height, width) in pixels, at least 64 x 64; pixel_size: nm, drawn from 0.2-20 when None, a label only: everything is
    drawn in pixels. Image (height, width) float32 spanning [0, 1], nothing above 0.9 of Nyquist.
    parameters: `components` (names) and their `weights` (signed), what each of them drew, `mask`, `inset_radius` (0: none); a body's `radii` (n,), `centres`
    (n, 2) row, column, and all other lengths in nm.
    """
    rng = np.random.default_rng(seed)
    pixel_size = float(log_uniform(rng, 0.2, 20)) if pixel_size is None else float(pixel_size)
    image, note = _content(rng, shape)
    radius, ring = 0.0, 0.0
    if rng.random() < INSET:
        other, inner = _content(rng, shape)
        radius, ring = float(rng.uniform(0.12, 0.4) * min(shape)), float(rng.uniform(-3, 3)) * (rng.random() < 0.4)
        rows, columns = pixel_grid(shape)
        row, column = rng.uniform(0.2, 0.8, 2) * np.array(shape)
        distance = np.hypot(rows - np.float32(row), columns - np.float32(column)) - np.float32(radius)
        share = coverage(distance, softness=1.5)
        image = image + share * (np.float32(rng.uniform(-1, 1)) + np.float32(rng.uniform(0.3, 1.5)) * other - image)
        image = image + np.float32(ring) * np.exp(-((distance / np.float32(1.2)) ** 2))
        note["inset_components"] = inner["components"]
    background, absorbing = float(rng.uniform(0, 1)), rng.random() < 0.3
    image = image + np.float32(background * np.ptp(image) * rng.uniform(0, 0.7)) * lobes(rng, shape)
    if absorbing:  # a bright field sees thickness through an exponential, which keeps detail where it is thin
        image = np.exp(-np.float32(rng.uniform(0.5, 2.0)) * (image - image.min()) / np.float32(max(np.ptp(image) / 2, 1e-6)))
    lengths = ("radii", "centres", "blob_edge", "support_radius", "grain_line_width", "line_width", "lattice_spacing", "lattice_width", "mask_edge")
    note = {key: value * pixel_size if key in lengths else value for key, value in note.items()}
    parameters = note | {"background": background, "absorbing": bool(absorbing), "inset_radius": radius * pixel_size, "inset_ring": ring}
    return Specimen(finish(image), pixel_size, "medley", parameters)
