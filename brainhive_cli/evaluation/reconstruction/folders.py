"""What reconstructions are compared with: folders of pictures or clips by others, and
baselines.

Clips are videos, animated pictures, folders of frames, or columns of a clip that shows
truth and result.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console, documents
from brainhive_cli.core.arrays import UInt8
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.facts import ReconstructionFacts
from brainhive_cli.core.files import locate, resolve_below
from brainhive_cli.core.measurements import extend_protocol
from brainhive_cli.core.runs import METRICS_FILE, RunFolder
from brainhive_cli.data.files.ids import PICTURES, match_ids
from brainhive_cli.data.media import media_files
from brainhive_cli.data.media.media_files import ANIMATED, VIDEOS, is_animated
from brainhive_cli.data.media.pictures import BadPicture, decode
from brainhive_cli.data.media.stimuli import (
    Clip,
    StimulusSet,
    find_pictures,
    require_unique_ids,
)
from brainhive_cli.evaluation.reconstruction.generation import (
    TRAIN,
    DecodedSet,
    StimulusHeads,
    draw_derangement,
)
from brainhive_cli.evaluation.reconstruction.recipe import Recipe, SourceName
from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
    Stimuli,
    find_originals_and_blanks,
)
from brainhive_cli.measurement.metrics import Medium
from brainhive_cli.measurement.metrics.image import prepare
from brainhive_cli.measurement.ranks import find_nearest
from brainhive_cli.measurement.units import GroupingCriterion, StimulusGrouping
from brainhive_cli.training.alignment.trained.run import TrainedRun

REPEAT_NAME = re.compile(r"(.+?)[_-]\d+")
"""End of the name of one of several reconstructions of NAME."""
LEFT_COLUMN = "left"
"""Instead of a folder of true clips: they are the left half of the clips that are
scored.
"""
MAX_LISTED_NAMES = 5
"""Names that a warning lists; the metrics file holds all."""
BORDER_PX = 2
"""Around and between the columns of NEURONS' GIFs: torchvision's make_grid."""
BASELINES: tuple[SourceName, ...] = ("nearest", "mean", "still")
DEFAULT_SOURCES: dict[str, tuple[SourceName, ...]] = {
    "picture": ("brain", "nearest", "mean"),
    "clip": ("brain", "nearest", "still"),
}
"""The sources of each medium, unless the recipe says them."""
MAX_AVERAGED_PICTURES = 2000
"""Training pictures that are averaged at most, evenly spaced: all others would change
the mean by about one level of 255 (a pixel's standard deviation of 60 over the root of
2000).
"""
READ_AHEAD_PICTURES = 64
"""Pictures that are decoded ahead."""


def match_folders(
    score: str, truth: str | None, medium: Medium | None
) -> tuple[GeneratedSet, Stimuli, Medium, dict[str, str], ReconstructionFacts]:
    """Match reconstructions with true pictures or clips by name, and warn of what is
    left over.

    Args:
        score: The folder of reconstructions.
        truth: That of what was seen; `left` where each clip that is scored shows it in
            its left half.
        medium: What they hold; None for clips where one of them holds a video or an
            animated picture.

    Returns:
        The reconstructions of each true picture that has some, the true ones, what both
        folders hold, digests of their content by what the user calls them, and what is
        left over.

    Raises:
        RecipeError: if there is no folder of true pictures.
        MissingData: if a folder is not there or no name matches.
    """
    if truth is None:
        raise RecipeError("pictures to score need the true ones", "--truth FOLDER")

    # media of both folders, and which belong together by name
    folders = [score] if truth == LEFT_COLUMN else [score, truth]
    if medium is None:
        visible = (
            file for folder in folders for file in _list_visible_files(folder, "clip")
        )
        medium = (
            "clip" if truth == LEFT_COLUMN or any(map(_is_clip, visible)) else "picture"
        )
    reconstructions = list_media(score, medium)
    truths = list_media(folders[-1], medium)
    names_of, unmatched = match_repeats(list(reconstructions), list(truths))
    if not names_of:
        raise MissingData(
            f"no {medium} below {score} is named after one below {truth}: "
            f"{unmatched[0]!r} and {next(iter(truths))!r}",
            (
                "call reconstructions of NAME: NAME.png, NAME_0.png, NAME_1.png, or "
                "NAME/0.png"
            ),
        )

    # what is left over on either side
    without = [name for name in truths if name not in names_of]
    for names, problem in (
        (unmatched, f"reconstructions match no true {medium}"),
        (without, f"true {medium}s have no reconstruction"),
    ):
        if names:
            # the metrics file lists all names
            console.warn(
                f"{len(names)} {problem}: {', '.join(names[:MAX_LISTED_NAMES])}"
            )
    files = {
        name: [reconstructions[repeat] for repeat in repeats]
        for name, repeats in names_of.items()
    }

    # how files are opened
    open_true: Callable[[Path], Any] = (
        open_clip if medium == "clip" else media_files.read
    )
    open_generated = open_true
    if truth == LEFT_COLUMN:
        open_true, open_generated = (
            partial(open_column, column=column) for column in (0, 1)
        )

    # reconstructions and stimuli; clips are in the order of their film
    name = locate(score).name
    described = _describe_repeats(files, score)
    generated = GeneratedSet(
        "scored", name, (), files, description=described, open=open_generated
    )
    alike_by: GroupingCriterion = "neighbours" if medium == "clip" else "concept"
    stimuli = Stimuli(
        lambda name: open_true(truths[name]),
        lambda name: PurePosixPath(name).name,
        grouping=StimulusGrouping(
            alike_by, {name: name for name in sorted(truths)}, medium
        ),
    )
    digests = {folders[-1]: digest_media(truths), score: digest_media(reconstructions)}
    facts = ReconstructionFacts(score=score, unmatched=unmatched, without=without)
    return generated, stimuli, medium, digests, facts


def _describe_repeats(files: Mapping[str, Sequence[Path]], score: str) -> str:
    """Say how many reconstructions there are of each item, in words that travel with
    their metrics.
    """
    counts = {len(repeats) for repeats in files.values()}
    shown_count = "–".join(map(str, sorted({min(counts), max(counts)})))
    repeats_in_words = f"{shown_count} {'repeat' if counts == {1} else 'repeats'}"
    return extend_protocol(repeats_in_words, read_caveats_around(score))


def leave_out_originals(
    generated: GeneratedSet,
    stimuli: Stimuli,
    facts: ReconstructionFacts,
    truth: str | None,
) -> tuple[GeneratedSet, ReconstructionFacts]:
    """Leave out the true pictures or clips that lie among reconstructions, as public
    code writes them; they are known by what they show.

    Raises:
        BrainhiveError: if nothing else is scored.
    """
    # each of these files shows both
    if truth == LEFT_COLUMN:
        return generated, facts

    originals, _ = find_originals_and_blanks(generated, stimuli)
    if not originals:
        return generated, facts

    # the other files of each item
    files: dict[str, list[Path]] = {}
    for image_id, file in generated.media:
        if file not in originals:
            files.setdefault(image_id, []).append(file)
    names = [str(path.relative_to(locate(facts.score))) for path in originals]
    problem = (
        f"{len(names)} true pictures are among those that are scored: "
        f"{', '.join(names[:MAX_LISTED_NAMES])}"
    )
    if not files:
        raise BrainhiveError(
            f"{problem}, and there is nothing else",
            "--score FOLDER of the reconstructions, --truth FOLDER of what was seen",
        )
    console.warn(f"{problem}; they are left out")
    without = [*facts.without, *(name for name in generated.files if name not in files)]
    described = _describe_repeats(files, facts.score)
    return (
        replace(generated, files=files, description=described),
        facts.model_copy(update={"originals": names, "without": without}),
    )


def shuffle_items(generated: GeneratedSet) -> GeneratedSet:
    """Give every item another item's reconstructions: what any of them scores, the
    floor.
    """
    # a fixed seed, so that the floor is the same in every call
    ids = list(generated.files)
    rows = draw_derangement(len(ids), 0)
    return replace(
        generated,
        source="shuffled",
        name=f"shuffled/{generated.name}",
        files={
            image_id: generated.files[ids[row]]
            for image_id, row in zip(ids, rows, strict=True)
        },
        description=f"other items' reconstructions, {generated.description}",
    )


def list_media(folder: str, medium: Medium = "picture") -> dict[str, Path]:
    """List the pictures or clips below a folder: POSIX path below it without ending, to
    file.

    Hidden files are left out: macOS leaves a `._NAME.png` next to each picture on
    foreign disks. Of clips, a picture of one frame is a frame of the clip that its
    folder is.

    Raises:
        MissingData: if there is no such folder, or no picture or clip in it.
        BadPicture: naming a damaged file among clips.
        BrainhiveError: if two files differ in their endings only, or a frame lies among
            clips.
    """
    # clips are videos, animated pictures, and folders of frames
    root = locate(folder)
    paths = _list_visible_files(folder, medium)
    way = f"pictures end in {', '.join(sorted(PICTURES))}"
    if medium == "clip":
        clips = set()
        for file in paths:
            is_clip = _is_clip(file)
            if not is_clip and file.parent == root:
                decode(str(file), file)  # or a damaged clip would be called a picture
                raise BrainhiveError(
                    f"{file} is a picture among clips",
                    "put the frames of each clip into a folder of their own",
                )
            clips.add(file if is_clip else file.parent)
        # neighbours in a film stay neighbours
        paths = media_files.sort_by_number(clips)
        way = (
            f"clips end in {', '.join(sorted(VIDEOS | ANIMATED))}, or are folders of "
            "frames"
        )
    if not paths:
        raise MissingData(f"no {medium}s below {folder}", way)

    # no name may be twice
    names = [
        (path.with_suffix("") if path.is_file() else path).relative_to(root).as_posix()
        for path in paths
    ]
    require_unique_ids(names, paths.__getitem__)
    return dict(zip(names, paths, strict=True))


def _is_clip(file: Path) -> bool:
    return file.suffix.lower() in VIDEOS or is_animated(file)


def _list_visible_files(folder: str, medium: Medium) -> list[Path]:
    """List the pictures below a folder, or also the videos; hidden ones are left
    out.
    """
    root = locate(folder)
    if not root.is_dir():
        raise MissingData(
            f"no folder {folder!r}", f"give a folder of {medium}s that exists"
        )
    endings = PICTURES if medium == "picture" else VIDEOS | PICTURES
    return [root / path for path in find_pictures(root, "", None, endings)]


def read_caveats_around(folder: str) -> list[str]:
    """Read the caveats of pictures that lie in the folder of a finished run; none
    elsewhere.
    """
    # the folder may be any below the run's, as that of a source or cell
    for above in locate(folder).resolve().parents:
        if (above / "recipe.yaml").is_file() and (above / METRICS_FILE).is_file():
            return RunFolder(above).measurements().caveats
    return []


def digest_media(media: Mapping[str, Path]) -> str:
    """Digest the names and contents of pictures and clips, wherever they lie."""
    contents = []
    for name, path in sorted(media.items()):
        # a clip may be a folder of frames
        files = (
            sorted(file for file in path.iterdir() if file.is_file())
            if path.is_dir()
            else [path]
        )
        contents.append((name, *(documents.digest_file(file) for file in files)))
    return documents.digest_text(repr(contents))


def match_repeats(
    names: Sequence[str], truths: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Match reconstructions with true pictures.

    A reconstruction of `NAME` is called `NAME`, `NAME_0`, `NAME_1`, … or lies in a
    folder `NAME`. `NAME` is the true picture's path below its folder, or its file's
    stem where only one picture has it.

    Returns:
        The names of each true picture's reconstructions, and the names that match none.
    """
    # a stem that several names have is ambiguous
    stems = {name: PurePosixPath(name).name for name in truths}
    count = Counter(stems.values())
    known = {stem: name for name, stem in stems.items() if count[stem] == 1} | {
        name: name for name in truths
    }
    repeats_of = defaultdict[str, list[str]](list)
    unmatched = []
    for name in names:
        # names of true pictures that it could be a reconstruction of, the likeliest
        # first
        path = PurePosixPath(name)
        numbered = REPEAT_NAME.fullmatch(path.name)
        paths = [
            path,
            *([path.with_name(numbered[1])] if numbered else []),
            path.parent,
        ]
        candidates = [
            candidate
            for path in paths
            if path.name
            for candidate in (path.as_posix(), path.name)
        ]

        # the first of them that there is
        truth = next(
            (known[candidate] for candidate in candidates if candidate in known), None
        )
        if truth is None:
            unmatched.append(name)
        else:
            repeats_of[truth].append(name)
    return {
        truth: repeats_of[truth] for truth in truths if truth in repeats_of
    }, unmatched


def open_clip(path: Path) -> Clip:
    """Read a clip; a picture of one frame is a clip of one."""
    return media_files.to_clip(media_files.read(path))


def open_column(path: Path, column: int) -> Clip:
    """Read one column of a clip that shows the truth (0) and the result (1) next to
    each other.

    Columns are squares, with NEURONS' border around and between them or without one.
    Cutting in the middle, as NEURONS' metrics do, would put them a column apart where
    there is a border.

    Raises:
        BrainhiveError: if it is no two squares.
    """
    # two squares with a border around and between them, or without
    clip = open_clip(path)
    height, width = clip.frames.shape[1:3]
    for border in (BORDER_PX, 0):
        # px; columns share the border between them
        side = height - 2 * border
        if side > 0 and width == 2 * side + 3 * border:
            left = border + column * (side + border)
            frames = clip.frames[:, border : border + side, left : left + side]
            return Clip(np.ascontiguousarray(frames), clip.rate_hz)
    raise BrainhiveError(
        (
            f"{path} is {width} × {height} px: not two squares next to each other, "
            "with or without a border"
        ),
        "give the true clips in a folder of their own: --truth FOLDER",
    )


def make_baselines(
    align: TrainedRun,
    recipe: Recipe,
    sources: Sequence[SourceName],
    brain: Sequence[DecodedSet],
    generated: Sequence[GeneratedSet],
    heads: StimulusHeads,
    models: str,
    folder: RunFolder,
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

    Returns:
        The pictures, and for each baseline that is missing the way to get it.
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
            images = _open_training_set(align, recipe.split)
            if source == "nearest":
                baselines += _make_nearest(
                    align, images, recipe.resolution_px, brain, heads, models, folder
                )
            else:
                folds = {
                    decoded_set.cell.fold for decoded_set in brain if decoded_set.cell
                }
                for fold in sorted(folds):
                    baselines.append(
                        _make_mean(align, images, recipe.protocol, brain, fold, folder)
                    )
        except (MissingData, BadPicture) as error:
            missing[source] = error.in_one_line
    return baselines, missing


def _open_training_set(align: TrainedRun, split: str) -> StimulusSet:
    """Open the training pictures; MissingData if they are the items themselves."""
    images = align.dataset.images(TRAIN)
    if split == TRAIN:
        raise MissingData(
            f"the items are training {images.medium}s themselves",
            "choose another split",
        )
    return images


@console.progress("finding the nearest training pictures")
def _make_nearest(
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
        vectors = heads.compute_vectors(decoded_set.decoded.tensors)
        blocks = heads.iterate_heads(TRAIN, rows, heads.vector_keys)
        training_vectors = (heads.compute_vectors(block.tensors) for block in blocks)
        nearest_rows = image_rows[find_nearest(vectors, training_vectors).numpy()]

        # write the pictures that are not there yet
        name = f"nearest/{decoded_set.name}"
        ids = decoded_set.image_ids
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


def _make_mean(
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
    count = min(len(learned), MAX_AVERAGED_PICTURES)
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
            for batch in np.split(
                rows, range(READ_AHEAD_PICTURES, count, READ_AHEAD_PICTURES)
            ):
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
        "mean", "mean", (), files, description=f"the mean of {count} training pictures"
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
        how = f"the first frame of each clip instead of all, {clips_set.description}"
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
    return resolve_below(
        folder.path / "baselines" / name, image_id, source="the stimulus id"
    )


def _save(
    pixels: UInt8, file: Path, folder: RunFolder, rate_hz: float | None = None
) -> None:
    """Write a picture or clip of the run's folder."""
    save = partial(media_files.save, pixels, rate_hz=rate_hz)
    folder.replace(file.relative_to(folder.path).as_posix(), save)
