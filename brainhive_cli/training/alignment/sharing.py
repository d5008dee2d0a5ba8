"""Files of a trained run that may leave home, what they lose on the way, and the terms of their data."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from brainhive_cli.core import documents, parts, weights
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.files import portable
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Paths, write_yaml
from brainhive_cli.core.run_files import check
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.set_up import SET_UP
from brainhive_cli.core.shared_runs import CARD, FORMAT, MANIFEST, Manifest
from brainhive_cli.data.datasets import Dataset, people_of
from brainhive_cli.data.electrodes import are_standard
from brainhive_cli.data.exchange.downloads import SOURCES
from brainhive_cli.data.stores.recordings import SELECTING
from brainhive_cli.data.targets.target_stores import IDENTITIES
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.learned import (
    FILE,
    JOINED,
    LEARNED_FILE,
    Block,
    Learned,
    LearnedPictures,
)
from brainhive_cli.training.alignment.model import WEIGHTS
from brainhive_cli.training.alignment.references import TRAINING, NamedModels

PRIOR_TRAINING = "train-prior"
OF_BRAINHIVE = {"demo": "apache-2.0", "demo-films": "apache-2.0"}
"""Data sets that Brainhive draws and simulates, and the licence of models of them."""
OWN_RECORDINGS = {"recording", "betas", "bold"}
"""Preparations that read anyone's files: their signals are own recordings, however the data set is called."""
NOTES = ("mode", "dataset", "caveats", "closed_form")
"""Notes of a run's metrics that are shared as they are."""
OF_A_CELL = ("epoch", "selected_on", "caveats", "subject", "subjects", "seed", "fold", "variant")
"""Notes of a cell that are shared; time and memory tell of the machine."""
POSITIONS = (
    "digitised positions of the sensors on heads of subject {people}: standard positions of their names are "
    "used where other caps are mapped"
)
WHITENERS = "whiteners of subject {people}: `live` measures those of a session by --whiten-trials"
NORMALISERS = "normalisers of subject {people}: they are measured again on the training recordings"
PICTURES = (
    "digests of the private pictures that were learned from: their copies among tested pictures are not "
    "found, and results say `pictures unknown`"
)
"""What may be left out of a model, and what that means for its use."""
OF_HOME = ("paths", "run")
"""Sections of a recipe that say where and how it was run; they change no result."""
PATH = re.compile(
    r"(?<![\w:/.\\~-])(?:~?/(?:[^\s/:'\",;()\[\]{}]+/)+[^\s/:'\",;()\[\]{}]*|[A-Za-z]:\\[^\s'\",;]+)"
)
"""An absolute path, one below `~`, or one of Windows."""
PRIVATE = {
    "an absolute path": PATH,
    "an e-mail address": re.compile(r"(?<![\w./:+-])[\w.+-]+@[\w-]+\.[A-Za-z][\w.-]+"),
    "a subject's name": re.compile(r"\bsub-(?!\d+(?:\b|_))[A-Za-z0-9]+"),
}
"""What no shared text may hold; subjects are numbers, as in `sub-08`."""


@dataclass(frozen=True)
class Terms:
    """Terms on which a model may be shared.

    Attributes:
        licence: Of the weights, by the hub's list; empty where nothing says it.
        unknown: Why nobody knows that the terms of the data allow it; empty where they are known to.
        sources: Terms of each public data set, by name.
    """

    licence: str
    unknown: str
    sources: Mapping[str, str]


@dataclass(frozen=True)
class SharedRun:
    """A run as it may be shared.

    Attributes:
        run: The run at home, unchanged.
        command: The command that made it.
        files: By name in the repository: a file of the run, or content that was written for sharing; without
            card, manifest and digests, which `pack` adds.
        left_out: What its models have lost on the way, a sentence each; the manifest lists it, too.
        learned: What all its models learned from, together.
        layout: Architecture of the first cell's model; None of a prior.
        cells: Names of the cells.
        terms: Terms of the data.
        metrics: What the run measured, as it is shared.
        recipe: Its recipe, as it is shared.
    """

    run: RunFolder
    command: str
    files: Mapping[str, Path | bytes]
    left_out: list[str]
    learned: Learned
    layout: Layout | None
    cells: list[str]
    terms: Terms
    metrics: Measurements
    recipe: Mapping[str, Any]

    @classmethod
    def of(cls, run: RunFolder, with_positions: bool = False, with_whiteners: bool = False) -> Self:
        """Collect what may be shared of a finished run of train-align or train-prior.

        Args:
            run: The run.
            with_positions: Share digitised positions of sensors on a person's head.
            with_whiteners: Share whiteners and normalisers that were fitted to one person.

        Raises:
            RecipeError: if the run is of another command.
            BrainhiveError: if a file is damaged, has numbers that are not finite, or what no shared text may.
        """
        # a whole run of one of the two commands
        command = run.command
        if command not in (TRAINING, PRIOR_TRAINING):
            made_from = run.measurements().notes.get("run", "RUN")
            raise RecipeError(
                f"{run.path} is a run of {command}; aligners and priors are shared",
                f"brainhive push {made_from}",
            )
        if problems := check(run.path).problems:
            raise BrainhiveError(problems[0], documents.AGAIN_OR_DELETE)

        # the recipe without this machine, metrics without items
        resolved: dict[str, Any] = run.recipe()
        fields = {key: value for key, value in resolved.items() if key not in OF_HOME}
        recipe: dict[str, Any] = cut_paths(fields)
        measured = run.measurements()
        notes = {key: value for key, value in measured.notes.items() if key in NOTES}
        notes[SET_UP] = {
            key: value
            for key, value in measured.notes.get(SET_UP, {}).items()
            if key.removeprefix("preparation.").partition(".")[0] not in SELECTING
            or "preparation." not in key
        }
        notes["cells"] = {
            name: {key: value for key, value in about.items() if key in OF_A_CELL}
            for name, about in measured.notes.get("cells", {}).items()
        }
        metrics = Measurements(measured.scopes, cut_paths(measured.missing), cut_paths(notes))
        files: dict[str, Path | bytes] = {
            "recipe.yaml": write_yaml(recipe).encode(),
            FINISHED: _write_json(metrics.as_dict()),
        }

        # the models
        dataset: Dataset = parts.resolve("datasets", resolved["dataset"]).build(Paths())
        kind = str(recipe["dataset"]["kind"]).replace("_", "-")
        kinds = dict.fromkeys([dataset.name, dataset.pictured_as, people_of(dataset)], kind)
        subjects_of: dict[str, set[int]] = {}
        models: dict[str, Path] = {}
        layout, histories = None, []
        if command == TRAINING:
            models = NamedModels(run).models
            for cell, folder in models.items():
                model = _SharedModel.of(folder, kinds, with_positions, with_whiteners)
                files |= {f"cells/{cell}/model/{name}": content for name, content in model.files.items()}
                histories.append(model.learned)
                layout = layout or model.layout
                for sentence, subjects in model.left_out.items():
                    subjects_of.setdefault(sentence, set()).update(subjects)
            identities = cut_paths(run.read_json(IDENTITIES))
            if not all(are_public(learned, kinds) for learned in histories):
                for identity in identities.values():
                    identity.pop("pictures", None)
            files[IDENTITIES] = _write_json(identities)
        else:
            folder = run.path / "model"
            learned = Learned.read(folder)
            for path in sorted(folder.rglob("*.*")):
                if path.suffix in (".json", ".safetensors"):
                    files[path.relative_to(folder).as_posix()] = path
            if len(learned.pictures) and not are_public(learned, kinds):
                subjects_of[PICTURES] = set()
                with TemporaryDirectory() as scratch:
                    replace(learned, pictures=LearnedPictures()).write(Path(scratch))
                    files |= {name: (Path(scratch) / name).read_bytes() for name in (FILE, LEARNED_FILE)}
            histories.append(learned)

        # a last look at every text and number
        for name, content in files.items():
            _refuse_private(name, content)
        left_out = [
            sentence.format(people=", ".join(map(str, sorted(people))))
            for sentence, people in subjects_of.items()
        ]
        history = reduce(lambda first, second: first.after(second), histories)
        terms = find_terms(history, kinds, layout)
        return cls(run, command, files, left_out, history, layout, list(models), terms, metrics, recipe)

    def pack(self, card: str) -> dict[str, Path | bytes]:
        """Add card, manifest and list of digests to the files; the same run gives the same bytes."""
        environment: dict[str, Any] = self.run.read_json("environment.json")
        manifest = {
            "format": FORMAT,
            "brainhive": str(environment.get("versions", {}).get("brainhive", "")),
            "command": self.command,
            "run": self.run.path.name,
            "left_out": self.left_out,
            "card": hashlib.sha256(card.encode()).hexdigest(),
        }
        files = {**self.files, MANIFEST: _write_json(Manifest.model_validate(manifest).model_dump())}
        digests = {
            name: hashlib.sha256(content).hexdigest()
            if isinstance(content, bytes)
            else documents.digest_file(content)
            for name, content in files.items()
        }
        lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
        return {**files, documents.SHA256SUMS: lines.encode(), CARD: card.encode()}


@dataclass(frozen=True)
class _SharedModel:
    """The folder of one cell's model, as it may be shared.

    Attributes:
        files: By name in the folder.
        left_out: Sentences on what was left out of it, and the subjects that each is of.
        learned: Its history at home.
        layout: Its architecture at home.
    """

    files: Mapping[str, Path | bytes]
    left_out: Mapping[str, Collection[int]]
    learned: Learned
    layout: Layout

    @classmethod
    def of(cls, folder: Path, kinds: Mapping[str, str], with_positions: bool, with_whiteners: bool) -> Self:
        """Leave out of a model what tells of one person or of private pictures; weights stay as they are."""
        config: dict[str, Any] = documents.read(folder / "config.json")
        block = documents.check(config.pop("learned"), str(folder), Block)
        config.pop("format")
        layout = documents.check(config, str(folder / "config.json"), Layout)
        learned, spec = Learned.load(folder, block), layout.spec
        files: dict[str, Path | bytes] = {name: folder / name for name in ("config.json", WEIGHTS[0], FILE)}
        left_out = dict[str, Collection[int]]()
        shared_learned, shared_spec = learned, spec

        # positions on the head of a person, unless they are a template's
        montage = str(spec.preparation.get("montage") or "")
        if spec.positions and not with_positions and not are_standard(spec.names, spec.positions, montage):
            if "backbone.channel_map" in weights.read(folder / WEIGHTS[0]):
                raise BrainhiveError(
                    f"{folder}: weights hold a map of channels that was computed from digitised positions",
                    "--with-positions, if the person agrees; or preparation.montage=NAME, and train again",
                )
            shared_spec = replace(spec, positions=None)
            left_out[POSITIONS] = spec.subjects

        # what was fitted to one person's recordings; a mean of several people stays
        if learned.whiteners and not with_whiteners:
            shared_learned = replace(shared_learned, whiteners={}, recorded_channels=())
            left_out[WHITENERS] = learned.whiteners
        if learned.normalisers and not with_whiteners:
            pooled = learned.normaliser if len(learned.normalisers) > 1 else None
            shared_learned = replace(shared_learned, normalisers={}, normaliser=pooled)
            left_out[NORMALISERS] = learned.normalisers
        if len(learned.pictures) and not are_public(learned, kinds):
            shared_learned = replace(shared_learned, pictures=LearnedPictures())
            left_out[PICTURES] = ()

        # documents are written again only where something was left out
        if left_out or PATH.search((folder / "config.json").read_text("utf-8")):
            shared = replace(layout, spec=shared_spec)
            with TemporaryDirectory() as scratch:
                shared_block = shared_learned.save(Path(scratch), folder / WEIGHTS[0])
                files[FILE] = (Path(scratch) / FILE).read_bytes()
            files["config.json"] = _write_json(cut_paths({**shared.as_dict(), "learned": shared_block}))
        return cls(files, left_out, learned, layout)


def are_public(learned: Learned, kinds: Mapping[str, str]) -> bool:
    """Whether all pictures that were learned from are of published data sets, whose names anybody has.

    Args:
        learned: The history.
        kinds: Kind of the data set of the training itself, by the names that it goes by.
    """
    names = learned.dataset.split(JOINED)
    return all(kinds.get(name, name) in {*SOURCES, *OF_BRAINHIVE} for name in names)


def find_terms(learned: Learned, kinds: Mapping[str, str], layout: Layout | None) -> Terms:
    """Find the terms of all data that a model learned from.

    Args:
        learned: Its history.
        kinds: As for `are_public`.
        layout: Of a brain model; None of a prior, which learned from pictures alone.
    """
    # every data set of the history, by the licence that models of it may have
    listed = [*learned.people, *filter(None, learned.dataset.split(JOINED))]
    names = dict.fromkeys([*kinds.values(), *(kinds.get(name, name) for name in listed)])
    licences = dict(OF_BRAINHIVE)
    if layout is not None:
        licences |= {name: source.model_licence for name, source in SOURCES.items()}
    sources = {name: SOURCES[name].about for name in names if name in SOURCES}
    sources |= {name: "drawn and simulated by Brainhive" for name in names if name in OF_BRAINHIVE}
    known = [licences[name] for name in names if licences.get(name)]
    licence = next((one for one in known if one != "cc0-1.0"), next(iter(known), ""))

    # reasons why a person has to look
    unknown = [
        f"models of {name if name in SOURCES else f'own data ({name})'}"
        for name in names
        if not licences.get(name)
    ]
    preparation = "" if layout is None else str(layout.spec.preparation.get("kind", ""))
    if preparation in OWN_RECORDINGS and not {*kinds.values()} <= {*OF_BRAINHIVE}:
        unknown = ["own recordings"]
    if not learned.has_all_subjects:
        unknown.append("what training began from")
    return Terms("" if unknown else licence, " and ".join(unknown), sources)


def cut_paths(value: Any) -> Any:
    """Write paths below home relative to it, and only the last part of others, in values as JSON has them."""
    if isinstance(value, Mapping):
        return {cut_paths(key): cut_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cut_paths(inner) for inner in value]
    if isinstance(value, str):
        value = str(portable(value))
        if os.path.isabs(value):
            return Path(value).name
        return PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], value)
    return value


def find_private(text: str) -> Iterator[str]:
    """Name what a text holds that no shared one may, with the place."""
    for reason, pattern in PRIVATE.items():
        if match := pattern.search(text):
            yield f"{reason} ({match[0]})"


def _refuse_private(name: str, content: Path | bytes) -> None:
    """Refuse a text with what no shared one may hold, and weights that are not finite."""
    suffix = Path(name).suffix
    if suffix != ".safetensors":
        text = (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8")
    else:
        with TemporaryDirectory() as scratch:
            path = content
            if isinstance(path, bytes):
                path = Path(scratch) / "x.safetensors"
                path.write_bytes(content)  # type: ignore[arg-type]
            text = json.dumps(weights.metadata_of(path))
            for key, value in weights.read(path).items():
                if value.is_floating_point() and not value.isfinite().all():
                    raise BrainhiveError(f"{name}: {key} holds numbers that are not finite", "train again")
    if problem := next(find_private(text), ""):
        raise BrainhiveError(f"{name} holds {problem}, which would be shared", "rename it, and train again")


def _write_json(document: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n".encode()
