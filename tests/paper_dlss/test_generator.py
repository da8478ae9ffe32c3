"""DLSS-STEM's two-stage generator: counts and shapes of the specification, whole graphs against an independent NumPy version, statistics, gains and reach."""

from contextlib import contextmanager
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.ndimage import gaussian_filter

from common.layers import MeanOnlyBatchNormalization
from common.precision import building
from paper_dlss import Config
from paper_dlss.generator import (
    BilinearDoubling,
    Interpolation,
    build_generator,
    build_head,
    build_inner,
    build_outer,
    build_trained,
    receptive_radius,
)
from tests.helpers import check_gradients_reach_everything

SLIM = replace(Config.tiny(), inner=(3, 4, 5, 4, 6), inner_blocks=2, outer=2, outer_blocks=2, data_initialisation=False)
LEGACY = {"activation": "leaky", "normalised": "ends", "statistics": "batch", "halving": "decimate"}


@pytest.fixture(scope="module")
def trained():
    """The tiny pair, with its gains set."""
    keras.utils.set_random_seed(0)
    return build_trained(Config.tiny())


@contextmanager
def on_paper():
    """Networks that are built inside have shapes and no numbers: half a gigabyte stays free."""
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        keras.backend.clear_session()  # of the variables that wait for their numbers


def images(shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def count(network):
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


def every(network, kind):
    return [layer for layer in network._flatten_layers() if isinstance(layer, kind)]


def randomise(network, seed=0):
    """Weights for which every one matters: gains near 1, biases and channel means that are not 0."""
    rng = np.random.default_rng(seed)
    for v in network.variables:
        if v.name == "gain":
            v.assign(rng.uniform(0.7, 1.8, v.shape))
        elif v.name in ("bias", "moving_mean"):
            v.assign(rng.normal(0, 0.2, v.shape))
        elif v.name == "kernel":
            v.assign(rng.normal(0, rng.uniform(0.1, 3), v.shape))
    return network


# --- Structure ---


@pytest.mark.parametrize(
    ("preset", "parts"),
    [(Config.paper, (105_744_064, 379_681, 37_505)), (Config.legacy_code, (105_760_576, 380_418, 37_570))],
)
def test_parameters_and_shapes_of_the_paper(preset, parts):
    config = replace(preset(), data_initialisation=False)
    with on_paper():
        both, generator = build_trained(config)
        assert tuple(count(build(config)) for build in (build_inner, build_outer, build_head)) == parts
        assert count(generator) == sum(parts[:2]) and count(both) == sum(parts)
        assert both.compute_output_shape((2, 512, 512, 1)) == [(2, 512, 512, 1), (2, 256, 256, 1)]
        inner = generator.get_layer("inner")
        sides = [inner.get_layer(name).compute_output_shape((1, n, n, 1))[1] for name, n in (("inner_half", 512), ("inner_conv2", 256), ("inner_conv5", 32))]
        assert sides == [256, 128, 16]
        assert len(every(both, layers.Conv2D) + every(both, layers.Conv2DTranspose)) == 43  # 38 ordinary (K) and 5 transposed
        assert len(every(both, layers.Conv2DTranspose)) == 5
        assert len(every(both, layers.Add)) == 6 + 3 + 1
        normalised = [layer.name for layer in every(both, MeanOnlyBatchNormalization)]
        first_and_up = {"inner_conv1", *(f"inner_up{k}" for k in range(1, 5)), "outer_conv1", "outer_up"}
        assert set(normalised) == {f"{n}_mean" for n in first_and_up} if preset == Config.legacy_code else len(normalised) == 41
        slopes = {layer.name: layer.negative_slope for layer in every(both, layers.ReLU)}
        assert len(slopes) == 41
        early = {"inner_conv1_relu", "outer_conv1_relu", "outer_conv2_relu"}
        for name, slope in slopes.items():
            assert slope == (0 if preset == Config.paper else 0.1 if name in early else 0.01)


def test_stored_kernels_start_normal_with_deviation_one_twentieth():
    kernels = [v.numpy().ravel() for v in build_inner(replace(SLIM, inner=(24,) * 5)).variables if v.name == "kernel"]
    drawn = np.concatenate(kernels)
    assert drawn.std() == pytest.approx(0.05, rel=0.01) and abs(drawn.mean()) < 5e-4
    assert np.abs(drawn).max() > 0.18  # not truncated
    assert len({k[:3].tobytes() for k in kernels}) == len(kernels)


def test_parts_share_their_layers_and_are_told_apart_by_name(trained):
    both, generator = trained
    ids = {id(v) for v in both.variables}
    assert {id(v) for v in generator.variables} < ids
    head = [v for v in both.trainable_variables if v.path.startswith("head")]
    assert {id(v) for v in head} == ids & {id(v) for v in both.get_layer("head").trainable_variables}
    assert len({v.path for v in both.variables}) == len(both.variables)
    x = images((1, 64, 64, 1))
    np.testing.assert_array_equal(both(x)[0], generator(x))
    assert both(x)[1].shape == (1, 32, 32, 1)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (32, 32), (160, 32)])
def test_other_sizes(trained, height, width):
    assert trained[1](images((2, height, width, 1))).shape == (2, height, width, 1)


# --- Values: the network of the specification's tables, in NumPy ---


def convolved(x, kernel, stride=1):
    """Cross-correlation with zeros outside; an odd kernel at stride 1, and at stride 2 padded on the far side alone, as even sides are."""
    n, side = kernel.shape[0], x.shape[1]
    before, after = ((n - 1) // 2, n // 2) if stride == 1 else (0, n - 2)
    padded = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    total = 0
    for i in range(n):
        for j in range(n):
            total = total + padded[:, i : i + side : stride, j : j + side : stride][:, : side // stride, : side // stride] @ kernel[i, j]
    return total


def scattered(x, kernel):
    """Each pixel k adds its 3 x 3 kernel (stored height, width, out, in) at 2k, 2k + 1, 2k + 2; what falls beyond twice the side is lost."""
    batch, side = x.shape[:2]
    out = np.zeros((batch, 2 * side + 1, 2 * side + 1, kernel.shape[2]))
    for i in range(3):
        for j in range(3):
            out[:, i : i + 2 * side : 2, j : j + 2 * side : 2] += x @ kernel[i, j].T
    return out[:, :-1, :-1]


def doubled(x):
    """Bilinear, half-pixel centres."""
    for axis in (1, 2):
        n = x.shape[axis]
        at = np.clip((np.arange(2 * n) + 0.5) / 2 - 0.5, 0, n - 1)
        low = np.minimum(at.astype(int), n - 2)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, low + 1, axis) * share
    return x


class Oracle:
    """Tables 3.1 to 3.3 of the specification, from a network's variables."""

    def __init__(self, network, config):
        self.config = config
        self.of = {tuple(v.path.split("/")[-2:]): v.numpy().astype(np.float64) for v in network.variables}

    def layer(self, x, name, stride=1, up=False, slope=0.01, mean=False, linear=False):
        v, c = self.of[name, "kernel"], self.config
        if up and c.upsampling == "transposed":
            length = np.sqrt((v**2).sum((0, 1, 3), keepdims=True))
            y = scattered(x, v / length * self.of[name, "gain"][:, None])
        else:
            length = np.sqrt((v**2).sum((0, 1, 2), keepdims=True))
            y = convolved(doubled(x) if up else x, v / length * self.of[name, "gain"], stride)
        if (mean or c.normalised == "all") and not linear:
            y = y - (y.mean((0, 1, 2)) if c.statistics == "batch" else self.of[f"{name}_mean", "moving_mean"])
            y = y + (self.of[f"{name}_mean", "bias"] if c.biases else 0)
        elif c.biases:
            y = y + self.of[name, "bias"]
        return y if linear else np.where(y > 0, y, y * (slope if c.activation == "leaky" else 0))

    def blocks(self, x, name, count):
        for b in range(1, count + 1):
            y = x
            for k in (1, 2, 3):
                y = self.layer(y, f"{name}_block{b}_conv{k}")
            x = x + y
        return x

    def __call__(self, image):
        c = self.config
        n = image.shape[1] // 2
        half = image[:, ::2, ::2] if c.halving == "decimate" else image.reshape(-1, n, 2, n, 2, 1).mean((2, 4))
        x = self.layer(half, "inner_conv1", slope=0.1, mean=True)
        levels = len(c.inner)
        encoded = {levels - 1: x}
        for k in range(2, levels + 1):
            x = encoded[levels - k] = self.layer(x, f"inner_conv{k}", stride=2)
        x = self.blocks(x, "inner", c.inner_blocks)
        for k in range(1, levels):
            x = self.layer(x, f"inner_up{k}", up=True, mean=True) + (encoded[k] if c.skips else 0)
        y = self.layer(image, "outer_conv1", slope=0.1, mean=True)
        y = self.layer(y, "outer_conv2", stride=2, slope=0.1)
        y = self.blocks(y + x, "outer", c.outer_blocks)
        y = self.layer(self.layer(y, "outer_up", up=True, mean=True), "outer_conv3")
        start = gaussian_filter(2.0 * image - 1, (0, 3, 3, 0), mode="reflect", radius=(0, 9, 9, 0)) if c.residual else 0
        return start + self.layer(y, "outer_image", linear=True), self.layer(self.layer(x, "head_conv1"), "head_image", linear=True)


@pytest.mark.parametrize("change", [{}, {"biases": False}, LEGACY, {"upsampling": "bilinear"}, {"statistics": "batch"}, {"normalised": "ends"},
                                    {"skips": True, "inner": (3, 4, 5)}, {"residual": True}], ids=str)  # fmt: skip
def test_networks_equal_the_tables(change):
    config = replace(SLIM, **change)
    both = randomise(build_trained(config)[0])
    assert any(v.name == "bias" for v in both.variables) == config.biases
    x = images((2, 64, 64, 1))
    for found, expected in zip(both(x), Oracle(both, config)(x), strict=True):
        assert np.std(expected) > 0.02
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_bilinear_doubling_is_opencvs():
    x = images((2, 6, 9, 3))
    found = BilinearDoubling()(x)
    for one, image in zip(found, x, strict=True):
        np.testing.assert_allclose(one, cv2.resize(image, (18, 12), interpolation=cv2.INTER_LINEAR), atol=1e-6)
    assert BilinearDoubling().compute_output_shape((None, None, 9, 3)) == (None, None, 18, 3)


def test_bilinear_network_runs_at_sizes_known_only_at_run_time_and_comes_back_from_a_file(tmp_path):
    network = randomise(build_generator(replace(SLIM, inner_blocks=1, outer_blocks=1, upsampling="bilinear")))
    serve = tf.function(network, input_signature=[tf.TensorSpec((None, None, None, 1), tf.float32)])
    for shape in ((1, 32, 64, 1), (2, 64, 32, 1)):
        np.testing.assert_allclose(serve(images(shape)), network(images(shape)), atol=1e-5)
    network.save(tmp_path / "n.keras")
    again = keras.saving.load_model(tmp_path / "n.keras")  # safe mode
    np.testing.assert_array_equal(network(images((1, 32, 32, 1))), again(images((1, 32, 32, 1))))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_near_and_ends_in_float32(precision):
    full = randomise(build_trained(SLIM)[0])
    with building(precision):
        mixed = build_trained(SLIM)[0]
    mixed.set_weights(full.get_weights())
    for one, other in zip(full(images((1, 64, 64, 1))), mixed(images((1, 64, 64, 1))), strict=True):
        assert other.dtype == tf.float32
        assert np.abs(one - other).max() < 0.05 * np.abs(one).max()
    assert mixed.get_layer("inner").output.dtype == precision.removeprefix("mixed_")
    assert {v.dtype for v in mixed.variables} == {"float32"}


# --- Statistics and gains ---


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_training_and_inference_agree(statistics):
    network = randomise(build_generator(replace(Config.tiny(), statistics=statistics)))
    x = images((1, 64, 64, 1))
    follow = network(x, training=False) - network(x, training=True)  # this pass moves the running means
    assert (np.abs(follow).max() > 1e-3) == (statistics == "running")
    for layer in every(network, MeanOnlyBatchNormalization):
        layer.decay.assign(1.0)
    before = network.get_weights()
    np.testing.assert_allclose(network(x, training=True), network(x, training=False), atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))


def responses(both, x):
    """name -> what each convolution gives before its activation, bias and all."""
    parts = {name: both.get_layer(name) for name in ("inner", "outer", "head")}
    features = parts["inner"](x)
    fed = {"inner": x, "outer": [x, features], "head": features}
    found = {}
    for name, part in parts.items():
        taps = [layer.name for layer in part.layers if isinstance(layer, layers.Conv2D | layers.Conv2DTranspose)]
        taps = [f"{tap}_mean" if f"{tap}_mean" in {layer.name for layer in part.layers} else tap for tap in taps]
        found |= dict(zip(taps, keras.Model(part.input, [part.get_layer(t).output for t in taps])(fed[name]), strict=True))
    return found


@pytest.mark.parametrize("change", [{}, {"biases": False}, {"normalised": "ends"}], ids=str)
def test_noise_has_set_gains_and_means(change):
    config = replace(Config.tiny(), **change, seed=5)
    both, _ = build_trained(config)
    noise = keras.random.uniform((1, 64, 64, 1), -0.8, 0.8, seed=5)
    found = responses(both, noise)
    assert len(found) == 12 + 8 + 2
    for name, y in found.items():
        np.testing.assert_allclose(np.var(y, (0, 1, 2)), 1, rtol=1e-2, err_msg=name)
        if config.biases or name.endswith("_mean"):
            np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0, atol=1e-3, err_msg=name)
    fresh = build_trained(replace(config, data_initialisation=False))[0]
    assert all(np.all(v.numpy() == 1) for v in fresh.variables if v.name == "gain")
    assert not all(np.all(v.numpy() == 1) for v in build_trained(replace(config, seed=6))[0].variables if v.name == "gain")


def test_a_residual_network_starts_near_an_interpolation():
    """What it adds has a tenth of the deviation that outputs start with elsewhere, for noise and about so for anything else."""
    _, network = build_trained(replace(Config.tiny(), residual=True, seed=5))
    noise = keras.random.uniform((1, 64, 64, 1), -0.8, 0.8, seed=5)
    added = network(noise) - Interpolation()(noise)
    assert np.std(added) == pytest.approx(0.1, rel=1e-2) and abs(np.mean(added)) < 1e-3


def test_gradients_reach_every_weight(trained):
    def loss(outputs):
        return sum(keras.ops.mean(keras.ops.square(y - 0.3)) for y in outputs)

    check_gradients_reach_everything(trained[0], loss, (2, 64, 64, 1))


# --- Reach ---


@pytest.mark.parametrize("change", [{}, {"halving": "decimate"}, {"upsampling": "bilinear"}, {"outer_blocks": 3}, {"skips": True, "residual": True},
                                    {"inner": (1, 1, 1), "skips": True}], ids=str)  # fmt: skip
def test_receptive_radius_is_the_support_of_the_gradient(change):
    """For every place of an output pixel on the grid of the halvings; all weights positive, so that nothing is dead and nothing cancels."""
    config = replace(SLIM, **{"inner": (1,) * 5, "outer": 1, "inner_blocks": 1, "outer_blocks": 1, "biases": False, **change})
    network = build_generator(config)
    for v in network.trainable_variables:
        v.assign(np.abs(v.numpy()) + 0.05)
    radius = receptive_radius(config)
    middle = -(-radius // 32) * 32
    side, reach = 2 * middle + 32, 0
    for axis, shape in ((1, (32, side, 32, 1)), (2, (32, 32, side, 1))):  # image k is asked about pixel `middle + k` of one axis
        x = tf.constant(images(shape))
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.linalg.trace(tf.reduce_sum(network(x)[..., 0], axis=3 - axis)[:, middle : middle + 32])
        touched = tape.gradient(total, x).numpy()[..., 0].any(3 - axis)
        for k, row in enumerate(touched):
            found = np.flatnonzero(row) - middle - k
            reach = max(reach, -found.min(), found.max())
    assert reach == radius


def test_reach_of_the_presets():
    """To the left: 4 for the last convolutions and their doubling; at half size 9 of blocks, 2 + 4 + 8 + 16 of doublings, 18 x 16 of blocks, 2 of 5x5."""
    assert receptive_radius(Config.paper()) == 4 + 2 * (9 + 30 + 18 * 16 + 2) == 662
    assert receptive_radius(Config.small()) == 662
    assert receptive_radius(Config.legacy_code()) is None
    assert receptive_radius(replace(Config.tiny(), statistics="hybrid")) is None
    assert receptive_radius(Config.one_stage()) is None  # it takes one size only
