"""Signals that select the epoch of a training."""

from brainhive_cli.training.alignment.training import training_data


def test_an_epoch_is_selected_on_test_signals_of_left_out_people(
    run_command, align_overrides, world, runs, monkeypatch
):
    opened_trials = []
    match = training_data.match_split

    def note(signals, subject, split, *arguments):
        opened_trials.append((subject, split))
        return match(signals, subject, split, *arguments)

    monkeypatch.setattr(training_data, "match_split", note)
    three = "dataset={kind: demo, noise: 0.3, subjects: 3, concepts: 40}"

    run_command(
        "train-align",
        *align_overrides,
        three,
        "mode=inter",
        "subjects=2",
        "train.selection=test",
        "train.epochs=1",
        runs,
    )

    assert {subject for subject, split in opened_trials if split == "test"} == {2}
    assert {subject for subject, split in opened_trials if split == "train"} <= {1, 3}
