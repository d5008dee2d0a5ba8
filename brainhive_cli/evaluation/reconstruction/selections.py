"""Reconstructions that people are shown: sheets of pictures, or clips that play and
their frames.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.artifacts import Artifact, Row, Sheet, Tile
from brainhive_cli.core.files import below
from brainhive_cli.core.measurements import Metric
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.media import media_files
from brainhive_cli.evaluation.reconstruction.scoring import (
    TRUTH,
    Annotation,
    GeneratedSet,
    Stimuli,
    list_words,
    name_sources,
    rank_items,
)
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.measurement.metrics import Medium
from brainhive_cli.reports.sentences import describe_metric
from brainhive_cli.reports.sheets import describe_sample, outlined

RANDOM, BEST_TO_WORST = "Examples", "From the best to the worst"
"""Titles of sheets."""
SEED = 0
"""Seed of the examples."""
SECTION = "Reconstructions"
"""The heading under which a page shows them."""
CLIP_PX = 224
"""Side of the clips that people are shown."""
NO_ANNOTATION = Annotation()


class Selection:
    """The reconstructions of a run, and what is shown of them.

    Args:
        run: Where files for people are kept.
        scored: The reconstructions; the first source is the one that is shown in full.
        stimuli: What was seen.
        rows: Items on a sheet.
        protocol: How they were compared.
        medium: What they are.
    """

    def __init__(
        self,
        run: RunFolder,
        scored: Sequence[GeneratedSet],
        stimuli: Stimuli,
        rows: int,
        protocol: str,
        medium: Medium,
    ) -> None:
        self.run, self.scored, self.stimuli, self.rows, self.medium = (
            run,
            scored,
            stimuli,
            rows,
            medium,
        )
        self.first, self.described = scored[0], f"{protocol}, {scored[0].described}"
        self.saved: dict[Any, Tile] = {}  # so that each is written once

    @console.progress("drawing sheets")
    def show(self, captions: Metric | None) -> list[Artifact]:
        """Write what is shown of pictures or clips, and list it.

        Examples are drawn at random, each source next to the others; from the best to
        the worst goes over all cells and subjects of the first source. All show one
        repeat.

        Args:
            captions: How often decoded captions, which stand below clips, name the
                object.
        """
        # the examples, by the first cell of each source that has media of its own
        sources: dict[str, GeneratedSet] = {}
        for cell in self.scored:
            if cell.source != TRUTH and cell.media:
                sources.setdefault(cell.source, cell)
        ids = [*self.first.files]
        random_ids = [
            ids[row]
            for row in np.random.default_rng(SEED).permutation(len(ids))[: self.rows]
        ]
        examples = []
        for image_id in random_ids:
            tiles = [self._stimulus_tile(image_id)]
            for cell in sources.values():
                tiles.append(
                    self._result_tile(cell, image_id)
                    if image_id in cell.files
                    else Tile("")
                )
            examples.append(Row(image_id, tiles))

        # the best reconstruction of each item, in even steps over their ranks
        best: dict[str, GeneratedSet] = {}
        for cell, image_id in rank_items(
            [cell for cell in self.scored if cell.source == self.first.source]
        ):
            best.setdefault(image_id, cell)
        ranked = [*best.items()]
        steps = np.unique(
            np.linspace(0, len(ranked) - 1, min(self.rows, len(ranked)))
            .round()
            .astype(int)
        )
        rows = []
        for image_id, cell in (ranked[step] for step in steps):
            rows.append(
                Row(
                    image_id,
                    [
                        self._stimulus_tile(image_id, cell.title),
                        self._result_tile(cell, image_id),
                    ],
                )
            )

        # sheets of both
        note = self.described + (
            f"; {describe_metric(captions)}, n {captions.n:,}" if captions else ""
        )
        sample = (
            f"{describe_sample(len(random_ids), len(ids), f'{self.medium}s', SEED)}; "
            f"{note}"
        )
        titles = name_sources(self.medium)
        title = (
            RANDOM
            if len(sources) == 1
            else f"{RANDOM}, with ceiling, floor and baselines"
        )
        columns = ["seen", *(titles.get(source, source) for source in sources)]
        return [
            Sheet(title, columns, examples, section=SECTION, note=sample),
            Sheet(
                BEST_TO_WORST,
                ["seen", "made"],
                rows,
                section=SECTION,
                note=f"In even steps; {note}",
            ),
        ]

    def _stimulus_tile(self, image_id: str, cell: str = "") -> Tile:
        """Show a stimulus, with what it shows and the cell that it is next to."""
        annotation = self.stimuli.annotation(image_id)
        words = [
            self.stimuli.label(image_id).replace("_", " "),
            *filter(None, cell.split("/")),
        ]
        words += list_words(annotation) if self.medium == "clip" else []
        return replace(
            self._save(
                "seen", "seen", image_id, self.stimuli.open(image_id), annotation
            ),
            lines=words,
        )

    def _result_tile(self, cell: GeneratedSet, image_id: str) -> Tile:
        """Show the first reconstruction of a stimulus, with what was decoded and its
        values.
        """
        (file, values), root = cell.first_file(image_id), self.run.path.resolve()
        decoded = cell.annotations.get(image_id, NO_ANNOTATION)
        # pages can show files of the run alone: pictures that lie in it, and copies of
        # others
        if self.medium == "picture" and file.resolve().is_relative_to(root):
            tile = Tile(file.resolve().relative_to(root).as_posix())
        else:
            tile = self._save("made", cell.name, image_id, cell.open(file), decoded)
        metrics: dict[str, Any] = {shown(name): value for name, value in values.items()}
        return replace(tile, lines=list_words(decoded), metrics=metrics)

    def _save(
        self, kind: str, folder: str, image_id: str, media: Any, annotation: Annotation
    ) -> Tile:
        """Write a picture, or a clip with the outline of its key object and its first
        frame, once.
        """
        key = kind, folder, image_id
        if key in self.saved:
            return self.saved[key]
        if self.medium == "picture":
            picture = media_files.first_frame(media)
            self.saved[key] = Tile(
                artifacts.save_picture(self.run, f"{kind}/{len(self.saved)}", picture)
            )
            return self.saved[key]

        # a film where it can be encoded, else an animated picture; the rate of a clip
        # may be unknown
        clip = media_files.to_clip(media)
        frames = outlined(clip.frames, annotation.masks, CLIP_PX)
        name = below(
            Path("artifacts/clips", folder), image_id, source="the stimulus id"
        ).as_posix()
        rate_hz = clip.rate_hz or media_files.RATE_HZ
        if media_files.has_pyav():
            file, write = (
                f"{name}.mp4",
                partial(media_files.write_video, crf=media_files.SMALL_CRF),
            )
        else:
            file, write = f"{name}.webp", partial(media_files.write_animation)
        self.run.replace(file, partial(write, frames, rate_hz=rate_hz))

        # its first frame, which a page shows until the clip plays
        still, poster = Image.fromarray(frames[0]), f"{name}-still.webp"
        self.run.replace(poster, partial(still.save, format="WEBP", quality=80))
        self.saved[key] = Tile(file, poster=poster if file.endswith(".mp4") else "")
        return self.saved[key]
