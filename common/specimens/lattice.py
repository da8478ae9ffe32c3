"""Crystals seen down a zone axis, column by column, as a high-angle annular dark field detector records them in a scanning transmission microscope."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import cKDTree

from .base import Specimen, coverage, fractal_noise, log_uniform, normalise, pixel_grid

SCATTERING_EXPONENT = 1.7  # dark-field intensity grows as about Z^1.7
# Atomic numbers of the sites, atoms per column where it differs, and the cubic or hexagonal lattice constant in nm.
METALS = {"Al": (13, 0.405), "Ni": (28, 0.352), "Cu": (29, 0.3615), "Pd": (46, 0.389), "Ag": (47, 0.4085), "Pt": (78, 0.392), "Au": (79, 0.408)}
DIAMONDS = {"Si": (14, 14, 0.543), "Ge": (32, 32, 0.566), "GaAs": (31, 33, 0.565), "InP": (49, 15, 0.587), "CdTe": (48, 52, 0.648), "ZnSe": (30, 34, 0.567)}
PEROVSKITES = {
    "SrTiO3": (38, 22, 0.3905),
    "BaTiO3": (56, 22, 0.401),
    "PbTiO3": (82, 22, 0.400),
    "LaMnO3": (57, 25, 0.388),
    "LaAlO3": (57, 13, 0.379),
    "KTaO3": (19, 73, 0.399),
    "BiFeO3": (83, 26, 0.396),
    "BaZrO3": (56, 40, 0.419),
}
SHEETS = {
    "graphene": (6, 6, 1, 1, 0.246),
    "BN": (5, 7, 1, 1, 0.2504),
    "MoS2": (42, 16, 1, 2, 0.316),
    "MoSe2": (42, 34, 1, 2, 0.329),
    "WS2": (74, 16, 1, 2, 0.3153),
    "WSe2": (74, 34, 1, 2, 0.328),
}


def draw_structure(rng: np.random.Generator) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, bool]:
    """One projected structure: name, cell vectors (2, 2) in nm as rows (y, x), fractional column positions (n, 2),
    mean Z^1.7 per atomic layer of each column (n,), and whether it is a single sheet (one atom per column)."""

    def signal(z, atoms=1.0):
        return atoms * z**SCATTERING_EXPONENT

    family = rng.choice(["perovskite", "sheet", "diamond", "fcc"], p=[0.34, 0.18, 0.22, 0.26])
    if family == "perovskite":
        name = rng.choice(list(PEROVSKITES))
        a_site, b_site, a = PEROVSKITES[name]
        off = rng.normal(0, 0.02, 2)  # off-centre B column, as in ferroelectrics
        if rng.random() < 0.7:
            cell = np.diag([a * rng.uniform(1, 1.05), a])
            places = np.array([[0, 0], [0.5, 0.5], [0.5, 0], [0, 0.5]]) + np.vstack([[0, 0], off, 1.5 * off, 1.5 * off])
            return f"{name} [001]", cell, places, np.array([signal(a_site), signal(b_site) + signal(8), signal(8), signal(8)]), False
        # Down [110] the A columns carry oxygen as well, and the rest of the oxygen stands alone between the B columns.
        places = np.array([[0, 0], [0.5, 0], [0.5, 0.5]]) + np.vstack([[0, 0], off, off])
        weights = np.array([signal(a_site) + signal(8), signal(b_site), signal(8, 2)]) / np.sqrt(2)
        return f"{name} [110]", np.diag([a, a / np.sqrt(2)]), places, weights, False
    if family == "sheet":
        name = rng.choice(list(SHEETS))
        first, second, n_first, n_second, a = SHEETS[name]
        cell = a * np.array([[0, 1], [np.sqrt(3) / 2, 0.5]])
        return str(name), cell, np.array([[0, 0], [1 / 3, 1 / 3]]), np.array([signal(first, n_first), signal(second, n_second)]), True
    if family == "diamond":
        name = rng.choice(list(DIAMONDS))
        first, second, a = DIAMONDS[name]
        places = np.array([[0, 0], [0.25, 0], [0.5, 0.5], [0.75, 0.5]])
        return f"{name} [110]", np.diag([a, a / np.sqrt(2)]), places, np.array([signal(first), signal(second)] * 2), False
    name = rng.choice(list(METALS))
    z, a = METALS[name]
    zone = rng.choice(["001", "110", "111"])
    if zone == "001":
        return f"{name} [001]", np.diag([a / 2, a / 2]), np.zeros((1, 2)), np.array([signal(z)]), False
    if zone == "110":
        return f"{name} [110]", np.diag([a, a / np.sqrt(2)]), np.array([[0, 0], [0.5, 0.5]]), np.full(2, signal(z)), False
    spacing = a / np.sqrt(6)
    return f"{name} [111]", spacing * np.array([[0, 1], [np.sqrt(3) / 2, 0.5]]), np.zeros((1, 2)), np.array([signal(z)]), False


def _columns(cell, places, weights, angle: float, origin: np.ndarray, extent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All columns of a rotated lattice that fall in [0, extent] with 0.5 nm to spare: positions (n, 2) in nm, weights (n,), kind within the cell (n,)."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    vectors = cell @ turn.T
    corners = np.array([[-0.5, -0.5], [-0.5, extent[1] + 0.5], [extent[0] + 0.5, -0.5], [extent[0] + 0.5, extent[1] + 0.5]]) - origin
    indices = corners @ np.linalg.inv(vectors)
    low, high = np.floor(indices.min(0)).astype(int) - 1, np.ceil(indices.max(0)).astype(int) + 1
    cells = np.stack(np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij"), -1).reshape(-1, 1, 2)
    positions = ((cells + places) @ vectors + origin).reshape(-1, 2)
    kinds = np.tile(np.arange(len(places)), len(cells))
    inside = np.all((positions > -0.5) & (positions < extent + 0.5), axis=1)
    return positions[inside], weights[kinds[inside]], kinds[inside]


def wavy_distance(rng: np.random.Generator, shape, through: np.ndarray, angle: float, waviness: float) -> np.ndarray:
    """Signed distance in pixels (height, width) to a line through a point (pixels) whose normal is at `angle`, bent by `waviness` pixels."""
    rows, columns = pixel_grid(shape)
    line = np.sin(angle) * (rows - through[0]) + np.cos(angle) * (columns - through[1])
    return line + np.float32(waviness) * fractal_noise(rng, shape, 3.5)


def crystal_distance(rng: np.random.Generator, shape, kind: str) -> np.ndarray:
    """Signed distance in pixels to the outline of the crystal (negative inside): filling the frame, ending at a wavy edge, a hole, or a faceted particle."""
    size = np.array(shape, float)
    if kind == "edge":
        return wavy_distance(rng, shape, size * rng.uniform(0.25, 0.75, 2), rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.05) * size.min())
    rows, columns = pixel_grid(shape)
    if kind in ("particle", "hole"):
        radius = rng.uniform(0.22, 0.5) * size.min()
        row, column = size * rng.uniform(0.35, 0.65, 2)
        angles = 2 * np.pi * np.arange(8) / 8 + rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.12, 8)
        reach = radius * rng.normal(1, 0.1, 8)
        soft = np.float32(rng.uniform(8, 30) / radius)
        total = sum(np.exp(soft * (np.sin(a) * (rows - row) + np.cos(a) * (columns - column) - d)) for a, d in zip(angles, reach, strict=True))
        distance = np.log(total) / soft + rng.uniform(0, 0.03) * radius * fractal_noise(rng, shape, 3.0)
        return distance if kind == "particle" else -distance
    return np.full(shape, -1e4, np.float32)


def splat(shape, positions: np.ndarray, weights: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Sum of Gaussians of peak `weights` (n,), standard deviation `sigma` (n,) and centre `positions` (n, 2), in pixels: (height, width) float32."""
    image = np.zeros(shape[0] * shape[1])
    reach = int(np.ceil(3.7 * sigma.max()))
    steps = np.arange(-reach, reach + 1)
    for start in range(0, len(positions), 2000):
        centre, weight, width = (values[start : start + 2000] for values in (positions, weights, sigma))
        nearest = np.rint(centre).astype(int)
        rows, columns = nearest[:, :1] + steps, nearest[:, 1:] + steps
        vertical = np.exp(-0.5 * ((rows - centre[:, :1]) / width[:, None]) ** 2) * ((rows >= 0) & (rows < shape[0]))
        horizontal = np.exp(-0.5 * ((columns - centre[:, 1:]) / width[:, None]) ** 2) * ((columns >= 0) & (columns < shape[1]))
        patches = (weight[:, None] * vertical)[:, :, None] * horizontal[:, None, :]
        index = np.clip(rows, 0, shape[0] - 1)[:, :, None] * shape[1] + np.clip(columns, 0, shape[1] - 1)[:, None, :]
        image += np.bincount(index.ravel(), patches.ravel(), minlength=len(image))
    return image.reshape(shape).astype(np.float32)


def value_at(field: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Value of a (height, width) field at pixel positions (n, 2), the nearest pixel inside the frame."""
    index = np.clip(np.rint(positions).astype(int), 0, np.array(field.shape) - 1)
    return field[index[:, 0], index[:, 1]]


def fault_plane(cell: np.ndarray, fault: str) -> np.ndarray:
    """Direction (2,) in nm, before rotation, of the trace of the plane that carries a twin, a stacking fault or an interface."""
    hexagonal = abs(float(cell[0] @ cell[1])) > 1e-6
    # In a [110] zone the diagonal of the cell is the trace of {111}, the twin plane of fcc and diamond; in [001] perovskites it is the 90-degree wall.
    return cell[0] if hexagonal or fault == "interface" else cell[0] + cell[1]


def bicrystal(rng, structure, extent, boundary, pixel_size, fault: str, angle: float, origin: np.ndarray):
    """Columns of one crystal or, with a `fault`, of two that meet at `boundary` (signed distance in pixels, zero at `origin`, in nm).

    Returns positions (n, 2) in nm, weights (n,) and kinds within the cell (n,).
    """
    _, cell, places, weights, _ = structure
    positions, signal, kinds = _columns(cell, places, weights, angle, origin, extent)
    if fault == "none":
        return positions, signal, kinds
    along = fault_plane(cell, fault)
    if fault == "grain":
        other = _columns(cell, places, weights, angle + np.radians(rng.uniform(4, 45)) * rng.choice([-1, 1]), origin, extent)
    elif fault == "stacking":
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        other = _columns(cell, places, weights, angle, origin + rng.choice([1 / 3, 0.5]) * (along @ turn.T), extent)
    elif fault == "interface":
        other = _columns(cell * rng.uniform(0.985, 1.02), places, weights * rng.uniform(0.35, 1.8, len(weights)), angle, origin, extent)
    else:
        unit = along / np.linalg.norm(along)
        other = _columns(cell @ (2 * np.outer(unit, unit) - np.eye(2)), places, weights, angle, origin, extent)
    first = value_at(boundary, positions / pixel_size) < 0
    second = value_at(boundary, other[0] / pixel_size) >= 0
    positions = np.concatenate([positions[first], other[0][second]])
    signal, kinds = np.concatenate([signal[first], other[1][second]]), np.concatenate([kinds[first], other[2][second]])
    tree = cKDTree(positions)
    crowded = tree.query_pairs(0.7 * float(np.median(tree.query(positions, 2)[0][:, 1])), output_type="ndarray")
    keep = np.ones(len(positions), bool)
    keep[crowded[:, 1]] = False
    return positions[keep], signal[keep], kinds[keep]


def atomic_lattice(seed, shape=(480, 640), pixel_size: float | None = None) -> Specimen:
    """Atomic columns as bright dots on a smooth thermal-diffuse floor, with defects, crystal edges, vacuum and amorphous carbon or damage layers.

    seed: int or tuple of ints; shape: (height, width) in pixels; pixel_size: nm, drawn from 0.008-0.03 nm when None.
    parameters: `positions` (n, 2) row, column in nm, `intensities` (n,) peak signal in units where the brightest column is 1 (before brightness and contrast).
    """
    rng = np.random.default_rng(seed)
    pixel_size = float(log_uniform(rng, 0.008, 0.03)) if pixel_size is None else float(pixel_size)
    extent = np.array(shape) * pixel_size
    structure = draw_structure(rng)
    name, cell, places, weights, sheet = structure
    outline = str(rng.choice(["full", "edge", "particle", "hole"], p=[0.4, 0.33, 0.17, 0.1]))
    fault = str(rng.choice(["none", "grain", "twin", "stacking", "interface"], p=[0.5, 0.17, 0.12, 0.08, 0.13]))
    angle = rng.uniform(0, 2 * np.pi)
    origin = extent * rng.uniform(0.3, 0.7, 2)
    dy, dx = fault_plane(cell, fault)
    across = rng.uniform(0, 2 * np.pi) if fault == "grain" else np.arctan2(dx, -dy) - angle
    boundary = wavy_distance(rng, shape, origin / pixel_size, across, rng.uniform(0, 0.3) / pixel_size * (fault == "grain"))
    positions, signal, kinds = bicrystal(rng, structure, extent, boundary, pixel_size, fault, angle, origin)

    distance = crystal_distance(rng, shape, outline)
    taper = log_uniform(rng, 0.3, 6.0) / pixel_size
    rows, columns = pixel_grid(shape)
    tilt = rng.uniform(0, 2 * np.pi)
    slope = np.sin(tilt) * (rows / shape[0] - 0.5) + np.cos(tilt) * (columns / shape[1] - 0.5)
    wedge = 1 + rng.uniform(0, 0.6) * slope + rng.uniform(0, 0.1) * fractal_noise(rng, shape, 3.5)
    layers = 1.0 if sheet else float(log_uniform(rng, 4, 80))
    thickness = np.clip(wedge, 0.1, None) * np.sqrt(np.clip(-distance / taper, 0, 1))

    occupied = value_at(distance, positions / pixel_size) < rng.normal(0, 0.1 / pixel_size, len(positions))
    positions, signal, kinds = positions[occupied], signal[occupied], kinds[occupied]
    if sheet:
        atoms = np.ones(len(positions))
    else:  # columns hold whole atoms, which shows as steps in thin crystals
        atoms = np.maximum(np.rint(layers * value_at(thickness, positions / pixel_size) + rng.normal(0, 0.4, len(positions))), 1) / layers
    strain = rng.uniform(0, 0.02) * np.stack([value_at(fractal_noise(rng, shape, 3.5), positions / pixel_size) for _ in range(2)], 1)
    positions = positions + strain + rng.normal(0, log_uniform(rng, 0.001, 0.008), positions.shape)

    vacancy_rate, substitution_rate = (float(log_uniform(rng, 1e-3, 0.04)) for _ in range(2))
    whole = rng.random(len(positions)) >= vacancy_rate
    if not sheet:  # a vacancy in a thick column only dims it
        atoms = np.where(whole, atoms, atoms * rng.uniform(0.2, 0.8, len(atoms)))
        whole[:] = True
    swapped = rng.random(len(positions)) < substitution_rate
    signal = np.where(swapped, signal * log_uniform(rng, 0.3, 3.0) * rng.uniform(0.8, 1.2, len(signal)), signal)
    alloy = rng.uniform(0, 0.08)
    peaks = signal * atoms * np.clip(rng.normal(1, alloy, len(signal)), 0.3, None)
    positions, peaks, kinds = positions[whole], peaks[whole], kinds[whole]
    extra = int(rng.poisson(rng.choice([0, 0.5, 6]) * extent[0] * extent[1] / 100))
    if extra:  # adatoms and interstitials: single heavy atoms anywhere, also on the support and in the vacuum's contamination
        positions = np.concatenate([positions, rng.uniform(0, 1, (extra, 2)) * extent])
        peaks = np.concatenate([peaks, weights.max() * (rng.uniform(0.3, 1.2, extra) if sheet else rng.uniform(1, 3, extra) / layers)])
        kinds = np.concatenate([kinds, np.full(extra, -1)])

    scale = float(peaks.max()) if len(peaks) else 1.0
    peaks = peaks / scale
    width = float(log_uniform(rng, 0.02, 0.055))
    widths = np.maximum(width * (1 + rng.uniform(0, 0.25, len(places) + 1))[kinds], 0.9 * pixel_size) / pixel_size
    image = splat(shape, positions / pixel_size, peaks, widths)

    inside = coverage(distance, softness=max(0.15 / pixel_size, 1.0))
    mean = float(np.mean(weights)) / scale
    diffuse = (rng.uniform(0.02, 0.15) if sheet else rng.uniform(0.1, 0.7)) * mean * thickness * inside
    image += cv2.GaussianBlur(diffuse, (0, 0), max(0.1 / pixel_size, 1.0))

    # Amorphous matter is a crowd of atoms at random depths: speckle at interatomic distances and below, on a slow thickness variation.
    speckle = fractal_noise(rng, shape, rng.uniform(0.8, 2.4), smallest=log_uniform(rng, 0.025, 0.08) / pixel_size, largest=1.5 / pixel_size)
    slow = fractal_noise(rng, shape, 3.0, smallest=0.6 / pixel_size)
    amorphous = np.clip(1 + rng.uniform(0.06, 0.3) * speckle + rng.uniform(0.05, 0.3) * slow, 0, None)
    film = float(log_uniform(rng, 0.01, 0.25)) * (0.5 if sheet else 1.0) * float(rng.random() < 0.7)
    layer = np.full(shape, film + rng.uniform(0, 0.01), np.float32)
    coat = float(log_uniform(rng, 0.3, 8.0)) if outline != "full" and rng.random() < 0.8 else 0.0
    if coat:  # oxide, contamination, or the heavy cap deposited before thinning; it thins out over the crystal
        outer = distance - coat / pixel_size + 0.15 * coat / pixel_size * fractal_noise(rng, shape, 2.5, smallest=0.3 / pixel_size)
        brightness = max(float(log_uniform(rng, 0.06, 2.0)) * mean, 0.05)
        over = np.where(distance > 0, 1, rng.uniform(0.1, 0.5) + 0.5 * np.exp(np.minimum(distance, 0) * pixel_size))
        layer = layer + brightness * coverage(outer, softness=max(0.3 / pixel_size, 1.0)) * over
    image += layer * amorphous
    parameters = {
        "positions": positions,
        "intensities": peaks,
        "structure": name,
        "outline": outline,
        "fault": fault,
        "rotation": float(angle),
        "column_width": width,
        "layers": layers,
        "vacancy_rate": vacancy_rate,
        "substitution_rate": substitution_rate,
        "carbon_film": float(film),
        "amorphous_layer": coat,
    }
    return Specimen(normalise(image, rng), pixel_size, "lattice", parameters)
