"""docs/quickstart.ipynb runs from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory) -> nbformat.NotebookNode:
    """The notebook with the outputs of all cells."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    directory = tmp_path_factory.mktemp("notebook")
    return NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(directory)}}).execute()


def outputs(notebook: nbformat.NotebookNode, code: str) -> list[dict[str, str]]:
    """The data of the outputs of the first code cell that contains some code, by MIME type."""
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code" and code in cell.source)
    return [output.data for output in cell.outputs if "data" in output]


@pytest.mark.slow
class TestNotebook:
    def test_a_study_shows_its_savings(self, notebook):
        shown = outputs(notebook, "run = balbench.run_study")[-1]
        assert "bald" in shown["text/html"]
        assert "23 of 23 cells finished" in shown["text/plain"]

    def test_plots_are_figures(self, notebook):
        assert "image/png" in outputs(notebook, 'run.plot(split="test"')[-1]

    def test_a_policy_of_the_notebook_runs_on_worker_processes(self, notebook):
        shown = outputs(notebook, "balbench.register(")[-1]
        assert "diverse_margin" in shown["text/plain"]
        assert "failed" not in shown["text/plain"]

    def test_savings_of_arrays(self, notebook):
        assert "32% of the labels: saved" in outputs(notebook, "savings.savings.estimate")[-1]["text/plain"]


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
