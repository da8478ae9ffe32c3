"""The conditional PatchGAN: does a candidate go with this distorted image? One score for each patch of 70 x 70 pixels (C1; pix2pix, Isola et al. 2017)."""

from __future__ import annotations

import keras
from keras import initializers, layers

from .config import Config

SLOPE = 0.2  # of leaky rectifiers; not stated, pix2pix's
DEVIATION = 0.02  # of kernels at the start (C1)
MOMENTUM, EPSILON = 0.95, 1e-3  # of batch normalisation (C1)


def _kernels() -> initializers.Initializer:
    """One for each layer: an initialiser keeps the seed that it was made with."""
    return initializers.RandomNormal(stddev=DEVIATION)


def build_discriminator(config: Config) -> keras.Model:
    """[distorted image, candidate], both (batch, height, width, 1) and standardised by the first -> logits (batch, height / 8, width / 8, 1) float32.

    2,764,545 parameters from 64 channels.
    """
    images = [keras.Input((None, None, 1), name=name) for name in ("distorted", "candidate")]
    x = layers.Concatenate(name="pair")(images)
    for k, (width, strides) in enumerate(((1, 2), (2, 2), (4, 2), (8, 1)), 1):
        x = layers.Conv2D(width * config.discriminator_base, 4, strides, padding="same", use_bias=False, kernel_initializer=_kernels(), name=f"conv{k}")(x)
        if k > 1:
            x = layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=f"norm{k}")(x)
        x = layers.LeakyReLU(SLOPE, name=f"relu{k}")(x)
    return keras.Model(images, layers.Conv2D(1, 4, padding="same", kernel_initializer=_kernels(), name="logits", dtype="float32")(x), name="discriminator")
