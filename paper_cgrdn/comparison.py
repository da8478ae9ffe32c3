"""The three networks that the authors compared, at an equal small budget that two CPU cores can train: `python -m paper_cgrdn.comparison --out DIR`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from common.evaluation import write_table

from .config import Config

SIDE = 256  # pixels of all patches, for MR-UNet takes no others


def comparison(
    out: Path,
    networks: tuple[Literal["cgrdn", "grdn", "mr_unet"], ...] = ("cgrdn", "grdn", "mr_unet"),
    steps: int = 5000,
    learning_rate: float = 4e-4,
    images: int = 8,
    seed: int = 0,
) -> None:
    """Train each network from the preset `small` into a run folder of its own, on the same patches, one of 256 x 256 pixels a step; write comparison.csv: PSNR
    in dB on pairs that none of them saw. CGRDN and GRDN have the trunk of `small`, MR-UNet is as published.

    Args:
        out: the folder, made if missing; runs that were begun in it go on, finished ones stay as they are.
        networks: which ones.
        steps: of each training, all of the first stage.
        learning_rate: of all of them.
        images: simulated pairs of each modality to measure on.
        seed: of trainings and pairs.
    """
    from .baselines import HINDSIGHT, oracle_gaussian
    from .evaluate import Restorer, psnr, simulated
    from .train import train_cgrdn

    if steps < 1 or images < 1:
        raise ValueError(f"steps and images must be at least 1, got {steps} and {images}")
    rows, pairs = [], []
    for network in networks:
        config = replace(Config.small(), network=network, side=SIDE, batch=1, specimens=360, seed=seed, steps=steps, pixel_steps=steps, epoch=-(-steps // 16),
                         learning_rate=learning_rate, ema_decay=0.99, checkpoint_every=steps, validate_every=steps, validation_images=6)  # fmt: skip
        run = out / network
        train_cgrdn(config, run, resume=run.exists())  # which refuses other settings, and does nothing where all steps are done
        restore, config = Restorer.load(str(run))
        pairs = pairs or [pair for modality in config.modalities for pair in simulated(config, modality, "comparison", seed, SIDE, images)]
        found = [psnr(pair.target, restore(pair.distorted)) for pair in pairs]
        rows.append({"network": network, "parameters": restore.network.count_params(), "psnr": round(float(np.mean(found)), 3)})
    others = {"distorted": lambda pair: pair.distorted, HINDSIGHT: lambda pair: oracle_gaussian(pair.distorted, pair.target)}
    for name, image in others.items():
        rows.append({"network": name, "parameters": "", "psnr": round(float(np.mean([psnr(pair.target, image(pair)) for pair in pairs])), 3)})
    write_table(out / "comparison.csv", rows)


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(comparison, "python -m paper_cgrdn.comparison"))
