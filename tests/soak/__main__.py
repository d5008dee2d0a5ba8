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

LAZY_IMPORTS = """
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
"""Modules of libraries that commands import while they run."""
CASE_COUNTS = {
    "recipes": 6000,
    "methods": 2000,
    "damaged": 900,
    "hostile": 800,
    "kills": 240,
    "own": 800,
    "pages": 300,
    "api": 800,
    "terminals": 100,
}


def main():
    """Run the groups, and print a line for each failure and a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument(
        "--only", default=",".join(CASE_COUNTS), help="groups, separated by commas"
    )
    parser.add_argument("--count", type=int, help="cases of each group")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--match", default="", help="only cases with this text in their name"
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--keep",
        type=Path,
        help="a folder for a copy of the world of sound files, for later calls",
    )
    parser.add_argument(
        "--all", action="store_true", help="how each case ended, in a line"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="also the stderr of failures"
    )
    options = parser.parse_args()
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="soak-", dir=base) as scratch:
        return _Soak(options, Path(scratch)).run_groups()


class _Soak:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, scratch
        self.world = scratch / "world/home"
        self.table = defaultdict(Counter)

    def run_groups(self):
        """Run all cases, print the table and return the exit code."""
        self._make_world()
        groups = self.options.only.split(",")
        needs_all = not {"hostile", "kills"}.isdisjoint(groups)
        self.sound = self._run_on_sound_files(CASE_COUNTS if needs_all else groups)
        for group in groups:
            start_s, seed = time.monotonic(), self.options.seed
            count = self.options.count or CASE_COUNTS[group]
            make = {
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
            cases = (case for case in make() if self.options.match in case.name)
            for outcome in self._run_all(cases):
                self._count(outcome)
            self.table[group]["seconds"] = round(time.monotonic() - start_s)
        return self._print_table()

    def _make_world(self):
        """Build the world, or copy it from `--keep`."""
        start_s, stored_world = time.monotonic(), self.options.keep
        _import_all()
        if stored_world and stored_world.exists():
            shutil.copytree(stored_world, self.world, symlinks=True)
        else:
            runner.make_world(self.world, world.build(self.world), world.CPU_KEYS)
        count = sum(1 for _ in self.world.rglob("*"))
        duration_s = time.monotonic() - start_s
        print(
            f"world of {count} files in {duration_s:.0f} s", file=sys.stderr, flush=True
        )
        if stored_world and not stored_world.exists():
            shutil.copytree(self.world, stored_world, symlinks=True)

    def _run_all(self, cases):
        return runner.run_all(cases, self.world, self.scratch, self.options.jobs)

    def _run_on_sound_files(self, groups):
        """Run the readers of the groups twice, and keep equal results."""
        outcomes = {}
        cases = [
            runner.Case("sound", name, **reader.case)
            for name, reader in world.READERS.items()
            if reader.surface in groups
        ]
        for outcome in self._run_all(cases + cases):
            name, problems = outcome.case.name, outcome.problems
            if (outcome.code or problems) and name != "unpacked":
                print(
                    f"sound {name}: exit {outcome.code} {problems} "
                    f"{outcome.stderr[-300:]}",
                    flush=True,
                )
            first_outcome = outcomes.setdefault(name, outcome)
            equal_items = first_outcome.result.items() & outcome.result.items()
            first_outcome.result = dict(equal_items)
        return outcomes

    def _count(self, outcome):
        """Add an outcome to the table, and print its problems."""
        case, row = outcome.case, self.table[outcome.case.group]
        killed_run = outcome.killed_run
        problems = outcome.problems + kills.list_problems(outcome)
        if case.call:
            counts = dict(outcome.counts)
            row["cases"] += sum(counts.values())
            row["failures"] += max(len(problems), counts.pop("failed", 0))
            row.update(counts)
        else:
            row["cases"] += 1
            row[self._name_column(outcome, problems)] += 1
            row["interrupted"] += bool(killed_run and killed_run.code)
        label = f"{case.group}: {case.name}:"
        for problem in problems:
            print(f"{label} {problem}", flush=True)
        if self.options.all:
            lines = outcome.stderr.splitlines()
            errors = [line for line in lines if line.startswith("error: ")]
            print(f"{label} exit {outcome.code} {' '.join(errors)}", flush=True)
        if problems and self.options.verbose:
            if killed_run:
                print(killed_run.stderr)
            print(outcome.stderr)

    def _name_column(self, outcome, problems):
        """Name the column of a case, and add a wrong success to its problems."""
        case = outcome.case
        if outcome.code == 0 and case.must_fail:
            problems.append("accepted")
        if problems or outcome.code:
            return "failures" if problems else "refused"
        key = ""
        if case.reader:
            key = _find_difference(outcome.result, self.sound[case.reader].result)
        if key and case.has_digest:
            problems.append(f"silent corruption: {key}")
            return "silent"
        return "changed, no checksum" if key else "same result"

    def _print_table(self):
        """Print the table, and return 1 if a case failed."""
        columns = (
            "cases",
            "refused",
            "same result",
            "checked",
            "checked, something missing",
            "changed, no checksum",
            "interrupted",
            "silent",
            "failures",
            "seconds",
        )
        print("\ngroup    " + " ".join(f"{name:>6}" for name in columns))
        for group, row in self.table.items():
            cells = [f"{row[name]:>{max(len(name), 6)}}" for name in columns]
            print(f"{group:8} " + " ".join(cells))
        return int(any(row["failures"] or row["silent"] for row in self.table.values()))


def _find_difference(result, sound_result):
    """Find the first key with another value."""
    for key, value in sorted(sound_result.items()):
        if result.get(key) != value:
            return key
    return ""


def _import_all():
    """Import all modules and LAZY_IMPORTS before the first fork."""
    Image.init()
    for module in pkgutil.walk_packages(brainhive_cli.__path__, "brainhive_cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LAZY_IMPORTS.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
