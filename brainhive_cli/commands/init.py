"""init: folders for your recordings and pictures, and a table of the markers."""

import os
import shlex
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core.base import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    Table,
    console,
    write_csv,
)
from brainhive_cli.core.files import Input, atomic_write, locate, make_portable, walk
from brainhive_cli.core.recipes import START, FileRecipe, flag_field
from brainhive_cli.core.runs import Launch, Result
from brainhive_cli.data.datasets import image_folder
from brainhive_cli.data.files import find_bids_root, read_label, summarise_names
from brainhive_cli.data.preparations import recording
from brainhive_cli.data.recordings import (
    COLUMNS,
    EVENT_TABLES,
    Marker,
    RecordedMarkers,
    find_event_table,
    find_sidecar,
    find_unlisted,
    list_pictures,
    list_recording_files,
    list_recordings,
    list_signal_files,
    read_markers,
    read_table,
)


class Recipe(FileRecipe):
    """Recipe of init, with the recordings and pictures to use."""

    runs_code = False
    section = START
    summary = (
        "Make the folders of your own study, and a table of the markers in its EEG or "
        "MEG recordings."
    )
    example = "--recording ~/recordings --pictures ~/pictures"

    recording: str = flag_field(
        "",
        "recording (fif, edf, bdf, set, vhdr), or folder of recordings; "
        "default: those in the folder recordings below paths.data",
    )
    pictures: str = flag_field(
        "",
        "folder of the pictures that were shown; default: the folder "
        "image-folder below paths.data",
    )
    stim_channel: str = Field(
        "",
        description="channel whose codes are the markers; default: the annotations, "
        "or else any stimulus channel",
    )


@dataclass(frozen=True)
class StudyFolders:
    """Folders of a study.

    Attributes:
        recordings: Folder of the recordings, with the table of events.
        pictures: Folder of the pictures.
        source: The user's recording or folder of recordings elsewhere, or None.
        picture_source: The user's folder of pictures elsewhere, or None.
    """

    recordings: Path
    pictures: Path
    source: Path | None
    picture_source: Path | None

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> "StudyFolders":
        """Find the folders of a recipe.

        Raises:
            MissingData: if a recording or folder does not exist, or is fMRI.
            RecipeError: if pictures are given, but the study has others.
        """
        # Folder of the recordings in the folder of data sets.
        recordings = recipe.paths.dataset("recordings")
        # Folder of the pictures in the folder of data sets.
        pictures = recipe.paths.dataset("image-folder")
        source = _find_source(recipe.recording, "recording", recordings)
        _refuse_fmri(source or recordings)
        picture_source = _find_source(recipe.pictures, "pictures", pictures)
        if picture_source and not picture_source.is_dir():
            raise MissingData(
                f"{picture_source} is no folder", "--pictures takes a folder"
            )
        if picture_source and os.path.lexists(pictures):
            raise RecipeError(
                f"{_name(pictures)} exists, so it cannot become a link to "
                f"{picture_source}",
                "leave out --pictures, or rename that folder",
            )
        return cls(recordings, pictures, source, picture_source)


def inputs(recipe: Recipe) -> list[Input]:
    """List the folders and the table that the command makes, if they do not exist."""
    study = StudyFolders.from_recipe(recipe)
    table = find_event_table(study.recordings) or study.recordings / EVENT_TABLES[0]
    items = []
    for path in (study.pictures, study.recordings, table):
        items.append(Input(_name(path), note="kept" if path.exists() else "to make"))
    return items


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Make the folders of a study, and list the markers of its recordings in a table.

    Existing files are never changed.

    Args:
        recipe: Settings of the command.
        launch: Processes and device.
        force: Not used, because nothing is replaced.

    Returns:
        A table of the markers, and the next command.

    Raises:
        MissingData: if a recording cannot be found or read.
    """
    study = StudyFolders.from_recipe(recipe)
    paths = _list_recordings(study)
    with console.progress("reading the markers"):
        markers = read_markers(paths, recipe.stim_channel)
    _require_markers(markers)
    if markers.are_named_by_tables:
        return _refer_to_tables(study, markers)

    _make_folders(study)
    if not paths:
        console.say(
            "Put recordings (sub-01_ses-01.fif, .vhdr …) into "
            f"{_name(study.recordings)} and pictures into {_name(study.pictures)}, "
            "then run this command again."
        )
        return Result(study.recordings, hint=Line("init"))
    table = find_sidecar(paths[0], "events")
    if table is not None:
        columns, _ = read_table(table)
        console.say(
            f"{table.name} has the columns {', '.join(columns)}. If one of them names "
            "the pictures, add preparation.column=NAME to prepare."
        )

    distinct_markers = markers.list_markers(_list_image_ids(recipe, study))
    table = _keep_or_write_table(study, distinct_markers)
    return Result(
        study.recordings,
        (*_take_account(recipe, study), _tabulate(markers, distinct_markers)),
        files={"events": table},
        hint=Line("prepare", ("from", "recording"), "--check"),
        details={"markers": [vars(marker) for marker in distinct_markers]},
    )


def _take_account(recipe: Recipe, study: StudyFolders) -> tuple[Table, ...]:
    """Take the account of the recordings as `prepare` does, if there are pictures."""
    keys = recording.Config(
        root=str(study.recordings), stim_channel=recipe.stim_channel
    )
    with suppress(BrainhiveError):
        preparation = keys.build(recipe.paths)
        account = preparation.look_over(preparation.subjects).account
        for line in account.describe() + [item.problem for item in account.disputes]:
            console.say(line)
        return account.tabulate()
    return ()


def _refer_to_tables(study: StudyFolders, markers: RecordedMarkers) -> Result:
    """Say that tables next to the recordings name the pictures, and make nothing."""
    console.say(
        f"{markers.list_tables()[0]} names the picture of each event, so init is not "
        "needed."
    )
    folder = study.source or study.recordings
    line: list[Any] = [("from", "recording"), "--check"]
    if study.source is not None:
        if folder.is_file():
            folder = find_bids_root(folder) or folder.parent
        line.append(f"preparation.root={shlex.quote(_name(folder))}")
    return Result(folder, hint=Line("prepare", *line))


def _name(path: Path) -> str:
    """Return a path relative to home if it is below home, for messages."""
    return str(make_portable(str(path)))


def _find_source(value: str, flag: str, folder: Path) -> Path | None:
    """Return the absolute path of a flag, or None if it is unset or in the study.

    Args:
        value: Value of the flag, or "".
        flag: Name of the flag, for errors.
        folder: Folder of the study.

    Raises:
        MissingData: if nothing is at this path.
        RecipeError: if the path contains the folder of the study.
    """
    if not value:
        return None
    path = Path(os.path.abspath(locate(Path(value).expanduser())))
    if not path.exists():
        raise MissingData(f"{path} does not exist", f"check the path of --{flag}")
    if path in folder.parents:
        raise RecipeError(
            f"{path} contains {_name(folder)}, so it cannot be linked there",
            f"--{flag} takes the folder that holds these files alone",
        )
    return None if path == folder or folder in path.parents else path


def _refuse_fmri(source: Path) -> None:
    """Raise an error for NIfTI files, which have no markers."""
    file = None
    nifti_endings = (".nii", ".nii.gz")
    if source.name.lower().endswith(nifti_endings):
        file = source
    elif source.is_dir() and next(list_signal_files(source, "*", False), None) is None:
        for name, _ in walk(source):
            if name.lower().endswith(nifti_endings):
                file = source / name
                break
    if file is not None:
        raise MissingData(
            f"{file} is fMRI, which has no markers: init reads EEG and MEG",
            f"BIDS with events.tsv: {Line('prepare', ('from', 'bold'), '--check')}; or "
            f"betas: {Line('prepare', ('from', 'betas'), '--check')}",
        )


def _list_recordings(study: StudyFolders) -> list[Path]:
    """List the recordings, of the flag or in the folder of the study.

    Raises:
        MissingData: if a folder has files, but no recording.
        BrainhiveError: if files of a folder do not say whose they are.
    """
    root = study.source or study.recordings
    if root.is_file():
        return [root]
    if study.source is None and next(iter(walk(root)), None) is None:
        return []
    paths = []
    for sessions in list_recordings(root, "*").values():
        for session_paths in sessions.values():
            paths += session_paths
    return paths


def _require_markers(markers: RecordedMarkers) -> None:
    """Warn of recordings without markers, and raise an error if none has any.

    Raises:
        BrainhiveError: if all recordings failed (the first error).
    """
    errors = list(markers.errors.values())
    if errors and not markers.counts:
        raise errors[0]
    for error in errors:
        console.warn(error.message)


def _make_folders(study: StudyFolders) -> None:
    """Make the folders, and link the user's recordings and pictures in them."""
    study.recordings.mkdir(parents=True, exist_ok=True)
    if study.picture_source:
        study.pictures.symlink_to(study.picture_source)
        console.say(f"{_name(study.pictures)} links to {study.picture_source}.")
    elif not study.pictures.exists():
        for split in ("train", "test"):
            (study.pictures / split).mkdir(parents=True)

    # a folder is linked as it is, and a file with its companions
    source = study.source
    if source is None:
        return
    files = [source]
    folder = study.recordings
    if source.is_file():
        files = list_recording_files(source)
        try:
            read_label(source, source.parent)
        except BrainhiveError:
            folder = study.recordings / "sub-01"
            folder.mkdir(exist_ok=True)
            console.say(f"{source.name} does not say whose it is, so it is sub-01.")
    for file in files:
        link = folder / file.name
        if os.path.lexists(link):
            console.say(f"{_name(link)} exists and is kept.")
        else:
            link.symlink_to(file)
            console.say(f"{_name(link)} links to {file}.")

    # a table in the user's folder is read at the top of the recordings only
    table = find_event_table(source) if source.is_dir() else None
    if table and find_event_table(study.recordings) is None:
        shutil.copy(table, study.recordings / table.name)
        console.say(f"{_name(study.recordings / table.name)} is a copy of {table}.")


def _list_image_ids(recipe: Recipe, study: StudyFolders) -> list[str]:
    """List the image ids of the pictures, or none if there are none yet."""
    try:
        stimuli = image_folder.Config().build(recipe.paths)
        image_ids, splits = list_pictures(stimuli)
    except MissingData:
        console.say(f"{_name(study.pictures)} has no pictures yet.")
        return []
    counts = []
    for split in stimuli.splits:
        counts.append(f"{(splits == split).sum()} in {split}")
    console.say(f"Pictures in {_name(study.pictures)}: {', '.join(counts)}.")
    if "test" not in stimuli.splits:
        console.say(
            "It has no folder test. To test a decoder with new concepts, divide it "
            "into train/CONCEPT and test/CONCEPT."
        )
    return image_ids


def _keep_or_write_table(study: StudyFolders, markers: Sequence[Marker]) -> Path:
    """Write the table of events, or report the markers that an existing table lacks.

    Returns:
        Path of the table.
    """
    table = find_event_table(study.recordings)
    if table is not None:
        console.say(f"{_name(table)} exists and is kept.")
        names = find_unlisted(table, [marker.name for marker in markers])
        if names:
            console.say(f"It has no line for {summarise_names(names)}.")
        return table

    table = study.recordings / EVENT_TABLES[0]
    rows = []
    for marker in markers:
        rows.append(dict(zip(COLUMNS, (marker.name, marker.picture), strict=True)))
    with atomic_write(table) as temporary:
        temporary.write_text(write_csv(COLUMNS, rows), "utf-8")
    named = [marker.name for marker in markers if marker.picture]
    if named:
        console.say(
            f"Filled in the pictures with exactly the names of markers, "
            f"{summarise_names(named)}."
        )
    if len(named) < len(markers):
        console.say(
            f"Complete {_name(table)}: write the picture of each event behind the "
            "comma, as in 17,train/cat/cat_01.jpg. Events without a picture are left "
            "out."
        )
    return table


def _tabulate(markers: RecordedMarkers, distinct_markers: Sequence[Marker]) -> Table:
    """Make a table of the first markers, with their counts and pictures."""
    rows = []
    # Largest number of markers that the terminal lists.
    max_rows = 20
    for marker in distinct_markers[:max_rows]:
        rows.append(
            (marker.name, marker.count, marker.recordings, marker.picture or None)
        )
    sources = ", ".join(sorted(set(markers.sources.values())))
    note = f"from {sources}"
    if len(distinct_markers) > max_rows:
        note = f"and {len(distinct_markers) - max_rows} more; {note}"
    title = f"{len(distinct_markers)} markers of {len(markers.counts)} recordings"
    columns = ("event", "times", "recordings", "picture")
    return Table(title, columns, rows, note=note)
