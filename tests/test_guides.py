"""The guides' command lines, on real files: what lacks nothing is run, and what needs a download is planned.

Lines of the tutorial, of extending and of the demo's systems are run whole by tests of their own.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from own_recordings import Shown, annotate, codes, make_raw, write_pictures, write_table
from test_docs import DOCS, LINES
from typer.testing import CliRunner

from brainhive_cli.app import app

pytest.importorskip("mne")
ELSEWHERE = ("tutorial.md", "keys.md", "extending.md", "CHANGELOG.md")
"""Pages whose lines other tests run; `keys.md` is a list of recipes, not a guide."""
PLANNED = ("demo", "doctor", "workflow", "fetch", "--install-completion", "COMMAND", "runs rm")
"""Lines that are not run: other tests do it, they download, or they change the machine."""
SHIPPED = {
    "synclr-b16,clip-b32,vae": "demo-clip,demo-vae",
    "clip-h14": "demo-clip",
    "clip-b32": "demo-clip",
    ",vae": ",demo-vae",
    "hub:Fusion-Prior-SynCLR_B32_VAE": "demo:prior",
}
"""What comes with Brainhive in the place of what is downloaded."""
DRAWING = ("generator.source=demo:generator", "resolution_px=64")
QUICK = {
    "train-align": ("train.epochs=2", "--seeds", "1", "train.precision=fp32"),
    "train-prior": (
        *(*DRAWING, "train.steps=1", "train.batch_size=4", "train.precision=fp32", "run.workers=0"),
        *("validation_items=2", "sample_items=1", "sample_steps=1", "similarity=[demo-clip]", "lpips=false"),
        *("prior.start_from=null", "prior.hidden_size=32"),
    ),
    "reconstruct": (
        *(*DRAWING, "items=2", "repeats=1", "steps=1", "metrics=pixcorr", "sheet_rows=0"),
        *("metric_encoders=[demo-clip]", "sources=brain"),
    ),
    "eval-retrieval": ("sheet_rows=0",),
}
"""What makes each command small."""


def write_recordings(home: Path) -> None:
    """Write pictures, the recordings of a subject and their table, where the guides say that they lie."""
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir(parents=True)
    shown = Shown.of(3, seed=0)
    raw = annotate(make_raw(shown, seed=0), shown, [str(code) for code in codes(shown)])
    raw.save(home / "data/recordings/sub-01_ses-01.fif", verbose="ERROR")
    write_table(home / "data/recordings/events.csv")


def invoke(words: list[str]) -> Any:
    return CliRunner().invoke(app, words, catch_exceptions=False)


def newest(home: Path, command: str) -> str:
    """Name the newest finished run of a command."""
    files = sorted((home / "runs" / command).glob("*/metrics.json"), key=lambda path: path.stat().st_mtime)
    return files[-1].parent.name


def shipped_line(line: str, home: Path) -> list[str]:
    """Write a line with what comes with Brainhive, and with names of runs and folders that are there."""
    for absent, here in SHIPPED.items():
        line = line.replace(absent, here)
    if "runs/train-prior/NAME" in line:
        line = line.replace("runs/train-prior/NAME", f"{home}/runs/train-prior/{newest(home, 'train-prior')}")
    return shlex.split(
        line.replace("root=FOLDER", "root=data/image-folder").replace("PICTURES", "data/image-folder")
    )


def test_the_road_from_own_pictures_to_drawn_ones_is_that_of_the_guide(home: Path) -> None:
    write_recordings(home)
    page = (DOCS / "own-data.md").read_text().partition("## Pictures")[2].partition("## What to look at")[0]
    lines = re.findall(r"^    brainhive ([^#\n]+)", page, re.MULTILINE)
    lines.append("check image-folder --plots")
    shown = {}
    for line in lines:
        words = [*shipped_line(line, home)]
        if words[0] == "reconstruct":
            planned = invoke([*words, *QUICK[words[0]], "--check"])
            assert planned.exit_code == 0, planned.output
        ended = invoke([*words, *(() if "--check" in words else QUICK.get(words[0], ()))])
        assert ended.exit_code == 0, f"brainhive {line}\n{ended.stderr}"
        shown[line] = ended
    assert len(shown) > 12
    drawn = [ended for line, ended in shown.items() if line.startswith("reconstruct")]
    assert "prior trained on other pictures" in drawn[0].stdout  # of the demo's
    assert "prior trained on other pictures" not in drawn[1].stdout
    assert len(list((home / "runs/reconstruct").rglob("*.png"))) >= 4
    assert (home / "signals/image-folder/default/sub-01/index.html").is_file() or list(
        (home / "signals/image-folder").rglob("*.html")
    )


@pytest.fixture(scope="module")
def guides() -> dict[Path, list[str]]:
    """The lines of each guide, each once."""
    pages: dict[Path, list[str]] = {}
    for page, line in LINES:
        if page.name not in ELSEWHERE and not line.startswith(PLANNED):
            pages.setdefault(page, []).append(line)
    seen: set[str] = set()
    return {
        page: [line for line in lines if not (line in seen or seen.add(line))]
        for page, lines in pages.items()
    }


def test_every_line_of_every_guide_does_its_work_or_says_what_is_missing(
    home: Path, things: Path, guides: dict[Path, list[str]]
) -> None:
    write_recordings(home)
    for name in ("my.yaml", "mine.yaml"):
        (home / name).write_text("")
    done = []
    for page, lines in guides.items():
        for line in lines:
            words = shipped_line(line, home)
            quick = QUICK.get(words[0], ())
            plans = (
                words[0] not in ("runs", "report", "recipes", "compare", "check") and "--list" not in words
            )
            ended = invoke([*words, *quick, *(["--check"] if plans and "--check" not in words else [])])
            said = f"{page.name}: brainhive {line}\n{ended.output}"
            assert ended.exit_code in (0, 3) or re.search("called 'NAME'|'STORE'", ended.output), said
            assert "this is a bug" not in ended.output, said
            if ended.exit_code:
                assert re.search(r"missing: .+|error: .+\n  try: .+", ended.stderr), said
            elif plans and "--check" not in words:
                ended = invoke([*words, *quick])
                assert ended.exit_code == 0, f"{page.name}: brainhive {line}\n{ended.stderr}"
                done.append(line)
    assert len(done) > 12, done
