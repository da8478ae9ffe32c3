"""Checks that every paper must pass; a paper's own tests call them with its own pieces."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

ROOT = Path(__file__).parents[1]


def check_gradients_reach_everything(network, loss_of_output, shape) -> None:
    """Every trainable variable of a network gets a finite gradient, and hardly any an all-zero one (dead activations aside)."""
    with tf.GradientTape() as tape:
        loss = loss_of_output(network(tf.random.uniform(shape), training=True))
    gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
    missing = [v.path for v, g in zip(network.trainable_variables, gradients, strict=True) if g is None]
    assert not missing
    assert all(np.isfinite(g).all() for g in gradients)
    assert all(np.abs(g).max() > 0 for g in gradients)


def check_tiles_equal_whole(paper, network, config, shape, tile) -> None:
    """Exact tiling gives the whole image to 1e-5 of its range."""
    from common.restoring import restore_array

    image = np.random.default_rng(1).uniform(0, 1000, shape).astype(np.float32)
    whole = restore_array(image, paper, network, config, tile=max(shape), exact=True)
    tiled = restore_array(image, paper, network, config, tile=tile, exact=True)
    assert np.abs(tiled - whole).max() < 1e-5 * np.ptp(whole)


def checkpointed(run: Path, step: int) -> dict[str, np.ndarray]:
    """Everything in a checkpoint: name -> array, in the order of the names."""
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / f"ckpt-{step}" / "state"))
    names = sorted(n for n in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in n and "save_counter" not in n)
    return {n: reader.get_tensor(n) for n in names}


def final_weights(run: Path) -> list[np.ndarray]:
    """Everything a finished run leaves in its newest checkpoint, as arrays in the order of their names."""
    return list(checkpointed(run, newest_step(run)).values())


def check_runs_equal(one: Path, other: Path) -> None:
    """Two runs ended with bit-identical networks, optimizers and averages."""
    a, b = final_weights(one), final_weights(other)
    assert len(a) == len(b) > 10
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def check_survives_kills(paper: str, flags: list[str], reference: Path, out: Path, steps: list[int], seed: int = 0) -> None:
    """Train in processes that are killed shortly after the given steps and resumed; the result must equal the reference run."""
    rng = random.Random(seed)
    command = ["train", paper, *flags, "--out", str(out), "--resume"]
    for step in steps:
        killed = start("tests.killed", str(step), f"{rng.uniform(0, 0.03):.3f}", *command)
        assert killed.wait() == -signal.SIGKILL
    assert start("common", *command).wait() == 0
    check_runs_equal(reference, out)


def start(module: str, *arguments: str, env: dict | None = None, **more) -> subprocess.Popen:
    """`python -m module` as a child process, silent unless `stdout` or `stderr` are given."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(env or {})}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
    return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment, text=True, **streams)


def report(process: subprocess.Popen, seconds: float = 300):
    """What a child process wrote last, as JSON; it must end well, in time, and is ended if it does not."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, (err or "")[-2000:]
    return json.loads(out.splitlines()[-1])


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    return max((int(path.name.removeprefix("ckpt-")) for path in (run / "checkpoints").glob("ckpt-*")), default=0)


def read_metrics(run: Path) -> list[dict]:
    """The rows of metrics.csv."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def publish_untrained(paper, config, folder: Path) -> Path:
    """Weights as initialised, with the config beside them: enough for tests of restoring and export."""
    from common.papers import config_to_dict

    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(3)
    paper.build_generator(config).save_weights(folder / "final.weights.h5")
    (folder / "config.json").write_text(json.dumps({"paper": paper.name, "config": config_to_dict(config)}))
    return folder
