"""Which reconstructions people are shown: sheets of pictures, or clips that play, and one contact sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.artifacts import Artifact, Media, Row, Sheet, Tile
from brainhive_cli.core.files import below
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import Clip
from brainhive_cli.data.media import media_files
from brainhive_cli.data.media.media_files import first_frame
from brainhive_cli.evaluation.reconstruction.annotations import Annotation
from brainhive_cli.evaluation.reconstruction.metric_parts import scale_of
from brainhive_cli.evaluation.reconstruction.scoring import Scored, Stimuli, best_first, first_of_sources
from brainhive_cli.evaluation.reconstruction.tables import TITLES, titles_of
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.reports import sheets
from brainhive_cli.reports.sheets import Strip, draw_filmstrips, outlined

CONTACT_SHEET = "contact_sheet.png"
FIRST, BEST_TO_WORST = "First items", "From the best to the worst"
SECTION = "Reconstructions"
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
        self, run: RunFolder, scored: Sequence[Scored], stimuli: Stimuli, rows: int, protocol: str
    ) -> None:
        self.run, self.scored, self.stimuli, self.rows, self.protocol = run, scored, stimuli, rows, protocol
        self.first = scored[0]
        self.first_ids = list(self.first.generated.files)[:rows]
        self.described = f"{protocol}, {self.first.generated.described}"
        self.saved: dict[str | Path, str] = {}  # pictures for pages: image id, or file, to file of the run

    def from_best_to_worst(self, scored: Sequence[Scored]) -> list[tuple[Scored, str]]:
        """Choose items in even steps over the ranks of all reconstructions, each item once."""
        best: dict[str, tuple[Scored, str]] = {}
        for reconstructions, image_id in best_first(scored):
            best.setdefault(image_id, (reconstructions, image_id))
        ranked = list(best.values())
        steps = np.unique(np.linspace(0, len(ranked) - 1, min(self.rows, len(ranked))).round().astype(int))
        return [ranked[step] for step in steps]

    # Pictures

    def show_pictures(self) -> list[Artifact]:
        """Write what is shown of pictures, and list it.

        The first items are as they come; from the best to the worst goes over all cells and subjects; then
        each source stands next to the others.
        """
        self.run.replace(CONTACT_SHEET, self._contact_sheet().save)
        source = self.first.generated.source
        of_source = [scored for scored in self.scored if scored.generated.source == source]
        shown_sheets: list[Artifact] = [
            self._repeats_sheet(
                FIRST, [(self.first, image_id) for image_id in self.first_ids], self.described
            ),
            self._repeats_sheet(
                BEST_TO_WORST, self.from_best_to_worst(of_source), f"{self.described}; in even steps"
            ),
        ]
        by_source = first_of_sources(self.scored)
        if len(by_source) > 1:
            columns = ["seen", *(TITLES.get(source, source) for source in by_source)]
            rows = [
                Row(image_id, [self._seen_tile(image_id), *self._tiles_of_sources(image_id)])
                for image_id in self.first_ids
            ]
            title = "With ceiling, floor and baselines"
            shown_sheets.append(Sheet(title, columns, rows, section=SECTION, note=self.described))
        return shown_sheets

    def _contact_sheet(self) -> Image.Image:
        """Draw the first items as one picture."""
        rows = []
        for image_id in self.first_ids:
            seen = first_frame(self.stimuli.open(image_id))
            row = [sheets.Tile(seen, [self.stimuli.label(image_id)], frame=sheets.INK)]
            for file, values in self.first.of_item(image_id):
                picture = first_frame(self.first.generated.open(file))
                row.append(sheets.Tile(picture, metrics=_by_name(values)))
            rows.append(row)
        return sheets.draw_rows(f"{FIRST}: {self.described}", rows)

    def _repeats_sheet(self, title: str, order: Sequence[tuple[Scored, str]], note: str) -> Sheet:
        count = max(len(scored.of_item(image_id)) for scored, image_id in order)
        columns = [str(number) for number in range(1, min(count, MAX_REPEATS) + 1)] if count > 1 else ["made"]
        rows = []
        for scored, image_id in order:
            repeats = scored.of_item(image_id)[:MAX_REPEATS]
            tiles = [self._generated_tile(scored, file, values) for file, values in repeats]
            rows.append(Row(image_id, [self._seen_tile(image_id, scored.generated.title), *tiles]))
        return Sheet(title, ["seen", *columns], rows, section=SECTION, note=note)

    def _tiles_of_sources(self, image_id: str) -> list[Tile]:
        return [
            self._generated_tile(scored, *scored.of_item(image_id)[0])
            if image_id in scored.generated.files
            else Tile("")
            for scored in first_of_sources(self.scored).values()
        ]

    def _seen_tile(self, image_id: str, cell: str = "") -> Tile:
        if image_id not in self.saved:
            picture, number = first_frame(self.stimuli.open(image_id)), len(self.saved)
            self.saved[image_id] = artifacts.save_picture(self.run, f"seen/{number}", picture)
        words = [self.stimuli.label(image_id).replace("_", " "), *filter(None, cell.split("/"))]
        return Tile(self.saved[image_id], words)

    def _generated_tile(self, scored: Scored, file: Path, values: Mapping[str, float]) -> Tile:
        """Show a file of the run as it is; one that lies elsewhere, as a copy."""
        path, root = file.resolve(), self.run.path.resolve()
        if path.is_relative_to(root):
            return Tile(path.relative_to(root).as_posix(), metrics=_by_name(values))
        if file not in self.saved:
            picture, number = first_frame(scored.generated.open(file)), len(self.saved)
            self.saved[file] = artifacts.save_picture(self.run, f"made/{number}", picture)
        return Tile(self.saved[file], metrics=_by_name(values))

    # Clips

    def show_clips(self) -> list[Artifact]:
        """Write what is shown of clips, and list it: of the items that sheets of pictures would show."""
        chosen = {
            FIRST: self.first_ids,
            BEST_TO_WORST: [image_id for _, image_id in self.from_best_to_worst([self.first])],
        }
        rows, titles = {}, titles_of("clip")
        # the first cell of each source that has clips of its own
        by_source = {s: scored for s, scored in first_of_sources(self.scored).items() if s != "mean"}
        columns = ["seen", *(titles.get(source, "") for source in by_source)]
        shown_ids = list(dict.fromkeys(image_id for image_ids in chosen.values() for image_id in image_ids))
        with console.progress("clips for people", len(shown_ids)) as bar:
            for image_id in shown_ids:
                rows[image_id] = self._row_of_clips(image_id, list(by_source.values()))
                bar.advance(1)
        self.run.replace(CONTACT_SHEET, self._filmstrip().save)
        counts = {FIRST: len(columns), BEST_TO_WORST: 2}
        return [
            *(
                Sheet(
                    title,
                    columns[:count],
                    [
                        replace(rows[image_id], tiles=rows[image_id].tiles[:count])
                        for image_id in chosen[title]
                    ],
                    section=SECTION,
                    note=self.described,
                )
                for title, count in counts.items()
            ),
            Media(
                "Frames of the first items, outlined where the key object is", CONTACT_SHEET, section=SECTION
            ),
        ]

    def _row_of_clips(self, image_id: str, sources: Sequence[Scored]) -> Row:
        """Write the clips of one item, and the one that shows them next to each other."""
        seen, annotation = self.stimuli.open(image_id), self.stimuli.annotation(image_id)
        words = [self.stimuli.label(image_id), *annotation.lines]
        tiles = [self._clip_tile("seen", image_id, seen, annotation, words)]
        clips = [outlined(seen.frames, None, CLIP_PX)]
        for scored in sources:
            if image_id not in scored.generated.files:
                tiles.append(Tile(""))
                continue
            file, values = scored.of_item(image_id)[0]
            clip = media_files.to_clip(scored.generated.open(file))
            decoded = scored.generated.annotations.get(image_id, NO_ANNOTATION)
            tile = self._clip_tile(scored.generated.name, image_id, clip, decoded, decoded.lines)
            tiles.append(Tile(tile.file, tile.lines, _by_short_name(values), poster=tile.poster))
            frames = clip.frames
            if len(frames) == 1:  # a picture, held as long as the clip
                frames = np.repeat(frames, len(seen.frames), 0)
            clips.append(outlined(frames, None, CLIP_PX))
        if media_files.has_pyav() and len(clips) > 1:
            together = np.concatenate(clips[:2], 2)  # [F, H, 2 · W, 3]: what was seen, then the first source
            self._write_clip(f"{_below_run('clips', image_id)}.mp4", together, seen.rate_hz)
        return Row(image_id, tiles)

    def _clip_tile(
        self, folder: str, image_id: str, clip: Clip, annotation: Annotation, lines: Sequence[str]
    ) -> Tile:
        """Write a clip for pages, with the outline of its key object, and its first frame."""
        frames = outlined(clip.frames, annotation.masks, CLIP_PX)
        name = _below_run(f"artifacts/clips/{folder}", image_id)
        file, poster = f"{name}.{'mp4' if media_files.has_pyav() else 'webp'}", f"{name}-still.webp"
        self._write_clip(file, frames, clip.rate_hz)
        still = Image.fromarray(frames[0])
        self.run.replace(poster, partial(still.save, format="WEBP", quality=80))
        return Tile(file, list(lines), poster=poster if file.endswith(".mp4") else "")

    def _write_clip(self, name: str, frames: media_files.Pixels, rate_hz: float | None) -> None:
        write = media_files.write_video if name.endswith(".mp4") else media_files.write_animation
        self.run.replace(name, partial(write, frames, rate_hz=rate_hz or media_files.RATE_HZ))

    def _filmstrip(self) -> Image.Image:
        pairs = []
        for image_id in self.first_ids:
            seen = self.stimuli.annotation(image_id)
            decoded = self.first.generated.annotations.get(image_id, NO_ANNOTATION)
            file, values = self.first.of_item(image_id)[0]
            clip = media_files.to_clip(self.first.generated.open(file))
            words = [self.stimuli.label(image_id), *seen.lines]
            pairs.append(
                [
                    Strip(self.stimuli.open(image_id).frames, "seen", words, seen.masks),
                    Strip(clip.frames, "made", decoded.lines, decoded.masks, _by_short_name(values)),
                ]
            )
        return draw_filmstrips(f"{FIRST}: {self.described}", pairs)


def _below_run(folder: str, image_id: str) -> str:
    """Name the file of an item below a folder of the run, without ending."""
    return below(Path(folder), image_id, source="the stimulus id").as_posix()


def _by_name(values: Mapping[str, float]) -> dict[str, Any]:
    return {shown(name): value for name, value in values.items()}


def _by_short_name(values: Mapping[str, float]) -> dict[str, Any]:
    return {scale_of(name).short or name.removeprefix("two_way_"): value for name, value in values.items()}
