"""Nonsense on the command line: one line, exit status 2, and nothing written, not even a folder."""

import pytest

from common.__main__ import main
from tests.common.test_hostile import contents, refused

NONSENSE = """
restore semnet good.tif --out x --weights W --tile -5
restore semnet good.tif --out x --weights W --tile 0
restore semnet good.tif --out x --weights W --frame -1
restore semnet good.tif --out x --weights W --frame 99999999999999999999999
restore semnet good.tif --out x --weights W --frame 1.5
restore semnet good.tif --out x --weights W --step 3
restore semnet good.tif --out x --weights W --step -1
restore semnet good.tif --out x --weights W --precision float8
restore semnet good.tif --out x --weights W --tyle 64
restore semnet good.tif good.tif --out x --weights W
restore semnet good.tif ./good.tif --out x --weights W
restore semnet --good.tif --out x --weights W
restore semnet good.tif --weights W
restore semnet good.tif --out
restore semnet nowhere/ --out x --weights W
restore semnet . --out x --weights
restore semnet empty --out x --weights W
restore semnet good.tif --out x --weights ''
restore semnet good.tif --out x --weights ../../../etc/passwd
evaluate semnet --out x --weights W --images 0 --tuning-images 1
evaluate semnet --out x --weights W --images -3 --tuning-images 1
evaluate semnet --out x --weights W --size 0 0
evaluate semnet --out x --weights W --size 64
evaluate semnet --out x --weights W --tuning-images 0 --images 1 --size 64 64
evaluate semnet --out x --weights W --seed -1
evaluate semnet --out x --weights W --data good.tif --images 1 --tuning-images 1 --size 64 64
evaluate semnet --out x --weights W --pairs empty --images 1 --tuning-images 1 --size 64 64
export semnet --out x --format onxx --weights W
export semnet --out x --format savedmodel --weights W --pixels uint16
export semnet --out good.tif --format savedmodel --weights W
demo --out x --input
demo --out x --input good.tif --frame -1
demo --out x --input good.tif --frame 7
demo --out x --sead 1
train semnet --preset tiny --out x --steps 0
train semnet --preset tiny --out x --steps -5
train semnet --preset tiny --out x --batch 0
train semnet --preset tiny --out x --seed -1
train semnet --preset tiny --out x --seed 99999999999999999999999999
train semnet --preset tiny --steps 2 --specimens 1 --out x --learning-rate nan
train semnet --preset tiny --steps 2 --specimens 1 --out x --learning-rate -1
train semnet --preset tiny --steps 2 --specimens 1 --out x --learning-rate inf
train semnet --preset tiny --steps 2 --specimens 1 --out x --ema-decay 7
train semnet --preset tiny --out x --lq-patch 65 --hq-crop 64
train semnet --preset tiny --out x --lq-patch 0
train semnet --preset tiny --out x --features 0
train semnet --preset tiny --out x --features -8
train semnet --preset tiny --steps 2 --specimens 1 --out x --validation-images 0
train semnet --preset tiny --steps 2 --specimens 1 --out x --degradation.passes -1
train semnet --preset tiny --steps 2 --specimens 1 --out x --degradation.gaussian-sigma 9 3
train semnet --preset tiny --steps 2 --specimens 1 --out x --degradation.resize-methods
train semnet --preset tiny --steps 2 --specimens 1 --out x --l1-weight nan
train semnet --preset tiny --out x --precision float8
train semnet --preset tiny --preset small --out x
train semnet --preset tiny --out x --sem empty
train semnet --preset tiny --out x --sem good.tif
train semnet --preset
train semnet --preset tiny --out good.tif
papers semnet
--version --out x
"""


@pytest.mark.parametrize("words", NONSENSE.strip().splitlines())
def test_nonsense(capfd, monkeypatch, weights, tmp_path, good, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    before = contents(tmp_path)
    refused(capfd, *(str(weights) if word == "W" else word.replace("''", "") for word in words.split()))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["with spaces.tif", "µ-Ångström 電子.tif", "--out.tif", "a;b$(c)'\".tif", ".hidden.tif", "dots.in.name.tif", "UPPER.TIF"])
def test_unusual_names(monkeypatch, weights, tmp_path, good, name):
    monkeypatch.chdir(tmp_path)
    good.rename(name)
    assert main(["restore", "semnet", f"./{name}", "--weights", str(weights), "--out", "out put/µ"]) == 0
    assert [path.name for path in (tmp_path / "out put" / "µ").iterdir()] == [f"{name[:-4]}_semnet.tif"]


def test_the_folder_of_the_inputs_as_output(weights, tmp_path, good):
    before = good.read_bytes()
    for _ in range(2):
        assert main(["restore", "semnet", str(good), "--weights", str(weights), "--out", str(tmp_path)]) == 0
    assert good.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.tif", "good_semnet.tif"]
