"""Workers that share cells on a disk that is slow and fails, some of which die: no cell
is lost.
"""

from pathlib import Path

import pytest

from brainhive_cli.core.runs import cells, claims

WORKERS, CELLS, MACHINES = 20, 100, 6
"""As many as end in seconds; benchmarks/claims.py has 200 workers and 2,000 cells."""
MAX_LOST = 0.04
"""Share of cells whose claims may get lost: a judge and a mover of a claim may be apart
for milliseconds.
"""


@pytest.fixture
def faulty_disk(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[4] / "benchmarks")
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.15)
    monkeypatch.setattr(cells, "MAX_POLL_S", 0.3)
    import faulty_disk

    return faulty_disk


def test_no_cell_is_lost_or_repeated_without_a_lost_claim(tmp_path, faulty_disk):
    disk = faulty_disk.FaultyDisk(failing=0.03, slow=0.05, delay_s=0.002, seed=1)
    outcome = faulty_disk.simulate(
        tmp_path, disk, WORKERS, CELLS, MACHINES, cell_s=0.01, dying=0.5
    )
    assert outcome.errors == []
    assert len(outcome.trained) == CELLS
    assert len(list(tmp_path.glob("*/done"))) == CELLS
    deaths = sum(map(len, outcome.deaths.values()))
    assert deaths > 4
    assert outcome.ended == WORKERS - deaths
    assert set(outcome.repeated) <= outcome.lost
    assert len(outcome.repeated) <= MAX_LOST * CELLS
    assert (
        sum(count for name, count in outcome.calls.items() if name.endswith("failed"))
        > 60
    )
