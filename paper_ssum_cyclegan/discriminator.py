"""The SSUM CycleGAN discriminators: 70 x 70 PatchGANs, logits of overlapping patches."""

from __future__ import annotations

import keras
from keras import initializers, layers

from common.layers import instance_normalization

from .config import Config
from .parts import DEVIATION, SLOPE

KERNEL = 4


def strides(config: Config) -> tuple[int, ...]:
    """Of the five convolutions. The text has stride 2 in the first four, which sees 94 x 94 pixels; 70 x 70, which it says too, needs 1 in the fourth."""
    return (2, 2, 2, 2 if config.literal_strides else 1, 1)


def receptive_field(config: Config) -> int:
    """Pixels across that one logit sees, normalisation aside: r <- (r - 1) stride + kernel, from the output."""
    field = 1
    for stride in reversed(strides(config)):
        field = (field - 1) * stride + KERNEL
    return field


def build_discriminator(config: Config, name: str = "ssum_discriminator") -> keras.Model:
    """(batch, height, width, 1) float32 in [-1, 1] -> logits (batch, rows, columns, 1) float32, 30 x 30 of 256 x 256, each of one patch.

    If `config.conditional` the images have two channels: what was converted, and what it became.
    """
    image = x = keras.Input((None, None, 1 + config.conditional), name="image")
    *hidden, last = strides(config)
    for k, stride in enumerate(hidden, 1):
        x = layers.ZeroPadding2D(1, name=f"pad{k}")(x)
        x = layers.Conv2D(
            config.discriminator_base * 2 ** (k - 1), KERNEL, stride, kernel_initializer=initializers.RandomNormal(stddev=DEVIATION), name=f"conv{k}"
        )(x)
        if k > 1:
            x = instance_normalization(name=f"norm{k}", dtype="float32")(x)
        x = layers.LeakyReLU(negative_slope=SLOPE, name=f"act{k}")(x)
    x = layers.ZeroPadding2D(1, name="pad_last")(x)
    x = layers.Conv2D(1, KERNEL, last, kernel_initializer=initializers.RandomNormal(stddev=DEVIATION), name="logits", dtype="float32")(x)
    return keras.Model(image, x, name=name)
