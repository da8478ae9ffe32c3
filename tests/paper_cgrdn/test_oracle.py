"""The CGRDN oracle itself: the numbers that the sheet gives, closed forms, and brute force where the oracle takes a short cut."""

import math

import numpy as np
import pytest
from scipy import signal

from tests.paper_cgrdn import oracle


def pair(seed=0, shape=(3, 24, 20)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), rng.normal(size=shape)


def tiny_generator(seed=0, f0=3, growth=2, convs=2, rdbs=2, grdbs=2, concat=True, positive=False):
    """Random weights; with positive=True no path is ever cut by a ReLU or cancels (for an input >= 0)."""
    rng = np.random.default_rng(seed)
    layers = oracle.generator_layers(f0, growth, convs, rdbs, grdbs, concat)
    draw = (lambda *shape: rng.uniform(0.5, 1.0, shape) * 0.05) if positive else (lambda *shape: rng.normal(size=shape) * 0.3)
    pairs = [(draw(k, k, inputs, outputs), draw(outputs)) for k, inputs, outputs, _ in layers]  # up: inputs = outputs
    return oracle.generator_weights(pairs, convs, rdbs, grdbs, concat)


# -------------------------------------------------------------------------------------------------------------------- the sheet's numbers
@pytest.mark.parametrize(
    "convs, growth, cgrdn, grdn, gmac",
    [
        (4, 16, 1_158_785, 1_142_337, 19.0),
        (4, 24, 1_763_457, 1_747_009, 28.9),
        (4, 32, 2_478_721, 2_462_273, 40.6),
        (5, 32, 3_396_737, 3_380_289, 55.6),
        (6, 32, 4_462_209, 4_445_761, 73.1),
        (7, 32, 5_675_137, 5_658_689, 93.0),
        (8, 32, 7_035_521, 7_019_073, 115.2),
        (9, 32, 8_543_361, 8_526_913, 139.9),
    ],
)
def test_size_ladder(convs, growth, cgrdn, grdn, gmac):
    assert oracle.generator_parameters(convs=convs, growth=growth) == cgrdn
    assert oracle.grdn_parameters(convs=convs, growth=growth) == grdn
    assert round(oracle.generator_macs(256, 256, convs=convs, growth=growth) / 1e9, 1) == gmac


def test_chosen_sizes():
    tiny, nano = {"f0": 32, "growth": 16, "convs": 4, "rdbs": 2, "grdbs": 2}, {"f0": 16, "growth": 8, "convs": 3, "rdbs": 2, "grdbs": 2}
    assert oracle.generator_parameters(**tiny) == 181_377
    assert oracle.generator_parameters(**nano) == 33_569
    assert round(oracle.generator_macs(256, 256, **tiny) / 1e9, 2) == 2.99
    assert round(oracle.generator_macs(256, 256, **nano) / 1e9, 2) == 0.56


def test_published_network():
    assert oracle.generator_parameters() == 7_035_521
    assert oracle.generator_census() == (152, 1, 133, 22)
    assert len(oracle.generator_layers()) == 153
    assert oracle.generator_receptive_field() == 522 == 10 + 4 * 8 * 4 * 4
    assert round(oracle.generator_macs(1, 1) / 1e6, 3) == 1.758


def test_other_networks():
    assert oracle.mr_unet_parameters() == 51_714_177
    assert round(oracle.mr_unet_parameters() / oracle.generator_parameters(), 2) == 7.35
    assert oracle.discriminator_parameters() == (2_764_545, 1_792)
    assert oracle.discriminator_receptive_field() == 70


# ----------------------------------------------------------------------------------------------------------------------- normalisation
def test_standardise():
    x = 7.0 + 3.0 * pair()[0]
    inner, mean, scale = oracle.standardise(x)
    assert mean.shape == scale.shape == (3, 1, 1)
    assert np.allclose(inner.mean(axis=(1, 2)), 0.0) and np.allclose(inner.std(axis=(1, 2)), 1.0)
    assert np.allclose(inner * scale + mean, x)
    assert np.allclose(oracle.standardise(1e-4 * x + 0.3)[0], inner)  # std 3e-4, above the floor of 1e-6
    flat = oracle.standardise(np.full((1, 4, 4), -5e4))
    assert np.all(flat[0] == 0.0) and flat[2].item() == pytest.approx(0.05)
    assert oracle.standardise(np.zeros((1, 4, 4)))[2].item() == 1e-6


def test_adaptive_weight():
    checkers = np.where(np.indices((4, 4)).sum(axis=0) % 2, 1.0, -1.0)[None]  # std 1
    for std, weight in ((2.0, 0.5), (1.0, 1.0), (0.25, 4.0), (0.1, 10.0), (0.01, 10.0), (0.0, 10.0)):
        assert oracle.adaptive_weight(5.0 + std * checkers).item() == pytest.approx(weight)


# ------------------------------------------------------------------------------------------------------------------------------ losses
def test_all_terms_vanish_for_a_perfect_prediction():
    y = pair()[0]
    for term in ("l1", "l2", "mlwt", "mean_constraint", "std_constraint", "gradient_x", "gradient_y", "laplacian"):
        assert getattr(oracle, term)(y, y) == 0.0
    assert oracle.fourier(y, y) == pytest.approx(1e-9**0.125) == pytest.approx(0.075, abs=1e-4)


def test_closed_forms():
    y = pair()[0]
    assert oracle.l1(y, y + 0.5) == pytest.approx(0.5)
    assert oracle.l2(y, y - 0.5) == pytest.approx(0.25)
    assert oracle.mean_constraint(y, y + np.array([0.5, -0.5, 2.0])[:, None, None]) == pytest.approx(1.0)
    assert oracle.std_constraint(y, 3.0 * y) == pytest.approx(2.0 * y.std(axis=(1, 2)).mean())
    rows, columns = np.indices((24, 20)).astype(float)
    p = y + 2.0 * columns + 300.0 * rows
    assert oracle.gradient_x(y, p) == pytest.approx(2.0) and oracle.gradient_y(y, p) == pytest.approx(100.0)
    assert oracle.laplacian(y, p + 0.5 * columns**2 + rows**2) == pytest.approx(3.0)


def test_the_laplacian_is_a_convolution():
    y, p = pair()
    kernel = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    expected = np.mean([np.abs(signal.convolve2d(a, kernel, "valid") - signal.convolve2d(b, kernel, "valid")) for a, b in zip(y, p, strict=True)])
    assert oracle.laplacian(y, p) == pytest.approx(expected)


@pytest.mark.parametrize("width", [20, 21])
def test_fourier_equals_the_sum_over_half_the_plane(width):
    y, p = pair(shape=(2, 6, width))
    rows, columns = np.arange(6), np.arange(width)
    values = []
    for image in y - p:  # c = 2 * 256^(-1/8) = 1
        for k in range(6):
            for m in range(width // 2 + 1):
                total = np.sum(image * np.exp(-2j * math.pi * (k * rows[:, None] / 6 + m * columns[None] / width)))
                values.append(max(1e-9, abs(total)) ** 0.125)
    assert oracle.fourier(y, p) == pytest.approx(np.mean(values))


@pytest.mark.parametrize("k", [2, 3, 4, 8, 16])
def test_local_mean_leaves_the_padding_out(k):
    x = pair(shape=(1, 12, 20))[0]
    ones, before = np.ones((k, k)), (k - 1) // 2
    shape = ((before, k - 1 - before),) * 2
    total, count = (signal.correlate2d(np.pad(image, shape), ones, "valid") for image in (x[0], np.ones((12, 20))))
    assert np.allclose(oracle.local_mean(x, k)[0], total / count)
    assert np.allclose(oracle.local_mean(np.full((1, 12, 20), 3.0), k), 3.0)


def test_local_mean_of_an_even_window_looks_forward():
    x = np.arange(5.0)[None, None, :] ** 2
    assert oracle.local_mean(x, 2)[0, 0].tolist() == [0.5, 2.5, 6.5, 12.5, 16.0]
    assert oracle.local_mean(x, 4)[0, 0].tolist() == [5 / 3, 14 / 4, 30 / 4, 29 / 3, 25 / 2]


def test_mlwt():
    y, p = pair()
    assert sum(oracle.SCALE_WEIGHTS) == pytest.approx(1.0)
    assert np.allclose(oracle.SCALE_WEIGHTS, (0.1669, 0.2220, 0.2771, 0.3339), atol=5e-5)
    assert oracle.mlwt(y, p) == pytest.approx(np.dot(oracle.SCALE_WEIGHTS, oracle.mlwt_terms(y, p)))
    assert oracle.mlwt(7.0 * y + 3.0, 7.0 * p + 3.0) == pytest.approx(oracle.mlwt(y, p))  # target whitening, std above the floor
    assert oracle.mlwt(y, y + 2.0 * (p - y)) == pytest.approx(2.0 * oracle.mlwt(y, p))  # linear in P - Y: every statistic is the target's
    assert oracle.mlwt(y, p) == pytest.approx(np.mean([oracle.mlwt(y[[i]], p[[i]]) for i in range(3)]))  # each image by its own statistics
    # a flat target: q, all v_k and all q_k are at the floor of 0.1, so that each term is 1000 |P - Y|
    assert np.allclose(oracle.mlwt_terms(np.full((1, 16, 16), 2.0), np.full((1, 16, 16), 2.001)), 1.0)


def test_relativistic_losses():
    same = np.full((2, 4, 4, 1), 3.7)
    assert oracle.discriminator_loss(same, same) == pytest.approx(2.0 * math.log(2.0)) == pytest.approx(1.386, abs=5e-4)
    assert oracle.generator_loss(same, same) == pytest.approx(2.0 * math.log(2.0))
    rng = np.random.default_rng(0)
    r, f = rng.normal(1.0, 2.0, (2, 4, 4, 1)), rng.normal(-1.0, 2.0, (2, 4, 4, 1))
    real, fake = 1.0 / (1.0 + np.exp(-(r - f.mean()))), 1.0 / (1.0 + np.exp(-(f - r.mean())))
    assert oracle.discriminator_loss(r, f) == pytest.approx(np.mean(-0.95 * np.log(real) - 0.05 * np.log(1.0 - real)) + np.mean(-np.log(1.0 - fake)))
    assert oracle.generator_loss(r, f) == pytest.approx(np.mean(-np.log(1.0 - real)) + np.mean(-np.log(fake)))
    assert oracle.generator_loss(r + 9.0, f + 9.0) == pytest.approx(oracle.generator_loss(r, f))  # a common shift cancels
    assert oracle.generator_loss(np.full(3, 2e4), np.zeros(3)) == pytest.approx(4e4)  # no overflow


# ---------------------------------------------------------------------------------------------------------------------------- schedule
def test_learning_rate():
    steps, base = 6400, 2e-4  # warm-up 512, ramp 100
    rate = [oracle.learning_rate(step, base, steps) for step in range(3 * steps)]
    assert rate[0] == pytest.approx(1e-4 * base) and rate[256] == pytest.approx(0.50005 * base) and rate[512] == base
    assert rate[511] < base and np.all(np.array(rate[512:6301]) == base)
    assert rate[6301] == pytest.approx(base * (1.0 - 0.1 * 0.01)) and rate[6350] == pytest.approx(0.95 * base) and rate[6399] > 0.9 * base
    assert np.all(np.array(rate[6400:12701]) == 0.9 * base) and rate[12800] == pytest.approx(0.81 * base)
    assert np.all(np.diff(rate[:513]) > 0.0) and np.all(np.diff(rate[512:]) <= 0.0)
    assert oracle.learning_rate(6400, base, steps, decay=0.8) == pytest.approx(0.8 * base)


def test_short_epochs_have_a_shorter_warm_up_and_no_ramp():
    assert oracle.warmup_steps(250_000 // 4) == 512 and oracle.warmup_steps(63) == 31
    rate = [oracle.learning_rate(step, 1.0, 63) for step in range(126)]
    assert rate[31] == 1.0 == rate[62] and rate[63] == 0.9 == rate[125]
    assert oracle.learning_rate(0, 1.0, 1) == 1.0  # no room for a warm-up
    assert oracle.learning_rate(1_000_000, 1.0, 10) == 0.9**1000


def test_beta1():
    assert [oracle.beta1(step, 0.9, 6400) for step in (0, 256, 512, 9999)] == [0.0, 0.45, 0.9, 0.9]


# ---------------------------------------------------------------------------------------------------------------------------- networks
def test_same_padding():
    assert oracle.same_padding(24, 4, 2) == (12, 1, 1)
    assert oracle.same_padding(25, 4, 2) == (13, 1, 2)
    assert oracle.same_padding(24, 3, 1) == (24, 1, 1)
    assert oracle.same_padding(24, 4, 1) == (24, 1, 2)
    assert oracle.same_padding(24, 3, 2) == (12, 0, 1)


@pytest.mark.parametrize("size, stride", [(1, 1), (3, 1), (4, 1), (3, 2), (4, 2)])
def test_conv_is_a_correlation(size, stride):
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.normal(size=(2, 10, 8, 3)), rng.normal(size=(size, size, 3, 2)), rng.normal(size=2)
    out = oracle.conv(x, kernel, bias, stride)
    top, bottom = oracle.same_padding(10, size, stride)[1:]
    left, right = oracle.same_padding(8, size, stride)[1:]
    for b in range(2):
        for o in range(2):
            planes = (signal.correlate2d(np.pad(x[b, :, :, c], ((top, bottom), (left, right))), kernel[:, :, c, o], "valid") for c in range(3))
            assert np.allclose(out[b, :, :, o], bias[o] + sum(planes)[::stride, ::stride])


def test_transposed_conv_is_the_adjoint_and_doubles():
    rng = np.random.default_rng(0)
    kernel, x, y = rng.normal(size=(4, 4, 2, 3)), rng.normal(size=(2, 5, 4, 3)), rng.normal(size=(2, 10, 8, 2))
    up = oracle.conv_transposed(x, kernel)
    assert up.shape == y.shape
    assert np.sum(up * y) == pytest.approx(np.sum(x * oracle.conv(y, kernel, stride=2)))  # the same array read as HWIO maps 2 channels to 3
    assert np.allclose(oracle.conv_transposed(x, kernel, np.array([1.0, -2.0])), up + [1.0, -2.0])


@pytest.mark.parametrize("concat", [True, False])
def test_generator_with_silent_layers(concat):
    x = np.random.default_rng(0).normal(size=(2, 16, 12, 1))
    weights = tiny_generator(concat=concat)
    assert oracle.generator(x, weights).shape == x.shape
    silent = weights | {"last": (np.zeros_like(weights["last"][0]), np.full(1, 0.25))}
    assert np.allclose(oracle.generator(x, silent), x + 0.25)  # image residual
    raw = 40.0 + 5.0 * x[..., 0]
    assert np.allclose(oracle.restore(raw, silent), raw + 0.25 * raw.std(axis=(1, 2), keepdims=True))
    a, b = oracle.restore(raw, weights), oracle.restore(3.0 * raw - 7.0, weights)
    assert np.allclose(3.0 * a - 7.0, b)
    if concat:  # trunk residual: with a silent fusion the blocks do not count, but s passes
        s = oracle.conv(oracle.conv(x, *weights["first"]), *weights["down"], stride=2)
        muted = weights | {"fusion": (np.zeros((1, 1, 6, 3)), np.zeros(3))}
        assert np.allclose(oracle.generator(x, muted), oracle.conv(oracle.conv_transposed(s, *weights["up"]), *weights["last"]) + x)
    block = weights["grdbs"][0]
    trunk = np.random.default_rng(1).normal(size=(1, 6, 5, 3))
    off = (np.zeros((1, 1, 7, 3)), np.zeros(3))
    assert np.array_equal(oracle.rdb(trunk, block["rdbs"][0] | {"fusion": off}), trunk)  # local residual
    # both RDBs silent: the group concat is [x, x], and the group fusion acts on it
    quiet = {"rdbs": [rdb | {"fusion": off} for rdb in block["rdbs"]], "fusion": block["fusion"]}
    assert np.allclose(oracle.grdb(trunk, quiet), oracle.conv(np.concatenate([trunk, trunk], axis=-1), *block["fusion"]) + trunk)


def test_rdb_on_one_pixel_by_hand():
    def centre(*taps):
        kernel = np.zeros((3, 3, len(taps), 1))
        kernel[1, 1, :, 0] = taps
        return kernel

    def by_hand(x):
        h1 = max(2.0 * x + 1.0, 0.0)
        h2 = max(-1.0 * x + 0.5 * h1 - 1.0, 0.0)
        return 3.0 * x + 5.0 * h1 + 7.0 * h2 + 0.1 + x

    weights = {"convs": [(centre(2.0), np.ones(1)), (centre(-1.0, 0.5), -np.ones(1))], "fusion": (np.reshape([3.0, 5.0, 7.0], (1, 1, 3, 1)), np.full(1, 0.1))}
    for x in (-2.0, 0.0, 1.5):
        assert oracle.rdb(np.full((1, 1, 1, 1), x), weights).item() == pytest.approx(by_hand(x))


@pytest.mark.parametrize("convs, rdbs, grdbs, concat", [(1, 1, 1, True), (2, 2, 1, True), (2, 1, 2, False)])
def test_generator_sees_its_receptive_field(convs, rdbs, grdbs, concat):
    weights = tiny_generator(convs=convs, rdbs=rdbs, grdbs=grdbs, concat=concat, positive=True)
    x = np.ones((65, 16, 64, 1))
    for column in range(64):
        x[1 + column, :, column] += 1.0
    y = oracle.generator(x, weights)[:, 8, :, 0]
    for place in (30, 31):
        seen = np.flatnonzero(np.abs(y[1:, place] - y[0, place]) > 0.0)
        assert len(seen) == seen[-1] - seen[0] + 1 == oracle.generator_receptive_field(convs, rdbs, grdbs)


def discriminator_weights(filters=(2, 3, 2, 3), seed=0):
    rng = np.random.default_rng(seed)
    channels = (2, *filters, 1)
    kernels = [rng.uniform(0.1, 1.0, (4, 4, inputs, outputs)) for inputs, outputs in zip(channels[:-1], channels[1:], strict=True)]
    norms = [tuple(rng.uniform(0.5, 1.5, n) for _ in range(4)) for n in filters[1:]]
    return {"kernels": kernels, "norms": norms, "bias": np.array([0.3])}


def test_discriminator():
    weights = discriminator_weights()
    count = sum(k.size for k in weights["kernels"]) + 1 + sum(gamma.size + beta.size for gamma, beta, _, _ in weights["norms"])
    assert count == oracle.discriminator_parameters((2, 3, 2, 3))[0]
    x, candidate = (np.random.default_rng(s).normal(size=(2, 32, 24, 1)) for s in (0, 1))
    logits = oracle.discriminator(x, candidate, weights)
    assert logits.shape == (2, 4, 3, 1)
    assert not np.allclose(logits, oracle.discriminator(candidate, x, weights))  # conditional: the order counts
    blind = [weights["kernels"][0] * np.array([1.0, 0.0])[:, None], *weights["kernels"][1:]]  # x comes first
    assert np.array_equal(oracle.discriminator(x, x, weights | {"kernels": blind}), oracle.discriminator(x, candidate, weights | {"kernels": blind}))
    assert oracle.leaky_relu(np.array([-1.0, 0.0, 3.0])).tolist() == [-0.2, 0.0, 3.0]
    zeros = weights | {"kernels": [*weights["kernels"][:4], np.zeros((4, 4, 3, 1))]}
    assert np.all(oracle.discriminator(x, candidate, zeros) == 0.3)
    assert np.allclose(oracle.batch_norm(np.array([2.0, 5.0]), 3.0, 1.0, 2.0, 0.249), [1.0, 1.0 + 9.0 / 0.5])


def test_discriminator_on_one_pixel_by_hand():
    def tap(*values):  # a 1x1 map is padded by 1 before and 2 after, at stride 1 and 2: only kernel[1, 1] meets it
        kernel = np.full((4, 4, len(values), 1), 9.0)
        kernel[1, 1, :, 0] = values
        return kernel

    def by_hand(x, candidate):
        z = 2.0 * x - 3.0 * candidate
        z = z if z >= 0.0 else 0.2 * z
        for weight, gamma, beta, mean, variance in ((1.5, 1.0, 0.3, 0.2, 0.5), (-1.0, 2.0, -0.1, 0.0, 1.0), (0.7, -1.0, 0.0, 0.4, 2.0)):
            z = gamma * (weight * z - mean) / math.sqrt(variance + 1e-3) + beta
            z = z if z >= 0.0 else 0.2 * z
        return 4.0 * z - 0.5

    norms = [tuple(np.full(1, v) for v in norm) for norm in ((1.0, 0.3, 0.2, 0.5), (2.0, -0.1, 0.0, 1.0), (-1.0, 0.0, 0.4, 2.0))]
    weights = {"kernels": [tap(2.0, -3.0), tap(1.5), tap(-1.0), tap(0.7), tap(4.0)], "norms": norms, "bias": np.full(1, -0.5)}
    for x, candidate in ((1.0, 0.2), (0.2, 1.0), (-3.0, 2.0)):
        logit = oracle.discriminator(np.full((1, 1, 1, 1), x), np.full((1, 1, 1, 1), candidate), weights).item()
        assert logit == pytest.approx(by_hand(x, candidate))


def test_discriminator_sees_its_receptive_field():
    x = np.ones((129, 16, 128, 1))
    for column in range(128):
        x[1 + column, :, column] += 1.0
    logits = oracle.discriminator(np.ones_like(x), x, discriminator_weights())[:, 1, :, 0]
    seen = np.flatnonzero(np.abs(logits[1:, 8] - logits[0, 8]) > 0.0)
    assert len(seen) == seen[-1] - seen[0] + 1 == oracle.discriminator_receptive_field()
