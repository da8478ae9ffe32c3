"""The evaluation runs on simulated and on recorded pairs, and its figures mean what they say."""

import json
from dataclasses import replace

import numpy as np
import pytest

from common import Micrograph, paper, save_micrograph
from paper_sem_gan import Config
from paper_sem_gan.data import SCALE
from paper_sem_gan.evaluate import INPUT, OURS, Case, evaluate_sem_gan, gap_items, image_items, measure_case, simulated_cases
from tests.helpers import publish_untrained

SMALL = (256, 320)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return publish_untrained(paper("sem_gan"), replace(Config.tiny(), base=2, levels=2), tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def cases():
    return list(simulated_cases(range(2), 0, SMALL, {}, (np.array([0, 0.5]), np.array([1.0, 1.0]))))


def test_writes_everything(weights, tmp_path):
    items = evaluate_sem_gan(tmp_path / "out", str(weights), fields=1, shape=SMALL, l1_weights="nowhere")
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
    items = evaluate_sem_gan(tmp_path / "out", str(weights), data=tmp_path / "pairs", l1_weights="nowhere")
    assert items[f"gaps undetected: {OURS}"]["n"] > 50
    assert not any(name.startswith("false gaps") for name in items)


def test_nonsense_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        evaluate_sem_gan(tmp_path / "out", fields=0)
