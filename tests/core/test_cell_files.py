"""Files of what was measured of a cell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainhive_cli.core import cell_files


@dataclass(frozen=True)
class Curve:
    at: tuple[float, ...]
    ranks: np.ndarray


@dataclass(frozen=True)
class Measured:
    names: list[str]
    curves: Mapping[int, Curve]
    ceiling: Curve | None = None
    share: float = 0.0


def test_values_of_all_kinds_come_back_from_a_file(tmp_path: Path) -> None:
    curves = {1: Curve((0.5, 1.0), np.arange(6).reshape(2, 3)), 2: Curve((), np.zeros((0, 3), bool))}
    written = Measured(["a", "é"], curves, None, np.float64(0.25))  # type: ignore[arg-type]

    cell_files.save(tmp_path / "cell.safetensors", written)
    read = cell_files.load(tmp_path / "cell.safetensors", Measured, Curve)

    assert (read.names, read.ceiling, read.share) == (["a", "é"], None, 0.25)
    assert [*read.curves] == [1, 2]
    for number, curve in curves.items():
        back = read.curves[number]
        assert back.at == curve.at and back.ranks.dtype == curve.ranks.dtype
        np.testing.assert_array_equal(back.ranks, curve.ranks)
