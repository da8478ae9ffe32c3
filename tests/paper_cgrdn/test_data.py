"""CGRDN's data and contract: clean patches, pairs, the way from raw to raw intensities."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import tensorflow as tf

from common import Micrograph, paper, restore, save_micrograph
from common.__main__ import main
from common.data import example_rng
from common.metrics import psnr
from common.specimens import SPECIMENS
from paper_cgrdn import Config
from paper_cgrdn.data import PICTURES, Pairs, clean_patch, describe_data, finish, moments, prepare, samples, sources, statistics, with_contrast
from paper_cgrdn.recipes import RECIPES
from tests.helpers import publish_untrained
from tests.paper_cgrdn import oracle

TINY = replace(Config.tiny(), specimens=4)


class Counted:
    """A source of flat pictures whose grey level is their number."""

    def __len__(self):
        return 5

    def __getitem__(self, k):
        return np.full((64, 64), k / 10, np.float32) + np.linspace(0, 0.1, 64, dtype=np.float32)


@pytest.fixture(scope="module")
def pairs():
    return Pairs(TINY, sources(TINY))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return publish_untrained(paper("cgrdn"), Config.tiny(), tmp_path_factory.mktemp("weights"))


# --- Clean patches ---


def test_every_modality_has_pictures_that_exist():
    assert set(PICTURES) == set(RECIPES) and {family for families in PICTURES.values() for family in families} <= set(SPECIMENS)


def test_clean_patches_are_expected_signals():
    picture = np.random.default_rng(0).uniform(size=(96, 96)).astype(np.float32)
    contrasts = []
    for k in range(60):
        patch = clean_patch(picture, 48, np.random.default_rng(k))
        assert patch.shape == (48, 48) and patch.dtype == np.float32 and patch.min() >= 0
        assert patch.mean() == pytest.approx(1, abs=1e-5)
        contrasts.append(patch.std())
    assert 0.02 < min(contrasts) < 0.06 and 0.4 < max(contrasts) < 0.75
    stars = np.where(picture > 0.97, 1, 0.02 * picture).astype(np.float32)  # dark but for a few bright places: as strong as the brightest recorded ones
    strong = [clean_patch(cv2.GaussianBlur(stars, (0, 0), 1.0), 48, np.random.default_rng(k)) for k in range(60)]
    assert 0.9 < max(patch.std() for patch in strong) < 1.6 and max(np.mean(patch == 0) for patch in strong) < 0.05
    np.testing.assert_array_equal(with_contrast(np.full((4, 4), 0.3), 0.5), np.ones((4, 4)))
    codes = 0.3 + np.random.default_rng(1).integers(0, 3, (32, 32)) / 65535
    np.testing.assert_array_equal(with_contrast(codes, 0.5), np.ones((32, 32)))  # the last bits of a flat picture are no texture
    mild = with_contrast(picture, 0.1)
    assert mild.std() == pytest.approx(0.1, rel=1e-4) and np.corrcoef(mild.ravel(), picture.ravel())[0, 1] == pytest.approx(1, abs=1e-6)


# --- Pairs ---


def test_pairs_are_pure_and_standardised_by_the_distorted_image(pairs):
    again = Pairs(TINY, sources(TINY))
    for k in (4, 0, 4):
        for one, other in zip(pairs(k), again(k), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.shape == (64, 64, 1) and one.dtype == np.float32
        raw, (distorted, target) = pairs.raw(k), pairs(k)
        expected, mean, deviation = oracle.standardise(raw.distorted[None])
        np.testing.assert_allclose(distorted[..., 0], expected[0], atol=1e-4)
        np.testing.assert_allclose(target[..., 0], (raw.target - mean[0]) / deviation[0], atol=1e-4)
    assert not np.array_equal(pairs(0)[0], pairs(1)[0])
    assert not np.array_equal(pairs(0)[0], Pairs(TINY, pairs.sources, "validation")(0)[0])


@pytest.mark.parametrize("modality", ["hrstem", "lrsem"])
def test_nothing_turns_a_pair_after_it_was_scanned(modality):
    """Segments without signal lie where the record has them, along rows, in the very images that the network is shown."""
    pairs, seen = Pairs(replace(TINY, modalities=(modality,)), {modality: Counted()}), 0
    for k in range(250):
        raw, (distorted, _) = pairs.raw(k), pairs(k)
        draws = dict(raw.draws)
        if "line_dropouts" not in draws or {"warp", "overlays", "clipping"} & draws.keys():
            continue
        numbers, shown = draws["line_dropouts"], distorted[..., 0]
        for row, start, length, level in zip(*(numbers[key] for key in ("rows", "starts", "lengths", "levels")), strict=True):
            inside = np.isin(np.arange(64), np.arange(start, start + length))
            mirrored = inside[::-1] & ~inside  # where a mirror would have put it
            if level < 0.1 and mirrored.sum() > 8 and numbers["rows"].count(row) == 1 and draws["counting"]["electrons"] > 20:
                seen += 1
                assert shown[row, inside].mean() < shown[row, mirrored].mean() - 0.3
    assert seen >= 3


def test_modalities_are_drawn_in_training_and_take_turns_elsewhere():
    """Scans and cameras are told apart by the steps that only they know."""
    config = replace(TINY, modalities=("hrtem", "hrsem"))
    both = dict.fromkeys(config.modalities, Counted())
    camera = {"mtf", "dark_current", "quadrants", "gain_pattern", "bands", "noise_transfer"}

    def is_camera(pair):
        return any(name in camera for name, _ in pair.draws)

    turns = [is_camera(Pairs(config, both, "test").raw(k)) for k in range(24)]
    assert not any(turns[1::2]) and sum(turns[::2]) >= 8
    drawn = [is_camera(Pairs(config, both).raw(k)) for k in range(60)]
    assert 12 < sum(drawn) < 42


def test_sources_of_splits_share_nothing():
    first = [sources(TINY, split)["hrstem"][0] for split in ("train", "val", "test")]
    assert all(not np.array_equal(a, b) for k, a in enumerate(first) for b in first[:k])


# --- Contract ---


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-6, 0.0), (3e4, 2e6), (1e-3, -5.0)])
def test_statistics_have_no_floor_in_raw_units(scale, offset):
    image = (scale * np.random.default_rng(1).gamma(4, 1, (2, 40, 50, 1)) + offset).astype(np.float32)
    state = statistics(image)
    assert state.shape == (2, 1, 1, 2)
    for one, (mean, deviation) in zip(image, np.reshape(state, (2, 2)), strict=True):
        assert (mean, deviation) == pytest.approx(moments(one), rel=1e-4)
        assert deviation == pytest.approx(one.std(dtype=np.float64), rel=1e-4)
    inside = prepare(tf.constant(image), state)
    np.testing.assert_allclose(np.std(inside, (1, 2, 3)), 1, rtol=1e-3)
    np.testing.assert_allclose(finish(inside, state), image, atol=1e-5 * np.abs(image).max())


@pytest.mark.parametrize("value", [0.0, 0.5, 7.0, -1e6, 1e-20])
def test_uniform_images_come_back(value, weights):
    """Also when the network answers a blank with something: its answer counts in millionths of the value."""
    image = np.full((1, 16, 16, 1), value, np.float32)
    state = statistics(image)
    np.testing.assert_array_equal(finish(prepare(image, state), state), image)
    np.testing.assert_allclose(restore(image[0, ..., 0], "cgrdn", weights=weights), value, rtol=1e-5, atol=1e-25)


def test_restoring_follows_any_gain_and_offset(weights):
    """restore(a x + b) = a restore(x) + b, far below and far above a deviation of 0.1."""
    image = np.random.default_rng(2).gamma(4, 1, (61, 45)).astype(np.float32)
    plain = restore(image, "cgrdn", weights=weights)
    assert plain.shape == image.shape and np.std(plain - image) > 1e-3
    for a, b in ((1e-4, 0.0), (250.0, 0.0), (40.0, 900.0)):
        found = restore((a * image + b).astype(np.float32), "cgrdn", weights=weights)
        np.testing.assert_allclose(found, a * plain + b, atol=2e-4 * a * np.ptp(plain) + 1e-5 * abs(b))


def test_integers_and_trust(weights):
    image = np.random.default_rng(3).integers(0, 65536, (64, 48)).astype(np.uint16)
    found, trust = restore(image, "cgrdn", weights=weights, return_trust=True)
    assert found.dtype == np.uint16 and trust.shape == image.shape and np.isfinite(trust).all() and trust.min() >= 0
    half = restore(image, "cgrdn", weights=weights, strength=0.5)
    assert half.shape == image.shape and not np.array_equal(half, found)


@pytest.mark.parametrize("form", ["savedmodel", "onnx"])
def test_exported_model_restores_the_same(weights, tmp_path, form):
    """From raw to raw intensities, standardising included, odd sides too."""
    assert main(["export", "cgrdn", "--format", form, "--weights", str(weights), "--out", str(tmp_path / f"model.{form}")]) == 0
    image = np.random.default_rng(6).gamma(4, 300, (45, 66)).astype(np.float32)
    expected, given = restore(image, "cgrdn", weights=weights), image[None, ..., None]
    if form == "savedmodel":
        model = tf.saved_model.load(str(tmp_path / "model.savedmodel"))
        restored = model.serve(given)["restored"].numpy()
    else:
        import onnxruntime

        restored = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).run(["restored"], {"image": given})[0]
    assert restored.shape == (1, 45, 66, 1) and np.abs(restored[0, ..., 0] - expected).max() < 1e-5 * np.ptp(expected)


def test_clean_images_of_a_folder(tmp_path):
    """All modalities learn from them, and the run remembers what they were."""
    for k in range(3):
        save_micrograph(tmp_path / f"{k}.tif", Micrograph(np.random.default_rng(k).uniform(size=(70, 90)).astype(np.float32)))
    found = sources(TINY, "train", tmp_path)
    assert list(found) == list(TINY.modalities) and len(found["hrstem"]) == 3
    assert all(image.shape == (64, 64, 1) for image in Pairs(TINY, found)(1))
    before = describe_data(TINY, tmp_path)
    save_micrograph(tmp_path / "2.tif", Micrograph(np.zeros((80, 90), np.float32) + np.eye(80, 90, dtype=np.float32)))
    assert before["clean"]["images"] == 3 and describe_data(TINY, tmp_path)["clean"]["sha256"] != before["clean"]["sha256"]


def test_samples_for_the_demo():
    found = samples(1)
    assert [name for name, _, _ in found] == list(RECIPES)
    for _, micrograph, truth in found:
        assert micrograph.data.shape == truth.shape == (480, 480) and micrograph.data.dtype == truth.dtype == np.uint8 and micrograph.pixel_size > 0
        assert np.corrcoef(micrograph.data.ravel(), truth.ravel())[0, 1] > 0.2 and 10 < psnr(truth, micrograph.data) < 40


def test_contract():
    entry = paper("cgrdn")
    assert entry.scale == 1 and list(entry.presets) == ["paper", "small", "tiny"] and entry.halo(Config.paper()) == 261
    assert entry.symmetries == ("flip_rows",)  # never along the fast axis of a scan
    image = example_rng(0, 0).uniform(size=(20, 30)).astype(np.float32)
    np.testing.assert_array_equal(entry.acquire(image), image[None])
    smoothed = entry.classical(image, np.asarray(statistics(image[None, ..., None]))[0], 0.2)
    assert smoothed.shape == image.shape and smoothed.std() < 0.8 * image.std() and smoothed.mean() == pytest.approx(image.mean(), rel=0.02)
