"""Training history of a model: its pictures, signals, people and starting models."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, fields as dataclass_fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from pydantic import ConfigDict, InstanceOf
from pydantic.dataclasses import dataclass as checked_dataclass

from brainhive_cli.core.base import BrainhiveError, Float32, UInt64
from brainhive_cli.core.files import documents
from brainhive_cli.core.results import (
    SELECTED_ON_TEST,
    TRAINED_ON_SIMULATED,
    UNKNOWN_HISTORY,
    UNKNOWN_PICTURES,
    UNKNOWN_SELECTION,
    UNKNOWN_TRIALS,
    WHITENED_BY_TESTED,
    merge_caveats,
)
from brainhive_cli.core.runs import weights
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals import Normaliser
from brainhive_cli.data.stores.learned_pictures import (
    LearnedPictures,
    make_empty_hashes,
)
from brainhive_cli.models import look_up_training

ARRAYS_FILE = "learned.safetensors"
"""File of a history in a model folder, which may be copied with the weights. Its
metadata have the plain values as JSON, and the digest of the weights.
"""
EpochSelection = Literal["last epoch", "validation", "", "test"]
"""How the kept epoch was selected, or "" if unknown. Two selections are merged into the
later in this list.
"""
DATASET_SEPARATOR = " + "
"""Text between the names of several data sets."""
NameTuple = tuple[str, ...]


@checked_dataclass(
    frozen=True,
    eq=False,
    config=ConfigDict(arbitrary_types_allowed=True, extra="forbid"),
)
class TrainingHistory:
    """Training data of a model, and of all models that its training started from.

    Without arguments, the history is unknown.

    Attributes:
        selection: How the kept epoch was selected. "test" if a model in the history was
            selected on test.
        dataset: Name of the data set, or "" if unknown.
        recordings: Name of the group of people in the model's own training, see
            `Dataset.people`.
        people: Subjects in training, by name of the group of people.
        has_all_subjects: True if `people` is complete.
        signals: Identity of the signals, by name of their store.
        split: Split that was used for training.
        recorded_channels: Names [C] of the channels of the whiteners.
        is_simulated: True if some of the signals were simulated.
        is_whitened_by_tested: True if noise of test trials was used to whiten the
            signals.
        stimulus_kinds: Kinds of the data sets of all pictures, such as `things-eeg`.
            Empty if one is unknown.
        recording_kinds: Kinds of the preparations of all signals, see `Trials.made_by`.
            Empty if one is unknown, and for priors.
        pictures: Pictures that were used for training or validation. Empty if
            unknown.
        trials: Digests [K] of all training trials, ascending.
        normalisers: Normaliser of each subject of the model's own training.
        pretrained_weights: Published weights that the training started from, as
            `look_up_training` takes them.
        normaliser: Mean of these normalisers, for other subjects. None if other
            subjects are normalised by their own signals.
        whiteners: Whiteners [S, C, C] of the sessions of each subject whose signals
            were whitened before they were stored.
    """

    selection: EpochSelection = ""
    dataset: str = ""
    recordings: str = ""
    people: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    has_all_subjects: bool = False
    signals: Mapping[str, str] = field(default_factory=dict)
    split: str = "train"
    recorded_channels: NameTuple = ()
    is_simulated: bool = False
    is_whitened_by_tested: bool = False
    stimulus_kinds: NameTuple = ()
    recording_kinds: NameTuple = ()
    pretrained_weights: NameTuple = ()
    pictures: InstanceOf[LearnedPictures] = field(default_factory=LearnedPictures)
    trials: UInt64 = field(default_factory=make_empty_hashes)
    normalisers: Mapping[int, InstanceOf[Normaliser]] = field(default_factory=dict)
    normaliser: InstanceOf[Normaliser] | None = None
    whiteners: Mapping[int, Float32] = field(default_factory=dict)

    def inherit(self, start: Self) -> Self:
        """Add the history of the model that training started from."""
        people = dict(start.people)
        for name, subjects in self.people.items():
            all_subjects = set(subjects).union(people.get(name, ()))
            people[name] = tuple(sorted(all_subjects))

        # the selection later in the list of selections wins
        severity = get_args(EpochSelection).index
        selection = max(self.selection, start.selection, key=severity)
        datasets = dict.fromkeys((start.dataset, self.dataset))
        datasets.pop("", None)
        return replace(
            self,
            selection=selection,
            dataset=DATASET_SEPARATOR.join(datasets),
            people=people,
            has_all_subjects=self.has_all_subjects and start.has_all_subjects,
            signals={**start.signals, **self.signals},
            is_simulated=self.is_simulated or start.is_simulated,
            is_whitened_by_tested=self.is_whitened_by_tested
            or start.is_whitened_by_tested,
            stimulus_kinds=_merge_kinds(self.stimulus_kinds, start.stimulus_kinds),
            recording_kinds=_merge_kinds(self.recording_kinds, start.recording_kinds),
            pretrained_weights=tuple(
                sorted({*self.pretrained_weights, *start.pretrained_weights})
            ),
            pictures=self.pictures.inherit(start.pictures),
            trials=np.union1d(self.trials, start.trials),
        )

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects of the model's own group of people that it was trained on."""
        return self.people.get(self.recordings, ())

    def require_new_subjects(
        self, dataset: Dataset, tested: Iterable[int], model: str
    ) -> None:
        """Raise an error if the model was trained on a subject that is tested as new.

        Args:
            dataset: Data set of the tested subjects.
            tested: Tested subjects.
            model: Name of the model, for the error.

        Raises:
            BrainhiveError: if the model, or a model in its history, was trained on one
                of the subjects.
        """
        # subject numbers identify people only within a group
        people = dataset.people
        excluded_subjects = dataset.list_excluded_subjects(tested)
        trained = excluded_subjects.intersection(self.people.get(people, ()))
        if trained:
            subjects = ", ".join(map(str, sorted(trained)))
            raise BrainhiveError(
                f"{model} is to be tested on new subjects, but it, or a model that it "
                f"started from, was trained on subject {subjects} of {people}",
                "start from a model that was trained without them, or use mode=joint",
            )

    def describe_subjects(self, people: str, tested: Iterable[int]) -> str:
        """Describe which tested subjects are new to the model.

        Args:
            people: Name of the group of people.
            tested: Tested subjects.

        Returns:
            A phrase such as "trained on subject 1, 2; new subject 3". Subjects are
            "perhaps trained on" if the history does not list all subjects.
        """
        trained = self.people.get(people, ())
        untrained_phrase = "perhaps trained on subject"
        if self.has_all_subjects:
            untrained_phrase = "new subject"
        subjects_of_phrase: dict[str, list[str]] = {}
        for subject in tested:
            phrase = "trained on subject" if subject in trained else untrained_phrase
            subjects_of_phrase.setdefault(phrase, []).append(str(subject))
        return "; ".join(
            f"{phrase} {', '.join(subjects)}"
            for phrase, subjects in subjects_of_phrase.items()
        )

    @property
    def caveats(self) -> list[str]:
        """Caveats of numbers on the people of the model's own training."""
        return self.list_caveats(self.recordings)

    def list_caveats(self, people: str) -> list[str]:
        """List the caveats of numbers on recordings of a group of people.

        Published weights were trained without pictures, but perhaps on recordings of
        the tested pictures.
        """
        answers = {look_up_training(name, people) for name in self.pretrained_weights}
        has_unknown_pictures = not self.pictures.has_all_pixels
        conditions = {
            UNKNOWN_TRIALS: "yes" in answers,
            TRAINED_ON_SIMULATED: self.is_simulated,
            WHITENED_BY_TESTED: self.is_whitened_by_tested,
            UNKNOWN_PICTURES: has_unknown_pictures or "not known" in answers,
            UNKNOWN_SELECTION: not self.selection,
            SELECTED_ON_TEST: self.selection == "test",
            UNKNOWN_HISTORY: not self.has_all_subjects,
        }
        return merge_caveats(
            caveat for caveat, applies in conditions.items() if applies
        )

    def normaliser_of(self, subject: int) -> Normaliser | None:
        """Return the stored normaliser of a subject's signals.

        It is None if the subject's own training signals normalise the signals.
        """
        mean = None if subject in self.subjects else self.normaliser
        return self.normalisers.get(subject, mean)

    def save(self, folder: Path, *weights_files: Path) -> str:
        """Write the history, with the digest of the weights, to `ARRAYS_FILE`.

        Args:
            folder: Folder of the model.
            weights_files: Files of the weights, by default all in the folder.

        Returns:
            Digest of the arrays.
        """
        import torch

        # names of arrays, such as `pictures.hashes`, are a field and a key
        fields = dict(vars(self))
        arrays = {"trials": fields.pop("trials")}
        for name, value in vars(fields.pop("pictures")).items():
            arrays[f"pictures.{name}"] = value
        for subject, matrices in fields.pop("whiteners").items():
            arrays[f"whiteners.{subject}"] = matrices
        for subject, normaliser in fields.pop("normalisers").items():
            arrays[f"means.{subject}"] = normaliser.mean
            arrays[f"matrices.{subject}"] = normaliser.matrix
        mean_normaliser = fields.pop("normaliser")
        if mean_normaliser is not None:
            arrays["means."] = mean_normaliser.mean
            arrays["matrices."] = mean_normaliser.matrix

        metadata = {
            "learned": json.dumps(fields),
            "weights": _digest_weights(weights_files or _list_weights(folder)),
        }
        file = folder / ARRAYS_FILE
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        weights.save(file, tensors, metadata)
        return weights.read_digest(file)

    @classmethod
    def read(cls, folder: Path, *weights_files: Path) -> Self:
        """Read the history that `save` wrote, which is unknown without `ARRAYS_FILE`.

        Args:
            folder: Folder of the model.
            weights_files: Files of the weights, by default all in the folder.

        Returns:
            The history. If the weights have changed since, it is marked as incomplete.

        Raises:
            BrainhiveError: if the file is damaged.
        """
        file = folder / ARRAYS_FILE
        metadata = weights.read_metadata(file) if file.is_file() else {}
        # other programs write files of this name without our metadata
        if "learned" not in metadata:
            return cls()
        with weights.reading(file, documents.DAMAGED_HINT, BrainhiveError):
            facts: dict[str, Any] = documents.parse(
                metadata["learned"], f"{file}: learned"
            )
            parts: dict[str, dict[str, Any]] = defaultdict(dict)
            arrays = weights.read_arrays(file, documents.DAMAGED_HINT, BrainhiveError)
            for name, array in arrays.items():
                part, _, key = name.partition(".")
                parts[part][key] = array if array.shape else array.item()
            normalisers = {}
            for subject, mean in parts["means"].items():
                normalisers[subject] = Normaliser(mean, parts["matrices"][subject])
            facts |= {
                "trials": parts["trials"][""],
                "pictures": LearnedPictures(**parts["pictures"]),
                "whiteners": parts["whiteners"],
                "normaliser": normalisers.pop("", None),
                "normalisers": normalisers,
            }
            # a missing field is not a field of its default value
            for kind, values in ((cls, facts), (LearnedPictures, parts["pictures"])):
                for item in dataclass_fields(kind):
                    if item.name not in values:
                        raise ValueError(f"learned.{item.name} is missing")
            history = cls(**facts)

        # changed weights may have been trained on anything
        digest = _digest_weights(weights_files or _list_weights(folder))
        if digest and metadata.get("weights") == digest:
            return history
        return history.inherit(cls())


def _merge_kinds(kinds: NameTuple, start_kinds: NameTuple) -> NameTuple:
    """Merge the kinds of two trainings. Empty if either training has none."""
    if not kinds or not start_kinds:
        return ()
    return tuple(sorted(set(kinds).union(start_kinds)))


def _list_weights(folder: Path) -> list[Path]:
    """List the weights files of a folder, in order of their names."""
    files = folder.rglob("*.safetensors")
    return sorted(file for file in files if file.name != ARRAYS_FILE)


def _digest_weights(files: Sequence[Path]) -> str:
    """Join the digests of weights files. Empty if a file has none or is damaged."""
    with suppress(BrainhiveError, OSError):
        digests = [weights.read_digest(file) for file in files]
        if all(digests):
            return " ".join(digests)
    return ""
