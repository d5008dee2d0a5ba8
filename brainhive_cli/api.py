"""Public Python interface for notebooks and for users' own modules.

    from brainhive_cli import api

    run = api.open_run("NAME")
    rows = run.metrics()

Errors are `BrainhiveError`, with a `message` and a `hint`. Relative paths start at the
folder `BRAINHIVE_HOME`, or at the working directory if that variable is not set.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
"""Module, below `brainhive_cli`, of each name that a user's own module may import."""
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
"""Number of features per trial above which `fit` uses ridge regression instead of
linear discriminant analysis (LDA).
"""
ARGUMENT_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "subject": ((Integral,), "a whole number"),
    "path": ((str, Path), "a name or path"),
}
"""Allowed types and their description, by the name of an argument. Other arguments are
text.
"""


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # import late, so that `import brainhive_cli.api` is fast
    module = importlib.import_module(f"brainhive_cli.{MODULE_OF_NAME[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _check_arguments(**arguments: object) -> None:
    """Raise an error if an argument has a wrong type or cannot be part of a file name.

    Args:
        arguments: Values by the name of the argument, such as `subject`.
    """
    from brainhive_cli.core.errors import RecipeError
    from brainhive_cli.core.files import describe_bad_text

    for name, value in arguments.items():
        allowed_types, description = ARGUMENT_TYPES.get(name, ((str,), "text"))

        # show the value on a single line of at most 80 characters
        short_value = " ".join(repr(value)[:300].split())[:80]

        # no argument is a bool, but Python counts True and False as integers
        if isinstance(value, bool) or not isinstance(value, allowed_types):
            raise RecipeError(
                f"{name} is {short_value}, of type {type(value).__name__}",
                f"{name} must be {description}; see help(brainhive_cli.api)",
            )

        problem = describe_bad_text(str(value))
        if problem:
            raise RecipeError(
                f"{name} {short_value} {problem}",
                "give a name or path that a file can have",
            )


@dataclass(frozen=True)
class Predictions:
    """Predictions of a brain model for the signals of a subject and split.

    Attributes:
        image_ids: Image ids [N] of the seen pictures.
        heads: Predictions [N, *shape] by the name of the head (output of the model).
        texts: Lists of N captions by the name of the head. Other heads have no list.
        caveats: Texts on the limits of these predictions, such as "simulated".
    """

    image_ids: list[str]
    heads: "dict[str, Float32]"
    texts: dict[str, list[str]]
    caveats: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ranks:
    """Similarity of each signal to each picture of a gallery, and the resulting ranks.

    Attributes:
        image_ids: Image ids [N] of the seen pictures. Empty if they are unknown.
        ranks: Ranks [N] of the seen pictures. The picture with rank 1 is most similar
            to the signal. Empty if the seen pictures are unknown.
        gallery: Image ids [M] of the candidate pictures.
        similarity: Cosine similarity [N, M] between signals and pictures.
        caveats: Texts on the limits of these ranks, such as "simulated".
        index: Positions [N] of the signals among the trials passed to `decode`.
    """

    image_ids: list[str]
    ranks: "Int64"
    gallery: list[str]
    similarity: "Float32"
    caveats: list[str] = field(default_factory=list)
    index: "Int64 | None" = None


@dataclass(frozen=True)
class Run:
    """A finished run (one execution) of a command, read from its folder.

    Attributes:
        folder: Folder of the run.
        variant: Name of the variant of a sweep (a run with several settings), if it was
            opened as `RUN:VARIANT`, else "".
    """

    folder: "RunFolder"
    variant: str = ""

    @property
    def path(self) -> Path:
        """Path of the run's folder."""
        return self.folder.path

    @cached_property
    def measurements(self) -> "Measurements":
        """Metrics, facts, missing values and values of single items of the run."""
        return self.folder.measurements()

    def metrics(self) -> list[dict[str, Any]]:
        """Return a row for each metric and scope, such as a subject or all subjects.

        A row has an interval, a chance level and a protocol. `pandas.DataFrame` makes a
        table of the rows.
        """
        return self.measurements.rows()

    def recipe(self) -> dict[str, Any]:
        """Read the settings of the run, with all defaults filled in."""
        return self.folder.recipe()

    def artifacts(self) -> "list[Artifact]":
        """Read the figures, media and tables that the run has written."""
        from brainhive_cli.core import artifacts

        return artifacts.read(self.folder)

    def _repr_html_(self) -> str | None:
        """Return the report page of the run as HTML, or None if it cannot be drawn."""
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
        """Cells (trained models) of the run, with their subjects and seeds."""
        return self._align.cells

    def aligner(self, cell: str = "", device: str = "cpu") -> "Aligner":
        """Load the PyTorch module of a cell (a trained model of the run).

        Args:
            cell: Name of the cell, as in `cells`, or "" for the only cell.
            device: Device, such as `cuda:0`.

        Raises:
            BrainhiveError: if there is no such cell, or if `cell` is "" and there are
                several.
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
        """Decode the signals of a subject, averaged over the trials of each picture.

        Args:
            subject: Number of the subject. None stands for the only test subject.
            split: Split of the data set, such as `test`. Pictures that the model was
                trained on are left out.
            cell: Name of the cell (trained model), or "" for the only cell.
            device: Device to compute on.

        Returns:
            Predictions for N pictures: an array [N, *shape] for each head (output of
            the model), captions, and the ids [N] of the pictures.
        """
        _check_arguments(split=split)
        member = self.member(cell, device)
        subject = _choose_subject(member, subject)

        # `picture_rows` [N] are the rows of the seen pictures in the split
        decoded, picture_rows = member.decode_signals(subject, split)
        heads = {name: tensor.cpu().numpy() for name, tensor in decoded.tensors.items()}
        return Predictions(
            image_ids=list(member.open_pictures(split).image_ids[picture_rows]),
            heads=heads,
            texts=decoded.texts,
            caveats=member.run.list_caveats(split),
        )

    def member(self, cell: str = "", device: str = "cpu") -> "TrainedModel":
        """Open a cell (a trained model of the run) together with its data.

        Args:
            cell: Name of the cell, as in `cells`, or "" for the only cell.
            device: Device, such as `cuda:0`.

        Raises:
            BrainhiveError: if there is no such cell, or if `cell` is "" and there are
                several.
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
        """The same run, opened with its trained models."""
        from brainhive_cli.core.errors import RecipeError
        from brainhive_cli.training.alignment.trained.run import TrainedRun

        if not (self.path / "cells").is_dir():
            raise RecipeError(f"{self.path} has no models", "open a run of train-align")
        return TrainedRun(self.folder, self.variant)


@dataclass(frozen=True)
class Comparison:
    """Differences between runs that were compared.

    Attributes:
        groups: Groups of runs of the same command, with the differences between them.
    """

    groups: "list[RunGroup]"

    @property
    def differences(self) -> list[dict[str, Any]]:
        """Paired differences between runs, each a dict with its statistical test."""
        rows = []
        for group in self.groups:
            for pair in group.differences:
                # `p` is a property, so `model_dump` leaves it out
                rows.append(pair.model_dump() | {"p": pair.p})
        return rows

    def _repr_html_(self) -> str:
        """Return the table of each group, with its caption, as HTML for a notebook."""
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
        runs: Two or more runs. Each is an open `Run`, or a name or path for `open_run`.
        labels: Labels of the runs, in the order of `runs`. If None, the settings in
            which the runs differ.

    Returns:
        The comparison of the first run with each other run.

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
    references = []
    for compared_run in runs:
        if not isinstance(compared_run, Run):
            _check_arguments(path=compared_run)
            references.append(str(compared_run))
        elif compared_run.variant:
            references.append(f"{compared_run.path}:{compared_run.variant}")
        else:
            references.append(str(compared_run.path))

    recipe = command.Recipe.resolve(
        "compare", None, {"runs": references, "labels": labels}, []
    )
    return Comparison(command.compare_runs(recipe))


def open_run(name: str | Path) -> Run:
    """Open a finished run.

    Args:
        name: The run, as
            - the path of its folder, its name, its label, or the end of its name
            - `RUN:VARIANT`, for one variant of a sweep (a run with several settings)
            - `hub:owner/name[@revision]`, for a run on the hub, which is downloaded

    Raises:
        BrainhiveError: if there is no such run, or if several runs have this name.
    """
    from brainhive_cli.core import runs
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.core.runs import split_variant

    _check_arguments(path=name)
    runs_folder = Paths().under_home("runs")
    run_name, variant = split_variant(str(name), runs_folder)
    folder = runs.find(runs_folder, command=None, reference=str(run_name))
    return Run(folder, variant)


def open_model(reference: str | Path, cell: str = "", device: str = "cpu") -> "Aligner":
    """Load a trained brain model as a PyTorch module.

    Args:
        reference: The model, as
            - a run of train-align, by name, path or `RUN:VARIANT` (see `open_run`)
            - the name of a recipe of train-align, for the newest run of the recipe
            - the path of a model folder
            - `hub:owner/name[@revision]`, for an uploaded run or model folder
        cell: Name of the cell (trained model), or "" for the only cell.
        device: Device, such as `cuda:0`.

    Returns:
        The model on this device.

    Raises:
        BrainhiveError: if there is no such model, or if `cell` is "" and there are
            several.
        DeviceError: if there is no such device.
    """
    from brainhive_cli.core.launch import open_device
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.training.alignment import model as aligners
    from brainhive_cli.training.alignment.references import find_model, find_reference

    _check_arguments(path=reference, cell=cell)
    run_folder, variant = find_reference(str(reference), Paths())
    model_folder = find_model(run_folder, variant, cell)
    return aligners.load(model_folder).to(open_device(device))


def open_store(dataset: str, split: str, encoder: str) -> "TargetStore":
    """Open the embeddings (vectors of pictures) that the command `embed` has stored.

    Args:
        dataset: Name of the data set, as a folder in `embeddings/`.
        split: Split of the data set, such as `train` or `test`.
        encoder: Name of the encoder, such as `clip-h14`.

    Returns:
        The store of N pictures, with these arrays:
        - `embedding` [N, *shape]: output of the encoder
        - `image_ids` [N]: name of the picture
        - `concepts` [N]: concept that the picture shows
        - `done` [N]: True if the picture is embedded already
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data.stores import target_store

    _check_arguments(dataset=dataset, split=split, encoder=encoder)
    folder = Paths().under_home("embeddings")
    return target_store.open_stores(folder, dataset, split, [encoder])[encoder]


def open_signals(dataset: str, subject: int, name: str = "default") -> "SignalStore":
    """Open the prepared signals of a subject.

    Args:
        dataset: Name of the data set, as a folder in `signals/`.
        subject: Number of the subject.
        name: Name of the stored signals, as in the recipe key `signal.name`.

    Returns:
        The store. `store["test"]` gives the `Trials` of the test split. They have
        `image_ids` [N] and `signal` [N, R, C, T]: N pictures, R repetitions, C channels
        and T samples.
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data.stores import signal_store

    _check_arguments(dataset=dataset, subject=subject, name=name)
    path = signal_store.build_store_path(
        Paths().under_home("signals"), dataset, name, subject
    )
    return signal_store.SignalStore.open(path)


def run(
    command: str,
    recipe: str | Path | None = None,
    *,
    again: bool = False,
    allow_code: bool = False,
    **keys: Any,
) -> "Result":
    """Run a command as on the command line, with the same run folder and progress bar.

    Args:
        command: Name of the command, such as `train-align`.
        recipe: Path of a YAML file, or name of a shipped recipe. If None, the default
            recipe of the command.
        again: If True, start a new run even if the same run is finished.
        allow_code: If True, allow code from outside Brainhive, such as a model's on the
            hub.
        keys: Settings that replace values of the recipe, nested (`train={"lr": 1e-3}`)
            or dotted (`**{"train.lr": 1e-3}`). A dict changes only the keys in it, but
            a dict with the key `kind` replaces a whole part, such as an encoder.

    Returns:
        Folder, tables and metrics of the run. `open_run(result.folder)` opens the run.

    Raises:
        BrainhiveError: if the command fails.
    """
    from brainhive_cli.cli import execute, table
    from brainhive_cli.core import foreign_code, launch
    from brainhive_cli.core.errors import RecipeError, guess

    _check_arguments(command=command)
    command_names = [spec.name for spec in table.COMMANDS]
    if command not in command_names:
        hint = guess(command, command_names) + ", ".join(command_names)
        raise RecipeError(f"no command {command!r}", hint)

    # write the command line that starts the other processes of a run
    overrides = [f"{key}={_write_override(value)}" for key, value in _list_keys(keys)]
    line = [command]
    if recipe:
        line += ["--recipe", str(recipe)]
    line += overrides
    if again:
        line.append("--again")
    if allow_code:
        line.append("--allow-code")

    # run the command in this process, or start several processes and wait for them
    previous_line = launch.COMMAND_LINE.set(line)
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

            # the other processes do the work, and this process only reads the result
            exit_code = launch.relaunch(resolved.run, n_processes, resolved.MEMORY_HINT)
            if exit_code:  # the user has pressed Ctrl-C
                raise KeyboardInterrupt
            return module.run(resolved, launch.READ_ONLY)
    finally:
        launch.COMMAND_LINE.reset(previous_line)


def _list_keys(keys: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested recipe keys to pairs of a dotted key and its value.

    Empty dicts, and dicts with the key `kind`, such as an encoder, are not flattened.

    Args:
        prefix: Text before each key, such as `train.`.
    """
    for key, value in keys.items():
        is_nested = isinstance(value, dict) and "kind" not in value
        if is_nested and value:
            yield from _list_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _write_override(value: Any) -> str:
    """Write a value as the text behind the `=` of an override `key=value`.

    Configs are written as dicts, arrays as lists, and paths as text.
    """
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
    """Write trials from memory to the signal store of a subject, for other commands.

    A store of the same name is replaced.

    Args:
        X: Signals of n trials, as an array [n, C, T] of sensors or [n, V] of voxels, as
            mne.Epochs, or as xarray.DataArray.
        pictures: Picture [n] that was seen in each trial, as
            - a list of paths, file names, image ids or categories
            - the name of a column of the MNE metadata, or of an xarray coordinate
            - None, if the names of the MNE events are the pictures
        dataset: Data set of the pictures, as its kind, or as a dict such as
            `{"kind": "image-folder", "root": FOLDER, "test_share": 0.2}`. The pictures
            of the kind `categories` are the categories in `pictures`, without files.
        subject: Number of the subject.
        session: Session label [n] of each trial, or None for a single session.
        run: Label [n] of the recording run (block) of each trial, or None if unknown.
        name: Name of the stored signals, as in the recipe key `signal.name`.
        whitened: True if the signals are whitened, False if not. None adds a caveat.
        averaged: True if each trial is an average of several trials, False if not. None
            adds a caveat.
        axes: Axes of the signals, by name:
            - arrays: `channels` or `space` (`Sensors`, `Voxels`), `times_s` [T] from
              the onset of the picture, `rate_hz` and `unit`
            - epochs: `channels` or `types` of the channels to select
            - arrays and epochs: `onset_s` [n], the time of each trial in its recording
              run. Not needed if the trials are in the order of time. If this order is
              unknown, set `onset_s="unknown"`, which adds a caveat.

    Returns:
        The m stored trials, in the order of `X`, with their positions in `X` in `index`
        [m]. A trial whose picture is not in the data set is left out, with a warning.

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
    path = signal_store.build_store_path(folder, stimuli.recorded_as, name, subject)

    # steps before storing, as far as they are known
    earlier_steps = {}
    if whitened is not None:
        earlier_steps["whitened"] = bool(whitened)
    if averaged is not None:
        earlier_steps["averaged"] = bool(averaged)
    return own_arrays.store_arrays(
        trials, stimuli, path, subject, earlier_steps, session, run
    )


def _resolve_dataset(dataset: Any, image_ids: Sequence[str]) -> Any:
    """Return the config of a data set, whose method `build` makes the data set.

    Args:
        dataset: Config, which is returned unchanged, kind (such as `image-folder`), or
            dict of the kind and other settings.
        image_ids: Picture or category [n] of each trial. They are the categories if the
            kind is `categories`, with neither `names` nor `root`.
    """
    from brainhive_cli.core import parts
    from brainhive_cli.core.errors import RecipeError

    if hasattr(dataset, "build"):
        return dataset
    settings = dict(dataset) if isinstance(dataset, dict) else {"kind": dataset}

    # if the settings do not list the categories, take them from the trials
    has_categories = "names" in settings or "root" in settings
    if settings.get("kind") == "categories" and not has_categories:
        categories = sorted(set(image_ids) - {""})  # "" is a trial without a category
        if len(categories) < 2:
            raise RecipeError(
                f"all trials show {', '.join(categories) or 'nothing'}",
                "give at least two categories: pictures=[n] is the category of each "
                "trial of X",
            )
        settings["names"] = categories
    return parts.resolve("datasets", settings)


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
        X: Signals of n trials, as in `store_trials`.
        pictures: Picture or category [n] that was seen in each trial.
        folder: Folder of the pictures. If None, `pictures` are categories, and trials
            are tested by cross-validation over `runs`, or over single trials without
            `runs`.
        subject: Number of the subject.
        runs: Label [n] of the recording run (block) of each trial, or None.
        session: Session label [n] of each trial, or None for a single session.
        test_share: Share of the concepts of the folder to test. Unused if the folder
            has a subfolder `test`.
        encoders: Names of the encoders that embed the pictures, or None for the usual
            encoders of the data set.
        keys: Settings of the recipe of train-align, such as `{"backbone":
            "brain-mlp"}`.
        axes: Axes of the signals, as in `store_trials`.

    Returns:
        The run of train-align, and the run of eval-retrieval.

    Raises:
        RecipeError: if there are too few runs, or too few trials of a category.
    """
    import numpy as np

    # store the trials together with the names of their pictures or categories
    dataset: dict[str, Any] = {"kind": "categories"}
    if folder is not None:
        dataset = {"kind": "image-folder", "root": str(Path(folder).resolve())}
        has_test_folder = (Path(folder) / "test").is_dir()
        if not has_test_folder:
            dataset["test_share"] = test_share
    trials = store_trials(X, pictures, dataset, subject, session, runs, **axes)

    # decode categories by cross-validation of a linear model
    train_keys: dict[str, Any] = {"subjects": [subject]}
    if folder is None:
        categories = list(trials.image_ids)
        dataset["names"] = sorted(set(categories))
        dataset["holdout"] = _choose_folds(categories, runs, trials.index)
        train_keys["seeds"] = [0]

        # LDA computes the covariance of the features, which takes minutes for many
        n_features = np.prod(trials.signal.shape[2:])
        ridge = {"kind": "ridge", "alpha": "auto", "standardise": False}
        train_keys["backbone"] = "lda" if n_features <= MAX_LDA_FEATURES else ridge
    train_keys |= keys or {}

    # embed the pictures, train the models, and evaluate them
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
    """Choose the folds of cross-validation: recording runs, or sets of single trials.

    Args:
        categories: Category [m] of each stored trial.
        runs: Label [n] of the recording run of each trial passed to `fit`, or None.
        index: Position [m] of each stored trial among the trials passed to `fit`.

    Returns:
        Recipe section `dataset.holdout`, with the keys `by` and `folds`.
    """
    from collections import Counter

    import numpy as np

    from brainhive_cli.core.errors import RecipeError

    # without runs, hold out single trials
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

    # otherwise hold out each run once
    run_labels = np.unique(runs)
    if len(run_labels) < 2:
        raise RecipeError(
            f"runs is {run_labels[0]} for all {len(categories)} trials of X",
            "give the run of each trial, with two runs or more: runs=[n]; without "
            "runs, single trials are held out",
        )

    # the trials outside a held-out run must show two categories or more
    run_of_trial = np.asarray(runs)[index]  # [m]
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

    Args:
        model: Run of train-align, as an open `Run`, or as a name or path for
            `open_run`.
        signal: Signals to decode, as
            - `Trials`. The repetitions of a picture are averaged.
            - an array, mne.Epochs or xarray.DataArray, as in `store_trials`. Each trial
              is decoded separately, and epochs are prepared as in the training. A
              caveat names each step that is not applied.
        subject: Number of the subject. If None, the only test subject of the cell.
        split: Split of the data set. Its pictures are the gallery, without the pictures
            that the model was trained on.
        cell: Name of the cell (trained model), or "" for the only cell.
        device: Device to compute on.
        pictures: Picture [n] that was seen in each trial. If None, names of MNE events
            are used if they are pictures. If the pictures are unknown, there are no
            ranks.
        axes: Axes of the signals, as in `store_trials`. An array in the shape of the
            model's input needs none. `delay_ms` is the time from the event to the
            picture on the screen, by default as in the training.

    Returns:
        Similarity [N, M] of signals and pictures, and the rank of each seen picture.
        Trials of pictures outside the gallery are left out.

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

    # open the model, and convert the signals to trials
    usage = 'api.decode(api.open_run("NAME"), api.open_signals("DATASET", 1)["test"])'
    trained_run = open_run(model) if isinstance(model, str | Path) else model
    require_kind("model", trained_run, Run, usage)
    _check_arguments(split=split)
    member = trained_run.member(cell, device)
    subject = _choose_subject(member, subject)
    preparation_caveats = list[str]()
    recording = signal
    if not isinstance(signal, Trials):
        recording, preparation_caveats = read_new(
            member, subject, split, signal, pictures, axes
        )

    # encode each trial and each picture of the gallery as a vector (token)
    trials = member.open_trials(subject, split, recording=recording)
    gallery = open_gallery([member], [split])
    picture_tokens = encode_gallery([member], gallery)  # [M, D]
    signal_tokens = member.encode(trials)  # [N, D]
    similarity = normalize(signal_tokens, dim=1) @ normalize(picture_tokens, dim=1).T

    # rank the seen picture of each trial, if it is known
    image_ids = list[str]()
    ranks = np.zeros(0, np.int64)
    if len(recording.image_ids):
        scores = member.rank(trials, gallery, picture_tokens, signal_tokens)
        image_ids = list(scores.labels)
        ranks = scores.ranks

    # trials without an index are all trials of the recording
    index = np.arange(len(similarity)) if trials.index is None else trials.index
    caveats = merge_caveats(recording.caveats, member.module.learned.caveats)
    return Ranks(
        image_ids=image_ids,
        ranks=ranks,
        gallery=gallery.image_ids,
        similarity=similarity.cpu().numpy(),
        caveats=caveats + preparation_caveats,
        index=index,
    )


def _choose_subject(member: "TrainedModel", subject: int | None) -> int:
    """Return the requested subject, or the only test subject of a trained model."""
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
