"""Tests of the Python interface: its page runs, with the numbers of the commands."""

import html
import importlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from brainhive_cli import aligner, api
from brainhive_cli.core.base.errors import BrainhiveError, DeviceError
from brainhive_cli.data.datasets import demo
from brainhive_cli.models.encoders import resolve
from brainhive_cli.reports.sentences.sentences import explain_caveats
from brainhive_cli.training.alignment.trained.picture_targets import open_targets
from tests.docs.test_docs import DOCS
from tests.docs.test_tutorial import blocks_of, simulate_trials
from tests.test_architecture import HEAVY

COLOURS = resolve("python:brainhive_cli.models.encoders.python:example").name


@pytest.fixture
def page(trained_run, evaluation_result, run_command):
    """Variables of the documentation page after its blocks ran on a small data set."""
    other_run_folder = run_command(
        "eval-retrieval", f"run={trained_run}", "sheet_rows=1"
    ).folder
    text = (DOCS / "python.md").read_text().partition("## Runs\n")[2]
    blocks = blocks_of(text.partition("## Your own parts")[0], "python")
    placeholders = {
        "EVALUATION": str(evaluation_result.folder),
        "TRAINING": trained_run.name,
        "DATASET": "demo-noise-0.3-40-concepts",
        "ENCODER": COLOURS,
        "OTHER": str(other_run_folder),
    }
    text = "".join(blocks)
    for name, value in placeholders.items():
        assert f'"{name}"' in text
        text = text.replace(f'"{name}"', repr(value))
    variables = {}
    exec(compile(text, "python.md", "exec"), variables)
    return variables


def test_the_page_gives_the_numbers_of_the_commands(page, evaluation_result):
    metric, rows = evaluation_result.metrics.overall["top1"], page["run"].metrics()
    top1 = next(row for row in rows if (row["scope"], row["metric"]) == ("all", "top1"))
    assert top1["value"] == metric.value
    assert top1["low"] == metric.low
    assert top1["n"] == metric.n
    assert len(rows) == sum(map(len, evaluation_result.metrics.scopes.values()))
    for row in rows:
        assert row.keys() == top1.keys()
        assert row["protocol"]

    items = next(
        evaluation_result.metrics.items[name]
        for name, cell_facts in evaluation_result.metrics.facts.cells.items()
        if cell_facts.cell == page["cell"].name
    )
    rank_of = dict(zip(items["image_ids"], items["ranks"], strict=True))
    decoded = page["found"]
    assert [rank_of[name] for name in decoded.image_ids] == decoded.ranks.tolist()
    assert len(decoded.ranks) == len(page["recording"].pictures)

    # texts and cards state the finding and the caveats
    finished_run = page["run"]
    assert finished_run.finding
    assert finished_run.measurements.caveats
    for text in (str(finished_run), html.unescape(finished_run._repr_html_())):
        assert finished_run.finding in text
        assert f"{top1['value']:.3f}" in text or f"{100 * top1['value']:.3g}" in text
        for caveat in explain_caveats(finished_run.measurements):
            assert caveat in text
    written_page = finished_run.page()
    assert f'href="{os.path.relpath(written_page)}"' in finished_run._repr_html_()
    # the page has spaces that do not break
    assert finished_run.finding in html.unescape(written_page.read_text()).replace(
        "\xa0", " "
    )
    written_page.unlink()
    assert "<a href" not in finished_run._repr_html_()
    table = page["comparison"]._repr_html_()
    # the runs are equal, so no value is printed in bold
    assert table.startswith("<table>")
    assert "<b>" not in table
    for caveat in page["run"].measurements.caveats:
        assert caveat in table
    (top1,) = page["comparison"].differences
    assert (top1["metric"], top1["difference"]) == ("top1", 0)

    # predictions and decoding have the same model
    predicted, member = page["predicted"], page["trained"].member(page["cell"].name)
    rows = [predicted.image_ids.index(image_id) for image_id in decoded.image_ids]
    tests = page["trained"].open_test_set(page["cell"].name)
    gallery = member.encode_pictures(
        open_targets(tests, member, "test"),
        tests.open_pictures("test").find_rows(decoded.gallery),
    )
    tokens = torch.nn.functional.normalize(
        torch.from_numpy(predicted.heads["token"][rows]), dim=1
    )
    expected = tokens @ torch.nn.functional.normalize(gallery, dim=1).T
    np.testing.assert_allclose(decoded.similarity, expected.numpy(), atol=1e-5)


@pytest.mark.nightly
def test_arrays_and_epochs_become_results_as_the_page_has_it(home, monkeypatch):
    """The data are few, so the accuracy is tested in the notebooks instead."""
    mne = pytest.importorskip("mne")
    monkeypatch.setattr(
        "tests.docs.test_tutorial.SHOWN", {"train": (24, 2), "test": (6, 2)}
    )
    world = demo.Config(subjects=1, concepts=16, noise=0.3).build(api.Paths())
    shown, signals = [], []
    for split in ("train", "test"):
        names, trials, signal = simulate_trials(home, world, 1, split)
        # all pictures once, then all of them again
        shown += [f"{name}.png" for name in names] * 2
        signals.append(signal.swapaxes(0, 1).reshape(-1, *signal.shape[2:]))
    volts = np.concatenate(signals)  # [n, C, T]
    info = mne.create_info(list(trials.space.names), trials.rate_hz, "eeg")
    variables = {
        "X": volts * 1e6,
        "shown": shown,
        "y": ["big" if number % 3 else "small" for number in range(len(shown))],
        "runs": np.arange(len(shown)) % 4,
        "sessions": ["b" if number % 2 else "a" for number in range(len(shown))],
        "channels": trials.space.names,
        "times_s": trials.times_s,
        "epochs": mne.EpochsArray(volts, info, verbose="ERROR"),
    }

    text = (DOCS / "python.md").read_text().partition("## Runs\n")[0]
    text = "".join(blocks_of(text, "python"))
    text = text.replace('"PICTURES"', repr(str(home / "data/image-folder")))
    exec(compile(text, "python.md", "exec"), variables)

    # a caveat until earlier steps are stated
    result, evaluated = variables["result"], api.open_run(variables["made"].folder)
    caveats = ["earlier steps unknown", "order of trials unknown"]
    assert result.measurements.caveats == caveats
    assert evaluated.measurements.caveats == caveats[1:]
    assert {
        row["n"] for row in tuple(result.metrics()) + tuple(evaluated.metrics())
    } == {6}
    assert variables["categories"].metrics()[0]["n"] == len(shown)

    # the array and the epochs are stored with the same values
    array_store = api.open_signals("image-folder", 1, "default")
    epochs_store = api.open_signals("image-folder", 1, "cut")
    np.testing.assert_allclose(
        array_store["test"].signal[:], epochs_store["test"].signal[:], atol=1e-5
    )
    assert variables["stored"].index.tolist() == list(range(len(shown)))

    # only the test trials are ranked
    decoded = variables["found"]
    assert decoded.index.tolist() == list(range(48, 60))
    assert decoded.image_ids == [name[:-4] for name in shown[48:]]


def test_channels_may_be_in_any_order_but_none_may_be_missing(page, tmp_path):
    recording, cell = page["recording"], page["cell"]
    names = list(recording.space.names)

    def ranks(order):
        signal = np.asarray(recording.signal)[:, order]
        space = api.Sensors([names[channel] for channel in order])
        fields = {
            "times_s": recording.times_s,
            "rate_hz": recording.rate_hz,
            "unit": recording.unit,
        }
        trials = api.Trials(
            signal, image_ids=recording.image_ids, space=space, **fields
        )
        return api.decode(
            page["trained"], trials, cell.tested_on[0], cell=cell.name
        ).ranks.tolist()

    reversed_order = list(range(len(names)))[::-1]
    assert ranks(reversed_order) == page["found"].ranks.tolist()
    with pytest.raises(BrainhiveError, match=names[0]):
        ranks(reversed_order[:-1])

    # a model is opened by the path or name of its run, or by its folder
    trained = page["trained"]
    shutil.copytree(trained.path / "cells" / cell.name / "model", tmp_path / "copy")
    weights = api.open_model(trained.path, cell.name).state_dict()
    for model in (
        api.open_model(trained.path.name, cell.name),
        api.open_model(tmp_path / "copy"),
    ):
        for name, value in model.state_dict().items():
            assert torch.equal(weights[name], value)

    # a run with several cells needs the name of a cell
    for open_without_cell in (trained.aligner, lambda: api.open_model(trained.path)):
        with pytest.raises(BrainhiveError) as caught:
            open_without_cell()
        assert "2 models" in caught.value.message
        assert cell.name in caught.value.hint

    # a run of eval-retrieval has no models
    with pytest.raises(BrainhiveError) as caught:
        page["run"].aligner()
    assert str(page["run"].path) in caught.value.message
    assert "train-align" in caught.value.hint


def test_importing_the_api_loads_no_heavy_library():
    program = (
        "import sys; from brainhive_cli import api; print(*{name.split('.')[0] for "
        "name in sys.modules})"
    )
    imported = subprocess.check_output(
        [sys.executable, "-c", program], text=True
    ).split()
    assert not set(imported) & HEAVY

    assert [name for name in dir(api) if getattr(api, name, None) is None] == []
    assert set(api.MODULE_OF_NAME) <= set(dir(api))
    for name, module_name in api.MODULE_OF_NAME.items():
        module = importlib.import_module(f"brainhive_cli.{module_name}")
        assert getattr(api, name) is getattr(module, name)


@pytest.mark.parametrize("wrong_value", [None, ["a"]], ids=repr)
def test_bad_arguments_are_refused_by_name_with_a_way_out(
    trained_run, evaluation_result, wrong_value
):
    finished_trained_run = api.open_run(trained_run)
    cell = finished_trained_run.cells[0]
    calls = {
        "open_run": lambda: api.open_run(wrong_value),
        "open_store encoder": lambda: api.open_store("x", "train", wrong_value),
        "open_signals subject": lambda: api.open_signals("x", wrong_value),
        "device": lambda: finished_trained_run.aligner(cell.name, wrong_value),
        "subject": lambda: finished_trained_run.predictions(
            -1 if wrong_value is None else wrong_value, cell=cell.name
        ),
        "decode signal": lambda: api.decode(
            finished_trained_run, wrong_value, cell=cell.name
        ),
        "load": lambda: aligner.load(wrong_value),
        "compare": lambda: api.compare(
            trained_run, evaluation_result.folder, labels=-1
        ),
    }
    for name, call in calls.items():
        with pytest.raises(BrainhiveError) as raised:
            call()
        assert raised.value.hint, name
    with pytest.raises(DeviceError, match="cuda:99"):
        finished_trained_run.aligner(cell.name, "cuda:99")
