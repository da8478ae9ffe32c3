"""The losses of CGRDN, one function per term.

Y is the target, P the output, both (batch, height, width, 1) float32 in units of the distorted image's deviation and times the adaptive weight. Means are over
batch and pixels. Source: the published training scripts C0 and C1; the paper's own equations could not be read. See this package's README.
"""

from __future__ import annotations

import keras
from keras import ops

from .config import Config

# Weights of the terms: the full basket (C0, defined and then overridden), and what the two scripts last ran with.
WEIGHTS = {
    "A": {"L1": 5.0, "L2": 4.0, "MLWT": 0.2, "Fourier": 0.4, "mean": 8.0, "std": 4.0, "gradient_x": 0.8, "gradient_y": 0.8},
    "B": {"L1": 5.0, "Fourier": 0.4},
    "C": {"L1": 10.0},
}
POOLS = (2, 4, 8, 16)  # pixels of the local means of MLWT
POOL_WEIGHTS = (1.0, 1.33, 1.66, 2.0)  # over their sum
LARGEST_DIFFERENCE = 100.0  # of neighbours' errors
AXES = (1, 2, 3)


def _mean(x):
    return ops.mean(x, axis=AXES, keepdims=True)


def deviation(x, floor: float = 0.0):
    """Standard deviation of each image, (batch, 1, 1, 1); of equal pixels it is the floor, and passes no gradient."""
    variance = ops.mean((x - _mean(x)) ** 2, axis=AXES, keepdims=True)
    return ops.sqrt(ops.maximum(variance, max(floor**2, 1e-20)))


def adaptive_weight(target, config: Config):
    """w, (batch, 1, 1, 1): targets whose deviation is small beside the noise count more: 1 over it, from 1 / cap upwards, no more than the cap."""
    return ops.minimum(1 / deviation(target, config.deviation_floor), config.weight_cap)


# --- Terms ---


def l1(y, p):
    """mean |Y - P|."""
    return ops.mean(ops.abs(y - p))


def l2(y, p):
    """mean (Y - P)^2."""
    return ops.mean((y - p) ** 2)


def mlwt(y, p, floor: float = 0.1):
    """Multi-local whitening transform: L1 after both were whitened by the target's mean and deviation, then by its local ones over 2, 4, 8 and 16 pixels, then
    again as a whole; a weighted mean over the four. About 2.6 times L1.

    Local means do not count what lies beyond the border. The target's statistics carry no gradient; they do not depend on the output.
    """

    def whitened(a, b):
        mean, spread = _mean(a), deviation(a, floor)
        return (a - mean) / spread, (b - mean) / spread

    a, b = whitened(y, p)
    total = 0.0
    for size, weight in zip(POOLS, POOL_WEIGHTS, strict=True):
        mean = ops.average_pool(a, size, strides=1, padding="same")
        variance = ops.average_pool((a - mean) ** 2, size, strides=1, padding="same")
        spread = ops.sqrt(ops.maximum(variance, floor**2))
        total = total + weight / sum(POOL_WEIGHTS) * l1(*whitened((a - mean) / spread, (b - mean) / spread))
    return total


def fourier(y, p, power: float = 0.125, floor: float = 1e-9):
    """mean over half the spectrum of max(floor, |FFT(c (Y - P))|)^n, c = 2 / 256^n; not normalised. Equal images give floor^n, 0.075, not 0."""
    error = 2.0 * 256.0**-power * (y - p)[..., 0]
    real, imaginary = ops.rfft(error)  # along the rows, then along the columns
    real, imaginary = ops.fft((ops.swapaxes(real, 1, 2), ops.swapaxes(imaginary, 1, 2)))
    return ops.mean(ops.maximum(real**2 + imaginary**2, floor**2) ** (power / 2))


def mean_constraint(y, p):
    """mean over the batch of |mean(Y) - mean(P)|."""
    return ops.mean(ops.abs(_mean(y) - _mean(p)))


def std_constraint(y, p):
    """mean over the batch of |std(Y) - std(P)|."""
    return ops.mean(ops.abs(deviation(y) - deviation(p)))


def _differences(error, axis: int):
    """mean of min(100, |difference of the errors of neighbours|)."""
    first = error[:, 1:] - error[:, :-1] if axis == 1 else error[:, :, 1:] - error[:, :, :-1]
    return ops.mean(ops.minimum(ops.abs(first), LARGEST_DIFFERENCE))


def gradient_x(y, p):
    """mean of min(100, |difference along a row of Y - P|)."""
    return _differences(y - p, 2)


def gradient_y(y, p):
    """mean of min(100, |difference along a column of Y - P|)."""
    return _differences(y - p, 1)


def laplacian(y, p):
    """mean |Laplacian of Y - P| over inner pixels, four neighbours. In C0, where its weight is 0."""
    e = y - p
    return ops.mean(ops.abs(e[:, :-2, 1:-1] + e[:, 2:, 1:-1] + e[:, 1:-1, :-2] + e[:, 1:-1, 2:] - 4 * e[:, 1:-1, 1:-1]))


def terms(target, output, config: Config) -> dict:
    """Name -> (value, weight) of the chosen set. target, output: standardised by the distorted image, without the adaptive weight."""
    w = adaptive_weight(target, config)
    y, p = w * target, w * output
    known = {
        "L1": l1,
        "L2": l2,
        "MLWT": lambda y, p: mlwt(y, p, config.deviation_floor),
        "Fourier": lambda y, p: fourier(y, p, config.fourier_power, config.fourier_floor),
        "mean": mean_constraint,
        "std": std_constraint,
        "gradient_x": gradient_x,
        "gradient_y": gradient_y,
    }
    return {name: (known[name](y, p), weight) for name, weight in WEIGHTS[config.loss_weights].items()}


def weight_decay(network, config: Config):
    """1e-8 times the squares of kernels and 1e-7 times those of biases, the last layer aside (C1)."""
    total = 0.0
    for layer in network.layers:
        if layer.name != "last":
            for v in layer.trainable_variables:
                total = total + (config.bias_decay if v.name == "bias" else config.kernel_decay) * ops.sum(v**2)
    return total


# --- Adversarial stage: relativistic average (Jolicoeur-Martineau 2018) ---


def _cross_entropy(target: float, logits):
    """mean over batch and patches."""
    return ops.mean(keras.losses.binary_crossentropy(ops.full_like(logits, target), logits, from_logits=True))


def _relative(on_real, on_fake):
    return on_real - ops.mean(on_fake), on_fake - ops.mean(on_real)


def discriminator(on_real, on_fake, smoothing: float = 0.05):
    """Real patches should score above the mean of made ones, made ones below the mean of real ones: BCE(1 - smoothing, r~) + BCE(0, f~)."""
    real, fake = _relative(on_real, on_fake)
    return _cross_entropy(1 - smoothing, real) + _cross_entropy(0.0, fake)


def adversarial(on_real, on_fake):
    """The reverse, for the generator: BCE(0, r~) + BCE(1, f~)."""
    real, fake = _relative(on_real, on_fake)
    return _cross_entropy(0.0, real) + _cross_entropy(1.0, fake)
