"""Execute notebooks and store their outputs: `python tools/execute.py notebooks/*.ipynb`.

What differs from run to run without meaning is left out: widget states, times of execution, the version of Python, and
where a stream was cut into pieces. So a notebook whose outputs are the same is the same file.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path) -> None:
    """Run all cells in the notebook's own folder and write it back. Raises nbclient's CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, store_widget_state=False, resources=place).execute()
    nbformat.write(cleaned(notebook), path)


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """Without widgets, times and versions; neighbouring pieces of one stream joined."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
    return notebook


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Streams of one name that follow each other become one output."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if kept and output.output_type == "stream" == kept[-1].output_type and output.name == kept[-1].name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


if __name__ == "__main__":
    for name in sys.argv[1:]:
        execute(Path(name))
        print(name)
