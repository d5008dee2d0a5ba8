"""Reconstructions that people are shown: sheets of pictures, or clips that play and their frames."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.artifacts import Artifact, Media, Row, Sheet, Tile
from brainhive_cli.core.files import below
from brainhive_cli.core.measurements import Metric
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import Clip
from brainhive_cli.data.media import media_files
from brainhive_cli.evaluation.reconstruction.scoring import (
    TITLES,
    TRUTH,
    Annotation,
    GeneratedSet,
    Stimuli,
    list_words,
    name_sources,
    rank_items,
)
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.reports.page import DETAILS
from brainhive_cli.reports.sentences import describe_metric
from brainhive_cli.reports.sheets import describe_sample, lay_out_clip, list_values, outlined, save_sheet

CONTACT_SHEET = "contact_sheet.png"
RANDOM, BEST_TO_WORST, REPEATS = "Examples", "From the best to the worst", "Repeats of the examples"
"""Titles of sheets."""
SEED = 0
"""Seed of the examples."""
SECTION = "Reconstructions"
"""The heading under which a page shows them."""
MAX_REPEATS = 4
"""Reconstructions of an item that a sheet shows."""
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
    """

    def __init__(
        self, run: RunFolder, scored: Sequence[GeneratedSet], stimuli: Stimuli, rows: int, protocol: str
    ) -> None:
        self.run, self.scored, self.stimuli, self.rows = run, scored, stimuli, rows
        self.first = scored[0]
        self.described = f"{protocol}, {self.first.described}"

        # the first cell of each source that has media of its own
        self.sources: dict[str, GeneratedSet] = {}
        for cell in scored:
            if cell.source != TRUTH and cell.media:
                self.sources.setdefault(cell.source, cell)

        # the examples
        ids = [*self.first.files]
        self.random_ids = [ids[row] for row in np.random.default_rng(SEED).permutation(len(ids))[:rows]]
        self.sample = partial(describe_sample, len(self.random_ids), len(ids), seed=SEED)
        self.saved: dict[Path, str] = {}  # copies for pages of files that lie elsewhere

    def select_ranked(self, scored: Sequence[GeneratedSet]) -> list[tuple[GeneratedSet, str]]:
        """Choose items in even steps over the ranks of all reconstructions, each item once."""
        # the best reconstruction of each item, in even steps
        best: dict[str, GeneratedSet] = {}
        for cell, image_id in rank_items(scored):
            best.setdefault(image_id, cell)
        ranked = [(cell, image_id) for image_id, cell in best.items()]
        steps = np.unique(np.linspace(0, len(ranked) - 1, min(self.rows, len(ranked))).round().astype(int))
        return [ranked[step] for step in steps]

    # Pictures

    @console.progress("drawing sheets")
    def show_pictures(self) -> list[Artifact]:
        """Write what is shown of pictures, and list it.

        Examples are drawn at random, each source next to the others; from the best to the worst goes over all
        cells and subjects. Both show one repeat; MAX_REPEATS repeats of the examples are details.
        """
        # items in the order of their scores, and the examples
        sample = f"{self.sample(noun='pictures')}; {self.described}"
        ranked = self.select_ranked([cell for cell in self.scored if cell.source == self.first.source])
        random = [(self.first, image_id) for image_id in self.random_ids]
        repeats = max(len(self.first.files[image_id]) for image_id in self.random_ids)
        ranked_sheet = self._sheet(BEST_TO_WORST, ranked, 1, f"In even steps; {self.described}")
        details = [self._sheet(REPEATS, random, MAX_REPEATS, sample, DETAILS)] if repeats > 1 else []
        if len(self.sources) == 1:
            return [self._sheet(RANDOM, random, 1, sample), ranked_sheet, *details]

        # the examples by all sources, side by side
        rows = []
        for image_id in self.random_ids:
            tiles = [self._seen_tile(image_id)]
            for cell in self.sources.values():
                tiles += self._generated_tiles(cell, image_id, 1) if image_id in cell.files else [Tile("")]
            rows.append(Row(image_id, tiles))
        columns = ["seen", *(TITLES.get(source, source) for source in self.sources)]
        title = f"{RANDOM}, with ceiling, floor and baselines"
        return [Sheet(title, columns, rows, section=SECTION, note=sample), ranked_sheet, *details]

    def _sheet(
        self,
        title: str,
        order: Sequence[tuple[GeneratedSet, str]],
        repeats: int,
        note: str,
        section: str = SECTION,
    ) -> Sheet:
        """Show items with so many repeats of their reconstructions."""
        rows = []
        for cell, image_id in order:
            seen = self._seen_tile(image_id, cell.title)
            rows.append(Row(image_id, [seen, *self._generated_tiles(cell, image_id, repeats)]))

        # without the tile of the stimulus
        count = max(len(row.tiles) for row in rows) - 1
        columns = [str(number) for number in range(1, count + 1)] if count > 1 else ["made"]
        return Sheet(title, ["seen", *columns], rows, section=section, note=note)

    def _seen_tile(self, image_id: str, cell: str = "") -> Tile:
        """Show a stimulus, with what it shows and the cell that it is next to."""
        words = [self.stimuli.label(image_id).replace("_", " "), *filter(None, cell.split("/"))]
        return Tile(self._save(Path(image_id), "seen", self.stimuli.open(image_id)), words)

    def _generated_tiles(self, cell: GeneratedSet, image_id: str, repeats: int) -> list[Tile]:
        """Show files of the run as they are; those that lie elsewhere, as copies."""
        tiles, root = [], self.run.path.resolve()
        for file, values in cell.list_files(image_id)[:repeats]:
            # pages can show files of the run alone
            if file.resolve().is_relative_to(root):
                name = file.resolve().relative_to(root).as_posix()
            else:
                name = self._save(file, "made", cell.open(file))
            tiles.append(Tile(name, metrics={shown(metric): value for metric, value in values.items()}))
        return tiles

    def _save(self, key: Path, folder: str, media: Any) -> str:
        """Save a picture, or the first frame of a clip, once for all pages; return its file in the run."""
        if key not in self.saved:
            name = f"{folder}/{len(self.saved)}"
            self.saved[key] = artifacts.save_picture(self.run, name, media_files.first_frame(media))
        return self.saved[key]

    # Clips

    @console.progress("drawing sheets")
    def show_clips(self, captions: Metric | None) -> list[Artifact]:
        """Write what is shown of clips, and list it: of the items that sheets of pictures would show.

        Args:
            captions: How often decoded captions, which stand below clips, name the object.
        """
        # the first cell of each source that has clips of its own
        sources = {source: cell for source, cell in self.sources.items() if source != "mean"}
        titles = name_sources("clip")
        columns = ["seen", *(titles.get(source, "") for source in sources)]

        # a row for each item
        ranked_ids = [image_id for _, image_id in self.select_ranked([self.first])]
        shown_ids = list(dict.fromkeys([*self.random_ids, *ranked_ids]))
        rows = {}
        with console.progress("writing clips for people", len(shown_ids)) as bar:
            for image_id in shown_ids:
                tiles = [self._seen_clip(image_id)]
                for cell in sources.values():
                    tiles.append(self._made_clip(cell, image_id) if image_id in cell.files else Tile(""))
                rows[image_id] = Row(image_id, tiles)
                bar.advance(1)

        # the frames of the examples: a row of what was seen, and one of the first reconstruction
        sheet = []
        for image_id in self.random_ids:
            seen = self.stimuli.annotation(image_id)
            decoded = self.first.annotations.get(image_id, NO_ANNOTATION)
            file, values = self.first.list_files(image_id)[0]
            clip = media_files.to_clip(self.first.open(file))
            words = ["seen", self.stimuli.label(image_id), *list_words(seen)]
            sheet.append(lay_out_clip(self.stimuli.open(image_id).frames, words, seen.masks))
            scores = list_values({shown(name): value for name, value in values.items()})
            words = ["made", *list_words(decoded), scores]
            sheet.append(lay_out_clip(clip.frames, words, decoded.masks))
        caption_score = "" if captions is None else f"; {describe_metric(captions)}, n {captions.n:,}"
        note = self.described + caption_score
        sample = f"{self.sample(noun='clips')}; {note}"
        self.run.replace(CONTACT_SHEET, partial(save_sheet, sample, sheet))

        # sheets of the examples and of ranked ones, and the frames
        random_rows = [rows[image_id] for image_id in self.random_ids]
        ranked_rows = [replace(rows[image_id], tiles=rows[image_id].tiles[:2]) for image_id in ranked_ids]
        title = "Frames of the examples, outlined where the key object is"
        return [
            Sheet(RANDOM, columns, random_rows, section=SECTION, note=sample),
            Sheet(BEST_TO_WORST, columns[:2], ranked_rows, section=SECTION, note=f"In even steps; {note}"),
            Media(title, CONTACT_SHEET, section=SECTION),
        ]

    def _seen_clip(self, image_id: str) -> Tile:
        """Show a stimulus, with what the data set says of it."""
        annotation = self.stimuli.annotation(image_id)
        words = [self.stimuli.label(image_id), *list_words(annotation)]
        return self._write_clip("seen", image_id, self.stimuli.open(image_id), annotation, words)

    def _made_clip(self, cell: GeneratedSet, image_id: str) -> Tile:
        """Show the first reconstruction of a stimulus, with what was decoded and its values."""
        file, values = cell.list_files(image_id)[0]
        decoded = cell.annotations.get(image_id, NO_ANNOTATION)
        clip = media_files.to_clip(cell.open(file))
        tile = self._write_clip(cell.name, image_id, clip, decoded, list_words(decoded))
        return replace(tile, metrics={shown(name): value for name, value in values.items()})

    def _write_clip(
        self, folder: str, image_id: str, clip: Clip, annotation: Annotation, words: list[str]
    ) -> Tile:
        """Write a clip for pages, with the outline of its key object, and its first frame."""
        # a film where it can be encoded, else an animated picture; the rate of a clip may be unknown
        frames = outlined(clip.frames, annotation.masks, CLIP_PX)
        name = below(Path("artifacts/clips", folder), image_id, source="the stimulus id").as_posix()
        rate_hz = clip.rate_hz or media_files.RATE_HZ
        if media_files.has_pyav():
            file, write = f"{name}.mp4", partial(media_files.write_video, crf=media_files.SMALL_CRF)
        else:
            file, write = f"{name}.webp", partial(media_files.write_animation)
        self.run.replace(file, partial(write, frames, rate_hz=rate_hz))

        # its first frame, which a page shows until the clip plays
        still, poster = Image.fromarray(frames[0]), f"{name}-still.webp"
        self.run.replace(poster, partial(still.save, format="WEBP", quality=80))
        return Tile(file, words, poster=poster if file.endswith(".mp4") else "")
