"""The pictures of CGRDN's evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def draw_examples(path: Path, shown: dict[str, list[dict[str, np.ndarray]]], crop: int = 160) -> None:
    """One row for each modality and example: the middle `crop` pixels of the distorted image, the best classical method, the network and the target.

    All on the grey scale of the target.
    """
    rows = [(modality, images) for modality, examples in shown.items() for images in examples]
    figure = Figure(figsize=(9, 2.35 * len(rows)), layout="constrained")
    for axes, (modality, images) in zip(figure.subplots(len(rows), 4, squeeze=False), rows, strict=True):
        target = images["target"]
        low, high = np.quantile(target, (0.002, 0.998))
        margin = max(0, (target.shape[0] - crop) // 2)
        for axis, (name, image) in zip(axes, images.items(), strict=True):
            axis.imshow(image[margin : margin + crop, margin : margin + crop], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_title(name, fontsize=8)
        axes[0].set_ylabel(modality)
    figure.savefig(path, dpi=80)
