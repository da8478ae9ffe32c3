"""The SSUM CycleGAN's networks: counts of the specification, whole graphs against an independent NumPy version, reach, sizes, tiles."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from common import paper
from common.precision import building
from paper_ssum_cyclegan import Config
from paper_ssum_cyclegan.discriminator import build_discriminator, receptive_field
from paper_ssum_cyclegan.flow import build_registration
from paper_ssum_cyclegan.generator import build_generator, receptive_radius
from paper_ssum_cyclegan.parts import DepthToSpace, EqualPhases
from tests.helpers import check_gradients_reach_everything, check_tiles_equal_whole
from tests.paper_ssum_cyclegan import oracle

SLIM = replace(Config.tiny(), width=4, trunk=4, blocks=2, dropout=0.0, discriminator_base=2)
WIDE = replace(SLIM, trunk=16, long_skip=False, normalised_upsampling=True)  # the other reading, in little


def images(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def trainable(network) -> int:
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


def randomise(network, seed=0):
    """Weights and statistics that leave no term invisible."""
    rng = np.random.default_rng(seed)
    for v in network.variables:
        if "variance" in v.name:
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        else:
            v.assign(rng.normal(0, 1.3 / np.sqrt(np.prod(v.shape[:-1])), v.shape) if len(v.shape) > 1 else rng.normal(0.5, 0.3, v.shape))
    return network


# --- Counts ---


def test_counts_of_both_readings():
    literal = Config.paper()
    assert trainable(build_generator(literal)) == 1_078_657
    assert trainable(build_generator(replace(literal, long_skip=False))) == 1_041_665
    assert trainable(build_generator(replace(literal, blocks=6))) == 856_705
    assert trainable(build_generator(replace(Config.reference(), norm="batch"))) == 12_476_801
    assert trainable(build_generator(Config.reference())) == 12_466_305
    assert trainable(build_generator(replace(Config.reference(), network="resnet"))) == 11_365_633


def test_discriminator_sees_70_or_94_pixels():
    for literal, side, field in ((False, 30, 70), (True, 15, 94)):
        config = replace(Config.paper(), literal_strides=literal)
        network = build_discriminator(config)
        assert trainable(network) == 2_762_689 and receptive_field(config) == field
        assert network(images((1, 256, 256, 1))).shape == (1, side, side, 1)
        plain = keras.models.clone_model(
            network, clone_function=lambda layer: layers.Identity() if "norm" in layer.name else layer.__class__.from_config(layer.get_config())
        )
        x = tf.constant(images((1, 256, 256, 1)))
        with tf.GradientTape() as tape:
            tape.watch(x)
            logit = plain(x)[0, side // 2, side // 2, 0]
        seen = np.abs(tape.gradient(logit, x).numpy()[0, ..., 0]) > 0
        assert [np.ptp(np.flatnonzero(seen.any(axis))) + 1 for axis in (0, 1)] == [field, field]


def test_the_unet_needs_a_power_of_two():
    network = build_generator(replace(Config.tiny(), network="unet", width=4))
    assert network(images((1, 64, 128, 1))).shape == (1, 64, 128, 1)
    assert trainable(build_generator(replace(Config.paper(), network="unet"))) == 54_408_385
    with pytest.raises(ValueError, match="power of 2"):
        replace(Config.tiny(), network="unet", side=96)


# --- Values ---


@pytest.mark.parametrize("config", [SLIM, WIDE, replace(WIDE, norm="instance"), replace(SLIM, upsampling="resize", rectifier="prelu")],
                         ids=["ssum64", "resnet9_256", "instance", "options"])  # fmt: skip
def test_sizes_and_range(config):
    network = randomise(build_generator(config))
    for height, width in ((32, 48), (64, 36)):
        y = network(images((1, height, width, 1)))
        assert y.shape == (1, height, width, 1) and y.dtype == tf.float32 and np.abs(y).max() <= 1


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (SLIM, {"preset": "ssum64"}),
        (replace(SLIM, long_skip=False, rectifier="prelu"), {"preset": "ssum64", "long_skip": False, "activation": "prelu"}),
        (WIDE, {"preset": "resnet9_256"}),
        (replace(WIDE, norm="instance"), {"preset": "resnet9_256", "norm": "instance"}),
    ],
    ids=["ssum64", "without skip", "resnet9_256", "instance"],
)
def test_generators_equal_the_tables(config, settings, training):
    network, x = randomise(build_generator(config)), images((2, 16, 24, 1))
    weights = [tuple(layer.get_weights()) for layer in network.layers if layer.weights]
    expected = oracle.generator(x, weights, settings | {"blocks": config.blocks, "training": training})
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(network(x, training=training), expected, atol=2e-4)


def test_networks_for_comparison_equal_theirs():
    network, x = randomise(build_generator(replace(Config.tiny(), network="resnet", width=4, blocks=2))), images((2, 16, 24, 1))
    weights = [tuple(layer.get_weights()) for layer in network.layers if layer.weights]
    expected = oracle.stock_resnet(x, weights, 2)
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(network(x), expected, atol=2e-4)
    network, x = randomise(build_generator(replace(Config.tiny(), network="unet", width=4, side=32))), images((2, 32, 32, 1))
    stages = {}
    for layer in network.layers:
        if layer.weights:
            stages[layer.name.split("_")[0]] = (*stages.get(layer.name.split("_")[0], ()), *layer.get_weights())
    down, up = ([stages[name] for name in stages if name.startswith(way)] for way in ("down", "up"))
    expected = oracle.pix2pix_unet(x, down, up)
    assert len(down) == len(up) == 5 and np.std(expected) > 0.05
    np.testing.assert_allclose(network(x), expected, atol=2e-4)


@pytest.mark.parametrize("literal", [False, True])
def test_discriminators_equal_the_table(literal):
    config = replace(SLIM, literal_strides=literal, conditional=literal)  # two channels with the other strides, for both
    network, x = randomise(build_discriminator(config)), images((2, 64, 48, 1 + literal))
    weights = [tuple(layer.get_weights()) for layer in network.layers if layer.weights]
    expected = oracle.discriminator(x, weights, rf94=literal)
    np.testing.assert_allclose(network(x), expected, atol=2e-4 * np.abs(expected).max())


def test_depth_to_space_is_tensorflows():
    x = images((2, 3, 5, 12))
    np.testing.assert_array_equal(DepthToSpace()(x), tf.nn.depth_to_space(x, 2))


def test_sub_pixel_convolutions_start_without_a_checkerboard():
    network = build_generator(SLIM)
    kernel = network.get_layer("up1_conv").kernel
    assert all(np.array_equal(kernel[..., :4], kernel[..., 4 * k : 4 * k + 4]) for k in range(1, 4))
    plain = EqualPhases(stddev=0.02, seed=1)((3, 3, 64, 256))
    assert abs(np.std(plain) - 0.02) < 5e-4
    y = network(np.full((1, 64, 64, 1), 0.3, np.float32))[0, 16:-16, 16:-16, 0]
    assert np.std(y) < 1e-6  # all four phases alike


def test_dropout_stands_behind_the_first_rectifier_of_a_block():
    names = [layer.name for layer in build_generator(Config.paper()).layers]
    for k in range(1, 10):
        at = names.index(f"block{k}_dropout")
        assert names[at - 2 : at + 2] == [f"block{k}_norm1", f"block{k}_act", f"block{k}_dropout", f"block{k}_pad2"]


def test_dropout_works_in_training_only():
    network, x = randomise(build_generator(replace(SLIM, dropout=0.5, norm="instance"))), images((1, 32, 32, 1))
    np.testing.assert_array_equal(network(x, training=False), network(x, training=False))
    assert np.abs(network(x, training=True) - network(x, training=True)).max() > 1e-3


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_near_and_ends_in_float32(precision):
    full, x = randomise(build_generator(replace(SLIM, norm="instance"))), images((1, 32, 32, 1))
    with building(precision):
        mixed, judge = build_generator(replace(SLIM, norm="instance")), build_discriminator(SLIM)
    mixed.set_weights(full.get_weights())
    assert mixed(x).dtype == judge(x).dtype == tf.float32 and np.abs(mixed(x) - full(x)).mean() < 0.05


def test_gradients_reach_every_weight():
    check_gradients_reach_everything(randomise(build_generator(SLIM)), lambda y: keras.ops.mean(keras.ops.square(y - 0.3)), (1, 32, 32, 1))


def test_registration_network_starts_at_no_displacement():
    network = build_registration()
    flow = network([images((2, 32, 40, 1)), images((2, 32, 40, 1), 1)])
    assert flow.shape == (2, 32, 40, 2) and 0 < np.abs(flow).max() < 0.1


# --- Reach ---


@pytest.mark.parametrize("config", [SLIM, replace(SLIM, long_skip=False), replace(SLIM, blocks=1)])
def test_receptive_radius_is_the_support_of_the_gradient(config):
    network = build_generator(config)
    for v in network.variables:
        v.assign(np.ones(v.shape) if "variance" in v.name else np.full(v.shape, 0.01) if len(v.shape) > 1 else np.full(v.shape, 0.1))
    radius, reach = receptive_radius(config), 0
    middle = -(-radius // 4) * 4 + 8
    for axis in (1, 2):
        for position in range(middle, middle + 4):
            shape = [1, 16, 16, 1]
            shape[axis] = 2 * middle + 8
            x = tf.constant(np.abs(images(shape)) * 0.1)
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = tf.reduce_sum(tf.gather(network(x), position, axis=axis))
            touched = np.flatnonzero(tape.gradient(value, x).numpy()[0, ..., 0].any(2 - axis)) - position
            reach = max(reach, -touched.min(), touched.max())
    assert reach == radius
    assert receptive_radius(replace(config, norm="instance")) is None


def test_exact_tiles_equal_the_whole():
    network = randomise(build_generator(SLIM))
    check_tiles_equal_whole(paper("ssum_cyclegan"), network, SLIM, (130, 203), 96)
