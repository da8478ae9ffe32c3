"""The steps of a TEM camera, each against the moments or the closed form of its equation."""

import numpy as np
import pytest

from paper_cgrdn import camera

SHAPE = (256, 256)


def rng(seed=0):
    return np.random.default_rng(seed)


def flat(level, shape=SHAPE):
    return np.full(shape, level, np.float32)


def slow_mtf(gx, gy, a, b, c):
    """T1 as it is written, sinc(u) = sin(pi u) / (pi u)."""
    g2 = gx * gx + gy * gy

    def sinc(u):
        return 1.0 if u == 0 else np.sin(np.pi * u) / (np.pi * u)

    return (a * np.exp(-g2 / (2 * b * b)) + (1 - a) * np.exp(-g2 / (2 * c * c))) * sinc(gx / 2) * sinc(gy / 2)


@pytest.mark.parametrize(("k", "m"), [(0, 0), (32, 0), (0, 64), (20, 50), (127, 95)])
def test_mtf_equals_the_equation_and_scales_waves_by_it(k, m):
    shape, numbers = (96, 128), (0.6, 0.2, 0.9)
    expected = slow_mtf(k / 128, m / 96, *numbers)
    transfer = camera.mtf(shape, *numbers)
    assert transfer[m, k] == pytest.approx(expected, rel=1e-5)
    rows, columns = np.mgrid[:96, :128] + 0.5
    wave = np.cos(np.pi * k * columns / 128) * np.cos(np.pi * m * rows / 96)  # k / 128 of the Nyquist frequency along columns
    np.testing.assert_allclose(camera.filtered(5 + wave, transfer), 5 + expected * wave if (k, m) != (0, 0) else 6.0, atol=1e-5)


def test_light_does_not_cross_from_one_edge_to_the_other():
    image = flat(0, (64, 64))
    image[:, :4] = 1
    seen = camera.filtered(image, camera.mtf(image.shape, 0.8, 0.05, 0.5))
    assert seen[:, 8].min() > 0.05 and np.abs(seen[:, -4:]).max() < 1e-3


def test_counts_are_poisson():
    for dose in (0.5, 5.0, 300.0):
        counts = camera.counting(flat(dose), rng())
        assert counts.dtype == np.float32
        np.testing.assert_array_equal(counts, np.rint(counts))
        assert counts.mean() == pytest.approx(dose, rel=0.01)
        assert counts.var() / counts.mean() == pytest.approx(1, abs=0.03)


def test_noise_transfer_is_the_root_of_the_mtf():
    noise, numbers = rng().standard_normal(SHAPE).astype(np.float32), {"a": 0.5, "b": 0.3, "c": 1.0}
    power = camera.mtf(SHAPE, **numbers)
    seen = camera.noise_transfer(100 + noise, **numbers)
    assert seen.mean() == pytest.approx(100 + noise.mean(), abs=1e-3)
    assert seen.var() == pytest.approx(power.mean(), rel=0.03)  # white noise: the mean of the squared transfer function


def test_dark_current_adds_its_variance_and_no_mean():
    for electrons in (0.02, 1.0, 10.0):
        dark = camera.dark_current(flat(0), electrons, rng())
        assert dark.mean() == pytest.approx(0, abs=0.02 * electrons**0.5)
        assert dark.var() == pytest.approx(electrons, rel=0.06)


def test_readout_is_white_and_normal():
    noise = camera.readout(flat(7), 2.5, rng()) - 7
    assert noise.mean() == pytest.approx(0, abs=0.04)
    assert noise.std() == pytest.approx(2.5, rel=0.01)
    assert (noise[:, 1:] * noise[:, :-1]).mean() == pytest.approx(0, abs=0.1)
    assert (noise**4).mean() / noise.var() ** 2 == pytest.approx(3, abs=0.1)


def test_quadrants_have_their_own_gain_and_offset():
    gains, offsets = np.array([[1.0, 1.1], [0.9, 1.2]]), np.array([[0.0, 0.1], [0.2, 0.3]])
    seen = camera.quadrants(flat(10, (12, 20)), gains, offsets, (5, 11))
    for corner, place in (((0, 0), np.s_[:5, :11]), ((0, 1), np.s_[:5, 11:]), ((1, 0), np.s_[5:, :11]), ((1, 1), np.s_[5:, 11:])):
        np.testing.assert_allclose(seen[place], 10 * gains[corner] + offsets[corner], rtol=1e-6)


def test_gain_pattern_grows_with_the_signal():
    for level in (10.0, 1000.0):
        assert camera.gain_pattern(flat(level), 0.02, rng()).std() == pytest.approx(0.02 * level, rel=0.02)


@pytest.mark.parametrize("axis", [0, 1])
def test_bands_equal_the_sum_of_gaussians(axis):
    seen = camera.bands(flat(2, (50, 40)), np.array([10.0, 14.5]), np.array([0.3, -0.2]), np.array([2.0, 5.0]), axis)
    profile = [2 * (1 + 0.3 * np.exp(-((i - 10) ** 2) / 8) - 0.2 * np.exp(-((i - 14.5) ** 2) / 50)) for i in range((50, 40)[axis])]
    np.testing.assert_allclose(np.moveaxis(seen, axis, 0), np.repeat(np.array(profile)[:, None], (40, 50)[axis], 1), rtol=1e-5)


def test_overlapping_bands_do_not_turn_the_signal_negative():
    assert camera.bands(flat(1), np.full(6, 100.0), np.full(6, -0.35), np.full(6, 4.0), 0).min() > 0


def test_number_of_walks_is_poisson_and_they_hang_together():
    counts = [len(camera.random_walks((128, 256), 8.0, 1, rng(seed))) for seed in range(800)]  # half the area: 4 single pixels each
    assert np.mean(counts) == pytest.approx(4, abs=0.25)
    assert np.var(counts) == pytest.approx(4, rel=0.2)
    single = [seed for seed in range(200) if rng(seed).poisson(1.0) == 1]  # the number of walks is the first draw
    tracks = [camera.random_walks((4096, 4096), 1 / 256, 8, rng(seed)) for seed in single]
    assert {len(pixels) for pixels in tracks} == set(range(1, 9))
    assert all(np.abs(np.diff(pixels, axis=0)).max(initial=0) <= 1 for pixels in tracks)


def test_hits_stand_out_and_dead_pixels_are_dark():
    image = camera.counting(flat(100), rng())
    hit, pixels = camera.xray_hits(image, 20.0, 8, 3.0, rng(1))
    values = hit[tuple(pixels.T)]
    assert len(pixels) and values.min() >= 0.6 * 3 * image.max() and values.max() <= 3 * image.max()
    dead, gone = camera.dead_pixels(image, 10.0, 3, 0.05, rng(2))
    assert len(gone) and dead[tuple(gone.T)].max() <= 0.05 * image.mean()
    for changed, where in ((hit, pixels), (dead, gone)):
        untouched = np.ones(SHAPE, bool)
        untouched[tuple(where.T)] = False
        np.testing.assert_array_equal(changed[untouched], image[untouched])


def test_clipping_at_quantiles():
    image = rng().uniform(0, 1, SHAPE).astype(np.float32)
    clipped = camera.clipping(image, 0.05, 0.9)
    assert (clipped == clipped.max()).mean() == pytest.approx(0.1, abs=1e-3)
    assert (clipped == clipped.min()).mean() == pytest.approx(0.05, abs=1e-3)
    np.testing.assert_array_equal(camera.clipping(image, 0, 1), image)


def test_quantisation_is_to_whole_codes():
    image = rng().normal(50, 20, SHAPE).astype(np.float32)
    for gain in (1.0, 3.7, 500.0):
        rounded = camera.quantise(image, gain)
        codes = rounded * gain
        np.testing.assert_allclose(codes, np.rint(codes), atol=0.02)
        assert np.abs(rounded - image).max() <= 0.5 / gain + 1e-4
    counts = camera.counting(flat(5), rng())
    np.testing.assert_array_equal(camera.quantise(counts, 1.0), counts)


def test_eight_bits_have_256_levels_and_keep_the_extremes():
    image = rng().normal(50, 20, SHAPE).astype(np.float32)
    reduced = camera.eight_bit(image)
    assert len(np.unique(reduced)) <= 256
    assert (reduced.min(), reduced.max()) == pytest.approx((image.min(), image.max()))
    assert (reduced - image).std() == pytest.approx(np.ptp(image) / 255 / 12**0.5, rel=0.05)
    np.testing.assert_array_equal(camera.eight_bit(flat(3)), flat(3))
