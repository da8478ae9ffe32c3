"""An Adam whose beta_1 follows a schedule and whose rate may differ between variables."""

from __future__ import annotations

import keras


class ScheduledAdam(keras.optimizers.Adam):
    """Keras' Adam with epsilon 1e-8 (TensorFlow 1's), whose beta_1 may depend on the number of updates made, and whose rate may differ between variables.

    beta_1: a number, or a function of `iterations`. factors: path of a variable -> factor of its learning rate, 1 where it is not named.
    The moments' bias is corrected by 1 - beta_1^t with the present beta_1: Keras' formula, and no correction any more after some hundred steps.
    """

    def __init__(self, learning_rate, beta_1=0.9, factors: dict[str, float] | None = None, epsilon: float = 1e-8, **kwargs):
        super().__init__(learning_rate, beta_1=beta_1, epsilon=epsilon, **kwargs)
        self.schedule, self.factors = beta_1, factors or {}

    def apply(self, grads, trainable_variables=None):
        if callable(self.schedule):
            self.beta_1 = self.schedule(self.iterations)  # once for all variables: Keras asks for it in each one's update
        super().apply(grads, trainable_variables)

    def build(self, variables):
        super().build(variables)
        unknown = set(self.factors) - {v.path for v in variables}
        if unknown:
            raise ValueError(f"factors name no variable of this optimizer: {', '.join(sorted(unknown))}")
        self._scales = tuple(self.factors.get(v.path, 1.0) for v in variables)

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self._scales[self._get_variable_index(variable)])
