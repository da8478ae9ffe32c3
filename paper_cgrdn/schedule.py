"""The scripts' schedule: both the rate and beta_1 warm up, then the rate falls by a tenth in every epoch (C1; ramps as in the authors' schedule class)."""

from __future__ import annotations

import keras
from keras import ops

from common.layers import registered

LONGEST_WARM_UP = 512  # steps, or half an epoch where that is less
FIRST = 1e-4  # share of the rate with which it starts
RAMP = 64  # the last epoch / RAMP steps of an epoch lead to the next level
EPOCHS = 1000  # after which the rate stays


def warm_up(epoch: int) -> int:
    """Steps until the full rate."""
    return min(LONGEST_WARM_UP, epoch // 2)


@registered
class StaircaseRate(keras.optimizers.schedules.LearningRateSchedule):
    """Update (from 0) -> rate: linear from 1e-4 `rate` to `rate` in the warm-up, then rate decay^e in epoch e of `epoch` steps, with a short ramp between."""

    def __init__(self, rate: float, epoch: int, decay: float):
        self.rate, self.epoch, self.decay = rate, epoch, decay

    def __call__(self, step):
        step = ops.cast(step, "int64")
        passed = ops.minimum(step // self.epoch, EPOCHS)
        level = self.rate * ops.power(self.decay, ops.cast(passed, "float32"))
        ramp = self.epoch // RAMP
        into = ops.cast(ops.maximum(step % self.epoch - (self.epoch - ramp), 0), "float32") / max(ramp, 1)
        level = level * (1 - (1 - self.decay) * ops.where(passed < EPOCHS, into, 0.0))
        warm = warm_up(self.epoch)
        share = FIRST + (1 - FIRST) * ops.cast(step, "float32") / max(warm, 1)
        return ops.where(step < warm, self.rate * share, level)

    def get_config(self):
        return {"rate": self.rate, "epoch": self.epoch, "decay": self.decay}


def rising_beta(beta_1: float, epoch: int):
    """Update -> beta_1, linear from 0 in the warm-up."""
    warm = warm_up(epoch)
    return lambda step: beta_1 * ops.minimum(ops.cast(step, "float32") / max(warm, 1), 1.0) if warm else beta_1
