"""DLSS-STEM's sampling: the published grid, infilling against a search for the nearest probed pixel, input scaling, and p(c) against the data behind it."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from paper_dlss import sampling
from paper_dlss.config import Config
from paper_dlss.sampling import count, coverage_p, infill, mask, nearest, scan, sparse_input, start, target_scale

TABLE = {  # of 512 pixels; step: samples, first, last, 1 / true coverage, width of the first block, offsets in an inner block, width of the last block, p(c)
    3: (171, 1, 511, 8.965, 3, (-1, 1), 2, 1.0589),
    4: (128, 0, 508, 16.0, 3, (-1, 2), 5, 0.6547),
    5: (103, 1, 511, 24.710, 4, (-2, 2), 3, 0.7790),
    6: (86, 1, 511, 35.444, 5, (-2, 3), 3, 0.9292),
    7: (74, 0, 511, 47.871, 4, (-3, 3), 4, 1.0478),
    8: (64, 0, 504, 64.0, 5, (-3, 4), 11, 1.1361),
    9: (57, 4, 508, 80.685, 9, (-4, 4), 8, 1.2018),
    10: (52, 1, 511, 96.947, 7, (-4, 5), 5, 1.2513),
    11: (47, 3, 509, 118.67, 9, (-5, 5), 8, 1.2894),
    12: (43, 4, 508, 141.78, 11, (-5, 6), 9, 1.3191),
}


def crops(batch=2, side=64, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (batch, side, side, 1)).astype(np.float32)


def searched(image, step):
    """Infilling by looking at all probed pixels of each pixel; the first of equally near ones is the lower in rows and columns."""
    places = np.array([(y, x) for y in range(start(len(image), step), len(image), step) for x in range(start(len(image), step), len(image), step)])
    pixels = np.indices(image.shape).reshape(2, -1).T
    distances = ((pixels[:, None] - places[None]) ** 2).sum(-1)
    return image[tuple(places[distances.argmin(1)].T)].reshape(image.shape)


# --- The grid ---


@pytest.mark.parametrize("step", TABLE)
def test_published_grid(step):
    samples, first, last, inverse_coverage, first_block, inner, last_block, _ = TABLE[step]
    probed = np.flatnonzero(np.asarray(mask(512, step)).any(0))
    assert (count(512, step), start(512, step)) == (samples, first)
    np.testing.assert_array_equal(probed, np.arange(first, 512, step))
    assert (len(probed), probed[-1]) == (samples, last)
    assert np.asarray(mask(512, step)).sum() == samples**2
    np.testing.assert_allclose(512**2 / samples**2, inverse_coverage, rtol=5e-5)
    owner = np.asarray(nearest(512, step))
    blocks = {place: np.flatnonzero(owner == place) for place in probed}
    assert sum(map(len, blocks.values())) == 512
    assert (len(blocks[first]), len(blocks[last])) == (first_block, last_block)
    for place in probed[1:-1]:
        np.testing.assert_array_equal(blocks[place], np.arange(place + inner[0], place + inner[1] + 1))


@pytest.mark.parametrize("step", range(2, 17))
def test_the_step_may_be_a_tensor(step):
    """In a graph that is traced once for all steps, compiled or not."""
    for compiled in (False, True):
        traced = grid(compiled)(tf.constant(step))
        for found, expected in zip(traced, (start(96, step), count(96, step), nearest(96, step), mask(96, step)), strict=True):
            np.testing.assert_array_equal(found, expected)


GRAPHS = {}


def grid(compiled):
    if compiled not in GRAPHS:
        GRAPHS[compiled] = tf.function(lambda step: (start(96, step), count(96, step), nearest(96, step), mask(96, step)), jit_compile=compiled)
    return GRAPHS[compiled]


# --- Infilling ---


@pytest.mark.parametrize(("side", "step"), [(32, s) for s in range(2, 17)] + [(64, 4), (64, 5), (64, 9), (31, 6)])
def test_infilling_is_the_nearest_probed_pixel(side, step):
    images = crops(side=side)
    expected = np.stack([searched(image[..., 0], step) for image in images])[..., None]
    np.testing.assert_array_equal(infill(images, step), expected)
    np.testing.assert_array_equal(infill(images, tf.constant(step)), expected)


@pytest.mark.parametrize("step", TABLE)
def test_infilling_is_replication(step):
    """As the live demonstration does it: every sample step x step times, cut from step minus the first block, the last samples extended to the border."""
    image, (samples, *_, first_block, _, _, _) = crops(1, 512)[0, ..., 0], TABLE[step]
    few = scan(image, step)
    assert few.shape == (samples, samples)
    replicated = np.kron(few, np.ones((step, step), np.float32))[step - first_block :, step - first_block :][:512, :512]
    missing = 512 - len(replicated)
    assert missing == {4: 1, 8: 3}.get(step, missing)
    np.testing.assert_array_equal(infill(image[None, ..., None], step)[0, ..., 0], np.pad(replicated, (0, missing), mode="edge"))


def test_each_image_may_have_its_own_step():
    images, steps = crops(4), [4, 10, 7, 4]
    together = infill(images, tf.constant(steps))
    for k, step in enumerate(steps):
        np.testing.assert_array_equal(together[k], infill(images[k : k + 1], step)[0])
    np.testing.assert_array_equal(sparse_input(images, tf.constant(steps))[1], sparse_input(images[1:2], 10)[0])


def test_scan_takes_the_probed_pixels():
    image = np.random.default_rng(1).normal(size=(64, 83))
    for step in range(2, 17):
        rows, columns = (np.arange((n % step) // 2, n, step) for n in image.shape)
        np.testing.assert_array_equal(scan(image, step), image[rows[:, None], columns])
    square = image[:, :64]
    np.testing.assert_array_equal(scan(square, 5).ravel(), square[np.asarray(mask(64, 5)) == 1])


# --- The network's input ---


@pytest.mark.parametrize("step", [4, 7, 10])
def test_input_is_stretched_by_its_own_samples(step):
    images = 0.3 * crops(3) + np.array([-0.5, 0.0, 0.6], np.float32)[:, None, None, None]
    found = np.asarray(sparse_input(images, step))
    for image, restored in zip(images[..., 0], found[..., 0], strict=True):
        values = scan(image, step).astype(np.float64)
        expected = (searched(image, step) - values.min()) / np.ptp(values)
        np.testing.assert_allclose(restored, expected, atol=1e-6)
        assert (restored.min(), restored.max()) == (0, 1)
    assert found.dtype == np.float32
    for image, stretched in zip(images[..., 0], np.asarray(sparse_input(images, step, zeros_in_range=True))[..., 0], strict=True):
        sparse = image * np.asarray(mask(64, step))  # what C68 takes the range of
        np.testing.assert_allclose(stretched, (searched(image, step) - sparse.min()) / np.ptp(sparse), atol=1e-6)


def test_targets_may_have_the_range_of_the_input():
    images = np.concatenate([0.4 * crops(2) + 0.1, np.full((1, 64, 64, 1), 0.3, np.float32)])
    assert target_scale(images, 5, Config.tiny()) == (0.0, 1.0)
    low, scale = target_scale(images, 5, replace(Config.tiny(), target_range="samples"))
    targets = np.asarray((infill(images, 5) - low) / scale)
    np.testing.assert_allclose((targets[:2] + 1) / 2, np.asarray(sparse_input(images, 5))[:2], atol=1e-6)
    np.testing.assert_allclose(targets[2], 0, atol=1e-6)  # and 0.5 in the input


def test_samples_that_are_all_alike_give_mid_grey():
    images = crops(2)
    images[:, 2::5, 2::5] = np.array([-1.0, 0.7], np.float32)[:, None, None, None]  # to a scan of step 5 only, which starts at 64 % 5 // 2 = 2
    np.testing.assert_array_equal(sparse_input(images, 5), 0.5)
    assert np.ptp(sparse_input(images, 4)) == 1
    nothing = np.zeros((1, 64, 64, 1), np.float32)
    for zeros_in_range in (False, True):
        np.testing.assert_array_equal(sparse_input(nothing, 5, zeros_in_range), 0.5)
    np.testing.assert_array_equal(sparse_input(images, 5, zeros_in_range=True)[:, 0, 0, 0], [0, 1])


# --- p(c) ---


def test_p_is_the_published_table():
    for step, row in TABLE.items():
        np.testing.assert_allclose(coverage_p(step), row[-1], atol=6e-5)
    np.testing.assert_allclose(np.mean([coverage_p(step) for step in range(4, 11)]), 1, rtol=1e-6)
    np.testing.assert_allclose(sampling.MEAN_SQUARED_ERROR, 0.00148725, rtol=1e-5)
    np.testing.assert_allclose(coverage_p(tf.constant([4, 10])), [TABLE[4][-1], TABLE[10][-1]], atol=6e-5)


def test_p_is_fitted_to_the_errors_of_networks_for_one_step_each():
    """The five root mean squared errors behind the paper's quadratic, [0, 1] units."""
    steps, errors = np.array([4, 5, 6, 8, 10]), np.array([0.031309, 0.033423, 0.038102, 0.040421, 0.043395]) ** 2
    fit = np.polyval(np.polyfit(steps**-2.0, errors, 2), np.arange(4, 11) ** -2.0)
    np.testing.assert_allclose(coverage_p(np.arange(4, 11)), fit / fit.mean(), rtol=1e-3)
