"""Train SEMNet: `python -m paper_semnet.train --preset small --out RUN` (the same as `empapers train semnet`)."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from common.classical import METHODS, tune_all
from common.data import SimulatedImages, batches
from common.metrics import psnr, ssim
from common.precision import building, guarded
from common.training import Trainer, halving, minimise, train, update_average, weighted_sum

from .config import Config
from .data import SCALE, describe_data, test_pairs, training_pairs
from .generator import build_generator
from .losses import losses


class SEMNet(Trainer):
    """The abstract's algorithm: Adam on 1.0 L1 + 0.1 L_hist + 0.01 L_TV, and an exponential average of the weights as the product."""

    def __init__(self, config: Config):
        with building(config.precision):
            generator, average = build_generator(config), build_generator(config)
        average.set_weights(generator.get_weights())
        adam = guarded(keras.optimizers.Adam(halving(config.learning_rate, config.halve_at), epsilon=config.adam_epsilon), config.precision)
        adam.build(generator.trainable_variables)
        super().__init__(networks={"final": average, "raw": generator}, solvers={"adam": adam})
        self.config = config

    def train_step(self, batch, kind: str = "") -> dict:
        low, high = batch
        generator, average, adam = self.networks["raw"], self.networks["final"], self.solvers["adam"]

        def objective():
            return weighted_sum(losses(high, generator(low, training=True), self.config))

        logs = minimise(adam, generator, objective)
        update_average(average, generator, self.config.ema_decay)
        return logs


def train_semnet(config: Config, out: Path, resume: bool = False, sem: Path | None = None, natural: Path | None = None, strategy=None) -> SEMNet:
    """Train to `config.steps` steps into the run folder `out`.

    sem, natural: folders of high-quality images, sampled 1:1 when both are given; simulated specimens when neither is. Validation is on `validation_images`
    simulated micrographs of other seeds, degraded with a frozen seed, beside the best classical method, tuned on yet others.
    """
    if strategy and strategy.num_replicas_in_sync > 1 and config.histogram_reduction == "histogan":
        raise ValueError("histogram_reduction histogan is one norm over the whole batch, which devices cannot share; use mean")
    pairs = training_pairs(config, sem, natural)
    held_out, tuning = (
        test_pairs(SimulatedImages(config.seed + k, count, (256, 256)), config.degradation, config.seed + k)
        for k, count in ((1, config.validation_images), (2, min(8, config.validation_images)))
    )
    strengths = tune_all(tuning, SCALE, psnr)
    baseline = max((_scores([METHODS[name][0](low, SCALE, k) for low, _ in held_out], held_out) for name, k in strengths.items()), key=lambda s: s["psnr"])

    def restored(trainer: SEMNet) -> list[np.ndarray]:
        network = trainer.networks["final"]
        lows = np.repeat(np.stack([low for low, _ in held_out])[..., None], config.channels, -1)
        return [keras.ops.convert_to_numpy(network(lows[k : k + 1], training=False))[0, ..., 0] for k in range(len(lows))]

    def validate(trainer: SEMNet) -> dict:
        ours = _scores(restored(trainer), held_out)
        return {f"val_{k}": v for k, v in ours.items()} | {f"val_{k}_classical": v for k, v in baseline.items()}

    def preview(trainer: SEMNet) -> np.ndarray:
        shown = zip(held_out[:6], restored(trainer)[:6], strict=True)
        return np.vstack([np.hstack([np.kron(low, np.ones((2, 2))), y, high]) for (low, high), y in shown])

    return train(
        "semnet",
        config,
        lambda: SEMNet(config),
        lambda step: batches(pairs, pairs.shapes, config.batch, start=step * config.batch),
        out,
        resume=resume,
        data=describe_data(config, sem, natural),
        validate=validate,
        preview=preview,
        best=("val_psnr", max),
        strategy=strategy,
    )


def _scores(images, pairs) -> dict:
    return {
        "psnr": float(np.mean([psnr(high, image) for image, (_, high) in zip(images, pairs, strict=True)])),
        "ssim": float(np.mean([ssim(high, image) for image, (_, high) in zip(images, pairs, strict=True)])),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["train", "semnet", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
