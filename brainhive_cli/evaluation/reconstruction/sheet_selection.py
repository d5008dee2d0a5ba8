"""Which reconstructions people are shown, and on which sheet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Row, Sheet, Tile
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.media.media_files import first_frame
from brainhive_cli.evaluation.reconstruction.generated import Scored, best_first, first_of_sources
from brainhive_cli.evaluation.reconstruction.tables import TITLES
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.reports import sheets

SECTION = "Reconstructions"
REPEATS = 4
"""Reconstructions of an item that a sheet shows."""


@dataclass(frozen=True)
class Selection:
    """The reconstructions of a run, and what is shown of them.

    Attributes:
        run: Where pictures are kept for pages.
        scored: The reconstructions; the first source is the one that is shown in full.
        open_seen: Image id to stimulus; of a clip the first frame is shown.
        label: Image id to what it shows.
        rows: Items on a sheet.
        protocol: How they were compared.
    """

    run: RunFolder
    scored: Sequence[Scored]
    open_seen: Callable[[str], Any]
    label: Callable[[str], str]
    rows: int
    protocol: str
    _kept: dict[Any, str] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """The image ids of the first cell."""
        return list(self.scored[0].generated.files)

    def sheets(self) -> list[Sheet]:
        """Make the sheets: the first items, from the best to the worst, and each source next to the others.

        The first items are as they come; from the best to the worst goes in even steps over all cells and
        subjects, each item once.
        """
        first = self.scored[0]
        together = best_first(
            [each for each in self.scored if each.generated.source == first.generated.source]
        )
        best: dict[str, tuple[Scored, str]] = {}
        for each, image_id in together:
            best.setdefault(image_id, (each, image_id))
        once = list(best.values())
        steps = np.unique(np.linspace(0, len(once) - 1, min(self.rows, len(once))).round().astype(int))
        how = f"{self.protocol}, {first.generated.described}"
        found = [
            self._repeats("First items", [(first, image_id) for image_id in self.ids[: self.rows]], how),
            self._repeats(
                "From the best to the worst", [once[step] for step in steps], f"{how}; in even steps"
            ),
        ]
        if len(by_source := first_of_sources(self.scored)) > 1:
            found.append(self._sources(by_source, how))
        return found

    def contact_sheet(self) -> Image.Image:
        """Draw the first items as one picture."""
        first, rows = self.scored[0], []
        for image_id in self.ids[: self.rows]:
            seen = first_frame(self.open_seen(image_id))
            row = [sheets.Tile(seen, [self.label(image_id)], frame=sheets.INK)]
            for file, values in first.of_item(image_id):
                metrics = {shown(name): value for name, value in values.items()}
                row.append(sheets.Tile(first_frame(first.generated.open(file)), metrics=metrics))
            rows.append(row)
        return sheets.draw_rows(f"First items: {self.protocol}, {first.generated.described}", rows)

    def _repeats(self, title: str, order: Sequence[tuple[Scored, str]], note: str) -> Sheet:
        most = max(len(each.of_item(image_id)) for each, image_id in order)
        columns = ["seen", *(str(place + 1) if most > 1 else "made" for place in range(min(most, REPEATS)))]
        rows = []
        for each, image_id in order:
            made = [self._made(each, *made) for made in each.of_item(image_id)[:REPEATS]]
            rows.append(Row(image_id, [self._seen(image_id, each.generated.title), *made]))
        return Sheet(title, columns, rows, SECTION, note)

    def _sources(self, scored: dict[str, Scored], note: str) -> Sheet:
        columns = ["seen", *(TITLES.get(source, source) for source in scored)]
        rows = []
        for image_id in self.ids[: self.rows]:
            made = [self._first_of(each, image_id) for each in scored.values()]
            rows.append(Row(image_id, [self._seen(image_id), *made]))
        return Sheet("With ceiling, floor and baselines", columns, rows, SECTION, note)

    def _first_of(self, scored: Scored, image_id: str) -> Tile:
        if image_id not in scored.generated.files:
            return Tile("")
        return self._made(scored, *scored.of_item(image_id)[0])

    def _seen(self, image_id: str, cell: str = "") -> Tile:
        if image_id not in self._kept:
            picture = first_frame(self.open_seen(image_id))
            self._kept[image_id] = artifacts.save_picture(self.run, f"seen/{len(self._kept)}", picture)
        words = [self.label(image_id).replace("_", " "), *filter(None, cell.split("/"))]
        return Tile(self._kept[image_id], words)

    def _made(self, of: Scored, file: Path, values: dict[str, float]) -> Tile:
        """Show a file of the run as it is; one that lies elsewhere, as a copy."""
        metrics = {shown(name): value for name, value in values.items()}
        if file.resolve().is_relative_to(self.run.path.resolve()):
            return Tile(file.resolve().relative_to(self.run.path.resolve()).as_posix(), metrics=dict(metrics))
        if file not in self._kept:
            picture = first_frame(of.generated.open(file))
            self._kept[file] = artifacts.save_picture(self.run, f"made/{len(self._kept)}", picture)
        return Tile(self._kept[file], metrics=dict(metrics))
