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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

# for type checkers alone: at run time names are imported when they are used
if TYPE_CHECKING:
    from brainhive_cli.core.arrays import Float32, Int64
    from brainhive_cli.core.artifacts import Artifact
    from brainhive_cli.core.command import Result
    from brainhive_cli.core.errors import BrainhiveError
    from brainhive_cli.core.measurements import Measurements
    from brainhive_cli.core.parts import Config
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.core.runs import RunFolder
    from brainhive_cli.data.datasets import Dataset
    from brainhive_cli.data.files.ids import Names
    from brainhive_cli.data.media.stimuli import StimulusSet
    from brainhive_cli.data.signals.normalisations import Normaliser
    from brainhive_cli.data.signals.spaces import Grid, Sensors, Surface, Voxels
    from brainhive_cli.data.signals.trials import Trials
    from brainhive_cli.data.stores.signal_store import SignalStore
    from brainhive_cli.data.stores.target_store import TargetStore
    from brainhive_cli.data.targets.model_input import model_input
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
    from brainhive_cli.training.alignment.cells import Cell
    from brainhive_cli.training.alignment.model import Aligner
    from brainhive_cli.training.alignment.trained.model import TrainedModel
    from brainhive_cli.training.alignment.trained.run import TrainedRun

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
    "Grid": "data.signals.spaces",
    "LossConfig": "models.losses",
    "LossContext": "models.losses",
    "MetricPart": "measurement.metrics",
    "Names": "data.files.ids",
    "Normaliser": "data.signals.normalisations",
    "Paths": "core.recipe",
    "Trials": "data.signals.trials",
    "Sampling": "models.generators",
    "Sensors": "data.signals.spaces",
    "SignalSpec": "models.signal_spec",
    "StimulusSet": "data.datasets",
    "Surface": "data.signals.spaces",
    "Voxels": "data.signals.spaces",
    "model_input": "data.targets.model_input",
}
"""Modules of the names that a part outside the package needs."""
__all__ = [
    *PLACES,
    *("Comparison", "Predictions", "Ranks", "Run"),
    *("compare", "decode", "fit", "run", "store_trials"),
    *("open_model", "open_run", "open_signals", "open_store"),
]
MAX_FOLDS = 5
"""Folds in which `fit` holds out single trials, where no runs are named."""
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
        ranks: [N] of the seen picture among all of the gallery; 1 is the most similar;
            empty, as `image_ids`, where nobody knows what was seen.
        gallery: [M] image ids of the candidates.
        similarity: [N, M] cosine similarities.
        caveats: What a reader must know of every number that is made of them.
        index: [N] which of the trials that were given these are; others showed no
            picture of the gallery, or one that the model learned from.
    """

    image_ids: list[str]
    ranks: "Int64"
    gallery: list[str]
    similarity: "Float32"
    caveats: list[str] = field(default_factory=list)
    index: "Int64 | None" = None


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
        image_ids = list(member.pictures(split).image_ids[rows])
        caveats = member.run.caveats(split)
        return Predictions(image_ids, heads, decoded.texts, caveats)

    def member(self, cell: str = "", device: str = "cpu") -> "TrainedModel":
        """Open a cell with its model, as evaluations do; raises as `aligner`."""
        from brainhive_cli.core.launch import open_device
        from brainhive_cli.training.alignment.references import choose_cell
        from brainhive_cli.training.alignment.trained.model import TrainedModel

        _check(cell=cell)
        cells = {trained.name: trained for trained in self.cells}
        chosen = choose_cell(cells, cell, self.path)
        return TrainedModel(self._align, chosen, open_device(device))

    @cached_property
    def _align(self) -> "TrainedRun":
        from brainhive_cli.core.errors import RecipeError
        from brainhive_cli.training.alignment.trained.run import TrainedRun

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
    from brainhive_cli.data.stores import signal_store

    _check(dataset=dataset, subject=subject, name=name)
    path = signal_store.path_of(Paths().under_home("signals"), dataset, name, subject)
    return signal_store.SignalStore.open(path)


def run(
    command: str,
    recipe: str | Path | None = None,
    *,
    again: bool = False,
    allow_code: bool = False,
    **keys: Any,
) -> "Result":
    """Run a command as the command line does: same recipe, run folder and progress.

    Args:
        command: As `train-align`.
        recipe: A YAML file, or the name of a shipped recipe; default: the command's.
        again: Whether a new run is started even if the same one is finished.
        allow_code: Whether code that is not Brainhive's may run.
        keys: Recipe keys, nested (`train={"lr": 1e-3}`) or dotted (`**{"train.lr":
            1e-3}`). A dict sets the keys that it names; one with `kind` is a part,
            which it replaces.

    Returns:
        Its folder, tables and metrics; `open_run(result.folder)` opens its run.

    Raises:
        BrainhiveError: as the command would end with.
    """
    from brainhive_cli.cli import execute, table
    from brainhive_cli.core import foreign_code, launch
    from brainhive_cli.core.errors import RecipeError, guess

    _check(command=command)
    names = [each.name for each in table.COMMANDS]
    if command not in names:
        hint = guess(command, names) + ", ".join(names)
        raise RecipeError(f"no command {command!r}", hint)

    # the line as one would type it, which several processes are started with
    overrides = [f"{key}={_write(value)}" for key, value in _list_keys(keys)]
    line = [command, *(["--recipe", str(recipe)] if recipe else []), *overrides]
    token = launch.COMMAND_LINE.set(
        line + ["--again"] * again + ["--allow-code"] * allow_code
    )
    try:
        with foreign_code.permitted(allow_code):
            file = command.replace("-", "_")
            module = importlib.import_module(f"brainhive_cli.commands.{file}")
            name = None if recipe is None else str(recipe)
            resolved = module.Recipe.resolve(command, name, {}, overrides)
            if (processes := execute.count_processes(resolved)) == 1:
                return execute.perform(command, module, resolved, again)[1]
            if launch.relaunch(resolved.run, processes, resolved.LESS_MEMORY):
                raise KeyboardInterrupt
            return module.run(resolved, launch.READ_ONLY)
    finally:
        launch.COMMAND_LINE.reset(token)


def _list_keys(keys: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """List dotted recipe keys and their values; parts are one value each."""
    for key, value in keys.items():
        if isinstance(value, dict) and value and "kind" not in value:
            yield from _list_keys(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _write(value: Any) -> str:
    """Write a value as an override has it: arrays as lists, paths as text."""
    import json

    from brainhive_cli.core.errors import write_value

    def simplify(other: Any) -> Any:
        if hasattr(other, "model_dump"):
            return other.model_dump(mode="json")
        return other.tolist() if hasattr(other, "tolist") else str(other)

    return write_value(json.loads(json.dumps(value, default=simplify)))


def store_trials(
    X: Any,
    pictures: Any = None,
    dataset: Any = "image-folder",
    subject: int = 1,
    session: Any = None,
    run: Any = None,
    *,
    name: str = "default",
    whitened: bool | None = None,
    averaged: bool | None = None,
    **axes: Any,
) -> "Trials":
    """Write trials from memory as a subject's signal store, which all commands read.

    Args:
        X: [n, C, T] of sensors, [n, V] of voxels, mne.Epochs, or an xarray.DataArray.
        pictures: [n] what each trial showed: path, file name, image id or category;
            or the column of mne's metadata, or the coordinate of xarray, that says it.
            Default: the names of mne's events.
        dataset: Its kind, or a dict of its keys, as `{"kind": "image-folder", "root":
            FOLDER, "test_share": 0.2}`; `categories` are those that `pictures` names.
        subject: Whose trials; a store that is there is replaced.
        session: [n] label of each trial's session; None: all are of one.
        run: [n] of each trial's run; None: not known.
        name: Of the preparation, which `signal.name` reads.
        whitened: Whether the signals are whitened; None: results say that it is not
            known, as of `averaged`.
        averaged: Whether each trial is an average of several.
        axes: Of arrays `channels` or `space` (`Sensors`, `Voxels`), `times_s` [T] from
            the onset, `rate_hz`, `unit`; of epochs `channels` or `types` that are
            taken; of both `onset_s` [n], in the run. Without it, rows are in the order
            of time; where they are not, `onset_s="unknown"`, and results say so.

    Returns:
        The trials that were stored, a row each, in their order; `index` [m] says which
        of the n. Those of other pictures are left out, counted and warned of.

    Raises:
        BrainhiveError: if an axis is missing or does not fit, or no trial shows a
            picture of the data set.
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data.recordings import epochs
    from brainhive_cli.data.stores import own_arrays, signal_store

    _check(subject=subject, name=name)
    trials = epochs.as_trials(X, pictures, **axes)
    built = _resolve_dataset(dataset, trials.image_ids).build(Paths())
    folder = Paths().under_home("signals")
    path = signal_store.path_of(folder, built.recorded_as, name, subject)
    said = {"whitened": whitened, "averaged": averaged}
    said = {key: bool(value) for key, value in said.items() if value is not None}
    return own_arrays.store(trials, built, path, subject, session, run, said)


def _resolve_dataset(dataset: Any, names: Sequence[str]) -> Any:
    """Resolve a data set; of categories that nobody lists, those of the trials."""
    from brainhive_cli.core import parts
    from brainhive_cli.core.errors import RecipeError

    fields = dict(dataset) if isinstance(dataset, dict) else {"kind": dataset}
    if fields.get("kind") == "categories" and not fields.keys() & {"names", "root"}:
        fields["names"] = sorted({*names} - {""})
        if len(fields["names"]) < 2:
            raise RecipeError(
                f"all trials show {', '.join(fields['names']) or 'nothing'}",
                "decoding tells two categories or more apart: pictures=[n], what each "
                "trial of X showed",
            )
    return dataset if hasattr(dataset, "build") else parts.resolve("datasets", fields)


def fit(
    X: Any,
    pictures: Any = None,
    folder: str | Path | None = None,
    *,
    subject: int = 1,
    runs: Any = None,
    session: Any = None,
    test_share: float = 0.2,
    encoders: Any = None,
    keys: Mapping[str, Any] | None = None,
    **axes: Any,
) -> tuple[Run, Run]:
    """Store trials, embed what they showed, train a decoder, and evaluate it.

    Args:
        X: As `store_trials` takes it, with `pictures`, `session` and `axes`.
        pictures: What each trial showed.
        folder: Of the pictures, as `image-folder`; None: `pictures` are categories, and
            each run is held out once.
        subject: Whose trials.
        runs: [n] run of each trial.
        session: [n] session of each trial.
        test_share: Of concepts that are tested; a folder with `test` has its own.
        encoders: Of the pictures; default: the data set's usual ones.
        keys: Recipe keys of train-align, as `{"backbone": "brain-mlp"}`.

    Returns:
        The runs of train-align and eval-retrieval.

    Raises:
        RecipeError: if categories have too few runs, or trials, to be held out.
    """
    import numpy as np

    dataset: dict[str, Any] = {"kind": "categories"}
    keys = {"subjects": [subject], **(keys or {})}
    if folder is not None:
        is_split = (Path(folder) / "test").is_dir()
        share = {} if is_split else {"test_share": test_share}
        dataset = {"kind": "image-folder", "root": str(Path(folder).resolve()), **share}
    trials = store_trials(X, pictures, dataset, subject, session, runs, **axes)
    if folder is None:
        folds = _choose_folds([*trials.image_ids], runs, trials.index)
        dataset |= {"names": sorted({*trials.image_ids}), "holdout": folds}
        # the covariance of many numbers takes minutes
        is_small = np.prod(trials.signal.shape[2:]) <= 1000
        ridge = {"kind": "ridge", "alpha": "auto", "standardise": False}
        keys = {"backbone": "lda" if is_small else ridge, "seeds": [0], **keys}
    chosen = {"dataset": dataset, **({"encoders": encoders} if encoders else {})}
    run("embed", **chosen)
    trained = run("train-align", **{**chosen, **keys}).folder
    return open_run(trained), open_run(run("eval-retrieval", run=trained).folder)


def _choose_folds(shown: Sequence[str], runs: Any, index: Any) -> dict[str, Any]:
    """Choose how `fit` holds out categories: each run once, or else single trials.

    Args:
        shown: [m] category of each stored trial.
        runs: [n] run of each trial, or None.
        index: [m] which of the n trials were stored.

    Raises:
        RecipeError: in the words of `fit`, if nothing is left to learn from.
    """
    from collections import Counter

    import numpy as np

    from brainhive_cli.core.errors import RecipeError

    # without runs, single trials are held out
    if runs is None:
        ((_, most),) = Counter(shown).most_common(1)
        if most < 2:
            raise RecipeError(
                f"pictures names another category for each of the {len(shown)} trials",
                "a trial is tested by a model of other trials of its category; if "
                "pictures are names of files, folder=… says where they lie",
            )
        return {"by": "trials", "folds": min(MAX_FOLDS, most)}

    # each run is tested by a model of the others
    numbers = np.unique(runs)
    if len(numbers) < 2:
        raise RecipeError(
            f"runs has one value, {numbers[0]}, for all {len(shown)} trials of X",
            "each run is held out once, so give two or more: runs=[n], the run of each "
            "trial; or leave runs out, and single trials are held out",
        )
    run_of_trial = np.asarray(runs)[index]
    for number in np.unique(run_of_trial):
        others = sorted({*np.array(shown)[run_of_trial != number].tolist()})
        if len(others) < 2:
            raise RecipeError(
                f"without run {number}, the trials of X show {', '.join(others)} alone",
                "a model of the other runs is tested on each run, so two categories or "
                "more have to stand in several runs; or leave runs out",
            )
    return {"by": "runs", "folds": len(np.unique(run_of_trial))}


def decode(
    model: Run | str | Path,
    signal: Any,
    subject: int | None = None,
    split: str = "test",
    cell: str = "",
    device: str = "cpu",
    pictures: Any = None,
    **axes: Any,
) -> Ranks:
    """Rank the pictures of a split by their similarity to each signal of a recording.

    Channels are chosen by name, the window by time, and signals normalised, as the
    model was trained; a recording of another rate, or without one of the channels, is
    refused.

    Args:
        model: Run of train-align, open or by name.
        signal: `Trials`, whose repetitions are averaged; or arrays, mne.Epochs or
            xarray, as `store_trials` takes them: each trial is decoded by itself, after
            those steps of the model's preparation that epochs allow (baseline,
            resampling, whitening by the training's noise). The others are caveats.
        subject: Whose; default: the only one that the cell is tested on.
        split: The gallery, of the run's data set. Pictures that the model learned from
            are left out.
        cell: Which model; default: the only one.
        device: Where it is computed.
        pictures: [n] what each trial showed; None: not known, and nothing is ranked.
        axes: As of `store_trials`; of an array [n, C, T] of the model's own size,
            default: the model's. `delay_ms` is the time from 0 to the picture, default:
            preparation.delay_ms of the training.
    """
    import numpy as np
    from torch.nn.functional import normalize

    from brainhive_cli.core.errors import require_kind
    from brainhive_cli.core.measurements import merge_caveats
    from brainhive_cli.data.signals.trials import Trials
    from brainhive_cli.evaluation.retrieval.measure import encode_gallery, open_gallery
    from brainhive_cli.training.alignment.trained.new_trials import read_new

    # arguments of the right types
    usage = 'api.decode(api.open_run("NAME"), api.open_signals("DATASET", 1)["test"])'
    model = open_run(model) if isinstance(model, str | Path) else model
    require_kind("model", model, Run, usage)
    _check(split=split)
    member = model.member(cell, device)
    subject = _only_subject(member, subject)
    differs = list[str]()
    if not isinstance(signal, Trials):
        signal, differs = read_new(member, subject, split, signal, pictures, axes)

    # tokens of the signals, and ranks among the pictures of the split
    trials = member.trials(subject, split, recording=signal)
    # candidates: pictures of the split that the model has not learned from
    gallery = open_gallery([member], [split])
    # [M, D] and [N, D]
    images = encode_gallery([member], gallery)
    tokens = member.encode(trials)
    ids = list[str]()
    ranks = np.zeros(0, np.int64)
    if len(signal.image_ids):
        scores = member.rank(trials, gallery, images, tokens)
        ids, ranks = [*scores.labels], scores.ranks

    # cosine similarities beside the ranks, for measures of the caller
    similarity = normalize(tokens, dim=1) @ normalize(images, dim=1).T  # [N, M]
    return Ranks(
        ids,
        ranks,
        gallery.image_ids,
        similarity.cpu().numpy(),
        [*merge_caveats(signal.caveats, member.module.learned.caveats), *differs],
        np.arange(len(similarity)) if trials.index is None else trials.index,
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
