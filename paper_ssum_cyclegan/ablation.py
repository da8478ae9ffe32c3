"""Blocks against dropout, the paper's Fig. S6, at a size that two CPU cores can train: `python -m paper_ssum_cyclegan.ablation --out DIR`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from common.evaluation import write_table

from .cases import simulated
from .config import Config
from .measures import scores


def ablation(
    out: Path,
    blocks: tuple[int, ...] = (3, 6, 9, 12),
    dropout: tuple[float, ...] = (0.0, 0.2, 0.5),
    steps: int = 1000,
    pair_weight: float = 20.0,
    chips: int = 8,
    seed: int = 0,
) -> None:
    """Train every combination from the preset `tiny`, with the optimiser of `small`, into a run folder of its own, and write ablation.csv: mean scores on chips
    that none of them saw.

    Args:
        out: the folder, made if missing; runs that were begun in it go on, finished ones stay as they are.
        blocks: residual blocks of either generator.
        dropout: rates.
        steps: of each training, half of them at the full rate.
        pair_weight: of plain L1 between the two images of a pair, as in `small`; 0 leaves the paper's losses alone.
        chips: simulated chips to measure on.
        seed: of trainings and chips.
    """
    from .evaluate import Restorer
    from .train import train_ssum_cyclegan

    if steps < 2 or chips < 1:
        raise ValueError(f"steps must be at least 2 and chips at least 1, got {steps} and {chips}")
    rows, cases = [], None
    for count in blocks:
        for rate in dropout:
            config = replace(Config.tiny(), blocks=count, dropout=rate, pairs=32, batch=2, learning_rate=4e-4, shift_l1_weight=pair_weight, shift=0, seed=seed,
                             steps=steps, constant_steps=steps - steps // 2, falling_steps=steps // 2, checkpoint_every=max(1, steps // 4),
                             validate_every=steps)  # fmt: skip
            run = out / f"blocks{count}_dropout{rate:g}"
            train_ssum_cyclegan(config, run, resume=run.exists())  # which refuses other settings, and does nothing where all steps are done
            restore, config = Restorer.load(str(run))
            cases = cases or simulated(config, "ablation", seed, chips)
            found = [scores(case.sem, restore(case.optical)) for case in cases]
            means = {score: round(float(np.mean([one[score] for one in found])), 3) for score in ("psnr", "psnr_aligned", "ssim_aligned", "epi_aligned")}
            rows.append({"blocks": count, "dropout": rate} | means)
    optical = [scores(case.sem, case.optical) for case in cases]
    rows.append({"blocks": "optical image", "dropout": ""} | {score: round(float(np.mean([one[score] for one in optical])), 3) for score in means})
    write_table(out / "ablation.csv", rows)


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(ablation, "python -m paper_ssum_cyclegan.ablation"))
