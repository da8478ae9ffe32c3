# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # DLSS-STEM: a whole micrograph from every twenty-fifth pixel
#
# *A lesson on J. M. Ede, "Deep learning supersampled scanning transmission electron microscopy", arXiv:1910.10467 (2019).*
#
# **The problem.** A scan that probes only every $s$-th pixel of every $s$-th line takes $1/s^2$ of the time and of the dose. Can the rest be computed?
# **What the paper claims.** One network for all steps from 4 to 10 restores 512×512 pixels from as few as 52×52 of them, with root mean squared errors of 3.2
# to 4.5 % of the grey scale; those of interpolation are given as 5.4 to 9.7 %.
#
# **What you will do here:** see what a sparse scan sees; find half a step of misfit in the published comparison; take the network, its initialisation and its
# learning policy apart; train a tiny one; measure; make it fail; solve exercises. The specimens are simulated, so the truth is known. The paper and its scripts
# differ in forty places; what this project does about each is in `paper_dlss/README.md`.
#
# **For the teacher.** About three hours of class. Sections 1 and 2 (sampling, interpolation) stand alone; 3 to 6 need the idea of gradient descent; 7 and 8 are
# about evidence, also for those who only *use* such networks. The whole notebook runs in less than three minutes without a GPU.

# %%
import inspect
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TQDM_DISABLE": "1"}
try:
    import paper_dlss  # noqa: F401
except ModuleNotFoundError:  # the kernel runs in notebooks/
    sys.path.insert(0, str(Path.cwd().parent))

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib_inline.backend_inline import set_matplotlib_formats

stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)  # TensorFlow's greetings
import keras
import tensorflow as tf

os.dup2(stderr, 2)
tf.get_logger().setLevel("ERROR")

from common.data import batches
from common.metrics import ratio_interval
from common.restoring import load_network, restore_array, weights_folder
from common.specimens import simulate
from paper_dlss import PAPER, Config, alrc, baselines, comparisons, data, evaluate, generator, losses, replay, sampling, train
from paper_dlss.baselines import aligned, blurred
from paper_dlss.comparisons import NETWORK, mse, unit

set_matplotlib_formats("jpeg", pil_kwargs={"quality": 88})
plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 10, "image.cmap": "gray", "figure.constrained_layout.use": True})


def show(*rows, size=2.2):
    """Each row: a dict of title -> image; 0 is black, 1 white. Errors are signed: red is too bright, blue too dark."""
    _, axes = plt.subplots(len(rows), len(rows[0]), figsize=(size * len(rows[0]), (size + 0.3) * len(rows)), squeeze=False)
    for axis, (title, image) in zip(axes.flat, (item for row in rows for item in row.items())):
        axis.imshow(image, interpolation="nearest", **({"cmap": "RdBu_r", "vmin": -0.3, "vmax": 0.3} if "error" in title else {"vmin": 0, "vmax": 1}))
        axis.set(title=title, xticks=[], yticks=[])
    plt.show()


def show_curves(axes, *captions, limits=()):
    """captions: "title; x axis" for each of the axes. limits: those that get dotted lines at the Nyquist limits of the steps 10, 7, 5 and 4."""
    for axis, caption in zip(axes, captions):
        axis.set(**dict(zip(("title", "xlabel"), caption.split("; "))))
        axis.legend(fontsize=7)
    for axis, s in ((axis, s) for axis in limits for s in (10, 7, 5, 4)):
        axis.axvline(0.5 / s, color="0.7", ls=":")
    plt.show()


# %% [markdown]
# ## 1 What a sparse scan sees
#
# A current $I$, resting for the dwell time $t$ on each of $n\times n$ points, takes the time $n^2t$ and spends $n^2It/e$ electrons. With a step of $s$ pixels,
# time and mean dose fall to the **coverage** $c=1/s^2$. A point is as noisy as before, for it got its full dwell time; and it stays a *point*: what lies
# between is not averaged in but missed. Whatever repeats itself in less than $2s$ pixels (the **Nyquist limit** of the scan) returns as something coarser: a
# frequency $f$ as $|f-k/s|$, with the integer $k$ that makes this smallest (**aliasing**).

# %%
print("step     points  coverage    time  electrons/Å²  shortest period seen")
for s in (1, 4, 5, 7, 10):
    n, pixel, current, dwell = sampling.count(512, s), 0.2, 50e-12, 10e-6  # Å, A, s
    dose = n**2 * current * dwell / 1.602e-19 / (512 * pixel) ** 2
    print(f"{s:4d}  {n:3d} x {n:3d}   {(n / 512) ** 2:7.4f}{n**2 * dwell:7.3f} s{dose:14,.0f}{2 * s * pixel:20.1f} Å")
rng = np.random.default_rng(0)
truth = data.magnified(simulate("gold", 3, (512, 512)).image, 256, 2.0, rng)
full = data.recorded(truth, 300, 0.01, rng)
infilled = {f"infilled, step {s}": np.array(sampling.infill(full[None, ..., None], s))[0, ..., 0] for s in (5, 10)}
show({"every pixel": full, "probed, step 5": full * np.array(sampling.mask(256, 5)), "its 51 x 51 points": sampling.scan(full, 5)} | infilled, size=2.5)
grey, coarse = np.full((500, 500), 0.5), {"dsize": (100, 100), "interpolation": cv2.INTER_AREA}
print(f"noise of a sample, 300 electrons at white: {sampling.scan(data.recorded(grey, 300, 0, rng), 5).std():.4f}")
print(f"the same dose spread over its 25 pixels, averaged: {cv2.resize(data.recorded(grey, 300 / 25, 0, rng), **coarse).std():.4f}")
axes, true, seen = plt.subplots(1, 2, figsize=(11, 2.6))[1], np.arange(4, 226, 4) / 480, []
for f in true:
    wave = aligned(0.5 + 0.4 * np.cos(2 * np.pi * f * np.arange(480)) * np.ones((20, 1)), 5, "bicubic").mean(0)
    seen.append(np.abs(np.fft.rfft(wave - wave.mean())).argmax() / 480)
axes[0].plot(true, np.abs(true - np.rint(5 * true) / 5), "C1", label="$|f-k/s|$")
axes[0].plot(true, seen, "k.", label="strongest in the interpolated scan")
for label, image in {"recorded": full, "noise-free": truth, "recorded, blurred (see section 3)": blurred(full)}.items():
    axes[1].semilogy(*comparisons.amplitudes(image), label=label)
show_curves(axes, "frequency seen with step 5; true frequency, cycles per pixel", "amplitude; cycles per pixel, dotted: limits of scans", limits=axes[1:])

# %% [markdown]
# The two noises are equal: as long as counting is the only noise, a sparse scan is no better per electron than a quick full one, which has no aliases. It wins
# where the time per point cannot be cut (detector, scan coils), or where damage stays near the probe. That question comes before any network.
#
# ## 2 A comparison that is off by half a step
#
# Whoever claims to beat interpolation must interpolate well. The published baseline shrinks the image by OpenCV's nearest neighbour, which takes the *top left*
# pixel of each block, and enlarges it by methods that take a sample for the *middle* of its block: everything moves by $(s-1)/2$ pixels ("legacy"). Beside it:
# interpolation where the samples lie ("aligned"), and the same behind a Gaussian, tuned on other crops, since samples are noisy and the target is blurred.

# %%
steps = (3, 4, 5, 7, 10, 12)
crops = list(comparisons.simulated("test", 0, 256, 8))  # in [-1, 1]; training draws others
sigmas = comparisons.tune_all(comparisons.simulated("tuning", 0, 256, 6), steps)
sharp, middle = unit(crops[0]), np.s_[96:192, 96:192]
target, images = blurred(sharp), {"legacy bilinear": baselines.legacy(sharp, 5, "bilinear"), "aligned bilinear": aligned(sharp, 5, "bilinear")}
images["aligned + Gaussian"] = aligned(sharp, 5, "bilinear", sigmas[5]["bilinear"])
shown = {"target": target[middle], "probed": aligned(sharp, 5, "nearest")[middle]} | {name: image[middle] for name, image in images.items()}
show(shown | {f"error: {name}": image[middle] - target[middle] for name, image in images.items()}, size=1.9)
print("root MSE     paper, legacy |  here: legacy   aligned  + Gaussian, sigma   least error of legacy if moved back by; (s - 1) / 2")
for s in (4, 5, 10):
    errors = [comparisons.classical(unit(crop), s, sigmas[s]) for crop in crops]
    means = [np.mean([e[name] for e in errors]) ** 0.5 for name in ("legacy bilinear", "aligned bilinear", "aligned bilinear + Gaussian")]
    moved, whole = baselines.legacy(sharp, s, "bilinear"), baselines.legacy_target(sharp, s)
    back = min(range(9), key=lambda k: mse(moved[k:, k:], whole[: len(whole) - k, : len(whole) - k]))  # noqa: B023
    print(f"step {s:2d}{evaluate.TABLE_2['legacy bilinear'][s][0]:19.4f} |{means[0]:14.4f}{means[1]:10.4f}{means[2]:12.4f}", end="")
    print(f"{sigmas[s]['bilinear']:7.2f} px{back:18d} px; {(s - 1) / 2}")

# %% [markdown]
# Half a step draws a rim around everything. Part of what a network gains over "legacy" is the undoing of a shift; what matters is the tuned column.
#
# ## 3 The learning problem
#
# The network $G$ sees the infilled scan $x$. The truth is a recorded crop $I$ with noise of its own, $B$ blurs it, and
# $$ L=\mathrm{ALRC}\Big(\frac{200}{p(c)}\,\big\langle(G(x)-B\,I)^2\big\rangle\Big),\qquad
# p(c)=\frac{0.002211-0.037887\,c+0.289451\,c^2}{\text{its mean over }s=4\dots10}. $$
#
# * **Blurred targets.** The noise of a pixel that was not probed cannot be predicted; its variance adds to the loss, so that noisy crops would rule the
#   gradients. A Gaussian of 5×5 pixels, $\sigma=2.5$, removes most of it, and with it fine detail: the network's images are *meant* to be smooth.
# * **Scales.** Targets are in $[-1,1]$, inputs in $[0,1]$. What does 1 mean? The network can know its *samples'* extremes only. The paper stretches targets
#   from the crop's own: even a perfect image on the scale of its samples is then charged with an error (below). So targets here are on the samples' scale, too.
# * **$p(c)$.** Divided by the error to be expected at its coverage, every step gets an equal say. The quadratic (Fig. 2) is a fit to five networks' errors.

# %%
impulse = np.float32(np.arange(31) == 15)
kernel = np.array(losses.blur((impulse[:, None] * impulse)[None, ..., None]))[0, ..., 0]
print(f"of the variance of white noise the blur leaves {(kernel**2).sum():.1%}, of its deviation {(kernel**2).sum() ** 0.5:.0%}")
for s in (4, 7, 10):
    pairs = [(blurred(unit(crop)), sampling.scan(unit(crop), s)) for crop in crops]
    off = np.mean([mse((whole - seen.min()) / np.ptp(seen), whole) for whole, seen in pairs]) ** 0.5
    print(f"step {s:2d}: samples span {np.mean([np.ptp(seen) for _, seen in pairs]):.0%} of a crop's range; a perfect image: root MSE {off:.4f}")
axes, known = plt.subplots(1, 2, figsize=(11, 2.6))[1], np.arange(3, 13)
expected = sampling.MEAN_SQUARED_ERROR * np.array(sampling.coverage_p(known))
axes[0].plot(1 / known**2, expected, "k.-", label="quadratic, steps 3 to 12")
for s in (4, 5, 7, 10):
    axes[0].annotate(f"   s = {s}, p = {float(sampling.coverage_p(s)):.2f}", (s**-2.0, expected[s - 3]), va="center", fontsize=8)
for name, row in (("individual networks", evaluate.TABLE_2["individual"]), ("unified network", evaluate.TABLE_2["unified"])):
    axes[0].plot([1 / s**2 for s in row], [root**2 for root, _ in row.values()], "x", label=f"Table 2, {name}")
axes[1].plot(np.fft.rfftfreq(31), np.abs(np.fft.rfft(kernel.sum(0))), "k.-", label="5 x 5, 2.5 px")
show_curves(axes, "expected MSE; coverage c", "transfer of the blur; cycles per pixel, dotted: limits of scans", limits=axes[1:])

# %% [markdown]
# At the limit of step 4 the target still has half of its amplitude: what lies to the right of the dotted lines, the network can only guess. And beware of
# extrapolations: by the quadratic, step 3 (the last dot) would be harder than step 7.
#
# ## 4 The network
#
# The **inner** stage works at half size, halves it four times more, thinks in residual blocks, and doubles it back to features $F$. The **outer** one sees the
# whole image, adds $F$ at half size, and draws. In training a small head draws a half-size image from $F$ alone: its loss is a short way for gradients into the
# inner stage, which has 99.6 % of the paper's parameters. All convolutions are weight-normalised, and lose their channel's mean:
# $$ y=W*x-\mu+b,\qquad W=g\,V/\lVert V\rVert,\qquad \mu\leftarrow0.99\,\mu+0.01\,\langle W*x\rangle . $$
# With one image per batch, that image's own mean would be no guide to the next, and tiles of one scan would differ: so $\mu$ is a running mean. No gradient
# passes through it; followed for half of the training, as the paper has it, it diverged here, so it is frozen after 100 steps. **Initialisation:** one image of
# noise passes through, and every $g$ is set such that responses have variance 1. Below: variances before and after, for noise and for a micrograph.

# %%
for name, c in {name: getattr(Config, name)() for name in ("paper", "small", "tiny")}.items():
    parts = [sum(np.prod(v.shape) for v in build(c).trainable_variables) for build in (generator.build_inner, generator.build_outer, generator.build_head)]
    print(f"{name:6s}inner {parts[0]:11,d}   outer {parts[1]:7,d}   head {parts[2]:6,d}   sees {generator.receptive_radius(c)} pixels around   {c.inner}")
inputs = {"noise": keras.random.uniform((1, 256, 256, 1), -generator.NOISE, generator.NOISE), "micrograph": sampling.sparse_input(crops[0][None, ..., None], 5)}
axes = plt.subplots(1, 2, figsize=(11, 2.5), sharey=True)[1]
for when, style in (("before", ".--"), ("after", ".-")):
    keras.utils.set_random_seed(0)
    trained = generator.build_trained(replace(Config.small(), precision="float32", data_initialisation=when == "after"))[0]
    for axis, stage in zip(axes, (trained.get_layer("inner"), trained.get_layer("outer"))):
        convolutions = keras.Model(stage.inputs, [layer.output for layer in stage.layers if hasattr(layer, "gain")])
        for colour, (name, image) in zip(("C0", "C3"), inputs.items()):
            responses = convolutions(image if stage.name == "inner" else [image, trained.get_layer("inner")(image)])
            axis.semilogy([np.var(response, (0, 1, 2)).mean() for response in responses], style, color=colour, label=f"{name}, {when}")
show_curves(axes, "variance of responses, inner stage; convolution", "outer stage; convolution")

# %% [markdown]
# A micrograph is no noise: its neighbours are alike, and add up where noise cancels. So the first steps are violent, and something must keep a hand on them.
# ## 5 The learning policy
#
# With one example per step the loss jumps by orders of magnitude. **Adaptive learning rate clipping** (ALRC) follows the first two moments of the losses, and
# scales what lies beyond $\mu_1+3\sigma$ down to that limit by a factor that counts as a constant: the gradient shrinks, while the limit itself in the loss's
# place would have none. Second picture: one number $w$ learns the middle, 1, of heavy-tailed data. **Experience replay** shows hard examples again: 50 slots,
# and a threshold steered such that the worst fifth passes it. Here an example's error is its difficulty times a level that falls, as in training.

# %%
values, clip = tf.linspace(1.0, 300.0, 300), alrc.ALRC()
with tf.GradientTape() as tape:
    tape.watch(values)
    clipped = clip(values)
axes = plt.subplots(1, 4, figsize=(15, 2.8))[1]
axes[0].plot(values, clipped, "k", label="clipped loss")
axes[0].plot(values, 100 * tape.gradient(clipped, values), "C1", label="gradient, % of the unclipped one")
for name, clip in {"as it is": lambda loss: loss, "ALRC": alrc.ALRC()}.items():
    w, path = tf.Variable(0.0), []
    for answer in np.float32(1 + 0.15 * np.random.default_rng(1).standard_t(1.2, 1000)):
        with tf.GradientTape() as tape:
            loss = clip(200 * (w - answer) ** 2)
        w.assign_sub(1e-4 * tape.gradient(loss, w))
        path.append(float(w))
    axes[1].plot(path, label=name)
hard = np.float32(np.random.default_rng(2).lognormal(0, 0.6, 2050))
buffer = replay.Replay(replace(Config.tiny(), replay_slots=50), [(np.full((1, 1, 1), d), np.zeros(1)) for d in hard[:50]])
keep, found, controlled = tf.function(buffer.keep), [], []
for k, difficulty in enumerate(hard[50:]):
    found.append(difficulty * np.float32(1 + 4 * np.exp(-k / 500)))
    keep(tf.fill((1, 1, 1, 1), difficulty), tf.zeros((1, 1)), tf.constant(found[-1:]), tf.constant([False]), tf.constant(k, tf.int64))
    controlled.append((buffer.threshold.numpy(), 10 * buffer.stored.numpy()))
axes[2].plot(found, ".", color="0.7", ms=2, label="errors")
axes[2].plot(controlled, label=("threshold", "10 x share that passes"))
axes[2].set_ylim(-1, 15)
axes[3].hist([hard, buffer.crops.numpy().ravel()], np.arange(0, 6, 0.4), density=True, label=("all", "in the buffer"))
show_curves(axes, r"$\mu_1=25$, $\mu_2=900$: limit 74.7; loss", "w from 200 (w - data)²; step", "replay: the controller; step", "replay: examples; difficulty")

# %% [markdown]
# ## 6 Training
#
# One step of the package, as it is. `kind` is "tracking" while means are followed, then "supervised"; after two plateaus it would be "adversarial", where three
# discriminators ask for realistic noise (for that idea see the lesson `sem_gan`). A tiny network, on smaller crops:

# %%
print(inspect.getsource(train.DLSS.train_step))
config = replace(Config.tiny(), target_range="samples", side=128, steps=1000, plateau=500, tracked=50, batch=2, learning_rate=2e-3, crops=32, replay_slots=20)
keras.utils.set_random_seed(1)
source, history, checks = data.SimulatedCrops(config, "train"), [], {}
examples, prefill = (data.Examples(config, source, stream) for stream in ("train", "prefill"))
trainer = train.DLSS(config, [prefill(k) for k in range(config.replay_slots)])
tiny = comparisons.Supersampler(config, tf.function(lambda images: trainer.networks["final"](images, training=False), reduce_retracing=True), None)
held_out = list(zip(comparisons.simulated("val", 1, 128, 14), 2 * config.scan_steps))
train_step = tf.function(trainer.train_step)
for step, batch in zip(range(1, config.steps + 1), batches(examples, examples.shapes, config.batch)):
    history.append({term: float(value) for term, value in train_step(batch, trainer.kind(step)).items()})
    if step in (10, 20, 50) or step % 100 == 0:
        checks[step] = np.mean([mse(unit(tiny(crop, s)), blurred(unit(crop))) for crop, s in held_out]) ** 0.5
axes = plt.subplots(1, 2, figsize=(11, 2.8))[1]
for term, style in (("L_out_raw", "0.7"), ("L_out", "k."), ("mu_1", "C1")):
    axes[0].loglog([row[term] for row in history], style, ms=2, label=term)
axes[1].loglog(checks.keys(), checks.values(), "k.-", label="tiny network")
for style, name in (("C0--", "legacy bilinear"), ("C0", "aligned bilinear"), ("C2", "aligned bicubic + Gaussian")):
    errors = [comparisons.classical(unit(crop), s, {"bilinear": 0, "bicubic": baselines.usual_sigma(s)})[name] for crop, s in held_out]
    axes[1].plot([1, config.steps], 2 * [np.mean(errors) ** 0.5], style, label=name)
show_curves(axes, r"loss before and after clipping, and $\mu_1$; step", "root MSE of held-out crops; step")

# %% [markdown]
# The first losses are far above the later ones, and do no harm: clipping. Brightness comes first, then shapes, then a feeling for noise; texture takes long.
#
# ## 7 Evaluation
#
# The eight crops of section 2, by the shipped network `small` if it is there, else by the tiny one. The rival: the best of four tuned interpolations.

# %%
shipped = (weights_folder(PAPER) / "small.weights.h5").is_file()
model, known = load_network(PAPER, "small") if shipped else (trainer.networks["final"], config)
network = comparisons.Supersampler.load("small") if shipped else tiny
measured = comparisons.measure(network, crops, steps, sigmas)
print(f"{'root MSE':30s}" + "".join(f"{f'step {s}' + '*' * (s not in known.scan_steps):>10s}" for s in steps) + "      * not trained")
print(f"{'paper, unified (other crops)':30s}" + "".join(f"{evaluate.TABLE_2['unified'].get(s, (np.nan,))[0]:10.4f}" for s in steps))
for name in ("legacy bilinear", "aligned bilinear", "best tuned interpolation", NETWORK):
    found = [measured.root(s, measured.best(s) if name.startswith("best") else name) for s in steps]
    print(f"{name + (' (small)' if shipped else ' (tiny)') * (name == NETWORK):30s}" + "".join(f"{error:10.4f}" for error in found))
for s in (4, 10):
    ours, theirs = measured.errors[s][NETWORK], measured.errors[s][measured.best(s)]
    low, high = np.sqrt(ratio_interval(ours, theirs))
    print(f"step {s}: network / best tuned {np.sqrt(ours.mean() / theirs.mean()):.3f} ({low:.3f} .. {high:.3f}), {np.mean(ours > theirs):.0%} made worse")
views = {s: comparisons.pictures(network, crops[k], s, measured.best(s), sigmas[s]) for s, k in ((5, 3), (10, 7))}
show(*({f"{name.removesuffix(' + Gaussian')}, step {s}": i[64:192, 64:192] for name, i in row.items()} for s, row in views.items()), size=2.4)
axes = plt.subplots(1, 2, figsize=(11, 2.6))[1]
for name, image in views[5].items():
    axes[0].semilogy(*comparisons.amplitudes(image), label=name)
axes[0].set_ylim(0.1, None)
for s in (4, 10):
    axes[1].plot(np.arange(1, 41), comparisons.edge_curves(np.sqrt(measured.squared[s] / len(crops)))[0][:40], label=f"network, step {s}")
show_curves(axes, "amplitude, step 5; cycles per pixel, dotted: limits of scans", "root MSE; pixels from the edge", limits=axes[:1])

# %% [markdown]
# Left of its limit the output should follow the target; right of it, smooth is the honest guess. Near an edge a pixel has fewer samples around it.
#
# ## 8 Make it fail
#
# New scans with step 5, by the way that users go (`restore_array`: raw intensities in and out). Lattices of 14 and of 7 pixels, turned by 10°; the limit is 10.
# A star, whose spokes come closer than the limit within 38 pixels of its centre; no specimen in training looks like it. A field of noise. One hot sample.

# %%
(rows, columns), turn = np.mgrid[-120:120, -120:120], np.deg2rad(10)
u, v = columns * np.cos(turn) + rows * np.sin(turn), rows * np.cos(turn) - columns * np.sin(turn)
lattices = [0.5 + 0.2 * (np.cos(2 * np.pi * u / period) + np.cos(2 * np.pi * v / period)) for period in (14, 7)]
specimens = dict(zip(("lattice, 14 px", "lattice, 7 px"), lattices)) | {"star": 0.5 + 0.4 * np.sin(24 * np.arctan2(rows, columns))}
specimens |= {"noise": np.full((240, 240), 0.5), "hot sample": truth[:240, :240]}
restored = lambda scan: restore_array(scan, PAPER.scaled(5, known), model, known)  # noqa: E731
panels, away = [{}, {}, {}], np.hypot(rows - 2, columns - 2) > 40  # of the hot sample
frequency = np.maximum(np.hypot(np.fft.fftfreq(240)[:, None], np.fft.rfftfreq(240)), 1 / 240)
for name, specimen in specimens.items():
    scan = data.recorded(specimen, 60 if name == "noise" else 1000, 0.01, rng)[2::5, 2::5]
    if name == "hot sample":
        scan[24, 24] = 8
    images = {"truth": blurred(specimen), "interpolated": baselines.aligned_whole(scan, 5, "bicubic", sigmas[5]["bicubic"]), "network": restored(scan)}
    for row, (view, image) in zip(panels, images.items()):
        row[f"{name}: {view}"] = 0.5 + 4 * (image - 0.5) if name == "noise" else image
    periods = [f"{1 / frequency.flat[np.abs(np.fft.rfft2(image - image.mean())).argmax()]:.1f}" for image in images.values()]
    errors = {view: f"{mse(*(i[away | (name != 'hot sample')] for i in (image, images['truth']))) ** 0.5:.4f}" for view, image in images.items()}
    print(f"{name:15s}root MSE: network {errors['network']}, interpolated {errors['interpolated']}; strongest periods in each row: {', '.join(periods)} px")
show(*panels, size=2)

# %% [markdown]
# A lattice that is not there, turned and twice as coarse: no loss and no larger network helps, for nothing can tell specimens apart that give the same scan.
# Noise, stretched to the full range, may look like a specimen. A hot sample no longer sets the scale. **To take home:** (1) align and tune the
# classical method before you beat it; (2) ask what a network is told and its rival is not, and the reverse; (3) keep the step below half of the finest period.
#
# ## 9 Exercises
#
# 1. (easy) 2048×2048 pixels of 0.1 Å, 2 µs, 30 pA: time, dose and finest period for $s=8$? What does a flyback of 100 µs per line do to it? *Hint:* section 1.
# 2. (easy) Which periods does a step of 7 show as 28 pixels? *Hint:* $|f-k/7|=1/28$; the first figure.
# 3. (medium) Show that beyond the limit ALRC's gradient of $200\,r^2$ falls as $1/r$. When is an outlier the example to learn from? *Hint:* factor times slope.
# 4. (medium) Record *every* pixel of the five specimens with a 25th of the dose; tune a Gaussian. Against the sparse scan, who wins, where? *Hint:* `recorded`.
# 5. (medium) Repair the hot sample: compare every sample with the median of its neighbours. What does it do to an atomic column? *Hint:* `cv2.medianBlur`.
# 6. (medium) `restore_array(..., return_trust=True)` also maps doubt. In which cases of section 8 does it warn, where can it not? *Hint:* it has only the scan.
# 7. (hard) Train on samples at *random* places, infilled by the nearest. What becomes of the false lattice? *Hint:* aliases turn into noise; `scipy.ndimage`.
