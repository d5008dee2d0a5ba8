"""Roles, claims and scores by epoch in results of other projects."""

import numpy as np
import pytest

from brainhive_cli.data.exchange.foreign_results import (
    LIST_PATTERNS,
    MATRIX_PATTERNS,
    _find_role,
    _read_array,
    _read_claims,
    _read_file,
    _read_log,
    open_result,
)


@pytest.mark.parametrize(
    ("values", "claims"),
    [
        (
            {"top1": "41.5 %", "pool": 200},
            {"top1": 41.5, "pool": 200, "rounding": 0.05},
        ),
        (
            {"test_top_1": 0.4, "top5": 0.9},
            {"top1": 40, "top5": 90, "rounding": 5},
        ),
        ({"acc": 0.4, "top5": 90}, {"top1": 0.4, "top5": 90, "rounding": 0.5}),
        ({"accuracy": 1}, {"top1": 100, "rounding": 50}),
        (
            {"top1": 0.5, "seeds": [1, 2, 3]},
            {"top1": 50, "trainings": 3, "rounding": 5},
        ),
        ({"top1": 0.5, "n_seeds": 4}, {"top1": 50, "trainings": 4, "rounding": 5}),
        (
            {"top1": 0.5, "top1_std": 0.1},
            {"top1": 50, "trainings": 2, "rounding": 5},
        ),
        ({"n_ways": 50, "ci": [0.2, 0.5]}, {"pool": 50, "interval": 15}),
        ({"recall@3": "30%", "n-way": 0}, {"top3": 30, "rounding": 0.5}),
        ({"top1": -0.1, "pool": 2e9, "other": 3}, {}),
    ],
)
def test_claims_are_read_in_percent(values, claims):
    claims_in_percent = _read_claims(
        {f"r.json:{name}": np.asarray(value) for name, value in values.items()}
    )
    assert claims_in_percent == pytest.approx(claims)


@pytest.mark.parametrize(
    ("patterns", "label", "role"),
    [
        (MATRIX_PATTERNS, "run.npz:Similarity", "similarities"),
        (MATRIX_PATTERNS, "run.npz:dissimilarity", ""),
        (MATRIX_PATTERNS, "pred.npy", "predicted"),
        (MATRIX_PATTERNS, "x.npz:train_eeg", "train_vectors"),
        (MATRIX_PATTERNS, "x.npz:img_feats", "gallery"),
        (LIST_PATTERNS, "log.csv:val_acc", "log"),
        (LIST_PATTERNS, "a.txt:train_names", "train_ids"),
        (LIST_PATTERNS, "candidates.txt", "gallery_ids"),
        (LIST_PATTERNS, "a.json:ids", "seen"),
        (LIST_PATTERNS, "a.json:idea", ""),
    ],
)
def test_roles_follow_from_names(patterns, label, role):
    assert _find_role(patterns, label) == role


def test_scores_of_several_trainings_are_divided():
    epochs = [1, 2, 3, 1, 2, 1, 2]
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, np.inf]
    scores_by_training = _read_log(
        {
            "log.csv:epoch": np.array(epochs),
            "log.csv:test_acc": np.array(scores),
            "log.csv:val_acc": np.array(["nan"] * 7),
            "other.csv:val_loss": np.array([3, 2]),
            "short.csv:val_loss": np.array([3]),
        }
    )
    assert {
        name: training_scores.tolist()
        for name, training_scores in scores_by_training.items()
    } == {
        "training 0 log.csv:test_acc": [0.1, 0.2, 0.3],
        "training 1 log.csv:test_acc": [0.4, 0.5],
        "other.csv:val_loss": [3, 2],
    }
    mixed = {"a:epoch": np.array([1, 1, 2, 2]), "a:test_acc": np.arange(4.0)}
    assert _read_log(mixed) == {}


@pytest.mark.parametrize("content", [[], [1j], [[1, 2], [3]], {"a": 1}, [["a", "b"]]])
def test_other_contents_are_refused(content):
    with pytest.raises((TypeError, ValueError)):
        _read_array(content)


def test_tables_are_read_by_column(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,acc,\n1,0.5\n\n2,\n")
    assert _read_file(path) == {"epoch": ["1", "2"], "acc": ["0.5", "nan"]}
    path.write_text(",".join("abcdefghijkl") + "\n1\n")
    with pytest.raises(ValueError, match="rows"):
        _read_file(path)
    (tmp_path / "ids.txt").write_text("a\n\nb\n")
    assert _read_file(tmp_path / "ids.txt") == ["a", "b"]
    assert _read_file(tmp_path / "notes.md") is None


def test_labels_may_count_from_one_and_matrices_be_turned(tmp_path):
    similarities = np.random.default_rng(0).normal(size=(3, 5))
    for number, matrix in enumerate((similarities, similarities.T)):
        folder = tmp_path / str(number)
        folder.mkdir()
        np.savez(folder / "r.npz", sim=matrix, labels=np.array([1, 3, 1, 2, 3]))
        result = open_result(folder)
        assert np.allclose(result.similarities, similarities.T)
        assert result.seen_names == ["1", "3", "1", "2", "3"]
        # 3 is no row of three that are counted from 0
        assert result.targets.ravel().tolist() == [0, 2, 0, 1, 2]
