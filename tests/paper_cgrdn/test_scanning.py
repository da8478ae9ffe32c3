"""The steps of a scan, each against the moments or the closed form of its equation."""

import cv2
import numpy as np
import pytest

from paper_cgrdn import scanning

SHAPE = (256, 256)


def rng(seed=0):
    return np.random.default_rng(seed)


def flat(level, shape=SHAPE):
    return np.full(shape, level, np.float32)


def picture(shape=SHAPE, seed=0):
    return cv2.GaussianBlur(rng(seed).uniform(0, 2, shape).astype(np.float32), (0, 0), 2.0)


# --- What is part of the target ---


def test_probe_blur_spreads_a_point_by_its_sigma():
    point = flat(0, (65, 65))
    point[32, 32] = 1
    seen = scanning.probe_blur(point, 1.5)
    offsets = np.arange(65) - 32
    assert seen.sum() == pytest.approx(1, abs=1e-5)
    assert (seen.sum(0) * offsets**2).sum() == pytest.approx(1.5**2, rel=0.02)
    np.testing.assert_array_equal(scanning.probe_blur(point, 0.0), point)


def test_edges_brighten_and_the_mean_stays():
    step = flat(1)
    step[:, 128:] = 3
    seen = scanning.edge_brightening(step, 0.5)
    assert seen.mean() == pytest.approx(step.mean(), rel=1e-5)
    assert seen[100, 128] / seen[100, 200] == pytest.approx(1.5, rel=0.02)
    assert seen[100, 200] / seen[100, 20] == pytest.approx(3, rel=1e-3)


# --- Displacement ---


def test_waves_equal_the_sum_of_sinusoids():
    rows, columns = scanning.pixel_times((6, 5), 1.5)
    t = np.array([[i * 6.5 + j for j in range(5)] for i in range(6)])
    frequencies, amplitudes, phases = np.array([0.01, 0.11]), np.array([2.0, 0.5]), np.array([0.3, 4.0])
    expected = sum(a * np.sin(2 * np.pi * f * t + p) for f, a, p in zip(frequencies, amplitudes, phases, strict=True))
    np.testing.assert_allclose(scanning.waves(rows, columns, frequencies, amplitudes, phases), expected, atol=1e-5)


@pytest.mark.parametrize("count", [0, 3, 10])
def test_jitter_is_the_standard_deviation_of_the_displacement(count):
    fields = [scanning.displacement((256, 32), 0.0, 0.8, count, 4.0, True, rng(seed)) for seed in range(60)]
    assert np.mean([np.mean((f - f.mean()) ** 2) for f in fields]) ** 0.5 == pytest.approx(0.8, rel=0.05)
    for field in fields:
        np.testing.assert_array_equal(field, np.repeat(field[:, :1], 32, 1))  # constant along rows


def test_drift_is_linear_in_time():
    field = scanning.displacement((100, 40), 3.0, 0.0, 5, 10.0, False, rng())
    times = np.arange(100)[:, None] * 50 + np.arange(40)
    np.testing.assert_allclose(field, 3.0 * times / (99 * 50 + 40), atol=1e-5)


def test_displacement_changes_within_rows_unless_told_not_to():
    field = scanning.displacement((64, 64), 0.0, 1.0, 10, 4.0, False, rng())
    assert (field - field.mean(1, keepdims=True)).std() > 0.01


def test_linear_part_is_the_least_squares_plane():
    field = rng().normal(0, 1, (30, 50)) + 0.1 * np.arange(30)[:, None] - 0.05 * np.arange(50) + 3
    i, j = np.mgrid[:30, :50]
    design = np.stack((np.ones(1500), i.ravel(), j.ravel()), 1)
    plane = (design @ np.linalg.lstsq(design, field.ravel(), rcond=None)[0]).reshape(30, 50)
    np.testing.assert_allclose(scanning.linear_part(field), plane, atol=1e-5)


def test_whole_pixel_displacements_shift_the_picture():
    image = picture()
    seen = scanning.scan_distortion(image, flat(3), flat(-2))
    inner = np.s_[5:-5, 5:-5]
    np.testing.assert_allclose(seen[inner], np.roll(image, (-3, 2), (0, 1))[inner], atol=1e-5)
    np.testing.assert_allclose(scanning.scan_distortion(image, flat(0), flat(0)), image, atol=1e-6)


def test_fractional_displacements_are_interpolated():
    rows, columns = np.mgrid[:64, :64].astype(np.float32)
    image = np.float32(2 + np.sin(0.3 * columns) * np.cos(0.2 * rows))
    seen = scanning.scan_distortion(image, flat(0.4, (64, 64)), flat(0.7, (64, 64)))
    expected = 2 + np.sin(0.3 * (columns + 0.7)) * np.cos(0.2 * (rows + 0.4))
    np.testing.assert_allclose(seen[4:-4, 4:-4], expected[4:-4, 4:-4], atol=0.02)
    assert scanning.scan_distortion(np.float32(image > 2.5), flat(0.4, (64, 64)), flat(0.7, (64, 64))).min() >= 0


def test_interlacing_moves_odd_rows_only():
    image = picture()
    seen = scanning.scan_distortion(image, flat(0), scanning.interlacing(256, 2.0))
    np.testing.assert_allclose(seen[::2], image[::2], atol=1e-6)
    np.testing.assert_allclose(seen[1::2, :-2], image[1::2, 2:], atol=1e-5)


# --- Detection ---


def test_response_to_an_impulse_is_the_kernel_over_the_end_of_the_row():
    r, w, q = scanning.decay(2.0), 0.3, scanning.decay(20.0)
    image = flat(0, (4, 50))
    image[1, 45] = 1
    seen = scanning.fast_scan_response(image, r, w, q).ravel()
    m = np.arange(200 - 95)
    np.testing.assert_allclose(seen[95:], (1 - w) * (1 - r) * r**m + w * (1 - q) * q**m, atol=1e-6)
    assert not seen[:95].any()  # causal


def test_response_keeps_a_constant_and_the_mean():
    np.testing.assert_allclose(scanning.fast_scan_response(flat(40), scanning.decay(8), 0.3, scanning.decay(240)), 40, rtol=1e-3)
    image = rng().poisson(50, SHAPE).astype(np.float32)
    assert scanning.fast_scan_response(image, scanning.decay(8), 0.3, scanning.decay(240)).mean() == pytest.approx(50, rel=0.005)


def test_response_leaves_noise_correlated_along_rows_only():
    r = scanning.decay(1.0)
    seen = scanning.fast_scan_response(rng().normal(0, 1, SHAPE).astype(np.float32), r)
    seen -= seen.mean()
    assert seen.var() == pytest.approx((1 - r) / (1 + r), rel=0.03)
    assert (seen[:, 1:] * seen[:, :-1]).mean() / seen.var() == pytest.approx(r, abs=0.02)
    assert (seen[1:] * seen[:-1]).mean() / seen.var() == pytest.approx(0, abs=0.02)


def test_pmt_noise_has_a_variance_proportional_to_the_counts():
    for level in (4.0, 100.0):
        noise = scanning.pmt_noise(flat(level), 0.8, rng()) - level
        assert noise.var() == pytest.approx(0.64 * level, rel=0.03)
        assert noise.mean() == pytest.approx(0, abs=0.03 * level**0.5)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_row_offsets_are_autoregressive(rho):
    offsets = scanning.row_offsets(20_000, 3.0, rho, rng())[:, 0]
    assert offsets.dtype == np.float32
    assert offsets.mean() == pytest.approx(0, abs=1e-4)
    assert offsets.std() == pytest.approx(3, rel=0.05)
    for lag in (1, 3):
        assert np.mean(offsets[lag:] * offsets[:-lag]) / offsets.var() == pytest.approx(rho**lag, abs=0.03)


def test_row_offsets_have_their_deviation_from_the_first_row_on():
    first = [scanning.row_offsets(1000, 1.0, 0.9, rng(seed))[0, 0] for seed in range(400)]
    assert np.std(first) == pytest.approx(1, rel=0.12)


def test_dropouts_darken_their_segments():
    seen = scanning.line_dropouts(flat(10, (20, 50)), np.array([3, 7]), np.array([5, 30]), np.array([12, 20]), np.array([0.0, 0.3]))
    expected = flat(10, (20, 50))
    expected[3, 5:17], expected[7, 30:50] = 0, 3
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_hum_has_the_frequency_of_the_mains():
    dwell, flyback = 10e-6, 64.0
    seen = scanning.hum(flat(1, (500, 256)), 0.1, dwell, flyback, 0.5) - 1
    row_time = (256 + flyback) * dwell
    spectrum = np.abs(np.fft.rfft(seen[:, 0]))
    assert np.fft.rfftfreq(500, row_time)[spectrum.argmax()] == pytest.approx(50, abs=0.4)
    assert seen[7, 99] == pytest.approx(0.1 * np.sin(2 * np.pi * 50 * (7 * row_time + 99 * dwell) + 0.5), abs=1e-4)


def test_charging_leaves_streaks_to_the_right_and_keeps_the_mean():
    image = flat(10)
    image[100, 60:80] = 100
    for amplitude in (-0.3, 0.3):
        seen = scanning.charging(image, amplitude, 50.0)
        assert np.sign(seen[100, 85] - 10) == np.sign(amplitude)
        assert seen[100, 59] == pytest.approx(10, rel=1e-3)
        assert seen.mean() == pytest.approx(image.mean(), rel=1e-3)


def test_intensity_drifts_from_the_first_row_to_the_last():
    seen = scanning.intensity_drift(flat(10), 0.2)
    assert (seen[0, 0], seen[-1, 0], seen.mean()) == pytest.approx((9, 11, 10), rel=1e-5)
    assert np.ptp(seen, axis=1).max() == 0
