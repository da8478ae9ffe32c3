"""SEMNet's evaluation: what it writes, what it refuses, and that its parts measure what they say."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from common import paper
from common.specimens import simulate
from paper_semnet import Config
from paper_semnet.evaluate import aligned, evaluate_semnet, real_pairs, scorable_images
from tests.helpers import publish_untrained


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(publish_untrained(paper("semnet"), replace(Config.tiny(), features=8, growth=4), tmp_path_factory.mktemp("weights")))


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.round(np.clip(image, 0, 1) * 255).astype(np.uint8))


def test_results_of_all_tracks(weights, tmp_path):
    for k in range(2):
        high = simulate("powder", (3, k), (96, 112)).image
        write(tmp_path / "data" / f"{k}.png", high)
        write(tmp_path / "pairs" / "hq" / f"{k}.png", high)
        write(tmp_path / "pairs" / "lq" / f"{k}.png", high.reshape(48, 2, 56, 2).mean((1, 3)))
    evaluate_semnet(tmp_path / "out", weights, data=tmp_path / "data", pairs=tmp_path / "pairs", images=2, size=(96, 128), tuning_images=1)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["paper"] == "semnet" and results["convention"] and results["versions"]["keras"]
    assert {name.split(":")[0] for name in results["items"]} == {"S", "F", "P raw", "P aligned"}
    gain = results["items"]["S: psnr gain over the best classical"]
    assert gain["n"] == 2 and gain["unit"] == "dB" and gain["interval"][0] <= gain["value"] <= gain["interval"][1]
    assert gain["value"] == pytest.approx(gain["ours"] - gain["baseline"])
    assert results["items"]["S: ssim gain over bicubic + best fixed Gaussian"]["published"] == 0.1379
    assert set(results["classical"]) == {"bicubic", "bicubic + Gaussian", "non-local means", "non-local means, stabilised"}
    for file in ("results.md", "track_S.csv", "track_S.png", "track_F.csv", "track_P_aligned.png"):
        assert (tmp_path / "out" / file).stat().st_size > 0
    again = evaluate_semnet(tmp_path / "again", weights, images=2, size=(96, 128), tuning_images=1)
    assert again["S: psnr gain over the best classical"] == gain


def test_noisy_images_are_no_truth(tmp_path):
    rng = np.random.default_rng(0)
    clean = cv2.GaussianBlur(simulate("grains", 3, (160, 160)).image, (0, 0), 1.5)
    write(tmp_path / "clean.png", clean)
    write(tmp_path / "noisy.png", 0.2 + 0.6 * clean + rng.normal(0, 0.03, clean.shape))
    write(tmp_path / "noise.png", 0.5 + rng.normal(0, 0.15, clean.shape))
    names, images, notes = scorable_images(tmp_path)
    assert names == ["clean.png", "noisy.png"]
    assert images[1].shape == (80, 80)
    assert "not scored" in notes[0] and "halved" in notes[1]


def test_pairs_must_fit(tmp_path):
    write(tmp_path / "lq" / "a.png", np.zeros((10, 10)))
    write(tmp_path / "hq" / "b.png", np.zeros((20, 20)))
    with pytest.raises(ValueError, match="equal names"):
        real_pairs(tmp_path)
    (tmp_path / "hq" / "b.png").unlink()
    write(tmp_path / "hq" / "a.png", np.zeros((21, 20)))
    with pytest.raises(ValueError, match="2 times as large"):
        real_pairs(tmp_path)


def test_alignment_undoes_shift_and_contrast():
    truth = cv2.GaussianBlur(simulate("powder", 5, (128, 128)).image, (0, 0), 1.5)
    moved = cv2.warpAffine(truth, np.float32([[1, 0, 1.3], [0, 1, -0.7]]), (128, 128), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    restored = aligned(0.6 * moved + 0.2, truth)
    assert np.abs(restored - truth)[8:-8, 8:-8].mean() < 0.2 * np.abs(moved - truth)[8:-8, 8:-8].mean()
