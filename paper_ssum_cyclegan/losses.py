"""The losses of the SSUM CycleGAN, one function per term. Images are (batch, height, width, 1) float32 in [-1, 1]; means are over batch, pixels or patches.

x is an optical image, y an SEM image, G: x -> y, F: y -> x. Sources: eq. 1 and 2 of the paper; what they leave open is CycleGAN's (Zhu et al. 2017).
"""

from __future__ import annotations

import keras
from keras import ops


def _cross_entropy(target: float, logits):
    return ops.mean(keras.losses.binary_crossentropy(ops.full_like(logits, target), logits, from_logits=True))


# --- Adversarial ---


def discriminator(on_real, on_fake, kind: str = "log"):
    """Half of -V of eq. 1, -E log D(real) - E log(1 - D(fake)), from logits; "least_squares": half of E (D(real) - 1)^2 + E D(fake)^2 (Mao et al. 2017)."""
    if kind == "least_squares":
        return 0.5 * (ops.mean((on_real - 1) ** 2) + ops.mean(on_fake**2))
    return 0.5 * (_cross_entropy(1.0, on_real) + _cross_entropy(0.0, on_fake))


def adversarial(on_fake, kind: str = "log"):
    """-E log D(fake): the form of eq. 1's minimum over G that still has a gradient where D is sure (Goodfellow et al. 2014); or E (D(fake) - 1)^2."""
    return ops.mean((on_fake - 1) ** 2) if kind == "least_squares" else _cross_entropy(1.0, on_fake)


# --- Between images ---


def l1(a, b):
    """mean |a - b|: both terms of eq. 2, and identity."""
    return ops.mean(ops.abs(a - b))


def shift_l1(g, y, shift: int):
    """mean over the batch of min over whole shifts of up to `shift` pixels of mean |g - shifted y|, over the pixels that every shift leaves inside y."""
    height, width = g.shape[1:3]
    inner = g[:, shift : height - shift, shift : width - shift]
    errors = [
        ops.mean(ops.abs(inner - y[:, top : top + inner.shape[1], left : left + inner.shape[2]]), axis=(1, 2, 3))
        for top in range(2 * shift + 1)
        for left in range(2 * shift + 1)
    ]
    return ops.mean(ops.min(ops.stack(errors), axis=0))


def lowres_l1(g, y):
    """mean |g - y| of means over 4 x 4 pixels."""
    return l1(*(ops.average_pool(image, 4) for image in (g, y)))


def roughness(flow):
    """mean of the squared differences of neighbours of a flow (batch, height, width, 2), down and across."""
    return ops.mean((flow[:, 1:] - flow[:, :-1]) ** 2) + ops.mean((flow[:, :, 1:] - flow[:, :, :-1]) ** 2)
