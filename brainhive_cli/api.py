"""Public Python interface for notebooks and for parts outside the package.

    from brainhive_cli import api

    run = api.open_run("NAME")
    rows = run.metrics()

The names in this module stay the same when files of the package move. A name is
imported when it is first used, so importing this module imports nothing heavy. Errors
are `BrainhiveError`, with a `message` and a `hint`. Paths are relative to
`BRAINHIVE_HOME`, or to the working directory, as in the commands.

A cell is one trained model: it has training subjects, test subjects and a seed.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

# only type checkers import these here; at run time a name is imported at its first use
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

MODULE_OF_NAME = {
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
"""Module, below `brainhive_cli`, of each name that a part outside the package needs."""
__all__ = [
    *MODULE_OF_NAME,
    "Comparison",
    "Predictions",
    "Ranks",
    "Run",
    "compare",
    "decode",
    "fit",
    "open_model",
    "open_run",
    "open_signals",
    "open_store",
    "run",
    "store_trials",
]
MAX_FOLDS = 5
"""Largest number of folds of `fit` if single trials are held out."""
MAX_LDA_FEATURES = 1000
"""Largest number of features per trial for which `fit` uses LDA instead of a ridge."""
ARGUMENT_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "subject": ((Integral,), "a whole number"),
    "path": ((str, Path), "a name or path"),
}
"""Types of an argument and their description, by its name. Other arguments are text."""


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # an import at the first use keeps `import brainhive_cli.api` fast
    module = importlib.import_module(f"brainhive_cli.{MODULE_OF_NAME[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _check_arguments(**arguments: object) -> None:
    """Raise an error if an argument has a wrong type or cannot be a file name.

    Args:
        arguments: Values by the name of the argument, as `ARGUMENT_TYPES` has it.

    Raises:
        RecipeError: if a value is wrong. The error names the argument, its value and
            the type that it must have.
    """
    from brainhive_cli.core.errors import RecipeError
    from brainhive_cli.core.files import describe_bad_text

    for name, value in arguments.items():
        types, description = ARGUMENT_TYPES.get(name, ((str,), "text"))
        short_value = " ".join(repr(value)[:300].split())[:80]

        # bool is a subclass of int, but no argument is a bool
        if isinstance(value, bool) or not isinstance(value, types):
            raise RecipeError(
                f"{name} is {short_value}, of type {type(value).__name__}",
                f"{name} must be {description}; see help(brainhive_cli.api)",
            )

        # control characters and broken text cannot be in a file name
        reason = describe_bad_text(str(value)) if isinstance(value, str | Path) else ""
        if reason:
            raise RecipeError(
                f"{name} {short_value} {reason}",
                "give a name or path that a file can have",
            )


@dataclass(frozen=True)
class Predictions:
    """Predictions of a brain model for the signals of one subject and split.

    Attributes:
        image_ids: Image id [N] of the picture that each signal showed.
        heads: Predictions [N, *shape], keyed by head.
        texts: N captions, keyed by head. Only heads that predict captions have them.
        caveats: Limits of every number that is computed from these predictions.
    """

    image_ids: list[str]
    heads: "dict[str, Float32]"
    texts: dict[str, list[str]]
    caveats: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ranks:
    """Similarity of each signal to each picture of a gallery, and the resulting ranks.

    Attributes:
        image_ids: Image id [N] of the picture that each signal showed. Empty if the
            seen pictures are unknown.
        ranks: Rank [N] of the seen picture in the gallery, where 1 is the most similar
            picture. Empty if the seen pictures are unknown.
        gallery: Image ids [M] of the candidates.
        similarity: Cosine similarity [N, M] of each signal to each candidate.
        caveats: Limits of every number that is computed from these ranks.
        index: Index [N] of these signals among the trials passed to `decode`. A trial
            is left out if it shows no picture of the gallery, or a picture that the
            model was trained on.
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
        folder: Folder of the run.
        variant: Variant of a sweep, if the run was opened as `RUN:VARIANT`. Empty for
            the whole run.
    """

    folder: "RunFolder"
    variant: str = ""

    @property
    def path(self) -> Path:
        """Path of the run's folder."""
        return self.folder.path

    @cached_property
    def measurements(self) -> "Measurements":
        """All measurements of the run: metrics by scope, facts, gaps, item values."""
        return self.folder.measurements()

    def metrics(self) -> list[dict[str, Any]]:
        """Return a row for each metric and scope, with interval, chance and protocol.

        `pandas.DataFrame(run.metrics())` makes a table of the rows.
        """
        return self.measurements.rows()

    def recipe(self) -> dict[str, Any]:
        """Read the resolved recipe of the run."""
        return self.folder.recipe()

    def artifacts(self) -> "list[Artifact]":
        """Read the curves, matrices, sheets, maps, media and tables of the run."""
        from brainhive_cli.core import artifacts

        return artifacts.read(self.folder)

    def _repr_html_(self) -> str | None:
        """Return the run's report page for a notebook, with its caveats.

        Returns:
            The page as HTML, or None if the page cannot be drawn. The notebook then
            shows the `repr` of the run, without a traceback.
        """
        from brainhive_cli.core.errors import BrainhiveError

        try:
            from brainhive_cli.reports.page import frame_page
            from brainhive_cli.reports.run_page import lay_out_page
            from brainhive_cli.reports.runs_shown import RunGroup, ShownRun

            label = self.variant or self.folder.name
            group = RunGroup([ShownRun(label, self.folder, self.variant)])
            return frame_page(lay_out_page([group]))
        except (BrainhiveError, ImportError):
            return None

    @cached_property
    def cells(self) -> "list[Cell]":
        """Cells of a run of train-align: name, training and test subjects, seed."""
        return self._align.cells

    def aligner(self, cell: str = "", device: str = "cpu") -> "Aligner":
        """Load the brain model of a cell.

        Args:
            cell: Name of the cell. It may be empty if the run has a single cell.
            device: Device to load the model on, such as `cuda:0`.

        Raises:
            BrainhiveError: if the run has no models, or if the name is empty and the
                run has several. The hint lists the cells.
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
        """Decode the averaged signals of a subject with the model of a cell.

        Args:
            subject: Number of the subject. Default: the only test subject of the cell.
            split: Split of the data set. Pictures that the model was trained on are
                left out.
            cell: Name of the cell. It may be empty if the run has a single cell.
            device: Device to compute on.
        """
        _check_arguments(split=split)
        member = self.member(cell, device)
        decoded, rows = member.decoded(_choose_subject(member, subject), split)
        heads = {name: tensor.cpu().numpy() for name, tensor in decoded.tensors.items()}
        return Predictions(
            image_ids=list(member.pictures(split).image_ids[rows]),
            heads=heads,
            texts=decoded.texts,
            caveats=member.run.caveats(split),
        )

    def member(self, cell: str = "", device: str = "cpu") -> "TrainedModel":
        """Open a cell with its model and data, as evaluations do.

        Args:
            cell: Name of the cell. It may be empty if the run has a single cell.
            device: Device to load the model on.

        Raises:
            BrainhiveError: as in `aligner`.
            DeviceError: if there is no such device.
        """
        from brainhive_cli.core.launch import open_device
        from brainhive_cli.training.alignment.references import choose_cell
        from brainhive_cli.training.alignment.trained.model import TrainedModel

        _check_arguments(cell=cell)
        cell_by_name = {trained_cell.name: trained_cell for trained_cell in self.cells}
        trained_cell = choose_cell(cell_by_name, cell, self.path)
        return TrainedModel(self._align, trained_cell, open_device(device))

    @cached_property
    def _align(self) -> "TrainedRun":
        """This run as a run of train-align, which alone has a folder of cells."""
        from brainhive_cli.core.errors import RecipeError
        from brainhive_cli.training.alignment.trained.run import TrainedRun

        if not (self.path / "cells").is_dir():
            raise RecipeError(f"{self.path} has no models", "open a run of train-align")
        return TrainedRun(self.folder, self.variant)


@dataclass(frozen=True)
class Comparison:
    """Comparison of the first run with each other run.

    Attributes:
        groups: Runs of each command, with their differences and the reasons why some
            pairs were not compared.
    """

    groups: "list[RunGroup]"

    @property
    def differences(self) -> list[dict[str, Any]]:
        """Rows of the paired differences between runs, each with its test.

        `pandas.DataFrame(comparison.differences)` makes a table of the rows.
        """
        rows = []
        for group in self.groups:
            for pair in group.differences:
                # `p` is a property, which `model_dump` leaves out
                rows.append(pair.model_dump() | {"p": pair.p})
        return rows

    def _repr_html_(self) -> str:
        """Return a table of each group for a notebook.

        The caption of the table names the statistical test and the caveats.
        """
        from brainhive_cli.reports.page import frame_table
        from brainhive_cli.reports.paper_tables import paper_table

        tables = []
        for group in self.groups:
            reasons = [f"Not compared: {reason}." for reason in group.refusals]
            tables.append(frame_table(paper_table(group), reasons))
        return "\n".join(tables)


def compare(*runs: "Run | str | Path", labels: "list[str] | None" = None) -> Comparison:
    """Compare runs as the command `compare` does, without writing files.

    Args:
        runs: Two runs or more, either open or as the name that `open_run` takes.
        labels: Label of each run, in the same order. Default: the settings in which the
            runs differ.

    Raises:
        BrainhiveError: if a run does not exist, or if no two runs can be compared.
    """
    from brainhive_cli.commands import compare as command
    from brainhive_cli.core.errors import RecipeError

    if len(runs) < 2:
        raise RecipeError(
            f"compare takes two runs or more, not {len(runs)}", "compare(RUN, RUN)"
        )

    # write each run as on the command line
    names = []
    for run in runs:
        if not isinstance(run, Run):
            _check_arguments(path=run)
            names.append(str(run))
        elif run.variant:
            names.append(f"{run.path}:{run.variant}")
        else:
            names.append(str(run.path))

    # the recipe of the command applies the same checks as the command line
    options = {"runs": names, "labels": labels}
    recipe = command.Recipe.resolve("compare", None, options, [])
    return Comparison(command.compare_runs(recipe))


def open_run(name: str | Path) -> Run:
    """Open a finished run.

    Args:
        name: A finished run, as
            - the folder of the run, its name, or the end of its name
            - `RUN:VARIANT` for one variant of a sweep
            - `hub:owner/name[@revision]` for a run that `brainhive push` has uploaded,
              which is downloaded

    Raises:
        BrainhiveError: if there is no such run, or if several runs have this name.
    """
    from brainhive_cli.core import runs
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.core.runs import split_variant

    _check_arguments(path=name)
    run_name, variant = split_variant(str(name))
    folder = runs.find(Paths().under_home("runs"), None, str(run_name))
    return Run(folder, variant)


def open_model(reference: str | Path, cell: str = "", device: str = "cpu") -> "Aligner":
    """Open a trained brain model.

    Args:
        reference: A trained model, as
            - a run of train-align or `RUN:VARIANT`, as in `open_run`
            - the name of a recipe of train-align, for its newest run
            - the model folder of a cell, anywhere on disk
            - `hub:owner/name[@revision]`
        cell: Name of the cell. It may be empty if the run has a single cell.
        device: Device to load the model on.

    Raises:
        BrainhiveError: if there is no such model, or if the reference fits several
            cells. The hint lists the cells.
        DeviceError: if there is no such device.
    """
    from brainhive_cli.core.launch import open_device
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.training.alignment import model as aligners
    from brainhive_cli.training.alignment.references import find_model, find_reference

    _check_arguments(path=reference, cell=cell)
    run, variant = find_reference(str(reference), Paths())
    folder = find_model(run, variant, cell)
    return aligners.load(folder).to(open_device(device))


def open_store(dataset: str, split: str, encoder: str) -> "TargetStore":
    """Open the embeddings that the command `embed` has stored.

    Args:
        dataset: Name of the data set, which is a folder below `embeddings/`.
        split: Split of the data set.
        encoder: Name of the encoder, such as `clip-h14`.

    Returns:
        The store, with `embedding` [N, *shape], `image_ids` [N], `concepts` [N] and
        `done` [N].
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data.stores import target_store

    _check_arguments(dataset=dataset, split=split, encoder=encoder)
    folder = Paths().under_home("embeddings")
    return target_store.open_all(folder, dataset, split, [encoder])[encoder]


def open_signals(dataset: str, subject: int, name: str = "default") -> "SignalStore":
    """Open the prepared signals of a subject.

    Args:
        dataset: Name of the data set, which is a folder below `signals/`.
        subject: Number of the subject.
        name: Name of the preparation.

    Returns:
        The store. `store["test"]` is the `Trials` of the test split, with `signal`
        [N, R, C, T] and `image_ids` [N].
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data.stores import signal_store

    _check_arguments(dataset=dataset, subject=subject, name=name)
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
    """Run a command, with the recipe, run folder and progress bar of the command line.

    Args:
        command: Name of the command, such as `train-align`.
        recipe: YAML file or name of a shipped recipe. Default: the recipe of the
            command.
        again: If True, start a new run even if the same run is finished.
        allow_code: If True, allow code that is not part of Brainhive to run.
        keys: Recipe keys, nested (`train={"lr": 1e-3}`) or dotted (`**{"train.lr":
            1e-3}`). A dict sets only the keys in it. A dict with the key `kind` is a
            part and replaces the whole part.

    Returns:
        The folder, tables and metrics. `open_run(result.folder)` opens the run.

    Raises:
        BrainhiveError: if the command fails.
    """
    from brainhive_cli.cli import execute, table
    from brainhive_cli.core import foreign_code, launch
    from brainhive_cli.core.errors import RecipeError, guess

    _check_arguments(command=command)
    names = [spec.name for spec in table.COMMANDS]
    if command not in names:
        hint = guess(command, names) + ", ".join(names)
        raise RecipeError(f"no command {command!r}", hint)

    # further processes are started with this command line
    overrides = [f"{key}={_write_override(value)}" for key, value in _list_keys(keys)]
    line = [command]
    if recipe:
        line += ["--recipe", str(recipe)]
    line += overrides
    if again:
        line.append("--again")
    if allow_code:
        line.append("--allow-code")

    token = launch.COMMAND_LINE.set(line)
    try:
        with foreign_code.allow_code(allow_code):
            module_name = command.replace("-", "_")
            module = importlib.import_module(f"brainhive_cli.commands.{module_name}")
            recipe_name = None if recipe is None else str(recipe)
            resolved = module.Recipe.resolve(command, recipe_name, {}, overrides)
            n_processes = execute.count_processes(resolved)
            if n_processes == 1:
                _, result = execute.perform(command, module, resolved, again)
                return result

            # the processes have done the work, so this one only reads the result
            if launch.relaunch(resolved.run, n_processes, resolved.MEMORY_HINT):
                raise KeyboardInterrupt
            return module.run(resolved, launch.READ_ONLY)
    finally:
        launch.COMMAND_LINE.reset(token)


def _list_keys(keys: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested recipe keys to pairs of a dotted key and its value.

    A dict with the key `kind` is a part, which stays one value.
    """
    for key, value in keys.items():
        if isinstance(value, dict) and value and "kind" not in value:
            yield from _list_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _write_override(value: Any) -> str:
    """Write a value as in an override, with arrays as lists and paths as text."""
    import json

    from brainhive_cli.core.errors import write_value

    def convert_to_json_type(item: Any) -> Any:
        if hasattr(item, "model_dump"):
            return item.model_dump(mode="json")
        return item.tolist() if hasattr(item, "tolist") else str(item)

    return write_value(json.loads(json.dumps(value, default=convert_to_json_type)))


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
    """Write trials from memory to the signal store of a subject.

    All commands can then read the trials. A store of the same name is replaced.

    Args:
        X: Array [n, C, T] of sensors or [n, V] of voxels, mne.Epochs, or
            xarray.DataArray.
        pictures: Picture [n] that each trial showed, as path, file name, image id or
            category. Also the name of a column of the MNE metadata, or of an xarray
            coordinate. Default: the names of the MNE events.
        dataset: Kind of the data set, or a dict of its keys, such as `{"kind":
            "image-folder", "root": FOLDER, "test_share": 0.2}`. The data set
            `categories` has the categories in `pictures`.
        subject: Number of the subject.
        session: Session label [n] of each trial, or None for a single session.
        run: Run label [n] of each trial, or None if unknown.
        name: Name of the preparation, as in the key `signal.name`.
        whitened: True if the signals are whitened. If None, results have the caveat
            that earlier steps are unknown.
        averaged: True if each trial is an average of several trials. If None, results
            have the same caveat.
        axes: Axes of the signals, by name:
            - arrays: `channels` or `space` (`Sensors`, `Voxels`), `times_s` [T] from
              the onset, `rate_hz` and `unit`
            - epochs: `channels` or `types` to select
            - arrays and epochs: `onset_s` [n], time of each trial in its run. By
              default, trials are in the order of time. If they are not, set
              `onset_s="unknown"`, which adds a caveat.

    Returns:
        The stored trials [m], in the order of `X`. `index` [m] has their positions in
        `X`. A trial that shows no picture of the data set is left out, with a warning.

    Raises:
        BrainhiveError: if an axis is missing or does not fit, or if no trial shows a
            picture of the data set.
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data.recordings import epochs
    from brainhive_cli.data.stores import own_arrays, signal_store

    _check_arguments(subject=subject, name=name)
    trials = epochs.as_trials(X, pictures, **axes)
    stimuli = _resolve_dataset(dataset, trials.image_ids).build(Paths())
    folder = Paths().under_home("signals")
    path = signal_store.path_of(folder, stimuli.recorded_as, name, subject)
    earlier_steps = {}
    if whitened is not None:
        earlier_steps["whitened"] = bool(whitened)
    if averaged is not None:
        earlier_steps["averaged"] = bool(averaged)
    return own_arrays.store(trials, stimuli, path, subject, session, run, earlier_steps)


def _resolve_dataset(dataset: Any, image_ids: Sequence[str]) -> Any:
    """Resolve the config of a data set.

    Args:
        dataset: Config, kind, or dict of the keys of the data set.
        image_ids: Picture or category [n] of each trial. They name the categories of
            the data set `categories` if the dict does not.
    """
    from brainhive_cli.core import parts
    from brainhive_cli.core.errors import RecipeError

    if hasattr(dataset, "build"):
        return dataset
    keys = dict(dataset) if isinstance(dataset, dict) else {"kind": dataset}
    if keys.get("kind") == "categories" and "names" not in keys and "root" not in keys:
        categories = sorted(set(image_ids) - {""})
        if len(categories) < 2:
            raise RecipeError(
                f"all trials show {', '.join(categories) or 'nothing'}",
                "give at least two categories: pictures=[n] is the category of each "
                "trial of X",
            )
        keys["names"] = categories
    return parts.resolve("datasets", keys)


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
    """Store trials, embed their pictures, train a decoder, and evaluate it.

    Args:
        X: Trials, as in `store_trials`.
        pictures: Picture or category [n] of each trial, as in `store_trials`.
        folder: Folder of the pictures, opened as the data set `image-folder`. If None,
            `pictures` are categories, and each run (or each trial, if there are no
            runs) is tested by a model that was trained on the others.
        subject: Number of the subject.
        runs: Run label [n] of each trial.
        session: Session label [n] of each trial.
        test_share: Share of the concepts to test. Unused if the folder has a subfolder
            `test`.
        encoders: Encoders of the pictures. Default: the usual encoders of the data set.
        keys: Recipe keys of train-align, such as `{"backbone": "brain-mlp"}`.
        axes: Axes of the signals, as in `store_trials`.

    Returns:
        The run of train-align and the run of eval-retrieval.

    Raises:
        RecipeError: if there are too few runs, or too few trials of a category, to hold
            some out.
    """
    import numpy as np

    # store the trials with their pictures or categories
    dataset: dict[str, Any] = {"kind": "categories"}
    if folder is not None:
        dataset = {"kind": "image-folder", "root": str(Path(folder).resolve())}
        has_test_folder = (Path(folder) / "test").is_dir()
        if not has_test_folder:
            dataset["test_share"] = test_share
    trials = store_trials(X, pictures, dataset, subject, session, runs, **axes)

    # categories are decoded by a linear model
    train_keys: dict[str, Any] = {"subjects": [subject]}
    if folder is None:
        categories = list(trials.image_ids)
        dataset["names"] = sorted(set(categories))
        dataset["holdout"] = _choose_folds(categories, runs, trials.index)
        train_keys["seeds"] = [0]
        # LDA needs the covariance of all features, which takes minutes for many
        n_features = np.prod(trials.signal.shape[2:])
        ridge = {"kind": "ridge", "alpha": "auto", "standardise": False}
        train_keys["backbone"] = "lda" if n_features <= MAX_LDA_FEATURES else ridge
    train_keys |= keys or {}

    # run the three commands
    data_keys: dict[str, Any] = {"dataset": dataset}
    if encoders:
        data_keys["encoders"] = encoders
    run("embed", **data_keys)
    training_folder = run("train-align", **(data_keys | train_keys)).folder
    evaluation_folder = run("eval-retrieval", run=training_folder).folder
    return open_run(training_folder), open_run(evaluation_folder)


def _choose_folds(
    categories: Sequence[str], runs: Any, index: Any
) -> dict[str, str | int]:
    """Choose whether `fit` holds out runs or single trials, and in how many folds.

    Args:
        categories: Category [m] of each stored trial.
        runs: Run label [n] of each trial, or None.
        index: Positions [m] of the stored trials among the n.

    Returns:
        Keys of `dataset.holdout`.

    Raises:
        RecipeError: if the trials outside a fold are not enough to train a model.
    """
    from collections import Counter

    import numpy as np

    from brainhive_cli.core.errors import RecipeError

    # hold out single trials if there are no runs
    if runs is None:
        largest_category = max(Counter(categories).values())
        if largest_category < 2:
            raise RecipeError(
                f"each of the {len(categories)} trials has a category of its own in "
                "pictures",
                "a category needs two trials, to train and to test; if pictures are "
                "file names, set folder=FOLDER",
            )
        return {"by": "trials", "folds": min(MAX_FOLDS, largest_category)}

    # hold out each run once
    run_labels = np.unique(runs)
    if len(run_labels) < 2:
        raise RecipeError(
            f"runs is {run_labels[0]} for all {len(categories)} trials of X",
            "give the run of each trial, with two runs or more: runs=[n]; without "
            "runs, single trials are held out",
        )
    run_of_trial = np.asarray(runs)[index]
    stored_runs = np.unique(run_of_trial)
    for held_out_run in stored_runs:
        is_training = run_of_trial != held_out_run
        training_categories = np.unique(np.array(categories)[is_training])
        if len(training_categories) < 2:
            raise RecipeError(
                f"without run {held_out_run}, the trials of X show only "
                f"{', '.join(training_categories)}",
                "each run is tested by a model of the other runs, which must show two "
                "categories or more; without runs, single trials are held out",
            )
    return {"by": "runs", "folds": len(stored_runs)}


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
    """Compare each signal of a recording with all pictures of a split.

    The signals are prepared for the model as in its training: channels are selected by
    name, the window is cut by time, and the signals are normalised.

    Args:
        model: Run of train-align, either open or as the name that `open_run` takes.
        signal: Signals to decode, as
            - `Trials`, whose repetitions are averaged
            - arrays, mne.Epochs or xarray.DataArray, as in `store_trials`. Each trial
              is decoded separately. The preparation steps of the model that epochs
              allow are applied (baseline, resampling, whitening by the noise of the
              training). A caveat names each other step.
        subject: Number of the subject. Default: the only test subject of the cell.
        split: Split of the run's data set whose pictures are the gallery. Pictures that
            the model was trained on are left out.
        cell: Name of the cell. It may be empty if the run has a single cell.
        device: Device to compute on.
        pictures: Picture [n] that each trial showed. If None, events of mne.Epochs may
            name the pictures. Otherwise the result has similarities but no ranks.
        axes: Axes of the signals, as in `store_trials`. An array [n, C, T] of the size
            of the model's input has the axes of the model by default. `delay_ms` is the
            time from 0 to the picture, by default `preparation.delay_ms` of the
            training.

    Raises:
        BrainhiveError: if the recording has another sampling rate than the model, or
            lacks one of its channels.
    """
    import numpy as np
    from torch.nn.functional import normalize

    from brainhive_cli.core.errors import require_kind
    from brainhive_cli.core.measurements import merge_caveats
    from brainhive_cli.data.signals.trials import Trials
    from brainhive_cli.evaluation.retrieval.measure import encode_gallery, open_gallery
    from brainhive_cli.training.alignment.trained.new_trials import read_new

    # open the model, and the recording as trials
    usage = 'api.decode(api.open_run("NAME"), api.open_signals("DATASET", 1)["test"])'
    model = open_run(model) if isinstance(model, str | Path) else model
    require_kind("model", model, Run, usage)
    _check_arguments(split=split)
    member = model.member(cell, device)
    subject = _choose_subject(member, subject)
    preparation_caveats = list[str]()
    if not isinstance(signal, Trials):
        signal, preparation_caveats = read_new(
            member, subject, split, signal, pictures, axes
        )

    # compute a token for each trial and for each picture of the gallery
    trials = member.trials(subject, split, recording=signal)
    gallery = open_gallery([member], [split])
    picture_tokens = encode_gallery([member], gallery)  # [M, D]
    signal_tokens = member.encode(trials)  # [N, D]
    similarity = normalize(signal_tokens, dim=1) @ normalize(picture_tokens, dim=1).T

    # rank the seen pictures, if they are known
    image_ids = list[str]()
    ranks = np.zeros(0, np.int64)
    if len(signal.image_ids):
        scores = member.rank(trials, gallery, picture_tokens, signal_tokens)
        image_ids = list(scores.labels)
        ranks = scores.ranks

    index = np.arange(len(similarity)) if trials.index is None else trials.index
    caveats = merge_caveats(signal.caveats, member.module.learned.caveats)
    return Ranks(
        image_ids=image_ids,
        ranks=ranks,
        gallery=gallery.image_ids,
        similarity=similarity.cpu().numpy(),
        caveats=caveats + preparation_caveats,
        index=index,
    )


def _choose_subject(member: "TrainedModel", subject: int | None) -> int:
    """Return the requested subject, or the only test subject of a cell.

    Raises:
        RecipeError: if the cell is not tested on the subject, or if no subject is
            requested and the cell is tested on several.
    """
    from brainhive_cli.core.errors import RecipeError

    test_subjects = member.cell.tested_on
    if subject is None and len(test_subjects) == 1:
        return test_subjects[0]
    problem = "several subjects"
    if subject is not None:
        _check_arguments(subject=subject)
        if subject in test_subjects:
            return subject
        problem = f"other subjects than {subject}"
    raise RecipeError(
        f"{member.cell.name} is tested on {problem}",
        f"subject={' or '.join(map(str, test_subjects))}",
    )
