"""How long `brainhive --help` takes, compared with `import typer`, which is its floor."""

import subprocess
import sys
import time

ROUNDS = 15
COMMANDS = {"brainhive --help": ["-m", "brainhive_cli", "--help"], "import typer": ["-c", "import typer"]}


def seconds(words: list[str]) -> float:
    """Time one fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    rounds = [
        [seconds(words) for words in COMMANDS.values()] for _ in range(ROUNDS)
    ]  # in turns: noise hits both
    best = [min(times) for times in zip(*rounds, strict=True)]
    for name, time_s in zip(COMMANDS, best, strict=True):
        print(f"{name:18} {1000 * time_s:6.1f} ms")
    print(f"{'ratio':18} {best[0] / best[1]:6.2f}")
