"""Memory: stated before restoring starts, kept, and where there is too little tiles shrink aloud. Each case runs in a process of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from common import memory, paper, restore
from common.restoring import restore_array
from tests.helpers import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured through /proc")


def child(task: str) -> dict:
    found = subprocess.run([sys.executable, "-m", "tests.common.memory_child", task], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    return json.loads(found.stdout.splitlines()[-1])


def test_8192_pixels_a_side_stay_below_4_gb():
    found = child("huge")
    assert found["equal"]
    assert found["taken"] < found["stated"] and found["peak"] < 4


def test_stated_memory_is_enough_and_not_far_off():
    found = child("small")
    assert found["stated"] / 3 < found["taken"] < found["stated"]


def test_too_little_memory_means_smaller_tiles_and_saying_so():
    found = child("scarce")
    assert found["little"]["equal"]
    assert "tiles of 256 pixels are used" in found["little"]["said"][0]
    assert "close other programs" in found["nothing"]["error"]


def test_memory_that_runs_out_on_the_way_means_smaller_tiles_too(monkeypatch, weights):
    image = np.random.default_rng(0).uniform(0, 200, (300, 280)).astype(np.float32)
    expected = restore(image, "semnet", weights=weights, tile=150)
    from common import restoring

    real = restoring._Restorer.restored
    tried = []

    def greedy(self, part):
        tried.append(part.shape)
        if max(part.shape) > 200:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return real(self, part)

    monkeypatch.setattr(restoring._Restorer, "restored", greedy)
    with pytest.warns(UserWarning, match="memory ran out: tiles of 150 pixels instead of 300"):
        np.testing.assert_array_equal(restore(image, "semnet", weights=weights), expected)
    assert tried[0] == (300, 280)
    monkeypatch.setattr(restoring._Restorer, "restored", lambda self, part: [][1])  # any other error is not swallowed
    with pytest.raises(IndexError):
        restore(image, "semnet", weights=weights)


def test_nothing_fits(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 1e6)
    with pytest.raises(MemoryError, match="the smallest possible"):
        restore_array(np.zeros((900, 900), np.float32), paper("semnet"), *_tiny())


def _tiny():
    config = paper("semnet").presets["tiny"]
    return paper("semnet").build_generator(config), config


def test_cached_files_of_a_control_group_count_as_free(tmp_path):
    for name, text in (("memory.max", "1000\n"), ("memory.current", "950\n"), ("memory.stat", "anon 100\ninactive_file 300\nactive_file 200\n")):
        (tmp_path / name).write_text(text)
    assert memory._of_group(tmp_path) == 550
    (tmp_path / "memory.max").write_text("max\n")
    with pytest.raises(ValueError):
        memory._of_group(tmp_path)
