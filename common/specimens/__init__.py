"""Simulated specimens: seeded, calibrated, noise-free truth, because none of the papers' data can be downloaded."""

from .base import Specimen
from .chip import chip
from .crystal import crystal
from .fibres import fibres
from .gold import gold_on_carbon
from .grains import grains
from .lattice import atomic_lattice
from .medley import medley
from .phase import phase_contrast
from .porous import porous
from .powder import powder
from .section import section

SPECIMENS = {
    "gold": gold_on_carbon,
    "powder": powder,
    "porous": porous,
    "grains": grains,
    "fibres": fibres,
    "chip": chip,
    "section": section,
    "lattice": atomic_lattice,
    "crystal": crystal,
    "phase_contrast": phase_contrast,
    "medley": medley,
}


def simulate(name: str, seed, shape: tuple[int, int] = (480, 640), pixel_size: float | None = None) -> Specimen:
    """One noise-free micrograph of a family of `SPECIMENS`, at least 64 x 64; the same arguments give the same pixels. ValueError for an unknown family."""
    if name not in SPECIMENS:
        raise ValueError(f"unknown specimen {name!r}; known are {', '.join(SPECIMENS)}")
    if min(shape) < 64:  # a smaller frame holds no whole grain or particle
        raise ValueError(f"a specimen of {shape[0]} x {shape[1]} pixels is too small; give at least 64 x 64")
    return SPECIMENS[name](seed, shape, pixel_size)


__all__ = ["SPECIMENS", "Specimen", "simulate"]
