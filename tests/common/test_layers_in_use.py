"""Shared layers in use: half precision, files, exports, checkpoints, several replicas."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

from common.layers import MeanOnlyBatchNormalization, SpectralNormConv2D, WeightNormConv2D, WeightNormConv2DTranspose
from tests.common.test_layers import close, difference, generator, random
from tests.helpers import ROOT


def test_half_precision_does_not_reach_norms_and_means():
    x = random(1, 6, 6, 256)
    conv, transposed = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    for kind, plain in {WeightNormConv2D: conv, WeightNormConv2DTranspose: transposed, SpectralNormConv2D: conv}.items():
        full, half, plain = kind(4, 3), kind(4, 3, dtype="mixed_float16"), plain(4, 3, dtype="mixed_float16")
        full(x), half(x), plain(x)
        full._kernel.assign(400 * full._kernel)  # squares sum up to more than half precision holds
        for a, b in zip(half.variables, full.variables, strict=True):
            a.assign(b)
        plain.trainable_variables[0].assign(full.kernel)
        assert half(x).dtype == tf.float16
        np.testing.assert_array_equal(half(x), plain(x))  # nothing was rounded before the kernel was ready
    bright = 1000 + random(1, 64, 64, 2)
    layer = MeanOnlyBatchNormalization("batch", dtype="mixed_float16")
    close(layer(bright), bright - bright.mean((0, 1, 2)), 1e-3)
    assert layer(bright).dtype == tf.float16


def test_network_survives_files_exports_and_checkpoints(tmp_path):
    import onnxruntime
    import tf2onnx

    network, other = generator("hybrid"), generator("hybrid")
    for k in range(3):
        network(random(2, 24, 20, 1, seed=k), training=True)
    network.get_layer("mean").decay.assign(0.5)
    network.save(tmp_path / "whole.keras")
    network.save_weights(tmp_path / "network.weights.h5")
    tf.train.Checkpoint(network=network).write(str(tmp_path / "checkpoint"))
    serve = tf.function(lambda image: {"y": network(image)}, input_signature=[tf.TensorSpec((None, None, None, 1), tf.float32, name="image")])
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serve", serve)
    archive.write_out(str(tmp_path / "saved"), verbose=False)
    tf2onnx.convert.from_function(serve, serve.input_signature, opset=17, output_path=str(tmp_path / "network.onnx"))

    whole = keras.models.load_model(tmp_path / "whole.keras")
    assert [layer.get_config() for layer in whole.layers] == [layer.get_config() for layer in network.layers]
    by_weights, by_checkpoint = keras.models.clone_model(other), keras.models.clone_model(other)
    by_weights.load_weights(tmp_path / "network.weights.h5")
    tf.train.Checkpoint(network=by_checkpoint).read(str(tmp_path / "checkpoint")).assert_consumed()
    for copy in (whole, by_weights, by_checkpoint):
        assert all(np.array_equal(a, b) for a, b in zip(copy.get_weights(), network.get_weights(), strict=True))
    saved, session = tf.saved_model.load(str(tmp_path / "saved")), onnxruntime.InferenceSession(str(tmp_path / "network.onnx"))
    for size in ((24, 20), (37, 50)):
        image = random(2, *size, 1, seed=5)
        expected = network(image).numpy()
        assert difference(other(image), expected) > 0.1
        for output in (whole(image), saved.serve(image)["y"], session.run(None, {"image": image})[0]):
            close(output, expected)


REPLICAS = """
import json
import keras, tensorflow as tf
from common.layers import MeanOnlyBatchNormalization, SpectralNormConv2D, WeightNormConv2D

tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    network = keras.Sequential([keras.Input((None, None, 1)), MeanOnlyBatchNormalization(momentum=0.75), WeightNormConv2D(3, 3), SpectralNormConv2D(2, 3)])
one = keras.models.clone_model(network)
one.set_weights(network.get_weights())
images = tf.stack([tf.fill((1, 8, 8, 1), 2.0), tf.fill((1, 8, 8, 1), 4.0)])
shares = strategy.experimental_distribute_values_from_function(lambda context: images[context.replica_id_in_sync_group])
step = tf.function(lambda x: strategy.run(lambda x: network(x, training=True), [x]))
for _ in range(2):
    step(shares)
    one(images[:, 0], training=True)
copies = [[v.numpy().tolist() for v in strategy.experimental_local_results(w.value)] for w in network.weights]
print(json.dumps({"copies": copies, "one": [w.numpy().tolist() for w in one.weights]}))
"""


def test_replicas_share_their_state():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([sys.executable, "-c", REPLICAS], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for copies, one in zip(found["copies"], found["one"], strict=True):
        assert len(copies) == 2
        for copy in copies:
            np.testing.assert_allclose(copy, one, rtol=1e-5, atol=1e-6)
    assert any(np.allclose(one, 3 * (1 - 0.75**2)) for one in found["one"])  # both replicas' images count
