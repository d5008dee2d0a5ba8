"""How much memory `brainhive embed` holds while it goes through many pictures: it must not grow with them."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import psutil
from PIL import Image

PICTURES = 200_000
DIFFERENT = 50
STORE = "embeddings/many/train/brainhive_cli-encoders-python-example.h5.part"


def paint(root: Path, pictures: int) -> None:
    """Make a folder of tiny pictures, a thousand a concept; few differ, the others are links to them."""
    random = np.random.default_rng(0)
    (root / "originals").mkdir(parents=True)
    for number in range(DIFFERENT):
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / "originals" / f"{number}.png")
    for number in range(pictures):
        concept = root / "many" / f"concept_{number // 1000:04d}"
        concept.mkdir(parents=True, exist_ok=True)
        os.link(root / "originals" / f"{number % DIFFERENT}.png", concept / f"picture_{number:07d}.png")


def held_mb(pid: int) -> float:
    """Sum the proportional set size of a process and its children, without the pages of files."""
    total = 0
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        try:
            smaps = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        kb = {line.split(":")[0]: int(line.split()[1]) for line in smaps.splitlines()[1:]}
        total += kb["Pss_Anon"] + kb["Pss_Shmem"]
    return total / 1024


def rows_done(store: Path) -> int:
    """Count the rows of an unfinished store; -1 where there is none."""
    try:
        with h5py.File(store, "r", locking=False) as file:
            return int(np.count_nonzero(file["done"][()]))
    except (OSError, KeyError):
        return -1


def main() -> None:
    """Embed, look once a second, and print what is held at every twentieth of the way, and the slope."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        paint(Path(home), asked.pictures)
        command = [sys.executable, "-m", "brainhive_cli", "embed", f"run.workers={asked.workers}"]
        command += [f"dataset={{kind: image-folder, root: {home}/many}}"]
        command += ["encoders=['python:brainhive_cli.encoders.python:example']", "batch_size=256"]
        environment = {**os.environ, "BRAINHIVE_HOME": home}
        start, shown = time.perf_counter(), 0
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        looks: list[tuple[int, float]] = []
        while process.poll() is None:
            if asked.pictures // 10 < (done := rows_done(Path(home) / STORE)) < asked.pictures:
                looks.append((done, held_mb(process.pid)))
                if done > shown:
                    print(f"{done:9,d} pictures {looks[-1][1]:8.1f} MB", flush=True)
                    shown = done + asked.pictures // 10
            time.sleep(0.5)
        rate = asked.pictures / (time.perf_counter() - start)
    done, held = np.array(looks).T
    slope = np.polyfit(done, held, 1)[0] * 100_000
    print(f"exit code {process.returncode}, {rate:.0f} pictures/s, the start included")
    print(f"first look {held[0]:.1f} MB, last {held[-1]:.1f} MB: {slope:+.1f} MB a 100,000 pictures")


if __name__ == "__main__":
    main()
