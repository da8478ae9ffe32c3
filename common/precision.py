"""Mixed precision: which one a device likes, networks built under it, optimizers that survive it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")


def resolve(precision: str) -> str:
    """The Keras dtype policy for a precision name.

    "auto": mixed_bfloat16 on GPUs of compute capability >= 8 and on CPUs with bfloat16 instructions, mixed_float16 on older GPUs, float32 elsewhere.
    Raises ValueError for an unknown name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16"
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


@contextmanager
def building(precision: str):
    """Networks built inside compute in `precision`; their variables stay float32. The former policy comes back afterwards."""
    import keras

    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(resolve(precision))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)


def guarded(optimizer, precision: str):
    """The optimizer, with dynamic loss scaling of its own under mixed_float16 (small gradients would be flushed to zero)."""
    import keras

    return keras.optimizers.LossScaleOptimizer(optimizer) if resolve(precision) == "mixed_float16" else optimizer
