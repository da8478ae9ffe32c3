"""The losses of DLSS-STEM, one function per equation.

Images are (batch, side, side, 1) float32 in [-1, 1]: I the crop, G(I) the output. Errors are one number per image, (batch,), so that adaptive learning rate
clipping can treat each by itself. Scores of the three discriminators are a list of three tensors, one score per image.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from common.layers import gaussian_filter

from .config import Config


def blur(images):
    """I_blur: 5 x 5 Gaussian, sigma 2.5 px, border reflected without repeating the edge pixel. The target's."""
    return gaussian_filter(images, 2.5, radius=2)


def blur3(images):
    """3 x 3 Gaussian, sigma 1.5 px: the output's in the adversarial stage."""
    return gaussian_filter(images, 1.5, radius=1)


def half(images, config: Config):
    """Half the side: the mean of 2 x 2 pixels (bilinear with half-pixel centres), or every other pixel, as TensorFlow 1 did it."""
    return images[:, ::2, ::2] if config.halving == "decimate" else ops.average_pool(images, 2)


def half_target(crops, config: Config):
    """I_blur_half of eq. 7, (batch, side / 2, side / 2, 1): blurred, then halved [P]; C68 halves first. Blurred for sharp targets too (C69)."""
    return half(blur(crops), config) if config.blur_before_halving else blur(half(crops, config))


def squared_error(output, target, known=None):
    """MSE(G(I), I): mean squared error of each image, (batch,) float32.

    known: 1 on probed pixels and 0 elsewhere, (side, side) or (batch, side, side). Their output is replaced by the target, so that they add nothing and have no
    gradient; they count in the mean.
    """
    output, target = ops.cast(output, "float32"), ops.cast(target, "float32")
    if known is not None:
        output = ops.where(known[..., None] > 0, target, output)
    return ops.mean((output - target) ** 2, axis=(1, 2, 3))


# --- Adversarial stage ---


def adversarial(on_fake):
    """Eq. 9: mean over the three discriminators of (D_i(G(I)) - 1)^2. The paper's bracket closes too early; this is what C68 computes."""
    return sum(ops.mean((ops.cast(scores, "float32") - 1.0) ** 2) for scores in on_fake) / len(on_fake)


def discriminator(on_real, on_fake):
    """Eq. 8: mean over the three discriminators of D_i(G(I))^2 + (D_i(I) - 1)^2."""
    return adversarial(on_real) + sum(ops.mean(ops.cast(scores, "float32") ** 2) for scores in on_fake) / len(on_fake)


# --- Error predictor, for sharp targets ---


def build_predictor(config: Config) -> keras.Model:
    """M: noise_crops (crops, side, side, 1) -> error that the generator will make, (crops, 1). Flatten, 100 and 200 rectified units, one number.

    23,001 parameters for 5 x 5 pixels. Flattened as the paper's figure has it: C69 maps each pixel by itself, which sees no neighbourhood and so no noise.
    """
    image = keras.Input((config.predictor_side, config.predictor_side, 1))
    x = layers.Flatten()(image)
    for k, units in enumerate((100, 200), 1):
        x = layers.Dense(units, activation="relu", name=f"predictor_dense{k}")(x)
    return keras.Model(image, layers.Dense(1, name="predictor_dense3")(x), name="predictor")


def noise_crops(crop, corners, side: int):
    """C_1 ... C_N, (N, side, side, 1), cut from one crop (1, height, width, 1) at `corners` (N, 2), relative positions in [0, 1)."""
    _, height, width, _ = ops.shape(crop)
    top, left = (ops.cast(corners[:, k] * (n - side + 1), "int32")[:, None] + ops.arange(side) for k, n in enumerate((height, width)))
    pixels = ops.take(ops.reshape(crop, (-1,)), top[:, :, None] * width + left[:, None, :])
    return pixels[..., None]


def predictor_loss(predicted, error):
    """Eq. 4: mean over crops of (M(C_i) - 200 MSE(G(I), I) / p(c))^2; `error` is that number, with no gradient through it."""
    return ops.mean((predicted - ops.stop_gradient(error)) ** 2)


def predictor_weight(mu1, predicted, floor: float):
    """The factor of eq. 6: mu_1 / max(mean M(C_i), epsilon), a number without gradient. Noisy images weigh less."""
    return ops.stop_gradient(mu1 / ops.maximum(ops.mean(predicted), floor))


# --- One-stage network ---


def decay(network, weight: float):
    """weight times the sum of v^2 / 2 over all kernels; not over shifts and moments, which CM2 includes by a slip."""
    kernels = [v for v in network.trainable_variables if v.path.endswith("kernel")]
    return weight * sum(ops.sum(v**2) for v in kernels) / 2
