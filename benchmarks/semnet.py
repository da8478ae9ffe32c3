"""SEMNet's speed beside the same network in PyTorch: `python -m benchmarks.semnet --out DIR` (PyTorch is optional: pip install torch).

The paper-size network, plain L1 and Adam on both sides, batch 4 of 64x64 for the training step, one 256x256 image for inference. Each side is a process of its
own; the two are asked in turn, so that a ratio compares medians of interleaved measurements. Run it with nothing else on the machine.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring import MATMUL, examples_per_second, matmul_task, measure, report

BATCH, PATCH, SIDE = 4, 64, 256
MACS_PER_PIXEL = 4_500_288  # of the paper network, per input pixel
REPEATS = 12
TRAINING = 3 * 2 * MACS_PER_PIXEL * BATCH * PATCH**2  # FLOP: forward, and twice that backward
INFERENCE = 2 * MACS_PER_PIXEL * SIDE**2


# --- The two sides: name of a task -> a function that does it once and returns when it is done ---


def keras_tasks() -> dict:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    from common.precision import building
    from paper_semnet import Config
    from paper_semnet.generator import build_generator
    from paper_semnet.train import SEMNet

    tasks = {}
    low = tf.random.uniform((BATCH, PATCH, PATCH, 1))
    high = tf.random.uniform((BATCH, 2 * PATCH, 2 * PATCH, 1))
    image = tf.random.uniform((1, SIDE, SIDE, 1))
    for name, precision in (("float32", "float32"), ("bfloat16", "mixed_bfloat16")):
        config = replace(Config.paper(), precision=precision, histogram_weight=0.0, tv_weight=0.0)
        step = tf.function(SEMNet(config).train_step)
        tasks[f"training step, {name}"] = lambda step=step: float(step((low, high))["loss"])
        with building(precision):
            network = build_generator(config)
        run = tf.function(lambda x, network=network: network(x, training=False))
        tasks[f"inference, {name}"] = lambda run=run: run(image).numpy()
        tasks[f"matmul, {name}"] = matmul_task(name)
    return tasks


def torch_tasks() -> dict:
    import torch
    from torch import nn

    class DenseBlock(nn.Module):
        def __init__(self, features=64, growth=32):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(features + k * growth, growth if k < 4 else features, 3, padding=1) for k in range(5))
            self.activation = nn.LeakyReLU(0.2)

        def forward(self, x):
            maps = [x]
            for conv in self.convs[:4]:
                maps.append(self.activation(conv(torch.cat(maps, 1))))
            return x + 0.2 * self.convs[4](torch.cat(maps, 1))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.body, self.up = nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
            self.last = nn.Conv2d(64, 1, 3, padding=1)
            self.blocks = nn.ModuleList(nn.Sequential(DenseBlock(), DenseBlock(), DenseBlock()) for _ in range(6))
            self.activation = nn.LeakyReLU(0.2)

        def forward(self, x):
            first = y = self.first(x)
            for block in self.blocks:
                y = y + 0.2 * block(y)
            y = first + self.body(y)
            y = self.activation(self.up(nn.functional.interpolate(y, scale_factor=2, mode="nearest")))
            return self.last(y)

    low = torch.rand(BATCH, 1, PATCH, PATCH).to(memory_format=torch.channels_last)
    high = torch.rand(BATCH, 1, 2 * PATCH, 2 * PATCH).to(memory_format=torch.channels_last)
    image = torch.rand(1, 1, SIDE, SIDE).to(memory_format=torch.channels_last)
    tasks = {}
    for name, enabled in (("float32", False), ("bfloat16", True)):
        network = Network().to(memory_format=torch.channels_last)
        assert sum(p.numel() for p in network.parameters()) == 4_391_617
        adam = torch.optim.Adam(network.parameters(), 1e-4)

        def step(network=network, adam=adam, enabled=enabled):
            adam.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = (network(low) - high).abs().mean()
            loss.backward()
            adam.step()
            return loss.item()

        def run(network=network, enabled=enabled):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                return network(image).float().numpy()

        tasks[f"training step, {name}"], tasks[f"inference, {name}"] = step, run
    return tasks


SIDES = {"keras": keras_tasks, "torch": torch_tasks}


def pairs_per_second() -> float:
    """Degraded 72/144 pairs per second from 320x320 crops, through the tf.data pipeline that training uses."""
    from common.data import SimulatedImages
    from paper_semnet import Config
    from paper_semnet.data import Pairs

    config = replace(Config.paper(), specimens=16)
    source = SimulatedImages(0, 16)
    for k in range(16):
        source[k]  # drawing specimens is done once a training, not once an example
    return examples_per_second(Pairs(config, (source,)), config.batch)


def benchmark(out: Path = Path("results/benchmark")) -> None:
    """Measure, print a table, write benchmark.json and benchmark.md.

    Args:
        out: the folder for both files.
    """
    sides = {side: make_tasks for side, make_tasks in SIDES.items() if side == "keras" or importlib.util.find_spec("torch")}
    medians, memory = measure(sides, REPEATS)
    ceiling = {name: MATMUL / medians["keras"][f"matmul, {name}"] for name in ("float32", "bfloat16")}
    pairs = pairs_per_second()
    lines = ["| task | this project | PyTorch | ratio | share of the matmul ceiling |", "| --- | --- | --- | --- | --- |"]
    results = {}
    for name, ours in medians["keras"].items():
        if name.startswith("matmul"):
            continue
        work, precision = (TRAINING if "training" in name else INFERENCE), name.split(", ")[1]
        theirs = medians.get("torch", {}).get(name)
        share = work / ours / ceiling[precision]
        results[name] = {"seconds": ours, "torch_seconds": theirs, "ratio": theirs and theirs / ours, "ceiling_share": share}
        beside = "not installed | " if theirs is None else f"{theirs:.3f} s | {theirs / ours:.2f}x"
        lines.append(f"| {name} | {ours:.3f} s | {beside} | {share:.0%} |")
    consumed = {name: BATCH / medians["keras"][f"training step, {name}"] for name in ceiling}
    lines += ["", *(f"Matmul 4096x4096, {name}: {value / 1e9:.0f} GFLOP/s." for name, value in ceiling.items())]
    lines += [f"Peak memory of the process, {side}: {value / 2**30:.2f} GiB (all tasks of the table)." for side, value in memory.items()]
    factors = ", ".join(f"{pairs / value:.0f}x what the {name} step consumes" for name, value in consumed.items())
    lines += [f"Data: {pairs:.0f} degraded 72/144 pairs per second; {factors}."]
    document = {"tasks": results, "matmul_flops": ceiling, "peak_bytes": memory, "pairs_per_second": pairs}
    report(out, "benchmark", document | {"data_factor": {name: pairs / value for name, value in consumed.items()}}, lines)


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(benchmark, "python -m benchmarks.semnet"))
