"""audit: cheats that are planted are found with their size, honest results are not
accused.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli import api
from brainhive_cli.app import app
from brainhive_cli.data.exchange.foreign_results import open_result
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.measurement.audit import FINDING, ForeignResult, audit
from brainhive_cli.measurement.corrections import Assignment, Sinkhorn

N, D = 100, 32
IDS = [f"{name:05d}_thing/thing_{name:02d}s" for name in range(N)]
TRAINED = [f"{name:05d}_other/other_01b" for name in range(400)]

Arrays = dict[str, Any]


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def decode(seed: int, noise: float = 2.0, count: int = N, width: int = D) -> Arrays:
    """Make predictions of pictures, and what a publisher's script measures of them."""
    random = np.random.default_rng(seed)
    gallery = random.normal(size=(count, width))
    return {
        "gallery": gallery,
        "pred": gallery + noise * random.normal(size=gallery.shape),
    }


def similarity(arrays: Arrays) -> Any:
    return unit(arrays["pred"]) @ unit(arrays["gallery"]).T


def top(values: Any, k: int = 1, target: Any = None) -> float:
    """Measure top-k as scripts do: by the order of a sort."""
    target = np.arange(len(values)) if target is None else target
    order = np.argsort(-np.asarray(values), 1, kind="stable")[:, :k]
    return float(100 * (order == target[:, None]).any(1).mean())


def write(folder: Path, claims: Arrays, ids: Any = IDS, **arrays: Any) -> Path:
    """Write a folder as scripts do: an .npz, ids and results as JSON."""
    folder.mkdir(parents=True)
    np.savez(folder / "outputs.npz", **arrays)
    if ids is not None:
        (folder / "test_images.json").write_text(json.dumps([*ids]))
    (folder / "results.json").write_text(json.dumps(claims))
    return folder


def findings(folder: Path) -> dict[str, float | None]:
    return {row[0]: row[2] for row in audit(open_result(folder)) if row[1] == FINDING}


# the planted cheats, each as its publisher's script writes it


def lenient_ties(to: Path) -> None:
    ones = np.ones((N, D), np.float32)
    values = unit(ones) @ unit(ones).T
    best = (values > np.diag(values)[:, None]).sum(1) == 0
    write(to, {"top1": 100 * float(best.mean())}, similarity=values)


def hungarian(to: Path) -> None:
    arrays = {name: torch.tensor(array) for name, array in decode(1).items()}
    values = torch.from_numpy(similarity(decode(1)))
    assigned = Assignment().correct(values, values, values)
    to.mkdir()
    torch.save(
        {"eeg_features": arrays["pred"], "img_features": arrays["gallery"]}, to / "f.pt"
    )
    (to / "ids.csv").write_text("image_id\n" + "\n".join(f"{name}.jpg" for name in IDS))
    (to / "results.csv").write_text(
        f"top-1,top-5\n{top(assigned)}%,{top(assigned, 5)}%\n"
    )


def hungarian_in_the_file(to: Path) -> None:
    values = torch.from_numpy(similarity(decode(2)))
    assigned = Assignment().correct(values, values, values).numpy()
    to.mkdir()
    np.save(to / "sim.npy", assigned)
    np.savetxt(to / "ids.txt", IDS, "%s")
    (to / "claims.json").write_text(json.dumps({"acc@1": top(assigned) / 100}))


def sinkhorn(to: Path) -> None:
    values = torch.from_numpy(similarity(decode(3)))
    balanced = Sinkhorn().correct(values, values, values)
    write(to, {"top1": top(balanced), "top5": top(balanced, 5)}, **decode(3))


def sinkhorn_in_the_file(to: Path) -> None:
    values = torch.from_numpy(similarity(decode(4)))
    balanced = Sinkhorn().correct(values, values, values).numpy()
    write(to, {"top1": top(balanced)}, similarity=balanced)


def best_test_epoch(to: Path) -> None:
    claim = top(similarity(decode(5)))
    validation, test = [10, 20, 26, 25, 24], np.array([-9, -4, -3, 0, -5]) + claim
    rows = [
        f"{n},{v},{t}" for n, (v, t) in enumerate(zip(validation, test, strict=True))
    ]
    write(to, {"top1": claim}, **decode(5))
    (to / "log.csv").write_text("\n".join(["epoch,val_top1,test_top1", *rows]))


def trained_on_tested(to: Path) -> None:
    arrays = decode(6)
    arrays["pred"][:30] = arrays["gallery"][:30] + 0.5
    write(to, {"top1": top(similarity(arrays))}, **arrays)
    (to / "split.json").write_text(
        json.dumps({"train": TRAINED + IDS[:30], "test": IDS})
    )


def copies_under_other_names(to: Path) -> None:
    arrays = decode(7)
    random = np.random.default_rng(70)
    learned = random.normal(size=(400, D))
    learned[:25] = arrays["gallery"][:25] + 0.001 * random.normal(size=(25, D))
    arrays["pred"][:25] = arrays["gallery"][:25] + 0.5
    write(to, {"top1": top(similarity(arrays))}, train_features=learned, **arrays)
    (to / "train_names.txt").write_text("\n".join(TRAINED))


def collapsed(to: Path) -> None:
    random = np.random.default_rng(8)
    gallery = random.normal(size=(20, D))
    target = np.where(random.random(200) < 0.6, 3, random.integers(0, 20, 200))
    predicted = gallery[3] + 1e-3 * random.normal(size=(200, D))
    claim = top(unit(predicted) @ unit(gallery).T, 1, target)
    write(to, {"top1": claim}, None, pred=predicted, gallery=gallery, labels=target)


def trials_as_independent(to: Path) -> None:
    random = np.random.default_rng(9)
    target = np.arange(50).repeat(40)
    gallery = random.normal(size=(50, D))
    # of some pictures all trials succeed
    noise = np.where(np.arange(50) < 20, 0.5, 5.0)[target, None]
    values = (
        unit(gallery[target] + noise * random.normal(size=(2000, D))) @ unit(gallery).T
    )
    share = top(values, 1, target) / 100
    half = 1.96 * (share * (1 - share) / 2000) ** 0.5
    claims = {"top1": share, "ci": [share - half, share + half]}
    write(to, claims, None, similarity=values, target=target)


def smaller_pool(to: Path) -> None:
    arrays = decode(11, count=50)
    write(to, {"top1": top(similarity(arrays)), "pool": 200}, IDS[:50], **arrays)


CHEATS: dict[Callable[[Path], None], tuple[str, bool]] = {
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
"""The check that finds each cheat, and whether its size is known."""


# honest results


def random_result(to: Path) -> None:
    arrays = decode(20, noise=1e6)
    write(to, {"top1": top(similarity(arrays)), "ci": [0, 5.4]}, **arrays)


def few_signals(to: Path) -> None:
    arrays = decode(21, count=4)
    write(to, {"top1": top(similarity(arrays)) / 100}, IDS[:4], **arrays)


def many_ties(to: Path) -> None:
    values = np.round(similarity(decode(22)), 1).astype(np.float16)
    write(to, {"top1": top(values), "top5": top(values, 5)}, similarity=values)


def half_precision(to: Path) -> None:
    arrays = decode(23)
    arrays["pred"] = 0.02 * arrays["pred"] + 0.1 * decode(24)["pred"][:1]
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    values = similarity(arrays)
    write(to, {"top1": top(values), "top5": top(values, 5)}, **halves)


def one_category(to: Path) -> None:
    arrays = decode(25, count=30)
    arrays = {name: array + 5 for name, array in arrays.items()}
    ids = [f"cat/cat_{n:02d}" for n in range(30)]
    write(to, {"top1": top(similarity(arrays))}, ids, **arrays)
    (to / "train.txt").write_text("\n".join(f"cat/cat_{n}" for n in range(30, 90)))


def one_picture_for_all(to: Path) -> None:
    arrays = decode(26)
    arrays["pred"] = arrays["gallery"][7] + 0.1 * arrays["pred"]
    claim = top(similarity(arrays), 1, np.full(N, 7))
    write(to, {"accuracy": claim / 100}, None, labels=np.full(N, 7), **arrays)


def perfect(to: Path) -> None:
    write(to, {"top1": 100.0, "top5": 100.0}, similarity=np.eye(N))


def trials_with_rows_as_labels(to: Path) -> None:
    random = np.random.default_rng(27)
    target = random.permutation(np.arange(50).repeat(4))
    gallery = random.normal(size=(50, D))
    values = unit(gallery[target] + 2 * random.normal(size=(200, D))) @ unit(gallery).T
    write(to, {"top1": top(values, 1, target)}, None, logits=values, labels=target)
    (to / "train_labels.txt").write_text("\n".join(map(str, range(1654))))


def last_epoch(to: Path) -> None:
    claim = top(similarity(decode(28)))
    log = {"val_loss": [3, 2, 2.1, 1.9], "test_acc": [0.1, 0.9, 0.3, claim / 100]}
    write(to, {"top1": round(claim, 1)}, **decode(28))
    (to / "history.json").write_text(json.dumps(log))
    (to / "train_ids.txt").write_text("\n".join(TRAINED))


def subsets_of_30(to: Path) -> None:
    values, random = similarity(decode(29)), np.random.default_rng(29)
    draws = (random.permutation(N)[:30] for _ in range(30))
    claim = np.mean([top(values[rows][:, rows]) for rows in draws])
    write(to, {"top1": float(claim), "n_way": 30}, similarity=values)


HONEST = (
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


def test_each_planted_cheat_is_found_by_its_check_alone(tmp_path: Path) -> None:
    for plant, (check, has_size) in CHEATS.items():
        plant(tmp_path / plant.__name__)
        found = findings(tmp_path / plant.__name__)
        assert [*found] == [check], plant.__name__
        assert (found[check] is not None) == has_size, plant.__name__
        assert not has_size or found[check] > 0.5, plant.__name__


def test_honest_results_have_no_finding(tmp_path: Path) -> None:
    for make in HONEST:
        make(tmp_path / make.__name__)
        assert findings(tmp_path / make.__name__) == {}, make.__name__


def test_of_200_honest_folders_hardly_any_has_a_finding() -> None:
    flagged = 0
    for seed in range(200):
        # small and large pools, chance and nearly perfect, with and without ties
        random = np.random.default_rng(seed + 1000)
        count = int(random.integers(4, 60))
        arrays = decode(seed, random.exponential(2), count, int(random.integers(3, 40)))
        values = similarity(arrays).round(int(random.integers(1, 9)))
        claims = {f"top{k}": round(top(values, k), 2) for k in (1, 5)}
        scores = np.append(random.uniform(0, 100, 20), claims["top1"])
        names = [str(name) for name in random.permutation(1000)]
        result = ForeignResult(
            torch.from_numpy(values),
            torch.arange(count)[:, None],
            names[:count],
            train_ids=names[count:],
            gallery=torch.from_numpy(arrays["gallery"]),
            train_vectors=torch.from_numpy(
                random.normal(size=(300, arrays["gallery"].shape[1]))
            ),
            log={"test_top1": scores},
            claims=claims,
        )
        flagged += any(row[1] == FINDING for row in audit(result))
    assert flagged <= 2


def brainhive(*words: str) -> Any:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["audit", *words])


def test_a_run_of_the_project_passes_and_a_cheat_ends_with_its_own_code(
    world: Path, trained: Path, evaluated: Any, tmp_path: Path
) -> None:
    # predictions and gallery of a subject, and what eval-retrieval found of it
    run = api.open_run(str(trained))
    cell = run.cells[0]
    subject = cell.tested_on[0]
    predicted = run.predictions(subject, "test", cell.name)
    ids = list(predicted.image_ids)
    gallery = run.member(cell.name).images("test", np.arange(len(ids)))
    learned = TargetStore.open(next(world.glob("embeddings/*/train/*.h5")))
    top1 = evaluated.metrics.scopes[f"{cell.name} · sub-01"]["top1"]
    own = write(
        tmp_path / "own",
        {"top1": top1.value, "ci": [top1.low, top1.high], "pool": top1.pool},
        ids,
        predicted=predicted.heads["token"],
        gallery=gallery,
    )
    (own / "train_ids.txt").write_text("\n".join(learned.image_ids))

    passed = brainhive(str(own))
    assert passed.exit_code == 0, passed.output
    assert f"{100 * top1.value:.1f} by a plain ranking" in passed.stdout
    assert "findings: 0" in passed.stdout

    # names that say nothing are told in a file of their own
    hungarian(tmp_path / "cheat")
    names = torch.load(tmp_path / "cheat/f.pt")
    torch.save(
        {"a": names["eeg_features"], "b": names["img_features"]},
        tmp_path / "cheat/f.pt",
    )
    unknown = brainhive(str(tmp_path / "cheat"))
    assert unknown.exit_code == 3 and "f.pt:a, f.pt:b" in unknown.stderr
    (tmp_path / "cheat/audit.yaml").write_text("predict: f.pt:a\n")
    refused = brainhive(str(tmp_path / "cheat"))
    assert refused.exit_code == 2 and "names 'predict', which is" in refused.stderr
    (tmp_path / "cheat/audit.yaml").write_text("predicted: f.pt:a\ngallery: f.pt:b\n")
    caught = brainhive(str(tmp_path / "cheat"), "--json")
    document = json.loads(caught.stdout)
    rows = {row["check"]: row for row in document["details"]["audit"]}
    assert caught.exit_code == 6
    assert rows["test signals together"]["points"] == pytest.approx(3)
    assert rows["claimed numbers"]["state"] == "none"
    assert rows["training pictures"]["state"] == "not decidable"
    assert "needed: names of training" in rows["training pictures"]["evidence"]
