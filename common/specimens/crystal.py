"""Generic crystals seen atom column by atom column: any cell, defect and outline, scaled in pixels; with cells, defects and outlines for others.

A network that restores crystals must not know them by heart, so nothing here is a real structure (lattice.py has those). Shares and ranges are our
choice, after what the published panels of CGRDN show (Lobato, Friedrich, Van Aert, npj Computational Materials 10, 2024), whose own simulations are not public.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial import cKDTree

from .base import Specimen, band_limit, coverage, finish, fractal_noise, lobes, log_uniform, pixel_grid
from .lattice import SCATTERING_EXPONENT, bicrystal, crystal_distance, fault_plane, splat, value_at, wavy_distance

OUTLINES = ("half-plane", "wedge", "polygon", "disc", "particle")
FAULTS = {"none": 0.5, "grain": 0.15, "inset": 0.1, "twin": 0.07, "interface": 0.05, "bands": 0.13}  # name: share of the pictures


class Cell(NamedTuple):
    """A projected unit cell, in pixels.

    vectors: (2, 2), one vector a row as (y, x). places: (n, 2) fractional positions of its columns. weights: (n,) their dark-field signal, Z^1.7.
    spacing: shortest distance between two columns.
    """

    vectors: np.ndarray
    places: np.ndarray
    weights: np.ndarray
    spacing: float


class Columns(NamedTuple):
    """Atom columns of a picture, in pixels (0 is the centre of the first pixel): positions (n, 2) row, column, peaks (n,), empty sites (m, 2), and notes."""

    positions: np.ndarray
    peaks: np.ndarray
    vacancies: np.ndarray
    note: dict


def outline(rng: np.random.Generator, shape: tuple[int, int], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance in pixels to a shape's outline (negative inside) and relative thickness in [0, 1], both (height, width) float32.

    kind: one of `OUTLINES`, or "full" for a shape that fills the frame. Bodies are domes or plates with a rim; half-planes and wedges may thin out slowly.
    """
    size = np.array(shape, float)
    rows, columns = pixel_grid(shape)
    centre = size * rng.uniform(0.3, 0.7, 2)

    def beyond(angle, offset=0.0):  # signed distance to a straight line
        return np.float32(np.sin(angle)) * (rows - np.float32(centre[0] + np.sin(angle) * offset)) + np.float32(np.cos(angle)) * (
            columns - np.float32(centre[1] + np.cos(angle) * offset)
        )

    start, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.18, 0.5) * size.min()
    if kind == "half-plane":
        distance = beyond(start)
    elif kind == "wedge":
        distance = np.maximum(beyond(start), beyond(start + np.radians(rng.uniform(40, 150)))) * rng.choice([-1, 1])
    elif kind == "polygon":
        count = int(rng.integers(3, 8))
        angles = start + 2 * np.pi * (np.arange(count) + rng.uniform(-0.25, 0.25, count)) / count
        distance = np.max([beyond(angle, radius * reach) for angle, reach in zip(angles, rng.uniform(0.6, 1.0, count), strict=True)], 0)
    elif kind == "disc":
        distance = np.hypot(rows - centre[0], columns - centre[1]) - radius
    elif kind == "particle":
        distance = crystal_distance(rng, shape, "particle")
    else:
        distance = np.full(shape, -1e4)
    distance = np.float32(distance)
    deepest, dome = max(-float(distance.min()), 1.0), rng.random() < 0.5
    if kind in ("polygon", "disc", "particle") and dome:
        thickness = np.sqrt(np.clip(1 - np.maximum(1 + distance / deepest, 0) ** 2, 0, 1))
    else:
        thickness = np.clip(-distance / log_uniform(rng, 2.0, max(deepest, 4.0) if kind != "full" else 4.0), 0, 1) ** rng.uniform(0.5, 1.0)
    return distance, np.float32(thickness)


def nearest_distance(vectors: np.ndarray, places: np.ndarray) -> float:
    """Shortest distance between two columns of a crystal."""
    steps = np.stack(np.meshgrid([0, -2, -1, 1, 2], [0, -2, -1, 1, 2], indexing="ij"), -1).reshape(-1, 1, 2)
    everywhere = ((steps + places) @ vectors).reshape(-1, 2)
    return float(cKDTree(everywhere).query(everywhere[: len(places)], 2)[0][:, 1].min())


def generic_cell(rng: np.random.Generator, shortest: float = 5.0, longest: float = 40.0) -> Cell:
    """A cell of one to four columns, no two closer than 3.2 pixels: lengths log-uniform in [shortest, longest] pixels, angle 90, 120, 60 or 60-120 degrees."""
    first = log_uniform(rng, shortest, longest)
    second = first if rng.random() < 0.5 else np.clip(first * log_uniform(rng, 0.5, 2.0), shortest, longest)
    angle = np.radians((90, 120, 60, rng.uniform(60, 120))[rng.integers(4)])
    vectors = np.array([[0, first], [second * np.sin(angle), second * np.cos(angle)]])
    special = rng.permutation([[1 / 2, 1 / 2], [1 / 2, 0], [0, 1 / 2], [1 / 3, 1 / 3], [2 / 3, 2 / 3], [1 / 4, 1 / 4]])
    places, closest = np.zeros((1, 2)), max(3.2, 0.22 * min(first, second))
    for place in special[: rng.choice(4, p=[0.35, 0.3, 0.15, 0.2])]:
        place = place + rng.normal(0, 0.03, 2) if rng.random() < 0.5 else rng.uniform(0, 1, 2)
        if nearest_distance(vectors, np.vstack([places, place])) > closest:
            places = np.vstack([places, place])
    numbers = log_uniform(rng, 6, 83, len(places))
    if rng.random() < 0.4:
        numbers[:] = numbers[0]
    return Cell(vectors, places, numbers**SCATTERING_EXPONENT, nearest_distance(vectors, places))


def _bands(rng: np.random.Generator, positions: np.ndarray, peaks: np.ndarray, along: np.ndarray, span: float, spacing: float):
    """Stacking bands: columns (in place) of every other band along `along` (2,) slip by a part of it and change their signal; band width in pixels."""
    unit = along / np.linalg.norm(along)
    width = float(log_uniform(rng, min(3 * spacing, span / 2), span))
    edges = np.cumsum(width * np.exp(rng.normal(0, 0.5, int(4 * span / width) + 8))) - 2.5 * span
    odd = np.searchsorted(edges, positions @ np.array([-unit[1], unit[0]])) % 2 == 1
    positions[odd] += rng.choice([0, 1 / 3, 1 / 2]) * along
    peaks[odd] *= log_uniform(rng, 0.5, 1.3)
    return width


def arrange(
    rng: np.random.Generator, shape: tuple[int, int], cell: Cell, fault: str, strain: float = 0.0, vacancies: float = 0.0, margin: float = 0.0
) -> Columns:
    """The columns of a crystal that fall in the frame and `margin` pixels around it.

    fault: a key of `FAULTS`: none, a second grain beyond a line ("grain", "twin", "interface") or in a circle ("inset"), or stacking "bands".
    strain: largest derivative of the displacement, a polynomial of second order. vacancies: share of the sites that are empty.
    """
    extent = np.array(shape, float) + 2 * margin
    angle, origin = rng.uniform(0, 2 * np.pi), extent * rng.uniform(0.3, 0.7, 2)
    dy, dx = fault_plane(cell.vectors, fault)
    turned = fault == "grain"
    across = rng.uniform(0, 2 * np.pi) if turned else np.arctan2(dx, -dy) - angle
    padded = tuple(int(np.ceil(n)) for n in extent)
    note = {"rotation": float(angle), "fault": fault}
    if fault == "inset":
        rows, columns = pixel_grid(padded)
        boundary = np.hypot(rows - origin[0], columns - origin[1]) - rng.uniform(0.15, 0.4) * min(shape)
    elif fault in ("none", "bands"):
        boundary = None
    else:
        boundary = wavy_distance(rng, padded, origin, across, rng.uniform(0, 1.0) * cell.spacing * turned)
    kind = {"inset": str(rng.choice(["grain", "interface"])), "bands": "none"}.get(fault, fault)
    positions, peaks, _ = bicrystal(rng, ("", cell.vectors, cell.places, cell.weights, False), extent, boundary, 1.0, kind, angle, origin)
    positions, peaks = positions - margin, peaks.copy()
    if fault == "bands":
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        note["band_width"] = _bands(rng, positions, peaks, turn @ np.array([dy, dx]), float(max(extent)), cell.spacing)
    if strain:
        half = max(shape) / 2
        y, x = (2 * positions / np.array(shape) - 1).T
        terms, slopes = np.stack([y, x, x * y, y**2, x**2], 1), np.array([1, 1, 2, 2, 2])
        factors = rng.normal(size=(5, 2))
        bound = np.abs(factors * slopes[:, None]).sum(0).max()  # of the derivative, in half frames per half frame
        positions = positions + strain * half * (terms @ factors) / bound
    empty = rng.random(len(positions)) < vacancies
    return Columns(positions[~empty], peaks[~empty], positions[empty], note)


def draw_columns(shape: tuple[int, int], positions: np.ndarray, peaks: np.ndarray, sigma: float, tail: float = 0.0, reach: float = 1.0) -> np.ndarray:
    """Picture (height, width) float32 of Gaussian columns with heights `peaks` (n,) and standard deviation sigma pixels, without aliases.

    tail: share of every column's signal that goes into a wide foot whose transform is exp(-2 pi reach f), a Lorentzian to the power 3/2 of half-width ~ reach.
    """
    factor = 1 if sigma >= 1 else 2
    fine = (shape[0] * factor, shape[1] * factor)
    image = splat(fine, positions * factor + (factor - 1) / 2, peaks, np.full(len(positions), sigma * factor)) if len(positions) else np.zeros(fine)
    return band_limit(image, shape, lambda f: 1 - tail + tail * np.exp(-2 * np.pi * reach * f))


def in_frame(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Which of the points (n, 2), in pixels, lie on the picture: (n,) bool."""
    return np.all((points > -0.5) & (points < np.array(shape) - 0.5), axis=1)


def crystal(seed, shape: tuple[int, int] = (480, 640), pixel_size: float | None = None) -> Specimen:
    """A generic crystal in annular dark field, or its negative: columns, diffuse floor, defects, outline, a second crystal (moire), film, uneven background.

    seed: int or tuple of ints; shape: (height, width) in pixels, at least 64 x 64. The cell is 5-40 pixels whatever they measure; pixel_size in nm, drawn
    (0.005 to 0.13) so that the cell is 0.2-0.65 nm when None. Image (height, width) float32 spanning [0, 1], nothing above 0.9 of Nyquist.
    parameters: `positions` (n, 2) row, column in nm and `intensities` (n,) relative to the brightest, of the columns on the picture; the last
    `overlay_columns` of them belong to the second crystal. `vacancies` (m, 2) in nm: sites left empty. Lengths in nm; floor and background relative to the
    range of the columns, film to their standard deviation.
    """
    rng = np.random.default_rng(seed)
    cell = generic_cell(rng)
    drawn = float(rng.uniform(0.2, 0.65) / max(np.linalg.norm(cell.vectors, axis=1)))
    pixel_size = max(drawn, 0.005) if pixel_size is None else float(pixel_size)
    sigma = float(max(rng.uniform(0.12, 0.35) * cell.spacing, 0.6))
    fault = str(rng.choice(list(FAULTS), p=list(FAULTS.values())))
    strain = float(rng.uniform(0, 0.03)) * (rng.random() < 0.4)
    vacancy_rate = float(rng.uniform(0, 0.03)) * (rng.random() < 0.6)
    positions, peaks, empty, note = arrange(rng, shape, cell, fault, strain, vacancy_rate, margin=4 * sigma + 2)
    roomy = 3 * float(np.linalg.norm(cell.vectors, axis=1).max()) < 0.4 * min(shape)  # else a body would hold a handful of columns
    kind = "full" if rng.random() < 0.4 else str(rng.choice(OUTLINES if roomy else OUTLINES[:2]))
    distance, thickness = outline(rng, shape, kind)
    slope = float(rng.uniform(0, 0.6))
    thickness = thickness * (1 - slope * lobes(rng, shape))  # few crystals are plates of even thickness

    disorder, spread = float(rng.uniform(0, 0.03)) * (rng.random() < 0.3), float(rng.uniform(0, 0.1))
    inside = value_at(distance, positions) < 0
    positions, peaks = positions[inside], peaks[inside] * value_at(thickness, positions[inside])
    peaks = peaks * np.clip(rng.normal(1, spread, len(peaks)), 0.3, None)
    positions = positions + rng.normal(0, 1, positions.shape) * disorder * cell.spacing
    empty = empty[value_at(distance, empty) < 0]
    overlay, turn = 0, float(np.radians(rng.uniform(1, 30)) * rng.choice([-1, 1]))
    if rng.random() < 0.18:  # a second crystal lies over a part of the first
        stretch = rng.uniform(0.9, 1.12)
        other = arrange(rng, shape, cell._replace(vectors=cell.vectors * stretch), "none", margin=4 * sigma + 2)
        region, height = outline(rng, shape, str(rng.choice([*OUTLINES, "full"])))
        over = (value_at(region, other.positions) < 0) & (value_at(distance, other.positions) < 0)
        shine = other.peaks[over] * value_at(height, other.positions[over]) * rng.uniform(0.3, 1.0)
        positions, peaks, overlay = np.concatenate([positions, other.positions[over]]), np.concatenate([peaks, shine]), int(over.sum())
    peaks = peaks / (peaks.max() if len(peaks) else 1.0)

    tail, reach = float(rng.uniform(0.1, 0.3)) * (rng.random() < 0.5), sigma * float(rng.uniform(1.0, 3.0))
    image = draw_columns(shape, positions, peaks, sigma, tail, reach)
    signal = float(np.ptp(image)) or 1.0
    floor = float(rng.uniform(0, 0.5))
    body = coverage(distance, softness=2.0) * thickness
    image = image + cv2.GaussianBlur(floor * signal * body, (0, 0), max(0.5 * cell.spacing, 1.0))
    detail = float((image - cv2.GaussianBlur(image, (0, 0), cell.spacing)).std())  # of the columns alone, without edges and thickness
    film = float(log_uniform(rng, 0.05, 1.0)) * (rng.random() < 0.5)  # amorphous carbon, damage or oxide, everywhere or beyond the edge
    speckle = max(2.5, cell.spacing * float(rng.uniform(0.4, 1.2)))
    amorphous = fractal_noise(rng, shape, rng.uniform(0.5, 2.5), smallest=speckle, largest=max(12 * speckle, 30))
    where = 1.0 if kind == "full" or rng.random() < 0.5 else 1 - coverage(distance, softness=4.0)
    lift = float(rng.uniform(0, 4))
    image = image + film * detail * where * (lift + amorphous)
    background = float(rng.uniform(0, 1)) ** 2 * signal
    image = image + background * lobes(rng, shape)
    dark = bool(rng.random() < 0.3)

    seen, gone = in_frame(positions, shape), in_frame(empty, shape)
    overlay = int(seen[len(seen) - overlay :].sum())
    parameters = {
        "positions": positions[seen] * pixel_size,
        "intensities": peaks[seen],
        "vacancies": empty[gone] * pixel_size,
        "cell": cell.vectors * pixel_size,
        "places": cell.places,
        "column_width": sigma * pixel_size,
        "spacing": cell.spacing * pixel_size,
        "outline": kind,
        "strain": strain,
        "vacancy_rate": vacancy_rate,
        "disorder": disorder,
        "intensity_spread": spread,
        "thickness_slope": slope,
        "overlay_columns": overlay,
        "overlay_rotation": turn,
        "tail": tail,
        "tail_reach": reach * pixel_size,
        "floor": floor,
        "film": film,
        "film_lift": lift,
        "speckle": speckle * pixel_size,
        "background": background / signal,
        "dark": dark,
    }
    note = {key: value * pixel_size if key == "band_width" else value for key, value in note.items()}
    return Specimen(finish(-image if dark else image), pixel_size, "crystal", parameters | note)
