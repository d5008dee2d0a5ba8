"""The names for notebooks: the page about them runs, and its numbers are those of the
commands.
"""

import html
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainhive_cli import aligner, api
from brainhive_cli.core.errors import BrainhiveError, DeviceError
from brainhive_cli.data.datasets import demo
from brainhive_cli.models.encoders import resolve
from tests.docs.test_docs import DOCS
from tests.docs.test_tutorial import blocks_of, simulate_trials
from tests.test_architecture import HEAVY

COLOURS = resolve("python:brainhive_cli.models.encoders.python:example").name


@pytest.fixture
def page(trained: Path, evaluated: Any, go: Any) -> dict[str, Any]:
    """The variables of the page, once its blocks ran on a small data set."""
    other = go("eval-retrieval", f"run={trained}", "sheet_rows=1").folder
    text = (DOCS / "python.md").read_text().partition("## Runs\n")[2]
    blocks = blocks_of(text.partition("## Your own parts")[0], "python")
    names = {"EVALUATION": str(evaluated.folder), "TRAINING": trained.name}
    names |= {
        "DATASET": "demo-noise-0.3-40-concepts",
        "ENCODER": COLOURS,
        "OTHER": str(other),
    }
    text = "".join(blocks)
    for name, value in names.items():
        assert f'"{name}"' in text
        text = text.replace(f'"{name}"', repr(value))
    variables: dict[str, Any] = {}
    exec(compile(text, "python.md", "exec"), variables)
    return variables


def test_the_page_gives_the_numbers_of_the_commands(
    page: dict[str, Any], evaluated: Any
) -> None:
    measured, rows = evaluated.metrics.overall["top1"], page["run"].metrics()
    top1 = next(row for row in rows if (row["scope"], row["metric"]) == ("all", "top1"))
    assert (top1["value"], top1["low"], top1["n"]) == (
        *(measured.value, measured.low),
        measured.n,
    )
    assert len(rows) == sum(map(len, evaluated.metrics.scopes.values()))
    assert all(row.keys() == top1.keys() and row["protocol"] for row in rows)

    items = next(
        evaluated.metrics.items[name]
        for name, each in evaluated.metrics.facts.cells.items()
        if each.cell == page["cell"].name
    )
    ranks = dict(zip(items["image_ids"], items["ranks"], strict=True))
    assert [ranks[image_id] for image_id in page["found"].image_ids] == page[
        "found"
    ].ranks.tolist()
    assert len(page["found"].ranks) == page["recording"].signal.shape[0]

    # a notebook shows the page of a run and the table of a comparison
    frame = page["run"]._repr_html_()
    document = html.unescape(
        re.fullmatch(r'<iframe srcdoc="([^"]*)"[^>]*></iframe>', frame)[1]
    )
    assert document.lower().startswith(
        "<!doctype html>"
    ) and document.rstrip().endswith("</html>")
    assert page["run"].measurements.caveats
    assert all(caveat in document for caveat in page["run"].measurements.caveats)
    table = page["comparison"]._repr_html_()
    # equal runs: no best
    assert table.startswith("<table>") and "Caveats: " in table and "<b>" not in table
    (top1,) = page["comparison"].differences
    assert (top1["metric"], top1["difference"]) == ("top1", 0)

    # predictions and decoding are of the same model
    predicted, found, member = (
        page["predicted"],
        page["found"],
        page["trained"].member(page["cell"].name),
    )
    rows = [predicted.image_ids.index(image_id) for image_id in found.image_ids]
    gallery = member.images("test", member.pictures("test").rows(found.gallery))
    tokens = torch.nn.functional.normalize(
        torch.from_numpy(predicted.heads["token"][rows]), dim=1
    )
    expected = tokens @ torch.nn.functional.normalize(gallery, dim=1).T
    np.testing.assert_allclose(found.similarity, expected.numpy(), atol=1e-5)


@pytest.mark.nightly
def test_arrays_and_epochs_become_results_as_the_page_has_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few pictures: that results are above chance is seen in the notebooks."""
    mne = pytest.importorskip("mne")
    monkeypatch.setattr(
        "tests.docs.test_tutorial.SHOWN", {"train": (24, 2), "test": (6, 2)}
    )
    world = demo.Config(subjects=1, concepts=16, noise=0.3).build(api.Paths())
    shown, parts = [], []
    for split in ("train", "test"):
        names, trials, signal = simulate_trials(home, world, 1, split)
        # all pictures once, then all of them again
        shown += [f"{name}.png" for name in names] * 2
        parts.append(signal.swapaxes(0, 1).reshape(-1, *signal.shape[2:]))
    volts = np.concatenate(parts)  # [n, C, T]
    info = mne.create_info([*trials.space.names], trials.rate_hz, "eeg")
    variables: dict[str, Any] = {
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
    assert result.measurements.caveats == ["earlier steps unknown"]
    assert evaluated.measurements.caveats == []
    assert {row["n"] for row in (*result.metrics(), *evaluated.metrics())} == {6}
    assert variables["categories"].metrics()[0]["n"] == len(shown)

    # epochs have been stored as the array was; ranks are of test trials
    stores = [api.open_signals("image-folder", 1, name) for name in ("default", "cut")]
    signals = [store["test"].signal[:] for store in stores]
    np.testing.assert_allclose(*signals, atol=1e-5)
    assert variables["stored"].index.tolist() == [*range(len(shown))]
    found = variables["found"]
    assert found.index.tolist() == [*range(48, 60)]
    assert found.image_ids == [name[:-4] for name in shown[48:]]


def test_channels_in_another_order_are_decoded_alike_and_a_missing_one_is_refused(
    page: dict[str, Any], tmp_path: Path
) -> None:
    recording, cell = page["recording"], page["cell"]
    names = list(recording.space.names)

    def ranks(order: list[int]) -> list[int]:
        signal = np.asarray(recording.signal)[:, :, order]
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

    backwards = list(range(len(names)))[::-1]
    assert ranks(backwards) == page["found"].ranks.tolist()
    with pytest.raises(BrainhiveError, match=f"has no channel {names[0]}"):
        ranks(backwards[:-1])

    # a model is opened by its run or by its folder; a run of several cells wants one
    # named
    run = page["trained"]
    shutil.copytree(run.path / "cells" / cell.name / "model", tmp_path / "copy")
    states = [
        api.open_model(*reference).state_dict()
        for reference in (
            (run.path, cell.name),
            (run.path.name, cell.name),
            (tmp_path / "copy",),
        )
    ]
    assert all(
        torch.equal(state[name], value)
        for state in states
        for name, value in states[0].items()
    )
    for open_one in (run.aligner, lambda: api.open_model(run.path)):
        with pytest.raises(
            BrainhiveError, match="2 cells, of which none is named"
        ) as caught:
            open_one()
        assert cell.name in caught.value.hint
    with pytest.raises(BrainhiveError, match="has no models"):
        page["run"].aligner()


def test_importing_it_imports_nothing_heavy_and_every_name_is_there() -> None:
    program = (
        "import sys; from brainhive_cli import api; print(*{name.split('.')[0] for "
        "name in sys.modules})"
    )
    imported = subprocess.check_output(
        [sys.executable, "-c", program], text=True
    ).split()
    assert not {*imported} & HEAVY

    assert [name for name in api.__all__ if getattr(api, name, None) is None] == []
    assert {*api.PLACES} <= {*api.__all__} <= {*dir(api)}
    for name, place in api.PLACES.items():
        assert getattr(api, name) is getattr(
            importlib.import_module(f"brainhive_cli.{place}"), name
        )


@pytest.mark.parametrize("odd", [None, ["a"]], ids=repr)
def test_bad_arguments_are_refused_by_name_with_a_way_out(
    trained: Path, evaluated: Any, odd: Any
) -> None:
    run = api.open_run(trained)
    cell = run.cells[0]
    calls = {
        "open_run": lambda: api.open_run(odd),
        "open_store encoder": lambda: api.open_store("x", "train", odd),
        "open_signals subject": lambda: api.open_signals("x", odd),
        "device": lambda: run.aligner(cell.name, odd),
        "subject": lambda: run.predictions(-1 if odd is None else odd, cell=cell.name),
        "decode signal": lambda: api.decode(run, odd, cell=cell.name),
        "load": lambda: aligner.load(odd),
        "compare": lambda: api.compare(trained, evaluated.folder, labels=-1),
    }
    for name, call in calls.items():
        with pytest.raises(BrainhiveError) as raised:
            call()
        assert raised.value.hint, name
    with pytest.raises(DeviceError, match="cuda:99"):
        run.aligner(cell.name, "cuda:99")
