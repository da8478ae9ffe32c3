"""The SEM-GAN generator: a U-Net of two-convolution blocks with channel-padded residuals, on the Lanczos-upsampled scan.

Reference: de Haan et al., "Resolution enhancement in scanning electron microscopy using deep learning", Scientific Reports 9, 12050 (2019), Fig. 1.
"""

from __future__ import annotations

import math

import keras
from keras import layers, ops

from .config import Config
from .upsampling import RADIUS

LEAKY_SLOPE = 0.1


@keras.saving.register_keras_serializable("empapers")
class PaddedAdd(layers.Layer):
    """branch + skip, the skip's missing channels being zeros: (b, h, w, c1), (b, h, w, c0 <= c1) -> (b, h, w, c1)."""

    def call(self, inputs):
        branch, skip = inputs
        return branch + ops.pad(skip, [(0, 0)] * 3 + [(0, branch.shape[-1] - skip.shape[-1])])

    def compute_output_shape(self, input_shape):
        return input_shape[0]


@keras.saving.register_keras_serializable("empapers")
class ResizeTo(layers.Layer):
    """Bilinear resize of the first map to the height and width of the second, pixel centres aligned: any image size survives halving and doubling."""

    def call(self, inputs):
        small, large = inputs
        size = ops.shape(large)[1:3]
        if all(isinstance(n, int) for n in size):
            return ops.cast(ops.image.resize(small, size, interpolation="bilinear"), small.dtype)
        import tensorflow as tf  # Keras' own compares the size in Python, which a graph for images of any size does not survive

        return ops.cast(tf.image.resize(small, size), small.dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[1][:3], input_shape[0][3])


def initialiser(filters: int) -> keras.initializers.Initializer:
    """Truncated normal of deviation sqrt(2 / (9 filters)), as the codes of the family have it."""
    return keras.initializers.TruncatedNormal(stddev=math.sqrt(2 / (9 * filters)))


def convolution(x, filters: int, name: str, strides: int = 1):
    """3x3 convolution with zero padding, then LeakyReLU."""
    x = layers.Conv2D(filters, 3, strides, padding="same", kernel_initializer=initialiser(filters), name=name)(x)
    return layers.LeakyReLU(negative_slope=LEAKY_SLOPE, name=f"{name}_lrelu")(x)


def block(x, filters: int, config: Config, name: str, up: bool = False):
    """Two convolutions, of which the second changes the channels (going up, the first narrows to `filters` times 2); or three, by way of the mean."""
    if config.convolutions == 3:
        middle = (x.shape[-1] + filters) // 2
        widths = (middle, middle, filters)
    else:
        widths = (2 * filters if up and not config.strict_second_changes else x.shape[-1], filters)
    for k, width in enumerate(widths, 1):
        x = convolution(x, width, f"{name}_conv{k}")
    return x


def build_generator(config: Config) -> keras.Model:
    """The U-Net as a functional model.

    Input (batch, height, width, 1) float32, the upsampled scan in [0, 1], any size; output the same shape, linear (not clipped).
    S_k = block(x_k) + pad(x_k), x_(k+1) = average of 2x2 of S_k; y_(k-1) = block([resize(y_k), S_k]).
    """
    image = keras.Input((None, None, 1), name="image")
    x = convolution(image, config.base, "stem") if config.stem else image

    # --- Down ---
    skips = []
    for level in range(1, config.levels + 1):
        width = config.base * 2**level if config.stem else config.base * 2 ** (level - 1)
        x = PaddedAdd(name=f"down{level}_add")([block(x, width, config, f"down{level}"), x])
        skips.append(x)
        x = layers.AveragePooling2D(2, padding="same", name=f"down{level}_pool")(x)
    x = convolution(x, x.shape[-1], "centre")

    # --- Up ---
    for level in range(config.levels, 0, -1):
        skip = skips[level - 1]
        x = layers.Concatenate(name=f"up{level}_cat")([ResizeTo(name=f"up{level}_resize")([x, skip]), skip])
        x = block(x, skip.shape[-1] // 2, config, f"up{level}", up=True)
    output = layers.Conv2D(1, 3, padding="same", kernel_initializer=initialiser(1), dtype="float32", name="output")(x)
    if config.residual:
        output = layers.Add(dtype="float32", name="output_add")([output, image])
    return keras.Model(image, output, name="sem_gan_generator")


def receptive_radius(config: Config) -> int:
    """How many pixels of the scan around a pixel can change its restoration, Lanczos upsampling included: the halo with which tiles equal the whole image."""
    convolutions, worst = config.convolutions, 0
    for position in range(2**config.levels):  # of an output pixel on the grid of the halvings
        first, last = position - 1, position + 1
        skips = []
        for _ in range(config.levels):  # what the output needs, from the top of the U down
            first, last = first - convolutions, last + convolutions
            skips.append((first, last))
            first, last = (first - 1) // 2, (last + 1) // 2  # the neighbours between which bilinear resizing interpolates
        first, last = first - 1, last + 1
        for wanted in reversed(skips):  # and up the other side to the input
            first, last = min(2 * first, wanted[0]) - convolutions, max(2 * last + 1, wanted[1]) + convolutions
        first, last = first - config.stem, last + config.stem
        worst = max(worst, position // 2 - (first // 2 - RADIUS + first % 2), last // 2 + RADIUS - 1 + last % 2 - position // 2)
    return worst
