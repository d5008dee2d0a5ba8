"""The examples in the docstrings of the API: each runs, and each function has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainhive_cli import api
from tests.test_api import COLOURS

DATASET = "demo-noise-0.3-40-concepts"
FROM_ARRAYS = ("fit", "store_trials")
"""Functions whose examples start from arrays."""
PUBLIC = ("CommandResult", "model_input") + tuple(api.NAMES)


def list_examples(name):
    """List the statements of the examples of a public name."""
    text = inspect.getdoc(getattr(api, name)) or ""
    _, _, examples = text.partition("Examples:\n")
    return [
        example.source for example in doctest.DocTestParser().get_examples(examples)
    ]


def run_examples(name, replaced, variables):
    """Run the examples of a public name, with names of a test's own runs and data."""
    statements = list_examples(name)
    assert any(f"api.{name}(" in text or name[0].isupper() for text in statements), name
    for statement in statements:
        for word, value in replaced.items():
            statement = statement.replace(f'"{word}"', repr(value))
        exec(compile(statement, f"example of {name}", "single"), variables)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in FROM_ARRAYS])
def test_an_example_runs_on_runs_and_stores(
    name,
    trained_run,
    evaluation_result,
    run_command,
    capsys,
):
    other_run_folder = run_command(
        "eval-retrieval", f"run={trained_run}", "sheet_rows=1"
    ).folder
    replaced = {
        "EVALUATION": str(evaluation_result.folder),
        "OTHER": str(other_run_folder),
        "TRAINING": str(trained_run),
        "CELL": next(cell.name for cell in api.open_run(trained_run).cells),
        "DATASET": DATASET,
        "ENCODER": COLOURS,
    }
    run_examples(name, replaced, {"api": api})


@pytest.mark.parametrize("name", FROM_ARRAYS)
def test_an_example_runs_on_arrays(home, name):
    random = np.random.default_rng(0)
    labels = ["cat", "dog", "owl"] * 12
    picture_names = [f"{label}/{number}.png" for number, label in enumerate(labels)]
    for file in picture_names:
        path = home / "pictures" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    variables = {
        "api": api,
        "X": random.normal(size=(len(labels), 4, 20)),
        "shown": picture_names,
        "labels": labels,
        "runs": np.arange(len(labels)) // 12,
        "channels": ["Pz", "Oz", "O1", "O2"],
        "times_s": np.arange(20) / 100,
    }
    run_examples(name, {"PICTURES": str(home / "pictures")}, variables)


def test_every_public_name_is_on_the_page_of_the_api():
    page = (Path(__file__).parents[2] / "docs/api.md").read_text()
    for name in PUBLIC:
        assert f"::: brainhive_cli.api.{name}\n" in page
        assert list_examples(name)

    # the site's generator reads the files without running them
    for name in PUBLIC:
        module = importlib.import_module(getattr(api, name).__module__)
        assert name in vars(module)
