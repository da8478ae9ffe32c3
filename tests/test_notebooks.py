"""The notebooks run from the first cell to the last, and say what they should."""

import sys

import pytest

from tests.helpers import ROOT

sys.path.insert(0, str(ROOT / "notebooks"))
from execute import execute  # noqa: E402  (notebooks/ is no package)

SOURCES = sorted(p for p in (ROOT / "notebooks").glob("*.py") if p.stem != "execute")


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_notebook_runs(source):
    notebook = execute(source)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code if cell.source.strip())
    assert sum(output.output_type == "display_data" for cell in code for output in cell.outputs) >= 5
