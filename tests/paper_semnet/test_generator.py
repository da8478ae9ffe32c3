"""The SEMNet graph: counts of the abstract, the blocks' algebra, and the whole network against an independent NumPy version."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from common import paper
from paper_semnet import Config
from paper_semnet.generator import build_generator, conv_initialisers, receptive_radius
from tests.helpers import check_gradients_reach_everything, check_tiles_equal_whole
from tests.paper_semnet import oracle


def layers_of(network, kind):
    return [layer for layer in network.layers if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("tail", "channels", "parameters", "convolutions"),
    [("94", 1, 4_391_617, 94), ("94", 3, 4_393_923, 94), ("95", 1, 4_428_545, 95), ("95", 3, 4_430_851, 95)],
)
def test_counts(tail, channels, parameters, convolutions):
    network = build_generator(replace(Config.paper(), tail=tail, channels=channels))
    activations = layers_of(network, keras.layers.LeakyReLU)
    assert network.count_params() == parameters
    assert len(layers_of(network, keras.layers.Conv2D)) == convolutions
    assert len(activations) == 19
    assert sum(len(layer._inbound_nodes) for layer in activations) == convolutions - 94 + 73
    assert all(layer.negative_slope == pytest.approx(0.2) for layer in activations)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (37, 53), (1, 1)])
def test_any_size_is_doubled(height, width):
    assert build_generator(Config.paper()).compute_output_shape((1, height, width, 1)) == (1, 2 * height, 2 * width, 1)
    assert build_generator(Config.tiny())(np.zeros((1, height, width, 1), np.float32)).shape == (1, 2 * height, 2 * width, 1)


@pytest.mark.parametrize(("blocks", "tail"), [(1, "94"), (2, "95")])
def test_network_equals_the_equations(blocks, tail):
    config = replace(Config.tiny(), blocks=blocks, features=6, growth=4, tail=tail)
    network = build_generator(config)
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(0, 0.15, w.shape) for w in network.get_weights()])

    def weights(name):
        return tuple(w.astype(np.float64) for w in network.get_layer(name).get_weights())

    named = {
        "first": weights("conv_first"),
        "blocks": [[[weights(f"rrdb{b}_rdb{r}_conv{c}") for c in range(1, 6)] for r in range(1, 4)] for b in range(1, blocks + 1)],
        "body": weights("conv_body"),
        "up": weights("conv_up"),
        "last": weights("conv_last"),
    }
    if tail == "95":
        named["hr"] = weights("conv_hr")
    x = rng.uniform(size=(2, 7, 9, 1))
    np.testing.assert_allclose(network(x.astype(np.float32)), oracle.semnet(x, named), atol=2e-5)


def test_dense_blocks_of_zero_weights_are_identities():
    network = build_generator(Config.paper())
    for layer in network.layers:
        if "_rdb" in layer.name and layer.get_weights():
            layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    image = np.random.default_rng(0).uniform(size=(1, 8, 8, 1)).astype(np.float32)
    trunk = keras.Model(network.input, [network.get_layer(name).output for name in ("conv_first", "rrdb1_rdb1_add", "rrdb6_add")])
    first, dense, last = (np.asarray(y) for y in trunk(image))
    np.testing.assert_allclose(dense, first, rtol=1e-6)
    np.testing.assert_allclose(last, first * 1.2**6, rtol=1e-5)


def test_initialisers():
    kernel = np.asarray(conv_initialisers("esrgan", 576, True)["kernel_initializer"]((3, 3, 64, 32)))
    assert kernel.std() == pytest.approx(0.1 * (2 / 576) ** 0.5, rel=0.02)
    assert np.abs(kernel).max() > 3 * kernel.std()  # not a truncated normal
    outer = conv_initialisers("esrgan", 576, False)
    for part, shape in (("kernel_initializer", (3, 3, 64, 64)), ("bias_initializer", (4096,))):
        values = np.asarray(outer[part](shape))
        assert np.abs(values).max() == pytest.approx(1 / 24, rel=0.01)
        assert values.std() == pytest.approx(1 / 24 / 3**0.5, rel=0.03)
    orthogonal = np.asarray(conv_initialisers("kair", 576, True)["kernel_initializer"]((3, 3, 64, 32))).reshape(576, 32)
    np.testing.assert_allclose(orthogonal.T @ orthogonal, 0.04 * np.eye(32), atol=1e-5)


@pytest.mark.parametrize("tail", ["94", "95"])
def test_receptive_radius_is_what_an_impulse_reaches(tail):
    assert receptive_radius(replace(Config.paper(), tail=tail)) == oracle.receptive_radius(6, tail) == {"94": 93, "95": 94}[tail]
    config = replace(Config.tiny(), tail=tail, features=4, growth=4)
    network = build_generator(config)
    rng = np.random.default_rng(0)
    network.set_weights([np.abs(rng.normal(0.05, 0.02, w.shape)) for w in network.get_weights()])  # positive weights: nothing cancels
    radius = receptive_radius(config)
    image = np.zeros((1, 2 * radius + 5, 2 * radius + 5, 1), np.float32)
    still = np.asarray(network(image))
    image[0, radius + 2, radius + 2] = 1e6
    changed = np.any(np.asarray(network(image)) != still, axis=(0, 2, 3))
    reached = np.flatnonzero(changed) // 2 - (radius + 2)
    assert np.abs(reached).max() == radius


def test_gradients_reach_every_weight():
    check_gradients_reach_everything(build_generator(Config.tiny()), lambda y: keras.ops.mean(keras.ops.square(y)), (2, 16, 16, 1))


def test_exact_tiles_equal_the_whole_image():
    config = Config.tiny()
    check_tiles_equal_whole(paper("semnet"), build_generator(config), config, (120, 131), 64)


def test_paper_network_in_exact_tiles_equals_the_whole_image():
    config = replace(Config.paper(), features=8, growth=4)  # all 94 convolutions and the full halo of 93, thin enough for a test
    check_tiles_equal_whole(paper("semnet"), build_generator(config), config, (256, 256), 221)


def test_keras_file_round_trip(tmp_path):
    network = build_generator(Config.tiny())
    network.save(tmp_path / "n.keras")
    again = keras.saving.load_model(tmp_path / "n.keras")  # safe mode
    x = np.random.default_rng(0).uniform(size=(1, 9, 11, 1)).astype(np.float32)
    np.testing.assert_array_equal(network(x), again(x))
