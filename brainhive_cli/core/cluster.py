"""Keys of a cluster's job: its time, memory, partition and modules."""

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
)

from brainhive_cli.core.key_types import split
from brainhive_cli.core.sections import Section


def _clock(value: Any) -> Any:
    """Undo YAML's reading of 12:00:00 as a number of seconds."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return f"{value // 3600:02d}:{value // 60 % 60:02d}:{value % 60:02d}"


Module = Annotated[str, Field(pattern=r"^\w+(([./@:,=~]|[+-]+)\w+)*\+*$")]
"""A module of the cluster by its name: one by its path is code."""

MAX_TASKS = 5_000
"""Of a job: `--dependency` of the next one names each in 24 bytes, and an argument has
at most 128 KiB.
"""


class Cluster(Section):
    """Request of `--submit` to a cluster's scheduler, for each of the tasks that share
    a command's cells.
    """

    template: str | None = Field(
        None,
        description=(
            "script of the job, a jinja2 template of the lab's; default: SLURM's"
        ),
    )
    tasks: int = Field(
        4, ge=1, le=MAX_TASKS, description="tasks that share the cells, at most"
    )
    time: Annotated[str | None, BeforeValidator(_clock)] = Field(
        None,
        pattern=r"^(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d$",
        description="longest time of a task, HH:MM:SS; one that needs more goes on in "
        "another; default: the cluster's",
        examples=["08:00:00"],
    )

    # resources of a task
    gpus: int | None = Field(
        None, ge=0, description="GPUs of a task (default: 1; none where run.device=cpu)"
    )
    cpus: int = Field(8, ge=1, description="cores of a task")
    memory: str | None = Field(
        None, pattern=r"^\d+[KMGT]?$", description="memory of a task", examples=["64G"]
    )

    # queue and account
    partition: str | None = Field(
        None, pattern=r"^[\w,.-]+$", description="partition, or queue"
    )
    account: str | None = Field(
        None, pattern=r"^[\w.-]+$", description="account that pays"
    )

    # software that a task loads
    modules: Annotated[list[Module], BeforeValidator(split)] = Field(
        [], description="modules that are loaded before"
    )
    container: str | None = Field(
        None, description="Apptainer image that the command runs in"
    )
