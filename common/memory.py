"""How much memory restoring needs, known before it starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

ALLOWANCE = 2.0  # measured: a pass takes 1.7 times what its tensors do, for the scratch space of convolutions and holes between blocks
MEASURED_SIDE = 128
FIXED = 1e8  # bytes that TensorFlow takes beside its tensors when it runs for the first time


@lru_cache(maxsize=4)
def per_pixel(run: Callable, multiple: int) -> float:
    """Bytes per input pixel that one pass of `run` (from `common.restoring.compiled`) needs: its tensors at the worst moment, with an allowance."""
    import tensorflow as tf

    side = -(-MEASURED_SIDE // multiple) * multiple
    specs = tf.TensorSpec((1, side, side, 1)), tf.TensorSpec((1, 1, 1, 2))
    operations = tf.function(run.python_function).get_concrete_function(*specs).graph.get_operations()
    last = {tensor.ref(): k for k, operation in enumerate(operations) for tensor in operation.inputs}
    alive = worst = 0
    dying: dict[int, int] = {}
    for k, operation in enumerate(operations):
        for tensor in operation.outputs:
            size = (tensor.shape.num_elements() or 0) * tensor.dtype.size if tensor.dtype.is_floating else 0
            end = last.get(tensor.ref(), k)
            dying[end] = dying.get(end, 0) + size
            alive += size
        worst = max(worst, alive)
        alive -= dying.pop(k, 0)
    return ALLOWANCE * worst / side**2


def exhausted() -> tuple[type[Exception], ...]:
    """What NumPy and TensorFlow raise when they are refused memory."""
    import tensorflow as tf

    return MemoryError, tf.errors.ResourceExhaustedError


def free() -> float:
    """Bytes that this process may still take, less a tenth for surprises: what the machine, its control group and `ulimit -v` leave; infinite where no
    limit is known (not Linux)."""
    found = [float("inf")]
    for read in (_of_machine, _of_group, _of_process):
        try:
            found.append(read())
        except (OSError, ValueError, KeyError, ImportError):
            pass
    return 0.9 * min(found)


def _of_machine() -> int:
    return _kilobytes("/proc/meminfo", "MemAvailable")


def _of_group(folder: Path = Path("/sys/fs/cgroup")) -> int:
    limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))  # "max" is a ValueError: no limit
    kept = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return limit - used + int(kept["inactive_file"]) + int(kept["active_file"])  # cached files give way


def _of_process() -> int:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        raise ValueError("no limit")
    return limit - _kilobytes("/proc/self/status", "VmSize")


def _kilobytes(file: str, name: str) -> int:
    for line in Path(file).read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise ValueError(f"{file} has no {name}")
