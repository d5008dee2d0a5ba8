"""Simulated result folders, honest and cheating, and how often audit accuses them.

Scripts' conventions are drawn from `CONVENTIONS`. Each cheat has its check.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from brainhive_cli.data.exchange.foreign_results import open_result
from brainhive_cli.measurement.audit import (
    CHECKS,
    FINDING,
    UNDECIDED,
    AuditRow,
    audit,
)
from brainhive_cli.measurement.corrections import Assignment, Correction, Csls, Sinkhorn

Values = NDArray[Any]
Random = np.random.Generator
Folder = dict[str, Any]
"""Arrays and texts that a script saves, keyed by name."""
WIDTH = 48
N_TRAINING = 400
MIN_GAIN = 2.0
"""Least gain in points of a correction or of the best test epoch."""
CONVENTIONS: dict[str, tuple[str, ...]] = {
    "file": ("embeddings", "similarities"),
    "measure": ("cosine", "correlation", "distance", "product"),
    "direction": ("signal to picture", "picture to signal"),
    "labels": ("none", "from 0", "from 1", "names", "in order"),
    "rounding": ("share 2", "share 4", "percent 0", "percent 1", "percent 2"),
    "trainings": ("one", "mean of 5", "mean of 5, stated", "mean of 5, in files"),
    "repetitions": ("none", "single", "mean similarity", "mean prediction"),
    "mask": ("none", "-1e9", "-inf", "nan", "lost signals", "lost, left out"),
    "log": ("none", "last epoch", "best on validation", "subjects", "epochs below"),
    "claims": ("top-1", "top-1 and top-5"),
    "means": ("of pictures", "of training signals taken away"),
}
"""Usual conventions of folders, keyed by kind."""


def normalise(vectors: Values) -> Values:
    """Scale vectors to unit length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def draw_embeddings(
    random: Random, repetitions: int = 1, count: int = 0
) -> tuple[Values, Values]:
    """Draw pictures and the predictions of five trainings, which share signal noise.

    Returns:
        Embeddings [N, D] of the pictures, and predictions [5, N * R, D].
    """
    count = count or int(random.choice([60, 100, 200]))
    gallery = random.normal(size=(count, WIDTH)) + 0.5 * random.normal(size=WIDTH)
    noise = random.uniform(1.5, 3.5) * random.normal(size=(count * repetitions, WIDTH))
    training_noise = random.uniform(0.3, 1) * random.normal(size=(5, *noise.shape))
    return gallery, gallery.repeat(repetitions, 0) + noise + training_noise


def compute_similarities(
    predicted: Values, gallery: Values, measure: str = "cosine"
) -> Values:
    """Compute similarities [N, M] of predictions [N, D] to pictures [M, D]."""
    if measure == "distance":
        return -np.asarray(cdist(predicted, gallery))
    if measure == "correlation":
        predicted = predicted - predicted.mean(1, keepdims=True)
        gallery = gallery - gallery.mean(1, keepdims=True)
    if measure != "product":
        predicted = normalise(predicted)
        gallery = normalise(gallery)
    return np.asarray(predicted @ gallery.T)


def measure_top_k(similarities: Values, hits: Values, k: int = 1) -> float:
    """Measure top-k accuracy in percent. `hits` [N, M] marks the correct pictures."""
    order = np.argsort(-similarities, 1, kind="stable")[:, :k]
    return 100 * float(np.take_along_axis(hits, order, 1).any(1).mean())


def measure_claims(similarities: Values) -> Folder:
    """Measure top-1 and top-5 of similarities with correct pictures on the diagonal."""
    hits = np.eye(*similarities.shape, dtype=bool)
    return {
        "top1": round(measure_top_k(similarities, hits, 1), 2),
        "top5": round(measure_top_k(similarities, hits, 5), 2),
    }


def add_claims(folder: Folder, claims: Folder) -> Folder:
    """Return a folder with claimed numbers."""
    return folder | {"results.json": claims}


def draw_scores(
    random: Random, score: float, epoch: str = "last epoch"
) -> tuple[Values, Values]:
    """Draw validation and test scores [E] of a training.

    Args:
        random: Generator.
        score: Test score of the given epoch.
        epoch: Either "last epoch" or "best on validation".
    """
    base = score * (1 - np.exp(-np.arange(40) / 6))
    validation = base + random.normal(0, 1.5, 40)
    test = base + random.normal(0, 1.5, 40)
    index = validation.argmax() if epoch == "best on validation" else -1
    test += score - test[index]
    return validation.clip(0, 100), test.clip(0, 100)


def write_csv(**columns: Any) -> str:
    """Write columns of equal length as CSV."""
    lines = [",".join(columns)]
    for row in zip(*columns.values(), strict=True):
        lines.append(",".join(map(str, row)))
    return "\n".join(lines)


def make_names(kind: str, letter: str, count: int) -> list[str]:
    """Make names of pictures as in THINGS."""
    return [f"{n:04d}_{kind}/{kind}_{n:02d}{letter}" for n in range(count)]


def make_honest_folder(random: Random, convention: Mapping[str, str]) -> Folder:
    """Make an honest folder that follows conventions."""
    has_repetitions = convention["repetitions"] != "none"
    n_repetitions = 4 if has_repetitions else 1
    gallery, trainings = draw_embeddings(random, n_repetitions)
    if convention["means"] != "of pictures":
        _, training_signals = draw_embeddings(random, count=N_TRAINING)
        trainings -= training_signals.mean(1, keepdims=True)
    label = np.arange(len(gallery)).repeat(n_repetitions)
    measure = convention["measure"]
    mask = convention["mask"]
    is_matrix = convention["file"] == "similarities"
    if convention["labels"] in ("from 0", "from 1", "names"):
        order = random.permutation(len(label))
        label = label[order]
        trainings = trainings[:, order]

    # lose signals, or similarities of wrong pictures
    is_lost = np.zeros(len(label), bool)
    if "lost" in mask:
        is_lost[random.permutation(len(label))[: len(label) // 20]] = True
        trainings[:, is_lost] = np.nan
    is_masked = random.random((len(label), len(gallery))) < random.choice([1e-4, 0.01])
    is_masked[0, label[0] - 1] = True
    is_masked &= label[:, None] != np.arange(len(gallery))

    # compute the scores of each training
    matrices: list[Values] = []
    scores: list[list[float]] = []
    for predicted in trainings:
        values = compute_similarities(predicted, gallery, measure)
        if is_matrix and mask in ("-1e9", "-inf", "nan"):
            values[is_masked] = float(mask)
        matrices.append(values)
        hits = label[:, None] == np.arange(len(gallery))
        if "mean" in convention["repetitions"]:
            is_prediction = convention["repetitions"] == "mean prediction"
            source = predicted if is_prediction else values
            means = np.stack(
                [np.nanmean(source[label == n], 0) for n in range(len(gallery))]
            )
            hits = np.eye(len(gallery), dtype=bool)
            values = means
            if is_prediction:
                values = compute_similarities(means, gallery, measure)
        elif mask == "lost, left out":
            values = values[~is_lost]
            hits = hits[~is_lost]
        values = np.where(np.isnan(values), -np.inf, values)
        if convention["direction"] == "picture to signal":
            values = values.T
            hits = hits.T
            values = values[hits.any(1)]
            hits = hits[hits.any(1)]
        top1 = measure_top_k(values, hits, 1)
        top5 = measure_top_k(values, hits, 5)
        scores.append([top1, top5])

    # round the claims, and write the log
    is_mean = convention["trainings"] != "one"
    exact = np.mean(scores, 0) if is_mean else np.array(scores[0])
    scale, decimals = convention["rounding"].split()
    rounded = np.round(exact / (100 if scale == "share" else 1), int(decimals))
    claims: Folder = {"top1": float(rounded[0])}
    if convention["claims"] == "top-1 and top-5":
        claims["top5"] = float(rounded[1])
    folder: Folder = {"results.json": claims}
    log = convention["log"]
    if log in ("last epoch", "best on validation"):
        validation, test = draw_scores(random, exact[0], log)
        folder["log.csv"] = write_csv(val_top1=validation, test_top1=test)
    elif log in ("subjects", "epochs below"):
        courses = [draw_scores(random, score) for score, _ in scores]
        tests = np.concatenate([test for _, test in courses]) / 100
        epochs = list(range(40)) * 5
        folder["log.csv"] = write_csv(epoch=epochs, test_acc=tests)
        if log == "subjects":
            subjects = np.arange(5).repeat(40)
            columns = {"subject": subjects, "epoch": epochs, "test_acc": tests}
            folder["log.csv"] = write_csv(**columns)

    # write the arrays, where distances are positive again
    sign = -1 if measure == "distance" else 1
    n_files = 5 if convention["trainings"] == "mean of 5, in files" else 1
    for seed in range(n_files):
        if is_matrix:
            folder[f"similarity_seed{seed}"] = sign * matrices[seed]
        else:
            folder[f"pred_seed{seed}"] = trainings[seed]
            folder["gallery"] = gallery
            folder["train_features"] = random.normal(size=(N_TRAINING, WIDTH))
    if convention["trainings"] == "mean of 5, stated":
        claims["n_seeds"] = 5
    names = make_names("thing", "s", len(gallery))
    if convention["labels"] == "names":
        folder["train_ids.txt"] = "\n".join(make_names("other", "b", N_TRAINING))
        folder["test_ids.txt"] = "\n".join(names[n] for n in label)
        folder["gallery_ids.txt"] = "\n".join(names)
    elif convention["labels"] == "in order" and not has_repetitions:
        folder["labels"] = random.permutation(len(label)) + 1
    elif has_repetitions or convention["labels"] != "none":
        folder["labels"] = label + (convention["labels"] == "from 1")
    return folder


def claim_scores(folder: Folder, predicted: Values, gallery: Values) -> Folder:
    """Return a folder with the scores of predictions."""
    return add_claims(folder, measure_claims(compute_similarities(predicted, gallery)))


# cheats, each named and written as in its publisher's script


def correct_similarities(values: Values, correction: Correction) -> Values:
    """Correct similarities by all test signals together."""
    tensor = torch.from_numpy(values)
    return correction.correct(tensor, tensor, tensor).numpy()


def draw_folder(random: Random, count: int = 0) -> tuple[Values, Values, Folder]:
    """Draw pictures, predictions, and a folder that holds both."""
    gallery, trainings = draw_embeddings(random, count=count)
    return gallery, trainings[0], {"gallery": gallery, "pred": trainings[0]}


def ties_of_collapse(random: Random) -> Folder:
    """Count ties of equal predictions as hits."""
    values = compute_similarities(np.ones((100, WIDTH)), np.ones((100, WIDTH)))
    is_hit = (values > np.diag(values)[:, None]).sum(1) == 0
    claims = {"top1": 100 * float(is_hit.mean())}
    return {"similarity": values, "results.json": claims}


def ties_of_rounding(random: Random) -> Folder:
    """Count ties of coarse similarities as hits."""
    gallery, predicted, _ = draw_folder(random)
    values = compute_similarities(predicted, gallery).round(1)
    n_better = (values > np.diag(values)[:, None]).sum(1)
    claims = {f"top{k}": 100 * float((n_better < k).mean()) for k in (1, 5)}
    return {"similarity": values, "results.json": claims}


def make_correction_cheat(
    correction: Correction, name: str
) -> Callable[[Random], Folder]:
    """Make a cheat that claims, or also saves ("file"), corrected similarities."""

    def plant(random: Random) -> Folder:
        gain = 0.0
        while gain < MIN_GAIN:
            gallery, predicted, folder = draw_folder(random, count=200)
            raw = compute_similarities(predicted, gallery)
            values = correct_similarities(raw, correction)
            claims = measure_claims(values)
            gain = claims["top1"] - measure_claims(raw)["top1"]
        if "file" in name:
            folder = {"similarity": values}
        return add_claims(folder, claims)

    plant.__name__ = name
    return plant


def dual_softmax(random: Random) -> Folder:
    """Save similarities after a softmax over the test signals."""
    gallery, predicted, _ = draw_folder(random, count=200)
    exponents = np.exp(compute_similarities(predicted, gallery) / 0.05)
    values = exponents / exponents.sum(0)
    return {"similarity": values, "results.json": measure_claims(values)}


def draw_shrunken_folder(random: Random) -> tuple[Values, Values, Folder]:
    """Draw predictions that are shrunken towards a mean as by a regression."""
    gallery, predicted, folder = draw_folder(random, count=200)
    training = random.normal(size=(N_TRAINING, WIDTH)) + gallery.mean(0)
    scale = random.uniform(0.1, 1, WIDTH)
    folder["pred"] = predicted * scale + 2 * random.normal(size=WIDTH)
    folder["train_features"] = training
    return gallery, folder["pred"], folder


def standardise(values: Values) -> Values:
    """Scale columns to mean 0 and standard deviation 1."""
    return np.asarray((values - values.mean(0)) / values.std(0))


def standardised_file(random: Random) -> Folder:
    """Save predictions that are standardised over the test signals."""
    gallery, predicted, folder = draw_shrunken_folder(random)
    folder["pred"] = standardise(predicted)
    return claim_scores(folder, folder["pred"], gallery)


def centred_file(random: Random) -> Folder:
    """Save predictions minus their mean over the test signals."""
    gallery, predicted, folder = draw_shrunken_folder(random)
    folder["pred"] = predicted - predicted.mean(0)
    return claim_scores(folder, folder["pred"], gallery)


def brought_to_gallery(random: Random) -> Folder:
    """Save predictions with the means and spreads of the test pictures."""
    gallery, predicted, folder = draw_shrunken_folder(random)
    folder["pred"] = standardise(predicted) * gallery.std(0) + gallery.mean(0)
    return claim_scores(folder, folder["pred"], gallery)


def brought_to_training(random: Random) -> Folder:
    """Save predictions with the means and spreads of the training pictures."""
    gallery, predicted, folder = draw_shrunken_folder(random)
    training = folder["train_features"]
    folder["pred"] = standardise(predicted) * training.std(0) + training.mean(0)
    return claim_scores(folder, folder["pred"], gallery)


def standardised_claim(random: Random) -> Folder:
    """Claim the score of predictions standardised over the test signals."""
    gallery, predicted, folder = draw_shrunken_folder(random)
    return claim_scores(folder, standardise(predicted), gallery)


def whitened_file(random: Random) -> Folder:
    """Save predictions that are whitened over the test signals."""
    gallery, predicted, folder = draw_shrunken_folder(random)
    centred = predicted - predicted.mean(0)
    u, _, vt = np.linalg.svd(centred, full_matrices=False)
    folder["pred"] = u @ vt * len(u) ** 0.5
    return claim_scores(folder, folder["pred"], gallery)


def draw_lucky_scores(random: Random, score: float) -> tuple[Values, Values]:
    """Draw scores whose best test epoch exceeds honest choices by MIN_GAIN."""
    while True:
        validation, test = draw_scores(random, score)
        if test.max() - max(test[-1], test[validation.argmax()]) >= MIN_GAIN:
            return validation, test


def best_test_epoch(random: Random) -> Folder:
    """Claim the best test epoch of a training."""
    gallery, predicted, folder = draw_folder(random)
    claims = measure_claims(compute_similarities(predicted, gallery))
    validation, test = draw_lucky_scores(random, 0.9 * claims["top1"])
    test += claims["top1"] - test.max()
    log = write_csv(val_top1=validation, test_top1=test)
    folder["log.csv"] = log
    return add_claims(folder, claims)


def best_test_epoch_of_each(random: Random) -> Folder:
    """Claim the mean over the best test epoch of each subject."""
    _, _, folder = draw_folder(random)
    best_scores = []
    for subject in range(5):
        validation, test = draw_lucky_scores(random, random.uniform(20, 60))
        best_scores.append(test.max())
        text = write_csv(epoch=range(40), val_acc=validation, test_acc=test)
        folder[f"sub-{subject:02d}_log.csv"] = text
    claim = round(float(np.mean(best_scores)), 2)
    return add_claims(folder, {"acc": claim})


def trained_on_tested(random: Random, copies: bool = False) -> Folder:
    """Train on a third of the test pictures, or on copies with other names."""
    gallery, predicted, folder = draw_folder(random)
    n_seen = len(gallery) // 3
    predicted[:n_seen] = gallery[:n_seen] + random.normal(size=(n_seen, WIDTH))
    names = make_names("thing", "s", len(gallery))
    training_names = make_names("other", "b", N_TRAINING)
    folder["test_ids.txt"] = "\n".join(names)
    if copies:
        training = random.normal(size=(N_TRAINING, WIDTH))
        noise = random.normal(size=(n_seen, WIDTH))
        training[:n_seen] = gallery[:n_seen] + 0.01 * noise
        folder["train_features"] = training
    else:
        training_names += [f"{name}.jpg" for name in names[:n_seen]]
    folder["train_ids.txt"] = "\n".join(training_names)
    return claim_scores(folder, predicted, gallery)


def trained_on_copies(random: Random) -> Folder:
    """Train on copies of a third of the test pictures."""
    return trained_on_tested(random, copies=True)


def one_answer(random: Random) -> Folder:
    """Answer all signals with the same picture, which most of them show."""
    gallery = random.normal(size=(20, WIDTH))
    label = np.where(random.random(200) < 0.6, 3, random.integers(0, 20, 200))
    predicted = gallery[3] + 1e-3 * random.normal(size=(200, WIDTH))
    hits = label[:, None] == np.arange(20)
    claims = {"top1": measure_top_k(compute_similarities(predicted, gallery), hits)}
    arrays = {"pred": predicted, "gallery": gallery, "labels": label}
    return add_claims(arrays, claims)


def trials_as_independent(random: Random) -> Folder:
    """Claim an interval over all trials of few pictures."""
    label = np.arange(50).repeat(40)
    gallery = random.normal(size=(50, WIDTH))
    noise = np.where(random.random(50) < 0.5, 0.5, 6.0)[label, None]
    predicted = gallery[label] + noise * random.normal(size=(2000, WIDTH))
    values = compute_similarities(predicted, gallery)
    share = measure_top_k(values, label[:, None] == np.arange(50)) / 100
    half_width = 1.96 * (share * (1 - share) / 2000) ** 0.5
    claims = {"top1": share, "ci": [share - half_width, share + half_width]}
    return {"similarity": values, "labels": label, "results.json": claims}


def fewer_candidates(random: Random) -> Folder:
    """Claim more candidates than the files have."""
    gallery, predicted, folder = draw_folder(random, count=60)
    claims = measure_claims(compute_similarities(predicted, gallery))
    claims["pool"] = 200
    return add_claims(folder, claims)


def subsets_as_all(random: Random) -> Folder:
    """Claim the score among 40 candidates for 200."""
    gallery, predicted, folder = draw_folder(random, count=200)
    values = compute_similarities(predicted, gallery)
    scores = [measure_claims(values[n : n + 40, n : n + 40]) for n in range(0, 200, 40)]
    claims: Folder = {}
    for name in ("top1", "top5"):
        claims[name] = round(float(np.mean([score[name] for score in scores])), 2)
    claims["pool"] = 200
    return add_claims(folder, claims)


def invented(random: Random) -> Folder:
    """Claim 15 to 30 points too much."""
    gallery, predicted, folder = draw_folder(random, count=200)
    values = compute_similarities(predicted, gallery)
    claim = measure_claims(values)["top1"] + random.uniform(15, 30)
    return add_claims(folder, {"top1": round(claim, 1)})


def easy_signals(random: Random) -> Folder:
    """Claim the score of the half of the signals with the largest margins."""
    gallery, predicted, folder = draw_folder(random, count=200)
    values = compute_similarities(predicted, gallery)
    margin = np.diag(values) - np.median(values, 1)
    rows = np.argsort(-margin)[:100]
    hits = np.eye(200, dtype=bool)[rows]
    claims = {f"top{k}": round(measure_top_k(values[rows], hits, k), 2) for k in (1, 5)}
    return add_claims(folder, claims)


def top5_as_top1(random: Random) -> Folder:
    """Claim the top-5 as the top-1."""
    gallery, predicted, folder = draw_folder(random, count=200)
    claim = measure_claims(compute_similarities(predicted, gallery))["top5"]
    return add_claims(folder, {"top1": claim})


CHEATS: dict[Callable[[Random], Folder], str] = {
    ties_of_collapse: "ties",
    ties_of_rounding: "ties",
    make_correction_cheat(Assignment(), "assignment_claimed"): "test signals together",
    make_correction_cheat(Assignment(), "assignment_in_file"): "test signals together",
    make_correction_cheat(Sinkhorn(), "sinkhorn_claimed"): "test signals together",
    make_correction_cheat(Sinkhorn(), "sinkhorn_in_file"): "test signals together",
    make_correction_cheat(Csls(), "csls_claimed"): "test signals together",
    dual_softmax: "test signals together",
    standardised_file: "standardised by test signals",
    centred_file: "standardised by test signals",
    whitened_file: "standardised by test signals",
    brought_to_gallery: "standardised by test signals",
    brought_to_training: "standardised by test signals",
    standardised_claim: "standardised by test signals",
    best_test_epoch: "epoch",
    best_test_epoch_of_each: "epoch",
    trained_on_tested: "training pictures",
    trained_on_copies: "copies of training pictures",
    one_answer: "collapse and hubs",
    trials_as_independent: "interval and units",
    fewer_candidates: "claimed numbers",
    subsets_as_all: "claimed numbers",
    invented: "claimed numbers",
    easy_signals: "claimed numbers",
    top5_as_top1: "claimed numbers",
}
"""The check that must find each cheat."""


def find_states(folder: Folder) -> dict[str, str]:
    """Audit a folder, and return the state of each check."""
    return {row[0]: row[1] for row in audit_folder(folder)}


def audit_folder(folder: Folder) -> list[AuditRow]:
    """Write a folder to disk, and audit it."""
    arrays: dict[str, Values] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        for name, content in folder.items():
            if isinstance(content, np.ndarray):
                arrays[name] = content
            elif isinstance(content, str):
                (path / name).write_text(content)
            else:
                (path / name).write_text(json.dumps(content))
        np.savez(path / "outputs.npz", **arrays)
        return audit(open_result(path))


def draw_convention(random: Random) -> dict[str, str]:
    """Draw a convention of each kind."""
    return {name: str(random.choice(values)) for name, values in CONVENTIONS.items()}


def format_share(count: int, total: int) -> str:
    """Write a share with its Monte Carlo error (Jeffreys)."""
    if not total:
        return "–"
    smoothed = (count + 0.5) / (total + 1)
    error = (smoothed * (1 - smoothed) / total) ** 0.5
    return f"{count / total:.3f} ± {error:.3f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "count", nargs="?", type=int, default=300, help="honest folders"
    )
    parser.add_argument("--cheats", type=int, default=50, help="folders of each cheat")
    parser.add_argument("--list", action="store_true", help="name false findings")
    args = parser.parse_args()

    states: Counter[tuple[str, str]] = Counter()
    n_accused = 0
    for seed in range(args.count):
        random = np.random.default_rng(seed)
        convention = draw_convention(random)
        row = find_states(make_honest_folder(random, convention))
        states.update(row.items())
        findings = [check for check, state in row.items() if state == FINDING]
        if findings:
            n_accused += 1
            if args.list:
                print(seed, findings, convention, flush=True)
    print(f"{args.count} honest folders\n\n| check | finding | not decidable |")
    print("|---|---|---|")
    for check in CHECKS:
        findings_share = format_share(states[check, FINDING], args.count)
        undecided_share = format_share(states[check, UNDECIDED], args.count)
        print(f"| {check} | {findings_share} | {undecided_share} |")
    print(f"| any | {format_share(n_accused, args.count)} | |\n")

    print("| cheat | its check | found by it | by another too |\n|---|---|---|---|")
    for number, (plant, check) in enumerate(CHEATS.items()):
        n_found = 0
        n_found_elsewhere = 0
        for seed in range(args.cheats):
            row = find_states(plant(np.random.default_rng((number, seed))))
            n_found += row.pop(check) == FINDING
            n_found_elsewhere += FINDING in row.values()
        name = plant.__name__.replace("_", " ")
        share = format_share(n_found, args.cheats)
        share_elsewhere = format_share(n_found_elsewhere, args.cheats)
        print(f"| {name} | {check} | {share} | {share_elsewhere} |", flush=True)


if __name__ == "__main__":
    main()
