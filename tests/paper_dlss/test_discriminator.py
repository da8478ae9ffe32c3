"""DLSS-STEM's discriminators and their crops: counts, whole graphs and crops against NumPy versions, spectral norms."""

from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from common.layers import SpectralNormConv2D, SpectralNormDense
from common.precision import building
from paper_dlss import Config
from paper_dlss.discriminator import build_discriminator, multi_scale_crops
from tests.helpers import check_gradients_reach_everything

TINY = Config.tiny()
CORNERS = np.array([[0.31, 0.77], [0.999999, 0.0], [0.1, 0.6]], np.float32)


def images(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=shape).astype(np.float32)


def count(network):
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


# --- Networks ---


def test_parameters_and_shapes():
    judges = build_discriminator(Config.paper())
    assert [count(judge) for judge in judges] == [2_754_496] * 3
    assert [layer.output.shape[1:3] for layer in judges[0].layers if isinstance(layer, SpectralNormConv2D)] == [(34, 34), (16, 16), (7, 7), (2, 2)]
    assert all(judge.input_shape == (None, 70, 70, 1) and judge.output_shape == (None, 1) for judge in judges)
    assert count(build_discriminator(replace(Config.paper(), discriminator_head="linear"))[2]) == 2_754_496 + 2049
    paths = [v.path for judge in judges for v in judge.variables]
    assert len(set(paths)) == len(paths) == 3 * 4 * 3
    kernels = [v.numpy() for v in judges[0].variables if v.name == "kernel"]
    assert kernels[-1].std() == pytest.approx(0.03, rel=0.01)
    assert np.abs(kernels[-1]).max() > 0.12  # not truncated
    assert not np.array_equal(kernels[0], judges[1].get_weights()[0])


def test_glorot():
    judge = build_discriminator(replace(TINY, discriminator_base=16, discriminator_initialiser="glorot"))[0]
    stored = next(v.numpy() for v in judge.variables if v.path.endswith("conv4/kernel"))
    assert np.abs(stored).max() == pytest.approx((6 / (16 * (64 + 128))) ** 0.5, rel=0.01)


def sigma(kernel, u):
    """One power iteration."""
    w = kernel.reshape(-1, kernel.shape[-1])
    v = u @ w.T
    v /= np.linalg.norm(v)
    return np.linalg.norm(v @ w)


def scores(x, network, linear):
    """The four layers and the head, in float64, from a network's variables."""
    of = {tuple(v.path.split("/")[-2:]): v.numpy().astype(np.float64) for v in network.variables}
    for k in range(1, 5):
        name = f"{network.name}_conv{k}"
        kernel = of[name, "kernel"] / sigma(of[name, "kernel"], of[name, "u"])
        windows = np.lib.stride_tricks.sliding_window_view(x, (4, 4), (1, 2))[:, ::2, ::2]
        x = np.einsum("bhwcij,ijco->bhwo", windows, kernel) + of[name, "bias"]
        x = np.maximum(x, 0.2 * x)
    x = x.reshape(len(x), -1)
    if not linear:
        return x.sum(1, keepdims=True)
    name = f"{network.name}_linear"
    return x @ (of[name, "kernel"] / sigma(of[name, "kernel"], of[name, "u"])) + of[name, "bias"]


@pytest.mark.parametrize("head", ["sum", "linear"])
def test_networks_equal_the_equations(head):
    for network in build_discriminator(replace(TINY, discriminator_head=head)):
        for v in network.variables:
            if v.name == "bias":
                v.assign(np.random.default_rng(0).normal(0, 0.1, v.shape))
        x = images((3, 70, 70, 1))
        expected = scores(x, network, head == "linear")
        np.testing.assert_allclose(network(x), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("head", ["sum", "linear"])
def test_spectral_norms_approach_one(head):
    network = build_discriminator(replace(TINY, discriminator_head=head))[1]
    normed = [layer for layer in network.layers if isinstance(layer, SpectralNormConv2D | SpectralNormDense)]
    assert len(normed) == (4 if head == "sum" else 5)

    def largest():
        return np.array([np.linalg.svd(np.reshape(layer.kernel, (-1, layer.kernel.shape[-1])), compute_uv=False)[0] for layer in normed])

    stored = [layer._kernel.numpy() for layer in normed]
    assert largest()[:4].max() > 1.02  # as u starts
    train = tf.function(lambda x: network(x, training=True))
    for _ in range(100):
        train(images((1, 70, 70, 1)))
    np.testing.assert_allclose(largest(), 1, atol=0.01)
    assert all(np.array_equal(a, layer._kernel) for a, layer in zip(stored, normed, strict=True))


def test_gradients_reach_every_weight():
    for head in ("sum", "linear"):
        check_gradients_reach_everything(build_discriminator(replace(TINY, discriminator_head=head))[0], lambda y: keras.ops.mean((y - 1) ** 2), (2, 70, 70, 1))


def test_scores_are_float32_under_mixed_precision():
    full = build_discriminator(TINY)[0]
    with building("mixed_bfloat16"):
        mixed = build_discriminator(TINY)[0]
    mixed.set_weights(full.get_weights())
    x = images((2, 70, 70, 1))
    assert mixed(x).dtype == tf.float32
    assert np.abs(mixed(x) - full(x)).max() < 0.05 * np.abs(full(x)).max() + 0.05


# --- Crops ---


def crops_by_padding(x, corners, halving):
    """Pad, cut, resize."""
    padded = np.pad(x, ((0, 0), (140, 140), (140, 140), (0, 0)), "reflect")
    found = []
    for size, (row, column) in zip((70, 140, 280), np.float64(corners), strict=True):
        top, left = (int(place * (padded.shape[1] - size + 1)) for place in (row, column))
        cut = padded[:, top : top + size, left : left + size]
        if halving == "decimate":
            found.append(cut[:, :: size // 70, :: size // 70])
        else:
            found.append(np.stack([cv2.resize(one, (70, 70), interpolation=cv2.INTER_LINEAR).reshape(70, 70, -1) for one in cut]))
    return found


@pytest.mark.parametrize("halving", ["mean", "decimate"])
@pytest.mark.parametrize(("side", "channels"), [(256, 2), (160, 1), (64, 2)])  # 64 is mirrored more than once
def test_crops_are_those_of_a_padded_image(side, channels, halving):
    x = images((2, side, side, channels))
    for corners in (CORNERS, np.zeros((3, 2)), np.full((3, 2), 1 - 2**-24)):
        found = multi_scale_crops(x, corners, halving)
        assert [crop.shape for crop in found] == [(2, 70, 70, channels)] * 3
        for one, other in zip(found, crops_by_padding(x, corners, halving), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_crops_take_real_and_made_images_at_the_same_place_and_pass_gradients():
    x = tf.constant(images((1, 64, 64, 1)))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1)), tf.TensorSpec((3, 2))])
    def run(x, corners):
        with tf.GradientTape() as tape:
            tape.watch(x)
            crops = multi_scale_crops(keras.ops.concatenate([x, -x], axis=-1), corners)
            loss = sum(keras.ops.sum(crop[..., 0]) for crop in crops)
        return crops, tape.gradient(loss, x)

    crops, gradient = run(x, CORNERS)
    for crop in crops:
        np.testing.assert_array_equal(crop[..., 0], -crop[..., 1])
    assert np.sum(gradient) == pytest.approx(3 * 70**2)  # every reduced pixel is a mean
