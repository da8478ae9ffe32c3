"""Powders in the scanning electron microscope: spheres, lumps, crystals, platelets and cauliflowers, from loose monolayers to deep heaps."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from .base import Specimen, coverage, fractal_noise, log_uniform, normalise, power_law

KINDS = {"spheres": 0.24, "lumps": 0.2, "crystals": 0.2, "platelets": 0.1, "cauliflower": 0.12, "mixed": 0.14}  # name: share of the pictures
LAYOUTS = ("lattice", "loose", "packed", "heap", "leaves")
MARGIN = 160  # pixels by which the shared texture exceeds the frame, so that every particle can cut out its own piece


class Look(NamedTuple):
    """How surfaces of one powder emit: shared by all its particles.

    texture: (height + MARGIN, width + MARGIN, 3) float32: surface slope along x and along y (rise per pixel) and relative emission (mean 1).
    rim, rim_power: emission gained at grazing incidence, and how narrowly it hugs the outline.
    light: detector direction along x and y, scaled by its strength.
    edge, edge_width: emission gained along crystal edges, and its reach in pixels.
    shadow, shadow_reach: share of signal lost beside a particle, and its reach in particle radii.
    """

    texture: np.ndarray
    rim: float
    rim_power: float
    light: np.ndarray
    edge: float
    edge_width: float
    shadow: float
    shadow_reach: float


def _surface_texture(rng: np.random.Generator, shape: tuple[int, int], radius: float) -> tuple[np.ndarray, str]:
    """A patch of particle surface, (height, width, 3) float32 (slope x, slope y, relative emission), and the name of its roughness."""
    name = str(rng.choice(["smooth", "grainy", "nodular", "cracked", "fractal"], p=[0.2, 0.25, 0.2, 0.15, 0.2]))
    wavelength = log_uniform(rng, 2.5, max(4.0, radius * 0.5))
    relief = fractal_noise(rng, shape, rng.uniform(2.0, 3.6), largest=max(8.0, radius * 2))
    emission = 1 + rng.uniform(0.01, 0.06) * fractal_noise(rng, shape, rng.uniform(0.6, 1.8), smallest=1.6)
    strength = rng.uniform(0.03, 0.12) if name == "smooth" else rng.uniform(0.15, 0.5)
    if name == "grainy":
        relief = relief + rng.uniform(0.5, 1.5) * fractal_noise(rng, shape, 1.0, smallest=wavelength * 0.7, largest=wavelength * 3)
    elif name == "nodular":
        nodules = fractal_noise(rng, shape, 1.0, smallest=wavelength, largest=wavelength * 2.5)
        relief, strength = 0.3 * relief - np.sqrt(nodules**2 + 0.02), 1.5 * strength
    elif name == "cracked":
        lines = fractal_noise(rng, shape, 2.2, smallest=2.5, largest=max(10.0, radius * rng.uniform(0.4, 1.2)))
        fine = fractal_noise(rng, shape, 1.5, smallest=2.0, largest=max(8.0, radius * 0.4))
        crack = cv2.GaussianBlur(np.exp(-((lines / np.float32(rng.uniform(0.06, 0.14))) ** 2)) * (fine > -0.4), (0, 0), 0.6)
        emission = emission * (1 - rng.uniform(0.4, 0.85) * crack)
        relief, strength = relief - 2 * crack, 0.6 * strength
    slope_x, slope_y = cv2.Scharr(relief, cv2.CV_32F, 1, 0), cv2.Scharr(relief, cv2.CV_32F, 0, 1)
    scale = strength / (np.hypot(slope_x, slope_y).mean() + 1e-6)
    return np.dstack([slope_x * scale, slope_y * scale, emission]).astype(np.float32), name


def _look(rng: np.random.Generator, shape: tuple[int, int], radius: float) -> tuple[Look, str]:
    """Draw the surface and the emission law of one powder; radius is the typical particle radius in pixels."""
    texture, name = _surface_texture(rng, (shape[0] + MARGIN, shape[1] + MARGIN), radius)
    angle = rng.uniform(0, 2 * np.pi)
    light = np.array([np.cos(angle), np.sin(angle)], np.float32) * rng.uniform(0, 0.3)
    edge_width = min(log_uniform(rng, 0.7, 4.0), radius * 0.15 + 0.5)
    rim, edge, shadow = (rng.uniform(0.3, 1.2), log_uniform(rng, 0.5, 4.0)), (rng.uniform(0.1, 0.7), edge_width), (rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.6))
    return Look(texture, *rim, light, *edge, *shadow), name


def _lattice(rng: np.random.Generator, shape: tuple[int, int], radius: float) -> np.ndarray:
    """Close-packed monolayer with slight disorder and a few misoriented domains: (n, 2) positions x, y in pixels."""
    reach = np.hypot(*shape) / 2 + 2 * radius
    spacing = 2 * radius * rng.uniform(1.0, 1.06)
    count = int(reach / spacing * 1.2) + 2
    i, j = np.mgrid[-count : count + 1, -count : count + 1]
    lattice = np.stack([(i + 0.5 * (j % 2)) * spacing, j * spacing * np.sqrt(0.75)], -1).reshape(-1, 2)
    centres = rng.uniform(-reach, reach, (rng.integers(1, 5), 2))
    points = []
    for domain in range(len(centres)):
        turn = Rotation.from_euler("z", rng.uniform(0, np.pi / 3)).as_matrix()[:2, :2]
        turned = lattice @ turn + rng.uniform(-spacing, spacing, 2)
        nearest = np.argmin(np.hypot(*(turned[:, None] - centres[None]).transpose(2, 0, 1)), 1)
        points.append(turned[nearest == domain])
    points = np.concatenate(points) + np.array(shape[::-1]) / 2
    return points + rng.normal(0, radius * rng.uniform(0.005, 0.06), points.shape)


def _relax(points: np.ndarray, radii: np.ndarray, steps: int) -> np.ndarray:
    """Push overlapping discs apart, in place; (n, 2) positions and (n,) radii in pixels."""
    for _ in range(steps):
        pairs = cKDTree(points).query_pairs(2 * np.percentile(radii, 95), output_type="ndarray")
        delta = points[pairs[:, 0]] - points[pairs[:, 1]]
        distance = np.hypot(delta[:, 0], delta[:, 1]) + 1e-6
        push = np.maximum(radii[pairs].sum(1) - distance, 0)[:, None] * delta / distance[:, None] * 0.4
        np.add.at(points, pairs[:, 0], push)
        np.add.at(points, pairs[:, 1], -push)
    return points


def _arrange(rng: np.random.Generator, shape: tuple[int, int], layout: str, radius: float) -> tuple[np.ndarray, float]:
    """Place particles: (n, 4) of x, y, z, radius in pixels (z towards the detector), and the spread of sizes (standard deviation of their logarithm)."""
    (height, width), spread = shape, 0.02 if layout == "lattice" else float(rng.choice([0.02, rng.uniform(0.03, 0.12), rng.uniform(0.12, 0.5)]))
    area, low, high = (height + 3 * radius) * (width + 3 * radius), -1.5 * radius, np.array([width, height]) + 1.5 * radius
    if layout == "lattice":
        points = _lattice(rng, shape, radius)
        radii = radius * np.exp(rng.normal(0, spread, len(points)))
        depth = rng.normal(0, 0.1 * radius, len(points))
    elif layout == "leaves":
        largest, smallest, power = radius * 2.5, max(2.0, radius * 0.25), rng.uniform(1.0, 2.2)
        radii = power_law(rng, smallest, largest, power, 1300)
        radii = radii[: max(3, int(np.searchsorted(np.cumsum(np.pi * radii**2), rng.uniform(2.0, 5.0) * area)))]
        spread = float(np.log(radii).std())
        points = rng.uniform(low, high, (len(radii), 2))
        depth = rng.uniform(0, 8 * radius, len(radii))
    else:
        layers = {"loose": rng.uniform(0.15, 0.6), "packed": rng.uniform(0.75, 1.0), "heap": rng.uniform(1.8, 3.5)}[layout]
        count = int(np.clip(layers * area / (np.pi * radius**2), 9, 1500))
        radii = np.clip(radius * np.exp(rng.normal(0, spread, count)), 1.2, radius * 3)
        points = rng.uniform(low, high, (count, 2))
        if layout == "heap":
            depth = rng.uniform(0, layers * 1.6 * radius, count)
            hill = fractal_noise(rng, (32, 32), 4.0)
            depth += (
                hill[(points[:, 1] / height * 31).astype(int).clip(0, 31), (points[:, 0] / width * 31).astype(int).clip(0, 31)] * radius * rng.uniform(0, 2)
            )
        else:
            if layout == "loose" and rng.random() < 0.6:
                joined = rng.random(count) < rng.uniform(0.3, 0.9)
                points[joined] = points[rng.integers(0, count, joined.sum())] + rng.normal(0, 1.6 * radius, (joined.sum(), 2))
            points = _relax(points, radii, 10)
            depth = radii - radius
    if layout in ("lattice", "packed") and rng.random() < 0.5:
        island = fractal_noise(rng, shape, 3.2, largest=max(shape)) + 0.3
        sample = island[points[:, 1].astype(int).clip(0, height - 1), points[:, 0].astype(int).clip(0, width - 1)]
        keep = (sample > rng.uniform(-1.3, 0.2)) | (rng.random(len(points)) < 0.02)
        points, radii, depth = points[keep], radii[keep], depth[keep]
    particles = np.column_stack([points, depth, radii])
    inside = (points[:, 0] > -2 * radii) & (points[:, 0] < width + 2 * radii) & (points[:, 1] > -2 * radii) & (points[:, 1] < height + 2 * radii)
    return particles[inside], spread


def _florets(rng: np.random.Generator, particles: np.ndarray) -> np.ndarray:
    """Cover every particle with smaller spheres (cauliflower, agglomerate): (m, 4) like the input, cores included."""
    budget = max(8, 1900 // max(len(particles), 1))
    share = rng.uniform(0.08, 0.32)
    parts = [particles * np.array([1, 1, 1, 0.93])]
    for x, y, z, radius in particles:
        count = int(min(budget, 4.5 / share**2))
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        direction[:, 2] = np.abs(direction[:, 2]) - 0.15
        small = np.maximum(radius * share * np.exp(rng.normal(0, 0.25, count)), 0.9)
        parts.append(np.column_stack([np.array([x, y, z]) + direction * (radius - 0.4 * small)[:, None], small]))
    return np.concatenate(parts)


def _crystal_habit(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, str]:
    """Facets of a crystal of circumscribed radius about 1: (k, 4) of outward unit normal and distance from the centre, and the habit's name."""
    cube, basal = np.concatenate([np.eye(3), -np.eye(3)]), np.array([[0, 0, 1], [0, 0, -1]])
    octahedron = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) / np.sqrt(3)
    dodecahedron = np.array([np.roll([a, b, 0], s) for a in (-1, 1) for b in (-1, 1) for s in range(3)]) / np.sqrt(2)
    angles = np.arange(6) * np.pi / 3
    hexagon = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(6)])
    index = np.arange(rng.integers(11, 22)) + 0.5
    z, turn = 1 - 2 * index / index.size, np.pi * (1 + 5**0.5) * index
    shard = np.column_stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z]) + rng.normal(0, 0.2, (index.size, 3))
    habits = {
        "platelet": [(hexagon, 0.85), (basal, rng.uniform(0.06, 0.3))],
        "cube": [(cube, 0.6)],
        "octahedron": [(octahedron, 0.6), (cube, 0.95)],
        "truncated": [(octahedron, 0.8), (cube, rng.uniform(0.68, 0.95))],
        "rhombic": [(dodecahedron, 0.75), (cube, rng.uniform(0.8, 1.0))],
        "prism": [(hexagon, rng.uniform(0.3, 0.6)), (basal, 0.85)],
        "shard": [(shard / np.linalg.norm(shard, axis=1, keepdims=True), rng.uniform(0.6, 0.8, index.size))],
    }
    name = "platelet" if kind == "platelets" else str(rng.choice(list(habits)[1:]))
    return np.concatenate([np.column_stack([normals, np.broadcast_to(distance, len(normals))]) for normals, distance in habits[name]]), name


def _round(dx: np.ndarray, dy: np.ndarray, radius: float, harmonics: np.ndarray | None, texture: np.ndarray, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance (pixels) and emission of a sphere, or of a lump when harmonics ((n, 2) amplitude, phase) modulate its outline; maps over the window."""
    distance, outline = np.sqrt(dx * dx + dy * dy) + 1e-3, radius
    if harmonics is not None:
        angle = np.arctan2(dy, dx)
        outline = radius * (1 + sum(amplitude * np.cos((k + 2) * angle + phase) for k, (amplitude, phase) in enumerate(harmonics.astype(np.float32))))
    q = np.minimum(distance / outline, 0.995)
    cosine = np.sqrt(1 - q * q)
    if radius > 12:
        # texture is foreshortened towards the outline, as on a real ball
        stretch = np.arcsin(q) / q
        column, row = ((d * stretch + n / 2).astype(np.float32) for d, n in ((dx, texture.shape[1]), (dy, texture.shape[0])))
        texture = cv2.remap(texture, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    steep = q / cosine / distance
    slope_x, slope_y = steep * dx - texture[..., 0], steep * dy - texture[..., 1]
    facing = 1 / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    emission = 0.5 + look.rim * (1 - facing) ** look.rim_power + (slope_x * look.light[0] + slope_y * look.light[1]) * facing
    return distance - outline, emission * texture[..., 2]


def _faceted(
    dx: np.ndarray, dy: np.ndarray, facets: np.ndarray, texture: np.ndarray, look: Look, radius: float, mottle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance (pixels) and emission of a convex crystal with facets (k, 4) in pixels; mottle: (k,) emission of each facet relative to the others."""
    normal_z = np.where(np.abs(facets[:, 2]) < 0.02, np.where(facets[:, 2] >= 0, 0.02, -0.02), facets[:, 2])
    gradient = (-facets[:, :2] / normal_z[:, None]).astype(np.float32)
    heights = (facets[:, 3] / normal_z).astype(np.float32)[:, None, None] + gradient[:, 0, None, None] * dx + gradient[:, 1, None, None] * dy
    up, down = np.flatnonzero(normal_z > 0), np.flatnonzero(normal_z < 0)
    top, bottom = up[np.argmin(heights[up], 0)], down[np.argmax(heights[down], 0)]
    top_height, bottom_height = heights[up].min(0), heights[down].max(0)
    difference = gradient[bottom] - gradient[top]
    outside = (bottom_height - top_height) / (np.hypot(difference[..., 0], difference[..., 1]) + 1e-3)
    steepness = (1 - np.abs(normal_z)) ** (0.5 * look.rim_power)
    tone = ((0.42 + look.rim * 0.8 * steepness + facets[:, :2] @ look.light * 1.5) * mottle).astype(np.float32)
    to_edge, beyond = np.full(top.shape, 1e3, np.float32), tone[top]
    for other in np.flatnonzero(np.bincount(top.ravel())):
        separation = np.hypot(*(gradient - gradient[other]).T) + 1e-3
        gap = np.where(top == other, 1e3, (heights[other] - top_height) / separation[top])
        to_edge, beyond = np.minimum(gap, to_edge), np.where(gap < to_edge, tone[other], beyond)
    share = np.clip(0.5 + to_edge, 0.5, 1)
    rough = texture[..., 0] * look.light[0] + texture[..., 1] * look.light[1] + 0.25 * np.hypot(texture[..., 0], texture[..., 1])
    border = np.minimum(to_edge, np.maximum(-outside, 0))
    emission = share * tone[top] + (1 - share) * beyond + rough - 0.025
    emission += look.edge * (0.7 * np.exp(-border / look.edge_width) + 0.3 * np.exp(-border / (0.25 * radius)))
    return np.maximum(outside, np.sqrt(dx * dx + dy * dy) - 1.38 * radius), emission * texture[..., 2]


def powder(seed, shape: tuple[int, int] = (480, 640), pixel_size: float | None = None) -> Specimen:
    """A powder on its support, as secondary electrons show it: bright rims and edges, dark gaps and depths, surface texture.

    seed: int or tuple of ints. shape: (height, width) in pixels. pixel_size: nm per pixel (1 to 500; drawn if None). Image (height, width) float32 in [0, 1].
    """
    rng = np.random.default_rng(seed)
    pixel_size = float(pixel_size or log_uniform(rng, 1.0, 500.0))
    kind, layout = str(rng.choice(list(KINDS), p=list(KINDS.values()))), str(rng.choice(LAYOUTS))
    fine = layout in ("lattice", "packed", "loose") and kind in ("spheres", "lumps", "cauliflower")
    radius = log_uniform(rng, 7.0 if fine else 12.0, 0.22 * min(shape))
    particles, spread = _arrange(rng, shape, layout, radius)
    (look, surface), core_count = _look(rng, shape, radius), len(particles)
    if kind == "cauliflower":
        particles = _florets(rng, particles)
    if rng.random() < 0.5 and core_count:
        host = particles[rng.integers(0, len(particles), rng.integers(5, 150))]
        angle, out = rng.uniform(0, 2 * np.pi, len(host)), np.sqrt(rng.random(len(host)))
        satellites = host + np.column_stack([np.cos(angle) * out, np.sin(angle) * out, np.sqrt(1 - out**2), 0 * out]) * host[:, 3:]
        satellites[:, 3] = log_uniform(rng, 0.8, max(1.2, radius * 0.15), len(host))
        particles = np.concatenate([particles, satellites])
    habit, habit_name = _crystal_habit(rng, kind)
    # painted pixels times facets: the deepest particles beyond what one picture may cost are left out, hidden under the others
    cost = (particles[:, 3] * 2.6 + 12) ** 2 * (2 * len(habit) if kind in ("crystals", "platelets", "mixed") else 10)
    order = np.argsort(particles[:, 2], kind="stable")
    particles = particles[order][np.cumsum(cost[order][::-1])[::-1] < 230 * shape[0] * shape[1]]
    support = rng.uniform(0.05, 0.5) if layout in ("lattice", "loose", "packed") else rng.uniform(0.02, 0.2)
    image = support * (1 + rng.uniform(0.02, 0.25) * fractal_noise(rng, shape, rng.uniform(1.2, 3.0)))
    tilt, lumpiness = float(rng.choice([0.1, 0.5, 1.0])), 0.0 if kind == "spheres" else rng.uniform(0.01, 0.09)
    albedo_spread, fade = rng.uniform(0.0, 0.15), rng.uniform(1.5, 8.0) * radius
    top = np.percentile(particles[:, 2], 98) if len(particles) else 0.0
    blur_at = set((len(particles) * np.array([0.3, 0.55])).astype(int)) if layout in ("heap", "leaves") and rng.random() < 0.35 else set()
    for index, (x, y, z, size) in enumerate(particles):
        if index in blur_at:
            image = cv2.GaussianBlur(image, (0, 0), 1.2)
        form = kind if kind != "mixed" else ("crystals", "lumps")[rng.integers(2)]
        crystal = form in ("crystals", "platelets") and size > 4
        shadow_reach = min(look.shadow_reach * size * (2.5 if len(particles) < 3 * core_count else 1.2), 60) + 1
        reach = size * (1.4 if crystal else 1.3) + shadow_reach
        box = max(0, int(y - reach)), min(shape[0], int(y + reach) + 2), max(0, int(x - reach)), min(shape[1], int(x + reach) + 2)
        if box[0] >= box[1] or box[2] >= box[3]:
            continue
        offset, draws = rng.integers(0, MARGIN, 2), rng.normal(size=24)
        dy = np.arange(box[0], box[1], dtype=np.float32)[:, None] - np.float32(y)
        dx = np.arange(box[2], box[3], dtype=np.float32)[None] - np.float32(x)
        piece = look.texture[offset[0] : offset[0] + dy.shape[0], offset[1] : offset[1] + dx.shape[1]]
        if crystal:
            facets = habit * np.array([1, 1, 1, size])
            facets[:, 3] *= np.exp(0.08 * np.resize(draws, len(facets)))
            turn = Rotation.from_euler("zxz", [rng.uniform(0, 2 * np.pi), np.arccos(1 - tilt * rng.random()), rng.uniform(0, 2 * np.pi)])
            facets[:, :3] = turn.apply(facets[:, :3])
            outside, emission = _faceted(dx, dy, facets, piece, look, size, np.exp(0.08 * np.resize(draws[::-1], len(facets))))
        else:
            lump = lumpiness and form != "cauliflower" and size > 3
            harmonics = np.column_stack([lumpiness * draws[:6] / np.arange(1, 7), 2 * np.pi * draws[6:12]]) if lump else None
            outside, emission = _round(dx, dy, size, harmonics, piece, look)
        gain, opaque = np.exp(min(z - top, 0) / fade + albedo_spread * draws[-1]), coverage(outside)
        if crystal:
            # beyond its outline a crystal's signed distance is not Euclidean, so its shadow is its blurred mask
            shade = 1 - look.shadow * np.minimum(1.5 * cv2.GaussianBlur(opaque, (0, 0), min(0.4 * shadow_reach, 12)), 1)
        else:
            shade = 1 - look.shadow * np.clip(1 - outside / np.float32(shadow_reach), 0, 1) ** 2
        canvas = image[box[0] : box[1], box[2] : box[3]]
        canvas[:] = canvas * shade * (1 - opaque) + opaque * (emission * np.float32(gain))

    image = image * (1 + rng.uniform(0, 0.12) * fractal_noise(rng, shape, 4.0))
    # the operator lets the brightest rims saturate softly, rather than keep everything else dark
    white = max(np.percentile(image[image > image.mean()], rng.uniform(40, 99)), 0.6 * np.percentile(image, 99.5)) * rng.uniform(1.0, 1.8)
    image = normalise(white * np.tanh(image / white), rng)
    parameters = {"kind": kind, "layout": layout, "surface": surface, "habit": habit_name, "particles": core_count, "log_radius_spread": float(spread)}
    parameters |= {"radius": float(radius * pixel_size), "depth_fade": float(fade * pixel_size), "support_level": support, "shadow": look.shadow}
    return Specimen(image, pixel_size, "powder", parameters)
