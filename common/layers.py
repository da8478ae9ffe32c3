"""Layers and image operators that the papers' texts ask for and Keras lacks, or has with another meaning.

Only `keras.ops`: they run on every Keras backend, with any height and width, and export. Norms, means and interpolation weights are computed in float32
under mixed precision. The numbers of tensorflow-addons, where it means the same, are kept in tests/data and met to 1e-5.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import initializers, layers, ops

registered = keras.saving.register_keras_serializable("empapers")


def _wide(x):
    """At least float32."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def _unit(x, axis=-1):
    """x over its L2 norm, the norm never below 1e-6."""
    return ops.normalize(x, axis=axis, epsilon=1e-6)


def instance_normalization(center: bool = False, scale: bool = False, epsilon: float = 1e-5, **kwargs) -> layers.Layer:
    """Keras' own GroupNormalization with one group per channel: each channel of each image to mean 0 and variance 1 over height and width.

    Its defaults (epsilon 1e-3, a trainable shift and scale) are not those of the CycleGAN family, which these are.
    Source: Ulyanov et al. 2016 (arXiv:1607.08022).
    """
    return layers.GroupNormalization(groups=-1, epsilon=epsilon, center=center, scale=scale, **kwargs)


# --- Kernels that are computed from what is stored ---


class _Reparameterised:
    """Mixin for a Keras layer with a kernel. Keras reads `self.kernel` where it convolves, so a property is all it takes: strides, padding, bias, activation,
    initialisers and regularisers (of the stored kernel) stay Keras' own, and nothing is ever written back into a variable.
    """

    def add_weight(self, *args, **kwargs):
        # Half-precision copies of a stored kernel would round its norm, or overflow it.
        return super().add_weight(*args, **{"autocast": kwargs.get("name") == "bias", **kwargs})

    @property
    def kernel(self):
        """The kernel in effect, in the layer's compute dtype."""
        return ops.cast(self.effective(_wide(self._kernel)), self.compute_dtype)

    @kernel.setter
    def kernel(self, variable):  # Keras' transposed convolution stores its kernel under this name
        self._kernel = variable

    # Keras' convolutions save "kernel and bias"; here every variable counts.
    save_own_variables = layers.Layer.save_own_variables
    load_own_variables = layers.Layer.load_own_variables


class _WeightNorm(_Reparameterised):
    output_axis = -1  # of the stored kernel
    initialising = False

    def build(self, input_shape):
        super().build(input_shape)
        self.gain = self.add_weight(name="gain", shape=(self.filters,), initializer="ones")

    def effective(self, v):
        gain = ops.reshape(self.gain, (self.filters,) + (1,) * (-1 - self.output_axis))
        return _wide(gain) * _unit(v, axis=tuple(k for k in range(4) if k != 4 + self.output_axis))

    def call(self, inputs):
        if self.initialising:
            self.initialise(inputs)
        return super().call(inputs)

    def initialise(self, inputs):
        """Gain 1 / sqrt(variance + 1e-8) and bias -mean * gain (where there is a bias), from this layer's linear response with gain 1 and bias 0."""
        activation, self.activation = self.activation, None
        self.gain.assign(ops.ones_like(self.gain))
        if self.use_bias:
            self.bias.assign(ops.zeros_like(self.bias))
        mean, variance = ops.moments(_wide(super().call(inputs)), axes=(0, 1, 2))
        self.gain.assign(ops.rsqrt(variance + 1e-8))
        if self.use_bias:
            self.bias.assign(-mean * self.gain)
        self.activation = activation


@registered
class WeightNormConv2D(_WeightNorm, layers.Conv2D):
    """Convolution with kernel W = g V / ||V||: one gain g per output channel, the norm over (height, width, in); arguments of `keras.layers.Conv2D`.

    Variables: `_kernel` (V), `bias` where asked for, `gain` (g, starts at 1; the length of V then means nothing but a learning rate).
    Source: Salimans and Kingma 2016 (arXiv:1602.07868); DLSS-STEM.
    """


@registered
class WeightNormConv2DTranspose(_WeightNorm, layers.Conv2DTranspose):
    """Transposed convolution with kernel W = g V / ||V||; arguments of `keras.layers.Conv2DTranspose`, variables as in `WeightNormConv2D`.

    The kernel is stored (height, width, out, in); g and the norm belong to *output* channels. Code that normalises over all axes but the last (DLSS-STEM's,
    tensorflow-addons) gives the input channels unit norm instead.
    """

    output_axis = -2


@registered
class MeanOnlyBatchNormalization(layers.Layer):
    """Subtract a mean per channel (last axis), then add a bias: the companion of weight normalisation, which fixes the variance already.

    mode: "running" subtracts the moving average, in training after updating it, with no gradient through it: training and test compute the same.
    "batch" subtracts the current mean always (the published DLSS-STEM code). "hybrid" subtracts the current mean in training and the moving average in
    test (Salimans and Kingma 2016); with batches of one these differ.
    momentum: start value of the variable `decay` in average <- decay average + (1 - decay) mean; `layer.decay.assign(1.0)` freezes the averages, in compiled
    steps too. Averages are kept in every mode, so that weights can be tried in another; replicas store the mean of theirs.
    center: add a trainable bias. Raises ValueError for an unknown mode. Source: DLSS-STEM, arXiv:1602.07868 section 4.
    """

    initialising = False

    def __init__(self, mode: str = "running", momentum: float = 0.99, center: bool = True, **kwargs):
        super().__init__(**kwargs)
        if mode not in ("running", "batch", "hybrid"):
            raise ValueError(f"unknown mode {mode!r}; choose one of running, batch, hybrid")
        self.mode, self.momentum, self.center = mode, momentum, center
        self.autocast = False  # float32 inputs of a half-precision layer are averaged as they are

    def build(self, input_shape):
        state = {"trainable": False, "autocast": False, "aggregation": "mean"}
        self.moving_mean = self.add_weight(name="moving_mean", shape=(input_shape[-1],), initializer="zeros", **state)
        self.decay = self.add_weight(name="decay", shape=(), initializer=initializers.Constant(self.momentum), **state)
        self.bias = self.add_weight(name="bias", shape=(input_shape[-1],), initializer="zeros", autocast=False) if self.center else None

    def call(self, inputs, training=False):
        x = _wide(inputs)
        current = ops.mean(x, axis=tuple(range(x.ndim - 1)))
        if self.initialising:
            self.moving_mean.assign(current)
        average = _wide(self.moving_mean)
        if training:
            average = ops.stop_gradient(self.decay * average + (1 - self.decay) * current)
            self.moving_mean.assign(average)
        x = x - (current if self.mode == "batch" or (self.mode == "hybrid" and training) else average)
        return ops.cast(x if self.bias is None else x + self.bias, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "mode": self.mode, "momentum": self.momentum, "center": self.center}


def initialise_from_data(network: keras.Model, images) -> None:
    """Data-dependent initialisation: one eager pass that gives every weight-normalised layer, in the order of the data, outputs of variance 1 per channel.

    Their biases bring the mean to 0, and mean-only batch normalisations take the mean that they see as their average.
    images: a batch for the network, e.g. noise uniform in [-0.8, 0.8]. Source: arXiv:1602.07868 section 3; DLSS-STEM.
    """
    chosen = [layer for layer in network._flatten_layers() if hasattr(layer, "initialising")]
    try:
        for layer in chosen:
            layer.initialising = True
        network(images)
    finally:
        for layer in chosen:
            layer.initialising = False


class _SpectralNorm(_Reparameterised):
    def build(self, input_shape):
        super().build(input_shape)
        # Replicas need not exchange u: they have the same kernel.
        self.u = self.add_weight(name="u", shape=(1, self._kernel.shape[-1]), initializer=initializers.RandomNormal(stddev=0.03), trainable=False)

    def power_iteration(self, kernel):
        """One iteration from the stored u, on the kernel as a matrix (height width in, out): the next u and sigma = v W u'. No gradient through u and v."""
        w = ops.reshape(kernel, (-1, kernel.shape[-1]))
        v = ops.stop_gradient(_unit(ops.matmul(_wide(self.u), ops.transpose(w))))
        projected = ops.matmul(v, w)
        u = ops.stop_gradient(_unit(projected))
        return u, ops.sum(projected * u)

    def effective(self, kernel):
        return kernel / self.power_iteration(kernel)[1]

    def call(self, inputs, training=False):
        outputs = super().call(inputs)
        if training:
            self.u.assign(self.power_iteration(_wide(self._kernel))[0])
        return outputs


@registered
class SpectralNormConv2D(_SpectralNorm, layers.Conv2D):
    """Convolution with kernel W / sigma(W), sigma its largest singular value as a (height width in, out) matrix; arguments of `keras.layers.Conv2D`.

    sigma comes from one power iteration per pass, from the stored vector `u`, which moves on in training only; the gradient flows through W inside sigma.
    `keras.layers.SpectralNormalization` overwrites W instead and passes no gradient through sigma: the same outputs, another training.
    Source: Miyato et al. 2018 (arXiv:1802.05957); DLSS-STEM (u starts at N(0, 0.03)).
    """


@registered
class SpectralNormDense(_SpectralNorm, layers.Dense):
    """Dense layer with kernel W / sigma(W); arguments of `keras.layers.Dense`. See `SpectralNormConv2D`."""


# --- Differentiable operators on images ---


def gaussian_filter(images, sigma: float, radius: int | None = None, border: str = "reflect"):
    """Gaussian blur of float (batch, height, width, channels), sigma in pixels; same shape and dtype.

    radius: taps at -radius ... radius, normalised to sum 1; int(4 sigma + 0.5), SciPy's, where None. It must be less than height and width.
    border: "reflect" (edge pixel not repeated: OpenCV's default, SciPy's "mirror"), "symmetric" (edge pixel repeated: SciPy's "reflect") or "constant" (zeros).
    Raises ValueError unless sigma > 0.
    """
    if not sigma > 0:
        raise ValueError(f"sigma of a Gaussian blur is {sigma}; it must be above 0")
    radius = int(4 * sigma + 0.5) if radius is None else radius
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps = np.tile((taps / taps.sum())[:, None, None, None], (1, 1, images.shape[-1], 1))
    column = ops.convert_to_tensor(taps, images.dtype)
    padded = ops.pad(images, ((0, 0), (radius, radius), (radius, radius), (0, 0)), border)
    return ops.depthwise_conv(ops.depthwise_conv(padded, column), ops.swapaxes(column, 0, 1))


def dense_warp(images, flow):
    """output(y, x) = images(y + dy, x + dx): the flow says where each output pixel is fetched. Bilinear, edge pixels repeated beyond the border.

    images float (batch, height, width, channels), flow (batch, height, width, 2) as (dy, dx) in pixels; shape and dtype of images. Differentiable in both;
    where a pixel is fetched from beyond the border, the gradient of its flow across that border is 0.
    The sign is that of `scipy.ndimage.map_coordinates(image, grid + flow)`, opposite to `tfa.image.dense_image_warp`.
    """
    batch, height, width, channels = ops.shape(images)
    flow, pixels = _wide(flow), ops.reshape(_wide(images), (-1, channels))

    def neighbours(position, size):
        low = ops.clip(ops.floor(position), 0, ops.cast(ops.maximum(size - 2, 0), position.dtype))
        share = ops.clip(position - low, 0, 1)[..., None]
        low = ops.cast(low, "int32")
        return low, ops.minimum(low + 1, size - 1), share

    top, bottom, down = neighbours(ops.cast(ops.arange(height), flow.dtype)[:, None] + flow[..., 0], height)
    left, right, across = neighbours(ops.cast(ops.arange(width), flow.dtype) + flow[..., 1], width)
    first = ops.arange(batch)[:, None, None] * height * width

    def row(y):
        a, b = (ops.take(pixels, first + y * width + x, axis=0) for x in (left, right))
        return a + (b - a) * across

    upper = row(top)
    return ops.cast(upper + (row(bottom) - upper) * down, images.dtype)
