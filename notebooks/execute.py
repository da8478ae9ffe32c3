"""Execute the notebooks: `python notebooks/execute.py [NAME...]` writes NAME.ipynb, with outputs, beside each NAME.py (the source)."""

import sys
from pathlib import Path

import jupytext
import nbclient

HERE = Path(__file__).parent


def execute(source: Path, seconds: int = 1200):
    """The executed notebook of a percent script; nbclient's CellExecutionError if a cell fails."""
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbclient.NotebookClient(notebook, timeout=seconds, kernel_name="python3", resources={"metadata": {"path": str(source.parent)}}).execute()
    return notebook


if __name__ == "__main__":
    names = sys.argv[1:] or [p.stem for p in sorted(HERE.glob("*.py")) if p.stem != "execute"]
    for name in names:
        jupytext.write(execute(HERE / f"{name}.py"), HERE / f"{name}.ipynb")
        print(f"{name}.ipynb: {(HERE / f'{name}.ipynb').stat().st_size / 1e6:.2f} MB")
