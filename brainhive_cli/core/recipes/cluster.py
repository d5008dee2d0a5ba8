"""Recipe keys of a job on a cluster, such as its time, memory and partition."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from brainhive_cli.core.recipes.key_types import split_commas
from brainhive_cli.core.recipes.sections import Section

Module = Annotated[str, Field(pattern=r"^\w+(([./@:,=~]|[+-]+)\w+)*\+*$")]
"""Name of an environment module. A path is not allowed: it could run any code."""


class Cluster(Section):
    """Resources of each task of the job that `--submit` requests from a cluster."""

    template: str | None = Field(
        None,
        description=(
            "your Jinja2 template of the job script; default: a script for SLURM"
        ),
    )
    tasks: int = Field(
        4,
        ge=1,
        # The option `--dependency` of the next job names each task in 24 bytes, and an
        # argument has at most 128 KiB.
        le=5_000,
        description="largest number of tasks that share the work",
    )
    time: str | None = Field(
        None,
        pattern=r"^(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d$",
        description="time limit of a task, HH:MM:SS; another task continues the "
        "unfinished work; default: the limit of the cluster",
        examples=["08:00:00"],
    )

    # resources of a task
    gpus: int | None = Field(
        None,
        ge=0,
        description="number of GPUs of a task (default: 1, or 0 if run.device=cpu)",
    )
    cpus: int = Field(8, ge=1, description="number of CPU cores of a task")
    memory: str | None = Field(
        None, pattern=r"^\d+[KMGT]?$", description="memory of a task", examples=["64G"]
    )

    # queue and account
    partition: str | None = Field(
        None, pattern=r"^[\w,.-]+$", description="partition (queue) of the job"
    )
    account: str | None = Field(
        None, pattern=r"^[\w.-]+$", description="account that is charged"
    )

    # software that a task loads
    modules: Annotated[list[Module], BeforeValidator(split_commas)] = Field(
        [], description="environment modules to load before the command"
    )
    container: str | None = Field(
        None, description="Apptainer image in which the command runs"
    )
