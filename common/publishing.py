"""Ship trained weights: put them, with a model card, into the paper's package.

python -m common.publishing --paper semnet --run RUN --results DIR --command "empapers train semnet --preset small --out RUN"
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from .papers import paper as paper_by_name
from .restoring import weights_folder


def publish(paper: str, run: Path, results: Path, command: str, name: str = "small") -> Path:
    """Copy final.weights.h5 of a run and write its card: configuration, command, training curve, measured results and sha256.

    Args:
        paper: the paper's name.
        run: a finished run folder.
        results: what `evaluate --weights RUN` wrote.
        command: the command that made the run, for whoever wants to repeat it.
        name: the name under which `weights=` finds them.
    """
    entry = paper_by_name(paper)
    description = json.loads((run / "config.json").read_text())
    measured = json.loads((results / "results.json").read_text())
    target = weights_folder(entry) / f"{name}.weights.h5"
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(run / "final.weights.h5", target)
    header, *lines = (run / "metrics.csv").read_text().splitlines()
    columns = header.split(",")
    validated = [dict(zip(columns, line.split(","), strict=True)) for line in lines if line.split(",")[-1]]
    curve = [{key: float(row[key]) for key in columns if key in ("step", "loss") or key.startswith("val_")} for row in validated]
    seconds = max(float(line.split(",")[columns.index("seconds")]) for line in lines)
    card = {
        "paper": entry.name,
        "citation": entry.citation,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "training": {"command": command, "data": description["data"], "seconds": seconds, "curve": curve, "versions": description["versions"]},
        "results": measured["items"],
        "classical": measured["classical"],
        "convention": measured["convention"],
        "notes": measured.get("notes", {}),
        "limits": "Invents plausible detail where the input holds none; do not measure what only the restored image shows.",
        "config": description["config"],
    }
    target.with_name(f"{name}.json").write_text(json.dumps(card, indent=2) + "\n")
    return target


if __name__ == "__main__":
    from .__main__ import run_tool

    raise SystemExit(run_tool(publish, "python -m common.publishing"))
