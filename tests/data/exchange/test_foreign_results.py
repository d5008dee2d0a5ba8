"""Results of other projects: any type of array, value and name is read or refused."""

import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.base.errors import MissingData, RecipeError
from brainhive_cli.data.exchange import foreign_results, open_result
from brainhive_cli.measurement.audit import FINDING, UNDECIDED, audit

RANDOM = np.random.default_rng(0)
SIMILARITIES = RANDOM.normal(size=(50, 50)).astype(np.float32)
SIMILARITIES[range(50), range(50)] += 2
TOP1 = 100 * float((SIMILARITIES.argmax(1) == range(50)).mean())


def write(folder, similarities=SIMILARITIES, **documents):
    """Write similarities, and documents as JSON by name."""
    folder.mkdir()
    np.save(folder / "similarities.npy", similarities)
    for name, content in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "dtype", [">f4", ">f8", "<f2", "longdouble", "U20", "S20", "object"]
)
def test_numbers_of_any_type_and_order_of_bytes_are_read(dtype, tmp_path):
    result = open_result(write(tmp_path / "own", SIMILARITIES.astype(dtype)))
    assert result.similarities.numpy() == pytest.approx(SIMILARITIES, rel=2e-3)
    assert result.compute_top_k() == TOP1


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("M8[s]", "datetime64"),
        ("m8[s]", "timedelta64"),
        ("c8", "complex64"),
        ("V4", "V4"),
        ([("a", "i4")], "'a'"),
    ],
)
def test_what_is_neither_numbers_nor_names_is_refused(dtype, name, tmp_path, capfd):
    values = SIMILARITIES.astype(np.int32)
    is_structure = isinstance(dtype, list) or dtype == "V4"
    values = values.view(dtype) if is_structure else values.astype(dtype)
    with pytest.raises(MissingData, match="own"):
        open_result(write(tmp_path / "own", values))
    stderr = capfd.readouterr().err
    assert "similarities.npy" in stderr
    assert name in stderr


def test_objects_in_an_array_are_refused_before_they_are_made(tmp_path, capfd):
    folder = tmp_path / "own"
    folder.mkdir()
    np.ma.masked_array(SIMILARITIES, SIMILARITIES > 2).dump(folder / "sim.npy")
    np.save(folder / "sim2.npy", np.array([Path("x")]), allow_pickle=True)
    with pytest.raises(MissingData):
        open_result(folder)
    stderr = capfd.readouterr().err
    assert "sim.npy" in stderr
    assert "sim2.npy" in stderr


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_array_without_a_number_is_named(value, tmp_path):
    folder = write(tmp_path / "own", np.full((50, 50), value))
    with pytest.raises(MissingData, match=r"similarities.npy.*2,500"):
        open_result(folder)


@pytest.mark.parametrize("missing", ["null", "NaN", "Infinity", "-1e999", "1e300"])
def test_missing_similarities_in_json_are_counted(missing, tmp_path):
    values = SIMILARITIES.astype(float).tolist()
    values[3][7] = values[9][9] = "MISSING"
    text = json.dumps(values).replace('"MISSING"', missing)
    (tmp_path / "similarities.json").write_text(text)
    rows = {row[0]: row for row in audit(open_result(tmp_path))}
    assert "2 similarities are missing" in rows["ties"][3]


def test_predictions_of_huge_numbers_are_ranked(tmp_path):
    gallery = RANDOM.normal(size=(50, 16)).astype(np.float32)
    predicted = gallery + RANDOM.normal(size=(50, 16)).astype(np.float32)
    predicted[3, 4] = 1e25
    np.savez(tmp_path / "own.npz", pred=predicted, gallery=gallery)
    (tmp_path / "claims.json").write_text('{"top1": 12}')
    rows = {row[0]: row for row in audit(open_result(tmp_path))}
    assert FINDING not in [row[1] for row in rows.values()]


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_missing_values_of_half_precision_rank_last(missing, tmp_path):
    """Below the lowest similarity, half precision may have no number."""
    values = (SIMILARITIES * 1e4).astype(np.float16)
    values[0, 1] = missing
    result = open_result(write(tmp_path / "own", values))
    assert result.similarities[0, 1].isnan()
    rows = audit(result)
    assert f"top1 {TOP1 / 100:.3f}" in rows[0][3]
    assert "1 similarities are missing" in rows[0][3]


def test_logarithms_near_zero_are_no_masks(tmp_path):
    """Log-probabilities near 0 once counted as masked values."""
    exact = 30 * SIMILARITIES.astype(np.float64)
    logs = exact - np.log(np.exp(exact).sum(1, keepdims=True))
    folder = write(tmp_path / "own", logs, claims={"top1": TOP1})
    rows = audit(open_result(folder))
    assert FINDING not in [row[1] for row in rows]
    assert "missing" not in rows[0][3]


def test_lost_signals_of_zeros_make_no_sums_equal(tmp_path):
    """Next to negative distances, zeros dominate every sum of exponentials."""
    values = 30 * (SIMILARITIES - 10)
    values[:5] = 0
    top1 = 2 * float((values.argmax(1) == range(50))[5:].sum())
    folder = write(tmp_path / "own", values, claims={"top1": top1})
    rows = audit(open_result(folder))
    assert FINDING not in [row[1] for row in rows]
    assert "missing" not in rows[0][3]


@pytest.mark.parametrize("width", [1, 2])
def test_training_pictures_of_few_dimensions_are_compared(width, tmp_path):
    """The covariance of a single dimension is a scalar."""
    vectors = RANDOM.normal(size=(50, width))
    np.savez(tmp_path / "own.npz", pred=vectors, gallery=vectors, train=vectors)
    rows = {row[0]: row for row in audit(open_result(tmp_path))}
    assert rows["copies of training pictures"][1] == UNDECIDED


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pool", "nan"),
        ("pool", -5),
        ("pool", 1e300),
        ("top1", "inf %"),
        ("top1", -50),
        ("ci", [-1e308, 1e308]),
        ("top1", True),
        pytest.param("pool", 10**400, id="pool-of-400-digits"),
    ],
)
def test_a_claim_that_is_no_share_or_count_is_not_read(key, value, tmp_path):
    folder = write(tmp_path / "own", claims={"top5": 60, key: value})
    result = open_result(folder)
    assert result.claims["top5"] == 60
    assert key not in result.claims


@pytest.mark.parametrize(
    "content",
    ["similarities: 5", "similarities: [a]", "similarities:", "claims: 5", "claims: a"],
)
def test_an_audit_file_with_wrong_types_is_named_in_the_error(content, tmp_path):
    """`similarities` names a file, and `claims` maps metrics to numbers."""
    (write(tmp_path / "own") / "audit.yaml").write_text(content)
    with pytest.raises(RecipeError, match=r"audit\.yaml"):
        open_result(tmp_path / "own")


@pytest.mark.parametrize("role", ["seen", "train_ids", "similarities"])
def test_a_role_of_an_array_of_other_dimensions_is_named(role, tmp_path):
    folder = write(tmp_path / "own", ids=["a", "b"])
    label = "ids.json" if role == "similarities" else "similarities.npy"
    (folder / "audit.yaml").write_text(f"{role}: {label}")
    with pytest.raises(MissingData, match=rf"{label} .*\[.*{role}"):
        open_result(folder)


def test_labels_by_which_every_candidate_is_right_say_nothing(tmp_path):
    folder = write(tmp_path / "own")
    np.save(folder / "labels.npy", np.full(50, np.nan))
    with pytest.raises(MissingData, match="50 signals and 50 candidates"):
        open_result(folder)


def nest(value, depth, is_list):
    for _ in range(depth):
        value = [value, value] if is_list else {"a": value, "b": value}
    return value


HOSTILE = {
    "key.json": json.dumps({"test" * 15_000: [1, 2]}).encode(),
    "name.csv": b"val" * 20_000 + b"\n1\n2\n",
    "logs.json": json.dumps({f"test_acc{n}_": [1, 2] for n in range(6000)}).encode(),
    "wide.csv": b",".join(b"c" for _ in range(30_000)) + b"\n1" * 30_000,
    "long.txt": b"x" * 1_000_000 + b"\ny" * 20_000,
    "lists.pt": pickle.dumps(nest([1], 40, is_list=True)),
    "dicts.pt": pickle.dumps(nest({}, 60, is_list=False)),
    "rows.pt": pickle.dumps([[1.0] * 100_000] * 100_000),
}
HOSTILE["epochs.csv"] = b"epoch,test_acc" + b"\n0,1\n1,2" * 6000


def test_long_names_and_many_values_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": {"b": 1, "x" * 256: 2}, "c": 3}))
    assert set(foreign_results._read_arrays(path)) == {"a_b", "c"}
    monkeypatch.setattr(foreign_results, "MAX_ARRAYS_PER_FILE", 2)
    with pytest.raises(ValueError, match="more than 2 values"):
        foreign_results._read_arrays(path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", HOSTILE)
def test_a_small_hostile_file_takes_seconds(name, tmp_path, monkeypatch):
    from brainhive_cli.data.files import pickles

    monkeypatch.setattr(pickles, "MAX_LISTS", 2**16)
    monkeypatch.setattr(pickles, "MAX_ITEMS", 2**20)
    (write(tmp_path / "own", claims={"top1": TOP1}) / name).write_bytes(HOSTILE[name])
    start_s = time.process_time()
    assert audit(open_result(tmp_path / "own"))
    assert time.process_time() - start_s < 20


@pytest.mark.parametrize(
    ("claim", "rounding"),
    [("47", 0.5), ("47.0", 0.05), ('"47.25 %"', 0.005), ("0.475", 0.05)],
)
def test_claims_are_as_exact_as_their_decimals(tmp_path, claim, rounding):
    folder = write(tmp_path / "own", SIMILARITIES)
    (folder / "results.json").write_text(f'{{"top1": {claim}, "pool": 4}}')

    claims = open_result(folder).claims

    assert claims["rounding"] == pytest.approx(rounding)


def test_a_file_cut_short_is_named_and_the_others_are_read(tmp_path, capfd):
    folder = write(tmp_path / "own")
    (folder / "more.json").write_text("[1, 2")

    assert audit(open_result(folder))
    assert f"not read: {folder / 'more.json'}" in capfd.readouterr().err
