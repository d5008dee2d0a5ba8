"""Reconstructions that people are shown: sheets of pictures, or clips that play, and one contact sheet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.arrays import UInt8
from brainhive_cli.core.artifacts import Artifact, Media, Row, Sheet, Tile
from brainhive_cli.core.files import below
from brainhive_cli.core.measurements import Metric
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import Clip
from brainhive_cli.data.media import media_files
from brainhive_cli.evaluation.reconstruction.metric_parts import scale_of
from brainhive_cli.evaluation.reconstruction.scoring import (
    TITLES,
    TRUTH,
    Annotation,
    Scored,
    Stimuli,
    name_sources,
    rank_items,
)
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.reports import sheets
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
        captions: How often decoded captions, which stand below clips, name the object.
    """

    def __init__(
        self,
        run: RunFolder,
        scored: Sequence[Scored],
        stimuli: Stimuli,
        rows: int,
        protocol: str,
        captions: Metric | None = None,
    ) -> None:
        self.run, self.scored, self.stimuli, self.rows, self.protocol = run, scored, stimuli, rows, protocol
        self.first = scored[0]

        # the first cell of each source that has media of its own
        self.sources: dict[str, Scored] = {}
        for cell in scored:
            if cell.generated.source != TRUTH and cell.generated.media:
                self.sources.setdefault(cell.generated.source, cell)
        self.described = f"{protocol}, {self.first.generated.described}"

        # the examples
        ids = [*self.first.generated.files]
        self.random_ids = [ids[row] for row in np.random.default_rng(SEED).permutation(len(ids))[:rows]]
        self.sample = partial(describe_sample, len(self.random_ids), len(ids), seed=SEED)
        self.caption_score = "" if captions is None else f"; {describe_metric(captions)}, n {captions.n:,}"
        self.saved: dict[str | Path, str] = {}  # pictures for pages: image id, or file, to file of the run

    def select_ranked(self, scored: Sequence[Scored]) -> list[tuple[Scored, str]]:
        """Choose items in even steps over the ranks of all reconstructions, each item once."""
        # the best reconstruction of each item
        best: dict[str, tuple[Scored, str]] = {}
        for reconstructions, image_id in rank_items(scored):
            best.setdefault(image_id, (reconstructions, image_id))
        ranked = list(best.values())

        # in even steps
        steps = np.unique(np.linspace(0, len(ranked) - 1, min(self.rows, len(ranked))).round().astype(int))
        return [ranked[step] for step in steps]

    # Pictures

    @console.progress("drawing sheets")
    def show_pictures(self) -> list[Artifact]:
        """Write what is shown of pictures, and list it.

        Examples are drawn at random, each source next to the others; from the best to the worst goes over all
        cells and subjects. Both show one repeat; MAX_REPEATS repeats of the examples are details.
        """
        sample = f"{self.sample(noun='pictures')}; {self.described}"

        # the examples as one picture
        sheet = []
        for image_id in self.random_ids:
            seen = media_files.first_frame(self.stimuli.open(image_id))
            row = [sheets.Tile(seen, [self.stimuli.label(image_id)])]
            for file, values in self.first.list_files(image_id):
                picture = media_files.first_frame(self.first.generated.open(file))
                row.append(sheets.Tile(picture, [list_values(_shorten_names(values))]))
            sheet.append(row)
        self.run.replace(CONTACT_SHEET, partial(save_sheet, sample, sheet))

        # examples, and items in the order of their scores
        source = self.first.generated.source
        ranked = self.select_ranked([cell for cell in self.scored if cell.generated.source == source])
        random = [(self.first, image_id) for image_id in self.random_ids]
        repeats = max(len(scored.list_files(image_id)) for scored, image_id in random)
        ranked_sheet = self._sheet(BEST_TO_WORST, ranked, 1, f"In even steps; {self.described}")
        details = [self._sheet(REPEATS, random, MAX_REPEATS, sample, DETAILS)] if repeats > 1 else []

        # the examples, by all sources side by side if there are several
        if len(self.sources) == 1:
            random_sheet = self._sheet(RANDOM, random, 1, sample)
        else:
            rows = []
            for image_id in self.random_ids:
                tiles = [self._seen_tile(image_id)]
                for scored in self.sources.values():
                    is_generated = image_id in scored.generated.files
                    tiles.append(self._generated_tiles(scored, image_id)[0] if is_generated else Tile(""))
                rows.append(Row(image_id, tiles))
            columns = ["seen", *(TITLES.get(source, source) for source in self.sources)]
            title = f"{RANDOM}, with ceiling, floor and baselines"
            random_sheet = Sheet(title, columns, rows, section=SECTION, note=sample)
        return [random_sheet, ranked_sheet, *details]

    def _sheet(
        self,
        title: str,
        order: Sequence[tuple[Scored, str]],
        repeats: int,
        note: str,
        section: str = SECTION,
    ) -> Sheet:
        """Show items with so many repeats of their reconstructions."""
        rows = []
        for scored, image_id in order:
            seen = self._seen_tile(image_id, scored.generated.title)
            rows.append(Row(image_id, [seen, *self._generated_tiles(scored, image_id)[:repeats]]))

        # without the tile of the stimulus
        count = max(len(row.tiles) for row in rows) - 1
        columns = [str(number) for number in range(1, count + 1)] if count > 1 else ["made"]
        return Sheet(title, ["seen", *columns], rows, section=section, note=note)

    def _seen_tile(self, image_id: str, cell: str = "") -> Tile:
        """Show a stimulus, with what it shows and the cell that it is next to."""
        words = [self.stimuli.label(image_id).replace("_", " "), *filter(None, cell.split("/"))]
        return Tile(self._save(image_id, "seen", self.stimuli.open), words)

    def _generated_tiles(self, scored: Scored, image_id: str) -> list[Tile]:
        """Show files of the run as they are; those that lie elsewhere, as copies."""
        tiles, root = [], self.run.path.resolve()
        for file, values in scored.list_files(image_id)[:MAX_REPEATS]:
            # pages can show files of the run alone
            path = file.resolve()
            if path.is_relative_to(root):
                file_name = path.relative_to(root).as_posix()
            else:
                file_name = self._save(file, "made", scored.generated.open)
            tiles.append(Tile(file_name, metrics={shown(name): value for name, value in values.items()}))
        return tiles

    def _save(self, key: Any, folder: str, open_media: Callable[[Any], Any]) -> str:
        """Save a picture, or the first frame of a clip, once for all pages; return its file in the run."""
        if key not in self.saved:
            picture, number = media_files.first_frame(open_media(key)), len(self.saved)
            self.saved[key] = artifacts.save_picture(self.run, f"{folder}/{number}", picture)
        return self.saved[key]

    # Clips

    @console.progress("drawing sheets")
    def show_clips(self) -> list[Artifact]:
        """Write what is shown of clips, and list it: of the items that sheets of pictures would show."""
        ranked_ids = [image_id for _, image_id in self.select_ranked([self.first])]

        # the first cell of each source that has clips of its own
        sources = {source: scored for source, scored in self.sources.items() if source != "mean"}
        titles = name_sources("clip")
        columns = ["seen", *(titles.get(source, "") for source in sources)]

        # a row for each item
        shown_ids = list(dict.fromkeys([*self.random_ids, *ranked_ids]))
        rows = {}
        with console.progress("writing clips for people", len(shown_ids)) as bar:
            for image_id in shown_ids:
                rows[image_id] = self._row_of_clips(image_id, list(sources.values()))
                bar.advance(1)

        # the frames of the examples: a row of what was seen, and one of the first reconstruction
        sheet = []
        for image_id in self.random_ids:
            seen = self.stimuli.annotation(image_id)
            decoded = self.first.generated.annotations.get(image_id, NO_ANNOTATION)
            file, values = self.first.list_files(image_id)[0]
            clip = media_files.to_clip(self.first.generated.open(file))
            words = ["seen", self.stimuli.label(image_id), *seen.lines]
            sheet.append(lay_out_clip(self.stimuli.open(image_id).frames, words, seen.masks))
            words = ["made", *decoded.lines, list_values(_shorten_names(values))]
            sheet.append(lay_out_clip(clip.frames, words, decoded.masks))
        note = self.described + self.caption_score
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

    def _row_of_clips(self, image_id: str, sources: Sequence[Scored]) -> Row:
        """Write the clips of one item, and the one that shows them next to each other."""
        # the seen clip
        seen, annotation = self.stimuli.open(image_id), self.stimuli.annotation(image_id)
        words = [self.stimuli.label(image_id), *annotation.lines]
        tiles = [self._clip_tile("seen", image_id, seen, annotation, words)]
        clips = [outlined(seen.frames, None, CLIP_PX)]

        # the first reconstruction of each source
        for scored in sources:
            if image_id not in scored.generated.files:
                tiles.append(Tile(""))
                continue
            file, values = scored.list_files(image_id)[0]
            clip = media_files.to_clip(scored.generated.open(file))
            decoded = scored.generated.annotations.get(image_id, NO_ANNOTATION)
            tile = self._clip_tile(scored.generated.name, image_id, clip, decoded, decoded.lines)
            tiles.append(replace(tile, metrics=_shorten_names(values)))
            frames = clip.frames
            if len(frames) == 1:  # a picture, held as long as the clip
                frames = np.repeat(frames, len(seen.frames), 0)
            clips.append(outlined(frames, None, CLIP_PX))

        # the seen clip and the first reconstruction in one film
        if media_files.has_pyav() and len(clips) > 1:
            together = np.concatenate(clips[:2], 2)  # [F, H, 2 · W, 3]: what was seen, then the first source
            file_name = below(Path("clips"), image_id, source="the stimulus id").as_posix()
            self._write_clip(f"{file_name}.mp4", together, seen.rate_hz)
        return Row(image_id, tiles)

    def _clip_tile(
        self, folder: str, image_id: str, clip: Clip, annotation: Annotation, lines: Sequence[str]
    ) -> Tile:
        """Write a clip for pages, with the outline of its key object, and its first frame."""
        # the clip, as a film where it can be encoded
        frames = outlined(clip.frames, annotation.masks, CLIP_PX)
        name = below(Path("artifacts/clips", folder), image_id, source="the stimulus id").as_posix()
        file, poster = f"{name}.{'mp4' if media_files.has_pyav() else 'webp'}", f"{name}-still.webp"
        self._write_clip(file, frames, clip.rate_hz, media_files.SMALL_CRF)

        # its first frame, which a page shows until the clip plays
        still = Image.fromarray(frames[0])
        self.run.replace(poster, partial(still.save, format="WEBP", quality=80))
        return Tile(file, list(lines), poster=poster if file.endswith(".mp4") else "")

    def _write_clip(
        self, name: str, frames: UInt8, rate_hz: float | None, crf: int = media_files.CRF
    ) -> None:
        """Write a film, or an animated picture, by the ending of its name."""
        # the rate of a clip may be unknown
        is_video = name.endswith(".mp4")
        write = partial(media_files.write_video, crf=crf) if is_video else media_files.write_animation
        self.run.replace(name, partial(write, frames, rate_hz=rate_hz or media_files.RATE_HZ))


def _shorten_names(values: Mapping[str, float]) -> dict[str, Any]:
    """Name values as narrow tables do."""
    return {scale_of(name).short or name.removeprefix("two_way_"): value for name, value in values.items()}
