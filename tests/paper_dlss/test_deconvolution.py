"""Deconvolution by gradient descent does what it says, and not what the paper says of it; the spikes of a transfer zero can be held down."""

import cv2
import numpy as np
import pytest

from paper_dlss.deconvolution import BETAS, DECAY, EPSILON, RATE, ZEROS, blur_matrix, deconvolved, remove_spikes


def gaussian_blur(image):
    """5 x 5, sigma 2.5, from its equation, the border mirrored about the edge pixel."""
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 2.5**2))
    kernel = np.outer(taps, taps) / np.outer(taps, taps).sum()
    padded = np.pad(image, 2, mode="reflect")
    height, width = image.shape
    return sum(kernel[i, j] * padded[i : i + height, j : j + width] for i in range(5) for j in range(5))


def specimen(shape=(64, 80), seed=0):
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.random(shape), (0, 0), 2.0) + 0.005 * rng.random(shape)
    return (image - image.min()) / np.ptp(image)


def test_the_blur():
    image = specimen((17, 23))
    np.testing.assert_allclose(blur_matrix(17) @ image @ blur_matrix(23).T, gaussian_blur(image), atol=1e-12)


def test_transfer_zeros():
    for zero in ZEROS:
        wave = np.cos(2 * np.pi * zero * np.arange(400) + 0.3)
        assert np.abs((blur_matrix(400) @ wave)[2:-2]).max() < 3e-4
    assert np.abs((blur_matrix(400) @ np.cos(2 * np.pi * 0.3 * np.arange(400)))[2:-2]).max() > 0.05


def test_residual_falls_by_orders_of_magnitude():
    image = specimen((128, 140))
    blurred = gaussian_blur(image)
    restored, residual = deconvolved(blurred)
    before = np.mean((gaussian_blur(blurred) - blurred) ** 2)
    assert residual < 5e-3 * before
    assert residual == pytest.approx(np.mean((gaussian_blur(restored) - blurred) ** 2), rel=0.02)


def test_what_a_zero_took_does_not_come_back():
    """The residual says nothing of it: most of a wave at a transfer zero is lost."""
    image = 0.5 + 0.2 * np.sin(2 * np.pi * ZEROS[0] * np.arange(96))[None] * np.ones((96, 1))
    restored, residual = deconvolved(gaussian_blur(image))
    inside = (slice(16, -16),) * 2
    assert residual < 1e-5 and np.mean((restored - image)[inside] ** 2) > 0.5 * np.mean((image[inside] - 0.5) ** 2)


def test_adam_on_pixels():
    """Three steps on a tiny image, the gradient by finite differences; Adam in the form of section 2 of its paper, which TensorFlow has."""
    image = specimen((6, 7), 1)
    x, mean, square = image.copy(), 0.0, 0.0
    for i in range(3):
        gradient = np.zeros_like(x)
        for at in np.ndindex(*x.shape):
            shift = np.zeros_like(x)
            shift[at] = 1e-4
            gradient[at] = (np.mean((gaussian_blur(x + shift) - image) ** 2) - np.mean((gaussian_blur(x - shift) - image) ** 2)) / 2e-4
        mean, square = BETAS[0] * mean + (1 - BETAS[0]) * gradient, BETAS[1] * square + (1 - BETAS[1]) * gradient**2
        x = x - RATE * DECAY**i * np.sqrt(1 - BETAS[1] ** (i + 1)) / (1 - BETAS[0] ** (i + 1)) * mean / (np.sqrt(square) + EPSILON)
    np.testing.assert_allclose(deconvolved(image, iterations=3)[0], x, atol=1e-5)


def test_images_do_not_know_of_each_other():
    first = deconvolved(specimen(), 5)[0]
    deconvolved(specimen(seed=2), 5)
    np.testing.assert_array_equal(deconvolved(specimen(), 5)[0], first)


@pytest.mark.parametrize("shape", [(256, 256), (381, 250)])
@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_grid_is_removed_and_little_else(shape, zero, axis):
    rng = np.random.default_rng(3)
    clean = specimen(shape, 4) + 0.02 * rng.standard_normal(shape)
    wave = 0.3 * np.cos(2 * np.pi * zero * np.arange(shape[axis]) + 1.0)
    grid = wave[:, None] if axis == 0 else wave[None]
    changed = remove_spikes(clean + grid) - clean
    assert np.mean(changed**2) < 0.1 * np.mean(grid**2)  # what is left are the tails of a wave that does not fit the image
    assert np.mean((remove_spikes(clean) - clean) ** 2) < 0.001 * np.var(clean)


def test_other_frequencies_stay():
    """A lattice away from the zeros is left alone to rounding."""
    rows, columns = np.mgrid[:128, :128]
    image = np.cos(2 * np.pi * (40 * rows + 40 * columns) / 128)
    np.testing.assert_allclose(remove_spikes(image), image, atol=1e-5)


def test_noise_is_hardly_touched():
    """Of white noise, 2^-9 of the coefficients near a zero lie above three medians."""
    noise = np.random.default_rng(5).standard_normal((256, 256))
    assert np.mean((remove_spikes(noise) - noise) ** 2) < 0.01


def test_small_images_pass():
    assert np.isfinite(remove_spikes(np.random.default_rng(6).random((9, 33)))).all()
