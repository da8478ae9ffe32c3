"""The contract: what every paper promises to the rest of the project."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from common import paper, papers, restore
from common.classical import METHODS
from common.papers import config_from_dict, config_to_dict
from common.restoring import find_weights, load_network, weights_folder
from tests.helpers import ROOT

NAMES = list(papers())


def at_any_scale(entry):
    """The paper itself, or at scan step 5 where the step is the user's to choose."""
    return entry.scaled(None if entry.scale else 5, entry.presets["tiny"], force=True)


def test_order_and_unknown_names():
    order = ["sem_gan", "dlss", "semnet", "ssum_cyclegan", "cgrdn"]
    assert NAMES == [name for name in order if name in NAMES]
    with pytest.raises(ValueError, match="unknown paper 'nonsense'; known are .*semnet"):
        paper("nonsense")


def test_listing_papers_is_light():
    code = "import sys; from common import papers; papers(); print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", NAMES)
def test_presets_survive_json(name):
    entry = paper(name)
    assert set(entry.presets) >= {"paper", "small", "tiny"}
    for config in entry.presets.values():
        assert dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen
        assert config_from_dict(type(config), json.loads(json.dumps(config_to_dict(config)))) == config
    with pytest.raises(ValueError, match="unknown .* keys typo"):
        config_from_dict(type(config), {"typo": 1})


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_few_and_the_layout_is_the_same(name):
    package = __import__(f"paper_{name}")
    assert "PAPER" in package.__all__ and len(package.__all__) <= 8
    for file in ("README.md", "__init__.py", "config.py", "generator.py", "losses.py", "data.py", "train.py", "evaluate.py"):
        assert (ROOT / f"paper_{name}" / file).is_file(), file


@pytest.mark.parametrize("name", NAMES)
def test_generator_and_discriminator(name):
    entry = paper(name)
    config = entry.presets["tiny"]
    network = entry.build_generator(config)
    assert isinstance(network, keras.Model)
    output = network(np.zeros((1, 32, 32, 1), np.float32))
    assert output.dtype == "float32"
    if entry.scale:
        assert output.shape[1] % entry.scale == 0
    entry.build_discriminator(config)


@pytest.mark.parametrize("name", NAMES)
def test_statistics_prepare_and_finish_are_inverse_ways(name):
    entry = at_any_scale(paper(name))
    images = np.random.default_rng(0).gamma(4, 300, (2, 40, 36, 1)).astype(np.float32)
    state = entry.statistics(images, "float32")
    back = np.asarray(entry.finish(entry.prepare(images, state), state))
    if back.shape == images.shape:
        usual = (images > np.quantile(images, 0.01)) & (images < np.quantile(images, 0.99))  # what is beyond black and white may be clipped
        np.testing.assert_allclose(back[usual], images[usual], rtol=1e-4, atol=1e-2)
    assert np.isfinite(back).all()


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_and_their_card(name):
    entry = paper(name)
    files = list(weights_folder(entry).glob("*.weights.h5"))
    assert "small.weights.h5" in [f.name for f in files]
    for file in files:
        shipped = file.name.removesuffix(".weights.h5")
        _, card = find_weights(entry, shipped)
        assert len(card["sha256"]) == 64 and card["training"]["command"] and card["results"]
        assert set(card["classical"]) <= set(METHODS)  # the demo runs them
        assert file.stat().st_size < 5.3e6
        load_network(entry, shipped)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_a_truth(name):
    entry = paper(name)
    for _, micrograph, truth in entry.samples(0)[:1]:
        scale = entry.scale or truth.shape[0] // micrograph.data.shape[0]
        assert entry.scale or scale in entry.scan_steps(entry.presets["small"])
        assert truth.shape == tuple(n * scale for n in micrograph.data.shape)
        assert truth.dtype == micrograph.data.dtype
        if name == "ssum_cyclegan":  # which changes the contrast, and keeps black and white
            ends = (0.002, 0.998)
            np.testing.assert_allclose(np.quantile(truth, ends), np.quantile(micrograph.data, ends), atol=8)
        else:
            assert truth.mean() == pytest.approx(micrograph.data.mean(), rel=0.1)  # on one scale


@pytest.mark.parametrize("name", NAMES)
def test_mirror_images_are_restored_in_the_same_place(name):
    """Their mean is closer to the truth than one restoration; were they displaced, it would be blurred."""
    owner, gains = paper(name), []
    for _, micrograph, truth in owner.samples(0)[:3]:
        step = {} if owner.scale else {"step": truth.shape[0] // micrograph.data.shape[0]}
        errors = [np.mean((restore(micrograph, owner, ensemble=ensemble, **step).data - np.float64(truth)) ** 2) for ensemble in (False, True)]
        gains.append(10 * np.log10(errors[0] / errors[1]))
    assert np.mean(gains) > 0.02


# --- A scan step that the user chooses ---


def test_a_paper_with_a_scale_has_no_step():
    semnet = paper("semnet")
    assert semnet.scaled(None, semnet.presets["tiny"]) is semnet
    with pytest.raises(ValueError, match="semnet always enlarges by 2"):
        semnet.scaled(2, semnet.presets["tiny"])


def test_a_paper_without_a_scale_takes_a_step_that_its_network_knows():
    free = free_step()
    assert free.scaled(3, (3, 5)).scale == 3
    assert free.scaled(np.int64(3), (3, 5)) is free.scaled(3, (3, 5))  # compiled graphs are kept by paper
    assert free.scaled(16, (3, 5), force=True).scale == 16


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (None, "free needs the scan step: pixels per scan point, e.g. --step 3; these weights know 3, 5$"),
        (4, "know the steps 3, 5, not 4; add --force"),
        (1, "an integer from 2 to 16, got 1"),
        (17, "an integer from 2 to 16, got 17"),
        (3.0, "an integer from 2 to 16, got 3.0"),
        (True, "an integer from 2 to 16, got True"),
    ],
)
def test_steps_that_are_refused(step, said):
    with pytest.raises(ValueError, match=said):
        free_step().scaled(step, (3, 5), force=step not in (None, 4))


def free_step():
    """SEMNet as if its scale were the user's to choose and its config the steps that it knows."""
    semnet = paper("semnet")
    return dataclasses.replace(semnet, name="free", scale=None, at_step=lambda step: dataclasses.replace(semnet, scale=step), scan_steps=lambda config: config)
