"""CGRDN's speed beside the same network in PyTorch: `python -m benchmarks.cgrdn --out DIR` (PyTorch is optional: pip install torch).

The published network, plain L1 and Adam on both sides, one patch of 256x256 for the training step and one image of 256x256 for inference; and a micrograph of
2048x2048, restored by tiles with `small`, raw to raw intensities. Each side is a process of its own, asked in turn. Then the data pipeline, alone. Networks
are untrained: other numbers, the same work. Run it with nothing else on the machine; with `--precisions float32` where the processor only emulates bfloat16.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.measuring import MATMUL, examples_per_second, matmul_task, measure, report

SIDE, WHOLE = 256, 2048  # pixels
MACS_PER_PIXEL = 1_758_336  # of the published network
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
SPECIMENS = 12  # clean pictures that patches are cut from here


def with_constants(network):
    """The network as a graph whose weights are constants: TensorFlow may then join layers and lay kernels out once."""
    import tensorflow as tf

    values = [[np.asarray(variable) for variable in kind] for kind in (network.trainable_variables, network.non_trainable_variables)]
    return tf.function(lambda x: network.stateless_call(*([tf.constant(v) for v in kind] for kind in values), x, training=False)[0])


def keras_tasks(precisions: tuple[str, ...] = tuple(PRECISIONS)) -> dict:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    from common.papers import paper
    from common.precision import building
    from common.restoring import restore_array
    from common.training import minimise
    from paper_cgrdn import Config
    from paper_cgrdn.generator import build_generator

    cgrdn, tasks, x, y = paper("cgrdn"), {}, tf.random.normal((1, SIDE, SIDE, 1)), tf.random.normal((1, SIDE, SIDE, 1))
    micrograph = np.random.default_rng(0).gamma(4, 300, (WHOLE, WHOLE)).astype(np.float32)
    for name in precisions:
        with building(PRECISIONS[name]):
            network, small = build_generator(Config.paper()), build_generator(Config.small())
        adam = keras.optimizers.Adam(1e-4)
        adam.build(network.trainable_variables)

        def step(network=network, adam=adam):
            def objective():
                loss = tf.reduce_mean(tf.abs(network(x, training=True) - y))
                return loss, {"loss": loss}

            return minimise(adam, network, objective)

        training, run, fixed = tf.function(step), tf.function(partial(network, training=False)), with_constants(network)
        difference = np.abs(fixed(x) - run(x)).max() / np.ptp(run(x))
        if name == "float32" and difference > 1e-5:
            raise RuntimeError(f"weights as constants change the output by {difference:.1e} of its range")
        tasks[f"training step, {name}"] = lambda training=training: float(training()["loss"])
        tasks[f"inference, {name}"] = lambda run=run: run(x).numpy()
        tasks[f"inference with weights as constants, {name}"] = lambda fixed=fixed: fixed(x).numpy()
        tasks[f"restoring {WHOLE} x {WHOLE} with small, {name}"] = lambda small=small: restore_array(micrograph, cgrdn, small, Config.small())
        tasks[f"matmul, {name}"] = matmul_task(name)
    return tasks


def torch_tasks(precisions: tuple[str, ...] = tuple(PRECISIONS)) -> dict:
    import torch
    from torch import nn

    def convolution(inside, outside, kernel, stride=1):
        return nn.Conv2d(inside, outside, kernel, stride, padding=(kernel - 1) // 2)

    class DenseBlock(nn.Module):
        def __init__(self, features=64, growth=32, count=8):
            super().__init__()
            self.convs = nn.ModuleList(convolution(features + k * growth, growth, 3) for k in range(count))
            self.fusion = convolution(features + count * growth, features, 1)

        def forward(self, x):
            maps = [x]
            for conv in self.convs:
                maps.append(torch.relu(conv(torch.cat(maps, 1))))
            return x + self.fusion(torch.cat(maps, 1))

    class Group(nn.Module):
        def __init__(self, features=64, count=4):
            super().__init__()
            self.blocks, self.fusion = nn.ModuleList(DenseBlock(features) for _ in range(count)), convolution(count * features, features, 1)

        def forward(self, x):
            outputs, y = [], x
            for block in self.blocks:
                y = block(y)
                outputs.append(y)
            return x + self.fusion(torch.cat(outputs, 1))

    class Network(nn.Module):
        def __init__(self, features=64, count=4):
            super().__init__()
            self.first, self.down = convolution(1, features, 3), convolution(features, features, 4, 2)
            self.groups, self.fusion = nn.ModuleList(Group(features) for _ in range(count)), convolution(count * features, features, 1)
            self.up, self.last = nn.ConvTranspose2d(features, features, 4, 2, padding=1), convolution(features, 1, 3)

        def forward(self, x):
            trunk = y = self.down(self.first(x))
            outputs = []
            for group in self.groups:
                y = group(y)
                outputs.append(y)
            return x + self.last(self.up(trunk + self.fusion(torch.cat(outputs, 1))))

    x, y = (torch.randn(1, 1, SIDE, SIDE).to(memory_format=torch.channels_last) for _ in range(2))
    tasks = {}
    for name in precisions:
        network = Network().to(memory_format=torch.channels_last)
        assert sum(p.numel() for p in network.parameters()) == 7_035_521
        adam = torch.optim.Adam(network.parameters(), 1e-4)

        def step(network=network, adam=adam, enabled=name == "bfloat16"):
            adam.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = (network(x) - y).abs().mean()
            loss.backward()
            adam.step()
            return loss.item()

        def run(network=network, enabled=name == "bfloat16"):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                return network(x).float().numpy()

        tasks[f"training step, {name}"], tasks[f"inference, {name}"] = step, run
    return tasks


def pairs_per_second() -> float:
    """Pairs of `small`'s patches per second, through the tf.data pipeline that training uses."""
    from paper_cgrdn import Config
    from paper_cgrdn.data import Pairs, sources

    config = replace(Config.small(), specimens=SPECIMENS)
    known = sources(config)
    for pictures in known.values():
        for k in range(len(pictures)):
            pictures[k]  # drawing specimens is done once a training, not once an example
    return examples_per_second(Pairs(config, known), config.batch)


def small_step_seconds() -> float:
    """Seconds of one training step of `small`, as it is configured."""
    import time

    import tensorflow as tf

    from paper_cgrdn import Config
    from paper_cgrdn.train import CGRDN

    config = Config.small()
    batch = tuple(tf.random.normal((config.batch, config.side, config.side, 1)) for _ in range(2))
    step, seconds = tf.function(CGRDN(config).train_step), []
    for _ in range(15):
        began = time.perf_counter()
        float(step(batch, "pixel")["loss"])
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[3:]))


def benchmark(
    out: Path = Path("results/benchmark"), repeats: int = 8, precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
) -> None:
    """Measure, print a table, write cgrdn.json and cgrdn.md.

    Args:
        out: the folder for both files.
        repeats: of each task; medians are told.
        precisions: of the networks; bfloat16 takes minutes a step where the processor emulates it.
    """
    known = {"keras": partial(keras_tasks, precisions), "torch": partial(torch_tasks, precisions)}
    medians, memory = measure({side: make for side, make in known.items() if side == "keras" or importlib.util.find_spec("torch")}, repeats)
    ceiling = {name: MATMUL / medians["keras"][f"matmul, {name}"] for name in precisions}
    forward = 2 * MACS_PER_PIXEL * SIDE**2
    lines = ["| task | this project | PyTorch | ratio | share of the matmul ceiling |", "| --- | --- | --- | --- | --- |"]
    results = {}
    for name, ours in medians["keras"].items():
        if name.startswith("matmul"):
            continue
        theirs, entry = medians.get("torch", {}).get(name), {"seconds": ours}
        beside = "- | - |" if theirs is None else f"{theirs:.3f} s | {theirs / ours:.2f}x |"
        if name.startswith("restoring"):
            entry["megapixels_per_second"] = WHOLE**2 / 1e6 / ours
            told = f"{ours:.2f} s, {WHOLE**2 / 1e6 / ours:.2f} Mpx/s | {beside} - |"
        else:
            entry["ceiling_share"] = forward * (3 if name.startswith("training") else 1) / ours / ceiling[name.split(", ")[-1]]
            told = f"{ours:.3f} s | {beside} {entry['ceiling_share']:.0%} |"
        results[name] = entry | {"torch_seconds": theirs, "ratio": theirs and theirs / ours}
        lines.append(f"| {name} | {told}")
    pairs, step = pairs_per_second(), small_step_seconds()
    from paper_cgrdn import Config

    factor = pairs * step / Config.small().batch
    lines += ["", *(f"Matmul 4096x4096, {name}: {value / 1e9:.0f} GFLOP/s." for name, value in ceiling.items())]
    lines += [f"Peak memory of the process, {side}: {value / 2**30:.2f} GiB (all tasks of the table)." for side, value in memory.items()]
    lines += [f"Data: {pairs:.0f} pairs per second, {factor:.0f}x what a step of small consumes ({step:.3f} s)."]
    document = {"tasks": results, "matmul_flops": ceiling, "peak_bytes": memory, "pairs_per_second": pairs, "data_factor": factor}
    report(out, "cgrdn", document, lines)


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(benchmark, "python -m benchmarks.cgrdn"))
