"""High-resolution transmission electron microscopy: crystals, particles and amorphous films as the interference pattern that the objective lens makes of them.

Units: lengths in nm, spatial frequencies g in 1/nm, accelerating voltage in kV, spherical aberration in mm, convergence in mrad, phases in rad.

    lambda = 1.22643 / sqrt(U + 0.97845e-6 U^2)                          electron wavelength for U volts
    sigma  = 2 pi / (lambda U) (m c^2 + e U) / (2 m c^2 + e U)           phase per projected potential, rad / (V nm)
    psi    = exp((i - a) sigma V_2) P(dz) exp((i - a) sigma V_1)         phase object of one or two slices with amplitude contrast a
    P      = exp(-i pi lambda dz g^2)                                    Fresnel propagation between the slices
    T(g)   = A(g) E_s(g) E_t(g) exp(-i chi(g))                           transfer of the wave: aperture A, envelopes, aberration
    chi    = pi lambda df g^2 + pi / 2 Cs lambda^3 g^4                   df < 0 is underfocus
    E_t    = exp(-(pi lambda D g^2)^2 / 2)                               focal spread D, standard deviation
    E_s    = exp(-(pi q)^2 (df g + Cs lambda^2 g^3)^2)                   source of half-angle q (1/e)
    I      = |IFT(T FT(psi))|^2

A weak phase p cos(2 pi g x) then gives the contrast I - 1 = 2 p sin(chi(g)) E(g) cos(2 pi g x): at Scherzer's underfocus atoms are dark. The envelopes act on
the wave (quasi-coherent), which is exact to first order in the phase.
Source: E. J. Kirkland, Advanced Computing in Electron Microscopy, 2nd ed., chapters 3 and 5; D. B. Williams and C. B. Carter, chapter 28.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.fft import fft2, ifft2, next_fast_len

from .base import Specimen, band_limit, coverage, finish, fractal_noise, lobes, log_uniform, pixel_grid
from .crystal import FAULTS, OUTLINES, Cell, arrange, generic_cell, in_frame, nearest_distance, outline
from .lattice import draw_structure, splat, value_at

ATOM_POTENTIAL = 0.047878  # V nm^3 per angstrom of scattering amplitude at g = 0: h^2 / (2 pi m e)
REST_ENERGY = 510.99895  # keV
MARGIN = 24  # pixels drawn around the picture, so that its border meets more of the specimen; the transforms are periodic


class Optics(NamedTuple):
    """The microscope: kv, defocus nm, cs mm, focal_spread nm (standard deviation), convergence mrad (1/e half-angle), aperture radius 1/nm (inf: none)."""

    kv: float
    defocus: float
    cs: float
    focal_spread: float
    convergence: float
    aperture: float


def wavelength(kv: float) -> float:
    """Relativistic electron wavelength in nm: 0.00251 at 200 kV."""
    volts = 1e3 * kv
    return 1.22643 / np.sqrt(volts + 0.97845e-6 * volts**2)


def interaction(kv: float) -> float:
    """Phase per projected potential in rad / (V nm): 0.00729 at 200 kV."""
    return 2 * np.pi / (wavelength(kv) * 1e3 * kv) * (REST_ENERGY + kv) / (2 * REST_ENERGY + kv)


def aberration(g: np.ndarray, optics: Optics) -> np.ndarray:
    """Phase chi in rad that the lens adds to a wave of spatial frequency g (1/nm)."""
    lam = wavelength(optics.kv)
    return np.pi * lam * optics.defocus * g**2 + 0.5 * np.pi * optics.cs * 1e6 * lam**3 * g**4


def envelope(g: np.ndarray, optics: Optics) -> np.ndarray:
    """Damping in [0, 1] of a wave of spatial frequency g (1/nm) by focal spread, source size and aperture."""
    lam = wavelength(optics.kv)
    temporal = np.exp(-0.5 * (np.pi * lam * optics.focal_spread * g**2) ** 2)
    spatial = np.exp(-((np.pi * optics.convergence * 1e-3) ** 2) * (optics.defocus * g + optics.cs * 1e6 * lam**2 * g**3) ** 2)
    return temporal * spatial * (g <= optics.aperture)


def _frequencies(shape: tuple[int, int], pixel_size: float) -> np.ndarray:
    return np.hypot(np.fft.fftfreq(shape[0], pixel_size)[:, None], np.fft.fftfreq(shape[1], pixel_size)).astype(np.float32)


def expose_wave(wave: np.ndarray, pixel_size: float, optics: Optics) -> np.ndarray:
    """Intensity (height, width) float32 that the lens makes of an exit wave (height, width) complex; periodic; 1 where the wave is 1."""
    g = _frequencies(wave.shape, pixel_size)
    damping, chi = np.float32(envelope(g, optics)), np.float32(np.mod(aberration(g.astype(float), optics), 2 * np.pi))
    seen = ifft2(fft2(wave) * (damping * np.exp(-1j * chi)))
    return (seen.real**2 + seen.imag**2).astype(np.float32)


def exit_wave(phases: list[np.ndarray], pixel_size: float, kv: float, thickness: float = 0.0, absorption: float = 0.0) -> np.ndarray:
    """Wave (height, width) complex64 behind slices of projected phase sigma V (rad, beam first), spread evenly over `thickness` nm; absorption is a above."""
    wave = np.exp(np.complex64(1j - absorption) * np.float32(phases[0]))
    if len(phases) > 1:
        step = np.pi * wavelength(kv) * thickness / len(phases)
        spread = np.exp(-1j * np.float32(step) * _frequencies(wave.shape, pixel_size) ** 2)
        for phase in phases[1:]:
            wave = ifft2(fft2(wave) * spread) * np.exp(np.complex64(1j - absorption) * np.float32(phase))
    return wave


def _cell(rng: np.random.Generator, pixel_size: float) -> tuple[Cell, str, float]:
    """A real structure of lattice.py (where it can be resolved) or a generic cell; weights become projected potentials. Also its name and heaviest Z."""
    name, vectors, places, weights, _ = draw_structure(rng)
    vectors = vectors / pixel_size
    cell = Cell(vectors, places, weights, nearest_distance(vectors, places))
    if rng.random() < 0.4 or not 2.5 < cell.spacing < 40:
        name, cell = "generic", generic_cell(rng)
    # f(0) grows as about the root of Z, whose power 1.7 the weights are.
    return cell._replace(weights=cell.weights ** (0.5 / 1.7)), name, float(cell.weights.max() ** (1 / 1.7))


def _optics(rng: np.random.Generator, pixel_size: float, spacing: float) -> Optics:
    """A microscope that passes the spacing (nm) at the centre of the drawn structure, if twenty draws find one."""
    for _ in range(20):
        kv, corrected = float(rng.choice([80, 120, 200, 300])), rng.random() < 0.4
        optics = Optics(
            kv=kv,
            defocus=float(rng.uniform(-100, 100)),
            cs=float(rng.choice([-1, 1]) * log_uniform(rng, 0.001, 0.03) if corrected else rng.uniform(0.5, 2.0)),
            focal_spread=float(rng.uniform(1.0, 6.0)),
            convergence=float(log_uniform(rng, 0.03, 0.5)),
            aperture=float(rng.uniform(1.05, 3.0) / spacing) if rng.random() < 0.5 else np.inf,
        )
        if abs(np.sin(aberration(1 / spacing, optics))) * envelope(1 / spacing, optics) > 0.25:
            break
    return optics


def _fringes(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> np.ndarray:
    """Lattice planes of a crystal tilted off its zone axis: cosine fringes of a spacing in pixels along any direction, (height, width) in [0, 1]."""
    rows, columns = pixel_grid(shape)
    angle, start = rng.uniform(0, 2 * np.pi, 2)
    across = np.float32(np.sin(angle)) * rows + np.float32(np.cos(angle)) * columns
    return np.float32(0.5) + np.float32(0.5) * np.cos(np.float32(2 * np.pi / spacing) * across + np.float32(start))


def _film(rng: np.random.Generator, shape: tuple[int, int], pixel_size: float, kind: str) -> np.ndarray:
    """Projected phase of a support, zero mean and unit deviation: atoms at random ("amorphous") or curled layers 0.34 nm apart ("graphitic")."""
    grain = max(float(log_uniform(rng, 0.1, 0.2)) / pixel_size, 2.0)
    noise = fractal_noise(rng, shape, rng.uniform(0, 1), smallest=grain, largest=max(1.5 / pixel_size, 2 * grain))
    if kind == "amorphous":
        return noise
    rows, columns = pixel_grid(shape)
    layers, closest = np.zeros(shape, np.float32), np.full(shape, np.inf, np.float32)
    for row, column in rng.uniform(-0.2, 1.2, (rng.integers(2, 7), 2)) * np.array(shape):  # every onion owns the pixels nearest to it
        bent = np.hypot(rows - np.float32(row), columns - np.float32(column)) + np.float32(0.12 * min(shape)) * fractal_noise(rng, shape, 4.0)
        layers, closest = np.where(bent < closest, np.cos(2 * np.pi * pixel_size / np.float32(0.34) * bent), layers), np.minimum(bent, closest)
    order = fractal_noise(rng, shape, 2.0, smallest=0.8 / pixel_size)
    mixed = layers * np.clip(0.5 + order, 0, 1.5) + noise
    return mixed / mixed.std()


class _Scene(NamedTuple):
    """What the beam meets beside the film, over a frame of (height, width) pixels.

    body: relative phase of the crystals of which only planes are seen. mass: relative thickness. positions (n, 2), in pixels, and peaks (n,), at most 1, of the
    atom columns. note: parameters; lengths in pixels.
    """

    body: np.ndarray
    mass: np.ndarray
    positions: np.ndarray
    peaks: np.ndarray
    note: dict


def _particle(rng: np.random.Generator, shape: tuple[int, int], centre: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance in pixels to the outline of a bumpy ball, and its relative thickness."""
    rows, columns = pixel_grid(shape)
    dy, dx = rows - np.float32(centre[0]), columns - np.float32(centre[1])
    around = np.arctan2(dy, dx)
    bumps = 1 + sum(np.float32(rng.normal(0, 0.06)) * np.cos(k * around + np.float32(rng.uniform(0, 6.3))) for k in (2, 3, 4, 6))
    distance = np.hypot(dy, dx) - np.float32(radius) * bumps
    return distance, np.sqrt(np.clip(1 - np.maximum(1 + distance / np.float32(radius), 0) ** 2, 0, 1))


def _scene(rng: np.random.Generator, shape: tuple[int, int], cell: Cell, layout: str, planes: float, smallest: float, soft: float, margin: float) -> _Scene:
    """One crystal ("full" or with an "outline") or 2-11 "particles", each as columns or as planes `planes` pixels apart.

    smallest: radius of the smallest particle; soft: width of the crystals' edges; margin: how far beyond the frame columns still matter; all in pixels.
    """
    body, mass = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    positions, peaks = [np.zeros((0, 2))], [np.zeros(0)]
    note = {key: [] for key in ("outlines", "faults", "rotations", "strains", "vacancy_rates", "radii", "centres")}
    for _ in range(int(rng.integers(2, 12)) if layout == "particles" else 1):
        if layout == "particles":
            centre, radius = rng.uniform(0, 1, 2) * np.array(shape), float(min(log_uniform(rng, smallest, 6 * smallest), 0.35 * min(shape)))
            distance, thickness = _particle(rng, shape, centre, radius)
            fault, kind = str(rng.choice(["none", "twin"], p=[0.8, 0.2])), "particle"
            note["radii"].append(radius)
            note["centres"].append(centre)
        else:
            kind = "full" if layout == "full" else str(rng.choice(OUTLINES))
            distance, thickness = outline(rng, shape, kind)
            fault = str(rng.choice(list(FAULTS), p=list(FAULTS.values())))
        mass = np.maximum(mass, thickness)
        note["outlines"].append(kind)
        if rng.random() < (0.45 if layout == "particles" else 0.15):
            body = body + coverage(distance, softness=soft) * thickness * _fringes(rng, shape, planes)
            continue
        strain, vacancies = float(rng.uniform(0, 0.03)) * (rng.random() < 0.3), float(rng.uniform(0, 0.02)) * (rng.random() < 0.3)
        found = arrange(rng, shape, cell, fault, strain, vacancies, margin)
        kept = value_at(distance, found.positions) < 0
        positions.append(found.positions[kept])
        peaks.append(found.peaks[kept] * value_at(thickness, found.positions[kept]))
        for key, value in zip(("faults", "rotations", "strains", "vacancy_rates"), (fault, found.note["rotation"], strain, vacancies), strict=True):
            note[key].append(value)
    positions, peaks = np.concatenate(positions), np.concatenate(peaks)
    return _Scene(body, mass, positions, peaks / (peaks.max() if len(peaks) else 1.0), note)


def _enlarge(field: np.ndarray, factor: int) -> np.ndarray:
    """Sample a smooth field `factor` times as finely."""
    return field if factor == 1 else cv2.resize(field, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)


def phase_contrast(seed, shape: tuple[int, int] = (480, 640), pixel_size: float | None = None) -> Specimen:
    """Crystals (whole, edged or as particles on a film) in a high-resolution transmission microscope: |psi|^2, without noise.

    seed: int or tuple of ints; shape: (height, width) in pixels, at least 64 x 64; pixel_size: nm, drawn from 0.015-0.06 when None (real structures need less
    than about 0.08; beyond, cells are generic, 5-40 pixels). Image (height, width) float32 spanning [0, 1], nothing above 0.9 of Nyquist.
    parameters: the optics as in `Optics`; `positions` (n, 2) row, column in nm and `intensities` (n,) projected potential relative to the largest, of the atom
    columns on the picture (none where only planes are drawn; the lens may show columns dark, bright, displaced or not at all); `range` (2,): lowest and
    highest intensity of the picture relative to the incident one; `phase` of the strongest column or plane and `film_phase` (rms), rad; lengths in nm.
    """
    rng = np.random.default_rng(seed)
    pixel_size = float(log_uniform(rng, 0.015, 0.06)) if pixel_size is None else float(pixel_size)
    cell, structure, number = _cell(rng, pixel_size)
    layout = str(rng.choice(["full", "outline", "particles"], p=[0.3, 0.4, 0.3]))
    planes = float(np.clip(max(np.linalg.norm(cell.vectors, axis=1).min(), 1.15 * cell.spacing), 4, 40))
    optics = _optics(rng, pixel_size, planes * pixel_size)
    # The wave is sampled finely enough for the products of its components, whose frequencies are twice as high.
    information = min(optics.aperture, 0.9 / np.sqrt(wavelength(optics.kv) * optics.focal_spread))
    factor = 1 if information * pixel_size < 0.25 else 2
    frame = tuple(next_fast_len(n + 2 * MARGIN) for n in shape)
    sigma = max(float(rng.uniform(0.03, 0.06)) / pixel_size, 0.9 / factor)  # of a projected atom, thermal motion included
    scene = _scene(rng, frame, cell, layout, planes, max(0.7 / pixel_size, 2.5 * planes), max(0.2 / pixel_size, 1.0), 4 * sigma)

    strength = float(log_uniform(rng, 0.05, 1.2))
    crystal = strength * _enlarge(scene.body, factor)
    if len(scene.peaks):
        widths = np.full(len(scene.peaks), sigma * factor)
        crystal = crystal + splat(crystal.shape, scene.positions * factor + (factor - 1) / 2, strength * scene.peaks, widths)
    support = str(rng.choice(["amorphous", "graphitic"], p=[0.8, 0.2]))
    film = strength * float(log_uniform(rng, 0.03, 0.5)) * (1.0 if rng.random() < 0.6 else 0.15)
    cover, lift = np.float32(1.0), float(rng.uniform(0, 3))
    ends = "full" if rng.random() < 0.6 else str(rng.choice(OUTLINES[:2]))
    if ends != "full":
        reach, height = outline(rng, frame, ends)
        cover = coverage(reach, softness=max(0.3 / pixel_size, 2.0)) * (0.4 + 0.6 * height)
    carbon = np.float32(film) * cover * (_film(rng, frame, pixel_size, support) + np.float32(lift))

    absorption, slices = float(rng.uniform(0, 0.15)), int(rng.integers(1, 3))
    atoms = strength * 2 * np.pi * (sigma * pixel_size) ** 2 / (interaction(optics.kv) * ATOM_POTENTIAL * 1.2 * np.sqrt(number))
    phases = [crystal / slices] * slices
    phases[0] = phases[0] + _enlarge(carbon, factor)
    wave = exit_wave(phases, pixel_size / factor, optics.kv, 0.3 * atoms, absorption)
    start = MARGIN * factor
    intensity = expose_wave(wave, pixel_size / factor, optics)[start : start + shape[0] * factor, start : start + shape[1] * factor]
    picture = band_limit(intensity, shape)
    # Thick matter loses electrons to angles and energies that the aperture stops, over and above what the phase object does.
    loss, light = float(rng.uniform(0, 0.7)) * (rng.random() < 0.6), float(rng.uniform(0, 0.4)) * (rng.random() < 0.6)
    shade = np.exp(-loss * strength * (scene.mass + film * cover))[MARGIN : MARGIN + shape[0], MARGIN : MARGIN + shape[1]]
    picture = picture * cv2.GaussianBlur(np.float32(shade), (0, 0), max(0.15 / pixel_size, 1.0)) * (1 - light * lobes(rng, shape))

    seen = in_frame(scene.positions - MARGIN, shape)
    parameters = {
        "positions": (scene.positions[seen] - MARGIN) * pixel_size,
        "intensities": scene.peaks[seen],
        "structure": structure,
        "cell": cell.vectors * pixel_size,
        "layout": layout,
        "plane_spacing": planes * pixel_size,
        "column_width": sigma * pixel_size,
        "phase": strength,
        "atoms": atoms,
        "thickness": 0.3 * atoms,
        "slices": slices,
        "absorption": absorption,
        "loss": loss,
        "support": support,
        "film_phase": film,
        "film_outline": ends,
        "film_lift": lift,
        "illumination": light,
        "range": np.array([picture.min(), picture.max()]),
    }
    note = scene.note | {"radii": np.array(scene.note["radii"]) * pixel_size, "centres": (np.array(scene.note["centres"]).reshape(-1, 2) - MARGIN) * pixel_size}
    return Specimen(finish(picture), pixel_size, "phase_contrast", parameters | note | optics._asdict())
