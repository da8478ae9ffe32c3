"""Simulated specimens: seeded, calibrated, noise-free truth, because none of the papers' data can be downloaded."""

from .base import Specimen
from .chip import chip
from .fibres import fibres, porous
from .gold import gold_on_carbon
from .grains import grains
from .lattice import atomic_lattice
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
}


def simulate(name: str, seed, shape: tuple[int, int] = (480, 640), pixel_size: float | None = None) -> Specimen:
    """One noise-free micrograph of a family of `SPECIMENS`; the same arguments give the same pixels. ValueError for an unknown family."""
    if name not in SPECIMENS:
        raise ValueError(f"unknown specimen {name!r}; known are {', '.join(SPECIMENS)}")
    return SPECIMENS[name](seed, shape, pixel_size)


__all__ = ["SPECIMENS", "Specimen", "simulate"]
