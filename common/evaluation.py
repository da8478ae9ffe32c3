"""What every paper's evaluation writes: results.json, tables in Markdown and CSV, and paired comparisons with their uncertainty."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np

from .metrics import CONVENTION, bootstrap_interval
from .training import versions, write_atomically


def item(value: float, unit: str = "", baseline: float | None = None, published: float | None = None, n: int | None = None, interval=None, **more) -> dict:
    """One figure of an evaluation: ours, the baseline's, the paper's (None where there is none), the number of images and a 95 % interval."""
    return {"value": value, "unit": unit, "baseline": baseline, "published": published, "n": n, "interval": list(interval) if interval else None, **more}


def paired_gain(ours, baseline, unit: str, published: float | None = None) -> dict:
    """Mean gain of paired per-image scores (higher is better) as an item: bootstrap interval, and the share of images made worse."""
    ours, baseline = np.asarray(ours, float), np.asarray(baseline, float)
    finite = np.isfinite(ours) & np.isfinite(baseline)  # a constant image restored exactly has no PSNR to average
    ours, baseline = ours[finite], baseline[finite]
    gains = ours - baseline
    more = {"ours": float(ours.mean()), "worse": float((gains < 0).mean())}
    return item(float(gains.mean()), unit, float(baseline.mean()), published, len(gains), bootstrap_interval(gains), **more)


def drop_undefined(items: dict) -> list[str]:
    """Take out of `items` what has no finite value or baseline, such as a mean over nothing, and return its names: JSON has no number for it."""
    undefined = [name for name, entry in items.items() if not all(math.isfinite(entry[key]) for key in ("value", "baseline") if entry[key] is not None)]
    for name in undefined:
        del items[name]
    return undefined


def write_results(out: Path, paper: str, weights: str, seed: int, items: dict, convention: str = CONVENTION, **more) -> Path:
    """Write results.json (the items, with convention and versions) and results.md, a table of them."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"paper": paper, "weights": str(weights), "seed": seed, "convention": convention, "versions": versions(), "items": items, **more}
    lines = ["| item | ours | 95 % interval | baseline | published | n |", "| --- | --- | --- | --- | --- | --- |"]
    for name, entry in items.items():
        interval = "" if entry["interval"] is None else " .. ".join(_shown(v) for v in entry["interval"])
        cells = (name, f"{_shown(entry['value'])} {entry['unit']}".strip(), interval, _shown(entry["baseline"]), _shown(entry["published"]), _shown(entry["n"]))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", convention, *(f"- {note}" for notes in more.get("notes", {}).values() for note in notes)]
    write_atomically(out / "results.md", "\n".join(lines) + "\n")
    write_atomically(out / "results.json", json.dumps(document, indent=2, allow_nan=False))
    return out / "results.json"


def write_table(path: Path, rows: list[dict]) -> None:
    """A CSV table, one dict a row, the columns of the first."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def _shown(value) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) or not math.isfinite(value) else f"{value:.4g}"
