"""Runs that meet a full disk, in a process of its own whose files may grow no further than a limit: `python -m tests.common.full_disk FOLDER`.

Writes one JSON object: case -> exit status, message, step of the newest checkpoint, files left half written, weights after room was made and the run resumed.
"""

import contextlib
import io
import json
import resource
import sys
from pathlib import Path

import numpy as np

from common.__main__ import guarded
from tests.common.test_training import Line, run
from tests.helpers import newest_step

sys.modules["tensorboard"] = None  # its log is longer than a checkpoint of one weight
CASES = {  # where the disk fills up, at which step, and how long a file may still become; checkpoints here are 884 bytes, weights 11 kB
    "metrics": ("validate", 6, 10),
    "preview": ("preview", 6, 10),
    "checkpoint": ("validate", 6, 600),
    "last checkpoint": ("validate", 12, 600),
    "weights": ("validate", 12, 4000),
}


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def meet(folder: Path, moment: str, step: int, size: int) -> dict:
    def fill(trainer):
        if int(trainer.solvers["sgd"].iterations) == step:
            limit(size)
        return {} if moment == "validate" else np.zeros((8, 8))

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = guarded(lambda: run(Line(), folder, **{moment: fill}))
    limit(resource.RLIM_INFINITY)
    found = {"status": status, "said": said.getvalue().splitlines()[-1], "newest": newest_step(folder), "partial": [p.name for p in folder.rglob("*partial*")]}
    return found | {"weights": run(Line(), folder, resume=True).networks["final"].get_weights()[0].tolist()}


if __name__ == "__main__":
    print(json.dumps({case: meet(Path(sys.argv[1]) / case, *when) for case, when in CASES.items()}))
