"""The output of `workflow --check`: steps with their states, and missing inputs."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import brainhive_cli
from brainhive_cli.app import app
from brainhive_cli.commands import reconstruct, workflow
from brainhive_cli.core.files import describe_missing, documents
from brainhive_cli.core.recipes.recipe import shipped_recipes
from brainhive_cli.core.runs import Launch, list_inputs

PAPERS = sorted(path.name for path in (shipped_recipes() / "papers").iterdir())
PUBLISHED = Path(brainhive_cli.__file__).parent / "models" / "published_weights.yaml"
UNET = "shi-labs/versatile-diffusion/text_unet/diffusion_pytorch_model.bin"
COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"


@pytest.fixture(autouse=True)
def empty_home(home, image_networks_absent):
    """A home without files, and empty caches of weights."""
    return home


def resolve(module, recipe):
    return module.Recipe.resolve(module.__name__.rpartition(".")[2], recipe, {}, ())


def inputs_of(recipe):
    return workflow.inputs(resolve(workflow, recipe))


def steps_of(inputs):
    """Lines of the steps, by name."""
    return dict(
        input_row.name.split(": ", 1)
        for input_row in inputs
        if ": brainhive " in input_row.name
    )


def table_of(recipe):
    """Rows of the table that `--check` shows of a workflow without a network, by what
    they are of.
    """
    result = CliRunner().invoke(
        app, ["workflow", "--recipe", recipe, "--check", "--json"]
    )
    assert result.exit_code == 3, result.stderr
    document = json.loads(result.stdout)
    (table,) = document["tables"]
    assert [input_row["what"] for input_row in document["inputs"]] == [
        row["what"] for row in table["rows"]
    ]
    return {row["what"]: row for row in table["rows"]}


def test_the_steps_of_a_paper_come_first_with_lines_and_states():
    rows = table_of("papers/havir")

    steps = [row for row in rows.values() if ": brainhive " in row["what"]]
    assert list(rows.values())[: len(steps)] == steps
    controls = ("none", "swapped", "random")
    names = [row["what"].partition(":")[0] for row in steps]
    assert names == ["prepare", "embed"] + [
        f"train-align · {control}" for control in controls
    ] + [f"eval-retrieval · {control}" for control in controls] + ["reconstruct"]
    # the first step is next, and each later step waits for the step before it
    assert steps[0]["state"] == "next"
    awaited_names = [row["state"].rpartition(" ")[2] for row in steps[1:]]
    assert awaited_names == ["prepare"] + list(3 * ["embed"]) + list(
        3 * ["train-align"]
    ) + ["eval-retrieval"]
    assert rows[UNET] == {
        "what": UNET,
        "size": "6.8 GB",
        "state": "for reconstruct",
        "licence": "MIT",
    }
    assert steps[1]["what"] == "embed: brainhive embed --recipe papers/havir"
    assert steps[5]["what"].endswith("'align_run=<train-align · none>'")


@pytest.mark.nightly
def test_every_paper_has_steps_and_weights_of_known_size():
    names = set[str]()
    for paper in PAPERS:
        inputs, folder = (
            inputs_of(f"papers/{paper}"),
            shipped_recipes() / "papers" / paper,
        )
        names |= {input_row.name for input_row in inputs}
        if (folder / "reconstruct.yaml").is_file():  # whose metrics are done without
            names |= {
                input_row.name
                for input_row in list_inputs(
                    reconstruct, resolve(reconstruct, f"papers/{paper}")
                )
            }

        # what is missing is got by nobody but the reader
        lacking = [input_row.name for input_row in inputs if input_row.is_missing]
        assert lacking and not any(
            re.match("embeddings[ /]|run ", name) for name in lacking
        ), lacking
        lines = describe_missing(inputs)
        assert not [
            line
            for line in lines
            if re.search("brainhive (embed|prepare|train-align)", line)
        ]

        # without a workflow of its own, the last step is what the folder is for
        if (folder / "workflow.yaml").is_file():
            continue
        ends = {
            "reconstruct": "reconstruct",
            "train-prior": "train-prior",
            "train-align": "eval-retrieval",
        }
        last_step = next(
            (ends[file] for file in ends if (folder / f"{file}.yaml").is_file()),
            "prepare",
        )
        if paper == "havir-ablations":  # whose pictures have the recipe papers/havir
            last_step = "reconstruct"
        assert shlex.split(list(steps_of(inputs).values())[-1])[1] == last_step
    assert documents.read(PUBLISHED, dict[str, dict[str, Any]]).keys() <= names


def test_finished_steps_differ_from_the_next_and_later_steps():
    names = [f"step-{number}" for number in range(1, 6)]
    steps = {
        name: {
            "command": "embed",
            "overrides": [COLOURS, f"dataset={{kind: demo, concepts: {2 + number}}}"],
        }
        for number, name in enumerate(names)
    }
    recipe = workflow.Recipe.model_validate({"recipe": "demo", "steps": steps})
    workflow.run(
        recipe.model_copy(update={"until": "step-2"}), Launch(0, 1, torch.device("cpu"))
    )

    inputs = workflow.inputs(recipe)

    states = [
        input_row.state for input_row in inputs if ": brainhive " in input_row.name
    ]
    assert states[:3] == ["finished", "finished", "next"]
    assert [state.rpartition(" ")[2] for state in states[3:]] == names[2:4]
    assert describe_missing(inputs) == []
