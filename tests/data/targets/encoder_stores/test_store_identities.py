"""What identifies stores of targets, and the lines that make them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.datasets import image_folder
from brainhive_cli.data.stores import StorePlan, TargetStore, TargetWriter
from brainhive_cli.data.targets import (
    IDENTITIES,
    describe_health_problem,
    digest_of,
    find_encoder_config,
    find_encoders,
    holds_annotations,
    keep_identity,
    list_changed,
    open_alternatives,
    require_same_identities,
    write_embed_commands,
)
from brainhive_cli.data.targets.encoder_stores import (
    _describe_difference,
    identity_of,
    is_same_network,
)
from brainhive_cli.models.encoders import EncoderConfig, resolve

IDS = [f"p{number}" for number in range(20)]


def make(
    path,
    ids=IDS,
    number=20,
    shape=(4,),
    values=None,
    **fields,
):
    path.parent.mkdir(parents=True, exist_ok=True)
    StorePlan(path, ids, ids, shape, "float32", fields).create()
    writer = TargetWriter(path)
    if values is None:
        values = np.random.default_rng(0).normal(size=(20,) + tuple(shape))
    writer.write(np.arange(number), values[:number])
    writer.close()
    writer.finish()
    return TargetStore.open(path)


@pytest.mark.parametrize(
    ("names", "commands"),
    [
        ([], ["embed"]),
        (["clip-b32"], ["embed"]),
        (["clip-b32", "own:mine"], ["embed", "import-embeddings"]),
        (["own:mine"], ["import-embeddings"]),
    ],
)
def test_a_line_embeds_what_encoders_make_and_imports_the_rest(names, commands):
    encoders = [
        SimpleNamespace(kind="imported", name=name) if ":" in name else resolve(name)
        for name in names
    ]
    config = image_folder.Config(root="mine")
    lines = write_embed_commands(config, encoders).split(" && ")
    assert [line.split()[1] for line in lines] == commands
    assert ("clip-b32" in lines[0]) == ("clip-b32" in names)


def test_stores_of_other_stimuli_differ(tmp_path):
    stores = [
        make(tmp_path / "a.h5"),
        make(tmp_path / "b.h5", number=19),
        make(tmp_path / "c.h5", ids=IDS[::-1]),
        make(tmp_path / "d.h5", ids=list(IDS[:19]) + ["q"]),
    ]
    differences = [
        _describe_difference(stores[0], other_store) for other_store in stores
    ]
    assert differences[0] == ""
    assert len(set(differences)) == 4
    assert "gaps" in differences[1]
    assert "order" in differences[2]


@pytest.mark.parametrize(
    ("left_network", "right_network", "is_same"),
    [
        ({"network": "a"}, {"network": "a"}, True),
        ({"network": "a"}, {"network": "b"}, False),
        ({"network": "a"}, {"network": ""}, True),
        ({}, {"network": "b"}, True),
    ],
)
def test_networks_without_a_digest_are_any(left_network, right_network, is_same):
    assert (
        is_same_network(left_network, right_network)
        == is_same
        == is_same_network(right_network, left_network)
    )


MADE_BY = {"weights": {"digest": "w", "network": "n"}, "preprocessing": "p"}


def test_an_identity_says_what_made_a_store(tmp_path):
    store = make(tmp_path / "a.h5", **MADE_BY)
    identity = identity_of(store)
    assert identity.pop("content") == store.digest
    assert len(store.digest) == 16
    assert identity.pop("pictures") == store.image_ids.digest
    expected = {"weights": "w", "preprocessing": "p", "network": "n"}
    assert identity == {"store": str(store.path), **expected}
    assert digest_of(store) == "w"
    assert digest_of(make(tmp_path / "b.h5", **MADE_BY, latent_space="l")) == "l"
    assert digest_of(make(tmp_path / "c.h5", **MADE_BY, imported=["x"])) == "imported"


@pytest.mark.parametrize(
    ("fields", "is_refused"),
    [
        ({}, False),
        ({"preprocessing": "q"}, True),
        ({"weights": {"digest": "v", "network": "n"}}, True),
        ({"weights": {"digest": "w", "network": "m"}}, True),
        ({"weights": {"digest": "w"}}, False),
    ],
)
def test_a_run_goes_on_with_stores_of_the_same_making(tmp_path, fields, is_refused):
    folder = RunFolder(tmp_path)
    keep_identity(folder, {"a": make(tmp_path / "1/a.h5", **MADE_BY)})
    store = make(tmp_path / "3/a.h5", **{**MADE_BY, **fields})
    for call in (
        lambda: require_same_identities(folder, {"a": store}),
        lambda: keep_identity(folder, {"a": store}),
    ):
        if is_refused:
            with pytest.raises(BrainhiveError):
                call()
        else:
            call()
    require_same_identities(folder, {"b": store})


def test_pictures_count_when_a_run_is_resumed_alone(tmp_path):
    folder = RunFolder(tmp_path)
    keep_identity(folder, {"a": make(tmp_path / "1/a.h5", **MADE_BY)})
    other_store = make(tmp_path / "2/a.h5", ids=IDS[::-1], **MADE_BY)
    require_same_identities(folder, {"a": other_store})
    with pytest.raises(BrainhiveError):
        keep_identity(folder, {"a": other_store})


def test_changed_embeddings_are_listed(tmp_path):
    folder = RunFolder(tmp_path)
    store = make(tmp_path / "1/a.h5")
    assert list_changed(folder, {"a": store}) == []
    keep_identity(folder, {"a": store})
    changed = make(tmp_path / "2/a.h5", values=np.ones((20, 4)))
    assert list_changed(folder, {"a": store, "b": changed}) == []
    (line,) = list_changed(folder, {"a": changed})
    assert line.split() == [
        f"{changed.path}:",
        store.digest,
        "there,",
        changed.digest,
        "here",
    ]
    # older runs say nothing of the content
    (tmp_path / IDENTITIES).write_text(json.dumps({"a": {"weights": "w"}}))
    assert list_changed(folder, {"a": changed}) == []


def test_a_collapsed_store_is_reported_with_its_line(tmp_path):
    collapsed = make(tmp_path / "set/train/vae.h5", values=np.ones((20, 4)))
    assert describe_health_problem(make(tmp_path / "set/train/clip-b32.h5")) == ""
    line = describe_health_problem(collapsed)
    assert "collapsed" in line
    assert line.endswith(f"{collapsed.command_line} --again")
    sound = make(tmp_path / "set/train/dino.h5").health
    assert describe_health_problem(collapsed, sound) == ""
    imported = make(
        tmp_path / "set/train/b.h5", values=np.ones((20, 4)), imported=["x"]
    )
    assert "imported" in describe_health_problem(imported)
    assert "imported" not in line


def test_the_part_that_made_a_store_is_found(tmp_path):
    text = resolve("clip-b32")
    known_store = make(tmp_path / "a.h5", config=text.model_dump(mode="json"))
    assert find_encoder_config(known_store) is type(text)
    assert not holds_annotations(known_store)
    for config in ({}, {"kind": "of-later"}):
        assert (
            find_encoder_config(make(tmp_path / "b.h5", config=config)) is EncoderConfig
        )
    labels = make(tmp_path / "c.h5", config={"kind": "concepts", "count": 3})
    assert holds_annotations(labels)


def test_alternatives_are_of_the_same_stimuli_and_shape(tmp_path):
    folder, attributes = tmp_path / "embeddings/set/train", {"dataset": "set"}
    paths = Paths(embeddings=str(tmp_path / "embeddings"))
    stores = {"a": make(folder / "a.h5", split="train", **attributes)}
    make(folder / "b.h5")
    make(folder / "wide.h5", shape=(5,))
    make(folder / "gaps.h5", number=18)
    alternatives = open_alternatives({"a": ["b"]}, stores, paths)
    assert [store.path.stem for store in alternatives["a"]] == ["b"]
    for names in ({"a": ["wide"]}, {"a": ["gaps"]}, {"a": ["none"]}, {"x": ["b"]}):
        with pytest.raises(BrainhiveError):
            open_alternatives(names, stores, paths)


def test_keys_name_encoders_by_themselves_or_as_upstream_does():
    keys = ["vae", "CLIP-ViT-H-14-laion2B-s32B-b79K", "nobody's"]
    encoders = find_encoders(keys)
    assert {key: config.name for key, config in encoders.items()} == {
        keys[1]: "clip-h14",
        "vae": "vae",
    }
    assert list(encoders) == [keys[1], "vae"]
