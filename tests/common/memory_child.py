"""Restores in a process of its own, under limits of memory, for test_memory; prints what it found as JSON. Argument: what to do."""

import json
import re
import resource
import sys
import warnings
from pathlib import Path

import keras
import numpy as np

from common import paper, restore
from common.restoring import restore_array


def kilobytes(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def stated(run) -> tuple[float, float]:
    """(GB that the progress bar names beforehand, GB that the call took at its worst)."""
    import common.restoring as restoring

    labels = []
    fill = restoring._Restorer.fill
    restoring._Restorer.fill = lambda self, result, tile, exact, label: (labels.append(label), fill(self, result, tile, exact, None))[1]
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = kilobytes("VmRSS")
    run()
    restoring._Restorer.fill = fill
    return float(re.search(r"([\d.]+) GB", labels[-1])[1]), (kilobytes("VmHWM") - before) * 1024 / 1e9


def huge() -> dict:
    """8192 x 8192 pixels through a network that repeats pixels."""
    repeat = keras.Sequential([keras.Input((None, None, 1)), keras.layers.UpSampling2D(2)])
    image = np.tile(np.arange(256, dtype=np.uint8), (8192, 32))
    found = {}

    def run():
        restored = restore_array(image, paper("semnet"), repeat, None, dtype="uint8", result_dtype="uint8", progress=True)
        found["equal"] = bool(all((restored[k::2048, k::2] == image[k // 2 :: 1024]).all() for k in (0, 1)))

    found["stated"], found["taken"] = stated(run)
    return found | {"peak": kilobytes("VmHWM") * 1024 / 1e9}


def small() -> dict:
    """The shipped network on 700 x 700 pixels: beforehand and afterwards."""
    image = np.random.default_rng(0).integers(0, 255, (700, 700)).astype(np.uint8)
    named, taken = stated(lambda: restore(image, "semnet", progress=True))
    return {"stated": named, "taken": taken}


def scarce() -> dict:
    """The shipped network where 0.6 GB are left, and then where almost nothing is."""
    image = np.random.default_rng(0).integers(0, 255, (700, 700)).astype(np.uint8)
    expected = restore(image, "semnet", tile=256)
    used = kilobytes("VmSize") * 1024
    found = {}
    for name, left in (("little", 0.6e9), ("nothing", 0.05e9)):
        resource.setrlimit(resource.RLIMIT_AS, (int(used + left), resource.RLIM_INFINITY))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                restored = restore(image, "semnet")
                found[name] = {"equal": bool(np.array_equal(restored, expected)), "said": [str(w.message) for w in caught]}
            except MemoryError as error:
                found[name] = {"error": str(error)}
    return found


if __name__ == "__main__":
    print(json.dumps({"huge": huge, "small": small, "scarce": scarce}[sys.argv[1]]()))
