"""The two-stage generator: an inner network at half size finds features, an outer network at full size makes the image with them.

Reference: J. M. Ede, "Deep learning supersampled scanning transmission electron microscopy", arXiv:1910.10467 (2019). The paper's layers are known from the
author's scripts, C54, C68 and C69, which agree; where the paper's text has another activation, normalisation or bias, `Config` has both.
"""

from __future__ import annotations

import keras
from keras import initializers, layers, ops

from common.layers import MeanOnlyBatchNormalization, WeightNormConv2D, WeightNormConv2DTranspose, gaussian_filter, initialise_from_data, registered

from .config import Config
from .one_stage import build_one_stage

KERNEL_DEVIATION = 0.05  # of the stored kernels, whose length means nothing [P, C68]
NOISE = 0.8  # largest value of the image that sets the gains [P]
SLOPE, EARLY_SLOPE = 0.01, 0.1  # of leaky activations (C54)
RESIDUAL_SHARE = 0.1  # gain and bias of the last layer of residual networks, over what they start with elsewhere
SMOOTHING = 3.0  # pixels, of the Gaussian behind the infilled image in residual networks: between the best for steps 4 and 10
BLOCK = 3  # convolutions of a residual block (C54)


@registered
class BilinearDoubling(layers.Layer):
    """Bilinear resize by 2, half-pixel centres, edge pixels repeated: (batch, height, width, channels) -> (batch, 2 height, 2 width, channels).

    Weights 1/4 and 3/4 are those of repeated pixels smoothed by (1, 2, 1) / 4, that is by two means of two; sizes may be unknown until the graph runs.
    """

    def call(self, images):
        repeated = ops.repeat(ops.repeat(images, 2, axis=1), 2, axis=2)
        padded = ops.pad(repeated, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")  # the second pixel repeats the first
        return ops.average_pool(ops.average_pool(padded, 2, strides=1), 2, strides=1)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, height and 2 * height, width and 2 * width, channels)


@registered
class Interpolation(layers.Layer):
    """An infilled image in [0, 1], (batch, height, width, 1), smoothed and on the outputs' scale, [-1, 1]: what a residual network starts from."""

    def call(self, images):
        return gaussian_filter(2.0 * images - 1.0, SMOOTHING, radius=3 * int(SMOOTHING), border="symmetric")

    def compute_output_shape(self, input_shape):
        return input_shape


# --- Layers ---


def _weighted(kind, filters: int, kernel: int, strides: int, name: str, **kwargs):
    initialiser = initializers.RandomNormal(stddev=KERNEL_DEVIATION)
    return kind(filters, kernel, strides, padding="same", kernel_initializer=initialiser, name=name, **kwargs)


def convolution(x, filters: int, name: str, config: Config, kernel: int = 3, strides: int = 1, slope: float = SLOPE, doubling: bool = False):
    """Weight-normalised convolution, mean-only normalisation, activation; `doubling` doubles height and width."""
    normalised = config.normalised == "all" or kernel == 5 or doubling  # "ends" are the 5x5 and the doubling ones (C54)
    bias = config.biases and not normalised
    if doubling and config.upsampling == "transposed":
        x = _weighted(WeightNormConv2DTranspose, filters, kernel, 2, name, use_bias=bias)(x)
    else:
        if doubling:
            x = BilinearDoubling(name=f"{name}_double")(x)
        x = _weighted(WeightNormConv2D, filters, kernel, strides, name, use_bias=bias)(x)
    if normalised:
        x = MeanOnlyBatchNormalization(config.statistics, config.momentum, center=config.biases, name=f"{name}_mean")(x)
    return layers.ReLU(negative_slope=slope if config.activation == "leaky" else 0.0, name=f"{name}_relu")(x)


def residual_block(x, name: str, config: Config):
    """x + three convolutions of as many channels, nothing after the sum."""
    y = x
    for k in range(1, BLOCK + 1):
        y = convolution(y, x.shape[-1], f"{name}_conv{k}", config)
    return layers.Add(name=f"{name}_add")([x, y])


def to_image(x, name: str, config: Config):
    """The linear 3x3 convolution that ends a network in one channel of float32: no normalisation, no activation."""
    return _weighted(WeightNormConv2D, 1, 3, 1, name, use_bias=config.biases, dtype="float32")(x)


# --- Networks ---


def build_inner(config: Config) -> keras.Model:
    """The inner network: image (batch, height, width, 1) in [0, 1] -> features (batch, height / 2, width / 2, inner[0]); 105.7 million parameters of 106.1."""
    image = keras.Input((None, None, 1), name="image")
    halve = layers.AveragePooling2D(2, name="inner_half") if config.halving == "mean" else layers.MaxPooling2D(1, 2, name="inner_half")
    x = convolution(halve(image), config.inner[0], "inner_conv1", config, kernel=5, slope=EARLY_SLOPE)
    encoded = [x]
    for k, width in enumerate(config.inner[1:], 2):
        encoded.append(convolution(encoded[-1], width, f"inner_conv{k}", config, strides=2))
    x = encoded.pop()
    for k in range(1, config.inner_blocks + 1):
        x = residual_block(x, f"inner_block{k}", config)
    for k, same_size in enumerate(reversed(encoded), 1):
        x = convolution(x, same_size.shape[-1], f"inner_up{k}", config, doubling=True)
        if config.skips:
            x = layers.Add(name=f"inner_skip{k}")([x, same_size])
    return keras.Model(image, x, name="inner")


def build_outer(config: Config) -> keras.Model:
    """The outer network: [image (batch, height, width, 1), the inner network's features] -> image (batch, height, width, 1) in [-1, 1], not clipped."""
    image = keras.Input((None, None, 1), name="image")
    features = keras.Input((None, None, config.inner[0]), name="features")
    x = convolution(image, config.outer, "outer_conv1", config, kernel=5, slope=EARLY_SLOPE)
    x = convolution(x, config.inner[0], "outer_conv2", config, strides=2, slope=EARLY_SLOPE)
    x = layers.Add(name="outer_features")([x, features])
    for k in range(1, config.outer_blocks + 1):
        x = residual_block(x, f"outer_block{k}", config)
    x = convolution(x, config.outer, "outer_up", config, doubling=True)
    x = to_image(convolution(x, config.outer, "outer_conv3", config), "outer_image", config)
    if config.residual:
        x = layers.Add(name="outer_sum", dtype="float32")([x, Interpolation(name="outer_interpolation", dtype="float32")(image)])
    return keras.Model([image, features], x, name="outer")


def build_head(config: Config) -> keras.Model:
    """The inner generator trainer T: features -> image of half the size, in [-1, 1]. Training only: its loss teaches the inner network."""
    features = keras.Input((None, None, config.inner[0]), name="features")
    x = convolution(features, config.inner[0], "head_conv1", config)
    return keras.Model(features, to_image(x, "head_image", config), name="head")


def build_generator(config: Config) -> keras.Model:
    """The network that restores: infilled image (batch, height, width, 1) float32 in [0, 1] -> image of that shape in [-1, 1], float32, not clipped.

    Height and width must be divisible by 32. The one-stage network, where `config` asks for it, takes the scan itself instead.
    """
    if config.network == "one_stage":
        return build_one_stage(config)
    image = keras.Input((None, None, 1), name="image")
    return keras.Model(image, build_outer(config)([image, build_inner(config)(image)]), name="dlss_generator")


def build_trained(config: Config) -> tuple[keras.Model, keras.Model]:
    """(what is trained: image -> [output, half-size output], the generator alone); they share their layers. The one-stage network is its own trainer.

    With `data_initialisation` an image of uniform noise has set the gains, and the channel means that normalisation starts from [P].
    """
    if config.network == "one_stage":
        generator = build_one_stage(config)
        return generator, generator
    image = keras.Input((None, None, 1), name="image")
    features = build_inner(config)(image)
    output = build_outer(config)([image, features])
    trained = keras.Model(image, [output, build_head(config)(features)], name="dlss_trained")
    if config.data_initialisation:
        initialise_from_data(trained, keras.random.uniform((1, config.side, config.side, 1), -NOISE, NOISE, seed=config.seed))
    if config.residual:
        for v in trained.get_layer("outer").get_layer("outer_image").variables:
            if v.name != "kernel":  # its length means nothing
                v.assign(RESIDUAL_SHARE * v)
    return trained, keras.Model(image, output, name="dlss_generator")


def receptive_radius(config: Config) -> int | None:
    """How many pixels of the infilled image around a pixel can change its restoration: the halo with which tiles equal the whole image (662 in `paper`).

    None where there is no such number: means over the image, and the one-stage network, which takes one size only.
    """
    if config.network == "one_stage" or config.statistics != "running":
        return None

    def wide(span, radius):
        return span[0] - radius, span[1] + radius

    def doubled(span):  # pixels of the smaller map that a span of the doubled one comes from
        first, last = span
        return (-(-(first - 2) // 2), last // 2) if config.upsampling == "transposed" else (first // 2 - 1, last // 2 + 1)

    def halved(span):  # pixels 2k, 2k + 1, 2k + 2 make pixel k: strided convolutions of even sides are padded on the far side only
        return 2 * span[0], 2 * span[1] + 2

    worst = 0
    halvings = len(config.inner)  # of the image until the narrowest map
    for position in range(2**halvings):  # of an output pixel on the grid of the halvings
        features = wide(doubled(wide((position, position), 2)), BLOCK * config.outer_blocks)
        beside = wide(halved(features), 2)
        span = features
        for _ in range(halvings - 1):
            span = doubled(span)
        span = wide(span, BLOCK * config.inner_blocks)
        for _ in range(halvings - 1):
            span = halved(span)
        first, last = wide(span, 2)
        first, last = 2 * first, 2 * last + (config.halving == "mean")
        worst = max(worst, position - min(first, beside[0]), max(last, beside[1]) - position)
    return worst
