"""Figures of the SSUM CycleGAN's evaluation."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .measures import affine_fit, aligned, difference_maps

SHOWN = 256  # pixels of each picture


def draw_examples(path: Path, cases: Sequence[tuple[np.ndarray, ...]]) -> None:
    """Rows of optical image, filtered one, network, SEM image and the network's difference from it, aligned and fitted: red is too bright, blue too dark."""
    titles = ("optical", "Wiener, tuned", "network", "SEM", "network - SEM")
    figure = Figure(figsize=(2.4 * len(titles), 2.5 * len(cases)), layout="constrained")
    for row, images in zip(np.atleast_2d(figure.subplots(len(cases), len(titles))), cases, strict=True):
        y, g = aligned(images[-1], images[2])
        for axis, image, title in zip(row, (*images, difference_maps(y, affine_fit(y, g)).signed), titles, strict=True):
            signed = title == titles[-1]
            axis.imshow(
                image[:SHOWN, :SHOWN], cmap="RdBu_r" if signed else "gray", vmin=-0.5 if signed else 0, vmax=0.5 if signed else 1, interpolation="nearest"
            )
            axis.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=110)


def draw_losses(path: Path, log: Path) -> None:
    """The losses of both players over the steps of a run (the paper's Fig. S4)."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    groups = {"generators": ("G_adv", "F_adv"), "discriminators": ("D_Y", "D_X"), "cycles": ("cycle_x", "cycle_y")}
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axis, (title, names) in zip(figure.subplots(1, 3), groups.items(), strict=True):
        for name in names:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1)
        axis.set(title=title, xlabel="step")
        axis.legend()
    figure.savefig(path, dpi=110)
