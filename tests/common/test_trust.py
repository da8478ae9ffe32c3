"""The trust map: it follows the true error on simulated truth, lights up where a network paints, and is quiet where there is nothing to doubt."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from common import Micrograph, paper, restore
from common.classical import estimate_noise, gaussian
from common.data import SimulatedImages, intensity_range
from common.metrics import rank_correlation
from common.restoring import load_network, restore_array
from common.trust import group, probe
from paper_semnet import Degradation
from paper_semnet import data as semnet_data


@keras.saving.register_keras_serializable("tests")
class PaintedParticle(keras.layers.Layer):
    """Adds a bright disc of 9 px radius in the middle of the image, whatever the input shows; a flip does not move it."""

    def call(self, image):
        height, width = keras.ops.shape(image)[1], keras.ops.shape(image)[2]
        y, x = (keras.ops.cast(keras.ops.arange(n), "float32") - (keras.ops.cast(n, "float32") - 1) / 2 for n in (height, width))
        return image + 0.4 * keras.ops.cast(keras.ops.hypot(y[:, None], x[None]) < 9, "float32")[None, ..., None]


@pytest.fixture(scope="module")
def semnet():
    return (paper("semnet"), *load_network(paper("semnet"), "small"))


@pytest.fixture(scope="module")
def pairs():
    return semnet_data.test_pairs(SimulatedImages(7_000_000, 8, (256, 256)), Degradation(), 7_000_000)


def test_follows_the_true_error(semnet, pairs):
    """Mean rank correlation with the error over 8 x 8 pixels. The evaluation measures it on larger images and more of them."""
    found = []
    for low, high in pairs:
        restored, trust = restore_array(low * 255, *semnet, dtype="uint8", return_trust=True)
        found.append(rank_correlation(restored / 255 - high, trust))
    assert np.mean(found) > 0.4


def test_a_painted_particle_lights_up(semnet, pairs):
    _, network, config = semnet
    liar = keras.Model(network.input, PaintedParticle()(network.output))
    for low, _ in pairs[:2]:
        truthful, trust = restore_array(low * 255, semnet[0], network, config, dtype="uint8", return_trust=True)
        painted, doubt = restore_array(low * 255, semnet[0], liar, config, dtype="uint8", return_trust=True)
        radius = np.hypot(*(np.indices(doubt.shape) - 127.5))
        disc, elsewhere = radius < 7, radius > 16
        assert (painted - truthful)[disc].min() > 100
        assert np.median(doubt[disc]) > 3 * np.quantile(doubt[elsewhere], 0.99)
        assert np.median(doubt[disc]) > 10 * np.median(trust[disc])


def test_a_perfect_restorer_of_a_quiet_image_leaves_no_doubt():
    """A network that repeats pixels, on an image without noise: nothing to doubt but what blur could hide."""
    repeat = keras.Sequential([keras.Input((None, None, 1)), keras.layers.UpSampling2D(2)])
    image = np.fromfunction(lambda y, x: 100 + 50 * np.sin(y / 15) * np.cos(x / 20), (90, 110)).astype(np.float32)
    restored, trust = restore_array(image, replace(paper("semnet"), halo=lambda config: 2), repeat, None, return_trust=True)
    assert trust.shape == restored.shape
    assert trust.max() < 0.01 * np.ptp(image)


@keras.saving.register_keras_serializable("tests")
class Ramp(keras.layers.Layer):
    """Adds a slope along the rows' numbers, whose mean over an image and its mirror image is flat."""

    def call(self, image):
        height = keras.ops.shape(image)[1]
        rows = keras.ops.cast(keras.ops.arange(height), "float32") / keras.ops.cast(height, "float32") - 0.5
        return image + rows[None, :, None, None]


def test_mirror_images_that_disagree_are_doubted_in_an_ensemble_too():
    repeat = keras.Sequential([keras.Input((None, None, 1)), keras.layers.UpSampling2D(2), Ramp()])
    image = np.fromfunction(lambda y, x: 100 + 50 * np.sin(y / 15) * np.cos(x / 20), (90, 110)).astype(np.float32)
    _, trust = restore_array(image, replace(paper("semnet"), halo=lambda config: 2), repeat, None, ensemble=True, return_trust=True)
    assert np.median(trust[:10]) > 0.2 * np.ptp(image) and np.median(trust[85:95]) < 0.05 * np.ptp(image)


def test_noise_of_the_probe_is_the_images():
    rng = np.random.default_rng(0)
    clean = np.fromfunction(lambda y, x: 100 + 50 * np.sin(y / 15) * np.cos(x / 20), (200, 220))
    look = probe((clean + rng.normal(0, 7, clean.shape)).astype(np.float32), clean.repeat(2, 0).repeat(2, 1).astype(np.float32), paper("semnet"))
    assert look.noise.std() == pytest.approx(7, rel=0.02)
    # White noise under a Gaussian window w keeps sigma / (2 sqrt(pi) w); four times that is the floor, less what the best of several blurs explains away.
    assert 0.6 < look.floor / (4 * 7 / (2 * np.pi**0.5 * 1.5)) < 1.05


@pytest.mark.parametrize(("names", "size"), [((), 1), (("flip_rows",), 2), (("flip_rows", "flip_columns"), 4), (("flip_rows", "flip_columns", "transpose"), 8)])
def test_symmetries_are_the_whole_group(names, size):
    image = np.random.default_rng(0).random((4, 4))
    pictures = {forward(image).tobytes() for forward, _ in group(names)}
    assert len(pictures) == size
    for forward, backward in group(names):
        np.testing.assert_array_equal(backward(forward(image)), image)


def test_acquisitions_of_semnet():
    image = np.random.default_rng(0).random((64, 80)).astype(np.float32)
    seen = semnet_data.acquire(image)
    np.testing.assert_allclose(seen[0], image.reshape(32, 2, 40, 2).mean((1, 3)), atol=1e-6)
    assert (np.diff(seen.std((1, 2))) < 0).all()
    np.testing.assert_allclose(semnet_data.acquire(np.full((20, 20), 7.0)), 7, rtol=1e-6)


def test_tiles_do_not_show_in_the_trust_map(semnet):
    image = semnet_data.test_pairs(SimulatedImages(7_000_000, 1, (512, 512)), Degradation(), 7_000_000)[0][0] * 255
    _, whole = restore_array(image, *semnet, dtype="uint8", return_trust=True, tile=256)
    _, tiled = restore_array(image, *semnet, dtype="uint8", return_trust=True, tile=160)
    assert np.abs(tiled - whole).mean() < 0.05 * whole.mean()


def test_kinds_units_and_calibration(weights):
    image = np.random.default_rng(0).uniform(0, 60000, (40, 50)).astype(np.uint16)
    restored, trust = restore(image, "semnet", weights=weights, return_trust=True)
    assert (restored.dtype, trust.dtype, trust.shape) == (np.uint16, np.float32, (80, 100))
    np.testing.assert_array_equal(restored, restore(image, "semnet", weights=weights))
    np.testing.assert_array_equal(trust, restore(image, "semnet", weights=weights, return_trust=True)[1])
    for scaled, factor in ((image * 0.01, 0.01), (image.astype(np.float32) - 500, 1)):
        np.testing.assert_allclose(
            restore(scaled, "semnet", weights=weights, return_trust=True)[1], trust * factor, rtol=1e-2, atol=1e-2 * factor * trust.mean()
        )
    both = restore(Micrograph(image, pixel_size=2.0), "semnet", weights=weights, return_trust=True)
    assert [m.pixel_size for m in both] == [1.0, 1.0]
    assert "trust map" in both[1].metadata["shows"]


@pytest.mark.filterwarnings("ignore:.*not finite")
def test_where_no_number_was_is_doubted_most(weights):
    image = np.random.default_rng(0).normal(100, 20, (60, 70)).astype(np.float32)
    image[20:30, 40:44] = np.nan
    _, trust = restore(image, "semnet", weights=weights, return_trust=True)
    missing = np.kron(np.isnan(image), np.ones((2, 2), bool))
    np.testing.assert_allclose(trust[missing], np.nanmax(image) - np.nanmin(image), rtol=1e-6)
    assert trust[~missing].max() < trust[missing].min()


def test_strength_blends_with_the_classical_method(weights):
    image = np.random.default_rng(0).normal(1000, 30, (40, 50)).astype(np.float32)
    none, half, full = (restore(image, "semnet", weights=weights, strength=s) for s in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(half, (none + full) / 2, rtol=1e-5)
    black, white = np.asarray(intensity_range(image[None, ..., None])).ravel()
    unit = (image - black) / (white - black)
    assert estimate_noise(unit) > 0.05
    np.testing.assert_allclose((none - black) / (white - black), gaussian(unit, 2, 0.75), atol=1e-4)
    with pytest.raises(ValueError, match="strength is 1.5"):
        restore(image, "semnet", weights=weights, strength=1.5)
