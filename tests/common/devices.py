"""Training on two devices, in a process of its own because TensorFlow fixes devices and workers when it starts: `python -m tests.common.devices HOW FOLDER`.

HOW: `devices`, two in this process, or `worker`, one of the workers that TF_CONFIG names; `mortal` is a worker that kills itself on its way.
Writes one JSON object; the runs themselves lie in the folder.
"""

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import paper_semnet.train
from common.data import batches
from common.precision import building, guarded
from common.training import Trainer, minimise, train, weighted_sum
from paper_semnet import Config
from paper_semnet.train import train_semnet

SEMNET = replace(
    Config.tiny(), steps=6, specimens=4, lq_patch=16, hq_crop=64, batch=4, checkpoint_every=3, validate_every=6, validation_images=1, ema_decay=0.5
)


@dataclass(frozen=True)
class Half:
    steps: int = 8
    batch: int = 2
    seed: int = 0
    checkpoint_every: int = 8
    validate_every: int = 8


class Loud(Trainer):
    """y = w x in mixed_float16; the gradient of one example in two overflows until the loss scale is small enough."""

    def __init__(self):
        with building("mixed_float16"):
            network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
        solver = guarded(keras.optimizers.SGD(0.001), "mixed_float16")
        solver.build(network.trainable_variables)
        super().__init__({"final": network}, {"sgd": solver})

    def train_step(self, batch, kind=""):
        x, y = batch
        network = self.networks["final"]
        return minimise(self.solvers["sgd"], network, lambda: weighted_sum({"L2": (keras.ops.mean((keras.ops.cast(network(x), "float32") - y) ** 2), 1.0)}))


def half(folder, loud: int, strategy=None) -> dict:
    """Train Loud; example i is the loud one if i mod 2 says so. Returns its weight and loss scale on every device of this process."""

    def example(i):
        return np.ones(1), np.full(1, 90.0 if i % 2 == loud else 1.5)

    config = Half()
    trainer = train("loud", config, Loud, lambda step: batches(example, [(1,), (1,)], config.batch, step * config.batch), folder, strategy=strategy)
    return {"weight": copies(trainer.networks["final"].variables[0]), "scale": copies(trainer.solvers["sgd"].dynamic_scale)}


def copies(variable) -> list[float]:
    """The values of a variable of one number on every device of this process."""
    return [float(np.squeeze(v)) for v in getattr(variable.value, "values", [variable.value])]


def fingerprints(trainer) -> list[str]:
    """One hash for each device of this process, of everything that it holds."""
    variables = [v.value for part in (*trainer.networks.values(), *trainer.solvers.values()) for v in part.variables]
    return [hashlib.sha256(b"".join(np.asarray(c).tobytes() for c in device)).hexdigest() for device in zip(*(v.values for v in variables), strict=True)]


def on_devices(folder: Path) -> dict:
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    trainer = train_semnet(SEMNET, folder / "resumed", resume=True, strategy=strategy)
    try:
        train_semnet(replace(SEMNET, batch=3), folder / "odd", strategy=strategy)
    except ValueError as error:
        refusal = str(error)
    return {
        "fingerprints": fingerprints(trainer),
        "refusal": refusal,
        "half": [half(folder / f"loud-{loud}", loud, strategy) for loud in (0, 1)],
        "half alone": half(folder / "alone", 0),
    }


def as_worker(folder: Path, mortal: bool) -> dict:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if mortal:
        paper_semnet.train.training_pairs = lambda *a: Mortal(training_pairs(*a), folder / "checkpoints" / "ckpt-3", 4 * SEMNET.batch)
    trainer = train_semnet(SEMNET, folder, resume=True, strategy=strategy)
    loud = half(folder / "loud", 1, strategy)
    return {"fingerprints": fingerprints(trainer), "half": loud}


training_pairs = paper_semnet.train.training_pairs


@dataclass
class Mortal:
    """Training pairs of which one, asked for, waits for a checkpoint and kills the process."""

    pairs: object
    checkpoint: Path
    last: int

    def __call__(self, index: int):
        if index >= self.last:
            while not self.checkpoint.exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.pairs(index)

    @property
    def shapes(self):
        return self.pairs.shapes


if __name__ == "__main__":
    how, where = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(on_devices(where) if how == "devices" else as_worker(where, how == "mortal")))
