"""Train CGRDN: `python -m paper_cgrdn.train --preset small --out RUN` (the same as `empapers train cgrdn`)."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from keras import ops

from common.data import batches
from common.optimizers import ScheduledAdam
from common.precision import building, guarded
from common.training import Run, Trainer, minimise, step_key, train, uniform, update_average, weighted_sum

from . import losses
from .baselines import oracle_gaussian
from .config import Config
from .data import Pairs, describe_data, sources
from .discriminator import build_discriminator
from .generator import build_generator
from .schedule import StaircaseRate, rising_beta


class CGRDN(Trainer):
    """The scripts' algorithm. Steps are counted from 1 and are of two kinds:

    pixel        the generator on the weighted sum of `losses.terms`
    adversarial  beyond `config.pixel_steps`: the same plus the relativistic loss, and one update of the discriminator on the same outputs

    code       scripts          what
    distorted  x                standardised by its own mean and deviation
    target     y                standardised by x's
    output     y_hat            G(x)
    judge      D(x, candidate)  logits of patches
    """

    def __init__(self, config: Config):
        with building(config.precision):
            generator, average, judge = build_generator(config), build_generator(config), build_discriminator(config)
        average.set_weights(generator.get_weights())
        solvers = {}
        for name, network, rate, beta_1, more in (
            ("adam", generator, config.learning_rate, config.beta_1, {}),
            ("adam_adversarial", generator, config.adversarial_rate, config.beta_1, {"global_clipnorm": config.clip_norm}),
            ("adam_discriminator", judge, config.discriminator_rate, config.discriminator_beta, {}),
        ):
            schedule, beta = StaircaseRate(rate, config.epoch, config.rate_decay), rising_beta(beta_1, config.epoch)
            solvers[name] = guarded(ScheduledAdam(schedule, beta, epsilon=config.epsilon, **more), config.precision)
            solvers[name].build(network.trainable_variables)
        state = {"steps": tf.Variable(0, dtype=tf.int64, trainable=False)}
        super().__init__(networks={"final": average, "raw": generator, "discriminator": judge}, solvers=solvers, state=state)
        self.config = config

    def kind(self, step: int) -> str:
        return "pixel" if step <= self.config.pixel_steps else "adversarial"

    def train_step(self, batch, kind: str) -> dict:
        config, (distorted, target) = self.config, batch
        generator, judge, adversarial = self.networks["raw"], self.networks["discriminator"], kind == "adversarial"
        made = {}

        def judged(output):
            """Scores of target and output, in one pass: batch normalisation sees both."""
            both = ops.concatenate([distorted, distorted]), ops.concatenate(self.noisy(target, output))
            return ops.split(judge(list(both), training=True), 2)

        def objective():
            output = made["output"] = generator(distorted, training=True)
            terms = losses.terms(target, output, config) | {"decay": (losses.weight_decay(generator, config), 1.0)}
            if adversarial:
                terms["L_adv"] = losses.adversarial(*judged(output)), config.adversarial_weight
            total, logs = weighted_sum(terms)
            return total, logs | {"error": losses.l1(target, output)}

        logs = minimise(self.solvers["adam_adversarial" if adversarial else "adam"], generator, objective)
        if adversarial:

            def judgement():
                on_real, on_fake = judged(ops.stop_gradient(made["output"]))
                loss = losses.discriminator(on_real, on_fake, config.smoothing)
                return loss, {"L_D": loss, "D_real": ops.mean(on_real), "D_fake": ops.mean(on_fake)}

            logs |= minimise(self.solvers["adam_discriminator"], judge, judgement)
        update_average(self.networks["final"], generator, config.ema_decay)
        self.state["steps"].assign_add(1)
        return logs

    def noisy(self, target, output) -> tuple:
        """Instance noise: in half of all batches target and output get Gaussian noise of their own, sigma = max(0.01, std(y)) U(0.001, 0.1) of each image."""
        seed, step = self.config.seed, self.state["steps"]
        share = 0.001 + 0.099 * uniform(seed, "sigma", step, (target.shape[0], 1, 1, 1))
        sigma = ops.where(uniform(seed, "coin", step, ()) < self.config.instance_noise, share * losses.deviation(target, 0.01), 0.0)
        normal = tf.random.stateless_normal((2, *target.shape), step_key(seed, "noise", step), alg="philox")
        return target + sigma * normal[0], output + sigma * normal[1]


def train_cgrdn(config: Config, out: Path, resume: bool = False, data: Path | None = None, strategy=None) -> CGRDN:
    """Train to `config.steps` steps into the run folder `out`.

    data: a folder of clean images, for all modalities alike; simulated specimens when it is not given. Validation: `validation_images` simulated pairs of
    other specimens, all modalities in turn; mean gain over the distorted image in dB, beside that of a Gaussian whose width is chosen with the target at hand.
    """
    if strategy and strategy.num_replicas_in_sync > 1 and config.steps > config.pixel_steps:
        raise ValueError(
            "the adversarial stage takes means over the whole batch, which devices cannot share; use --devices one, or --steps within --pixel-steps"
        )
    pairs, description = Pairs(config, sources(config, "train", data)), describe_data(config, data)
    Run.open(out, "cgrdn", config, resume, description)  # refuses what it must before specimens are drawn
    validation = Pairs(config, sources(replace(config, specimens=config.validation_images), "val"), "validation")
    held_out = [validation(k) for k in range(config.validation_images)]

    def restored(trainer: CGRDN, distorted: np.ndarray) -> np.ndarray:
        return ops.convert_to_numpy(trainer.networks["final"](distorted[None], training=False))[0]

    def gain(images) -> float:
        """Mean of 10 log10(squared error of the distorted image / that of its restoration)."""
        errors = [
            [float(np.mean((image - target) ** 2)) for image in (distorted, result)] for result, (distorted, target) in zip(images, held_out, strict=True)
        ]
        return float(np.mean([10 * np.log10(before / max(after, 1e-12)) for before, after in errors]))

    filtered = gain([oracle_gaussian(distorted[..., 0], target[..., 0])[..., None] for distorted, target in held_out])

    def validate(trainer: CGRDN) -> dict:
        return {"val_gain_db": gain([restored(trainer, distorted) for distorted, _ in held_out]), "val_gain_db_gaussian": filtered}

    def preview(trainer: CGRDN) -> np.ndarray:
        rows = []
        for distorted, target in held_out[:6]:
            output = restored(trainer, distorted)
            low, high = target.min(), max(target.max(), target.min() + 1e-6)
            rows.append(np.hstack([np.clip((image[..., 0] - low) / (high - low), 0, 1) for image in (distorted, output, target)]))
        return np.vstack(rows)

    return train(
        "cgrdn",
        config,
        lambda: CGRDN(config),
        lambda step: batches(pairs, pairs.shapes, config.batch, start=step * config.batch),
        out,
        resume=resume,
        data=description,
        validate=validate,
        preview=preview,
        best=("val_gain_db", max),
        strategy=strategy,
    )


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["train", "cgrdn", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
