"""The systems that `brainhive demo` shows: their steps, and how each is made quick."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from brainhive_cli.demo import simulation, voxels

Command = Literal["embed", "train-align", "eval-retrieval", "train-prior", "reconstruct"]
ALIGN, PRIOR = "{align}", "{prior}"
"""In an override, the name of the align run, and the folder of the prior, that an earlier step made."""
HEADS = ("latent", "image", "text")
"""Of HAVIR's brain model."""
SHUFFLED = "{head}, shuffled"
"""Name of the step that measures a head with shuffled trials; that for all sets of voxels is named by it."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        heading: Of its section on the page.
    """

    command: Command
    heading: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """What is run and shown.

    Attributes:
        recipe: Name of the shipped recipe of each command.
        signals: What is simulated.
        provenance: What made the signals.
        steps: Each step by its name in the summary.
        quick: Overrides by command, which make each step small.
    """

    recipe: str
    signals: str
    provenance: str
    steps: Mapping[str, Step]
    quick: Mapping[Command, tuple[str, ...]]


def _of_heads() -> dict[str, Step]:
    """Measure each head for all sets of voxels, and for the right one with shuffled trials."""
    found = {}
    for head in HEADS:
        of_head, of_right = (f"head={head}", f"align_run={ALIGN}"), f"align_run={ALIGN}:none"
        swept = f"Which picture was seen, by the head {head}?"
        found[head] = Step("eval-retrieval", swept, of_head)
        controlled = (f"head={head}", of_right, "control=shuffled", "sheet_rows=0")
        found[SHUFFLED.format(head=head)] = Step("eval-retrieval", f"{swept} Trials shuffled", controlled)
    return found


SYSTEMS: Mapping[str, System] = {
    "brainhive": System(
        "demo",
        "EEG",
        simulation.PROVENANCE,
        {
            "embed": Step("embed", "Embeddings"),
            "train-align": Step("train-align", "Brain encoders"),
            "eval-retrieval": Step("eval-retrieval", "Which picture was seen?", (f"align_run={ALIGN}",)),
            "train-prior": Step("train-prior", "Fusion Prior: pictures generated from image tokens"),
            "reconstruct": Step(
                "reconstruct",
                "Stimuli and their reconstructions from the signals",
                (f"align_run={ALIGN}", f"prior={PRIOR}"),
            ),
        },
        {
            "train-align": ("subjects=1", "train.epochs=3"),
            "train-prior": ("train.steps=2", "validation_items=4", "sample_items=2", "sample_steps=1"),
            "reconstruct": ("items=4", "repeats=1"),
        },
    ),
    "havir": System(
        "demo-havir",
        "fMRI",
        voxels.PROVENANCE,
        {
            "embed": Step("embed", "Embeddings"),
            "train-align": Step("train-align", "Brain models"),
            **_of_heads(),
            "reconstruct": Step(
                "reconstruct",
                "Stimuli and their reconstructions from the signals",
                (f"align_run={ALIGN}:none",),
            ),
        },
        {
            "embed": ("dataset.concepts=32",),
            "train-align": ("dataset.concepts=32", "train.epochs=6"),
            "eval-retrieval": ("sheet_rows=0", "concept_rows=0", "ceiling_splits=0"),
            "reconstruct": ("items=4", "repeats=1", "steps=4", "sources=brain,images"),
        },
    ),
}
