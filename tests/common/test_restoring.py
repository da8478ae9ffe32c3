"""Restoring: any size, any dtype, calibration, and the weights that it trusts or refuses."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from common import Micrograph, paper, restore
from common.data import from_unit_range, intensity_range, to_unit_range
from common.restoring import find_weights, load_network, restore_array


def picture(dtype, shape=(45, 61), low=0.0, high=200.0):
    return np.random.default_rng(0).uniform(low, high, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64", ">u2"])
def test_dtype_and_size(weights, dtype):
    image = picture(dtype)
    restored = restore(image, "semnet", weights=weights)
    assert restored.dtype == image.dtype
    assert restored.shape == (90, 122)


def test_integers_are_rounded_and_clipped(weights):
    image = picture("uint8", low=0, high=256)
    restored = restore(image, "semnet", weights=weights)
    network, config = load_network(paper("semnet"), weights)
    exact = 255 * np.asarray(network(image[None, ..., None].astype(np.float32) / 255))[0, ..., 0]  # 8 bit: x / 255, as in the paper
    np.testing.assert_allclose(restored, np.clip(np.rint(exact), 0, 255), atol=1)
    assert np.mean(restored == np.clip(np.rint(exact), 0, 255)) > 0.999


def test_restoring_commutes_with_the_scale_of_intensities(weights):
    image = picture("float64")
    restored = restore(image, "semnet", weights=weights)
    np.testing.assert_allclose(restore(0.02 * image - 7, "semnet", weights=weights), 0.02 * restored - 7, atol=1e-4 * 0.02 * 200)


def test_micrograph_keeps_calibration(weights):
    micrograph = Micrograph(picture("uint16"), pixel_size=2.5, metadata={"voltage": 5.0}, source="a.tif")
    restored = restore(micrograph, "semnet", weights=weights)
    assert restored.pixel_size == pytest.approx(1.25, rel=1e-12)
    assert restored.metadata["voltage"] == 5.0 and restored.metadata["restored"]["paper"] == "semnet"
    assert restored.source == "a.tif" and restored.data.dtype == np.uint16
    assert restore(Micrograph(picture("uint8")), "semnet", weights=weights).pixel_size is None
    oblong = restore(Micrograph(picture("uint8"), metadata={"pixel_size_xy": [2.0, 4.0], "axes": [{"scale": 2.0}]}), "semnet", weights=weights)
    assert oblong.metadata["pixel_size_xy"] == [1.0, 2.0] and "axes" not in oblong.metadata


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 5), (300, 11)])
def test_odd_sizes(weights, shape):
    assert restore(picture("uint8", shape), "semnet", weights=weights).shape == (2 * shape[0], 2 * shape[1])


def test_constant_image_stays_finite(weights):
    restored = restore(np.full((20, 20), 7.0, np.float32), "semnet", weights=weights)
    assert np.isfinite(restored).all()


def test_pixels_that_are_not_finite_are_met_with_the_median(weights):
    image = picture("float32")
    image[3, 4], image[5, 6] = np.nan, np.inf
    with pytest.warns(UserWarning, match="2 pixels are not finite"):
        restored = restore(image, "semnet", weights=weights)
    filled = np.where(np.isfinite(image), image, np.median(image[np.isfinite(image)]))
    np.testing.assert_array_equal(restored, restore(filled, "semnet", weights=weights))
    with pytest.raises(ValueError, match="no finite pixel"):
        restore(np.full((5, 5), np.nan), "semnet", weights=weights)


@pytest.mark.parametrize(
    ("image", "reason"),
    [(np.zeros((4, 4, 3)), "choose a frame"), (np.zeros((0, 4)), "shape"), (np.zeros((4, 4), complex), "complex"), (np.zeros((4, 4), bool), "bool")],
)
def test_what_is_no_grey_image_is_refused(weights, image, reason):
    with pytest.raises(ValueError, match=reason):
        restore(image, "semnet", weights=weights)


def test_step_and_tile_are_checked(weights):
    with pytest.raises(ValueError, match="always enlarges by 2"):
        restore(picture("uint8"), "semnet", weights=weights, step=3)
    with pytest.raises(ValueError, match="too small"):
        restore(picture("uint8", (200, 200)), "semnet", weights=weights, tile=40)


def test_a_step_that_the_user_chooses(weights):
    """SEMNet as if its scale were a scan step that the user names."""
    semnet = paper("semnet")
    free = replace(semnet, scale=None, at_step=lambda step: replace(semnet, scale=step, at_step=None), scan_steps=lambda config: (2, 4))
    image = picture("uint16")
    expected = restore(image, "semnet", weights=weights)
    np.testing.assert_array_equal(restore(image, free, weights=weights, step=2), expected)
    stepped = Micrograph(image, pixel_size=3.0, metadata={"pixel_size_xy": [3.0, 6.0]})
    for restored in (restore(stepped, free, weights=weights, step=2), *restore(stepped, free, weights=weights, step=np.int64(2), return_trust=True)):
        assert restored.pixel_size == 1.5 and restored.metadata["pixel_size_xy"] == [1.5, 3.0]
        assert restored.metadata["restored"]["step"] == 2 and type(restored.metadata["restored"]["step"]) is int
    assert "step" not in restore(stepped, "semnet", weights=weights).metadata["restored"]
    for said, options in {"needs the scan step": {}, "not 3; add --force": {"step": 3}, "from 2 to 16": {"step": 1, "force": True}}.items():
        with pytest.raises(ValueError, match=said):
            restore(image, free, weights=weights, **options)


@pytest.mark.parametrize(("scale", "side", "halo"), [(1, 1024, 64), (2, 512, 32), (5, 205, 13), (10, 103, 7)])
def test_default_tiles_have_one_size_when_restored(monkeypatch, scale, side, halo):
    """1024 restored pixels with a halo of 64, whatever the scale: what the network works on is what memory and time depend on."""
    found = {}

    def bands(function, shape, **plan):
        found.update(plan)
        return iter(())

    monkeypatch.setattr("common.restoring.bands", bands)
    monkeypatch.setattr("common.memory.per_pixel", lambda run, multiple: 1.0)
    for multiple in (1, 8):
        fake = replace(paper("semnet"), scale=scale, multiple=multiple)
        network = keras.Sequential([keras.Input((None, None, 1)), keras.layers.UpSampling2D(scale)])
        restore_array(np.zeros((1100, 40), np.float32), fake, network, None)
        assert (found["tile"], found["overlap"]) == (-(-side // multiple) * multiple, 2 * halo)


def test_the_smallest_tile_moves_on():
    """With a multiple above the halo, a tile that only just exceeds twice the halo would have no room for a step."""
    fake = replace(paper("semnet"), scale=1, multiple=32, halo=lambda config: 3)
    network = keras.Sequential([keras.Input((None, None, 1)), keras.layers.UpSampling2D(1)])
    image = picture("float32", (70, 90))
    with pytest.raises(ValueError, match="tile 32 is too small: with a halo of 3 pixels on every side it needs 64"):
        restore_array(image, fake, network, None, tile=20, exact=True)
    np.testing.assert_allclose(restore_array(image, fake, network, None, tile=64, exact=True), image, rtol=1e-5, atol=1e-4)


def test_default_tiles_are_close_to_the_whole_and_without_seams(weights):
    semnet = paper("semnet")
    network, config = load_network(semnet, weights)
    image = picture("float32", (260, 300))
    whole = restore_array(image, semnet, network, config, tile=300)
    tiled = restore_array(image, semnet, network, config, tile=128)
    assert np.abs(tiled - whole).max() < 1e-3 * np.ptp(whole)


def test_an_ensemble_is_the_mean_over_mirror_images(weights):
    image = picture("float32", (46, 62))
    mirrored = restore(np.ascontiguousarray(image[::-1]), "semnet", weights=weights)[::-1]
    expected = (restore(image, "semnet", weights=weights) + mirrored) / 2
    found, trust = restore(image, "semnet", weights=weights, ensemble=True, return_trust=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)
    assert (np.abs(mirrored - expected) > 1e-2).any() and trust.max() > 0
    whole, tiled = (restore(image, "semnet", weights=weights, ensemble=True, exact=True, tile=tile) for tile in (64, 48))
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-3)
    assert restore(Micrograph(image), "semnet", weights=weights, ensemble=True).metadata["restored"]["ensemble"] is True


def test_sides_that_the_network_does_not_take_are_padded():
    """A network that halves and doubles needs even sides; restoring pads and crops."""

    def build(config):
        x = keras.Input((None, None, 1))
        return keras.Model(x, keras.layers.UpSampling2D(4)(keras.layers.AveragePooling2D(4)(x)))

    fake = replace(paper("semnet"), scale=1, multiple=4, halo=lambda config: 4)
    image = picture("float32", (30, 45))
    network = build(None)
    whole = restore_array(image, fake, network, None, tile=64, exact=True)
    assert whole.shape == (30, 45)
    np.testing.assert_allclose(whole[:4, :4], image[:4, :4].mean(), rtol=1e-5)
    np.testing.assert_allclose(restore_array(image, fake, network, None, tile=12, exact=True), whole, rtol=1e-5)


def test_instance_statistics_cannot_be_exact():
    fake = replace(paper("semnet"), halo=lambda config: None)
    with pytest.raises(ValueError, match="no tiling is exact"):
        restore_array(picture("float32"), fake, None, None, exact=True)


def test_intensity_range_is_robust_and_invertible():
    image = np.random.default_rng(0).normal(1000, 10, (1, 300, 333, 1)).astype(np.float32)
    low, high = np.asarray(intensity_range(image)).ravel()
    image[0, 17, 23] = 65535
    np.testing.assert_allclose(np.asarray(intensity_range(image)).ravel(), (low, high), atol=1)
    assert (low, high) == (pytest.approx(1000 - 31, abs=4), pytest.approx(1000 + 31, abs=4))
    state = intensity_range(image)
    np.testing.assert_allclose(from_unit_range(to_unit_range(image, state), state), image, rtol=1e-4)
    np.testing.assert_array_equal(np.asarray(intensity_range(np.full((1, 5, 5, 1), 3.0))).ravel(), (3, 4))
    low, high = np.asarray(intensity_range(np.full((1, 5, 5, 1), 3e7))).ravel()
    assert high > low
    rare = np.zeros((1, 600, 600, 1), np.float32)
    rare[0, 7, 7] = 200
    np.testing.assert_array_equal(np.asarray(intensity_range(rare)).ravel(), (0, 200))


# --- Weights ---


def test_weights_are_found_by_folder_and_by_file(weights):
    semnet = paper("semnet")
    assert find_weights(semnet, weights)[0] == find_weights(semnet, weights / "final.weights.h5")[0]


def test_missing_foreign_and_damaged_weights_are_refused(weights, tmp_path):
    semnet = paper("semnet")
    with pytest.raises(FileNotFoundError, match="no weights 'nowhere'"):
        find_weights(semnet, "nowhere")
    file = tmp_path / "x.weights.h5"
    file.write_bytes((weights / "final.weights.h5").read_bytes())
    with pytest.raises(FileNotFoundError, match="neither a card"):
        find_weights(semnet, file)
    description = json.loads((weights / "config.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps({**description, "paper": "dlss"}))
    with pytest.raises(ValueError, match="holds weights of 'dlss'"):
        find_weights(semnet, file)
    (tmp_path / "x.json").write_text(json.dumps({**description, "sha256": "0" * 64}))
    with pytest.raises(ValueError, match="damaged"):
        find_weights(semnet, file)
    other = {**description, "config": {**description["config"], "features": 24}}
    (tmp_path / "x.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="does not fit"):
        load_network(semnet, file)
    (tmp_path / "x.json").write_text(json.dumps({**description, "config": {"blockz": 3}}))
    with pytest.raises(ValueError, match="unknown Config keys blockz"):
        load_network(semnet, file)
