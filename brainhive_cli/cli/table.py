"""Table of all commands with their options, help texts and shell completion."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import Parameter
from pathlib import Path
from typing import Any

import typer

from brainhive_cli.core.files import home_folder, shipped_folder

Complete = Callable[[str], list[str]]
"""Function that completes an incomplete argument, and returns all continuations."""
SHELF_SIGN = "@"
"""Sign before a shelf in `completions/keys.txt`, as in `@backbones`. A shelf is a
folder of parts, whose kinds are the allowed values of the key.
"""


def list_kinds(shelf: str) -> list[str]:
    """List the kinds of parts on a shelf, such as all backbones, without imports.

    Args:
        shelf: Name of a folder of parts, such as "backbones".

    Returns:
        The kinds, in the order of `core.parts.list_kinds`.
    """
    package = Path(__file__).parents[1]
    names = [file.stem for file in package.glob(f"*/{shelf}/[!_]*.py")]
    # a regular expression is faster than the YAML parser
    for table in package.glob(f"*/{shelf}/rows.yaml"):
        names += re.findall(r"^([\w-]+):", table.read_text("utf-8"), re.MULTILINE)

    # sort with underscores, because hyphens would give another order
    file_names = sorted(name.replace("-", "_") for name in names)
    return [name.replace("_", "-") for name in file_names]


def list_encoders() -> list[str]:
    """List the names of encoders, to complete a command line.

    Returns:
        Names of the encoders of Brainhive, then of the user's models with vectors in
        the folder `embeddings` of the home folder.
    """
    file = shipped_folder("completions") / "encoders.txt"
    shipped_names = file.read_text("utf-8").split()

    # files with these prefixes belong to variants of shipped encoders
    variant_prefixes = []
    for name in shipped_names:
        variant_prefixes += [f"{name}-", f"{name}+"]
    own_names = set()
    for path in home_folder().glob("embeddings/*/*/*.h5"):
        name = path.stem
        # two hyphens mark vectors of an encoder that the user named by a reference
        is_reference = "--" in name
        if not is_reference and not name.startswith(tuple(variant_prefixes)):
            own_names.add(name)
    return shipped_names + sorted(own_names.difference(shipped_names))


def list_datasets() -> list[str]:
    """List the kinds of data sets."""
    return list_kinds("datasets")


def list_recipes() -> list[str]:
    """List the folders of shipped recipes, which `--recipe` takes."""
    # the files directly in this folder are the default recipes of the commands
    root = shipped_folder("recipes")
    files = root.glob("*/**/*.yaml")
    return sorted({file.parent.relative_to(root).as_posix() for file in files})


def make_run_lister(command: str = "*") -> Callable[[], list[str]]:
    """Make a function that lists the names of finished runs, the newest first.

    Args:
        command: Command that made the runs, or a pattern such as `train-*`.
    """

    def list_names() -> list[str]:
        # a finished run has the file metrics.json
        folder = home_folder() / "runs"
        files = sorted(
            folder.glob(f"{command}/*/metrics.json"),
            key=lambda file: -file.stat().st_mtime,
        )
        return [file.parent.name for file in files]

    return list_names


def make_completer(
    *listers: Callable[[], list[str]],
    fixed_names: Iterable[str] = (),
    is_list: bool = False,
) -> Complete:
    """Make a function that completes the value of a command-line option.

    Args:
        listers: Functions that return lists of valid names.
        fixed_names: Further valid names, which are suggested first.
        is_list: True if the value is a list of names, separated by commas.

    Returns:
        A function from the typed text to the values that begin with it.
    """

    def complete(incomplete: str) -> list[str]:
        # the names before the last comma stay as they are
        finished_names, comma, last_name = "", "", incomplete
        if is_list:
            finished_names, comma, last_name = incomplete.rpartition(",")
        names = list(fixed_names)
        for list_names in listers:
            names += list_names()
        matches = [name for name in names if name.startswith(last_name)]
        return [f"{finished_names}{comma}{name}" for name in matches]

    return complete


def list_key_values(command: str) -> dict[str, list[str]]:
    """List the recipe keys (settings) of a command with their allowed values.

    Args:
        command: Name of the command.

    Returns:
        Allowed values by dotted key, such as `train.lr`. The list of a key that takes
        any value is `[""]`.
    """
    lines = (shipped_folder("completions") / "keys.txt").read_text("utf-8").splitlines()
    values_by_key = {}
    for line in lines:
        name, key, values = line.split(" ")
        # the name * stands for all commands
        if name not in (command, "*"):
            continue
        if values.startswith(SHELF_SIGN):
            values_by_key[key] = list_kinds(values.removeprefix(SHELF_SIGN))
        else:
            values_by_key[key] = values.split(",")
    return values_by_key


def complete_key(ctx: Any, incomplete: str) -> list[str]:
    """Complete an argument `key=value`, which sets a recipe key of a command.

    Args:
        ctx: Context of Click for the command that the user has typed.
        incomplete: Part of the argument that the user has typed so far.

    Returns:
        Suggestions `key=`, or suggestions `key=value` if only one key can be meant.
    """
    values_by_key = list_key_values(ctx.command.name)
    key, equals, _ = incomplete.partition("=")
    if equals:
        matching_keys = [key] if key in values_by_key else []
    else:
        matching_keys = [name for name in values_by_key if name.startswith(key)]

    if len(matching_keys) == 1:
        matching_key = matching_keys[0]
        return [f"{matching_key}={value}" for value in values_by_key[matching_key]]
    return [f"{name}=" for name in matching_keys]


def make_value_completer(key: str) -> Callable[[Any, str], list[str]]:
    """Make a function that completes the value of a flag.

    Args:
        key: Recipe key that the flag sets.
    """

    def complete(ctx: Any, incomplete: str) -> list[str]:
        values = list_key_values(ctx.command.name).get(key, [])
        return [value for value in values if value and value.startswith(incomplete)]

    return complete


def make_option(
    flag: str,
    description: str,
    default: str = "",
    complete: Complete | None = None,
    value: type = str,
    **limits: Any,
) -> Parameter:
    """Make an optional flag of a command, as a parameter of the command's function.

    Args:
        flag: Flag as the user types it, such as "--encoders".
        description: Help text.
        default: Text that the help shows as the default. An unset parameter is None.
        complete: Function that completes the value.
        value: Type of the value, which is bool for a flag without a value.
        limits: Limits of the value for `typer.Option`, such as `min=1`.

    Returns:
        An `inspect.Parameter` with the placeholder "_" as its name.
    """
    info = typer.Option(
        None,
        flag,
        help=description,
        show_default=default or False,
        autocompletion=complete,
        **limits,
    )
    return Parameter("_", Parameter.KEYWORD_ONLY, default=info, annotation=value | None)


def make_switch(flag: str, description: str) -> Parameter:
    """Make a flag without a value, with its help text."""
    return make_option(flag, description, value=bool)


def make_arguments(
    metavar: str, description: str, complete: Complete | None = None
) -> Parameter:
    """Make the parameter for all arguments of a command that follow no flag.

    Args:
        metavar: Placeholder in the help, such as `[NAME]... [KEY.PATH=VALUE]...`.
        description: Help text.
        complete: Function that completes names. If None, only recipe
            keys are completed.

    Returns:
        An `inspect.Parameter` with the placeholder "_" as its name.
    """

    def complete_argument(ctx: Any, incomplete: str) -> list[str]:
        names = complete(incomplete) if complete else []
        # before the first letter, suggest no keys, because a command has many
        if names and not incomplete:
            return names
        return names + complete_key(ctx, incomplete)

    info = typer.Argument(
        None,
        metavar=metavar,
        help=description,
        show_default=False,
        autocompletion=complete_argument,
    )
    return Parameter(
        "_", Parameter.KEYWORD_ONLY, default=info, annotation=list[str] | None
    )


# options of several commands
OVERRIDES = make_arguments(
    "[KEY.PATH=VALUE]...", "Values of recipe keys, which override the recipe."
)
COMMON_OPTIONS = {
    "recipe": make_option(
        "--recipe",
        "YAML file, or name of a shipped recipe.",
        default="the recipe of the command",
        complete=make_completer(list_recipes),
    ),
    "check": make_switch(
        "--check", "Print the plan with inputs, time and missing files, and stop."
    ),
    "recipe_too": make_switch(
        "--recipe-too",
        "With --check, also print the resolved recipe (save it with > FILE.yaml).",
    ),
    "json": make_switch("--json", "Print the result as a JSON document."),
    "debug": make_switch("--debug", "Show the traceback of an error."),
}
"""Options of all commands, by name."""
AGAIN_OPTION = {
    "again": make_switch(
        "--again", "Do the work again even if the same run or store is finished."
    ),
}
"""Option of commands that leave out finished work, by name."""
CODE_OPTION = {
    "allow_code": make_switch(
        "--allow-code",
        "Allow code from outside Brainhive, such as encoders, parts and scripts.",
    ),
}
"""Option of commands that read parts, models or recipes with code, by name."""
LAUNCH_OPTIONS = {
    "processes": make_option(
        "--processes", "Number of processes.", default="one per GPU", value=int, min=1
    ),
    "mixed_precision": make_option(
        "--mixed-precision", "Precision of the computation: no (float32) or bf16."
    ),
}
"""Options of commands whose work several processes can share, by key of the section
`run` of a recipe.
"""
RUN_OPTIONS = {
    "label": make_option(
        "--label",
        "Text that tells the run from others. It may be changed later, and name the "
        "run.",
        default="none",
    ),
}
"""Options of commands that write a run, by key of the section `run` of a recipe."""
SUBMIT_OPTIONS = {
    "submit": make_switch(
        "--submit", "Run on a cluster, in tasks of the scheduler that share the work."
    ),
}
DATASET = make_option(
    "--dataset",
    "Data set, such as things-eeg, image-folder or demo.",
    complete=make_completer(list_datasets),
)
ENCODERS = make_option(
    "--encoders",
    "Encoders by name or reference, separated by commas.",
    complete=make_completer(list_encoders, is_list=True),
)
complete_align_run = make_completer(make_run_lister("train-align"))
complete_align_runs = make_completer(make_run_lister("train-align"), is_list=True)
RUN = make_option(
    "--run",
    (
        "Run of train-align (folder, name, SWEEP:VARIANT or "
        "hub:owner/name), or model folder."
    ),
    default="the newest run on the data set",
    complete=complete_align_run,
)
SUBJECTS = make_option("--subjects", "Subjects to use, as in 1,2.", default="the run's")
GENERATOR = make_option("--generator", "SDXL-type model: hub:owner/name or a folder.")


@dataclass(frozen=True)
class Command:
    """Command with its flags and help texts.

    Attributes:
        help_section: Section of the help that lists the command.
        name: Name of the command, of its module in `commands` and of its recipe.
        description: Help text, a sentence.
        example: Arguments of an example, which the help shows.
        flags: Flags by the recipe key that they set.
        switches: Flags without a value that set no recipe key, by name.
        positional_key: Recipe key for arguments that are not overrides, or "".
        metavar: Placeholder in the help for these arguments: NAME or PATH.
        complete: Function that completes these arguments, if any.
        can_share_work: True if several processes can share the work.
        skips_finished: True if the command leaves out finished work.
        runs_code: True if the command can run code from outside Brainhive.
        writes_run: True if the command writes the folder of a run.
    """

    help_section: str
    name: str
    description: str
    example: str = ""
    flags: Mapping[str, Parameter] = field(default_factory=dict)
    switches: Mapping[str, Parameter] = field(default_factory=dict)
    positional_key: str = ""
    metavar: str = "NAME"
    complete: Complete | None = None
    can_share_work: bool = True
    skips_finished: bool = True
    runs_code: bool = True
    writes_run: bool = False


START = "Start here"
STEPS = "Steps"
STORES = "Checks, and embeddings of other programs"
PAGE_OPTIONS = {
    "labels": make_option(
        "--labels", "Labels of the runs, as in aligned,base.", default="their names"
    ),
    "format": make_option(
        "--format",
        "Format: html (a page), md or tex (tables for papers), or csv.",
        default="html",
    ),
    "to": make_option("--to", "File to write.", default="a file below reports/"),
    "figures": make_option(
        "--figures",
        "Folder for all figures as SVG, PNG and PDF, for slides and papers.",
    ),
}
"""Flags of the commands that make a page of runs."""
OPEN_OPTION = {"open": make_switch("--open", "Open the page in a browser.")}
COMMANDS = (
    # commands for new users
    Command(
        help_section=START,
        name="demo",
        description=(
            "Try Brainhive on shipped data: simulated EEG or fMRI, or recorded fMRI "
            "with --real."
        ),
        example="--real",
        flags={
            "system": make_option(
                "--system",
                (
                    "System to run: brainhive (EEG), havir (fMRI, two streams) or "
                    "neurons (fMRI of films)."
                ),
                default="brainhive",
            ),
            "real": make_switch(
                "--real",
                "Decode recorded fMRI: which category of pictures did the person see?",
            ),
            "quick": make_switch(
                "--quick", "Train a few epochs on a few pictures, to test that it runs."
            ),
            "write_recordings": make_option(
                "--write-recordings",
                (
                    "Folder for the files of the EEG tutorial: photographs, and "
                    "simulated recordings as a lab has them."
                ),
            ),
        },
        switches=OPEN_OPTION,
        writes_run=True,
    ),
    Command(
        help_section=START,
        name="init",
        description=(
            "Make the folders of your own study, and a table of the markers in its "
            "EEG or MEG recordings."
        ),
        example="--recording ~/recordings --pictures ~/pictures",
        flags={
            "recording": make_option(
                "--recording",
                "Recording, or folder of recordings.",
                default="those in data/recordings",
            ),
            "pictures": make_option(
                "--pictures",
                "Folder of the pictures that were shown.",
                default="data/image-folder",
            ),
        },
        can_share_work=False,
        skips_finished=False,
        runs_code=False,
    ),
    Command(
        help_section=START,
        name="doctor",
        description=(
            "Describe this machine, measure its speed, and list tasks that would run "
            "here."
        ),
        can_share_work=False,
        skips_finished=False,
        runs_code=False,
    ),
    Command(
        help_section=START,
        name="fetch",
        description=(
            "Download a data set, or list the steps if you must accept its terms first."
        ),
        example="things-eeg --subjects 1,2",
        flags={
            "subjects": make_option(
                "--subjects", "Subjects to download, as in 1,2.", default="all"
            ),
            "include": make_option(
                "--include",
                "Pattern of the files to download, as in 'sub-*/**'.",
                default="all",
            ),
        },
        positional_key="names",
        complete=make_completer(list_datasets),
        can_share_work=False,
        skips_finished=False,
        runs_code=False,
    ),
    Command(
        help_section=START,
        name="recipes",
        description=(
            "List the shipped recipes, or show each setting of a recipe with "
            "its value, default and meaning."
        ),
        example="demo/train-align",
        positional_key="names",
        complete=make_completer(list_recipes),
        can_share_work=False,
        skips_finished=False,
    ),
    Command(
        help_section=START,
        name="runs",
        description=(
            "List runs with label, result and the settings in which they differ. "
            "`runs show NAME` shows a run with its whole set-up, `runs verify NAME` "
            "repeats a training of it, and `runs rm NAME` removes it."
        ),
        example="train-align",
        flags={
            "all": make_switch("--all", "List all runs instead of the 50 newest."),
            "yes": make_switch("--yes", "Remove runs without asking."),
        },
        positional_key="words",
        complete=make_completer(
            make_run_lister(), fixed_names=("list", "show", "verify", "rm")
        ),
        can_share_work=False,
        skips_finished=False,
    ),
    # plan of a study
    Command(
        help_section=STEPS,
        name="design",
        description=(
            "Plan a study: how much recording is enough, and in which order to show "
            "your pictures."
        ),
        example="--device 7t --people 4,8 --question top1 --size 0.1",
        flags={
            "question": make_option(
                "--question",
                "Claim to support: above-chance, top1, interval or difference.",
                default="above-chance",
            ),
            "size": make_option(
                "--size",
                "Size for the question, as in 0.1: top-1, width of its interval, or "
                "difference of two models.",
                value=float,
            ),
            "new_people": make_switch(
                "--new-people", "Plan a claim about people in general."
            ),
            # assumptions
            "pilot": make_option(
                "--pilot",
                "Recording to plan from: a run or a signal store.",
                complete=make_completer(make_run_lister("eval-retrieval")),
            ),
            "device": make_option(
                "--device",
                "Device with published results: eeg, meg, 3t, 7t or consumer.",
                default="eeg",
            ),
            "pictures": make_option(
                "--pictures",
                "Folder of your pictures, for which the order is written.",
            ),
            "price_per_hour": make_option(
                "--price-per-hour", "Price of an hour of recording.", value=float
            ),
            # candidates
            "people": make_option("--people", "Numbers of people.", default="5,10"),
            "sessions": make_option(
                "--sessions", "Sessions of each person.", default="as many as needed"
            ),
            "session_minutes": make_option(
                "--session-minutes",
                "Minutes of a session, with its breaks.",
                default="60",
            ),
            "onset_interval_s": make_option(
                "--onset-interval-s",
                "Seconds from the onset of a picture to the next.",
                default="1, and 4 with fMRI",
            ),
            "train_pictures": make_option(
                "--train-pictures", "Numbers of training pictures.", default="200,800"
            ),
            "train_repetitions": make_option(
                "--train-repetitions",
                "Repetitions of each training picture.",
                default="1,4",
            ),
            "test_pictures": make_option(
                "--test-pictures", "Numbers of test pictures.", default="50"
            ),
            "test_repetitions": make_option(
                "--test-repetitions",
                "Repetitions of each test picture.",
                default="4",
            ),
            "write": make_option(
                "--write",
                "Number of the design whose order is written.",
                default="the recommended design",
                value=int,
                min=1,
            ),
        },
        can_share_work=False,
        writes_run=True,
    ),
    # stores of signals and of targets
    Command(
        help_section=STEPS,
        name="prepare",
        description=(
            "Prepare EEG, MEG or fMRI recordings for training, and store their trials."
        ),
        example="--from things-eeg --subjects 1,2",
        flags={
            "preparation.kind": make_option(
                "--from",
                f"Preparation: {', '.join(list_kinds('preparations'))}.",
                complete=make_completer(partial(list_kinds, "preparations")),
            ),
            "subjects": make_option(
                "--subjects", "Subjects to use, as in 1,2,5.", default="all in the data"
            ),
            "name": make_option(
                "--name", "Name of the stores, for the key signal.name of train-align."
            ),
        },
    ),
    Command(
        help_section=STEPS,
        name="embed",
        description=(
            "Compute embeddings of the pictures of a data set with vision models "
            "(encoders)."
        ),
        example="--encoders clip-h14,vae --dataset things-eeg",
        flags={
            "dataset": DATASET,
            "encoders": ENCODERS,
            "splits": make_option(
                "--splits", "Splits to use, as in train,test.", default="all"
            ),
            "skip_bad": make_switch(
                "--skip-bad", "Leave gaps for pictures that cannot be decoded."
            ),
        },
        switches={
            "list_encoders": make_switch(
                "--list",
                "List all encoders and whether they are on this machine, and stop.",
            )
        },
    ),
    # training and evaluation of brain encoders
    Command(
        help_section=STEPS,
        name="train-align",
        description=(
            "Train a decoder for each person and seed, which predicts the embedding of "
            "the seen picture from brain signals."
        ),
        example="--mode inter",
        flags={
            "mode": make_option(
                "--mode",
                (
                    "Training mode: intra, inter (leave one subject out), joint "
                    "or finetune."
                ),
            ),
            "dataset": DATASET,
            "encoders": ENCODERS,
            "subjects": make_option(
                "--subjects", "Subjects to use, as in 1,2,5.", default="all"
            ),
            "seeds": make_option(
                "--seeds", "Random seeds, with a model for each, as in 2025,2026."
            ),
            "backbone.kind": make_option(
                "--backbone",
                f"Brain encoder: {', '.join(list_kinds('backbones'))}.",
                complete=make_completer(partial(list_kinds, "backbones")),
            ),
            "prior": make_option(
                "--prior",
                (
                    "Prior whose frozen fusion encoder and encoders give the "
                    "training targets."
                ),
            ),
        },
        writes_run=True,
    ),
    Command(
        help_section=STEPS,
        name="eval-retrieval",
        description=(
            "Test how often trained models find the seen picture among the test "
            "pictures, with statistics."
        ),
        example="RUN --against OTHER",
        flags={
            "align_run": make_option(
                "--run",
                (
                    "Run of train-align (name, SWEEP:VARIANT, hub:owner/name, or "
                    "A,B to average runs), or model folder."
                ),
                default="the newest run on the data set",
                complete=complete_align_runs,
            ),
            "against": make_option(
                "--against",
                "Runs of train-align to compare with, item by item.",
                complete=complete_align_runs,
            ),
            "dataset": make_option(
                "--dataset",
                "Data set to test on; for a zero-shot test, also set --run.",
                default="the run's",
            ),
            "subjects": make_option(
                "--subjects", "Subjects to test, as in 1,2.", default="the run's"
            ),
            "gallery": make_option(
                "--gallery",
                "Splits whose pictures are the candidates, as in train+test.",
                default="test",
            ),
        },
        positional_key="align_run",
        complete=complete_align_run,
        writes_run=True,
    ),
    Command(
        help_section=STEPS,
        name="live",
        description=(
            "Decode which picture a person sees during a recording session, from "
            "an LSL stream, a replayed recording or simulated signals."
        ),
        example="RUN --source recording source.file=sub-01_ses-02.fif",
        flags={
            "align_run": RUN,
            "source.kind": make_option(
                "--source",
                f"Source of the signals: {', '.join(list_kinds('streams'))}.",
                default="lsl",
                complete=make_completer(partial(list_kinds, "streams")),
            ),
            "subject": make_option(
                "--subject",
                "Number of the subject who is decoded.",
                default="the only subject of the run",
                value=int,
                min=0,
            ),
            "events": make_option(
                "--events", "Table (CSV) with the columns event and picture."
            ),
            "whiten_trials": make_option(
                "--whiten-trials",
                (
                    "Number of first trials of the session whose noise whitens "
                    "the later trials."
                ),
                value=int,
                min=20,
            ),
            "windows": make_option(
                "--windows",
                "Number of windows after which the session ends.",
                value=int,
                min=1,
            ),
            "draw": make_option(
                "--draw",
                "Recipe of reconstruct that draws the seen pictures.",
                complete=make_completer(list_recipes),
            ),
            # outputs while the session runs
            "outlet": make_option(
                "--outlet", "Name of a new LSL stream that sends each result."
            ),
            "lines": make_switch(
                "--lines", "Write each result to stdout as a line of JSON."
            ),
            "open": make_switch("--open", "Open the page in a browser."),
        },
        positional_key="align_run",
        complete=complete_align_run,
        can_share_work=False,
        skips_finished=False,
        writes_run=True,
    ),
    Command(
        help_section=STEPS,
        name="explain",
        description=(
            "Show when, where, in which frequency band and at which visual level "
            "brain signals carry information about the picture."
        ),
        example="--analyses windows,sensors",
        flags={
            "align_run": RUN,
            "subjects": SUBJECTS,
            "analyses": make_option(
                "--analyses", "Analyses to run, as in windows,bands.", default="all"
            ),
            "levels": make_option(
                "--levels", "Further encoders to compare the signals with."
            ),
        },
        positional_key="align_run",
        complete=complete_align_run,
        writes_run=True,
    ),
    Command(
        help_section=STEPS,
        name="calibrate",
        description=(
            "Show how the accuracy for a new person grows with the amount of recording."
        ),
        example="--minutes 1,5,15,60",
        flags={
            "align_run": RUN,
            "subjects": make_option(
                "--subjects",
                "New people, as in 1,2.",
                default="all who are new to a model",
            ),
            # amounts of recording in pictures, trials or minutes
            "pictures": make_option(
                "--pictures",
                "Amounts of recording in pictures, as in 10,50,100.",
                default="10 to 200, and all",
            ),
            "trials": make_option("--trials", "Amounts of recording in single trials."),
            "minutes": make_option("--minutes", "Amounts of recording in minutes."),
            "order": make_option(
                "--order",
                (
                    "Choice of trials: draws (random trials) or recording (the first "
                    "trials)."
                ),
                default="draws",
            ),
            "draws": make_option(
                "--draws", "Number of random draws of each amount.", value=int, min=1
            ),
            "arms": make_option(
                "--arms",
                "Calibration methods, as in zero-shot,transfer.",
                default="zero-shot,transfer,scratch",
            ),
        },
        positional_key="align_run",
        complete=complete_align_run,
        writes_run=True,
    ),
    # training of a prior, and reconstruction of pictures
    Command(
        help_section=STEPS,
        name="train-prior",
        description=(
            "Train a prior, which turns decoded embeddings into the input of a picture "
            "generator (SDXL)."
        ),
        example="--dataset demo --recipe demo",
        flags={
            "dataset": DATASET,
            "encoders": ENCODERS,
            "generator.source": GENERATOR,
            "train.steps": make_option(
                "--steps", "Number of training steps.", value=int, min=1
            ),
            "embed_missing": make_switch(
                "--embed-missing",
                "Compute embeddings that no store contains, at every step.",
            ),
        },
        writes_run=True,
    ),
    Command(
        help_section=STEPS,
        name="reconstruct",
        description=(
            "Reconstruct the seen pictures from test signals with a picture generator."
        ),
        example="--prior hub:Fusion-Prior-SynCLR_B32_VAE",
        flags={
            "prior": make_option(
                "--prior", "Prior: hub:NAME, hub:owner/name, a folder, or identity."
            ),
            "align_run": RUN,
            "dataset": make_option(
                "--dataset",
                "Data set that a model folder decodes.",
                default="the run's",
            ),
            "generator.source": GENERATOR,
            "subjects": SUBJECTS,
            "repeats": make_option(
                "--repeats", "Number of pictures for each item.", value=int, min=1
            ),
            "sources": make_option(
                "--from",
                (
                    "Sources of the pictures: brain, images (ceiling), shuffled "
                    "(floor), zeroed, or the nearest or mean training picture."
                ),
                default="brain,nearest,mean",
            ),
            # scoring of existing pictures
            "score": make_option(
                "--score",
                "Folder of pictures or clips to score; no pictures are generated.",
            ),
            "truth": make_option(
                "--truth",
                (
                    "Folder of the seen pictures with the same file names, or the "
                    "word left if the left half of each clip shows them."
                ),
            ),
            "against": make_option(
                "--against",
                "Runs of reconstruct to compare with, item by item.",
                complete=make_completer(make_run_lister("reconstruct"), is_list=True),
            ),
        },
        positional_key="align_run",
        complete=complete_align_run,
        writes_run=True,
    ),
    # all steps of a system
    Command(
        help_section=STEPS,
        name="workflow",
        description=(
            "Run all steps of a study, from its data to its tables, and "
            "continue where an earlier run stopped."
        ),
        example="--recipe papers/neurons",
        writes_run=True,
    ),
    # reports of results, and models for other users
    Command(
        help_section=STEPS,
        name="report",
        description="Show results on an HTML page, or write tables for papers.",
        example="runs/eval-retrieval/NAME",
        flags={
            **PAGE_OPTIONS,
            "table": make_switch(
                "--table",
                (
                    "Write a table of a workflow with a row for each method; "
                    "table=ROW names the row to compare with."
                ),
            ),
            "checklist": make_switch(
                "--checklist",
                (
                    "Write COBIDAS checklists for journals, filled from the runs (with "
                    "--format md, tex or csv)."
                ),
            ),
        },
        switches=OPEN_OPTION,
        positional_key="runs",
        metavar="PATH",
        can_share_work=False,
        skips_finished=False,
        runs_code=False,
    ),
    Command(
        help_section=STEPS,
        name="compare",
        description=(
            "Compare runs side by side, with paired tests of the first run against "
            "each other run."
        ),
        example="RUN RUN --labels aligned,base",
        flags=PAGE_OPTIONS,
        switches=OPEN_OPTION,
        positional_key="runs",
        metavar="PATH",
        can_share_work=False,
        skips_finished=False,
        runs_code=False,
    ),
    Command(
        help_section=STEPS,
        name="push",
        description=(
            "Upload a trained model with a model card to the Hugging Face hub, private "
            "by default."
        ),
        example="RUN hub:owner/name",
        flags={
            "public": make_switch("--public", "Make the model public."),
            # statements of the model card
            "licence": make_option(
                "--licence",
                "Licence of the weights.",
                default="the licence of the data, if known",
            ),
            "data_terms_checked": make_switch(
                "--data-terms-checked",
                (
                    "Confirm that the terms of the data and the participants "
                    "allow the upload."
                ),
            ),
            "citation": make_option("--citation", "Citation of the model."),
            "contact": make_option("--contact", "Contact for users of the model."),
        },
        positional_key="words",
        complete=make_completer(make_run_lister("train-*")),
        can_share_work=False,
        skips_finished=False,
    ),
    Command(
        help_section=STEPS,
        name="export",
        description=(
            "Write a trained model to a file that needs only PyTorch, for other "
            "programs."
        ),
        example="RUN --rate 256 --window -200,1000",
        flags={
            "channels": make_option(
                "--channels",
                "Channels of the signals, in their order.",
                default="the model's",
            ),
            "rate_hz": make_option(
                "--rate",
                "Sampling rate of the signals in Hz.",
                default="the model's",
                value=float,
            ),
            "window_ms": make_option(
                "--window",
                "Start and stop of the window after the onset, in ms.",
                default="the model's",
            ),
        },
        positional_key="align_run",
        complete=complete_align_run,
        can_share_work=False,
        skips_finished=False,
    ),
    # check, import and export of existing stores
    Command(
        help_section=STORES,
        name="check",
        description=(
            "Check whether data sets, embeddings and runs are complete, damaged or "
            "missing."
        ),
        example="things-eeg",
        flags={
            "subjects": make_option(
                "--subjects",
                "Subjects of data sets to check, as in 1,2.",
                default="all",
            ),
            "plots": make_switch(
                "--plots", "Draw a page with the reliability of each signal store."
            ),
        },
        positional_key="stores",
        metavar="PATH",
        complete=make_completer(list_datasets, make_run_lister()),
        can_share_work=False,
    ),
    Command(
        help_section=STORES,
        name="audit",
        description=(
            "Re-check published retrieval results for common mistakes, "
            "and show how much each mistake changes the accuracy."
        ),
        example="FOLDER",
        positional_key="folder",
        metavar="PATH",
        can_share_work=False,
        skips_finished=False,
        runs_code=False,
    ),
    Command(
        help_section=STORES,
        name="import-embeddings",
        description=(
            "Import embeddings that other programs computed: parquet, .pt, "
            ".npy or thingsvision."
        ),
        example="cache/things_*.parquet --encoders clip-h14,vae",
        flags={
            "dataset": DATASET,
            "encoders": ENCODERS,
            "name": make_option(
                "--as", "Name of your own model that made the vectors."
            ),
            "splits": make_option(
                "--splits",
                "Splits to use, as in train,test.",
                default="all splits with vectors",
            ),
            "skip_missing": make_switch(
                "--skip-missing", "Leave gaps for pictures without a vector."
            ),
        },
        positional_key="sources",
        metavar="PATH",
        can_share_work=False,
    ),
    Command(
        help_section=STORES,
        name="export-embeddings",
        description=(
            "Export embeddings to parquet or NumPy files, which import-embeddings can "
            "read."
        ),
        example="embeddings/things-eeg --format npy",
        flags={
            "to": make_option("--to", "Folder for the files."),
            "format": make_option(
                "--format", "Format: parquet or npy.", default="parquet"
            ),
        },
        positional_key="stores",
        metavar="PATH",
        can_share_work=False,
        skips_finished=False,
    ),
)
