"""Table 1 of DLSS-STEM: learning rates and beta_1 that fall in steps of an eighth, and an Adam that follows them.

Updates are counted from 0. The table has four columns of one plateau each: full rate, falling rate, and both again in the adversarial stage.
"""

from __future__ import annotations

import keras
from keras import ops

from common.layers import registered


def fall(i, plateau: int):
    """f = 1 - floor(8 i / plateau) / 8 with i counted from the column's start: 1, 7/8, ... 1/8, which then stays. The paper prints an f that turns negative."""
    return 1.0 - ops.cast(ops.minimum(ops.floor_divide(8 * ops.cast(i, "int64"), plateau), 7), "float32") / 8


@registered
class Rate(keras.optimizers.schedules.LearningRateSchedule):
    """Table 1: `rate` for one plateau, `rate` f for the next, then `adversarial_rate` likewise. first: the table's number of this optimizer's update 0."""

    def __init__(self, rate: float, adversarial_rate: float, plateau: int, first: int = 0):
        self.rate, self.adversarial_rate, self.plateau, self.first = rate, adversarial_rate, plateau, first

    def __call__(self, step):
        i = ops.cast(step, "int64") + self.first
        adversarial = i >= 2 * self.plateau
        i = ops.where(adversarial, i - 2 * self.plateau, i)
        return ops.where(adversarial, self.adversarial_rate, self.rate) * ops.where(i < self.plateau, 1.0, fall(i - self.plateau, self.plateau))

    def get_config(self):
        return {"rate": self.rate, "adversarial_rate": self.adversarial_rate, "plateau": self.plateau, "first": self.first}


def falling_beta(plateau: int, first: int = 0):
    """Table 1: update -> beta_1, 0.9 for one plateau, 0.5 + 0.4 f for the next, then 0.5."""

    def beta_1(step):
        i = ops.cast(step, "int64") + first
        return ops.where(i < plateau, 0.9, ops.where(i < 2 * plateau, 0.5 + 0.4 * fall(ops.maximum(i - plateau, 0), plateau), 0.5))

    return beta_1


def dropping_beta(plateau: int):
    """The one-stage network's: update -> beta_1, 0.9 for one plateau, then 0.5."""
    return lambda step: ops.where(ops.cast(step, "int64") < plateau, 0.9, 0.5)


class ScheduledAdam(keras.optimizers.Adam):
    """Keras' Adam with epsilon 1e-8 (TensorFlow 1's), whose beta_1 may depend on the number of updates made, and whose rate may differ between variables.

    beta_1: a number, or a function of `iterations`. factors: path of a variable -> factor of its learning rate, 1 where it is not named.
    The moments' bias is corrected by 1 - beta_1^t with the present beta_1: Keras' formula, and no correction any more once a plateau of steps has passed.
    """

    def __init__(self, learning_rate, beta_1=0.9, factors: dict[str, float] | None = None, **kwargs):
        super().__init__(learning_rate, beta_1=beta_1, epsilon=1e-8, **kwargs)
        self.factors = factors or {}

    def apply(self, grads, trainable_variables=None):
        given = self.beta_1
        self.beta_1 = given(self.iterations) if callable(given) else given  # once for all variables: Keras asks for it in each one's update
        super().apply(grads, trainable_variables)
        self.beta_1 = given

    def build(self, variables):
        super().build(variables)
        unknown = set(self.factors) - {v.path for v in variables}
        if unknown:
            raise ValueError(f"factors name no variable of this optimizer: {', '.join(sorted(unknown))}")
        self._scales = tuple(self.factors.get(v.path, 1.0) for v in variables)

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self._scales[self._get_variable_index(variable)])
