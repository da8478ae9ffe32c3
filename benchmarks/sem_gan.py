"""SEM-GAN's speed: `python -m benchmarks.sem_gan --out DIR`.

The paper-size networks. Training: batch 12 of 128x128, a step with and without the discriminator's update. Inference: a 390x390 scan to 780x780 pixels, raw
to raw intensities, as `python -m paper_sem_gan.evaluate` has it; `small` as well. float32 and bfloat16 are processes of their own and asked in turn; the
matmul ceiling of each is measured beside its tasks. Then the data pipeline, alone. Run it with nothing else on the machine.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measuring import MATMUL, examples_per_second, matmul_task, measure, multiply_adds, report
from paper_sem_gan import Config

CONFIG = replace(Config.paper(), alpha=1.0, beta=1.0)  # calibrated weights would be other numbers, not other work
INFERENCE = {"inference, paper": Config.paper(), "inference, small": Config.small()}
SIDE = 780  # pixels of a restored image
PUBLISHED_HOURS = 4 / 3  # of training, on a GTX 1080 Ti


def keras_tasks(precision: str) -> dict:
    """Name of a task -> a function that does it once and returns when it is done; precision: "float32" or "bfloat16"."""
    from common.__main__ import start_tensorflow

    start_tensorflow()
    import tensorflow as tf

    from common.papers import paper
    from common.precision import building
    from common.restoring import compiled
    from paper_sem_gan.train import SEMGAN  # with it comes one operation at a time, in training and in evaluation

    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
    step = tf.function(SEMGAN(replace(CONFIG, precision=policy)).train_step)
    batch = tuple(tf.random.uniform((CONFIG.batch, CONFIG.patch, CONFIG.patch, 1)) for _ in range(4))
    tasks = {name: lambda kind=kind: float(step(batch, kind)["loss"]) for name, kind in (("step", "training"), ("step + D", "training+D"))}
    scan, state = 255 * tf.random.uniform((1, SIDE // 2, SIDE // 2, 1)), tf.constant([0.0, 255.0], shape=(1, 1, 1, 2))
    for name, config in INFERENCE.items():
        with building(policy):
            restored = compiled(paper("sem_gan"), paper("sem_gan").build_generator(config))
        tasks[name] = lambda restored=restored: restored(scan, state).numpy()
    return tasks | {"matmul": matmul_task(precision)}


# --- What the tasks have to compute ---


def work() -> dict[str, int]:
    """FLOP of each task, two per multiply-add.

    G and D are a batch's way forward through generator and discriminator; backward costs as much for a layer's weights and as much again for its input (a
    network's first layer needs no gradient of its input: 0.03 % that is counted all the same).
    step      3 G, forward and both parts of backward; 2 D, the adversarial term forward and backward to D's input, for D's weights get no gradient here
    step + D  and the discriminator's update: G, new images from scans of its own; 2 x 3 D, forward and backward on real and on restored images
    """
    from paper_sem_gan.discriminator import build_discriminator
    from paper_sem_gan.generator import build_generator

    g, d = (2 * CONFIG.batch * multiply_adds(build(CONFIG), (1, CONFIG.patch, CONFIG.patch, 1)) for build in (build_generator, build_discriminator))
    steps = {"step": 3 * g + 2 * d, "step + D": 4 * g + 8 * d}
    return steps | {name: 2 * multiply_adds(build_generator(config), (1, SIDE, SIDE, 1)) for name, config in INFERENCE.items()}


def mean_step(values: dict) -> float:
    """Mean over the steps between two updates of the discriminator: three without it and one with it."""
    return ((CONFIG.discriminator_every - 1) * values["step"] + values["step + D"]) / CONFIG.discriminator_every


# --- Data ---


def data() -> tuple[float, dict[str, float]]:
    """Examples per second that training's pipeline cuts from fields already drawn, and the mean seconds that the parts of drawing a field take."""
    from paper_sem_gan.data import Patches, as_field, quantised
    from paper_sem_gan.fields import acquire, simulate_field
    from paper_sem_gan.registration import register

    clock, drawn = [], []
    for k in range(2):
        times = [time.perf_counter()]
        field = simulate_field((CONFIG.seed, k))
        times.append(time.perf_counter())
        scans = [quantised(scan.image) for scan in acquire(field, (CONFIG.seed, k))]
        times.append(time.perf_counter())
        pair = register(*scans)
        times.append(time.perf_counter())
        if pair.report["accepted"]:
            drawn.append(as_field(pair.low, pair.high))
        clock.append(np.diff(times))
    return examples_per_second(Patches(CONFIG, drawn), CONFIG.batch), dict(zip(("simulate", "scan", "register"), np.mean(clock, 0).tolist(), strict=True))


def benchmark(out: Path = Path("results/benchmark"), repeats: int = 12) -> None:
    """Measure, print a table, write sem_gan.json and sem_gan.md.

    Args:
        out: the folder for both files.
        repeats: of each task; medians are told.
    """
    from common.__main__ import start_tensorflow
    from paper_sem_gan.evaluate import PUBLISHED

    medians, memory = measure({precision: partial(keras_tasks, precision) for precision in ("float32", "bfloat16")}, repeats)
    ceiling = {precision: MATMUL / seconds.pop("matmul") for precision, seconds in medians.items()}
    start_tensorflow()
    flop = work()
    for values in (flop, *medians.values()):
        values["mean step"] = mean_step(values)
    examples, field = data()
    consumed = {precision: CONFIG.batch / seconds["mean step"] for precision, seconds in medians.items()}
    lines = ["| task | work | float32 | share of the matmul ceiling | bfloat16 | share of the matmul ceiling |", "| --- | --- | --- | --- | --- | --- |"]
    results = {}
    for name in ("step", "step + D", "mean step", *INFERENCE):
        cells = []
        for precision, values in medians.items():
            seconds, share = values[name], flop[name] / values[name] / ceiling[precision]
            results[f"{name}, {precision}"] = {"seconds": seconds, "flop": flop[name], "ceiling_share": share}
            if name in INFERENCE:
                results[f"{name}, {precision}"] |= {"images_per_second": 1 / seconds, "published_images_per_second": PUBLISHED["rate"]}
            cells += [f"{seconds:.3f} s" + f", {1 / seconds:.2f} images/s" * (name in INFERENCE), f"{share:.0%}"]
        lines.append(f"| {name} | {flop[name] / 1e9:.0f} GFLOP | {' | '.join(cells)} |")
    hours = {precision: CONFIG.steps * seconds["mean step"] / 3600 for precision, seconds in medians.items()}
    told = " and ".join(f"{value:.0f} h in {precision}" for precision, value in hours.items())
    lines += ["", f"Published, on a GTX 1080 Ti: {PUBLISHED['rate']} images/s, {PUBLISHED_HOURS:.1f} h of training. Here {CONFIG.steps:,} mean steps: {told}."]
    lines += [f"Matmul 4096x4096, {precision}: {value / 1e9:.0f} GFLOP/s." for precision, value in ceiling.items()]
    lines += [f"Peak memory of the process, {precision}: {value / 2**30:.2f} GiB (all tasks of the table)." for precision, value in memory.items()]
    factors = ", ".join(f"{examples / value:.0f}x what the mean {precision} step consumes" for precision, value in consumed.items())
    lines += [f"Data: {examples:.0f} examples per second; {factors}."]
    parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in field.items())
    lines += [f"A field, once a training: {parts}; {CONFIG.fields} fields: {CONFIG.fields * sum(field.values()) / 60:.0f} min."]
    document = {"tasks": results, "matmul_flops": ceiling, "peak_bytes": memory, "training_hours": hours, "examples_per_second": examples}
    document |= {"data_factor": {precision: examples / value for precision, value in consumed.items()}, "field_seconds": field}
    report(out, "sem_gan", document, lines)


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(benchmark, "python -m benchmarks.sem_gan"))
