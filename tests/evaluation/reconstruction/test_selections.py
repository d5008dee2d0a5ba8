"""What people are shown of clips: videos next to the true ones, words and outlines, and a filmstrip."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import clip

from brainhive_cli.core import artifacts
from brainhive_cli.core.facts import ReconstructionFacts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import Clip
from brainhive_cli.data.media import media_files
from brainhive_cli.evaluation.reconstruction.evaluation import measure_run
from brainhive_cli.evaluation.reconstruction.recipe import Scoring
from brainhive_cli.evaluation.reconstruction.scoring import Annotation, GeneratedSet, Stimuli
from brainhive_cli.reports.sheets import OUTLINE

HERE = Launch(0, 1, torch.device("cpu"))
IDS = ["test/0", "test/1", "test/2"]
MASKS = np.zeros((6, 8, 8), bool)
MASKS[:, 2:6, 2:6] = True


@pytest.fixture(scope="module", params=[True, False], ids=["mp4", "without PyAV"])
def shown(request, tmp_path_factory) -> Iterator[RunFolder]:
    """A run of three clips that are measured and shown."""
    if request.param:
        pytest.importorskip("av")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media_files, "has_pyav", lambda: request.param)
        yield measured(tmp_path_factory.mktemp("run"))


def measured(path: Path) -> RunFolder:
    folder = RunFolder(path)
    files = {}
    for number, image_id in enumerate(IDS):
        file = path / "samples" / f"{image_id}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        media_files.save(clip(number), file, rate_hz=3.0)
        files[image_id] = [file]
    decoded = {"test/0": Annotation("a square", ("vehicle",), MASKS)}
    made = GeneratedSet("brain", "sub-01", (1,), files, 1, "1 repeat", annotations=decoded)
    stimuli = Stimuli(
        lambda i: Clip(clip(10 + IDS.index(i)), 3.0),
        lambda i: "square",
        lambda i: Annotation("a box moves", ("animal",), MASKS),
    )
    measure_run(
        folder,
        Scoring(metrics=["frame_psnr"], sheet_rows=2),
        [made],
        stimuli,
        "test",
        HERE,
        {},
        ReconstructionFacts(),
    )
    return folder


def test_clips_are_listed_for_pages_with_words_metrics_and_outlines(shown):
    listed = artifacts.read(shown)

    first, best, strip = listed
    assert (first.title, best.title) == ("Examples", "From the best to the worst")
    random = [IDS[row] for row in np.random.default_rng(0).permutation(3)[:2]]
    assert [row.query for row in first.rows] == random and len(best.rows) == 2
    assert first.note.startswith("2 of 3 clips, drawn at random (seed 0); ")
    seen, made = next(row for row in first.rows if row.query == "test/0").tiles
    assert list(seen.lines) == ["square", "a box moves", "animal"] and list(made.lines) == [
        "a square",
        "vehicle",
    ]
    assert made.metrics["PSNR (frames)"] > 0 and first.columns == ["seen", "brain"]
    is_video = seen.file.endswith(".mp4")
    for tile in (seen, made):
        opened = media_files.read(shown.path / tile.file)
        assert isinstance(opened, Clip) and len(opened.frames) == 6
        assert opened.rate_hz == pytest.approx(3, rel=0.01)
        assert bool(tile.poster) == is_video
        line = opened.frames[0, 56, 80:140].astype(int)  # the upper edge of the mask at 224 px
        assert np.abs(line - OUTLINE).mean() < 60
    assert strip.file == "contact_sheet.png" and (shown.path / strip.file).is_file()


def test_what_was_decoded_in_words_is_kept(shown):
    kept = shown.read_json("decoded.json")

    assert kept == {"brain · sub-01": {"test/0": {"caption": "a square", "concepts": ["vehicle"]}}}
