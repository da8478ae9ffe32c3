"""The evaluation runs on simulated and on recorded pairs, and its figures mean what they say."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from common import Micrograph, paper, save_micrograph
from paper_sem_gan import Config
from paper_sem_gan.data import SCALE
from paper_sem_gan.evaluate import (
    INPUT,
    L1_ONLY,
    OURS,
    Case,
    Filters,
    evaluate_sem_gan,
    gap_items,
    image_items,
    load_networks,
    measure_case,
    rate_items,
    sharpened,
    simulated_cases,
)
from paper_sem_gan.gaps import candidate_gaps, measure, particles
from paper_sem_gan.spectra import filtered
from tests.helpers import publish_untrained

SMALL = (256, 320)
FILTERS = Filters((np.array([0, 0.5]), np.array([1.0, 1.0])), (1.0, 0.5))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return publish_untrained(paper("sem_gan"), replace(Config.tiny(), base=2, levels=2), tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def cases():
    return list(simulated_cases(range(2), 0, SMALL, {}, FILTERS))


def test_writes_everything(weights, tmp_path):
    items = evaluate_sem_gan(tmp_path / "out", str(weights), fields=1, shape=SMALL)
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["items"] == json.loads(json.dumps(items)) and written["paper"] == "sem_gan"
    assert {"gaps.png", "spectra.png", "fields.png", "fields.csv", "results.md"} <= {path.name for path in (tmp_path / "out").iterdir()}
    for start in ("gaps undetected: ", "gaps difference: ", "false gaps between touching particles: ", "particles hallucinated per 1000: "):
        assert start + OURS in items and start + INPUT in items


def test_the_reference_itself_is_perfect(cases):
    """Put the high-magnification scan in the place of a method's result: nothing undetected, no difference, no spectral distance, full correlation."""
    perfect = [Case(case.low, case.images | {OURS: case.reference}, case.reference, case.touching) for case in cases]
    items = gap_items([measure_case(case) for case in perfect], perfect) | image_items(perfect)
    assert items[f"gaps undetected: {OURS}"]["value"] == 0 and items[f"gaps difference: {OURS}"]["value"] == 0
    assert items[f"particles hallucinated per 1000: {OURS}"]["value"] == 0
    assert items[f"spectral distance, 0.035 to 0.070 cycles/nm: {OURS}"]["value"] == 0
    assert items[f"ring correlation, 0.035 to 0.070 cycles/nm: {OURS}"]["value"] == pytest.approx(1)
    assert items[f"gaps undetected: {INPUT}"]["value"] > 5  # per cent: half the magnification loses gaps
    assert items[f"spectral distance, 0.035 to 0.070 cycles/nm: {INPUT}"]["value"] > 0.1


def test_pairs_of_a_folder(weights, cases, tmp_path):
    for k, case in enumerate(cases):
        for name, image in (("low", case.low), ("high", np.round(np.clip(case.reference, 0, 1) * 255).astype(np.uint8))):
            (tmp_path / "pairs" / name).mkdir(parents=True, exist_ok=True)
            save_micrograph(tmp_path / "pairs" / name / f"{k}.tif", Micrograph(image, pixel_size=7.1 * SCALE if name == "low" else 7.1))
    items = evaluate_sem_gan(tmp_path / "out", str(weights), data=tmp_path / "pairs")
    assert items[f"gaps undetected: {OURS}"]["n"] > 50
    assert not any(name.startswith("false gaps") for name in items)


def flat(shape=(260, 300), value=90):
    return np.full(shape, value, np.uint8)


@pytest.mark.parametrize("options", [{"fields": 0}, {"shape": (0, 9)}, {"seed": -1_000_000}, {"seed": 1_000_000}])
def test_nonsense_is_refused(weights, tmp_path, options):
    with pytest.raises(ValueError, match="at least 1|seed must be in 0 .. 999999"):
        evaluate_sem_gan(tmp_path / "out", str(weights), **options)
    assert not (tmp_path / "out").exists()


def test_fields_that_cannot_be_registered_are_one_line(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("paper_sem_gan.data.register", lambda low, high: SimpleNamespace(report={"accepted": False, "reason": "it is foggy"}))
    with pytest.raises(ValueError, match="could be registered; give a larger --shape"), pytest.warns(UserWarning, match="was left out: it is foggy"):
        evaluate_sem_gan(tmp_path / "out", str(weights), fields=1, shape=SMALL)


def test_pairs_without_gaps_are_one_line(weights, cases, tmp_path, monkeypatch):
    monkeypatch.setattr("paper_sem_gan.evaluate.simulated_fields", lambda *_: [(case.images[INPUT], case.reference) for case in cases])
    for name, shape in (("low", (130, 150)), ("high", (260, 300))):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        save_micrograph(tmp_path / "pairs" / name / "a.tif", Micrograph(flat(shape)))
    with pytest.raises(ValueError, match="no gap between bright particles"):
        evaluate_sem_gan(tmp_path / "out", str(weights), data=tmp_path / "pairs")


def test_an_image_that_shows_nothing_has_no_widths(cases):
    """What no image shows is no item; everything else is still told."""
    blank = [Case(c.low, c.images | {OURS: np.full_like(c.reference, 0.3)}, c.reference, c.touching) for c in cases]
    items = gap_items([measure_case(case) for case in blank], blank)
    assert items[f"gaps undetected: {OURS}"]["value"] == 100 and f"gaps difference: {OURS}" not in items
    assert items[f"particles lost per 1000: {OURS}"]["value"] == 1000 and f"particles hallucinated per 1000: {OURS}" not in items
    assert items[f"false gaps between touching particles: {OURS}"]["value"] == 0


def test_networks_without_adversary_are_named_so(tmp_path):
    for name, options in {"steps": {"steps": 20, "warm_up": 20}, "weights": {"alpha": 0.0, "beta": 0.0}}.items():
        folder = publish_untrained(paper("sem_gan"), replace(Config.tiny(), base=2, levels=2, **options), tmp_path / name)
        assert list(load_networks(str(folder), None)) == [L1_ONLY]
    folder = publish_untrained(paper("sem_gan"), replace(Config.tiny(), base=2, levels=2), tmp_path / "gan")
    assert list(load_networks(str(folder), None)) == [OURS] and list(load_networks(str(folder), str(tmp_path / "steps"))) == [OURS, L1_ONLY]
    assert list(load_networks("small", None)) == [OURS, L1_ONLY]  # with its shipped twin


def test_scan_times_follow_from_the_rate(weights):
    items = rate_items(load_networks(str(weights), None)[OURS], repeats=1)
    rate = items["inference rate at 780 x 780"]["value"]
    assert items["acquisition time of that field at low magnification over inference time"]["value"] == pytest.approx(390**2 * 30e-6 * rate)
    assert items["acquisition time and dose, high over low magnification"]["value"] == 4


def test_filters_are_tuned_on_gaps(cases):
    """The unsharp mask finds more of the tuning fields' gaps than plain Lanczos does, and the linear filter has no larger error."""
    fields = [(case.images[INPUT], case.reference) for case in cases]
    filters = Filters.tuned(fields)
    for low, high in fields:
        gaps = candidate_gaps(particles(high, 7.1), 7.1)
        there = measure(high, gaps, 7.1).exists
        plain, sharp = (measure(image, gaps, 7.1).exists[there].mean() for image in (low, sharpened(low, *filters.unsharp)))
        assert sharp > plain
        assert np.mean((filtered(low, *filters.gains) - high) ** 2) <= 1.01 * np.mean((low - high) ** 2)
