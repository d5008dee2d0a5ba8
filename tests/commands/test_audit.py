"""Tests of audit, which must find planted errors and must not accuse honest results."""

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli import api
from brainhive_cli.app import app
from brainhive_cli.commands.audit import FINDINGS_EXIT_CODE
from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.data.exchange.foreign_results import open_result
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.measurement.audit import (
    CHECKS,
    FINDING,
    UNDECIDED,
    ForeignResult,
    audit,
)
from brainhive_cli.measurement.corrections import Assignment, Sinkhorn
from brainhive_cli.measurement.foreign_result import (
    DIRECTIONS,
    DISTANCE,
    EUCLIDEAN,
    LAYOUTS,
    MEAN_PREDICTION,
    PEARSON,
    WITHOUT_MISSING,
)
from brainhive_cli.training.alignment.trained.picture_targets import open_targets

N, D = 100, 32
IDS = [f"{name:05d}_thing/thing_{name:02d}s" for name in range(N)]
TRAIN_IDS = [f"{name:05d}_other/other_01b" for name in range(400)]

Arrays = dict[str, Any]


def scale_to_unit(vectors):
    """Scale vectors [N, D] to unit length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def simulate_predictions(seed, noise=2.0, count=N, width=D):
    """Simulate noisy predictions [N, D] of the embeddings of a gallery [N, D].

    Args:
        seed: Seed of the embeddings and of the noise.
        noise: Standard deviation of the noise, in units of the embeddings.
        count: Number of pictures, N.
        width: Number of dimensions, D.
    """
    random = np.random.default_rng(seed)
    gallery = random.normal(size=(count, width))
    return {
        "gallery": gallery,
        "pred": gallery + noise * random.normal(size=gallery.shape),
    }


def compute_similarity(arrays):
    """Compute the cosine similarity [N, N] of predictions and gallery."""
    return scale_to_unit(arrays["pred"]) @ scale_to_unit(arrays["gallery"]).T


def score_top_k(values, k=1, target=None):
    """Compute the top-k accuracy in percent from a sorted order, as many scripts do.

    Args:
        values: Similarities [N, M].
        k: Number of candidates that may be right.
        target: Index [N] of the right candidate. Default: the index of the signal.
    """
    target = np.arange(len(values)) if target is None else target
    order = np.argsort(-np.asarray(values), 1, kind="stable")[:, :k]
    return float(100 * (order == target[:, None]).any(1).mean())


def write_result(folder, claims, ids=IDS, **arrays):
    """Write a folder of results: arrays as .npz, ids and claims as JSON.

    Args:
        folder: New folder.
        claims: Claimed numbers, by name.
        ids: Image ids, or None to write none.
        arrays: Arrays, by name.
    """
    folder.mkdir(parents=True)
    np.savez(folder / "outputs.npz", **arrays)
    if ids is not None:
        (folder / "test_images.json").write_text(json.dumps(list(ids)))
    (folder / "results.json").write_text(json.dumps(claims))
    return folder


def audit_findings(folder):
    """Audit a folder, and return the size of each finding by its check."""
    rows = audit(open_result(folder))
    return {check: points for check, state, points, _ in rows if state == FINDING}


# planted errors, in the files that the script of a publisher would write


def lenient_ties(folder):
    """Write equal similarities, and a claim that counts ties as hits."""
    one_vectors = np.ones((N, D), np.float32)
    values = scale_to_unit(one_vectors) @ scale_to_unit(one_vectors).T
    best = (values > np.diag(values)[:, None]).sum(1) == 0
    write_result(folder, {"top1": 100 * float(best.mean())}, similarity=values)


def hungarian(folder):
    """Write predictions, and the claim of a one-to-one assignment of all signals."""
    arrays = {
        name: torch.tensor(array) for name, array in simulate_predictions(1).items()
    }
    values = torch.from_numpy(compute_similarity(simulate_predictions(1)))
    assigned = Assignment().correct(values, values, values)
    folder.mkdir()
    torch.save(
        {"eeg_features": arrays["pred"], "img_features": arrays["gallery"]},
        folder / "f.pt",
    )
    (folder / "ids.csv").write_text(
        "image_id\n" + "\n".join(f"{name}.jpg" for name in IDS)
    )
    (folder / "results.csv").write_text(
        f"top-1,top-5\n{score_top_k(assigned)}%,{score_top_k(assigned, 5)}%\n"
    )


def hungarian_in_the_file(folder):
    """Write similarities that a one-to-one assignment has changed."""
    values = torch.from_numpy(compute_similarity(simulate_predictions(2)))
    assigned = Assignment().correct(values, values, values).numpy()
    folder.mkdir()
    np.save(folder / "sim.npy", assigned)
    np.savetxt(folder / "ids.txt", IDS, "%s")
    (folder / "claims.json").write_text(
        json.dumps({"acc@1": score_top_k(assigned) / 100})
    )


def sinkhorn(folder):
    """Write predictions, and the claim of similarities balanced by Sinkhorn."""
    values = torch.from_numpy(compute_similarity(simulate_predictions(3)))
    balanced = Sinkhorn().correct(values, values, values)
    write_result(
        folder,
        {"top1": score_top_k(balanced), "top5": score_top_k(balanced, 5)},
        **simulate_predictions(3),
    )


def sinkhorn_in_the_file(folder):
    """Write similarities that were balanced by Sinkhorn."""
    values = torch.from_numpy(compute_similarity(simulate_predictions(4)))
    balanced = Sinkhorn().correct(values, values, values).numpy()
    write_result(folder, {"top1": score_top_k(balanced)}, similarity=balanced)


def best_test_epoch(folder):
    """Write a log, and claim the best test score of all epochs."""
    claim = score_top_k(compute_similarity(simulate_predictions(5)))
    validation, test = [10, 20, 26, 25, 24], np.array([-9, -4, -3, 0, -5]) + claim
    rows = [
        f"{n},{v},{t}" for n, (v, t) in enumerate(zip(validation, test, strict=True))
    ]
    write_result(folder, {"top1": claim}, **simulate_predictions(5))
    (folder / "log.csv").write_text(
        "\n".join(["epoch,val_top1,test_top1"] + list(rows))
    )


def trained_on_tested(folder):
    """Write a training split that has 30 test pictures."""
    arrays = simulate_predictions(6)
    arrays["pred"][:30] = arrays["gallery"][:30] + 0.5
    write_result(folder, {"top1": score_top_k(compute_similarity(arrays))}, **arrays)
    (folder / "split.json").write_text(
        json.dumps({"train": TRAIN_IDS + IDS[:30], "test": IDS})
    )


def copies_under_other_names(folder):
    """Write training embeddings that equal 25 test pictures of other names."""
    arrays = simulate_predictions(7)
    random = np.random.default_rng(70)
    train_embeddings = random.normal(size=(400, D))
    train_embeddings[:25] = arrays["gallery"][:25] + 0.001 * random.normal(size=(25, D))
    arrays["pred"][:25] = arrays["gallery"][:25] + 0.5
    write_result(
        folder,
        {"top1": score_top_k(compute_similarity(arrays))},
        train_features=train_embeddings,
        **arrays,
    )
    (folder / "train_names.txt").write_text("\n".join(TRAIN_IDS))


def collapsed(folder):
    """Write predictions that always lie near the picture shown most often."""
    random = np.random.default_rng(8)
    gallery = random.normal(size=(20, D))
    target = np.where(random.random(200) < 0.6, 3, random.integers(0, 20, 200))
    predicted = gallery[3] + 1e-3 * random.normal(size=(200, D))
    claim = score_top_k(scale_to_unit(predicted) @ scale_to_unit(gallery).T, 1, target)
    write_result(
        folder, {"top1": claim}, None, pred=predicted, gallery=gallery, labels=target
    )


def trials_as_independent(folder):
    """Claim an interval over 2,000 trials of 50 pictures."""
    random = np.random.default_rng(9)
    target = np.arange(50).repeat(40)
    gallery = random.normal(size=(50, D))
    # all trials of some pictures are decoded
    noise = np.where(np.arange(50) < 20, 0.5, 5.0)[target, None]
    values = (
        scale_to_unit(gallery[target] + noise * random.normal(size=(2000, D)))
        @ scale_to_unit(gallery).T
    )
    share = score_top_k(values, 1, target) / 100
    half_width = 1.96 * (share * (1 - share) / 2000) ** 0.5
    claims = {"top1": share, "ci": [share - half_width, share + half_width]}
    write_result(folder, claims, None, similarity=values, target=target)


def smaller_pool(folder):
    """Claim 200 candidates, and write 50."""
    arrays = simulate_predictions(11, count=50)
    write_result(
        folder,
        {"top1": score_top_k(compute_similarity(arrays)), "pool": 200},
        IDS[:50],
        **arrays,
    )


PLANTED_ERRORS = {
    lenient_ties: ("ties", True),
    hungarian: ("test signals together", True),
    hungarian_in_the_file: ("test signals together", False),
    sinkhorn: ("test signals together", True),
    sinkhorn_in_the_file: ("test signals together", False),
    best_test_epoch: ("epoch", True),
    trained_on_tested: ("training pictures", True),
    copies_under_other_names: ("copies of training pictures", True),
    collapsed: ("collapse and hubs", True),
    trials_as_independent: ("interval and units", True),
    smaller_pool: ("claimed numbers", False),
}
"""Check that must find each error, and True if the check tells its size."""


# honest results


def random_result(folder):
    """Write predictions without any signal."""
    arrays = simulate_predictions(20, noise=1e6)
    write_result(
        folder,
        {"top1": score_top_k(compute_similarity(arrays)), "ci": [0, 5.4]},
        **arrays,
    )


def few_signals(folder):
    """Write a result of four signals."""
    arrays = simulate_predictions(21, count=4)
    write_result(
        folder,
        {"top1": score_top_k(compute_similarity(arrays)) / 100},
        IDS[:4],
        **arrays,
    )


def many_ties(folder):
    """Write similarities rounded to a single decimal, which have many ties."""
    values = np.round(compute_similarity(simulate_predictions(22)), 1).astype(
        np.float16
    )
    write_result(
        folder,
        {"top1": score_top_k(values), "top5": score_top_k(values, 5)},
        similarity=values,
    )


def half_precision(folder):
    """Write arrays in float16, whose vectors have a large common part."""
    arrays = simulate_predictions(23)
    arrays["pred"] = 0.02 * arrays["pred"] + 0.1 * simulate_predictions(24)["pred"][:1]
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    values = compute_similarity(arrays)
    write_result(
        folder, {"top1": score_top_k(values), "top5": score_top_k(values, 5)}, **halves
    )


def one_category(folder):
    """Write pictures of a single category, whose ids look alike."""
    arrays = simulate_predictions(25, count=30)
    arrays = {name: array + 5 for name, array in arrays.items()}
    ids = [f"cat/cat_{n:02d}" for n in range(30)]
    write_result(
        folder, {"top1": score_top_k(compute_similarity(arrays))}, ids, **arrays
    )
    (folder / "train.txt").write_text("\n".join(f"cat/cat_{n}" for n in range(30, 90)))


def one_picture_for_all(folder):
    """Write signals that all showed the same picture."""
    arrays = simulate_predictions(26)
    arrays["pred"] = arrays["gallery"][7] + 0.1 * arrays["pred"]
    claim = score_top_k(compute_similarity(arrays), 1, np.full(N, 7))
    write_result(
        folder, {"accuracy": claim / 100}, None, labels=np.full(N, 7), **arrays
    )


def perfect(folder):
    """Write similarities whose right candidates all rank first."""
    write_result(folder, {"top1": 100.0, "top5": 100.0}, similarity=np.eye(N))


def trials_with_rows_as_labels(folder):
    """Write repetitions of pictures, which are named by row numbers."""
    random = np.random.default_rng(27)
    target = random.permutation(np.arange(50).repeat(4))
    gallery = random.normal(size=(50, D))
    values = (
        scale_to_unit(gallery[target] + 2 * random.normal(size=(200, D)))
        @ scale_to_unit(gallery).T
    )
    write_result(
        folder,
        {"top1": score_top_k(values, 1, target)},
        None,
        logits=values,
        labels=target,
    )
    (folder / "train_labels.txt").write_text("\n".join(map(str, range(1654))))


def last_epoch(folder):
    """Write a log, and claim the score of its last epoch."""
    claim = score_top_k(compute_similarity(simulate_predictions(28)))
    log = {"val_loss": [3, 2, 2.1, 1.9], "test_acc": [0.1, 0.9, 0.3, claim / 100]}
    write_result(folder, {"top1": round(claim, 1)}, **simulate_predictions(28))
    (folder / "history.json").write_text(json.dumps(log))
    (folder / "train_ids.txt").write_text("\n".join(TRAIN_IDS))


def subsets_of_30(folder):
    """Claim the mean score over random subsets of 30 candidates."""
    values, random = (
        compute_similarity(simulate_predictions(29)),
        np.random.default_rng(29),
    )
    draws = (random.permutation(N)[:30] for _ in range(30))
    claim = np.mean([score_top_k(values[rows][:, rows]) for rows in draws])
    write_result(folder, {"top1": float(claim), "n_way": 30}, similarity=values)


HONEST_RESULTS = (
    random_result,
    few_signals,
    many_ties,
    half_precision,
    one_category,
    one_picture_for_all,
    perfect,
    trials_with_rows_as_labels,
    last_epoch,
    subsets_of_30,
)


def test_each_planted_cheat_is_found_by_its_check_alone(tmp_path):
    for plant, (check, has_size) in PLANTED_ERRORS.items():
        plant(tmp_path / plant.__name__)
        points_of = audit_findings(tmp_path / plant.__name__)
        assert list(points_of) == [check], plant.__name__
        points = points_of[check]
        assert (points is not None) == has_size, plant.__name__
        assert points is None or points > 0.5, plant.__name__


def test_honest_results_have_no_finding(tmp_path):
    for make in HONEST_RESULTS:
        make(tmp_path / make.__name__)
        assert audit_findings(tmp_path / make.__name__) == {}, make.__name__


@pytest.mark.nightly
def test_of_200_honest_folders_hardly_any_has_a_finding():
    n_flagged = 0
    for seed in range(200):
        # small and large pools, from chance to nearly perfect, with and without ties
        random = np.random.default_rng(seed + 1000)
        count = int(random.integers(4, 60))
        arrays = simulate_predictions(
            seed, random.exponential(2), count, int(random.integers(3, 40))
        )
        values = compute_similarity(arrays).round(int(random.integers(1, 9)))
        claims = {f"top{k}": round(score_top_k(values, k), 2) for k in (1, 5)}
        scores = np.append(random.uniform(0, 100, 20), claims["top1"])
        names = [str(name) for name in random.permutation(1000)]
        result = ForeignResult(
            torch.from_numpy(values),
            torch.arange(count)[:, None],
            names[:count],
            train_ids=names[count:],
            gallery=torch.from_numpy(arrays["gallery"]),
            train_embeddings=torch.from_numpy(
                random.normal(size=(300, arrays["gallery"].shape[1]))
            ),
            log={"test_top1": scores},
            claims=claims,
        )
        n_flagged += any(state == FINDING for _, state, _, _ in audit(result))
    assert n_flagged <= 2


def audit_states(folder):
    """Audit a folder, and return the state and the evidence of each check."""
    rows = audit(open_result(folder))
    return {check: (state, evidence) for check, state, _, evidence in rows}


def draw_scores(random, score):
    """Draw the scores [40] of epochs, which rise to a plateau in steps of 1 / 200."""
    noise = np.zeros(40)
    for epoch in range(1, 40):
        noise[epoch] = 0.7 * noise[epoch - 1] + random.normal(0, 0.007)
    rise = score * (1 - np.exp(-np.arange(40) / 6))
    return np.round(200 * (rise + noise).clip(0, 1)) / 200


@pytest.mark.nightly
@pytest.mark.parametrize("is_percent", [True, False])
@pytest.mark.parametrize("selection", ["last", "validation"])
def test_rounded_claims_of_an_honest_epoch_are_no_finding(selection, is_percent):
    """A rounded claim may equal the best epoch by chance."""
    random = np.random.default_rng(11)
    n_findings = 0
    for _ in range(300):
        test, validation = draw_scores(random, 0.4), draw_scores(random, 0.5)
        log = {"test_top1": test}
        if selection == "validation":
            log["val_top1"] = validation
        score = test[-1] if selection == "last" else test[validation.argmax()]
        claim = round(100 * score) if is_percent else 100 * round(score, 2)
        result = ForeignResult(
            torch.eye(2),
            torch.tensor([[0], [1]]),
            "ab",
            log=log,
            claims={"top1": claim},
        )
        judge = CHECKS["epoch"][0]
        n_findings += bool(judge(result)[0])
    assert n_findings <= 3


def test_a_mean_of_the_last_epochs_is_honest():
    """In whole percents, the mean may equal the best test epoch."""
    log = {"test_top1": np.array([0.1, 0.412, 0.41, 0.408]), "val_top1": np.arange(4)}
    result = ForeignResult(
        torch.eye(2), torch.tensor([[0], [1]]), "ab", log=log, claims={"top1": 41.0}
    )
    assert CHECKS["epoch"][0](result)[0] is False


def write_subjects(folder, claim, names, has_validation):
    """Write the log of three subjects.

    Args:
        folder: New folder.
        claim: Epoch whose mean score is claimed, `last` or `best`.
        names: Form of the log, such as `files` for a file per subject.
        has_validation: If True, the log has a validation score.
    """
    tests = [[10, 40, 30, 31], [10, 22, 58.5, 51], [61, 40, 41, 47.25]]
    validation = [1, 2, 3, 4]
    write_result(
        folder,
        {"top1": np.mean([EPOCHS[claim](test) for test in tests])},
        **simulate_predictions(12),
    )
    rows = list[tuple[float, ...]]()
    for subject, test in enumerate(tests):
        for epoch in range(4):
            rows.append((subject, epoch, test[epoch], validation[epoch]))
    columns = ["subject", "epoch", "test_acc", "val_acc"]
    if names == "interleaved":
        rows.sort(key=lambda row: row[1])
    lines = [",".join(map(str, row[: 3 + has_validation])) for row in rows]
    heads = list(columns[: 3 + has_validation])
    if names != "by subject":
        heads[0] = "gpu"
    if names == "files":
        for subject in range(3):
            subject_lines = lines[4 * subject : 4 * subject + 4]
            fields = [heads] + [line.split(",") for line in subject_lines]
            text = "\n".join(",".join(row[1:]) for row in fields)
            (folder / f"sub-{subject}_log.csv").write_text(text)
    else:
        (folder / "log.csv").write_text("\n".join([",".join(heads)] + list(lines)))
    return folder


EPOCHS = {
    "last": lambda test: test[-1],
    "best": max,
}


@pytest.mark.parametrize(
    ("claim", "names", "has_validation", "state"),
    [
        ("last", "by subject", True, "none"),
        ("last", "restarting epochs", True, "none"),
        ("last", "files", True, "none"),
        ("best", "by subject", True, FINDING),
        ("best", "restarting epochs", True, FINDING),
        ("best", "files", True, FINDING),
        ("best", "by subject", False, UNDECIDED),
        ("best", "interleaved", True, UNDECIDED),
    ],
)
def test_logs_of_several_subjects_are_compared_by_their_means(
    claim, names, has_validation, state, tmp_path
):
    """The rows of all subjects must not be read as epochs of a single training."""
    folder = write_subjects(tmp_path / "own", claim, names, has_validation)
    assert audit_states(folder)["epoch"][0] == state


def simulate_repetitions(seed):
    """Simulate four predictions of each of 50 pictures, with vectors of any length.

    Returns:
        The arrays, and the index [200] of the picture of each prediction.
    """
    arrays = simulate_predictions(seed, count=50)
    label = np.arange(50).repeat(4)
    random = np.random.default_rng(seed)
    noise = 4 * random.normal(size=(200, D))
    length = np.exp(random.normal(size=(200, 1)))
    return {**arrays, "pred": length * (arrays["gallery"][label] + noise)}, label


def in_correlations(folder):
    """Claim the score of Pearson correlations."""
    arrays = simulate_predictions(31)
    arrays["pred"] += 4 * np.random.default_rng(31).normal(size=(N, 1))
    centred = {
        name: array - array.mean(1, keepdims=True) for name, array in arrays.items()
    }
    write_result(folder, {"top1": score_top_k(compute_similarity(centred))}, **arrays)
    return PEARSON


def in_mean_predictions(folder):
    """Claim the score of predictions averaged over repetitions."""
    arrays, label = simulate_repetitions(32)
    means = arrays["pred"].reshape(50, 4, D).mean(1)
    claim = score_top_k(scale_to_unit(means) @ scale_to_unit(arrays["gallery"]).T)
    write_result(folder, {"top1": claim}, None, labels=label, **arrays)
    return MEAN_PREDICTION


def in_labels_from_1(folder):
    """Write labels that count pictures from 1."""
    arrays, label = (
        simulate_predictions(33, noise=1),
        np.random.default_rng(33).permutation(N),
    )
    claim = score_top_k(compute_similarity(arrays))
    arrays["gallery"][label] = arrays["gallery"].copy()
    # no signal shows the last picture, so labels could also count from 0
    arrays["pred"] = arrays["pred"][label != N - 1]
    label = label[label != N - 1]
    claim = score_top_k(compute_similarity(arrays), 1, label)
    write_result(folder, {"top1": claim}, None, labels=label + 1, **arrays)
    return "labels that count from 1"


def in_order(folder):
    """Write labels, and a gallery that already has the order of the signals."""
    label = np.random.default_rng(34).permutation(N)
    write_result(
        folder,
        {"top1": score_top_k(compute_similarity(simulate_predictions(34)))},
        None,
        labels=label,
        **simulate_predictions(34),
    )
    return "candidates in the order of signals"


def in_distances(folder):
    """Write distances instead of similarities."""
    arrays = simulate_predictions(35, noise=1)
    distances = np.linalg.norm(arrays["pred"][:, None] - arrays["gallery"], axis=-1)
    write_result(folder, {"top1": score_top_k(-distances)}, similarity=distances)
    return DISTANCE


def in_distances_of_vectors(folder):
    """Claim the score of Euclidean distances."""
    arrays = simulate_predictions(35, noise=1)
    arrays["gallery"] += np.random.default_rng(35).normal(size=D)
    distances = np.linalg.norm(arrays["pred"][:, None] - arrays["gallery"], axis=-1)
    arrays["pred"] += 3 * (arrays["gallery"][0] - arrays["gallery"].mean(0))
    distances = np.linalg.norm(arrays["pred"][:, None] - arrays["gallery"], axis=-1)
    write_result(
        folder,
        {"top1": score_top_k(-distances), "top5": score_top_k(-distances, 5)},
        **arrays,
    )
    return EUCLIDEAN


def in_the_other_direction(folder):
    """Claim the score of signals ranked for each picture."""
    arrays = simulate_predictions(36)
    arrays["pred"] += arrays["gallery"][7]
    claims = {f"top{k}": score_top_k(compute_similarity(arrays).T, k) for k in (1, 5)}
    write_result(folder, claims, **arrays)
    return DIRECTIONS[1]


def in_rows_of_candidates(folder):
    """Write a square matrix with a row for each candidate."""
    label = np.random.default_rng(37).permutation(N)
    arrays = simulate_predictions(37)
    values = scale_to_unit(arrays["pred"][label]) @ scale_to_unit(arrays["gallery"]).T
    write_result(
        folder,
        {"top1": score_top_k(values, 1, label)},
        None,
        sim=values.T,
        labels=label,
    )
    return LAYOUTS[1]


def in_a_turned_matrix(folder):
    """Write a matrix of 200 signals and 50 candidates, transposed."""
    arrays, label = simulate_repetitions(49)
    values = compute_similarity(arrays)
    write_result(
        folder,
        {"top1": score_top_k(values, 1, label)},
        None,
        sim=values.T,
        labels=label,
    )
    return "50 candidates claimed"


def with_a_missing_candidate(folder):
    """Write a gallery in which an embedding is missing."""
    arrays = simulate_predictions(50, noise=1)
    arrays["gallery"][7] = np.nan
    values = np.nan_to_num(compute_similarity(arrays), nan=-1.0)
    write_result(folder, {"top1": score_top_k(values)}, **arrays)
    return "100 candidates claimed"


def without_lost_signals(folder):
    """Claim the score without 20 signals whose predictions are missing."""
    arrays = simulate_predictions(38, noise=1)
    arrays["pred"][:20] = np.nan
    values = compute_similarity(arrays)[20:]
    write_result(folder, {"top1": score_top_k(values, 1, np.arange(20, N))}, **arrays)
    return WITHOUT_MISSING


def mean_over_seeds(folder):
    """Write similarities of five seeds, and claim their mean score."""
    matrices = {
        f"sim_seed{n}": compute_similarity(simulate_predictions(39 + n))
        for n in range(5)
    }
    claim = np.mean([score_top_k(values) for values in matrices.values()])
    write_result(folder, {"top1": float(claim)}, **matrices)
    return "5 trainings in the files"


CONVENTIONS = (
    in_correlations,
    in_mean_predictions,
    in_labels_from_1,
    in_order,
    in_distances,
    in_distances_of_vectors,
    in_the_other_direction,
    in_rows_of_candidates,
    in_a_turned_matrix,
    with_a_missing_candidate,
    without_lost_signals,
    mean_over_seeds,
)


@pytest.mark.parametrize("make", CONVENTIONS)
def test_a_claim_by_a_usual_convention_is_read_by_it(make, tmp_path):
    """A claim that follows from a usual convention is no finding."""
    reading = make(tmp_path / "own")
    checks = audit_states(tmp_path / "own")
    assert FINDING not in [state for state, _ in checks.values()]
    assert checks["claimed numbers"][0] == "none"
    assert reading in checks["claimed numbers"][1]


def test_two_galleries_are_not_taken_for_seeds(tmp_path):
    """Predictions and similarities may be of several trainings, but not a gallery."""
    arrays = simulate_predictions(51)
    galleries = {"gallery1": arrays["gallery"], "gallery2": arrays["gallery"] + 1}
    write_result(tmp_path / "own", {"top1": 1.0}, pred=arrays["pred"], **galleries)
    with pytest.raises(MissingData) as caught:
        open_result(tmp_path / "own")
    assert "gallery2" in str(caught.value)


def lacking_seeds(folder):
    """Claim the mean score of five seeds, and write a single seed."""
    values = [compute_similarity(simulate_predictions(seed)) for seed in range(50, 55)]
    claim = float(np.mean([score_top_k(value) for value in values]))
    lowest = min(values, key=score_top_k)
    assert claim > score_top_k(lowest) + 1
    write_result(folder, {"top1": claim}, similarity=lowest)
    return "trainings"


def lacking_seeds_of_distances(folder):
    """Claim the mean score of five seeds, and write distances of one."""
    values = [compute_similarity(simulate_predictions(seed)) for seed in range(50, 55)]
    claim = float(np.mean([score_top_k(value) for value in values]))
    write_result(folder, {"top1": claim}, similarity=1 - min(values, key=score_top_k))
    return DISTANCE


def lacking_stated_seeds(folder):
    """Claim the mean score of five seeds and their number, and write one."""
    values = compute_similarity(simulate_predictions(41))
    write_result(
        folder, {"top1": score_top_k(values) + 25.2, "n_seeds": 5}, similarity=values
    )
    return "several trainings"


def lacking_the_reported_epoch(folder):
    """Claim a score that the log has for another epoch."""
    values = compute_similarity(simulate_predictions(42))
    claim = score_top_k(values) + 30
    write_result(folder, {"top1": claim}, similarity=values)
    log = f"val_top1,test_top1\n1,{claim - 9}\n3,{claim}\n2,{score_top_k(values)}"
    (folder / "log.csv").write_text(log)
    return "epoch"


def lacking_predictions_of_repetitions(folder):
    """Claim the score of averaged predictions, and write similarities."""
    arrays, label = simulate_repetitions(43)
    values = compute_similarity(arrays)
    claim = score_top_k(values, 1, label) + 60
    write_result(folder, {"top1": claim}, None, similarity=values, labels=label)
    return "averaged"


def one_of_the_seeds(folder):
    """Write similarities of four seeds, and claim the best score."""
    noises = enumerate([2, 3, 3, 1])
    matrices = {
        f"sim_seed{n}": compute_similarity(simulate_predictions(60 + n, noise))
        for n, noise in noises
    }
    claim = score_top_k(matrices["sim_seed3"])
    assert claim > np.mean([score_top_k(values) for values in matrices.values()]) + 20
    write_result(folder, {"top1": claim}, **matrices)
    return "another training"


@pytest.mark.parametrize(
    "make",
    [
        one_of_the_seeds,
        lacking_seeds,
        lacking_seeds_of_distances,
        lacking_stated_seeds,
        lacking_the_reported_epoch,
        lacking_predictions_of_repetitions,
    ],
)
def test_a_claim_of_files_that_are_not_there_is_not_decidable(make, tmp_path):
    """A mean over seeds cannot be checked with the files of a single seed."""
    fact = make(tmp_path / "own")
    checks = audit_states(tmp_path / "own")
    assert FINDING not in [state for state, _ in checks.values()]
    assert checks["claimed numbers"][0] == UNDECIDED
    assert fact in checks["claimed numbers"][1]


def test_a_claim_that_no_convention_reaches_is_a_finding(tmp_path):
    """Readings of the files must not explain every claim."""
    claim = score_top_k(compute_similarity(simulate_predictions(44)), 5) + 3
    write_result(tmp_path / "own", {"top1": claim}, **simulate_predictions(44))
    points_of = audit_findings(tmp_path / "own")
    assert points_of == {
        "claimed numbers": claim
        - score_top_k(compute_similarity(simulate_predictions(44)))
    }


def simulate_ridge(seed):
    """Simulate embeddings with a common mean and their prediction by a ridge.

    Returns:
        Embeddings [100, D] of new pictures, and their predictions [100, D].
    """
    random = np.random.default_rng(seed)
    mean = 1.5 * random.normal(size=D)
    pictures = random.normal(size=(900, D)) * random.uniform(0.3, 2, D)
    signals = pictures @ random.normal(size=(D, 40)) / 8
    signals += 1.5 * random.normal(size=signals.shape)
    train_signals, test_signals = signals[:800], signals[800:]
    inverse = np.linalg.inv(train_signals.T @ train_signals + 50 * np.eye(40))
    ridge = inverse @ train_signals.T @ pictures[:800]
    return pictures[800:] + mean, test_signals @ ridge + mean


@pytest.mark.parametrize("step", ["standardised", "centred", "as the gallery", "raw"])
def test_predictions_standardised_over_the_test_set_are_found(step, tmp_path):
    """Statistics of the test signals raise the accuracy by several points."""
    gallery, raw = simulate_ridge(45)
    centred = raw - raw.mean(0)
    predicted = {
        "standardised": centred / centred.std(0),
        "centred": centred,
        "as the gallery": centred / centred.std(0) * gallery.std(0) + gallery.mean(0),
        "raw": raw,
    }[step]
    arrays = {"pred": predicted, "gallery": gallery}
    write_result(
        tmp_path / "own", {"top1": score_top_k(compute_similarity(arrays))}, **arrays
    )
    points_of = audit_findings(tmp_path / "own")
    if step == "raw":
        assert points_of == {}
        return
    assert list(points_of) == ["standardised by test signals"]
    points = points_of["standardised by test signals"]
    top1_before = score_top_k(compute_similarity({"pred": raw, "gallery": gallery}))
    gain = score_top_k(compute_similarity(arrays)) - top1_before
    assert gain > 5
    assert points is not None
    assert abs(points - gain) < 8


def test_a_claim_of_standardised_predictions_has_its_worth(tmp_path):
    """The files have the predictions without the step, so the size is exact."""
    gallery, raw = simulate_ridge(46)
    arrays = {"pred": raw, "gallery": gallery}
    centred = raw - raw.mean(0)
    standardised = {"pred": centred / centred.std(0), "gallery": gallery}
    claims = {
        f"top{k}": score_top_k(compute_similarity(standardised), k) for k in (1, 5)
    }
    write_result(tmp_path / "own", claims, **arrays)
    gain = claims["top1"] - score_top_k(compute_similarity(arrays))
    assert audit_findings(tmp_path / "own") == {"standardised by test signals": gain}


@pytest.mark.parametrize("mask", [-1e9, -65504.0, -np.inf, np.inf, np.nan])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_masked_pairs_are_missing_and_no_finding(mask, precision, tmp_path):
    """A mask such as -1e9 must not count as a similarity in sums and means."""
    values = compute_similarity(simulate_predictions(47)).astype(precision)
    claims = {f"top{k}": score_top_k(values, k) for k in (1, 5)}
    values[3, 50] = values[60, 2] = mask
    write_result(tmp_path / "own", claims, similarity=values)
    checks = audit_states(tmp_path / "own")
    assert FINDING not in [state for state, _ in checks.values()]
    assert f"{claims['top1'] / 100:.3f}" in checks["ties"][1]
    assert re.search(r"\b2 similarities", checks["ties"][1])


def test_a_masked_pair_hides_no_balance(tmp_path):
    """Similarities that were balanced over all test signals keep their equal sums."""
    values = torch.from_numpy(compute_similarity(simulate_predictions(4)))
    balanced = Sinkhorn().correct(values, values, values).numpy()
    claim = score_top_k(balanced)
    balanced[3, 50] = -1e9
    write_result(tmp_path / "own", {"top1": claim}, similarity=balanced)
    assert list(audit_findings(tmp_path / "own")) == ["test signals together"]


def test_a_signal_without_any_similarity_is_a_miss(tmp_path):
    """A missing value is similar to no candidate."""
    arrays = simulate_predictions(48, noise=0.5)
    arrays["pred"][:30] = np.nan
    write_result(tmp_path / "own", {"top1": 70.0}, **arrays)
    checks = audit_states(tmp_path / "own")
    assert FINDING not in [state for state, _ in checks.values()]
    assert "0.700" in checks["ties"][1]
    assert re.search(r"\b3000 similarities", checks["ties"][1])


def brainhive(*arguments):
    """Run `brainhive audit` in this process."""
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["audit"] + list(arguments))


def test_our_own_run_passes_and_a_cheat_has_its_own_exit_code(
    world, trained_run, evaluation_result, tmp_path
):
    # predictions and gallery of a subject, with the numbers of eval-retrieval
    finished_trained_run = api.open_run(str(trained_run))
    cell = finished_trained_run.cells[0]
    subject = cell.tested_on[0]
    predicted = finished_trained_run.predictions(subject, "test", cell.name)
    ids = list(predicted.image_ids)
    tests = finished_trained_run.open_test_set(cell.name)
    member = finished_trained_run.member(cell.name)
    targets = open_targets(tests, member, "test")
    gallery = member.encode_pictures(targets, np.arange(len(ids)))
    train_embeddings = TargetStore.open(next(world.glob("embeddings/*/train/*.h5")))
    top1 = evaluation_result.metrics.scopes[f"{cell.name} · sub-01"]["top1"]
    own_result = write_result(
        tmp_path / "own",
        {"top1": top1.value, "ci": [top1.low, top1.high], "pool": top1.pool},
        ids,
        predicted=predicted.heads["token"],
        gallery=gallery,
    )
    (own_result / "train_ids.txt").write_text("\n".join(train_embeddings.image_ids))

    passed = brainhive(str(own_result), "--json")
    assert passed.exit_code == 0, passed.output
    rows = json.loads(passed.stdout)["details"]["audit"]
    assert FINDING not in [row["state"] for row in rows]
    (claim,) = (row for row in rows if row["check"] == "claimed numbers")
    assert f"{100 * top1.value:.1f}" in claim["evidence"]

    # arrays with unclear names need a file audit.yaml
    hungarian(tmp_path / "cheat")
    names = torch.load(tmp_path / "cheat/f.pt")
    torch.save(
        {"a": names["eeg_features"], "b": names["img_features"]},
        tmp_path / "cheat/f.pt",
    )
    unknown = brainhive(str(tmp_path / "cheat"))
    assert unknown.exit_code == 3
    assert "f.pt:a, f.pt:b" in unknown.stderr
    (tmp_path / "cheat/audit.yaml").write_text("predict: f.pt:a\n")
    refused = brainhive(str(tmp_path / "cheat"))
    assert refused.exit_code == 2
    assert "'predict'" in refused.stderr
    (tmp_path / "cheat/audit.yaml").write_text("predicted: f.pt:a\ngallery: f.pt:b\n")
    caught = brainhive(str(tmp_path / "cheat"), "--json")
    document = json.loads(caught.stdout)
    rows = {row["check"]: row for row in document["details"]["audit"]}
    assert caught.exit_code == FINDINGS_EXIT_CODE == 6
    assert rows["test signals together"]["points"] == pytest.approx(3)
    assert rows["claimed numbers"]["state"] == "none"
    assert rows["training pictures"]["state"] == "not decidable"
    assert "training" in rows["training pictures"]["evidence"]
