"""COBIDAS checklists for journals, filled from the facts that runs stored."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, UndefinedError
from pydantic import BaseModel

from brainhive_cli.core.base import BrainhiveError, Table, TableCell, write_csv
from brainhive_cli.core.files import documents
from brainhive_cli.core.recipes import Paths
from brainhive_cli.core.results import (
    DESIGN_ALONE,
    SIGNIFICANCE_LEVEL,
    SIMULATED,
    flatten,
    format_setting,
    merge_set_ups,
)
from brainhive_cli.core.runs import BrainMap
from brainhive_cli.data.recordings import find_sidecar
from brainhive_cli.data.stores import SignalStore, describe_store
from brainhive_cli.reports.pages.page import DETAILS, PageSection
from brainhive_cli.reports.sentences.sentences import REFERENCES, name_papers
from brainhive_cli.reports.tables import RecipeDigests, ShownRun, list_retrievals
from brainhive_cli.reports.templates import templates

FILES = {
    "EEG": "cobidas_meeg.yaml",
    "MEG": "cobidas_meeg.yaml",
    "fMRI": "cobidas_fmri.yaml",
}
"""File of the checklist of each modality."""
FILLED = "from the run"
SIMULATED_STATUS = "from simulated signals"
TO_FILL = "to fill in"
NOT_APPLICABLE = "not applicable"


class ChecklistItem(BaseModel, extra="forbid"):
    """Item of a checklist.

    Attributes:
        item: Short description of what authors report.
        answer: Jinja template of the answer, whose variables are the facts of
            `collect_facts`, or its name in cobidas_answers.yaml. An absent fact, or an
            empty answer, leaves the item open.
        mandatory: "yes" if the authors of the checklist call the item mandatory.
    """

    item: str
    answer: str = ""
    mandatory: str = ""


class ChecklistPart(BaseModel, extra="forbid"):
    """Section of a checklist.

    Attributes:
        title: Title with the number in the published checklist.
        items: Items of the section.
        is_about_recording: True if open items do not apply to simulated signals.
    """

    title: str
    items: list[ChecklistItem]
    is_about_recording: bool = False


class Checklist(BaseModel, extra="forbid"):
    """Checklist as its file has it.

    Attributes:
        title: Name of the checklist.
        paper: Key of its paper in references.bib.
        not_mandatory: Text for items that the paper does not call mandatory.
        sections: Sections in the order of the paper.
    """

    title: str
    paper: str
    not_mandatory: str
    sections: list[ChecklistPart]


@dataclass(frozen=True)
class FilledChecklist:
    """Checklist with the answers of some runs.

    Attributes:
        checklist: The checklist.
        rows: Texts of each item: section, item, mandatory, answer and status.
    """

    checklist: Checklist
    rows: Sequence[Mapping[str, str]]

    @property
    def title(self) -> str:
        """Name of the checklist with its paper."""
        return f"{self.checklist.title}{name_papers([self.checklist.paper])}"

    @property
    def summary(self) -> str:
        """Sentence with the number of items of each status."""
        numbers = Counter(row["status"] for row in self.rows)
        # Statuses of an item.
        texts = [
            f"{numbers[name]} {name}"
            for name in (FILLED, SIMULATED_STATUS, TO_FILL, NOT_APPLICABLE)
            if numbers[name]
        ]
        return f"{len(self.rows)} items: {', '.join(texts)}"

    def tabulate(self) -> list[Table]:
        """Make a table for each section. Items that do not apply are grey."""
        rows_by_section: dict[str, list[Any]] = {}
        for row in self.rows:
            is_grey = row["status"] == NOT_APPLICABLE
            section, item, *texts = row.values()
            cells = [TableCell(item, is_grey=is_grey), *texts]
            rows_by_section.setdefault(section, []).append(cells)
        columns = list(self.rows[0])[1:]
        return [
            Table(title, columns, rows, has_results=False)
            for title, rows in rows_by_section.items()
        ]

    def write(self, suffix: str) -> str:
        """Write the checklist as a text that authors complete.

        Args:
            suffix: "md" for Markdown, "tex" for LaTeX with the packages longtable and
                booktabs, or "csv".
        """
        if suffix == "csv":
            return write_csv(list(self.rows[0]), self.rows)
        template = templates().get_template(f"checklist.{suffix}")
        return str(template.render(filled=self)) + "\n"


class RunInputs(RecipeDigests):
    """Keys of a recipe that lead to the signal stores of a run."""

    paths: Paths = Paths()


def fill_checklists(runs: Sequence[ShownRun]) -> list[FilledChecklist]:
    """Fill a checklist for each modality of some runs.

    Answers in which runs differ name the run. Controls are left out.

    Args:
        runs: Runs of any command. A workflow is replaced by its retrieval runs. Runs
            that test no model are left out.
    """
    tested_runs = list_retrievals(runs)
    # Commands besides eval-retrieval that test models.
    tested_runs += [
        run
        for run in runs
        if run.command in ("reconstruct", "explain", "calibrate", "live")
    ]

    # runs of a modality share a checklist
    facts_by_file: dict[str, dict[str, Mapping[str, Any]]] = {}
    for shown_run in tested_runs:
        file_name = FILES.get(shown_run.measurements.facts.modality)
        if file_name and not shown_run.is_control:
            facts_by_run = facts_by_file.setdefault(file_name, {})
            label = shown_run.label
            if label in facts_by_run:
                label = shown_run.folder.path.name
            facts_by_run[label] = collect_facts(shown_run)
    return [
        _fill(read_checklist(file_name), facts_by_run)
        for file_name, facts_by_run in facts_by_file.items()
    ]


def lay_out_checklists(runs: Sequence[ShownRun]) -> list[PageSection]:
    """Lay out a section of a page, folded away, for each checklist of some runs."""
    sections = []
    how_to_complete = (
        "brainhive report RUN --checklist --format md writes it as a "
        "file to complete (also csv or tex)."
    )
    for filled in fill_checklists(runs):
        sections.append(
            PageSection(
                f"Appendix: {filled.checklist.title}",
                groups=[(DETAILS, filled.tabulate())],
                lead=[f"{filled.title}. {filled.summary}.", how_to_complete],
                texts=[("BibTeX", REFERENCES[filled.checklist.paper])],
            )
        )
    return sections


def read_checklist(file_name: str) -> Checklist:
    """Read a checklist of this folder, and replace names of answers by templates."""
    folder = Path(__file__).parent
    checklist = documents.read(folder / file_name, Checklist)
    answers = documents.read(folder / "cobidas_answers.yaml", dict[str, str])
    for section in checklist.sections:
        for item in section.items:
            item.answer = answers.get(item.answer, item.answer)
    return checklist


def _fill(
    checklist: Checklist, facts_by_run: Mapping[str, Mapping[str, Any]]
) -> FilledChecklist:
    """Fill a checklist with the facts of runs, keyed by the label of the run."""
    rows = []
    # an absent fact raises an error
    environment = templates().overlay(undefined=StrictUndefined, autoescape=False)
    # Beginning of an answer that says why an item does not apply.
    reason = "n/a: "
    no_brain = f"{reason}the signals are simulated"
    for section in checklist.sections:
        for item in section.items:
            template = environment.from_string(item.answer)
            labels_by_answer: dict[str, list[str]] = {}
            for label, facts in facts_by_run.items():
                answer = _render(template, facts)
                if not answer and section.is_about_recording and facts["is_simulated"]:
                    answer = no_brain
                labels_by_answer.setdefault(answer, []).append(label)

            # runs with different answers are named
            answer, *others = labels_by_answer
            if others:
                answer = "; ".join(
                    f"{', '.join(labels)}: {text or TO_FILL}"
                    for text, labels in labels_by_answer.items()
                )
            status = FILLED
            if "" in labels_by_answer:
                status = TO_FILL
            elif answer.startswith(reason):
                status = NOT_APPLICABLE
                answer = answer.removeprefix(reason)
            elif all(facts["is_simulated"] for facts in facts_by_run.values()):
                status = SIMULATED_STATUS
            rows.append(
                {
                    "section": section.title,
                    "item": item.item,
                    "mandatory": item.mandatory or checklist.not_mandatory,
                    "answer": answer,
                    "status": status,
                }
            )
    return FilledChecklist(checklist, rows)


def _render(template: Any, facts: Mapping[str, Any]) -> str:
    """Render an answer on one line, or return "" if a fact of it is absent."""
    try:
        return " ".join(template.render(facts).split())
    # sessions that differ have a text in place of a number or list
    except (UndefinedError, TypeError, ValueError):
        return ""


def collect_facts(shown_run: ShownRun) -> dict[str, Any]:
    """Collect the facts of a run for the answers of a checklist.

    Returns:
        - `facts`, `set_up`, `metric` (the main metric) and `metrics` of the results
        - `design_alone`: metrics of the baseline by the design alone
        - `environment` with the versions of the software
        - `maps`: maps of the brain that the run drew
        - `sessions`: provenance of each session, and `recording`, the same merged
        - `counts`: stimuli and trials of each split, the same for all subjects
        - `grids`: voxel size and matrix of the signals
        - `dropped`: number of dropped trials by reason
        - `sidecar`, `description` and `derivative`: BIDS metadata of the recordings
        - `is_simulated`, `phrases` of the methods paragraph, and functions

        Facts of stores and files are absent if the store has changed or is missing.
    """
    facts = shown_run.measurements.facts
    values: dict[str, Any] = {
        "facts": facts,
        "set_up": facts.set_up,
        "metric": shown_run.typical_metrics.get(shown_run.main_headline),
        "metrics": shown_run.typical_metrics,
        "design_alone": shown_run.measurements.scopes.get(DESIGN_ALONE, {}),
        "environment": shown_run.environment,
        "maps": [item for item in shown_run.artifacts if isinstance(item, BrainMap)],
        "is_simulated": SIMULATED in shown_run.measurements.caveats,
        "phrases": templates().get_template("phrases.txt").module,
        "numbers": templates().get_template("numbers.txt").module,
        "papers": name_papers,
        "setting": format_setting,
        "SIGNIFICANCE_LEVEL": SIGNIFICANCE_LEVEL,
    }
    stores = _open_stores(shown_run)
    return values | _describe_stores(stores) if stores else values


def _open_stores(shown_run: ShownRun) -> list[SignalStore]:
    """Open the signal stores of a run. Changed or missing stores give an empty list."""
    stores = []
    with suppress(BrainhiveError, OSError):
        inputs = shown_run.folder.recipe(RunInputs)
        signals = inputs.paths.under_home("signals")
        for name, digest in inputs.digests.items():
            if name.startswith("signals "):
                store = SignalStore.open(signals / f"{name.partition(' ')[2]}.h5")
                if store.identity != digest:
                    return []
                stores.append(store)
        return stores
    return []


def _describe_stores(stores: Sequence[SignalStore]) -> dict[str, Any]:
    """Describe signal stores, a store for each subject, and their BIDS metadata."""
    sessions: list[dict[str, Any]] = []
    subject_counts = []
    dropped = Counter[str]()
    files: list[str] = []
    grids: list[str] = []
    for store in stores:
        description = describe_store(store)
        provenance = description["provenance"]
        store_sessions = provenance.pop("sessions", [{}])
        sessions += [provenance | session for session in store_sessions]
        for counts in description["splits"].values():
            dropped.update(counts.pop("dropped"))
        for trials in store.splits.values():
            files += trials.provenance.get("files", ())
            grids += _describe_grid(trials.space)

        subject_counts.append(flatten(description["splits"]))

    facts: dict[str, Any] = {
        "sessions": sessions,
        "recording": merge_set_ups(list(map(flatten, sessions))),
        "counts": merge_set_ups(subject_counts),
        "grids": list(dict.fromkeys(grids)),
    }
    if all("dropped" in session for session in sessions):
        facts["dropped"] = +dropped
    return facts | _read_bids(set(map(Path, files)))


def _describe_grid(space: Any) -> list[str]:
    """Describe the size of voxels in a volume, and of the volume. Else empty."""
    if space.grid is None:
        return []
    from nibabel.affines import voxel_sizes

    sizes_mm = [f"{size:.3g}" for size in voxel_sizes(space.grid.affine)]
    shape = " × ".join(map(str, space.grid.shape))
    return [f"{' × '.join(sizes_mm)} mm, matrix {shape}"]


def _read_bids(paths: Iterable[Path]) -> dict[str, Any]:
    """Read the BIDS metadata of recordings. Damaged files are left out.

    Args:
        paths: Files that were prepared.

    Returns:
        - `sidecar`: fields that the sidecars of all recordings have, of raw recordings
          rather than of derivatives
        - `description`: description of the data set
        - `derivative`: description of the derivatives
    """
    facts: dict[str, Any] = {"sidecar": {}}
    endings = {"derivative": "_bold.json", "description": "_events.tsv"}
    for name, ending in endings.items():
        sidecars = set[Path | None]()
        folders = set[Path]()
        for path in paths:
            if path.name.endswith(ending):
                # Largest number of folders above a recording in which its data
                # set is described.
                folders.update(path.parents[:4])
                for suffix in ("bold", "eeg", "meg"):
                    sidecars.add(find_sidecar(path, suffix, ".json"))
        with suppress(BrainhiveError, OSError):
            fields: list[Any] = list(map(documents.read, filter(None, sidecars)))
            facts["sidecar"] |= merge_set_ups(fields)

            # folders come before the folders in them, and the nearest data set wins
            for folder in sorted(folders):
                description = folder / "dataset_description.json"
                if description.is_file():
                    facts[name] = documents.read(description)
    return facts
