"""Runs docs/notebook.ipynb in an empty folder and keeps its outputs: `make notebook`."""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

PAGE = Path(__file__).with_name("notebook.ipynb")

if __name__ == "__main__":
    notebook = nbformat.read(PAGE, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, resources={"metadata": {"path": folder}}, record_timing=False)
        client.execute()
    notebook.metadata.pop("language_info", None)  # it names a version of Python
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        output.get("data", {}).pop("image/jpeg", None)  # Pillow gives every image twice
    nbformat.write(notebook, PAGE)
