"""The live table of cells, from a log as the processes write it."""

import json
from pathlib import Path

import pytest

from brainhive_cli.core.console import clock
from brainhive_cli.training.alignment.progress import Watch

EPOCHS = {f"sub-{n:02d}_seed-1": 10 for n in range(1, 7)}


def event(cell: int, epoch: int, time: float, top1: float | None = 0.25) -> str:
    name = f"sub-{cell:02d}_seed-1"
    told = {"time": time, "cell": name, "epoch": epoch, "loss": 1.5, "validation_top1": top1}
    return json.dumps(told) + "\n"


def finish(run: Path, cell: int) -> None:
    path = run / f"cells/sub-{cell:02d}_seed-1/metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    (tmp_path / "log.jsonl").write_text(event(1, 7, 5.0))  # of the time before an interruption
    return Watch(tmp_path, EPOCHS)


def test_nothing_is_told_before_the_first_epoch(watch):
    table = watch.table(5)
    assert (table.title, table.rows) == ("0 of 6 cells", ())


def test_cells_at_work_stand_above_those_that_were_finished_last(watch, tmp_path):
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"cell": "sub-{"cell": ...}\n{"no": "cell"}\n')  # two lines that a shared disk has mixed
        log.write(event(3, 9, 30.0) + event(2, 8, 10.0) + event(2, 9, 20.0, None))
        log.write(event(4, 0, 100.0) + event(4, 1, 110.0) + event(5, 0, 105.0) + '{"half of a li')
    finish(tmp_path, 2)
    finish(tmp_path, 3)

    table = watch.table(3)

    assert table.rows == (
        ("sub-04", 1, "2/10", "1.500", "0.250", "1:20"),
        ("sub-05", 1, "1/10", "1.500", "0.250", ""),
        ("sub-03", 1, "10/10", "1.500", "0.250", "done"),
    )
    # six epochs ended between 10 and 110 s, one every 20 s; 37 are left: 8 and 9 of two cells, all of two
    assert table.title == "2 of 6 cells, 12:20 left"
    assert watch.table(9).rows[-1] == ("sub-02", 1, "10/10", "1.500", "–", "done")


def test_a_line_is_read_once_it_is_whole(watch, tmp_path):
    line = event(5, 0, 105.0)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(line[:20])
        log.flush()
        assert watch.table(5).rows == ()
        log.write(line[20:])
        log.flush()
        assert [row[0] for row in watch.table(5).rows] == ["sub-05"]


def test_without_a_terminal_each_cell_is_told_once_and_how_far_it_is_when_that_is_due(watch, tmp_path):
    assert (watch.news(False), watch.news(True)) == ([], ["0 of 6 cells"])
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(event(2, 8, 10.0) + event(2, 9, 20.0) + event(4, 0, 100.0) + event(4, 1, 110.0, None))
    finish(tmp_path, 2)

    first, second, third = watch.news(True), watch.news(True), watch.news(False)

    # an epoch every (110 - 10) / 3 s; 48 are left: 8 of the fourth, all of four
    left = "1 of 6 cells, 26:40 left"
    assert first == [f"sub-02_seed-1: done, epoch 10/10, loss 1.500, val top-1 0.250; {left}"]
    assert (second, third) == ([f"sub-04_seed-1: at work, epoch 2/10, loss 1.500; {left}"], [])


@pytest.mark.parametrize(("seconds", "shown"), [(7, "0:07"), (754, "12:34"), (3723, "1:02:03")])
def test_a_time_is_written_as_a_clock_does(seconds, shown):
    assert clock(seconds) == shown
