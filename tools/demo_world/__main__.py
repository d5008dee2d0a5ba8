"""Rebuilds the demo's weights: `python -m tools.demo_world [STAGE ...]`."""

import importlib
import sys
import time

STAGES = (
    "encoder",
    "vae",
    "decoder",
    "prior",
    "generator",
    "tokens",
    "text",
    "dual",
    "motion",
    "vocabulary",
)
"""In order: each reads what the ones before it saved."""


def main(stages: list[str]) -> None:
    """Run the named stages, or all in their order."""
    for stage in stages or STAGES:
        began = time.monotonic()
        importlib.import_module(f"tools.demo_world.{stage}").main()
        print(f"{stage}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
