"""Fuzzing of `load_micrograph`: a damaged file must end in a Micrograph or in one line, soon, in little memory and in silence. Linux only.

python -m tests.fuzz --data DIR --count 2000 --seed 0 [--group tiff] --out results.csv

Mutation k of a group is a pure function of (seed, group, k) and of the files it starts from: those that the project and its libraries write, and, with a
folder of
real micrographs, small versions of those. Loads run in forked workers, whose memory is limited and which are killed when they take too long.
Leaves one row a mutation in the CSV, and the file of every finding in the folder `findings` beside it.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from multiprocessing.connection import wait
from pathlib import Path

import dask
import numpy as np

from common.micrograph import load_micrograph

from .damage import GROUPS, Specimen, mutation, specimens

SECONDS, MEGABYTES, ADDRESS_SPACE = 10, 2048, 3 * 2**30  # what one load may take; the last is above what the worker starts with
LONGEST_MESSAGE = 1000
LIBRARIES = ("dask.array", "rsciio.digitalmicrograph", "rsciio.emd", "rsciio.hspy", "rsciio.mrc", "rsciio.tia")  # imported before the fork


# --- Workers ---


def serve(pipe, group: str, start: list[Specimen], seed: int) -> None:
    """In the worker: answers k with the row of mutation k until None comes."""
    folder = Path(tempfile.mkdtemp())
    log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for library in LIBRARIES:
        importlib.import_module(library)
    limit = memory("VmSize") * 2**20 + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        while (k := pipe.recv()) is not None:
            pipe.send(row(folder / "work", group, start, seed, k))
    finally:
        shutil.rmtree(folder)


def memory(key: str) -> int:
    """VmSize, VmHWM, ... of this process in MB."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)) // 1024


def write_mutation(folder: Path, group: str, start: list[Specimen], seed: int, k: int) -> tuple[Path, str, list[str]]:
    """The file of mutation k in an empty folder, what it started from, what was done."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    origin, extension, parts, done = mutation(start, np.random.default_rng((seed, zlib.crc32(group.encode()), k)))
    for end, data in parts.items():
        (folder / f"{group}_{k}{end}").write_bytes(data)
    return folder / f"{group}_{k}{extension}", origin.name, done


def row(folder: Path, group: str, start: list[Specimen], seed: int, k: int) -> dict:
    path, origin, done = write_mutation(folder, group, start, seed, k)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    said = os.fstat(2).st_size
    began = time.perf_counter()
    outcome, detail = outcome_of(path)
    seconds, peak = time.perf_counter() - began, memory("VmHWM")
    sys.stderr.flush()
    noise = os.pread(2, 300, said).decode("utf-8", "replace") if os.fstat(2).st_size > said else ""
    if outcome in ("read", "refused"):
        outcome = "memory" if peak > MEGABYTES else "noise" if noise else outcome
    return {"group": group, "k": k, "file": origin, "mutation": " ".join(done), "outcome": outcome, "seconds": round(seconds, 3), "megabytes": peak,
            "detail": detail.replace(str(path), "PATH"), "noise": noise.replace(str(path), "PATH")}  # fmt: skip


def outcome_of(path: Path) -> tuple[str, str]:
    """("read" | "refused" | what is wrong, in words)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for frame in (None, 0):
            try:
                image = load_micrograph(path, frame)
                json.dumps(image.metadata)
                outcome, text = "read", f"{image.data.shape} {image.data.dtype} {image.pixel_size}"
                break
            except (ValueError, FileNotFoundError) as error:
                outcome, text = "refused", str(error)
                if "frame=" not in text:
                    break
            except BaseException as error:
                return "exception", f"{type(error).__name__}: {error}"
    for line in (text, *(str(w.message) for w in caught if not w.category.__name__.endswith("DeprecationWarning"))):
        if not line or len(line.splitlines()) > 1:
            return "lines", line
        if not line.isprintable() or len(line) > LONGEST_MESSAGE:
            return "message", line
    return outcome, text


class Worker:
    """A forked process and the pipe to it; `busy` is (k, deadline) or None."""

    def __init__(self, *task):
        self.task, self.busy = task, None
        self.start()

    def start(self) -> None:
        fork = multiprocessing.get_context("fork")
        self.pipe, far = fork.Pipe()
        self.process = fork.Process(target=serve, args=(far, *self.task), daemon=True)
        self.process.start()
        far.close()

    def give(self, k: int | None) -> None:
        self.pipe.send(k)
        self.busy = None if k is None else (k, time.monotonic() + SECONDS)

    def take(self) -> dict | None:
        """The row that came in, or what became of the worker, which is then replaced; None while it may still work."""
        k, deadline = self.busy
        died = {"group": self.task[0], "k": k, "file": "", "mutation": "", "megabytes": 0, "noise": ""}
        if self.pipe.poll():
            try:
                return self.pipe.recv()
            except EOFError:
                self.process.join()
                found = died | {"outcome": "crash", "seconds": 0, "detail": f"exit code {self.process.exitcode}"}
        elif time.monotonic() < deadline:
            return None
        else:
            self.process.kill()
            self.process.join()
            found = died | {"outcome": "hang", "seconds": SECONDS, "detail": f"more than {SECONDS} s"}
        self.start()
        return found


def fuzz(group: str, start: list[Specimen], count: int, seed: int, workers: int = 2) -> list[dict]:
    """One row for each of the mutations 0 .. count - 1."""
    rows, waiting = [], iter(range(count))
    crew = [Worker(group, start, seed) for _ in range(workers)]
    while True:
        for worker in crew:
            if worker.busy is None and (k := next(waiting, None)) is not None:
                worker.give(k)
        busy = [worker for worker in crew if worker.busy]
        if not busy:
            break
        wait([worker.pipe for worker in busy], timeout=max(0, min(worker.busy[1] for worker in busy) - time.monotonic()))
        for worker in busy:
            if (found := worker.take()) is not None:
                rows.append(found)
                worker.busy = None
    for worker in crew:
        worker.give(None)
        worker.process.join()
    return sorted(rows, key=lambda r: r["k"])


# --- Report ---


def table(rows: list[dict], start: dict[str, list[Specimen]]) -> str:
    lines = ["| group | files | mutations | read | refused | slowest (s) | peak memory (MB) | findings |", "| --- |" + " ---: |" * 6 + " --- |"]
    for group in dict.fromkeys(r["group"] for r in rows):
        mine = [r for r in rows if r["group"] == group]
        count = Counter(r["outcome"] for r in mine)
        findings = ", ".join(f"{n} {name}" for name, n in count.items() if name not in ("read", "refused")) or "none"
        slowest, peak = (max(r[key] for r in mine) for key in ("seconds", "megabytes"))
        lines.append(f"| {group} | {len(start[group])} | {len(mine)} | {count['read']} | {count['refused']} | {slowest:.2f} | {peak} | {findings} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Exit status 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real micrographs")
    parser.add_argument("--count", type=int, default=2000, help="mutations of each group")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", choices=GROUPS, action="append", help="only this group; may be repeated")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="synchronous"):  # threads of this process would be missing in the workers
        start = specimens(asked.data, Path(folder))
    rows = []
    for group in asked.group or GROUPS:
        if start[group]:
            rows += fuzz(group, start[group], asked.count, asked.seed)
            print(table([r for r in rows if r["group"] == group], start).splitlines()[-1], file=sys.stderr, flush=True)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    asked.out.write_text(text.getvalue())
    found = [r for r in rows if r["outcome"] not in ("read", "refused")]
    for r in found:
        target = asked.out.parent / "findings" / f"{r['group']}_{r['k']}"
        target.parent.mkdir(exist_ok=True)
        write_mutation(target, r["group"], start[r["group"]], asked.seed, r["k"])
    print(table(rows, start))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
