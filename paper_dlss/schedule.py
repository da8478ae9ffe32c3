"""Table 1 of DLSS-STEM: learning rates and beta_1 that fall in steps of an eighth.

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
