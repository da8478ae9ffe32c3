"""The one training loop of all papers: one step is one line of the paper's algorithm box, a run is a folder, and a resumed run is the same run.

Why not `Model.fit`: it loses the state of a second optimizer on resume, counts epochs only, looks for NaN in one log key only, and does not run on
several workers. The loop below needs none of its machinery: example i is a pure function of (seed, i), so the state of a run is its weights, its
optimizers and a number.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from .papers import config_to_dict

# Operations that run side by side share one pool of threads, and a sum is then split differently from run to run: wide networks would repeat to rounding only.
# One operation at a time, each with all threads, costs a few percent at most and repeats bit for bit.
with contextlib.suppress(RuntimeError):  # TensorFlow is at work already: runs then repeat to rounding
    tf.config.threading.set_inter_op_parallelism_threads(1)


class NonFinite(RuntimeError):
    """A loss or a weight stopped being a finite number; the last checkpoint is still good."""


class Trainer(keras.Model):
    """What the loop trains. A paper's algorithm subclasses it, fills the two dicts and writes `train_step`.

    networks: name -> keras.Model, everything with weights, exponential averages included; the name is the file name of its weights, "final" is the product.
    solvers: name -> optimizer, built on its variables so that a restored run finds its state.
    """

    def __init__(self, networks: dict, solvers: dict, **kwargs):
        super().__init__(**kwargs)
        self.networks, self.solvers = networks, solvers

    def train_step(self, batch) -> dict:
        """One update from one batch; returns name -> scalar. Runs inside `strategy.run`."""
        raise NotImplementedError(f"{type(self).__name__} must say what one training step is")


def minimise(optimizer, network, objective: Callable) -> dict:
    """One optimizer update of a network. `objective()` returns (scalar loss, dict of scalars to log); the dict is returned.

    The loss is a mean over this replica's share of the batch, hence the division; mixed_float16 optimizers scale it as well.
    """
    with tf.GradientTape() as tape:
        loss, logs = objective()
        scaled = optimizer.scale_loss(loss / tf.distribute.get_strategy().num_replicas_in_sync)
    variables = network.trainable_variables
    optimizer.apply(tape.gradient(scaled, variables), variables)
    return logs


def update_average(average, network, decay: float) -> None:
    """Exponential moving average of all variables: a <- decay a + (1 - decay) w."""
    for a, w in zip(average.variables, network.variables, strict=True):
        a.assign(a * decay + w * (1.0 - decay) if "float" in str(w.dtype) else w)


def weighted_sum(terms: dict) -> tuple:
    """Total loss and logs of terms name -> (raw value, weight): logs hold each term raw (`L1`) and weighted (`L1*w`), and `loss`."""
    logs, total = {}, 0.0
    for name, (value, weight) in terms.items():
        logs[name], logs[f"{name}*w"] = value, weight * value
        total = total + weight * value
    return total, {**logs, "loss": total}


def halving(initial: float, updates: tuple[int, ...]):
    """A rate that halves at the given updates, counted from 1: update `updates[0]` is the first at half the rate.

    Keras counts from 0 and switches after the boundary, hence the 2.
    """
    if not updates:
        return initial
    values = [initial * 0.5**k for k in range(len(updates) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay([u - 2 for u in updates], values)


@dataclass
class Run:
    """A run folder: config.json, metrics.csv, checkpoints/, previews/ and, at the end, final.weights.h5 and one file per further network."""

    folder: Path
    description: dict = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path, paper: str, config, resume: bool, data: dict | None = None) -> Run:
        """Create or reopen the folder; `describe` then writes config.json.

        FileExistsError if it is in use and `resume` is off; ValueError if it was made with another configuration or other data.
        Only `steps` may differ: it says when to stop, not what a step is. data: what the examples come from, in JSON-ready values.
        """
        run = cls(Path(folder))
        description = {"paper": paper, "data": data, "config": config_to_dict(config)}
        path = run.folder / "config.json"
        if run.folder.exists() and any(run.folder.iterdir()) and not resume:
            raise FileExistsError(f"{folder} is not empty; choose another --out, or add --resume to go on with that run")
        if path.exists():
            former = json.loads(path.read_text())
            before, now = ({"paper": d["paper"], "data": d["data"], **d["config"], "steps": None} for d in (former, json.loads(json.dumps(description))))
            changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
            if changed:
                changes = ", ".join(f"{k}: {before.get(k)} -> {now.get(k)}" for k in changed)
                raise ValueError(f"{folder} was made with another configuration ({changes}); resume with the same flags, or start a new --out")
        for part in ("checkpoints", "previews"):
            (run.folder / part).mkdir(parents=True, exist_ok=True)
        run.description = {**description, "versions": versions()}
        return run

    def describe(self) -> None:
        """Write config.json."""
        write_atomically(self.folder / "config.json", json.dumps(self.description, indent=2))

    def log(self, rows: list[dict]) -> None:
        """Write metrics.csv anew; the columns are those of all rows."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = [columns, *([row.get(c, "") for c in columns] for row in rows)]
        write_atomically(self.folder / "metrics.csv", "\n".join(",".join(str(v) for v in line) for line in lines) + "\n")

    def logged(self, step: int) -> list[dict]:
        """The rows of metrics.csv up to a step: what a run resumed there has already said."""
        path = self.folder / "metrics.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return [row for row in csv.DictReader(file) if int(row["step"]) <= step]


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see the old one or the new one, never half of it."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def versions() -> dict:
    """What a result depends on besides the code."""
    import platform

    return {"python": platform.python_version(), "tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}


def save_weights(network, path: Path) -> None:
    """Write a network's weights atomically."""
    temporary = path.with_name("partial-" + path.name)
    network.save_weights(temporary)
    os.replace(temporary, path)


def train(
    paper: str,
    config,
    build: Callable[[], Trainer],
    dataset: Callable[[int], tf.data.Dataset],
    out: str | Path,
    *,
    resume: bool = False,
    data: dict | None = None,
    validate: Callable[[Trainer], dict] | None = None,
    preview: Callable[[Trainer], np.ndarray] | None = None,
    strategy: tf.distribute.Strategy | None = None,
    log_every: int = 50,
    keep: int = 3,
) -> Trainer:
    """Train to `config.steps` steps and leave a run folder.

    build: makes the trainer (called in the strategy's scope). dataset: first step -> batches from that step on.
    data: what the examples come from, kept in config.json; a resumed run must say the same.
    validate: trainer -> name -> number, preview: trainer -> (height, width) image in [0, 1]; both every `config.validate_every` steps and at the end.
    A run resumed from step s goes on exactly as one that was never stopped: bit for bit, if this module was imported before TensorFlow began to work.
    Ctrl-C saves a checkpoint first.
    Raises NonFinite when a loss or a weight is no finite number any more; the checkpoints in the folder are older and good.
    """
    run = Run.open(out, paper, config, resume, data)
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        trainer = build()
        step = tf.Variable(0, dtype=tf.int64, name="step")
        state = {f"network_{k}": v for k, v in trainer.networks.items()} | {f"solver_{k}": v for k, v in trainer.solvers.items()}
        checkpoint = tf.train.Checkpoint(step=step, **state)
    manager = tf.train.CheckpointManager(checkpoint, str(run.folder / "checkpoints"), max_to_keep=keep)
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_consumed()
    elif resume:
        print(f"{out} holds no checkpoint yet: starting at step 0")
    first = int(step.numpy())
    rows = run.logged(first)
    events = _tensorboard(run.folder)

    @tf.function
    def distributed_step(batch):
        logs = strategy.run(trainer.train_step, args=(batch,))
        step.assign_add(1)
        return {k: strategy.reduce(tf.distribute.ReduceOp.MEAN, v, axis=None) for k, v in logs.items()}

    def save():
        bad = [v.path for net in trainer.networks.values() for v in net.variables if not np.isfinite(keras.ops.convert_to_numpy(v)).all()]
        if bad:
            raise NonFinite(f"weight {bad[0]} is not finite after step {int(step.numpy())}; the last good checkpoint is {manager.latest_checkpoint}")
        manager.save(checkpoint_number=int(step.numpy()))

    batches = iter(strategy.experimental_distribute_dataset(dataset(first))) if first < config.steps else None
    if first > config.steps:
        raise ValueError(f"{out} has gone {first} steps already; resume it with --steps {first} or more")
    run.describe()
    window = time.perf_counter()
    began = window - (float(rows[-1]["seconds"]) if rows else 0.0)  # a resumed run goes on counting
    waited = 0.0
    sums: dict[str, float] = {}
    counted = 0
    try:
        with tqdm(total=config.steps, initial=first, unit="step", desc=paper, smoothing=0.05) as bar:
            for now in range(first + 1, config.steps + 1):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                logs = {k: float(v) for k, v in distributed_step(batch).items()}
                broken = [k for k, v in logs.items() if not np.isfinite(v)]
                if broken:
                    raise NonFinite(f"{', '.join(broken)} is not finite at step {now}; the last good checkpoint is {manager.latest_checkpoint}")
                sums = {k: sums.get(k, 0.0) + v for k, v in logs.items()}
                counted += 1
                bar.update()
                last = now == config.steps
                validating = now % config.validate_every == 0 or last
                if now % log_every == 0 or validating:
                    seconds = time.perf_counter() - window
                    row = {"step": now, "seconds": round(time.perf_counter() - began, 1), "data_wait": round(waited / seconds, 4)}
                    row |= {k: f"{v / counted:.6g}" for k, v in sums.items()}
                    bar.set_postfix(loss=row.get("loss"), data_wait=row["data_wait"])
                    if validating and validate is not None:
                        row |= {k: f"{v:.6g}" for k, v in validate(trainer).items()}
                        bar.write("  ".join(f"{k} {v}" for k, v in row.items() if k == "step" or k.startswith("val")))
                    if validating and preview is not None:
                        cv2.imwrite(str(run.folder / "previews" / f"{now:07d}.png"), np.round(np.clip(preview(trainer), 0, 1) * 255).astype(np.uint8))
                    rows.append(row)
                    run.log(rows)
                    events(now, row)
                    sums, counted, waited, window = {}, 0, 0.0, time.perf_counter()
                if now % config.checkpoint_every == 0 or last:
                    save()
    except KeyboardInterrupt:
        save()
        print(f"\nstopped at step {int(step.numpy())}; go on with --resume")
        raise
    for name, network in trainer.networks.items():
        save_weights(network, run.folder / f"{name}.weights.h5")
    return trainer


def _tensorboard(folder: Path) -> Callable[[int, dict], None]:
    """A function that writes a row of metrics for TensorBoard, or does nothing where TensorBoard is not installed."""
    try:
        import tensorboard  # noqa: F401  (its absence is the only question)
    except ImportError:
        return lambda step, row: None
    writer = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def write(step: int, row: dict) -> None:
        with writer.as_default():
            for key, value in row.items():
                if key != "step":
                    tf.summary.scalar(key, float(value), step)
        writer.flush()

    return write
