"""What restoring asks of DLSS-STEM at one scan step: where scan points lie, in which units, what a scan may have recorded, and samples for the demo."""

import math

import cv2
import keras
import numpy as np
import pytest

from common.restoring import restore_array
from paper_dlss import PAPER, Config
from paper_dlss.baselines import blurred as target_blur

TINY = Config.tiny()


def picture(shape, seed=0, sigma=1.5):
    """(height, width) float32 in [0, 1], smooth on the scale of a pixel."""
    image = cv2.GaussianBlur(np.random.default_rng(seed).uniform(size=shape).astype(np.float32), (0, 0), sigma)
    return (image - image.min()) / np.ptp(image)


@pytest.mark.parametrize("step", range(2, 17))
def test_the_contract_of_one_step(step):
    paper = PAPER.at_step(step)
    assert paper.scale == step and (paper.multiple * step) % 32 == 0
    assert all(n * step % 32 for n in range(1, paper.multiple))
    assert paper.symmetries == (("flip_rows",) if step % 2 else ())  # mirrored, scan points of even steps would lie on other pixels
    assert (PAPER.scale, PAPER.multiple) == (None, 32)


def test_a_scan_enters_the_network_by_repetition():
    raw = np.random.default_rng(0).normal(1e4, 3e3, (2, 5, 7, 1)).astype(np.float32)
    for step in (4, 5):
        paper = PAPER.at_step(step)
        state = np.asarray(paper.statistics(raw, "float32"))
        np.testing.assert_allclose(state[:, 0, 0], [[image.min(), image.max()] for image in raw])
        found = np.asarray(paper.prepare(raw, state))
        for image, seen in zip(raw[..., 0], found[..., 0], strict=True):
            np.testing.assert_allclose(seen, np.kron((image - image.min()) / np.ptp(image), np.ones((step, step))), atol=1e-6)
        back = np.asarray(paper.finish(2 * found - 1, state))
        np.testing.assert_allclose(back[:, (step - 1) // 2 :: step, (step - 1) // 2 :: step], raw, rtol=1e-6)


def test_a_hot_sample_does_not_set_the_scale():
    """Samples beyond the quantiles by more than these are apart do not count; all others do, and a few bright ones on a flat ground are no outliers."""
    paper, rng = PAPER.at_step(5), np.random.default_rng(1)
    quiet = rng.normal(100, 10, (1, 120, 90, 1)).astype(np.float32)
    hot = quiet.copy()
    hot[0, 40, 40], hot[0, 80, 7] = 4000, -900
    state, marred = (np.ravel(paper.statistics(raw)) for raw in (quiet, hot))
    np.testing.assert_allclose(state, [quiet.min(), quiet.max()], rtol=1e-6)
    dark, bright = np.quantile(quiet, (0.001, 0.999))
    np.testing.assert_allclose(marred, [2 * dark - bright, 2 * bright - dark], atol=6)
    assert np.std(np.asarray(paper.prepare(hot, marred.reshape(1, 1, 1, 2)))[0, :100]) > 0.3 * np.std(
        np.asarray(paper.prepare(quiet, state.reshape(1, 1, 1, 2)))
    )
    few = np.zeros((1, 120, 90, 1), np.float32)
    few[0, 50:53, 50:52] = 7
    np.testing.assert_array_equal(np.ravel(paper.statistics(few)), [0, 7])


@pytest.mark.parametrize("value", [0.0, 1.0, 255.0, -40000.0, 65535.0, 1e-12, -3.7e7, 1e30, 1.9999999])
def test_uniform_scans(value):
    """Mid-grey to the network, and back to the value even if the network errs by a percent."""
    raw = np.full((1, 4, 4, 1), value, np.float32)
    paper = PAPER.at_step(5)
    state = paper.statistics(raw, "float32")
    np.testing.assert_array_equal(paper.prepare(raw, state), 0.5)
    for erring in (0.0, 0.02, -0.02):
        np.testing.assert_allclose(paper.finish(np.full((1, 20, 20, 1), erring, np.float32), state), value, rtol=1e-5, atol=0.0101 * (value == 0))


@pytest.mark.parametrize(("step", "shape"), [(4, (40, 90)), (5, (33, 150)), (10, (70, 31))])
def test_restoring_puts_scan_points_where_they_belong(step, shape):
    """A network that gives its input back: by tiles or whole, in the file's units, scan point k on pixel (step - 1) // 2 + step k and around it."""
    paper = PAPER.at_step(step)
    inputs = keras.Input((None, None, 1))
    network = keras.Model(inputs, keras.layers.Rescaling(2.0, -1.0)(inputs))
    scan = np.random.default_rng(0).integers(3, 60000, shape).astype(np.uint16)
    for tile in (None, 64):
        found = restore_array(scan, paper, network, TINY, dtype=scan.dtype, result_dtype=scan.dtype, tile=tile)
        np.testing.assert_array_equal(found, np.kron(scan, np.ones((step, step), np.uint16)))


def test_halo_counts_scan_points(monkeypatch):
    for radius, step, expected in ((100, 5, 20), (101, 5, 21), (99, 10, 10), (None, 4, None)):
        monkeypatch.setattr("paper_dlss.generator.receptive_radius", lambda config, radius=radius: radius)
        assert PAPER.at_step(step).halo(TINY) == expected


@pytest.mark.parametrize("step", [4, 5, 7])
def test_acquisitions_are_what_a_scan_may_have_recorded(step):
    """The restoration at the probed pixels; sharper ones restore what the blur took, and none changes what has no structure."""
    paper, first = PAPER.at_step(step), (step - 1) // 2
    sharp = picture((24 * step, 30 * step), sigma=3)
    blurred = cv2.GaussianBlur(sharp, (5, 5), 2.5)
    found = paper.acquire(blurred)
    assert found.shape == (3, 24, 30) and found.dtype == np.float32
    np.testing.assert_array_equal(found[0], blurred[first::step, first::step])
    errors = [np.abs(image - sharp[first::step, first::step]).mean() for image in found]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    np.testing.assert_allclose(found[1], (found[0] + found[2]) / 2, atol=1e-6)
    np.testing.assert_allclose(paper.acquire(np.full((8 * step, 8 * step), 40.0)), 40.0, rtol=1e-6)
    np.testing.assert_allclose(paper.acquire(1000 * blurred + 5), 1000 * found + 5, rtol=1e-4)


@pytest.mark.parametrize("step", [4, 5, 10])
def test_classical_supersampling(step):
    """In the units of the scan, on its grid, and better than repetition."""
    paper, first = PAPER.at_step(step), (step - 1) // 2
    y, x = np.mgrid[: 30 * step, : 24 * step].astype(np.float32)
    plane = 500 + 3 * y - 2 * x
    found = paper.classical(plane[first::step, first::step], None, 0.0)
    assert found.shape == plane.shape and found.dtype == np.float32
    inside = np.s_[3 * step : -3 * step, 3 * step : -3 * step]
    np.testing.assert_allclose(found[inside], plane[inside], rtol=1e-5)
    truth = picture((40 * step, 40 * step), sigma=1.2 * step)
    scan = truth[first::step, first::step]
    wanted = target_blur(truth)
    assert np.abs(paper.classical(scan, None, 0.0) - wanted).mean() < 0.5 * np.abs(np.kron(scan, np.ones((step, step))) - wanted).mean()


def test_samples_for_the_demo():
    found = {step: PAPER.at_step(step).samples(3) for step in (5, 7)}
    for step, samples in found.items():
        assert len({name for name, _, _ in samples}) == 3
        for name, scan, truth in samples:
            assert scan.data.dtype == truth.dtype == np.uint8 and scan.pixel_size > 0
            assert truth.shape == tuple(step * n for n in scan.data.shape) and name in scan.source
            probed = truth[(step - 1) // 2 :: step, (step - 1) // 2 :: step]
            assert np.corrcoef(probed.ravel(), scan.data.ravel())[0, 1] > 0.9
            classical = PAPER.at_step(step).classical(scan.data.astype(np.float32), None, 0.0)
            assert 1 < math.sqrt(np.mean((classical - truth) ** 2)) < 20
    for (_, scan, truth), (_, again, same) in zip(found[5], PAPER.samples(3), strict=True):
        np.testing.assert_array_equal(scan.data, again.data)
        np.testing.assert_array_equal(truth, same)
