"""Plants faults one by one, and asks the tests that should see them: `python -m
tools.faults [WORD …]`.

Words choose the faults whose line of code holds one of them. The checkout is copied,
never changed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Fault(NamedTuple):
    """Code that the package has once, what stands there instead, and the tests that
    should see it.
    """

    code: str
    fault: str
    tests: str


MEASUREMENT, ALIGNMENT, STORES = (
    "tests/measurement",
    "tests/training/alignment",
    "tests/data/stores",
)
PREPARATIONS, GENERATORS = "tests/data/preparations", "tests/models/generators"
FAULTS = (
    Fault("return 1 + count_at_least(", "return 0 + count_at_least(", MEASUREMENT),
    Fault(".T).contiguous() - TIE", ".T).contiguous() + TIE", MEASUREMENT),
    Fault("    wrong = pool - targets\n", "    wrong = pool\n", MEASUREMENT),
    Fault(
        "np.clip(count - ways - before, 0, None)",
        "np.clip(count - before, 0, None)",
        MEASUREMENT,
    ),
    Fault(
        "(correlation < paired).double()",
        "(correlation > paired).double()",
        MEASUREMENT,
    ),
    Fault("float(subject_means.var(ddof=1)) / subjects", "0.0", MEASUREMENT),
    Fault("reach = t.ppf(UPPER, freedom) * error", "reach = error", MEASUREMENT),
    Fault(
        "float(2 * t.sf(abs(mean) / error, freedom))",
        "float(t.sf(abs(mean) / error, freedom))",
        MEASUREMENT,
    ),
    Fault("z / (1 + z**2 / size) * np.sqrt(", "z * np.sqrt(", MEASUREMENT),
    Fault(
        "false_discovery_control(tested).tolist() if tested else []",
        "tested",
        MEASUREMENT,
    ),
    Fault("centred = signal - self.mean", "centred = signal", "tests/data/signals"),
    Fault(
        "1 / np.sqrt(np.maximum(variances,",
        "1 / (np.maximum(variances,",
        "tests/data/signals",
    ),
    Fault("(stimulus >= 0) & ~data.held_out[stimulus]", "stimulus >= 0", ALIGNMENT),
    Fault("self.learned.load_state_dict(self.weights)", "pass", ALIGNMENT),
    Fault("[learner.steps_done :]", "[:]", ALIGNMENT),
    Fault(
        "is_seen[shown].mean() > MAX_SEEN",
        "is_seen[shown].mean() > 1",
        "tests/training/alignment/test_seen_pictures.py",
    ),
    Fault(
        "neighbours[order] = np.roll(order, 1)",
        "neighbours[order] = order",
        "tests/evaluation/reconstruction",
    ),
    Fault(
        "torch.lerp(values[self.partner], values, share)",
        "torch.lerp(values, values[self.partner], share)",
        "tests/models",
    ),
    Fault(
        "share = (1 - math.cos(math.pi * share)) / 2",
        "pass",
        f"{ALIGNMENT} tests/models/losses",
    ),
    Fault(
        "baseline = slice(0, 1 - first) if self.steps.baseline",
        "baseline = slice(0, 1) if self.steps.baseline",
        PREPARATIONS,
    ),
    Fault(
        "(onsets + start >= 0) & (onsets + stop < samples)",
        "onsets + start >= 0",
        PREPARATIONS,
    ),
    Fault(
        "spread = np.minimum((fourth - squares)",
        "spread = np.maximum((fourth - squares)",
        PREPARATIONS,
    ),
    Fault(
        'training = members[splits[members] == "train"]',
        "training = members",
        PREPARATIONS,
    ),
    Fault("if sealed and sealed[0] != _digest(", "if sealed and not _digest(", STORES),
    Fault(
        "rows.verify(slice(start, start + step))", "rows.verify(slice(0, 0))", STORES
    ),
    Fault("if differs.any():", "if not differs.size:", STORES),
    Fault(
        "while file.read(COPIED_BYTES):",
        "while False:",
        "tests/core tests/damaged tests/data",
    ),
    Fault(
        "if tar.fileobj.read(tarfile.BLOCKSIZE).strip(tarfile.NUL):",
        "if False:",
        "tests/core",
    ),
    Fault(
        'frozen=True, extra="forbid", protected_namespaces',
        'frozen=True, extra="ignore", protected_namespaces',
        "tests/core/test_recipe.py",
    ),
    Fault(
        "return since_s < MISSED_HEARTBEATS * HEARTBEAT_S",
        "return True",
        "tests/core/test_claims.py",
    ),
    Fault(
        "raise Refused(full_name)",
        "return super().find_class(module, name)",
        f"{STORES} tests/damaged",
    ),
    Fault(
        'if name not in OWN and os.environ.get(ALLOW) != "1":', "if False:", "tests/cli"
    ),
    Fault(
        "frames = x.transpose(1, 2).flatten(0, 1)  #",
        "return super().forward(x)  #",
        GENERATORS,
    ),
    Fault("/ max(count - 1, 1)", "/ max(count, 1)", GENERATORS),
    Fault(
        "dropout(project(text + self.prior.scale * image))",
        "dropout(project(text + image))",
        "tests/models/priors",
    ),
    Fault(
        "ranks = (self.rank, self.rank + 1)",
        "ranks = (0, self.rank + 1)",
        "tests/core/test_launch.py",
    ),
    Fault("fixed = target.detach()", "fixed = target", "tests/models/losses"),
    Fault(
        "to_target + to_prediction) / 2 + self",
        "to_target + to_prediction) + self",
        "tests/models/losses",
    ),
    Fault(
        "for key in self.FINGERPRINT_EXCLUDE:",
        "for key in ():",
        "tests/core/test_recipe.py",
    ),
    Fault(
        "for index in sorted(sizes.keys() | self.sizes.keys()):",
        "for index in ():",
        "tests/models/priors",
    ),
    Fault(
        "lengths.astype(np.float64) ** 2).mean(1)",
        "lengths.astype(np.float64) ** 2).max(1)",
        "tests/data/signals",
    ),
)


def plant(fault: Fault, checkout: Path) -> bool:
    """Change the one line of the package; tell whether it is there, once."""
    holders = [
        path
        for path in (checkout / "brainhive_cli").rglob("*.py")
        if fault.code in path.read_text()
    ]
    if len(holders) != 1 or holders[0].read_text().count(fault.code) != 1:
        return False
    holders[0].write_text(holders[0].read_text().replace(fault.code, fault.fault))
    return True


def main(words: list[str]) -> None:
    """Print for each fault whether tests see it; end with 1 where one is not seen, or
    its line has gone.
    """
    faults = [
        fault
        for fault in FAULTS
        if not words or any(word in fault.code for word in words)
    ]
    unseen = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, fault in enumerate(faults):
            checkout = Path(folder, str(number), ROOT.name)
            shutil.copytree(
                ROOT, checkout, ignore=shutil.ignore_patterns(".*", "__pycache__")
            )
            verdict = "its line has gone"
            if plant(fault, checkout):
                command = [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-x",
                    *fault.tests.split(),
                ]
                environment = {
                    "BRAINHIVE_GOLDEN": str(ROOT.parent / "shared/golden"),
                    **os.environ,
                }
                environment["PYTHONPATH"] = str(checkout)
                code = subprocess.run(
                    command, cwd=checkout, env=environment, capture_output=True
                ).returncode
                verdict = {0: "not seen", 1: "seen"}.get(
                    code, f"pytest ended with {code}"
                )
            unseen += verdict != "seen"
            print(f"{verdict:<20}{fault.code.strip()}", flush=True)
            shutil.rmtree(checkout)
    sys.exit(bool(unseen))


if __name__ == "__main__":
    main(sys.argv[1:])
