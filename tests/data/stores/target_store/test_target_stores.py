"""Runs are not evaluated or resumed with embeddings that were made differently."""

import re
import shutil

import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.stores.target_store import TargetStore, build_store_path
from brainhive_cli.data.targets import keep_identity, write_embed_commands
from brainhive_cli.models import encoders
from tests.tools.changed_stores import resealed

ENCODER = "brainhive_cli-models-encoders-python-example"
DATASET = "demo-noise-0.3-40-concepts"
IMPORTED = {"imported": ["train.pt"], "preprocessing": "not known: imported"}


@pytest.fixture
def own_home(world, tmp_path):
    """Copy the stores of the world, to change them."""
    shutil.copytree(world / "embeddings", tmp_path / "embeddings")
    return tmp_path / "embeddings"


def change_attributes(embeddings, split, **attributes):
    """Change the attributes of a store, and return its path."""
    path = build_store_path(embeddings, DATASET, split, ENCODER)
    with resealed(path) as file:
        hdf5.set_attributes(file, attributes)
    return str(path)


def test_stores_of_different_making_are_refused_with_both_names(
    run_command, align_overrides, world, own_home, tmp_path
):
    run_folder = run_command("train-align", *align_overrides).folder
    trained_on = build_store_path(world / "embeddings", DATASET, "train", ENCODER)
    for attributes, difference in (
        ({"preprocessing": "squash"}, "preprocessing"),
        (IMPORTED, "weights and preprocessing"),
    ):
        changed_store = change_attributes(own_home, "test", **attributes)

        with pytest.raises(BrainhiveError, match=f"other {difference} than") as caught:
            run_command(
                "eval-retrieval",
                f"run={run_folder}",
                f"paths.embeddings={own_home}",
                f"paths.runs={tmp_path}",
            )

        message_words = set(re.split(r"\s", caught.value.message))
        assert {changed_store, str(trained_on)} <= message_words


@pytest.mark.nightly
def test_imported_stores_of_several_files_are_taken_together(
    run_command, align_overrides, own_home, tmp_path
):
    own_paths = [f"paths.embeddings={own_home}", f"paths.runs={tmp_path}"]
    for split, digest in (("train", "a"), ("test", "b")):
        change_attributes(
            own_home,
            split,
            **IMPORTED,
            weights={"source": "imported: dictionary", "digest": digest * 64},
        )
    run_command(
        "train-align", *align_overrides, *own_paths, "subjects=1", "train.epochs=1"
    )

    assert run_command("eval-retrieval", *own_paths).metrics.overall["top1"].n == 100


def test_a_run_does_not_go_on_with_a_store_that_was_made_anew(own_home, tmp_path):
    folder = RunFolder(tmp_path)

    def begin():
        keep_identity(folder, {ENCODER: TargetStore.open(path)})

    path = build_store_path(own_home, DATASET, "train", ENCODER)
    begin()
    begin()
    change_attributes(own_home, "train", weights={"digest": "b" * 64})
    with pytest.raises(BrainhiveError, match="other weights"):
        begin()


def test_suggested_lines_embed_or_import_own_embeddings():
    dataset = parts.resolve("datasets", "demo")
    own_recipe = encoders.resolve({"kind": "imported", "source": "mine"})
    timm = encoders.resolve({"kind": "timm", "architecture": "test_vit"})
    for configs, commands in (
        ([], ["embed"]),
        ([timm], ["embed"]),
        ([own_recipe], ["import-embeddings"]),
        ([timm, own_recipe], ["embed", "import-embeddings"]),
    ):
        lines = write_embed_commands(dataset, configs).split(" && ")
        assert [line.split()[1] for line in lines] == commands
