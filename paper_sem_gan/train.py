"""Train SEM-GAN: `python -m paper_sem_gan.train --preset small --out RUN` (the same as `empapers train sem_gan`)."""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from common.data import batches
from common.devices import share
from common.precision import building, guarded
from common.training import Run, Trainer, minimise, train, weighted_sum

from .config import Config
from .data import Patches, describe_data, training_fields
from .discriminator import build_discriminator
from .generator import build_generator
from .losses import adversarial, discriminator, l1, total_variation, weights_for_shares


class SEMGAN(Trainer):
    """The paper's algorithm. Steps are counted from 1 and are of these kinds; a `+D` updates the discriminator after the generator.

    warm-up      generator on L1 alone
    calibration  generator on L1 + alpha TV + beta A with provisional weights, while averages of L1, TV and A are kept
    training     the same with the weights that give the paper's shares, frozen

    code      paper     what
    g         G(x)      output            L1, TV, A    terms of eq. 1
    low       x         upsampled scan    alpha, beta  their weights, `state` of the checkpoint
    high      z         target            D_real, D_fake    D(z), D(G(x))
    """

    def __init__(self, config: Config):
        with building(config.precision):
            generator, judge = build_generator(config), build_discriminator(config)
        solvers = {}
        for name, network, rate in (("adam", generator, config.learning_rate), ("adam_discriminator", judge, config.discriminator_rate)):
            clip = config.clip_norm if network is generator else None
            solvers[name] = guarded(keras.optimizers.Adam(rate, epsilon=config.adam_epsilon, clipnorm=clip), config.precision)
            solvers[name].build(network.trainable_variables)
        state = {name: _number(name, value) for name, value in (("alpha", config.alpha), ("beta", config.beta), ("L1", None), ("TV", None), ("A", None))}
        super().__init__(networks={"final": generator, "discriminator": judge}, solvers=solvers, state=state)
        self.config = config

    def kind(self, step: int) -> str:
        calibrated = self.config.warm_up + self.config.calibration
        if step <= self.config.warm_up:
            return "warm-up"
        due = "+D" if step % self.config.discriminator_every == 0 else ""
        return ("training" if step > calibrated else "last calibration" if step == calibrated else "calibration") + due

    def train_step(self, batch, kind: str) -> dict:
        low, high, low_d, high_d = batch
        generator, judge = self.networks["final"], self.networks["discriminator"]
        measured = {}

        def objective():
            g = generator(low, training=True)
            if kind == "warm-up":
                return weighted_sum({"L1": (l1(high, g), 1.0)})
            measured.update(L1=l1(high, g), TV=total_variation(g), A=adversarial(judge(g, training=False)))
            if "calibration" in kind:
                self.calibrate({name: keras.ops.stop_gradient(value) for name, value in measured.items()})
            return weighted_sum({"L1": (measured["L1"], 1.0), "TV": (measured["TV"], self.state["alpha"]), "A": (measured["A"], self.state["beta"])})

        logs = minimise(self.solvers["adam"], generator, objective)
        if "last" in kind:
            self.freeze()
        if kind != "warm-up":
            logs |= {f"share_{name}": logs[f"{name}*w"] / logs["loss"] for name in measured}
        if kind.endswith("+D"):
            fake = generator(low_d, training=False)

            def judgement():
                on_real, on_fake = judge(high_d, training=True), judge(fake, training=True)
                loss = discriminator(on_real, on_fake)
                return loss, {"L_D": loss, "D_real": keras.ops.mean(on_real), "D_fake": keras.ops.mean(on_fake)}

            logs |= minimise(self.solvers["adam_discriminator"], judge, judgement)
        return logs

    # --- Calibration ---

    def calibrate(self, measured: dict) -> None:
        """Provisional weights: alpha as it will be, beta as if the discriminator were in balance (A = 1/4). Averages start with their first value."""
        keep = self.config.calibration_decay
        for name, value in measured.items():
            former = self.state[name]
            former.assign(tf.where(tf.math.is_nan(former), value, keep * former + (1 - keep) * value))
        self.weigh(0.25)

    def freeze(self) -> None:
        self.weigh(self.state["A"])

    def weigh(self, a) -> None:
        shares = (self.config.l1_share, self.config.tv_share, self.config.adversarial_share)
        alpha, beta = weights_for_shares(self.state["L1"], self.state["TV"], a, shares)
        if self.config.alpha is None:
            self.state["alpha"].assign(alpha)
        if self.config.beta is None:
            self.state["beta"].assign(beta)


def _number(name: str, value: float | None) -> tf.Variable:
    return tf.Variable(math.nan if value is None else value, dtype=tf.float32, trainable=False, name=name, aggregation=tf.VariableAggregation.MEAN)


def train_sem_gan(config: Config, out: Path, resume: bool = False, pairs: Path | None = None, strategy=None) -> SEMGAN:
    """Train to `config.steps` steps into the run folder `out`.

    pairs: a folder of registered pairs, `low` and `high` inside, as `python -m paper_sem_gan.registration` writes it; simulated fields of gold on carbon,
    scanned twice and registered by the same pipeline, when it is not given. Whole fields are held out for validation.
    """
    if config.steps <= config.warm_up + config.calibration and None in (config.alpha, config.beta):
        calibrated = config.warm_up + config.calibration
        warnings.warn(f"{config.steps} steps end before calibration does, at {calibrated}: give more, or --alpha and --beta", stacklevel=2)
    data = describe_data(config, pairs)
    if share(config.batch, strategy or tf.distribute.get_strategy())[0] == 0:
        Run.open(out, "sem_gan", config, resume, data)  # refuses what it must before forty fields are drawn
    fields, held_out = training_fields(config, pairs)
    if pairs:
        print(f"{len(fields)} pairs to train on, the last {len(held_out)} by name are held out for validation")
    patches = Patches(config, fields)

    def restored(trainer: SEMGAN) -> list[np.ndarray]:
        network = trainer.networks["final"]
        return [keras.ops.convert_to_numpy(network(low[None, ..., None], training=False))[0, ..., 0] for low, _ in held_out]

    def validate(trainer: SEMGAN) -> dict:
        found = restored(trainer)
        ours = np.mean([np.abs(g - high).mean() for g, (_, high) in zip(found, held_out, strict=True)])
        lanczos = np.mean([np.abs(low - high).mean() for low, high in held_out])
        weights = {name: float(trainer.state[name].numpy()) for name in ("alpha", "beta")}
        return {"val_L1": float(ours), "val_L1_lanczos": float(lanczos)} | {name: value for name, value in weights.items() if np.isfinite(value)}

    def preview(trainer: SEMGAN) -> np.ndarray:
        side = min(256, *(n for _, high in held_out for n in high.shape))
        cut = np.s_[:side, :side]
        return np.vstack([np.hstack([low[cut], g[cut], high[cut]]) for (low, high), g in list(zip(held_out, restored(trainer), strict=True))[:4]])

    return train(
        "sem_gan",
        config,
        lambda: SEMGAN(config),
        lambda step: batches(patches, patches.shapes, config.batch, start=step * config.batch),
        out,
        resume=resume,
        data=data,
        validate=validate,
        preview=preview,
        best=("val_L1", min),
        strategy=strategy,
    )


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["train", "sem_gan", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
