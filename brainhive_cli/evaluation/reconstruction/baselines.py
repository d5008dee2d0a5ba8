"""Baselines: the training picture or clip nearest to each decoded head, the mean of
all, stills of clips.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import UInt8
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import below
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.datasets import BadPicture, Clip, StimulusSet
from brainhive_cli.data.media import media_files
from brainhive_cli.data.stores.ids import match_ids
from brainhive_cli.evaluation.reconstruction.generation import (
    TRAIN,
    DecodedSet,
    StimulusHeads,
)
from brainhive_cli.evaluation.reconstruction.recipe import Recipe, Source
from brainhive_cli.evaluation.reconstruction.scoring import GeneratedSet
from brainhive_cli.measurement.metrics.image import prepare
from brainhive_cli.measurement.ranks import nearest
from brainhive_cli.training.alignment.trained import TrainedRun

BASELINES: tuple[Source, ...] = ("nearest", "mean", "still")
DEFAULT: dict[str, tuple[Source, ...]] = {
    "picture": ("brain", "nearest", "mean"),
    "clip": ("brain", "nearest", "still"),
}
"""The sources of each medium, unless the recipe says them."""
MAX_AVERAGED = 2000
"""Training pictures that are averaged at most, evenly spaced: all others would change
the mean by about one level of 255 (a pixel's standard deviation of 60 over the root of
2000).
"""
READ_AHEAD = 64
"""Pictures that are decoded ahead."""


def make_baselines(
    align: TrainedRun,
    recipe: Recipe,
    sources: Sequence[Source],
    brain: Sequence[DecodedSet],
    generated: Sequence[GeneratedSet],
    heads: StimulusHeads,
    models: str,
    folder: RunFolder,
    launch: Launch,
) -> tuple[list[GeneratedSet], dict[str, str]]:
    """Make the baselines among the sources; one whose training pictures are missing is
    left out.

    Args:
        align: The run whose data set and embeddings are used.
        recipe: Split, and side of the pictures that are written: that of generated
            ones. The mean is taken at the size of its protocol.
        sources: Of which `nearest`, `mean` and `still` are made.
        brain: The decoded heads of each cell and subject.
        generated: What was generated from them.
        heads: Makes the heads of the training pictures.
        models: What a reader must know of the brain models.
        folder: The run; pictures that are there already are kept.
        launch: The main process makes them.

    Returns:
        On every process the pictures, and for each baseline that is missing the way to
        get it.
    """
    # the main process writes every baseline
    baselines = []
    missing = {}
    for source in BASELINES:
        if source not in sources or not launch.is_main:
            continue
        try:
            if source == "still":
                baselines += make_stills(generated, folder)
                continue
            images = _training_images(align, recipe.split)
            if source == "nearest":
                baselines += _find_nearest(
                    align, images, recipe.resolution_px, brain, heads, models, folder
                )
            else:
                folds = {
                    decoded_set.cell.fold for decoded_set in brain if decoded_set.cell
                }
                for fold in sorted(folds):
                    baselines.append(
                        _average(align, images, recipe.protocol, brain, fold, folder)
                    )
        except (MissingData, BadPicture) as error:
            missing[source] = error.in_one_line

    # other processes receive the sets of the main one
    return launch.gather((baselines, missing))[0]


def _training_images(align: TrainedRun, split: str) -> StimulusSet:
    """Open the training pictures; MissingData if they are the items themselves."""
    images = align.dataset.images(TRAIN)
    if split == TRAIN:
        raise MissingData(
            f"the items are training {images.medium}s themselves",
            "choose another split",
        )
    return images


@console.progress("finding the nearest training pictures")
def _find_nearest(
    align: TrainedRun,
    images: StimulusSet,
    side_px: int,
    brain: Sequence[DecodedSet],
    heads: StimulusHeads,
    models: str,
    folder: RunFolder,
) -> list[GeneratedSet]:
    """Write the training picture nearest to each decoded head: its central square,
    resized.
    """
    # training pictures whose embeddings are there
    stores = align.stores(TRAIN)
    done = np.all([store.done for store in stores.values()], 0)
    first = next(iter(stores.values()))

    def write(file: Path, row: int) -> None:
        opened = images.open(row)
        # a clip is cropped frame by frame
        is_clip = isinstance(opened, Clip)
        pictures = opened.to_pictures() if is_clip else [opened]
        squares = [
            np.asarray(media_files.crop_square(picture, side_px))
            for picture in pictures
        ]
        pixels = np.stack(squares) if is_clip else squares[0]
        _save(pixels, file, folder, opened.rate_hz if is_clip else None)

    sets = []
    for decoded_set in brain:
        assert decoded_set.cell is not None and decoded_set.decoded is not None

        # pictures of the fold that the cell learned from
        is_learned = align.dataset.holdout.choose_stimuli(
            first, TRAIN, decoded_set.cell.fold
        )
        rows = np.flatnonzero(done & is_learned)
        ids_of_rows = [first.image_ids[row] for row in rows]
        image_rows = match_ids(
            ids_of_rows, images.image_ids, f"{images.dataset} {TRAIN}"
        )
        how = (
            f"the nearest of {len(rows)} training {images.medium}s by decoded head, "
            f"{models}"
        )

        # the nearest of each decoded head; training heads are computed in blocks, which
        # fit in memory
        vectors = heads.compare(decoded_set.decoded.tensors)
        blocks = heads.iterate_blocks(TRAIN, rows, heads.compared_keys)
        training_vectors = (heads.compare(block.tensors) for block in blocks)
        nearest_rows = image_rows[nearest(vectors, training_vectors).numpy()]

        # write the pictures that are not there yet
        name, ids = f"nearest/{decoded_set.name}", decoded_set.image_ids
        files = [_locate_item(folder, name, f"{image_id}.png") for image_id in ids]
        row_of = dict(zip(files, nearest_rows.tolist(), strict=True))
        todo = {file: row for file, row in row_of.items() if not file.is_file()}
        with ThreadPoolExecutor() as writers:
            list(writers.map(write, todo, todo.values()))
        files_of_ids = {
            image_id: [file] for image_id, file in zip(ids, files, strict=True)
        }
        seeds = (decoded_set.cell.seed,)
        sets.append(
            GeneratedSet("nearest", name, seeds, files_of_ids, decoded_set.subject, how)
        )
    return sets


def _average(
    align: TrainedRun,
    images: StimulusSet,
    protocol: str,
    brain: Sequence[DecodedSet],
    fold: int,
    folder: RunFolder,
) -> GeneratedSet:
    """Average the training pictures of a fold at the protocol's size."""
    # training pictures of the fold
    learned = np.flatnonzero(align.dataset.holdout.choose_stimuli(images, TRAIN, fold))
    if images.medium == "clip":
        raise MissingData(
            "the mean of clips shows nothing", "leave `mean` out of sources"
        )

    # sum pictures of equal sizes, then resize the sums: resizing is linear
    count = min(len(learned), MAX_AVERAGED)
    file = folder.path / (
        "baselines/mean.png" if fold == 1 else f"baselines/mean-{fold:02d}.png"
    )
    if not file.is_file():
        # rows evenly spaced over the training pictures of the fold
        rows = learned[np.linspace(0, len(learned) - 1, count).round().astype(int)]
        total = torch.tensor(0.0)
        with (
            console.progress("averaging pictures", count) as bar,
            ThreadPoolExecutor() as readers,
        ):
            for batch in np.split(rows, range(READ_AHEAD, count, READ_AHEAD)):
                sums: dict[tuple[int, ...], Tensor] = {}
                for picture in readers.map(images.open, batch.tolist()):
                    pixels = media_files.to_media(picture)  # [3, H, W]
                    sums[pixels.shape] = (
                        sums.get(pixels.shape, torch.tensor(0.0)) + pixels
                    )
                    bar.advance(1)

                # float64, as the total is of up to 2,000 pictures
                for summed in sums.values():
                    total = total + prepare(summed[None], protocol).double()
        _save(media_files.to_bytes(total / count)[0], file, folder)

    # every item of the fold has the same mean
    members = [
        decoded_set
        for decoded_set in brain
        if decoded_set.cell and decoded_set.cell.fold == fold
    ]
    files = {
        image_id: [file]
        for decoded_set in members
        for image_id in decoded_set.image_ids
    }
    return GeneratedSet(
        "mean", "mean", (), files, described=f"the mean of {count} training pictures"
    )


def make_stills(
    generated: Sequence[GeneratedSet], folder: RunFolder
) -> list[GeneratedSet]:
    """Repeat the first frame of each clip instead of all: what a clip scores without
    any motion.

    Args:
        generated: Reconstructions; those from the brain, or scored ones, are taken.
        folder: The run; clips that are there already are kept.

    Raises:
        MissingData: if none are clips.
    """
    sets = []
    for clips_set in generated:
        if clips_set.source not in ("brain", "scored"):
            continue
        name, files = f"still/{clips_set.name}", {}  # below the name of the clips

        # a still of each clip that is not there yet
        with console.progress(
            f"writing stills of {clips_set.name}", len(clips_set.media)
        ) as bar:
            for image_id, clips in clips_set.files.items():
                item_folder = _locate_item(folder, name, image_id)
                files[image_id] = [
                    item_folder / f"{number:02d}.png" for number in range(len(clips))
                ]
                for file, path in zip(files[image_id], clips, strict=True):
                    if not file.is_file():
                        clip = clips_set.open(path)
                        if not isinstance(clip, Clip):
                            raise MissingData(
                                "a picture is still already",
                                "leave `still` out of sources",
                            )
                        _save(
                            np.repeat(clip.frames[:1], len(clip.frames), 0),
                            file,
                            folder,
                            clip.rate_hz,
                        )
                    bar.advance(1)

        # the set of stills, named after that of the clips
        how = f"the first frame of each clip instead of all, {clips_set.described}"
        sets.append(
            GeneratedSet("still", name, clips_set.seeds, files, clips_set.subject, how)
        )
    if not sets:
        raise MissingData(
            "no clips of the brain to make stills of", "add brain to sources"
        )
    return sets


def _locate_item(folder: RunFolder, name: str, image_id: str) -> Path:
    """Name a file or folder of an item among the baselines of the run's folder."""
    return below(folder.path / "baselines" / name, image_id, source="the stimulus id")


def _save(
    pixels: UInt8, file: Path, folder: RunFolder, rate_hz: float | None = None
) -> None:
    """Write a picture or clip of the run's folder."""
    save = partial(media_files.save, pixels, rate_hz=rate_hz)
    folder.replace(file.relative_to(folder.path).as_posix(), save)
