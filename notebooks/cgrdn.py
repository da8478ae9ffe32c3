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
# # CGRDN: undoing what a microscope does to a single image
#
# *A lesson on I. Lobato, T. Friedrich and S. Van Aert, "Deep convolutional neural networks to restore single-shot electron microscopy images",
# npj Computational Materials 10 (2024).*
#
# **The problem.** One frame, taken quickly or at low dose: grains of counting noise, tracks of X-rays, rows that jump, streaks behind bright edges. Can a
# network give the image that was meant? **What the paper claims.** Networks that saw nothing but *simulated* distortions, over wide ranges, restore
# experimental TEM, STEM and SEM images, and keep positions and intensities of atomic columns.
#
# **What you will do here:** make the distortions one by one and recognise each by its statistics; put them together; see what the network can see, and what
# each of its losses punishes; train a tiny one; measure it against tuned filters; try to make it lie; solve exercises. The paper's own ranges are not public:
# what is used here, and why, is in `paper_cgrdn/README.md`.
#
# **For the teacher.** About three hours of class. Sections 1 to 3 (noise, scanning, chains) need no network; 4 to 6 need the idea of gradient descent; 7 and 8
# are about evidence. The whole notebook runs in a few minutes without a GPU.

# %%
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TQDM_DISABLE": "1"}
try:
    import paper_cgrdn  # noqa: F401
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
from common.restoring import weights_folder
from common.specimens import simulate
from paper_cgrdn import PAPER, Config, baselines, camera, columns, data, evaluate, generator, losses, scanning, train
from paper_cgrdn.distortions import distort, optional_steps
from paper_cgrdn.recipes import RECIPES

set_matplotlib_formats("jpeg", pil_kwargs={"quality": 88})
plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 9, "image.cmap": "gray", "figure.constrained_layout.use": True})


def show(*rows, size=2.2, like=None):
    """Each row: a dict of title -> image, each on its own grey scale, or on that of the one called `like`."""
    _, axes = plt.subplots(len(rows), len(rows[0]), figsize=(size * len(rows[0]), (size + 0.3) * len(rows)), squeeze=False)
    for line, row in zip(axes, rows):
        for axis, (title, image) in zip(line, row.items()):
            low, high = np.quantile(row[like] if like else image, (0.002, 0.998))
            axis.imshow(image, vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
            axis.set(title=title, xticks=[], yticks=[])
    plt.show()


rng = np.random.default_rng(0)
powder = data.with_contrast(simulate("powder", 4, (192, 192)).image, 0.5)
crystal = data.with_contrast(simulate("lattice", 6, (192, 192)).image, 0.5)

# %% [markdown]
# ## 1 Counting
#
# A clean image $I$ of mean 1 and a dose $D$ give an expectation of $DI$ electrons in a pixel; what is counted is a Poisson number $N$ with variance $DI$. A
# camera adds its dark current (Poisson, its mean $d$ subtracted) and its readout noise, and passes high frequencies less well (its transfer function $M$):
# $$ \operatorname{var}N=DI+d+s_r^2 . $$
# So the variance in flat areas, plotted over their mean, is a line. Its slope tells of counting, its intercept of the camera: that is how noise is measured.

# %%
steps, doses = np.repeat(np.linspace(0.2, 2, 12), 4000), (5, 20, 80)
axes = plt.subplots(1, 2, figsize=(11, 2.8))[1]
for dose in doses:
    counts = camera.readout(camera.dark_current(camera.counting(dose * steps, rng), 2.0, rng), 1.5, rng).reshape(12, -1)
    slope, intercept = np.polyfit(counts.mean(1), counts.var(1), 1)
    axes[0].loglog(counts.mean(1), counts.var(1), ".-", label=f"D = {dose}: slope {slope:.2f}, intercept {intercept:.1f}")
axes[0].set(xlabel="mean of a flat area", ylabel="variance", title="d = 2, readout 1.5: the intercept should be 2 + 1.5² = 4.25")
axes[0].legend(fontsize=7)
for b in (0.05, 0.2, 0.4):
    axes[1].plot(np.linspace(0, 1, 192), camera.mtf((192, 192), 0.5, b, 1.0)[0], label=f"b = {b}")
axes[1].set(xlabel="spatial frequency / Nyquist", title="transfer functions of detectors, a = 0.5, c = 1")
axes[1].legend(fontsize=7)
plt.show()
show({f"{dose} electrons per pixel": camera.counting(dose * powder, rng) for dose in (0.5, 2, 10, 50, 1000)})

# %% [markdown]
# ## 2 Scanning
#
# A scanned image is a *stream*: pixel $(i,j)$ is visited at $t_{ij}=i\,(N_xt_d+t_f)+j\,t_d$, with the dwell time $t_d$ and the fly-back $t_f$. Whatever
# changes with time is drawn into the image. Where the probe is not where it should be, $I$ is read at $(i+d_y(t),\,j+d_x(t))$; neighbours in a row are
# microseconds apart, neighbours in a column milliseconds: hence torn edges. A detector that glows longer than $t_d$ smears along the stream, over the end of
# a row into the next:
# $$ h_m=(1-w)(1-r)\,r^m+w\,(1-q)\,q^m,\qquad r=e^{-t_d/\tau}. $$
# No rule of symmetry survives that: a scanned image is never mirrored along its rows.

# %%
impulse = np.zeros((3, 40), np.float32)
impulse[0, 34] = 1
response = scanning.fast_scan_response(impulse, scanning.decay(4.0), 0.2, scanning.decay(40.0)).ravel()
dx = scanning.displacement((192, 192), 0.0, 1.0, 6, 20.0, True, rng)
offsets = scanning.row_offsets(4000, 1.0, 0.8, rng)[:, 0]
axes = plt.subplots(1, 3, figsize=(11, 2.6))[1]
axes[0].plot(response, ".-")
axes[0].axvline(39.5, color="0.7", ls=":")
axes[0].set(title=f"one bright pixel, dotted: end of the row; sum {response.sum():.2f}", xlabel="pixel of the stream")
axes[1].plot(dx[:, 0])
axes[1].set(title=f"horizontal displacement, std {dx.std():.2f} px", xlabel="row")
lags = np.arange(12)
axes[2].plot(lags, [np.mean(offsets[: len(offsets) - k] * offsets[k:]) for k in lags], "k.", label="row offsets")
axes[2].plot(lags, 0.8**lags, "C1", label=r"$\rho^k$, $\rho=0.8$")
axes[2].set(title="autocorrelation", xlabel="rows apart")
axes[2].legend(fontsize=7)
plt.show()
alone = {name: distort(crystal, RECIPES["hrstem"], np.random.default_rng(3), 100.0, (name,)).distorted
         for name in ("displacement", "response", "row_offsets", "line_dropouts", "interlacing", "hot_pixels")}  # fmt: skip
show({"meant": crystal} | alone, size=2)
print("what can happen to a low-resolution SEM image:", ", ".join(optional_steps(RECIPES["lrsem"])))

# %% [markdown]
# ## 3 Everything at once
#
# A training pair is a clean image, a modality, and a draw of everything: each step with its own probability and range. The target follows what belongs to the
# optics (probe, transfer function), not what the acquisition adds. Every number is kept, so that a pair can be explained:

# %%
rows = []
for k in range(3):
    pairs = {name: distort(powder if name.startswith("l") or name.endswith("sem") else crystal, recipe, np.random.default_rng((9, k)), identity=False)
             for name, recipe in RECIPES.items()}  # fmt: skip
    rows.append({name: pair.distorted for name, pair in pairs.items()})
show(*rows, size=2)
for name, numbers in pairs["hrstem"].draws:
    print(f"{name:14s}", ", ".join(f"{key} {value:.3g}" for key, value in numbers.items() if isinstance(value, float)))
families = ("crystal", "phase_contrast", "lattice", "medley", "porous", "section")
show({name: simulate(name, 11, (192, 192)).image for name in families}, size=2)

# %% [markdown]
# ## 4 The network
#
# A **residual dense block** is a chain of convolutions each of which sees *all* that came before it; blocks are chained into groups, and the outputs of all
# groups are concatenated and fused: that is the C in CGRDN. All of it happens at half size, around an identity: the network draws a *correction*. The image
# is standardised by its own mean and deviation first, and brought back at the end, so that a gain and an offset of the detector do not matter.

# %%
config = replace(Config.tiny(), modalities=("hrtem", "hrstem"), side=96, specimens=24, features=24, steps=400, pixel_steps=400, batch=4, learning_rate=2e-3,
                 epoch=200, ema_decay=0.98)  # fmt: skip
for name, shown in {"published": Config.paper(), "small": Config.small(), "here": config}.items():
    parameters, reach = generator.build_generator(shown).count_params(), 2 * generator.receptive_radius(shown)
    print(f"{name:10s}{parameters:10,d} parameters; a pixel sees {reach} pixels around it, patches have {shown.side}")
network = generator.build_generator(config)
raw = 40 * powder[None, ..., None] + 7
for gain, offset in ((1, 0), (1e-4, 0), (300, -5000)):
    state = data.statistics(gain * raw + offset)
    answer = data.finish(network(data.prepare(gain * raw + offset, state)), state)
    print(f"gain {gain:g}, offset {offset}: correction / gain = {float(np.std(answer - gain * raw - offset) / gain):.4f} counts")

# %% [markdown]
# ## 5 What a loss punishes
#
# The basket has eight terms. Each column below is one mistake, scaled to the same mean squared error; each row shows how much a term minds it, relative to
# noise. The multi-local whitening transform looks at *local* contrast; the Fourier term, with its power of 1/8, cares for how many frequencies are wrong, not
# how wrong.

# %%
target = (powder - powder.mean()) / powder.std()
blurred, moved = cv2.GaussianBlur(target, (0, 0), 1.5), np.roll(target, 1, 1)
mistakes = {"noise": rng.standard_normal(target.shape), "blur": blurred - target, "shift by 1 px": moved - target, "offset": np.ones_like(target),
            "contrast": target, "a lattice": np.sin(np.arange(192) * 0.9)[:, None] * np.sin(np.arange(192) * 0.9)}  # fmt: skip
table = {}
for name, mistake in mistakes.items():
    output = target + 0.2 * mistake / np.sqrt(np.mean(mistake**2))
    terms = losses.terms(tf.constant(target[None, ..., None], tf.float32), tf.constant(output[None, ..., None], tf.float32), config)
    table[name] = {term: float(value) for term, (value, _) in terms.items()}
print(f"{'':12s}" + "".join(f"{name:>15s}" for name in mistakes))
for term in terms:
    print(f"{term:12s}" + "".join(f"{table[name][term] / max(table['noise'][term], 1e-3):15.2f}" for name in mistakes))

# %% [markdown]
# ## 6 Training
#
# One step of the package on pairs that are made as they are needed. `kind` is "pixel"; after `pixel_steps` it would be "adversarial", where a discriminator
# that sees both images compares real and made ones with each other (for that idea see the lesson `sem_gan`).

# %%
keras.utils.set_random_seed(1)
pairs, trainer, history, checks = data.Pairs(config, data.sources(config)), train.CGRDN(config), [], {}
tiny = evaluate.Restorer(trainer.networks["final"])
held_out = [pair for modality in config.modalities for pair in evaluate.simulated(config, modality, "val", 5, 96, 4)]
train_step = tf.function(trainer.train_step)
for step, batch in zip(range(1, config.steps + 1), batches(pairs, pairs.shapes, config.batch)):
    history.append({term: float(value) for term, value in train_step(batch, trainer.kind(step)).items()})
    if step in (10, 25, 50) or step % 100 == 0:
        checks[step] = np.mean([evaluate.psnr(pair.target, tiny(pair.distorted)) - evaluate.psnr(pair.target, pair.distorted) for pair in held_out])
axes = plt.subplots(1, 2, figsize=(11, 2.8))[1]
for term in ("L1*w", "L2*w", "MLWT*w", "Fourier*w", "mean*w", "std*w"):
    axes[0].semilogy(np.convolve([row[term] for row in history], np.ones(20) / 20, "valid"), label=term)
axes[0].set(title="terms of the loss, with their weights; step")
axes[0].legend(fontsize=7, ncol=2)
axes[1].semilogx(list(checks), list(checks.values()), "k.-")
axes[1].axhline(0, color="0.7")
axes[1].set(title="gain in PSNR over the distorted image, held-out pairs, dB; step")
plt.show()

# %% [markdown]
# ## 7 Evaluation
#
# Filters are tuned on other pairs; the best of them is the rival. By the shipped network `small` if it is there, else by the tiny one.

# %%
shipped = (weights_folder(PAPER) / "small.weights.h5").is_file()
restore = evaluate.Restorer.load("small")[0] if shipped else tiny
for modality in config.modalities:
    strengths = baselines.tune(evaluate.arrays(evaluate.simulated(config, modality, "tuning", 0, 128, 4)), evaluate.psnr)
    tested = evaluate.simulated(config, modality, "test", 0, 128, 10)
    found = evaluate.measure(restore, tested, strengths, modality)
    print(f"{modality}: mean PSNR / SSIM", "(small)" if shipped else "(tiny)")
    for name in found["psnr"]:
        print(f"  {name:30s}{found['psnr'][name].mean():8.2f} dB{found['ssim'][name].mean():8.3f}")
    show(*evaluate.example(restore, tested, found, strengths)[:2], size=2.6, like="target")

# %% [markdown]
# ## 8 Make it lie
#
# Pure noise: does it turn into a lattice? A vacancy: is it filled? Atomic columns: are they moved? A restoration may look better and measure worse, so
# columns are fitted in the noisy frames and in the restored ones, and both are compared with the truth.

# %%
lattice = columns.adf_crystal((192, 192), 16.0, 2.2, vacancy=(96, 96))
noise = rng.poisson(np.full((192, 192), 10.0)).astype(np.float32)
frame = rng.poisson(10.0 * lattice.image).astype(np.float32)
show({"noise": noise, "restored": restore(noise), "crystal with a vacancy": frame, "restored ": restore(frame), "truth": 10 * lattice.image}, size=2.3)
for name, image in (("as recorded", lambda x: x), ("restored", restore)):
    peaks, fits = columns.radial_spectrum_peaks(image(noise)), []
    left = columns.vacancy_contrast(image(frame), lattice.vacancy, lattice.beside, 5.5)
    for draw in range(12):
        shot = np.random.default_rng(draw).poisson(10.0 * lattice.image).astype(np.float32)
        fits.append(columns.fit_columns(image(shot) / 10, lattice.positions, 5.5, shared=True))
    places = columns.precision([fit.positions for fit in fits], lattice.positions)["overall"]
    masses = columns.intensity_precision([fit.intensities for fit in fits], lattice.intensities)
    print(f"{name:12s} noise: strongest peak {peaks['ratio']:.1f} (chance: {peaks['expected']:.1f}); vacancy keeps {left:.2f} of a column's signal")
    print(
        f"{'':12s} positions: bias {places['bias_rms']:.3f}, std {places['std']:.3f} px; intensities: bias {masses['bias_mean']:+.1%}, std {masses['std']:.1%}"
    )

# %% [markdown]
# A bias that is the same in every draw is the dangerous one: averaging more frames does not remove it. **To take home:** (1) know your noise by its
# statistics before you remove it; (2) compare with a *tuned* filter; (3) a network that was trained on lattices knows lattices: test it on noise, and on the
# defect you are after.
#
# ## 9 Exercises
#
# 1. (easy) In section 1, replace the Poisson numbers by Gaussian ones of the same variance. At which dose can you tell, and how?
# 2. (easy) Which of the distortions of section 2 would survive averaging a hundred frames? *Hint:* which are the same in every frame?
# 3. (medium) Estimate the lifetime of the detector from one frame of pure noise with `response`. *Hint:* autocorrelation along the stream.
# 4. (medium) Train with `loss_weights="C"`, plain L1, on the same steps. Which mistakes of section 5 grow? *Hint:* look at contrast and mean.
# 5. (medium) Feed the network the same crystal turned by 90°. Should the answer be the turned one? Is it? *Hint:* which way do streaks run?
# 6. (hard) Leave `medley` and `crystal` out of the training pictures. What does pure noise become now? *Hint:* `data.PICTURES`.
# 7. (hard) Write a distortion of your own microscope: a function, a range, a probability, and a test of its moments. *Hint:* `paper_cgrdn/scanning.py`.
