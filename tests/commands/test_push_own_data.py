"""push of one's own recordings: nothing that tells of the person leaves home without a person's word."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mini_hub import brainhive, done, newest, two_lines
from own_recordings import CHANNELS, PICTURES, Shown, annotate, codes, make_raw, write_pictures, write_table
from safetensors.numpy import load_file
from worlds import at_home

from brainhive_cli.core.measurements import UNKNOWN_PICTURES
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.electrodes import are_standard
from brainhive_cli.training.alignment.learned import hashes_of
from brainhive_cli.training.alignment.sharing import cut_paths, find_private

mne = pytest.importorskip("mne")
CONFIRMED = ("--data-terms-checked", "--licence", "cc-by-nc-4.0")
NAME = "Jane"
LINES = ("--dataset", "image-folder", "--encoders", "demo-clip")
QUICK = ("train.epochs=2", "dim=16", "fuser.intermediate_size=16", "train.precision=fp32")
NORMALISED = ("signal.normalise=whiten", "signal.normalise_by=training_subjects")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with recordings of two people, whose caps were digitised, and whose files have their names."""
    with at_home(tmp_path_factory.mktemp("home")) as home:
        write_pictures(home / "data/image-folder")
        folder = home / "data/recordings"
        folder.mkdir(parents=True)
        for subject in (1, 2):
            shown = Shown.of(6, seed=subject)
            raw = annotate(make_raw(shown, seed=subject), shown, [str(code) for code in codes(shown)])
            raw.info["subject_info"] = {"first_name": NAME, "his_id": NAME}
            raw.set_montage(digitise(subject))
            raw.save(folder / f"sub-{subject:02d}_ses-01.fif", verbose="ERROR")
        write_table(folder / "events.csv")
        done("prepare", "--from", "recording")
        done("embed", *LINES)
        yield home


def digitise(subject: int) -> Any:
    """Place the electrodes as on a person's head: millimetres away from the template."""
    template = mne.channels.make_standard_montage("standard_1005").get_positions()
    moved = np.random.default_rng(subject).normal(scale=0.004, size=(len(CHANNELS), 3))
    places = {name: template["ch_pos"][name] + shift for name, shift in zip(CHANNELS, moved, strict=True)}
    fiducials = {name: template[name] for name in ("nasion", "lpa", "rpa")}
    return mne.channels.make_dig_montage(places, **fiducials, coord_frame="mri")


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    return done("train-align", *LINES, *QUICK, *NORMALISED)


def test_own_recordings_wait_for_a_person_s_word(hub: Any, run: Path) -> None:
    message, way = two_lines(brainhive("push", run.name, "hub:me/own"), 1)
    assert "own recordings" in message and "--data-terms-checked --licence" in way

    message, _ = two_lines(brainhive("push", run.name, "hub:me/own", "--data-terms-checked"), 2)
    assert message == "nothing says under which licence the weights are" and hub.requests == []


def test_what_tells_of_a_person_stays_at_home_and_is_said(hub: Any, run: Path, home: Path) -> None:
    pushed = brainhive("push", run.name, "hub:me/own", *CONFIRMED)
    assert pushed.exit_code == 0, pushed.stderr

    files, card = newest(hub, "me/own"), newest(hub, "me/own")["README.md"].decode()
    config = json.loads(files["cells/sub-01_seed-2025/model/config.json"])
    at_home = json.loads((run / "cells/sub-01_seed-2025/model/config.json").read_text())
    assert at_home["spec"]["positions"] and config["spec"]["positions"] is None
    assert {**config["spec"], "positions": 0} == {**at_home["spec"], "positions": 0}
    arrays = {name: value for name, value in arrays_of(files).items() if value.size}
    assert arrays == {} and arrays_at_home(run).keys() >= {"pictures", "whitener.1", "normaliser.1.matrix"}
    for sentence in ("digitised positions", "whiteners of subject 1, 2", "normalisers of subject 1, 2"):
        assert sentence in card and sentence in pushed.stderr
    assert "digests of the private pictures" in card

    # no byte of any file has the names of pictures, people and places, or a picture's digest
    hashes = [value.tobytes() for value in hashes_of("image-folder", PICTURES["train"])]
    private = [NAME.encode(), str(home).encode(), b"_ses-01", *map(str.encode, PICTURES["train"]), *hashes]
    for name, content in files.items():
        assert [word for word in private if word in content] == [], name


def arrays_of(files: dict[str, bytes]) -> dict[str, Any]:
    """Read the history of the first model that was pushed."""
    from safetensors.numpy import load

    return load(files["cells/sub-01_seed-2025/model/learned.safetensors"])


def arrays_at_home(run: Path) -> dict[str, Any]:
    return load_file(run / "cells/sub-01_seed-2025/model/learned.safetensors")


def test_the_loaded_model_has_the_metrics_of_the_one_at_home(hub: Any, run: Path) -> None:
    """Normalisers are measured again; only the caveat differs, which says what cannot be known any more."""
    brainhive("push", run.name, "hub:me/own", *CONFIRMED)

    own = RunFolder(done("eval-retrieval", str(run), "sheet_rows=0")).measurements().overall
    loaded = RunFolder(done("eval-retrieval", "hub:me/own", "sheet_rows=0")).measurements().overall

    assert {name: metric.value for name, metric in own.items()} == {
        name: metric.value for name, metric in loaded.items()
    }
    assert all(UNKNOWN_PICTURES in metric.caveats for metric in loaded.values())
    assert not any(UNKNOWN_PICTURES in metric.caveats for metric in own.values())


def test_a_person_may_confirm_positions_and_whiteners(hub: Any, run: Path) -> None:
    flags = (*CONFIRMED, "--with-positions", "--with-whiteners")
    assert brainhive("push", run.name, "hub:me/own", *flags).exit_code == 0

    files = newest(hub, "me/own")
    config = json.loads(files["cells/sub-01_seed-2025/model/config.json"])
    at_home = json.loads((run / "cells/sub-01_seed-2025/model/config.json").read_text())
    assert config["spec"] == at_home["spec"]
    shared = arrays_of(files)
    assert np.array_equal(shared["whitener.1"], arrays_at_home(run)["whitener.1"])
    assert not shared["pictures"].size  # which no flag shares


def test_positions_of_a_template_are_nobody_s() -> None:
    template = mne.channels.transform_to_head(mne.channels.make_standard_montage("standard_1005"))
    known = template.get_positions()["ch_pos"]
    places = [known[name].tolist() for name in CHANNELS]
    assert are_standard(CHANNELS, places)
    moved = [[x + 0.002, y, z] for x, y, z in places]
    assert not are_standard(CHANNELS, moved)
    assert not are_standard(["own"], [[0.0, 0.0, 0.1]])

    cap = mne.channels.transform_to_head(mne.channels.make_standard_montage("GSN-HydroCel-32"))
    on_cap = {name: place for name, place in cap.get_positions()["ch_pos"].items() if name.startswith("E")}
    names, places = [*on_cap], [place.tolist() for place in on_cap.values()]
    assert are_standard(names, places, "GSN-HydroCel-32") and not are_standard(names, places)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("read from /home/jane/data/x.fif here", "an absolute path (/home/jane/data/x.fif)"),
        ('{"root": "/data/study"}', "an absolute path (/data/study)"),
        ("~/study/x", "an absolute path (~/study/x)"),
        (r"C:\Users\jane\x.fif", r"an absolute path (C:\Users\jane\x.fif)"),
        ("ask jane.doe@uni.example.org", "an e-mail address (jane.doe@uni.example.org)"),
        ("signals of sub-jane", "a subject's name (sub-jane)"),
    ],
)
def test_a_text_that_names_a_person_or_a_place_is_found(text: str, what: str) -> None:
    assert what in [*find_private(text)]


@pytest.mark.parametrize(
    "text",
    [
        "top-1/top-5, 0 to 1000 ms, µV/√Hz, and/or, 1/f, n/a",
        "hub:owner/name@v1.rc1, hub:owner/name/vae@0123456789abcdef, demo:prior",
        "https://osf.io/3jk45 (recordings), s3://bucket/a/b, https://example.org/~lab/page.html",
        "runs/train-align/demo-intra-1/cells/sub-01_seed-2025/model, sub-10",
        "python:brainhive_cli.models.encoders.python:example",
    ],
)
def test_an_ordinary_text_is_no_alarm(text: str) -> None:
    assert [*find_private(text)] == [] and cut_paths(text) == text


def test_paths_are_cut_to_their_last_part(home: Path) -> None:
    document = {"/data/study/weights.pt": ["/home/jane/x", f"{home}/runs/a/b", "from /home/jane/x.fif on"]}
    assert cut_paths(document) == {"weights.pt": ["x", "runs/a/b", "from x.fif on"]}
