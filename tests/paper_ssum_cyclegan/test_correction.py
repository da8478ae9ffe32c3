"""Corrections of optical images against closed forms and simulated shading and noise."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, median_filter

from paper_ssum_cyclegan.correction import Correction, clahe, denoise, flat_field, normalise, unsharp


def rng(seed=0):
    return np.random.default_rng(seed)


def test_flat_field_takes_shading_away_and_keeps_the_mean():
    truth = 1 + 0.1 * np.sign(np.sin(np.arange(400) / 3))[None] * np.ones((400, 1))
    y, x = np.mgrid[:400, :400] / 399 - 0.5
    shaded = np.float32(truth * (1 - 0.5 * (x**2 + y**2)))
    flat = flat_field(shaded)
    assert flat.dtype == np.float32 and flat.mean() == pytest.approx(shaded.mean(), rel=1e-5)

    def unevenness(image):
        return np.std((image / truth)[60:-60, 60:-60]) / np.mean(image / truth)

    assert unevenness(flat) < 0.2 * unevenness(shaded)
    np.testing.assert_allclose(flat_field(np.full((64, 64), 7.0)), 7, rtol=1e-5)
    with pytest.raises(ValueError, match="not positive"):
        flat_field(shaded - 2)


def test_median_is_the_median_and_non_local_means_keep_edges():
    image = rng().normal(size=(40, 50)).astype(np.float32)
    np.testing.assert_array_equal(denoise(image, "median")[1:-1, 1:-1], median_filter(image, 3)[1:-1, 1:-1])
    step = np.float32(np.arange(96) >= 48) * np.ones((96, 1), np.float32)
    noisy = step + 0.1 * rng().standard_normal(step.shape).astype(np.float32)
    clean = denoise(noisy, "nlm")
    assert ((clean - step) ** 2).mean() < 0.2 * ((noisy - step) ** 2).mean()
    assert (clean[:, 50:].mean() - clean[:, :46].mean()) == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(denoise(step, "nlm"), step)
    with pytest.raises(ValueError, match="'wiener'"):
        denoise(image, "wiener")


def test_clahe_bounds_the_gain_and_has_more_than_8_bits():
    y, x = np.mgrid[:256, :256] / 256
    faint = np.where(x < 0.5, 0.3 + 0.05 * y + 0.01 * np.sin(x * 300), y)  # left: little contrast; right: all of it
    seen = clahe(np.float32(faint))
    gain = seen[64:192, 20:100].std() / faint[64:192, 20:100].std()
    assert 1.3 < gain < 4
    assert clahe(np.float32(faint), clip=6.0)[64:192, 20:100].std() > 1.3 * seen[64:192, 20:100].std()
    assert seen.min() >= 0 and seen.max() <= 1 and seen.dtype == np.float32
    ramp = np.float32(np.linspace(0, 1, 512))[None] * np.ones((512, 1), np.float32)
    assert (np.diff(clahe(ramp)[256]) > 0.2 / 512).mean() > 0.9  # of 256 levels every second step would be none
    np.testing.assert_allclose(clahe(500 + 900 * ramp), clahe(ramp), atol=2e-3)  # units do not matter
    with pytest.raises(ValueError, match="blank"):
        clahe(np.ones((64, 64)))


def test_unsharp_equals_the_equation():
    image = rng(1).uniform(size=(64, 64)).astype(np.float32)
    blurred = gaussian_filter(image.astype(np.float64), 2.0, mode="reflect", truncate=4)
    np.testing.assert_allclose(unsharp(image), image + 0.5 * (image - blurred), atol=2e-3)
    np.testing.assert_array_equal(unsharp(image, amount=0), image)


def test_normalise_maps_percentiles_and_clips():
    image = rng(2).permutation(10001).reshape(73, 137).astype(np.float32)
    seen = normalise(image)
    np.testing.assert_allclose(seen, np.clip((image - 50) / 9900, 0, 1), atol=1e-5)
    np.testing.assert_allclose(normalise(-3 * image + 8), 1 - seen, atol=1e-5)
    where = image < 5000
    assert normalise(image, where=where)[~where].min() == 1
    for blank in (np.full((8, 8), 3.0), np.full((8, 8), np.nan)):
        with pytest.raises(ValueError, match="blank"):
            normalise(blank)


def test_correction_does_what_is_asked_and_no_more():
    y, x = np.mgrid[:128, :128] / 128
    image = np.float32((1 + np.sin(40 * x)) * (1.5 - y) + 0.05 * rng().standard_normal((128, 128)))
    np.testing.assert_array_equal(Correction()(image), normalise(image))
    np.testing.assert_array_equal(Correction(flat=True, denoise="median")(image), normalise(cv2.medianBlur(flat_field(image), 3)))
    np.testing.assert_array_equal(Correction(contrast=True, sharpen=True)(image), normalise(unsharp(clahe(image))))
    np.testing.assert_array_equal(Correction(contrast=True).of_frame(image), image)  # or every frame would have its own
