"""Train DLSS-STEM: `python -m paper_dlss.train --preset small --out RUN` (the same as `empapers train dlss`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tensorflow as tf
from keras import ops

from common.data import batches
from common.optimizers import ScheduledAdam
from common.precision import building, guarded
from common.training import Run, Trainer, halving, minimise, train, uniform, update_average, weighted_sum

from . import losses
from .alrc import ALRC
from .baselines import aligned
from .config import Config
from .data import Examples, describe_data, open_source
from .discriminator import build_discriminator, multi_scale_crops
from .generator import build_generator, build_trained
from .one_stage import build_one_stage
from .replay import Replay
from .sampling import coverage_p, mask, sparse_input, start, target_scale
from .schedule import Rate, dropping_beta, falling_beta


class DLSS(Trainer):
    """The paper's algorithm for the two-stage network. Steps are counted from 1 and are of these kinds:

    tracking     supervised, while the channel means of the generator are followed (`config.tracked`)
    supervised   generator and trainer head on L_out + L_aux; with sharp targets the error predictor after them
    adversarial  after two plateaus: L_out + L_aux + L_adv, then the discriminators on the same outputs

    code      paper      what
    crops     I          fresh or replayed crops       clip      ALRC, one for L_aux and for L_out of either stage, `state` of the checkpoint
    output    G(I)       output                        p         p(c), how much harder fewer samples are
    small     T(G_in)    half-size output of the head  judges    D_1, D_2, D_3

    prefill: first contents of the replay buffer, (crop, which) for each slot.
    """

    def __init__(self, config: Config, prefill: Sequence = ()):
        with building(config.precision):
            trained, generator = build_trained(config)
            average = build_generator(config) if config.ema_decay else generator
            judges = build_discriminator(config)
        average.set_weights(generator.get_weights())
        networks = {"final": average, "trainer": trained.get_layer("head")} | ({"raw": generator} if config.ema_decay else {})
        networks |= {f"discriminator_{k}": judge for k, judge in enumerate(judges, 1)}
        factors = {v.path: config.trainer_rate for v in networks["trainer"].trainable_variables}
        solvers = {}
        for name, first in (("adam", 0), ("adam_adversarial", 2 * config.plateau)):  # fresh moments in the second stage (C68)
            rate = Rate(config.learning_rate, config.adversarial_rate, config.plateau, first)
            beta_1 = falling_beta(config.plateau, first) if config.beta_falls else 0.9
            solvers[name] = guarded(ScheduledAdam(rate, beta_1, factors), config.precision)
            solvers[name].build(trained.trainable_variables)
        solvers["adam_discriminator"] = guarded(ScheduledAdam(config.discriminator_rate, config.discriminator_beta), config.precision)
        solvers["adam_discriminator"].build([v for judge in judges for v in judge.trainable_variables])
        if config.target == "sharp":
            networks["predictor"] = losses.build_predictor(config)
            solvers["adam_predictor"] = ScheduledAdam(Rate(config.predictor_rate, config.predictor_rate, config.plateau))
            solvers["adam_predictor"].build(networks["predictor"].trainable_variables)
        state = {f"clip_{name}": clipping(config) for name in ("L_aux", "L_out", "L_out_adversarial")} | memory(config, prefill)
        if config.coverage == "tracked":
            state["p"] = tf.Variable(tf.ones(len(config.scan_steps)), trainable=False)
        super().__init__(networks=networks, solvers=solvers, state=state)
        self.config, self.trained, self.judges = config, trained, judges

    def kind(self, step: int) -> str:
        config = self.config
        if step > 2 * config.plateau:
            return "adversarial"
        tracked = 2 * config.plateau if config.tracked is None else config.tracked
        return "tracking" if config.statistics == "running" and step <= tracked else "supervised"

    def train_step(self, batch, kind: str) -> dict:
        config, (crops, which, replayed) = self.config, recalled(self.state, batch)
        steps = scan_steps(config, which)
        recorded, (low, scale) = crops, target_scale(crops, steps, config)
        inputs, crops = sparse_input(crops, steps, config.zeros_in_range), (crops - low) / scale
        blurred, small_target = losses.blur(crops), losses.half_target(crops, config)
        known, p = self.known(steps), self.p(which, steps)
        adversarial, sharp = kind == "adversarial", config.target == "sharp"
        clip_out, clip_aux = self.state["clip_L_out_adversarial" if adversarial else "clip_L_out"], self.state["clip_L_aux"]
        measured = {}

        def objective():
            output, small = self.trained(inputs, training=kind == "tracking" or config.statistics != "running")
            error = losses.squared_error(self.as_judged(output, kind), crops if sharp else blurred, known)
            raw, raw_aux = (config.loss_scale * e / p for e in (error, losses.squared_error(small, small_target)))
            clipped, clipped_aux = clip_out(raw), clip_aux(raw_aux)
            measured.update(raw=raw, clipped=clipped)
            weight = self.noise_weight(crops, clip_out.mu1) if sharp else 1.0
            terms = {"L_out": (ops.mean(clipped), weight), "L_aux": (ops.mean(clipped_aux), config.trainer_loss)}
            if adversarial:
                corners = uniform(config.seed, "corners", self.state["steps"], (3, 2))
                measured["pairs"] = multi_scale_crops(ops.concatenate([output, crops], axis=-1), corners, config.halving)
                scores = [judge(pair[..., :1], training=False) for judge, pair in zip(self.judges, measured["pairs"], strict=True)]
                terms["L_adv"] = losses.adversarial(scores), config.adversarial_weight
            if config.weight_decay:
                terms["decay"] = losses.decay(self.trained, 1.0), config.weight_decay
            total, logs = weighted_sum(terms)
            root_mse = ops.sqrt(ops.mean(error * ops.reshape(scale, (-1,)) ** 2)) / 2
            return total, logs | {"L_out_raw": ops.mean(raw), "L_aux_raw": ops.mean(raw_aux), "root_mse": root_mse}

        logs = minimise(self.solvers["adam_adversarial" if adversarial else "adam"], self.trained, objective)
        if adversarial:
            logs |= self.teach_judges(measured["pairs"])
        elif sharp:
            logs |= self.learn_noise(crops, measured["raw"])
        if config.coverage == "tracked":
            self.follow_p(which, measured["clipped"] * p)
        if config.ema_decay:
            done = ops.cast(self.state["steps"], "float32")
            decay = ops.minimum(config.ema_decay, (done + 1) / (done + 10))  # the first weights are soon forgotten
            update_average(self.networks["final"], self.networks["raw"], decay)
        return logs | {"mu_1": ops.convert_to_tensor(clip_out.mu1)} | remembered(self.state, recorded, which, measured["clipped"], replayed)

    def as_judged(self, output, kind: str):
        """G(I) as L_out sees it: blurred in the adversarial stage, where the target is blurred too (C69 blurs nothing with sharp ones)."""
        if kind != "adversarial" or self.config.target == "sharp":
            return output
        return losses.blur3(output) if self.config.adversarial_blur == "3x3" else losses.blur(output)

    def teach_judges(self, pairs) -> dict:
        """One update of the three discriminators on crops of outputs and targets."""

        def judgement():
            both = [ops.concatenate([pair[..., :1], pair[..., 1:]]) for pair in pairs]  # outputs, then targets, judged in one pass
            scores = [ops.split(judge(crops, training=True), 2) for judge, crops in zip(self.judges, both, strict=True)]
            on_fake, on_real = zip(*scores, strict=True)
            loss = losses.discriminator(on_real, on_fake)
            means = {name: sum(ops.mean(scores) for scores in on) / 3 for name, on in (("D_real", on_real), ("D_fake", on_fake))}
            return loss, {"L_D": loss} | means

        all_three = SimpleNamespace(trainable_variables=[v for judge in self.judges for v in judge.trainable_variables])
        return minimise(self.solvers["adam_discriminator"], all_three, judgement)

    # --- Coverage ---

    def known(self, steps):
        """(batch, side, side), 1 on probed pixels, where these add no loss; None where they do."""
        known = self.config.target == "sharp" if self.config.known_pixels is None else self.config.known_pixels
        return ops.stack([mask(self.config.side, steps[k]) for k in range(steps.shape[0])]) if known else None

    def p(self, which, steps):
        """p(c) of each example, (batch,): the paper's quadratic, or its step's own average of the loss over the mean of all steps' averages."""
        if self.config.coverage == "given":
            return coverage_p(steps)
        if self.config.coverage == "none":
            return tf.ones_like(which[:, 0])
        return tf.gather(self.state["p"], tf.cast(which[:, 0], tf.int32)) / tf.reduce_mean(self.state["p"])

    def follow_p(self, which, errors) -> None:
        """Each example's loss, clipped but without p(c), enters its step's average."""
        keep, averages = self.config.coverage_decay, self.state["p"]
        for k in range(which.shape[0]):
            at = tf.one_hot(tf.cast(which[k, 0], tf.int32), len(self.config.scan_steps))
            averages.assign(averages + (1 - keep) * at * (errors[k] - averages))

    # --- Error predictor ---

    def noise_weight(self, crops, mu1):
        """Factor of L_out for this one image; in the adversarial stage by the predictor as it then is."""
        return losses.predictor_weight(mu1, self.networks["predictor"](self.noise(crops)), self.config.predictor_floor)

    def learn_noise(self, crops, error) -> dict:
        """One update of the predictor; error: this step's loss of the one image, before clipping."""

        def objective():
            predicted = self.networks["predictor"](self.noise(crops), training=True)
            loss = losses.predictor_loss(predicted, error)
            return loss, {"L_M": loss, "M": ops.mean(predicted)}

        return minimise(self.solvers["adam_predictor"], self.networks["predictor"], objective)

    def noise(self, crops):
        config = self.config
        return losses.noise_crops(crops, uniform(config.seed, "noise", self.state["steps"], (config.predictor_crops, 2)), config.predictor_side)


class OneStage(Trainer):
    """The paper's baseline: the one-stage network on ALRC(200 MSE). Batch normalisation learns for one plateau ("supervised"), then stays ("frozen")."""

    def __init__(self, config: Config, prefill: Sequence = ()):
        with building(config.precision):
            network = build_one_stage(config)
        rate = halving(config.learning_rate, (config.plateau // 4 + 1, config.plateau // 2 + 1))  # at 12,500 and 25,000 [P]
        adam = guarded(ScheduledAdam(rate, dropping_beta(config.plateau) if config.beta_falls else 0.9), config.precision)
        adam.build(network.trainable_variables)
        super().__init__(networks={"final": network}, solvers={"adam": adam}, state={"clip_L_out": clipping(config)} | memory(config, prefill))
        self.config = config

    def kind(self, step: int) -> str:
        return "supervised" if step <= self.config.plateau else "frozen"

    def train_step(self, batch, kind: str) -> dict:
        config, network, (crops, which, replayed) = self.config, self.networks["final"], recalled(self.state, batch)
        scans, (low, scale) = probed(crops, config)
        target = (losses.blur(crops) - low) / scale
        measured = {}

        def objective():
            error = losses.squared_error(network(scans, training=kind == "supervised"), target)
            measured["clipped"] = self.state["clip_L_out"](config.loss_scale * error)
            terms = {"L_out": (ops.mean(measured["clipped"]), 1.0)}
            if config.weight_decay:
                terms["decay"] = losses.decay(network, 1.0), config.weight_decay
            total, logs = weighted_sum(terms)
            return total, logs | {"L_out_raw": config.loss_scale * ops.mean(error), "root_mse": ops.sqrt(ops.mean(error * ops.reshape(scale, (-1,)) ** 2)) / 2}

        logs = minimise(self.solvers["adam"], network, objective)
        mu_1 = ops.convert_to_tensor(self.state["clip_L_out"].mu1)
        return logs | {"mu_1": mu_1} | remembered(self.state, crops, which, measured["clipped"], replayed)


# --- What both have in common ---


def clipping(config: Config) -> ALRC:
    return ALRC(config.clip_mean, config.clip_square, config.clip_sigma, config.clip_decay)


def memory(config: Config, prefill: Sequence) -> dict:
    """State of every run: how many steps are done, and the replay buffer."""
    steps = tf.Variable(0, dtype=tf.int64, trainable=False)
    return {"steps": steps, "replay": Replay(config, prefill)} if config.replay else {"steps": steps}


def recalled(state: dict, batch) -> tuple:
    """The step's examples, some of them replayed: crops, which, replayed (batch,) bool."""
    crops, which = batch
    return state["replay"].draw(crops, which, state["steps"]) if "replay" in state else (crops, which, tf.zeros(crops.shape[0], tf.bool))


def remembered(state: dict, crops, which, errors, replayed) -> dict:
    """The end of a step: examples with large errors are kept, the step is counted."""
    logs = {}
    if "replay" in state:
        state["replay"].keep(crops, which, errors, replayed, state["steps"])
        logs = {"replayed": tf.reduce_mean(tf.cast(replayed, tf.float32)), "threshold": tf.identity(state["replay"].threshold)}
    state["steps"].assign_add(1)
    return logs


def scan_steps(config: Config, which):
    """(batch, 1) indices -> (batch,) int32 steps."""
    return tf.gather(tf.constant(config.scan_steps), tf.cast(which[:, 0], tf.int32))


def probed(crops, config: Config) -> tuple:
    """What the one-stage network sees: (scans (batch, 103, 103, 1) in [-1, 1], (low, scale)), with crops = scan scale + low; targets share that scale (CM2)."""
    step = config.scan_steps[0]
    scans = crops[:, start(config.side, step) :: step, start(config.side, step) :: step]
    least, largest = (f(scans, axis=(1, 2, 3), keepdims=True) for f in (ops.min, ops.max))
    scale = ops.where(largest - least < 1e-6, 1.0, (largest - least) / 2)
    low = (least + largest) / 2
    return (scans - low) / scale, (low, scale)


def supersampled(network, config: Config, crops, steps):
    """Crops in [-1, 1] as the network restores them from their probed pixels, on the crops' scale. steps: (batch,) int32."""
    if config.network == "two_stage":
        low, scale = target_scale(crops, steps, config)
        return network(sparse_input(crops, steps, config.zeros_in_range), training=False) * scale + low
    scans, (low, scale) = probed(crops, config)
    return network(scans, training=False) * scale + low


def train_dlss(config: Config, out: Path, resume: bool = False, data: Path | None = None, strategy=None) -> Trainer:
    """Train to `config.steps` steps into the run folder `out`; more than two plateaus of them add the adversarial stage, to a finished run as well.

    data: a folder of micrographs, or an HDF5 file of crops as `python -m paper_dlss.pack` writes it; simulated specimens when it is not given.
    Validation is on up to three crops of each scan step, against the crop blurred 5 x 5, beside bilinear interpolation of the same samples.
    """
    if strategy:
        raise ValueError("DLSS-STEM trains on one device, for its replay buffer and clipping see one example after the other; use --devices one")
    examples, description = Examples(config, open_source(config, data)), describe_data(config, data)
    Run.open(out, "dlss", config, resume, description)  # refuses what it must before specimens are drawn
    prefill = Examples(config, examples.source, "prefill")
    validation = Examples(config, open_source(config, data, "val"), "validation")
    held_out = [validation(k) for k in range(min(24, 3 * len(config.scan_steps), len(validation.source)))]
    targets = [ops.convert_to_numpy(losses.blur(crop[None]))[0, ..., 0] for crop, _ in held_out]
    bilinear = [aligned(crop[..., 0], config.scan_steps[int(which[0])], "bilinear") for crop, which in held_out]

    def restored(trainer: Trainer, count: int) -> list[np.ndarray]:
        network = trainer.networks["final"]
        found = (supersampled(network, config, crop[None], scan_steps(config, which[None])) for crop, which in held_out[:count])
        return [ops.convert_to_numpy(image)[0, ..., 0] for image in found]

    def root_mse(images) -> float:
        return float(np.sqrt(np.mean([np.mean((image - target) ** 2) for image, target in zip(images, targets, strict=True)])) / 2)

    def validate(trainer: Trainer) -> dict:
        return {"val_root_mse": root_mse(restored(trainer, len(held_out))), "val_root_mse_bilinear": root_mse(bilinear)}

    def preview(trainer: Trainer) -> np.ndarray:
        rows = []
        for (crop, which), output, target in zip(held_out[:4], restored(trainer, 4), targets[:4], strict=True):
            seen = ops.convert_to_numpy(sparse_input(crop[None], scan_steps(config, which[None])))[0, ..., 0]
            rows.append(np.hstack([seen, (output + 1) / 2, (target + 1) / 2]))
        return np.vstack(rows)

    def build() -> Trainer:
        slots = [prefill(k) for k in range(config.replay_slots)] if config.replay else []
        return (DLSS if config.network == "two_stage" else OneStage)(config, slots)

    return train(
        "dlss",
        config,
        build,
        lambda step: batches(examples, examples.shapes, config.batch, start=step * config.batch),
        out,
        resume=resume,
        data=description,
        validate=validate,
        preview=preview,
        best=("val_root_mse", min),
        strategy=strategy,
    )


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    from common.__main__ import main as empapers

    return empapers(["train", "dlss", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
