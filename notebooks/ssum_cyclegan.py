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
# # SSUM CycleGAN: what a glass bead saw, in the look of an electron microscope
#
# *A lesson on H. Sun et al., "Deep learning-driven conversion of scanning superlens microscopy to high depth-of-field SEM-like imaging", Microsystems &
# Nanoengineering (2025).*
#
# **The problem.** A microsphere that is scanned over a chip shows, in air and with white light, lines of 80 nm; an SEM shows more, but wants a vacuum. Can a
# network give the optical image the look of the SEM's? **What the paper claims.** A CycleGAN, trained on 704 pairs of one kind of chip, brings its images 1.64
# dB nearer to the SEM's than the optical ones are.
#
# **What you will do here:** see one chip through both microscopes; stitch and register; take generator, discriminator and losses apart; see why pairs that are
# a few pixels off forbid the simplest loss; train a tiny network; measure it, also in nanometres; make it lie; solve exercises (answers at the end). The
# paper's images are not public: the chips here are simulated, so the truth is known. What the text leaves open is decided in `paper_ssum_cyclegan/README.md`.
#
# **For the teacher.** About three hours of class. Sections 1 and 2 (resolution, registration) need no network; 3 to 7 need the idea of gradient descent; 8 and
# 9 are about evidence, also for those who only *use* such networks. The whole notebook runs in a few minutes without a GPU.

# %%
import os
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TQDM_DISABLE": "1"}
try:
    import paper_ssum_cyclegan  # noqa: F401
except ModuleNotFoundError:  # the kernel runs in notebooks/
    sys.path.insert(0, str(Path.cwd().parent))

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib_inline.backend_inline import set_matplotlib_formats
from scipy.special import erf, expit

stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)  # TensorFlow's greetings
import keras
import tensorflow as tf

os.dup2(stderr, 2)
tf.get_logger().setLevel("ERROR")

from common.data import batches
from common.restoring import weights_folder
from paper_ssum_cyclegan import (
    PAPER,
    Config,
    data,
    discriminator,
    evaluate,
    generator,
    layouts,
    losses,
    measures,
    metrology,
    registration,
    simulator,
)
from paper_ssum_cyclegan.parts import DepthToSpace, EqualPhases
from paper_ssum_cyclegan.stitching import blend, stitch
from paper_ssum_cyclegan.train import SSUMCycleGAN

set_matplotlib_formats("jpeg", pil_kwargs={"quality": 88})
plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 9, "image.cmap": "gray", "figure.constrained_layout.use": True})


def show(*rows, size=2.2, stretch=False):
    """Each row: a dict of title -> image; 0 is black and 1 white, unless stretched. Differences are signed: red is too bright, blue too dark."""
    _, axes = plt.subplots(len(rows), len(rows[0]), figsize=(size * len(rows[0]), (size + 0.3) * len(rows)), squeeze=False)
    for axis, (title, image) in zip(axes.flat, (item for row in rows for item in row.items())):
        scale = {} if stretch else {"vmin": 0, "vmax": 1}
        axis.imshow(image, interpolation="nearest", **({"cmap": "RdBu_r", "vmin": -0.5, "vmax": 0.5} if "difference" in title else scale))
        axis.set(title=title, xticks=[], yticks=[])
    plt.show()


def tensor(image):
    return tf.constant(np.float32(image)[None, ..., None])


rng, NM = np.random.default_rng(0), 20.0  # nm per pixel, throughout

# %% [markdown]
# ## 1 Two microscopes, one chip
#
# **The superlens.** A bead of refractive index $n$ that touches the chip is an immersion lens made of solid: light is shorter in it, so two lines are told
# apart down to about $\lambda/2n$: 145 nm for $\lambda=550$ nm, $n=1.9$, instead of 275 nm in air; the paper sees features of 80 nm. A Gaussian point spread of
# full width $w$ at half height has $\sigma=w/2.355$, and of a grating of period $p$ it leaves the contrast $C/C_0=e^{-2(\pi\sigma/p)^2}$. What it shows is
# *reflectance*: metal against glass, either of them brighter. **The SEM** counts secondary electrons. Its probe is finer than a pixel here; an edge shines, for
# electrons escape to two sides, and a narrow trench is dark, for they do not. So the same layout must be *told in another language*, after a blurred reading.

# %%
print("point spread       sigma       contrast left at a period of" + "".join(f"{period:7d} nm" for period in (128, 160, 240, 400)))
for width in (80, 110, 145):
    sigma = width / simulator.FWHM_PER_SIGMA
    left = "".join(f"{np.exp(-2 * (np.pi * sigma / period) ** 2):10.3f}" for period in (128, 160, 240, 400))
    print(f"{width:6d} nm    {sigma:5.1f} nm = {sigma / NM:.2f} px {'':24s}{left}")
views = [simulator.simulate_pair((3, k)) for k in range(5)]
optical = {f"superlens, {view.parameters['optical']['fwhm']:.0f} nm": view.optical[:160, :160] for view in views}
show(optical, {f"SEM of chip {k}": view.sem[:160, :160] for k, view in enumerate(views)})

# %% [markdown]
# A pixel of 20 nm is *finer* than anything that the superlens resolves: neighbours tell the same twice, so noise can be averaged away, and a smaller pixel
# would add nothing. And an edge, one step in the layout, is a soft step in one image and a bright line in the other.
#
# ## 2 From frames to pairs
#
# The bead sees a small field; it is scanned, and frames overlap. The stage says roughly where each lies. **Stitching** correlates all overlaps, rejects those
# that tell nothing (a bare place) or too much (a grating fits everywhere), and finds all places by least squares. The SEM's image has pixels and an angle of
# its own: **registration** finds the affine map from *landmarks* picked by hand, as in the paper. With a picking error $\sigma$ per coordinate, and three
# numbers per coordinate to be found from $n$ landmarks, the map is off by $\sigma\sqrt{3/n}$ (root mean square, at the landmarks).

# %%
chip = simulator.simulate_pair((1, 2), (400, 400))
log = 112.0 * np.argwhere(np.ones((3, 3))) + 16  # what the stage says: row and column of each frame's corner
true, clean = log + rng.normal(0, 4, log.shape), cv2.GaussianBlur(chip.optical, (0, 0), 1.0)
cut = partial(cv2.warpAffine, dsize=(144, 144), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT)
frames = [cut(clean, np.float32([[1, 0, column], [0, 1, row]])) + 0.01 * rng.standard_normal((144, 144), np.float32) for row, column in true]
mosaic = stitch(frames, log)
for name, misfit in {"stage log": log - true, "stitched": mosaic.places - true}.items():
    print(f"{name:10s} places off by {(misfit - misfit.mean(0)).std():.2f} px in each coordinate")
print("overlaps:", dict(Counter(link.reason or "accepted" for link in mosaic.links)))
turn = np.deg2rad(2)  # the SEM's pixels are 1.6 times smaller, and its image lies askew
linear = 1.6 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
to_sem = np.column_stack([linear, 279.5 - linear @ np.full(2, 199.5)])  # from the chip to the SEM image
sem = registration.warped(chip.sem, registration.inverse(to_sem), (560, 560))
truth = registration.composed(to_sem, np.column_stack([np.eye(2), -(mosaic.places - true).mean(0)]))  # from the mosaic to the SEM image
off = lambda matrix, points: np.mean((points @ (matrix - truth)[:, :2].T + (matrix - truth)[:, 2]) ** 2) ** 0.5  # noqa: E731
for k in (2, 3, 4, 6):
    marks, found = np.argwhere(np.ones((k, k))) / (k - 1) * (np.array(mosaic.image.shape) - 1), []
    for _ in range(100):
        by_hand = registration.landmark_affine(marks, marks @ truth[:, :2].T + truth[:, 2] + rng.normal(0, 3, marks.shape))[0]
        found.append(off(by_hand, marks) ** 2)
    print(f"{k * k:3d} landmarks, picked to 3 SEM pixels: map off by {np.mean(found) ** 0.5:.2f} px, by the formula {3 * np.sqrt(3 / k**2):.2f} px")
refined = registration.refine(mosaic.image, sem, by_hand, mosaic.weight > 0)
print(f"the last of these: {off(by_hand, marks):.2f} px; refined by the correlation of edges: {off(refined, marks):.2f} px")
both = registration.resample(mosaic.image, sem, refined, NM, NM / 1.6, mosaic.weight > 0)
by_log = blend(frames, log, np.ones(9))[0]
show({"stage log alone": by_log, "stitched": mosaic.image, "SEM, as it came": sem, "SEM on the mosaic's grid": both.sem}, size=2.9)

# %% [markdown]
# Some pixels of misfit are normal in pairs that were aligned by hand. Section 6 shows what they do to a loss.
#
# ## 3 The generator
#
# The text calls for residual blocks with 3×3 convolutions of 64 maps, for images of 256×256 pixels, and for **two sub-pixel convolutions**, each of which
# doubles both sides. Output and target have 256×256 pixels, too. So two **halvings** must lie *inside* the network, or it would give 1024×1024. They are worth
# it: a block at a quarter of the size costs a sixteenth, and each of its convolutions reaches four pixels further instead of one.

# %%
trained = lambda layer: sum(np.prod(v.shape) for v in layer.trainable_variables)  # noqa: E731
for name in ("paper", "reference", "small", "tiny"):
    config = getattr(Config, name)()
    radius = generator.receptive_radius(config)
    reach = f"sees {radius} px = {radius * NM / 1000:.1f} µm around it" if radius else "sees the whole image, through instance normalisation"
    print(f"{name:10s}{trained(generator.build_generator(config)):11,d} parameters; a pixel {reach}")
network, table = generator.build_generator(Config.paper()), {}
convolutions = [layer for layer in network.layers if hasattr(layer, "kernel")]
outputs = keras.Model(network.input, [layer.output for layer in convolutions])(np.zeros((1, 256, 256, 1), np.float32))
part = lambda layer: "nine blocks" if layer.name.startswith("block") else layer.name.split("_")[0]  # noqa: E731
for layer, output in zip(convolutions, outputs):
    row = table.setdefault(part(layer), [layer.kernel.shape, output.shape[1], sum(trained(each) for each in network.layers if part(each) == part(layer)), 0])
    row[3] += np.prod(layer.kernel.shape) * output.shape[1] ** 2 / 1e9
print("\nlayer         convolution               at     parameters   10⁹ multiplications")
for name, (kernel, side, parameters, operations) in table.items():
    print(f"{name:14s}{'{} x {}, {:3d} -> {:3d}'.format(*kernel):22s}{side:6d}{parameters:15,d}{operations:12.2f}")
print(f"{'together':42s}{trained(network):15,d}{sum(row[3] for row in table.values()):12.2f}; blocks at full size: {16 * table['nine blocks'][3]:.0f}")

# %% [markdown]
# A **sub-pixel convolution** makes four maps for every one that is wanted, and deals them out as the four pixels of a 2×2 square. If its four kernels start
# unrelated, every square has the same pattern: a **checkerboard**, there before any training. It is avoided if the four start *equal* (ICNR). Transposed
# convolutions, as in CycleGAN's own network, have one as well: with 3×3 kernels and stride 2, pixels get one, two or four taps in turn. Below, an image is
# doubled by each with random kernels; the number is the deviation of the four phases' means, over that of all pixels.

# %%
keras.utils.set_random_seed(4)
image, starts = tensor(cv2.GaussianBlur(views[1].optical[:64, :64], (0, 0), 1.0)), keras.initializers.RandomNormal(stddev=0.02)
doublings = {"transposed convolution": [keras.layers.Conv2DTranspose(1, 3, 2, padding="same", kernel_initializer=starts)]}
for name, start in {"four unrelated kernels": starts, "four equal kernels": EqualPhases(stddev=0.02)}.items():
    doublings[name] = [keras.layers.Conv2D(4, 3, padding="same", kernel_initializer=start), DepthToSpace()]
panels = {"image": np.array(image)[0, 8:40, 8:40, 0]}
for name, steps in doublings.items():
    doubled = np.array(keras.Sequential(steps)(image))[0, 16:80, 16:80, 0]
    panels[f"{name}: {np.std([doubled[a::2, b::2].mean() for a in (0, 1) for b in (0, 1)]) / doubled.std():.2f}"] = doubled
show(panels, size=2.9, stretch=True)

# %% [markdown]
# ## 4 The discriminator
#
# A **PatchGAN** gives a *map* of logits, each of which judges one patch. How large is a patch? From the output backwards, $r\leftarrow(r-1)s+k$ with stride $s$
# and kernel $k=4$. The text says 70×70, and also that *the first four* of the five layers have stride 2. Both cannot be: that makes 94. CycleGAN's code has
# stride 1 in the fourth layer, and so has this project (`literal_strides=True` is the other reading). A patch can be *measured*, by the gradient of one logit
# with respect to the image. Instance normalisation blurs it: it divides by a deviation over the whole map, so every pixel has a little influence everywhere.

# %%
keras.utils.set_random_seed(5)
panels, noise = {}, tensor(rng.uniform(-1, 1, (256, 256)))
without = lambda layer: keras.layers.Activation("linear") if layer.name.startswith("norm") else layer.__class__.from_config(layer.get_config())  # noqa: E731
for literal in (False, True):
    config = replace(Config.paper(), literal_strides=literal)
    strides, judge, fields = discriminator.strides(config), discriminator.build_discriminator(config), [1]
    for stride in reversed(strides):
        fields.append((fields[-1] - 1) * stride + 4)
    side = judge(noise).shape[1]
    print(f"strides {strides}: {fields[1:]} px, {fields[-1] * NM / 1000:.2f} µm; {judge.count_params():,d} parameters, {side} x {side} logits")
    narrow = discriminator.build_discriminator(replace(config, discriminator_base=8))
    for name, network in {"as it is": narrow, "not normalised": keras.models.clone_model(narrow, clone_function=without)}.items():
        with tf.GradientTape() as tape:
            tape.watch(noise)
            logit = network(noise)[0, side // 2, side // 2, 0]
        influence = np.abs(np.array(tape.gradient(logit, noise))[0, ..., 0])
        title = f"{'literal' if literal else 'default'}, {name}: {influence.any(1).sum()} x {influence.any(0).sum()} px"
        panels[title] = np.log10(influence[64:192, 64:192] / influence.max() + 1e-7)
show(panels, size=2.9, stretch=True)

# %% [markdown]
# ## 5 The losses
#
# Let $x$ be an optical and $y$ an SEM image, $G:x\to y$ and $F:y\to x$ the two generators, $D_Y$ and $D_X$ their discriminators:
# $$ V(D_Y,G)=\mathrm E\log D_Y(y)+\mathrm E\log\big(1-D_Y(G(x))\big)\quad(1),\qquad
# L_{cyc}=\mathrm E\,\lvert F(G(x))-x\rvert+\mathrm E\,\lvert G(F(y))-y\rvert\quad(2). $$
# $D_Y$ makes (1) large, $G$ makes it small; likewise $D_X$ and $F$; both generators together also minimise $10\,L_{cyc}$. Where $D$ is sure, the second term of
# (1) leaves $G$ no slope, so one takes $-\log D(G(x))$: the same goal, steep where it is needed. And $D$ soon forgets old tricks of $G$, so it is shown, half
# of the time, something from a **pool** of 50 former outputs.

# %%
real, fake = np.float32([2.0, 0.5, 1.0]), np.float32([-1.0, 0.3, -2.0])  # logits of three patches each
value = np.log(expit(real)).mean() + np.log(1 - expit(fake)).mean()
print(f"-V / 2 = {-value / 2:.4f}, by the code {losses.discriminator(tf.constant(real), tf.constant(fake)):.4f}; ", end="")
print(f"-mean log D(fake) = {-np.log(expit(fake)).mean():.4f}, by the code {losses.adversarial(tf.constant(fake)):.4f}")
keras.utils.set_random_seed(6)
probe = SSUMCycleGAN(replace(Config.tiny(), side=32, dropout=0.0, batch=1))
net, (x, y) = probe.networks, (tensor(2 * image[:32, :32] - 1) for image in (views[0].optical, views[0].sem))
with tf.GradientTape(persistent=True) as tape:
    fake_y, fake_x = net["G"](x, training=True), net["F"](y, training=True)
    terms = {"D_Y judges G(x)": losses.adversarial(net["D_Y"](fake_y)), "D_X judges F(y)": losses.adversarial(net["D_X"](fake_x))}
    terms |= {"F(G(x)) - x": losses.l1(net["F"](fake_y, training=True), x), "G(F(y)) - y": losses.l1(net["G"](fake_x, training=True), y)}
for name, term in terms.items():
    sizes = [tf.linalg.global_norm([g for g in tape.gradient(term, net[k].trainable_variables) if g is not None] or [0.0]) for k in "GF"]
    print(f"gradient of {name:15s} in G {sizes[0]:8.4f}, in F {sizes[1]:8.4f}")
ages = []
for step in range(1000):
    ages.append(step - float(probe.from_pool("Y", tf.fill((1, 32, 32, 1), float(step)))[0, 0, 0, 0]))
    probe.state["steps"].assign_add(1)
print(f"from step 50 on, {np.mean(np.array(ages[50:]) > 0):.0%} of what D sees is from the pool, {np.mean([a for a in ages if a]):.0f} steps old on average")
x, y = 2 * views[1].optical - 1, 2 * views[1].sem - 1
undone = {"do nothing": (lambda i: i, lambda i: i), "negative": (lambda i: -i, lambda i: -i)}
undone |= {"8 px to the right, and back": (lambda i: np.roll(i, 8, 1), lambda i: np.roll(i, -8, 1))}
for name, (g, f) in undone.items():
    print(f"G, F: {name:30s}eq. 2: {np.abs(f(g(x)) - x).mean() + np.abs(g(f(y)) - y).mean():.3f}   |G(x) - y|: {np.abs(g(x) - y).mean():.3f}")

# %% [markdown]
# Each discriminator teaches one generator, but *each cycle teaches both*. (Some popular examples stop half of these gradients.) And what does (2) *not* see?
# Anything that $F$ can undo. And (1) looks at patches: a displaced one is as good as any. So nothing in (1) and (2) asks that a bright line *here* stay bright,
# or stay here. That is the price of needing no pairs. But these authors *have* pairs.
#
# ## 6 Pairs that do not quite fit
#
# First row: **paired** patches, both cut at the same place. Second: **unpaired** ones. With pairs one could ask for a small $|G(x)-y|$. But pairs are off by
# $d$ pixels, another $d$ each time, which $G$ cannot know. The mean of $|g-y_d|$ over all $d$ is smallest for the *median* of all displaced images, pixel by
# pixel: a blur. So plain L1 *pays* for blur, whatever the network. A remedy, this project's and not the paper's, forgives one shift per patch:
# $\min_{\lvert s\rvert\le4}\lvert g-y(\cdot+s)\rvert$. It forgives one thing too many: where *everything* is displaced alike no patch notices, and a network
# trained so was 3 px off throughout. So it needs an anchor, a little L1 between means of 4×4 pixels.

# %%
config = replace(Config.tiny(), pairs=24, side=64, width=16, trunk=24, blocks=3, dropout=0.0, discriminator_base=12, misalignment=3.0, shift_l1_weight=20.0,
                 lowres_l1_weight=5.0, steps=600, constant_steps=400, falling_steps=200, batch=4, learning_rate=1e-3, ema_decay=0.97,
                 validation_pairs=4)  # fmt: skip
(pairs, held_out), rows = data.training_pairs(config, None), []
for paired in (True, False):
    patches = data.Patches(replace(config, paired=paired, shift_l1_weight=0.0, lowres_l1_weight=0.0), pairs)
    drawn = [(f"{'pair' if paired else 'draw'} {k}, {name}", image) for k in (0, 1, 3) for name, image in zip(("optical", "SEM"), patches(k))]
    rows.append({title: (image[..., 0] + 1) / 2 for title, image in drawn})
show(*rows, size=1.8)
chip, shifts = simulator.simulate_pair((7, 0), (160, 160)), [(a, b) for a in range(-3, 4) for b in range(-3, 4)]
sharp, blurred = chip.sem_clean, np.median([np.roll(chip.sem_clean, d, (0, 1)) for d in shifts], axis=0)
print("mean loss over all displacements of the recorded image by up to 3 px")
for name, loss in {"plain L1": losses.l1, "best-shift L1": partial(losses.shift_l1, shift=4), "L1 of 4 x 4 means": losses.lowres_l1}.items():
    means = [np.mean([float(loss(tensor(g), tensor(np.roll(chip.sem, d, (0, 1))))) for d in shifts]) for g in (sharp, blurred)]
    print(f"  {name:20s} true image {means[0]:.4f}, blurred one {means[1]:.4f}: {'the true one' if means[0] < means[1] else 'the blur'} wins")
show({"true": sharp, "recorded, 3 px off": np.roll(chip.sem, 3, 1), "best answer to plain L1": blurred}, size=2.6)

# %% [markdown]
# Means of 4×4 pixels alone forgive too little. The best shift would not forgive a bend within a patch; there a second network can learn to register
# (`registration_weight`).
#
# ## 7 Training
#
# One step: both generators together, then both discriminators on what the pool gives. A tiny network on patches of 1.3 µm, with pairs up to 3 px off, by (1),
# (2), the best-shift loss and its anchor. Held-out gain: PSNR above that of the optical image, both after the best shift and the best grey scale (section 8).

# %%
keras.utils.set_random_seed(1)
patches, trainer, history, checks, stages = data.Patches(config, pairs), SSUMCycleGAN(config), [], {}, {}
tiny, crops = evaluate.Restorer(trainer.networks["final"]), [tuple(image[:160, :160] for image in held_out[k]) for k in range(len(held_out))]
train_step = tf.function(trainer.train_step)
for step, batch in zip(range(1, config.steps + 1), batches(patches, patches.shapes, config.batch)):
    history.append({term: float(value) for term, value in train_step(batch, trainer.kind(step)).items()})
    if step in (10, 50) or step % 100 == 0:
        gains = [measures.scores(sem, tiny(optical))["psnr_aligned"] - measures.scores(sem, optical)["psnr_aligned"] for optical, sem in crops]
        checks[step], stages[f"step {step}"] = np.mean(gains), tiny(crops[0][0])
axes = plt.subplots(1, 3, figsize=(12, 2.6))[1]
for axis, names in zip(axes, (("cycle_x", "cycle_y", "shift_L1"), ("G_adv", "F_adv", "D_Y", "D_X"))):
    axis.plot(np.stack([np.convolve([row[name] for row in history], np.ones(10) / 10, "valid") for name in names], 1), label=names)
    axis.set(title="losses; step")
    axis.legend(fontsize=7)
axes[2].plot(list(checks), list(checks.values()), "k.-")
axes[2].set(title="held-out gain in PSNR, dB; step")
plt.show()
moved = np.mean([measures.best_shift(sem, tiny(optical)) for optical, sem in crops], axis=0)
print(f"what it draws lies {moved[0]:+.1f} rows, {moved[1]:+.1f} columns from the SEM image, on average over {len(crops)} pairs that are up to 3 px off")
show({"optical": crops[0][0]} | {name: stages[name] for name in ("step 10", "step 50", "step 200", "step 600")} | {"SEM": crops[0][1]}, size=2.1)

# %% [markdown]
# Usually grey levels and their sign come first, then rims, texture last if at all. The adversarial losses say little: $D$ at 0.69 tosses a coin, $D$ near 0 is
# never wrong; neither says whether the images are good. Hence held-out pairs.
#
# ## 8 Measuring
#
# An optical image with inverted contrast is off *everywhere* without one wrong edge, so a gain in raw **PSNR** may be nothing but grey scale. Hence three
# versions: as it is; after the best grey scale $ag+b$ ("fit"); after the best shift, too ("aligned"). **EPI** correlates Laplacians. The rivals: the optical
# image itself, and Wiener's filter with the best grey scale, tuned on other chips. By the shipped network `small` if it is there, else by the tiny one.

# %%
shipped = (weights_folder(PAPER) / "small.weights.h5").is_file()
restore = evaluate.Restorer.load("small")[0] if shipped else tiny
tuning, cases = (evaluate.simulated(config, stream, 0, count) for stream, count in (("tuning", 5), ("lesson", 4)))
filters = evaluate.Filters.tuned(tuning)
methods = {evaluate.OPTICAL: lambda image: image, evaluate.WIENER: filters, evaluate.NETWORK: restore}
converted = evaluate.convert(cases, methods)
found, shown = evaluate.measure(cases, converted), ("psnr", "psnr_fit", "psnr_aligned", "epi_aligned", "on edges", "elsewhere", "invented area", "lost area")
print(f"network: {'small' if shipped else 'tiny'}; Wiener: sigma {filters.numbers[0]} px, noise {filters.numbers[1]}")
print(f"{'':10s}" + "".join(f"{key:>14s}" for key in shown))
for name in methods:
    print(f"{name:10s}" + "".join(f"{found[key][name].mean():14.3f}" for key in shown))
rows = []
for case, images in zip(cases[:2], converted):
    images = {name: measures.affine_fit(case.sem, image) for name, image in images.items()}
    where = np.zeros_like(case.sem)
    judged = measures.invented(case.sem, images[evaluate.NETWORK]).where
    where[: judged.shape[0], : judged.shape[1]] = 0.4 * judged
    images |= {"SEM": case.sem, "difference network - SEM": images[evaluate.NETWORK] - case.sem, "difference: invented, lost": where}
    rows.append({name: image[100:292, 100:292] for name, image in images.items()})
show(*rows, size=2.2)
measured = methods | {evaluate.WIENER: filters.for_widths}  # another filter is best for widths
offsets = {name: evaluate.median(errors) for name, (errors, _) in evaluate.widths(tuning, evaluate.convert(tuning, measured)).items()}
print("line widths   offset, nm   median error   spread   found     pitch: median error")
for name, (errors, lines) in evaluate.widths(cases, evaluate.convert(cases, measured)).items():
    s = metrology.summary(errors - offsets[name], lines)
    print(f"{name:10s}{offsets[name][0]:12.1f}{s['width_median_error']:15.1f}{s['width_spread']:11.1f}{s['width_found']:9.0%}{s['pitch_median_error']:18.1f}")

# %% [markdown]
# What "fit" adds to "psnr" is grey scale. What the network has beyond the optical image it learned about *shape and look*. The truth here is the SEM image
# without its noise, which nobody can foretell. A tiny network may lose to the filter, or to the optical image itself: then that is the finding. The paper's
# largest errors lie on sharp edges: a rim that is half a pixel off is wrong twice. In the maps, red is invented, blue lost.
#
# **Nanometres.** Each kind of image needs an edge criterion of its own, whose offset, found on other chips, is taken off: the middle of a blurred flank, the
# crest of a rim. A network adds errors of its own; does it measure *better* than the optical image, all that it knows?
#
# ## 9 Make it lie
#
# Three lines have a break, of 60, 120 and 240 nm, which would ruin the chip. Blurred along the line, a break of length $b$ keeps the depth
# $\operatorname{erf}(b/2\sqrt2\sigma)$. Networks have seen line ends, but mostly lines that go on: does this one show the break? Each image is compared with
# that of a chip without breaks, in units of its own contrast; "nowhere" is what chance gives at an intact line. And a bare wafer: what is drawn on nothing?

# %%
breaks, intact, seen = {60: 1, 120: 3, 240: 5}, np.zeros((144, 144)), {}  # nm: number of the line
layouts.paint(intact, [(0, left, 144, left + 10) for left in range(12, 144, 20)])
broken = intact.copy()
layouts.paint(broken, [(72 - nm / NM / 2, 11 + 20 * k, 72 + nm / NM / 2, 23 + 20 * k) for nm, k in breaks.items()], erase=True)
for name, mask in {"broken": broken, "intact": intact, "bare": np.zeros_like(intact)}.items():
    layout = layouts.Layout(np.float32(cv2.GaussianBlur(mask, (0, 0), 0.7)), NM, np.empty((0, 5)))
    optical, _, drawn = simulator.image_by_superlens(layout, (4, 1))
    seen[name] = {method: convert(data.unit(optical)) for method, convert in methods.items()} | {"SEM": simulator.sem_view(layout, (4, 2))}
sigma = drawn["fwhm"] * drawn["relative_blur"].mean() / simulator.FWHM_PER_SIGMA
print("depth after the blur: " + ", ".join(f"{nm} nm: {erf(nm / sigma / 8**0.5):.2f}" for nm in breaks))
for name in seen["broken"]:
    change = np.abs(seen["broken"][name] - seen["intact"][name]) / seen["intact"][name].std()
    at = {where: change[62:82, 12 + 20 * k : 22 + 20 * k].mean() for where, k in ({f"{nm} nm": k for nm, k in breaks.items()} | {"nowhere": 2}).items()}
    print(f"response of {name:10s}" + ", ".join(f"{where}: {value:.2f}" for where, value in at.items()))
show(*({f"{name}, {which}": seen[name][which] for which in seen[name]} for name in ("broken", "bare")), size=2.3)

# %% [markdown]
# What the optical image hardly holds, a network cannot bring back: it decides, by habit, for a line or for a break, and a well-trained one draws either in full
# sharpness. *Sharp* images do not show which places were decided so. On the bare wafer, noise and fringes are stretched to full contrast before they are seen.
#
# **To take home:** (1) fit grey scale and shift before comparing, or you measure those; (2) cycle consistency says nothing about truth, pairs do; (3) pairs
# that are off need a loss that knows it; (4) converted images are for looking at: measure in recorded ones, or prove on known lines that you need not.
#
# ## 10 Exercises
#
# 1. (easy) Down to which period does a point spread of 110 nm leave 10 % of the contrast? *Hint:* solve the formula of section 1 for $p$.
# 2. (easy) Landmarks are picked to 2 px, the map must be good to 0.5 px. How many? What do more of them not repair? *Hint:* section 2.
# 3. (easy) By (1) as written, how hard is $G$ pushed where $D=0.01$? And by $-\log D$? *Hint:* slopes with respect to the logit.
# 4. (medium) How far does a pixel see with $B$ blocks, and how many parameters has a block of 256 channels? *Hint:* `generator.receptive_radius`.
# 5. (medium) Give $C_{256}$ stride 1 as well. How large is a patch? To what can the discriminator no longer object? *Hint:* the recursion of section 4.
# 6. (medium) Train with `shift_l1_weight=0`, the paper's own losses. What becomes of the gain, and of the contrast's sign? *Hint:* end of section 5.
# 7. (hard) Train with `shift=0`, which is plain L1 on these pairs, and with it on pairs without misalignment. Where does it show? *Hint:* look at rims.
# 8. (hard) Which is the shortest break that the network shows with certainty, over many seeds? *Hint:* intact lines tell what chance does.
#
# <details><summary><b>Answers</b></summary>
#
# 1. $p=\pi\sigma\sqrt{2/\ln10}=137$ nm, with $\sigma=46.7$ nm.
# 2. $n=3\,(2/0.5)^2=48$. What is not affine: drift, stitching errors, bends.
# 3. The slopes are $-D=-0.01$ and $-(1-D)=-0.99$: 99 times harder.
# 4. $4(2B+2)+14$ pixels to each side, 94 for nine blocks. $2\cdot9\cdot256^2=1{,}179{,}648$, and 1,024 for batch normalisation.
# 5. 4, 7, 10, 22, 46 pixels: 0.92 µm. To how lines further apart go together.
# 6. It depends on the seed. The gain is usually lower, and nothing holds the sign: the fit hides an inversion, "psnr" does not. `identity_weight` helps.
# 7. Rims should come out broader and fainter, towards the median of section 6; without misalignment both losses should agree.
# 8. The 99 % quantile, say, of the responses at intact lines is the threshold; a break is shown if nearly all seeds exceed it. Do the same with the optical
#    image: if the network wins, ask what it knows that the image does not hold.
#
# </details>
