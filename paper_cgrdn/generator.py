"""The CGRDN generator: groups of residual dense blocks at half size, all of whose outputs are concatenated and fused, around an identity.

Reference: I. Lobato, T. Friedrich, S. Van Aert, npj Computational Materials 10 (2024), arXiv:2303.17025; layers as in the published networks.

    x -> conv3 -> conv4, half size = s ──► group_1 ─► ... ─► group_B ─┐
                                  │           └─ concatenated ──┴──►  conv1 -> + s -> conv4 transposed, full size -> conv3 -> + x

A group is a chain of residual dense blocks, their outputs concatenated and fused by 1x1, plus its input. A residual dense block is a chain of 3x3 convolutions
that see everything before them, fused by 1x1, plus its input (Zhang et al. 2018). Only their 3x3 convolutions are rectified; nothing is normalised.
"""

from __future__ import annotations

import keras
from keras import initializers, layers

from .config import Config
from .unet import build_unet


def _convolution(x, filters: int, kernel: int, name: str, strides: int = 1, activation=None):
    initialiser = initializers.LecunUniform()  # as stored with the published networks
    return layers.Conv2D(filters, kernel, strides, padding="same", activation=activation, kernel_initializer=initialiser, name=name)(x)


def _enlarged(x, filters: int, name: str):
    return layers.Conv2DTranspose(filters, 4, 2, padding="same", kernel_initializer=initializers.LecunUniform(), name=name)(x)


# --- Blocks ---


def dense_block(x, name: str, config: Config):
    """Residual dense block: L times `growth` new channels from all that came before, fused to the width of x, plus x."""
    seen = x
    for k in range(1, config.dense_layers + 1):
        new = _convolution(seen, config.growth, 3, f"{name}_conv{k}", activation="relu")
        seen = layers.Concatenate(name=f"{name}_concat{k}")([seen, new])
    return layers.Add(name=f"{name}_add")([_convolution(seen, x.shape[-1], 1, f"{name}_fusion"), x])


def group(x, name: str, config: Config):
    """Group of R residual dense blocks: their outputs, x not among them, fused to the width of x, plus x."""
    outputs = [x]
    for k in range(1, config.dense_blocks + 1):
        outputs.append(dense_block(outputs[-1], f"{name}_block{k}", config))
    joined = layers.Concatenate(name=f"{name}_concat")(outputs[1:])
    return layers.Add(name=f"{name}_add")([_convolution(joined, x.shape[-1], 1, f"{name}_fusion"), x])


# --- Network ---


def build_generator(config: Config) -> keras.Model:
    """The bare network: standardised image (batch, height, width, 1) float32 -> restored image on the same scale, the same shape, float32.

    Height and width must be multiples of 2^halvings. With more than one halving, which is not the paper's, all but the last are rectified and come back on the
    way up as sums. GRDN, where `config` asks for it, has no global concatenation and no residual around the trunk; MR-UNet is another file.
    """
    if config.network == "mr_unet":
        return build_unet()
    image = keras.Input((None, None, 1), name="image")
    x, finer = _convolution(image, config.outer_features, 3, "first"), []
    for k in range(2, config.halvings + 1):
        x = _convolution(x, config.outer_features, 4, f"down{k}", strides=2, activation="relu")
        finer.append(x)
    x = trunk = _convolution(x, config.features, 4, "down", strides=2)
    outputs = []
    for k in range(1, config.groups + 1):
        x = group(x, f"group{k}", config)
        outputs.append(x)
    if config.network == "cgrdn":
        joined = layers.Concatenate(name="global_concat")(outputs)
        x = layers.Add(name="trunk_add")([_convolution(joined, config.features, 1, "global_fusion"), trunk])
    x = _enlarged(x, config.outer_features, "up")
    for k in range(config.halvings, 1, -1):
        x = layers.ReLU(name=f"sum{k}_relu")(layers.Add(name=f"sum{k}")([x, finer.pop()]))
        x = _enlarged(x, config.outer_features, f"up{k}")
    last = layers.Conv2D(1, 3, padding="same", kernel_initializer=_Share(config.last_share), name="last", dtype="float32")
    return keras.Model(image, layers.Add(name="image_add", dtype="float32")([last(x), image]), name=config.network)


@keras.saving.register_keras_serializable("empapers")
class _Share(initializers.LecunUniform):
    """LeCun's uniform kernels, times a share."""

    def __init__(self, share: float = 1.0, seed: int | None = None):
        super().__init__(seed=seed)
        self.share = share

    def __call__(self, shape, dtype=None, **kwargs):
        return self.share * super().__call__(shape, dtype=dtype, **kwargs)

    def get_config(self):
        return {"share": self.share, "seed": self.seed}


def receptive_radius(config: Config) -> int | None:
    """How many pixels around a pixel can change its restoration: 261 for the published network, wider than the patches it learned from. None for MR-UNet.

    With n = L R B dense layers between convolutions of stride s in all, s (n + 3) - 1: 4 n + 10 pixels across for s = 2, and one pixel further on one side than
    on the other, by the parity of the pixel.
    """
    if config.network == "mr_unet":
        return None
    return 2**config.halvings * (config.dense_layers * config.dense_blocks * config.groups + 3) - 1
