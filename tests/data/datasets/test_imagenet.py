"""ImageNet-1k in the layouts in which it is distributed, with a few small pictures."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.datasets.imagenet import Config

TENCH, GOLDFISH = "n01440764", "n01443537"
"""The first two classes: labels 0 and 1."""
FOLDER = {"train": "train", "validation": "val", "test": "test"}


def jpeg(seed):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "jpeg")
    return file.getvalue()


CONTENT = {
    "train": [
        (f"{TENCH}_10026", TENCH),
        (f"{TENCH}_9", TENCH),
        (f"{GOLDFISH}_18", GOLDFISH),
    ],
    "validation": [
        ("ILSVRC2012_val_00000262", GOLDFISH),
        ("ILSVRC2012_val_00000293", TENCH),
    ],
    "test": [("ILSVRC2012_test_00000001", None), ("ILSVRC2012_test_00000002", None)],
}
"""Name and class of each picture by split. Test pictures have no class."""
BYTES = {
    name: jpeg(n)
    for n, name in enumerate(name for some in CONTENT.values() for name, _ in some)
}


def write_folders(root):
    for split, pictures in CONTENT.items():
        for name, class_name in pictures:
            path = root / FOLDER[split] / (class_name or "") / f"{name}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(BYTES[name])


def make_rows(split):
    """Make the rows of ILSVRC/imagenet-1k, whose names end in the class."""
    label = {TENCH: 0, GOLDFISH: 1, None: -1}
    return [
        {
            "image": {
                "bytes": BYTES[name],
                "path": f"{name}_{image_names}.JPEG" if image_names else f"{name}.JPEG",
            },
            "label": label[image_names],
        }
        for name, image_names in CONTENT[split]
    ]


def write_rows(path, rows):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow reads parquet files")
    path.parent.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("pyarrow.parquet").write_table(
        pyarrow.Table.from_pylist(rows), path, row_group_size=2
    )
    return path


def write_parquet(root):
    for split in CONTENT:
        write_rows(root / f"data/{split}-00000-of-00001.parquet", make_rows(split))


WRITE = {
    "folder": write_folders,
    "parquet": write_parquet,
}


@pytest.fixture
def root(home):
    return home / "data/imagenet"


@pytest.fixture(params=WRITE)
def written_form(request, root):
    WRITE[request.param](root)
    yield request.param


def imagenet(**knobs):
    return Config(**knobs).build(Paths())


def test_every_form_gives_the_same_pictures_names_and_classes(root, written_form):
    dataset = imagenet()
    assert dataset.splits == ("train", "validation", "test")
    folder_override = {"folder": f"train/{TENCH}/"}.get(written_form, "")
    assert dataset.images("train").image_ids[0] == f"{folder_override}{TENCH}_10026"
    assert pickle.loads(pickle.dumps(dataset.images("train").open))(2).size == (12, 8)
    for split, pictures in CONTENT.items():
        images = dataset.images(split)
        stems = [image_id.rsplit("/", 1)[-1] for image_id in images.image_ids]
        concepts = dict(zip(stems, images.concepts, strict=True))
        assert concepts == {name: class_name or name for name, class_name in pictures}
        for index, name in enumerate(stems):
            with Image.open(io.BytesIO(BYTES[name])) as picture:
                assert images.open(index).tobytes() == picture.tobytes()


def test_a_split_in_two_forms_is_refused(root):
    write_folders(root)
    write_parquet(root)
    problem = "train .*parquet and .*data/imagenet/train"
    with pytest.raises(MissingData, match=problem):
        imagenet().images("train")


def test_a_parquet_file_without_sound_pictures_is_refused(
    root,
):
    path = write_rows(root / "train-0.parquet", make_rows("train"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BrainhiveError, match=r"train-0\.parquet") as caught:
        imagenet().images("train")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    write_rows(path, [{"emb": 0.5, "image_id": "a"}])
    with pytest.raises(BrainhiveError, match="emb, image_id"):
        imagenet().images("train")
    for shard in range(2):
        write_rows(root / f"train-{shard}.parquet", make_rows("train"))
    with pytest.raises(BrainhiveError, match=rf"'{TENCH}_10026'"):
        imagenet().images("train")


def test_an_absent_split_is_named_with_its_folder(root):
    with pytest.raises(MissingData, match=r"train .*data/imagenet") as caught:
        imagenet().images("train")
    assert caught.value.hint == "brainhive fetch imagenet"
    with pytest.raises(MissingData, match="'dev'"):
        imagenet().images("dev")
