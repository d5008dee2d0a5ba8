"""Vectors of a user's own model, imported under a name that becomes an encoder."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from brainhive_cli.commands.embed import list_encoders
from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.results.measurements import UNKNOWN_NETWORK, UNKNOWN_PICTURES
from brainhive_cli.data.stores.target_store import (
    TargetStore,
    build_store_path,
    has_unknown_pictures,
)
from brainhive_cli.data.targets.next_commands import write_next_command
from brainhive_cli.models.heads import FUSED_TARGET
from tests.worlds.own_recordings import PICTURES, write_pictures

DATASET = "demo-noise-0.3-40-concepts"
COLOURS = "python:brainhive_cli.models.encoders.python:example"
COLOURS_STORE = "brainhive_cli-models-encoders-python-example"
Vectors = Callable[..., Path]


@pytest.fixture
def own_home(world, trained_run, tmp_path, monkeypatch):
    """A home with the world's stores, and runs of its own."""
    home = tmp_path / "own"
    shutil.copytree(world / "embeddings", home / "embeddings")
    shutil.copytree(world / "signals", home / "signals")
    monkeypatch.setenv("BRAINHIVE_HOME", str(home))
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def vectors(own_home):
    """Write the colours of a split, turned at random, as an array without names."""

    def write(split, seed=0):
        store = TargetStore.open(
            build_store_path(own_home / "embeddings", DATASET, split, COLOURS_STORE)
        )
        mixing = np.random.default_rng(seed).normal(size=(12, 16))
        np.save(
            own_home / f"{split}.npy",
            (np.array(store.embedding) @ mixing).astype(np.float32),
        )
        return own_home / f"{split}.npy"

    return write


@pytest.fixture
def import_(run_command, align_overrides, vectors):
    """Import them for both splits, or one."""

    def import_run(name, *splits, seed=0, again=False):
        for split in splits or ("train", "test"):
            result = run_command(
                "import-embeddings",
                align_overrides[0],
                f"name={name}",
                f"sources=['{vectors(split, seed)}']",
                f"splits={split}",
                again=again,
            )
        return result

    return import_run


def list_overrides(align_overrides, encoders, *arguments):
    """Give overrides of train-align for other encoders."""
    return (
        tuple(key for key in align_overrides if not key.startswith("encoders"))
        + (f"encoders={encoders}",)
        + tuple(arguments)
    )


@pytest.mark.nightly
def test_imported_embeddings_are_used_by_their_name(
    run_command, align_overrides, own_home, import_
):
    """Issue 60, row 11: vectors made of test signals lost their stamp beside a shipped
    encoder.
    """
    result = import_("mine")
    assert result.hint.endswith("--encoders mine")
    assert "train-align" in result.hint
    (row,) = [
        row
        for row in list_encoders().tables[0].as_dict()["rows"]
        if row["encoder"] == "mine"
    ]
    assert (row["D"], row["weights"], row["here"]) == ("16", "imported", "yes")

    trained = run_command(
        "train-align", *list_overrides(align_overrides, "mine", "subjects=1")
    ).folder
    evaluated = run_command("eval-retrieval", f"run={trained}", "sheet_rows=0")
    assert evaluated.metrics.facts.verdict == "above chance"
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    assert recipe["encoders"] == [{"kind": "imported", "source": "mine"}]

    mixed = run_command(
        "train-align",
        *list_overrides(
            align_overrides, f"['{COLOURS}', mine]", "subjects=1", "train.epochs=1"
        ),
    )
    # the pictures are here, so that those of the training are known. The network that
    # made the vectors is not: from test signals it reached a top-1 of 1.00 without a
    # caveat (issue 84, row 16)
    assert mixed.folder != trained
    both_result = run_command("eval-retrieval", f"run={mixed.folder}", "sheet_rows=0")
    for result in (evaluated, both_result):
        assert UNKNOWN_PICTURES not in result.metrics.caveats
        assert UNKNOWN_NETWORK in result.metrics.caveats
    next_command = write_next_command(
        parts.resolve("datasets", yaml.safe_load(align_overrides[0].partition("=")[2])),
        (),
        Paths(),
    )
    assert next_command.endswith("--encoders mine")


def test_pictures_of_imported_embeddings_are_known_if_readable(
    run_command, home, tmp_path, capsys
):
    """Issue 60, row 11: the stamp of a store is a stamp of all."""
    write_pictures(tmp_path / "pictures")
    names = sorted(name for names in PICTURES.values() for name in names)
    np.savez(tmp_path / "mine.npz", **{name: np.arange(4.0) for name in names})

    def stores():
        folder = run_command(
            "import-embeddings",
            f"dataset={{kind: image-folder, root: '{tmp_path / 'pictures'}'}}",
            "name=mine",
            f"sources=['{tmp_path / 'mine.npz'}']",
            again=True,
        ).folder
        return [TargetStore.open(path) for path in sorted(folder.rglob("mine.h5"))]

    pixels = [store.pixels for store in stores()]
    assert len(pixels) == 2
    digests = np.concatenate([pixel[:, 0] for pixel in pixels if pixel is not None])
    assert len(set(digests)) == len(names)
    assert not has_unknown_pictures(stores())

    (tmp_path / "pictures" / f"{names[0]}.png").write_bytes(b"no picture")
    assert has_unknown_pictures(stores())
    warning = capsys.readouterr().err
    assert "warning" in warning
    assert "pictures/test" in warning


@pytest.mark.nightly
def test_own_vectors_leave_and_come_back_by_their_name(
    run_command, align_overrides, own_home, import_
):
    import_("mine")
    stored = {
        split: build_store_path(own_home / "embeddings", DATASET, split, "mine")
        for split in ("train", "test")
    }
    initial_arrays_by_name = {
        split: np.array(TargetStore.open(path).embedding)
        for split, path in stored.items()
    }
    for path in (own_home / "embeddings").rglob(f"{COLOURS_STORE}.h5"):
        path.unlink()

    run_command("export-embeddings", f"to={own_home / 'out'}")
    for path in stored.values():
        path.unlink()
    run_command(
        "import-embeddings",
        align_overrides[0],
        "name=mine",
        f"sources=['{own_home / 'out'}']",
    )
    for split, path in stored.items():
        np.testing.assert_array_equal(
            TargetStore.open(path).embedding, initial_arrays_by_name[split]
        )


def test_a_name_that_clashes_or_is_no_file_name_is_refused(home):
    from brainhive_cli.commands import import_embeddings

    for name, owner in (
        ("vae", "encoder vae"),
        ("dinov2-base", "dinov2-b14"),
        ("../outside", "file name"),
        (FUSED_TARGET, FUSED_TARGET),
    ):
        with pytest.raises(RecipeError) as caught:
            import_embeddings.Recipe.resolve(
                "import-embeddings", None, {"name": name}, []
            )
        assert repr(name) in str(caught.value)
        assert owner in str(caught.value)


def test_two_imports_of_a_name_at_once_are_one_result(
    vectors, own_home, align_overrides
):
    """The second waits, and finds other vectors."""
    files = [vectors("train").rename(own_home / "a.npy"), vectors("train", seed=1)]
    line = [sys.executable, "-m", "brainhive_cli", "import-embeddings"]
    line += [align_overrides[0], "name=mine", "splits=train"]
    runs = []
    for file in files:
        arguments = list(line) + [f"sources=['{file}']"]
        runs.append(subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True))
    errors = [finished_run.communicate(timeout=120)[1] for finished_run in runs]
    assert sorted(finished_run.returncode for finished_run in runs) == [0, 1], errors
    assert "holds other vectors" in "".join(errors)
