"""The SEM-GAN discriminator: five blocks that halve the image, a global average, two dense layers and a sigmoid."""

from __future__ import annotations

import keras
from keras import layers

from .config import Config
from .generator import LEAKY_SLOPE, convolution

BLOCKS = 5


def build_discriminator(config: Config) -> keras.Model:
    """Unconditional: (batch, height, width, 1) float32 in [0, 1] -> (batch, 1) float32, the probability that an image is a real high-magnification scan."""
    image = keras.Input((None, None, 1), name="image")
    width = config.discriminator_base
    x = convolution(image, width, "stem")
    for k in range(1, BLOCKS + 1):
        x = convolution(x, width, f"block{k}_conv1")
        width *= 2
        x = convolution(x, width, f"block{k}_conv2", strides=2)
    x = layers.GlobalAveragePooling2D(name="average", dtype="float32")(x)
    x = layers.Dense(width, dtype="float32", name="dense1")(x)
    x = layers.LeakyReLU(negative_slope=LEAKY_SLOPE, dtype="float32", name="dense1_lrelu")(x)
    output = layers.Dense(1, activation="sigmoid", dtype="float32", name="dense2")(x)
    return keras.Model(image, output, name="sem_gan_discriminator")
