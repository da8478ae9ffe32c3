"""The three discriminators of the adversarial stage, one per size of crop, and the crops that they judge.

Reference: P, adversarial training; layers from the author's scripts, in which C54, C68 and C69 agree.
"""

from __future__ import annotations

import keras
from keras import initializers, layers, ops

from common.layers import SpectralNormConv2D, SpectralNormDense

from .config import Config

INPUT = 70  # side in pixels of what a discriminator sees
FACTORS = (1, 2, 4)  # crops of 70, 140 and 280 pixels are brought to that side [P]
PADDING = 140  # pixels of mirror image around an image, so that its border is judged as often as its middle (C68)
SLOPE = 0.2
INITIAL_DEVIATION = 0.03  # of kernels [P]


def build_discriminator(config: Config) -> list[keras.Model]:
    """Three networks of one layout: (batch, 70, 70, 1) float32 in [-1, 1] -> (batch, 1) float32 scores, near 1 for real crops and 0 for made ones.

    Four spectrally normalised 4x4 convolutions of stride 2 without padding; the score is the sum of all features left, or a linear unit of them.
    """
    return [_build(config, factor * INPUT) for factor in FACTORS]


def _build(config: Config, side: int) -> keras.Model:
    def initialiser():
        return initializers.RandomNormal(stddev=INITIAL_DEVIATION) if config.discriminator_initialiser == "normal" else initializers.GlorotUniform()

    name = f"discriminator{side}"
    x = crop = keras.Input((INPUT, INPUT, 1), name="crop")
    for k in range(4):
        x = SpectralNormConv2D(config.discriminator_base * 2**k, 4, 2, kernel_initializer=initialiser(), name=f"{name}_conv{k + 1}")(x)
        x = layers.LeakyReLU(negative_slope=SLOPE, name=f"{name}_lrelu{k + 1}")(x)
    x = layers.Flatten(dtype="float32", name=f"{name}_flatten")(x)
    if config.discriminator_head == "linear":
        score = SpectralNormDense(1, kernel_initializer=initialiser(), dtype="float32", name=f"{name}_linear")(x)
    else:
        score = ops.sum(x, axis=1, keepdims=True)
    return keras.Model(crop, score, name=name)


def multi_scale_crops(images, corners, halving: str = "mean") -> list:
    """Crops of 70, 140 and 280 pixels of images mirrored for 140 pixels around, all brought to 70 x 70 pixels.

    images: (batch, side, side, k); channels (target and output, say) are cropped alike. corners: (3, 2) float in [0, 1), the place of each crop between the
    uppermost or leftmost possible and the last. halving: bilinear with half-pixel centres ("mean"), or every second or fourth pixel ("decimate", what
    TensorFlow 1 made of bilinear). Returns three tensors (batch, 70, 70, k) of the images' dtype. Source: C68.
    """
    side = ops.shape(images)[1]

    def taken(x, corner, factor, axis):
        places = side + 2 * PADDING - factor * INPUT + 1
        first = ops.cast(corner * ops.cast(places, corner.dtype), "int32") - PADDING
        # Between pixels 2k and 2k + 1, or 4k + 1 and 4k + 2, lie the centres of the reduced pixels: a mean of two and no filter, for a factor of 4 too.
        offsets = (0,) if factor == 1 or halving == "decimate" else (factor // 2 - 1, factor // 2)
        parts = [ops.take(x, mirrored(first + offset + factor * ops.arange(INPUT), side), axis=axis) for offset in offsets]
        return sum(parts) / len(parts)

    corners = ops.convert_to_tensor(corners, "float32")
    return [taken(taken(images, corners[k, 0], factor, 1), corners[k, 1], factor, 2) for k, factor in enumerate(FACTORS)]


def mirrored(places, side):
    """The pixel, of `side` pixels in a row, that is seen at int32 places beyond both ends in mirrors that stand on the outer pixels' centres."""
    return side - 1 - ops.abs(ops.mod(places, 2 * (side - 1)) - (side - 1))
