"""The command `report`: runs as a web page, as tables for papers, or as a CSV file."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from brainhive_cli.core.base import Failures, Line, RecipeError, Table, console
from brainhive_cli.core.files import Input, atomic_write, documents, home_folder, locate
from brainhive_cli.core.recipes import Arguments, FileRecipe, NameList, flag_field
from brainhive_cli.core.results import DESCRIPTIONS, format_setting
from brainhive_cli.core.runs import Launch, Result, RunFolder, artifacts, find_newest
from brainhive_cli.reports.tables import (
    RunGroup,
    ShownRun,
    find_shown_run,
    list_runs,
    paper_table,
    write_metrics_csv,
    write_table,
)

if TYPE_CHECKING:  # it imports numpy
    from brainhive_cli.reports.tables import MethodComparison

ReportFormat = Literal["html", "md", "csv", "tex"]


class Recipe(FileRecipe):
    """Recipe of `report` and `compare`: the runs, and the format of the report."""

    runs_code = False
    summary = "Show results on an HTML page, or write tables for papers."
    example = "runs/eval-retrieval/NAME"
    switches = ("open",)

    runs: Annotated[NameList | None, Arguments("PATH")] = Field(
        None,
        description="runs: a folder, a name, or a command for its newest run; "
        "default: the newest run with metrics",
    )
    labels: NameList | None = flag_field(
        None,
        "labels of the runs, in the same order, as in aligned,base; "
        "default: their names",
    )
    format: ReportFormat = flag_field(
        "html",
        "format: html (a page), md or tex (tables for papers), or csv (a "
        "row for each metric of each scope)",
    )
    to: str | None = flag_field(None, "file to write; default: a file below reports/")
    table: bool | str = flag_field(
        False,
        "write a table of a workflow with a row for each method (table=ROW "
        "names the row to compare with). Results come before excluded runs",
        union_mode="left_to_right",
    )
    checklist: bool = flag_field(
        False,
        "write COBIDAS checklists for journals, filled from the runs, with "
        "--format md, tex or csv. They are in place of tables, and a page always has "
        "them",
    )
    figures: str | None = flag_field(
        None, "folder for all figures as SVG, PNG and PDF, for slides and papers"
    )

    @model_validator(mode="after")
    def _check_checklist(self) -> Self:
        """Refuse a page in place of a checklist, because every page has one."""
        if self.checklist and self.format == "html":
            raise RecipeError(
                "checklist writes a file to complete, and format=html is a page",
                "add --format md, tex or csv",
            )
        return self


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs that are read, and the files that are written."""
    runs = open_runs(recipe)
    listed_inputs = [Input(str(shown_run.folder.path)) for shown_run in runs]
    output_paths = [_choose_output_path(recipe, runs)]
    if recipe.figures:
        output_paths.append(locate(recipe.figures))
    for path in output_paths:
        listed_inputs.append(Input(str(path), note="to be written"))
    return listed_inputs


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Read and compare the runs, and write the page or the tables.

    If some runs are missing or damaged, the report has the others.

    Args:
        recipe: Recipe of `report`, with the runs and the format.
        launch: Processes of the command, of which the main process writes the files.
        force: Not used, since a report is always written again.

    Returns:
        The tables and the written files. The comparisons of runs are in `details`.
    """
    n_named_runs = len(recipe.runs or ())
    recipe, failures = leave_out_damaged_runs(recipe)
    exit_code = failures.finish(n_named_runs)
    runs = open_runs(recipe)
    path = _choose_output_path(recipe, runs)
    groups = group_runs(runs)
    for group in groups:
        for reason in group.refusals:
            console.warn(f"not compared: {reason}")

    if recipe.table:
        from brainhive_cli.reports.tables import method_tables

        reference_row = "" if recipe.table is True else recipe.table
        method_comparisons = method_tables.compare_methods(runs, reference_row)
        tables = list(map(method_tables.tabulate_methods, method_comparisons))
    else:
        method_comparisons = []
        tables = []
        for group in groups:
            table = paper_table(group)
            # a run without metrics, such as a plan, has a column of names only
            if len(table.columns) > 1:
                tables.append(table)

    # write the report and the figures
    launch.run_on_main(
        partial(_write_report, recipe, groups, tables, path, method_comparisons)
    )
    files = {"page" if recipe.format == "html" else "table": path}
    if recipe.figures:
        from brainhive_cli.reports.pages.run_page import save_figures

        figure_folder = locate(recipe.figures)
        with console.progress("drawing the figures"):
            method_figures = []
            if method_comparisons:
                from brainhive_cli.reports.pages.method_sections import (
                    draw_methods_for_paper,
                )

                method_figures = list(map(draw_methods_for_paper, method_comparisons))
            saved_files = launch.run_on_main(
                partial(save_figures, groups, figure_folder, method_figures)
            )
        files["figures"] = figure_folder
        console.say(f"{len(saved_files)} figure files saved in {figure_folder}")

    comparisons = []
    for group in groups:
        comparisons += [difference.model_dump() for difference in group.differences]
    return Result(
        path.parent,
        tuple(tables),
        files=files,
        exit_code=exit_code,
        details={"comparisons": comparisons} | failures.as_details(),
    )


def _write_report(
    recipe: Recipe,
    groups: Sequence[RunGroup],
    tables: Sequence[Table],
    path: Path,
    method_comparisons: Sequence["MethodComparison"],
) -> None:
    """Write a web page, or a file of tables, in the format that the recipe names.

    Args:
        recipe: Recipe of `report`, with the format.
        groups: Runs and their comparisons, a group for each command.
        tables: Tables of methods if `recipe.table` is set, else a table of each group.
        path: File to write.
        method_comparisons: Comparisons of methods, with a section each. Empty if
            `recipe.table` is not set.
    """
    with atomic_write(path) as temporary_path:
        if recipe.format == "html":
            # these modules import matplotlib
            from brainhive_cli.reports.pages.checklists import lay_out_checklists
            from brainhive_cli.reports.pages.method_sections import lay_out_methods
            from brainhive_cli.reports.pages.run_page import lay_out_page

            sections = lay_out_methods(method_comparisons)
            with console.progress("drawing the page"):
                page = lay_out_page(groups, first_sections=sections)
                checklists = lay_out_checklists(list_runs(groups))
                page = replace(page, sections=[*page.sections, *checklists])
                page.write(temporary_path)
            return

        if recipe.checklist:
            text = _write_checklists(list_runs(groups), recipe.format)
        elif recipe.format != "csv":
            texts = [write_table(table, recipe.format) for table in tables]
            text = "\n".join(texts)
        elif recipe.table:
            from brainhive_cli.reports.tables import method_tables

            text = method_tables.join_tables(tables)
        else:
            text = write_metrics_csv(groups)
        temporary_path.write_text(text, encoding="utf-8")


def _write_checklists(runs: Sequence[ShownRun], suffix: str) -> str:
    """Write the COBIDAS checklists of some runs, or raise an error without any."""
    from brainhive_cli.reports.pages.checklists import fill_checklists

    texts = [filled.write(suffix) for filled in fill_checklists(runs)]
    if not texts:
        raise RecipeError(
            "none of these runs tested a model on signals that are EEG, MEG or fMRI",
            "name a run of eval-retrieval, reconstruct, explain or calibrate",
        )
    return "\n".join(texts)


def group_runs(runs: Sequence[ShownRun]) -> list[RunGroup]:
    """Group runs by command, and compare the first run of each group with the others.

    Args:
        runs: Runs of one or more commands.

    Returns:
        The groups, in the order of their first runs.
    """
    runs_by_command: dict[str, list[ShownRun]] = {}
    for shown_run in runs:
        runs_by_command.setdefault(shown_run.command, []).append(shown_run)

    groups = []
    for command_runs in runs_by_command.values():
        if len(command_runs) > 1:
            groups.append(_compare(command_runs))
        else:
            groups.append(RunGroup(command_runs))
    return groups


def leave_out_damaged_runs(recipe: Recipe) -> tuple[Recipe, Failures]:
    """Leave out the runs of a recipe that are missing or damaged.

    Returns:
        The recipe with the other runs and their labels, and the errors. A recipe with a
        single run, or with another number of labels than runs, is not changed.
    """
    failures = Failures()
    names = recipe.runs or []
    labels = recipe.labels
    if len(names) < 2 or (labels and len(labels) != len(names)):
        return recipe, failures

    root = recipe.paths.under_home("runs")
    readable_names = []
    readable_labels = []
    for number, name in enumerate(names):
        # `open_runs` writes the messages
        with console.mute_messages(), failures.collect():
            folder = find_shown_run(root, name)
            folder.measurements()
            artifacts.read(folder)
            readable_names.append(name)
            if labels:
                readable_labels.append(labels[number])
    changes = {"runs": readable_names, "labels": readable_labels or None}
    return recipe.model_copy(update=changes), failures


def open_runs(recipe: Recipe) -> list[ShownRun]:
    """Open the runs that the recipe names, and give each run a label.

    Args:
        recipe: Recipe with names and labels of runs. Without names, the newest run with
            metrics is opened. Without labels, labels are derived from the runs.

    Returns:
        The opened runs, in the order of the recipe.

    Raises:
        MissingData: if a run does not exist or is not finished.
        RecipeError: if a run is named twice, if the number of labels is not the number
            of runs, or if two labels of the recipe are equal.
    """
    root = recipe.paths.under_home("runs")
    names: Sequence[str | None] = recipe.runs or [None]
    folders = [find_shown_run(root, name) for name in names]

    paths = [folder.path.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise RecipeError(
                f"{RunFolder(path).reference} is named twice", "name each run once"
            )

    labels = recipe.labels or _choose_labels(folders)
    is_repeated = len(set(labels)) < len(labels)
    if recipe.labels and (is_repeated or len(labels) != len(folders)):
        raise RecipeError(
            f"{len(folders)} runs need {len(folders)} different labels, but the "
            f"labels are: {', '.join(labels)}",
            "give each run a label of its own",
        )
    runs = [
        ShownRun(label, folder) for label, folder in zip(labels, folders, strict=True)
    ]

    if not recipe.labels and len(runs) > 1:
        labels = name_by_differences(runs)
        # a label that the user has given to a run is kept
        for number, shown_run in enumerate(runs):
            if shown_run.label == shown_run.folder.label:
                labels[number] = shown_run.label
        if len(set(labels)) == len(labels):
            named = zip(runs, labels, strict=True)
            return [replace(shown_run, label=label) for shown_run, label in named]
    return runs


def _choose_labels(folders: Sequence[RunFolder]) -> list[str]:
    """Choose a label for each run of a report.

    - Short name: the label that the user has given the run, or else the run's name
      without the digests at its end.
    - Full name, if runs of a command have the same short name.
    """
    short_names = []
    for folder in folders:
        short_names.append((folder.command, folder.label or folder.short_name))

    labels = []
    for command_and_name, folder in zip(short_names, folders, strict=True):
        is_unique = short_names.count(command_and_name) == 1
        labels.append(command_and_name[1] if is_unique else folder.file_name)
    return labels


def name_by_differences(runs: Sequence[ShownRun]) -> list[str]:
    """Name runs by the values of the recipe keys that tell them apart.

    Args:
        runs: Two or more runs, with their labels.

    Returns:
        Names such as "nice, rate_hz 250 Hz". The labels if the runs are of different
        commands, if a run has no stored recipe, if names are equal, or if a name has
        more than 3 commas.
    """
    labels = [shown_run.label for shown_run in runs]
    commands = {shown_run.command for shown_run in runs}
    set_ups = [shown_run.measurements.facts.set_up for shown_run in runs]
    if len(commands) > 1 or not all(set_ups):
        return labels

    # list all keys except papers and words
    keys: dict[str, None] = {}
    for set_up in set_ups:
        for key in set_up:
            if not key.startswith(DESCRIPTIONS):
                keys[key] = None

    # keys such as `backbone.kind` describe a run best, so they come first
    names = [""] * len(runs)
    for key in sorted(keys, key=lambda key: not key.endswith(".kind")):
        key_name = key.rpartition(".")[2]
        # a kind such as "nice" is clear without the name of its key
        prefix = "" if key_name == "kind" else f"{key_name} "
        longer_names = []
        for name, set_up in zip(names, set_ups, strict=True):
            longer_names.append(
                f"{name}, {prefix}{format_setting(key, set_up.get(key))}"
            )

        # keep a key only if it tells more runs apart
        if len(set(longer_names)) > len(set(names)):
            names = longer_names
    n_keys = max(name.count(", ") for name in names)
    # Largest number of recipe keys in the label of a run.
    if len(set(names)) < len(runs) or n_keys > 3:
        return labels
    return [name.removeprefix(", ") for name in names]


def find_newest_pair(root: Path) -> list[str]:
    """Find the two newest runs of a command that can be compared.

    Args:
        root: Folder of all runs.

    Returns:
        Paths of the newest run with values of items (pictures or trials), and of the
        newest run that can be compared with it.

    Raises:
        MissingData: if there are no two such runs.
    """
    # the function returns the reason against a run, or an empty text
    first_run = find_newest(
        root,
        None,
        lambda folder: "" if folder.measurements().items else "without values per item",
        required_content="a value per item",
        hint=Line("eval-retrieval"),
    )
    first_shown_run = ShownRun(first_run.name, first_run)

    def explain_mismatch(folder: RunFolder) -> str:
        """Return why a run cannot be compared, or an empty text if it can."""
        group = _compare([first_shown_run, ShownRun(folder.name, folder)])
        return "; ".join(group.refusals)

    second_run = find_newest(
        root,
        first_run.command,
        explain_mismatch,
        required_content=f"values that can be compared with run {first_run.path.name}",
        excluded_run=first_run,
    )
    return [str(first_run.path), str(second_run.path)]


def _choose_output_path(recipe: Recipe, runs: Sequence[ShownRun]) -> Path:
    """Return the path of the report: `recipe.to`, or else a path made from the runs."""
    if recipe.to is not None:
        return locate(recipe.to)

    # several runs add a digest, so that reports on other runs have other names
    name = runs[0].folder.file_name
    if recipe.table:
        name += "-methods"
    if recipe.checklist and recipe.format != "html":
        name += "-checklist"
    if len(runs) > 1:
        folders = "\n".join(str(shown_run.folder.path) for shown_run in runs)
        digest = documents.digest_text(folders)[:6]
        name += f"-and-{len(runs) - 1}-more-{digest}"
    return build_report_path(name, recipe.format)


def build_report_path(name: str, extension: str = "html") -> Path:
    """Return the default path of a report.

    Args:
        name: Name of the file. The page of a single run has its `file_name`.
        extension: Format of the report.
    """
    # Folder of pages and tables, below the home folder.
    return home_folder() / "reports" / f"{name}.{extension}"


def _compare(runs: Sequence[ShownRun]) -> RunGroup:
    """Compare the first run with each other run, item (picture or trial) by item.

    Args:
        runs: Runs of the same command, with different labels.

    Returns:
        The runs, with their differences, and the reasons why runs were not compared.
    """
    from brainhive_cli.measurement import compare_runs

    # a single call, because p values are adjusted for the number of comparisons
    first_run, *later_runs = runs
    pairs = {}
    for shown_run in later_runs:
        labels = (first_run.label, shown_run.label)
        pairs[labels] = (first_run.measurements, shown_run.measurements)
    differences, errors = compare_runs(pairs)
    reasons = dict.fromkeys(error.message for error in errors.values())
    return RunGroup(runs, differences, list(reasons))
