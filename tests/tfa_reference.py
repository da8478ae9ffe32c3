"""Reference outputs of tensorflow-addons for `common/layers.py`: seeded inputs, parameters, outputs and gradients in one HDF5 file.

tensorflow-addons ended in 2024 and cannot be imported beside Keras 3, so it runs once, in an environment of its own, and its numbers are kept:

    python3.11 -m venv /tmp/tfa && /tmp/tfa/bin/pip install -r requirements-tfa.txt
    /tmp/tfa/bin/python -m tests.tfa_reference --out tests/data/tfa_reference.h5

Every group is one question. Gradients are those of sum(output * cotangent). Images are (batch, height, width, channels), kernels (height, width, in, out),
transposed kernels (height, width, out, in).
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import h5py
import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

RNG = np.random.default_rng(20240501)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def answer(function, **inputs):
    """{inputs, output, cotangent, gradient of each input} of a differentiable function of named tensors (variables are passed as they are)."""
    tensors = {name: v if isinstance(v, tf.Variable) else tf.constant(v) for name, v in inputs.items()}
    with tf.GradientTape() as tape:
        for tensor in tensors.values():
            tape.watch(tensor)
        output = function(tensors)
        cotangent = normal(*output.shape)
        value = tf.reduce_sum(output * cotangent)
    gradients = tape.gradient(value, tensors)
    return {**tensors, "output": output, "cotangent": cotangent, **{f"d_{name}": gradient for name, gradient in gradients.items()}}


def normalisation(kind, **options):
    layer = kind(**options)
    layer.build((None, None, None, 8))
    layer.gamma.assign(1 + 0.3 * normal(8))
    layer.beta.assign(normal(8))
    return answer(lambda t: layer(t["x"]), x=3 * normal(2, 6, 5, 8) + 1, gamma=layer.gamma, beta=layer.beta)


def weight_normalised(convolution, shape):
    layer = tfa.layers.WeightNormalization(convolution, data_init=False)
    layer.build((None, *shape[1:]))
    layer(normal(*shape))  # addons sets g in the first call
    layer.g.assign(1 + 0.3 * normal(*layer.g.shape))
    layer.layer.bias.assign(normal(*layer.layer.bias.shape))
    return answer(lambda t: layer(t["x"]), x=normal(*shape), v=layer.v, g=layer.g, bias=layer.layer.bias)


def data_dependent():
    layer = tfa.layers.WeightNormalization(tf.keras.layers.Conv2D(5, 3, padding="same"), data_init=True)
    x = 2 * normal(2, 12, 12, 3) + 1
    v = 0.1 * normal(3, 3, 3, 5)  # its length is not 1, as that of any usual initialisation
    layer.build(x.shape)
    layer.v.assign(v)
    layer._naked_clone_layer.kernel.assign(v)  # addons takes the statistics with a copy
    output = layer(x)
    return {"x": x, "v": v, "output": output, "g": layer.g, "bias": layer.layer.bias}


def spectral(passes=6):
    layer = tfa.layers.SpectralNormalization(tf.keras.layers.Conv2D(6, 4, strides=2))
    layer.build((None, 12, 12, 3))
    kernel, u = 0.2 * normal(4, 4, 3, 6), 0.03 * normal(1, 6)
    layer.w.assign(kernel)
    layer.u.assign(u)
    first = answer(lambda t: layer(t["x"], training=True), x=normal(2, 12, 12, 3), w=layer.w)  # w is overwritten: what is stored is the normalised kernel
    outputs, vectors = [first["output"]], [layer.u.numpy()]
    for _ in range(passes - 1):
        outputs.append(layer(first["x"], training=True))
        vectors.append(layer.u.numpy())
    kept = {"x": first["x"], "cotangent": first["cotangent"], "d_kernel": first["d_w"]}
    return {**kept, "kernel": kernel, "u": u, "outputs": np.stack(outputs), "vectors": np.stack(vectors)}


def moving_average(decay=0.9, updates=6):
    w = tf.Variable(normal(7))
    optimizer = tfa.optimizers.MovingAverage(tf.keras.optimizers.legacy.SGD(0.5), average_decay=decay)
    start, weights, averages = w.numpy(), [], []
    for _ in range(updates):
        optimizer.apply_gradients([(tf.constant(normal(7)), w)])
        weights.append(w.numpy())
        averages.append(optimizer.get_slot(w, "average").numpy())
    return {"decay": decay, "start": start, "weights": np.stack(weights), "averages": np.stack(averages)}


def blurred(size, sigma, padding):
    def blur(t):
        return tfa.image.gaussian_filter2d(t["x"], filter_shape=size, sigma=sigma, padding=padding)

    return {**answer(blur, x=normal(2, 12, 11, 2)), "size": size, "sigma": sigma}


def questions():
    layers = tf.keras.layers
    yield "instance_normalization", normalisation(tfa.layers.InstanceNormalization, epsilon=1e-5)
    yield "group_normalization", normalisation(tfa.layers.GroupNormalization, groups=4, epsilon=1e-3)
    yield "weight_norm", weight_normalised(layers.Conv2D(5, 3, strides=2, padding="same"), (2, 9, 8, 3))
    yield "weight_norm_transpose", weight_normalised(layers.Conv2DTranspose(4, 3, strides=2, padding="same"), (2, 5, 4, 3))
    yield "data_dependent", data_dependent()
    yield "spectral_norm", spectral()
    for size, sigma, padding in ((5, 2.5, "REFLECT"), (3, 1.5, "REFLECT"), (9, 1.0, "SYMMETRIC"), (7, 2.0, "CONSTANT")):
        yield f"gaussian/{size}_{padding.lower()}", blurred(size, sigma, padding)
    yield "warp", answer(lambda t: tfa.image.dense_image_warp(t["x"], t["flow"]), x=normal(2, 9, 10, 2), flow=2.5 * normal(2, 9, 10, 2))
    yield "moving_average", moving_average()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    tf.keras.utils.set_random_seed(0)  # Keras' initialisers
    with h5py.File(parser.parse_args().out, "w") as file:
        file.attrs.update({"tensorflow": tf.__version__, "tensorflow-addons": tfa.__version__})
        for name, arrays in questions():
            for key, array in arrays.items():
                file[f"{name}/{key}"] = np.asarray(array)


if __name__ == "__main__":
    main()
