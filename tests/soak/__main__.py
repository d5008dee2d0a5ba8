"""Runs the whole fuzz: `python -m tests.soak [--only GROUP] [--count N] [--seed N]
[--match TEXT]`.
"""

import argparse
import contextlib
import importlib
import os
import pkgutil
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path

for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[name] = "1"
for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(name, "1")
sys.dont_write_bytecode = True

from PIL import Image  # noqa: E402

import brainhive_cli  # noqa: E402
from tests.soak import (  # noqa: E402
    damage,
    hostile,
    hostile_own,
    kills,
    notebooks,
    recipes,
    runner,
    terminals,
    world,
)

IMPORTED = """
accelerate pyarrow.parquet open_clip timm.data h5py
scipy.stats scipy.special rich.live rich.table
skimage.color skimage.metrics torch._dynamo torch.distributed transformers.models.auto
transformers.models.clip.modeling_clip transformers.models.clip.image_processing_clip
diffusers.models.autoencoders.autoencoder_kl diffusers.models.unets.unet_2d_condition
diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl
diffusers.schedulers.scheduling_euler_discrete diffusers.training_utils
matplotlib.pyplot mne.epochs mne.export mne.io mne.preprocessing nibabel pybv
sklearn.cross_decomposition
"""
"""What commands import of libraries while they run."""
COUNTS = {
    "recipes": 6000,
    "methods": 2000,
    "damaged": 900,
    "hostile": 800,
    "kills": 240,
}
COUNTS |= {"own": 800, "pages": 300, "api": 800, "terminals": 100}


def main() -> int:
    """Run the groups and print each failure in one line, then a table."""
    words = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    words.add_argument(
        "--only", default=",".join(COUNTS), help="groups, separated by commas"
    )
    words.add_argument("--count", type=int, help="cases of each group")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument(
        "--match", default="", help="only cases with this text in their name"
    )
    words.add_argument("--jobs", type=int, default=2)
    words.add_argument(
        "--keep",
        type=Path,
        help="a folder for a copy of the world of sound files, for later calls",
    )
    words.add_argument(
        "--all", action="store_true", help="how each case ended, in a line"
    )
    words.add_argument(
        "--verbose", action="store_true", help="also the stderr of failures"
    )
    given = words.parse_args()
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="soak-", dir=base) as scratch:
        return _Soak(given, Path(scratch)).run()


class _Soak:
    def __init__(self, given: argparse.Namespace, scratch: Path) -> None:
        self.given, self.scratch, self.world = given, scratch, scratch / "world/home"
        self.table: dict[str, Counter[str]] = defaultdict(Counter)

    def run(self) -> int:
        """Make the world, run all, and print the table; returns the exit code."""
        began_s = time.monotonic()
        _import_all()
        if self.given.keep and self.given.keep.exists():
            shutil.copytree(self.given.keep, self.world, symlinks=True)
        else:
            runner.make_world(self.world, world.build(self.world), world.COMMON)
        count, taken_s = (
            sum(1 for _ in self.world.rglob("*")),
            time.monotonic() - began_s,
        )
        print(f"world of {count} files in {taken_s:.0f} s", file=sys.stderr, flush=True)
        if self.given.keep and not self.given.keep.exists():
            shutil.copytree(self.world, self.given.keep, symlinks=True)
        groups = self.given.only.split(",")
        is_all = not {"hostile", "kills"}.isdisjoint(groups)
        self.sound = self._sound(COUNTS if is_all else groups)
        for group in groups:
            began_s, seed, count = (
                time.monotonic(),
                self.given.seed,
                self.given.count or COUNTS[group],
            )
            make: Callable[[], Iterator[runner.Case]] = {
                "recipes": partial(recipes.cases, seed, count, group),
                "methods": partial(recipes.cases, seed, count, group),
                "damaged": partial(damage.cases, seed, count, self.world, group),
                "own": partial(hostile_own.cases, seed, count, self.world, group),
                "pages": partial(hostile_own.cases, seed, count, self.world, group),
                "hostile": partial(hostile.cases, seed, count),
                "kills": partial(kills.cases, seed, count, self.sound),
                "api": partial(notebooks.cases, seed, count),
                "terminals": partial(terminals.cases, seed, count),
            }[group]
            chosen = (case for case in make() if self.given.match in case.name)
            for found in runner.run_all(
                chosen, self.world, self.scratch, self.given.jobs
            ):
                self._count(found, kills.problems(found))
            self.table[group]["seconds"] = round(time.monotonic() - began_s)
        return self._show()

    def _sound(self, groups: Container[str]) -> dict[str, runner.Outcome]:
        """Run the readers of some groups on sound files, twice, and keep what is the
        same both times.
        """
        found: dict[str, runner.Outcome] = {}
        readers = {
            name: each for name, each in world.READERS.items() if each.surface in groups
        }
        cases = [
            runner.Case("sound", name, **reader.case)
            for name, reader in readers.items()
        ]
        for outcome in runner.run_all(
            [*cases, *cases], self.world, self.scratch, self.given.jobs
        ):
            name, problems = outcome.case.name, outcome.problems
            if (outcome.code or problems) and name != "unpacked":
                print(
                    (
                        f"sound {name}: exit {outcome.code} {problems} "
                        f"{outcome.stderr[-300:]}"
                    ),
                    flush=True,
                )
            first = found.setdefault(name, outcome)
            first.result = dict(first.result.items() & outcome.result.items())
        return found

    def _count(self, found: runner.Outcome, more: list[str]) -> None:
        case, row = found.case, self.table[found.case.group]
        problems = [*found.problems, *more]
        if case.call:
            row.update(
                {
                    name: count
                    for name, count in found.counts.items()
                    if name != "failed"
                }
            )
            row["cases"] += sum(found.counts.values())
            row["failures"] += max(len(problems), found.counts.get("failed", 0))
        else:
            row["cases"] += 1
            row[self._verdict(found, problems)] += 1
            row["interrupted"] += bool(found.before and found.before.code)
        for problem in problems:
            print(f"{case.group}: {case.name}: {problem}", flush=True)
        if self.given.all:
            said = [
                line for line in found.stderr.splitlines() if line.startswith("error: ")
            ]
            print(
                f"{case.group}: {case.name}: exit {found.code} {' '.join(said)}",
                flush=True,
            )
        if problems and self.given.verbose:
            print(*[each.stderr for each in (found.before, found) if each], sep="\n")

    def _verdict(self, found: runner.Outcome, problems: list[str]) -> str:
        """Name the column of a case, and add what is wrong to its problems."""
        case = found.case
        if found.code == 0 and case.must_fail:
            problems.append("accepted")
        if problems or found.code:
            return "failures" if problems else "refused"
        differing = (
            _differs(found.result, self.sound[case.reader].result)
            if case.reader
            else ""
        )
        if differing and case.has_digest:
            problems.append(f"silent corruption: {differing}")
            return "silent"
        return "changed, no checksum" if differing else "same result"

    def _show(self) -> int:
        columns = (
            "cases",
            "refused",
            "same result",
            "checked",
            "checked, something missing",
        )
        columns += (
            "changed, no checksum",
            "interrupted",
            "silent",
            "failures",
            "seconds",
        )
        print(
            "\ngroup    " + " ".join(f"{name:>{max(len(name), 6)}}" for name in columns)
        )
        for group, row in self.table.items():
            print(
                f"{group:8} "
                + " ".join(f"{row[name]:>{max(len(name), 6)}}" for name in columns)
            )
        return int(any(row["failures"] or row["silent"] for row in self.table.values()))


def _differs(found: dict[str, str], sound: dict[str, str]) -> str:
    """Name the first value that differs from that of the sound files."""
    return next(
        (key for key, value in sorted(sound.items()) if found.get(key) != value), ""
    )


def _import_all() -> None:
    """Import before the first fork what commands import while they run."""
    Image.init()
    own = [
        module.name
        for module in pkgutil.walk_packages(brainhive_cli.__path__, "brainhive_cli.")
    ]
    for name in [
        *(name for name in own if not name.endswith("__main__")),
        *IMPORTED.split(),
    ]:
        with contextlib.suppress(*() if name in own else (ImportError,)):
            importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
