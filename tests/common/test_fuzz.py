"""Damaged files: two thousand of every format, each of which must end in a Micrograph or in one line."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.damage import GROUPS, mutation, specimens
from tests.helpers import ROOT

REAL = os.environ.get("EMPAPERS_REAL_DATA")
COUNT = 2000


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """What became of every mutation; in a process of its own, because workers are forked, and TensorFlow does not survive that."""
    out = tmp_path_factory.mktemp("fuzz") / "rows.csv"
    command = [sys.executable, "-m", "tests.fuzz", "--count", str(COUNT), "--out", str(out), *(["--data", REAL] if REAL else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert out.exists(), done.stderr
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("group", GROUPS)
def test_damaged_files_end_in_an_image_or_one_line(rows, group):
    mine = [r for r in rows if r["group"] == group]
    if not mine and not REAL:
        pytest.skip("nobody writes this format, and EMPAPERS_REAL_DATA names no folder of real micrographs")
    found = [f"{r['k']}: {r['outcome']}: {r['noise'] or r['detail']}"[:200] for r in mine if r["outcome"] not in ("read", "refused")]
    assert not found, "\n".join(found[:20])
    assert len(mine) == COUNT
    assert {r["outcome"] for r in mine} == {"read", "refused"}  # damage that is all harmless, or all deadly, would test nothing


FAULTS = """
import os, sys, time, warnings
import numpy as np
import tests.fuzz as fuzz
from common.micrograph import Micrograph

def faulty(path, frame=None):
    match int(path.stem.split("_")[1]):
        case 0: return Micrograph(np.zeros((2, 2)))
        case 1: raise ValueError("no")
        case 2: raise KeyError("key")
        case 3: raise ValueError("two" + chr(10) + "lines")
        case 4: raise ValueError(chr(27) + "[31m")
        case 5: os.write(2, b"murmur")
        case 6: np.ones(300 * 2**20, np.uint8)
        case 7: np.zeros(8 * 2**30, np.uint8)
        case 8: os.abort()
        case 9: time.sleep(60)
        case 10: warnings.warn("two" + chr(10) + "lines")
        case 11: raise MemoryError
    return Micrograph(np.zeros((2, 2)))

fuzz.load_micrograph, fuzz.SECONDS, fuzz.MEGABYTES = faulty, 2, 256
specimen = fuzz.Specimen("a.tif", bytes(100), {}, np.arange(100))
print(*(r["outcome"] for r in fuzz.fuzz("tiff", [specimen], 13, 0)))
"""


def test_every_kind_of_fault_is_found():
    done = subprocess.run([sys.executable, "-c", FAULTS], cwd=ROOT, capture_output=True, text=True)
    wanted = "read refused exception lines message noise memory exception crash hang lines exception read".split()
    assert done.stdout.split() == wanted, done.stderr


def test_mutations_can_be_made_again(tmp_path):
    first, second = (specimens(None, folder) for folder in (tmp_path / "a", tmp_path / "b") if not folder.mkdir())
    for group in GROUPS:
        assert [s.data for s in first[group]] == [s.data for s in second[group]]
    made = [mutation(first["tiff"], np.random.default_rng((seed, k)))[2] for seed in (0, 0, 1) for k in range(20)]
    assert made[:20] == made[20:40] and made[:20] != made[40:]
    assert len({bytes(part) for parts in made for part in parts.values()}) > 35
