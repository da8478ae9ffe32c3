"""Layers and starting values that the SSUM CycleGAN's networks share."""

from __future__ import annotations

from keras import initializers, layers, ops

from common.layers import registered

SLOPE = 0.2
DEVIATION = 0.02  # of kernels at the start (CG)


@registered
class Mirror(layers.Layer):
    """Pad height and width by `border` pixels, mirrored; the edge pixel is not repeated."""

    def __init__(self, border: int, **kwargs):
        super().__init__(**kwargs)
        self.border = border

    def call(self, inputs):
        around = (self.border, self.border)
        return ops.pad(inputs, ((0, 0), around, around, (0, 0)), "reflect")

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, *(n and n + 2 * self.border for n in (height, width)), channels)

    def get_config(self):
        return {**super().get_config(), "border": self.border}


@registered
class MirrorTo(layers.Layer):
    """Height and width up to multiples of `multiple`, mirrored at the lower and right border as often as it takes."""

    def __init__(self, multiple: int, **kwargs):
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, inputs):
        for axis in (1, 2):
            length = ops.shape(inputs)[axis]
            place = ops.arange((length + self.multiple - 1) // self.multiple * self.multiple) % (2 * length)
            inputs = ops.take(inputs, ops.minimum(place, 2 * length - 1 - place), axis=axis)
        return inputs

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, *(n and -(-n // self.multiple) * self.multiple for n in (height, width)), channels)

    def get_config(self):
        return {**super().get_config(), "multiple": self.multiple}


@registered
class CutTo(layers.Layer):
    """The first of two inputs, cut to the height and width of the second."""

    def call(self, inputs):
        x, like = inputs
        _, height, width, _ = ops.shape(like)
        return x[:, :height, :width]

    def compute_output_shape(self, input_shape):
        return (*input_shape[1][:3], input_shape[0][3])


@registered
class DepthToSpace(layers.Layer):
    """(batch, h, w, 4 c) -> (batch, 2 h, 2 w, c): channel (2 a + b) c + k becomes pixel (2 i + a, 2 j + b) of channel k (Shi et al. 2016)."""

    def call(self, inputs):
        _, height, width, channels = ops.shape(inputs)
        x = ops.reshape(inputs, (-1, height, width, 2, 2, channels // 4))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 2 * height, 2 * width, channels // 4))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, height and 2 * height, width and 2 * width, channels // 4)


@registered
class EqualPhases(initializers.RandomNormal):
    """ICNR: the four pixels that a sub-pixel convolution makes of one start with the same kernels, so that no checkerboard is there to be unlearned."""

    def __call__(self, shape, dtype=None, **kwargs):
        return ops.tile(super().__call__((*shape[:-1], shape[-1] // 4), dtype=dtype, **kwargs), (1, 1, 1, 4))
