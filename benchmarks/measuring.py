"""What the benchmarks share: tasks timed in turn, each side in a process of its own; the matmul ceiling; the speed of a data pipeline; the report."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

PAUSE = 0.5  # seconds; the other side's threads may still spin for a while after their work
WARM_UP = 3  # times, tracing included
MATMUL_SIDE = 4096
MATMUL = 2 * MATMUL_SIDE**3  # FLOP


def matmul_task(dtype: str) -> Callable:
    """Multiply two large square matrices once: what the processor does at best in "float32" or "bfloat16"."""
    import tensorflow as tf

    a = tf.cast(tf.random.uniform((MATMUL_SIDE, MATMUL_SIDE)), dtype)
    product = tf.function(lambda a: tf.reduce_sum(tf.cast(tf.matmul(a, a)[0], "float32")))
    return lambda: float(product(a))


def serve(make_tasks: Callable[[], dict], pipe) -> None:
    """In a process of its own: do the tasks one is asked for, answer with seconds; `None` ends it and is answered with peak memory in bytes."""
    tasks = make_tasks()
    pipe.send(list(tasks))
    while (name := pipe.recv()) is not None:
        began = time.perf_counter()
        tasks[name]()
        pipe.send(time.perf_counter() - began)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def measure(sides: dict[str, Callable[[], dict]], repeats: int) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Median seconds, side -> task -> seconds, and peak memory, side -> bytes.

    sides: name -> function that makes its tasks, name -> a function that does it once and returns when it is done. The first side has every task. Sides are
    asked in turn, so that a ratio compares medians of interleaved measurements. repeats: of each task, after a warm-up.
    """
    context = multiprocessing.get_context("spawn")
    pipes, tasks = {}, {}
    for side, make_tasks in sides.items():
        pipes[side], theirs = context.Pipe()
        context.Process(target=serve, args=(make_tasks, theirs), daemon=True).start()
        theirs.close()  # else a side that fails would be waited for
        try:
            tasks[side] = pipes[side].recv()
        except EOFError:
            raise RuntimeError(f"{side} stopped; what it said stands above") from None
    times = {side: {name: [] for name in tasks[side]} for side in sides}
    for name in next(iter(tasks.values())):
        for repeat in range(repeats + WARM_UP):
            for side in sides:
                if name in tasks[side]:
                    time.sleep(PAUSE)
                    pipes[side].send(name)
                    seconds = pipes[side].recv()
                    if repeat >= WARM_UP:
                        times[side][name].append(seconds)
    memory = {}
    for side in sides:
        pipes[side].send(None)
        memory[side] = pipes[side].recv()
    return {side: {name: float(np.median(t)) for name, t in values.items()} for side, values in times.items()}, memory


def multiply_adds(part, *shapes: tuple[int, ...]) -> int:
    """Multiply-adds of all convolutions and dense layers of a network without networks in it, for inputs of these shapes.

    The elements of a kernel times the pixels of its output; of a transposed one, times the pixels of its input.
    """
    import keras

    weighted = [layer for layer in part.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose | keras.layers.Dense)]
    found = keras.Model(part.inputs, [layer.output for layer in weighted]).compute_output_shape(list(shapes) if len(shapes) > 1 else shapes[0])
    total = 0
    for layer, shape in zip(weighted, found, strict=True):
        strides = math.prod(layer.strides) if isinstance(layer, keras.layers.Conv2DTranspose) else 1
        total += math.prod(layer.kernel.shape) * math.prod(shape[:-1]) // strides
    return total


def examples_per_second(examples, batch: int, seconds: float = 8.0) -> float:
    """Examples per second through the tf.data pipeline that training uses; examples: what `common.data.batches` takes, with its `shapes`."""
    from common.data import batches

    stream = iter(batches(examples, examples.shapes, batch))
    for _ in range(8):
        next(stream)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(stream)
        count += batch
    return count / (time.perf_counter() - began)


def report(out: Path, name: str, document: dict, lines: list[str]) -> None:
    """Write `name`.json, the document and the machine, and `name`.md, the lines; print the lines."""
    out.mkdir(parents=True, exist_ok=True)
    cpu = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    machine = {"processor": (models or [platform.processor() or platform.machine()])[0], "cores": os.cpu_count()}
    (out / f"{name}.json").write_text(json.dumps({"machine": machine} | document, indent=2))
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
