"""The evaluation runs on simulated and on recorded crops, and its numbers mean what they say."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tensorflow as tf

from common import Micrograph, paper, save_micrograph
from common.__main__ import main
from paper_dlss import Config
from paper_dlss.comparisons import (
    BLURRED,
    NETWORK,
    TUNED,
    Crops,
    Measured,
    RecordedCrops,
    Supersampler,
    amplitudes,
    edge_curves,
    edge_distance,
    mal_ratio,
    measure,
    mse,
    pictures,
    recorded,
    simulated,
    spectral_distance,
    tune_all,
)
from paper_dlss.data import describe_data
from paper_dlss.evaluate import all_steps, cast_items, edge_items, error_items, evaluate_dlss, published_as, quadratic, ratio_items, rival_items
from tests.helpers import publish_untrained

DLSS = paper("dlss")
TINY = replace(Config.tiny(), scan_steps=(4, 5))
SIGMAS = {step: {"nearest": 0.3 * step, "bilinear": 0.0, "bicubic": 1.0, "lanczos": 1.5} for step in (3, 4, 5)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return publish_untrained(DLSS, TINY, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def crops():
    return Crops(SimpleSource(), range(3))


class SimpleSource(list):
    """Three raw crops, smooth with a little noise."""

    def __init__(self):
        rng = np.random.default_rng(0)
        super().__init__(3000 * cv2.GaussianBlur(rng.random((64, 64)), (0, 0), 3) + rng.random((64, 64)) for _ in range(3))


class Fake:
    """In the place of a network: a function of the crop, in [-1, 1], and the step."""

    def __init__(self, restored, config=TINY):
        self.restored, self.config = restored, config

    def __call__(self, crop, step, cast=None):
        return self.restored(crop, step)

    def as_trained(self, output):
        return None


def target(crop):
    """The crop blurred 5 x 5, sigma 2.5, from the equation."""
    taps = np.exp(-(np.arange(-2, 3) ** 2) / 12.5)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    padded = np.pad(crop, 2, mode="reflect")
    return sum(kernel[i, j] * padded[i : i + crop.shape[0], j : j + crop.shape[1]] for i in range(5) for j in range(5))


def save(path, shape, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_micrograph(path, Micrograph(np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)))


# --- The whole ---


def test_writes_everything(weights, tmp_path):
    save(tmp_path / "data" / "large.tif", (200, 70))
    save(tmp_path / "data" / "small.tif", (60, 300))
    (tmp_path / "data" / "damaged.tif").write_bytes(b"II*\0")
    out = tmp_path / "out"
    options = {"images": 2, "side": 64, "steps": (3,), "tuning_images": 1}
    items = evaluate_dlss(out, str(weights), data=tmp_path / "data", others=(str(publish_untrained(DLSS, TINY, tmp_path / "twin")),), **options)
    written = json.loads((out / "results.json").read_text())
    assert written["items"] == json.loads(json.dumps(items)) and written["paper"] == "dlss"
    assert "blurred by 5 x 5" in written["convention"] and "8 bit" not in written["convention"]
    assert written["convention"] in (out / "results.md").read_text()
    figures = {f"{name}.png" for name in ("coverage", "histograms", "error_map", "edges", "examples", "spectra", "deconvolution")}
    expected = figures | {"table_2.csv", "crops.csv"}
    assert expected | {f"R_{name}" for name in expected} | {"results.md"} <= {path.name for path in out.iterdir()}
    for track, n in (("", 2), ("R: ", 3)):
        for step in (3, 4, 5):
            ours = items[f"{track}root MSE, step {step}: network"]
            assert ours["n"] == n and ours["unit"] == "[0, 1]" and ours["seen"] == (step != 3)
            assert ours["interval"][0] <= ours["value"] <= ours["interval"][1]
            ratio = items[f"{track}ratio to the best tuned aligned interpolation, step {step}"]
            assert ratio["value"] == pytest.approx(ours["value"] / ours["baseline"]) and ours["method"].endswith(TUNED)
            hindsight = items[f"{track}ratio to it with a Gaussian tuned on these very crops, step {step}"]
            assert hindsight["value"] >= ratio["value"] - 1e-6 and hindsight["method"] == ratio["method"]  # of the same candidates, the best for these
            assert ours["baseline"] == min(v["value"] for k, v in items.items() if k.startswith(f"{track}root MSE, step {step}: ") and k.endswith(TUNED))
            for method in ("nearest", "area", "bilinear", "bicubic", "lanczos"):
                assert f"{track}root MSE, step {step}: legacy {method}" in items
        for name in ("float16", "uint8", "wrapping int8"):
            assert f"{track}root MSE, step 5: {name} input" in items
        assert items[f"{track}ratio of twin to the network, step 5"]["value"] == pytest.approx(1)
        assert items[f"{track}fall of root MSE without a frame of 20 px"]["published"] == 0.01
        assert items[f"{track}ratio of mean absolute Laplacians"]["value"] > 0
        assert (
            items[f"{track}deconvolution, MSE: what is left of the blurred crop"]["value"]
            < 0.02 * items[f"{track}deconvolution, MSE: blurred crop against crop"]["value"]
        )
        assert items[f"{track}spectral distance to the sharp crop below 0.35 cycles/px, step 4"]["value"] > 0
    assert sorted(note.partition(":")[0] for note in written["notes"]["R: "] if "not scored" in note) == ["damaged.tif", "small.tif"]
    rows = list(csv.DictReader((out / "table_2.csv").open()))
    network = next(row for row in rows if row["method"] == NETWORK)
    assert float(network["step 4"]) == pytest.approx(items["root MSE, step 4: network"]["value"], abs=5e-5) and len(network["step 4"]) <= 6
    assert len(list(csv.DictReader((out / "R_crops.csv").open()))) == 9


def test_an_evaluation_repeats(weights, crops):
    network = Supersampler.load(str(weights))
    first, second = (measure(network, simulated("test", 5, 64, 2), [4], SIGMAS) for _ in range(2))
    assert all(np.array_equal(first.errors[4][name], second.errors[4][name]) for name in first.errors[4])
    assert not np.array_equal(simulated("test", 5, 64, 2)[0], simulated("tuning", 5, 64, 2)[0])
    assert not np.array_equal(simulated("test", 5, 64, 2)[0], simulated("test", 6, 64, 2)[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "0"], "images, recorded_images and tuning_images must be at least 1"),
        (["--side", "100"], "side must be divisible by 32 and at least 64, got 100"),
        (["--steps", "1"], "steps must be from 2 to 16, got 1"),
        (["--others", "network"], "two networks would be called 'network'"),
        (["--others", "nowhere"], "no weights 'nowhere' for dlss"),
        (["--data", "nowhere"], "nowhere is not a folder"),
        (["--seed", "-1"], "seed must be in 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(weights, tmp_path, capsys, flags, message):
    assert main(["evaluate", "dlss", "--weights", str(weights), "--out", str(tmp_path / "out"), *flags]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


# --- Root MSE ---


def test_units(crops):
    """A network that gives the target and 0.1 more on [-1, 1] has a root MSE of 0.05; one that gives the target has none; nothing is clipped."""
    for offset, error in ((0.1, 0.05), (0.0, 0.0), (-4.0, 2.0)):
        measured = measure(Fake(lambda crop, step, offset=offset: target(crop) + offset), crops, [4], SIGMAS)
        assert measured.root(4, NETWORK) == pytest.approx(error, abs=1e-6)
        assert np.sqrt(measured.squared[4] / 3).mean() == pytest.approx(error, abs=1e-6)


def test_classical_methods_see_the_same_target(crops):
    measured = measure(Fake(lambda crop, step: 0 * crop), crops, [5], SIGMAS)
    nearest = []
    for crop in crops:
        positions = np.arange(2, 64, 5)  # start (64 mod 5) // 2
        places = positions[np.abs(np.arange(64)[:, None] - positions).argmin(1)]
        nearest.append(np.mean((crop[np.ix_(places, places)] - target(crop)) ** 2) / 4)
    np.testing.assert_allclose(measured.errors[5]["aligned nearest"], nearest, rtol=1e-4)
    np.testing.assert_allclose(measured.errors[5][NETWORK], [np.mean(target(crop) ** 2) / 4 for crop in crops], rtol=1e-4)
    np.testing.assert_allclose(measured.errors[5]["aligned bilinear"], measured.errors[5]["aligned bilinear" + TUNED])  # tuned to sigma 0 here
    assert measured.best(5) == min((m for m in measured.errors[5] if TUNED in m), key=lambda m: measured.errors[5][m].mean())


def test_the_network_sees_its_samples_stretched(crops):
    """An identity for a network: its output is the infilled input, scaled by the samples' own extremes; a cast comes before it."""
    network = Supersampler(TINY, lambda x: x, None)
    crop = crops[0]
    samples = crop[2::5, 2::5]
    output = network(crop, 5)
    np.testing.assert_allclose(output[2::5, 2::5], (samples - samples.min()) / np.ptp(samples), atol=1e-6)
    assert len(np.unique(output)) <= samples.size
    assert not network(crop, 5, cast=np.zeros_like).any()
    legacy = Supersampler(replace(TINY, zeros_in_range=True), lambda x: x, None)
    shifted = crop / 8 + 0.8  # mid-grey is far below
    assert legacy(shifted, 5).min() > 0.5 > network(shifted, 5).min()


def test_the_one_stage_network_has_its_scale_undone():
    config = Config.one_stage()
    shapes = []

    def run(scans):
        shapes.append((scans.shape, float(tf.reduce_min(scans)), float(tf.reduce_max(scans))))
        return tf.fill((1, 512, 512, 1), 0.5)

    crop = np.random.default_rng(0).uniform(-1, 1, (512, 512)).astype(np.float32)
    output = Supersampler(config, run, None)(crop, 5)
    assert shapes == [((1, 103, 103, 1), -1.0, 1.0)]
    samples = crop[1::5, 1::5]
    np.testing.assert_allclose(output, 0.5 * np.ptp(samples) / 2 + (samples.min() + samples.max()) / 2, rtol=1e-6)
    assert all_steps(config) == [5] and published_as(config) is None
    with pytest.raises(ValueError, match="knows step 5 alone"):
        all_steps(config, (4,))


def test_outputs_are_blurred_as_in_training(crops):
    output = crops[0]
    adversarial = replace(TINY, steps=201)
    assert Supersampler(TINY, None, None).as_trained(output) is None
    np.testing.assert_allclose(Supersampler(replace(TINY, target="sharp"), None, None).as_trained(output), target(output), atol=1e-5)
    np.testing.assert_allclose(Supersampler(replace(adversarial, adversarial_blur="5x5"), None, None).as_trained(output), target(output), atol=1e-5)
    taps = np.array([0.30780, 0.38440, 0.30780])
    inner = sum(taps[i] * taps[j] * output[9 + i : 19 + i, 9 + j : 19 + j] for i in range(3) for j in range(3))
    network = Supersampler(adversarial, lambda x: 2 * x - 1, None)
    np.testing.assert_allclose(network.as_trained(output)[10:20, 10:20], inner, atol=1e-4)
    errors = measure(network, crops, [4], SIGMAS).errors[4]
    assert (errors[BLURRED] < errors[NETWORK]).all()  # of blocks


def test_steps():
    assert all_steps(Config()) == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert all_steps(Config(), (2, 5)) == [2, 4, 5, 6, 7, 8, 9, 10]
    assert all_steps(replace(Config(), scan_steps=(6,))) == [6]


# --- Items ---


def test_published_numbers_stand_where_they_belong():
    names = (NETWORK, "legacy area", "aligned bicubic" + TUNED)
    measured = Measured({step: {name: np.full(4, 0.01 * k + 0.001) for k, name in enumerate(names)} for step in (3, 4, 8)}, {}, np.zeros(4))
    unified, individual, sharp = (error_items(measured, replace(Config(), **c)) for c in ({}, {"scan_steps": (8,)}, {"target": "sharp"}))
    assert [unified[f"root MSE, step {s}: network"]["published"] for s in (3, 4, 8)] == [None, 0.0323, 0.0417]
    assert unified["root MSE, step 8: network"]["published_deviation"] == 0.0503
    assert individual["root MSE, step 8: network"]["published"] == 0.0452 and sharp["root MSE, step 8: network"]["published"] is None
    assert unified["root MSE, step 4: legacy area"]["published"] == 0.0810 and unified["root MSE, step 4: legacy area"]["baseline"] is None
    assert unified["share of crops with MSE above 0.0125, step 8"]["published"] == pytest.approx(115 / 20_000)
    assert individual["share of crops with MSE above 0.0125, step 8"]["published"] == pytest.approx(631 / 20_000)
    assert unified["root MSE, step 4: network"]["value"] == pytest.approx(0.001**0.5) and unified["root MSE, step 4: network"]["deviation"] == 0


def test_share_beyond_the_histogram():
    measured = Measured({4: {NETWORK: np.array([0.0126, 0.0124, 0.5, 0.6]), "aligned nearest" + TUNED: np.ones(4)}}, {}, np.zeros(4))
    assert error_items(measured, TINY)["share of crops with MSE above 0.0125, step 4"]["value"] == 0.75


def test_ratios_resample_crops_in_pairs():
    theirs = np.array([1e-4, 3e-2, 5e-3, 0.4])
    entry = ratio_items("ratio", theirs / 4, theirs)["ratio"]
    assert entry["value"] == pytest.approx(0.5) and entry["interval"] == pytest.approx([0.5, 0.5]) and entry["worse"] == 0
    assert ratio_items("ratio", np.array([4.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0]))["ratio"]["worse"] == pytest.approx(1 / 3)
    assert ratio_items("ratio", np.zeros(2), np.zeros(2)) == {}  # uniform crops, which everything restores


def test_the_quadratic_of_the_paper_is_found():
    """Errors that lie on p_raw give its coefficients; unseen steps do not count."""
    errors = {s: 0.002211 - 0.037887 / s**2 + 0.289451 / s**4 for s in range(4, 11)} | {3: 7.0}
    measured = Measured({s: {NETWORK: np.array([0.5 * e, 1.5 * e])} for s, e in errors.items()}, {}, np.zeros(2))
    assert quadratic(measured, Config()) == pytest.approx({"square": 0.289451, "linear": -0.037887, "constant": 0.002211})
    assert quadratic(measured, TINY) == {}


def test_casts_and_rivals_are_compared_on_the_same_crops(crops):
    """A network that rounds its input to nothing is as bad as a flat one; a rival with twice the error has twice the root MSE."""
    flat = Supersampler(TINY, lambda x: 0 * x, None)
    measured = measure(flat, crops, [4, 5], SIGMAS)
    items = cast_items(flat, crops, measured)
    assert all(items[f"relative change of root MSE, step 5: {name} input"]["value"] == 0 for name in ("float16", "uint8", "wrapping int8"))
    assert items["root MSE, step 5: wrapping int8 input"]["published"] == 0.0381
    assert items["relative change of root MSE, step 5: float16 input"]["published"] == pytest.approx(345 / 343 - 1)
    own, twice = (Fake(lambda crop, step, d=d: target(crop) + d) for d in (0.1, 0.2))
    items = rival_items({"other": twice}, crops, measure(own, crops, [4], SIGMAS))
    assert items["root MSE, step 4: other"]["value"] == pytest.approx(0.1, abs=1e-6) and items["root MSE, step 4: other"]["baseline"] == pytest.approx(
        0.05, abs=1e-6
    )
    assert items["ratio of other to the network, step 4"]["value"] == pytest.approx(2, rel=1e-4) and "root MSE, step 5: other" not in items


def test_tuning_finds_a_gaussian(crops):
    found = tune_all(crops, [4, 8])
    assert set(found) == {4, 8} and all(set(sigmas) == set(SIGMAS[4]) for sigmas in found.values())
    sharp = (crops[0] + 1) / 2
    images = pictures(Fake(lambda crop, step: crop), crops[0], 4, "aligned nearest" + TUNED, found[4])
    np.testing.assert_allclose(images[NETWORK], sharp, atol=1e-6)
    assert mse(images["aligned nearest" + TUNED], images["target (blurred)"]) < mse(images["infilled input"], images["target (blurred)"])


# --- Pixels, frequencies, Laplacians ---


def test_edge_distance():
    distance = edge_distance(64)
    for x, y in ((0, 0), (3, 20), (40, 62), (31, 32), (63, 5)):
        assert distance[y, x] == min(x + 1, 64 - x, y + 1, 64 - y)
    assert distance.max() == 32


def test_edge_curves():
    """An error of 3 on the edge and 1 elsewhere; the 64-pixel frame has 252 pixels."""
    error = np.where(edge_distance(64) == 1, 3.0, 1.0)
    at, fall = edge_curves(error)
    assert at.tolist() == [3] + [1] * 31
    mean = (3 * 252 + 4096 - 252) / 4096
    np.testing.assert_allclose(fall, [0] + [1 - 1 / mean] * 31)
    assert edge_items(error, 7)["fall of root MSE without a frame of 20 px"]["value"] == pytest.approx(1 - 1 / mean)


def test_spectrum_of_noise_is_flat_and_of_a_wave_is_a_peak():
    frequency, amplitude = amplitudes(np.random.default_rng(0).standard_normal((256, 256)))
    window = np.hanning(258)[1:-1]
    np.testing.assert_allclose(amplitude[4:], np.sqrt((window**2).sum() ** 2), rtol=0.25)
    assert frequency[0] == 1 / 256 and frequency[-1] == 0.5 and len(frequency) == 128
    frequency, amplitude = amplitudes(np.cos(2 * np.pi * 0.25 * np.arange(256))[None] * np.ones((256, 1)))
    assert frequency[amplitude.argmax()] == 0.25 and amplitude[frequency > 0.3].max() < 1e-3 * amplitude.max()


def test_spectral_distance():
    image = np.random.default_rng(1).standard_normal((64, 64))
    assert spectral_distance(image, image) == 0
    assert spectral_distance(2 * image + 5, image) == pytest.approx(np.log10(2))
    assert spectral_distance(image, 2 * image) == pytest.approx(np.log10(2))
    above = 3 * np.cos(2 * np.pi * 0.4375 * np.arange(64))
    assert spectral_distance(image + above, image) < 0.01
    assert np.isnan(spectral_distance(np.ones((64, 64)), image))


def test_ratio_of_laplacians():
    """Of a plane wave with k per pixel the Laplacian's amplitude is 2 (1 - cos k); white noise does not care."""
    k = 2 * np.pi / 50
    wave = np.sin(k * np.arange(512))[None] * np.ones((512, 1))
    assert mal_ratio(wave) == pytest.approx((1 - np.cos(k)) / (1 - np.cos(5 * k)), rel=0.03)
    assert mal_ratio(np.random.default_rng(0).random((512, 512))) == pytest.approx(1, abs=0.05)
    assert np.isnan(mal_ratio(np.ones((64, 64))))


# --- Recorded crops ---


def test_four_crops_of_a_micrograph_at_most(tmp_path):
    for k, shape in enumerate([(64, 64), (130, 200), (640, 640)]):
        save(tmp_path / f"{k}.tif", shape, k)
    found = RecordedCrops(tmp_path, 64)
    assert [path.name for path, _, _ in found.tiles] == ["0.tif"] + 4 * ["1.tif"] + 4 * ["2.tif"]
    assert found.tiles[1][1:] == (0, 0) and found.tiles[-1][1:] == (576, 576) and found.name(2).startswith("1.tif at ")
    assert all(crop.shape == (64, 64) for crop in found)
    drawn = recorded(tmp_path, 0, 64, 4, None)
    assert len(drawn) == 4 and drawn[0].min() == -1 and drawn[0].max() == 1
    assert drawn.chosen == recorded(tmp_path, 0, 64, 4, None).chosen != recorded(tmp_path, 1, 64, 4, None).chosen
    assert len(recorded(tmp_path, 0, 64, None, None)) == 9


def test_what_was_trained_on_is_not_scored(tmp_path):
    for k in range(8):
        save(tmp_path / f"{k}.tif", (64, 64), k)
    trained_on = describe_data(TINY, tmp_path)
    assert len(RecordedCrops(tmp_path, 64)) == len(RecordedCrops(tmp_path, 64, {"simulated specimens": 16})) == 8
    held_out = RecordedCrops(tmp_path, 64, json.loads(json.dumps(trained_on)))
    assert [path.name for path, _, _ in held_out.tiles] == ["7.tif"] and "only its 1 test files" in held_out.notes[0]
    save(tmp_path / "test" / "t.tif", (64, 64))
    assert [path.name for path, _, _ in RecordedCrops(tmp_path, 64).tiles] == ["t.tif"]


def test_a_folder_that_is_none_is_one_line(tmp_path):
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        RecordedCrops(tmp_path / "nowhere", 64, {"crops": {"sha256": "0"}})


def test_folders_without_large_micrographs_are_one_line(tmp_path):
    save(tmp_path / "a.tif", (63, 400))
    with pytest.raises(ValueError, match="no readable micrograph of at least 64 x 64 pixels"):
        RecordedCrops(tmp_path, 64)


def test_packed_crops_are_scored_by_their_test_split(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "crops.h5", "w") as file:
        file["test"] = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    crops = recorded(tmp_path / "crops.h5", 0, 64, None, None)
    assert len(crops) == 3 and crops.name(2) == "crop 2" and crops[0].max() == 1


def test_uniform_crops_are_scored(crops):
    """Everything restores them, so there is no ratio to report, and nothing that JSON cannot say."""
    uniform = Crops([np.full((64, 64), 7.0)] * 2, range(2))
    measured = measure(Supersampler(TINY, lambda x: 2 * x - 1, None), uniform, [4, 5], SIGMAS)
    items = error_items(measured, TINY) | cast_items(Supersampler(TINY, lambda x: 2 * x - 1, None), uniform, measured)
    assert items["root MSE, step 4: network"]["value"] == 0 and "ratio to the best tuned aligned interpolation, step 4" not in items
    json.dumps(items, allow_nan=False)
