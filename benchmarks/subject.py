"""One subject of THINGS-EEG at full size, from published-like .pt files through `brainhive train-align`.

    python benchmarks/subject.py [--folder FOLDER] [--json FILE] [OVERRIDE ...]

Writes 2.6 GB of files as the publisher's script does (pickle protocol 5, float16) and random embeddings, then
measures the command from outside: wall time, bytes written, and the most memory that is its own (RssAnon and
RssShmem of the process and its children; mapped pages of files do not count).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import processes

sys.path[:0] = [str(processes.CHECKOUT), str(processes.CHECKOUT / "tests")]

import published  # noqa: E402

from brainhive_cli.data.stores.target_store import Blank, TargetWriter, path_of  # noqa: E402

SPLITS = {"train": ("training_images", 1654, 10, 4), "test": ("test_images", 200, 1, 80)}
"""Folder, concepts, pictures of each, and repetitions of each picture."""
CHANNELS, SAMPLES = 63, 250
ENCODERS = {"clip-h14": 1024, "vae": 1024}
LIMIT_GIB = 3.0


def names_of(folder: str, concepts: int, each: int) -> list[str]:
    """Name pictures as THINGS does."""
    return [
        f"{folder}/{concept:05d}_thing/thing{concept:05d}_{number:02d}b.jpg"
        for concept in range(1, concepts + 1)
        for number in range(each)
    ]


def write(home: Path) -> None:
    """Write the subject's files, and embeddings of the pictures."""
    random = np.random.default_rng(0)
    for split, (folder, concepts, each, repetitions) in SPLITS.items():
        names = names_of(folder, concepts, each)
        signal = np.empty((len(names), repetitions, CHANNELS, SAMPLES), np.float16)
        for row in signal:
            row[:] = random.standard_normal(row.shape, np.float32)
        content = published.eeg_content(signal, names)
        published.save_eeg(home / "data/things-eeg", 1, split, content)
        ids, whose = [name.removesuffix(".jpg") for name in names], [name.split("/")[1] for name in names]
        for encoder, dim in ENCODERS.items():
            path = path_of(home / "embeddings", "things-eeg", split, encoder)
            attributes = {"encoder": encoder, "dataset": "things-eeg", "split": split}
            Blank(path, ids, whose, (dim,), "float32", attributes).create()
            writer = TargetWriter(path)
            writer.write(np.arange(len(ids)), random.standard_normal((len(ids), dim), np.float32))
            writer.close()
            writer.finish()


def size_of(folder: Path) -> int:
    """Count the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(home: Path, overrides: list[str]) -> dict[str, float]:
    """Run the command and watch it."""
    arguments = ["train-align", "--subjects", "1", *overrides]
    check = processes.command([*arguments, "--check", "--json"], home)
    planned = subprocess.run(**check, check=True, stdout=subprocess.PIPE)
    sys.stdout.write(f"planned: {json.loads(planned.stdout)['plan']['signal']}\n")
    preparing, store = processes.Used(), home / "signals/things-eeg/default/sub-01.h5"
    for used in processes.run(arguments, home):
        if not preparing.wall_s and store.is_file():
            preparing = replace(used)
    return {
        "wall_s": used.wall_s,
        "of_it_until_the_store_s": preparing.wall_s,
        "own_memory_gib": used.together_gib,
        "own_memory_until_the_store_gib": preparing.together_gib,
        "source_gb": size_of(home / "data") / 1e9,
        "signals_written_gb": size_of(home / "signals") / 1e9,
        "runs_written_gb": size_of(home / "runs") / 1e9,
    }


def main() -> None:
    """Measure in a folder that is removed afterwards, and say whether memory keeps within its bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where 5.2 GB are free for a while; default: the system's")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("overrides", nargs="*", help="of the recipe, such as seeds=1")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as home:
        write(Path(home))
        figures = measure(Path(home), args.overrides)
    for name, value in figures.items():
        sys.stdout.write(f"{name:32}{value:8.2f}\n")
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2))
    if figures["own_memory_gib"] > LIMIT_GIB:
        raise SystemExit(f"more than {LIMIT_GIB:g} GiB of its own memory")


if __name__ == "__main__":
    main()
