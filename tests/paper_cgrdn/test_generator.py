"""CGRDN's networks: counts of the specification, whole graphs against an independent NumPy version, reach, tiles."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from common import paper
from common.precision import building
from paper_cgrdn import Config
from paper_cgrdn.discriminator import build_discriminator
from paper_cgrdn.generator import build_generator, receptive_radius
from tests.helpers import check_gradients_reach_everything, check_tiles_equal_whole
from tests.paper_cgrdn import oracle

SLIM = replace(Config.tiny(), features=4, outer_features=4, growth=3, dense_layers=2, dense_blocks=2, groups=2, discriminator_base=2)


def images(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def randomise(network, seed=0):
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(0, 1.3 / np.sqrt(np.prod(w.shape[:-1])) if w.ndim > 1 else 0.3, w.shape) for w in network.get_weights()])
    return network


def pairs_of(network):
    """(kernel, bias) of every layer in the order of the graph's names: first, down, groups, global fusion, up, last."""
    named = {layer.name: tuple(layer.get_weights()) for layer in network.layers if layer.weights}
    trunk = [name for name in named if name.startswith("group")]
    return [named[name] for name in ("first", "down", *trunk, *(["global_fusion"] if "global_fusion" in named else []), "up", "last")]


# --- Structure ---


@pytest.mark.parametrize(("dense_layers", "growth", "parameters"), [(4, 16, 1_158_785), (4, 24, 1_763_457), (4, 32, 2_478_721), (5, 32, 3_396_737),
                                                                   (6, 32, 4_462_209), (7, 32, 5_675_137), (8, 32, 7_035_521), (9, 32, 8_543_361)])  # fmt: skip
def test_the_ladder_of_sizes(dense_layers, growth, parameters):
    network = build_generator(replace(Config.paper(), dense_layers=dense_layers, growth=growth))
    assert network.count_params() == parameters == oracle.generator_parameters(64, growth, dense_layers, 4, 4)


def test_census_of_the_published_network():
    network = build_generator(Config.paper())
    kinds = {kind: sum(type(layer) is kind for layer in network.layers) for kind in (layers.Conv2D, layers.Conv2DTranspose, layers.Concatenate, layers.Add)}
    assert list(kinds.values()) == [152, 1, 133, 22]
    assert network.count_params() == 7_035_521 and network.compute_output_shape((2, 18, 400, 1)) == (2, 18, 400, 1)
    rectified = [layer for layer in network.layers if isinstance(layer, layers.Conv2D) and layer.activation is keras.activations.relu]
    assert len(rectified) == 128 and {layer.kernel_size for layer in rectified} == {(3, 3)} and {layer.filters for layer in rectified} == {32}


def test_networks_for_comparison():
    assert build_generator(replace(Config.paper(), network="grdn")).count_params() == 7_019_073
    unet = build_generator(replace(Config.paper(), network="mr_unet"))
    assert unet.count_params() == 51_714_177 and unet.output_shape == (None, 256, 256, 1)
    with pytest.raises(ValueError, match="256"):
        replace(Config.paper(), network="mr_unet", side=128)


def test_small_networks_of_the_specification():
    for features, growth, dense_layers, parameters in ((32, 16, 4, 181_377), (16, 8, 3, 33_569)):
        config = replace(Config.tiny(), features=features, outer_features=features, growth=growth, dense_layers=dense_layers, dense_blocks=2, groups=2)
        assert build_generator(config).count_params() == parameters


def test_a_second_halving_widens_the_reach_and_keeps_the_trunk():
    once, twice = (build_generator(replace(SLIM, halvings=halvings)) for halvings in (1, 2))
    trunk = [sum(int(np.prod(v.shape)) for v in net.trainable_variables if v.path.startswith("group")) for net in (once, twice)]
    assert trunk[0] == trunk[1] and twice.count_params() - once.count_params() == 2 * (4 * 4 * 4 * 4 + 4)
    assert receptive_radius(replace(SLIM, halvings=2)) == 2 * receptive_radius(SLIM) + 1
    check_gradients_reach_everything(randomise(twice), lambda y: keras.ops.mean(keras.ops.square(y - 0.3)), (1, 32, 32, 1))


def test_start_is_near_identity():
    network, x = build_generator(Config.tiny()), images((1, 64, 64, 1))
    assert np.std(network(x) - x) < 0.2
    assert np.std(build_generator(replace(Config.tiny(), last_share=0.0))(x) - x) == 0


# --- Values ---


@pytest.mark.parametrize("form", ["cgrdn", "grdn"])
def test_network_equals_the_tables(form):
    network = randomise(build_generator(replace(SLIM, network=form)))
    x = images((2, 12, 18, 1))
    weights = oracle.generator_weights(pairs_of(network), 2, 2, 2, concat=form == "cgrdn")
    expected = oracle.generator(x, weights)
    assert np.std(expected - x) > 0.1
    np.testing.assert_allclose(network(x), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_near_and_ends_in_float32(precision):
    full, x = build_generator(SLIM), images((1, 32, 32, 1))
    with building(precision):
        mixed, judge = build_generator(SLIM), build_discriminator(SLIM)
    mixed.set_weights(full.get_weights())
    assert mixed(x).dtype == tf.float32 and np.abs(mixed(x) - full(x)).max() < 0.05
    assert judge([x, x]).dtype == tf.float32 and {v.dtype for v in (*mixed.variables, *judge.variables)} == {"float32"}


def test_gradients_reach_every_weight():
    check_gradients_reach_everything(randomise(build_generator(SLIM)), lambda y: keras.ops.mean(keras.ops.square(y - 0.3)), (1, 32, 32, 1))


def test_discriminator():
    assert sum(int(np.prod(v.shape)) for v in build_discriminator(Config.paper()).trainable_variables) == 2_764_545
    started = build_discriminator(Config.paper())
    kernels = [started.get_layer(name).kernel.numpy() for name in ("conv2", "conv3", "conv4", "logits")]
    assert [float(k.std()) for k in kernels] == pytest.approx([0.02] * 4, rel=0.03)
    firsts = [k.ravel()[:1000] for k in kernels]
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 0.15 for k, a in enumerate(firsts) for b in firsts[:k])  # each drawn on its own
    assert {layer.momentum for layer in started.layers if layer.name.startswith("norm")} == {0.95}
    judge = randomise(build_discriminator(SLIM))
    assert judge([images((1, 256, 64, 1))] * 2).shape == (1, 32, 8, 1)
    named = {layer.name: layer.get_weights() for layer in judge.layers if layer.weights}
    for k in (2, 3, 4):
        gamma, beta, mean, variance = named[f"norm{k}"]
        judge.get_layer(f"norm{k}").set_weights([gamma, beta, mean, np.abs(variance) + 0.1])
    named = {layer.name: layer.get_weights() for layer in judge.layers if layer.weights}
    weights = {"kernels": [named[f"conv{k}"][0] for k in (1, 2, 3, 4)] + [named["logits"][0]], "norms": [named[f"norm{k}"] for k in (2, 3, 4)],
               "bias": named["logits"][1]}  # fmt: skip
    x, candidate = images((2, 32, 40, 1), 1), images((2, 32, 40, 1), 2)
    expected = np.squeeze(oracle.discriminator(x, candidate, weights))
    np.testing.assert_allclose(np.squeeze(judge([x, candidate])), expected, atol=1e-4 * np.abs(expected).max())


# --- Reach ---


@pytest.mark.parametrize("halvings", [1, 2])
def test_receptive_radius_is_the_support_of_the_gradient(halvings):
    config, stride = replace(SLIM, halvings=halvings), 2**halvings
    network = build_generator(replace(config, features=1, outer_features=1, growth=1))
    network.set_weights([np.abs(w) + 0.05 for w in network.get_weights()])
    radius, reach = receptive_radius(config), 0
    middle = -(-radius // stride) * stride + stride
    for axis in (1, 2):
        for position in range(middle, middle + stride):
            shape = [1, 8, 8, 1]
            shape[axis] = 2 * middle + stride
            x = tf.constant(np.abs(images(shape)))
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = tf.reduce_sum(tf.gather(network(x), position, axis=axis))
            touched = np.flatnonzero(tape.gradient(value, x).numpy()[0, ..., 0].any(2 - axis)) - position
            reach = max(reach, -touched.min(), touched.max())
    assert reach == radius
    assert receptive_radius(Config.paper()) == 261 and receptive_radius(replace(Config.paper(), network="mr_unet")) is None


@pytest.mark.parametrize("halvings", [1, 2])
def test_exact_tiles_equal_the_whole(halvings):
    config = replace(SLIM, halvings=halvings)
    check_tiles_equal_whole(paper("cgrdn"), randomise(build_generator(config)), config, (130, 203), 96 if halvings == 1 else 160)
