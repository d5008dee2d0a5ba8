"""Artifacts of a session: the first windows as a sheet, and the hit rate over trials."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact, Curve, Line, Row, Sheet, Tile
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.evaluation.live.loop import Score
from brainhive_cli.measurement.confidence_sequence import interval

CURVE_POINTS = 200
"""Points of the curve, at most."""
SECTION = "What was seen, while it was seen"
ReadPicture = Callable[[str], bytes | None]


def draw_session(
    folder: RunFolder,
    results: Sequence[Mapping[str, Any]],
    score: Score,
    read_picture: ReadPicture,
) -> list[Artifact]:
    """Draw the first windows of a session, and the course of its hit rate.

    Args:
        folder: The run, in which pictures are saved; `drawings/` has what was drawn.
        results: First results as plain values, see `LiveResult`.
        score: Hits of the trials that count.
        read_picture: Reads the file of a picture of the gallery; None where there is none.
    """
    files: dict[str, str] = {}

    def tile(image_id: str | None, lines: Sequence[str], verdict: Any = "") -> Tile:
        """Make a tile of a picture; a gap where it is not known, or cannot be read."""
        if image_id is None or (picture := read_picture(image_id)) is None:
            return Tile("", [image_id or "not known", *lines], verdict=verdict)
        if image_id not in files:
            opened = Image.open(BytesIO(picture))
            files[image_id] = artifacts.save_picture(folder, f"gallery/{len(files)}", opened)
        return Tile(files[image_id], lines, verdict=verdict)

    # shown, the best by this trial, and the drawing
    drawn, rows = list[Artifact](), []
    has_drawings = (folder.path / "drawings").is_dir()
    for result in results:
        shown, window = result["shown"], result["window"]
        words = [f"window {window}"]
        words += [] if result["rank"] is None else [f"rank {result['rank']} of {score.hits.pool}"]
        tiles = [tile(shown, words)]
        for best in result["best"]:
            verdict = "" if shown is None else "right" if best["image"] == shown else "wrong"
            tiles.append(tile(best["image"], [f"{best['similarity']:.2f}"], verdict))
        if has_drawings:
            name = f"drawings/{window:06d}.png"
            tiles.append(Tile(name) if (folder.path / name).is_file() else Tile("", ["skipped"]))
        rows.append(Row(str(window), tiles))
    if results:
        columns = ["seen", *map(str, range(1, 1 + len(results[0]["best"])))]
        columns += ["drawn from the signal"] if has_drawings else []
        note = "the first windows, each a single trial; the seen picture has a green frame"
        drawn.append(Sheet("What was shown, and what was decoded", columns, rows, section=SECTION, note=note))

    # hit rate with its confidence sequence
    if ranks := score.ranks:
        points = np.linspace(1, len(ranks), min(CURVE_POINTS, len(ranks))).round().astype(int)
        trials = np.unique(points)
        counts = np.cumsum(np.equal(ranks, 1))[trials - 1]
        low, high = zip(*map(interval, counts.tolist(), trials.tolist()), strict=True)
        line = Line("top-1", (counts / trials).tolist(), low, high, score.hits.chance)
        note = "single trials; the interval holds at every moment, however often it is looked at"
        title, value = "Share of trials that ranked the shown picture first", "top-1 so far"
        drawn.append(Curve(title, "trials", trials.tolist(), [line], value, section=SECTION, note=note))
    return drawn
