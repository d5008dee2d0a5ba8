"""The recipe of live: which model, which stream, whose brain, what is shown, sent and
saved.
"""

from typing import Any, Self

from pydantic import Field, model_validator

from brainhive_cli.core import key_types, parts, sections
from brainhive_cli.core.recipe import TrainedRunRecipe
from brainhive_cli.data.signals.channel_mapping import ChannelChoice


class Recipe(TrainedRunRecipe):
    """Recipe of live."""

    can_share_work = False

    # the model, whose brain, and the pictures that are searched
    align_run: key_types.OneRun = Field(
        None,
        description="an align run, by folder or name, or SWEEP:VARIANT; or the "
        "train-align recipe that made it; or a model folder; or "
        "hub:owner/name[@revision]; default: the newest run (key: run)",
    )
    dataset: parts.OtherDataset = Field(
        None, description="another data set than the run's, whose pictures are shown"
    )
    copies: key_types.Copies = "refuse"
    subject: int | None = Field(
        None,
        ge=0,
        description="whose brain; default: the only one that the run's models are "
        "tested on",
    )
    gallery: str = Field("test", description="split whose pictures are searched")

    # how windows of the stream are prepared and when the session ends
    events: str = Field(
        "",
        description="table (CSV or TSV) with columns event and picture; default: the "
        "table that prepare read, or events.csv or events.tsv in the folder of the "
        "recording or of recordings; without one, events are called by their pictures",
    )
    channel_mapping: ChannelChoice = Field(
        "none",
        description="channels of the model that the stream lacks, as in "
        "eval-retrieval: none refuses them",
    )
    whiten_trials: int | None = Field(
        None,
        ge=20,
        le=100_000,
        description="first trials of the session whose noise whitens the others; they "
        "are not decoded. 100 or more: of whitened signals 31 % is error "
        "from 20 trials, 15 % from 100, 8 % from 400",
    )
    windows: int | None = Field(
        None, ge=1, description="windows after which the session ends"
    )
    source: Any = parts.part_field(
        "streams",
        "lsl",
        "lsl: a stream of the lab; recording: a file; signals: the person's signal "
        "store; mock",
    )
    draw: str | None = Field(
        None,
        description="recipe of reconstruct whose prior and generator draw what is "
        "seen, as in demo",
    )

    # where results go
    page: bool = Field(
        True, description="show what is decoded on a page of this machine"
    )
    host: str = Field(
        "127.0.0.1",
        description="address of the page; any other lets others on the network see it",
    )
    port: int = Field(0, ge=0, le=65535, description="port of the page; 0: a free one")
    open: bool = Field(False, description="open the page in a browser")
    lines: bool = Field(
        False, description="write each result as a line of JSON to stdout"
    )
    outlet: str = Field(
        "", description="name of an LSL stream that sends each result; default: none"
    )
    save: bool = Field(
        True,
        description="save the session while it runs, as a BIDS data set in the run",
    )

    @model_validator(mode="after")
    def _has_no_idle_keys(self) -> Self:
        # a key without an effect is an error, not a silent surprise
        if not self.page:
            sections.refuse_idle(
                self, ("host", "port"), "without a page", "page=true, or leave it out"
            )
        if self.source.has_windows:
            idle = "events", "whiten_trials"
            sections.refuse_idle(self, idle, "on prepared trials of known pictures")
        return self
