"""The guides' command lines, on real files: what lacks nothing is run, and what needs a
download is planned.

Lines of the tutorials, of extending and of the demo's systems are run whole by tests of
their own.
"""

import re
import shlex
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from tests.docs.test_docs import DOCS, GUIDES
from tests.worlds.own_recordings import (
    PICTURES,
    Presentation,
    annotate,
    list_event_codes,
    make_raw,
    write_pictures,
    write_table,
)

pytest.importorskip("mne")
FIRST = ("README.md", "evaluation.md", "explaining.md")
"""Pages whose lines come first, on one's own recordings: commands take the newest
run.
"""
ROAD = ("train-prior", "reconstruct")
"""Commands whose lines the road to drawn pictures runs."""
UNPLANNED = ("runs", "report", "recipes", "compare", "check")
"""Commands whose plan says nothing: they are quick."""
SHIPPED = {
    "synclr-b16,clip-b32,vae": "demo-clip,demo-vae",
    "clip-h14": "demo-clip",
    "clip-b32": "demo-clip",
    ",vae": ",demo-vae",
    "hub:Fusion-Prior-SynCLR_B32_VAE": "demo:prior",
    "--dataset demo ": "'dataset={kind: demo, concepts: 8, subjects: 2}' ",
    "{kind: demo, space": "{kind: demo, concepts: 8, subjects: 2, space",
}
"""What comes with Brainhive in the place of what is downloaded, and less of the demo's
pictures.
"""
DRAWING = ("generator.source=demo:generator", "resolution_px=64")
RUN_OF_EACH = 1
"""Lines of a command that are run; whether the others lack something is checked."""
QUICK = {
    "train-align": ("train.epochs=1", "--seeds", "1", "train.precision=fp32"),
    "train-prior": tuple(
        tuple(DRAWING)
        + (
            "train.steps=1",
            "train.batch_size=4",
            "train.precision=fp32",
            "run.workers=0",
        )
    )
    + (
        "validation_items=2",
        "sample_items=1",
        "sample_steps=1",
        "similarity=[demo-clip]",
        "lpips=false",
        "prior.start_from=null",
        "prior.hidden_size=32",
    ),
    "reconstruct": tuple(
        tuple(DRAWING)
        + ("items=2", "repeats=1", "steps=1", "metrics=pixcorr", "sheet_rows=0")
    )
    + ("metric_encoders=[demo-clip]", "sources=brain"),
    "eval-retrieval": ("sheet_rows=0",),
    "explain": ("draws=20",),
    "design": ("people=5", "train_pictures=40", "train_repetitions=1"),
}
"""What makes each command small."""


def write_recordings(home):
    """Write pictures, the recordings of a subject and their table, where the guides say
    that they lie.
    """
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir(parents=True)
    presentation = Presentation.randomize(3, seed=0)
    raw = annotate(
        make_raw(presentation, seed=0),
        presentation,
        [str(code) for code in list_event_codes(presentation)],
    )
    raw.save(home / "data/recordings/sub-01_ses-01.fif", verbose="ERROR")
    write_table(home / "data/recordings/events.csv")

    # vectors of a model of one's own, in the order of the pictures
    for split, names in PICTURES.items():
        vectors = np.random.default_rng(0).normal(size=(len(names), 8))
        np.save(home / f"{split}.npy", vectors.astype(np.float32))


def invoke(arguments):
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def shipped_line(line, home):
    """Write a line with what comes with Brainhive, and with names of folders and runs
    that are there.
    """
    folder = "data/image-folder"
    replacements = {"root=FOLDER": f"root={folder}", "PICTURES": folder}
    for command, name in (
        ("train-prior", "runs/train-prior/NAME"),
        ("train-align", "explain RUN"),
    ):
        runs = sorted(
            (home / "runs" / command).glob("*/metrics.json"),
            key=lambda path: path.stat().st_mtime,
        )
        for finished_run in runs[-1:]:
            replacements[name] = name.replace("NAME", finished_run.parent.name).replace(
                "RUN", finished_run.parent.name
            )
    for name, shipped_path in {**SHIPPED, **replacements}.items():
        line = line.replace(name, shipped_path)
    return shlex.split(line)


@pytest.mark.nightly
def test_the_guide_leads_from_own_pictures_to_generated_pictures(
    home,
):
    write_recordings(home)
    prepared = (DOCS / "data.md").read_text().partition("Your own recordings")[2]
    drawn_by = (DOCS / "tutorial-fmri.md").read_text().partition("## 5. Pictures")[2]
    page = prepared.partition("\n## ")[0] + drawn_by.partition("HAVIR")[0]
    lines = re.findall(r"^    brainhive ([^#\n]+)", page, re.MULTILINE)
    assert "check image-folder --plots" in lines
    results = {}
    for line in lines:
        arguments = shipped_line(line, home)
        ended = invoke(
            list(arguments)
            + list(() if "--check" in arguments else QUICK.get(arguments[0], ()))
        )
        assert ended.exit_code == 0, f"brainhive {line}\n{ended.stderr}"
        results[line] = ended
    assert len(results) > 12
    endeds = [
        ended for line, ended in results.items() if line.startswith("reconstruct")
    ]
    assert "prior trained on other pictures" in endeds[0].stdout  # of the demo's
    assert "prior trained on other pictures" not in endeds[1].stdout
    assert len(list((home / "runs/reconstruct").rglob("*.png"))) >= 4
    assert list((home / "signals/image-folder/default").rglob("*.html"))  # of --plots


def test_every_line_of_a_guide_works_or_names_missing_inputs(home, things_home):
    write_recordings(home)
    for name in ("my.yaml", "mine.yaml"):
        (home / name).write_text("")
    outcomes, failures = Counter[str](), []
    of_first = sorted(
        GUIDES,
        key=lambda row: FIRST.index(row[0].name) if row[0].name in FIRST else 9,
    )
    page_of = {}
    for page, line in of_first:
        page_of.setdefault(line, page)
    for line, page in page_of.items():
        arguments = shipped_line(line, home)
        has_plan = arguments[0] not in UNPLANNED and not {"--list", "--check"} & set(
            arguments
        )
        ended = invoke(list(arguments) + list(["--check"] if has_plan else []))
        is_run = (
            has_plan and arguments[0] not in ROAD and "--processes" not in arguments
        )
        if is_run and ended.exit_code == 0 and outcomes[arguments[0]] < RUN_OF_EACH:
            ended = invoke(list(arguments) + list(QUICK.get(arguments[0], ())))
            outcomes[arguments[0]] += ended.exit_code == 0
        lacks = ended.exit_code == 3 and re.search(
            r"(warning|error|missing)\W+\w+", ended.output
        )
        if (ended.exit_code and not lacks) or "this is a bug" in ended.output:
            failures.append(f"{page.name}: brainhive {line}\n{ended.output[-800:]}")
    assert not failures, "\n".join(failures)
    assert outcomes.total() >= 5, outcomes
