"""Which clips people are shown: a filmstrip, videos next to the true ones, and sheets that a page plays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

from brainhive_cli.core import console
from brainhive_cli.core.artifacts import Artifact, Media, Row, Sheet, Tile
from brainhive_cli.core.files import below
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import Clip
from brainhive_cli.data.media import media_files
from brainhive_cli.evaluation.reconstruction.annotations import Annotation
from brainhive_cli.evaluation.reconstruction.generated import Scored, best_first, first_of_sources
from brainhive_cli.evaluation.reconstruction.metric_parts import short
from brainhive_cli.evaluation.reconstruction.tables import titles_of
from brainhive_cli.reports.sheets import Strip, draw_filmstrips, outlined

SECTION = "Reconstructions"
FILMSTRIP = "contact_sheet.png"
SIDE_PX = 224
"""Side of the clips that people are shown."""
NO_ANNOTATION = Annotation()


@dataclass(frozen=True)
class ClipSelection:
    """The clips of a run, and what is shown of them.

    Attributes:
        run: Where files for people are kept.
        scored: The reconstructions; the first source is the one that is shown in full.
        open_seen: Image id to the true clip.
        label: Image id to what it shows.
        annotation: Image id to what is known of the true clip.
        rows: Items on a sheet.
        protocol: How they were compared.
    """

    run: RunFolder
    scored: Sequence[Scored]
    open_seen: Callable[[str], Clip]
    label: Callable[[str], str]
    annotation: Callable[[str], Annotation]
    rows: int
    protocol: str

    def artifacts(self) -> list[Artifact]:
        """Write what is shown, and list it: the first items, and from the best to the worst in even steps."""
        first = self.scored[0]
        ids = list(first.generated.files)
        best = [image_id for _, image_id in best_first([first])]
        steps = np.unique(np.linspace(0, len(best) - 1, min(self.rows, len(best))).round().astype(int))
        chosen = {
            "First items": ids[: self.rows],
            "From the best to the worst": [best[step] for step in steps],
        }
        shown = list(dict.fromkeys(image_id for some in chosen.values() for image_id in some))
        with console.progress("clips for people", len(shown)) as bar:
            rows = {}
            for image_id in shown:
                rows[image_id] = self._row(image_id)
                bar.advance(1)
        how = f"{self.protocol}, {first.generated.described}"
        self.run.replace(FILMSTRIP, self._filmstrip(f"First items: {how}", chosen["First items"]).save)
        columns = {"First items": self._columns(), "From the best to the worst": self._columns()[:2]}
        return [
            *(
                Sheet(title, names, [_cut(rows[i], len(names)) for i in chosen[title]], SECTION, how)
                for title, names in columns.items()
            ),
            Media("Frames of the first items, outlined where the key object is", FILMSTRIP, section=SECTION),
        ]

    @property
    def _sources(self) -> list[Scored]:
        """The first cell of each source that has clips of its own."""
        return [each for source, each in first_of_sources(self.scored).items() if source != "mean"]

    def _columns(self) -> list[str]:
        titles = titles_of("clip")
        return ["seen", *(titles.get(each.generated.source, "") for each in self._sources)]

    def _row(self, image_id: str) -> Row:
        """Write the clips of one item, and the one that shows them next to each other."""
        seen, of_seen = self.open_seen(image_id), self.annotation(image_id)
        tiles = [self._tile("seen", image_id, seen, of_seen, [self.label(image_id), *of_seen.lines])]
        clips = [outlined(seen.frames, None, SIDE_PX)]
        for each in self._sources:
            if image_id not in each.generated.files:
                tiles.append(Tile(""))
                continue
            file, values = each.of_item(image_id)[0]
            made = media_files.to_clip(each.generated.open(file))
            of_made = each.generated.annotations.get(image_id, NO_ANNOTATION)
            tile = self._tile(each.generated.name, image_id, made, of_made, of_made.lines)
            tiles.append(Tile(tile.file, tile.lines, _named(values), poster=tile.poster))
            clips.append(outlined(_of_length(made.frames, len(seen.frames)), None, SIDE_PX))
        if media_files.has_pyav() and len(clips) > 1:
            name = f"{below_run('clips', image_id)}.mp4"
            together = np.concatenate(clips[:2], 2)  # [F, H, 2 · W, 3]: what was seen, left of what was made
            self._write(name, together, seen.rate_hz)
        return Row(image_id, tiles)

    def _tile(
        self, whose: str, image_id: str, clip: Clip, annotation: Annotation, lines: Sequence[str]
    ) -> Tile:
        """Write a clip for pages, with the outline of its key object, and its first frame."""
        frames = outlined(clip.frames, annotation.masks, SIDE_PX)
        name = below_run(f"artifacts/clips/{whose}", image_id)
        file = f"{name}.{'mp4' if media_files.has_pyav() else 'webp'}"
        self._write(file, frames, clip.rate_hz)
        poster = f"{name}-still.webp"
        self.run.replace(poster, partial(_save_still, Image.fromarray(frames[0])))
        return Tile(file, list(lines), poster=poster if file.endswith(".mp4") else "")

    def _write(self, name: str, frames: media_files.Pixels, rate_hz: float | None) -> None:
        rate = rate_hz or media_files.RATE_HZ
        write = media_files.write_video if name.endswith(".mp4") else media_files.write_animation
        self.run.replace(name, partial(write, frames, rate_hz=rate))

    def _filmstrip(self, title: str, image_ids: Sequence[str]) -> Picture:
        first = self.scored[0]
        pairs = []
        for image_id in image_ids:
            seen, made = self.annotation(image_id), first.generated.annotations.get(image_id, NO_ANNOTATION)
            file, values = first.of_item(image_id)[0]
            clip = media_files.to_clip(first.generated.open(file))
            words = [self.label(image_id), *seen.lines]
            pairs.append(
                [
                    Strip(self.open_seen(image_id).frames, "seen", words, seen.masks),
                    Strip(clip.frames, "made", made.lines, made.masks, _named(values)),
                ]
            )
        return draw_filmstrips(title, pairs)


def below_run(folder: str, image_id: str) -> str:
    """Name the file of an item below a folder of the run, without ending."""
    return below(Path(folder), image_id, source="the stimulus id").as_posix()


def _cut(row: Row, count: int) -> Row:
    return replace(row, tiles=row.tiles[:count])


def _of_length(frames: media_files.Pixels, count: int) -> media_files.Pixels:
    """Hold a picture, one frame, as long as a clip."""
    return np.repeat(frames, count, 0) if len(frames) == 1 else frames


def _named(values: dict[str, float]) -> dict[str, Any]:
    return {short(name): value for name, value in values.items()}


def _save_still(picture: Picture, path: Path) -> None:
    picture.save(path, "WEBP", quality=80)
