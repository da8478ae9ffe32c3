"""The figures of DLSS-STEM's evaluation, numbered as in the paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from keras import ops
from matplotlib.figure import Figure

from .comparisons import BAND, NETWORK, SHARP, TARGET, Measured, amplitudes, edge_curves, mse
from .deconvolution import ZEROS
from .sampling import MEAN_SQUARED_ERROR, coverage_p

INSET = 16  # pixels of the top left of the error map [P]
SHOWN_SIDE = 192  # pixels of the middle of an example


def draw_coverage(path: Path, measured: Measured, known: tuple[int, ...], fit: dict) -> None:
    """Fig. 2: root MSE against coverage with the root of the quadratic, ours and the paper's. Fig. 6: against the step, with those that were not trained."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = list(measured.errors)
    ours = np.array([measured.root(step, NETWORK) for step in steps])
    seen = np.isin(steps, known)
    scan_steps = np.linspace(3.8, 12, 200)
    coverage, published = scan_steps**-2, MEAN_SQUARED_ERROR * ops.convert_to_numpy(coverage_p(scan_steps))
    left.plot(1 / np.square(steps)[seen], ours[seen], "o", label="network")
    left.plot(coverage, np.sqrt(published), color="0.6", label="p_raw of the paper")
    if fit:
        left.plot(coverage, np.sqrt(np.maximum(np.polyval([fit["square"], fit["linear"], fit["constant"]], coverage), 0)), color="tab:blue", label="ours")
    left.set(xlabel="coverage", ylabel="root MSE")
    right.plot(np.array(steps)[seen], ours[seen], "o-", color="tab:blue", label="network")
    right.plot(np.array(steps)[~seen], ours[~seen], "o", color="tab:blue", markerfacecolor="none", label="network, unseen steps")
    baselines = {
        "best tuned aligned interpolation": [measured.root(step, measured.best(step)) for step in steps],
        "aligned bilinear": [measured.root(step, "aligned bilinear") for step in steps],
        "legacy bilinear": [measured.root(step, "legacy bilinear") for step in steps],
    }
    for (name, values), colour in zip(baselines.items(), ("tab:orange", "tab:green", "tab:red"), strict=True):
        right.plot(steps, values, ".-", color=colour, linewidth=1, label=name)
    right.set(xlabel="scan step (px)", ylim=(0, None))
    left.legend(fontsize=8)
    right.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=80)


def draw_histograms(path: Path, measured: Measured, end: float) -> None:
    """Fig. 4: 100 bins of the crops' MSE below `end` for each step, and how many lie beyond."""
    columns = min(len(measured.errors), 5)
    rows = -(-len(measured.errors) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.6 * rows), layout="constrained")
    for axis in (axes := figure.subplots(rows, columns, squeeze=False).ravel())[len(measured.errors) :]:
        axis.axis("off")
    for axis, (step, errors) in zip(axes, measured.errors.items(), strict=False):
        axis.hist(errors[NETWORK], np.linspace(0, end, 101), color="0.3")
        axis.set_title(f"step {step}, {np.sum(errors[NETWORK] > end)} beyond", fontsize=9)
        axis.set(xlabel="MSE")
    figure.savefig(path, dpi=80)


def draw_error_map(path: Path, error: np.ndarray) -> None:
    """Fig. 7: root MSE of every output pixel, and its top left enlarged. error: (side, side)."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    limits = {"cmap": "gray", "vmin": np.quantile(error, 0.001), "vmax": np.quantile(error, 0.999), "interpolation": "nearest"}
    left.imshow(error, **limits)
    left.set_title("root MSE of pixels", fontsize=9)
    shown = right.imshow(error[:INSET, :INSET], **limits)
    right.set_title(f"top left {INSET} x {INSET} pixels", fontsize=9)
    figure.colorbar(shown, ax=right)
    figure.savefig(path, dpi=80)


def draw_edges(path: Path, error: np.ndarray) -> None:
    """Fig. 8: root MSE against the distance from the edge, and by how much its mean falls without a frame. error: (side, side)."""
    at, fall = edge_curves(error)
    distance = np.arange(1, len(at) + 1)
    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.subplots()
    left.plot(distance, at, color="tab:blue", linewidth=1)
    left.axhline(at.mean(), color="tab:blue", linestyle="--", linewidth=0.8)
    left.set(xlabel="distance from the edge (px); width of the frame (px)", ylabel="root MSE")
    right = left.twinx()
    right.plot(distance - 1, 100 * fall, color="tab:red", linewidth=1)
    right.set_ylabel("fall of the mean root MSE without the frame (%)", color="tab:red")
    figure.savefig(path, dpi=80)


def draw_examples(path: Path, rows: dict[str, dict[str, np.ndarray]]) -> None:
    """Fig. 5: the middle of some crops at some steps, one row each: name -> its `pictures`. Titles give root MSE over the whole crop."""
    columns = [name for name in next(iter(rows.values())) if name != SHARP]
    figure = Figure(figsize=(2.7 * len(columns), 2.9 * len(rows)), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(len(rows), len(columns), squeeze=False), rows.items(), strict=True):
        middle = central(images[TARGET])
        limits = {"vmin": middle.min(), "vmax": middle.max()} if np.ptp(middle) else {"vmin": 0, "vmax": 1}
        shown = [(title, image) for title, image in images.items() if title != SHARP]
        for k, (axis, (title, image)) in enumerate(zip(axes, shown, strict=True)):
            axis.imshow(central(image), cmap="gray", interpolation="nearest", **limits)
            score = "" if title == TARGET else f", {np.sqrt(mse(image, images[TARGET])):.4f}"
            axis.set_title(f"{name}: {title}{score}" if k == 0 else f"{title}{score}", fontsize=8)
            axis.axis("off")
    figure.savefig(path, dpi=80)


def central(image: np.ndarray, side: int = SHOWN_SIDE) -> np.ndarray:
    top, left = ((n - min(n, side)) // 2 for n in image.shape)
    return image[top : top + side, left : left + side]


def draw_spectra(path: Path, shown: dict[int, list[dict[str, np.ndarray]]]) -> None:
    """Radially averaged spectra, root mean squares over crops of what `pictures` gives at each step."""
    figure = Figure(figsize=(4.2 * len(shown), 3.8), layout="constrained")
    for axis, (step, crops) in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown.items(), strict=True):
        for name in crops[0]:
            spectra = [amplitudes(images[name]) for images in crops]
            axis.semilogy(spectra[0][0], np.sqrt(np.mean([amplitude**2 for _, amplitude in spectra], 0)), label=name, linewidth=1)
        axis.axvspan(BAND, 0.5, color="0.93")
        axis.axvline(0.5 / step, color="0.6", linewidth=0.8)
        axis.set(xlabel="cycles per pixel; line: the scan's Nyquist frequency", title=f"step {step}")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=80)


def draw_deconvolution(path: Path, rows: dict[str, dict[str, np.ndarray]]) -> None:
    """Fig. 5's other half: the middle 96 pixels of images, one row for each name; and the logarithm of the last row's spectra, the transfer zeros marked."""
    columns = len(next(iter(rows.values())))
    figure = Figure(figsize=(3 * columns, 3.2 * (len(rows) + 1)), layout="constrained")
    grid = figure.subplots(len(rows) + 1, columns, squeeze=False)
    for axes, (label, images) in zip(grid, rows.items(), strict=False):
        for k, (axis, (name, image)) in enumerate(zip(axes, images.items(), strict=True)):
            axis.imshow(central(image, 96), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(name if k else f"{label}: {name}", fontsize=9)
            axis.axis("off")
    spectra = {name: np.fft.fftshift(np.log10(np.abs(np.fft.fft2(image - image.mean())) + 1e-6)) for name, image in images.items()}
    high = max(spectrum.max() for spectrum in spectra.values())
    for axis, (name, spectrum) in zip(grid[-1], spectra.items(), strict=True):
        axis.imshow(spectrum, cmap="magma", vmin=high - 5, vmax=high, extent=(-0.5, 0.5, 0.5, -0.5))
        axis.set_xticks([-ZEROS[1], -ZEROS[0], 0, *ZEROS], ["", "", "0", *(f"{zero:.2f}" for zero in ZEROS)], fontsize=7)
        axis.set_yticks([])
        axis.set_title(f"spectrum: {name}", fontsize=9)
    figure.savefig(path, dpi=80)
