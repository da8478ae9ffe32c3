"""Generators that the SSUM CycleGAN's are compared with: CycleGAN's own ResNet and pix2pix' U-Net (Zhu et al. 2017, Isola et al. 2017)."""

from __future__ import annotations

import keras
from keras import initializers, layers

from common.layers import instance_normalization

from .parts import DEVIATION, SLOPE, CutTo, Mirror, MirrorTo


def _kernels():
    return initializers.RandomNormal(stddev=DEVIATION)


def _normalised(x, name: str):
    return instance_normalization(name=f"{name}_norm", dtype="float32")(x)


def build_resnet(width: int, blocks: int, name: str) -> keras.Model:
    """CycleGAN's generator: all convolutions biased, instance normalisation, transposed convolutions on the way up. 11,365,633 parameters for 64 and 9."""

    def convolved(x, filters, kernel, at, strides=1):
        return layers.Conv2D(filters, kernel, strides, kernel_initializer=_kernels(), name=f"{at}_conv")(x)

    image = keras.Input((None, None, 1), name="image")
    x = layers.ReLU(name="first_act")(_normalised(convolved(Mirror(3, name="first_pad")(image), width, 7, "first"), "first"))
    for k in (1, 2):
        x = convolved(layers.ZeroPadding2D(1, name=f"down{k}_pad")(x), width * 2**k, 3, f"down{k}", 2)
        x = layers.ReLU(name=f"down{k}_act")(_normalised(x, f"down{k}"))
    for k in range(1, blocks + 1):
        y = convolved(Mirror(1, name=f"block{k}_pad1")(x), 4 * width, 3, f"block{k}a")
        y = layers.ReLU(name=f"block{k}_act")(_normalised(y, f"block{k}a"))
        y = _normalised(convolved(Mirror(1, name=f"block{k}_pad2")(y), 4 * width, 3, f"block{k}b"), f"block{k}b")
        x = layers.Add(name=f"block{k}_add")([x, y])
    for k, filters in ((1, 2 * width), (2, width)):
        x = layers.Conv2DTranspose(filters, 3, 2, kernel_initializer=_kernels(), name=f"up{k}_conv")(x)
        x = layers.Cropping2D(((1, 0), (1, 0)), name=f"up{k}_crop")(x)  # centred on its pixels, as theirs is; "same" would begin at them
        x = layers.ReLU(name=f"up{k}_act")(_normalised(x, f"up{k}"))
    x = layers.Conv2D(1, 7, kernel_initializer=_kernels(), dtype="float32", name="last_conv")(Mirror(3, name="last_pad")(x))
    return keras.Model(image, layers.Activation("tanh", name="tanh", dtype="float32")(x), name=name)


def build_unet(width: int, side: int, name: str) -> keras.Model:
    """pix2pix' generator: halved down to one pixel at the training `side`, a power of 2, and back, every size joined again. Others are mirrored up to it.

    Batch normalisation but for the first and the innermost convolution; its dropout, in the three innermost of the way up, is left out as in our `small`.
    """
    depth = side.bit_length() - 1
    image = keras.Input((None, None, 1), name="image")
    x, finer = MirrorTo(side, name="enclose")(image), []
    for k in range(depth):
        filters, inner = width * min(2**k, 8), 0 < k < depth - 1
        if k:
            x = layers.LeakyReLU(negative_slope=SLOPE, name=f"down{k}_act")(x)
        x = layers.Conv2D(filters, 4, 2, padding="same", use_bias=not inner, kernel_initializer=_kernels(), name=f"down{k}_conv")(x)
        if inner:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"down{k}_norm")(x)
        finer.append(x)
    x = finer.pop()
    for k in range(depth - 1, 0, -1):
        filters = width * min(2 ** (k - 1), 8)
        x = layers.ReLU(name=f"up{k}_act")(x)
        x = layers.Conv2DTranspose(filters, 4, 2, padding="same", use_bias=False, kernel_initializer=_kernels(), name=f"up{k}_conv")(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"up{k}_norm")(x)
        x = layers.Concatenate(name=f"up{k}_join")([x, finer.pop()])
    x = layers.ReLU(name="up0_act")(x)
    x = layers.Conv2DTranspose(1, 4, 2, padding="same", kernel_initializer=_kernels(), dtype="float32", name="up0_conv")(x)
    return keras.Model(image, CutTo(name="cut")([layers.Activation("tanh", name="tanh", dtype="float32")(x), image]), name=name)
