"""Embeddings of other programs, imported into stores and exported again."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from numpy.typing import NDArray

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.runs.result import Result
from brainhive_cli.data.exchange import vectors as exchanged_vectors
from brainhive_cli.data.media.picture_digests import describe_pixels
from brainhive_cli.data.stores import TargetStore, target_store

B32, VAE = "CLIP-ViT-B-32-laion2B-s34B-b79K", "vae"
WIDTHS = {"clip-b32": 512, "vae": 1024, B32: 512, VAE: 1024}
Import = Callable[..., Result]


@pytest.fixture
def import_(run_command, things_home: Path) -> Import:
    """Import vectors of the small things-eeg (80 training and 12 test pictures)."""

    def run(
        source: Path | str,
        *overrides: str,
        encoders: str = "clip-b32",
        again: bool = False,
    ):
        named = f"sources=['{source}']", f"encoders={encoders}"
        return run_command("import-embeddings", *named, *overrides, again=again)

    return run


@pytest.fixture
def ids(things_home: Path) -> dict[str, list[str]]:
    root = things_home / "data/things-eeg"
    found = {"train": root / "training_images", "test": root / "test_images"}
    return {
        split: [
            f.relative_to(root).with_suffix("").as_posix()
            for f in sorted(folder.rglob("*.png"))
        ]
        for split, folder in found.items()
    }


@pytest.fixture
def unique(things_home: Path, ids: dict[str, list[str]]) -> dict[str, list[str]]:
    """Give each picture a different file name, as THINGS does."""
    root, renamed = things_home / "data/things-eeg", {}
    for split, of in ids.items():
        renamed[split] = []
        for image_id in of:
            concept, number = image_id.split("/")[-2:]
            new = f"{image_id.rsplit('/', 1)[0]}/{split}_{concept}_{number}"
            (root / f"{image_id}.png").rename(root / f"{new}.png")
            renamed[split].append(new)
    return renamed


def vectors(count: int, seed: int = 0, width: int = 512) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(count, width)) + 0.5
    return values.astype(np.float32)


def stem(image_id: str) -> str:
    return image_id.rsplit("/", 1)[-1]


def write_parquet(path: Path, names: list[str], values: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"image_id": names, "emb": [row.tolist() for row in values]})
    pyarrow.parquet.write_table(table, path, row_group_size=7)


def open_store(
    home: Path, split: str = "train", encoder: str = "clip-b32"
) -> TargetStore:
    return TargetStore.open(
        target_store.build_store_path(home / "embeddings", "things-eeg", split, encoder)
    )


def list_stored_files(home: Path) -> list[str]:
    """List the names of the files in the folder of stores."""
    return [path.name for path in (home / "embeddings").rglob("*") if path.is_file()]


@pytest.fixture
def cache(tmp_path: Path, unique: dict[str, list[str]]) -> Path:
    """Write the public cache: stems of image ids, and two encoders in one folder."""
    folder = tmp_path / "cache" / "things-eeg"
    for seed, encoder in enumerate((B32, VAE)):
        for split, of in unique.items():
            values, half = vectors(len(of), seed, WIDTHS[encoder]), len(of) // 2
            for part, rows in enumerate((range(half, len(of)), range(half))):
                name = f"things_{split}_{encoder}-part-{part:05d}-of-00000.parquet"
                write_parquet(
                    folder / name, [stem(of[row]) for row in rows], values[list(rows)]
                )
    return folder


def test_all_encoders_of_a_command_read_each_picture_once(
    import_, cache, things_home, monkeypatch
):
    described = []

    def describe(picture):
        described.append(picture)
        return describe_pixels(picture)

    monkeypatch.setattr(exchanged_vectors, "describe_pixels", describe)
    import_(cache / "things_test_*.parquet", encoders="clip-b32,vae")
    clip, vae = (open_store(things_home, "test", name) for name in ("clip-b32", "vae"))
    assert len(described) == len(clip.image_ids) == 12
    assert clip.pixels.all(1).any() and np.array_equal(clip.pixels, vae.pixels)


@pytest.mark.nightly
def test_the_public_cache_is_imported_and_exported_unchanged(
    run_command, import_, cache, things_home, unique, tmp_path
):
    import_(cache / "things_test_*.parquet")  # a pattern chooses among files
    assert (
        list_stored_files(things_home) == ["clip-b32.h5"]
        and len(open_store(things_home, "test").done) == 12
    )

    result = import_(cache, encoders="clip-b32,vae", again=True)

    for seed, encoder in enumerate(("clip-b32", "vae")):
        for split, of in unique.items():
            found = open_store(things_home, split, encoder)
            assert found.image_ids == of and found.done.all()
            np.testing.assert_array_equal(
                found.embedding, vectors(len(of), seed, WIDTHS[encoder])
            )
    assert found.attributes["weights"]["source"] == "imported: parquet"
    assert (
        found.attributes["config"]["kind"] == "vae"
        and found.attributes["split"] == "test"
    )
    assert [row[-1] for row in result.tables[0].rows] == ["passed"] * 4

    run_command("export-embeddings", f"to={tmp_path / 'out'}")
    read = pyarrow.parquet.read_table(
        tmp_path / "out" / f"things-eeg_test_{B32}-part-00000-of-00000.parquet"
    )
    assert read["image_id"].to_pylist() == [
        stem(image_id) for image_id in unique["test"]
    ]
    assert read["emb"].to_pylist() == vectors(12).tolist()


def test_a_collapsed_cache_is_imported_with_a_warning(
    import_, things_home, unique, tmp_path, capsys
):
    names = [stem(image_id) for of in unique.values() for image_id in of]
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
        {name: torch.ones(512) for name in [*ids["train"][5:], "elsewhere/x"]},
        tmp_path / "some.pt",
    )

    with pytest.raises(MissingData) as caught:
        import_(tmp_path / "some.pt")
    facts = ("things-eeg/train", "5 of 80", "training_images/concept_0/0")
    for fact in (*facts, "elsewhere/x"):
        assert fact in caught.value.message
    assert "--skip-missing" in caught.value.hint
    assert list_stored_files(things_home) == []

    import_(tmp_path / "some.pt", "skip_missing=true")
    found = open_store(things_home)
    assert (
        found.find_rows(ids["train"][4:6]).tolist() == [-1, 5]
        and found.attributes["skipped"] == 5
    )
    (warning,) = [
        line for line in capsys.readouterr().err.splitlines() if "elsewhere/x" in line
    ]
    assert "things-eeg" in warning and "1 of 76" in warning

    exported = run_command("export-embeddings", f"to={tmp_path / 'out'}").tables[0].rows
    assert exported[0][1] == 75


def test_the_same_import_is_found_again_and_another_is_refused(
    import_, things_home, ids, tmp_path
):
    path = tmp_path / "vectors.pt"
    torch.save(
        dict(zip(ids["train"], torch.from_numpy(vectors(80)), strict=True)), path
    )
    first = import_(path)
    inode = open_store(things_home).path.stat().st_ino
    assert (
        import_(path).as_dict() == first.as_dict()
        and open_store(things_home).path.stat().st_ino == inode
    )

    torch.save(
        dict(zip(ids["train"], torch.from_numpy(vectors(80, seed=1)), strict=True)),
        path,
    )
    with pytest.raises(BrainhiveError) as caught:
        import_(path)
    assert "clip-b32.h5" in str(caught.value) and "--again" in caught.value.hint
    import_(path, again=True)
    np.testing.assert_array_equal(
        open_store(things_home).embedding, vectors(80, seed=1)
    )


@pytest.mark.parametrize("ending", [".pt", ".npy"])
def test_dictionaries_of_vectors_with_ids_are_imported(
    import_, things_home, ids, tmp_path, ending
):
    of, values, path = ids["train"], vectors(80), tmp_path / f"vectors{ending}"
    if ending == ".pt":
        torch.save(
            {
                name: torch.from_numpy(row[None])
                for name, row in zip(of, values, strict=True)
            },
            path,
        )
    else:
        content = {
            "image_ids": [f"/far/away/{name}.jpg" for name in of],
            "features": values,
        }
        np.save(path, content, allow_pickle=True)

    import_(path)

    np.testing.assert_array_equal(open_store(things_home).embedding, values)
    assert list_stored_files(things_home) == ["clip-b32.h5"]


def test_thingsvision_s_output_folder_is_imported_also_in_parts(
    import_, things_home, ids, tmp_path
):
    folder, values = tmp_path / "features", vectors(80)
    folder.mkdir()
    order = np.random.default_rng(1).permutation(80)
    names = [f"/data/things/{ids['train'][row]}.png" for row in order]
    (folder / "file_names.txt").write_text("".join(f"{name}\n" for name in names))
    for part, rows in enumerate(np.array_split(order, 11), start=1):
        np.save(folder / f"features_{part:02d}.npy", values[rows])
    import_(folder)
    np.testing.assert_array_equal(open_store(things_home).embedding, values)


@pytest.mark.parametrize(
    ("form", "encoder", "shape"),
    [("parquet", "clip-b32", (512,)), ("npy", "clip-b32:tokens", (4, 128))],
)
def test_an_export_comes_back_bit_by_bit(
    run_command, import_, things_home, ids, tmp_path, form, encoder, shape
):
    import_, opened = (
        partial(import_, encoders=encoder),
        partial(open_store, encoder=encoder.replace(":", "-")),
    )
    values = {split: vectors(len(of)).reshape(-1, *shape) for split, of in ids.items()}
    content = {
        name: torch.from_numpy(row)
        for split, of in ids.items()
        for name, row in zip(of, values[split], strict=True)
    }
    torch.save(content, tmp_path / "vectors.pt")
    import_(tmp_path / "vectors.pt")

    result = run_command(
        "export-embeddings", f"to={tmp_path / 'out'}", f"format={form}"
    )
    files = [Path(row[2]) for row in result.tables[0].rows]
    for split in ids:
        opened(things_home, split).path.unlink()
    for file in (
        [tmp_path / "out"] if form == "parquet" else [file.parent for file in files]
    ):
        import_(file)

    for split, of in ids.items():
        found = opened(things_home, split)
        np.testing.assert_array_equal(found.embedding, values[split])
        assert found.image_ids == of
    assert [file.suffix for file in files] == [f".{form}"] * 2 and not list(
        tmp_path.rglob("*.part")
    )


def test_files_that_are_no_vectors_are_refused(import_, things_home, ids, tmp_path):
    names = ids["train"]
    write_parquet(tmp_path / "cut.parquet", names, vectors(80))
    content = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:-20])
    other = f"things_train_{VAE}-part-00000-of-00000.parquet"
    write_parquet(tmp_path / other, names, vectors(80))
    (tmp_path / "notes.md").write_text("nothing")
    shapes = {name: torch.ones(512) for name in names} | {names[-1]: torch.ones(513)}
    torch.save(shapes, tmp_path / "shapes.pt")
    torch.save(torch.ones(80, 512), tmp_path / "array.pt")
    torch.save(dict.fromkeys(names, 1.0), tmp_path / "numbers.pt")

    facts = {
        "cut.parquet": r"cut\.parquet",
        other: "clip-b32 .*things_train_vae",
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
    import_: Import,
    run_command: Callable[..., Result],
    cache: Path,
    things_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
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
    assert exported.exit_code != 0 and str(store.name) in capsys.readouterr().err
    assert len(exported.tables[0].rows) == 1
