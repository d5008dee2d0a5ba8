"""Kills at random moments: the same command then ends as one that nobody disturbed."""

import random
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace

from brainhive_cli.core.errors import INTERRUPT_SIGNALS
from tests.soak.runner import Case, Outcome
from tests.soak.world import READERS

SIGNALS = signal.SIGKILL, *INTERRUPT_SIGNALS
KILLED = (
    "align align-resumed eval latents prior-resumed draw encoder embed-resumed "
    "import-dict-npz import-parquet export-npy export-parquet check score things "
    "finetune"
).split()
"""Readers that are killed: between them every command that writes."""


def cases(seed: int, count: int, sound: Mapping[str, Outcome]) -> Iterator[Case]:
    """Kill each command in turn, by each of `SIGNALS`, at any moment of the time that
    it takes.
    """
    chosen = random.Random(seed)
    for number in range(count):
        name = KILLED[number // len(SIGNALS) % len(KILLED)]
        sign = SIGNALS[number % len(SIGNALS)]
        moment = chosen.uniform(0, 0.9 * sound[name].wall_s)
        case = Case(
            "kills",
            f"{name} {sign.name} {moment:.2f}s {number}",
            reader=name,
            kill=(sign, moment),
        )
        yield replace(case, **READERS[name].case)


def problems(found: Outcome) -> list[str]:
    """Judge how the killed command ended; its second run is judged as every case."""
    first = found.before
    if first is None or found.case.kill is None:
        return []
    sign = found.case.kill[0]
    expected = {0} if sign == signal.SIGKILL else {0, 130}
    if sign != signal.SIGINT:  # which Python turns into 130 before a command begins
        expected.add(-sign)
    wrong = [each for each in first.problems if not each.startswith("crash")]
    if first.code not in expected:
        wrong.append(
            f"ended with {first.code} on {signal.Signals(sign).name}: "
            f"{first.stderr.strip()[-200:]}"
        )
    if found.code != 0:
        wrong.append(
            f"the same command then ended with {found.code}: "
            f"{found.stderr.strip()[-200:]}"
        )
    return wrong
