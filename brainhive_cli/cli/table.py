"""All commands in the order of the help, their options, the recipe key that each flag
sets, completion.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import Parameter
from pathlib import Path
from typing import Any

import typer

from brainhive_cli.core.files import shipped_folder

Complete = Callable[[str], list[str]]
SHELF = "@"
"""Begins the name of a shelf, whose kinds are the values of a key."""


def kinds(shelf: str) -> list[str]:
    """List the parts of a shelf by their files, and the rows of its families."""
    package = Path(__file__).parents[1]

    # a row of a family is a part without a file
    files = [file.stem for file in package.glob(f"*/{shelf}/[!_]*.py")]
    # read without the YAML reader, which takes time
    for table in package.glob(f"*/{shelf}/rows.yaml"):
        files += re.findall(r"^([\w-]+):", table.read_text("utf-8"), re.MULTILINE)
    # sorted by file, as `core.parts.kinds` does; hyphens sort otherwise
    return [
        file.replace("_", "-")
        for file in sorted(file.replace("-", "_") for file in files)
    ]


def encoders() -> list[str]:
    """List the encoders by name, as `completions/build.py` wrote them down, and own
    vectors in home.
    """
    shipped = (
        (shipped_folder("completions") / "encoders.txt").read_text("utf-8").split()
    )

    # own vectors by paths alone, without outputs of shipped encoders, and what
    # references are called
    stored = {
        path.stem
        for path in Path(os.environ.get("BRAINHIVE_HOME", ".")).glob(
            "embeddings/*/*/*.h5"
        )
    }
    begins = tuple(f"{name}{sign}" for name in shipped for sign in "-+")
    return [
        *shipped,
        *sorted(
            {
                name
                for name in stored
                if not name.startswith(begins) and "--" not in name
            }
            - {*shipped}
        ),
    ]


def datasets() -> list[str]:
    """List the data sets."""
    return kinds("datasets")


def recipes() -> list[str]:
    """List the shipped recipes that `--recipe` takes."""
    # recipes at the top are the defaults of their commands
    root = shipped_folder("recipes")
    return sorted(
        {path.parent.relative_to(root).as_posix() for path in root.glob("*/**/*.yaml")}
    )


def runs(command: str = "*") -> Callable[[], list[str]]:
    """List the finished runs of a command, or of all, the newest first."""

    def list_names() -> list[str]:
        # by paths alone: a completion has no time to load the rest of the package
        below = Path(os.environ.get("BRAINHIVE_HOME", ".")) / "runs"
        files = sorted(
            below.glob(f"{command}/*/metrics.json"),
            key=lambda file: -file.stat().st_mtime,
        )
        return [file.parent.name for file in files]

    return list_names


def one_of(
    *lists: Callable[[], list[str]], words: Iterable[str] = (), is_list: bool = False
) -> Complete:
    """Complete one name, or the last of several that are separated by commas."""

    def complete(incomplete: str) -> list[str]:
        # the names before the last comma stay
        before, comma, last = (
            incomplete.rpartition(",") if is_list else ("", "", incomplete)
        )
        known = [*words, *(name for list_names in lists for name in list_names())]
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return complete


def list_keys(command: str) -> dict[str, list[str]]:
    """List the recipe keys of a command with their values, where these are few, as
    `completions/build.py` wrote them down.
    """
    lines = (shipped_folder("completions") / "keys.txt").read_text("utf-8").splitlines()
    rows = [line.split(" ") for line in lines]
    # those of all commands stand under *
    return {
        key: kinds(values[1:]) if values.startswith(SHELF) else values.split(",")
        for name, key, values in rows
        if name in (command, "*")
    }


def complete_key(ctx: Any, incomplete: str) -> list[str]:
    """Complete a recipe key of the command, or its value behind `=`."""
    key, sign, _ = incomplete.partition("=")
    known = list_keys(ctx.command.name)
    matches = [name for name in known if name == key or not sign]
    matches = [name for name in matches if name.startswith(key)]
    # the values of a single key, or keys
    if len(matches) == 1:
        return [f"{matches[0]}={value}" for value in known[matches[0]]]
    return [f"{name}=" for name in matches]


def complete_value(key: str) -> Callable[[Any, str], list[str]]:
    """Complete the value of a flag that sets a recipe key of few values."""

    def complete(ctx: Any, incomplete: str) -> list[str]:
        values = list_keys(ctx.command.name).get(key, [])
        return [value for value in values if value and value.startswith(incomplete)]

    return complete


def option(
    flag: str,
    text: str,
    default: str = "",
    complete: Complete | None = None,
    value: type = str,
    **limits: Any,
) -> Parameter:
    """Declare a flag that may be left out.

    Args:
        flag: As it is typed.
        text: Its help.
        default: What the help shows as its default.
        complete: How the shell completes its value.
        value: The type of its value; bool for a switch.
        limits: Of the value, as `typer.Option` takes them.
    """
    # recipes have the defaults; the help only shows them
    info = typer.Option(
        None,
        flag,
        help=text,
        **{"show_default": default or False, "autocompletion": complete, **limits},
    )
    return Parameter("_", Parameter.KEYWORD_ONLY, default=info, annotation=value | None)


def switch(flag: str, text: str) -> Parameter:
    """Declare a flag without a value."""
    return option(flag, text, value=bool)


def words(metavar: str, text: str, complete: Complete | None = None) -> Parameter:
    """Declare the words of a command line that are no options: overrides of recipe
    keys, and names that `complete` completes.
    """

    def complete_word(ctx: Any, incomplete: str) -> list[str]:
        names = complete(incomplete) if complete else []
        # keys come where no name is meant
        return (
            names
            if names and not incomplete
            else [*names, *complete_key(ctx, incomplete)]
        )

    # a list, since overrides and names stand in any order
    info = typer.Argument(
        None,
        metavar=metavar,
        help=text,
        show_default=False,
        autocompletion=complete_word,
    )
    return Parameter(
        "_", Parameter.KEYWORD_ONLY, default=info, annotation=list[str] | None
    )


# options that several commands have
OVERRIDES = words("[KEY.PATH=VALUE]...", "Override any recipe key.")
COMMON = {
    "recipe": option(
        "--recipe",
        "A YAML file or a shipped recipe's name.",
        "the command's own",
        one_of(recipes),
    ),
    "check": switch(
        "--check", "Print the plan: inputs, time and what is missing; stop."
    ),
    "recipe_too": switch(
        "--recipe-too", "With --check, print the resolved recipe (> FILE.yaml)."
    ),
    "json": switch("--json", "Print the result as one JSON document."),
    "again": switch("--again", "Start a new run even if the same one is finished."),
    "allow_code": switch(
        "--allow-code", "Run code that is not Brainhive's: encoders, parts, scripts."
    ),
    "debug": switch("--debug", "Show the traceback of an error."),
}
"""The options of every command, by name."""
LAUNCH = {
    "processes": option(
        "--processes", "Processes in all.", "one a GPU", value=int, min=1
    ),
    "mixed_precision": option("--mixed-precision", "no or bf16."),
}
"""The options of commands that compute, by the keys of a recipe's `run`."""
SUBMIT = {
    "submit": switch(
        "--submit", "Run on a cluster: queue an array of tasks that share the cells."
    ),
}
DATASET = option(
    "--dataset",
    "A data set: things-eeg, image-folder, demo …",
    complete=one_of(datasets),
)
ENCODERS = option(
    "--encoders",
    "Encoders, by name or reference, separated by commas.",
    complete=one_of(encoders, is_list=True),
)
# completion of a run, and of several that are separated by commas
ALIGN_RUN, ALIGN_RUNS = (
    one_of(runs("train-align")),
    one_of(runs("train-align"), is_list=True),
)
RUN = option(
    "--run",
    "Align run: folder, name, SWEEP:VARIANT or hub:owner/name; or model folder.",
    "the newest on the data set",
    ALIGN_RUN,
)
SUBJECTS = option("--subjects", "Subjects, as in 1,2.", "the run's")
GENERATOR = option("--generator", "SDXL-type model: hub:owner/name or a folder.")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        section: The help's section that lists it.
        name: Also that of its file in `commands` and its recipe, and what stands before
            its example.
        text: What it does, in one sentence.
        example: Its arguments in an example.
        flags: Recipe key to option.
        switches: Name to option, for options that set no recipe key.
        paths: The recipe key that takes the arguments that are no overrides.
        words: What these arguments are called in the help.
        complete: How the shell completes them; files where there is nothing else.
        can_share_work: True if several processes can share the work. False if the
            command only reads and writes files.
    """

    section: str
    name: str
    text: str
    example: str = ""
    flags: Mapping[str, Parameter] = field(default_factory=dict)
    switches: Mapping[str, Parameter] = field(default_factory=dict)
    paths: str = ""
    words: str = "NAME"
    complete: Complete | None = None
    can_share_work: bool = True


START, STEPS, STORES = "Start here", "Steps", "Embedding stores"
PAGE_OPTIONS = {
    "labels": option(
        "--labels", "What each run is called, as in aligned,base.", "their names"
    ),
    "format": option(
        "--format", "html: a page; md, tex: tables for papers; csv.", "html"
    ),
    "to": option("--to", "The file.", "one below reports/"),
    "figures": option(
        "--figures",
        "A folder for every figure, as SVG, PNG and PDF, for slides and papers.",
    ),
}
"""Flags of the commands that show runs."""
OPEN = {"open": switch("--open", "Open the page in a browser.")}
COMMANDS = (
    # first steps: a trial, the machine, data, recipes and runs
    Command(
        START,
        "demo",
        (
            "Decode recorded fMRI (--real), or go from a simulated recording to "
            "pictures, on shipped data."
        ),
        "--real",
        {
            "system": option(
                "--system",
                (
                    "brainhive (EEG), havir (fMRI, in two streams) or neurons (fMRI of "
                    "films)."
                ),
                "brainhive",
            ),
            "real": switch(
                "--real", "Recorded fMRI of a person: which category was looked at?"
            ),
            "quick": switch("--quick", "Few epochs and pictures, to see that it runs."),
        },
        OPEN,
    ),
    Command(
        START,
        "doctor",
        (
            "Report what this machine has for Brainhive: versions, devices, folders, "
            "weights."
        ),
        can_share_work=False,
    ),
    Command(
        START,
        "fetch",
        (
            "Download a data set from its host and unpack it, or show the steps where "
            "terms must be agreed to."
        ),
        "things-eeg --subjects 1,2",
        {
            "subjects": option("--subjects", "Whose recordings, as in 1,2.", "all"),
            "include": option(
                "--include", "Files that are wanted, as in 'sub-*/**'.", "all"
            ),
        },
        paths="names",
        complete=one_of(datasets),
        can_share_work=False,
    ),
    Command(
        START,
        "recipes",
        "List the shipped recipes, or show each key of one: value, default, meaning.",
        "demo/train-align",
        paths="names",
        complete=one_of(recipes),
        can_share_work=False,
    ),
    Command(
        START,
        "runs",
        (
            "List runs with state, result, age and size; `runs show NAME` shows one, "
            "`runs verify NAME` trains a cell again, `runs rm NAME` removes it."
        ),
        "train-align",
        {
            "all": switch("--all", "List all runs, not only the 50 newest."),
            "yes": switch("--yes", "Remove without asking."),
        },
        paths="words",
        complete=one_of(runs(), words=("show", "verify", "rm")),
        can_share_work=False,
    ),
    # stores of signals and of targets
    Command(
        STEPS,
        "prepare",
        (
            "Make signal stores from raw recordings, or from files that others have "
            "prepared."
        ),
        "--from things-eeg --subjects 1,2",
        {
            "preparation.kind": option(
                "--from",
                f"Preparation: {', '.join(kinds('preparations'))}.",
                complete=one_of(partial(kinds, "preparations")),
            ),
            "subjects": option(
                "--subjects", "Subjects, as in 1,2,5.", "all that are there"
            ),
            "name": option(
                "--name", "Name of the stores, as in signal.name of train-align."
            ),
        },
    ),
    Command(
        STEPS,
        "embed",
        "Embed every picture of a data set with frozen encoders.",
        "--encoders clip-h14,vae --dataset things-eeg",
        {
            "dataset": DATASET,
            "encoders": ENCODERS,
            "splits": option("--splits", "Splits, as in train,test.", "all"),
            "skip_bad": switch("--skip-bad", "Accept pictures that cannot be decoded."),
        },
        {
            "list_encoders": switch(
                "--list", "Show all encoders, and which are on this machine; stop."
            )
        },
    ),
    # brain encoders: training, test, live session, analysis, new persons
    Command(
        STEPS,
        "train-align",
        (
            "Train a brain encoder for each cell (subjects × seed) to predict the "
            "embedding of the seen picture."
        ),
        "--mode inter",
        {
            "mode": option(
                "--mode", "intra, inter (leave one subject out), joint or finetune."
            ),
            "dataset": DATASET,
            "encoders": ENCODERS,
            "subjects": option("--subjects", "Subjects, as in 1,2,5.", "all"),
            # a cell for each seed, so that results have a spread over seeds
            "seeds": option("--seeds", "Seeds, one cell each, as in 2025,2026."),
            "backbone.kind": option(
                "--backbone",
                f"Brain encoder: {', '.join(kinds('backbones'))}.",
                complete=one_of(partial(kinds, "backbones")),
            ),
            "prior": option(
                "--prior",
                "Train for the frozen fusion encoder of this prior, on its encoders.",
            ),
        },
    ),
    Command(
        STEPS,
        "eval-retrieval",
        "Retrieve test pictures from test signals, with statistics.",
        "RUN --against OTHER",
        {
            "align_run": option(
                "--run",
                (
                    "Align run: name, SWEEP:VARIANT (A,B: averaged), hub:owner/name; "
                    "or model folder."
                ),
                "the newest on the data set",
                ALIGN_RUNS,
            ),
            "against": option(
                "--against",
                "Align runs to compare with, item by item.",
                complete=ALIGN_RUNS,
            ),
            "dataset": option(
                "--dataset", "A data set to test on; zero-shot with --run.", "the run's"
            ),
            "subjects": option(
                "--subjects", "Subjects tested on, as in 1,2.", "the run's"
            ),
            "gallery": option(
                "--gallery",
                "Splits whose pictures are searched, as in train+test.",
                "test",
            ),
        },
        paths="align_run",
        complete=ALIGN_RUN,
    ),
    Command(
        STEPS,
        "live",
        (
            "Show what a person sees, while they see it: from an LSL stream, a "
            "replayed recording or a mock."
        ),
        "RUN --source recording source.file=sub-01_ses-02.fif",
        {
            "align_run": RUN,
            "source.kind": option(
                "--source",
                f"Stream: {', '.join(kinds('streams'))}.",
                "lsl",
                one_of(partial(kinds, "streams")),
            ),
            "subject": option(
                "--subject", "Whose brain.", "the only one of the run", value=int, min=0
            ),
            "events": option("--events", "Table (CSV) with columns event and picture."),
            "whiten_trials": option(
                "--whiten-trials",
                "First trials of the session whose noise whitens the others.",
                value=int,
                min=20,
            ),
            "windows": option(
                "--windows", "Windows after which the session ends.", value=int, min=1
            ),
            "draw": option(
                "--draw",
                "Recipe of reconstruct that draws what is seen.",
                complete=one_of(recipes),
            ),
            # outputs while the session runs
            "outlet": option(
                "--outlet", "Name of an LSL stream that sends each result."
            ),
            "lines": switch(
                "--lines", "Write each result as a line of JSON to stdout."
            ),
            "open": switch("--open", "Open the page in a browser."),
        },
        paths="align_run",
        complete=ALIGN_RUN,
        can_share_work=False,
    ),
    Command(
        STEPS,
        "explain",
        (
            "Show when, where, in which band and at which level signals carry what was "
            "seen."
        ),
        "--analyses windows,sensors",
        {
            "align_run": RUN,
            "subjects": SUBJECTS,
            "analyses": option("--analyses", "Analyses, as in windows,bands.", "all"),
            "levels": option("--levels", "Further encoders to compare signals with."),
        },
        paths="align_run",
        complete=ALIGN_RUN,
    ),
    Command(
        STEPS,
        "calibrate",
        "Show how well a new person is decoded after how much recording.",
        "--minutes 1,5,15,60",
        {
            "align_run": RUN,
            "subjects": option(
                "--subjects", "New persons, as in 1,2.", "all who are new to a model"
            ),
            # amounts of recording, in one of three units
            "pictures": option(
                "--pictures",
                "Amounts in pictures, as in 10,50,100.",
                "10 to 200, and all",
            ),
            "trials": option("--trials", "Amounts in single trials."),
            "minutes": option("--minutes", "Amounts in minutes of recording."),
            "order": option(
                "--order", "draws at random, or recording: the first ones.", "draws"
            ),
            "draws": option("--draws", "Draws of each amount.", value=int, min=1),
            "arms": option(
                "--arms",
                "Ways to calibrate, as in zero-shot,transfer.",
                "zero-shot,transfer,scratch",
            ),
        },
        paths="align_run",
        complete=ALIGN_RUN,
    ),
    # pictures: the prior, and reconstruction with it
    Command(
        STEPS,
        "train-prior",
        (
            "Train a Fusion Prior: fusion encoder, projection and attention adapter on "
            "a frozen SDXL."
        ),
        "--dataset demo --recipe demo",
        {
            "dataset": DATASET,
            "encoders": ENCODERS,
            "generator.source": GENERATOR,
            "train.steps": option("--steps", "Training steps.", value=int, min=1),
            "embed_missing": switch(
                "--embed-missing",
                "Compute embeddings that no store holds, at every step.",
            ),
        },
    ),
    Command(
        STEPS,
        "reconstruct",
        "Reconstruct what was seen, from test signals, with a prior and a generator.",
        "--prior hub:Fusion-Prior-SynCLR_B32_VAE",
        {
            "prior": option(
                "--prior", "A prior: hub:NAME, hub:owner/name, a folder, or identity."
            ),
            "align_run": RUN,
            "dataset": option("--dataset", "What a model folder decodes.", "the run's"),
            "generator.source": GENERATOR,
            "subjects": SUBJECTS,
            "repeats": option("--repeats", "Pictures of each item.", value=int, min=1),
            "sources": option(
                "--from",
                (
                    "brain; images (ceiling); shuffled (floor); zeroed; nearest, mean "
                    "training picture."
                ),
                "brain,nearest,mean",
            ),
            # pictures from elsewhere, scored instead of generated
            "score": option(
                "--score", "Score this folder of pictures or clips; none are generated."
            ),
            "truth": option(
                "--truth",
                "What was seen, matched by name; left: the left half of each clip.",
            ),
            "against": option(
                "--against",
                "Reconstruct runs to compare with, item by item.",
                complete=one_of(runs("reconstruct"), is_list=True),
            ),
        },
        paths="align_run",
        complete=ALIGN_RUN,
    ),
    # all steps of a system in a row
    Command(
        STEPS,
        "workflow",
        (
            "Run all steps of a system, from its data to its tables; each continues "
            "where it stopped."
        ),
        "--recipe papers/neurons",
    ),
    # results for readers, and models for other users
    Command(
        STEPS,
        "report",
        "Show runs on one self-contained page, or write tables for papers.",
        "runs/eval-retrieval/NAME",
        {
            **PAGE_OPTIONS,
            "table": switch(
                "--table",
                "A row a method, of a workflow; table=ROW is what others differ from.",
            ),
        },
        OPEN,
        paths="runs",
        words="PATH",
        can_share_work=False,
    ),
    Command(
        STEPS,
        "compare",
        (
            "Show runs next to each other, with paired statistics: the first against "
            "each other one."
        ),
        "RUN RUN --labels aligned,base",
        PAGE_OPTIONS,
        OPEN,
        paths="runs",
        words="PATH",
        can_share_work=False,
    ),
    Command(
        STEPS,
        "push",
        "Put a trained run on the hub with a model card, private by default.",
        "RUN hub:owner/name",
        {
            "public": switch("--public", "Let everybody see the model."),
            # statements of the model card
            "licence": option(
                "--licence", "Licence of the weights.", "the data's, if known"
            ),
            "data_terms_checked": switch(
                "--data-terms-checked",
                "Confirm: the data's terms, and the people, allow it.",
            ),
            "citation": option("--citation", "How to cite the model."),
            "contact": option("--contact", "Whom its users may ask."),
        },
        paths="words",
        complete=one_of(runs("train-*")),
        can_share_work=False,
    ),
    Command(
        STEPS,
        "export",
        "Write a brain model as one file that needs torch alone, for other programs.",
        "RUN --rate 256 --window -200,1000",
        {
            "channels": option(
                "--channels", "Channels of the signals, in order.", "the model's"
            ),
            "rate_hz": option(
                "--rate", "Their sampling rate in Hz.", "the model's", value=float
            ),
            "window_ms": option(
                "--window", "Start and stop after onset in ms.", "the model's"
            ),
        },
        paths="align_run",
        complete=ALIGN_RUN,
        can_share_work=False,
    ),
    # stores and runs that exist: check, import, export
    Command(
        STORES,
        "check",
        "Check data sets, stores and runs: complete, damaged or missing.",
        "things-eeg",
        {
            "subjects": option(
                "--subjects", "Subjects of data sets, as in 1,2.", "all"
            ),
            "plots": switch(
                "--plots", "Draw the reliability of signal stores, one page each."
            ),
        },
        paths="stores",
        words="PATH",
        complete=one_of(datasets, runs()),
        can_share_work=False,
    ),
    Command(
        STORES,
        "audit",
        (
            "Recompute other people's retrieval results: ties, assignment, overlap, "
            "epoch, units, each in points."
        ),
        "FOLDER",
        paths="folder",
        words="PATH",
        can_share_work=False,
    ),
    Command(
        STORES,
        "import-embeddings",
        "Make stores of vectors from elsewhere: parquet, .pt, .npy, thingsvision.",
        "cache/things_*.parquet --encoders clip-h14,vae",
        {
            "dataset": DATASET,
            "encoders": ENCODERS,
            "name": option("--as", "Name of your own model, which made the vectors."),
            "splits": option(
                "--splits", "Splits, as in train,test.", "those that have vectors"
            ),
            "skip_missing": switch(
                "--skip-missing", "Accept pictures without a vector."
            ),
        },
        paths="sources",
        words="PATH",
        can_share_work=False,
    ),
    Command(
        STORES,
        "export-embeddings",
        "Write stores as parquet or NumPy files, which import-embeddings reads back.",
        "embeddings/things-eeg --format npy",
        {
            "to": option("--to", "Folder for the files."),
            "format": option("--format", "parquet or npy.", "parquet"),
        },
        paths="stores",
        words="PATH",
        can_share_work=False,
    ),
)
