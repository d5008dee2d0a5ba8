"""Embeddings of other programs, imported into stores and exported again."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.runs.result import Result
from brainhive_cli.data.stores import TargetStore, target_store

B32 = "CLIP-ViT-B-32-laion2B-s34B-b79K"
VAE = "vae"
WIDTHS = {"clip-b32": 512, "vae": 1024, B32: 512, VAE: 1024}
Import = Callable[..., Result]


@pytest.fixture
def import_(run_command, things_home):
    """Import vectors of the small things-eeg (80 training and 12 test pictures)."""

    def run_import(
        source,
        *overrides,
        encoders="clip-b32",
        again=False,
    ):
        return run_command(
            "import-embeddings",
            f"sources=['{source}']",
            f"encoders={encoders}",
            *overrides,
            again=again,
        )

    return run_import


@pytest.fixture
def ids(things_home):
    root = things_home / "data/things-eeg"
    folders = {"train": root / "training_images", "test": root / "test_images"}
    return {
        split: [
            f.relative_to(root).with_suffix("").as_posix()
            for f in sorted(folder.rglob("*.png"))
        ]
        for split, folder in folders.items()
    }


@pytest.fixture
def unique(things_home, ids):
    """Give each picture a different file name, as THINGS does."""
    root = things_home / "data/things-eeg"
    renamed = {}
    for split, image_ids in ids.items():
        renamed[split] = []
        for image_id in image_ids:
            concept, number = image_id.split("/")[-2:]
            new_id = f"{image_id.rsplit('/', 1)[0]}/{split}_{concept}_{number}"
            (root / f"{image_id}.png").rename(root / f"{new_id}.png")
            renamed[split].append(new_id)
    return renamed


def vectors(count, seed=0, width=512):
    values = np.random.default_rng(seed).normal(size=(count, width)) + 0.5
    return values.astype(np.float32)


def stem(image_id):
    return image_id.rsplit("/", 1)[-1]


def write_parquet(path, names, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"image_id": names, "emb": [row.tolist() for row in values]})
    pyarrow.parquet.write_table(table, path, row_group_size=7)


def open_store(home, split="train", encoder="clip-b32"):
    return TargetStore.open(
        target_store.build_store_path(home / "embeddings", "things-eeg", split, encoder)
    )


def list_stored_files(home):
    """List the names of the files in the folder of stores."""
    return [path.name for path in (home / "embeddings").rglob("*") if path.is_file()]


@pytest.fixture
def cache(tmp_path, unique):
    """Write the public cache: stems of image ids, and two encoders in a folder."""
    folder = tmp_path / "cache" / "things-eeg"
    for seed, encoder in enumerate((B32, VAE)):
        for split, image_ids in unique.items():
            values = vectors(len(image_ids), seed, WIDTHS[encoder])
            middle = len(image_ids) // 2
            for part_number, rows in enumerate(
                (range(middle, len(image_ids)), range(middle))
            ):
                name = (
                    f"things_{split}_{encoder}-part-{part_number:05d}-of-00000.parquet"
                )
                write_parquet(
                    folder / name,
                    [stem(image_ids[row]) for row in rows],
                    values[list(rows)],
                )
    return folder


def test_a_collapsed_cache_is_imported_with_a_warning(
    import_, things_home, unique, tmp_path, capsys
):
    names = [stem(image_id) for image_ids in unique.values() for image_id in image_ids]
    write_parquet(
        tmp_path / f"things_train_{B32}-part-00000-of-00000.parquet",
        names,
        vectors(92) + 12,
    )

    result = import_(
        tmp_path / f"things_train_{B32}-part-00000-of-00000.parquet", "splits=train"
    )

    (warning,) = [
        line for line in capsys.readouterr().err.splitlines() if "health check" in line
    ]
    assert "0.7" in warning
    assert result.tables[0].rows[0][-1] == "failed"


def test_pictures_without_a_vector_are_refused_or_accepted(
    run_command, import_, things_home, ids, tmp_path, capsys
):
    torch.save(
        {name: torch.ones(512) for name in list(ids["train"][5:]) + ["elsewhere/x"]},
        tmp_path / "some.pt",
    )

    with pytest.raises(MissingData) as caught:
        import_(tmp_path / "some.pt")
    facts = ("things-eeg/train", "5 of 80", "training_images/concept_0/0")
    for fact in tuple(facts) + ("elsewhere/x",):
        assert fact in caught.value.message
    assert "--skip-missing" in caught.value.hint
    assert list_stored_files(things_home) == []

    import_(tmp_path / "some.pt", "skip_missing=true")
    store = open_store(things_home)
    assert store.find_rows(ids["train"][4:6]).tolist() == [-1, 5]
    assert store.attributes["skipped"] == 5
    (warning,) = [
        line for line in capsys.readouterr().err.splitlines() if "elsewhere/x" in line
    ]
    assert "things-eeg" in warning
    assert "1 of 76" in warning

    exported = run_command("export-embeddings", f"to={tmp_path / 'out'}").tables[0].rows
    assert exported[0][1] == 75


def test_the_same_import_is_found_again_and_another_is_refused(
    import_, things_home, ids, tmp_path
):
    path = tmp_path / "vectors.pt"
    torch.save(
        dict(zip(ids["train"], torch.from_numpy(vectors(80)), strict=True)), path
    )
    first_result = import_(path)
    inode = open_store(things_home).path.stat().st_ino
    assert import_(path).as_dict() == first_result.as_dict()
    assert open_store(things_home).path.stat().st_ino == inode

    torch.save(
        dict(zip(ids["train"], torch.from_numpy(vectors(80, seed=1)), strict=True)),
        path,
    )
    with pytest.raises(BrainhiveError) as caught:
        import_(path)
    assert "clip-b32.h5" in str(caught.value)
    assert "--again" in caught.value.hint
    import_(path, again=True)
    np.testing.assert_array_equal(
        open_store(things_home).embedding, vectors(80, seed=1)
    )


def test_dictionaries_of_vectors_with_ids_are_imported(
    import_, things_home, ids, tmp_path
):
    values = vectors(80)
    content = {
        "image_ids": [f"/far/away/{name}.jpg" for name in ids["train"]],
        "features": values,
    }
    np.save(tmp_path / "vectors.npy", content, allow_pickle=True)

    import_(tmp_path / "vectors.npy")

    np.testing.assert_array_equal(open_store(things_home).embedding, values)
    assert list_stored_files(things_home) == ["clip-b32.h5"]


@pytest.mark.parametrize(
    ("form", "encoder", "shape"),
    [("parquet", "clip-b32", (512,)), ("npy", "clip-b32:tokens", (4, 128))],
)
def test_an_export_comes_back_bit_by_bit(
    run_command, import_, things_home, ids, tmp_path, form, encoder, shape
):
    import_ = partial(import_, encoders=encoder)
    open_encoder_store = partial(open_store, encoder=encoder.replace(":", "-"))
    values = {
        split: vectors(len(image_ids)).reshape(-1, *shape)
        for split, image_ids in ids.items()
    }
    content = {
        name: torch.from_numpy(row)
        for split, image_ids in ids.items()
        for name, row in zip(image_ids, values[split], strict=True)
    }
    torch.save(content, tmp_path / "vectors.pt")
    import_(tmp_path / "vectors.pt")

    result = run_command(
        "export-embeddings", f"to={tmp_path / 'out'}", f"format={form}"
    )
    files = [Path(row[2]) for row in result.tables[0].rows]
    for split in ids:
        open_encoder_store(things_home, split).path.unlink()
    for file in (
        [tmp_path / "out"] if form == "parquet" else [file.parent for file in files]
    ):
        import_(file)

    for split, image_ids in ids.items():
        store = open_encoder_store(things_home, split)
        np.testing.assert_array_equal(store.embedding, values[split])
        assert store.image_ids == image_ids
    assert [file.suffix for file in files] == [f".{form}"] * 2
    assert not list(tmp_path.rglob("*.part"))


def test_files_that_are_no_vectors_are_refused(import_, things_home, ids, tmp_path):
    names = ids["train"]
    write_parquet(tmp_path / "cut.parquet", names, vectors(80))
    content = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:-20])
    file_of_vae = f"things_train_{VAE}-part-00000-of-00000.parquet"
    write_parquet(tmp_path / file_of_vae, names, vectors(80))
    (tmp_path / "notes.md").write_text("nothing")
    shapes = {name: torch.ones(512) for name in names} | {names[-1]: torch.ones(513)}
    torch.save(shapes, tmp_path / "shapes.pt")
    torch.save(torch.ones(80, 512), tmp_path / "array.pt")
    torch.save(dict.fromkeys(names, 1.0), tmp_path / "numbers.pt")

    facts = {
        "cut.parquet": r"cut\.parquet",
        file_of_vae: "clip-b32 .*things_train_vae",
        "notes.md": r"notes\.md",
        "shapes.pt": r"shapes\.pt.*shape",
        "array.pt": r"array\.pt .*80",
        "numbers.pt": r"numbers\.pt .*\[\]",
    }
    for name, fact in facts.items():
        with pytest.raises(BrainhiveError, match=fact):
            import_(tmp_path / name)
    assert list_stored_files(things_home) == []


def test_a_damaged_file_of_an_encoder_does_not_stop_others(
    import_,
    run_command,
    cache,
    things_home,
    capsys,
):
    damaged = next(cache.glob(f"things_train_{B32}-part-*"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    result = import_(f"{cache}/*.parquet", encoders="clip-b32,vae")
    assert result.exit_code != 0
    assert damaged.name in capsys.readouterr().err
    assert set(list_stored_files(things_home)) == {"vae.h5"}

    # a damaged store does not stop the export of the other store
    store = things_home / "embeddings/things-eeg/test/vae.h5"
    store.write_bytes(store.read_bytes()[:500])
    exported = run_command("export-embeddings", f"to={things_home / 'out'}")
    assert exported.exit_code != 0
    assert str(store.name) in capsys.readouterr().err
    assert len(exported.tables[0].rows) == 1
