"""Spectra and ring correlation against closed forms."""

import numpy as np
import pytest
from scipy.special import j0

from paper_sem_gan.spectra import filtered, magnitude_spectrum, radial_average, resolution, ring_correlation, spectral_distance, wiener_gains

PIXEL = 7.1
SHAPE = (200, 256)


def white(seed, shape=SHAPE, sigma=1.0):
    return sigma * np.random.default_rng(seed).normal(size=shape)


def shaped(image, response):
    f = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1])[None]) / PIXEL
    return np.fft.ifft2(np.fft.fft2(image) * response(f)).real


def test_white_noise_is_flat_at_the_level_of_rayleigh():
    magnitude = np.mean([radial_average(white(k, sigma=3.0), PIXEL)[1] for k in range(6)], axis=0)
    hann = np.outer(*(np.sin(np.pi * np.arange(1, n + 1) / (n + 1)) ** 2 for n in SHAPE))
    expected = 3.0 * np.sqrt((hann**2).sum()) * np.sqrt(np.pi) / 2
    np.testing.assert_allclose(magnitude[10:], expected, rtol=0.2)
    assert magnitude[10:].mean() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("rows", "columns"), [(0, 32), (30, 0), (20, 24), (-20, 24)])
def test_sinusoid_lies_in_its_bin(rows, columns):
    y, x = np.indices(SHAPE)
    image = 5 + np.cos(2 * np.pi * (rows * y / SHAPE[0] + columns * x / SHAPE[1]))
    frequency, magnitude = radial_average(image, PIXEL)
    expected = np.hypot(rows / SHAPE[0], columns / SHAPE[1]) / PIXEL
    step = 1 / max(SHAPE) / PIXEL
    assert abs(frequency[np.argmax(magnitude)] - expected) <= step
    peak = magnitude_spectrum(image)[SHAPE[0] // 2 + rows, SHAPE[1] // 2 + columns]
    assert peak == pytest.approx(0.5 * (SHAPE[0] + 1) * (SHAPE[1] + 1) / 4, rel=0.01)  # half the amplitude times the sum of the Hann windows


def test_axis_ends_at_the_nyquist_frequency():
    for shape in (SHAPE, (128, 96), (101, 77)):
        frequency, _ = radial_average(white(0, shape), PIXEL)
        step = 1 / max(shape) / PIXEL
        assert len(frequency) == max(shape) // 2
        np.testing.assert_allclose(frequency, step * np.arange(1, max(shape) // 2 + 1), atol=0.5 * step)
    assert radial_average(white(0, (1024, 1024)), PIXEL)[0][-1] == pytest.approx(0.0704, abs=1e-4)


def test_mean_does_not_matter():
    np.testing.assert_allclose(radial_average(white(0) + 1000, PIXEL)[1], radial_average(white(0), PIXEL)[1], rtol=1e-9)


def test_distance_of_scaled_and_blurred_images():
    image = white(3)
    assert spectral_distance(2 * image, image, PIXEL, 0.0352, 0.0704) == pytest.approx(np.log10(2))
    assert spectral_distance(image, image, PIXEL, 0.0, 0.0352) == 0
    sigma = 4.0  # nm
    blurred = shaped(white(4, (512, 512)), lambda f: np.exp(-2 * (np.pi * sigma * f) ** 2))
    band = np.linspace(0.0352, 0.0704, 500)
    expected = np.mean(2 * (np.pi * sigma * band) ** 2) * np.log10(np.e)
    assert spectral_distance(blurred, white(4, (512, 512)), PIXEL, 0.0352, 0.0704) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_ring_correlation_of_signal_and_noises(ratio):
    signal = white(0, sigma=np.sqrt(ratio))
    _, correlation = ring_correlation(signal + white(1), signal + white(2), PIXEL)
    assert correlation[20:].mean() == pytest.approx(ratio / (1 + ratio), abs=0.02)


def test_ring_correlation_of_extremes():
    image = white(0)
    np.testing.assert_allclose(ring_correlation(image, 3 * image + 2, PIXEL)[1], 1)
    np.testing.assert_allclose(ring_correlation(image, -image, PIXEL)[1], -1)
    assert abs(ring_correlation(image, white(1), PIXEL)[1][20:].mean()) < 0.02
    assert not ring_correlation(image, np.ones(SHAPE), PIXEL)[1].any()


def test_ring_correlation_of_a_shift_is_a_bessel_function():
    wide = white(5, (512, 515))
    shift = 3
    frequency, correlation = ring_correlation(wide[:, :512], wide[:, shift:], PIXEL)
    np.testing.assert_allclose(correlation[10:], j0(2 * np.pi * frequency[10:] * PIXEL * shift), atol=0.16)
    assert np.abs(correlation[10:] - j0(2 * np.pi * frequency[10:] * PIXEL * shift)).mean() < 0.04


def test_resolution_where_the_signal_is_a_sixth_of_the_noise():
    decay = 0.025  # cycles per nm; power signal-to-noise 100 exp(-(f / decay)^2), correlation 1/7 where it is 1/6
    signal = shaped(white(0, (512, 512)), lambda f: 10 * np.exp(-0.5 * (f / decay) ** 2))
    frequency, correlation = ring_correlation(signal + white(1, (512, 512)), signal + white(2, (512, 512)), PIXEL)
    assert resolution(frequency, correlation) == pytest.approx(decay * np.sqrt(np.log(600)), rel=0.05)


def test_resolution_interpolates():
    frequency = np.array([0.01, 0.02, 0.03, 0.04])
    assert resolution(frequency, np.array([1.0, 0.6, 0.2, 0.0]), 0.5) == pytest.approx(0.0225)
    assert resolution(frequency, np.array([1.0, 0.9, 0.8, 0.7]), 0.5) == 0.04
    assert resolution(frequency, np.array([0.1, 0.9, 0.8, 0.7]), 0.5) == 0.01


def test_refusals():
    with pytest.raises(ValueError, match="crop them"):
        ring_correlation(white(0), white(0)[1:], PIXEL)
    with pytest.raises(ValueError, match="it reaches"):
        spectral_distance(white(0), white(0), PIXEL, 0.1, 0.2)
    with pytest.raises(ValueError, match="constant"):
        spectral_distance(np.ones(SHAPE), white(0), PIXEL, 0.01, 0.05)


def test_the_linear_filter_is_wieners():
    """White signal seen through a Gaussian with white noise: gain H / (H^2 + N)."""

    def seen(f):
        return np.exp(-((f * PIXEL / 0.2) ** 2))

    pairs = [(shaped(white(k), seen) + white(100 + k, sigma=0.5), white(k)) for k in range(12)]
    frequency, gains = wiener_gains(pairs)
    h = seen(frequency / PIXEL)
    bands = [np.s_[k : k + 20] for k in range(8, 128, 20)]  # one ring's gain has a standard deviation of 0.03
    np.testing.assert_allclose([gains[band].mean() for band in bands], [(h / (h**2 + 0.25))[band].mean() for band in bands], atol=0.03)
    better = filtered(pairs[0][0], frequency, gains)
    everywhere = seen(np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in SHAPE))) / PIXEL)
    assert np.mean((better - pairs[0][1]) ** 2) == pytest.approx(np.mean(0.25 / (everywhere**2 + 0.25)), rel=0.04)


def test_pairs_of_unequal_size_give_one_filter():
    frequency, gains = wiener_gains([(white(0), 2 * white(0)), (white(1, (220, 230)), 2 * white(1, (220, 230)))])
    assert frequency[-1] == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(gains, 2)


def test_a_filter_multiplies_each_frequency_and_keeps_the_mean():
    y, x = np.indices(SHAPE)
    wave = np.cos(2 * np.pi * 0.125 * (x + 0.5))  # mirrors at whole periods, so the border changes nothing
    frequency = np.linspace(0.005, 0.5, 100)
    np.testing.assert_allclose(filtered(3 + wave, frequency, 4 * frequency), 3 + 0.5 * wave, atol=1e-5)
