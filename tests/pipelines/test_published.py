"""Published numbers: printed beside what is measured in the same way, and beside nothing else."""

import pytest

TOP1 = "top1: 0.5, source: a paper"


def has_table(result) -> bool:
    return any(table.title.startswith("Published") for table in result.tables)


@pytest.mark.parametrize(
    ("of", "is_shown"),
    [
        ("mode: intra, dataset: demo-noise-0.3", True),
        ("mode: inter", False),
        ("dataset: things-eeg", False),
    ],
)
def test_they_stand_beside_trainings_of_their_mode_and_data(go, small, world, tmp_path, of, is_shown):
    settings = (*small, f"paths.runs={tmp_path}", "subjects=1", "train.epochs=1")

    result = go("train-align", *settings, f"published={{{TOP1}, {of}}}")

    assert has_table(result) is is_shown


def test_they_stand_beside_retrieval_among_as_many_pictures_without_a_control(go, small, world, tmp_path):
    runs = f"paths.runs={tmp_path}"
    go("train-align", *small, runs, "subjects=1", "train.epochs=1", f"published={{{TOP1}, pool: 100}}")

    def shown(*overrides: str) -> bool:
        return bool(go("eval-retrieval", runs, "sheet_rows=0", *overrides).metrics["published"])

    assert shown()
    assert not any(shown(other) for other in ("distractors=1", "gallery=train+test", "control=shuffled"))
