"""SEM-GAN's data: upsampling against its defining sum, patches against their grid and symmetries, pairs of the user, and what restoring asks."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import convolve2d

import paper_sem_gan.data
from common import paper
from common.restoring import restore_array
from paper_sem_gan import Config
from paper_sem_gan.data import Patches, acquire, as_field, classical, describe_data, patch_corners, prepare, read_pairs, simulated_fields, training_fields
from paper_sem_gan.upsampling import lanczos, upsample
from tests.paper_sem_gan import oracle

PAPER = paper("sem_gan")


def picture(shape, seed=0, sigma=1.5):
    """(height, width) float32 in [0, 1], smooth on the scale of a pixel."""
    image = cv2.GaussianBlur(np.random.default_rng(seed).uniform(size=shape).astype(np.float32), (0, 0), sigma)
    return (image - image.min()) / np.ptp(image)


def write_pairs(folder, shapes=((64, 72),) * 3, names="abc"):
    """Pairs as the registration writes them: low uint8 as recorded, high float32, twice as large."""
    for part in ("low", "high"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for k, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        high = picture((2 * shape[0], 2 * shape[1]), k)
        low = cv2.resize(high, shape[::-1], interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / "low" / f"{name}.tif"), np.round(255 * low).astype(np.uint8))
        cv2.imwrite(str(folder / "high" / f"{name}.tif"), 180 * high + 20)
    return folder


# --- Upsampling ---


@pytest.mark.parametrize("shape", [(9, 14), (1, 1), (3, 20), (37, 2)])
def test_lanczos_is_its_defining_sum(shape):
    image = np.random.default_rng(0).uniform(-1, 2, shape).astype(np.float32)
    expected = oracle.lanczos_upsample(image, edge="replicate")
    np.testing.assert_allclose(lanczos(image), expected, atol=2e-6)
    batch = np.stack([image, image[::-1]])[..., None]
    np.testing.assert_allclose(upsample(batch), oracle.lanczos_upsample(batch, edge="replicate"), atol=2e-6)
    assert lanczos(image).dtype == np.float32 and np.asarray(upsample(batch)).dtype == np.float32


def test_lanczos_is_that_of_others_inside():
    """TensorFlow's Lanczos-3 of twice the size, which leaves pixels beyond the border out; 6 pixels from it both have all they need."""
    image = picture((30, 41), sigma=0.5)
    other = tf.image.resize(image[..., None], (60, 82), "lanczos3", antialias=False)[..., 0]
    np.testing.assert_allclose(lanczos(image)[6:-6, 6:-6], other[6:-6, 6:-6], atol=1e-5)
    np.testing.assert_allclose(lanczos(np.full((5, 7), 3.0, np.float32)), 3.0, rtol=1e-6)


# --- What restoring asks ---


def test_black_and_white():
    """8 bit means x / 255; other types are stretched between their own quantiles, so units and offsets do not matter."""
    scan = np.round(60 + 120 * picture((48, 56))).astype(np.uint8)
    images = scan[None, ..., None].astype(np.float32)
    found = prepare(images, PAPER.statistics(images, "uint8"))
    np.testing.assert_allclose(np.asarray(found)[0, ..., 0], oracle.lanczos_upsample(scan / 255, edge="replicate"), atol=2e-6)
    stretched = np.asarray(prepare(images, PAPER.statistics(images, "float32")))
    assert -0.2 < stretched.min() < 0.1 and 0.9 < stretched.max() < 1.2
    for gain, offset in ((257.0, 0.0), (1e-3, -7.0), (3e4, 1e5)):
        other = gain * images + offset
        np.testing.assert_allclose(prepare(other, PAPER.statistics(other, "float32")), stretched, atol=2e-3)


@pytest.mark.parametrize(("dtype", "gain", "tolerance"), [(np.uint8, 1, 0.51), (np.uint16, 200, 0.6), (np.float32, 1e-3, 1e-6)])
def test_raw_units_come_back(dtype, gain, tolerance):
    """With a network that does nothing a restored scan is its Lanczos upsampling, in the scan's own units and type."""
    scan = (gain * np.round(60 + 120 * picture((48, 56)))).astype(dtype)
    image = keras.Input((None, None, 1))
    nothing = keras.Model(image, keras.layers.Identity()(image))
    restored = restore_array(scan, PAPER, nothing, Config.tiny(), dtype=dtype, result_dtype=dtype)
    assert restored.dtype == dtype and restored.shape == (96, 112)
    np.testing.assert_allclose(restored, oracle.lanczos_upsample(scan, edge="replicate"), atol=tolerance)
    np.testing.assert_allclose(classical(scan, None, 0.0), oracle.lanczos_upsample(scan, edge="replicate"), rtol=1e-5)


def test_acquire_records_what_lies_between_four_pixels():
    restored = picture((40, 52))
    seen = acquire(restored)
    assert seen.shape == (4, 20, 26) and seen.dtype == np.float32
    taps = np.array([-3, 19, 19, -3]) / 32  # cubic convolution half way between pixels
    between = convolve2d(restored, np.outer(taps, taps), "valid")[1::2, 1::2]
    np.testing.assert_allclose(seen[0][1:-1, 1:-1], between, atol=1e-6)
    sharpness = [np.abs(np.diff(image)).mean() for image in seen]
    assert sharpness == sorted(sharpness, reverse=True) and sharpness[-1] > 0
    np.testing.assert_allclose(acquire(np.full((40, 52), 7.0)), 7.0, rtol=1e-6)
    scan = picture((40, 52), sigma=3)
    assert np.abs(acquire(lanczos(scan))[0] - scan).max() < 0.02  # recording undoes upsampling, nothing is shifted


# --- Patches ---


def test_forty_fields_give_1920_patches():
    corners = patch_corners((780, 924), 128, 112)
    assert len(corners) == 48 and 40 * len(corners) == 1920
    assert {len({c[axis] for c in corners}) for axis in (0, 1)} == {6, 8}
    config = Config.paper()
    assert (config.fields - round(config.held_out * config.fields), config.patch, config.stride) == (40, 128, 112)


@pytest.mark.parametrize(("shape", "patch", "stride"), [((780, 924), 128, 112), ((128, 128), 128, 112), ((240, 351), 128, 112), ((70, 90), 32, 7)])
def test_grid_of_patches(shape, patch, stride):
    assert patch_corners(shape, patch, stride) == oracle.patch_corners(*shape, patch, stride)
    assert all(top + patch <= shape[0] and left + patch <= shape[1] for top, left in patch_corners(shape, patch, stride))


GRID = replace(Config.tiny(), patch=8, stride=5, batch=2, seed=3)
NUMBERED = [
    (k * 10_000 + np.arange(24 * 20, dtype=np.float32).reshape(24, 20), -k * 10_000 - np.arange(24 * 20, dtype=np.float32).reshape(24, 20)) for k in range(3)
]


def views():
    """Every patch of the numbered fields in each of its eight views, as bytes -> (field, corner, view)."""
    return {
        np.ascontiguousarray(view, np.float32).tobytes(): (k, corner, v)
        for k, (low, _) in enumerate(NUMBERED)
        for corner in oracle.patch_corners(24, 20, 8, 5)
        for v, view in enumerate(oracle.dihedral_views(low[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8]))
    }


def test_patches_lie_on_the_grid_in_all_eight_views_and_both_images_alike():
    known, found = views(), []
    patches = Patches(GRID, NUMBERED)
    for i in range(3000):
        low, high, low_d, high_d = patches(i)
        assert tuple(a.shape for a in (low, high, low_d, high_d)) == patches.shapes == ((8, 8, 1),) * 4
        np.testing.assert_array_equal(high, -low)
        np.testing.assert_array_equal(high_d, -low_d)
        found.append(known[np.ascontiguousarray(low[..., 0]).tobytes()])
    for part, kinds in enumerate((3, len(oracle.patch_corners(24, 20, 8, 5)), 8)):
        counts = np.array([sum(f[part] == kind for f in found) for kind in {f[part] for f in found}])
        assert len(counts) == kinds
        assert np.abs(counts - 3000 / kinds).max() < 4.5 * np.sqrt(3000 / kinds)


def test_the_discriminators_batch_is_its_own():
    """Two of four examples of each fourth step, drawn apart from the generator's: no example of one stream tells anything about the other."""
    known, patches, pairs = views(), Patches(GRID, NUMBERED), []
    for i in range(1600):
        low, high, low_d, high_d = patches(i)
        if (i // GRID.batch + 1) in oracle.discriminator_updates(800):
            pairs.append([known[np.ascontiguousarray(a[..., 0]).tobytes()] for a in (low, low_d)])
        else:
            assert not low_d.any() and not high_d.any()
    assert len(pairs) == 400
    for part, kinds in enumerate((3, 12, 8)):
        same = sum(one[part] == other[part] for one, other in pairs)
        assert same == pytest.approx(400 / kinds, abs=4.5 * np.sqrt(400 / kinds))
    always = Patches(replace(GRID, discriminator_every=1), NUMBERED)
    for i in range(20):
        np.testing.assert_array_equal(always(i)[0], patches(i)[0])  # the generator's stream does not know of the other
    drawn = {known[np.ascontiguousarray(always(i)[stream][..., 0]).tobytes()] + (i,) for i in range(400) for stream in (0, 2)}
    assert len(drawn) > 790  # the streams are not one stream read at other places


def test_examples_depend_on_seed_and_index_only():
    one, again, other = Patches(GRID, NUMBERED), Patches(GRID, NUMBERED), Patches(replace(GRID, seed=4), NUMBERED)
    for i in (7, 3, 7, 10**9):
        for a, b in zip(one(i), again(i), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len({one(i)[0].tobytes() for i in range(30)}) > 25
    assert sum(one(i)[0].tobytes() == other(i)[0].tobytes() for i in range(100)) < 5


# --- Fields ---


def test_brightness_and_contrast_of_the_second_scan_do_not_matter():
    high = picture((128, 96), sigma=3)
    low = np.round(255 * cv2.resize(high, (48, 64), interpolation=cv2.INTER_LINEAR)).astype(np.uint8)
    upsampled, plain = as_field(low, high)
    np.testing.assert_allclose(upsampled, oracle.lanczos_upsample(low / 255, edge="replicate"), atol=2e-6)
    for gain, offset in ((180, 20), (1e-3, -5), (40_000, 100)):
        np.testing.assert_allclose(as_field(low, gain * high + offset)[1], plain, atol=1e-3)
    assert np.abs(plain - high).mean() < 0.01  # what both scans show stays as bright
    wide = as_field(low.astype(np.uint16) * 200, high)
    assert all(a.dtype == np.float32 and a.shape == (128, 96) for a in (upsampled, plain, *wide))
    assert np.corrcoef(wide[1].ravel(), plain.ravel())[0, 1] > 0.9999


def test_folder_of_registered_pairs(tmp_path):
    fields = read_pairs(write_pairs(tmp_path, [(64, 72), (80, 64), (70, 70)]))
    assert [high.shape for _, high in fields] == [(128, 144), (160, 128), (140, 140)]
    assert all(low.shape == high.shape and np.abs(low - high).mean() < 0.02 for low, high in fields)
    train, held_out = training_fields(Config.tiny(), tmp_path)
    assert len(train) == 2 and len(held_out) == 1
    np.testing.assert_array_equal(held_out[0][0], fields[2][0])
    before = describe_data(Config.tiny(), tmp_path)
    assert before["pairs"]["images"] == 6
    write_pairs(tmp_path, [(64, 72), (80, 64), (70, 74)])
    assert describe_data(Config.tiny(), tmp_path) != before
    assert describe_data(Config.tiny(), None) != describe_data(Config.paper(), None)


def test_whole_fields_are_held_out(monkeypatch):
    for share, count, held in ((0.15, 40, 6), (0.15, 4, 1), (0.5, 4, 2), (0.01, 3, 1), (0.9, 2, 1)):
        monkeypatch.setattr(paper_sem_gan.data, "simulated_fields", lambda numbers, seed: [(np.full((64, 64), k), np.full((64, 64), k)) for k in numbers])
        train, held_out = training_fields(replace(Config.tiny(), fields=count, held_out=share), None)
        assert [int(low[0, 0]) for low, _ in train + held_out] == list(range(count))
        assert len(held_out) == held


def break_names(folder):
    (folder / "high" / "b.tif").rename(folder / "high" / "z.tif")


def break_one_size(folder):
    cv2.imwrite(str(folder / "high" / "b.tif"), picture((128, 142)))


def lose_a_folder(folder):
    (folder / "high").rename(folder / "other")


def lose_files(folder):
    for file in (folder / "low").iterdir():
        file.unlink()


def keep_one(folder):
    for part in ("low", "high"):
        for name in "bc":
            (folder / part / f"{name}.tif").unlink()


def shrink(folder):
    write_pairs(folder, [(64, 72), (30, 72), (64, 72)])


def spoil_a_pixel(folder):
    image = picture((128, 144))
    image[3, 5] = np.nan
    cv2.imwrite(str(folder / "high" / "b.tif"), image)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (spoil_a_pixel, "b.tif has pixels that are not finite"),
        (break_names, "must hold files of equal names"),
        (break_one_size, r"b.tif has \(128, 142\) pixels, not twice \(64, 72\); register scans whose magnifications differ by two"),
        (lose_a_folder, "high is not a folder"),
        (lose_files, "low holds no image"),
        (keep_one, "holds one pair; whole fields are held out for validation, so give at least two"),
        (shrink, "smallest field has a side of 60 pixels, a patch has 64"),
    ],
)
def test_unfit_folders_are_refused_in_one_line(damage, said, tmp_path):
    damage(write_pairs(tmp_path))
    with pytest.raises((ValueError, NotADirectoryError), match=said) as refusal:
        training_fields(Config.tiny(), tmp_path)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.fixture(scope="module")
def simulated():
    return simulated_fields(range(2), 5, (192, 192))


def test_simulated_fields_are_registered_scans(simulated):
    assert len(simulated) == 2
    for low, high in simulated:
        assert low.shape == high.shape and min(low.shape) > 120 and not any(n % 2 for n in low.shape)
        assert low.dtype == high.dtype == np.float32
        assert -0.2 < low.min() and low.max() < 1.2
        smooth = [cv2.GaussianBlur(image, (0, 0), 2) for image in (low, high)]
        still = np.corrcoef(*(image.ravel() for image in smooth))[0, 1]
        assert still > 0.97
        for axis in (0, 1):
            for step in (-1, 1):  # a pixel's shift in any direction is worse
                assert np.corrcoef(smooth[0].ravel(), np.roll(smooth[1], step, axis).ravel())[0, 1] < still
    assert np.abs(simulated[0][0][:120, :120] - simulated[1][0][:120, :120]).mean() > 0.05


def test_a_simulated_field_depends_on_seed_and_number_only(simulated):
    for a, b in zip(simulated[1], simulated_fields([1], 5, (192, 192))[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_rejected_field_is_left_out_with_a_warning(monkeypatch):
    monkeypatch.setattr(paper_sem_gan.data, "simulate_field", lambda seed, shape: None)
    monkeypatch.setattr(paper_sem_gan.data, "scan_twice", lambda field, seed: [SimpleNamespace(image=picture((64, 64)))] * 2)
    monkeypatch.setattr(paper_sem_gan.data, "register", lambda low, high: SimpleNamespace(report={"accepted": False, "reason": "it is foggy"}))
    with pytest.warns(UserWarning, match="simulated field \\(0, 7\\) was left out: it is foggy"):
        assert simulated_fields([7], 0) == []
    with pytest.raises(ValueError, match="^0 of 4 simulated fields could be registered; "), pytest.warns(UserWarning):
        training_fields(Config.tiny(), None)
