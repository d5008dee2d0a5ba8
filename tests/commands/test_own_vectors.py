"""Vectors of a user's own model: imported under a name, which is an encoder's name from then on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from brainhive_cli.commands import embed, reconstruct
from brainhive_cli.commands.embed import list_encoders
from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.measurements import UNKNOWN_PICTURES
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.command_lines import next_command
from brainhive_cli.data.stores.target_store import TargetStore, path_of
from brainhive_cli.data.targets.encoder_keys import encoders_by_key
from brainhive_cli.models.encoders import resolve

DATASET = "demo-noise-0.3-40-concepts"
COLOURS = "python:brainhive_cli.models.encoders.python:example"
COLOURS_STORE = "brainhive_cli-models-encoders-python-example"
Vectors = Callable[..., Path]


@pytest.fixture
def own_home(world: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the world's stores, and runs of its own."""
    home = tmp_path / "own"
    shutil.copytree(world / "embeddings", home / "embeddings")
    shutil.copytree(world / "signals", home / "signals")
    monkeypatch.setenv("BRAINHIVE_HOME", str(home))
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def vectors(own_home: Path) -> Vectors:
    """Write the colours of a split, turned at random, as an array without names."""

    def write(split: str, seed: int = 0) -> Path:
        store = TargetStore.open(path_of(own_home / "embeddings", DATASET, split, COLOURS_STORE))
        mixing = np.random.default_rng(seed).normal(size=(12, 16))
        np.save(own_home / f"{split}.npy", (np.array(store.embedding) @ mixing).astype(np.float32))
        return own_home / f"{split}.npy"

    return write


@pytest.fixture
def import_(go, small, vectors: Vectors) -> Callable[..., Any]:
    """Import them for both splits, or one."""

    def run(name: str, *splits: str, seed: int = 0, again: bool = False) -> Any:
        for split in splits or ("train", "test"):
            source = (f"sources=['{vectors(split, seed)}']", f"splits={split}")
            result = go("import-embeddings", small[0], f"name={name}", *source, again=again)
        return result

    return run


def of(small: tuple[str, ...], encoders: str, *more: str) -> tuple[str, ...]:
    """Give overrides of train-align for other encoders."""
    return (*(key for key in small if not key.startswith("encoders")), f"encoders={encoders}", *more)


def test_own_vectors_are_trained_on_evaluated_and_mixed_by_their_name(go, small, own_home, import_):
    result = import_("mine")
    assert result.hint.endswith("--encoders mine") and "train-align" in result.hint

    trained = go("train-align", *of(small, "mine", "subjects=1")).folder
    evaluated = go("eval-retrieval", f"run={trained}", "sheet_rows=0")
    assert evaluated.metrics.facts.verdict == "above chance"
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    assert recipe["encoders"] == [{"kind": "imported", "source": "mine"}]

    mixed = go("train-align", *of(small, f"['{COLOURS}', mine]", "subjects=1", "train.epochs=1"))
    assert mixed.folder != trained and UNKNOWN_PICTURES in mixed.metrics.caveats
    listed = next_command(parts.resolve("datasets", yaml.safe_load(small[0].partition("=")[2])), (), Paths())
    assert listed.endswith("--encoders mine")


def test_a_head_and_a_sweep_take_own_vectors(go, small, own_home, import_):
    import_("mine")
    words = [key for key in small if not key.startswith(("encoders", "dim", "fuser"))]
    head = go("train-align", *words, "heads={own: mine}", "subjects=1", "train.epochs=1").folder
    assert go("eval-retrieval", f"run={head}", "sheet_rows=0").metrics.overall["top1"].n
    swept = of(small, "mine", "subjects=1", "train.epochs=1", f"sweep.encoders=[[mine],['{COLOURS}']]")
    measured = go("train-align", *swept).metrics
    assert any(scope.startswith("mine/") for scope in measured.scopes)


def test_other_vectors_of_one_name_make_another_run(go, small, own_home, import_):
    import_("mine")
    overrides = of(small, "mine", "subjects=1", "train.epochs=1")
    first = go("train-align", *overrides).folder
    evaluated = go("eval-retrieval", f"run={first}", "sheet_rows=0").folder
    assert go("train-align", *overrides).folder == first

    import_("mine", "test", seed=1, again=True)
    assert go("train-align", *overrides).folder == first
    assert go("eval-retrieval", f"run={first}", "sheet_rows=0").folder != evaluated
    import_("mine", "train", seed=1, again=True)
    assert go("train-align", *overrides).folder != first


def test_embed_is_refused_with_the_line_that_imports(small, own_home, import_):
    import_("mine")
    with pytest.raises(RecipeError, match="mine was imported as vectors, so nothing") as caught:
        embed.Recipe.resolve("embed", None, {}, [small[0], "encoders=[demo-clip,mine]"])
    assert caught.value.hint.startswith("brainhive import-embeddings FILE")
    assert caught.value.hint.endswith("--as mine")


def test_a_split_without_own_vectors_is_named_with_the_line_that_imports_it(go, small, own_home, import_):
    import_("mine", "train")
    trained = go("train-align", *of(small, "mine", "subjects=1", "train.epochs=1")).folder
    with pytest.raises(MissingData, match=f"no test embeddings of mine for {DATASET}") as caught:
        go("eval-retrieval", f"run={trained}", "sheet_rows=0")
    assert "brainhive import-embeddings FILE" in caught.value.hint and "--as mine" in caught.value.hint


def test_a_missing_name_among_encoders_gets_a_line_for_each_kind(go, small, own_home, import_):
    import_("mine", "train")
    (own_home / f"embeddings/{DATASET}/train/{COLOURS_STORE}.h5").unlink()
    with pytest.raises(MissingData) as caught:
        go("train-align", *of(small, f"['{COLOURS}', mine]", "subjects=1"))
    embedding, importing = caught.value.hint.split(" && ")
    assert embedding.startswith("brainhive embed") and embedding.endswith(COLOURS)
    assert importing.startswith("brainhive import-embeddings FILE") and importing.endswith("--as mine")


def test_the_store_of_a_shelf_s_encoder_is_no_own_vectors(go, small, own_home):
    with pytest.raises(RecipeError, match="holds no own vectors: python made it") as caught:
        go("train-align", *of(small, COLOURS_STORE, "subjects=1"))
    assert caught.value.hint == f"--encoders {COLOURS}"
    assert encoders_by_key([COLOURS_STORE]) == {}


def test_own_vectors_are_listed_and_known_by_their_key(own_home, import_):
    import_("mine")
    (table,) = list_encoders().tables
    (row,) = [row for row in table.as_dict()["rows"] if row["encoder"] == "mine"]
    assert (row["D"], row["weights"], row["here"]) == ("16", "imported", "yes")
    assert encoders_by_key(["mine"])["mine"].name == "mine"


def test_what_is_drawn_is_not_measured_by_own_vectors(own_home, import_):
    import_("mine")
    with pytest.raises(RecipeError, match="metric_encoders encode what is drawn, and mine was imported"):
        reconstruct.Recipe.resolve("reconstruct", None, {}, ["metric_encoders=[mine]"])


def test_own_vectors_leave_and_come_back_by_their_name(go, small, own_home, import_):
    import_("mine")
    stored = {split: path_of(own_home / "embeddings", DATASET, split, "mine") for split in ("train", "test")}
    before = {split: np.array(TargetStore.open(path).embedding) for split, path in stored.items()}
    for path in (own_home / "embeddings").rglob(f"{COLOURS_STORE}.h5"):
        path.unlink()

    hint = go("export-embeddings", f"to={own_home / 'out'}").hint
    assert hint.endswith(f"--dataset {DATASET} --as mine")
    for path in stored.values():
        path.unlink()
    go("import-embeddings", small[0], "name=mine", f"sources=['{own_home / 'out'}']")
    for split, path in stored.items():
        np.testing.assert_array_equal(TargetStore.open(path).embedding, before[split])


def test_rows_without_names_need_one_split_of_as_many_pictures(go, small, own_home, vectors, capsys):
    words = (small[0], "name=mine", f"sources=['{vectors('test')}']")
    with pytest.raises(BrainhiveError, match="holds 100 vectors without ids, not a dict") as caught:
        go("import-embeddings", *words)
    assert "--splits train" in caught.value.hint
    with pytest.raises(BrainhiveError, match=r"holds 100 vectors without ids, not a dict, for \d+ pictures"):
        go("import-embeddings", *words, "splits=train")
    assert not list((own_home / "embeddings").rglob("mine.h5"))

    go("import-embeddings", *words, "splits=test")
    store = TargetStore.open(path_of(own_home / "embeddings", DATASET, "test", "mine"))
    assert f"row 0 is {store.image_ids[0]}, row 99 is {store.image_ids[99]}" in capsys.readouterr().err
    np.testing.assert_array_equal(store.embedding, np.load(own_home / "test.npy"))
    assert store.attributes["weights"]["source"] == "imported: rows in the order of the pictures"


def test_a_vector_that_is_not_finite_is_refused_or_a_gap(go, small, own_home, vectors, capsys):
    values = np.load(vectors("test"))
    values[3, 0] = np.inf
    np.save(own_home / "test.npy", values)
    words = (small[0], "name=mine", f"sources=['{own_home / 'test.npy'}']", "splits=test")
    with pytest.raises(BrainhiveError, match="vectors that are not finite, 1 of 100: ") as caught:
        go("import-embeddings", *words)
    assert "--skip-missing" in caught.value.hint and not list((own_home / "embeddings").rglob("mine.h5"))

    go("import-embeddings", *words, "skip_missing=true")
    store = TargetStore.open(path_of(own_home / "embeddings", DATASET, "test", "mine"))
    assert np.flatnonzero(~store.done).tolist() == [3] and store.health.non_finite == 0
    assert "these pictures count as absent" in capsys.readouterr().err


def test_a_tensor_without_names_is_read_in_order_too(go, small, own_home, vectors):
    values = torch.from_numpy(np.load(vectors("test")))
    torch.save(values, own_home / "test.pt")
    go("import-embeddings", small[0], "name=mine", f"sources=['{own_home / 'test.pt'}']", "splits=test")
    store = TargetStore.open(path_of(own_home / "embeddings", DATASET, "test", "mine"))
    assert torch.equal(torch.from_numpy(np.array(store.embedding)), values)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vae", "stores of the shipped encoder vae are called so"),
        ("CLIP-H14", "stores of the shipped encoder clip-h14 are called so"),
        ("clip_h14", "stores of the shipped encoder clip-h14 are called so"),
        ("dinov2-b14-block-8-class", "stores of the shipped encoder dinov2-b14 are called so"),
        ("dinov2-base", "BrainHiVE calls dinov2-b14 so"),
        ("../outside", "it must be a plain file name"),
        ("a.b", "it must be a plain file name"),
        ("a/b", "it must be a plain file name"),
        ("-a", "it must be a plain file name"),
        ("1e5", "it must be a plain file name"),
        ("", "it must be a plain file name"),
        ("a" * 65, "it must be a plain file name"),
        ("a-view-3", "stores of degraded pictures and of views end so"),
        ("a-gaussian-3", "stores of degraded pictures and of views end so"),
        ("null", "recipes read this word as a value"),
        ("fused", "a fuser's target is"),
    ],
)
def test_a_name_that_clashes_or_is_no_file_name_is_refused(home, name, reason):
    from brainhive_cli.commands import import_embeddings

    with pytest.raises(RecipeError, match=reason) as caught:
        import_embeddings.Recipe.resolve("import-embeddings", None, {"name": name}, [])
    assert caught.value.hint and "\n" not in caught.value.message


def test_a_name_is_given_in_place_of_encoders(home):
    from brainhive_cli.commands import import_embeddings

    with pytest.raises(RecipeError, match="name is mine, and encoders are named too"):
        import_embeddings.Recipe.resolve("import-embeddings", None, {"name": "mine", "encoders": "vae"}, [])
    recipe = import_embeddings.Recipe.resolve("import-embeddings", None, {"name": "mine"}, [])
    assert import_embeddings.Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_a_name_that_no_store_has_is_refused_with_near_names_and_the_import(own_home, import_):
    import_("mymodel")
    assert resolve("mymodel").name == "mymodel"
    with pytest.raises(RecipeError, match="no encoder called 'mymdel'") as caught:
        resolve("mymdel")
    assert caught.value.hint.startswith("did you mean mymodel? ")
    assert caught.value.hint.endswith("own vectors: brainhive import-embeddings FILE --as mymdel")
    with pytest.raises(RecipeError, match="mymodel was imported, and has no output 'block-8'"):
        resolve("mymodel:block-8")
    with pytest.raises(RecipeError, match="pictures, degrade and views have no effect"):
        resolve({"kind": "imported", "source": "mymodel", "degrade": "gaussian-3"})
    with pytest.raises(MissingData, match="nothing here can encode pictures"):
        resolve("mymodel").build()


def test_own_vectors_win_over_a_folder_of_their_name(own_home, import_):
    import_("mine")
    (own_home / "mine").mkdir()
    assert resolve("mine").kind == "imported" and resolve("./mine").kind == "reference"
