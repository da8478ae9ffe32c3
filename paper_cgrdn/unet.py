"""MR-UNet, which the authors compared CGRDN with: seven times its weights, for patches of 256 pixels only (C0)."""

from __future__ import annotations

import keras
from keras import layers

DOWN = (64, 128, 192, 256, 384, 512, 1024)  # channels of the 3x3 convolutions that halve
UP = (1024, 512, 384, 256, 192, 128, 64, 64)  # and of the transposed ones that double
BOTTOM = 2048


def build_unet() -> keras.Model:
    """Standardised image (batch, 256, 256, 1) float32 -> restored image, the same shape and scale. 51,714,177 parameters, no residual around it.

    Activations are not known; all but the last layer are rectified here.
    """
    image = keras.Input((256, 256, 1), name="image")
    x = layers.Conv2D(DOWN[0], 4, padding="same", activation="relu", name="first")(image)
    maps = [x]
    for k, filters in enumerate(DOWN, 1):
        x = layers.Conv2D(filters, 3, 2, padding="same", activation="relu", name=f"down{k}")(x)
        maps.append(x)
    x = layers.Conv2D(BOTTOM, 2, padding="valid", activation="relu", name="bottom")(x)  # 2 x 2 pixels to one
    for k, filters in enumerate(UP, 1):
        x = layers.Conv2DTranspose(filters, 3, 2, padding="same", activation="relu", name=f"up{k}")(x)
        x = layers.Concatenate(name=f"concat{k}")([x, maps.pop()])
    return keras.Model(image, layers.Conv2D(1, 4, padding="same", name="last", dtype="float32")(x), name="mr_unet")
