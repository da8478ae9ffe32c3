"""Several devices, or several machines, that train one network: which they are, and which part of every step's batch belongs to which."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Literal

Devices = Literal["one", "all", "workers"]


def strategy(devices: Devices):
    """The tf.distribute.Strategy for "all" GPUs of this machine or for the "workers" that the environment variable TF_CONFIG names; None for "one" device.

    To be called before TensorFlow begins to work. ValueError where workers are asked for and TF_CONFIG is not set.
    """
    import tensorflow as tf

    if devices == "workers" and "TF_CONFIG" not in os.environ:
        raise ValueError('--devices workers needs TF_CONFIG: {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": NUMBER}}')
    return {"one": lambda: None, "all": tf.distribute.MirroredStrategy, "workers": tf.distribute.MultiWorkerMirroredStrategy}[devices]()


def share(batch: int, strategy) -> tuple[int, int, int]:
    """(this worker's number, number of workers, examples per device) for a joint batch under a tf.distribute.Strategy; worker 0 is the chief.

    ValueError if the devices cannot get equal shares: the update would no longer be that of the joint batch.
    """
    devices = strategy.num_replicas_in_sync
    if batch % devices:
        raise ValueError(f"a batch of {batch} cannot be shared equally by {devices} devices; make --batch a multiple of {devices}")
    cluster = strategy.cluster_resolver
    if cluster is None or not cluster.cluster_spec():
        return 0, 1, batch // devices
    jobs = cluster.cluster_spec().as_dict()
    workers = [(job, k) for job in ("chief", "worker") for k in range(len(jobs.get(job, ())))]
    return workers.index((cluster.task_type, cluster.task_id)), len(workers), batch // devices


@contextmanager
def team():
    """Work inside that needs all workers. ConnectionError, in one line, when another one stops answering."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise ConnectionError("another worker has stopped; see what it said last, then start all workers again with --resume") from error
