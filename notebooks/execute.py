"""Runs a notebook of this folder from top to bottom and keeps its outputs in it.

    pip install -e '.[test]'
    python notebooks/execute.py quickstart --folder FOLDER "budget=0.5" "photos=None"

What follows are values of the cell that is tagged `parameters`, as Python writes them; the cell
itself stays as it is. FOLDER is where the notebook finds and leaves its files. A test runs the
notebooks in the same way, with small settings.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

HERE = Path(__file__).parent
TIMEOUT = 3600  # seconds that a cell may take


def execute(name: str, folder: Path, parameters: Mapping[str, Any]) -> NotebookNode:
    """The notebook with the outputs that it has with other parameters.

    Args:
        name: "quickstart" or "finetune".
        folder: in which it runs.
        parameters: values, by the names that the cell of parameters gives them.

    Raises:
        KeyError: the cell of parameters has no such name.
        nbclient.exceptions.CellExecutionError: a cell raised something.
    """
    notebook = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    is_tagged = ["parameters" in cell.metadata.get("tags", ()) for cell in notebook.cells]
    place = is_tagged.index(True)
    given: dict[str, Any] = {}
    exec(notebook.cells[place].source, given)
    unknown = parameters.keys() - given.keys()
    if unknown:
        raise KeyError(f"{name} has no parameters {sorted(unknown)}")
    lines = [f"{key} = {value!r}" for key, value in parameters.items()]
    notebook.cells.insert(place + 1, new_code_cell("\n".join(lines)))
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    path = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    client.execute(env=os.environ | {"PYTHONPATH": os.pathsep.join(path)})
    del notebook.cells[place + 1]
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = number
    return notebook


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run a notebook and keep its outputs in it.")
    parser.add_argument("name", choices=("quickstart", "finetune"))
    parser.add_argument("--folder", type=Path, required=True, help="where it runs")
    parser.add_argument("parameters", nargs="*", help="such as budget=0.5")
    chosen = parser.parse_intermixed_args(arguments)
    pairs = (text.partition("=") for text in chosen.parameters)
    parameters = {key: eval(value, {}) for key, _, value in pairs}
    executed = execute(chosen.name, chosen.folder, parameters)
    nbformat.write(executed, HERE / f"{chosen.name}.ipynb")


if __name__ == "__main__":
    main()
