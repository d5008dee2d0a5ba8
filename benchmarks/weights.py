"""What the digest of a file of weights costs: half a gibibyte written and read, with it and without it."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from brainhive_cli.core import weights

LAYERS, WIDTH, REPEATS = 8, 4096, 5


def seconds(run: Callable[[], object]) -> float:
    """Measure the fastest of a few runs."""
    found = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        run()
        found.append(time.perf_counter() - begun)
    return min(found)


def main() -> None:
    """Print seconds, and the ratio."""
    state = {f"layer.{number}": torch.randn(WIDTH, WIDTH) for number in range(LAYERS)}
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = Path(folder, "plain.safetensors"), Path(folder, "ours.safetensors")
        times = {
            "write": (
                seconds(lambda: save_file(state, plain, {"format": "pt"})),
                seconds(lambda: weights.save(ours, state)),
            ),
            "read": (
                seconds(lambda: [each.sum() for each in load_file(plain).values()]),
                seconds(lambda: [each.sum() for each in weights.read(ours).values()]),
            ),
        }
    size = LAYERS * WIDTH**2 * 4
    for name, (without, with_digest) in times.items():
        print(
            f"{name} {size / 2**20:.0f} MiB: {without:.3f} s, {with_digest:.3f} s with its digest "
            f"({without / with_digest:.2f} of the speed)"
        )


if __name__ == "__main__":
    main()
