"""The names for notebooks and for parts outside the package: they stay where files
move, and load when used.

    from brainhive_cli import api

    run = api.open_run("NAME")
    rows = run.metrics()

Importing this module imports nothing heavy. What fails raises a `BrainhiveError` with
`message` and `hint`.
Paths are found as commands find them: below the working directory, or `BRAINHIVE_HOME`.
"""

import importlib
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

# for type checkers alone: at run time names are imported when they are used
if TYPE_CHECKING:
    from brainhive_cli.core.arrays import Float32, Int64
    from brainhive_cli.core.artifacts import Artifact
    from brainhive_cli.core.errors import BrainhiveError
    from brainhive_cli.core.measurements import Measurements
    from brainhive_cli.core.parts import Config
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.core.runs import RunFolder
    from brainhive_cli.data.datasets import Dataset, StimulusSet
    from brainhive_cli.data.model_input import model_input
    from brainhive_cli.data.signal_stores import SignalStore
    from brainhive_cli.data.signals.normalisations import Normaliser
    from brainhive_cli.data.spaces import Sensors, Voxels
    from brainhive_cli.data.stores.ids import Names
    from brainhive_cli.data.stores.target_store import TargetStore
    from brainhive_cli.data.trials import Trials
    from brainhive_cli.measurement.metrics import MetricPart
    from brainhive_cli.models.backbones import BackboneConfig
    from brainhive_cli.models.encoders import Encoder, EncoderConfig
    from brainhive_cli.models.fusers import FuserConfig
    from brainhive_cli.models.generators import Sampling
    from brainhive_cli.models.heads import Conditioning, Decoded
    from brainhive_cli.models.losses import LossConfig, LossContext
    from brainhive_cli.models.priors import Description
    from brainhive_cli.models.signal_spec import SignalSpec
    from brainhive_cli.reports.runs_shown import RunGroup
    from brainhive_cli.training.alignment.model import Aligner
    from brainhive_cli.training.alignment.recipe import Cell
    from brainhive_cli.training.alignment.trained import TrainedModel, TrainedRun

PLACES = {
    "BackboneConfig": "models.backbones",
    "BrainhiveError": "core.errors",
    "Conditioning": "models.heads",
    "Config": "core.parts",
    "Dataset": "data.datasets",
    "Decoded": "models.heads",
    "Description": "models.priors",
    "Encoder": "models.encoders",
    "EncoderConfig": "models.encoders",
    "FuserConfig": "models.fusers",
    "LossConfig": "models.losses",
    "LossContext": "models.losses",
    "MetricPart": "measurement.metrics",
    "Names": "data.stores.ids",
    "Normaliser": "data.signals.normalisations",
    "Paths": "core.recipe",
    "Trials": "data.trials",
    "Sampling": "models.generators",
    "Sensors": "data.spaces",
    "SignalSpec": "models.signal_spec",
    "StimulusSet": "data.datasets",
    "Voxels": "data.spaces",
    "model_input": "data.model_input",
}
"""Modules of the names that a part outside the package needs."""
__all__ = [
    *PLACES,
    *("Comparison", "Predictions", "Ranks", "Run"),
    *("compare", "decode", "open_model", "open_run", "open_signals", "open_store"),
]
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "subject": ((Integral,), "a whole number"),
    "path": ((str, Path), "a name or path"),
}
"""Types of the arguments that are no text."""


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # imported at first use, so that an import of `api` stays light
    return getattr(importlib.import_module(f"brainhive_cli.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _check(**arguments: object) -> None:
    """Refuse arguments of another type, by name, and names that no file can have.

    Raises:
        RecipeError: naming the argument, its value and what it takes.
    """
    from brainhive_cli.core.errors import RecipeError
    from brainhive_cli.core.files import describe_bad_text

    for name, value in arguments.items():
        # the type
        kinds, words = KINDS.get(name, ((str,), "text"))
        shown = " ".join(repr(value)[:300].split())[:80]
        if isinstance(value, bool) or not isinstance(value, kinds):
            problem = f"{name} is {shown}, of type {type(value).__name__}"
            raise RecipeError(
                problem, f"{name}=… takes {words}; help(brainhive_cli.api) says more"
            )

        # the letters of a name
        if isinstance(value, str | Path) and (reason := describe_bad_text(str(value))):
            raise RecipeError(
                f"{name} {shown} {reason}", "give a name or path that a file can have"
            )


@dataclass(frozen=True)
class Predictions:
    """Predictions of a brain model for the signals of one subject and split.

    Attributes:
        image_ids: [N] what was seen.
        heads: [N, *shape] by head.
        texts: N texts by head, where a head is a caption.
        caveats: What a reader must know of every number that is made of them.
    """

    image_ids: list[str]
    heads: "dict[str, Float32]"
    texts: dict[str, list[str]]
    caveats: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ranks:
    """Ranks that the signals of a recording give the pictures of a gallery.

    Attributes:
        image_ids: [N] what was seen.
        ranks: [N] of the seen picture among all of the gallery; 1 is the most similar.
        gallery: [M] image ids of the candidates.
        similarity: [N, M] cosine similarities.
        caveats: What a reader must know of every number that is made of them.
    """

    image_ids: list[str]
    ranks: "Int64"
    gallery: list[str]
    similarity: "Float32"
    caveats: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """A finished run of any command.

    Attributes:
        folder: Its folder.
        variant: The variant of a sweep that was named, `RUN:VARIANT`; empty for all of
            it.
    """

    folder: "RunFolder"
    variant: str = ""

    @property
    def path(self) -> Path:
        """Folder of the run."""
        return self.folder.path

    @cached_property
    def measurements(self) -> "Measurements":
        """The whole document: metrics by scope, facts, what is missing, values item by
        item.
        """
        return self.folder.measurements()

    def metrics(self) -> list[dict[str, Any]]:
        """Give a row for each metric and scope, with its context:
        `pandas.DataFrame(run.metrics())`.
        """
        return self.measurements.rows()

    def recipe(self) -> dict[str, Any]:
        """Read the resolved recipe that made it."""
        return self.folder.recipe()

    def artifacts(self) -> "list[Artifact]":
        """Read the curves, matrices, sheets, maps, media and tables that a report shows
        of it.
        """
        from brainhive_cli.core import artifacts

        return artifacts.read(self.folder)

    def _repr_html_(self) -> str | None:
        """Show the run's page in a notebook, caveats included; where it cannot be
        drawn, its plain form.
        """
        from brainhive_cli.core.errors import BrainhiveError

        try:
            from brainhive_cli.reports.page import frame_page
            from brainhive_cli.reports.run_page import page_of
            from brainhive_cli.reports.runs_shown import RunGroup, ShownRun

            label = self.variant or self.folder.name
            return frame_page(
                page_of([RunGroup([ShownRun(label, self.folder, self.variant)])])
            )
        except (BrainhiveError, ImportError):
            # a notebook then shows the plain form, without a traceback
            return None

    @cached_property
    def cells(self) -> "list[Cell]":
        """The trainings of a run of train-align: name, subjects trained and tested on,
        seed.
        """
        return self._align.cells

    def aligner(self, cell: str = "", device: str = "cpu") -> "Aligner":
        """Load the brain model of a cell; of the only one where none is named.

        Raises:
            BrainhiveError: if the run has no models, or several; it names the cells.
            DeviceError: if there is no such device.
        """
        return self.member(cell, device).module

    def predictions(
        self,
        subject: int | None = None,
        split: str = "test",
        cell: str = "",
        device: str = "cpu",
    ) -> Predictions:
        """Decode the averaged signals of a subject with a cell's model.

        Args:
            subject: Whose; default: the only one that the cell is tested on.
            split: Of the data set. Pictures that the model learned from are left out.
            cell: Which model; default: the only one.
            device: Where it is computed.
        """
        _check(split=split)
        # heads of the pictures that the model has not learned from
        member = self.member(cell, device)
        decoded, rows = member.decoded(_only_subject(member, subject), split)

        # arrays [N, *shape] of the heads, with what a reader must know of them
        heads = {name: tensor.cpu().numpy() for name, tensor in decoded.tensors.items()}
        image_ids, caveats = (
            list(member.pictures(split).image_ids[rows]),
            member.run.caveats(split),
        )
        return Predictions(image_ids, heads, decoded.texts, caveats)

    def member(self, cell: str = "", device: str = "cpu") -> "TrainedModel":
        """Open a cell with its model, as evaluations do; raises as `aligner`."""
        from brainhive_cli.core.errors import RecipeError
        from brainhive_cli.core.launch import open_device
        from brainhive_cli.training.alignment.trained import TrainedModel

        _check(cell=cell)

        # the cell that is named, or the only one
        matching = [trained for trained in self.cells if cell in ("", trained.name)]
        if len(matching) != 1:
            problem = (
                f"no cell {cell!r}"
                if cell
                else f"{len(self.cells)} cells, of which none is named"
            )
            raise RecipeError(
                f"{self.path} has {problem}",
                ", ".join(trained.name for trained in self.cells),
            )
        return TrainedModel(self._align, matching[0], open_device(device))

    @cached_property
    def _align(self) -> "TrainedRun":
        from brainhive_cli.core.errors import RecipeError
        from brainhive_cli.training.alignment.trained import TrainedRun

        # runs of other commands have no cells of trainings
        if not (self.path / "cells").is_dir():
            raise RecipeError(f"{self.path} has no models", "open a run of train-align")
        return TrainedRun(self.folder, self.variant)


@dataclass(frozen=True)
class Comparison:
    """Runs next to each other, the first against each other one.

    Attributes:
        groups: The runs of each command, with their differences and why some were not
            compared.
    """

    groups: "list[RunGroup]"

    @property
    def differences(self) -> list[dict[str, Any]]:
        """Give a row for each difference, item by item, with its test:
        `pandas.DataFrame(…)`.
        """
        pairs = (pair for group in self.groups for pair in group.compared)
        # `p` is a property, which the dump leaves out
        return [{**pair.model_dump(), "p": pair.p} for pair in pairs]

    def _repr_html_(self) -> str:
        """Show a table of each group in a notebook; its caption has the test and the
        caveats.
        """
        from brainhive_cli.reports.page import frame_table
        from brainhive_cli.reports.paper_tables import paper_table

        tables = []
        for group in self.groups:
            reasons = [f"Not compared: {reason}." for reason in group.not_compared]
            tables.append(frame_table(paper_table(group), reasons))
        return "\n".join(tables)


def compare(*runs: "Run | str | Path", labels: "list[str] | None" = None) -> Comparison:
    """Compare runs as the command `compare` does, and write nothing.

    Args:
        runs: Two or more, open or by name; `RUN:VARIANT` is a variant of a sweep.
        labels: What each is called, in the same order; default: by what they differ in.

    Raises:
        BrainhiveError: if a run is absent, or no two of them measured the same kind of
            thing.
    """
    from brainhive_cli.commands import compare as command
    from brainhive_cli.core.errors import RecipeError

    if len(runs) < 2:
        raise RecipeError(
            f"compare takes two runs or more, not {len(runs)}", "compare(RUN, RUN)"
        )

    # names as the command line takes them
    names = []
    for run in runs:
        if isinstance(run, Run):
            names.append(f"{run.path}:{run.variant}" if run.variant else str(run.path))
        else:
            _check(path=run)
            names.append(str(run))

    # resolved as a command line, so that the same checks apply
    chosen = {"runs": names, "labels": labels}
    return Comparison(
        command.compare_runs(command.Recipe.resolve("compare", None, chosen, []))
    )


def open_run(name: str | Path) -> Run:
    """Open a finished run, by its folder, its name or the end of it; `RUN:VARIANT` is a
    variant of a sweep.

    `hub:owner/name[@revision]` is a run that `brainhive push` has put on the hub; it is
    fetched.

    Raises:
        BrainhiveError: if there is none, or several have the name.
    """
    from brainhive_cli.core import runs
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.core.runs import of_variant

    _check(path=name)

    # `find` takes the name of the run, without the variant
    run, variant = of_variant(str(name))
    return Run(runs.find(Paths().under_home("runs"), None, str(run)), variant)


def open_model(reference: str | Path, cell: str = "", device: str = "cpu") -> "Aligner":
    """Open a trained brain model by whatever names it.

    Args:
        reference: A run of train-align or `RUN:VARIANT`, as `open_run` takes it; the
            name of a recipe of train-align, for the newest run that it made; a cell's
            model folder, wherever it lies; or `hub:owner/name[@revision]`.
        cell: Which model of a run; default: the only one.
        device: Where it is computed.

    Raises:
        BrainhiveError: if there is none, or several could be meant; it names the cells.
        DeviceError: if there is no such device.
    """
    from brainhive_cli.core.launch import open_device
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.training.alignment import model as aligners
    from brainhive_cli.training.alignment.references import find_model, find_reference

    _check(path=reference, cell=cell)

    # a reference by which several cells could be meant is refused
    run, variant = find_reference(str(reference), Paths())
    return aligners.load(find_model(run, variant, cell)).to(open_device(device))


def open_store(dataset: str, split: str, encoder: str) -> "TargetStore":
    """Open what `embed` wrote: `embedding` [N, *shape], `image_ids` [N], `concepts`
    [N], `done` [N].

    Args:
        dataset: Name of the data set, as its folder below `embeddings/` is called.
        split: Which of its splits.
        encoder: Name of the store, as in `clip-h14`.
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data.stores import target_store

    _check(dataset=dataset, split=split, encoder=encoder)
    return target_store.open_all(
        Paths().under_home("embeddings"), dataset, split, [encoder]
    )[encoder]


def open_signals(dataset: str, subject: int, name: str = "default") -> "SignalStore":
    """Open a subject's signals: by split, a `Trials` with `signal` [N, R, C, T] and
    `image_ids` [N].

    Args:
        dataset: Name of the data set, as its folder below `signals/` is called.
        subject: Its number.
        name: Of the preparation.
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data import signal_stores

    _check(dataset=dataset, subject=subject, name=name)
    path = signal_stores.path_of(Paths().under_home("signals"), dataset, name, subject)
    return signal_stores.SignalStore.open(path)


def decode(
    run: Run,
    signal: "Trials",
    subject: int | None = None,
    split: str = "test",
    cell: str = "",
    device: str = "cpu",
) -> Ranks:
    """Rank the pictures of a split by their similarity to each signal of a recording,
    repetitions averaged.

    Channels are chosen by name, the window by time, and signals normalised, as the
    model was trained; a recording of another rate, or without one of the channels, is
    refused.

    Args:
        run: Of train-align.
        signal: What was recorded while pictures of the split were shown.
        subject: Whose; default: the only one that the cell is tested on.
        split: The gallery, of the run's data set. Pictures that the model learned from
            are left out.
        cell: Which model; default: the only one.
        device: Where it is computed.
    """
    from torch.nn.functional import normalize

    from brainhive_cli.core.errors import require_kind
    from brainhive_cli.core.measurements import merge_caveats
    from brainhive_cli.data.trials import Trials
    from brainhive_cli.evaluation.retrieval.measure import encode_gallery, open_gallery

    # arguments of the right types
    usage = 'api.decode(api.open_run("NAME"), api.open_signals("DATASET", 1)["test"])'
    require_kind("run", run, Run, usage)
    require_kind("signal", signal, Trials, usage)
    _check(split=split)

    # tokens of the signals, and ranks among the pictures of the split
    member = run.member(cell, device)
    subject = _only_subject(member, subject)
    trials = member.trials(subject, split, recording=signal)
    # candidates: pictures of the split that the model has not learned from
    gallery = open_gallery([member], [split])
    # [M, D] and [N, D]
    images, tokens = encode_gallery([member], gallery), member.encode(trials)
    scores = member.rank(trials, gallery, images, tokens)

    # cosine similarities beside the ranks, for measures of the caller
    similarity = normalize(tokens, dim=1) @ normalize(images, dim=1).T  # [N, M]
    return Ranks(
        [*scores.labels],
        scores.ranks,
        gallery.image_ids,
        similarity.cpu().numpy(),
        merge_caveats(signal.caveats, member.module.learned.caveats),
    )


def _only_subject(member: "TrainedModel", subject: int | None) -> int:
    """Take the subject that is named, or the only one that a cell is tested on."""
    from brainhive_cli.core.errors import RecipeError

    if subject is not None:
        _check(subject=subject)

    # the named subject, or the only one that the cell is tested on
    tested = member.cell.tested_on
    if subject in tested or (subject is None and len(tested) == 1):
        return tested[0] if subject is None else subject
    problem = (
        "several subjects" if subject is None else f"other subjects than {subject}"
    )
    raise RecipeError(
        f"{member.cell.name} is tested on {problem}",
        f"subject={' or '.join(map(str, tested))}",
    )
