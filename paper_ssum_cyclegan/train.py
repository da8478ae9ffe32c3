"""Train the SSUM CycleGAN: `python -m paper_ssum_cyclegan.train --preset small --out RUN` (the same as `empapers train ssum_cyclegan`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from common.data import batches
from common.layers import dense_warp
from common.precision import building, guarded
from common.training import Run, Trainer, minimise, train, uniform, update_average, weighted_sum

from . import losses
from .config import Config
from .data import Pair, Patches, describe_data, training_pairs
from .discriminator import build_discriminator, receptive_field
from .flow import build_registration
from .generator import build_generator
from .measures import scores


class SSUMCycleGAN(Trainer):
    """CycleGAN's algorithm: both generators together, then both discriminators on outputs of which half come from the past.

    code        paper    what
    x, y        x, y     an optical image and an SEM image, of the same place if the data are paired
    G, F        G, F     optical -> SEM and SEM -> optical; "final" is a moving average of G, or G itself
    D_Y, D_X    D_Y, D_X    discriminators of SEM and of optical images
    R           -        registers G(x) with y, where that loss is asked for
    """

    def __init__(self, config: Config):
        with building(config.precision):
            networks = {"final": build_generator(config), "G": build_generator(config), "F": build_generator(config, "ssum_reverse_generator")}
            networks |= {"D_Y": build_discriminator(config), "D_X": build_discriminator(config, "ssum_reverse_discriminator")}
            if config.registration_weight:
                networks["R"] = build_registration()
        networks["final"].set_weights(networks["G"].get_weights())
        self.players = {"adam": joint(networks, "G", "F", "R"), "adam_discriminators": joint(networks, "D_Y", "D_X")}
        solvers = {}
        for name, player in self.players.items():
            solvers[name] = guarded(keras.optimizers.Adam(falling_rate(config), config.beta_1), config.precision)
            solvers[name].build(player.trainable_variables)
        shape = (config.pool, config.side, config.side, 1 + config.conditional)
        state = {f"pool_{domain}": tf.Variable(tf.zeros(shape), trainable=False) for domain in "YX" if config.pool}
        # Dropout draws from a state of its own, which a resumed run must find where it was.
        droppers = [layer for name in "GF" for layer in networks[name].layers if isinstance(layer, keras.layers.Dropout)]
        state |= {f"dropout_{k}": layer.seed_generator.state.value for k, layer in enumerate(droppers)}
        state["steps"] = tf.Variable(0, dtype=tf.int64, trainable=False)
        super().__init__(networks=networks, solvers=solvers, state=state)
        self.config = config

    def train_step(self, batch, kind: str) -> dict:
        x, y = batch
        config, net, made = self.config, self.networks, {}

        def objective():
            fake_y, fake_x = net["G"](x, training=True), net["F"](y, training=True)
            kept = [(v, tf.identity(v)) for name in "GF" for v in net[name].non_trainable_variables if "float" in v.dtype]
            back_x, back_y = net["F"](fake_y, training=True), net["G"](fake_x, training=True)
            made.update(Y=self.judged(x, fake_y), X=self.judged(y, fake_x))
            # Discriminators only judge here: their variables are not the optimizer's.
            terms = {
                "G_adv": (losses.adversarial(net["D_Y"](made["Y"], training=True), config.adversarial), config.adversarial_weight),
                "F_adv": (losses.adversarial(net["D_X"](made["X"], training=True), config.adversarial), config.adversarial_weight),
                "cycle_x": (losses.l1(back_x, x), config.cycle_weight),
                "cycle_y": (losses.l1(back_y, y), config.cycle_weight),
            }
            terms |= self.options(x, y, fake_y)
            for v, value in kept:  # a generator normalises by what it is for, not by converted images or those of the other domain
                v.assign(value)
            return weighted_sum(terms)

        logs = minimise(self.solvers["adam"], self.players["adam"], objective)
        shown = {domain: self.from_pool(domain, ops.stop_gradient(fake)) for domain, fake in made.items()}

        def judgement():
            found = {}
            for domain, real in (("Y", self.judged(x, y)), ("X", self.judged(y, x))):
                judge = net[f"D_{domain}"]
                found[f"D_{domain}"] = losses.discriminator(judge(real, training=True), judge(shown[domain], training=True), config.adversarial)
            return found["D_Y"] + found["D_X"], found

        logs |= minimise(self.solvers["adam_discriminators"], self.players["adam_discriminators"], judgement)
        update_average(net["final"], net["G"], config.ema_decay)
        self.state["steps"].assign_add(1)
        return logs

    def judged(self, converted, image):
        """What a discriminator is shown of an image of its domain, real or made: the image alone, or what was converted, or would be, beside it."""
        return ops.concatenate([converted, image], axis=-1) if self.config.conditional else image

    def options(self, x, y, fake_y) -> dict:
        """The terms that are not eq. 1 and 2, those whose weight is not 0."""
        config, net, terms = self.config, self.networks, {}
        if config.identity_weight:
            identity = losses.l1(net["G"](y, training=True), y) + losses.l1(net["F"](x, training=True), x)
            terms["identity"] = identity, config.identity_weight * config.cycle_weight
        if config.shift_l1_weight:
            terms["shift_L1"] = losses.shift_l1(fake_y, y, config.shift), config.shift_l1_weight
        if config.lowres_l1_weight:
            terms["lowres_L1"] = losses.lowres_l1(fake_y, y), config.lowres_l1_weight
        if config.registration_weight:
            flow = net["R"]([fake_y, y], training=True)
            terms["registered_L1"] = losses.l1(dense_warp(fake_y, flow), y), config.registration_weight
            terms["roughness"] = losses.roughness(flow), config.smoothness_weight
        return terms

    def from_pool(self, domain: str, fakes):
        """What a discriminator is shown in place of this step's outputs (Shrivastava et al. 2017).

        The first `pool` outputs are kept and shown as they are; afterwards each is swapped, in half of all cases, with a random one of those kept.
        """
        size = self.config.pool
        if not size:
            return fakes
        pool = self.state[f"pool_{domain}"]
        count = fakes.shape[0]
        draws = uniform(self.config.seed, f"pool {domain}", self.state["steps"], (count, 2))
        shown = []
        for k in range(count):
            number, fake = self.state["steps"] * count + k, fakes[k]
            filling = number < size
            place = tf.where(filling, number, tf.cast(draws[k, 0] * size, tf.int64))
            swapped = tf.logical_and(tf.logical_not(filling), draws[k, 1] < 0.5)
            former = pool[place]
            pool.scatter_nd_update([[place]], tf.where(tf.logical_or(filling, swapped), fake, former)[None])
            shown.append(tf.where(swapped, former, fake))
        return tf.stack(shown)


def joint(networks: dict, *names: str) -> SimpleNamespace:
    """Several networks that one optimizer updates as one."""
    return SimpleNamespace(trainable_variables=[v for name in names if name in networks for v in networks[name].trainable_variables])


def falling_rate(config: Config):
    """Update (from 0) -> rate: constant for `constant_steps`, then linear to 0 over `falling_steps`."""
    return Linear(config.learning_rate, config.constant_steps, config.falling_steps)


@keras.saving.register_keras_serializable("empapers")
class Linear(keras.optimizers.schedules.LearningRateSchedule):
    """rate min(1, 1 - (update - constant) / falling), not below 0."""

    def __init__(self, rate: float, constant: int, falling: int):
        self.rate, self.constant, self.falling = rate, constant, falling

    def __call__(self, step):
        gone = (ops.cast(step, "float32") - self.constant) / self.falling
        return self.rate * (1 - ops.clip(gone, 0.0, 1.0))

    def get_config(self):
        return {"rate": self.rate, "constant": self.constant, "falling": self.falling}


def train_ssum_cyclegan(config: Config, out: Path, resume: bool = False, data: Path | None = None, strategy=None) -> SSUMCycleGAN:
    """Train to `config.steps` steps into the run folder `out`.

    data: a folder of registered pairs, `train` and `val` inside, as `python -m paper_ssum_cyclegan.preprocess` writes it; simulated chips, seen through a
    superlens and by an SEM, when it is not given. Validation: mean gain in PSNR over the optical image in dB, as it is, and with both sides shifted to where
    they fit best and fitted in grey level; and the mean absolute cycle error of optical images.
    """
    if strategy:
        raise ValueError("former outputs are kept in one pool, which devices cannot share; use --devices one")
    description = describe_data(config, data)
    Run.open(out, "ssum_cyclegan", config, resume, description)  # refuses what it must before chips are drawn
    pairs, held_out = training_pairs(config, data)
    patches = Patches(config, pairs)
    field, side = receptive_field(config), config.side
    print(f"discriminators judge patches of {field} x {field} pixels")
    shown = [tuple(image[:side, :side] for image in held_out[k]) for k in range(min(config.validation_pairs, len(held_out)))]

    def preview(trainer: SSUMCycleGAN) -> np.ndarray:
        return np.vstack([np.hstack([optical, converted(trainer.networks["final"], optical), sem]) for optical, sem in shown[:4]])

    return train(
        "ssum_cyclegan",
        config,
        lambda: SSUMCycleGAN(config),
        lambda step: batches(patches, patches.shapes, config.batch, start=step * config.batch),
        out,
        resume=resume,
        data=description,
        validate=lambda trainer: validation(trainer.networks["final"], trainer.networks["F"], shown),
        preview=preview,
        best=("val_gain_db_aligned", max),
        strategy=strategy,
    )


def converted(network, image: np.ndarray) -> np.ndarray:
    """(height, width) float32 in [0, 1] -> the same."""
    return (ops.convert_to_numpy(network(2 * image[None, ..., None] - 1, training=False))[0, ..., 0] + 1) / 2


def validation(forward, backward, pairs: Sequence[Pair]) -> dict:
    """Means over pairs: gain in PSNR over the optical image in dB, as it is, and aligned and fitted; cycle error of the optical image, of the range."""
    found = []
    for optical, sem in pairs:
        restored = converted(forward, optical)
        before, after = scores(sem, optical), scores(sem, restored)
        cycle = float(np.abs(converted(backward, restored) - optical).mean())
        found.append((after["psnr"] - before["psnr"], after["psnr_aligned"] - before["psnr_aligned"], cycle))
    return dict(zip(("val_gain_db", "val_gain_db_aligned", "val_cycle_error"), np.mean(found, axis=0).tolist(), strict=True))


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["train", "ssum_cyclegan", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
