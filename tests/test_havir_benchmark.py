"""benchmarks/havir.py where it depends on no machine: memory from shapes, one look at each picture."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "havir.py"


def test_the_recipe_for_24_gb_fits_and_each_picture_is_looked_at_once(tmp_path: Path) -> None:
    kept = tmp_path / "figures"
    subprocess.run(
        [sys.executable, str(SCRIPT), "--only", "memory", "metrics"],
        env={**os.environ, "BRAINHIVE_FIGURES": str(kept), "PYTHONPATH": str(SCRIPT.parents[1])},
        check=True,
    )

    found = {each["name"]: each for each in map(json.loads, kept.read_text().splitlines())}
    full, small = (found[f"train-align, estimated, GB: {name}"] for name in ("papers/havir", "havir-24gb"))
    assert full["detail"].startswith("1338 M weights") and small["met"]
    assert 21.4 < full["value"] < 24 and small["value"] < 8
    assert found["metrics: features of each picture"]["value"] == 1
    assert all(each["met"] for name, each in found.items() if name.startswith("reconstruct"))
