"""Restoring scans of any size at the user's scan step: size, units, tiles and messages, with an untrained network."""

from dataclasses import replace

import numpy as np
import pytest

from common import Micrograph, load_micrograph, memory, paper, restore, restoring, save_micrograph
from common.__main__ import main
from common.restoring import compiled, load_network, restore_array
from paper_dlss.generator import build_trained
from tests.helpers import check_tiles_equal_whole, publish_untrained

DLSS = paper("dlss")
TINY = DLSS.presets["tiny"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained network whose gains keep signals alive down to its narrowest map, so that every part of it is seen in what it restores."""
    alive = replace(DLSS, build_generator=lambda config: build_trained(config)[1])
    return publish_untrained(alive, TINY, tmp_path_factory.mktemp("weights"))


def scan(shape=(40, 30), dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(100, 60_000, shape).astype(dtype)


# --- Size, units, calibration ---


@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_a_scan_of_any_size(weights, dtype):
    micrograph = Micrograph(scan((103, 77), dtype), pixel_size=2.0, metadata={"pixel_size_xy": [2.0, 3.0], "voltage": 200.0})
    restored = restore(micrograph, "dlss", weights=weights, step=5)
    assert restored.data.shape == (515, 385) and restored.data.dtype == dtype
    assert restored.pixel_size == pytest.approx(0.4, rel=1e-12) and restored.metadata["pixel_size_xy"] == pytest.approx([0.4, 0.6])
    told = {"paper": "dlss", "weights": str(weights), "strength": 1.0, "ensemble": False, "step": 5}
    assert restored.metadata["voltage"] == 200.0 and restored.metadata["restored"] == told
    assert np.ptp(restored.data) > 0 and np.isfinite(restored.data).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 5), (33, 31)])
@pytest.mark.parametrize("step", [4, 7, 10])
def test_odd_sizes(weights, shape, step):
    assert restore(scan(shape), "dlss", weights=weights, step=step).shape == (step * shape[0], step * shape[1])


def test_the_scale_of_intensities_does_not_matter(weights):
    image = scan(dtype="float64")
    restored = restore(image, "dlss", weights=weights, step=6)
    np.testing.assert_allclose(restore(0.02 * image - 7, "dlss", weights=weights, step=6), 0.02 * restored - 7, atol=1e-4 * 0.02 * np.ptp(restored))


def test_pixels_that_are_not_finite_are_met_with_the_median(weights):
    image = scan(dtype="float32")
    image[3, 4], image[5, 6] = np.nan, np.inf
    with pytest.warns(UserWarning, match="2 pixels are not finite"):
        restored = restore(image, "dlss", weights=weights, step=5)
    filled = np.where(np.isfinite(image), image, np.median(image[np.isfinite(image)]))
    np.testing.assert_array_equal(restored, restore(filled, "dlss", weights=weights, step=5))


def test_a_constant_scan_stays_what_it_is_in_size_and_finite(weights):
    restored, trust = restore(np.full((20, 21), 7, np.float32), "dlss", weights=weights, step=4, return_trust=True)
    assert restored.shape == trust.shape == (80, 84) and np.isfinite(restored).all() and np.isfinite(trust).all()


@pytest.mark.parametrize("step", [5, 8])
def test_trust_and_strength(weights, step):
    none, half, full = (restore(scan(dtype="float32"), "dlss", weights=weights, step=step, strength=s) for s in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(half, (none + full) / 2, rtol=1e-4, atol=1e-4 * np.ptp(full))
    restored, trust = restore(scan(dtype="float32"), "dlss", weights=weights, step=step, return_trust=True)
    np.testing.assert_array_equal(restored, full)
    assert trust.shape == full.shape and np.isfinite(trust).all() and trust.min() >= 0


# --- Tiles ---


@pytest.mark.parametrize(("step", "shape", "tile"), [(4, (168, 24), 96), (5, (224, 20), 128), (7, (157, 30), 96)])
def test_exact_tiles_equal_the_whole(weights, step, shape, tile):
    network, config = load_network(DLSS, weights)
    check_tiles_equal_whole(DLSS.scaled(step, config), network, config, shape, tile)


@pytest.mark.parametrize("step", [5, 8])
def test_seams_of_default_tiles_do_not_show(weights, monkeypatch, step):
    """A scan that repeats itself: without seams its restoration does too, and columns one period apart are alike."""
    network, config = load_network(DLSS, weights)
    period = 32  # scan points, on the grid of the tiles at both steps
    y, x = np.indices((32, 512))
    image = (1000 + 300 * np.sin(2 * np.pi * x / period) + 100 * np.cos(2 * np.pi * y / 25)).astype(np.float32)
    ends = set()
    bands = restoring.bands

    def watched(function, *arguments, **plan):
        def noted(rows, columns):
            ends.update((columns.start, columns.stop))
            return function(rows, columns)

        return bands(noted, *arguments, **plan)

    monkeypatch.setattr(restoring, "bands", watched)
    monkeypatch.setattr(restoring, "TILE", 640)
    restored = restore_array(image, DLSS.scaled(step, config), network, config)
    across = np.abs(np.diff(restored, axis=1)).mean(0)[step - 1 :: step]  # between scan points n and n + 1
    seams = sorted(n for n in ends if 64 < n < 448)
    alike = [[m for m in range(64 + n % period, 448, period) if m not in ends] for n in seams]
    assert len(seams) > 5 and all(alike)
    ratio = np.mean([across[n - 1] for n in seams]) / np.mean([np.mean(across[np.array(m) - 1]) for m in alike])
    assert 0.95 <= ratio <= 1.05


def test_memory_is_counted_per_restored_pixel(weights):
    network, config = load_network(DLSS, weights)
    needed = {}
    for step in (4, 5, 7, 10):
        entry = DLSS.scaled(step, config)
        needed[step] = memory.per_pixel(compiled(entry, network), entry.multiple) / step**2
    assert max(needed.values()) < 1.1 * min(needed.values())
    assert 2 * 4 * 2 * config.outer < needed[4] < 2 * 4 * 20 * config.outer  # an allowance of 2; a few maps of full size in float32, not dozens


# --- Steps ---


def test_steps_that_are_refused_and_forced(weights):
    for step, said in {
        None: "dlss needs the scan step: .* these weights know 4, 5, 6, 7, 8, 9, 10",
        3: "not 3; add --force",
        17: "from 2 to 16, got 17",
    }.items():
        with pytest.raises(ValueError, match=said):
            restore(scan(), "dlss", weights=weights, step=step)
    assert restore(scan(), "dlss", weights=weights, step=3, force=True).shape == (120, 90)
    with pytest.raises(ValueError, match="one-stage network takes scans of 103 x 103 points only"):
        DLSS.scaled(5, DLSS.presets["one_stage"])


def refused(capsys, *arguments):
    """Exit status 2 and one line on stderr, which is returned."""
    status = main(list(map(str, arguments)))
    lines = capsys.readouterr().err.splitlines()
    assert status == 2 and len(lines) == 1 and lines[0].startswith("empapers: ")
    return lines[0]


def test_commands(weights, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        save_micrograph(tmp_path / "in" / f"{name}.tif", Micrograph(scan(), pixel_size=3.0))
    call = ["restore", "dlss", tmp_path / "in", "--weights", weights, "--out", tmp_path / "out"]
    assert "dlss needs the scan step" in refused(capsys, *call)
    assert "add --force" in refused(capsys, *call, "--step", "12")
    assert "from 2 to 16" in refused(capsys, *call, "--step", "1", "--force")
    assert "needs the scan step" in refused(capsys, "export", "dlss", "--format", "savedmodel", "--weights", weights, "--out", tmp_path / "model")
    assert not (tmp_path / "out").exists() and not (tmp_path / "model").exists()
    assert main([*map(str, call), "--step", "3", "--force"]) == 0
    restored = load_micrograph(tmp_path / "out" / "b_dlss.tif")
    assert restored.data.shape == (120, 90) and restored.pixel_size == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("form", ["savedmodel", "onnx"])
def test_exported_model_restores_the_same(weights, tmp_path, form):
    call = ["export", "dlss", "--format", form, "--weights", weights, "--step", "5", "--out", tmp_path / f"model.{form}"]
    assert main(list(map(str, call))) == 0
    image = scan((41, 58), "float32")
    expected = restore(image, "dlss", weights=weights, step=5)
    given = image[None, ..., None]
    if form == "savedmodel":
        import tensorflow as tf

        model = tf.saved_model.load(str(tmp_path / "model.savedmodel"))
        restored = model.serve(given)["restored"].numpy()
    else:
        import onnxruntime

        restored = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).run(["restored"], {"image": given})[0]
    assert restored.shape == (1, 205, 290, 1)
    assert np.abs(restored[0, ..., 0] - expected).max() < 1e-5 * np.ptp(expected)
