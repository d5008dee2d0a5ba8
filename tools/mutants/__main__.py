"""Measures the share of small faults that the tests notice.

python -m tools.mutants --record                  # run all tests, note their lines
python -m tools.mutants --record tests/data       # run some of them again
python -m tools.mutants --sample 100 --seed 1     # plant 100 random faults
python -m tools.mutants --sample 50 --room data/signals/holdout
python -m tools.mutants --fixed                   # plant the faults of faults.py
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from scipy.stats import binomtest

from tools.mutants import ROOMS, ROOT
from tools.mutants.faults import FAULTS, fixed_mutant
from tools.mutants.notes import Notes, file_of
from tools.mutants.operators import Mutant, find_mutants, is_valid
from tools.mutants.running import Checkout, Verdict

Judged = tuple[Mutant, Verdict]
"""A fault, and the verdict of the tests on it."""


def main() -> None:
    """Read the arguments, plant the faults, and print what the tests noticed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--record", nargs="*", metavar="TESTS", help="note the lines that tests run")
    add("--sample", type=int, default=0, metavar="N", help="plant N random faults")
    add("--seed", type=int, default=0, help="seed of the sample")
    add(
        "--room", action="append", metavar="NAME", help="a folder or module, repeatable"
    )
    add("--fixed", nargs="?", const="", metavar="WORD", help="faults of faults.py")
    add("--files", action="store_true", help="seconds and lines of each test file")
    add("--notes", type=Path, default=ROOT / ".mutants", help="folder of the notes")
    add("--out", type=Path, help="file of the verdicts, one JSON object a line")
    add("--budget", type=float, default=60, help="seconds of tests for a fault")
    add("--processes", type=int, default=2, help="faults that are judged at once")
    options = parser.parse_args()

    if options.record is not None:
        record(options.record, options.notes, options.processes)
    notes = Notes(options.notes)
    mutants = sample(options.sample, options.seed, options.room or ROOMS)
    if options.fixed is not None:
        for fault in FAULTS:
            if options.fixed in fault.code:
                mutants.append(fixed_mutant(fault))
    verdicts: list[Judged] = []
    for mutant, verdict in judge(mutants, notes, options.budget, options.processes):
        verdicts.append((mutant, verdict))
        print(describe(mutant, verdict), flush=True)
        if options.out:
            line = json.dumps({**mutant._asdict(), **verdict._asdict()})
            with options.out.open("a") as file:
                print(line, file=file)
    if verdicts:
        print_rates(verdicts)
    if options.files:
        print_files(notes, options.out)


def record(tests: Sequence[str], notes: Path, processes: int) -> None:
    """Run tests, and note the lines that each of them runs."""
    notes.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tools.mutants.recording"]
    command += ["-n", str(processes), "--dist", "loadfile"]
    command += tests
    subprocess.run(command, cwd=ROOT, env={**os.environ, "MUTANTS_NOTES": str(notes)})


def sample(count: int, seed: int, rooms: Sequence[str]) -> list[Mutant]:
    """Draw random faults: first positions in the code, then a change at each.

    Args:
        count: Number of faults.
        seed: Seed of the draw.
        rooms: Folders or modules of the package, without ".py".
    """
    changes: dict[tuple[str, int, int], list[Mutant]] = defaultdict(list)
    for room in rooms:
        folder = ROOT / "brainhive_cli" / room
        for path in sorted(folder.rglob("*.py")) or [folder.with_suffix(".py")]:
            name = str(path.relative_to(ROOT))
            for mutant in find_mutants(name, path.read_bytes()):
                changes[name, mutant.start, mutant.stop].append(mutant)

    generator = random.Random(seed)
    positions = list(changes.values())
    generator.shuffle(positions)
    mutants: list[Mutant] = []
    for candidates in positions:
        if len(mutants) == count:
            break
        mutant = generator.choice(candidates)
        if is_valid(mutant.apply((ROOT / mutant.path).read_bytes())):
            mutants.append(mutant)
    return mutants


def judge(
    mutants: Sequence[Mutant], notes: Notes, budget_s: float, processes: int
) -> Iterator[Judged]:
    """Yield each fault with its verdict. Several faults are judged at once.

    Raises:
        RuntimeError: If tests fail without a fault.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool:
        checkouts: SimpleQueue[Checkout] = SimpleQueue()
        for number in range(processes):
            Path(folder, str(number)).mkdir()
            checkouts.put(Checkout(Path(folder, str(number))))

        # check that tests pass without a fault
        for mutant in mutants[:1]:
            tests = notes.select(mutant, (ROOT / mutant.path).read_bytes())
            checkout = checkouts.get()
            harmless = mutant._replace(after=mutant.before)
            verdict = checkout.judge(harmless, tests, budget_s)
            checkouts.put(checkout)
            if verdict.outcome not in ("survived", "not run"):
                raise RuntimeError(f"without a fault, {verdict.killer} fails")

        def judge_one(mutant: Mutant) -> Judged:
            checkout = checkouts.get()
            tests = notes.select(mutant, (ROOT / mutant.path).read_bytes())
            try:
                return mutant, checkout.judge(mutant, tests, budget_s)
            finally:
                checkouts.put(checkout)

        yield from pool.map(judge_one, mutants)


def describe(mutant: Mutant, verdict: Verdict) -> str:
    """Return a line on a fault and its verdict."""
    code = " ".join(mutant.before.split())[:90]
    fault = " ".join(mutant.after.split())[:90]
    position = f"{mutant.path.removeprefix('brainhive_cli/')}:{mutant.line}"
    line = f"{verdict.outcome:<9}{position}  {mutant.kind}: {code} → {fault}"
    facts = [f"{verdict.tests} tests", f"{verdict.seconds:.0f} s"]
    if verdict.killer:
        facts.append(verdict.killer)
    return f"{line}  ({', '.join(facts)})"


def print_rates(verdicts: Sequence[Judged]) -> None:
    """Print the kill rate of each room with its interval, and the survivors."""
    rooms: dict[str, list[bool]] = defaultdict(list)
    for mutant, verdict in verdicts:
        is_killed = verdict.outcome in ("killed", "endless")
        rooms[mutant.path.split("/")[1]].append(is_killed)
        rooms["all"].append(is_killed)
    print("\nroom          killed of faults    rate (95 % interval, Wilson)")
    for room, kills in sorted(rooms.items()):
        rate = binomtest(sum(kills), len(kills))
        interval = rate.proportion_ci(method="wilson")
        print(
            f"{room:<14}{sum(kills):>6} of {len(kills):<9}"
            f"{rate.statistic:.3f} ({interval.low:.3f}–{interval.high:.3f})"
        )
    print("\nnot noticed:")
    for mutant, verdict in verdicts:
        if verdict.outcome in ("survived", "not run"):
            print(describe(mutant, verdict))


def print_files(notes: Notes, verdicts: Path | None) -> None:
    """Print the cost of each test file, and its share in lines and killed faults.

    Args:
        notes: The notes of all tests.
        verdicts: A file of `--out`, if killed faults are counted.
    """
    seconds: dict[str, float] = defaultdict(float)
    for test, duration in notes.seconds.items():
        seconds[file_of(test)] += duration

    # lines that a single test file runs
    n_lines: dict[str, int] = defaultdict(int)
    only_file: dict[tuple[str, int], str] = {}
    for path, lines in notes.lines.items():
        for line, tests in lines.items():
            files = {file_of(test) for test in tests}
            if len(files) == 1:
                file = files.pop()
                only_file[path, line] = file
                n_lines[file] += 1

    # faults that the file noticed first, and faults in the lines above
    kills: dict[str, int] = defaultdict(int)
    only_kills: dict[str, int] = defaultdict(int)
    lines_of_verdicts = verdicts.read_text().splitlines() if verdicts else []
    for text in lines_of_verdicts:
        verdict: dict[str, Any] = json.loads(text)
        if verdict["outcome"] == "killed":
            kills[file_of(verdict["killer"])] += 1
            position = (verdict["path"], verdict["line"])
            if position in only_file:
                only_kills[only_file[position]] += 1
    print("\nseconds  lines only it runs  faults it noticed first, only it  file")
    for file in sorted(seconds, key=lambda file: -seconds[file]):
        counts = f"{n_lines[file]:>12}{kills[file]:>18}, {only_kills[file]}"
        print(f"{seconds[file]:>7.1f}{counts:<36}  {file}")


if __name__ == "__main__":
    main()
