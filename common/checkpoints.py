"""Checkpoints that appear whole or not at all. The newest one that can be read is the one that counts, whatever became of the others."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from pathlib import Path

import tensorflow as tf

UNREADABLE = (tf.errors.OpError, IndexError, ValueError)  # what TensorFlow's reader raises; the second where a file ends too early


def read(prefix: Path) -> None:
    """Read all of a checkpoint, which compares all its checksums; UNREADABLE if one is wrong or something is missing."""
    reader = tf.train.load_checkpoint(str(prefix))
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


class Checkpoints:
    """The folders `ckpt-<step>` in a folder, each one a tf.train.Checkpoint; the newest `keep` stay.

    TensorFlow stores a CRC32C of every tensor and of every block of the index, and compares it with what it reads: a checkpoint is good if all of it can be
    read. Nothing else is asked, so there is no list of checkpoints that could be damaged or out of date.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """The steps of all checkpoints, good or not, newest first."""
        names = (re.fullmatch(r"ckpt-(\d+)", path.name) for path in self.folder.glob("ckpt-*"))
        return sorted((int(name[1]) for name in names if name), reverse=True)

    def path(self, step: int) -> Path:
        """The prefix of a checkpoint's files, as TensorFlow wants it."""
        return self.folder / f"ckpt-{step}" / "state"

    def newest(self) -> int:
        """The step of the newest good checkpoint, 0 in a folder without any; newer ones are damaged, which a warning says, and become `damaged-<step>`.

        ValueError if there is something in the folder, but no good checkpoint.
        """
        damaged = {}
        for step in self.steps():
            try:
                read(self.path(step))
            except UNREADABLE as error:
                damaged[step] = str(error).splitlines()[0]
                continue
            for bad in damaged:
                aside = self.folder / f"damaged-{bad}"
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(self.folder / f"ckpt-{bad}", aside)
            if damaged:
                warnings.warn(f"{self.folder}: {_names(damaged)} cannot be read and was set aside; going on from ckpt-{step}", stacklevel=2)
            return step
        if any(re.match("ckpt-|damaged-", path.name) for path in self.folder.glob("*")):  # starting at 0 in silence would pass for going on
            raise ValueError(f"{self.folder} holds no checkpoint that can be read{': ' if damaged else ''}{_names(damaged)}; start anew with another --out")
        return 0

    def restore(self, state: tf.train.Checkpoint, step: int) -> None:
        """Load a checkpoint into objects that match it entirely."""
        state.read(str(self.path(step))).assert_consumed()

    def save(self, state: tf.train.Checkpoint, step: int) -> None:
        """Write a checkpoint, then remove what is older than the newest `keep`. OSError if it cannot be written; the older ones are untouched then."""
        if step in self.steps():
            return
        partial = self.folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            state.write(str(partial / "state"))
            os.replace(partial, self.folder / f"ckpt-{step}")
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            reason = str(error).splitlines()[0].split("; ")[-1].split(" [Op:")[0]
            raise OSError(f"the checkpoint of step {step} cannot be written to {self.folder} ({reason}); make room there and go on with --resume") from error
        for old in self.steps()[self.keep :]:
            shutil.rmtree(self.folder / f"ckpt-{old}", ignore_errors=True)


def _names(damaged: dict[int, str]) -> str:
    return ", ".join(f"ckpt-{step} ({reason})" for step, reason in damaged.items())
