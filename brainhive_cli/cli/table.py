"""All commands in the order of the help, their options, and the recipe key that each flag sets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import Parameter
from typing import Any

import typer

from brainhive_cli.cli.completion import Complete, datasets, encoders, kinds, one, recipes, runs, several


def option(flag: str, text: str, value: type = str, default: str | bool = False, **limits: Any) -> Parameter:
    """Declare a flag that may be left out.

    Args:
        flag: As it is typed.
        text: Its help.
        value: The type of its value; bool for a switch.
        default: What the help shows as its default.
        limits: Of the value, as `typer.Option` takes them.
    """
    info = typer.Option(None, flag, help=text, show_default=default, **limits)
    return Parameter("_", Parameter.KEYWORD_ONLY, default=info, annotation=value | None)


def words(metavar: str, text: str, complete: Complete | None = None) -> Parameter:
    """Declare the words of a command line that are no options."""
    info = typer.Argument(None, metavar=metavar, help=text, show_default=False, autocompletion=complete)
    return Parameter("_", Parameter.KEYWORD_ONLY, default=info, annotation=list[str] | None)


OVERRIDES = words("[KEY.PATH=VALUE]...", "Override any recipe key.")
COMMON = {
    "recipe": option(
        "--recipe",
        "A YAML file or a shipped recipe's name.",
        default="the command's own",
        autocompletion=one(recipes),
    ),
    "check": option("--check", "Print the resolved recipe, the plan and what is missing; stop.", bool),
    "json": option("--json", "Print the result as one JSON document.", bool),
    "again": option("--again", "Start a new run even if the same one is finished.", bool),
    "allow_code": option("--allow-code", "Run code that a file names: python: encoders, modules.", bool),
    "debug": option("--debug", "Show the traceback of an error.", bool),
    "processes": option("--processes", "Processes in all.", int, "one a GPU", min=1),
    "machines": option("--machines", "Machines that run this command.", int, min=1),
    "mixed_precision": option("--mixed-precision", "no or bf16."),
}
"""The options of every command, by name."""
DATASET = option("--dataset", "A data set: things-eeg, image-folder, demo …", autocompletion=one(datasets))
ENCODERS = option(
    "--encoders", "Encoders, by name or reference, separated by commas.", autocompletion=several(encoders)
)
GENERATOR = option("--generator", "SDXL-type model: hub:owner/name or a folder.")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        section: The help's section that lists it.
        name: Also that of its file in `commands` and its recipe, and what stands before its example.
        text: What it does, in one sentence.
        example: Its arguments in an example.
        flags: Recipe key to option.
        switches: Name to option, for options that set no recipe key.
        paths: The recipe key that takes the arguments that are no overrides.
        words: What these arguments are called in the help.
        complete: How the shell completes them; files where there is nothing else.
    """

    section: str
    name: str
    text: str
    example: str = ""
    flags: Mapping[str, Parameter] = field(default_factory=dict)
    switches: Mapping[str, Parameter] = field(default_factory=dict)
    paths: str = ""
    words: str = "PATH"
    complete: Complete | None = None


START, STEPS, STORES = "Start here", "Steps", "Embedding stores"
SHOWN = {
    "labels": option("--labels", "What each run is called, as in aligned,base.", default="their names"),
    "format": option("--format", "html: a page; md, tex: tables for papers; csv.", default="html"),
    "csv": option("--csv", "All metrics as one table for pandas: a row for each and scope.", bool),
    "to": option("--to", "The file.", default="one below reports/"),
}
"""Flags of the commands that show runs."""
COMMANDS = (
    Command(
        START,
        "demo",
        "Go from a simulated brain recording to pictures, on data shipped with Brainhive.",
        "--system havir",
        {
            "system": option(
                "--system",
                "brainhive (EEG), havir (fMRI, in two streams) or neurons (fMRI of films).",
                default="brainhive",
            ),
            "quick": option("--quick", "Few epochs and pictures, to see that it runs.", bool),
        },
    ),
    Command(
        START, "doctor", "Report what this machine has for Brainhive: versions, devices, folders, weights."
    ),
    Command(
        START,
        "fetch",
        "Download a data set from the hub and unpack it, or show the steps where terms must be agreed to.",
        "things-eeg --subjects 1,2",
        {
            "subjects": option("--subjects", "Whose recordings, as in 1,2.", default="all"),
            "dry_run": option("--dry-run", "Show files, size and licence; fetch nothing.", bool),
        },
        paths="names",
        words="NAME",
        complete=one(datasets),
    ),
    Command(
        START,
        "recipes",
        "List the shipped recipes, or show each key of one: value, default, meaning.",
        "demo/train-align",
        paths="names",
        words="NAME",
        complete=one(recipes),
    ),
    Command(
        START,
        "runs",
        "List runs with state, result, age and size; `runs show NAME` shows one, `runs rm NAME` removes it.",
        "train-align",
        {"yes": option("--yes", "Remove without asking.", bool)},
        paths="words",
        words="NAME",
        complete=one(runs(), words=("show", "rm")),
    ),
    Command(
        STEPS,
        "prepare",
        "Make signal stores from raw recordings, or from files that others have prepared.",
        "--from things-eeg --subjects 1,2",
        {
            "preparation.kind": option(
                "--from",
                f"Preparation: {', '.join(kinds('preparations'))}.",
                autocompletion=one(partial(kinds, "preparations")),
            ),
            "subjects": option("--subjects", "Subjects, as in 1,2,5.", default="all that are there"),
            "name": option("--name", "Name of the stores, as in signal.name of train-align."),
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
            "splits": option("--splits", "Splits, as in train,test.", default="all"),
            "skip_bad": option("--skip-bad", "Accept pictures that cannot be decoded.", bool),
        },
        {"list_encoders": option("--list", "Show all encoders, and which are on this machine; stop.", bool)},
    ),
    Command(
        STEPS,
        "train-align",
        "Train a brain encoder for each cell (subjects × seed) to hit the visual token.",
        "--mode inter",
        {
            "mode": option("--mode", "intra, inter (leave one subject out), joint or finetune."),
            "dataset": DATASET,
            "encoders": ENCODERS,
            "subjects": option("--subjects", "Subjects, as in 1,2,5.", default="all"),
            "seeds": option("--seeds", "Seeds, one cell each, as in 2025,2026."),
            "backbone.kind": option(
                "--backbone",
                f"Brain encoder: {', '.join(kinds('backbones'))}.",
                autocompletion=one(partial(kinds, "backbones")),
            ),
            "prior": option("--prior", "Train for the frozen fusion encoder of this prior, on its encoders."),
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
                "Align run, by folder or name, or SWEEP:VARIANT (A,B: averaged); or model folder.",
                default="the newest that fits",
                autocompletion=several(runs("train-align")),
            ),
            "against": option(
                "--against",
                "Align runs to compare with, item by item.",
                autocompletion=several(runs("train-align")),
            ),
            "dataset": option(
                "--dataset", "A data set to test on; zero-shot with --run.", default="the run's"
            ),
            "subjects": option("--subjects", "Subjects tested on, as in 1,2.", default="the run's"),
            "gallery": option(
                "--gallery", "Splits whose pictures are searched, as in train+test.", default="test"
            ),
        },
        paths="align_run",
        words="NAME",
        complete=one(runs("train-align")),
    ),
    Command(
        STEPS,
        "explain",
        "Show when, where, in which band and at which level signals carry what was seen.",
        "--analyses windows,sensors",
        {
            "subjects": option("--subjects", "Subjects, as in 1,2.", default="the run's"),
            "analyses": option("--analyses", "Analyses, as in windows,bands.", default="all"),
            "levels": option("--levels", "Further encoders to compare signals with."),
            "control": option(
                "--control", "permuted labels, or a model trained on them.", default="permuted"
            ),
        },
        paths="align_run",
        words="NAME",
        complete=one(runs("train-align")),
    ),
    Command(
        STEPS,
        "train-prior",
        "Train a Fusion Prior: fusion encoder, projection and attention adapter on a frozen SDXL.",
        "--dataset demo --recipe demo",
        {
            "dataset": DATASET,
            "encoders": ENCODERS,
            "generator.source": GENERATOR,
            "train.steps": option("--steps", "Training steps.", int, min=1),
            "embed_missing": option(
                "--embed-missing", "Compute embeddings that no store holds, at every step.", bool
            ),
        },
    ),
    Command(
        STEPS,
        "reconstruct",
        "Reconstruct what was seen, from test signals, with a prior and a generator.",
        "--prior hub:Fusion-Prior-SynCLR_B32_VAE",
        {
            "prior": option("--prior", "A prior: hub:NAME, hub:owner/name, a folder, or identity."),
            "align_run": option(
                "--run",
                "An align run: folder, name or SWEEP:VARIANT.",
                default="the newest that fits",
                autocompletion=one(runs("train-align")),
            ),
            "dataset": option("--dataset", "What a model folder decodes.", default="the run's"),
            "generator.source": GENERATOR,
            "subjects": option("--subjects", "Subjects, as in 1,2.", default="the run's"),
            "repeats": option("--repeats", "Pictures of each item.", int, min=1),
            "sources": option(
                "--from",
                "brain; images (ceiling); shuffled (floor); zeroed; nearest, mean training picture.",
                default="brain,nearest,mean",
            ),
            "score": option("--score", "Score this folder of pictures or clips; none are generated."),
            "truth": option("--truth", "What was seen, matched by name; left: the left half of each clip."),
            "against": option(
                "--against",
                "Reconstruct runs to compare with, item by item.",
                autocompletion=several(runs("reconstruct")),
            ),
        },
        paths="align_run",
        words="NAME",
        complete=one(runs("train-align")),
    ),
    Command(
        STEPS,
        "workflow",
        "Run all steps of a system, from its data to its tables; each continues where it stopped.",
        "--recipe papers/neurons",
    ),
    Command(
        STEPS,
        "report",
        "Show runs on one self-contained page, or write tables for papers.",
        "runs/eval-retrieval/NAME",
        SHOWN,
        paths="runs",
    ),
    Command(
        STEPS,
        "compare",
        "Show runs next to each other, with paired statistics: the first against each other one.",
        "RUN RUN --labels aligned,base",
        SHOWN,
        paths="runs",
    ),
    Command(
        STORES,
        "check",
        "Check data sets, stores, runs, recipes and priors: complete, damaged or missing.",
        "things-eeg",
        {
            "subjects": option("--subjects", "Subjects of data sets, as in 1,2.", default="all"),
            "plots": option("--plots", "Draw the reliability of signal stores, one page each.", bool),
        },
        paths="stores",
        complete=one(datasets, recipes, runs()),
    ),
    Command(
        STORES,
        "import-embeddings",
        "Make stores of vectors from elsewhere: parquet, .pt, .npy, thingsvision.",
        "cache/things_*.parquet --encoders clip-h14,vae",
        {
            "dataset": DATASET,
            "encoders": ENCODERS,
            "splits": option("--splits", "Splits, as in train,test.", default="those that have vectors"),
            "skip_missing": option("--skip-missing", "Accept pictures without a vector.", bool),
        },
        paths="sources",
    ),
    Command(
        STORES,
        "export-embeddings",
        "Write stores as parquet or NumPy files, which import-embeddings reads back.",
        "embeddings/things-eeg --format npy",
        {
            "to": option("--to", "Folder for the files."),
            "format": option("--format", "parquet or npy.", default="parquet"),
        },
        paths="stores",
    ),
)
