"""The figures of SEM-GAN's evaluation: fields and cross-sections (Fig. 2 of the paper), gap widths (Fig. 3), spectra (Fig. 4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .spectra import RESOLVED, magnitude_spectrum, radial_average, ring_correlation


def draw_field(path: Path, cases: list) -> None:
    """Rows of fields, columns of methods, the central 160 pixels of each; under them the cross-section along the middle row of the first."""
    middle = len(centre(cases[0].reference)) // 2
    names = [*cases[0].images, "high magnification"]
    figure = Figure(figsize=(2.7 * len(names), 2.8 * (len(cases) + 1)), layout="constrained")
    grid = figure.add_gridspec(len(cases) + 1, len(names))
    for row, case in enumerate(cases):
        pictures = case.images | {"high magnification": case.reference}
        for column, name in enumerate(names):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(centre(pictures[name]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(name if row == 0 else "", fontsize=9)
            axis.axis("off")
            if row == 0:
                axis.axhline(middle, color="tab:red", linewidth=0.5)
    axis = figure.add_subplot(grid[-1, :])
    for name, picture in (cases[0].images | {"high magnification": cases[0].reference}).items():
        axis.plot(centre(picture)[middle], label=name, linewidth=2 if name == "high magnification" else 1)
    axis.set(xlabel="pixels along the red line", ylabel="grey level")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=80)


def centre(image: np.ndarray, side: int = 160) -> np.ndarray:
    top, left = ((n - min(n, side)) // 2 for n in image.shape)
    return image[top : top + side, left : left + side]


def draw_gaps(path: Path, measured: dict) -> None:
    """Histograms of gap widths with a Gaussian of the same mean and deviation, and what is undetected, one panel per image."""
    reference = measured["reference"]
    figure = Figure(figsize=(3.2 * len(measured), 3), layout="constrained")
    edges = np.arange(0, 121, 5.0)
    for axis, (name, found) in zip(figure.subplots(1, len(measured), sharey=True), measured.items(), strict=True):
        both = reference.exists & found.exists & np.isfinite(found.width_nm)
        widths, missing = found.width_nm[both], np.mean(~found.exists[reference.exists])
        axis.hist(widths, edges, color="0.7")
        axis.set(xlabel="gap (nm)")
        if len(np.unique(widths)) < 2:
            axis.set_title(f"{name}\n{100 * missing:.1f} % undetected", fontsize=8)
            continue
        x = np.linspace(0, 120, 200)
        axis.plot(x, 5 * len(widths) * np.exp(-((x - widths.mean()) ** 2) / (2 * widths.var())) / np.sqrt(2 * np.pi * widths.var()), color="tab:red")
        axis.set_title(f"{name}\n{widths.mean():.1f} +- {widths.std():.1f} nm, {100 * missing:.1f} % undetected", fontsize=8)
    figure.savefig(path, dpi=80)


def draw_spectra(path: Path, cases: list, pixel_size: float, band: tuple[float, float]) -> None:
    """Radially averaged spectra and ring correlations with the reference, means over fields of equal size as the first; its two-dimensional spectra above."""
    cases = [case for case in cases if case.reference.shape == cases[0].reference.shape]
    shown = cases[0].images | {"reference": cases[0].reference}
    figure = Figure(figsize=(1.7 * len(shown), 5.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 2))
    levels = np.log10(magnitude_spectrum(cases[0].reference) + 1e-6)
    for axis, (name, picture) in zip(top.subplots(1, len(shown)), shown.items(), strict=True):
        axis.imshow(np.log10(magnitude_spectrum(picture) + 1e-6), cmap="magma", vmin=levels.mean() - 1, vmax=levels.max(), aspect="auto")
        axis.set_title(name, fontsize=8)
        axis.axis("off")
    left, right = bottom.subplots(1, 2)
    for name in (*cases[0].images, "reference"):
        pictures = [case.reference if name == "reference" else case.images[name] for case in cases]
        spectra = [radial_average(picture, pixel_size) for picture in pictures]
        left.semilogy(spectra[0][0], np.mean([magnitude for _, magnitude in spectra], 0), label=name)
        if name != "reference":
            rings = [ring_correlation(picture, case.reference, pixel_size) for picture, case in zip(pictures, cases, strict=True)]
            right.plot(rings[0][0], np.mean([correlation for _, correlation in rings], 0), label=name)
    right.axhline(RESOLVED, color="0.5", linewidth=0.8)
    for axis, title in ((left, "mean magnitude of the spectrum"), (right, "ring correlation with the high magnification")):
        axis.axvspan(*band, color="0.93")
        axis.set(xlabel="cycles per nm", title=title)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=80)
