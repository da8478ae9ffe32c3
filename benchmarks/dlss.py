"""DLSS-STEM's speed: `python -m benchmarks.dlss --out DIR`.

The paper's network and `small`. Training: a supervised step with one batch, a crop of 512x512 pixels in the paper, replay and clipping included. Inference: one
infilled image of 512x512 pixels; and a whole scan of 512x512 points with step 8, restored by tiles to 4096x4096 pixels with `small`, raw to raw intensities.
float32 and bfloat16 are processes of their own and asked in turn; the matmul ceiling of each is measured beside its tasks. Networks are untrained: other
numbers, the same work. Then the data pipeline, alone. Run it with nothing else on the machine.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.measuring import MATMUL, examples_per_second, matmul_task, measure, multiply_adds, report
from common.papers import paper
from paper_dlss import Config

SIDE = 512  # pixels of an image, of which the forward pass is measured
STEP = 8  # of the scan that is restored
SPECIMENS = 16  # that crops are cut from; training has more, drawn once
Preset = Literal["paper", "legacy_code", "small", "tiny"]  # of two stages


def keras_tasks(precision: str, presets: tuple[str, ...], points: int) -> dict:
    """Name of a task -> a function that does it once and returns when it is done; precision: "float32" or "bfloat16".

    The last preset restores a scan of points x points.
    """
    from common.__main__ import start_tensorflow

    start_tensorflow()
    import tensorflow as tf

    from common.restoring import restore_array
    from paper_dlss.train import DLSS  # with it comes one operation at a time, in training and in evaluation

    tasks, rng = {}, np.random.default_rng(0)
    image = tf.constant(rng.uniform(size=(1, SIDE, SIDE, 1)), tf.float32)
    for name in presets:
        config = replace(preset(name), precision={"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision])
        crop, which = rng.uniform(-1, 1, (config.side, config.side, 1)).astype(np.float32), np.zeros(1, np.float32)
        trainer = DLSS(config, [(crop, which)] * config.replay_slots)
        network = trainer.networks["final"]
        forward, step = tf.function(partial(network, training=False)), tf.function(trainer.train_step)
        batch = tuple(tf.constant(np.stack([a] * config.batch)) for a in (crop, which))
        tasks[f"forward, {name}"] = lambda forward=forward: forward(image).numpy()
        tasks[f"step, {name}"] = lambda step=step, batch=batch: float(step(batch, "supervised")["loss"])
    scan, at_step = rng.gamma(4, 300, (points, points)).astype(np.float32), paper("dlss").scaled(STEP, config)
    tasks[f"scan, {presets[-1]}"] = lambda: restore_array(scan, at_step, network, config)
    return tasks | {"matmul": matmul_task(precision)}


def preset(name: str) -> Config:
    return paper("dlss").presets[name]


# --- What the tasks have to compute ---


def work(presets: tuple[str, ...], points: int) -> dict[str, int]:
    """FLOP of each task, two per multiply-add.

    forward  inner and outer network
    step     these and the trainer head, three times: forward, and backward as much for a layer's weights and as much again for its input (a network's first
             layers need no gradient of their input: less than 1 % that is counted all the same). Adam's own work, for each weight, is left out
    scan     forward, as many pixels as the result has: that tiles overlap counts against their share
    """
    from paper_dlss.generator import build_head, build_inner, build_outer

    flop = {}
    for name in presets:
        config = preset(name)
        inner, outer, head = build_inner(config), build_outer(config), build_head(config)

        def network(side, config=config, inner=inner, outer=outer):
            image, features = (1, side, side, 1), (1, side // 2, side // 2, config.inner[0])
            return 2 * (multiply_adds(inner, image) + multiply_adds(outer, image, features))

        flop[f"forward, {name}"] = network(SIDE)
        trained = network(config.side) + 2 * multiply_adds(head, (1, config.side // 2, config.side // 2, config.inner[0]))
        flop[f"step, {name}"] = 3 * config.batch * trained
        flop[f"scan, {name}"] = network(STEP * points)
    return flop


# --- Data ---


def data(config: Config) -> tuple[float, float]:
    """Examples per second that training's pipeline cuts from specimens already drawn, and the seconds that drawing one takes."""
    from paper_dlss.data import Examples, SimulatedCrops

    source = SimulatedCrops(replace(config, crops=SPECIMENS), "train")
    began = time.perf_counter()
    for k in range(SPECIMENS):
        source.specimens[k]
    drawing = (time.perf_counter() - began) / SPECIMENS
    return examples_per_second(Examples(config, source), config.batch), drawing


def benchmark(out: Path = Path("results/benchmark"), repeats: int = 12, presets: tuple[Preset, ...] = ("paper", "small"), points: int = 512) -> None:
    """Measure, print a table, write dlss.json and dlss.md.

    Args:
        out: the folder for both files.
        repeats: of each task; medians are told.
        presets: the networks; the last one restores the scan.
        points: of the scan that is restored, along each side.
    """
    from common.__main__ import start_tensorflow

    sides = {precision: partial(keras_tasks, precision, presets, points) for precision in ("float32", "bfloat16")}
    medians, memory = measure(sides, repeats)
    ceiling = {precision: MATMUL / seconds.pop("matmul") for precision, seconds in medians.items()}
    start_tensorflow()
    flop = work(presets, points)
    megapixels = (STEP * points) ** 2 / 1e6
    lines = ["| task | work | float32 | share of the matmul ceiling | bfloat16 | share of the matmul ceiling |", "| --- | --- | --- | --- | --- | --- |"]
    results = {}
    for name in medians["float32"]:
        cells = []
        for precision, values in medians.items():
            seconds, share = values[name], flop[name] / values[name] / ceiling[precision]
            results[f"{name}, {precision}"] = {"seconds": seconds, "flop": flop[name], "ceiling_share": share}
            told = f"{seconds:.3f} s"
            if name.startswith("scan"):
                results[f"{name}, {precision}"]["megapixels_per_second"] = megapixels / seconds
                told += f", {megapixels / seconds:.2f} Mpx/s"
            cells += [told, f"{share:.0%}"]
        lines.append(f"| {name} | {flop[name] / 1e9:.1f} GFLOP | {' | '.join(cells)} |")
    lines += ["", f"Scan: {points}x{points} points with step {STEP} to {STEP * points}x{STEP * points} pixels. A forward pass: one image of {SIDE}x{SIDE}."]
    lines += [f"Matmul 4096x4096, {precision}: {value / 1e9:.0f} GFLOP/s." for precision, value in ceiling.items()]
    lines += [f"Peak memory of the process, {precision}: {value / 2**30:.2f} GiB (all tasks of the table)." for precision, value in memory.items()]
    pipeline = {}
    for name in presets:
        config = preset(name)
        seconds = {precision: values[f"step, {name}"] for precision, values in medians.items()}
        examples, drawing = data(config)
        hours = {precision: config.steps * value / 3600 for precision, value in seconds.items()}
        factor = {precision: examples * value / config.batch for precision, value in seconds.items()}
        pipeline[name] = {"examples_per_second": examples, "data_factor": factor, "specimen_seconds": drawing, "training_hours": hours}
        told = " and ".join(f"{value:.1f} h in {precision}" for precision, value in hours.items())
        factors = ", ".join(f"{value:.0f}x what the {precision} step consumes" for precision, value in factor.items())
        lines += [
            f"{name}: {config.steps:,} steps of {config.batch} x {config.side}x{config.side}: {told}. Data: {examples:.0f} examples per second, {factors}."
        ]
        lines += [f"A specimen, once a training: {drawing:.2f} s; {config.crops} of them: {config.crops * drawing / 60:.0f} min."]
    report(out, "dlss", {"tasks": results, "matmul_flops": ceiling, "peak_bytes": memory, "presets": pipeline}, lines)


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(benchmark, "python -m benchmarks.dlss"))
