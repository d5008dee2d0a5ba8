"""Exchange of planted data and figures with a checkout of the authors' code."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.files import documents
from brainhive_cli.core.files.files import atomic_write
from brainhive_cli.data.published.things_eeg import MONTAGE, POSTERIOR
from tools.parity import planted
from tools.parity.author_figures import DAMAGE, READERS, Entry
from tools.parity.layouts import WRITERS
from tools.parity.planted import Figures
from tools.parity.trainings import METHODS, golden_path, read_method_figures

FIGURES = Path(__file__).with_name("figures")
"""Figures of the authors' code that were imported here."""
EXIT_CODE = 2
"""Exit code of every error here."""
MAX_BYTES = 1 << 26
"""Size of the largest file that is read."""
CURVES = ("top1_by_epoch", "top5_by_epoch", "loss", "val_loss", "last_batch_loss")
"""Keys of an entry that hold a number for each epoch."""


@dataclass(frozen=True)
class AuthorCode:
    """Code of a method's authors. The file exchange.yaml explains the keys."""

    code: str
    figures: str
    embeddings: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    preparation: list[str] = field(default_factory=list)
    command: str = ""
    seed: str = "$seed"
    no_export: str = ""


AUTHORS = documents.read(
    Path(__file__).with_name("exchange.yaml"), dict[str, AuthorCode], is_yaml=True
)


def refuse(message: str, advice: str) -> BrainhiveError:
    """Make an error from a message and advice, a line each."""
    return BrainhiveError(" ".join(message.split()), advice, EXIT_CODE)


def find_author(method: str) -> AuthorCode:
    """Find the description of the authors' code of a method."""
    if method not in AUTHORS:
        raise refuse(
            f"there is no method {method}", f"choose one of {', '.join(AUTHORS)}"
        )
    return AUTHORS[method]


def find_settings(method: str, folder: Path | None) -> dict[str, Any]:
    """Return the settings of a method's small training.

    Args:
        method: Name of the method.
        folder: Folder of figures. The settings of its METHOD.json come first.
    """
    author = find_author(method)
    if author.no_export:
        raise refuse(
            f"{method} has no planted data set: {author.no_export}",
            "leave --into away to print the figures of its code",
        )
    if folder is not None and (folder / f"{method}.json").is_file():
        return dict(read_document(folder / f"{method}.json")["settings"])
    golden = find_figures(method)
    shared = golden.settings if golden is not None else {}
    return {**shared, **author.settings}


def require_generators() -> None:
    """Raise an error if the generators of planted data are absent."""
    if not (planted.folder() / "plant.py").is_file():
        raise refuse(
            f"there is no plant.py in {planted.folder()}",
            "set BRAINHIVE_GOLDEN to the folder of golden values",
        )


def export(method: str, folder: Path, figures: Path | None = None) -> str:
    """Write the planted data as the authors' loader reads them.

    Args:
        method: Name of the method.
        folder: Folder to write, which is empty or absent.
        figures: Folder of figures. The settings of its METHOD.json come first.

    Returns:
        A text about the files, and the command line of the authors' code.
    """
    author = find_author(method)
    if author.no_export:
        raise refuse(
            f"{method} cannot be exported: {author.no_export}",
            "train its code on real data, and print its figures with --import",
        )
    settings = find_settings(method, figures)
    folder = folder.absolute()
    check_empty(folder)
    require_generators()
    splits = planted.plant(settings, list(author.embeddings))
    try:
        with atomic_write(folder, is_lasting=False) as partial:
            partial.mkdir()
            WRITERS[method](partial, splits, author.embeddings)
    except OSError as error:
        raise refuse(
            f"{folder} cannot be written: {error.strerror}",
            "name another folder, on a disk with a gigabyte free",
        ) from error
    return describe(method, folder, settings)


def check_empty(folder: Path) -> None:
    """Raise an error unless a folder is empty or absent."""
    if folder.exists() and not folder.is_dir():
        raise refuse(f"{folder} is a file, not a folder", "name another folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise refuse(f"{folder} is not empty", "name another folder, or empty this one")


def describe(method: str, folder: Path, settings: Mapping[str, Any]) -> str:
    """Describe the files, and the commands of the authors' code for these settings."""
    author = AUTHORS[method]
    numbers = [str(MONTAGE.index(name)) for name in POSTERIOR]
    values = {key: str(value) for key, value in settings.items()}
    values["folder"] = str(folder)
    values["posterior"] = " ".join(POSTERIOR)
    values["posterior_list"] = "[" + ",".join(POSTERIOR) + "]"
    values["posterior_numbers"] = " ".join(numbers)
    lines = [f"{method}: planted data for {author.code}, in {folder}"]
    for path, text in author.files.items():
        lines.append(f"  {path}\n    {text}")
    lines.append("In a checkout of that code:")
    for text in author.preparation:
        lines.append(f"  - {Template(text).safe_substitute(values)}")
    lines.append("Run ($seed is a number):" if "$seed" in author.command else "Run:")
    lines.append(f"  {Template(author.command).safe_substitute(values)}")
    option = f" --seed {author.seed}" if author.seed else ""
    lines += [
        "Then compare our training with its figures:",
        f"  python -m tools.parity --import {author.figures} {method}{option} "
        f"--into FIGURES/{method}.json",
        f"  python -m tools.parity {method} --figures FIGURES",
    ]
    return "\n".join(lines)


def import_figures(
    path: Path,
    method: str,
    seed: int | None = None,
    into: Path | None = None,
    figures: Path | None = None,
) -> list[Entry]:
    """Read the figures that the authors' code has written.

    Args:
        path: The file.
        method: Name of the method.
        seed: Seed of the first training in the file, from which the next ones count up.
            By default the file states its seed.
        into: A METHOD.json to which the entries are added.
        figures: Folder of figures. The settings of its METHOD.json come first.

    Returns:
        An entry of the golden form for each training in the file.
    """
    author = find_author(method)
    entries = []
    for number, entry in enumerate(read_entries(path, method)):
        check_entry(entry, path, author)
        training_seed = entry.pop("seed", None)
        if seed is not None:
            training_seed = seed + number
        if training_seed is None:
            raise refuse(f"{path} does not say its seed", "add --seed NUMBER")
        entries.append({"seed": training_seed, **entry})
    if into is not None:
        add_entries(entries, into, method, find_settings(method, figures))
    return entries


def read_entries(path: Path, method: str) -> list[Entry]:
    """Read an entry for each training in a file of the authors' code."""
    advice = f"import a file that {AUTHORS[method].code} writes: "
    advice += AUTHORS[method].figures.replace("$seed", "SEED")
    readers = READERS[method]
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("csv", "json"):
        kind = "text"
    if kind not in readers:
        raise refuse(f"figures of {method} are not read from {path.name}", advice)
    text = read_text(path)
    try:
        entries = readers[kind](text)
    except DAMAGE as error:
        reason = explain(error)
        raise refuse(
            f"{path} is damaged or of another code: {reason}", advice
        ) from error
    if not entries:
        raise refuse(f"{path} has no figures of {method}", advice)
    return entries


def explain(error: BaseException) -> str:
    """Describe the error of a reader."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    if isinstance(error, ValueError):
        return str(error)
    return "its entries have another form"


def read_text(path: Path) -> str:
    """Read a text file in UTF-8."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise refuse(f"{path} has more than 64 MB", "name a file with figures")
        return path.read_text("utf-8")
    except OSError as error:
        raise refuse(
            f"{path} cannot be read: {error.strerror}", "check its path"
        ) from error
    except UnicodeDecodeError as error:
        raise refuse(
            f"{path} is not a text file", "name a file with figures"
        ) from error


def check_entry(entry: Entry, path: Path, author: AuthorCode) -> None:
    """Raise an error unless accuracies are fractions, and curves numbers by epoch."""
    advice = f"check that {author.code} wrote it, and that the training ended well"
    top1, top5 = entry["top1"], entry["top5"]
    for name, value in {"top-1": top1, "top-5": top5}.items():
        if not is_number(value) or not 0 <= value <= 1:
            raise refuse(f"{path}: {name} is {value}, not a fraction", advice)
    if top1 > top5:
        raise refuse(f"{path}: top-1 {top1} is above top-5 {top5}", advice)
    lengths = set()
    for name in CURVES:
        curve: Sequence[Any] = entry.get(name, [])
        for epoch, value in enumerate(curve, 1):
            if not is_number(value):
                raise refuse(f"{path}: {name} of epoch {epoch} is {value}", advice)
        if curve:
            lengths.add(len(curve))
    if len(lengths) > 1:
        counts = ", ".join(map(str, sorted(lengths)))
        raise refuse(f"{path} has figures of {counts} epochs", advice)


def is_number(value: Any) -> bool:
    """Return True if a value is a finite number."""
    is_numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return is_numeric and math.isfinite(value)


def add_entries(
    entries: Sequence[Entry], path: Path, method: str, settings: Mapping[str, Any]
) -> None:
    """Add entries to a METHOD.json of the golden form, or make that file.

    Args:
        entries: Entries of the authors' code.
        path: The METHOD.json.
        method: Name of the method.
        settings: Settings of the training, for a new file.
    """
    if path.name != f"{method}.json":
        raise refuse(
            f"figures of {method} do not belong into {path.name}",
            f"name the file {method}.json",
        )
    content: dict[str, Any] = {"settings": dict(settings), "reference": []}
    if path.exists():
        content = read_document(path)
    seeds = {entry["seed"] for entry in content["reference"]}
    epochs = content["settings"].get("epochs")
    for entry in entries:
        if entry["seed"] in seeds:
            raise refuse(
                f"{path} already has an entry of seed {entry['seed']}",
                "name another seed with --seed, or remove that entry",
            )
        count = len(entry.get("top1_by_epoch") or entry.get("loss") or [])
        if epochs is not None and count and count != epochs:
            raise refuse(
                f"the file has {count} epochs, the settings in {path.name} {epochs}",
                "train with the settings of the export, or correct them in that file",
            )
        seeds.add(entry["seed"])
    content["reference"] += entries
    try:
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise refuse(
            f"{path} cannot be written: {error.strerror}", "name another file"
        ) from error


def read_document(path: Path) -> dict[str, Any]:
    """Read a METHOD.json, and check that it has the golden form."""
    advice = "restore it, or name another file"
    try:
        content = json.loads(read_text(path))
        reference, settings = content["reference"], content["settings"]
        is_golden = isinstance(settings, dict) and isinstance(reference, list)
        for entry in reference:
            numbers = [entry["seed"], entry["top1"], entry["top5"]]
            is_golden = is_golden and all(map(is_number, numbers))
    except DAMAGE as error:
        raise refuse(f"{path} is damaged: {explain(error)}", advice) from error
    if not is_golden:
        raise refuse(
            f"{path} has other settings or a reference of another form", advice
        )
    return dict(content)


def find_figures(method: str, folder: Path | None = None) -> Figures | None:
    """Find the figures of a method in a folder, in FIGURES, or among golden values.

    Returns:
        The figures, or None without any.
    """
    if folder is not None and not folder.is_dir():
        raise refuse(f"there is no folder {folder}", "check the path of --figures")
    for figures_folder in (folder or FIGURES, FIGURES):
        path = figures_folder / f"{method}.json"
        if path.is_file():
            content = read_document(path)
            entries = content["reference"]
            return Figures(content["settings"], entries, path) if entries else None
    if method in METHODS and golden_path(method).is_file():
        return read_method_figures(method)
    return None


def stop(error: BrainhiveError) -> None:
    """Print an error and its hint, and end the program."""
    print(re.sub(r"\s+", " ", str(error)), file=sys.stderr)
    print(error.hint, file=sys.stderr)
    sys.exit(error.exit_code)
