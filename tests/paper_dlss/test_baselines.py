"""Classical supersampling: the published pattern of errors, closed forms of every kernel, alignment with the probed pixels, and tuning."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.ndimage import convolve1d

from common.classical import bicubic
from paper_dlss import Config
from paper_dlss.baselines import METHODS, OPENCV, SIGMAS, aligned, aligned_whole, blurred, legacy, legacy_target, tune
from paper_dlss.data import SimulatedCrops, prepare_crop
from paper_dlss.sampling import infill, start

TAPS = np.array([0.16893, 0.21475, 0.23264, 0.21475, 0.16893])  # of the 5 x 5 Gaussian of sigma 2.5


@pytest.fixture(scope="module")
def crops():
    source = SimulatedCrops(replace(Config.paper(), crops=8), "test")
    return [(prepare_crop(source[k]) + 1) / 2 for k in range(8)]


def noise(side, seed=0):
    return np.random.default_rng(seed).uniform(size=(side, side)).astype(np.float32)


def smooth(image):
    """The blur of the targets from its published taps, the border mirrored without repeating it."""
    for axis in (0, 1):
        image = convolve1d(image.astype(float), TAPS, axis, mode="mirror")
    return image


def test_blur_of_the_targets():
    np.testing.assert_allclose(blurred(noise(37)), smooth(noise(37)), atol=3e-5)
    np.testing.assert_allclose(blurred(np.full((9, 12), 0.3)), 0.3, rtol=1e-6)


# --- As published ---


def test_published_pattern(crops):
    """Spec check: area equals nearest at 1/16 and 1/64 only, bilinear is best at every coverage, then bicubic, Lanczos and area; sparser is harder."""
    errors = {}
    for step in (4, 5, 6, 8, 10):
        for method in OPENCV:
            squares = [np.mean((legacy(crop, step, method) - legacy_target(crop, step)) ** 2) for crop in crops]
            errors[step, method] = np.sqrt(np.mean(squares))
        same = np.array_equal(legacy(crops[0], step, "area"), legacy(crops[0], step, "nearest"))
        assert same == (step in (4, 8))
        assert errors[step, "bilinear"] < errors[step, "bicubic"] < errors[step, "lanczos"] < errors[step, "nearest"]
        assert errors[step, "area"] <= errors[step, "nearest"]
    assert errors[4, "bilinear"] < errors[5, "bilinear"] < errors[6, "bilinear"] < errors[8, "bilinear"] < errors[10, "bilinear"]


@pytest.mark.parametrize("step", [4, 5, 6, 7, 8, 10])
def test_legacy_takes_the_top_left_pixel_of_each_block(step):
    crop, samples = noise(512), {4: 128, 5: 103, 6: 86, 7: 74, 8: 64, 10: 52}[step]
    size = 512 // step * step
    picked = np.arange(samples) * size // samples
    block = np.arange(size) * samples // size
    np.testing.assert_array_equal(legacy(crop, step, "nearest"), crop[np.ix_(picked[block], picked[block])])
    for method in OPENCV:
        assert legacy(crop, step, method).shape == legacy_target(crop, step).shape == (size, size)
        np.testing.assert_allclose(legacy(np.full_like(crop, 0.3), step, method), 0.3, rtol=1e-5)
    np.testing.assert_allclose(legacy_target(crop, step), smooth(crop[:size, :size]), atol=3e-5)


# --- Aligned ---


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("side", "step"), [(64, 4), (64, 5), (96, 7), (61, 10), (32, 2)])
def test_probed_pixels_stay_what_they_are(method, side, step):
    crop, first = noise(side), start(side, step)
    found = aligned(crop, step, method)
    assert found.shape == crop.shape and found.dtype == np.float32
    np.testing.assert_allclose(found[first::step, first::step], crop[first::step, first::step], atol=1e-6)
    np.testing.assert_allclose(aligned(np.full_like(crop, 0.3), step, method), 0.3, rtol=1e-6)


def test_aligned_nearest_is_the_infilling_of_the_network():
    for side, step in [(64, s) for s in range(2, 17)] + [(61, 6)]:
        crop = noise(side)
        np.testing.assert_array_equal(aligned(crop, step, "nearest"), infill(crop[None, ..., None], step)[0, ..., 0])


@pytest.mark.parametrize("step", [4, 5, 8])
def test_aligned_reproduces_polynomials(step):
    """Bilinear interpolation has no error on planes, Keys' with a = -0.5 none on quadratics, once all its samples are there."""
    y, x = np.mgrid[:96, :96] / 96
    plane, quadric = 0.2 + 0.5 * y - 0.3 * x, 0.1 + 0.7 * y**2 - 0.4 * x * y + x**2
    for image, methods in ((plane, ("bilinear", "bicubic")), (quadric, ("bicubic",))):
        for method in methods:
            inside = np.s_[2 * step : -3 * step, 2 * step : -3 * step]
            np.testing.assert_allclose(aligned(image.astype(np.float32), step, method)[inside], image[inside], atol=1e-6)
    assert np.abs(aligned(quadric.astype(np.float32), step, "bilinear") - quadric)[inside].max() > 1e-4


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("step", [4, 7])
def test_aligned_is_its_defining_sum(method, step):
    crop, side = noise(48), 48
    kernel = {
        "bilinear": lambda t: max(0.0, 1 - abs(t)),
        "bicubic": lambda t: 1.5 * abs(t) ** 3 - 2.5 * t**2 + 1 if abs(t) < 1 else -0.5 * abs(t) ** 3 + 2.5 * t**2 - 4 * abs(t) + 2 if abs(t) < 2 else 0.0,
        "lanczos": lambda t: float(np.sinc(t) * np.sinc(t / 4)) if abs(t) < 4 else 0.0,
    }[method]
    places = np.arange(side % step // 2, side, step)
    line = np.zeros((side, len(places)))
    for pixel in range(side):
        for k in range(-6, len(places) + 6):  # beyond the ends the last samples repeat
            line[pixel, min(max(k, 0), len(places) - 1)] += kernel((pixel - places[0]) / step - k)
    line /= line.sum(1, keepdims=True)
    np.testing.assert_allclose(aligned(crop, step, method), line @ crop[places][:, places] @ line.T, atol=2e-6)


@pytest.mark.parametrize("step", [3, 5, 9])
def test_whole_scans_of_odd_steps_lie_on_centred_blocks(step):
    """There scan point k is the centre of block k, which is what others mean by enlarging."""
    scanned = noise(24)[:, :17]
    assert aligned_whole(scanned, step, "bilinear").shape == (24 * step, 17 * step)
    np.testing.assert_allclose(aligned_whole(scanned, step, "bilinear"), cv2.resize(scanned, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR), atol=1e-5)
    np.testing.assert_allclose(aligned_whole(scanned, step, "bicubic"), bicubic(scanned, step), atol=1e-5)
    np.testing.assert_array_equal(aligned_whole(scanned, step, "nearest"), np.kron(scanned, np.ones((step, step), np.float32)))


def test_whole_scans_of_even_steps():
    scanned = noise(12)
    for method in METHODS:
        np.testing.assert_allclose(aligned_whole(scanned, 6, method)[2::6, 2::6], scanned, atol=1e-6)
    np.testing.assert_array_equal(aligned_whole(scanned, 6, "nearest"), np.kron(scanned, np.ones((6, 6), np.float32)))


def test_unknown_methods_are_named():
    with pytest.raises(ValueError, match="'spline'; known are nearest, bilinear, bicubic, lanczos"):
        aligned(noise(32), 4, "spline")


# --- Tuning ---


def test_tuned_sigma_is_the_best_of_the_grid(crops):
    """Against a search over scores computed one by one; and honest baselines beat the published ones."""
    step, pieces = 6, [crop[:192, :192] for crop in crops]

    def error(images):
        return np.mean([np.mean((image - smooth(piece)) ** 2) for image, piece in zip(images, pieces, strict=True)])

    for method in METHODS:
        scores = {share: error([aligned(piece, step, method, share * step) for piece in pieces]) for share in SIGMAS}
        best = min(scores, key=scores.get)
        assert tune(method, iter(pieces), step) == best * step
        assert 0 < best < SIGMAS[-1]
        assert scores[best] < 0.95 * scores[0.0]
        published = np.mean([np.mean((legacy(piece, step, method) - legacy_target(piece, step)) ** 2) for piece in pieces])
        assert scores[best] < 0.7 * published


def test_tuning_needs_no_blur_where_the_target_is_met():
    flat = [np.full((64, 64), level, np.float32) for level in (0.2, 0.8)]
    assert tune("nearest", flat, 5) == 0.0
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(64, 0)
    assert tune("nearest", [ramp], 5, candidates=(0.0, 0.3)) == 1.5
