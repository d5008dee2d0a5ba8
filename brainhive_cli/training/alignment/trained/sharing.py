"""Files of a trained run that may leave home, and the terms of their data."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import BrainhiveError, Line, RecipeError
from brainhive_cli.core.files import make_portable
from brainhive_cli.core.hub import (
    MANIFEST,
    MODEL_CARD,
    MODEL_FILES,
    PRIOR_FILES,
    RUN_FORMAT,
    Manifest,
)
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import write_yaml
from brainhive_cli.core.run_files import check
from brainhive_cli.core.runs import (
    ENVIRONMENT_FILE,
    METRICS_FILE,
    Environment,
    RunFolder,
)
from brainhive_cli.data.downloads.sources import SOURCES
from brainhive_cli.data.stores.learned import TrainingHistory
from brainhive_cli.data.targets.encoder_stores import IDENTITIES
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model_files import read_config
from brainhive_cli.training.alignment.references import TRAINING, list_model_folders

PRIOR_TRAINING = "train-prior"
DEMO_LICENCES = {"demo": "apache-2.0", "demo-films": "apache-2.0"}
"""Data sets that Brainhive draws and simulates, and the licence of models of them."""
RECORDING_LICENCES = {
    "simulated": "apache-2.0",
    "things-eeg": SOURCES["things-eeg"].model_licence,
    "things-meg": SOURCES["things-meg"].model_licence,
    "things-prepared": SOURCES["things-eeg"].model_licence,
}
"""Preparations whose recordings are known, and the licence of models of them. All
others read anyone's files: their signals may be own recordings, however the data set is
called.
"""
SHARED_FACTS = {"command", "mode", "dataset", "caveats", "is_closed_form"}
"""Facts of a run that are shared as they are."""
LOCAL_SECTIONS = ("paths", "run")
"""Sections of a recipe that say where and how it was run; they change no result."""
OWN_FILES = {"recording", "betas", "bold"}
"""Preparations of one's own recordings."""
SEGMENT = r"[^\s/:'\",;()\[\]{}|]+"
PATH = re.compile(
    rf"""
    (?<![\w/.~\\]) (?:~[\w.-]*)? /(?:{SEGMENT}/)+(?:{SEGMENT})?    # /home/jane/x
    | (?<![\w/.~\\]) ~[\w.-]*[/\\]{SEGMENT}            # ~/x and ~jane/x
    | (?<!\w) [A-Za-z]:[\\/](?!/)[^\s'",;]+            # C:\Users\jane and C:/Users/jane
    | \\{{2,4}}[\w.-]+\\{{1,2}}[^\s'",;]+              # \\server\jane
    """,
    re.VERBOSE,
)
"""An absolute path: it names people and machines."""
Files = dict[str, Path | bytes]
"""Files by name: one of this machine, or content that was written for sharing."""


@dataclass(frozen=True)
class SharedRun:
    """A run as it may be shared.

    Attributes:
        run: The run at home, unchanged.
        files: By name in the repository, without card, manifest and digests, which
            `pack` adds.
        learned: What all its models learned from, together.
        layout: Architecture of the first cell's model; None of a prior.
        cells: Names of the cells.
        licence: Of the weights, by the hub's list; empty where nothing says it.
        unknown_terms: Why nobody knows that the terms of the data allow it; empty where
            they are known to.
        terms: Terms of each public data set, by name.
        recipe: Its recipe, as it is shared.
    """

    run: RunFolder
    files: Files
    learned: TrainingHistory
    layout: Layout | None
    cells: list[str]
    licence: str
    unknown_terms: str
    terms: Mapping[str, str]
    recipe: Mapping[str, Any]

    @classmethod
    def of(cls, run: RunFolder) -> Self:
        """Collect what may be shared of a finished run of train-align or train-prior.

        Raises:
            RecipeError: if the run is of another command.
            BrainhiveError: if a file is damaged, has numbers that are not finite, or an
                absolute path.
        """
        # a whole run of one of the two commands
        command = run.command
        if command not in (TRAINING, PRIOR_TRAINING):
            raise RecipeError(
                f"{run.path} is a run of {command}; aligners and priors are shared",
                Line("push", run.measurements().facts.run or "RUN"),
            )
        if problems := check(run.path)[1]:
            raise BrainhiveError(problems[0], documents.CHANGED_HINT)

        # of each model the files that it consists of; whatever else lies in its folder
        # stays there
        files = Files()
        layouts = list[Layout]()
        if command == TRAINING:
            models = list_model_folders(run)
            histories = []
            for cell, folder in models.items():
                fields, learned = read_config(folder)
                histories.append(learned)
                layouts.append(
                    documents.check(fields, str(folder / MODEL_FILES[0]), Layout)
                )
                files |= {
                    f"cells/{cell}/model/{name}": folder / name for name in MODEL_FILES
                }
            files[IDENTITIES] = _write_json(cut_paths(run.read_json(IDENTITIES)))
        else:
            models, model = {}, run.path / "model"
            histories = [TrainingHistory.read_folder(model)]
            files |= {name: model / name for name in PRIOR_FILES}
        # not every model has all of these files
        files = {
            name: file
            for name, file in files.items()
            if isinstance(file, bytes) or file.is_file()
        }

        # documents without this machine: the recipe, and metrics without values of
        # single items
        resolved: dict[str, Any] = run.recipe()
        recipe = cut_paths(
            {key: value for key, value in resolved.items() if key not in LOCAL_SECTIONS}
        )
        files["recipe.yaml"] = write_yaml(recipe).encode()
        files[METRICS_FILE] = _write_json(share_metrics(run.measurements()).as_dict())
        for name, content in files.items():
            _refuse_unfit(name, content)

        # the terms of all that the models learned from
        learned = reduce(lambda first, second: first.inherit(second), histories)
        priors = {layout.prior for layout in layouts if layout.prior}
        foreign = sorted(
            cut_paths(prior) for prior in priors if not prior.startswith("demo:")
        )
        return cls(
            run,
            files,
            learned,
            layouts[0] if layouts else None,
            [*models],
            *find_terms(learned, command == PRIOR_TRAINING, foreign),
            recipe,
        )

    def pack(self, card: str) -> Files:
        """Add card, manifest and list of digests to the files; the same run gives the
        same bytes.
        """
        environment = self.run.read_json(ENVIRONMENT_FILE, Environment)
        manifest = Manifest(
            format=RUN_FORMAT,
            brainhive=environment.versions.get("brainhive", ""),
            command=self.run.command,
            run=self.run.path.name,
        )
        files = {**self.files, MANIFEST: _write_json(manifest.model_dump())}

        # digests in the order of names, so that the same run gives the same bytes
        lines = ""
        for name, content in sorted(files.items()):
            if isinstance(content, bytes):
                digest = hashlib.sha256(content).hexdigest()
            else:
                digest = documents.digest_file(content)
            lines += f"{digest}  {name}\n"
        return {
            **files,
            documents.SHA256SUMS: lines.encode(),
            MODEL_CARD: card.encode(),
        }


def find_terms(
    learned: TrainingHistory, is_prior: bool, priors: Sequence[str] = ()
) -> tuple[str, str, dict[str, str]]:
    """Find the terms of all data that models learned from.

    Args:
        learned: Their history.
        is_prior: Whether they are of a prior, which learned from pictures alone.
        priors: Priors whose fusion encoder is part of brain models, and which have
            terms of their own.

    Returns:
        Licence of the weights, what terms are unknown, and those of each public data
        set, as in `SharedRun`.
    """
    # the licence that models of each data set may have; that of the recordings binds
    # most
    licences, kinds = dict(DEMO_LICENCES), learned.stimulus_kinds
    if not is_prior:
        licences |= {name: source.model_licence for name, source in SOURCES.items()}
    known = [RECORDING_LICENCES.get(kind, "") for kind in learned.recording_kinds]
    known += [licences.get(name, "") for name in kinds]
    licence = next(
        (one for one in ("cc-by-4.0", "apache-2.0", "cc0-1.0") if one in known), ""
    )

    # terms of each public data set
    sources = {name: SOURCES[name].summary for name in kinds if name in SOURCES}
    sources |= {
        name: "drawn and simulated by Brainhive"
        for name in kinds
        if name in DEMO_LICENCES
    }

    # reasons why a person has to look
    unknown = [
        f"models of {name if name in SOURCES else f'own data ({name})'}"
        for name in kinds
        if not licences.get(name)
    ]
    if unlicensed := sorted(
        {*learned.recording_kinds} - {*RECORDING_LICENCES, "unknown"}
    ):
        whose = "own recordings" if OWN_FILES & {*unlicensed} else "recordings"
        unknown.append(f"{whose} prepared by {', '.join(unlicensed)}")
    if priors:
        unknown.append(
            f"weights of the prior {', '.join(priors)}, which are part of the model"
        )
    # without a complete history nobody knows the terms of all data
    is_recorded_elsewhere = "unknown" in (learned.recording_kinds or ("unknown",))
    if (
        not kinds
        or not learned.has_all_subjects
        or (is_recorded_elsewhere and not is_prior)
    ):
        unknown.append("models of data of unknown origin")
    return "" if unknown else licence, " and ".join(unknown), sources


def share_metrics(measured: Measurements) -> Measurements:
    """Choose what is shared of a run's metrics: no values of single items, and no facts
    of this machine.
    """
    facts = measured.facts
    # time and memory of a cell tell of the machine
    cells = {
        name: cell.model_copy(update={"took": {}}) for name, cell in facts.cells.items()
    }
    # any fact that is not listed stays at home
    shared = type(facts)(
        **facts.model_dump(include=SHARED_FACTS),
        set_up=cut_paths(facts.set_up),
        cells=cells,
    )
    return Measurements(measured.scopes, cut_paths(measured.missing), shared)


def cut_paths(value: Any) -> Any:
    """Write paths below home relative to it, and of others only the last part, in
    values as JSON has them.
    """
    # containers are searched in keys and values
    if isinstance(value, Mapping):
        return {cut_paths(key): cut_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cut_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value

    # a value that is a path, spaces and all; else the paths in a text
    value = str(make_portable(value))
    if os.path.isabs(value):
        return Path(value).name
    return PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], value)


def _refuse_unfit(name: str, content: Path | bytes) -> None:
    """Refuse weights that are not finite, and texts with an absolute path."""
    # weights must be finite; every other file is text
    if isinstance(content, Path) and content.suffix == ".safetensors":
        for key, value in weights.read(content).items():
            if value.is_floating_point() and not value.isfinite().all():
                raise BrainhiveError(
                    f"{name}: {key} holds numbers that are not finite", "train again"
                )
        return
    text = (content if isinstance(content, bytes) else content.read_bytes()).decode(
        "utf-8"
    )
    if match := PATH.search(text):
        raise BrainhiveError(
            f"{name} holds an absolute path ({match[0]}), which would be shared",
            "name it from home in the recipe, and train again",
        )


def _write_json(document: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n".encode()
