"""What claims on cells cost: microseconds each, of a command's time, and on a disk that
is slow and fails.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import faulty_disk
import torch
from harness import Bench, main

from brainhive_cli.commands import embed, train_align
from brainhive_cli.core import claims, driver
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder

DEMO = "dataset={kind: demo}"
COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
TARGET_RATIO = 1 / 1.02
"""Least ratio of rates: claims may cost 2 %."""
HEARTBEAT_S = 1.0
"""In place of ten seconds, so that the simulation ends in a minute."""


def claiming(on: Bench) -> None:
    """Time a claim that is taken and released, beside a file that is created and
    removed.
    """
    path, count = on.home / ".claim", on.pick(20, 1000, 1000)

    def ours() -> None:
        for _ in range(count):
            Claim(path, "a cell").release()

    def peer() -> None:
        for _ in range(count):
            path.open("x").close()
            path.unlink()

    us = [
        1e6 * min(on.measure_seconds(side) for _ in range(on.rounds)) / count
        for side in (ours, peer)
    ]
    on.show(
        "a claim, taken and released; peer: a file made and removed", *us, unit="µs"
    )


def command(on: Bench) -> None:
    """Compare train-align with itself when it takes its cells from a list."""
    cells, epochs = on.pick(2, 20, 20), on.pick(1, 4, 4)
    launch = Launch(0, 1, torch.device("cpu"))
    with patch.dict(
        "os.environ", {"BRAINHIVE_HOME": str(on.home), "BRAINHIVE_ALLOW_CODE": "1"}
    ):
        embed.run(embed.Recipe.resolve("embed", None, {}, [DEMO, COLOURS]), launch)
        words = [
            DEMO,
            COLOURS,
            "subjects=1",
            f"train.epochs={epochs}",
            "train.batch_size=64",
        ]
        words += ["backbone.kind=linear", f"seeds={list(range(cells))}"]

        def ours() -> None:
            recipe = train_align.Recipe.resolve(
                "train-align", None, {}, [*words, f"paths.runs={on.make_folder()}"]
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

        on.compare(
            f"train-align of {cells} cells: of one without claims",
            ours,
            peer,
            cells,
            target=TARGET_RATIO,
        )


def faults(on: Bench) -> None:
    """Share cells among workers of whom half die, on a disk that fails: none may be
    lost.
    """
    workers, cells, machines = on.pick((5, 20, 3), (200, 2000, 20), (200, 2000, 20))
    disk = faulty_disk.FaultyDisk(failing=0.03, slow=0.05, delay_s=0.002, seed=1)
    heartbeat_s = on.pick(0.1, HEARTBEAT_S, HEARTBEAT_S)
    with patch.object(claims, "HEARTBEAT_S", heartbeat_s):
        outcome = faulty_disk.simulate(
            on.make_folder(),
            disk,
            workers,
            cells,
            machines,
            cell_s=on.pick(0.01, 0.2, 0.2),
            dying=0.5,
        )
    deaths, again = sum(map(len, outcome.deaths.values())), len(outcome.repeated)
    failed = sum(n for name, n in outcome.calls.items() if name.endswith("failed"))
    note = (
        f"{workers} workers, {deaths} died, {len(outcome.errors)} failed; {failed:,} "
        "calls failed; "
    )
    note += (
        f"{again} of {cells:,} cells twice, {len(outcome.lost)} claims lost; "
        f"{outcome.wall_s:.0f} s"
    )
    what = "cells lost"
    on.show(
        what,
        cells - len(outcome.trained),
        unit="cells",
        target=0,
        at_most=True,
        note=note,
    )
    on.show(
        "cells twice without a death",
        again,
        unit="cells",
        target=cells // 100,
        at_most=True,
    )


if __name__ == "__main__":
    main(__doc__, [claiming, command, faults], {})
