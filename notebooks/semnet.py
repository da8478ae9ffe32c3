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
# # SEMNet: removing noise and doubling the sampling of SEM images
#
# *A lesson on "SEMNet" (abstract, Microscopy and Microanalysis, 2024).*
#
# **The problem.** A scanning electron microscope (SEM) measures one pixel at a time. A fast scan gives a noisy image, a coarse scan gives a small one,
# and a slow, fine scan may drift, charge or damage the specimen. So one would like to scan fast and coarsely, and compute the good image afterwards.
#
# **What the paper claims.** One convolutional network, trained on good images that were made bad *on purpose*, removes noise and doubles the number of pixels
# along each axis. On 25 test images it beats "bicubic enlargement, then Gaussian blur" by 0.212 dB in PSNR and by 0.1379 in SSIM.
#
# **What you will do here**
#
# 1. derive the distortions of an SEM image and check one of them against theory;
# 2. look at the training pairs;
# 3. draw the network, count it, and measure how far it sees;
# 4. take the three loss terms apart;
# 5. train a small version in about a minute, with a loop you can read;
# 6. measure it against classical methods, and make it fail;
# 7. solve exercises.
#
# The abstract leaves things open: the width of the network, the formula of its histogram loss, the order of the degradations; and its images are not public.
# Where it is silent this project makes a choice and says so. All images below are simulated, so the truth is known exactly.
#
# **For the teacher.** About three hours of class. Sections 1 and 2 need variance, convolution and the Fourier transform, and make a lesson on imaging by
# themselves; sections 3 to 5 need the idea of gradient descent; section 6 can be taught without them. The whole notebook runs in about two minutes
# without a GPU.

# %%
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
try:
    import common  # noqa: F401
except ModuleNotFoundError:  # the kernel runs in notebooks/
    sys.path.insert(0, str(Path.cwd().parent))

import cv2
import matplotlib.pyplot as plt
import numpy as np

stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)  # TensorFlow's greetings
import keras
import tensorflow as tf

os.dup2(stderr, 2)
tf.get_logger().setLevel("ERROR")

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

# %% [markdown]
# Small figures, and one helper used all through the lesson: it draws rows of grey images, black = 0 and white = 1.

# %%
from matplotlib_inline.backend_inline import set_matplotlib_formats

set_matplotlib_formats("jpeg", pil_kwargs={"quality": 88})
plt.rcParams.update({"figure.dpi": 72, "font.size": 10, "axes.titlesize": 10, "image.cmap": "gray", "figure.constrained_layout.use": True})


def show(rows, titles=None, size=1.9):
    """rows: list of lists of images; titles: list of lists of strings."""
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=(size * len(rows[0]), size * len(rows) + 0.3 * bool(titles)), squeeze=False)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            axes[i, j].imshow(image, vmin=0, vmax=1, interpolation="nearest")
            axes[i, j].axis("off")
            if titles:
                axes[i, j].set_title(titles[i][j])
    plt.show()


# %% [markdown]
# ## 1 Where the distortions come from
#
# Let $x(\mathbf r)\in[0,1]$ be the ideal signal at position $\mathbf r$: 0 is black, 1 is white. Four things happen on its way to the file:
#
# $$
# x \;\xrightarrow{\text{probe}}\; x * h_\sigma \;\xrightarrow{\text{sampling}}\; \text{pixels}
# \;\xrightarrow{\text{counting}}\; \frac{1}{\lambda}\,\mathrm{Poisson}(\lambda x) \;\xrightarrow{\text{detector}}\; {}+\mathcal N(0,\sigma_d^2).
# $$
#
# We look at each one alone, on the same specimen: gold islands on carbon, a standard test object for SEM resolution.
# The functions are the ones that make the training data; narrowing their ranges switches everything else off.

# %%
from common.specimens import simulate
from paper_semnet.config import Config, Degradation
from paper_semnet.data import gaussian_noise, poisson_noise

gold = simulate("gold", 3, (256, 256))
x = gold.image[64:176, 64:176]
print(f"{gold.name}: {gold.pixel_size:.2f} nm per pixel, {len(gold.parameters['radii'])} islands in the whole image")

d = Degradation()
counting = [poisson_noise(x, rng, replace(d, poisson_probability=1, poisson_log10=(k, k)), []) for k in (2, 3, 4)]
detector = [gaussian_noise(x, rng, replace(d, gaussian_sigma=(s, s)), []) for s in (25, 10, 2)]
titles = [
    ["ideal signal", r"counting, $\lambda=10^2$", r"counting, $\lambda=10^3$", r"counting, $\lambda=10^4$"],
    ["ideal signal", r"detector, $\sigma=25$", r"detector, $\sigma=10$", r"detector, $\sigma=2$"],
]
show([[x, *counting], [x, *detector]], titles)

# %% [markdown]
# ### 1.1 Counting electrons: Poisson noise
#
# A beam current $I$ that rests for a time $t$ on a pixel delivers $n = I t/e$ electrons on average: 100 pA for 1 µs are only 624.
# They arrive independently, so their number is a Poisson variable, and a Poisson variable has a variance equal to its mean.
#
# Call $\lambda$ the expected count at white. A pixel of true value $x$ yields $N\sim\mathrm{Poisson}(\lambda x)$, and we display $y=N/\lambda$:
#
# $$ \mathrm E[y]=x,\qquad \mathrm{Var}[y]=\frac{x}{\lambda},\qquad \mathrm{SNR}=\frac{\mathrm E[y]}{\sqrt{\mathrm{Var}[y]}}=\sqrt{\lambda x}. $$
#
# Bright areas are *noisier* in absolute terms but *better* relative to their signal. To halve the noise you must wait four times as long.
#
# (A real detector counts secondary electrons, $\delta$ per beam electron. Two random steps follow each other, and $\lambda$ then stands for the effective
# number $n\,\delta/(1+\delta)$. The law $\mathrm{Var}\propto x$ remains.)
#
# ### 1.2 The detector: Gaussian noise
#
# Scintillator, photomultiplier and amplifier add fluctuations that do not depend on the signal. Many small independent causes give a Gaussian:
# $y = x + \mathcal N(0,\sigma_d^2)$ with $\sigma_d=\sigma/255$ and $\sigma$ from 2 to 25 grey levels. Independent variances add:
#
# $$ \mathrm{Var}[y] = \frac{x}{\lambda} + \sigma_d^2 . $$
#
# ### 1.3 Check it
#
# Take flat patches of many grey levels, add noise, measure the variance. Theory says: straight lines. Dots that leave their line are worth a thought.

# %%
levels = np.linspace(0, 1, 21)
flat = np.repeat(levels[:, None], 20_000, 1)
lam, sigma = 100, 10
variances = {
    r"counting: $x/\lambda$": (rng.poisson(lam * flat) / lam, levels / lam),
    r"detector: $\sigma_d^2$": (flat + rng.normal(0, sigma / 255, flat.shape), 0 * levels + (sigma / 255) ** 2),
    r"both: $x/\lambda+\sigma_d^2$": (rng.poisson(lam * flat) / lam + rng.normal(0, sigma / 255, flat.shape), levels / lam + (sigma / 255) ** 2),
}
plt.figure(figsize=(6.5, 3.6))
for (name, (y, theory)), colour in zip(variances.items(), ("C0", "C1", "C2")):
    plt.plot(levels, theory, colour, label=name)
    plt.plot(levels, y.var(1), colour + "o", ms=4)
    print(f"{name:34s} largest deviation from theory {np.abs(y.var(1) - theory).max() / theory.max():.1%} of the maximum")
clipped = poisson_noise(flat.astype(np.float32), rng, replace(d, poisson_probability=1, poisson_log10=(2, 2)), [])
plt.plot(levels, clipped.var(1), "kx", label="counting, then clipped to [0, 1]")
plt.xlabel("true grey level $x$")
plt.ylabel("variance of $y$")
plt.legend()
plt.show()

# %% [markdown]
# The crosses bend down near white: an image file cannot hold values above 1, so the upper half of the fluctuation is cut off.
# Saturated pixels look quiet, but their *mean* is wrong as well. No network can restore what was clipped: leave headroom when you set brightness and
# contrast.
#
# ### 1.4 The probe: blur
#
# The beam has a finite width, so the image is the specimen convolved with the probe. For a Gaussian probe of standard deviation $\sigma$,
#
# $$ (x*h_\sigma)(\mathbf r),\quad h_\sigma(\mathbf r)=\frac{1}{2\pi\sigma^2}e^{-r^2/2\sigma^2}
# \qquad\Longleftrightarrow\qquad \hat x(\mathbf f)\,e^{-2\pi^2\sigma^2 f^2} . $$
#
# Blur multiplies fine detail by a small number; noise then buries it. That order is why sharpening a noisy image fails.
# Astigmatism makes the probe elliptical, so half of the training blurs are elliptical.

# %%
from paper_semnet.data import gaussian_kernel

kernels = {"round, $\\sigma=1$": ((1, 1), 0), "round, $\\sigma=2.4$": ((5.76, 5.76), 0), "astigmatic, 45°": ((6, 0.3), np.pi / 4)}
blurred = [cv2.filter2D(x, -1, gaussian_kernel(25, *k), borderType=cv2.BORDER_REFLECT_101) for k in kernels.values()]
show([[x, *blurred]], [["ideal signal", *kernels]])

plt.figure(figsize=(6.5, 2.8))
f = np.linspace(0, 0.5, 200)
for s in (1.0, 1.5, 2.4):
    profile = gaussian_kernel(25, (s**2, s**2)).sum(0)
    measured = np.abs(np.fft.rfft(np.fft.ifftshift(profile)))
    plt.plot(f, np.exp(-2 * (np.pi * s * f) ** 2), label=rf"theory, $\sigma={s}$ px")
    plt.plot(np.fft.rfftfreq(25), measured, "k.", ms=5)
plt.axvline(0.25, color="grey", ls=":")
plt.text(0.252, 0.8, "limit of an image\nof half the size")
plt.xlabel("spatial frequency in cycles per pixel (dots: the kernels used for training)")
plt.ylabel("what is left")
plt.legend()
plt.show()

# %% [markdown]
# ### 1.5 The scan grid: sampling
#
# A scan with step $\Delta$ records frequencies up to the Nyquist limit $f_N = 1/(2\Delta)$. Anything finer does not vanish: a frequency $f$ between $f_N$ and
# $1/\Delta$ reappears as the false, coarser frequency $1/\Delta - f$. That is **aliasing**.
#
# The right half of the figure shows a pattern whose frequency grows with the radius. Sampled at every second pixel, it gains rings in the middle of each side
# that do not exist. Averaging 2×2 pixels weakens them without removing them. (In its outermost corners even the original is too fine for its own grid.)

# %%
rows, columns = np.mgrid[-64:64, -64:64]
zone = 0.5 + 0.5 * np.cos(np.pi * 0.45 / 64 * (rows**2 + columns**2))
halved = {
    "original": lambda image: image,
    "every second pixel": lambda image: image[::2, ::2],
    "mean of 2×2 pixels": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
}
show([[f(x) for f in halved.values()] + [f(zone) for f in halved.values()]], [list(halved) * 2], size=1.7)

# %% [markdown]
# ## 2 The data
#
# The network needs pairs: a bad image (low quality, LQ) and the good image it came from (high quality, HQ). Nobody can record the same specimen twice in
# exactly the same place, noise-free the second time. So the HQ image comes first and the LQ image is computed from it.
#
# The paper used 1300 SEM images and 1300 photographs. We use simulated specimens of eight families. Each was drawn by code from a seed, is calibrated in
# nm, and has been blurred by a fine probe, since even an excellent micrograph is not sharper than its probe.

# %%
from common.data import SimulatedImages

sheet = SimulatedImages(seed=42, count=8, shape=(160, 160))
show([[sheet[k] for k in row] for row in (range(4), range(4, 8))], [[sheet.families[k] for k in row] for row in (range(4), range(4, 8))])

# %% [markdown]
# `degrade` makes the LQ image. It makes **two passes** of
#
# $$ \text{blur} \;\to\; \text{resize} \;\to\; \{\text{Gaussian noise},\ \text{Poisson noise}\}\ \text{in random order}, $$
#
# followed by a last resize to half the size and rounding to 8 bit. One time in ten, all steps are shuffled. It returns the image *and* the list of what it
# drew.
#
# Why so wild? The microscope that will be used is unknown. If the training distortions cover more than reality, reality is just one more sample.
# Note that noise comes *before* the last resize: in the LQ image it is no longer white but has a grain, as in files that some software has rescaled.

# %%
from paper_semnet.data import degrade

low, record = degrade(sheet[0], np.random.default_rng(5), Degradation())
print(sheet[0].shape, "->", low.shape)
for operation, values in record:
    print(f"  {operation:9s}", {k: np.round(v, 2).tolist() if k != "method" else v for k, v in values.items()})

drawn = [step for k in range(300) for step in degrade(sheet[k % 8][:64, :64], np.random.default_rng((1, k)), Degradation())[1]]
sigmas = [v["sigma"] for name, v in drawn if name == "gaussian"]
lambdas = [np.log10(v["lam"]) for name, v in drawn if name == "poisson"]
factors = [v["factor"] for name, v in drawn if name == "resize"]
figure, axes = plt.subplots(1, 3, figsize=(9, 2.2))
for axis, values, label in zip(axes, (sigmas, lambdas, factors), (r"Gaussian $\sigma$ (grey levels)", r"Poisson $\log_{10}\lambda$", "resize factor")):
    axis.hist(values, bins=24, color="0.5")
    axis.set_xlabel(f"{label}, {len(values)} draws")
plt.show()

# %% [markdown]
# Four pairs. The LQ image is shown with its pixels enlarged; below each pair stands what was drawn. Before you read it, guess which noise dominates.


# %%
def describe(record):
    words = {"gaussian": r"$\sigma$={sigma}", "poisson": r"$\lambda$={lam:.0f}", "resize": "×{factor:.2f}", "blur": "blur {width:.1f} px"}
    values = [(name, v | ({"width": np.mean(v["variances"]) ** 0.5} if name == "blur" else {})) for name, v in record]
    return ", ".join(words[name].format(**v) for name, v in values if name in words).replace(", blur", "\nblur")


figure, axes = plt.subplots(2, 4, figsize=(9.5, 5.6))
for column, k in zip(axes.T, (0, 1, 4, 5)):
    low, record = degrade(sheet[k], np.random.default_rng((7, k)), Degradation())
    column[0].imshow(low, vmin=0, vmax=1)
    column[1].imshow(sheet[k], vmin=0, vmax=1)
    column[0].set_title(f"LQ {low.shape[0]}×{low.shape[1]}: {sheet.families[k]}")
    column[1].set_title(describe(record), fontsize=8, y=-0.24)
    for axis in column:
        axis.axis("off")
plt.show()

# %% [markdown]
# ## 3 The network
#
# SEMNet is a *residual-in-residual dense network*, built from the inside out:
#
# * **RDB** (residual dense block): five 3×3 convolutions. Each one sees the block's input **and all earlier outputs** (hence "dense"):
#   $x_k = \mathrm{LReLU}\big(W_k * [x, x_1, \dots, x_{k-1}]\big)$ for $k\le4$, and the block returns $x + 0.2\, W_5*[x,x_1,\dots,x_4]$.
# * **RRDB**: three RDBs in a row and another shortcut, $x + 0.2\,\mathrm{RDB}_3(\mathrm{RDB}_2(\mathrm{RDB}_1(x)))$.
# * **Trunk and tail**: a first convolution, six RRDBs, a convolution, a long shortcut; then each pixel is repeated 2×2 and two convolutions draw the fine
# image.
#
# $\mathrm{LReLU}(u)=\max(u, 0.2u)$. The factor 0.2 and the shortcuts make each block start close to the identity, so that a deep stack can be trained from
# the start.


# %%
def chain(axis, labels, colours):
    """Boxes in a row, arrows between them."""
    for k, (label, colour) in enumerate(zip(labels, colours)):
        axis.text(k, 0, label, ha="center", va="center", fontsize=8, bbox=dict(boxstyle="round,pad=0.45", fc=colour, ec="0.3"))
        if k:
            axis.annotate("", (k - 0.27, 0), (k - 0.73, 0), arrowprops=dict(arrowstyle="->", color="0.3"))
    axis.set(xlim=(-0.6, len(labels) - 0.4), ylim=(-0.7, 1.1))
    axis.axis("off")


def shortcut(axis, start, end, height, colour):
    """A curved arrow over (or, negative height, under) the chain."""
    side = 0.22 * np.sign(height)
    style = dict(arrowstyle="->", color=colour, connectionstyle=f"arc3,rad={-height / (end - start)}")
    axis.annotate("", (end, side), (start, side), arrowprops=style)


# %%
grey, blue, orange, green, white = "0.92", "lightsteelblue", "moccasin", "honeydew", "white"
figure, axes = plt.subplots(3, 1, figsize=(12, 5.4))

chain(
    axes[0],
    ["$x$", "conv1\nLReLU", "conv2\nLReLU", "conv3\nLReLU", "conv4\nLReLU", "conv5", "×0.2", "+", "RDB$(x)$"],
    [grey] + [blue] * 5 + [orange] * 2 + [grey],
)
for start in range(4):
    for end in range(start + 2, 6):
        shortcut(axes[0], start, end, 0.2 * (end - start), f"C{start}")
shortcut(axes[0], 0, 7, -0.5, "k")
axes[0].set_title("RDB: every convolution sees all earlier maps (coloured), the input is added back (black)")

chain(axes[1], ["$x$", "RDB 1", "RDB 2", "RDB 3", "×0.2", "+", "RRDB$(x)$"], [grey] + [blue] * 3 + [orange] * 2 + [grey])
shortcut(axes[1], 0, 5, 0.8, "k")
axes[1].set_title("RRDB: three RDBs and one more shortcut")

names = ["LQ", "conv\nfirst", *[f"RRDB\n{k}" for k in range(1, 7)], "conv\nbody", "+", "repeat\n2×2", "conv up\nLReLU", "conv\nlast", "HQ"]
chain(axes[2], names, [grey, green, *[blue] * 6, green, orange, white, green, green, grey])
shortcut(axes[2], 1, 9, 1.2, "k")
axes[2].set_title("SEMNet: one long shortcut; the sampling is doubled only at the end, where it costs two convolutions")
plt.show()

# %% [markdown]
# The abstract counts 94 convolutions and 19 LeakyReLU functions. Does our reading give the same numbers?
# Count layers instead of trusting: 19 only comes out if the *one* activation object of a block is counted once, although it is used four times.

# %%
from collections import Counter

from paper_semnet.generator import build_generator, receptive_radius

network = build_generator(Config.paper())
convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
groups = Counter("dense blocks" if "rdb" in layer.name else layer.name for layer in convolutions)
weights = Counter()
for layer in convolutions:
    weights["dense blocks" if "rdb" in layer.name else layer.name] += layer.count_params()
print(f"{'part':14s}{'convolutions':>13s}{'parameters':>13s}")
for part, number in groups.items():
    print(f"{part:14s}{number:13d}{weights[part]:13,d}")
print(f"{'total':14s}{len(convolutions):13d}{network.count_params():13,d}")
print("LeakyReLU layers:", sum(isinstance(layer, keras.layers.LeakyReLU) for layer in network.layers))

print(f"\n{'preset':8s}{'RRDBs':>7s}{'width':>7s}{'growth':>8s}{'parameters':>13s}{'reach (LQ px)':>15s}")
for name in ("paper", "small", "tiny"):
    c = getattr(Config, name)()
    print(f"{name:8s}{c.blocks:7d}{c.features:7d}{c.growth:8d}{build_generator(c).count_params():13,d}{receptive_radius(c):15d}")

# %% [markdown]
# ### How far does it see?
#
# One 3×3 convolution looks one pixel around, so $L$ of them in a row look $L$ pixels around. After the doubling, two of them cover one LQ pixel.
# For $B$ RRDBs the reach is $1 + 15B + 1 + 1$ LQ pixels: 93 for the paper, 18 for the `tiny` preset.
#
# Measure it: the gradient of **one** output pixel with respect to **all** input pixels shows which inputs can change it.
# Outside the dashed square it is exactly zero. Inside, most of it sits close to the centre: the *effective* field is far smaller than the possible one.

# %%
tiny = build_generator(Config.tiny())
image = tf.Variable(tf.random.uniform((1, 61, 61, 1), seed=1))
with tf.GradientTape() as tape:
    output = tiny(image)[0, 60, 60, 0]
influence = np.abs(tape.gradient(output, image).numpy()[0, ..., 0])

distance = np.maximum(*np.abs(np.mgrid[-30:31, -30:31]))  # in pixels, counted by the larger coordinate
share = [influence[distance <= r].sum() / influence.sum() for r in range(31)]
print("farthest input with any influence:", distance[influence > 0].max(), "pixels; formula:", receptive_radius(Config.tiny()))
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
shown = axes[0].imshow(np.log10(influence / influence.max() + 1e-30), cmap="magma", vmin=-24)
figure.colorbar(shown, label=r"$\log_{10}$ influence")
axes[0].add_patch(plt.Rectangle((11.5, 11.5), 37, 37, fill=False, ec="w", ls="--"))
axes[0].set_title("which inputs one output pixel depends on")
axes[1].plot(share, "k.-")
axes[1].axvline(receptive_radius(Config.tiny()), ls="--", color="grey")
axes[1].set(xlabel="distance in LQ pixels", ylabel="share of all influence within", xlim=(0, 22), ylim=(0, 1.03))
plt.show()

# %% [markdown]
# ## 4 The losses
#
# $$ L = 1.0\,L_1 + 0.1\,L_\mathrm{hist} + 0.01\,L_\mathrm{TV} $$
#
# with $y$ the truth and $\hat y$ the network's output. Each term knows something that the others do not.
#
# ### 4.1 $L_1$: be right, pixel by pixel
#
# $$ L_1 = \frac1N\sum_i |y_i-\hat y_i| $$

# %%
import inspect

from paper_semnet import losses

print(inspect.getsource(losses.l1))

guess = np.linspace(0, 1, 201)
plt.figure(figsize=(6.5, 2.6))
for p, style in ((0.3, "-"), (0.45, "--")):
    absolute = (1 - p) * np.abs(0.2 - guess) + p * np.abs(0.8 - guess)
    square = (1 - p) * (0.2 - guess) ** 2 + p * (0.8 - guess) ** 2
    plt.plot(guess, absolute, "C0" + style, label=f"absolute error, P(bright)={p}")
    plt.plot(guess, square, "C1" + style, label=f"squared error, P(bright)={p}")
    plt.plot(guess[absolute.argmin()], absolute.min(), "C0o")
    plt.plot(guess[square.argmin()], square.min(), "C1o")
plt.xlabel("grey level the network outputs")
plt.ylabel("expected loss")
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# Suppose the noise leaves it open whether a pixel is dark (0.2) or bright (0.8). The squared error is smallest at the **mean**, a grey that never occurs:
# blur. The absolute error is smallest at the **median**, the likelier of the two: sharper, but *it takes sides*. With weak evidence an $L_1$ network can
# draw a sharp edge in the wrong place. Remember this for section 6.
#
# ### 4.2 $L_\mathrm{TV}$: do not wiggle
#
# $$ L_\mathrm{TV} = \big\langle|\hat y_{r+1,c}-\hat y_{r,c}|\big\rangle + \big\langle|\hat y_{r,c+1}-\hat y_{r,c}|\big\rangle $$
#
# It never looks at the truth. Its charm: a step from 0 to 1 costs the same whether it is sharp or smooth, whereas noise is expensive.
# Its flaw: fine texture is expensive too. Hence the small weight.

# %%
print(inspect.getsource(losses.total_variation))

t = np.arange(64)
step = (t >= 32).astype(np.float32)
signals = {
    "sharp step": step,
    "smooth step": 1 / (1 + np.exp(-(t - 31.5) / 3)),
    "noisy step": step + 0.08 * rng.standard_normal(64),
    "fine texture": 0.5 + 0.15 * (-1.0) ** t,
}
figure, axes = plt.subplots(1, 4, figsize=(10, 1.9), sharey=True)
for axis, (name, signal) in zip(axes, signals.items()):
    axis.step(t, signal, "k", lw=1)
    axis.set_title(f"{name}: $\\Sigma|\\Delta|$ = {np.abs(np.diff(signal)).sum():.1f}")
plt.show()

# %% [markdown]
# ### 4.3 $L_\mathrm{hist}$: have the right grey levels
#
# An ordinary histogram puts each pixel into one bin: a step function, whose gradient is zero almost everywhere. A **soft** histogram lets each pixel count a
# little for every bin, through a smooth kernel around the bin centre $c_k$. The two histograms are then compared by their Hellinger distance:
#
# $$ h_k=\sum_i \frac{1}{1+\big((x_i-c_k)/\tau\big)^2},\qquad H_k=\frac{h_k}{\sum_j h_j},\qquad
# L_\mathrm{hist}=\frac{1}{\sqrt2}\Big(\sum_k\big(\sqrt{H_k(\hat y)}-\sqrt{H_k(y)}\big)^2\Big)^{1/2}\in[0,1], $$
#
# with 64 bins and $\tau=0.02$. This formula is this project's choice: the abstract names a histogram loss but its reference list is not available.

# %%
print(inspect.getsource(losses.soft_histogram))

truth = sheet[0][:128, :128]
versions = {
    "truth": truth,
    "noise 25/255": truth + rng.normal(0, 25 / 255, truth.shape),
    "shift +0.05": truth + 0.05,
    "blur 2 px": cv2.GaussianBlur(truth, (0, 0), 2),
}
versions["shuffled"] = rng.permutation(truth.ravel()).reshape(truth.shape)
batch = {name: np.clip(image, 0, 1).astype(np.float32)[None, ..., None] for name, image in versions.items()}
distance = {name: float(losses.histogram(batch["truth"], image)) for name, image in batch.items()}
show([[image[0, ..., 0] for image in batch.values()]], [[f"{name}\n$L_{{hist}}$={distance[name]:.3f}" for name in batch]])

plt.figure(figsize=(8, 2.6))
for k, (name, image) in enumerate(batch.items()):
    plt.plot((np.arange(64) + 0.5) / 64, losses.soft_histogram(image)[0, 0], "k" if not k else f"C{k - 1}", ls="--" if name == "shuffled" else "-", label=name)
plt.xlabel("grey level")
plt.ylabel("soft histogram $H_k$")
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# Noise fills the valley between dark carbon and bright gold; the histogram term sees that, and so it fights the greyish compromise that a timid network
# likes. But the shuffled image, complete nonsense, has a histogram loss of zero. The term must never work alone.
#
# ### 4.4 All three, weighted, against four kinds of damage
#
# The scale is logarithmic above 0.001 and linear below, so that zero is on it.


# %%
def weighted(image):
    terms = losses.losses(batch["truth"], np.clip(image, 0, 1).astype(np.float32)[None, ..., None], Config())
    return [float(value) * weight for value, weight in terms.values()]


noise, order = rng.standard_normal(truth.shape), rng.permutation(truth.size)


def shuffled(amount):
    image, moved = truth.ravel().copy(), order[: int(amount * truth.size)]
    image[np.sort(moved)] = truth.ravel()[moved]
    return image.reshape(truth.shape)


# %%
damages = {
    "noise (grey levels)": (np.linspace(0, 30, 7), lambda a: truth + noise * a / 255),
    "brightness shift": (np.linspace(-0.1, 0.1, 9), lambda a: truth + a),
    "blur (px)": (np.linspace(0, 3, 7), lambda a: cv2.GaussianBlur(truth, (0, 0), a) if a else truth),
    "share of pixels shuffled": (np.linspace(0, 1, 6), shuffled),
}
figure, axes = plt.subplots(1, 4, figsize=(12, 2.8), sharey=True)
for axis, (name, (amounts, damage)) in zip(axes, damages.items()):
    axis.plot(amounts, [weighted(damage(a)) for a in amounts], ".-", label=["$1.0\\,L_1$", "$0.1\\,L_{hist}$", "$0.01\\,L_{TV}$"])
    axis.set_xlabel(name)
    axis.set_yscale("symlog", linthresh=1e-3)
axes[3].legend(loc="lower right", bbox_to_anchor=(1, 0.02), fontsize=8)
axes[0].set_ylabel("weighted loss")
axes[0].set_ylim(0, 0.3)
plt.show()

# %% [markdown]
# Read it column by column:
#
# * **noise**: all terms rise; TV rises from a value that is not zero, because the specimen itself has edges;
# * **shift**: $L_1$ and the histogram see it, TV is blind to it;
# * **blur**: TV *falls*. It rewards blur, and the other two must hold against it;
# * **shuffling**: $L_1$ and TV object, the histogram term stays at zero.
#
# A loss acts through its gradient, not through its value. So compare the gradients of the weighted terms, here at the noisy image:

# %%
noisy = tf.Variable(batch["noise 25/255"])
for name in ("L1", "L_hist", "L_TV"):
    with tf.GradientTape() as tape:
        value, weight = losses.losses(batch["truth"], noisy, Config())[name]
        value = value * weight
    print(f"{name:7s} weighted value {float(value):.4f}   norm of its gradient {float(tf.norm(tape.gradient(value, noisy))):.5f}")

# %% [markdown]
# ## 5 Training
#
# One step of the algorithm:
#
# 1. take a batch of pairs, compute $L$ and its gradient $g$ with respect to the weights $w$;
# 2. let Adam update $w$ (it divides the averaged gradient by its own typical size, so each weight moves by about the learning rate $\eta$ per step);
# 3. update a running average of the weights, $a\leftarrow\beta a+(1-\beta)w$. The average $a$ is less jittery than $w$ and is the final product.
#
# `SEMNet.train_step` does exactly these three things:

# %%
from paper_semnet.train import SEMNet

print(inspect.getsource(SEMNet.train_step))

# %% [markdown]
# The paper: 544,000 steps of 4 images, $\eta=10^{-4}$, halved after 200,000 and 400,000 steps. That takes hours on a large GPU.
# We take the `tiny` preset (one RRDB, 50,000 weights), a larger $\eta$, 1400 steps, and milder images: one pass of distortions instead of two.
# The result will not be good, but good enough to see how learning works.
#
# The held-out images come from other seeds than the training images: the network has never seen these specimens.
# The opponent is the paper's: bicubic enlargement, then Gaussian blur. We give it an unfair advantage and choose its $\sigma$ on the held-out images
# themselves.

# %%
import time

from common.classical import upscale
from common.data import batches
from common.metrics import psnr, ssim
from paper_semnet.data import test_pairs, training_pairs

config = replace(Config.tiny(), batch=8, specimens=16, steps=1400, learning_rate=2e-3, halve_at=(700, 1100))
config = replace(config, degradation=replace(Degradation(), passes=1))
pairs = training_pairs(config)
held_out = test_pairs(SimulatedImages(7, 8, (192, 192)), config.degradation, 7)
lows = np.stack([low for low, _ in held_out])[..., None]


def mean_score(score, images):
    return np.mean([score(high, image) for (_, high), image in zip(held_out, images)])


blurs = {sigma: [upscale(low, 2, sigma) for low, _ in held_out] for sigma in (0, 0.5, 1, 1.5, 2, 2.5)}
for sigma, images in blurs.items():
    print(f"bicubic + Gaussian {sigma:3}:  PSNR {mean_score(psnr, images):.2f} dB   SSIM {mean_score(ssim, images):.3f}")
best_sigma = max(blurs, key=lambda sigma: mean_score(psnr, blurs[sigma]))

# %% [markdown]
# The loop. Nothing is hidden in it: get a batch, make a step, now and then look at the held-out images.

# %%
trainer = SEMNet(config)
train_step = tf.function(trainer.train_step)  # compiled once, about four times as fast
average = trainer.networks["final"]

history, checks, snapshots = [], [], {0: average(lows).numpy()[..., 0]}
start = time.perf_counter()
for step, batch_of_pairs in enumerate(batches(pairs, pairs.shapes, config.batch), 1):
    history.append({name: float(value) for name, value in train_step(batch_of_pairs).items()})
    if step in (20, 50) or step % 100 == 0:
        restored = average(lows).numpy()[..., 0]
        checks.append((step, mean_score(psnr, restored), mean_score(ssim, restored)))
        snapshots[step] = restored
    if step == config.steps:
        break
print(f"{step} steps in {time.perf_counter() - start:.0f} s; held-out PSNR {checks[-1][1]:.2f} dB, SSIM {checks[-1][2]:.3f}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.1))
for name in ("loss", "L1*w", "L_hist*w", "L_TV*w"):
    values = np.array([row[name] for row in history])
    axes[0].semilogy(np.arange(25, len(values) - 24), np.convolve(values, np.ones(50) / 50, "valid"), label=name.replace("*w", ", weighted"))
axes[0].set(xlabel="step", title="training loss, mean of 50 steps", ylim=(3e-5, None))
axes[0].legend(fontsize=8, ncols=2, loc="lower center")
steps, *scores = zip(*checks)
for axis, values, score, name in zip(axes[1:], scores, (psnr, ssim), ("PSNR in dB", "SSIM")):
    axis.plot(steps, values, "k.-", label="network (average of weights)")
    axis.axhline(mean_score(score, blurs[0]), color="C1", ls=":", label="bicubic")
    axis.axhline(mean_score(score, blurs[best_sigma]), color="C1", label=f"bicubic + Gaussian {best_sigma}")
    axis.set(xlabel="step", title=f"held-out images: {name}")
axes[1].set_ylim(mean_score(psnr, blurs[0]) - 1.5, max(scores[0]) + 0.4)
axes[1].legend(fontsize=8)
plt.show()

# %% [markdown]
# Learning comes in stages: first the brightness, then, within a hundred steps, something like a blur that scores about as well as the classical one; from
# there on, slowly, filters that follow edges. The training loss itself looks almost flat then, because its spread between easy and hard batches is larger
# than the progress. Judge progress on a fixed held-out set.

# %%
rows, titles = [], []
for k in (1, 3, 5):
    low, high = held_out[k]
    columns = {"LQ": np.kron(low, np.ones((2, 2))), f"bicubic + G {best_sigma}": blurs[best_sigma][k]}
    columns |= {"step 0": snapshots[0][k], "step 50": snapshots[50][k], f"step {step}": snapshots[step][k], "truth": high}
    rows.append([image[32:160, 32:160] for image in columns.values()])
    titles.append([name if name == "truth" else f"{name}\n{psnr(high, image.astype(np.float32)):.1f} dB" for name, image in columns.items()])
show(rows, titles, size=1.6)

# %% [markdown]
# ## 6 Evaluation
#
# ### 6.1 What is measured
#
# $$ \mathrm{PSNR} = 10\log_{10}\frac{255^2}{\frac1N\sum_i(y_i-\hat y_i)^2}\ \text{dB},\qquad
# \mathrm{SSIM} = \Big\langle\frac{(2\mu_y\mu_{\hat y}+C_1)\,(2\sigma_{y\hat y}+C_2)}
# {(\mu_y^2+\mu_{\hat y}^2+C_1)\,(\sigma_y^2+\sigma_{\hat y}^2+C_2)}\Big\rangle_\text{windows}. $$
#
# PSNR is the mean squared error on a logarithmic scale. SSIM compares local means $\mu$, variances $\sigma^2$ and the covariance $\sigma_{y\hat y}$.
# Published numbers can only be compared when all conventions agree; ours are these:

# %%
from common.metrics import CONVENTION, bootstrap_interval

print(CONVENTION)

# %% [markdown]
# ### 6.2 Which network
#
# The project can ship weights of the `small` preset, trained for longer and on the full distortions of section 2. If they are there, `restore` uses them.
# If not, we use the network from section 5, and test it on the milder distortions it was trained for.

# %%
from common.papers import paper
from common.restoring import find_weights, restore, restore_array

semnet = paper("semnet")
try:
    card = find_weights(semnet, "small")[1]
    print(f"Using the shipped weights 'small' ({card['config']['blocks']} RRDBs, {card['config']['steps']:,} steps).")
    degradation = Degradation()
    restoring = lambda low: restore(np.rint(255 * low).astype(np.uint8), "semnet") / np.float32(255)  # noqa: E731
except FileNotFoundError:
    print("No shipped weights 'small' found: using the tiny network trained above. Expect less than the method can do.")
    degradation = config.degradation
    restoring = lambda low: restore_array(255 * low, semnet, average, config, dtype="uint8") / 255  # noqa: E731

# %% [markdown]
# ### 6.3 Against tuned classical methods
#
# The rivals: bicubic alone; bicubic and a Gaussian that adapts to the estimated noise; non-local means (averages similar patches), plain and behind a
# transform that makes Poisson noise uniform ("stabilised"). Each has one strength, tuned on separate images. Test specimens are new again.

# %%
from common.classical import METHODS, tune

tuning = test_pairs(SimulatedImages(8, 8, (128, 128)), degradation, 8)
strengths = {name: tune(method, candidates, tuning, 2, psnr) for name, (method, candidates) in METHODS.items()}

test = test_pairs(SimulatedImages(9, 16, (192, 192)), degradation, 9)
outputs = {name: [METHODS[name][0](low, 2, k) for low, _ in test] for name, k in strengths.items()}
outputs["SEMNet"] = [restoring(low) for low, _ in test]
scores = {name: np.array([[psnr(high, image), ssim(high, image)] for image, (_, high) in zip(images, test)]) for name, images in outputs.items()}
rival = max(strengths, key=lambda name: scores[name][:, 0].mean())

print(f"{'method':30s}{'PSNR':>7s}{'SSIM':>8s}   PSNR relative to SEMNet, 95 % interval")
for name, values in scores.items():
    ends = bootstrap_interval(values[:, 0] - scores["SEMNet"][:, 0])
    print(f"{name:30s}{values[:, 0].mean():7.2f}{values[:, 1].mean():8.3f}", "" if name == "SEMNet" else "  {:+.2f} .. {:+.2f} dB".format(*ends))
print("best classical method by PSNR:", rival)

# %% [markdown]
# With 16 images the intervals are wide. An interval that contains 0 means: these images do not decide. The paper's own test had 25.
# In the pictures, look for detail that the truth has and SEMNet lacks, and for texture that SEMNet shows and the truth does not have.

# %%
order = np.argsort(scores["SEMNet"][:, 0] - scores[rival][:, 0])
rows, titles = [], []
for k, remark in ((order[-1], "largest gain"), (order[len(order) // 2], "typical"), (order[0], "smallest gain")):
    low, high = test[k]
    rows.append([np.kron(low, np.ones((2, 2)))[32:160, 32:160], *(outputs[name][k][32:160, 32:160] for name in (rival, "SEMNet")), high[32:160, 32:160]])
    titles.append([f"LQ, {remark}", *(f"{name}\n{scores[name][k, 0]:.1f} dB, {scores[name][k, 1]:.2f}" for name in (rival, "SEMNet")), "truth"])
show(rows, titles, size=2)

# %% [markdown]
# ### 6.4 Score against noise level
#
# An average over all distortions hides where a method is useful. Here the only damage is the halved sampling and detector noise of known strength.

# %%
levels = (0, 3, 6, 10, 15, 20, 25)
truths = [SimulatedImages(10, 8, (128, 128))[k] for k in range(8)]
curves = {name: [] for name in outputs}
for sigma in levels:
    rng = np.random.default_rng(sigma)
    clean = [cv2.resize(high, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for high in truths]
    noisy = [np.clip(low + rng.normal(0, sigma / 255, low.shape), 0, 1).astype(np.float32) for low in clean]
    for name in curves:
        method = restoring if name == "SEMNet" else lambda low: METHODS[name][0](low, 2, strengths[name])  # noqa: B023
        curves[name].append(np.mean([psnr(high, method(low)) for low, high in zip(noisy, truths)]))
plt.figure(figsize=(7, 3.4))
for name, values in curves.items():
    plt.plot(levels, values, "k.-" if name == "SEMNet" else ".--", label=name)
plt.xlabel(r"detector noise $\sigma$ of the LQ image (grey levels)")
plt.ylabel("mean PSNR in dB")
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# On nearly clean images plain bicubic is hard to beat, and may win: a network trained on heavy distortions undoes noise and blur that are not there.
# Its advantage, if any, lies where the noise is strong. **Do not use a denoiser on an image that needs none.**
#
# ### 6.5 Make it fail: an image of nothing
#
# A flat, empty field and noise. The right answer is a flat grey. The last column has its contrast stretched, so that small leftovers become visible.

# %%
empty = np.full((64, 64), 0.5, np.float32)
fields = {r"detector, $\sigma=25$": empty + rng.normal(0, 25 / 255, empty.shape), r"counting, $\lambda=100$": rng.poisson(100 * empty) / 100}
rows, titles = [], []
for name, field in fields.items():
    field = np.clip(field, 0, 1).astype(np.float32)
    output, smooth = restoring(field), upscale(field, 2, 2.0)
    rows.append([np.kron(field, np.ones((2, 2))), smooth, output, 0.5 + (output - output.mean()) / 0.2])
    titles.append(
        [f"only {name}\nstd {field.std():.3f}", f"bicubic + Gaussian 2\nstd {smooth.std():.3f}", f"SEMNet\nstd {output.std():.3f}", "SEMNet, contrast ×5"]
    )
show(rows, titles)

# %% [markdown]
# Noise that happens to look like a blob *becomes* a blob: smooth, plausible and false. The single-pixel flicker that would have warned you is gone.
# A restored image must never be shown without its input, and a feature counts as found only if it survives in a second, independent scan.
#
# ### 6.6 Make it fail: structure below the resolution
#
# Lines with a period of 3 HQ pixels have $f = 2/3$ cycles per LQ pixel, above the limit of $1/2$. Section 1.5 predicts a false $1-2/3=1/3$ cycles per LQ
# pixel: lines of **6** HQ pixels. Lines of 8 HQ pixels are below the limit and should come out right.

# %%
rows, titles = [], []
for period in (8, 3):
    lines = np.tile(0.5 + 0.4 * np.cos(2 * np.pi * np.arange(128) / period), (128, 1)).astype(np.float32)
    low = cv2.resize(lines, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    low = np.clip(low + rng.normal(0, 8 / 255, low.shape), 0, 1).astype(np.float32)
    output = restoring(low)
    spectrum = np.abs(np.fft.rfft(output.mean(0) - output.mean()))
    found = 128 / spectrum.argmax()
    rows.append([image[:48, :48] for image in (lines, np.kron(low, np.ones((2, 2))), output)])
    titles.append([f"truth: period {period} px", "LQ (pixels enlarged)", f"SEMNet: period {found:.1f} px"])
show(rows, titles)

# %% [markdown]
# The second restoration is regular, plausible and wrong by a factor of two. It is not the network's fault: the information was lost by the scan.
# No loss, no training and no larger network can decide between two specimens that give the same LQ image. A network only guesses what is *usual*.
#
# **What to take home.** (1) Learned restoration is trained estimation under an assumed distortion: it is as good as the assumption. (2) It may beat classical
# filters in noise; measure by how much, on data like yours. (3) It creates no information. Use it to see and to segment, not to prove that something exists.

# %% [markdown]
# ## 7 Exercises
#
# **1 (easy).** At 50 pA and 0.5 µs per pixel, how many electrons hit a pixel? What is the best possible SNR, and what dwell time gives an SNR of 40?
# *Hint:* $n=It/e$, $\mathrm{SNR}=\sqrt n$, $e=1.6\cdot10^{-19}$ C.
#
# **2 (easy).** In the plot of section 1.3 the clipped variance at $x=1$ is about a third of $x/\lambda$. Show that it should be.
# *Hint:* for large $\lambda$ the count is nearly Gaussian; the clipped variable is $\min(0,g)$ with $g\sim\mathcal N(0,s^2)$, and
# $\mathrm E[\min(0,g)]=-s/\sqrt{2\pi}$, $\mathrm E[\min(0,g)^2]=s^2/2$.
#
# **3 (easy).** The paper crops the network's view to small patches for training. How large is the patch of the paper preset (`Config.paper().lq_patch`)
# compared to its reach of 93 pixels, and what does this mean for the outermost pixels? *Hint:* section 3, effective field; the padding is zeros.
#
# **4 (medium).** Derive the number 4,391,617 by hand. *Hint:* a convolution from $a$ to $b$ maps has $9ab+b$ parameters; the inputs of an RDB's
# convolutions grow by 32 maps each, starting from 64.
#
# **5 (medium).** Train once with `histogram_weight=0`, once with `tv_weight=0.1`, from the same seed (`keras.utils.set_random_seed`). What changes in the
# pictures, in PSNR, in SSIM? *Hint:* `replace(config, ...)` and the loop of section 5; compare `blur` in section 4.4.
#
# **6 (medium).** Replace the Hellinger distance by the earth mover's distance (`histogram_kind="emd"`). Plot both against the brightness shift and explain
# why the weight 0.1 cannot simply be kept. *Hint:* compare the gradients as at the end of section 4.
#
# **7 (hard).** A specialist: train with `degradation=replace(Degradation(), passes=1, blur_probability=0, resize_down_probability=0,
# resize_up_probability=0)`, then repeat section 6.4 with both networks. Who wins where, and which network would you give to a stranger?
# *Hint:* what does the generalist have to assume about a clean image?
#
# **8 (hard).** The abstract reports +0.1379 in SSIM together with only +0.212 dB in PSNR. Find a distortion of the *test pair* that the network cannot
# repair and that leaves exactly such a picture. *Hint:* add a small offset or a gain to all outputs, or shift them by half a pixel, and compute both scores
# of a well and a badly denoised image. Which score saturates?
