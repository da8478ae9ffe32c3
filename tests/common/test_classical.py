"""Classical restorations: interpolation against closed forms, noise estimates against planted noise."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import convolve1d

from common.classical import METHODS, anscombe, bicubic, cubic_kernel, estimate_noise, inverse_anscombe, nonlocal_means, signal_dependent_noise, tune, upscale
from common.metrics import psnr
from common.specimens import simulate


def smooth(shape=(96, 128)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (0.5 + 0.2 * np.sin(x / 9) + 0.2 * np.cos(y / 7)).astype(np.float32)


@pytest.mark.parametrize("scale", [2, 3])
def test_bicubic_reproduces_a_ramp_without_shift(scale):
    ramp = np.broadcast_to(np.arange(30.0, dtype=np.float32), (20, 30))
    expected = (np.arange(30 * scale) + 0.5) / scale - 0.5
    np.testing.assert_allclose(bicubic(ramp, scale)[10, 4 * scale : -4 * scale], expected[4 * scale : -4 * scale], atol=1e-4)


def test_bicubic_equals_the_kernel_sum():
    image = np.random.default_rng(0).uniform(size=(12, 14)).astype(np.float32)
    inside = bicubic(image, 2)[6:18, 6:22]
    for phase in (0, 1):
        weights = cubic_kernel((phase + 0.5) / 2 - 0.5 - np.arange(-2, 3))
        assert weights.sum() == pytest.approx(1)
        rows = convolve1d(image, weights[::-1], axis=0)
        both = convolve1d(rows, weights[::-1], axis=1)
        np.testing.assert_allclose(inside[phase::2, phase::2], both[3:9, 3:11], atol=1e-5)


def test_noise_estimate_finds_planted_noise():
    noisy = smooth() + np.random.default_rng(0).normal(0, 0.05, (96, 128))
    assert estimate_noise(noisy) == pytest.approx(0.05, rel=0.1)


def test_signal_dependent_noise_finds_gain_and_offset():
    rng = np.random.default_rng(0)
    clean = np.clip(cv2.resize(smooth(), (512, 512)), 0, 1)
    noisy = clean + rng.normal(size=clean.shape) * np.sqrt(0.004 * clean + 0.0002)
    gain, _ = signal_dependent_noise(noisy)
    assert gain == pytest.approx(0.004, rel=0.5)
    stable = anscombe(noisy, *signal_dependent_noise(noisy)) - anscombe(clean, *signal_dependent_noise(noisy))
    dark, bright = stable[clean < 0.3].std(), stable[clean > 0.7].std()
    assert dark == pytest.approx(bright, rel=0.25)


@pytest.mark.parametrize(("gain", "offset"), [(0.01, 1e-4), (0.0, 0.01), (0.002, 1e-8)])
def test_anscombe_inverts(gain, offset):
    image = np.linspace(0, 1, 200)
    np.testing.assert_allclose(inverse_anscombe(anscombe(image, gain, offset), gain, offset), image, atol=1e-6)


def test_denoising_helps_and_tuning_finds_the_best_candidate():
    rng = np.random.default_rng(0)
    pairs = []
    for k in range(2):
        high = simulate("grains", (1, k), (256, 256)).image
        low = high.reshape(128, 2, 128, 2).mean((1, 3))
        pairs.append((np.clip(low + rng.normal(0, 0.06, low.shape), 0, 1).astype(np.float32), high))
    for name, (method, candidates) in METHODS.items():
        k = tune(method, candidates, pairs, 2, psnr)
        scores = {c: np.mean([psnr(high, method(low, 2, c)) for low, high in pairs]) for c in candidates}
        assert scores[k] == max(scores.values())
        if name != "bicubic":
            assert scores[k] > np.mean([psnr(high, upscale(low, 2)) for low, high in pairs]) + 0.5


def test_quiet_image_survives_nonlocal_means():
    image = np.full((40, 40), 0.25, np.float32)
    np.testing.assert_allclose(nonlocal_means(image, 2, 1.0), 0.25, atol=1e-4)
