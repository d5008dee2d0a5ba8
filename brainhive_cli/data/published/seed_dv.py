"""SEED-DV: clips of two seconds from seven films, and EEG responses to them."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import Array, MissingData
from brainhive_cli.core.files import read_lines, report_damage
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.datasets import PUBLISHED_FACTS, ROOT_FIELD, Dataset
from brainhive_cli.data.files import (
    FOLDERS,
    LazyRows,
    Names,
    fetch_line,
    find_below,
    find_file,
    pickles,
)
from brainhive_cli.data.media import (
    BadPicture,
    Clip,
    StimulusSet,
    count_frames,
    has_pyav,
    read_frames,
)
from brainhive_cli.data.published.prepared_files import FilesByRow, PreparedFiles
from brainhive_cli.data.signals import (
    HOLDOUT_FIELD,
    Holdout,
    Sensors,
    Trials,
    group_trials,
)

FETCH_HINT = fetch_line("seed-dv")

FILMS = [f"{number}_10min" for number in "1st 2nd 3rd 4th 5th 6th 7th".split()]
"""Names of the films. Each film is a block of the recording, with 40 concepts."""
N_CONCEPTS = 40
CLIPS_PER_CONCEPT = 5
CLIPS_PER_FILM = N_CONCEPTS * CLIPS_PER_CONCEPT
HINT_S = 3
"""Duration of the hint before the clips of a concept."""
CLIP_S = 2
CONCEPT_S = HINT_S + CLIPS_PER_CONCEPT * CLIP_S
FRAME_RATE_HZ = 24
EEG_RATE_HZ = 200
"""Layout of a film and of its EEG. Source: XuanhaoLiu/EEG2Video, extract_gif.py and
segment_raw_signals_200Hz.py (plain facts).
"""
LabelKind = Literal["concept", "color", "face", "human", "number", "flow"]


class SeedDvClips(parts.Config):
    """The 1,400 clips of SEED-DV: two seconds each, five of a concept in a row.

    Each of seven films shows 40 concepts in another order. By default, each film is
    held out once.
    """

    root: str = ROOT_FIELD
    frames: int = Field(
        6, ge=1, le=48, description="evenly spaced frames of a clip, from its first on"
    )
    labels: LabelKind = Field(
        "concept",
        description="labels of a clip: its concept, main color, number of objects, "
        "whether it shows a face or human, or its optical flow above the median",
    )
    holdout: Holdout | None = HOLDOUT_FIELD

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. No file is read yet."""
        root = paths.dataset("seed-dv", self.root)
        # other frames and labels have stores of their own
        name = "seed-dv"
        if self.frames != 6 or self.labels != "concept":
            name += f"-{self.frames}-{self.labels}"
        return Dataset(
            name,
            ("train",),
            partial(_list_clips, root, name, self.frames, self.labels),
            recorded_as="seed-dv",
            shows_clips=True,
            published_sizes=PUBLISHED_FACTS["seed-dv"],
            holdout=self.holdout or Holdout(by="folders", folds=len(FILMS)),
        )


class SeedDvEeg(parts.Config):
    """SEED-DV's EEG as its authors distribute it: 62 channels at 200 Hz, 2 s a clip.

    EEG/subN.npy [7, 62, 104000], or Segmented_Rawf_200Hz_2s/subN.npy [7, 40, 5, 62,
    400]. The files name neither channels nor unit. Channels are numbered, and µV is
    assumed.
    """

    root: str = ROOT_FIELD
    labels: Literal["clip", "concept"] = Field(
        "clip",
        description="labels of the trials: clips of the data set seed-dv, or "
        "categories of {kind: categories, name: seed-dv-concept}",
    )

    @property
    def stimuli(self) -> Any:
        """Data set of the concepts, if they are the labels, else None."""
        if self.labels != "concept":
            return None
        names = [f"concept-{number}" for number in range(1, 1 + N_CONCEPTS)]
        keys = {"kind": "categories", "name": "seed-dv-concept", "names": names}
        return parts.resolve("datasets", keys)

    def build(self, paths: Paths) -> PreparedFiles:
        """Make the preparation. No file is read yet."""
        root = paths.dataset("seed-dv", self.root)
        signal_files = (
            "EEG/sub{subject}.npy",
            "Segmented_Rawf_200Hz_2s/sub{subject}.npy",
        )
        patterns = [folder + name for name in signal_files for folder in FOLDERS]
        return PreparedFiles(
            "seed-dv" if self.labels == "clip" else "seed-dv-concept",
            root,
            FETCH_HINT,
            {"EEG": patterns},
            partial(_read_trials, root, self.labels),
            splits=("train",),
        )


def _list_ids() -> list[str]:
    """List the ids of all clips in the order of time."""
    ids = []
    for film in FILMS:
        ids += [f"{film}/{index:03d}" for index in range(CLIPS_PER_FILM)]
    return ids


def _list_clips(
    root: Path, name: str, n_frames: int, label: LabelKind, split: str
) -> StimulusSet:
    """List all clips, with the annotations whose files are there."""
    films = [find_file(root, f"Video/{film}.mp4", FETCH_HINT) for film in FILMS]
    n_film_frames = N_CONCEPTS * CONCEPT_S * FRAME_RATE_HZ
    for film in films if has_pyav() else []:
        try:
            count = count_frames(film)
        except BadPicture:
            count = 0
        # a second at the end is harmless
        if not 0 <= count - n_film_frames < FRAME_RATE_HZ:
            raise MissingData(
                f"{film} has {count:,} frames, not {n_film_frames:,}", FETCH_HINT
            )

    annotations: dict[str, Any] = {}
    if find_below(root, f"Video/BLIP-caption/{FILMS[0]}.txt"):
        captions = _read_captions(root)
        annotations["captions"] = captions.__getitem__
        annotations["captions_each"] = 1
    classes = _read_classes(root, label)
    label_names, class_numbers = np.unique(classes, return_inverse=True)
    flags = np.eye(len(label_names), dtype=np.uint8)[class_numbers]  # [N, K]
    return StimulusSet(
        name,
        split,
        image_ids=Names.of(_list_ids()),
        concepts=Names.of(_read_classes(root, "concept")),
        open=partial(_read_clip, films, n_frames),
        frames=n_frames,
        labels=flags.__getitem__,
        label_names=tuple(label_names.tolist()),
        way_out=FETCH_HINT,
        **annotations,
    )


def _start_s(index: Any) -> Any:
    """Compute when clips of a film begin, in seconds after the film's start."""
    concept, clip = np.divmod(index, CLIPS_PER_CONCEPT)
    return concept * CONCEPT_S + HINT_S + clip * CLIP_S


def _read_clip(films: list[Path], n_frames: int, index: int) -> Clip:
    """Read the frames of a clip."""
    film, clip = divmod(index, CLIPS_PER_FILM)
    offsets = np.arange(n_frames) * CLIP_S * FRAME_RATE_HZ // n_frames
    numbers = FRAME_RATE_HZ * _start_s(clip) + offsets
    return Clip(read_frames(films[film], numbers), n_frames / CLIP_S)


def _read_captions(root: Path) -> list[list[str]]:
    """Read the caption of each clip, as a list of one."""
    captions = []
    for film in FILMS:
        path = find_file(root, f"Video/BLIP-caption/{film}.txt", FETCH_HINT)
        with report_damage(path, FETCH_HINT):
            lines = [[line] for line in read_lines(path) if line.strip()]
            if len(lines) != CLIPS_PER_FILM:
                raise ValueError(f"it has {len(lines)} captions, not {CLIPS_PER_FILM}")
        captions += lines
    return captions


def _read_classes(root: Path, label: LabelKind) -> list[str]:
    """Read the class of each clip [1400], such as `concept-23` or `face-0`."""
    # Files of a value for each clip, spelled as their publisher spells them.
    annotation_files = {
        "color": "Video/meta-info/All_video_color.npy",
        "face": "Video/meta-info/All_video_face_apperance.npy",
        "human": "Video/meta-info/All_video_human_apperance.npy",
        "number": "Video/meta-info/All_video_obj_number.npy",
        "flow": "Video/meta-info/All_video_optical_flow_score.npy",
    }
    path = find_file(
        root,
        annotation_files.get(label, "Video/meta-info/All_video_label.npy"),
        FETCH_HINT,
    )
    count = len(FILMS) * N_CONCEPTS
    if label != "concept":
        count *= CLIPS_PER_CONCEPT
    with report_damage(path, FETCH_HINT):
        values = pickles.to_array(pickles.load(path)).ravel()
        if values.size != count or not np.isfinite(values).all():
            raise ValueError(f"it has {values.size} values, not {count} finite values")
        if label == "flow":
            values = values > np.median(values)
        if label == "concept":
            expected = np.arange(1, 1 + N_CONCEPTS)
            by_film = np.sort(values.reshape(len(FILMS), N_CONCEPTS), axis=1)
            if (by_film != expected).any():
                raise ValueError(
                    f"a film does not show concepts 1 to {N_CONCEPTS} once"
                )
            values = np.repeat(values, CLIPS_PER_CONCEPT)
    return [f"{label}-{value:g}" for value in values.astype(float)]


def _read_trials(
    root: Path, label: str, files: FilesByRow, subject: int, split: str
) -> Trials:
    """Open the trials of a subject. The signals stay on disk."""
    path = files["EEG"][0]
    n_samples = CLIP_S * EEG_RATE_HZ
    layout = (len(FILMS), N_CONCEPTS, CLIPS_PER_CONCEPT)
    with report_damage(path, FETCH_HINT):
        signals = pickles.to_array(pickles.load(path))
        shape = list(signals.shape)
        if shape[::2] == [len(FILMS), N_CONCEPTS * CONCEPT_S * EEG_RATE_HZ]:
            # cut the hints off, and the rest into clips
            concepts = signals.reshape(len(FILMS), shape[1], N_CONCEPTS, -1)
            clips = concepts[..., HINT_S * EEG_RATE_HZ :]
            clips = clips.reshape(*clips.shape[:3], CLIPS_PER_CONCEPT, n_samples)
            signals = np.moveaxis(clips, 1, 3)
        if signals.shape != (*layout, *signals.shape[3:4], n_samples):
            raise ValueError(
                f"it has the shape {shape}, not [7, 62, 104000] or [7, 40, 5, 62, 400]"
            )

    ids = _list_ids() if label == "clip" else _read_classes(root, "concept")
    order, repetitions = group_trials(np.array(ids))
    film, concept, clip = np.unravel_index(order, layout)

    def read_rows(rows: Any) -> Array:
        values: Array = signals[film[rows], concept[rows], clip[rows]]
        return values

    channels = signals.shape[3]
    return Trials(
        LazyRows((len(order), channels, n_samples), signals.dtype, read_rows, path),
        [ids[number] for number in order.tolist()],
        Sensors([f"E{number:02d}" for number in range(1, 1 + channels)]),
        times_s=np.arange(n_samples) / EEG_RATE_HZ,
        rate_hz=float(EEG_RATE_HZ),
        unit="µV",
        provenance={"source": path.name, "unit_note": "the files state no unit"},
        repetitions=repetitions,
        sessions=np.zeros(len(order), np.int8),
        runs=film.astype(np.int16) + 1,
        onset_s=_start_s(order % CLIPS_PER_FILM).astype(float),
    )
