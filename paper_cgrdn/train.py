"""Train CGRDN: `python -m paper_cgrdn.train --preset small --out RUN` (the same as `empapers train cgrdn`)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from keras import ops

from common.data import batches
from common.optimizers import ScheduledAdam
from common.precision import building, guarded
from common.training import Trainer, minimise, train, update_average, weighted_sum

from . import losses
from .config import Config
from .data import Pairs, describe_data, sources
from .discriminator import build_discriminator
from .generator import build_generator
from .schedule import Rate, rising_beta


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
            schedule, beta = Rate(rate, config.epoch, config.rate_decay), rising_beta(beta_1, config.epoch)
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

        def objective():
            output = made["output"] = generator(distorted, training=True)
            terms = losses.terms(target, output, config) | {"decay": (losses.weight_decay(generator, config), 1.0)}
            if adversarial:
                on_real, on_fake = (judge([distorted, candidate], training=False) for candidate in self.noisy(target, output))
                terms["L_adv"] = losses.adversarial(on_real, on_fake), config.adversarial_weight
            total, logs = weighted_sum(terms)
            return total, logs | {"error": losses.l1(target, output)}

        logs = minimise(self.solvers["adam_adversarial" if adversarial else "adam"], generator, objective)
        if adversarial:

            def judgement():
                on_real, on_fake = (judge([distorted, candidate], training=True) for candidate in self.noisy(target, ops.stop_gradient(made["output"])))
                loss = losses.discriminator(on_real, on_fake, config.smoothing)
                return loss, {"L_D": loss, "D_real": ops.mean(on_real), "D_fake": ops.mean(on_fake)}

            logs |= minimise(self.solvers["adam_discriminator"], judge, judgement)
        update_average(self.networks["final"], generator, config.ema_decay)
        self.state["steps"].assign_add(1)
        return logs

    def noisy(self, target, output) -> tuple:
        """Instance noise: in half of all batches target and output get Gaussian noise of their own, sigma = max(0.01, std(y)) U(0.001, 0.1) of each image."""
        chance, (batch, height, width, _) = self.draws("coin", ()), ops.shape(target)
        share = 0.001 + 0.099 * self.draws("sigma", (batch, 1, 1, 1))
        sigma = ops.where(chance < self.config.instance_noise, share * losses._deviation(target, 0.01), 0.0)
        shape = (2, batch, height, width, 1)
        normal = tf.random.stateless_normal(shape, self.key("noise"), alg="philox")
        return target + sigma * normal[0], output + sigma * normal[1]

    def key(self, stream: str):
        """A random key that belongs to a step."""
        import zlib

        return tf.stack([tf.constant((zlib.crc32(stream.encode()) & 0x7FFFFFFF) << 32 | self.config.seed, tf.int64), self.state["steps"]])

    def draws(self, stream: str, shape):
        return tf.random.stateless_uniform(shape, self.key(stream), alg="philox")


def train_cgrdn(config: Config, out: Path, resume: bool = False, data: Path | None = None, strategy=None) -> CGRDN:
    """Train to `config.steps` steps into the run folder `out`.

    data: a folder of clean images, for all modalities alike; simulated specimens when it is not given. Validation: `validation_images` simulated pairs of
    other specimens, all modalities in turn; mean gain in PSNR over the distorted image, peak: the range of the target.
    """
    pairs = Pairs(config, sources(config, "train", data))
    validation = Pairs(config, sources(config, "val"), "validation")
    held_out = []

    def validate(trainer: CGRDN) -> dict:
        images = held_out or [held_out.append(validation(k)) or held_out[-1] for k in range(config.validation_images)]
        gains, errors = [], []
        for distorted, target in images:
            output = ops.convert_to_numpy(trainer.networks["final"](distorted[None], training=False))[0]
            before, after = (float(np.mean((image - target) ** 2)) for image in (distorted, output))
            errors.append(float(np.mean(np.abs(output - target))))
            if before > 1e-6:  # identity draws have nothing to gain
                gains.append(10 * np.log10(before / max(after, 1e-12)))
        return {"val_gain_db": float(np.mean(gains)), "val_error": float(np.mean(errors))}

    def preview(trainer: CGRDN) -> np.ndarray:
        rows = []
        for distorted, target in held_out[:6]:
            output = ops.convert_to_numpy(trainer.networks["final"](distorted[None], training=False))[0]
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
        data=describe_data(config, data),
        validate=validate,
        preview=preview,
        strategy=strategy,
    )


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["train", "cgrdn", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
