"""What users do to the commands by mistake: one line on stderr, exit status 2 (130 for Ctrl-C), nothing half written, inputs and earlier results untouched."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import cv2
import numpy as np
import pytest
import tifffile

import common.micrograph
from common import Micrograph, load_micrograph, save_micrograph
from common.__main__ import main
from common.papers import config_to_dict
from paper_semnet import Config
from tests.helpers import ROOT, newest_step

TRAIN = "train semnet --preset tiny --specimens 1 --validation-images 1 --lq-patch 16 --hq-crop 64 --batch 2".split()


def refused(capfd, *arguments, status=2):
    """Exit status and one line on stderr, which is returned; before it only warnings of ours and bars of progress."""
    capfd.readouterr()
    assert main(list(map(str, arguments))) == status
    *before, last = capfd.readouterr().err.splitlines()
    assert last.startswith("empapers: ") and last.isprintable() and len(last) < 1000
    assert all(line.startswith("empapers: warning: ") or "%|" in line or not line.strip() for line in before), before
    return last


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@contextlib.contextmanager
def limited(what, size):
    """A limit of this process for a while; Python ignores SIGXFSZ, so that writing past the limit fails as on a full disk."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


# --- Files that are no micrographs ---


def write_bad_files(folder):
    """Name -> a file that must be refused by every command, whatever reads it."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name in ("empty.tif", "empty.png", "empty.jpg", "empty.dm3", "empty.emd", "empty.ser", "empty.mrc", "empty.h5", "empty.hspy"):
        (folder / name).touch()
        (folder / name.replace("empty", "random")).write_bytes(rng.bytes(3000))
    tifffile.imwrite(folder / "truncated.tif", rng.integers(0, 9, (40, 40), np.uint8))
    (folder / "truncated.tif").write_bytes((folder / "truncated.tif").read_bytes()[:900])
    (folder / "truncated.png").write_bytes(cv2.imencode(".png", rng.integers(0, 256, (40, 40), np.uint8))[1].tobytes()[:900])
    (folder / "renamed.tif").write_bytes(b"%PDF-1.7\n" + rng.bytes(500))
    tifffile.imwrite(folder / "nan.tif", np.full((20, 20), np.nan, np.float32))
    tifffile.imwrite(folder / "inf.tif", np.full((20, 20), np.inf, np.float32))
    tifffile.imwrite(folder / "complex.tif", np.ones((20, 20), np.complex64))
    (folder / "folder.tif").mkdir()
    return sorted(path.name for path in folder.iterdir()) + ["missing.tif"]


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "bad files µ"
    return folder, write_bad_files(folder)


def test_restore_and_demo_refuse_what_is_no_micrograph(capfd, bad_files, weights, tmp_path):
    folder, names = bad_files
    before = contents(folder)
    for name in names:
        for command in (("restore", "semnet", folder / name, "--weights", weights), ("demo", "--input", folder / name)):
            if command[0] == "demo" and name in ("nan.tif", "inf.tif"):
                continue  # a micrograph all the same: the report says why it is not restored
            said = refused(capfd, *command, "--out", tmp_path / "out")
            assert name in said or "finite" in said, said
            assert not (tmp_path / "out").exists(), f"{command[0]} {name} left something behind"
    assert contents(folder) == before


@pytest.mark.parametrize("command", ["evaluate", "train"])
@pytest.mark.parametrize("name", ["empty.tif", "random.dm3", "truncated.png", "nan.tif", "complex.tif"])
def test_folders_with_a_bad_file_are_refused_by_its_name(capfd, bad_files, weights, tmp_path, good, command, name):
    (tmp_path / "images").mkdir()
    shutil.copy(bad_files[0] / name, tmp_path / "images")
    shutil.copy(good, tmp_path / "images")
    images = {"evaluate": ["evaluate", "semnet", "--weights", weights, "--images", 1, "--tuning-images", 1, "--data"], "train": [*TRAIN, "--steps", 3, "--sem"]}
    assert name in refused(capfd, *images[command], tmp_path / "images", "--out", tmp_path / "out")
    left = [path.name for path in (tmp_path / "out").rglob("*")]
    assert not left if command == "evaluate" else "final.weights.h5" not in left and "checkpoint" not in left  # training meets a file when it needs it


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (3, 2)])
@pytest.mark.parametrize("value", [7, None])
def test_tiny_and_constant_micrographs_are_restored(weights, tmp_path, shape, value):
    image = np.full(shape, value, np.uint16) if value else np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)
    save_micrograph(tmp_path / "in.tif", Micrograph(image, 1.0))
    assert main(["restore", "semnet", str(tmp_path / "in.tif"), "--weights", str(weights), "--out", str(tmp_path / "out")]) == 0
    restored = load_micrograph(tmp_path / "out" / "in_semnet.tif")
    assert restored.data.shape == (2 * shape[0], 2 * shape[1]) and restored.pixel_size == 0.5


def test_metadata_that_are_no_object(capfd, weights, tmp_path):
    import h5py

    with h5py.File(tmp_path / "list.h5", "w") as file:
        file["image"] = np.ones((20, 20))
        file["image"].attrs["micrograph_json"] = "[1, 2]"
    refused(capfd, "restore", "semnet", tmp_path / "list.h5", "--weights", weights, "--out", tmp_path / "out")


# --- Weights that are none ---


SPOILT = (
    "missing", "empty", "truncated", "random", "text", "no card", "broken card", "card of bytes", "card of another kind",
    "card without a configuration", "configuration of another kind", "unknown key", "wrong type", "another paper", "another preset",
)  # fmt: skip


def spoil(weights, how):
    file, card = weights / "final.weights.h5", weights / "config.json"
    description = json.loads(card.read_text())
    match how:
        case "missing":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "truncated":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        case "random":
            file.write_bytes(np.random.default_rng(0).bytes(5000))
        case "text":
            file.write_text("weights")
        case "no card":
            card.unlink()
        case "broken card":
            card.write_text(card.read_text()[:40])
        case "card of bytes":
            card.write_bytes(b"\xff\xfe\x00\x01")
        case "card of another kind":
            card.write_text("[1, 2]")
        case "card without a configuration":
            card.write_text(json.dumps({"paper": "semnet"}))
        case "configuration of another kind":
            card.write_text(json.dumps(description | {"config": [1]}))
        case "unknown key":
            card.write_text(json.dumps(description | {"config": description["config"] | {"blokcs": 3}}))
        case "wrong type":
            card.write_text(json.dumps(description | {"config": description["config"] | {"blocks": "three"}}))
        case "another paper":
            card.write_text(json.dumps(description | {"paper": "cgrdn"}))
        case "another preset":
            card.write_text(json.dumps(description | {"config": config_to_dict(Config.small())}))


@pytest.mark.parametrize("how", SPOILT)
def test_spoilt_weights(capfd, weights, tmp_path, good, how):
    run = shutil.copytree(weights, tmp_path / "run")
    spoil(run, how)
    for command in (["restore", "semnet", good], ["export", "semnet", "--format", "savedmodel"], ["evaluate", "semnet", "--images", 1, "--tuning-images", 1]):
        said = refused(capfd, *command, "--weights", run, "--out", tmp_path / "out")
        assert str(run) in said, said
        assert not (tmp_path / "out").exists()


# --- Places that cannot be written to ---


@pytest.mark.parametrize("where", ["file", "file/below"])
@pytest.mark.parametrize("command", ["restore", "export", "train", "evaluate", "demo"])
def test_out_is_a_file(capfd, weights, tmp_path, good, command, where):
    (tmp_path / "file").write_text("precious")
    arguments = {
        "restore": ["restore", "semnet", good, "--weights", weights],
        "export": ["export", "semnet", "--format", "savedmodel", "--weights", weights],
        "train": [*TRAIN, "--steps", 1],
        "evaluate": ["evaluate", "semnet", "--weights", weights, "--images", 1, "--tuning-images", 1, "--size", 64, 64],
        "demo": ["demo", "--input", good],
    }
    assert str(tmp_path / "file") in refused(capfd, *arguments[command], "--out", tmp_path / where)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(capfd, weights, tmp_path, good):
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(capfd, "restore", "semnet", good, "--weights", weights, "--out", tmp_path / "locked")
    good.chmod(0)
    refused(capfd, "restore", "semnet", good, "--weights", weights, "--out", tmp_path / "out")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_full_disk_keeps_the_earlier_result(capfd, weights, tmp_path, suffix):
    image = np.random.default_rng(0).integers(0, 256, (100, 100), np.uint8)
    save_micrograph(tmp_path / f"in{suffix}", Micrograph(image))
    command = ["restore", "semnet", str(tmp_path / f"in{suffix}"), "--weights", str(weights), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    before = contents(tmp_path)
    with limited(resource.RLIMIT_FSIZE, 4096):
        said = refused(capfd, *command)
    assert f"in_semnet{suffix}" in said
    assert contents(tmp_path) == before


def test_full_disk_while_training_and_exporting(capfd, weights, tmp_path):
    train = [*TRAIN, "--steps", "4", "--checkpoint-every", "2", "--out", str(tmp_path / "run")]
    with limited(resource.RLIMIT_FSIZE, 10_000):
        refused(capfd, *train)
    assert not list((tmp_path / "run").glob("*.weights.h5")) and not list((tmp_path / "run").rglob("*partial*"))
    assert main([*train, "--resume"]) == 0
    with limited(resource.RLIMIT_FSIZE, 10_000):
        refused(capfd, "export", "semnet", "--format", "savedmodel", "--weights", weights, "--out", tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_out_of_memory_is_one_line(capfd, monkeypatch, weights, tmp_path, good):
    def greedy(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(common.micrograph, "save_micrograph", greedy)
    assert "memory" in refused(capfd, "restore", "semnet", good, "--weights", weights, "--out", tmp_path / "out").lower()


STARVED = """
import resource, sys
from common.__main__ import main, start_tensorflow
start_tensorflow()
assert main(["restore", "semnet", sys.argv[1], "--weights", sys.argv[3], "--out", sys.argv[4]]) == 0  # with all that is loaded when first needed
size = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize"))) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 40 * 2**20,) * 2)
raise SystemExit(main(["restore", "semnet", sys.argv[2], "--weights", sys.argv[3], "--out", sys.argv[4]]))
"""


def test_a_micrograph_beyond_memory_is_one_line(weights, tmp_path, good):
    save_micrograph(tmp_path / "large.tif", Micrograph(np.zeros((6000, 6000), np.uint8)))
    command = [sys.executable, "-c", STARVED, good, tmp_path / "large.tif", weights, tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("empapers: "), done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good_semnet.tif"]


# --- Ctrl-C ---


def interrupted(arguments, ready):
    """Start a command, send Ctrl-C once `ready()`; (exit status, stderr)."""
    command = [sys.executable, "-m", "common", *map(str, arguments)]
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whoever starts the tests in the background has it ignored
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heeds)
    while not ready() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=120)[1], process.returncode
    finally:
        process.kill()


def test_interrupted_restoring_leaves_whole_files_only(weights, tmp_path):
    image = np.random.default_rng(0).integers(0, 60000, (900, 900)).astype(np.uint16)
    (tmp_path / "in").mkdir()
    for k in range(30):
        save_micrograph(tmp_path / "in" / f"{k:02}.tif", Micrograph(image[: 900 if k else 40], 1.0))
    out = tmp_path / "out"
    said, status = interrupted(
        ["restore", "semnet", tmp_path / "in", "--weights", weights, "--tile", 128, "--out", out], lambda: (out / "00_semnet.tif").exists()
    )
    assert status == 130 and said.splitlines()[-1] == "empapers: interrupted" and "Traceback" not in said, said
    left = sorted(path.name for path in out.iterdir())
    assert left == [f"{k:02}_semnet.tif" for k in range(len(left))] and len(left) < 30
    for name in left:
        assert load_micrograph(out / name).data.shape == (1800 if name[:2] != "00" else 80, 1800)


def test_interrupted_training_resumes(tmp_path):
    train = [*TRAIN, "--checkpoint-every", "5", "--out", str(tmp_path / "run")]
    said, status = interrupted([*train, "--steps", "100000"], lambda: newest_step(tmp_path / "run") > 0)
    assert status == 130 and said.splitlines()[-1] == "empapers: interrupted" and "Traceback" not in said, said
    step = newest_step(tmp_path / "run")
    assert main([*train, "--steps", str(step + 2), "--resume"]) == 0
    assert newest_step(tmp_path / "run") == step + 2 and not list((tmp_path / "run").rglob("*partial*"))
