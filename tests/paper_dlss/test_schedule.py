"""Table 1, its check values, and Adam that follows it, against Keras' own and against one written in NumPy."""

import keras
import numpy as np
import pytest

from common.optimizers import ScheduledAdam
from paper_dlss.schedule import Rate, dropping_beta, fall, falling_beta

PLATEAU = 500_000
TABLE = [  # update, rate, beta_1
    (0, 3e-4, 0.9),
    (499_999, 3e-4, 0.9),
    (500_000, 3e-4, 0.9),
    (562_499, 3e-4, 0.9),
    (562_500, 2.625e-4, 0.85),
    (750_000, 1.5e-4, 0.7),
    (937_499, 7.5e-5, 0.6),
    (937_500, 3.75e-5, 0.55),
    (999_999, 3.75e-5, 0.55),
    (1_000_000, 1e-4, 0.5),
    (1_499_999, 1e-4, 0.5),
    (1_500_000, 1e-4, 0.5),
    (1_562_500, 8.75e-5, 0.5),
    (1_937_500, 1.25e-5, 0.5),
    (1_999_999, 1.25e-5, 0.5),
    (2_500_000, 1.25e-5, 0.5),
]


@pytest.mark.parametrize(("i", "rate", "beta"), TABLE)
def test_check_values(i, rate, beta):
    assert float(Rate(3e-4, 1e-4, PLATEAU)(i)) == pytest.approx(rate, rel=1e-6)
    assert float(falling_beta(PLATEAU)(i)) == pytest.approx(beta, rel=1e-6)
    if i >= 1_000_000:  # the second stage's own optimizer counts from 0
        assert float(Rate(3e-4, 1e-4, PLATEAU, 2 * PLATEAU)(i - 1_000_000)) == pytest.approx(rate, rel=1e-6)
        assert float(falling_beta(PLATEAU, 2 * PLATEAU)(i - 1_000_000)) == pytest.approx(beta, rel=1e-6)


@pytest.mark.parametrize("plateau", [8, 100, 500_000, 3])
def test_seven_decrements_of_an_eighth(plateau):
    values = [float(fall(i, plateau)) for i in {*range(0, plateau, max(1, plateau // 1000)), plateau - 1}]
    expected = [1 - (8 * i // plateau) / 8 for i in {*range(0, plateau, max(1, plateau // 1000)), plateau - 1}]
    assert values == expected and min(values) >= 1 / 8
    if plateau >= 8:
        assert len(set(values)) == 8


def test_one_stage_momentum():
    beta = dropping_beta(50_000)
    assert [float(beta(i)) for i in (0, 49_999, 50_000, 99_999)] == pytest.approx([0.9, 0.9, 0.5, 0.5])


def test_schedule_survives_saving():
    rate = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(Rate(3e-4, 1e-4, 100, 200)))
    assert rate.get_config() == {"rate": 3e-4, "adversarial_rate": 1e-4, "plateau": 100, "first": 200}


# --- Adam ---


def variables(seed=0):
    rng = np.random.default_rng(seed)
    return [keras.Variable(rng.normal(size=shape).astype(np.float32), name=name) for name, shape in (("a", (3, 2)), ("b", (4,)), ("head", (2,)))]


def gradients(step):
    rng = np.random.default_rng((1, step))
    return [rng.normal(0.3, 1, shape).astype(np.float32) for shape in ((3, 2), (4,), (2,))]


def numpy_adam(rates, betas, factors, steps):
    """Adam from its equations in float64, with a rate and a beta_1 for each step and a factor for each variable."""
    weights = [v.numpy().astype(float) for v in variables()]
    moments = [[np.zeros_like(w), np.zeros_like(w)] for w in weights]
    for t in range(1, steps + 1):
        for w, g, mv, factor in zip(weights, gradients(t), moments, factors, strict=True):
            mv[0] = betas[t - 1] * mv[0] + (1 - betas[t - 1]) * g
            mv[1] = 0.999 * mv[1] + 0.001 * g.astype(float) ** 2
            w -= factor * rates[t - 1] * (mv[0] / (1 - betas[t - 1] ** t)) / (np.sqrt(mv[1] / (1 - 0.999**t)) + 1e-8)
    return weights


def run(optimizer, steps):
    weights = variables()
    optimizer.build(weights)
    for t in range(1, steps + 1):
        optimizer.apply(gradients(t), weights)
    return [w.numpy() for w in weights]


@pytest.mark.parametrize("beta", [0.9, 0.5])
def test_constant_momentum_is_keras_adam(beta):
    ours = run(ScheduledAdam(1e-2, beta), 20)
    for a, b, c in zip(ours, run(keras.optimizers.Adam(1e-2, beta_1=beta, epsilon=1e-8), 20), run(ScheduledAdam(1e-2, lambda i: beta), 20), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(c, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(ours, numpy_adam([1e-2] * 20, [beta] * 20, [1, 1, 1], 20), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [0, 32])
def test_follows_table_1(first):
    """64 updates over four columns of 16: rates and momenta of the table, written out, and twice the rate for the head."""
    steps = 64 - first
    falls = [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    rates = [1e-2] * 16 + [1e-2 * f for f in falls for _ in (0, 1)] + [4e-3] * 16 + [4e-3 * f for f in falls for _ in (0, 1)]
    betas = [0.9] * 16 + [0.5 + 0.4 * f for f in falls for _ in (0, 1)] + [0.5] * 32
    ours = run(ScheduledAdam(Rate(1e-2, 4e-3, 16, first), falling_beta(16, first), {"head": 2.0}), steps)
    for a, b in zip(ours, numpy_adam(rates[first:], betas[first:], [1, 1, 2], steps), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_factors():
    plain, scaled = run(ScheduledAdam(1e-2), 1), run(ScheduledAdam(1e-2, factors={"head": 2.0}), 1)
    start = [v.numpy() for v in variables()]
    for k, factor in enumerate((1, 1, 2)):
        np.testing.assert_allclose(scaled[k] - start[k], factor * (plain[k] - start[k]), rtol=1e-3)
    with pytest.raises(ValueError, match="no variable of this optimizer: tail"):
        run(ScheduledAdam(1e-2, factors={"tail": 2.0}), 1)
