"""Baselines: the training picture or clip nearest to each decoded head, the mean of all, stills of clips."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from brainhive_cli.core import console
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import below
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import BadPicture, Clip, StimulusSet, images_for_plan
from brainhive_cli.data.media import media_files
from brainhive_cli.data.stores.ids import match_ids
from brainhive_cli.data.targets.views import to_pictures
from brainhive_cli.evaluation.reconstruction.conditions import TRAIN, DecodedSet, Source, StimulusHeads
from brainhive_cli.evaluation.reconstruction.scoring import GeneratedSet
from brainhive_cli.measurement.metrics.image import prepare
from brainhive_cli.measurement.ranks import nearest
from brainhive_cli.training.alignment.trained import AlignRun

BASELINES: tuple[Source, ...] = ("nearest", "mean", "still")
DEFAULT: dict[str, tuple[Source, ...]] = {
    "picture": ("brain", "nearest", "mean"),
    "clip": ("brain", "nearest", "still"),
}
"""The sources of each medium, unless the recipe says them."""
MEAN_OF = 2000
"""Training pictures that are averaged at most, evenly spaced: all others would change the mean by about one
level of 255 (a pixel's standard deviation of 60 over the root of 2000)."""
AT_ONCE = 64
"""Pictures that are decoded ahead."""


@dataclass(frozen=True)
class Baselines:
    """Puts pictures of the training set in the place of reconstructions.

    Attributes:
        align: The run whose data set and embeddings are used.
        split: Whose items are reconstructed.
        resolution_px: Side of the pictures that are kept: that of generated ones.
        protocol: How pictures are sized for metrics; the mean is taken at that size.
    """

    align: AlignRun
    split: str
    resolution_px: int
    protocol: str

    def make(
        self,
        sources: Sequence[Source],
        brain: Sequence[DecodedSet],
        generated: Sequence[GeneratedSet],
        heads: StimulusHeads,
        trained: str,
        folder: RunFolder,
        launch: Launch,
    ) -> tuple[list[GeneratedSet], dict[str, str]]:
        """Make the baselines among the sources; one whose training pictures are missing is left out.

        Args:
            sources: Of which `nearest`, `mean` and `still` are made.
            brain: The decoded heads of each cell and subject.
            generated: What was generated from them.
            heads: Makes the heads of the training pictures.
            trained: What a reader must know of the brain models.
            folder: The run; pictures that are there already are kept.
            launch: The main process makes them.

        Returns:
            On every process the pictures, and for each baseline that is missing the way to get it.
        """
        baselines: list[GeneratedSet] = []
        missing: dict[str, str] = {}
        for source in [each for each in BASELINES if each in sources and launch.is_main]:
            try:
                if source == "still":
                    baselines += stills(generated, folder)
                elif source == "nearest":
                    baselines += self._nearest(brain, heads, trained, folder)
                else:
                    baselines.append(self._mean(brain, folder))
            except (MissingData, BadPicture) as error:
                missing[source] = error.in_one_line
        gathered: tuple[list[GeneratedSet], dict[str, str]] = launch.gather((baselines, missing))[0]
        return gathered

    def is_here(self, source: str) -> bool:
        """Whether the training pictures that a baseline needs can be listed."""
        if source == "still":
            return images_for_plan(self.align.dataset, self.split).medium == "clip"
        try:
            return bool(self._images) and (source != "nearest" or bool(self.align.stores(TRAIN)))
        except MissingData:
            return False

    @cached_property
    def _images(self) -> StimulusSet:
        images = self.align.dataset.images(TRAIN)
        if self.split == TRAIN:
            raise MissingData(f"the items are training {images.medium}s themselves", "choose another split")
        return images

    def _nearest(
        self, brain: Sequence[DecodedSet], heads: StimulusHeads, trained: str, folder: RunFolder
    ) -> list[GeneratedSet]:
        images, stores = self._images, self.align.stores(TRAIN)
        rows = np.flatnonzero(np.all([store.done for store in stores.values()], axis=0))
        shown = [next(iter(stores.values())).image_ids[row] for row in rows]
        image_rows = match_ids(shown, images.image_ids, f"{images.dataset} {TRAIN}")
        sets = []
        for decoded_set in brain:
            assert decoded_set.cell is not None and decoded_set.decoded is not None
            vectors = heads.compare(decoded_set.decoded.tensors)
            chosen = image_rows[nearest(vectors, heads.vectors_of_rows(TRAIN, rows)).numpy()]
            name = f"nearest/{decoded_set.name}"
            place = folder.path / "baselines" / name
            ids = decoded_set.image_ids
            files = {
                image_id: [below(place, f"{image_id}.png", source="the stimulus id")] for image_id in ids
            }
            self._write(dict(zip(chain(*files.values()), chosen.tolist(), strict=True)), folder)
            how = f"the nearest of {len(shown)} training {images.medium}s by decoded head, {trained}"
            seeds = (decoded_set.cell.seed,)
            sets.append(GeneratedSet("nearest", name, seeds, files, decoded_set.subject, how))
        return sets

    def _write(self, chosen: Mapping[Path, int], folder: RunFolder) -> None:
        """Write training pictures or clips, their central squares, at the size of generated ones."""

        def write(file: Path, row: int) -> None:
            opened = images.open(row)
            pictures = opened.pictures if isinstance(opened, Clip) else [opened]
            squares = [np.asarray(TF.center_crop(TF.resize(picture, [side]), [side])) for picture in pictures]
            pixels = np.stack(squares) if isinstance(opened, Clip) else squares[0]
            rate_hz = opened.rate_hz if isinstance(opened, Clip) else None
            save = partial(media_files.save, pixels, rate_hz=rate_hz)
            folder.replace(file.relative_to(folder.path).as_posix(), save)

        images, side = self._images, self.resolution_px
        todo = {file: row for file, row in chosen.items() if not file.is_file()}
        with ThreadPoolExecutor() as writers:
            list(writers.map(write, todo, todo.values()))

    def _mean(self, brain: Sequence[DecodedSet], folder: RunFolder) -> GeneratedSet:
        if self._images.medium == "clip":
            raise MissingData("the mean of clips shows nothing", "leave `mean` out of sources")
        count = min(len(self._images), MEAN_OF)
        file = folder.path / "baselines/mean.png"
        if not file.is_file():
            rows = np.linspace(0, len(self._images) - 1, count).round().astype(int)
            folder.replace("baselines/mean.png", self._average(rows).save)
        files = {image_id: [file] for decoded_set in brain for image_id in decoded_set.image_ids}
        how = f"the mean of {count} training pictures"
        return GeneratedSet("mean", "mean", (), files, described=how)

    def _average(self, rows: NDArray[np.int64]) -> Image.Image:
        """Average training pictures at the protocol's size; resizing is linear, so equal sizes share one."""
        total: Any = 0
        with console.progress("mean training picture", len(rows)) as bar, ThreadPoolExecutor() as readers:
            for some in np.split(rows, range(AT_ONCE, len(rows), AT_ONCE)):
                sums: dict[tuple[int, ...], Tensor] = {}
                for pixels in readers.map(self._pixels, some.tolist()):
                    sums[pixels.shape] = sums.get(pixels.shape, 0) + pixels
                    bar.advance(1)
                total = total + sum(prepare(summed[None], self.protocol).double() for summed in sums.values())
        return to_pictures(total / len(rows))[0]

    def _pixels(self, row: int) -> Tensor:
        return media_files.to_media(self._images.open(row))  # [3, H, W]


def stills(generated: Sequence[GeneratedSet], folder: RunFolder) -> list[GeneratedSet]:
    """Repeat the first frame of each clip in the place of all: what a clip scores without any motion.

    Args:
        generated: Reconstructions; those from the brain, or scored ones, are taken.
        folder: The run; clips that are there already are kept.

    Raises:
        MissingData: if none are clips.
    """

    def write(file: Path, opened: Any) -> None:
        if not isinstance(opened, Clip):
            raise MissingData("a picture is still already", "leave `still` out of sources")
        pixels = np.repeat(opened.frames[:1], len(opened.frames), 0)
        save = partial(media_files.save, pixels, rate_hz=opened.rate_hz)
        folder.replace(file.relative_to(folder.path).as_posix(), save)

    sets = []
    for clips_set in (clips_set for clips_set in generated if clips_set.source in ("brain", "scored")):
        name, files = f"still/{clips_set.name}", {}
        with console.progress(f"stills of {clips_set.name}", len(clips_set.media)) as bar:
            for image_id, clips in clips_set.files.items():
                place = below(folder.path / "baselines" / name, image_id, source="the stimulus id")
                files[image_id] = [place / f"{number:02d}.png" for number in range(len(clips))]
                for file, clip in zip(files[image_id], clips, strict=True):
                    if not file.is_file():
                        write(file, clips_set.open(clip))
                    bar.advance(1)
        how = f"the first frame of each clip in the place of all, {clips_set.described}"
        sets.append(GeneratedSet("still", name, clips_set.seeds, files, clips_set.subject, how))
    if not sets:
        raise MissingData("no clips of the brain to make stills of", "add brain to sources")
    return sets
