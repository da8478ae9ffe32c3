"""Several devices, in one process and in two, train as one device does."""

import json
import shutil
import signal
import socket
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from common.data import batches
from common.devices import share, strategy
from paper_semnet.train import train_semnet
from tests.common.devices import SEMNET
from tests.helpers import checkpointed, newest_step, read_metrics, report, start


def member(task: str, index: int, devices: int, **cluster):
    """What `share` looks at of a strategy."""
    resolver = SimpleNamespace(cluster_spec=lambda: tf.train.ClusterSpec(cluster), task_type=task, task_id=index)
    return SimpleNamespace(num_replicas_in_sync=devices, cluster_resolver=resolver)


def test_shares():
    assert share(6, tf.distribute.get_strategy()) == (0, 1, 6)
    two = {"worker": ["a:1", "b:1"]}
    assert share(8, member("worker", 0, 4, **two)) == (0, 2, 2)
    assert share(8, member("worker", 1, 4, **two)) == (1, 2, 2)
    three = {"chief": ["c:1"], **two}
    assert [share(9, member(task, k, 3, **three)) for task, k in (("chief", 0), ("worker", 0), ("worker", 1))] == [(0, 3, 3), (1, 3, 3), (2, 3, 3)]
    with pytest.raises(ValueError, match="batch of 6 .* 4 devices; make --batch a multiple of 4"):
        share(6, member("worker", 0, 4, **two))


def test_devices_by_name(monkeypatch):
    assert strategy("one") is None
    assert isinstance(strategy("all"), tf.distribute.MirroredStrategy)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="needs TF_CONFIG"):
        strategy("workers")


def test_workers_make_the_joint_batch_and_nothing_else(monkeypatch):
    shares = []
    for worker in (0, 1, 2):
        asked = []

        def example(i, asked=asked):
            asked.append(i)
            return (np.full(1, i),)

        monkeypatch.setattr(tf.distribute, "get_strategy", lambda worker=worker: member("worker", worker, 6, worker=["a:1", "b:1", "c:1"]))
        stream = iter(batches(example, [(1,)], 12, start=36))
        shares.append([[next(stream)[0].numpy().ravel().astype(int).tolist() for device in range(2)] for step in range(2)])
        assert {(i % 12) // 4 for i in asked} == {worker}
    for step in range(2):
        joint = sorted(i for worker in shares for device in worker[step] for i in device)
        assert joint == list(range(36 + 12 * step, 48 + 12 * step))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of six steps on one device with a checkpoint after the third."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train_semnet(SEMNET, folder)
    return folder


@pytest.fixture(scope="module")
def devices(alone, tmp_path_factory):
    """What two devices made of the second half of that run, and of an overflow."""
    folder = tmp_path_factory.mktemp("devices")
    shutil.copytree(alone, folder / "resumed")
    shutil.rmtree(folder / "resumed" / "checkpoints" / "ckpt-6")
    found = report(start("tests.common.devices", "devices", str(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    return folder, found


def workers(folder, *hows):
    """Start one worker for each word, all in one cluster on this machine."""
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, other)]
    configs = [json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": k}}) for k in range(2)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return [start("tests.common.devices", how, str(folder), env={"TF_CONFIG": c}, **streams) for how, c in zip(hows, configs, strict=True)]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """A run of two processes of which one was killed after the third step and that both resumed."""
    folder = tmp_path_factory.mktemp("workers") / "run"
    chief, victim = workers(folder, "worker", "mortal")
    try:
        said = chief.communicate(timeout=200)[1]
        assert victim.wait(timeout=10) == -signal.SIGKILL
    finally:
        chief.kill()
        victim.kill()
    assert "another worker has stopped" in said.splitlines()[-1]
    assert newest_step(folder) == 3
    return folder, [report(process) for process in workers(folder, "worker", "worker")]


def check_same_change(one, other, tolerance):
    """Averages, weights and Adam's moments changed alike: the difference at step 6 against the change since step 3, each kind of variable for itself."""
    before, after, found = checkpointed(one, 3), checkpointed(one, 6), checkpointed(other, 6)
    assert found.keys() == after.keys()
    kinds = {"network_final/": 1, "solver_adam/_trainable_variables/": 1, "solver_adam/_variables/": 2}  # the optimizer's list is where weights are filed
    for kind, times in kinds.items():
        names = [n for n in after if n.startswith(kind) and after[n].ndim]
        assert len(names) == times * len([n for n in after if n.startswith("network_final/")])
        change, difference = (np.sqrt(sum(np.sum((after[n].astype(float) - base[n]) ** 2) for n in names)) for base in (before, found))
        assert difference < tolerance * change


def test_two_devices_go_on_as_one_device_does(alone, devices):
    check_same_change(alone, devices[0] / "resumed", 1e-6)


def test_two_devices_hold_the_same(devices):
    first, second = devices[1]["fingerprints"]
    assert first == second


def test_a_batch_that_devices_cannot_share_is_refused(devices):
    folder, found = devices
    assert found["refusal"] == "a batch of 3 cannot be shared equally by 2 devices; make --batch a multiple of 2"
    assert not (folder / "odd").exists()


def test_an_overflow_on_one_device_makes_all_of_them_skip_the_step(devices):
    found = devices[1]
    one = found["half alone"]
    assert 1 < one["weight"][0] < 1.5  # it learnt once the scale was small enough
    assert one["scale"][0] < 2.0**15
    for loud in found["half"]:
        assert loud["scale"] == one["scale"] * 2
        np.testing.assert_allclose(loud["weight"], one["weight"] * 2, rtol=1e-3)


def test_two_workers_train_as_one_does(alone, two_workers):
    folder, _ = two_workers
    check_same_change(alone, folder, 1e-6)
    assert [int(row["step"]) for row in read_metrics(folder)] == [6]
    ours, theirs = (float(read_metrics(run)[-1]["val_psnr"]) for run in (folder, alone))
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_two_workers_hold_the_same(two_workers):
    chief, other = two_workers[1]
    assert chief["fingerprints"] == other["fingerprints"]
    assert chief["half"] == other["half"]
    assert chief["half"]["scale"][0] < 2.0**15
