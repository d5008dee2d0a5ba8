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
FLAT_MB = 1.0
"""Growth a 100,000 pictures and decoding process that counts as none; names that were objects made it 9."""
MAPPED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Arrays get pages of their own, so that what the allocator keeps for later is not taken for what is held."""
COLOURS = "python:brainhive_cli.models.encoders.python:example"


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


def watch(
    home: Path, pictures: int, encoder: str, workers: int, batch_size: int, pause_s: float = 0.5
) -> list[tuple[int, float]]:
    """Embed, and look again and again from a tenth of the way until decoders may end: pictures, MB held."""
    paint(home, pictures)
    command = [sys.executable, "-m", "brainhive_cli", "embed", f"encoders=[{encoder!r}]"]
    command += [f"dataset={{kind: image-folder, root: {home}/many}}"]
    command += [f"run.workers={workers}", f"batch_size={batch_size}"]
    environment = {**os.environ, **MAPPED, "BRAINHIVE_HOME": str(home)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples: list[tuple[int, float]] = []
    while process.poll() is None:
        for store in home.glob("embeddings/many/train/*.part"):
            held = held_mb(process.pid)
            if pictures // 10 < (done := rows_done(store)) < pictures * 19 // 20:
                samples.append((done, held))
        time.sleep(pause_s)
    if process.returncode:
        raise SystemExit(f"embed ended with {process.returncode}")
    return samples


def main() -> None:
    """Print what is held at every tenth of the way, and whether it grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        samples = watch(Path(home), args.pictures, COLOURS, args.workers, batch_size=256)
    done, held = np.array(samples).T
    for tenth in range(1, 10):
        at = int(np.searchsorted(done, tenth * args.pictures / 10))
        print(f"{int(done[at]):9,d} pictures {held[at]:8.1f} MB")
    slope, limit = np.polyfit(done, held, 1)[0] * 100_000, FLAT_MB * max(1, args.workers)
    verdict = "flat" if slope < limit else "GROWS"
    print(f"{verdict}: {slope:+.2f} MB a 100,000 pictures, less than {limit:g} is flat")


if __name__ == "__main__":
    main()
