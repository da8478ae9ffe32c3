"""Registration of pairs of scans, measured on simulated pairs whose map is known."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RectBivariateSpline

from common import Micrograph, load_micrograph, save_micrograph
from common.__main__ import run_tool
from paper_sem_gan import registration as reg
from paper_sem_gan.registration_report import register_files
from paper_sem_gan.upsampling import lanczos

from .scans import scans

SMALL = (404, 452)


def p95(error) -> float:
    assert np.isfinite(error).mean() > 0.2
    return float(np.nanpercentile(error, 95))


@pytest.fixture(scope="module")
def pair_and_truth():
    truth = scans(1, SMALL)
    return reg.register(truth.low, truth.high), truth


# --- How well ---


@pytest.mark.parametrize(
    ("seed", "frame", "options", "limit"),
    [
        (0, (884, 1024), {}, 0.25),
        (3, SMALL, {}, 0.25),
        (1, SMALL, {"aliased": True}, 0.25),
        (9, (403, 451), {"noise": 0.0}, 0.15),
        (6, SMALL, {"noise": 0.1}, 0.5),
        (2, SMALL, {"noise": 0.02}, 0.5),  # few particles on bare carbon
    ],
)
def test_map_is_found(seed, frame, options, limit):
    truth = scans(seed, frame, **options)
    pair = reg.register(truth.low, truth.high)
    assert pair.report["accepted"], pair.report
    assert p95(truth.error(pair.map, pair.report["low_crop"])) < limit
    assert min(np.divide(pair.high.shape, frame)) > 0.85


def test_report_says_what_was_done(pair_and_truth):
    pair, truth = pair_and_truth
    report = pair.report
    step = np.eye(2) * 30
    middle = np.array(SMALL) - 0.5
    expected = scans(1, SMALL, warp=0.0).where(np.concatenate([[middle], middle + step]))
    matrix = (expected[1:] - expected[0]).T / 30
    turn = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    assert report["rotation_deg"] == pytest.approx(turn, abs=0.4)  # the drift has a rotation of its own
    assert report["scale"] == pytest.approx(np.sqrt(np.linalg.det(matrix)), abs=0.01)
    assert report["ncc_before"] < report["ncc_affine"] < report["ncc_after"]
    assert report["folding"] == 0 and report["reason"] is None
    assert 1 < report["elastic_p95"] < 4.5
    assert report["residual_mean"] < report["residual_p95"] < 0.3
    json.dumps(report, allow_nan=False)


def test_grid_is_that_of_the_recorded_scan(pair_and_truth):
    pair, truth = pair_and_truth
    row, column, height, width = pair.report["low_crop"]
    np.testing.assert_array_equal(pair.low, truth.low[row : row + height, column : column + width])
    np.testing.assert_array_equal(pair.upsampled, lanczos(pair.low))
    assert pair.upsampled.shape == pair.high.shape == pair.map.shape[:2] == (2 * height, 2 * width)
    assert pair.map.dtype == pair.high.dtype == pair.upsampled.dtype == np.float32


def test_high_is_interpolated_once_from_inside(pair_and_truth):
    pair, truth = pair_and_truth
    assert pair.map.min() >= 1 and (pair.map <= np.subtract(truth.high.shape, 2)).all()
    spline = RectBivariateSpline(np.arange(SMALL[0]), np.arange(SMALL[1]), truth.high)
    away = np.s_[20:-20, 20:-20]  # the two end their splines differently at the border
    np.testing.assert_allclose(pair.high[away], spline.ev(pair.map[..., 0], pair.map[..., 1])[away], atol=2e-3)


def test_repeats_to_the_bit(pair_and_truth):
    pair, truth = pair_and_truth
    again = reg.register(truth.low, truth.high)
    np.testing.assert_array_equal(pair.map, again.map)
    np.testing.assert_array_equal(pair.high, again.high)
    assert pair.report == again.report


def test_brightness_contrast_and_gamma_do_not_matter(pair_and_truth):
    pair, truth = pair_and_truth
    low = np.round(np.clip(truth.low, 0, 1) ** 0.7 * 30000 + 500).astype(np.uint16)
    other = reg.register(low, 40 * truth.high - 1000)
    assert other.low.dtype == np.uint16
    row, column, *_ = other.report["low_crop"]
    assert p95(truth.error(other.map, (row, column))) < 0.25
    assert abs(other.high.mean() - (40 * pair.high.mean() - 1000)) < 1


def test_other_nominal_scale():
    """A high scan of 1/2.1 of the low scan's pixel is no size error when that is told."""
    truth = scans(1, SMALL, stretch=0.0, angle=0.5)
    larger = cv2.resize(truth.high, (475, 424), interpolation=cv2.INTER_CUBIC)
    pair = reg.register(truth.low, larger, scale=2.1)
    assert pair.report["accepted"], pair.report
    assert pair.report["scale"] == pytest.approx(1, abs=0.01)
    found = (pair.map + 0.5) * np.divide(SMALL, larger.shape) - 0.5
    assert p95(truth.error(found.astype(np.float32), pair.report["low_crop"])) < 0.3


# --- What is refused ---


def lattice(_, shape) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.float32(0.5 + 0.2 * np.sin(2 * np.pi * rows / 23.0) + 0.2 * np.sin(2 * np.pi * columns / 31.0))


def rejection(low, high) -> str:
    pair = reg.register(low, high)
    assert not pair.report["accepted"]
    assert pair.low is pair.upsampled is pair.high is pair.map is None
    return pair.report["reason"]


def test_untrustworthy_pairs_are_rejected_with_the_reason(pair_and_truth):
    truth = pair_and_truth[1]
    low, high = truth.low, truth.high
    noise = np.random.default_rng(0).normal(0.5, 0.05, high.shape)
    repeating = scans(0, SMALL, specimen=lattice, warp=1.0)
    reasons = {
        "high is blank": rejection(low, np.full_like(high, 0.3)),
        "low is blank": rejection(np.zeros_like(low), high),
        "same field": rejection(low, scans(3, SMALL).high),
        "blocks agree": rejection(low, noise),
        "inverted": rejection(low, 1 - high),
        "looks the same": rejection(repeating.low, repeating.high),
    }
    for wanted, reason in reasons.items():
        assert wanted in reason
        assert "\n" not in reason and ";" in reason


@pytest.mark.parametrize(
    ("figures", "words"),
    [({"folding": 0.01}, "folds"), ({"ncc_after": 0.1}, "correlate"), ({"residual_p95": 0.7}, "are left"), ({"residual_p95": None}, "are left")],
)
def test_verdict(figures, words):
    good = {"folding": 0.0, "ncc_after": 0.9, "residual_p95": 0.2}
    reg._judge(good)
    with pytest.raises(reg.Rejected, match=words):
        reg._judge(good | figures)


def test_drift_beyond_the_search_is_not_returned_as_good():
    truth = scans(1, SMALL, warp=14.0, period=150.0)
    rejection(truth.low, truth.high)


def test_no_pair_of_images_at_all():
    image = np.random.default_rng(0).random((200, 200))
    for low, high, words in (
        (image[None], image, "height, width"),
        (image, image.astype(complex), "real numbers"),
        (image, np.where(image > 0.99, np.nan, image), "not finite"),
        (image, image[:100], "128 pixels"),
    ):
        with pytest.raises(ValueError, match=words):
            reg.register(low, high)


# --- Its parts ---


@settings(max_examples=30, deadline=None)
@given(st.floats(-8, 8), st.floats(0.9, 1.1), st.floats(-0.03, 0.03))
def test_decomposition(angle, size, stretch):
    a = np.radians(angle)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    rotation, found = reg.decompose(turn @ np.diag([size * (1 + stretch), size / (1 + stretch)]))
    assert rotation == pytest.approx(angle, abs=1e-6) and found == pytest.approx(size, rel=1e-6)


def test_nominal_map_joins_the_centres():
    for scale in (2, 2.1, 3):
        nominal = reg.nominal_map((100, 120), (200, 260), scale)
        middle = (round(scale) * np.array([100, 120]) - 1) / 2
        np.testing.assert_allclose(reg.apply_affine(nominal, middle), (99.5, 129.5), atol=1e-4)
        np.testing.assert_allclose(nominal[:, :2] * round(scale), scale * np.eye(2))


def test_coarse_map_is_near_the_truth():
    truth = scans(1, SMALL, warp=0.0)
    affine = reg.coarse_map(*(np.float32((i - i.mean()) / i.std()) for i in (truth.low, truth.high)), 2)
    points = np.array([[300, 350], [400, 450], [500, 600], [350, 560]], float)
    np.testing.assert_allclose(reg.apply_affine(affine, points), truth.where(points), atol=1)


def test_consensus_bears_blocks_that_fail():
    rng = np.random.default_rng(0)
    places, true = rng.uniform(0, 900, (36, 2)), np.array([[1.01, 0.04, 3.0], [-0.04, 0.99, -7.0]])
    in_high = reg.apply_affine(true, places) + rng.normal(0, 0.5, (36, 2))
    in_high[:20] = rng.uniform(0, 900, (20, 2))
    affine, agreeing = reg._consensus(places, in_high, 2, 2.0)
    assert agreeing == 16
    np.testing.assert_allclose(reg.apply_affine(affine, places), reg.apply_affine(true, places), atol=1.5)
    assert reg._consensus(places, in_high[:, ::-1], 2, 2.0)[1] == 0  # mirrored


def test_what_the_verdict_rejects_has_no_images(pair_and_truth, monkeypatch):
    monkeypatch.setattr(reg, "LARGEST_RESIDUAL", 0.01)
    assert "are left" in rejection(pair_and_truth[1].low, pair_and_truth[1].high)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 3]))
def test_common_rectangle_is_usable_and_large(seed, factor):
    """A turned rectangle, as the frame of the other scan is."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(40, 90, 2) * factor + 1)
    corners = cv2.boxPoints(((shape[1] / 2, shape[0] / 2), (0.9 * shape[1], 0.9 * shape[0]), float(rng.uniform(-4, 4))))
    usable = cv2.fillConvexPoly(np.zeros(shape, np.uint8), np.int32(corners), 1) == 1
    rows, columns = reg._common_rectangle(usable, factor)
    kept = usable[rows.start * factor : rows.stop * factor, columns.start * factor : columns.stop * factor]
    assert kept.all() and kept.size > 0.7 * usable.sum()


# --- Files ---


def command(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["registration", *map(str, arguments)])
    return run_tool(register_files, "python -m paper_sem_gan.registration")


def test_folders_of_pairs(tmp_path, monkeypatch, capsys, pair_and_truth):
    pair, truth = pair_and_truth
    low, high = (np.round(np.clip(image, 0, 1) * 255).astype(np.uint8) for image in (truth.low, truth.high))
    for name, image, size in (("low", low, 14.2), ("high", high, 7.1)):
        (tmp_path / name).mkdir()
        save_micrograph(tmp_path / name / "a.tif", Micrograph(image, size))
        save_micrograph(tmp_path / name / "b.tif", Micrograph(np.full_like(image, 7), size))
    out = tmp_path / "out"
    (out / "high").mkdir(parents=True)
    (out / "high" / "b.tif").write_text("from an earlier run")
    assert command(monkeypatch, tmp_path / "low", tmp_path / "high", "--out", out) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("a: ") and "rotation" in said[0] and said[1].startswith("b: rejected: low is blank")
    report = json.loads((out / "report.json").read_text())
    assert report["a"]["accepted"] and not report["b"]["accepted"] and report["a"]["nominal_scale"] == pytest.approx(2)
    first, second = load_micrograph(out / "low" / "a.tif"), load_micrograph(out / "high" / "a.tif")
    assert first.data.dtype == second.data.dtype == np.uint8
    assert second.data.shape == tuple(2 * n for n in first.data.shape)
    assert first.pixel_size == 14.2 and second.pixel_size == pytest.approx(7.1)
    aligned = reg.register(low, high)
    np.testing.assert_array_equal(second.data, np.clip(np.rint(aligned.high), 0, 255).astype(np.uint8))
    assert cv2.imread(str(out / "figures" / "a.png")).std() > 20
    assert not list(out.rglob("b.*")) and not list(out.rglob("*.partial"))


@pytest.mark.parametrize("case", ["absent", "unequal", "blank"])
def test_one_line_for_bad_input(case, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for folder in ("low", "high"):
        (tmp_path / folder).mkdir()
        save_micrograph(tmp_path / folder / f"{folder}.tif", Micrograph(rng.integers(0, 255, (200, 200), np.uint8)))
    low, high = tmp_path / "low", tmp_path / "high"
    arguments = {"absent": (low / "x.tif", high / "high.tif"), "unequal": (low, high), "blank": (low / "low.tif", high / "high.tif")}[case]
    assert command(monkeypatch, *arguments, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert {"absent": "no such file", "unequal": "only one of", "blank": "nothing could be registered"}[case] in error


@pytest.mark.skipif("EMPAPERS_REAL_DATA" not in os.environ, reason="EMPAPERS_REAL_DATA names no folder of real micrographs")
def test_real_textures():
    """Real micrographs taken for specimens and recorded twice through known maps: some have too little texture, and none is returned as good that is not."""
    errors = []
    for name in ("emps_80719af02f.png", "emps_6752c27137.png", "plant_X4-1_m07.png", "zeiss_lamella_page0.png", "plant_C1-3_A_m06.png"):
        picture = np.float32(load_micrograph(Path(os.environ["EMPAPERS_REAL_DATA"]) / "sem" / name).data / 255)
        truth = scans(5, (352, 352), specimen=lambda _, shape, picture=picture: picture[: shape[0], : shape[1]], noise=0.02)
        pair = reg.register(truth.low, truth.high)
        if pair.report["accepted"]:
            errors.append(p95(truth.error(pair.map, pair.report["low_crop"])))
    assert len(errors) >= 2 and max(errors) < 0.5
