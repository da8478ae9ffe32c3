"""The SSUM CycleGAN oracle itself: the numbers that the sheet gives, closed forms, and other ways to the same result."""

import math

import numpy as np
import pytest
from scipy import ndimage, signal

from tests.paper_ssum_cyclegan import oracle


def rng(seed=0):
    return np.random.default_rng(seed)


# -------------------------------------------------------------------------------------------------------------------- the sheet's numbers
def test_parameters_and_multiply_adds():
    assert oracle.generator_parameters() == 1_078_657
    assert oracle.generator_parameters(long_skip=False) == 1_041_665
    assert oracle.generator_parameters(channels=3) == 1_091_203
    assert oracle.generator_parameters(blocks=6) == 856_705
    assert oracle.resnet9_parameters() == 12_476_801
    assert [oracle.stock_resnet9_parameters(3), oracle.stock_resnet9_parameters(1)] == [11_378_179, 11_365_633]
    assert oracle.stock_resnet9_parameters(3, affine=True) == 11_383_427
    assert [oracle.discriminator_parameters(1), oracle.discriminator_parameters(3)] == [2_762_689, 2_764_737]
    assert oracle.discriminator_parameters(affine=True) - oracle.discriminator_parameters() == 1_792
    assert round(oracle.generator_macs(256, 256) / 1e9, 2) == 7.05
    assert round(oracle.generator_macs(256, 256, preset="resnet9_256") / 1e9, 1) == 56.0


@pytest.mark.parametrize("preset", ["ssum64", "resnet9_256"])
def test_weights_hold_the_parameters_counted(preset):
    weights = oracle.generator_weights(oracle.generator_layers(preset, width=4, blocks=2), rng())
    trained = sum(array.size for step in weights for array in (step[:2] if len(step) == 4 else step))
    assert trained == {"ssum64": oracle.generator_parameters, "resnet9_256": oracle.resnet9_parameters}[preset](width=4, blocks=2)


@pytest.mark.parametrize(("rf94", "start", "logit", "field", "side"), [(False, 8 * 10 - 23, 10, 70, 14), (True, 16 * 3 - 31, 3, 94, 7)])
def test_receptive_field_by_recursion_and_by_touching_pixels(rf94, start, logit, field, side):
    assert oracle.receptive_field((4,) * 5, (2, 2, 2, 2 if rf94 else 1, 1)) == field
    assert oracle.receptive_field((4,) * 2, (1, 1)) == 7
    weights = discriminator_weights((2, 2, 2, 2))
    image = rng().normal(size=(1, 128, 128, 1))
    before = oracle.discriminator(image, weights, rf94, norm=False)
    assert before.shape == (1, side, side, 1)
    for axis in (1, 2):
        for place, seen in ((start - 1, False), (start, True), (start + field - 1, True), (start + field, False)):
            touched = image.copy()
            touched[(slice(None),) * axis + (place,)] += 1
            assert (oracle.discriminator(touched, weights, rf94, norm=False)[0, logit, logit, 0] != before[0, logit, logit, 0]) == seen


# ------------------------------------------------------------------------------------------------------------------------------ operators
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("k", [3, 4, 7])
def test_convolution_equals_scipy(k, stride):
    x, kernel, bias = rng().normal(size=(2, 13, 16, 3)), rng(1).normal(size=(k, k, 3, 2)), rng(2).normal(size=2)
    expected = [[signal.correlate(image, kernel[..., o], "valid")[::stride, ::stride, 0] + bias[o] for o in range(2)] for image in x]
    np.testing.assert_allclose(oracle.conv2d(x, kernel, bias, stride), np.moveaxis(expected, 1, -1), atol=1e-12)
    assert oracle.conv2d(x, kernel, stride=stride, padding="same").shape == (2, -(-13 // stride), -(-16 // stride), 2)


def test_same_padding_is_uneven_where_the_stride_makes_it_so():
    expected = {(8, 3, 1): (1, 1), (8, 3, 2): (0, 1), (9, 3, 2): (1, 1), (8, 4, 2): (1, 1), (8, 4, 1): (1, 2), (8, 1, 2): (0, 0)}
    assert {case: oracle.same_padding(*case) for case in expected} == expected
    impulse = np.zeros((1, 8, 8, 1))
    impulse[0, 0, 0] = 1
    kernel = np.arange(9.0).reshape(3, 3, 1, 1)
    assert oracle.conv2d(impulse, kernel, stride=2, padding="same")[0, 0, 0, 0] == 0  # no zero before the first pixel: it meets the first weight
    assert oracle.conv2d(oracle.pad(impulse, 1), kernel, stride=2)[0, 0, 0, 0] == 4  # one zero before it: the middle weight


def test_reflection_leaves_the_outermost_pixel_single():
    x = np.arange(12.0).reshape(1, 3, 4, 1)
    np.testing.assert_array_equal(oracle.pad(x, 2, "reflect")[0, 2, :, 0], [2, 1, 0, 1, 2, 3, 2, 1])
    assert oracle.pad(x, 2).sum() == x.sum() and oracle.pad(x, 2).shape == (1, 7, 8, 1)


def test_depth_to_space_takes_rows_then_columns_then_channels():
    x = rng().normal(size=(2, 3, 4, 8))
    y = oracle.depth_to_space(x)
    for i, j, a, b, c in np.ndindex(3, 4, 2, 2, 2):
        np.testing.assert_array_equal(y[:, 2 * i + a, 2 * j + b, c], x[:, i, j, (2 * a + b) * 2 + c])


def test_norms_leave_zero_mean_and_almost_unit_variance():
    x = rng().normal(3, 2e-3, (3, 8, 6, 4))  # small enough to show epsilon
    for y, axes in ((oracle.batch_norm_training(x, np.ones(4), np.zeros(4))[0], (0, 1, 2)), (oracle.instance_norm(x), (1, 2))):
        np.testing.assert_allclose(y.mean(axes), 0, atol=1e-9)
        np.testing.assert_allclose(y.var(axes), x.var(axes) / (x.var(axes) + 1e-5), rtol=1e-9)
    gamma, beta = np.array([2.0, 1, -1, 0]), np.arange(4.0)
    np.testing.assert_allclose(oracle.instance_norm(x, gamma, beta), gamma * oracle.instance_norm(x) + beta)
    y, mean, variance = oracle.batch_norm_training(x, gamma, beta)
    np.testing.assert_allclose(y, oracle.batch_norm(x, gamma, beta, mean, variance))
    np.testing.assert_allclose(oracle.batch_norm(np.full((1, 1, 1, 1), 5.0), 3.0, 1.0, 2.0, 4.0), 1 + 9 / math.sqrt(4 + 1e-5))


# ------------------------------------------------------------------------------------------------------------------------------- networks
def discriminator_weights(filters):
    pairs = zip((1, *filters), (*filters, 1), strict=True)
    return [(rng(k).normal(size=(4, 4, i, o)) / (4 * i**0.5), (k < 4) * rng(k + 9).normal(size=o)) for k, (i, o) in enumerate(pairs)]


def leak(h):
    return np.maximum(h, 0) + 0.2 * np.minimum(h, 0)


@pytest.mark.parametrize("long_skip", [True, False])
def test_generator_of_one_channel_equals_its_chain_of_filters(long_skip):
    weights = oracle.generator_weights(oracle.generator_layers("ssum64", 1, 2, 1, long_skip), rng())
    x = rng(1).uniform(-1, 1, (20, 24))
    read = iter(weights)

    def filtered(h, mode):
        kernel, *bias = next(read)
        maps = [ndimage.correlate(h, kernel[:, :, 0, o], mode=mode, cval=0.0) + sum(b[o] for b in bias) for o in range(kernel.shape[-1])]
        return np.stack(maps) if len(maps) > 1 else maps[0]

    def normed(h):
        gamma, beta, mean, variance = (float(value[0]) for value in next(read))
        return beta + gamma * (h - mean) / math.sqrt(variance + 1e-5)

    h = leak(normed(filtered(x, "mirror")))
    h = leak(normed(filtered(h, "constant")[::2, ::2]))
    h = shallow = leak(normed(filtered(h, "constant")[::2, ::2]))
    for _ in range(2):
        h = h + normed(filtered(leak(normed(filtered(h, "mirror"))), "mirror"))
    if long_skip:
        h = shallow + normed(filtered(h, "constant"))
    for _ in range(2):
        quarters = leak(filtered(h, "constant"))
        h = np.zeros((2 * h.shape[0], 2 * h.shape[1]))
        h[::2, ::2], h[::2, 1::2], h[1::2, ::2], h[1::2, 1::2] = quarters
    expected = np.tanh(filtered(h, "mirror"))
    seen = oracle.generator(x[None, :, :, None], weights, {"preset": "ssum64", "blocks": 2, "long_skip": long_skip})
    np.testing.assert_allclose(seen[0, :, :, 0], expected, atol=1e-10)


@pytest.mark.parametrize("preset", ["ssum64", "resnet9_256"])
@pytest.mark.parametrize("norm", ["batch", "instance", "instance_affine"])
@pytest.mark.parametrize("activation", ["leaky_relu", "prelu"])
def test_generator_reads_every_weight_and_keeps_the_size(preset, norm, activation):
    weights = oracle.generator_weights(oracle.generator_layers(preset, 2, 1), rng(), norm, activation)
    x, config = rng(1).uniform(-1, 1, (2, 16, 12, 1)), {"preset": preset, "blocks": 1, "norm": norm, "activation": activation}
    y = oracle.generator(x, weights, config)
    assert y.shape == x.shape and np.abs(y).max() < 0.99 and y.std() > 0.01
    with pytest.raises(AssertionError, match="left over"):
        oracle.generator(x, [*weights, weights[-1]], config)
    if activation == "prelu":  # the slope of leaky ReLU in every alpha: the same network
        plain = [step for step in weights if step[0].shape[:2] != (1, 1)]
        fixed = [step if step[0].shape[:2] != (1, 1) else (np.full_like(step[0], 0.2),) for step in weights]
        np.testing.assert_allclose(oracle.generator(x, fixed, config), oracle.generator(x, plain, config | {"activation": "leaky_relu"}))


def test_batch_of_one_in_training_is_instance_norm():
    weights = oracle.generator_weights(oracle.generator_layers("resnet9_256", 2, 1), rng())
    affine = [step[:2] if len(step) == 4 else step for step in weights]
    x, config = rng(1).uniform(-1, 1, (3, 12, 16, 1)), {"preset": "resnet9_256", "blocks": 1}
    training = oracle.generator(x[:1], weights, config | {"training": True})
    np.testing.assert_allclose(training, oracle.generator(x, affine, config | {"norm": "instance_affine"})[:1], atol=1e-12)
    assert np.abs(oracle.generator(x, weights, config | {"training": True})[:1] - training).max() > 1e-3


@pytest.mark.parametrize(("rf94", "side"), [(False, 6), (True, 3)])
def test_discriminator_of_one_channel_equals_its_chain_of_filters(rf94, side):
    weights, x = discriminator_weights((1, 1, 1, 1)), rng(1).normal(size=(64, 64))
    h = x
    for k, ((kernel, bias), stride) in enumerate(zip(weights, (2, 2, 2, 2 if rf94 else 1, 1), strict=True)):
        h = signal.correlate2d(np.pad(h, 1), kernel[:, :, 0, 0], "valid")[::stride, ::stride] + bias[0]
        if 0 < k < 4:
            h = (h - h.mean()) / np.sqrt(h.var() + 1e-5)
        h = leak(h) if k < 4 else h
    assert h.shape == (side, side) and h.min() < 0 < h.max()
    np.testing.assert_allclose(oracle.discriminator(x[None, :, :, None], weights, rf94)[0, :, :, 0], h, atol=1e-10)


# --------------------------------------------------------------------------------------------------------------------------------- losses
def test_adversarial_losses():
    real, fake = rng().normal(1, 2, (3, 5, 5, 1)), rng(1).normal(-1, 2, (3, 5, 5, 1))
    assert oracle.gan_value(0, 0) == pytest.approx(-math.log(4))
    assert oracle.discriminator_log_loss(real, fake) == pytest.approx(-oracle.gan_value(real, fake) / 2)
    assert oracle.generator_log_loss(fake) == pytest.approx(np.mean(np.log1p(np.exp(-fake))))
    assert (oracle.generator_log_loss(-1000.0), oracle.generator_log_loss(1000.0)) == pytest.approx((1000, 0))
    assert (oracle.discriminator_least_squares(1, 0), oracle.discriminator_least_squares(3, 2), oracle.generator_least_squares(-1)) == (0, 4, 4)


def test_cycle_and_identity():
    x, y = np.zeros((2, 4, 4, 1)), np.ones((2, 4, 4, 1))
    assert oracle.cycle_loss(x, x + 0.1, y, y - 0.3) == pytest.approx(10 * 0.4)
    assert oracle.identity_loss(x, x - 0.2, y, y + 0.4) == pytest.approx(0.5 * 10 * 0.6)


def test_shift_l1_finds_the_shift_and_not_beyond_the_radius():
    scene = rng().uniform(size=(1, 30, 32, 1))
    g = np.concatenate([scene[:, 5:25, 5:27], scene[:, 5:25, 5:27]])
    y = np.concatenate([scene[:, 8:28, 1:23], scene[:, 5:25, 0:22]])  # 3 up and 4 right: found; 5 right: not
    for interior in (False, True):
        inside, outside = oracle.shift_l1(g, y, 4, interior)
        assert inside == 0 and outside > 0.2
    assert oracle.shift_l1(g, y, 0)[0] == pytest.approx(np.abs(g[0] - y[0]).mean())
    a, b = rng(1).uniform(size=(2, 1, 6, 7, 1))
    overlap = min(
        np.abs(a[:, max(r, 0) : 6 + r, max(c, 0) : 7 + c] - b[:, max(-r, 0) : 6 - r, max(-c, 0) : 7 - c]).mean() for r in (-1, 0, 1) for c in (-1, 0, 1)
    )
    interior = min(np.abs(a[:, 1:5, 1:6] - b[:, 1 + r : 5 + r, 1 + c : 6 + c]).mean() for r in (-1, 0, 1) for c in (-1, 0, 1))
    assert (oracle.shift_l1(a, b, 1)[0], oracle.shift_l1(a, b, 1, True)[0]) == pytest.approx((overlap, interior))


def test_low_resolution_l1_sees_blocks_only():
    rows, columns = np.mgrid[:8, :12]
    checkers = np.float64((rows + columns) % 2)[None, :, :, None]
    assert oracle.lowres_l1(checkers, 1 - checkers) == 0
    assert oracle.lowres_l1(checkers, np.zeros_like(checkers)) == pytest.approx(0.5)
    step = np.float64(columns >= 4)[None, :, :, None]
    assert oracle.lowres_l1(step, np.zeros_like(step)) == pytest.approx(2 / 3)


def test_warp_follows_the_flow_and_stays_inside():
    rows, columns = np.mgrid[:6, :9]
    ramp = (2.0 * rows + 5.0 * columns)[None, :, :, None]
    flow = np.broadcast_to([1.25, -0.5], (1, 6, 9, 2))
    expected = 2 * np.clip(rows + 1.25, 0, 5) + 5 * np.clip(columns - 0.5, 0, 8)
    np.testing.assert_allclose(oracle.warp(ramp, flow)[0, :, :, 0], expected)
    assert oracle.registration_loss(ramp, expected[None, :, :, None], flow) == pytest.approx(0, abs=1e-10)
    assert oracle.registration_loss(ramp, ramp + 0.5, np.zeros_like(flow)) == pytest.approx(20 * 0.5)
    stretched = np.stack([0.3 * rows + 0.4 * columns, 0 * rows], -1)[None]
    assert oracle.flow_roughness(stretched) == pytest.approx((0.3**2 + 0.4**2) / 2)  # the mean over the two components
    assert oracle.registration_loss(ramp, oracle.warp(ramp, stretched), stretched) == pytest.approx(10 * 0.125)


# ------------------------------------------------------------------------------------------------------------------ training and measures
def test_pool_returns_the_first_and_then_mixes_half():
    n = 4000
    returned, stored = oracle.pool(range(n), rng().random(n) < 0.5, rng(1).integers(0, 50, n))
    assert returned[:50] == list(range(50)) and len(stored) == 50
    swaps = oracle.pool_swaps(returned)
    assert len(swaps) / (n - 50) == pytest.approx(0.5, abs=0.03)
    ages = [i - returned[i] for i in swaps if i > 1000]
    assert np.mean(ages) == pytest.approx(100, rel=0.1)  # one of 50 leaves every other image
    assert oracle.pool([5, 6, 7, 8], [True, True, False, True], [1, 0, 0, 0], 1) == ([5, 5, 7, 6], [8])
    for impossible in ([1, 0], [0, 1, 5], [0, 1, 0, 0]):
        with pytest.raises(ValueError, match="does not hold"):
            oracle.pool_swaps(impossible, 2)


def test_rate_is_constant_and_then_falls_to_nothing():
    assert [oracle.decayed(epoch) for epoch in (1, 100, 150, 200, 250)] == pytest.approx([2e-4, 2e-4, 1e-4, 0, 0])
    assert [oracle.decayed_step(step, 176) for step in (0, 17_600, 26_400, 35_200)] == pytest.approx([2e-4, 2e-4, 1e-4, 0])
    assert 0 < oracle.decayed_step(35_199, 176) < 1e-7
    assert oracle.decayed(60, constant=20, decay=80) == pytest.approx(1e-4)


def test_edge_preservation_index():
    y = rng().uniform(size=(20, 24))
    blurred = ndimage.gaussian_filter(y, 1)
    assert (oracle.epi(y, y), oracle.epi(y, 3 - 2 * y)) == pytest.approx((1, -1))
    a, b = (signal.convolve2d(image, [[0, 1, 0], [1, -4, 1], [0, 1, 0]], "same", "symm") for image in (y, blurred))
    assert oracle.epi(y, blurred) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert 0 < oracle.epi(y, ndimage.gaussian_filter(y, 2)) < oracle.epi(y, blurred) < 1


def test_affine_fit_is_least_squares():
    y, g = rng().normal(size=(2, 9, 8))
    design = np.stack([g.ravel(), np.ones(72)], 1)
    np.testing.assert_allclose(oracle.affine_fit(y, g).ravel(), design @ np.linalg.lstsq(design, y.ravel(), rcond=None)[0])
    np.testing.assert_allclose(oracle.affine_fit(3 - 0.5 * g, g), 3 - 0.5 * g)
