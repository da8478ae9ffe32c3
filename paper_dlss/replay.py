"""Experience replay: examples with errors in the top fifth are kept and shown again.

A slot holds an example whole, crop and scan step: the scripts' slots kept the coverage of a former example with a new crop, which scaled its loss wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from common.training import uniform

from .config import Config


class Replay(tf.Module):
    """A buffer of examples and the controller of its threshold (C54, C68); all of it is variables.

    `draw` replaces a fresh example by that of a random slot with chance `config.replay_share`; the slot stays. `keep` puts a fresh example whose error is above
    the threshold into a random slot. The threshold drifts towards mean - 5 std of the errors while fewer than `replay_share` of the steps store one, towards
    mean + 5 std while more do.
    examples: the first contents, (crop (side, side, 1), which (1,)) for each slot.
    """

    def __init__(self, config: Config, examples: Sequence[tuple[np.ndarray, np.ndarray]]):
        super().__init__(name="replay")
        self.share, self.slots, self.seed = config.replay_share, config.replay_slots, config.seed
        crops, which = (np.stack(arrays).astype(np.float32) for arrays in zip(*examples, strict=True))
        self.crops, self.which = tf.Variable(crops, trainable=False, name="crops"), tf.Variable(which, trainable=False, name="which")
        starts = {"mean": 1.5, "square": 4.0, "threshold": 0.0, "stored": self.share}  # (C68)
        self.mean, self.square, self.threshold, self.stored = (tf.Variable(value, trainable=False, name=name) for name, value in starts.items())

    def draw(self, crops, which, step) -> tuple:
        """(crops, which, replayed): the step's examples, (batch, side, side, 1) and (batch, 1), with some replaced, and which of them, (batch,) bool."""
        coins, slots, _ = self.coins(step, crops.shape[0])
        replayed = coins < self.share
        crops = tf.where(replayed[:, None, None, None], tf.gather(self.crops, slots), crops)
        return crops, tf.where(replayed[:, None], tf.gather(self.which, slots), which), replayed

    def keep(self, crops, which, errors, replayed, step) -> None:
        """Learn from a step's examples, one after the other. errors: clipped losses scaled by coverage, (batch,); replayed ones count in the averages."""
        _, _, slots = self.coins(step, crops.shape[0])
        for k in range(crops.shape[0]):
            error, slot = errors[k], slots[k]
            stored = tf.logical_and(~replayed[k], error > self.threshold)
            for buffer, value in ((self.crops, crops[k]), (self.which, which[k])):
                # Gathered and scattered: reading the whole variable would copy it.
                buffer.scatter_nd_update([[slot]], tf.where(stored, value, tf.gather(buffer, slot))[None])
            for average, value in ((self.mean, error), (self.square, error**2), (self.stored, tf.cast(stored, tf.float32))):
                average.assign(0.99 * average + 0.01 * value)
            deviation = tf.sqrt(tf.maximum(self.square - self.mean**2, 0.0))
            aim = self.mean + tf.where(self.stored < self.share, -5.0, 5.0) * deviation
            self.threshold.assign(0.99 * self.threshold + 0.01 * aim)

    def coins(self, step, batch: int) -> tuple:
        """For each example of a step: a number in [0, 1) that decides on replay, the slot to read and the slot to write."""
        numbers = uniform(self.seed, "replay", step, (3, batch))
        return numbers[0], *(tf.cast(n * self.slots, tf.int32) for n in (numbers[1], numbers[2]))
