"""Artifacts of a session: the first windows as a sheet, and the hit rate over trials."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact, Curve, Line, Row, Sheet, Tile
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.measurement.confidence_sequence import interval

SHEET_ROWS = 12
"""Windows on the sheet."""
CURVE_POINTS = 200
"""Points of the curve, at most."""
SECTION = "What was seen, while it was seen"
ReadPicture = Callable[[str], Image.Image | None]


def draw_session(
    folder: RunFolder,
    results: Sequence[Mapping[str, Any]],
    ranks: Sequence[int],
    pool: int,
    chance: float,
    read_picture: ReadPicture,
) -> list[Artifact]:
    """Draw the first windows of a session, and the course of its hit rate.

    Args:
        folder: The run, in which pictures are saved; `drawings/` has what was drawn.
        results: First results as plain values, see `as_event`.
        ranks: [N] rank of the shown picture by each trial that counts.
        pool: Candidates.
        chance: Hit rate of the best constant guess.
        read_picture: Reads a picture of the gallery; None where there is none.
    """
    files: dict[str, str] = {}

    def tile(image_id: str | None, lines: Sequence[str], verdict: Any = "") -> Tile:
        """Make a tile of a picture; a gap where it is not known, or cannot be read."""
        if image_id is None or (picture := read_picture(image_id)) is None:
            return Tile("", [image_id or "not known", *lines], verdict=verdict)
        if image_id not in files:
            files[image_id] = artifacts.save_picture(folder, f"gallery/{len(files)}", picture)
        return Tile(files[image_id], lines, verdict=verdict)

    # shown, the best by this trial, and the drawing
    drawn: list[Artifact] = []
    best_count = max((len(result["best"]) for result in results), default=0)
    has_drawings = (folder.path / "drawings").is_dir()
    rows = []
    for result in results[:SHEET_ROWS]:
        shown = result["shown"]
        words = [f"window {result['window']}"]
        words += [] if result["rank"] is None else [f"rank {result['rank']} of {pool}"]
        tiles = [tile(shown, words)]
        for best in result["best"]:
            verdict = "" if shown is None else "right" if best["image"] == shown else "wrong"
            tiles.append(tile(best["image"], [f"{best['similarity']:.2f}"], verdict))
        path = folder.path / f"drawings/{result['window']:06d}.png"
        if has_drawings and path.is_file():
            picture = Image.open(path)
            tiles.append(Tile(artifacts.save_picture(folder, f"drawn/{result['window']}", picture)))
        elif has_drawings:
            tiles.append(Tile("", ["skipped"]))
        rows.append(Row(str(result["window"]), tiles))
    if rows:
        columns = ["seen", *(str(number + 1) for number in range(best_count))]
        columns += ["drawn from the signal"] if has_drawings else []
        note = "the first windows, each a single trial; the seen picture has a green frame"
        drawn.append(Sheet("What was shown, and what was decoded", columns, rows, section=SECTION, note=note))

    # hit rate with its confidence sequence
    if ranks:
        hits = np.cumsum(np.array(ranks) == 1)
        trials = np.unique(np.linspace(1, len(ranks), min(CURVE_POINTS, len(ranks))).round().astype(int))
        ends = [interval(int(hits[count - 1]), int(count)) for count in trials]
        values = [float(hits[count - 1] / count) for count in trials]
        line = Line("top-1", values, [low for low, _ in ends], [high for _, high in ends], chance)
        note = "single trials; the interval holds at every moment, however often it is looked at"
        title = "Share of trials that ranked the shown picture first"
        drawn.append(
            Curve(title, "trials", trials.tolist(), [line], "top-1 so far", section=SECTION, note=note)
        )
    return drawn
