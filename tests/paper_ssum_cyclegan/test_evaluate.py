"""The SSUM CycleGAN's evaluation: converters whose answer is known, line widths with offsets, disturbances, and the whole command."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile

from common import paper
from common.__main__ import main
from paper_ssum_cyclegan import Config, evaluate
from paper_ssum_cyclegan.ablation import ablation
from paper_ssum_cyclegan.cases import simulated
from paper_ssum_cyclegan.disturbances import DISTURBANCES
from paper_ssum_cyclegan.evaluate import (
    NETWORK,
    OPTICAL,
    SEM,
    WIENER,
    Filters,
    chip_rows,
    contrast_items,
    convert,
    inverted_items,
    measure,
    median,
    median_ratio,
    score_items,
    width_items,
    widths,
)
from paper_ssum_cyclegan.experiments import disturbance_items, tile_items
from paper_ssum_cyclegan.generator import build_generator
from paper_ssum_cyclegan.layouts import draw_curves
from paper_ssum_cyclegan.metrology import summary
from tests.helpers import publish_untrained

CONFIG = replace(Config.tiny(), width=4, trunk=4, blocks=2, dropout=0.0)


@pytest.fixture(scope="module")
def cases():
    return simulated(CONFIG, "test", 0, 2)


def knowing(cases):
    answers = {case.optical.tobytes(): case.sem for case in cases}
    return lambda image: answers[image.tobytes()]


def test_chips_are_those_of_a_seed_and_stream(cases):
    again, tuning = (simulated(CONFIG, stream, 0, 1) for stream in ("test", "tuning"))
    np.testing.assert_array_equal(cases[0].optical, again[0].optical)
    other = simulated(CONFIG, "test", 0, 2, draw_curves)
    assert [case.dark_metal for case in other] == [case.dark_metal for case in cases] and not len(other[0].lines)  # other layouts, the same microscopes
    assert not np.array_equal(cases[0].sem, tuning[0].sem) and not np.array_equal(cases[0].sem, other[0].sem) and cases[0].optical.shape == (512, 512)


def test_scores_of_one_that_knows_and_of_one_that_does_nothing(cases):
    methods = {OPTICAL: lambda image: image, WIENER: lambda image: cv2.GaussianBlur(image, (0, 0), 4), NETWORK: knowing(cases)}
    found = measure(cases, convert(cases, methods))
    items = score_items("x: ", found)
    assert items["x: EPI gain over the optical image"]["ours"] == pytest.approx(1) and items["x: SSIM gain over the tuned Wiener filter"][
        "ours"
    ] == pytest.approx(1)
    for rival, name in ((OPTICAL, "optical image"), (WIENER, "tuned Wiener filter")):
        gain = items[f"x: SSIM gain over the {name}, fitted"]
        assert gain["value"] == pytest.approx(np.mean(found["ssim_fit"][NETWORK] - found["ssim_fit"][rival])) and gain["value"] > 0
    assert items["x: invented structures per megapixel"]["value"] == items["x: lost, share of the area"]["value"] == 0
    assert 0 < items["x: lost, share of the area"]["baseline"] < items["x: lost, share of the area"][WIENER]  # blur loses more
    assert items["x: mean difference on edges"]["value"] < 1e-6 < items["x: mean difference on edges"]["baseline"]
    methods[NETWORK] = methods[OPTICAL]
    items = score_items("", measure(cases, convert(cases, methods)), published=1.64)
    gains = [entry for name, entry in items.items() if "gain over the optical" in name]
    assert len(gains) == 12 and all(entry["value"] == 0 for entry in gains)
    assert [name for name, entry in items.items() if entry["published"]] == ["PSNR gain over the optical image"]


def test_mirrored_contrast_costs_nothing_after_the_fit(cases):
    know = knowing(cases)
    methods = {OPTICAL: lambda image: image, WIENER: lambda image: image, NETWORK: lambda image: 0.8 - 0.5 * know(image)}
    items = score_items("", measure(cases, convert(cases, methods)))
    assert items["PSNR gain over the optical image, fitted"]["ours"] > 60 and items["PSNR gain over the optical image"]["ours"] < 30


def test_the_linear_filter_has_its_grey_scale_and_its_widths_from_other_chips(cases):
    filters = Filters.tuned(cases)
    optical, sem = (np.concatenate([image[128:384, 128:384].ravel() for image in images]) for images in zip(*((c.optical, c.sem) for c in cases), strict=True))
    mine = np.concatenate([filters(case.optical)[128:384, 128:384].ravel() for case in cases])
    assert np.mean((mine - sem) ** 2) < np.mean((optical - sem) ** 2)
    errors = {}
    for name, method in (("tuned", filters.for_widths), ("plain", lambda image: image)):
        found, lines = widths(cases, convert(cases, {OPTICAL: method}))[OPTICAL]
        errors[name] = summary(found - median(found), lines)["width_median_error"]
    assert errors["tuned"] <= errors["plain"]


def test_line_widths_with_the_offset_of_other_chips(cases):
    converted = convert(cases, {OPTICAL: lambda image: image, WIENER: lambda image: image, NETWORK: knowing(cases)})
    found = widths(cases, converted)
    np.testing.assert_array_equal(found[NETWORK][0], found[SEM][0])
    offsets = {name: median(errors) for name, (errors, _) in found.items()}
    items = width_items(cases, converted, offsets)
    entry = items["line width, median error"]
    assert entry["value"] == entry[SEM] < 8 and entry["n"] == sum(len(case.lines) for case in cases)
    ratio = items["line width, median error over the optical image's"]
    assert ratio["value"] == entry["value"] / entry["baseline"] and ratio["interval"][0] <= ratio["value"] <= ratio["interval"][1]
    shifted = width_items(cases, converted, {name: offset + [20, 0] for name, offset in offsets.items()})
    assert shifted["line width, median error"]["value"] > entry["value"]
    bare = [replace(case, lines=np.empty((0, 5))) for case in cases]
    assert all(len(errors) == 0 for errors, _ in widths(bare, converted).values()) and np.array_equal(median(np.empty((0, 2))), [0, 0])


def test_interval_of_a_ratio_of_medians_covers_the_truth():
    """Groups that share an error of their own: most intervals hold the true ratio of 2, and what was not found does not count."""
    hits, group = 0, np.repeat(np.arange(30), 4)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ours, theirs = (scale * np.abs(rng.normal(size=30)[group] + 0.3 * rng.normal(size=120)) for scale in (2, 1))
        ours[::7] = np.nan
        low, high = median_ratio(ours, theirs, group, 200)
        hits += low < 2 < high
    assert 50 <= hits
    assert median_ratio(np.full(4, np.nan), np.ones(4), np.arange(4)) is None


def test_tuning_and_test_chips_differ(monkeypatch, tmp_path):
    """The filter and the offsets see the chips of the stream "tuning" only."""
    seen = {}

    def spy(config, stream, seed, count):
        seen[stream] = simulated(config, stream, seed, 1)
        return seen[stream]

    tuned = []
    monkeypatch.setattr(evaluate, "simulated", spy)
    monkeypatch.setattr(evaluate.Filters, "tuned", classmethod(lambda cls, cases: tuned.append(cases) or cls((1.0, 0.1), (1.0, 0.0), (1.0, 0.1))))
    evaluate.evaluate_ssum_cyclegan(
        tmp_path / "out", str(publish_untrained(paper("ssum_cyclegan"), CONFIG, tmp_path / "weights")), chips=1, disturbed=0, curves=0
    )
    assert set(seen) == {"tuning", "test"} and tuned == [seen["tuning"]]


def test_gains_of_bright_and_of_dark_metal_are_told_apart(cases):
    bright, dark = (replace(cases[0], dark_metal=which) for which in (False, True))
    found = {f"{score}_fit": {NETWORK: np.array([5.0, 1.0]), OPTICAL: np.array([2.0, 4.0])} for score in ("psnr", "epi")}
    items = contrast_items([bright, dark], found)
    assert [items[f"{metal} metal: PSNR gain over the optical image, fitted"]["value"] for metal in ("bright", "dark")] == [3, -3]
    extra = {name: {NETWORK: np.array([3.0, 4.0])} for name in ("invented", "invented area", "lost area")}
    assert [(row["dark metal"], row["gain, fitted, dB"], row["invented"]) for row in chip_rows([bright, dark], found | extra)] == [(False, 3, 3), (True, -3, 4)]
    assert len(contrast_items([bright], {score: {name: values[:1] for name, values in methods.items()} for score, methods in found.items()})) == 2
    chips = simulated(CONFIG, "test", 0, 8)  # the sign of the correlation tells which it is
    signs = [np.corrcoef(chip.optical.ravel(), cv2.GaussianBlur(chip.sem, (0, 0), 6).ravel())[0, 1] < 0 for chip in chips]
    assert [chip.dark_metal for chip in chips] == signs and any(signs)


def test_dark_metal_is_measured_with_its_negative_too(cases):
    bright, dark = (replace(case, dark_metal=which) for case, which in zip(cases, (False, True), strict=True))
    given, answer = [], cv2.GaussianBlur(dark.sem, (0, 0), 0.5)  # a perfect one has no finite PSNR
    found = {"psnr_fit": {OPTICAL: np.array([99.0, 10.0])}, "epi_fit": {OPTICAL: np.array([1.0, 0.0])}}
    items = inverted_items([bright, dark], found, lambda image: given.append(image) or answer)
    np.testing.assert_array_equal(given, [1 - dark.optical])
    psnr, epi = (items[f"dark metal, negative given: {score} gain over the optical image, fitted"] for score in ("PSNR", "EPI"))
    assert psnr["n"] == 1 and psnr["baseline"] == 10 and psnr["value"] > 5 and epi["ours"] > 0.8
    assert inverted_items([bright], found, None) == {}


# --- Disturbances ---


@pytest.mark.parametrize("name", DISTURBANCES)
def test_disturbances(name):
    rng = np.random.default_rng(0)
    optical = cv2.GaussianBlur(rng.random((80, 90), np.float32), (0, 0), 2)
    seen, sem = DISTURBANCES[name](optical, optical.copy(), np.random.default_rng(1))
    assert seen.shape == sem.shape == optical.shape and seen.dtype == sem.dtype == np.float32 and not np.array_equal(seen, optical)
    if name.startswith("rotation"):  # of both alike
        np.testing.assert_array_equal(seen, sem)
        assert not np.array_equal(sem, optical)
    else:
        np.testing.assert_array_equal(sem, optical)
    if name == "shift of 2 px":
        np.testing.assert_array_equal(seen[2:, 2:], optical[:-2, :-2])
    if name.startswith("noise"):
        assert np.std(seen - optical) == pytest.approx(float(name.split("/")[0].split()[-1]) / 255, rel=0.05)


def test_what_disturbs_a_converter_that_does_nothing(cases):
    pair = [(cases[0].optical, cases[0].sem)]
    items, rows = disturbance_items(pair, lambda image: image, 0)
    fall = {name: items[f"disturbed, {name}: change of PSNR, aligned and fitted"]["value"] for name in DISTURBANCES}
    assert len(rows) == len(DISTURBANCES) and fall["noise of 20/255"] < fall["noise of 5/255"] < 0
    assert abs(fall["shift of 5 px"]) < 0.3  # which aligning undoes, but for the margin
    same, _ = disturbance_items(pair, lambda image: np.zeros_like(image) + 0.5, 0)
    assert all(abs(entry["value"]) < 2 for name, entry in same.items() if "rotation" not in name)  # nothing to lose


def test_tiles_equal_the_whole_but_for_instance_normalisation():
    name, found = "tiles against the whole: ", {}
    for norm in ("batch", "instance"):
        config = replace(CONFIG, norm=norm)
        network = build_generator(config)
        for v in network.trainable_variables:
            v.assign(v + 0.2 * np.random.default_rng(1).standard_normal(v.shape))
        found[norm] = {number: entry["value"] for number, entry in tile_items(network, config, 0, count=1, side=320).items()}
    assert found["batch"][name + "largest difference"] < 1e-4 and abs(found["batch"][name + "change of PSNR, fitted"]) < 1e-4
    assert found["instance"][name + "largest difference"] > found["instance"][name + "mean difference"] > 1e-3


# --- The command ---


def test_command(tmp_path, capsys):
    weights = publish_untrained(paper("ssum_cyclegan"), CONFIG, tmp_path / "weights")
    paper("ssum_cyclegan").build_generator(CONFIG).save_weights(weights / "F.weights.h5")
    (weights / "metrics.csv").write_text("step,loss,G_adv,F_adv,D_Y,D_X,cycle_x,cycle_y\n50,9,1,1,1,1,0.2,0.3\n100,8,1,1,1,1,0.1,0.2\n")
    optical, sem = (cv2.GaussianBlur(np.random.default_rng(k).random((161, 170), np.float32), (0, 0), 2) for k in range(2))
    for name, image in (("optical", optical), ("sem", sem)):
        (tmp_path / "pairs").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "pairs" / f"a_{name}.tif", image)
    flags = ["--weights", str(weights), "--data", str(tmp_path / "pairs"), "--chips", "1", "--tuning-chips", "1", "--disturbed", "1", "--curves", "1"]
    assert main(["evaluate", "ssum_cyclegan", "--out", str(tmp_path / "out"), *flags]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "results.json",
        "results.md",
        "scores.csv",
        "disturbances.csv",
        "examples.png",
        "curves.png",
        "losses.png",
    }
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    same = "PSNR gain over the optical image"
    assert {same, f"R: {same}", f"curves: {same}", "cycle error of optical images"} <= set(document["items"])
    assert "line width, median error" in document["notes"]["without a number"]  # an untrained network shows no line
    tifffile.imwrite(tmp_path / "pairs" / "b_optical.tif", optical)
    for image, message in ((sem[:100], "b_optical.tif has"), (np.zeros_like(sem), "b_sem.tif is blank")):  # said before anything is measured
        tifffile.imwrite(tmp_path / "pairs" / "b_sem.tif", image)
        assert main(["evaluate", "ssum_cyclegan", "--out", str(tmp_path / "none"), *flags]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "none").exists()
    assert main(["evaluate", "ssum_cyclegan", "--out", str(tmp_path / "none"), *flags[:2], "--chips", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_ablation(tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        ablation(tmp_path, steps=1)
    ablation(tmp_path, blocks=(1, 2), dropout=(0.0,), steps=2, chips=1)
    config = json.loads((tmp_path / "blocks1_dropout0" / "config.json").read_text())["config"]
    assert (config["blocks"], config["shift_l1_weight"], config["shift"]) == (1, 20.0, 0)  # it learns from pairs
    checkpoint = tmp_path / "blocks1_dropout0" / "checkpoints" / "ckpt-2"
    before = checkpoint.stat().st_mtime_ns
    ablation(tmp_path, blocks=(1,), dropout=(0.0,), steps=2, chips=1)  # nothing is trained again
    assert checkpoint.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="steps|config"):
        ablation(tmp_path, blocks=(1,), dropout=(0.0,), steps=2, chips=1, seed=1)
    lines = (tmp_path / "ablation.csv").read_text().splitlines()
    assert lines[0].startswith("blocks,dropout,psnr") and [line.split(",")[0] for line in lines[1:]] == ["1", "optical image"]
