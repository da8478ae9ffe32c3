"""The SSUM CycleGAN's data: patches without invented pixels and alike in both views, folders of pairs, what restoring does to intensities."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile

from common import load_micrograph, restore, save_micrograph
from common.micrograph import Micrograph
from paper_ssum_cyclegan import Config, data
from paper_ssum_cyclegan.baselines import tune, wiener
from tests.helpers import publish_untrained

CONFIG = replace(Config.tiny(), side=64)


def picture(shape, seed=0):
    return cv2.GaussianBlur(np.random.default_rng(seed).random(shape, np.float32), (0, 0), 1.5)


class Alike(list):
    """Pairs whose two views are the same picture."""

    def __init__(self, shape, count=3):
        super().__init__((picture(shape, k),) * 2 for k in range(count))


# --- Patches ---


@pytest.mark.parametrize("shape", [(64, 64), (70, 100), (200, 160)])
def test_both_views_are_cut_alike_and_numbered(shape):
    patches = data.Patches(CONFIG, Alike(shape))
    seen = [patches(k) for k in range(40)]
    assert all(np.array_equal(x, y) and x.shape == (64, 64, 1) and np.abs(x).max() <= 1 for x, y in seen)
    assert all(np.array_equal(a, b) for a, b in zip(patches(7), seen[7], strict=True))
    assert len({x.tobytes() for x, _ in seen}) > 30


def test_unpaired_views_are_independent():
    patches = data.Patches(replace(CONFIG, paired=False), Alike((200, 160)))
    assert sum(np.array_equal(*patches(k)) for k in range(30)) < 3


@pytest.mark.parametrize("angle", [0.0, 30.0, 45.0, 60.0, 90.0])
@pytest.mark.parametrize("shape", [(64, 64), (90, 120), (300, 300)])
def test_no_pixel_of_a_turned_patch_is_made_up(angle, shape):
    """All corners lie inside the picture, and a mask of what exists stays whole."""
    config, rng = replace(CONFIG, rotations=(angle,)), np.random.default_rng(1)
    for _ in range(20):
        where = data.placed(shape, config, rng)
        corners = where @ np.array([[0, 63, 0, 63], [0, 0, 63, 63], [1, 1, 1, 1]])
        assert corners.min() > -1e-9 and (corners.max(1) < np.array(shape[::-1]) - 1 + 1e-9).all()
        exists = cv2.warpAffine(np.ones(shape, np.float32), where, (64, 64), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        assert exists.min() > 1 - 1e-3


def test_patches_have_the_scales_and_flips_that_were_asked_for():
    config, rng = replace(CONFIG, rotations=(0.0,), scales=(0.8, 1.25)), np.random.default_rng(0)
    found = {tuple(np.round(1 / data.placed((300, 300), config, rng)[[0, 1], [0, 1]], 6)) for _ in range(100)}
    assert found == {(a * s, b * s) for s in (0.8, 1.25) for a in (1, -1) for b in (1, -1)}


def test_patches_that_need_no_interpolation_get_none():
    config, scene = replace(CONFIG, rotations=(0.0, 90.0), scales=(1.0,)), picture((120, 140))
    seen = {value for k in range(8) for value in data.cut(scene, data.placed(scene.shape, config, np.random.default_rng(k)), 64).ravel().tolist()}
    assert seen <= set(scene.ravel().tolist())


def test_a_patch_is_what_scipy_makes_of_the_same_map():
    from scipy.ndimage import affine_transform

    scene, where = picture((120, 140)), data.placed((120, 140), replace(CONFIG, rotations=(30.0,)), np.random.default_rng(3))
    swapped = where[::-1, [1, 0, 2]]  # (column, row) -> (row, column)
    expected = affine_transform(scene, swapped[:, :2], swapped[:, 2], (64, 64), order=3, mode="mirror")
    assert np.abs(data.cut(scene, where, 64) - expected)[2:-2, 2:-2].max() < 0.02  # another cubic kernel


# --- Pairs ---


def test_simulated_pairs_are_pure_and_splits_share_none():
    first, again, other = (data.SimulatedPairs(CONFIG, split, 2) for split in ("train", "train", "val"))
    assert all(np.array_equal(a, b) for a, b in zip(first[1], again[1], strict=True))
    assert not np.array_equal(first[0][0], other[0][0]) and not np.array_equal(first[0][0], first[1][0])
    for image in first[0]:
        assert image.shape == (512, 512) and image.dtype == np.float32 and image.min() == 0 and image.max() == 1
    with pytest.raises(IndexError):
        first[2]


def write_pair(folder, name, optical, sem):
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / f"{name}_optical.tif", optical)
    tifffile.imwrite(folder / f"{name}_sem.tif", sem)


def test_folders_of_pairs_are_taken_as_they_are(tmp_path):
    """No pixel is averaged: what is restored later is not either."""
    rng = np.random.default_rng(0)
    optical, sem = (rng.integers(0, 60000, (64, 68)).astype(np.uint16) for _ in range(2))
    for split in ("train", "val"):
        write_pair(tmp_path / split, "0001", optical, sem)
    pairs, _ = data.training_pairs(CONFIG, tmp_path)
    for stored, image in zip(pairs[0], (optical, sem), strict=True):  # the optical one first
        low, high = np.quantile(image, (0.001, 0.999))
        assert stored.shape == (64, 68) and np.abs(stored - np.clip((image - low) / (high - low), 0, 1)).max() < 0.02
    described = data.describe_data(CONFIG, tmp_path)["pairs"]
    assert described["images"] == 4 and described["pixel_size"] is None


def test_the_grey_scale_that_a_file_names_is_kept(tmp_path):
    """Or a bare crop of a mosaic would be stretched to black and white, its noise too, and the mosaic that is converted later would not."""
    bare = np.random.default_rng(0).normal(20_000, 300, (80, 80)).astype(np.uint16)
    for name in ("optical", "sem"):
        save_micrograph(tmp_path / f"a_{name}.tif", Micrograph(bare, 40.0, data.SCALE))
    for image in data.FolderPairs(tmp_path, 64)[0]:
        assert np.abs(image - bare / 65535).max() < 1e-4


def test_names_of_pairs(tmp_path):
    for name in ("1_Optical.TIF", "1_SEM.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((64, 64), np.uint8))
    assert [tuple(path.name for path in pair) for pair in data.pair_files(tmp_path)] == [("1_Optical.TIF", "1_SEM.tif")]
    tifffile.imwrite(tmp_path / "1_sem.png.tif", np.zeros((64, 64), np.uint8))  # no half of a pair
    tifffile.imwrite(tmp_path / "1_sem.tiff", np.zeros((64, 64), np.uint8))
    with pytest.raises(ValueError, match="same half"):
        data.pair_files(tmp_path)


def test_the_optical_image_comes_first():
    """Of a simulated pair, and of the patches that are cut from one."""
    from paper_ssum_cyclegan.simulator import simulate_pair

    pairs = data.SimulatedPairs(CONFIG, "train", 1)
    pair = simulate_pair((pairs.seed, 0), data.SIMULATED, CONFIG.pixel_size, CONFIG.misalignment)
    for stored, image in zip(pairs[0], (pair.optical, pair.sem), strict=True):
        assert np.abs(stored - data.unit(image)).max() < 1e-4
    bright, dark = np.full((80, 80), 0.75, np.float32), np.full((80, 80), 0.25, np.float32)
    for paired in (True, False):
        optical, sem = data.Patches(replace(CONFIG, paired=paired), [(bright, dark)])(0)
        assert optical.mean() == pytest.approx(0.5) and sem.mean() == pytest.approx(-0.5)


@pytest.mark.parametrize(("change", "message"), [("alone", "lacks one"), ("shape", "register them first"), ("nan", "not finite"), ("small", "need more")])
def test_bad_pairs_are_named(tmp_path, change, message):
    optical, sem = np.ones((2, 128, 128), np.float32)
    if change == "alone":
        tifffile.imwrite(tmp_path / "a_sem.tif", sem)
    elif change == "shape":
        write_pair(tmp_path, "a", optical, sem[:100])
    elif change == "nan":
        optical[3, 4] = np.nan
        write_pair(tmp_path, "a", optical, sem)
    else:
        write_pair(tmp_path, "a", optical[:60, :100], sem[:60, :100])
    with pytest.raises(ValueError, match=message):
        data.FolderPairs(tmp_path, 64)[0]


def test_a_bad_pair_is_found_before_the_training_begins(tmp_path):
    good = picture((128, 128))
    for split in ("train", "val"):
        for name in "ab":
            write_pair(tmp_path / split, name, good, good)
    write_pair(tmp_path / "train", "b", good, good[:100])
    with pytest.raises(ValueError, match="b_optical"):
        data.training_pairs(CONFIG, tmp_path)


# --- Restoring ---


def test_restoring_follows_gain_and_offset_and_keeps_the_pixel_size(tmp_path):
    from paper_ssum_cyclegan import PAPER

    weights = publish_untrained(PAPER, CONFIG, tmp_path)
    image = picture((90, 121)) * 200 + 20
    tifffile.imwrite(tmp_path / "a.tif", image.astype(np.float32))
    tifffile.imwrite(tmp_path / "b.tif", (7 * image - 300).astype(np.float32))
    first, second = (restore(load_micrograph(tmp_path / name), "ssum_cyclegan", weights=str(weights)).data for name in ("a.tif", "b.tif"))
    assert first.shape == (90, 121)
    np.testing.assert_allclose(second, 7 * first - 300, rtol=1e-3, atol=1e-2 * np.ptp(first))


@pytest.mark.parametrize("shape", [(7, 300), (90, 121)])
@pytest.mark.parametrize("network", ["ssum", "resnet", "unet"])
def test_any_network_takes_any_size(tmp_path, network, shape):
    from paper_ssum_cyclegan import PAPER

    weights = publish_untrained(PAPER, replace(CONFIG, network=network, width=4, blocks=1), tmp_path)
    tifffile.imwrite(tmp_path / "a.tif", picture(shape))
    restored = restore(load_micrograph(tmp_path / "a.tif"), "ssum_cyclegan", weights=str(weights)).data
    assert restored.shape == shape and np.isfinite(restored).all() and np.ptp(restored) > 0


def test_acquisitions_have_either_contrast():
    image = picture((64, 64))
    seen = data.acquire(image)
    assert seen.shape == (6, 64, 64) and all(np.corrcoef(seen[k].ravel(), seen[k + 3].ravel())[0, 1] < -0.999 for k in range(3))


def test_the_classical_filter_does_no_harm():
    """Of a chip's picture with its noise, after the best affine grey scale; a filter that trusts noise too much makes halos."""
    from paper_ssum_cyclegan.measures import scores
    from paper_ssum_cyclegan.simulator import simulate_pair

    gains = []
    for k in range(6):
        pair = simulate_pair((5, k), (256, 256))
        optical, state = np.float32(pair.optical), np.asarray([0.0, 1.0])
        filtered = data.classical(optical, state, 0.01)
        assert filtered.shape == optical.shape and -0.3 < filtered.min() and filtered.max() < 1.3
        np.testing.assert_allclose(data.classical(50 * optical + 7, 50 * state + 7, 0.5), 50 * filtered + 7, atol=0.01)
        gains.append(scores(pair.sem, filtered)["psnr_fit"] - scores(pair.sem, optical)["psnr_fit"])
    assert np.mean(gains) > -0.05 and min(gains) > -0.5


def test_losses_on_pairs_need_pairs():
    with pytest.raises(ValueError, match="need pairs"):
        replace(Config.small(), paired=False)
    assert not replace(Config.small(), paired=False, shift_l1_weight=0.0).paired


def test_samples():
    for _, micrograph, truth in data.samples():
        assert micrograph.data.dtype == truth.dtype == np.uint8 and micrograph.data.shape == truth.shape == (480, 480) and micrograph.pixel_size > 0


# --- Baseline ---


def test_wiener_undoes_a_known_blur_and_keeps_the_mean():
    sharp = picture((96, 96)) + 0.2
    blurred = cv2.GaussianBlur(sharp, (0, 0), 2.0, borderType=cv2.BORDER_REFLECT)
    back = wiener(blurred, 2.0, 0.01)
    assert np.mean((back - sharp) ** 2) < 0.3 * np.mean((blurred - sharp) ** 2)
    assert abs(back.mean() - blurred.mean()) < 1e-3 and np.array_equal(wiener(sharp, 0.0, 0.1), sharp)


def test_tuning_finds_the_blur():
    pairs = [(cv2.GaussianBlur(picture((96, 96), k), (0, 0), 2.0), picture((96, 96), k)) for k in range(2)]
    assert tune(pairs, lambda truth, image: -np.mean((truth - image) ** 2))[0] in (1.5, 2.0, 2.5)
