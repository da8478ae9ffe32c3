"""Ship trained weights: put them, with a model card, into the paper's package; or measure shipped ones again.

python -m common.publishing --paper semnet --results DIR --run RUN --command "empapers train semnet --preset small --out RUN"
python -m common.publishing --paper semnet --results DIR
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np

from .papers import paper as paper_by_name
from .restoring import find_weights, weights_folder
from .training import write_atomically


def publish(
    paper: str,
    results: Path,
    run: Path | None = None,
    command: str | None = None,
    name: str = "small",
    half: bool = False,
    data: Path | None = None,
) -> Path:
    """Copy final.weights.h5 of a run, evaluate the copy and ship it with its card: configuration, command, training curve, measured results and sha256.

    Without a run the weights that are shipped already are measured again, and only what was measured is renewed in their card.

    Args:
        paper: the paper's name.
        results: the folder for the evaluation.
        run: a finished run folder.
        command: the command that made the run, for whoever wants to repeat it; goes with --run.
        name: the name under which `weights=` finds them.
        half: store the weights in float16, half the size; networks are float32 all the same. Goes with --run.
        data: the folder of the evaluation's own images, where the paper takes one.
    """
    if (run is None) != (command is None) or (half and run is None):
        raise ValueError("--run and --command go together, and --half with them; leave all three out to measure the shipped weights again")
    entry = paper_by_name(paper)
    shelf = weights_folder(entry)
    weights, card_file = results / f"{name}.weights.h5", results / f"{name}.json"
    if run is None:
        shipped, card = find_weights(entry, shelf / weights.name)
        results.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shipped, weights)
    else:
        description = json.loads((run / "config.json").read_text())
        results.mkdir(parents=True, exist_ok=True)
        copy_weights(run / "final.weights.h5", weights, half)
        card = {
            "paper": entry.name,
            "citation": entry.citation,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "stored": "float16" if half else "float32",
            "training": {"command": command, "data": description["data"], **training_curve(run / "metrics.csv"), "versions": description["versions"]},
            "config": description["config"],
        }
    write_atomically(card_file, json.dumps(card))
    entry.evaluate(results, weights=str(weights), **({"data": data} if data else {}))
    measured = json.loads((results / "results.json").read_text())
    card |= {
        "results": measured["items"],
        "classical": measured.get("classical", {}),
        "convention": measured["convention"],
        "notes": measured.get("notes", {}),
        "limits": "Invents plausible detail where the input holds none; do not measure what only the restored image shows.",
    }
    write_atomically(card_file, json.dumps(card, indent=2) + "\n")
    shelf.mkdir(exist_ok=True)
    for file in (weights, card_file):
        shutil.copyfile(file, shelf / file.name)
    return shelf / weights.name


def copy_weights(source: Path, target: Path, half: bool) -> None:
    """Copy a .weights.h5 file, its float32 arrays as float16 if `half`; ValueError where a weight does not fit."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:

        def copy(name: str, item) -> None:
            if isinstance(item, h5py.Dataset):
                values = item[()]
                if half and values.dtype == np.float32:
                    if not np.abs(values).max(initial=0) <= np.finfo(np.float16).max:
                        raise ValueError(f"{source}: {name} holds weights that float16 cannot hold; ship them in float32")
                    values = values.astype(np.float16)
                new.create_dataset(name, data=values)
            else:
                new.require_group(name)
            new[name].attrs.update(item.attrs)

        old.visititems(copy)
        new.attrs.update(old.attrs)


def training_curve(metrics: Path) -> dict:
    """{"seconds", "curve"} of a metrics.csv: its last time, and the validated steps with their loss and validation columns."""
    header, *lines = metrics.read_text().splitlines()
    columns = header.split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in lines]
    validation = [key for key in columns if key.startswith("val_")]
    curve = [{key: float(row[key]) for key in ("step", "loss", *validation)} for row in rows if validation and row[validation[0]]]
    return {"seconds": max(float(row["seconds"]) for row in rows), "curve": curve}


if __name__ == "__main__":
    from .__main__ import run_tool

    raise SystemExit(run_tool(publish, "python -m common.publishing"))
