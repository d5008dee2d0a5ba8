from pathlib import Path

import pytest

from brainhive_cli.commands.train_align import learning_curves
from brainhive_cli.core.runs import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_the_log_is_drawn_cell_by_cell_and_a_resumed_epoch_counts_as_it_was_last(run):
    for epoch, loss in ((0, 3.0), (1, 2.0), (1, 1.5)):
        run.log(cell="a", epoch=epoch, loss=loss, validation_top1=None)
    run.log(cell="b", epoch=0, loss=4.0, validation_top1=0.5)
    run.log(cell="of another start", epoch=0, loss=9.0)

    loss, top1 = learning_curves(run, ["a", "b"])

    assert loss.at == [1, 2] and {line.name: line.values for line in loss.lines} == {
        "a": [3.0, 1.5],
        "b": [4.0, None],
    }
    assert [(line.name, line.values) for line in top1.lines] == [("b", [0.5])]


def test_of_many_cells_the_mean_is_drawn_between_the_lowest_and_the_highest(run):
    cells = [f"cell {number}" for number in range(10)]
    for number, cell in enumerate(cells):
        run.log(cell=cell, epoch=0, loss=float(number))

    (loss,) = learning_curves(run, cells)

    (line,) = loss.lines
    assert (line.values, line.low, line.high) == ([4.5], [0.0], [9.0])


def test_a_damaged_line_of_the_log_is_left_out_and_without_a_log_there_is_no_curve(run):
    assert learning_curves(run, ["a"]) == []
    run.log(cell="a", epoch=0, loss=1.0)
    with (run.path / "log.jsonl").open("a") as log:
        log.write('{"cell": "a", "epo\n[1]\n')
    assert [line.values for line in learning_curves(run, ["a"])[0].lines] == [[1.0]]
