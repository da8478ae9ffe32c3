"""SEMNet's losses: total = 1.0 L1 + 0.1 L_hist + 0.01 L_TV (abstract). Images are (batch, height, width, channels) float32, nominally in [0, 1]."""

from __future__ import annotations

from keras import ops

from .config import Config


def l1(target, prediction):
    """L1 = mean |y - y_hat| over batch, pixels and channels. Scalar."""
    return ops.mean(ops.abs(target - prediction))


def total_variation(prediction):
    """L_TV = mean |vertical differences| + mean |horizontal differences| of the prediction (anisotropic, each mean over its own count). Scalar."""
    vertical = prediction[:, 1:] - prediction[:, :-1]
    horizontal = prediction[:, :, 1:] - prediction[:, :, :-1]
    return ops.mean(ops.abs(vertical)) + ops.mean(ops.abs(horizontal))


def _bin_sums(image, kernel, bins):
    """sum_i kernel(x_i, c_k) per image, channel and bin: (batch, channels, bins).

    Bin by bin, so that memory stays at one image's worth of numbers instead of `bins` of them.
    """
    x = ops.clip(ops.cast(image, "float32"), 0.0, 1.0)
    return ops.stack([ops.sum(kernel(x, (k + 0.5) / bins), axis=(1, 2)) for k in range(bins)], axis=-1)


def soft_histogram(image, bins: int = 64, tau: float = 0.02):
    """Normalised histogram, (batch, channels, bins), with HistoGAN's kernel 1 / (1 + ((x - c) / tau)^2) and centres c_k = (k - 1/2) / bins."""
    h = _bin_sums(image, lambda x, centre: 1.0 / (1.0 + ops.square((x - centre) / tau)), bins)
    return h / (ops.sum(h, axis=-1, keepdims=True) + 1e-6)


def logistic_distribution(image, bins: int = 64):
    """Cumulative form of Hue-Net's histogram, mirrored at 0 and 1: CDF_k for k = 1..bins, (batch, channels, bins); CDF_bins is 1.

    The histogram's bins are g(x - c) + g(x + c) + g(x + c - 2) with g(u) = s(u + D/2) - s(u - D/2), s the logistic function of width D / 2.5 and D = 1 / bins;
    summed over the bins up to k, all but the outermost logistic functions cancel.
    """
    width = 1.0 / bins

    def s(u):
        return ops.sigmoid(u * (2.5 / width))

    def up_to(x, centre):
        edge = centre + width / 2
        return s(x + edge) - s(x - edge) + s(x + edge - 2) - s(x - 2)

    return _bin_sums(image, up_to, bins) / ops.cast(ops.shape(image)[1] * ops.shape(image)[2], "float32")


def histogram(target, prediction, kind: str = "hellinger", reduction: str = "mean", bins: int = 64, tau: float = 0.02):
    """L_hist: distance between the grey-level distributions of target and prediction; blind to where the pixels are. Scalar.

    hellinger:    D_b = (1/sqrt 2) sqrt(sum_k (sqrt(H_k(y_hat) + 1e-6) - sqrt(H_k(y) + 1e-6))^2 + 1e-12), in [0, 1]; mean over images and channels
    hellinger_sq: its square, whose gradient fades at the optimum
    emd:          (1/bins) sum_k |CDF_k(y_hat) - CDF_k(y)| with Hue-Net's histogram, in grey levels of [0, 1]
    reduction "histogan" takes one norm over the whole batch, divided by the batch size, as HistoGAN's code does (Hellinger kinds only).
    """
    if kind == "emd":
        return ops.mean(ops.abs(logistic_distribution(prediction, bins) - logistic_distribution(target, bins)))
    roots = ops.sqrt(soft_histogram(prediction, bins, tau) + 1e-6) - ops.sqrt(soft_histogram(target, bins, tau) + 1e-6)
    if reduction == "histogan":
        squared = ops.sum(ops.square(roots)) / 2
        images = ops.cast(ops.shape(roots)[0], "float32")
        return squared / images if kind == "hellinger_sq" else ops.sqrt(squared + 0.5e-12) / images
    squared = ops.sum(ops.square(roots), axis=-1) / 2
    return ops.mean(squared if kind == "hellinger_sq" else ops.sqrt(squared + 0.5e-12))


def losses(target, prediction, config: Config) -> dict:
    """The terms of the total loss: name -> (raw value, weight)."""
    terms = {"L1": (l1(target, prediction), config.l1_weight)}
    if config.histogram_weight:
        value = histogram(target, prediction, config.histogram_kind, config.histogram_reduction, config.histogram_bins, config.histogram_tau)
        terms["L_hist"] = (value, config.histogram_weight)
    if config.tv_weight:
        terms["L_TV"] = (total_variation(prediction), config.tv_weight)
    return terms
