"""A network that registers an output with its target, learned together with the generators (RegGAN, Kong et al. 2021); an option for pairs aligned by hand."""

from __future__ import annotations

import keras
from keras import initializers, layers

from .parts import SLOPE

CHANNELS = (16, 32, 32)  # at full, half and quarter size; RegGAN's network is wider


def _convolution(x, filters: int, name: str, strides: int = 1):
    x = layers.Conv2D(filters, 3, strides, padding="same", kernel_initializer="he_normal", name=name)(x)
    return layers.LeakyReLU(negative_slope=SLOPE, name=f"{name}_act")(x)


def build_registration(name: str = "ssum_registration") -> keras.Model:
    """[output, target], (batch, height, width, 1) float32 each -> flow (batch, height, width, 2) float32 in pixels, (down, right).

    For `common.layers.dense_warp` of the output. Sides must be multiples of 4. It starts near no displacement.
    """
    images = [keras.Input((None, None, 1), name=which) for which in ("output", "target")]
    x, finer = layers.Concatenate(name="both")(images), []
    for k, filters in enumerate(CHANNELS):
        x = _convolution(x, filters, f"down{k}", strides=2 if k else 1)
        finer.append(x)
    x = _convolution(finer.pop(), CHANNELS[-1], "middle")
    for k in reversed(range(len(CHANNELS) - 1)):
        x = layers.UpSampling2D(2, name=f"enlarge{k}")(x)
        x = _convolution(layers.Concatenate(name=f"join{k}")([x, finer.pop()]), CHANNELS[k], f"up{k}")
    start = initializers.RandomNormal(stddev=1e-3)
    return keras.Model(images, layers.Conv2D(2, 3, padding="same", kernel_initializer=start, dtype="float32", name="flow")(x), name=name)
