"""The metric convention against the specification's table and an independent implementation."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.data import camera

from common.metrics import bootstrap_interval, psnr, radial_spectrum_distance, ssim, to_8bit
from tests.paper_semnet import oracle


@pytest.fixture(scope="module")
def noisy_pair():
    truth = camera()[128:384, 128:384]
    noise = np.random.default_rng(0).normal(0, 15, truth.shape)
    return truth, np.clip(np.rint(truth + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("crop", "decibels", "similarity"), [(0, 24.9174, 0.544137), (2, 24.9189, 0.545986)])
def test_table_of_the_specification(noisy_pair, crop, decibels, similarity):
    assert psnr(*noisy_pair, crop=crop) == pytest.approx(decibels, abs=5e-5)
    assert ssim(*noisy_pair, crop=crop) == pytest.approx(similarity, abs=5e-7)
    assert psnr(*noisy_pair, crop=crop) == pytest.approx(oracle.psnr_uint8(*noisy_pair, crop), abs=1e-6)
    assert ssim(*noisy_pair, crop=crop) == pytest.approx(oracle.ssim_gaussian(*noisy_pair, crop), abs=1e-6)


def test_tensorflow_agrees(noisy_pair):
    import tensorflow as tf

    a, b = (x.astype(np.float32)[None, ..., None] for x in noisy_pair)
    assert psnr(*noisy_pair, crop=0) == pytest.approx(float(tf.image.psnr(a, b, 255)[0]), abs=2e-5)
    assert ssim(*noisy_pair, crop=0) == pytest.approx(float(tf.image.ssim(a, b, 255)[0]), abs=2e-5)


def test_rounding_is_half_to_even_after_clipping():
    np.testing.assert_array_equal(to_8bit(np.array([-1, 0.5 / 255, 1.5 / 255, 2.5 / 255, 2.0])), [0, 0, 2, 2, 255])


def test_equal_images_and_wrong_sizes():
    image = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    assert psnr(image, image) == float("inf")
    assert ssim(image, image) == pytest.approx(1)
    with pytest.raises(ValueError, match="different sizes"):
        psnr(image, image[1:])


def test_bootstrap_interval_has_the_width_of_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_spectrum_distance_has_its_closed_forms():
    noise = np.random.default_rng(0).standard_normal((256, 256))
    y = 0.5 + 0.1 * noise
    assert radial_spectrum_distance(y, y) == 0
    assert radial_spectrum_distance(y, 0.5 + 0.2 * noise) < 1e-3  # contrast does not count
    other = 0.5 + 0.1 * np.random.default_rng(1).standard_normal((256, 256))
    assert radial_spectrum_distance(y, other) < 0.15  # places do not count
    sigma, frequencies = 0.8, np.linspace(0.02, 0.4, 1000)  # a Gaussian blur multiplies powers by exp(-4 pi^2 sigma^2 f^2)
    blurred = 0.5 + 0.1 * gaussian_filter(noise, sigma, mode="wrap")
    expected = np.abs(4 * np.pi**2 * sigma**2 * frequencies**2 - np.log(y.var() / blurred.var())).mean()
    assert radial_spectrum_distance(y, blurred) == pytest.approx(expected, rel=0.03)
    ramp = np.linspace(0, 1, 256)  # whose jump from one border to the other is no structure
    assert radial_spectrum_distance(ramp + 0.02 * noise, ramp + 0.04 * noise) == pytest.approx(np.log(4), abs=0.04)
    assert np.isfinite(radial_spectrum_distance(y, np.full((256, 256), 0.5)))
    with pytest.raises(ValueError, match="shapes"):
        radial_spectrum_distance(y, y[1:])
    with pytest.raises(ValueError, match="not finite"):
        radial_spectrum_distance(y, np.full((256, 256), np.nan))
