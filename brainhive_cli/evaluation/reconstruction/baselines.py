"""Baselines of reconstructions: media that do not depend on a generator."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core.base import Int64, MissingData, UInt8, console
from brainhive_cli.core.files import resolve_below
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.files import match_ids
from brainhive_cli.data.media import BadPicture, Clip, StimulusSet, media_files
from brainhive_cli.evaluation.reconstruction.generation import (
    TRAIN,
    DecodedSet,
    StimulusHeads,
    draw_derangement,
)
from brainhive_cli.evaluation.reconstruction.recipe import Recipe, SourceName
from brainhive_cli.evaluation.reconstruction.scoring import GeneratedSet
from brainhive_cli.measurement import find_nearest
from brainhive_cli.measurement.metrics.image import prepare
from brainhive_cli.training.alignment.trained import TestSet

BASELINES: tuple[SourceName, ...] = ("nearest", "mean", "still")
MAX_AVERAGED_PICTURES = 2000
"""Largest number of training pictures that are averaged. More pictures would change the
mean by about one level of 255, as the standard deviation of a pixel is about 60 levels
and 60 / sqrt(2000) is 1.3.
"""
READ_AHEAD_PICTURES = 64
"""Number of pictures that are decoded ahead."""


def make_baselines(
    tests: TestSet,
    recipe: Recipe,
    sources: Sequence[SourceName],
    brain_sets: Sequence[DecodedSet],
    generated: Sequence[GeneratedSet],
    stimulus_heads: StimulusHeads,
    models: str,
    folder: RunFolder,
    caveats: Sequence[str] = (),
) -> tuple[list[GeneratedSet], dict[str, str]]:
    """Make the baselines, media that a reconstruction must be better than.

    Existing files are kept.

    - `nearest`: the training picture whose head (embedding) is most similar to the head
      decoded from signals.
    - `mean`: the mean training picture, at the size at which metrics compare.
    - `still`: the first frame of each reconstructed clip, repeated.

    Args:
        tests: Test set, whose data set and embeddings are used.
        recipe: Recipe with the split, the protocol and the side of pictures.
        sources: Requested kinds of media. Only the baselines among them are made.
        brain_sets: Decoded heads of each cell (trained model) and subject.
        generated: Media generated from them.
        stimulus_heads: Computes the heads of training stimuli.
        models: Description of the brain models.
        folder: Folder of the run.
        caveats: Caveats of the brain models.

    Returns:
        The baselines, and advice by the source of each baseline that cannot be made.
    """
    baselines = []
    missing = dict[str, str]()
    for source in BASELINES:
        if source not in sources:
            continue
        try:
            if source == "still":
                baselines += make_stills(generated, folder)
                continue
            images = tests.dataset.images(TRAIN)
            if recipe.split == TRAIN:
                raise MissingData(
                    f"the items are training {images.medium}s themselves",
                    "choose another split",
                )
            if source == "nearest":
                make_nearest = partial(
                    _make_nearest,
                    images=images,
                    side_px=recipe.resolution_px,
                    stimulus_heads=stimulus_heads,
                    models=models,
                    caveats=caveats,
                    folder=folder,
                )
                with console.progress("finding the nearest training pictures"):
                    baselines += list(map(make_nearest, brain_sets))
            else:
                for fold, fold_sets in _group_by_fold(brain_sets).items():
                    mean = _make_mean(
                        tests, images, recipe.protocol, fold_sets, fold, folder
                    )
                    baselines.append(mean)
        except (MissingData, BadPicture) as error:
            missing[source] = error.in_one_line
    return baselines, missing


def _group_by_fold(brain_sets: Sequence[DecodedSet]) -> dict[int, list[DecodedSet]]:
    """Group sets by the fold of their brain model, in ascending order."""
    sets_of_fold: dict[int, list[DecodedSet]] = {}
    for decoded_set in brain_sets:
        if decoded_set.cell is not None:
            sets_of_fold.setdefault(decoded_set.cell.fold, []).append(decoded_set)
    return dict(sorted(sets_of_fold.items()))


def _make_nearest(
    decoded_set: DecodedSet,
    images: StimulusSet,
    side_px: int,
    stimulus_heads: StimulusHeads,
    models: str,
    caveats: Sequence[str],
    folder: RunFolder,
) -> GeneratedSet:
    """Write the central square of the training picture nearest to each decoded head."""
    cell = decoded_set.cell
    assert cell is not None and decoded_set.decoded is not None

    # embedded pictures that the model was trained on
    tests = stimulus_heads.tests
    rows = tests.find_rows(TRAIN, cell.fold)
    image_ids = tests.open_pictures(TRAIN).image_ids[rows]
    image_rows = match_ids(image_ids, images.image_ids, f"{images.dataset} {TRAIN}")

    # training heads are computed block by block, to fit in memory
    vectors = stimulus_heads.compute_vectors(decoded_set.decoded.tensors)
    blocks = stimulus_heads.iterate_heads(TRAIN, rows, stimulus_heads.vector_keys)
    training_vectors = (
        stimulus_heads.compute_vectors(block.tensors) for block in blocks
    )
    nearest_rows = image_rows[find_nearest(vectors, training_vectors).numpy()]

    # write the pictures that do not exist yet
    name = f"nearest/{decoded_set.name}"
    files = {}
    row_of_file = {}
    for image_id, row in zip(decoded_set.image_ids, nearest_rows.tolist(), strict=True):
        file = _locate_item(folder, name, f"{image_id}.png")
        files[image_id] = [file]
        if not file.is_file():
            row_of_file[file] = row
    write = partial(_write_square, images, side_px, folder)
    with ThreadPoolExecutor() as writers:
        list(writers.map(write, row_of_file.values(), row_of_file))

    description = (
        f"the nearest of {len(rows)} training {images.medium}s by decoded head, "
        f"{models}"
    )
    return GeneratedSet(
        "nearest",
        name,
        (cell.seed,),
        files,
        decoded_set.subject,
        description,
        caveats,
    )


def _write_square(
    images: StimulusSet, side_px: int, folder: RunFolder, row: int, file: Path
) -> None:
    """Write the central square of a picture, or of each frame of a clip."""
    stimulus = images.open(row)
    if not isinstance(stimulus, Clip):
        square = np.asarray(media_files.crop_square(stimulus, side_px))
        _save(square, file, folder)
        return
    squares = []
    for picture in stimulus.to_pictures():
        squares.append(np.asarray(media_files.crop_square(picture, side_px)))
    _save(np.stack(squares), file, folder, stimulus.rate_hz)


def _make_mean(
    tests: TestSet,
    images: StimulusSet,
    protocol: str,
    fold_sets: Sequence[DecodedSet],
    fold: int,
    folder: RunFolder,
) -> GeneratedSet:
    """Write the mean training picture of a fold, as the same result for every item.

    Raises:
        MissingData: if the stimuli are clips.
    """
    is_learned = tests.dataset.holdout.choose_stimuli(images, TRAIN, fold)
    rows = np.flatnonzero(is_learned)
    if images.medium == "clip":
        raise MissingData(
            "the mean of clips shows nothing", "leave `mean` out of sources"
        )

    n_pictures = min(len(rows), MAX_AVERAGED_PICTURES)
    name = "mean.png" if fold == 1 else f"mean-{fold:02d}.png"
    file = folder.path / "baselines" / name
    if not file.is_file():
        # evenly spaced pictures, if there are too many to average
        positions = np.linspace(0, len(rows) - 1, n_pictures).round().astype(int)
        total = _sum_pictures(images, rows[positions], protocol)
        _save(media_files.to_bytes(total / n_pictures)[0], file, folder)

    files = {}
    for decoded_set in fold_sets:
        for image_id in decoded_set.image_ids:
            files[image_id] = [file]
    description = f"the mean of {n_pictures} training pictures"
    return GeneratedSet("mean", "mean", (), files, description=description)


def _sum_pictures(images: StimulusSet, rows: Int64, protocol: str) -> Tensor:
    """Sum pictures at the size at which metrics compare, as float64 [1, 3, H, W]."""
    total = torch.tensor(0.0)
    n_pictures = len(rows)
    with (
        console.progress("averaging pictures", n_pictures) as bar,
        ThreadPoolExecutor() as readers,
    ):
        starts = range(READ_AHEAD_PICTURES, n_pictures, READ_AHEAD_PICTURES)
        for batch in np.split(rows, starts):
            # pictures of equal size are summed before they are resized, which gives
            # the same mean because resizing is linear
            sum_of_size: dict[tuple[int, ...], Tensor] = {}
            for picture in readers.map(images.open, batch.tolist()):
                pixels = media_files.to_media(picture)  # [3, H, W]
                size_sum = sum_of_size.get(pixels.shape, torch.tensor(0.0))
                sum_of_size[pixels.shape] = size_sum + pixels
                bar.advance(1)
            for size_sum in sum_of_size.values():
                total = total + prepare(size_sum[None], protocol).double()
    return total


def make_stills(
    generated: Sequence[GeneratedSet], folder: RunFolder
) -> list[GeneratedSet]:
    """Write clips that repeat the first frame of each clip, a baseline without motion.

    Files that exist are kept.

    Args:
        generated: Reconstructions. Only the sources `brain` and `scored` (results of
            others) are used.
        folder: Folder of the run.

    Raises:
        MissingData: if there are no such sources, or they have pictures.
    """
    sets = []
    for clip_set in generated:
        if clip_set.source not in ("brain", "scored"):
            continue
        name = f"still/{clip_set.name}"
        files: dict[str, list[Path]] = {}
        with console.progress(
            f"writing stills of {clip_set.name}", len(clip_set.media)
        ) as bar:
            for image_id, clips in clip_set.files.items():
                item_folder = _locate_item(folder, name, image_id)
                files[image_id] = []
                for number, path in enumerate(clips):
                    still = item_folder / f"{number:02d}.png"
                    files[image_id].append(still)
                    if not still.is_file():
                        _write_still(clip_set.open(path), still, folder)
                    bar.advance(1)

        description = (
            f"the first frame of each clip instead of all, {clip_set.description}"
        )
        stills = GeneratedSet(
            "still",
            name,
            clip_set.seeds,
            files,
            clip_set.subject,
            description,
            clip_set.caveats,
        )
        sets.append(stills)
    if not sets:
        raise MissingData(
            "no clips of the brain to make stills of", "add brain to sources"
        )
    return sets


def _write_still(clip: object, file: Path, folder: RunFolder) -> None:
    """Write a clip of the same length that shows only the first frame.

    Raises:
        MissingData: if the clip is a picture.
    """
    if not isinstance(clip, Clip):
        raise MissingData("a picture is still already", "leave `still` out of sources")
    frames = np.repeat(clip.frames[:1], len(clip.frames), 0)
    _save(frames, file, folder, clip.rate_hz)


def shuffle_items(generated: GeneratedSet) -> GeneratedSet:
    """Give every item the reconstructions of another item, as the chance level.

    The order is the same in every call.
    """
    image_ids = list(generated.files)
    order = draw_derangement(len(image_ids), 0)
    files: Mapping[str, Sequence[Path]] = {
        image_id: generated.files[image_ids[row]]
        for image_id, row in zip(image_ids, order, strict=True)
    }
    return replace(
        generated,
        source="shuffled",
        name=f"shuffled/{generated.name}",
        files=files,
        description=f"other items' reconstructions, {generated.description}",
    )


def _locate_item(folder: RunFolder, name: str, image_id: str) -> Path:
    """Return the path of an item below `baselines` in the folder of the run."""
    return resolve_below(
        folder.path / "baselines" / name, image_id, source="the stimulus id"
    )


def _save(
    pixels: UInt8, file: Path, folder: RunFolder, rate_hz: float | None = None
) -> None:
    """Write a picture or clip into the folder of the run."""
    save = partial(media_files.save, pixels, rate_hz=rate_hz)
    folder.replace(file.relative_to(folder.path).as_posix(), save)
