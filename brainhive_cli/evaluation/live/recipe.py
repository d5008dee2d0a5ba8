"""Recipe of the command live."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from brainhive_cli.core.recipes import (
    Copies,
    Flag,
    OneRunRecipe,
    flag_field,
    parts,
    refuse_idle,
)
from brainhive_cli.data.signals import ChannelChoice


class Recipe(OneRunRecipe):
    """Recipe of a live session: model, person, stream and outputs."""

    can_share_work = False
    writes_run = True
    skips_finished = False
    summary = (
        "Decode which picture a person sees during a recording session, from an LSL "
        "stream, a replayed recording or simulated signals."
    )
    example = "RUN --source recording source.file=sub-01_ses-02.fif"

    # person and gallery
    dataset: parts.OtherDataset = Field(
        None,
        description="data set whose pictures are shown; default: data set of the run",
    )
    copies: Copies = "refuse"
    subject: int | None = flag_field(
        None,
        "number of the person who is decoded; default: the only person "
        "that the run's models are tested on",
        ge=0,
    )
    gallery: str = Field("test", description="split whose pictures are searched")

    # preparation of windows, and end of the session
    events: str = flag_field(
        "",
        "table (CSV or TSV) with columns event and picture; default: the "
        "table that prepare read, or events.csv or events.tsv in the folder of the "
        "recording or of recordings; without a table, events are names of pictures",
    )
    channel_mapping: ChannelChoice = Field(
        "none",
        description="replacement of channels that the stream lacks, as in "
        "eval-retrieval; none refuses such a stream",
    )
    whiten_trials: int | None = flag_field(
        None,
        "number of first trials whose noise whitens the others; they are "
        "not decoded. Use 100 or more: the error of whitened signals is 31 % from 20 "
        "trials, 15 % from 100, 8 % from 400",
        ge=20,
        le=100_000,
    )
    windows: int | None = flag_field(
        None, "number of windows after which the session ends", ge=1
    )
    source: Annotated[Any, Flag("--source", step="kind")] = parts.part_field(
        "streams",
        "lsl",
        "source of the signals. lsl: a stream of the lab; recording: a file; signals: "
        "the person's signal store; mock",
    )
    draw: str | None = flag_field(
        None,
        "recipe of reconstruct whose prior and generator draw the decoded "
        "pictures, as in demo",
        names="@recipes",
    )

    # outputs
    page: bool = Field(True, description="show results on a web page of this machine")
    host: str = Field(
        "127.0.0.1",
        description="address of the page; any other address shows it to the network",
    )
    port: int = Field(0, ge=0, le=65535, description="port of the page; 0: a free one")
    open: bool = flag_field(False, "open the page in a browser")
    lines: bool = flag_field(False, "write each result to stdout as a line of JSON")
    outlet: str = flag_field("", "name of a new LSL stream that sends each result")
    save: bool = Field(
        True,
        description="save the session as a BIDS data set in the run, while it runs",
    )

    @model_validator(mode="after")
    def _has_no_idle_keys(self) -> Self:
        # a key without an effect is an error, not a silent surprise
        if not self.page:
            refuse_idle(
                self, ("host", "port"), "without a page", "page=true, or leave it out"
            )
        if self.source.has_windows:
            refuse_idle(
                self,
                ("events", "whiten_trials"),
                "on prepared trials of known pictures",
            )
        return self
