"""DLSS-STEM's one-stage generator: counts, shapes and order of layers of the specification, and its resizing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from common.precision import building
from paper_dlss import Config
from paper_dlss.generator import build_generator, build_trained
from paper_dlss.one_stage import AlignedResize, build_one_stage
from tests.helpers import check_gradients_reach_everything


@pytest.fixture(scope="module")
def one_stage():
    return build_generator(Config.one_stage())


def test_parameters_and_shapes(one_stage):
    sizes = {v.path: int(np.prod(v.shape)) for v in one_stage.trainable_variables}
    assert sum(sizes.values()) == 2_198_145
    assert sum(size for path, size in sizes.items() if "norm" in path) == 2081
    assert one_stage.input_shape == (None, 103, 103, 1) and one_stage.output_shape == (None, 512, 512, 1)
    sides = [one_stage.get_layer(name).output.shape[1:] for name in ("conv1", "conv2", "conv3", "block6_add", "up1", "up2", "up3", "up4")]
    assert sides == [(103, 103, 32), (57, 57, 64), (32, 32, 128), (32, 32, 128), (64, 64, 128), (128, 128, 96), (256, 256, 64), (512, 512, 32)]
    assert build_trained(Config.one_stage())[1].output_shape == (None, 512, 512, 1)


def test_order_of_layers(one_stage):
    letters = {"ReLU": "r", "BatchNormalization": "n", "AlignedResize": "s", "Conv2D": "c", "Conv2DTranspose": "t", "Add": "+", "InputLayer": ""}
    order = "".join(letters[type(layer).__name__] for layer in one_stage.layers)
    assert order == "nc" + "rnsc" * 2 + "rncrnc+" * 6 + "rnt" * 4 + "rnc"
    for layer in (layer for layer in one_stage.layers if isinstance(layer, layers.BatchNormalization)):
        assert (layer.momentum, layer.epsilon, layer.scale, layer.center) == (0.999, 1e-3, False, True)
    convolutions = [layer for layer in one_stage.layers if isinstance(layer, layers.Conv2D | layers.Conv2DTranspose)]
    assert [layer.use_bias for layer in convolutions] == [True] * (len(convolutions) - 1) + [False]
    kernel = one_stage.get_layer("block3_conv1").kernel.numpy()
    assert np.abs(kernel).max() == pytest.approx((6 / (2 * 9 * 128)) ** 0.5, rel=0.01)  # Glorot uniform
    assert all(layer.padding == "same" and layer.kernel_size == (3, 3) for layer in convolutions)


@pytest.mark.parametrize(("n", "side"), [(103, 57), (57, 32), (4, 7)])
def test_resizing_keeps_corners(n, side):
    x = np.random.default_rng(0).uniform(size=(2, n, n, 3)).astype(np.float32)
    found = AlignedResize(side)(x)
    np.testing.assert_allclose(found, tf.compat.v1.image.resize_bilinear(x, (side, side), align_corners=True), atol=1e-5)
    np.testing.assert_allclose(found[:, -1, 0], x[:, -1, 0], atol=1e-6)
    assert AlignedResize.from_config(AlignedResize(side).get_config()).compute_output_shape(x.shape) == found.shape


def test_output_is_float32_under_mixed_precision():
    with building("mixed_bfloat16"):
        assert build_one_stage(Config.one_stage()).output.dtype == "float32"


def test_gradients_reach_every_weight(one_stage):
    check_gradients_reach_everything(one_stage, lambda y: keras.ops.mean(keras.ops.square(y - 0.3)), (1, 103, 103, 1))
