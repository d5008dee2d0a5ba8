"""How often audit accuses honest folders, and finds planted cheats, by simulation;
prints tables.

Folders are written as scripts write them and read by `audit`. Honest ones are drawn
from the product of usual conventions (`CONVENTIONS`). Each cheat has a check that must
find it.
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
    Row,
    audit,
)
from brainhive_cli.measurement.corrections import Assignment, Correction, Csls, Sinkhorn

Values = NDArray[Any]
Random = np.random.Generator
Folder = dict[str, Any]
"""What a script saves, by name: arrays, and JSON documents and tables of text."""
WIDTH, TRAINED = 48, 400
WORTH = 2.0
"""Points that a correction or the best test epoch is worth at least; else it is drawn
again.
"""
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
"""Usual conventions of folders; a draw has one of each."""


def unit(vectors: Values) -> Values:
    """Bring vectors to unit length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def draw(random: Random, repetitions: int = 1, count: int = 0) -> tuple[Values, Values]:
    """Draw embeddings [N, D] of pictures, and predictions [5, N * R, D] of 5 trainings,
    which share the noise of the signals.
    """
    count = count or int(random.choice([60, 100, 200]))
    gallery = random.normal(size=(count, WIDTH)) + 0.5 * random.normal(size=WIDTH)
    noise = random.uniform(1.5, 3.5) * random.normal(size=(count * repetitions, WIDTH))
    own = random.uniform(0.3, 1) * random.normal(size=(5, *noise.shape))
    return gallery, gallery.repeat(repetitions, 0) + noise + own


def compare(predicted: Values, gallery: Values, measure: str = "cosine") -> Values:
    """Compute similarities [N, M] as scripts do."""
    if measure == "distance":
        return -np.asarray(cdist(predicted, gallery))
    if measure == "correlation":
        predicted = predicted - predicted.mean(1, keepdims=True)
        gallery = gallery - gallery.mean(1, keepdims=True)
    if measure != "product":
        predicted = unit(predicted)
        gallery = unit(gallery)
    return np.asarray(predicted @ gallery.T)


def top(similarities: Values, hits: Values, k: int = 1) -> float:
    """Measure top-k in percent by the order of a sort; `hits` [N, M] are right."""
    order = np.argsort(-similarities, 1, kind="stable")[:, :k]
    return 100 * float(np.take_along_axis(hits, order, 1).any(1).mean())


def tops(similarities: Values) -> Folder:
    """Measure what a script claims of similarities whose diagonal is right."""
    hits = np.eye(*similarities.shape, dtype=bool)
    return {f"top{k}": round(top(similarities, hits, k), 2) for k in (1, 5)}


def course(
    random: Random, last: float, by: str = "last epoch"
) -> tuple[Values, Values]:
    """Draw scores [E] on validation and test, of which the last epoch, or the best on
    validation, has a score on the test.
    """
    base = last * (1 - np.exp(-np.arange(40) / 6))
    validation = base + random.normal(0, 1.5, 40)
    test = base + random.normal(0, 1.5, 40)
    test += last - test[validation.argmax() if by == "best on validation" else -1]
    return validation.clip(0, 100), test.clip(0, 100)


def table(**columns: Any) -> str:
    """Write columns of equal length as CSV."""
    rows = zip(*columns.values(), strict=True)
    return "\n".join(",".join(map(str, row)) for row in [[*columns], *rows])


def honest(random: Random, convention: Mapping[str, str]) -> Folder:
    """Make an honest folder by conventions."""
    has_repetitions = convention["repetitions"] != "none"
    gallery, trainings = draw(random, 4 if has_repetitions else 1)
    if convention["means"] != "of pictures":
        trainings -= draw(random, count=TRAINED)[1].mean(1, keepdims=True)
    label = np.arange(len(gallery)).repeat(4 if has_repetitions else 1)
    measure, mask = convention["measure"], convention["mask"]
    is_matrix = convention["file"] == "similarities"
    if convention["labels"] in ("from 0", "from 1", "names"):
        order = random.permutation(len(label))
        label = label[order]
        trainings = trainings[:, order]

    # what is missing: signals, or similarities of other pictures
    is_lost = np.zeros(len(label), bool)
    if "lost" in mask:
        is_lost[random.permutation(len(label))[: len(label) // 20]] = True
        trainings[:, is_lost] = np.nan
    pairs = random.random((len(label), len(gallery))) < random.choice([1e-4, 0.01])
    pairs[0, label[0] - 1] = True
    pairs &= label[:, None] != np.arange(len(gallery))

    # scores of each training, as its script computes them
    matrices, scores = list[Values](), list[list[float]]()
    for predicted in trainings:
        values = compare(predicted, gallery, measure)
        if is_matrix and mask in ("-1e9", "-inf", "nan"):
            values[pairs] = float(mask)
        matrices.append(values)
        hits = label[:, None] == np.arange(len(gallery))
        if "mean" in convention["repetitions"]:
            groups = [np.flatnonzero(label == n) for n in range(len(gallery))]
            source = predicted if convention["repetitions"][5] == "p" else values
            means = np.stack([np.nanmean(source[rows], 0) for rows in groups])
            hits = np.eye(len(gallery), dtype=bool)
            is_raw = source is predicted
            values = compare(means, gallery, measure) if is_raw else means
        elif mask == "lost, left out":
            values = values[~is_lost]
            hits = hits[~is_lost]
        values = np.where(np.isnan(values), -np.inf, values)
        if convention["direction"] == "picture to signal":
            values = values.T
            hits = hits.T
            values = values[hits.any(1)]
            hits = hits[hits.any(1)]
        scores.append([top(values, hits, k) for k in (1, 5)])

    # the claims, and the log of the first training or of all
    is_mean = convention["trainings"] != "one"
    exact = np.mean(scores, 0) if is_mean else np.array(scores[0])
    unit_of, decimals = convention["rounding"].split()
    stated = np.round(exact / (100 if unit_of == "share" else 1), int(decimals))
    claims: Folder = {"top1": float(stated[0])}
    if convention["claims"] == "top-1 and top-5":
        claims["top5"] = float(stated[1])
    folder: Folder = {"results.json": claims}
    log = convention["log"]
    if log in ("last epoch", "best on validation"):
        validation, test = course(random, exact[0], log)
        folder["log.csv"] = table(val_top1=validation, test_top1=test)
    elif log in ("subjects", "epochs below"):
        both = [course(random, score) for score, _ in scores]
        tests = np.concatenate([test for _, test in both]) / 100
        epochs = [*range(40)] * 5
        folder["log.csv"] = table(epoch=epochs, test_acc=tests)
        if log == "subjects":
            subjects = np.arange(5).repeat(40)
            folder["log.csv"] = table(subject=subjects, epoch=epochs, test_acc=tests)

    # arrays: similarities, of which a distance is small where alike
    sign = -1 if measure == "distance" else 1
    in_files = range(5 if convention["trainings"] == "mean of 5, in files" else 1)
    for seed in in_files:
        if is_matrix:
            folder[f"similarity_seed{seed}"] = sign * matrices[seed]
        else:
            folder[f"pred_seed{seed}"] = trainings[seed]
            folder["gallery"] = gallery
            folder["train_features"] = random.normal(size=(TRAINED, WIDTH))
    if convention["trainings"] == "mean of 5, stated":
        claims["n_seeds"] = 5
    names = [f"{n:04d}_thing/thing_{n:02d}s" for n in range(len(gallery))]
    if convention["labels"] == "names":
        others = [f"{n:04d}_other/other_{n:02d}b" for n in range(TRAINED)]
        folder["train_ids.txt"] = "\n".join(others)
        folder["test_ids.txt"] = "\n".join(names[n] for n in label)
        folder["gallery_ids.txt"] = "\n".join(names)
    elif convention["labels"] == "in order" and not has_repetitions:
        folder["labels"] = random.permutation(len(label)) + 1
    elif has_repetitions or convention["labels"] != "none":
        folder["labels"] = label + (convention["labels"] == "from 1")
    return folder


# cheats, each as its publisher's script writes it


def correct(values: Values, correction: Correction) -> Values:
    """Correct similarities by all test signals together."""
    tensor = torch.from_numpy(values)
    return correction.correct(tensor, tensor, tensor).numpy()


def embeddings(random: Random, **options: Any) -> tuple[Values, Values, Folder]:
    """Draw a folder of predictions with a gallery."""
    gallery, trainings = draw(random, **options)
    return gallery, trainings[0], {"gallery": gallery, "pred": trainings[0]}


def ties_of_collapse(random: Random) -> Folder:
    """Equal predictions, of which ties count as hits."""
    values = compare(np.ones((100, WIDTH)), np.ones((100, WIDTH)))
    best = (values > np.diag(values)[:, None]).sum(1) == 0
    claims = {"top1": 100 * float(best.mean())}
    return {"similarity": values, "results.json": claims}


def ties_of_rounding(random: Random) -> Folder:
    """Coarse similarities, of which ties count as hits."""
    gallery, predicted, _ = embeddings(random)
    values = compare(predicted, gallery).round(1)
    above = (values > np.diag(values)[:, None]).sum(1)
    claims = {f"top{k}": 100 * float((above < k).mean()) for k in (1, 5)}
    return {"similarity": values, "results.json": claims}


def corrected(correction: Correction, name: str) -> Callable[[Random], Folder]:
    """Make the cheat whose claim, or file too, is of corrected similarities."""

    def plant(random: Random) -> Folder:
        worth = 0.0
        while worth < WORTH:
            gallery, predicted, folder = embeddings(random, count=200)
            before = compare(predicted, gallery)
            values = correct(before, correction)
            worth = tops(values)["top1"] - tops(before)["top1"]
        if "file" in name:
            folder = {"similarity": values}
        return {**folder, "results.json": tops(values)}

    plant.__name__ = name
    return plant


def dual_softmax(random: Random) -> Folder:
    """Similarities that a softmax over the test signals has changed."""
    gallery, predicted, _ = embeddings(random, count=200)
    exponents = np.exp(compare(predicted, gallery) / 0.05)
    values = exponents / exponents.sum(0)
    return {"similarity": values, "results.json": tops(values)}


def biased(random: Random) -> tuple[Values, Values, Folder]:
    """Draw predictions that are shrunk towards a mean, as regression gives them."""
    gallery, predicted, folder = embeddings(random, count=200)
    learned = random.normal(size=(TRAINED, WIDTH)) + gallery.mean(0)
    scale = random.uniform(0.1, 1, WIDTH)
    folder["pred"] = predicted * scale + 2 * random.normal(size=WIDTH)
    folder["train_features"] = learned
    return gallery, folder["pred"], folder


def standardise(values: Values) -> Values:
    """Bring columns to mean 0 and standard deviation 1."""
    return np.asarray((values - values.mean(0)) / values.std(0))


def standardised_file(random: Random) -> Folder:
    """Predictions that are standardised over the test signals."""
    gallery, predicted, folder = biased(random)
    folder["pred"] = standardise(predicted)
    return {**folder, "results.json": tops(compare(folder["pred"], gallery))}


def centred_file(random: Random) -> Folder:
    """Predictions less their mean over the test signals."""
    gallery, predicted, folder = biased(random)
    folder["pred"] = predicted - predicted.mean(0)
    return {**folder, "results.json": tops(compare(folder["pred"], gallery))}


def brought_to_gallery(random: Random) -> Folder:
    """Predictions with the means and spreads of the tested pictures."""
    gallery, predicted, folder = biased(random)
    folder["pred"] = standardise(predicted) * gallery.std(0) + gallery.mean(0)
    return {**folder, "results.json": tops(compare(folder["pred"], gallery))}


def brought_to_training(random: Random) -> Folder:
    """Predictions with the means and spreads of the training pictures."""
    gallery, predicted, folder = biased(random)
    learned = folder["train_features"]
    folder["pred"] = standardise(predicted) * learned.std(0) + learned.mean(0)
    return {**folder, "results.json": tops(compare(folder["pred"], gallery))}


def standardised_claim(random: Random) -> Folder:
    """A claim of predictions that are standardised over the test signals."""
    gallery, predicted, folder = biased(random)
    return {**folder, "results.json": tops(compare(standardise(predicted), gallery))}


def whitened_file(random: Random) -> Folder:
    """Predictions that are whitened by the test signals."""
    gallery, predicted, folder = biased(random)
    left, _, axes = np.linalg.svd(predicted - predicted.mean(0), full_matrices=False)
    folder["pred"] = left @ axes * len(left) ** 0.5
    return {**folder, "results.json": tops(compare(folder["pred"], gallery))}


def selected(random: Random, score: float) -> tuple[Values, Values]:
    """Draw scores of a training whose best test epoch is worth something."""
    while True:
        validation, test = course(random, score)
        if test.max() - max(test[-1], test[validation.argmax()]) >= WORTH:
            return validation, test


def best_test_epoch(random: Random) -> Folder:
    """A claim of the best test epoch, of one training."""
    gallery, predicted, folder = embeddings(random)
    claims = tops(compare(predicted, gallery))
    validation, test = selected(random, 0.9 * claims["top1"])
    test += claims["top1"] - test.max()
    log = table(val_top1=validation, test_top1=test)
    return {**folder, "results.json": claims, "log.csv": log}


def best_test_epoch_of_each(random: Random) -> Folder:
    """A claim of the mean of each subject's best test epoch."""
    _, _, folder = embeddings(random)
    both = [selected(random, random.uniform(20, 60)) for _ in range(5)]
    for subject, (validation, test) in enumerate(both):
        text = table(epoch=range(40), val_acc=validation, test_acc=test)
        folder[f"sub-{subject:02d}_log.csv"] = text
    claim = np.mean([test.max() for _, test in both])
    return {**folder, "results.json": {"acc": round(float(claim), 2)}}


def trained_on_tested(random: Random, copies: bool = False) -> Folder:
    """A third of the tested pictures were trained on."""
    gallery, predicted, folder = embeddings(random)
    known = len(gallery) // 3
    predicted[:known] = gallery[:known] + random.normal(size=(known, WIDTH))
    names = [f"{n:04d}_thing/thing_{n:02d}s" for n in range(len(gallery))]
    trained = [f"{n:04d}_other/other_{n:02d}b" for n in range(TRAINED)]
    folder["test_ids.txt"] = "\n".join(names)
    if copies:
        learned = random.normal(size=(TRAINED, WIDTH))
        learned[:known] = gallery[:known] + 0.01 * random.normal(size=(known, WIDTH))
        folder["train_features"] = learned
    else:
        trained += [f"{name}.jpg" for name in names[:known]]
    folder["train_ids.txt"] = "\n".join(trained)
    return {**folder, "results.json": tops(compare(predicted, gallery))}


def trained_on_copies(random: Random) -> Folder:
    """A third of the tested pictures were trained on, under other names."""
    return trained_on_tested(random, copies=True)


def one_answer(random: Random) -> Folder:
    """One answer for all signals, most of which show that picture."""
    gallery = random.normal(size=(20, WIDTH))
    label = np.where(random.random(200) < 0.6, 3, random.integers(0, 20, 200))
    predicted = gallery[3] + 1e-3 * random.normal(size=(200, WIDTH))
    hits = label[:, None] == np.arange(20)
    claims = {"top1": top(compare(predicted, gallery), hits)}
    arrays = {"pred": predicted, "gallery": gallery, "labels": label}
    return {**arrays, "results.json": claims}


def trials_as_independent(random: Random) -> Folder:
    """An interval over all trials of few pictures."""
    label = np.arange(50).repeat(40)
    gallery = random.normal(size=(50, WIDTH))
    noise = np.where(random.random(50) < 0.5, 0.5, 6.0)[label, None]
    predicted = gallery[label] + noise * random.normal(size=(2000, WIDTH))
    values = compare(predicted, gallery)
    share = top(values, label[:, None] == np.arange(50)) / 100
    half = 1.96 * (share * (1 - share) / 2000) ** 0.5
    claims = {"top1": share, "ci": [share - half, share + half]}
    return {"similarity": values, "labels": label, "results.json": claims}


def fewer_candidates(random: Random) -> Folder:
    """More candidates are claimed than the files have."""
    gallery, predicted, folder = embeddings(random, count=60)
    claims = {**tops(compare(predicted, gallery)), "pool": 200}
    return {**folder, "results.json": claims}


def subsets_as_all(random: Random) -> Folder:
    """The score among 40 candidates is claimed for 200."""
    gallery, predicted, folder = embeddings(random, count=200)
    values = compare(predicted, gallery)
    scores = [tops(values[n : n + 40, n : n + 40]) for n in range(0, 200, 40)]
    mean = {
        k: round(float(np.mean([score[k] for score in scores])), 2) for k in scores[0]
    }
    return {**folder, "results.json": {**mean, "pool": 200}}


def invented(random: Random) -> Folder:
    """A claim that is 15 to 30 points too high."""
    gallery, predicted, folder = embeddings(random, count=200)
    values = compare(predicted, gallery)
    claim = tops(values)["top1"] + random.uniform(15, 30)
    return {**folder, "results.json": {"top1": round(claim, 1)}}


def easy_signals(random: Random) -> Folder:
    """The claim is of the half of signals with the largest margin."""
    gallery, predicted, folder = embeddings(random, count=200)
    values = compare(predicted, gallery)
    margin = np.diag(values) - np.median(values, 1)
    rows = np.argsort(-margin)[:100]
    hits = np.eye(200, dtype=bool)[rows]
    claims = {f"top{k}": round(top(values[rows], hits, k), 2) for k in (1, 5)}
    return {**folder, "results.json": claims}


def top5_as_top1(random: Random) -> Folder:
    """The claimed top-1 is the top-5."""
    gallery, predicted, folder = embeddings(random, count=200)
    claim = tops(compare(predicted, gallery))["top5"]
    return {**folder, "results.json": {"top1": claim}}


CHEATS: dict[Callable[[Random], Folder], str] = {
    ties_of_collapse: "ties",
    ties_of_rounding: "ties",
    corrected(Assignment(), "assignment_claimed"): "test signals together",
    corrected(Assignment(), "assignment_in_file"): "test signals together",
    corrected(Sinkhorn(), "sinkhorn_claimed"): "test signals together",
    corrected(Sinkhorn(), "sinkhorn_in_file"): "test signals together",
    corrected(Csls(), "csls_claimed"): "test signals together",
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


def judge(folder: Folder) -> dict[str, str]:
    """Write a folder, and audit it: the state of each check."""
    return {row[0]: row[1] for row in audit_folder(folder)}


def audit_folder(folder: Folder) -> list[Row]:
    """Write a folder, and audit it."""
    with tempfile.TemporaryDirectory() as path:
        arrays = dict[str, Values]()
        for name, content in folder.items():
            if isinstance(content, np.ndarray):
                arrays[name] = content
            else:
                text = content if isinstance(content, str) else json.dumps(content)
                (Path(path) / name).write_text(text)
        np.savez(Path(path) / "outputs.npz", **arrays)
        return audit(open_result(Path(path)))


def draw_convention(random: Random) -> dict[str, str]:
    """Draw one of each of the conventions."""
    return {name: str(random.choice(values)) for name, values in CONVENTIONS.items()}


def share(count: int, total: int) -> str:
    """Write a share with its Monte Carlo error (Jeffreys)."""
    if not total:
        return "–"
    smoothed = (count + 0.5) / (total + 1)  # none of n is no certainty
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

    states = Counter[tuple[str, str]]()
    accused = 0
    for seed in range(args.count):
        random = np.random.default_rng(seed)
        convention = draw_convention(random)
        row = judge(honest(random, convention))
        states.update(row.items())
        found = [check for check, state in row.items() if state == FINDING]
        accused += bool(found)
        if found and args.list:
            print(seed, found, convention, flush=True)
    print(f"{args.count} honest folders\n\n| check | finding | not decidable |")
    print("|---|---|---|")
    for check in CHECKS:
        cells = [
            share(states[check, state], args.count) for state in (FINDING, UNDECIDED)
        ]
        print(f"| {check} | {' | '.join(cells)} |")
    print(f"| any | {share(accused, args.count)} | |\n")

    print("| cheat | its check | found by it | by another too |\n|---|---|---|---|")
    for number, (plant, check) in enumerate(CHEATS.items()):
        own = others = 0
        for seed in range(args.cheats):
            row = judge(plant(np.random.default_rng((number, seed))))
            own += row[check] == FINDING
            others += any(s == FINDING for name, s in row.items() if name != check)
        name = plant.__name__.replace("_", " ")
        cells = [share(own, args.cheats), share(others, args.cheats)]
        print(f"| {name} | {check} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
