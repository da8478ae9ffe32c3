"""Look at the simulated specimens, and hold them against real micrographs: `python -m common.specimens --out sheet.png --beside my_images/`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..data import FAMILIES, FolderImages, SimulatedImages
from . import SPECIMENS

BANDS = ((0.02, 0.05), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5))  # cycles per pixel; the first is the reference


def band_energies(image: np.ndarray) -> np.ndarray:
    """log10 of the mean spectral power in `BANDS` relative to the first, (bands - 1,), of the central 512 pixels behind a Hann window."""
    top, left = ((n - min(n, 512)) // 2 for n in image.shape)
    part = image[top : top + 512, left : left + 512]
    window = np.hanning(part.shape[0])[:, None] * np.hanning(part.shape[1])[None]
    power = np.abs(np.fft.fft2((part - part.mean()) * window)) ** 2
    f = np.hypot(np.fft.fftfreq(part.shape[0])[:, None], np.fft.fftfreq(part.shape[1])[None])
    means = np.array([power[(f > low) & (f <= high)].mean() for low, high in BANDS])
    return np.log10(means[1:] / means[0])


def grey_levels(image: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and skewness of the grey levels in [0, 1]."""
    centred = image - image.mean()
    return np.array([image.mean(), image.std(), (centred**3).mean() / image.std() ** 3])


def table(images) -> list[str]:
    """Lines of a Markdown table: 10, 50 and 90 % quantiles over images of the band energies and the grey levels."""
    measured = np.array([np.concatenate([band_energies(image), grey_levels(image)]) for image in images])
    return [f"{q:.0%} | " + " | ".join(f"{v:.2f}" for v in np.quantile(measured, q, axis=0)) + " |" for q in (0.1, 0.5, 0.9)]


def look(out: Path, seed: int = 0, columns: int = 8, side: int = 256, beside: Path | None = None) -> None:
    """Draw a contact sheet, one row a family, and print spectra and grey levels of those that surfaces and columns show.

    Args:
        out: the picture to write, such as sheet.png.
        seed: of the specimens.
        columns: pictures per family.
        side: pixels of a picture.
        beside: a folder of real micrographs, drawn below and measured beside the simulated ones.
    """
    families = len(SPECIMENS)
    simulated = SimulatedImages(seed, columns * families, (side, side), tuple(SPECIMENS))
    rows = [np.hstack([simulated[k * families + row] for k in range(columns)]) for row in range(families)]
    heads = ["images", "quantile", *(f"log power {low}-{high}" for low, high in BANDS[1:]), "mean", "std", "skewness"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    large = SimulatedImages(seed, 6 * len(FAMILIES))
    print("\n".join(f"| simulated | {line}" for line in table([large[k] for k in range(len(large))])))
    if beside is not None:
        real = FolderImages(beside, side)
        print("\n".join(f"| real | {line}" for line in table(real)))
        tiles = [cv2.resize(image[: min(image.shape), : min(image.shape)], (side, side), interpolation=cv2.INTER_AREA) for image in real]
        tiles += [np.ones((side, side), np.float32)] * (-len(tiles) % columns)
        rows += [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    cv2.imwrite(str(out), np.round(np.clip(np.vstack(rows), 0, 1) * 255).astype(np.uint8))


if __name__ == "__main__":
    from ..__main__ import run_tool

    raise SystemExit(run_tool(look, "python -m common.specimens", tensorflow=False))
