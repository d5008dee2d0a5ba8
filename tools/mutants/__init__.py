"""Plants small faults in the package, and runs the tests that should notice them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("measurement", "data", "training", "models", "evaluation", "core")
"""Folders of the package in which faults are planted."""
