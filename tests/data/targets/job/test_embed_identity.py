"""embed: a store is never taken for one of other weights, preprocessing or numbers, nor
two of them mixed.
"""

import json
import shutil

import h5py
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from brainhive_cli.commands import embed
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.files.inputs import describe_missing
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.runs.jobs import list_inputs
from brainhive_cli.data.stores import TargetStore, target_store
from brainhive_cli.data.targets.encoder_stores import open_stores
from brainhive_cli.models import encoders
from tests.tools.changed_stores import resealed

COLOURS = "python:brainhive_cli.models.encoders.python:example"


@pytest.fixture
def network(home):
    """A folder in timm's layout."""
    write(home / "network", seed=0)
    return home / "network"


@pytest.fixture
def embed_arguments(pictures, network):
    """Overrides that embed a folder of pictures with that network."""
    return (
        f"dataset={{kind: image-folder, root: {pictures}}}",
        f"encoders=[{network}]",
    )


def write(folder, seed, **view):
    torch.manual_seed(seed)
    model = timm.create_model("test_vit", num_classes=10)
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "test_vit",
        "num_classes": 10,
        "num_features": model.num_features,
    }
    view = {**model.pretrained_cfg, **view}
    (folder / "config.json").write_text(json.dumps({**config, "pretrained_cfg": view}))


def open_store(home):
    return TargetStore.open(path(home))


def path(home, encoder="local--network"):
    return target_store.build_store_path(
        home / "embeddings", "pictures", "train", encoder
    )


def directly(network, pictures):
    encoder = encoders.resolve(str(network)).build()
    views = [
        encoder.preprocess(Image.open(file).convert("RGB"))
        for file in sorted(pictures.rglob("*.png"))
    ]
    with torch.inference_mode():
        return encoder.module(torch.stack(views)).numpy()


def states_of(recipe):
    (table,) = embed.resolve_job(recipe).preview()
    return {store: state for store, _, state in table.rows}


def test_a_store_whose_weights_are_gone_is_taken_as_it_is(
    run_command, home, network, embed_arguments
):
    run_command("embed", *embed_arguments)
    inode = path(home).stat().st_ino
    shutil.rmtree(network)
    repeated_command = [
        embed_arguments[0],
        f"encoders=[{ {'kind': 'reference', 'source': str(network)} }]",
    ]

    recipe = embed.Recipe.resolve("embed", None, {}, repeated_command)
    states, inputs = states_of(recipe), list_inputs(embed, recipe)
    run_command("embed", *repeated_command)

    assert path(home).stat().st_ino == inode
    assert states == {str(path(home).relative_to(home)): "done"}
    assert not describe_missing(inputs)


@pytest.fixture
def imported(run_command, home, pictures, embed_arguments):
    """Vectors that stand as that network's store, though nobody knows what made
    them.
    """
    names = [
        file.relative_to(pictures).as_posix()
        for file in sorted(pictures.rglob("*.png"))
    ]
    values = np.random.default_rng(0).normal(size=(len(names), 24)).astype(np.float32)
    np.savez(home / "found.npz", ids=np.array(names), vectors=values)
    run_command("import-embeddings", f"sources=['{home}/found.npz']", *embed_arguments)
    return values


def test_an_imported_store_is_kept_until_asked(
    run_command, home, pictures, network, embed_arguments, imported, capsys
):
    recipe = embed.Recipe.resolve("embed", None, {}, embed_arguments)
    states, inputs = states_of(recipe), list_inputs(embed, recipe)
    run_command("embed", *embed_arguments, "dtype=float16")

    (state,) = states.values()
    assert list(states) == [str(path(home).relative_to(home))]
    assert "found.npz" in state
    assert "--again" in state
    assert not describe_missing(inputs)
    assert f"{path(home)} {state}\n" in capsys.readouterr().err
    assert np.array_equal(open_store(home).embedding, imported)
    run_command("embed", *embed_arguments, again=True)
    assert np.allclose(
        open_store(home).embedding, directly(network, pictures), atol=1e-5
    )
    assert "imported" not in capsys.readouterr().err


@pytest.fixture
def two_stores(run_command, home, pictures, embed_arguments):
    """Stores of two encoders, and what opens them together."""
    run_command("embed", embed_arguments[0], f"encoders=[{COLOURS!r}, demo-clip]")
    config = parts.resolve("datasets", {"kind": "image-folder", "root": str(pictures)})
    encoder_configs = [encoders.resolve(COLOURS), encoders.resolve("demo-clip")]
    return lambda: open_stores(
        config.build(Paths()), config, "train", encoder_configs, Paths()
    )


def test_a_finished_store_of_another_making_is_made_anew(
    run_command, home, pictures, network, embed_arguments, capsys
):
    run_command("embed", *embed_arguments)
    initial_array = np.array(open_store(home).embedding)
    write(network, 0, mean=[0.1, 0.2, 0.3])
    run_command("embed", *embed_arguments)
    assert (
        "was made with other preprocessing: it is embedded again"
        in capsys.readouterr().err
    )
    write(network, 1)
    run_command("embed", *embed_arguments)
    assert "was made with other preprocessing, weights" in capsys.readouterr().err
    assert not np.allclose(open_store(home).embedding, initial_array, atol=1e-2)
    assert np.allclose(
        open_store(home).embedding, directly(network, pictures), atol=1e-5
    )

    run_command("embed", *embed_arguments, "dtype=float16")
    assert open_store(home).attributes["dtype"] == "float16"
    assert "was made with other dtype" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [0, 1])
def test_an_unfinished_store_goes_on_with_the_same_weights_alone(
    run_command, home, pictures, network, embed_arguments, seed
):
    (broken := pictures / "concept_3" / "2.png").write_bytes(b"no picture")
    with pytest.raises(BrainhiveError, match="1 pictures cannot be decoded"):
        run_command("embed", *embed_arguments)
    with h5py.File(path(home).with_suffix(".h5.part")) as file:
        initial_embedding = file["embedding"][:11]
    write(network, seed)
    Image.new("RGB", (16, 16), (255, 0, 0)).save(broken)

    run_command("embed", *embed_arguments)

    assert np.array_equal(open_store(home).embedding[:11], initial_embedding) == (
        seed == 0
    )
    assert np.allclose(
        open_store(home).embedding, directly(network, pictures), atol=1e-5
    )


def test_stores_of_two_orders_are_refused_with_both_named(
    run_command, home, pictures, two_stores
):
    assert len(two_stores()) == 2
    with resealed(path(home, "demo-clip")) as file:
        file["image_id"][...] = file["image_id"][()][::-1]
    with pytest.raises(
        BrainhiveError,
        match=r"example\.h5 and .*demo-clip\.h5.* order",
    ):
        two_stores()
