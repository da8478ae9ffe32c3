"""The SSUM CycleGAN generators: a quarter of the size and back by two sub-pixel convolutions, with residual blocks between.

Reference: Sun et al., Microsystems & Nanoengineering (2025), "Generator architecture" and Fig. 7. The text gives the blocks of SRGAN's generator and the
frame of CycleGAN's; this package's README says how the two were put together.

    x -> [pad 3, conv 7] -> [conv 3 / 2] -> [conv 3 / 2] = s -> block 1 ... block B -> [conv 3] -> + s -> [sub-pixel 2] -> [sub-pixel 2] -> pad 3, conv 7, tanh
"""

from __future__ import annotations

import keras
from keras import initializers, layers

from common.layers import instance_normalization

from .comparison import build_resnet, build_unet
from .config import Config
from .parts import DEVIATION, SLOPE, DepthToSpace, EqualPhases, Mirror

# --- Blocks ---


def _convolution(x, filters: int, kernel: int, name: str, strides: int = 1, bias: bool = False, initialiser=initializers.RandomNormal, **more):
    kernels = initialiser(stddev=DEVIATION)
    return layers.Conv2D(filters, kernel, strides, padding="valid", use_bias=bias, kernel_initializer=kernels, name=name, **more)(x)


def _normalised(x, name: str, config: Config):
    if config.norm == "instance":
        return instance_normalization(name=name, dtype="float32")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _rectified(x, name: str, config: Config):
    if config.rectifier == "prelu":
        return layers.PReLU(shared_axes=[1, 2], alpha_initializer=initializers.Constant(SLOPE), name=name)(x)
    return layers.LeakyReLU(negative_slope=SLOPE, name=name)(x)


def _zeros(x, name: str):
    return layers.ZeroPadding2D(1, name=name)(x)


def halved(x, filters: int, name: str, config: Config):
    """d: a convolution of stride 2, normalised and rectified."""
    x = _convolution(_zeros(x, f"{name}_pad"), filters, 3, f"{name}_conv", strides=2)
    return _rectified(_normalised(x, f"{name}_norm", config), f"{name}_act", config)


def block(x, name: str, config: Config):
    """R: x plus two mirrored 3x3 convolutions, normalised, the first rectified and dropped out; nothing after the sum."""
    y = _convolution(Mirror(1, name=f"{name}_pad1")(x), x.shape[-1], 3, f"{name}_conv1")
    y = _rectified(_normalised(y, f"{name}_norm1", config), f"{name}_act", config)
    if config.dropout:
        y = layers.Dropout(config.dropout, name=f"{name}_dropout")(y)
    y = _convolution(Mirror(1, name=f"{name}_pad2")(y), x.shape[-1], 3, f"{name}_conv2")
    return layers.Add(name=f"{name}_add")([_normalised(y, f"{name}_norm2", config), x])


def doubled(x, filters: int, name: str, config: Config):
    """u: a sub-pixel convolution, rectified; or nearest neighbours and a convolution."""
    bias = not config.normalised_upsampling
    if config.upsampling == "resize":
        x = layers.UpSampling2D(2, name=f"{name}_resize")(x)
        x = _convolution(_zeros(x, f"{name}_pad"), filters, 3, f"{name}_conv", bias=bias)
    else:
        x = _convolution(_zeros(x, f"{name}_pad"), 4 * filters, 3, f"{name}_conv", bias=bias, initialiser=EqualPhases)
        x = DepthToSpace(name=f"{name}_shuffle")(x)
    return _rectified(x if bias else _normalised(x, f"{name}_norm", config), f"{name}_act", config)


# --- Network ---


def build_generator(config: Config, name: str = "ssum_generator") -> keras.Model:
    """The bare network: (batch, height, width, 1) float32 in [-1, 1] -> the same shape, float32 in [-1, 1]. Height and width must be multiples of 4.

    The second halving has as many channels as the residual blocks, the first the geometric mean of both widths: 64, 64, 64 and 64, 128, 256. Other `network`s
    are those of `comparison`.
    """
    if config.network == "resnet":
        return build_resnet(config.width, config.blocks, name)
    if config.network == "unet":
        return build_unet(config.width, config.side, name)
    middle = round((config.width * config.trunk) ** 0.5)
    image = keras.Input((None, None, 1), name="image")
    x = _convolution(Mirror(3, name="first_pad")(image), config.width, 7, "first_conv")
    x = _rectified(_normalised(x, "first_norm", config), "first_act", config)
    x = halved(x, middle, "down1", config)
    x = shallow = halved(x, config.trunk, "down2", config)
    for k in range(1, config.blocks + 1):
        x = block(x, f"block{k}", config)
    if config.long_skip:
        x = _normalised(_convolution(_zeros(x, "post_pad"), config.trunk, 3, "post_conv"), "post_norm", config)
        x = layers.Add(name="long_add")([x, shallow])
    x = doubled(x, middle, "up1", config)
    x = doubled(x, config.width, "up2", config)
    x = _convolution(Mirror(3, name="last_pad")(x), 1, 7, "last_conv", bias=True, dtype="float32")
    return keras.Model(image, layers.Activation("tanh", name="tanh", dtype="float32")(x), name=name)


def receptive_radius(config: Config) -> int | None:
    """How many pixels around a pixel can change its restoration; None with instance normalisation, whose means are those of the whole image.

    Pixels of a quarter size reach as far as 2 B + 2 convolutions (one less without the long skip), each 4 pixels; the two halvings, the second doubling and the
    7x7 convolutions add 3 + 1 + 2 + 2 + 3, and up to 3 more on either side by the position within the four.
    """
    if config.norm == "instance" or config.network != "ssum":
        return None
    return 4 * (2 * config.blocks + 1 + config.long_skip) + 14
