"""The one-stage generator, the paper's baseline: from the scan of step 5 itself, by way of 32 x 32 pixels, to the image.

Source: P, "one-stage training"; the layers from the author's script CM2.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from common.layers import registered

from .config import Config

SCAN, RESIZED, NARROWEST = 103, 57, 32  # sides in pixels: 57 is 103 sqrt(32 / 103), rounded
BLOCKS = 6
WIDTHS = (32, 64, 128)  # channels down to the narrowest map
UP = (128, 96, 64, 32)


@registered
class AlignedResize(layers.Layer):
    """Bilinear resize of (batch, n, n, channels) to (batch, side, side, channels) that keeps corners in place, as Keras' own cannot; float32.

    Pixel k comes from position k (n - 1) / (side - 1).
    """

    def __init__(self, side: int, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.side = side

    def call(self, images):
        n = images.shape[1]
        weights = np.stack([np.interp(np.linspace(0, n - 1, self.side), np.arange(n), unit) for unit in np.eye(n)])  # (n, side)
        weights = ops.convert_to_tensor(weights, images.dtype)
        return ops.einsum("bijc,ik,jl->bklc", images, weights, weights)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.side, self.side, input_shape[3])

    def get_config(self):
        return {**super().get_config(), "side": self.side}


def build_one_stage(config: Config) -> keras.Model:
    """(batch, 103, 103, 1) float32, the samples of a scan -> (batch, 512, 512, 1) float32, linear (not clipped); 2 198 145 trained parameters.

    Every convolution follows activation and batch normalisation, which shifts and does not scale (CM2).
    """
    scan = keras.Input((SCAN, SCAN, 1), name="scan")

    def step(x, name, layer, resized=None, activated=True):
        if activated:
            x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.BatchNormalization(momentum=0.999, epsilon=1e-3, scale=False, name=f"{name}_norm")(x)
        if resized:
            x = AlignedResize(resized, name=f"{name}_resize")(x)
        return layer(x)

    def convolution(filters, name):
        return layers.Conv2D(filters, 3, padding="same", name=name)

    x = step(scan, "conv1", convolution(WIDTHS[0], "conv1"), activated=False)
    x = step(x, "conv2", convolution(WIDTHS[1], "conv2"), resized=RESIZED)
    x = step(x, "conv3", convolution(WIDTHS[2], "conv3"), resized=NARROWEST)
    for k in range(1, BLOCKS + 1):
        y = x
        for name in (f"block{k}_conv1", f"block{k}_conv2"):
            y = step(y, name, convolution(WIDTHS[2], name))
        x = layers.Add(name=f"block{k}_add")([x, y])
    for k, filters in enumerate(UP, 1):
        x = step(x, f"up{k}", layers.Conv2DTranspose(filters, 3, 2, padding="same", name=f"up{k}"))
    output = step(x, "image", layers.Conv2D(1, 3, padding="same", use_bias=False, dtype="float32", name="image"))
    return keras.Model(scan, output, name="dlss_one_stage")
