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
# # SEM-GAN: the sharpness of twice the magnification, from a scan at half of it
#
# *A lesson on K. de Haan et al., "Resolution enhancement in scanning electron microscopy using deep learning", Scientific Reports 9, 12050 (2019).*
#
# **The problem.** Twice the magnification costs four times the scan time and four times the dose per area. Can the fine image be computed from the coarse one?
# **What the paper claims.** A network that saw 40 fields of gold on carbon at both magnifications draws the fine scan from the coarse one: of the gaps between
# particles 3.7 % stay undetected instead of 13.9 %, and their widths are off by 2.1 nm instead of 3.8 nm.
#
# **What you will do here:** see what a coarse scan loses; lay two scans on each other; take networks and losses apart; train a tiny GAN, and its twin without
# adversary; measure both as the paper does, and as it does not; make them fail; solve exercises. The paper's images are not public: the specimens here are
# simulated, so the truth is known. Where the text is silent, this project chooses and says so (`paper_sem_gan/README.md`).
#
# **For the teacher.** About three hours of class. Sections 1 and 2 (sampling, registration) stand alone; 3 to 5 need the idea of gradient descent; 6 and 7 are
# about evidence, also for people who only *use* such networks. The whole notebook runs in about two minutes without a GPU.

# %%
import inspect
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
try:
    import paper_sem_gan  # noqa: F401
except ModuleNotFoundError:  # the kernel runs in notebooks/
    sys.path.insert(0, str(Path.cwd().parent))

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib_inline.backend_inline import set_matplotlib_formats
from scipy.special import ndtr

stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)  # TensorFlow's greetings
import keras
import tensorflow as tf

os.dup2(stderr, 2)
tf.get_logger().setLevel("ERROR")

from common.data import batches
from common.restoring import load_network, restore_array, weights_folder
from paper_sem_gan import PAPER, Config, data, discriminator, elastic, evaluate, fields, gaps, generator, losses, registration, specimen, spectra, upsampling
from paper_sem_gan.train import SEMGAN

set_matplotlib_formats("jpeg", pil_kwargs={"quality": 88})
plt.rcParams.update({"figure.dpi": 72, "font.size": 9, "axes.titlesize": 10, "image.cmap": "gray", "figure.constrained_layout.use": True})


def show(*rows, size=2.2):
    """Each row: a dict of title -> image; black is 0, white 0.8."""
    _, axes = plt.subplots(len(rows), len(rows[0]), figsize=(size * len(rows[0]), (size + 0.3) * len(rows)), squeeze=False)
    for axis, (title, image) in zip(axes.flat, (item for row in rows for item in row.items())):
        axis.imshow(image, vmin=0, vmax=0.8, interpolation="nearest")
        axis.set_title(title)
        axis.axis("off")
    plt.show()


# %% [markdown]
# ## 1 The problem
#
# A current $I$, resting for the dwell time $t$ on each of $N$ pixels of side $p$, takes the time $Nt$ and brings the dose $It/(e\,p^2)$; frequencies up to the
# Nyquist limit $1/2p$ are recorded. The probe is finer than either pixel, so the coarse scan is no blurred version of the fine one: it picks *points*, and what
# lies between them drops out, or returns as something coarser (**aliasing**). Below: the paper's numbers; one spot of a specimen in both scans, each with
# noise, drift, rotation, size error and shift of its own; aliasing, from the spectra of every and of every second point of a noise-free scan.


# %%
def scene(*seed):
    """A specimen, two scans of it, and both laid on each other as a perfect registration would: the simulation knows where every pixel lies."""
    field = specimen.simulate_field(seed, (512, 640))
    low, high = fields.acquire(field, seed)
    upsampled, seen, corner = fields.overlay(low, high)
    a, b = (cv2.GaussianBlur(image, (0, 0), 2.0) for image in (upsampled, seen))  # for equal brightness and contrast; noise must not pass for contrast
    reference = (a.std() / b.std() * (seen - b.mean()) + a.mean()).astype(np.float32)
    ideal = fields.overlay(*fields.acquire(field, seed, fields.Recording(dose=1e9, readout=0)))[1]  # the same drift, no noise
    return SimpleNamespace(field=field, low=low, high=high, upsampled=upsampled, reference=reference, ideal=ideal, corner=corner)


one = scene(3)
for name, p in {"10,000×": 14.2, "20,000×": 7.1}.items():
    dose, seconds = 0.54e-9 * 30e-6 / 1.602e-19 / p**2, 1024 * 884 * (7.1 / p) ** 2 * 30e-6
    print(f"{name}: {p:4.1f} nm per pixel, limit {0.5 / p:.4f} cycles/nm; the same field takes {seconds:4.1f} s and {dose:5.0f} electrons per nm²")
spot = np.s_[201:289, 261:349]
points = one.low.image[(one.corner[0] + 201) // 2 :, (one.corner[1] + 261) // 2 :][:44, :44]
show({"fine, noise-free": one.ideal[spot], "fine, 7.1 nm": one.reference[spot], "coarse, 14.2 nm": points, "coarse, Lanczos": one.upsampled[spot]}, size=2.8)
(f, whole), (f_half, half) = spectra.radial_average(one.ideal, 7.1), spectra.radial_average(one.ideal[::2, ::2], 14.2)
ratio = 4 * half[f_half > 0.03].mean() / whole[(f > 0.03) & (f < 0.0352)].mean()
print(f"from 0.03 cycles/nm to its limit the coarse scan shows {ratio:.2f} times the true amplitude")

# %% [markdown]
# ## 2 Registration
#
# The network learns pixel by pixel, so both scans must lie on each other to a fraction of a pixel. They never do: between them the stage moves and the column
# turns and rescales the image a little; during them the specimen drifts, line by line. The package works in four steps: **coarse** (blocks of the fine scan are
# searched in the coarse one; most agree on one affine map), **elastic** (ever smaller blocks and shifts, one smooth field through all), **once** (the fine scan
# is interpolated once, the network's input never), **judged** (what a last correlation still finds is the residual; a pair that cannot be trusted is rejected).

# %%
low, high = data.quantised(one.low.image), data.quantised(one.high.image)
pair = registration.register(low, high)
print({key: np.round(pair.report[key], 3).tolist() for key in ("rotation_deg", "scale", "shift", "elastic_p95", "residual_p95", "ncc_before", "ncc_after")})
start, truth = 2 * np.array(pair.report["low_crop"][:2]), fields.correspondence(one.low, one.high)
error = np.linalg.norm(pair.map - truth[start[0] :, start[1] :][: pair.high.shape[0], : pair.high.shape[1]], axis=-1)
print(f"true error of the map: 95 % of the pixels below {np.quantile(error, 0.95):.3f} px of 7.1 nm")
for name, image in {"another field": data.quantised(scene(4).high.image), "inverted": 255 - high, "blank": 0 * high + 90}.items():
    print(f"{name} -> {registration.register(low, image).report['reason']}")
places = registration.apply_affine(registration.nominal_map(low.shape, high.shape, 2), elastic.identity(pair.high.shape) + np.float32(start))
before = elastic.warp(high.astype(np.float32), places)
shifts = np.linspace(0, 3, 13)
moved = [np.abs(cv2.warpAffine(one.ideal, np.float32([[1, 0, s], [0, 1, 0]]), None, flags=cv2.INTER_CUBIC) - one.ideal)[:, 8:-8].mean() for s in shifts]
_, axes = plt.subplots(1, 3, figsize=(12, 3.6))
for axis, image, title in zip(axes, (before, pair.high), ("centre on centre", "registered")):
    axis.imshow(np.clip(np.dstack([pair.upsampled, image, image])[200:330, 200:330] / 180, 0, 1), interpolation="nearest")
    axis.set_title(f"{title}: coarse red, fine cyan")
    axis.axis("off")
axes[2].plot(shifts, moved, "k.-", label="fine scan against itself, shifted")
axes[2].axhline(np.abs(one.upsampled - one.reference).mean(), color="C1", ls="--", label="coarse (Lanczos) against fine")
axes[2].set(xlabel="shift in pixels of 7.1 nm", title="mean |difference|, the later loss")
axes[2].legend()
plt.show()

# %% [markdown]
# The dashed line is all that there is to learn. A misfit of one pixel is as large: the network would spend its effort on predicting the misfit.
#
# ## 3 The networks
#
# The **generator** is a U-Net on the Lanczos-upsampled scan: going down it halves the image four times, going up it doubles it and adds the finer maps back.
# With $C_n$ a 3×3 convolution to $n$ maps and LeakyReLU(0.1), and $P$ the padding of missing *maps* with zeros,
#
# $$ S_k = C_{2c}\,C_c(x_k) + P(x_k),\qquad x_{k+1}=\langle S_k\rangle_{2\times2},\qquad y_{k-1}=C_{c}\,C_{2c}\big([\,\uparrow y_k,\;S_k]\big). $$
#
# $P$ lets a block double its maps and still pass its input on, at no parameter. The **discriminator** halves the image five times, averages over what is left,
# and says with two dense layers and a sigmoid how likely an image is a real fine scan. It never sees the coarse scan.

# %%
print(f"{'preset':8s}{'first maps':>11s}{'halvings':>9s}{'generator':>12s}{'discriminator':>14s}   sees, in pixels of the scan")
for name, c in {name: getattr(Config, name)() for name in ("paper", "small", "tiny")}.items():
    parameters = [build(c).count_params() for build in (generator.build_generator, discriminator.build_discriminator)]
    print(f"{name:8s}{c.base:11d}{c.levels:9d}{parameters[0]:12,d}{parameters[1]:14,d}   {generator.receptive_radius(c)} around")
print("maps (paper):", ", ".join(f"{x.name} {x.filters}" for x in generator.build_generator(Config.paper()).layers if hasattr(x, "filters")))

# %% [markdown]
# ## 4 The losses
#
# $$ L_G=\underbrace{\langle|G(x)-z|\rangle}_{L_1}+\alpha\,\underbrace{\langle|\partial_r G(x)|+|\partial_c G(x)|\rangle}_{TV}
# +\beta\,\underbrace{[1-D(G(x))]^2}_{A},\qquad L_D=D(G(x))^2+[1-D(z)]^2 . $$
#
# **$L_1$ erases what it cannot place.** A coarse scan that missed a gap knows only that it lies between two of its points, 14.2 nm apart. The best answer
# under $L_1$ is the *median* of all possible truths, pixel by pixel (under squares the mean). If the gap is narrower than half of that range, most of them say
# "gold": on the left, the median never falls below 60 % of the peak, where the paper's rule sees a gap. One of the possible truths (dashed) looks right
# and costs *more*: a gap in the wrong place is charged twice. **The adversarial term $A$ pays for it**, since a discriminator recognises medians. What it
# buys is a gap of the right kind, not in the right place. **TV** charges wiggles and leaves edges alone, sharp or soft; but fine texture is a wiggle, too.
#
# **The weights** are not legible in the paper, but the shares at work are: 14 % $L_1$, 2 % TV, 84 % $A$. So $\alpha\,TV/L_1=2/14$ and $\beta A/L_1=84/14$,
# which is $\alpha=L_1/(7\,TV)$ and $\beta=6\,L_1/A$. The package averages the terms over a stretch of calibration steps, sets the weights, and freezes them.
# In balance $D=\frac12$ and $A=\frac14$; with that, and the Lanczos image of section 1 as the output, on $[0,1]$ and on $0\dots255$:

# %%
for white in (1, 255):
    z, g = (white * image[None, ..., None] for image in (one.reference, one.upsampled))
    terms = np.array([losses.l1(z, g), losses.total_variation(g), 0.25])
    weights = np.array([1, *losses.weights_for_shares(*terms, (0.14, 0.02, 0.84))])
    shares = 100 * terms * weights / (terms @ weights)
    print(f"L1 {terms[0]:7.4f}, TV {terms[1]:7.4f}, A 0.25: alpha {weights[1]:.3f}, beta {weights[2]:7.3f}; shares {shares.round(1)} %")
place, t = np.linspace(-30, 30, 241), np.arange(48)
_, axes = plt.subplots(1, 2, figsize=(9, 2.7))
for axis, gap in zip(axes, (6, 10)):
    truths = np.array([1 - 0.6 * (ndtr((place - s + gap / 2) / 1.5) - ndtr((place - s - gap / 2) / 1.5)) for s in np.linspace(-7.1, 7.1, 1001)])
    axis.plot(place, truths[::125].T, "0.85", lw=0.8)
    for style, (name, guess) in zip(("C0", "C1", "C3--"), {"median": np.median(truths, 0), "mean": truths.mean(0), "one of them": truths[750]}.items()):
        axis.plot(place, guess, style, label=f"{name}: $L_1$ = {np.abs(truths - guess).mean():.3f}")
    axis.axhline(0.6, color="0.7", ls=":")
    axis.set(title=f"a gap of {gap} nm, somewhere within 14.2 nm", xlabel="nm")
    axis.legend(loc="lower left", fontsize=7)
plt.show()
ramp = 0.1 + 0.6 * np.array([t > 23, ndtr((t - 23.5) / 4), t // 4 % 2])[:, None] * np.ones((1, 48, 1))
toys = dict(zip(("sharp edge", "soft edge", "stripes", "noise 0.1"), (*ramp, ramp[0] + 0.1 * np.random.default_rng(0).standard_normal((48, 48)))))
show({f"{name}: TV {losses.total_variation(np.float32(image)[None, ..., None]):.3f}": image for name, image in toys.items()}, size=1.7)

# %% [markdown]
# ## 5 Training
#
# One generator step per batch; every fourth step also one for the discriminator, on patches of its own. 150 steps on $L_1$, 100 of calibration, then all of
# $L_G$. The twin has the same start and patches, and stays on $L_1$. (The fields are laid on each other by the truth, to save the time of registering.)

# %%
config = replace(Config.tiny(), batch=8, steps=700, warm_up=150, calibration=100)
twins, patches = {}, data.Patches(config, [(s.upsampled, s.reference) for s in (scene(1, k) for k in range(8))])
print(inspect.getsource(SEMGAN.train_step))
for name, c in {"SEM-GAN": config, "L1 only": replace(config, warm_up=config.steps)}.items():
    keras.utils.set_random_seed(1)
    trainer, history = SEMGAN(c), []
    train_step = tf.function(trainer.train_step)
    for step, batch in zip(range(1, c.steps + 1), batches(patches, patches.shapes, c.batch)):
        history.append({term: float(value) for term, value in train_step(batch, trainer.kind(step)).items()})
    twins[name] = trainer, history
    print(name, {term: f"{np.mean([row[term] for row in history[-100:]]):.4f}" for term in ("L1", "share_L1", "share_TV", "share_A") if term in history[-1]})
_, axes = plt.subplots(1, 2, figsize=(9, 2.7))
for k, name, term in ((0, "SEM-GAN", "L1"), (0, "L1 only", "L1"), (1, "SEM-GAN", "A"), (1, "SEM-GAN", "D_real"), (1, "SEM-GAN", "D_fake")):
    steps, values = zip(*((step, row[term]) for step, row in enumerate(twins[name][1]) if term in row))
    width = len(steps) // 20
    axes[k].plot(steps[width - 1 :], np.convolve(values, np.ones(width) / width, "valid"), label=f"{term}, {name}")
    axes[k].set(xlabel="step (running means)", ylim=((0.04, 0.1), (0.2, 0.6))[k])
    axes[k].legend()
plt.show()

# %% [markdown]
# The answers for real and false images lie on each other near ½, and $A$ near ¼: whatever the discriminator finds, the generator soon imitates. That is the
# balance one wants. Progress cannot be read from it, nor from $L_1$, in which "L1 only" may even lead. It shows in the spectrum.
#
# ## 6 Evaluation
#
# Three new fields; the twins, and before them the shipped weights `small` (trained for longer) and `l1` (without adversary), if there are any. **Gaps, as the
# paper measures them**: grey levels are taken along the line between neighbouring particles of the fine scan (reference), in all images at the same places.
# A gap *exists* if the lowest level is under 60 % of the dimmer peak; its *width* lies between the places where 80 % of the brighter one are passed. Not in the
# paper: invented and lost particles, and the ring correlation (see below). "Spectral distance" is the mean $|\log_{10}|$ of the ratio of amplitudes.

# %%
shipped = {name: w for name, w in {"SEM-GAN": "small", "L1 only": "l1"}.items() if (weights_folder(PAPER) / f"{w}.weights.h5").is_file()}
networks = {name: load_network(PAPER, weights) for name, weights in shipped.items()}
networks |= {f"tiny {name}": (trainer.networks["final"], config) for name, (trainer, _) in twins.items()}
ours = "SEM-GAN" if "SEM-GAN" in networks else "tiny SEM-GAN"
restored = lambda name, scan: restore_array(data.quantised(scan), PAPER, *networks[name], dtype="uint8") / 255  # noqa: E731
cases, scenes = [], [scene(2, k) for k in range(3)]
for s in scenes:
    frame = tuple(slice(c, c + n) for c, n in zip(s.corner, s.reference.shape))
    images = {"Lanczos (input)": s.upsampled} | {name: restored(name, s.low.image)[frame] for name in networks}
    cases.append(evaluate.Case(s.low.image, images, s.reference, None))
measured, names = [evaluate.measure_case(case) for case in cases], [*cases[0].images, "reference"]
items = evaluate.gap_items(measured, cases) | evaluate.image_items(cases)
colours = dict(zip(names, ("0.6", "C3", "C0", "C1", "C2"))) | {"reference": "k", "cheat": "C4", "noise-free": "C8"}
print(f"{'means over three fields':58s}" + "".join(f"{name:>17s}" for name in names[:-1]))
for row in dict.fromkeys(key.partition(": ")[0] for key in items):
    found = [items.get(f"{row}: {name}", {"value": np.nan}) for name in names[:-1]]  # nan: nothing to count
    unit = next(items[key]["unit"] for key in items if key.startswith(f"{row}: "))
    print(f"{row + ' ' + unit:58s}" + "".join(f"{each['value']:17.2f}" for each in found))
there, before, after = (measured[0]["measured"][name].exists for name in ("reference", "Lanczos (input)", ours))
_, axes = plt.subplots(1, 4, figsize=(13, 2.9))
for axis, (kind, which) in zip(axes, {"recovered": there & ~before & after, "still closed": there & ~before & ~after, "opened": ~there & after}.items()):
    axis.set(title=f"{kind}: {which.sum()} of {len(there)} places", xlabel="nm")
    if not which.any():
        continue
    for name, image in (cases[0].images | {"reference": cases[0].reference}).items():
        levels = gaps.profiles(image, measured[0]["gaps"][np.flatnonzero(which)[:1]])[0]
        axis.plot(0.25 * 7.1 * np.arange(len(levels)), levels, color=colours[name])
    peaks = levels[: levels.argmin() + 1].max(), levels[levels.argmin() :].max()  # of the fine scan, drawn last
    axis.hlines((0.6 * min(peaks), 0.8 * max(peaks)), 0, 1.775 * len(levels), "0.7", ":")
for name in names:
    each, fine = (gaps.joined([m["measured"][n] for m in measured]) for n in (name, "reference"))
    axes[3].hist(each.width_nm[each.exists & fine.exists], np.arange(0, 81, 5), histtype="step", color=colours[name], label=name)
axes[3].set(title="gaps of three fields", xlabel="width in nm")
axes[3].legend()
plt.show()

# %% [markdown]
# **Spectra: a test that can be passed by cheating.** The paper shows that the output has the *radial spectrum* of the fine scan. A spectrum knows how much
# detail there is, not whether it is where it belongs. So here is a cheat: the input plus random noise, filtered such that the spectrum comes out right. And the
# test that it fails, the correlation of Fourier rings, 1 where two images agree in amplitude *and* place:
# $C(f)=\mathrm{Re}\sum F_1F_2^*\,/\sqrt{\sum|F_1|^2\sum|F_2|^2}$, sums over the ring $|\mathbf k|=f$.

# %%
image, reference, white = cases[0].images["Lanczos (input)"], cases[0].reference, np.random.default_rng(0).standard_normal(cases[0].reference.shape)
(f, own), (_, wanted), (_, flat) = (spectra.radial_average(i, 7.1) for i in (image, reference, white))
k = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])) / 7.1
cheat = image + np.fft.irfft2(np.fft.rfft2(white) * np.interp(k, f, np.sqrt(np.maximum(wanted**2 - own**2, 0)) / flat), image.shape)
images = cases[0].images | {"cheat": cheat, "noise-free": scenes[0].ideal}
_, axes = plt.subplots(1, 2, figsize=(12, 3))
axes[0].semilogy(f, wanted, "k", lw=2.5, label="fine scan")
for name, image in images.items():
    axes[0].semilogy(*spectra.radial_average(image, 7.1), color=colours.get(name), lw=1, label=name)
    axes[1].plot(*spectra.ring_correlation(image, reference, 7.1), color=colours.get(name), lw=1)
    distance, correlation = spectra.spectral_distance(image, reference, 7.1, *evaluate.BAND), evaluate.band_correlation(image, reference)
    print(f"{name:16s} spectral distance {distance:.3f}   ring correlation {correlation:.3f}")
for axis, title in zip(axes, ("amplitude of the spectrum", "ring correlation with the fine scan")):
    axis.axvspan(*evaluate.BAND, color="0.94")
    axis.set(title=title, xlabel="cycles per nm (grey: what only the fine scan records)")
axes[0].legend()
plt.show()
show({name: image[200:280, 200:280] for name, image in (images | {"fine scan": reference}).items()})

# %% [markdown]
# Where a SEM-GAN gains in the spectrum over its "L1 only" and not in the correlation, detail was **invented**: right in kind, wrong in place. And the
# noise-free scan has *less* fine amplitude than the recording: part of what a GAN imitates up there is noise.
#
# ## 7 Make it fail
#
# **How narrow may a gap be?** A hundred pairs of discs at random places and angles; with a gap of 0 they touch, and what is seen is false. **What is made of
# nothing?** Bare carbon and noise; lines with a period of 1.5 pixels (section 1: they return with 3, twice as coarse); one hot pixel. Contrast ×3.

# %%
rng, separations, seen = np.random.default_rng(5), (0, 2, 4, 6, 8, 10, 12, 15, 20), {name: [] for name in names}
middle, angle = 227.2 * (np.stack(np.mgrid[:10, :10], -1).reshape(-1, 2) + 0.5) + rng.uniform(-7, 7, (100, 2)), rng.uniform(0, 2 * np.pi, 100)
noisy = lambda signal: rng.poisson(900 * signal) / 900 + 0.01 * rng.standard_normal(signal.shape)  # noqa: E731
for gap in separations:
    half, scans = (45 + gap / 2) * np.column_stack([np.sin(angle), np.cos(angle)]), []  # nm; discs of 90 nm
    for p, side in ((14.2, 160), (7.1, 320)):
        rows, columns = (np.mgrid[:side, :side] + 0.5) * p
        distance = np.min([np.hypot(rows - r, columns - c) for r, c in (*(middle - half), *(middle + half))], 0) - 45
        scans.append(noisy(0.18 + 0.32 * ndtr(-distance / 3)))
    places = gaps.Gaps((middle - half) / 7.1 - 0.5, (middle + half) / 7.1 - 0.5, np.full((100, 2), 45 / 7.1), np.full(100, gap))
    images = {"Lanczos (input)": upsampling.lanczos(scans[0]), "reference": scans[1]} | {name: restored(name, scans[0]) for name in networks}
    for name, image in images.items():
        seen[name].append(gaps.measure(image, places, 7.1).exists.mean())
axis = plt.subplots(figsize=(6.5, 2.4))[1]
for name in names:
    axis.plot(separations, seen[name], ".-", color=colours[name], label=name)
axis.set(xlabel="true gap in nm", title="share of gaps seen")
axis.legend()
plt.show()
panels, signals = {}, [np.zeros((48, 1)), 0.15 * np.cos(2 * np.pi * np.arange(48) / 1.5), 0.6 * (np.hypot(*np.mgrid[-24:24, -24:24]) < 1)]
for name, signal in zip(("noise", "lines", "spike"), signals):
    scan = noisy(np.full((48, 48), 0.2) + signal)
    views = {"scan": scan, "Lanczos": upsampling.lanczos(scan), ours: (output := restored(ours, scan))}
    panels |= {f"{name}: {view}": 0.3 + 3 * (image - 0.2) for view, image in views.items()}
    period = 96 / np.abs(np.fft.rfft(output.mean(0) - output.mean())).argmax()
    print(f"{name}: deviation {scan.std():.3f} -> {output.std():.3f}; strongest period along the rows {period:.0f} px of the output")
show(panels, size=1.5)

# %% [markdown]
# Is the spike a particle now? Are there lines, of the wrong period? Has the noise become texture? All that is plausible and false, and no loss and no larger
# network helps: nothing can tell two specimens apart that give the same scan. **To take home:** (1) $L_1$ gives what is certain, the adversary adds what is
# usual; (2) sharpness and spectra cannot tell them apart, correlation with a second recording can; (3) show the input beside every restored image.
#
# ## 8 Exercises
#
# 1. (easy) At which dwell time would the fine scan bring the dose per nm² of the coarse one? What happens to its noise? *Hint:* section 1; Poisson.
# 2. (easy) Derive $\alpha$ and $\beta$ for three equal shares. Why does $\beta$ change with the range of grey levels, and $\alpha$ not? *Hint:* section 4.
# 3. (easy) For which gaps does the median of section 4 stay above 60 %? *Hint:* vary `gap`; then think of a probe without width.
# 4. (medium) Derive 12,546,977. *Hint:* a convolution from $a$ to $b$ maps has $9ab+b$ parameters; section 3 prints the maps; padding costs none.
# 5. (medium) Train with `np.roll(s.reference, 2, 1)`, or a random roll for each field. *Hint:* one shift can be learnt; for random ones, see the median.
# 6. (medium) Put discs of 5 to 15 nm on bare carbon. Which share does the coarse scan miss, and what does the network make of the others? *Hint:* `distance`.
# 7. (hard) Let the discriminator judge fine scans *beside* their coarse ones (two input maps). To which inventions can it now object? *Hint:* `train_step`.
