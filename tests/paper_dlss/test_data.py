"""DLSS-STEM's data: crops that are clean whatever the files hold, splits that share nothing, examples that are pure."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tensorflow as tf
import tifffile

import paper_dlss.data
from common.data import batches, example_rng
from common.micrograph import Micrograph, save_micrograph
from paper_dlss import Config
from paper_dlss.data import (
    SPLITS,
    Examples,
    FolderCrops,
    SimulatedCrops,
    describe_data,
    exposed,
    image_shape,
    magnified,
    open_source,
    prepare_crop,
    recorded,
)
from paper_dlss.sampling import sparse_input

TINY = replace(Config.tiny(), crops=4)


def picture(shape, seed=0, sigma=1.5):
    """(height, width) float32 in [0, 1], smooth on the scale of a pixel."""
    image = cv2.GaussianBlur(np.random.default_rng(seed).uniform(size=shape).astype(np.float32), (0, 0), sigma)
    return (image - image.min()) / np.ptp(image)


def write(folder, images):
    """name -> image as uncompressed TIFF."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        tifffile.imwrite(folder / f"{name}.tif", image)
    return folder


# --- Crops ---


def test_crops_are_stretched_to_their_extremes():
    raw = np.random.default_rng(0).normal(3, 5, (32, 32)).astype(np.float32)
    for gain, offset in ((1.0, 0.0), (1e-12, 0.0), (1e30, 0.0), (-3e4, 1e5)):
        found = prepare_crop(gain * raw + offset)
        values = gain * raw.astype(np.float64) + offset
        np.testing.assert_allclose(found, 2 * (values - values.min()) / np.ptp(values) - 1, atol=1e-5)
        assert (found.min(), found.max()) == (-1, 1) and found.dtype == np.float32
    for dtype in (np.uint8, np.int16, np.float64):
        assert (prepare_crop(np.arange(64).reshape(8, 8).astype(dtype))[0] == np.float32(2 * np.arange(8) / 63 - 1)).all()


def test_pixels_that_are_not_finite_become_zero_before_scaling():
    raw = np.full((8, 8), 5.0, np.float32)
    raw[0, :4], raw[1] = (np.nan, np.inf, -np.inf, 3.0), 10.0
    found = prepare_crop(raw)
    np.testing.assert_allclose(found[0, :5], [-1, -1, -1, -0.4, 0], atol=1e-6)
    assert (found[1] == 1).all()
    assert np.isfinite(prepare_crop(np.array([[3e38, -3e38], [0.0, 1e300]]))).all()


@pytest.mark.parametrize("value", [0.0, 7.0, -2.5, 1e-20, 1e30, np.nan, np.inf])
def test_uniform_crops_are_mid_grey(value):
    raw = np.full((16, 16), value, np.float32)
    assert (prepare_crop(raw) == 0).all()
    raw[3, 3] *= 1 + 3e-7  # rounding is no structure
    assert (prepare_crop(raw) == 0).all()
    if value and np.isfinite(value):
        raw[3, 3] = value * (1 + 1e-4)  # but a weak signal is, which an absolute threshold would lose
        assert np.ptp(prepare_crop(raw)) == 2


# --- Folders ---


def test_micrographs_are_tiled_from_the_top_left(tmp_path):
    large, exact, small = (np.random.default_rng(k).normal(size=shape).astype(np.float32) for k, shape in enumerate([(70, 101), (32, 32), (31, 90)]))
    write(tmp_path / "train", {"a": large, "b": exact, "c": small})
    crops = FolderCrops(tmp_path, 32, "train")
    expected = [large[top : top + 32, left : left + 32] for top in (0, 32) for left in (0, 32, 64)] + [exact]
    assert len(crops) == 7
    for found, crop in zip(crops, expected, strict=True):
        np.testing.assert_array_equal(found, crop)
    np.testing.assert_array_equal(crops[-1], exact)
    with pytest.raises(IndexError):
        crops[7]
    with pytest.raises(ValueError, match="holds no readable train micrograph of at least 128 x 128"):
        FolderCrops(tmp_path, 128, "train")
    with pytest.raises(NotADirectoryError, match="val is not a folder"):
        FolderCrops(tmp_path, 32, "val")


@pytest.mark.parametrize(("count", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (7, (5, 1, 1)), (20, (15, 2, 3)), (100, (75, 10, 15)), (161, (121, 16, 24))])
def test_flat_folders_are_split_by_micrograph_in_the_order_of_names(tmp_path, count, sizes):
    write(tmp_path, {f"{k:03}": np.full((64, 32), k, np.float32) for k in range(count)})
    levels = [[float(crop.mean()) for crop in FolderCrops(tmp_path, 32, split)] for split in SPLITS]
    edges = np.cumsum((0, *sizes))
    for found, first, end in zip(levels, edges[:-1], edges[1:], strict=True):
        assert found == [k for k in range(first, end) for _ in range(2)]


def test_two_micrographs_cannot_be_split(tmp_path):
    write(tmp_path, {"a": np.zeros((64, 64), np.float32), "b": np.zeros((64, 64), np.float32)})
    with pytest.raises(ValueError, match="holds 2 micrographs; give at least three"):
        FolderCrops(tmp_path, 32, "train")
    assert len(FolderCrops(write(tmp_path / "sorted" / "test", {"a": np.ones((64, 64), np.float32)}).parent, 32, "test")) == 4


def test_unreadable_files_are_skipped_by_name(tmp_path):
    """Files that are no images, cut off, or damaged where only decoding shows it: warnings name them, and every crop is a good one."""
    good = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    folder = write(tmp_path / "train", {"a": good, "cut": good, "z": good + 1})
    (folder / "cut.tif").write_bytes((folder / "cut.tif").read_bytes()[:-100])
    (folder / "empty.tif").write_bytes(b"")
    (folder / "words.png").write_text("no image")
    tifffile.imwrite(folder / "damaged.tif", good, compression="zlib")
    content = bytearray((folder / "damaged.tif").read_bytes())
    content[-8000:-1000] = bytes(7000)
    (folder / "damaged.tif").write_bytes(content)
    with pytest.warns(UserWarning, match="skipped: ") as told:
        crops = FolderCrops(tmp_path, 32, "train")
    assert [name for name in ("cut.tif", "empty.tif", "words.png") if any(name in str(w.message) for w in told)] == ["cut.tif", "empty.tif", "words.png"]
    assert len(crops) == 12
    with pytest.warns(UserWarning, match=r"damaged\.tif"):
        found = [crops[k] for k in range(12)]
    np.testing.assert_array_equal(found[8], good[:32, :32] + 1)
    for k in range(4, 8):  # those of damaged.tif
        np.testing.assert_array_equal(found[k], crops[8])
    with pytest.raises(ValueError, match=r"cannot read .*damaged\.tif"):
        crops.read(5)
    examples = Examples(replace(TINY, side=32), crops)
    for i in range(20):
        crop, which = examples(i)
        assert np.isfinite(crop).all() and np.ptp(crop) == 2
        assert np.isfinite(sparse_input(crop[None], TINY.scan_steps[int(which[0])])).all()


def test_sizes_come_from_headers_where_these_tell_all(tmp_path, monkeypatch):
    """Plain TIFFs are not decoded when they are listed; colour, stacks and instruments' tags are left to the reader."""
    image = np.zeros((40, 50), np.float32)
    write(tmp_path, {"plain": image, "compressed": image})
    tifffile.imwrite(tmp_path / "compressed.tif", image, compression="zlib")
    save_micrograph(tmp_path / "ours.tif", Micrograph(image, pixel_size=0.2, metadata={"detector": "HAADF"}))
    cv2.imwrite(str(tmp_path / "grey.png"), image.astype(np.uint8))
    tifffile.imwrite(tmp_path / "tagged.tif", image, extratags=[(34682, "s", 0, "[Image]\nResolutionY=30\n", True)])
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 40, 50), np.float32), imagej=True)
    tifffile.imwrite(tmp_path / "colour.tif", np.zeros((40, 50, 3), np.uint8), photometric="rgb")
    decoded = []
    monkeypatch.setattr(paper_dlss.data, "load_micrograph", lambda path: decoded.append(path.name) or SimpleNamespace(data=image))
    for path in sorted(tmp_path.iterdir()):
        assert image_shape(path) == (40, 50)
    assert decoded == ["colour.tif", "grey.png", "stack.tif", "tagged.tif"]


def test_crops_are_read_when_asked_for_and_few_are_kept(tmp_path, monkeypatch):
    write(tmp_path / "train", {f"{k:03}": np.full((8, 8), k, np.float32) for k in range(300)})
    opened, load = [], paper_dlss.data.load_micrograph
    monkeypatch.setattr(paper_dlss.data, "load_micrograph", lambda path: opened.append(path) or load(path))
    crops = FolderCrops(tmp_path, 8, "train")
    assert len(crops) == 300 and not opened
    for k in (5, 5, 5, 7, 5):
        assert crops[k][0, 0] == k
    assert len(opened) == 2
    for k in range(300):
        assert crops[k][0, 0] == k
    assert crops._crop.cache_info().currsize == 256 and crops._file.cache_info().currsize == 1


def test_sources(tmp_path):
    assert isinstance(open_source(TINY, None), SimulatedCrops)
    write(tmp_path / "crops", {name: np.zeros((64, 64), np.float32) for name in "abc"})
    assert len(open_source(TINY, tmp_path / "crops", "val")) == 1
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_source(TINY, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"a.tif is no folder of micrographs and no .h5 file"):
        open_source(TINY, tmp_path / "crops" / "a.tif")
    assert describe_data(TINY, None) == {"simulated specimens": 4}
    described = describe_data(TINY, tmp_path / "crops")["crops"]
    assert described["files"] == 3 and described["folder"] == str(tmp_path / "crops")
    write(tmp_path / "crops", {"d": np.zeros((64, 64), np.float32)})
    assert describe_data(TINY, tmp_path / "crops")["crops"]["sha256"] != described["sha256"]


# --- Simulated crops ---


@pytest.fixture(scope="module")
def simulated():
    return {split: SimulatedCrops(TINY, split) for split in SPLITS}


def test_simulated_crops_are_pure(simulated):
    again = SimulatedCrops(TINY, "train")
    for k in (3, 0, 2**31 - 1, 3):
        np.testing.assert_array_equal(simulated["train"][k], again[k])
        assert again[k].shape == (64, 64) and again[k].dtype == np.float32
    assert not np.array_equal(again[0], again[1])
    assert not np.array_equal(again[0], SimulatedCrops(replace(TINY, seed=1), "train")[0])
    with pytest.raises(IndexError):
        again[2**31]


def test_splits_share_no_specimen(simulated):
    assert len({crops.specimens.seed for crops in simulated.values()}) == 3
    first = [crops.specimens[0] for crops in simulated.values()]
    assert all(not np.array_equal(a, b) for k, a in enumerate(first) for b in first[:k])
    assert [len(SimulatedCrops(Config.paper(), split).specimens) for split in SPLITS] == [4096, 512, 512]
    assert simulated["train"].specimens[0].shape == (512, 512)


def test_magnification_enlarges():
    """A whole specimen comes back as it is, and waves become that much longer."""
    specimen = picture((64, 64))
    np.testing.assert_array_equal(magnified(specimen, 64, 1.0, np.random.default_rng(0)), specimen)
    waves = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(256) / 16)[None].repeat(256, 0).astype(np.float32)
    for magnification in (1.0, 2.0, 3.0):
        found = magnified(waves, 96, magnification, np.random.default_rng(1))
        spectrum = np.abs(np.fft.rfft(found[48] - found[48].mean(), 960))
        assert found.shape == (96, 96)
        assert spectrum.argmax() == pytest.approx(960 / (16 * magnification), abs=2)


def test_exposures():
    """Monotonic, some inverted, within [0, 1], and from the extremes to the levels asked for; flat pictures stay flat."""
    ramp, rng, inverted = np.linspace(0.2, 0.6, 64 * 64, dtype=np.float32).reshape(64, 64), np.random.default_rng(0), 0
    blacks, whites = [], []
    for _ in range(400):
        found = exposed(ramp, rng)
        assert found.dtype == np.float32 and 0 <= found.min() and found.max() <= 1
        steps = np.diff(found.ravel())
        assert (steps >= 0).all() or (steps <= 0).all()
        inverted += found[0, 0] > found[-1, -1]
        blacks.append(min(found[0, 0], found[-1, -1]))
        whites.append(max(found[0, 0], found[-1, -1]))
    assert inverted / 400 == pytest.approx(0.25, abs=0.07)
    assert 0.15 < np.mean(np.array(blacks) == 0) < 0.5 and 0.15 < np.mean(np.array(whites) == 1) < 0.5  # saturated at one end each
    assert np.ptp(exposed(np.full((8, 8), 0.3, np.float32), rng)) == 0


def test_noise_has_the_moments_of_counting():
    """var = level / dose + read noise squared, and no bias."""
    rng, level = np.random.default_rng(0), 0.4
    for dose, read in ((20.0, 0.0), (5000.0, 0.03), (100.0, 0.02)):
        found = recorded(np.full((400, 400), level, np.float32), dose, read, rng)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.mean(), level, atol=4 * np.sqrt((level / dose + read**2) / found.size))
        np.testing.assert_allclose(found.var(), level / dose + read**2, rtol=0.02)


# --- Examples ---


class Numbered:
    """A source of ten crops that tell their number and how they were turned."""

    def __len__(self):
        return 10

    def __getitem__(self, k):
        crop = np.zeros((64, 64), np.float32)
        crop[0, 0], crop[0, 63], crop[32, 32] = 20, 10, k
        return crop


def seen(example):
    """(number of the crop, values of the four corners, step) of an example from `Numbered`."""
    crop, which = example
    raw = np.round((crop[..., 0] + 1) * 10).astype(int)
    return raw.max() and tuple(raw[[0, 0, 63, 63], [0, 63, 0, 63]]), int(which[0])


def test_training_examples(simulated):
    """Every turn, mirror image and step, equally often; example i depends on (seed, i) only, whoever asks and in whatever order."""
    examples = Examples(TINY, Numbered())
    found = [seen(examples(i)) for i in range(1600)]
    corners, steps = zip(*found, strict=True)
    assert len(set(corners)) == 8
    for drawn, kinds in ((corners, 8), (steps, 7)):
        counts = np.array([drawn.count(kind) for kind in set(drawn)])
        assert len(counts) == kinds
        assert ((counts - 1600 / kinds) ** 2 / (1600 / kinds)).sum() < 30  # chi squared with at most 7 degrees of freedom
    crop, which = examples(0)
    assert crop.shape == (64, 64, 1) and which.shape == (1,) and crop.dtype == which.dtype == np.float32
    assert examples.shapes == (crop.shape, which.shape)
    examples = Examples(TINY, simulated["train"])
    with ThreadPoolExecutor(4) as pool:
        for i, (crop, which) in enumerate(pool.map(examples, range(20))):
            expected = Examples(TINY, simulated["train"])(i)
            np.testing.assert_array_equal(crop, expected[0])
            assert which == expected[1]


def test_streams_differ():
    same = [np.array_equal(Examples(TINY, Numbered())(i)[0], Examples(TINY, Numbered(), "prefill")(i)[0]) for i in range(50)]
    assert sum(same) < 15
    assert example_rng(0, 1, "prefill").random() != example_rng(0, 1).random()


def test_validation_takes_crops_as_they_are_and_steps_in_turn():
    for stream in ("validation", "test"):
        examples = Examples(TINY, Numbered(), stream)
        for i in range(40):
            crop, which = examples(i)
            np.testing.assert_array_equal(crop[..., 0], prepare_crop(Numbered()[i % 10]))
            assert which == i % 7


def test_examples_feed_the_loop(simulated):
    examples = Examples(TINY, simulated["train"])
    for k, (crops, which) in enumerate(islice(batches(examples, examples.shapes, 2, start=4), 2)):
        assert crops.shape == (2, 64, 64, 1) and which.shape == (2, 1)
        np.testing.assert_array_equal(crops[1], examples(4 + 2 * k + 1)[0])
        assert np.isfinite(sparse_input(crops, tf.gather(TINY.scan_steps, tf.cast(which[:, 0], tf.int32)))).all()
