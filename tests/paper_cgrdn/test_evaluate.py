"""CGRDN's evaluation: scores by hand, fair pairs, what is left out, experiments with restorers whose answer is known, and the whole command."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from common import paper
from common.__main__ import main
from common.micrograph import Micrograph, save_micrograph
from paper_cgrdn import Config, comparison
from paper_cgrdn.baselines import HINDSIGHT, METHODS, despiked, oracle_gaussian, tune
from paper_cgrdn.columns import adf_crystal
from paper_cgrdn.evaluate import INPUT, NETWORK, Restorer, best, damaged, measure, modality_of, psnr, recorded, score_items, shown_patch, simulated, ssim
from paper_cgrdn.experiments import column_items, frames_of, hallucination_items, registered, removal_items, series_items
from tests.helpers import publish_untrained

CONFIG = Config.tiny()
PLAIN = {"Gaussian": 0.3, "median": 0.3}


def same(image):
    return image


@pytest.fixture(scope="module")
def pairs():
    return simulated(CONFIG, "hrstem", "test", 0, 64, 3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return publish_untrained(paper("cgrdn"), CONFIG, tmp_path_factory.mktemp("weights"))


# --- Scores ---


def test_psnr_has_the_targets_range_for_its_peak():
    target = np.zeros((16, 16))
    target[0, 0] = 50
    assert psnr(target, target + 5) == pytest.approx(20)
    assert psnr(7 * target - 3, 7 * (target + 5) - 3) == pytest.approx(20)
    assert psnr(target, target) == pytest.approx(120)
    assert ssim(target + np.eye(16), target + np.eye(16)) == pytest.approx(1)


def test_simulated_pairs_are_those_of_a_seed_and_never_identities(pairs):
    again = simulated(CONFIG, "hrstem", "test", 0, 64, 2)
    for one, other in zip(pairs, again, strict=False):
        np.testing.assert_array_equal(one.distorted, other.distorted)
    assert all(not np.array_equal(pair.distorted, pair.target) for pair in pairs)
    half_empty = np.zeros((2, 64, 64), np.float32)
    half_empty[1] = np.random.default_rng(0).uniform(size=(64, 64))
    assert all(shown_patch(half_empty, k, 32, np.random.default_rng(k)).std() > 0 for k in range(6))
    tuning = simulated(CONFIG, "hrstem", "tuning", 0, 64, 2)
    assert not np.array_equal(pairs[0].target, tuning[0].target)


def test_measure_scores_all_on_the_same_target(pairs):
    answers = {pair.distorted.tobytes(): pair.target for pair in pairs}
    found = measure(lambda image: answers.get(image.tobytes(), image), pairs, PLAIN, "test")
    np.testing.assert_array_equal(found["harm"][NETWORK], 0)
    assert set(found["psnr"]) == {INPUT, NETWORK, HINDSIGHT, *PLAIN} and best(found) != HINDSIGHT
    np.testing.assert_allclose(found["psnr"][NETWORK], 120)
    np.testing.assert_allclose(found["error"][NETWORK], 0)
    for k, pair in enumerate(pairs):
        assert found["psnr"][INPUT][k] == pytest.approx(psnr(pair.target, pair.distorted))
        assert found["psnr"]["Gaussian"][k] == pytest.approx(psnr(pair.target, METHODS["Gaussian"][0](pair.distorted, 0.3)))
    assert best(found) in PLAIN
    items = score_items("x: ", found)
    gain = items["x: PSNR gain over the best tuned classical method"]
    assert gain["value"] == pytest.approx(np.mean(120 - found["psnr"][best(found)])) and gain["worse"] == 0


def test_strengths_may_differ_from_pair_to_pair(pairs):
    tables = [{"Gaussian": k} for k in (0.0, 0.3, 1.0)]
    found = measure(same, pairs, tables, "test")
    np.testing.assert_allclose(found["psnr"]["Gaussian"][0], found["psnr"][INPUT][0], rtol=1e-5)
    assert found["psnr"]["Gaussian"][2] == pytest.approx(psnr(pairs[2].target, METHODS["Gaussian"][0](pairs[2].distorted, 1.0)))


# --- Classical methods ---


@pytest.mark.parametrize("name", list(METHODS))
def test_classical_methods_follow_gain_and_offset_and_remove_noise(name):
    rng = np.random.default_rng(0)
    clean = np.kron(rng.uniform(20, 60, (6, 6)), np.ones((12, 12)))
    noisy = rng.poisson(clean).astype(np.float32)
    method, candidates = METHODS[name]
    k = tune([(noisy, clean)], psnr, [name])[name]
    slack = 1e-3 if name.startswith("BM3D") else 0  # its last bits vary from call to call
    assert k in candidates and all(psnr(clean, method(noisy, other)) <= psnr(clean, method(noisy, k)) + slack for other in candidates)
    assert psnr(clean, method(noisy, k)) > psnr(clean, noisy) + 1
    np.testing.assert_allclose(method(250 * noisy + 1000, k), 250 * method(noisy, k) + 1000, rtol=2e-2)


def test_nothing_is_filtered_where_there_is_no_noise():
    ramp = np.add.outer(np.arange(40.0), np.arange(40.0)).astype(np.float32)
    for name in ("Gaussian", "median", "non-local means"):
        np.testing.assert_allclose(METHODS[name][0](ramp, 0.4), ramp, atol=1.0)


def test_hits_and_dead_pixels_are_taken_out_and_columns_stay():
    rows, columns = np.mgrid[:48, :48]
    image = (0.5 + 0.4 * np.cos(rows / 2.5) * np.cos(columns / 2.5)).astype(np.float32)
    marred = image.copy()
    marred[10, 10], marred[30, 31:33] = 6.0, -1.0
    np.testing.assert_array_equal(despiked(image), image)
    assert np.abs(despiked(marred) - image).max() < 0.5 and np.sum(despiked(marred) != image) <= 3


def test_oracle_gaussian_is_the_best_of_its_candidates():
    rng = np.random.default_rng(1)
    clean = cv2.GaussianBlur(rng.normal(size=(64, 64)).astype(np.float32), (0, 0), 4)
    noisy = clean + 0.3 * clean.std() * rng.standard_normal(clean.shape).astype(np.float32)
    assert psnr(clean, oracle_gaussian(noisy, clean)) >= max(psnr(clean, noisy), psnr(clean, cv2.GaussianBlur(noisy, (0, 0), 2.0)) - 0.2)


# --- Recorded images ---


def test_recorded_images_with_noise_of_their_own_are_halved_or_left_out(tmp_path):
    rng = np.random.default_rng(2)
    smooth = cv2.GaussianBlur(rng.normal(size=(200, 200)).astype(np.float32), (0, 0), 8)
    smooth = 100 + 50 * smooth / smooth.std()
    for name, noise in (("quiet", 1), ("loud", 25), ("deaf", 200)):
        save_micrograph(tmp_path / f"{name}.tif", Micrograph((smooth + noise * rng.standard_normal(smooth.shape)).astype(np.float32)))
    (tmp_path / "broken.tif").write_bytes(b"II*\0nothing")
    crops, notes = recorded(tmp_path, 64)
    names = {name.split(" at")[0] for name, _ in crops}
    assert names == {"quiet.tif", "loud.tif"} and len(crops) == 3  # two crops of the whole, one of the halved 100 x 100
    told = {note.split(":")[0] for note in notes}
    assert {"loud.tif", "deaf.tif", "broken.tif"} <= told and "quiet.tif" not in told
    pairs = damaged(crops, replace(CONFIG, modalities=("lrtem", "hrstem")), 0)
    for k, ((_, crop), pair) in enumerate(zip(crops, pairs, strict=True)):
        drawn = dict(pair.draws)
        assert 2 <= drawn["counting"]["electrons"] <= 200 and not {"identity", "warp"} & drawn.keys()
        assert ("probe_blur" in drawn) == (modality_of(k, replace(CONFIG, modalities=("lrtem", "hrstem"))) == "hrstem")
        assert np.corrcoef(pair.target.ravel(), crop.ravel())[0, 1] > 0.8
    with pytest.raises(ValueError, match="holds no micrograph"):
        recorded(tmp_path, 512)


# --- Experiments ---


def test_columns_of_a_restorer_that_does_nothing_and_of_one_that_knows():
    items = column_items(same, 0, 3)
    for name, entry in items.items():
        assert entry["value"] == entry["baseline"], name
    raw = [entry["value"] for name, entry in items.items() if name.endswith("position, std")]
    assert len(raw) == 3 and raw[1] / raw[2] == pytest.approx(10**0.5, rel=0.15)  # counting: one over the root of the dose
    clean = adf_crystal((256, 256), 16.0, 2.2).image
    for name, entry in column_items(lambda image: clean * image.mean() / clean.mean(), 0, 3).items():
        if "position" in name:
            assert entry["value"] < 0.02 * entry["baseline"], name


def test_made_up_lattices_and_filled_vacancies_are_seen():
    honest = hallucination_items(same, 0, 3)
    left, noise, vacancy = honest.values()
    assert noise["value"] == noise["baseline"] < 22 and left["value"] == 1 and abs(vacancy["value"]) < 0.25
    full = 20 * adf_crystal((256, 256), 16.0, 2.2).image
    _, noise, vacancy = hallucination_items(lambda image: image + full, 0, 2).values()
    assert noise["value"] > 5 * noise["baseline"] and vacancy["value"] > 0.4  # half of the signal is the restorer's own


def test_what_is_removed_is_noise_or_signal():
    clean = adf_crystal((256, 256), 16.0, 2.2).image
    known = removal_items(lambda image: 20 * clean, 0, 3).values()  # takes off the noise, all of it and nothing else
    assert all(abs(entry["value"]) < 0.01 for entry in known)
    neighbours, share = removal_items(lambda image: 20 * clean.mean() + 0 * image, 0, 3).values()  # takes off everything
    assert neighbours["value"] > 0.3 and share["value"] == pytest.approx(1, abs=0.01)
    neighbours, share = removal_items(lambda image: 0.5 * (image + 20 * clean), 0, 3).values()  # half of the noise
    assert abs(neighbours["value"]) < 0.01 and abs(share["value"]) < 0.01


def test_series(tmp_path):
    """Frames of one object that drifts: shifts are found, and what averages noise away comes closer to the other frames."""
    rng = np.random.default_rng(3)
    big = cv2.GaussianBlur(rng.normal(size=(160, 160)).astype(np.float32), (0, 0), 3)
    big = 100 + 30 * big / big.std()
    shifts = [(0, 0), (2, -3), (1, 4), (-2, 1)]
    frames = np.stack([np.roll(big, shift, (0, 1))[16:144, 16:144] + 15 * rng.standard_normal((128, 128)) for shift in shifts]).astype(np.float32)
    found = registered(frames, frames[0])
    assert all(np.std((frame - found[0])[20:-20, 20:-20]) < 1.15 * 15 * 2**0.5 for frame in found)  # noise alone is left
    path = tmp_path / "series.tif"
    tifffile.imwrite(path, frames, photometric="minisblack")
    assert frames_of(path).shape == (4, 128, 128)
    items = {
        name.split(": ")[1]: entry["value"]
        for name, entry in series_items(lambda image: cv2.GaussianBlur(image, (0, 0), 1.5), frames_of(path), path.name).items()
    }
    assert items["restored"] < 0.65 * items["the frame"] and items["best Gaussian"] < items["the frame"]
    tifffile.imwrite(tmp_path / "two.tif", frames[:2], photometric="minisblack")
    with pytest.raises(ValueError, match="at least three"):
        frames_of(tmp_path / "two.tif")


# --- The command ---


def test_writes_everything(weights, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    smooth = cv2.GaussianBlur(np.random.default_rng(4).uniform(size=(80, 80)).astype(np.float32), (0, 0), 3)
    save_micrograph(folder / "one.tif", Micrograph(smooth))
    flags = "--images 2 --side 64 --tuning-images 1 --alone 1 --draws 2".split()
    assert main(["evaluate", "cgrdn", "--weights", str(weights), "--data", str(folder), *flags, "--out", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    items = results["items"]
    wanted = ["hrstem: PSNR gain over the distorted image", "lrtem: PSNR gain over the best tuned classical method", "R: error"]
    wanted += ["hrstem: change of an undistorted image", "all modalities: PSNR gain over the best tuned classical method", "hrstem: PSNR, displacement alone"]
    wanted += ["lrtem: PSNR, xray_hits alone", "columns at 30 electrons per pixel (1,920 per square angstrom): position, rmse"]
    for name in [*wanted, "vacancy: signal over that of occupied sites", "hrstem: distance of spectra", "tiles against the whole: mean difference"]:
        assert np.isfinite(items[name]["value"]), name
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"results.json", "scores.csv", "distortions.csv", "recorded.csv", "examples.png"}
    assert set(results["strengths"]) == set(CONFIG.modalities) and any("a recorded series" in note for note in results["notes"]["not run"])


@pytest.mark.parametrize(("flags", "message"), [(["--side", "66"], "multiple of 4"), (["--images", "0"], "images"), (["--data", "nowhere"], "nowhere")])
def test_bad_input_is_one_line(weights, tmp_path, capsys, flags, message):
    quick = "--images 1 --side 64 --tuning-images 1 --alone 0 --draws 0".split()
    assert main(["evaluate", "cgrdn", "--weights", str(weights), *quick, *flags, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and message in said[0] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [{"side": 128}, {"series": Path("stack.ser")}])
def test_a_network_of_one_size_refuses_others_before_anything_is_measured(tmp_path, monkeypatch, given):
    monkeypatch.setattr(Restorer, "load", classmethod(lambda cls, weights: (None, replace(Config.paper(), network="mr_unet"))))
    with pytest.raises(ValueError, match="256 x 256 pixels only"):
        paper("cgrdn").evaluate(tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_comparison_trains_each_network_once(tmp_path, monkeypatch):
    tiny = replace(Config.tiny(), groups=1, dense_blocks=1)
    monkeypatch.setattr(Config, "small", classmethod(lambda cls: tiny))
    monkeypatch.setattr(comparison, "SIDE", 64)
    monkeypatch.setattr(comparison, "PATCH", 64)
    comparison.comparison(tmp_path, ("cgrdn", "grdn"), steps=4, images=1)
    checkpoint = tmp_path / "grdn" / "checkpoints" / "ckpt-4"
    before = checkpoint.stat().st_mtime_ns
    comparison.comparison(tmp_path, ("grdn",), steps=4, images=1)
    assert checkpoint.stat().st_mtime_ns == before
    lines = (tmp_path / "comparison.csv").read_text().splitlines()
    assert lines[0] == "network,parameters,psnr" and [line.split(",")[0].strip('"') for line in lines[1:]] == ["grdn", "distorted", "Gaussian"]
    with pytest.raises(ValueError, match="at least 1"):
        comparison.comparison(tmp_path, ("grdn",), steps=0)


def test_compared_networks_see_the_same_number_of_pixels(tmp_path, monkeypatch):
    seen = []

    def stop(config, *_, **__):
        seen.append(config)
        raise InterruptedError

    monkeypatch.setattr("paper_cgrdn.train.train_cgrdn", stop)
    for network in ("cgrdn", "grdn", "mr_unet"):
        with pytest.raises(InterruptedError):
            comparison.comparison(tmp_path, (network,), steps=8)
    assert [config.network for config in seen] == ["cgrdn", "grdn", "mr_unet"] and [config.side for config in seen] == [128, 128, 256]
    assert {config.steps * config.batch * config.side**2 for config in seen} == {8 * 128**2}


def test_a_restorer_restores_as_restoring_does(weights):
    from common import restore

    image = np.random.default_rng(5).gamma(4, 10, (64, 96)).astype(np.float32)
    np.testing.assert_allclose(Restorer.load(str(weights))[0](image), restore(image, "cgrdn", weights=weights), rtol=1e-4)
