"""The SSUM CycleGAN's evaluation: converters whose answer is known, line widths with offsets, disturbances, and the whole command."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile

from common import paper
from common.__main__ import main
from paper_ssum_cyclegan import Config
from paper_ssum_cyclegan.ablation import ablation
from paper_ssum_cyclegan.disturbances import DISTURBANCES
from paper_ssum_cyclegan.evaluate import NETWORK, OPTICAL, SEM, WIENER, disturbance_items, measure, median, score_items, simulated, width_items, widths
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
    assert not np.array_equal(cases[0].sem, tuning[0].sem) and cases[0].optical.shape == (512, 512)


def test_scores_of_one_that_knows_and_of_one_that_does_nothing(cases):
    methods = {OPTICAL: lambda image: image, WIENER: lambda image: image, NETWORK: knowing(cases)}
    items = score_items("x: ", measure(cases, methods))
    assert items["x: EPI gain over the optical image"]["ours"] == pytest.approx(1) and items["x: SSIM gain over the tuned Wiener filter"][
        "ours"
    ] == pytest.approx(1)
    assert items["x: invented structures per megapixel"]["value"] == items["x: lost structures per megapixel"]["value"] == 0
    assert items["x: lost structures per megapixel"]["baseline"] > 0
    assert items["x: mean difference on edges"]["value"] < 1e-6 < items["x: mean difference on edges"]["baseline"]
    methods[NETWORK] = methods[OPTICAL]
    items = score_items("", measure(cases, methods))
    gains = [entry for name, entry in items.items() if "gain over" in name]
    assert len(gains) == 18 and all(entry["value"] == 0 for entry in gains)
    assert [entry["published"] for entry in gains if entry["published"]] == [1.64]


def test_mirrored_contrast_costs_nothing_after_the_fit(cases):
    methods = {OPTICAL: lambda image: image, WIENER: lambda image: image, NETWORK: lambda image: 0.8 - 0.5 * knowing(cases)(image)}
    items = score_items("", measure(cases, methods))
    assert items["PSNR gain over the optical image, fitted"]["ours"] > 60 and items["PSNR gain over the optical image"]["ours"] < 30


def test_line_widths_with_the_offset_of_other_chips(cases):
    methods = {OPTICAL: lambda image: image, WIENER: lambda image: image, NETWORK: knowing(cases)}
    found = widths(cases, methods)
    np.testing.assert_array_equal(found[NETWORK][0], found[SEM][0])
    offsets = {name: median(errors) for name, (errors, _) in found.items()}
    items = width_items(cases, methods, offsets)
    entry = items["line width, median error"]
    assert entry["value"] == entry[SEM] < 5 and entry["n"] == sum(len(case.lines) for case in cases)
    shifted = width_items(cases, methods, {name: offset + [10, 0] for name, offset in offsets.items()})
    assert shifted["line width, median error"]["value"] > entry["value"]


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
    if name.startswith("noise"):
        assert np.std(seen - optical) == pytest.approx(float(name.split("/")[0].split()[-1]) / 255, rel=0.05)
    if name.startswith("shift"):
        pixels = int(name.split()[2])
        np.testing.assert_array_equal(seen[pixels:, pixels:], optical[:-pixels, :-pixels])


def test_what_disturbs_a_converter_that_does_nothing(cases):
    items, rows = disturbance_items(cases[:1], lambda image: image, 0)
    fall = {name: items[f"disturbed, {name}: change of PSNR, aligned and fitted"]["value"] for name in DISTURBANCES}
    assert len(rows) == len(DISTURBANCES) and fall["noise of 20/255"] < fall["noise of 5/255"] < 0 and abs(fall["gain 0.8"]) < 0.05
    assert abs(fall["shift of 2 px"]) < 0.2  # alignment takes it back


# --- The command ---


def test_command(tmp_path, capsys):
    weights = publish_untrained(paper("ssum_cyclegan"), CONFIG, tmp_path / "weights")
    paper("ssum_cyclegan").build_generator(CONFIG).save_weights(weights / "F.weights.h5")
    (weights / "metrics.csv").write_text("step,loss,G_adv,F_adv,D_Y,D_X,cycle_x,cycle_y\n50,9,1,1,1,1,0.2,0.3\n100,8,1,1,1,1,0.1,0.2\n")
    optical, sem = (cv2.GaussianBlur(np.random.default_rng(k).random((160, 168), np.float32), (0, 0), 2) for k in range(2))
    for name, image in (("optical", optical), ("sem", sem)):
        (tmp_path / "pairs").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "pairs" / f"a_{name}.tif", image)
    flags = ["--weights", str(weights), "--data", str(tmp_path / "pairs"), "--chips", "1", "--tuning-chips", "1", "--disturbed", "1"]
    assert main(["evaluate", "ssum_cyclegan", "--out", str(tmp_path / "out"), *flags]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "results.json",
        "results.md",
        "scores.csv",
        "disturbances.csv",
        "examples.png",
        "losses.png",
    }
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"R: PSNR gain over the optical image", "cycle error of optical images"} <= set(document["items"])
    assert "line width, median error" in document["notes"]["without a number"]  # an untrained network shows no line
    assert main(["evaluate", "ssum_cyclegan", "--out", str(tmp_path / "none"), *flags[:2], "--chips", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_ablation(tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        ablation(tmp_path, steps=1)
    ablation(tmp_path, blocks=(1, 2), dropout=(0.0,), steps=2, chips=1)
    before = (tmp_path / "blocks1_dropout0" / "final.weights.h5").stat().st_mtime_ns
    ablation(tmp_path, blocks=(1,), dropout=(0.0,), steps=2, chips=1)  # nothing is trained again
    assert (tmp_path / "blocks1_dropout0" / "final.weights.h5").stat().st_mtime_ns == before
    lines = (tmp_path / "ablation.csv").read_text().splitlines()
    assert lines[0].startswith("blocks,dropout,psnr") and [line.split(",")[0] for line in lines[1:]] == ["1", "optical image"]
