"""Adaptive learning rate clipping: losses far above their running mean are scaled down to a limit; their gradients shrink by the same factor."""

from __future__ import annotations

import keras
from keras import initializers, ops


@keras.saving.register_keras_serializable("empapers")
class ALRC(keras.layers.Layer):
    """Clip losses at mu_1 + n sigma of the losses seen so far, sigma = sqrt(mu_2 - mu_1^2 + 1e-8), and learn the moments from what remains.

    Called on losses, (batch,) or scalar float32, one number per image; returns the same shape. A loss at or above the limit becomes the limit, its gradient is
    multiplied by limit / loss: a constant limit in its place would have none. Every call moves the moments: mu <- decay mu + (1 - decay) batch mean.
    mean, square: start of mu_1 and mu_2; ten times too much does no harm, but square must exceed mean^2, else ValueError. sigma: n.
    The moments are float32 under every precision policy. Source: arXiv:1906.09060; DLSS-STEM.
    """

    def __init__(self, mean: float = 25.0, square: float = 900.0, sigma: float = 3.0, decay: float = 0.999, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if square <= mean**2:
            raise ValueError(f"square must exceed the square of mean, got {square} and {mean}")
        self.mean, self.square, self.sigma, self.decay = mean, square, sigma, decay
        self.mu1 = self.add_weight(name="mu1", shape=(), initializer=initializers.Constant(mean), trainable=False)
        self.mu2 = self.add_weight(name="mu2", shape=(), initializer=initializers.Constant(square), trainable=False)

    def limit(self):
        """mu_1 + n sigma."""
        deviation = ops.sqrt(ops.maximum(self.mu2 - self.mu1**2, 0.0) + 1e-8)  # rounding must not make the variance of equal losses negative
        return self.mu1 + self.sigma * deviation

    def call(self, losses):
        limit = self.limit()
        clipped = losses * ops.stop_gradient(ops.where(losses < limit, 1.0, limit / losses))
        for moment, value in ((self.mu1, clipped), (self.mu2, clipped**2)):
            moment.assign(self.decay * moment + (1 - self.decay) * ops.mean(ops.stop_gradient(value)))
        return clipped

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "square": self.square, "sigma": self.sigma, "decay": self.decay}
