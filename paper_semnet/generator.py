"""The SEMNet generator: residual-in-residual dense blocks, then x2 by pixel repetition and convolution.

Reference: "SEMNet" abstract, Microscopy and Microanalysis, 2024; blocks as in RRDBNet (ESRGAN lineage).
"""

from __future__ import annotations

import keras
from keras import initializers, layers, ops

from .config import Config

RESIDUAL_SCALE = 0.2  # of both residual levels
LEAKY_SLOPE = 0.2  # [A]


@keras.saving.register_keras_serializable("empapers")
class ScaledAdd(layers.Layer):
    """skip + scale * branch: the residual connection of both block levels, same shape in and out."""

    def __init__(self, scale: float = RESIDUAL_SCALE, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs):
        skip, branch = inputs
        return skip + ops.cast(self.scale, branch.dtype) * branch

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def conv_initialisers(kind: str, fan_in: int, in_dense_block: bool) -> dict:
    """Kernel and bias initialisers of one 3x3 convolution.

    "esrgan": 0.1 x Kaiming normal and zero bias in dense blocks, kernel and bias from U(+-1/sqrt(fan_in)) elsewhere.
    "kair": orthogonal with gain 0.2 and zero bias everywhere.
    """
    if kind == "kair":
        return {"kernel_initializer": initializers.Orthogonal(gain=0.2)}
    if in_dense_block:
        return {"kernel_initializer": initializers.VarianceScaling(0.02, "fan_in", "untruncated_normal")}
    limit = fan_in**-0.5
    return {"kernel_initializer": initializers.VarianceScaling(1 / 3, "fan_in", "uniform"), "bias_initializer": initializers.RandomUniform(-limit, limit)}


def build_generator(config: Config) -> keras.Model:
    """SEMNet as a functional model.

    Input (batch, height, width, channels) float32 in [0, 1], any height and width >= 1;
    output (batch, 2 height, 2 width, channels) float32, linear (not clipped).
    94 convolutions and 19 LeakyReLU layers in the paper preset (one activation layer per dense block, used four times, and one in the tail).
    Source: abstract; section 2 of the specification quoted in this package's README.
    """

    def conv(x, filters, name, in_dense_block=False, **kwargs):
        fan_in = 9 * x.shape[-1]
        return layers.Conv2D(filters, 3, padding="same", name=name, **conv_initialisers(config.initialiser, fan_in, in_dense_block), **kwargs)(x)

    def dense_block(x, name):
        activation = layers.LeakyReLU(negative_slope=LEAKY_SLOPE, name=f"{name}_lrelu")
        maps = [x]
        for k in range(1, 5):
            joined = layers.Concatenate(name=f"{name}_cat{k}")(maps) if k > 1 else x
            maps.append(activation(conv(joined, config.growth, f"{name}_conv{k}", in_dense_block=True)))
        joined = layers.Concatenate(name=f"{name}_cat5")(maps)
        return ScaledAdd(name=f"{name}_add")([x, conv(joined, config.features, f"{name}_conv5", in_dense_block=True)])

    def residual_in_residual(x, name):
        y = x
        for k in range(1, 4):
            y = dense_block(y, f"{name}_rdb{k}")
        return ScaledAdd(name=f"{name}_add")([x, y])

    # --- Trunk ---
    image = keras.Input((None, None, config.channels), name="image")
    first = conv(image, config.features, "conv_first")
    x = first
    for k in range(1, config.blocks + 1):
        x = residual_in_residual(x, f"rrdb{k}")
    x = layers.Add(name="trunk_add")([first, conv(x, config.features, "conv_body")])

    # --- Tail at twice the sampling ---
    activation = layers.LeakyReLU(negative_slope=LEAKY_SLOPE, name="tail_lrelu")
    x = layers.UpSampling2D(2, interpolation="nearest", name="upsample")(x)
    x = activation(conv(x, config.features, "conv_up"))
    if config.tail == "95":
        x = activation(conv(x, config.features, "conv_hr"))
    output = conv(x, config.channels, "conv_last", dtype="float32")
    return keras.Model(image, output, name="semnet")


def receptive_radius(config: Config) -> int:
    """How many input pixels around a pixel can change its restoration: the halo with which tiles equal the whole image (93 in the paper preset)."""
    convolutions_before_upsampling = 1 + 15 * config.blocks + 1
    convolutions_after = 2 if config.tail == "94" else 3
    return convolutions_before_upsampling + (convolutions_after + 1) // 2
