"""Shared layers against tensorflow-addons (kept numbers), closed forms and singular values; where a paper means something else, by how much."""

import re

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from common.layers import (
    MeanOnlyBatchNormalization,
    SpectralNormConv2D,
    SpectralNormDense,
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    initialise_from_data,
    instance_normalization,
)
from tests.helpers import ROOT

REFERENCE = ROOT / "tests" / "data" / "tfa_reference.h5"


def reference(name):
    """array name -> array of one question put to tensorflow-addons."""
    with h5py.File(REFERENCE) as file:
        return {key: array[()] for key, array in file[name].items()}


def close(ours, theirs, tolerance=1e-5):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def difference(ours, theirs):
    """Relative, in the L2 norm."""
    return norm(np.asarray(ours) - theirs) / norm(theirs)


def pulled(function, cotangent, *tensors):
    """Output of function(), and the gradients of sum(output * cotangent)."""
    with tf.GradientTape() as tape:
        tape.watch([t for t in tensors if not isinstance(t, tf.Variable)])
        output = function()
        value = tf.reduce_sum(output * cotangent)
    return output, tape.gradient(value, list(tensors))


def built(layer, shape, **values):
    """The layer, built, with variables set by name."""
    layer.build(shape)
    for variable in layer.variables:
        if variable.name in values:
            variable.assign(values[variable.name])
    return layer


def norm(array, axes=None, keepdims=False):
    return np.sqrt(np.square(np.asarray(array, np.float64)).sum(axes, keepdims=keepdims))


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_reference_comes_from_the_versions_that_the_requirements_name():
    wanted = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "requirements-tfa.txt").read_text(), re.M))
    with h5py.File(REFERENCE) as file:
        assert dict(file.attrs) == wanted
    assert REFERENCE.stat().st_size < 300_000


# --- Instance and group normalisation: Keras' own ---


@pytest.mark.parametrize("name", ["instance_normalization", "group_normalization"])
def test_group_normalisation_is_that_of_addons(name):
    a = reference(name)
    layer = instance_normalization(center=True, scale=True) if name.startswith("instance") else keras.layers.GroupNormalization(4, epsilon=1e-3)
    layer = built(layer, a["x"].shape, gamma=a["gamma"], beta=a["beta"])
    x = tf.constant(a["x"])
    output, gradients = pulled(lambda: layer(x), a["cotangent"], x, layer.gamma.value, layer.beta.value)
    close(output, a["output"])
    for gradient, key in zip(gradients, ("d_x", "d_gamma", "d_beta"), strict=True):
        close(gradient, a[key])


def test_instance_normalisation_of_faint_images_and_of_half_precision():
    faint = np.float32(0.03) * random(2, 32, 32, 3) + 5
    wide = faint.astype(np.float64)
    closed = (wide - wide.mean((1, 2), keepdims=True)) / np.sqrt(wide.var((1, 2), keepdims=True) + 1e-5)
    layer = instance_normalization()
    close(layer(faint), closed, 1e-4)  # a mean of 170 standard deviations costs a digit
    assert layer.variables == []
    assert np.std(layer(faint)) == pytest.approx(0.994, abs=0.002)
    assert np.std(keras.layers.GroupNormalization(groups=-1)(faint)) == pytest.approx(0.69, abs=0.01)  # Keras' default epsilon takes a third of the contrast
    strong = 3000 * random(1, 16, 16, 3)  # squares overflow half precision
    half = instance_normalization(dtype="mixed_float16")(strong)
    assert half.dtype == tf.float16
    close(half, layer(strong), 2e-3)


# --- Weight normalisation ---


def test_weight_normalisation_is_that_of_addons():
    a = reference("weight_norm")
    layer = built(WeightNormConv2D(5, 3, strides=2, padding="same"), a["x"].shape, kernel=a["v"], gain=a["g"], bias=a["bias"])
    x = tf.constant(a["x"])
    output, gradients = pulled(lambda: layer(x), a["cotangent"], x, layer._kernel.value, layer.gain.value, layer.bias.value)
    close(output, a["output"])
    for gradient, key in zip(gradients, ("d_x", "d_v", "d_g", "d_bias"), strict=True):
        close(gradient, a[key])


def scattered(x, kernel):
    """Transposed 3x3 convolution of stride 2, "same": every input pixel adds its multiple of the kernel (height, width, out, in)."""
    batch, height, width, _ = x.shape
    full = np.zeros((batch, 2 * height + 1, 2 * width + 1, kernel.shape[2]))
    for i in range(3):
        for j in range(3):
            full[:, i : i + 2 * height : 2, j : j + 2 * width : 2] += x @ kernel[i, j].T
    return full[:, : 2 * height, : 2 * width]


def test_transposed_weight_normalisation_is_per_output_channel_unlike_addons():
    a = reference("weight_norm_transpose")
    v = a["v"].astype(np.float64)
    per_input = a["g"] * v / norm(v, (0, 1, 2))
    close(a["output"], scattered(a["x"], per_input) + a["bias"])  # addons: one gain and one norm per *input* channel

    gain = np.float32([0.5, 1, 2, 3])
    layer = built(WeightNormConv2DTranspose(4, 3, strides=2, padding="same"), a["x"].shape, kernel=a["v"], gain=gain, bias=a["bias"])
    direction = v / norm(v, (0, 1, 3), keepdims=True)
    close(layer.kernel, gain[:, None] * direction)
    close(layer(a["x"]), scattered(a["x"], gain[:, None] * direction) + a["bias"])
    np.testing.assert_allclose(norm(layer.kernel, (0, 1, 3)), gain, rtol=1e-6)
    slip = norm(v / norm(v, (0, 1, 2)), (0, 1, 3))  # what a gain of 1 means for output channels there
    assert slip.max() / slip.min() > 1.05 and slip.mean() == pytest.approx(np.sqrt(3 / 4), abs=0.05)  # sqrt(in / out), not 1


@pytest.mark.parametrize("kind, axes", [(WeightNormConv2D, (0, 1, 2)), (WeightNormConv2DTranspose, (0, 1, 3))])
def test_gradient_of_weight_normalisation_is_a_projection(kind, axes):
    x = random(2, 6, 6, 3)
    layer = kind(4, 3, padding="same", use_bias=False)
    cotangent = random(*layer(x).shape, seed=1)
    layer.gain.assign([0.5, 1, 2, 3])
    plain = getattr(keras.layers, kind.__name__.removeprefix("WeightNorm"))(4, 3, padding="same", use_bias=False)
    plain.build(x.shape)
    plain.trainable_variables[0].assign(layer.kernel)
    _, (of_w,) = pulled(lambda: plain(x), cotangent, plain.trainable_variables[0].value)
    _, (of_v, of_g) = pulled(lambda: layer(x), cotangent, layer._kernel.value, layer.gain.value)
    v, of_w = layer._kernel.numpy().astype(np.float64), of_w.numpy()
    length = norm(v, axes, keepdims=True)
    along = (of_w * v / length).sum(axes, keepdims=True)
    close(of_g, along.ravel())
    gain = layer.gain.numpy().reshape(along.shape)
    close(of_v, gain / length * (of_w - along * v / length))


def test_data_dependent_initialisation_and_what_addons_makes_of_it():
    a = reference("data_dependent")
    layer = built(WeightNormConv2D(5, 3, padding="same", activation="relu"), a["x"].shape, kernel=a["v"])
    layer.initialise(a["x"])
    assert layer.activation is keras.activations.relu
    layer.activation = None
    output = layer(a["x"]).numpy()
    np.testing.assert_allclose(output.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(output.var((0, 1, 2)), 1, rtol=1e-5)
    length = norm(a["v"], (0, 1, 2))
    close(layer.bias, a["bias"])
    close(layer.gain, a["g"] * length)  # addons measures the response to V, then divides V by its length: variance 1 only where that is 1 already
    np.testing.assert_allclose(a["output"].var((0, 1, 2)), length**-2, rtol=1e-4)


def generator(mode="running", bias=True):
    """Every layer of this file in a network of dynamic size."""
    image = keras.Input((None, None, 1))
    x = WeightNormConv2D(8, 5, padding="same", use_bias=False, name="first")(image)
    x = keras.layers.LeakyReLU(0.1)(MeanOnlyBatchNormalization(mode, center=bias, name="mean")(x))
    x = WeightNormConv2D(8, 3, strides=2, padding="same", use_bias=bias, activation="relu", name="down")(x)
    x = WeightNormConv2DTranspose(6, 3, strides=2, padding="same", use_bias=bias, name="up")(x)
    x = instance_normalization()(x)
    return keras.Model(image, SpectralNormDense(2)(SpectralNormConv2D(4, 4, strides=2)(x)))


def test_initialisation_follows_the_data_through_a_network():
    network = generator()
    noise = np.random.default_rng(0).uniform(-0.8, 0.8, (1, 64, 64, 1)).astype(np.float32)
    initialise_from_data(network, noise)
    linear = keras.Model(network.input, [network.get_layer("first").output, network.get_layer("mean").output, network.get_layer("up").output])
    first, centred, up = (y.numpy() for y in linear(noise))
    np.testing.assert_allclose(first.var((0, 1, 2)), 1, rtol=1e-4)
    close(network.get_layer("mean").moving_mean, first.mean((0, 1, 2)))
    np.testing.assert_allclose(centred.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(up.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(up.var((0, 1, 2)), 1, rtol=1e-4)
    before = network.get_weights()
    network(2 * noise)  # the pass is over
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))


# --- Mean-only batch normalisation ---


@pytest.mark.parametrize("mode", ["running", "batch", "hybrid"])
def test_mean_only_batch_normalisation(mode):
    layer = built(MeanOnlyBatchNormalization(mode, momentum=0.9), (None, None, None, 3), bias=[1, 2, 3])
    train = tf.function(lambda x: layer(x, training=True))
    average, bias = np.zeros(3), np.float32([1, 2, 3])
    for step in range(6):
        if step == 4:
            layer.decay.assign(1.0)
        x = random(2, 5, 4, 3, seed=step) + np.float32([3, 0, -2])
        current = x.mean((0, 1, 2))
        average = 0.9 * average + 0.1 * current if step < 4 else average
        close(train(x), x + bias - (average if mode == "running" else current))
        close(layer.moving_mean, average)
    close(layer(x), x + bias - (current if mode == "batch" else average))
    close(layer.moving_mean, average)

    layer.decay.assign(0.9)
    x, cotangent = tf.constant(x), random(2, 5, 4, 3, seed=9)
    _, (gradient,) = pulled(lambda: layer(x, training=True), cotangent, x)
    close(gradient, cotangent if mode == "running" else cotangent - cotangent.mean((0, 1, 2)))


def test_mean_only_batch_normalisation_refuses_a_mode_keeps_its_settings_and_can_do_without_bias():
    settings = {"mode": "hybrid", "momentum": 0.9, "center": False}
    assert settings.items() <= MeanOnlyBatchNormalization.from_config(MeanOnlyBatchNormalization(**settings).get_config()).get_config().items()
    with pytest.raises(ValueError, match="unknown mode 'moving'.*running, batch, hybrid"):
        MeanOnlyBatchNormalization("moving")
    assert built(MeanOnlyBatchNormalization(center=False), (None, 3)).trainable_variables == []


# --- Spectral normalisation ---


def spectral(a):
    return built(SpectralNormConv2D(6, 4, strides=2), a["x"].shape, kernel=a["kernel"], u=a["u"])


def test_spectral_normalisation_gives_the_outputs_of_addons_and_keeps_the_kernel():
    a = reference("spectral_norm")
    layer = spectral(a)
    for output, u in zip(a["outputs"], a["vectors"], strict=True):
        close(layer(a["x"]), output)  # u waits: inference sees what the next training pass will
        close(layer(a["x"], training=True), output)
        close(layer.u, u)
    np.testing.assert_array_equal(layer._kernel, a["kernel"])
    theirs = keras.layers.SpectralNormalization(keras.layers.Conv2D(6, 4, strides=2))
    theirs.build(a["x"].shape)
    theirs.kernel.assign(a["kernel"])
    theirs.vector_u.assign(a["u"])
    close(theirs(a["x"], training=True), a["outputs"][0])
    assert difference(theirs.kernel, a["kernel"]) > 0.2  # overwritten


def test_gradient_of_spectral_normalisation_passes_through_sigma():
    a = reference("spectral_norm")
    w = a["kernel"].reshape(-1, 6).astype(np.float64)
    v = a["u"][0] @ w.T / norm(a["u"] @ w.T)
    u = v @ w / norm(v @ w)
    sigma = v @ w @ u
    plain = built(keras.layers.Conv2D(6, 4, strides=2), a["x"].shape, kernel=a["kernel"] / sigma)
    _, (of_normalised,) = pulled(lambda: plain(a["x"]), a["cotangent"], plain._kernel.value)
    close(a["d_kernel"], of_normalised)  # addons: the gradient of the normalised kernel, as if it were the parameter
    layer = spectral(a)
    _, (gradient,) = pulled(lambda: layer(a["x"], training=True), a["cotangent"], layer._kernel.value)
    of_normalised = of_normalised.numpy().reshape(w.shape)
    closed = (of_normalised - (of_normalised * w).sum() / sigma * np.outer(v, u)) / sigma
    close(gradient, closed.reshape(gradient.shape))
    assert difference(gradient * sigma, a["d_kernel"]) > 0.05  # not a matter of scale


def test_converged_sigma_is_the_largest_singular_value_and_its_gradient_that_of_the_quotient():
    x, cotangent = random(7, 9), random(7, 5, seed=1)
    layer = SpectralNormDense(5, use_bias=False)
    for _ in range(300):
        layer(x, training=True)
    w = layer._kernel.numpy().astype(np.float64)
    np.testing.assert_allclose(np.linalg.svd(np.asarray(layer.kernel), compute_uv=False)[0], 1, rtol=1e-5)
    close(layer.kernel, w / np.linalg.svd(w, compute_uv=False)[0])

    def value(w):
        return (x @ (w / np.linalg.svd(w, compute_uv=False)[0]) * cotangent).sum()

    numerical = [(value(w + step) - value(w - step)) / 2e-5 for step in 1e-5 * np.eye(w.size).reshape(-1, *w.shape)]
    _, (gradient,) = pulled(lambda: layer(x), cotangent, layer._kernel.value)
    close(gradient, np.reshape(numerical, w.shape), 1e-4)


def test_vector_starts_as_published():
    u = built(SpectralNormDense(20_000), (None, 1)).u.numpy()
    assert u.std() == pytest.approx(0.03, rel=0.03) and np.abs(u).max() > 0.09  # not truncated
