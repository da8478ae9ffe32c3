"""The three networks that the authors compared, at an equal small budget that two CPU cores can train: `python -m paper_cgrdn.comparison --out DIR`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from common.evaluation import write_table

from .config import Config

SIDE = 256  # pixels of the test pairs, and of MR-UNet's patches, which takes no others
PATCH = 128  # pixels of the other networks' patches, as in `small`: four of them, one a step, for one of MR-UNet's


def comparison(
    out: Path,
    networks: tuple[Literal["cgrdn", "grdn", "mr_unet"], ...] = ("cgrdn", "grdn", "mr_unet"),
    steps: int = 6000,
    learning_rate: float = 7e-4,
    images: int = 8,
    seed: int = 0,
) -> None:
    """Train each network from the preset `small` into a run folder of its own, all on the same number of pixels, one patch a step; write comparison.csv: PSNR
    in dB on pairs of 256 x 256 pixels that none of them saw. CGRDN and GRDN have the trunk of `small`, MR-UNet is as published.

    Args:
        out: the folder, made if missing; runs that were begun in it go on, finished ones stay as they are.
        networks: which ones.
        steps: of a training on patches of 128 x 128 pixels, all of the first stage; MR-UNet makes a quarter of them, on 256 x 256.
        learning_rate: of all of them.
        images: simulated pairs of each modality to measure on.
        seed: of trainings and pairs.
    """
    from .baselines import HINDSIGHT, oracle_gaussian
    from .evaluate import Restorer, psnr, simulated
    from .train import train_cgrdn

    if steps < 4 or images < 1:
        raise ValueError(f"steps must be at least 4 and images at least 1, got {steps} and {images}")
    rows, pairs = [], []
    for network in networks:
        side = SIDE if network == "mr_unet" else PATCH
        count = steps * PATCH**2 // side**2
        quarter = -(-count // 4)
        config = replace(Config.small(), network=network, side=side, batch=1, specimens=360, seed=seed, steps=count, pixel_steps=count, epoch=-(-count // 16),
                         learning_rate=learning_rate, ema_decay=0.99, checkpoint_every=quarter, validate_every=quarter, validation_images=6)  # fmt: skip
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
