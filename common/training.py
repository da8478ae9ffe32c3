"""The one training loop of all papers: one step is one line of the paper's algorithm box, a run is a folder, and a resumed run is the same run.

Why not `Model.fit`: it loses the state of a second optimizer on resume, counts epochs only, looks for NaN in one log key only, and does not run on
several workers. The loop below needs none of its machinery: example i is a pure function of (seed, i), so the state of a run is its weights, its
optimizers and a number.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from .checkpoints import Checkpoints
from .devices import share, team
from .papers import config_to_dict
from .precision import resolve

# Operations that run side by side share one pool of threads, and a sum is then split differently from run to run: wide networks would repeat to rounding only.
# One operation at a time, each with all threads, costs a few percent at most and repeats bit for bit.
with contextlib.suppress(RuntimeError):  # TensorFlow is at work already: runs then repeat to rounding
    tf.config.threading.set_inter_op_parallelism_threads(1)


class NonFinite(RuntimeError):
    """A loss or a weight stopped being a finite number; the last checkpoint is still good."""


class Trainer(keras.Model):
    """What the loop trains. A paper's algorithm subclasses it, fills the dicts and writes `train_step`.

    networks: name -> keras.Model, everything with weights, exponential averages included; the name is the file name of its weights, "final" is the product.
    solvers: name -> optimizer, built on its variables so that a restored run finds its state.
    state: name -> tf.Variable, whatever else an update depends on: calibrated loss weights, pools of images, running averages.
    """

    def __init__(self, networks: dict, solvers: dict, state: dict | None = None, **kwargs):
        super().__init__(**kwargs)
        self.networks, self.solvers, self.state = networks, solvers, state or {}

    def kind(self, step: int) -> str:
        """Which kind of step number `step` (from 1) is, where an algorithm has several: warm-up, with or without the discriminator, ..."""
        return ""

    def train_step(self, batch, kind: str = "") -> dict:
        """One update from one batch; returns name -> scalar, of this kind of step. Runs inside `strategy.run`; each kind is a graph of its own."""
        raise NotImplementedError(f"{type(self).__name__} must say what one training step is")


def minimise(optimizer, network, objective: Callable) -> dict:
    """One optimizer update of a network. `objective()` returns (scalar loss, dict of scalars to log); the dict is returned.

    The loss is a mean over this replica's share of the batch, hence the division; mixed_float16 optimizers scale it as well.
    """
    with tf.GradientTape() as tape:
        loss, logs = objective()
        scaled = optimizer.scale_loss(loss / tf.distribute.get_strategy().num_replicas_in_sync)
    variables = network.trainable_variables
    gradients = tape.gradient(scaled, variables)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) and tf.distribute.get_strategy().num_replicas_in_sync > 1:
        gradients = together(gradients)
    optimizer.apply(gradients, variables)
    return logs


def together(gradients: list) -> list:
    """This replica's gradients, or NaN if those of any replica are not finite.

    LossScaleOptimizer skips a step when it sees an overflow, but looks at one replica's own gradients: the others would go on with NaN, or wait forever.
    """
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients if g is not None])
    spoiled = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.where(finite, 0.0, np.nan))
    return [g if g is None else g + tf.cast(spoiled, g.dtype) for g in gradients]


def update_average(average, network, decay: float) -> None:
    """Exponential moving average of all variables: a <- decay a + (1 - decay) w."""
    for a, w in zip(average.variables, network.variables, strict=True):
        a.assign(a * decay + w * (1.0 - decay) if "float" in str(w.dtype) else w)


def step_key(seed: int, stream: str, step):
    """A key for TensorFlow's stateless random numbers that belongs to a step: streams of other names are independent."""
    key = (zlib.crc32(stream.encode()) & 0x7FFFFFFF) << 32 | seed
    return tf.stack([tf.constant(key, tf.int64), tf.cast(step, tf.int64)])


def uniform(seed: int, stream: str, step, shape: tuple[int, ...]):
    """Numbers in [0, 1) that belong to a step: a pure function of (seed, stream, step)."""
    return tf.random.stateless_uniform(shape, step_key(seed, stream, step), alg="philox")


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
    """A run folder: config.json, metrics.csv, checkpoints/, previews/ and, at the end, final.weights.h5 and one file per further network;
    best.weights.h5 is the product as it was at the best validation so far."""

    folder: Path
    description: dict = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path, paper: str, config, resume: bool, data: dict | None = None) -> Run:
        """A new folder, or one to go on with; nothing is written before `describe`.

        FileExistsError if it is in use and `resume` is off; ValueError if it was made with another configuration or other data.
        Only `steps` may differ: it says when to stop, not what a step is. Precision "auto" is what it means here: a run does not go on in another one elsewhere
        without being told. data: what the examples come from, in JSON-ready values.
        """
        run = cls(Path(folder))
        description = {"paper": paper, "data": data, "config": config_to_dict(config)}
        if "precision" in description["config"]:
            description["config"]["precision"] = resolve(config.precision)
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
        run.description = {**description, "versions": versions()}
        return run

    def describe(self) -> None:
        """Make the folder and write config.json."""
        for part in ("checkpoints", "previews"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
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


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that readers see the old one or the new one, never half of it. OSError, with the file's name, if that fails."""
    with replacing(path, path.with_name(path.name + ".partial")) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path, temporary: Path):
    """Write `temporary` inside; it then becomes `path`, or vanishes with an OSError that names `path`."""
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written ({error.strerror or error}); make room there") from error


def versions() -> dict:
    """What a result depends on besides the code."""
    import platform

    return {"python": platform.python_version(), "tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}


def save_weights(network, path: Path) -> None:
    """Write a network's weights atomically. OSError, with the file's name, if that fails."""
    room = sum(4096 + 4 * math.prod(v.shape) for v in network.variables) + 65536
    with replacing(path, path.with_name("partial-" + path.name)) as temporary:
        temporary.write_bytes(bytes(room))  # a full disk makes HDF5 crash the process; plain writing says so
        network.save_weights(temporary)


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
    best: tuple[str, Callable] | None = None,
    strategy: tf.distribute.Strategy | None = None,
    log_every: int = 50,
    keep: int = 3,
) -> Trainer:
    """Train to `config.steps` steps and leave a run folder.

    build: makes the trainer (called in the strategy's scope). dataset: first step -> batches from that step on.
    data: what the examples come from, kept in config.json; a resumed run must say the same.
    validate: trainer -> name -> number, preview: trainer -> (height, width) image in [0, 1]; both every `config.validate_every` steps and at the end.
    best: a validated number and `max` or `min`: the product is kept as best.weights.h5, too, whenever that number is better than at all validations before.
    strategy: devices or workers that share every batch of `config.batch` examples; they make the update of that batch, to rounding, whatever their number. Only
    the chief writes; workers see the same folder.
    A run resumed from step s goes on exactly as one that was never stopped: bit for bit, if this module was imported before TensorFlow was.
    Ctrl-C saves a checkpoint first.
    Raises NonFinite when a loss or a weight is no finite number any more, OSError when the disk is full, ConnectionError when another worker stops; the
    checkpoints in the folder are older and good.
    """
    strategy = strategy or tf.distribute.get_strategy()
    worker, _, _ = share(config.batch, strategy)
    chief = worker == 0
    run, checkpoints, first = Run(Path(out)), Checkpoints(Path(out) / "checkpoints", keep), 0
    if chief:
        run = Run.open(out, paper, config, resume, data)
        first = checkpoints.newest()
        if first > config.steps:
            raise ValueError(f"{out} has gone {first} steps already; resume it with --steps {first} or more")
        if resume and not first:
            print(f"{out} holds no checkpoint yet: starting at step 0")
    keras.utils.set_random_seed(config.seed)
    with strategy.scope(), team():
        trainer = build()
        if chief:
            run.describe()
        step = tf.Variable(first, dtype=tf.int64, name="step")  # variables start with the chief's values: here the others wait for it and learn where to start
        first = int(step.numpy())
        if not chief:
            run = Run.open(out, paper, config, True, data)
        kinds = {"network": trainer.networks, "solver": trainer.solvers, "state": trainer.state}
        parts = {f"{kind}_{name}": part for kind, named in kinds.items() for name, part in named.items()}
        state = tf.train.Checkpoint(step=step, **parts)
        if first:
            checkpoints.restore(state, first)
        batches = iter(strategy.distribute_datasets_from_function(lambda context: dataset(first))) if first < config.steps else None
    rows = run.logged(first)
    events = _tensorboard(run.folder) if chief else None

    @tf.function
    def distributed_step(batch, kind):
        logs = strategy.run(trainer.train_step, args=(batch, kind))
        step.assign_add(1)
        return {k: strategy.reduce(tf.distribute.ReduceOp.MEAN, v, axis=None) for k, v in logs.items()}

    def save():
        bad = [v.path for net in trainer.networks.values() for v in net.variables if not np.isfinite(keras.ops.convert_to_numpy(v)).all()]
        if bad:
            raise NonFinite(f"weight {bad[0]} is not finite after step {int(step.numpy())}; {last_good()}")
        if chief:
            checkpoints.save(state, int(step.numpy()))

    def last_good():
        return f"the last good checkpoint is ckpt-{checkpoints.steps()[0]}" if checkpoints.steps() else "there is no checkpoint yet"

    window = time.perf_counter()
    began = window - (float(rows[-1]["seconds"]) if rows else 0.0)  # a resumed run goes on counting
    waited = 0.0
    seen: dict[str, list[float]] = {}
    try:
        with team(), tqdm(total=config.steps, initial=first, unit="step", desc=paper, smoothing=0.05, disable=not chief) as bar:
            for now in range(first + 1, config.steps + 1):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                logs = {k: float(v) for k, v in distributed_step(batch, trainer.kind(now)).items()}
                broken = [k for k, v in logs.items() if not np.isfinite(v)]
                if broken:
                    raise NonFinite(f"{', '.join(broken)} is not finite at step {now}; {last_good()}")
                for k, v in logs.items():
                    seen.setdefault(k, []).append(v)
                bar.update()
                last = now == config.steps
                validating = now % config.validate_every == 0 or last
                if chief and (now % log_every == 0 or validating):
                    seconds = time.perf_counter() - window
                    row = {"step": now, "seconds": round(time.perf_counter() - began, 1), "data_wait": round(waited / seconds, 4)}
                    row |= {k: f"{np.mean(v):.6g}" for k, v in seen.items()}
                    bar.set_postfix(loss=row.get("loss"), data_wait=row["data_wait"])
                    if validating and validate is not None:
                        row |= {k: f"{v:.6g}" for k, v in validate(trainer).items()}
                        if best and _better(rows, row, *best):
                            save_weights(trainer.networks["final"], run.folder / "best.weights.h5")
                        bar.write("  ".join(f"{k} {v}" for k, v in row.items() if k == "step" or k.startswith("val")))
                    if validating and preview is not None:
                        picture = np.round(np.clip(preview(trainer), 0, 1) * 255).astype(np.uint8)
                        write_atomically(run.folder / "previews" / f"{now:07d}.png", cv2.imencode(".png", picture)[1].tobytes())
                    rows.append(row)
                    run.log(rows)
                    events(now, row)
                    seen, waited, window = {}, 0.0, time.perf_counter()
                if now % config.checkpoint_every == 0 or last:
                    save()
    except KeyboardInterrupt:
        save()
        print(f"\nstopped at step {int(step.numpy())}; go on with --resume")
        raise
    for name, network in trainer.networks.items() if chief else ():
        save_weights(network, run.folder / f"{name}.weights.h5")
    return trainer


def _better(rows: list[dict], row: dict, name: str, choose: Callable) -> bool:
    """Whether a validated number is better than in all rows before. What a run that was stopped validated after its checkpoint is in none of them."""
    value, former = float(row[name]), [float(r[name]) for r in rows if r.get(name)]
    return math.isfinite(value) and value not in former and choose([value, *former]) == value


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
