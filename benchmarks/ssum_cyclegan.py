"""The SSUM CycleGAN's speed beside the same networks in PyTorch: `python -m benchmarks.ssum_cyclegan --out DIR` (PyTorch is optional: pip install torch).

The paper's networks and losses without dropout. A whole training step, two generators and two discriminators, with batches of 1 and 4 patches of 256x256; one
generator's forward pass on one of them; and a micrograph of 1024x1024, restored from raw to raw intensities. Each side is a process of its own, asked in turn.
PyTorch follows the public CycleGAN code's order of updates, and first shows that its networks, given our weights, have our outputs. Then the data pipeline,
alone. Run it on a CPU with nothing else on it.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measuring import MATMUL, examples_per_second, matmul_task, measure, multiply_adds, report
from paper_ssum_cyclegan import Config

CONFIG = replace(Config.paper(), dropout=0.0)
BATCHES = (1, 4)
WHOLE = 1024  # pixels of the restored micrograph, along each side
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
TOLERANCE = 1e-4  # between the outputs of both sides in float32
SPECIMENS = 12  # chips that patches are cut from here; training has more, drawn once


# --- The two sides: name of a task -> a function that does it once and returns when it is done ---


def keras_tasks(config: Config, whole: int) -> dict:
    from common.__main__ import start_tensorflow

    start_tensorflow()
    import tensorflow as tf

    from common.papers import paper
    from common.restoring import restore_array
    from paper_ssum_cyclegan.train import SSUMCycleGAN  # with it comes one operation at a time, in training and in evaluation

    tasks, rng = {}, np.random.default_rng(0)
    batches = {n: tuple(tf.constant(rng.uniform(-1, 1, (n, config.side, config.side, 1)), tf.float32) for _ in range(2)) for n in BATCHES}
    micrograph = rng.gamma(4, 300, (whole, whole)).astype(np.float32)
    image = tf.constant(rng.uniform(-1, 1, (1, config.side, config.side, 1)), tf.float32)
    for name, precision in PRECISIONS.items():
        trainer = SSUMCycleGAN(replace(config, precision=precision))
        network = trainer.networks["final"]
        step, forward = tf.function(trainer.train_step), tf.function(partial(network, training=False))
        for n, batch in batches.items():
            tasks[f"training step, batch {n}, {name}"] = lambda step=step, batch=batch: float(step(batch, "")["loss"])
        tasks[f"forward, {name}"] = lambda forward=forward: forward(image).numpy()
        tasks[f"restoring {whole} x {whole}, {name}"] = lambda network=network: restore_array(micrograph, paper("ssum_cyclegan"), network, config)
        tasks[f"matmul, {name}"] = matmul_task(name)
    return tasks


def torch_tasks(config: Config, references: dict) -> dict:
    """references: what `keras_references` gives."""
    import random

    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits

    def rectified():
        return nn.LeakyReLU(0.2)

    def normalised(inside, outside, kernel, stride=1, padding=0):
        return [nn.Conv2d(inside, outside, kernel, stride, padding, bias=False), nn.BatchNorm2d(outside)]

    def doubled(inside, outside):
        return [nn.Conv2d(inside, 4 * outside, 3, padding=1), nn.PixelShuffle(2), rectified()]

    class Block(nn.Module):
        def __init__(self, features):
            super().__init__()
            first = [nn.ReflectionPad2d(1), *normalised(features, features, 3), rectified()]
            self.layers = nn.Sequential(*first, nn.ReflectionPad2d(1), *normalised(features, features, 3))

        def forward(self, x):
            return x + self.layers(x)

    class Generator(nn.Module):
        def __init__(self, width=config.width, trunk=config.trunk):
            super().__init__()
            middle = round((width * trunk) ** 0.5)
            halvings = [*normalised(width, middle, 3, 2, 1), rectified(), *normalised(middle, trunk, 3, 2, 1), rectified()]
            self.down = nn.Sequential(nn.ReflectionPad2d(3), *normalised(1, width, 7), rectified(), *halvings)
            self.residual = nn.Sequential(*(Block(trunk) for _ in range(config.blocks)), *normalised(trunk, trunk, 3, padding=1))
            self.up = nn.Sequential(*doubled(trunk, middle), *doubled(middle, width), nn.ReflectionPad2d(3), nn.Conv2d(width, 1, 7), nn.Tanh())

        def forward(self, x):
            shallow = self.down(x)
            return self.up(shallow + self.residual(shallow))

    def discriminator(base=config.discriminator_base):
        layers = [nn.Conv2d(1, base, 4, 2, 1), rectified()]
        for inside, stride in ((base, 2), (2 * base, 2), (4 * base, 1)):
            layers += [nn.Conv2d(inside, 2 * inside, 4, stride, 1), nn.InstanceNorm2d(2 * inside), rectified()]
        return nn.Sequential(*layers, nn.Conv2d(8 * base, 1, 4, 1, 1))

    class Pool:
        def __init__(self):
            self.kept = []

        def __call__(self, fakes):
            shown = []
            for fake in fakes.detach().float():
                if len(self.kept) < config.pool:
                    self.kept.append(fake.clone())
                elif random.random() < 0.5:
                    place = random.randrange(config.pool)
                    self.kept[place], fake = fake.clone(), self.kept[place]
                shown.append(fake)
            return torch.stack(shown)

    def with_weights(network, weights):
        weighted = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]
        for part, arrays in zip(weighted, weights, strict=True):
            part.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        return network.to(memory_format=torch.channels_last)

    for name, make in (("generator", Generator), ("discriminator", discriminator)):
        weights, image, expected = references[name]
        with torch.inference_mode():
            found = with_weights(make(), weights).eval()(torch.from_numpy(image)).numpy()
        error = float(np.abs(found - expected).max())
        assert found.shape == expected.shape and error < TOLERANCE, f"the PyTorch {name} is not ours: its output differs by {error:.2g}"

    def judged(logits, target):
        return binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, target, dtype=torch.float32))

    def difference(a, b):
        return (a.float() - b).abs().mean()

    def pictures(n):
        return (2 * torch.rand(n, 1, config.side, config.side) - 1).to(memory_format=torch.channels_last)

    def training(enabled):
        """(x, y) -> one step of the public code: generators while discriminators are frozen, then discriminators, each on its own."""
        g, f, d_y, d_x = (make().to(memory_format=torch.channels_last) for make in (Generator, Generator, discriminator, discriminator))
        generators, judges = ([*a.parameters(), *b.parameters()] for a, b in ((g, f), (d_y, d_x)))
        adam, adam_judges = (torch.optim.Adam(p, config.learning_rate, (config.beta_1, 0.999)) for p in (generators, judges))
        pools, autocast = {d_y: Pool(), d_x: Pool()}, partial(torch.autocast, "cpu", torch.bfloat16, enabled=enabled)

        def step(x, y):
            for parameter in judges:
                parameter.requires_grad_(False)
            adam.zero_grad()
            with autocast():
                fake_y, fake_x = g(x), f(y)
                cycles = difference(f(fake_y), x) + difference(g(fake_x), y)
                loss = judged(d_y(fake_y), 1.0) + judged(d_x(fake_x), 1.0) + config.cycle_weight * cycles
            loss.backward()
            adam.step()
            for parameter in judges:
                parameter.requires_grad_(True)
            adam_judges.zero_grad()
            for judge, real, fake in ((d_y, y, fake_y), (d_x, x, fake_x)):
                shown = pools[judge](fake)
                with autocast():
                    verdict = 0.5 * (judged(judge(real), 1.0) + judged(judge(shown), 0.0))
                verdict.backward()
            adam_judges.step()
            return loss.item()

        return step

    tasks, batches, image = {}, {n: (pictures(n), pictures(n)) for n in BATCHES}, pictures(1)
    for name in PRECISIONS:
        enabled = name == "bfloat16"
        network, step = Generator().to(memory_format=torch.channels_last).eval(), training(enabled)

        def forward(network=network, enabled=enabled):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                return network(image).float().numpy()

        for n, batch in batches.items():
            tasks[f"training step, batch {n}, {name}"] = partial(step, *batch)
        tasks[f"forward, {name}"] = forward
    return tasks


# --- That both sides have the same networks ---


def keras_references(config: Config, side: int = 64) -> dict[str, tuple[list[dict], np.ndarray, np.ndarray]]:
    """For "generator" and "discriminator": weights of its layers as PyTorch stores them, an image (1, 1, side, side), and what Keras makes of it in inference.

    All weights are drawn anew, for at the start sub-pixel kernels are equal in fours and normalisations do nothing, so that a wrong order would not be seen.
    """
    from paper_ssum_cyclegan.discriminator import build_discriminator
    from paper_ssum_cyclegan.generator import build_generator

    rng, references = np.random.default_rng(0), {}
    for name, build in (("generator", build_generator), ("discriminator", build_discriminator)):
        network, weights = build(config), []
        for layer in network.layers:
            if layer.weights:
                drawn = [rng.normal(0, 0.03, a.shape) if a.ndim == 4 else rng.uniform(0.2, 0.6, a.shape) for a in layer.get_weights()]
                layer.set_weights(drawn)
                weights.append(as_torch(layer))
        image = rng.uniform(-1, 1, (1, side, side, 1)).astype(np.float32)
        output = np.asarray(network(image, training=False))
        references[name] = weights, *(np.ascontiguousarray(a.transpose(0, 3, 1, 2)) for a in (image, output))
    return references


def as_torch(layer) -> dict[str, np.ndarray]:
    """PyTorch's names and layouts of a convolution's or a batch normalisation's weights.

    A kernel is (out, in, height, width) there, and of a sub-pixel convolution the four phases of one channel are neighbours, not the channels of one phase.
    """
    arrays = layer.get_weights()
    if arrays[0].ndim == 1:
        return dict(zip(("weight", "bias", "running_mean", "running_var"), arrays, strict=True))
    outputs = np.arange(arrays[0].shape[-1])
    if layer.name.startswith("up"):
        outputs = outputs.reshape(4, -1).T.ravel()
    kernel, *bias = (a[..., outputs] for a in arrays)
    return {"weight": np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))} | ({"bias": bias[0]} if bias else {})


# --- What the tasks have to compute ---


def work(config: Config, whole: int) -> dict[str, int]:
    """FLOP of each task, two per multiply-add.

    G and D are one patch's way forward through a generator (7.05 G multiply-adds of 256x256 pixels) and a discriminator; backward costs as much for a layer's
    weights and as much again for its input.
    training step  4 x 3 G, both images to the other domain and back, forward and both parts of backward; 2 x 2 D, the adversarial terms forward and backward
                   to D's input, for D's weights get no gradient here; 4 x 3 D, both discriminators on real and on former images. First layers need no
                   gradient of images that are data: under 1 % that is counted all the same. Adam's own work is left out
    restoring      G, of as many pixels as the micrograph has
    """
    from paper_ssum_cyclegan.discriminator import build_discriminator
    from paper_ssum_cyclegan.generator import build_generator

    network = build_generator(config)
    patch = (1, config.side, config.side, 1)
    g, d = 2 * multiply_adds(network, patch), 2 * multiply_adds(build_discriminator(config), patch)
    steps = {f"training step, batch {n}": n * (12 * g + 16 * d) for n in BATCHES}
    return steps | {"forward": g, f"restoring {whole} x {whole}": 2 * multiply_adds(network, (1, whole, whole, 1))}


# --- Data ---


def data(config: Config) -> tuple[float, float]:
    """Pairs of patches per second that training's pipeline cuts from chips already drawn, and the seconds that drawing one takes."""
    from paper_ssum_cyclegan.data import Patches, SimulatedPairs

    pairs = SimulatedPairs(config, "train", SPECIMENS)
    began = time.perf_counter()
    for k in range(SPECIMENS):
        pairs[k]
    drawing = (time.perf_counter() - began) / SPECIMENS
    return examples_per_second(Patches(config, pairs), config.batch), drawing


def benchmark(out: Path = Path("results/benchmark"), repeats: int = 8) -> None:
    """Measure, print a table, write ssum_cyclegan.json and ssum_cyclegan.md.

    Args:
        out: the folder for both files.
        repeats: of each task; medians are told.
    """
    from common.__main__ import start_tensorflow

    start_tensorflow()
    sides = {"keras": partial(keras_tasks, CONFIG, WHOLE)}
    if importlib.util.find_spec("torch"):
        sides["torch"] = partial(torch_tasks, CONFIG, keras_references(CONFIG))
    medians, memory = measure(sides, repeats)
    ours, theirs = medians["keras"], medians.get("torch", {})
    ceiling = {precision: MATMUL / ours.pop(f"matmul, {precision}") for precision in PRECISIONS}
    flop = work(CONFIG, WHOLE)
    lines = ["| task | work | this project | PyTorch | ratio | share of the matmul ceiling |", "| --- | --- | --- | --- | --- | --- |"]
    results = {}
    for name, seconds in ours.items():
        task, precision = name.rsplit(", ", 1)
        beside, share = theirs.get(name), flop[task] / seconds / ceiling[precision]
        results[name] = {"seconds": seconds, "torch_seconds": beside, "ratio": beside and beside / seconds, "flop": flop[task], "ceiling_share": share}
        told = f"{seconds:.3f} s"
        if task.startswith("restoring"):
            results[name]["megapixels_per_second"] = WHOLE**2 / 1e6 / seconds
            told += f", {WHOLE**2 / 1e6 / seconds:.2f} Mpx/s"
        compared = "- | -" if beside is None else f"{beside:.3f} s | {beside / seconds:.2f}x"
        lines.append(f"| {name} | {flop[task] / 1e9:.0f} GFLOP | {told} | {compared} | {share:.0%} |")
    lines.append("")
    if not theirs:
        lines.append("PyTorch is not installed, so nothing stands beside this project (pip install torch).")
    lines += [f"Matmul 4096x4096, {precision}: {value / 1e9:.0f} GFLOP/s." for precision, value in ceiling.items()]
    lines += [f"Peak memory of the process, {side}: {value / 2**30:.2f} GiB (all tasks of the table)." for side, value in memory.items()]
    hours = {precision: CONFIG.steps * ours[f"training step, batch {CONFIG.batch}, {precision}"] / 3600 for precision in PRECISIONS}
    told = " and ".join(f"{value:.0f} h in {precision}" for precision, value in hours.items())
    lines += [f"The paper preset's {CONFIG.steps:,} steps of batch {CONFIG.batch}: {told}."]
    patches, drawing = data(CONFIG)
    factor = {f"batch {n}, {precision}": patches * ours[f"training step, batch {n}, {precision}"] / n for n in BATCHES for precision in PRECISIONS}
    consumed = ", ".join(f"{value:.0f}x what a step consumes ({name})" for name, value in factor.items())
    lines += [f"Data: {patches:.0f} pairs of patches per second; {consumed}."]
    lines += [f"A chip, once a training: {drawing:.2f} s; {CONFIG.pairs} of them: {CONFIG.pairs * drawing / 60:.0f} min."]
    document = {"tasks": results, "matmul_flops": ceiling, "peak_bytes": memory, "training_hours": hours}
    report(out, "ssum_cyclegan", document | {"pairs_per_second": patches, "data_factor": factor, "chip_seconds": drawing}, lines)


if __name__ == "__main__":
    from common.__main__ import run_tool

    raise SystemExit(run_tool(benchmark, "python -m benchmarks.ssum_cyclegan"))
