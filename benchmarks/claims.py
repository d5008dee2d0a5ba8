"""Cost of claims on cells: in microseconds, in a command, and on a faulty disk."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import faulty_disk
import torch
from harness import Bench, main

from brainhive_cli.commands import embed, train_align
from brainhive_cli.core.runs import claims, driver
from brainhive_cli.core.runs.claims import Claim
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.run_folder import RunFolder

DEMO = "dataset={kind: demo}"
COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
TARGET_RATIO = 1 / 1.02
"""Least ratio of rates. Claims may cost 2 %."""
HEARTBEAT_S = 1.0
"""Shorter than the usual ten seconds, so that the simulation ends in a minute."""


def claiming(bench: Bench) -> None:
    """Time taking and releasing a claim, beside creating and removing a file."""
    path = bench.home / ".claim"
    count = bench.pick(20, 1000, 1000)

    def ours() -> None:
        for _ in range(count):
            Claim(path, "a cell").release()

    def peer() -> None:
        for _ in range(count):
            path.open("x").close()
            path.unlink()

    our_seconds = min(bench.measure_seconds(ours) for _ in range(bench.rounds))
    peer_seconds = min(bench.measure_seconds(peer) for _ in range(bench.rounds))
    bench.show(
        "a claim, taken and released; peer: a file made and removed",
        1e6 * our_seconds / count,
        1e6 * peer_seconds / count,
        unit="µs",
    )


def command(bench: Bench) -> None:
    """Compare train-align with itself when it takes its cells from a list."""
    cells = bench.pick(2, 20, 20)
    epochs = bench.pick(1, 4, 4)
    launch = Launch(0, 1, torch.device("cpu"))
    environment = {"BRAINHIVE_HOME": str(bench.home), "BRAINHIVE_ALLOW_CODE": "1"}
    with patch.dict("os.environ", environment):
        embed.run(embed.Recipe.resolve("embed", None, {}, [DEMO, COLOURS]), launch)
        overrides = [
            DEMO,
            COLOURS,
            "subjects=1",
            f"train.epochs={epochs}",
            "train.batch_size=64",
            "backbone.kind=linear",
            f"seeds={list(range(cells))}",
        ]

        def ours() -> None:
            runs = [f"paths.runs={bench.make_folder()}"]
            recipe = train_align.Recipe.resolve(
                "train-align", None, {}, overrides + runs
            )
            train_align.run(recipe, launch)

        @contextmanager
        def list_cells(
            folder: RunFolder, files: Mapping[str, str], *_: Any
        ) -> Iterator[Iterator[str]]:
            yield iter(files)

        def peer() -> None:
            with patch.object(driver, "claim_cells", list_cells):
                ours()

        bench.compare(
            f"train-align of {cells} cells: of one without claims",
            ours,
            peer,
            cells,
            target=TARGET_RATIO,
        )


def faults(bench: Bench) -> None:
    """Count lost cells among workers of which half die, on a disk that fails."""
    full_size = (200, 2000, 20)
    workers, cells, machines = bench.pick((5, 20, 3), full_size, full_size)
    disk = faulty_disk.FaultyDisk(failing=0.03, slow=0.05, delay_s=0.002, seed=1)
    heartbeat_s = bench.pick(0.1, HEARTBEAT_S, HEARTBEAT_S)
    with patch.object(claims, "HEARTBEAT_S", heartbeat_s):
        outcome = faulty_disk.simulate(
            bench.make_folder(),
            disk,
            workers,
            cells,
            machines,
            cell_s=bench.pick(0.01, 0.2, 0.2),
            dying=0.5,
        )
    n_deaths = sum(len(deaths) for deaths in outcome.deaths.values())
    n_repeated = len(outcome.repeated)
    n_failed = 0
    for name, count in outcome.calls.items():
        if name.endswith("failed"):
            n_failed += count
    note = (
        f"{workers} workers, {n_deaths} died, {len(outcome.errors)} failed; "
        f"{n_failed:,} calls failed; {n_repeated} of {cells:,} cells twice, "
        f"{len(outcome.lost)} claims lost; {outcome.wall_s:.0f} s"
    )
    bench.show(
        "cells lost",
        cells - len(outcome.trained),
        unit="cells",
        target=0,
        at_most=True,
        note=note,
    )
    bench.show(
        "cells twice without a death",
        n_repeated,
        unit="cells",
        target=cells // 100,
        at_most=True,
    )


if __name__ == "__main__":
    main(__doc__, [claiming, command, faults], {})
