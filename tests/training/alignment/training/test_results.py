from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.training.alignment.training.results import learning_curves


def test_each_cell_has_a_curve_with_the_newest_value_of_an_epoch(
    tmp_path,
):
    run_folder = RunFolder(tmp_path)
    assert learning_curves(run_folder, ["a"]) == []
    for epoch, loss in ((0, 3.0), (1, 2.0), (1, 1.5)):
        run_folder.log(cell="a", epoch=epoch, loss=loss, validation_top1=None)
    run_folder.log(cell="b", epoch=0, loss=4.0, validation_top1=0.5)
    run_folder.log(cell="of another start", epoch=0, loss=9.0)

    loss, top1 = learning_curves(run_folder, ["a", "b"])

    assert loss.at == [1, 2]
    assert [line.values for line in loss.lines] == [
        [3.0, 1.5],
        [4.0, None],
    ]
    assert [(line.name, line.values) for line in top1.lines] == [("b", [0.5])]
