"""Kills at random moments, after which the same command runs again."""

import random
import signal
from dataclasses import replace

from brainhive_cli.core.base.errors import INTERRUPT_SIGNALS
from tests.soak.runner import Case
from tests.soak.world import READERS

SIGNALS = (signal.SIGKILL,) + INTERRUPT_SIGNALS
KILLED_READERS = (
    "align align-resumed eval latents prior-resumed draw encoder embed-resumed "
    "import-dict-npz import-parquet export-npy export-parquet check score things "
    "finetune"
).split()
"""Readers that are killed. They include every command that writes."""


def cases(seed, count, sound):
    """Yield cases that kill each command in turn, by each signal, at a random time."""
    rng = random.Random(seed)
    for number in range(count):
        name = KILLED_READERS[number // len(SIGNALS) % len(KILLED_READERS)]
        signal_number = SIGNALS[number % len(SIGNALS)]
        delay_s = rng.uniform(0, 0.9 * sound[name].wall_s)
        case = Case(
            "kills",
            f"{name} {signal_number.name} {delay_s:.2f}s {number}",
            reader=name,
            kill=(signal_number, delay_s),
        )
        yield replace(case, **READERS[name].case)


def list_problems(outcome):
    """List problems of the killed run, and a wrong exit code of the second run."""
    killed_run = outcome.killed_run
    if killed_run is None or outcome.case.kill is None:
        return []
    signal_number = outcome.case.kill[0]
    expected = {0} if signal_number == signal.SIGKILL else {0, 130}
    if signal_number != signal.SIGINT:  # Python itself turns SIGINT into code 130
        expected.add(-signal_number)
    problems = [line for line in killed_run.problems if not line.startswith("crash")]
    if killed_run.code not in expected:
        problems.append(
            f"ended with {killed_run.code} on {signal.Signals(signal_number).name}: "
            f"{killed_run.stderr.strip()[-200:]}"
        )
    if outcome.code != 0:
        problems.append(
            f"the same command then ended with {outcome.code}: "
            f"{outcome.stderr.strip()[-200:]}"
        )
    return problems
