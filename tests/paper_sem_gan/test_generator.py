"""SEM-GAN's networks: counts of the specification, the whole graphs against independent NumPy versions, reach, tiles and export."""

from dataclasses import replace

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from common import paper, restore
from common.export import export
from common.precision import building
from paper_sem_gan import Config
from paper_sem_gan.data import prepare
from paper_sem_gan.discriminator import build_discriminator
from paper_sem_gan.generator import build_generator, receptive_radius
from tests.helpers import check_gradients_reach_everything, check_tiles_equal_whole, publish_untrained
from tests.paper_sem_gan import oracle

SLIM = replace(Config.tiny(), base=3, levels=2, discriminator_base=2)
STRICT = {"stem": False, "strict_second_changes": True}
THREE = {"stem": False, "convolutions": 3}


def randomise(network, seed=0, positive=False):
    """Weights that keep the size of what passes through, so that every layer matters to the output."""
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(0, 1.3 / np.sqrt(np.prod(w.shape[:-1])) if w.ndim > 1 else 0.3, w.shape) for w in network.get_weights()]
    network.set_weights([np.abs(w) for w in drawn] if positive else drawn)
    return network


def weights_of(network):
    """name -> (kernel, bias) of every layer that has them."""
    return {layer.name: tuple(layer.get_weights()) for layer in network.layers if layer.weights}


def generator_weights(network, config):
    named = weights_of(network)

    def block(name):
        return [named[f"{name}_conv{k}"] for k in range(1, config.convolutions + 1)]

    levels = range(1, config.levels + 1)
    down, up = [block(f"down{k}") for k in levels], [block(f"up{k}") for k in reversed(levels)]
    return {"stem": named.get("stem"), "down": down, "centre": named["centre"], "up": up, "out": named["output"]}


def discriminator_weights(network):
    named = weights_of(network)
    blocks = [(named[f"block{k}_conv1"], named[f"block{k}_conv2"]) for k in range(1, 6)]
    return {"stem": named["stem"], "blocks": blocks, "dense1": named["dense1"], "dense2": named["dense2"]}


def images(shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


# --- Structure ---


@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        ({"base": 16}, 3_137_745),
        ({}, 12_546_977),
        ({"base": 64}, 50_179_905),
        ({"strict_second_changes": True}, 20_381_537),
        (STRICT, 5_089_835),
        ({**STRICT, "base": 64}, 20_354_123),
        (THREE, 5_578_273),
        ({**THREE, "base": 64}, 22_306_753),
    ],
)
def test_generator_parameters(change, parameters):
    config = replace(Config.paper(), **change)
    assert build_generator(config).count_params() == parameters
    pairs = oracle.generator_channels(config.base, config.convolutions, config.stem, config.strict_second_changes, config.levels)
    assert oracle.parameters(pairs) == parameters


@pytest.mark.parametrize(("base", "parameters"), [(16, 2_621_809), (32, 10_481_889), (64, 41_916_865)])
def test_discriminator_parameters(base, parameters):
    assert build_discriminator(replace(Config.paper(), discriminator_base=base)).count_params() == parameters == oracle.discriminator_parameters(base)


def test_layers_of_the_paper():
    """19 convolutions of which the last is linear, in the order of the table; four averages by two; no normalisation anywhere."""
    generator, judge = build_generator(Config.paper()), build_discriminator(Config.paper())
    for network, convolutions in ((generator, 19), (judge, 11)):
        kernels = [layer.kernel.shape for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
        slopes = [layer.negative_slope for layer in network.layers if isinstance(layer, keras.layers.LeakyReLU)]
        assert len(kernels) == convolutions and all(k[:2] == (3, 3) for k in kernels)
        assert len(slopes) == {19: 18, 11: 12}[convolutions] and slopes == pytest.approx([0.1] * len(slopes))
        assert not [layer for layer in network.layers if "norm" in type(layer).__name__.lower()]
        assert len(network.weights) == len(network.trainable_weights)
    shapes = [layer.kernel.shape[2:] for layer in generator.layers if isinstance(layer, keras.layers.Conv2D)]
    assert shapes == oracle.generator_channels(32)
    assert [layer.strides for layer in judge.layers if isinstance(layer, keras.layers.Conv2D)] == [(1, 1), *[(1, 1), (2, 2)] * 5]
    assert len([layer for layer in generator.layers if isinstance(layer, keras.layers.AveragePooling2D)]) == 4
    assert generator.output.dtype == judge.output.dtype == "float32"


def test_initialisers():
    """Truncated normal of parameter sqrt(2 / (9 c_out)), whose deviation is 0.8796 of that and whose largest draw is twice that; biases 0."""
    for layer, filters in ((build_generator(Config.paper()).get_layer("centre"), 512), (build_discriminator(Config.paper()).get_layer("block4_conv2"), 512)):
        kernel, bias = layer.get_weights()
        parameter = (2 / (9 * filters)) ** 0.5
        assert kernel.std() == pytest.approx(0.8796 * parameter, rel=0.01)
        assert np.abs(kernel).max() == pytest.approx(2 * parameter, rel=0.01)
        assert not bias.any()
    dense = build_discriminator(Config.paper()).get_layer("dense1").get_weights()[0]
    assert np.abs(dense).max() == pytest.approx((6 / 2048) ** 0.5, rel=0.01)  # Glorot uniform


# --- Values ---


@pytest.mark.parametrize("shape", [(2, 16, 24, 1), (1, 21, 13, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("change", [{}, {"levels": 4}, {"strict_second_changes": True}, STRICT, THREE, {"convolutions": 3}, {"residual": True}], ids=str)
def test_generator_equals_the_equations(change, shape):
    config = replace(SLIM, **change)
    network = randomise(build_generator(config))
    x = images(shape)
    expected = oracle.generator(x, generator_weights(network, config)) + (x if config.residual else 0)
    assert network(x).shape == shape
    np.testing.assert_allclose(network(x), expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("shape", [(2, 64, 64, 1), (1, 37, 53, 1), (3, 33, 2, 1), (1, 1, 1, 1)])
def test_discriminator_equals_the_equations(shape):
    network = randomise(build_discriminator(SLIM))
    found, expected = np.asarray(network(images(shape))), oracle.discriminator(images(shape), discriminator_weights(network))
    assert found.shape == (shape[0], 1) and 0 < found.min() <= found.max() < 1
    np.testing.assert_allclose(found, expected, atol=1e-5)
    together = oracle.discriminator(images((2, 64, 64, 1)), discriminator_weights(network))
    assert abs(np.log(together / (1 - together))).max() < 15  # not saturated: the comparison sees the layers below


@pytest.mark.parametrize(("height", "width"), [(780, 780), (101, 77), (1, 1)])
def test_any_size_comes_back(height, width):
    assert build_generator(Config.paper()).compute_output_shape((1, height, width, 1)) == (1, height, width, 1)
    assert build_generator(replace(Config.paper(), base=2))(np.zeros((1, height, width, 1), np.float32)).shape == (1, height, width, 1)


def test_skips_are_padded_sums():
    """With all convolutions but the stem at zero, S_1 is the stem's output and then channels of zeros, and S_2 its average over 2 x 2."""
    config = replace(SLIM, levels=3)
    network = randomise(build_generator(config))
    for layer in network.layers:
        if layer.weights and layer.name != "stem":
            layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    taps = ("stem_lrelu", "down1_add", "down2_add", "down3_add")
    stem, *skips = (np.asarray(y) for y in keras.Model(network.input, [network.get_layer(n).output for n in taps])(images((1, 12, 10, 1))))
    assert np.abs(stem).max() > 0.1
    assert [s.shape[-1] for s in skips] == [6, 12, 24]
    np.testing.assert_array_equal(skips[0], np.concatenate([stem, np.zeros_like(stem)], -1))
    np.testing.assert_allclose(skips[1][..., :3], stem.reshape(1, 6, 2, 5, 2, 3).mean((2, 4)), atol=1e-6)
    assert not skips[1][..., 3:].any()
    for found, expected in zip(skips, oracle.generator(images((1, 12, 10, 1)), generator_weights(network, config), skips=True), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_gradients_reach_every_weight():
    check_gradients_reach_everything(build_generator(Config.tiny()), lambda y: keras.ops.mean(keras.ops.square(y)), (2, 32, 32, 1))
    check_gradients_reach_everything(build_discriminator(replace(Config.tiny(), discriminator_base=8)), keras.ops.mean, (4, 64, 64, 1))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_near(precision):
    for build in (build_generator, build_discriminator):
        full = randomise(build(SLIM))
        with building(precision):
            mixed = build(SLIM)
        mixed.set_weights(full.get_weights())
        one, other = np.asarray(full(images((1, 37, 41, 1)))), np.asarray(mixed(images((1, 37, 41, 1))))
        assert other.dtype == np.float32
        assert np.abs(one - other).max() < 0.05 * max(1.0, np.abs(one).max())


# --- Reach and tiles ---


@pytest.mark.parametrize("change", [{}, {"levels": 3}, {"levels": 2, "stem": False, "convolutions": 3}, {"levels": 1}], ids=str)
def test_receptive_radius_is_the_support_of_the_gradient(change):
    """The pixels of the scan that an output pixel's gradient reaches are those of the equations, for every place on the grid of the halvings."""
    config = replace(Config.paper(), base=2, **change)
    shape = (config.levels, config.convolutions, config.stem)
    radius = receptive_radius(config)
    assert radius == oracle.scan_radius(*shape)
    side = -(-(2 * radius + 17) // 16) * 16
    network, middle = randomise(build_generator(config), positive=True), side  # of the upsampled image
    unit = np.array([[[[0.0, 1.0]]]], np.float32)  # black 0, white 1

    @tf.function
    def gradient(scan, position):
        with tf.GradientTape() as tape:
            tape.watch(scan)
            value = network(prepare(scan, unit))[0, position, position, 0]
        return tape.gradient(value, scan)

    scan = tf.constant(images((1, side, side, 1)))
    for position in range(middle, middle + 2**config.levels):
        touched = np.abs(gradient(scan, tf.constant(position))[0, :, :, 0]) > 0
        first, last = (n - 512 + middle // 2 for n in oracle.scan_reach(1024 + position - middle, *shape))
        for axis in (0, 1):
            reached = np.flatnonzero(touched.any(axis))
            assert (reached.min(), reached.max()) == (first, last)


def test_networks_that_cannot_be_built_or_tiled_are_refused():
    for change, said in (
        ({"levels": 5}, "levels must be at most 4, .* grid of 8 pixels"),
        ({"stem": False, "base": 1}, "base must be at least 2 where there is no stem"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(Config.paper(), **change)


def test_exact_tiles_equal_the_whole_image():
    config = replace(Config.tiny(), base=4)
    check_tiles_equal_whole(paper("sem_gan"), randomise(build_generator(config)), config, (107, 131), 80)


def test_paper_network_in_exact_tiles_equals_the_whole_image():
    config = replace(Config.paper(), base=2)  # all four levels and the full halo, thin enough for a test
    check_tiles_equal_whole(paper("sem_gan"), randomise(build_generator(config)), config, (190, 211), 136)


# --- Files ---


def test_keras_file_round_trip(tmp_path):
    network = randomise(build_generator(SLIM))
    network.save(tmp_path / "n.keras")
    again = keras.saving.load_model(tmp_path / "n.keras")  # safe mode
    np.testing.assert_array_equal(network(images((1, 19, 22, 1))), again(images((1, 19, 22, 1))))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return publish_untrained(paper("sem_gan"), replace(SLIM, base=4), tmp_path_factory.mktemp("weights"))


def saved_model(path):
    model = tf.saved_model.load(str(path))
    return lambda image: model.serve(tf.constant(image))["restored"].numpy()


def onnx_model(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: session.run(["restored"], {"image": image})[0]


@pytest.mark.parametrize(("form", "load"), [("savedmodel", saved_model), ("onnx", onnx_model)])
def test_exported_model_restores_as_restoring_does(form, load, published, tmp_path):
    """Raw intensities in and out, upsampling inside, sides that the halvings divide and sides that they do not."""
    model = load(export("sem_gan", form, tmp_path / f"model.{form}", published))
    for shape in ((40, 56), (41, 58), (3, 5)):
        image = np.random.default_rng(1).integers(0, 60_000, shape).astype(np.float32)
        restored, expected = model(image[None, ..., None])[0, ..., 0], restore(image, "sem_gan", weights=published)
        assert restored.shape == expected.shape == (2 * shape[0], 2 * shape[1])
        assert np.abs(restored - expected).max() < 1e-5 * np.ptp(expected)
