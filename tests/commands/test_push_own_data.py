"""push of one's own recordings: nothing that tells of the person leaves home without a person's word."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mini_hub import brainhive, done, newest, two_lines
from own_recordings import CHANNELS, PICTURES, Shown, annotate, codes, make_raw, write_pictures, write_table
from safetensors.numpy import load_file
from worlds import at_home

from brainhive_cli.core.measurements import UNKNOWN_PICTURES
from brainhive_cli.core.private_texts import cut_paths, find_private
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.electrodes import are_standard
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials
from brainhive_cli.training.alignment.learned import Learned, hashes_of
from brainhive_cli.training.alignment.sharing import are_public, find_terms

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


@pytest.mark.parametrize("flags", [(), ("--with-whiteners",)])
def test_means_over_people_stay_too_as_several_give_each_person_s_back(
    hub: Any, home: Path, flags: tuple[str, ...]
) -> None:
    inter = done("train-align", *LINES, *QUICK, *NORMALISED, "--mode", "inter")
    assert brainhive("push", inter.name, "hub:me/own", *CONFIRMED, *flags).exit_code == 0

    names = {name for name, value in arrays_of(newest(hub, "me/own")).items() if value.size}
    assert (names == set()) == (flags == ()) and ("mean" in names) == (flags != ())
    card = newest(hub, "me/own")["README.md"].decode()
    assert ("the mean normaliser of subject 1, 2: new people" in card) == (flags == ())


def test_weights_that_are_a_person_s_mean_need_the_flag(hub: Any, home: Path) -> None:
    ridge = done("train-align", *LINES, "--backbone", "ridge", "subjects=1")
    message, way = two_lines(brainhive("push", ridge.name, "hub:me/own", *CONFIRMED), 1)
    assert "backbone.maps.1.mean are statistics of one person's recordings" in message
    assert "--with-whiteners" in way and hub.requests == []
    assert brainhive("push", ridge.name, "hub:me/own", *CONFIRMED, "--with-whiteners").exit_code == 0


@pytest.mark.parametrize(
    ("pictures", "recordings", "unknown"),
    [
        (("demo",), ("simulated",), ""),
        (("things-eeg",), ("things-eeg",), ""),
        (("things-eeg",), ("recording",), "own recordings prepared by recording"),
        (("demo",), ("recording", "simulated"), "own recordings prepared by recording"),
        (("things-eeg",), ("unknown",), "models of data of unknown origin"),
        (("things-eeg",), (), "models of data of unknown origin"),
        (("nsd",), ("nsd",), "models of nsd and recordings prepared by nsd"),
        (("things-eeg",), ("my_lab.reader",), "recordings prepared by my_lab.reader"),
        (("things-eeg",), ("simulated", "things-eeg"), ""),
        (("demo",), ("nsd",), "recordings prepared by nsd"),
        (("image-folder",), ("simulated",), "models of own data (image-folder)"),
        ((), ("things-eeg",), "models of data of unknown origin"),
    ],
)
def test_terms_follow_from_kinds_and_not_from_names(
    pictures: tuple[str, ...], recordings: tuple[str, ...], unknown: str
) -> None:
    """A folder of pictures may be called as a public data set is."""
    learned = Learned(
        *("last epoch", "things-eeg", "things-eeg", {"things-eeg": (1,)}, True),
        stimulus_kinds=pictures,
        recording_kinds=recordings,
    )
    assert find_terms(learned, is_prior=False)[1] == unknown
    assert are_public(learned) == (pictures not in ((), ("image-folder",)))


@pytest.mark.parametrize(
    ("provenance", "kinds"),
    [
        ({}, ("unknown",)),
        ({"simulated": "by a program"}, ("simulated",)),
        ({"preparation": {"kind": "things_eeg"}}, ("things-eeg",)),
        ({"preparation": {"kind": "recording"}, "sessions": [{}, {}]}, ("recording",)),
        ({"sessions": [{"simulated": "by a program"}, {}]}, ("simulated", "unknown")),
        ({"sessions": [{"preparation": {"kind": "bold"}}, {}]}, ("bold", "unknown")),
    ],
)
def test_a_recording_says_what_prepared_each_session(provenance: Any, kinds: tuple[str, ...]) -> None:
    signal, times = np.zeros((1, 1, 2, 3), np.float32), np.arange(3.0)
    recording = Trials(signal, ["a"], Sensors(("Cz", "Pz")), times, 1.0, "uV", provenance)
    assert recording.made_by == kinds


def test_a_history_is_as_unknown_as_its_least_known_part() -> None:
    known = Learned(
        "last epoch", has_all_subjects=True, stimulus_kinds=("demo",), recording_kinds=("simulated",)
    )
    own = replace(known, stimulus_kinds=("image-folder",), recording_kinds=("recording",))
    both = known.after(own)
    assert both.stimulus_kinds == ("demo", "image-folder") and not are_public(both)
    assert both.recording_kinds == ("recording", "simulated")
    assert known.after(Learned()).stimulus_kinds == () == known.after(Learned()).recording_kinds


def test_names_of_private_pictures_in_the_recipe_stop_a_push(hub: Any, run: Path, home: Path) -> None:
    copy = home / "runs/train-align/held"
    shutil.copytree(run, copy)
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    recipe["dataset"]["holdout"] = {"by": "pictures", "test": ["train/cat/cat_0"]}
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (copy / "SHA256SUMS").unlink()  # as whoever changes a run on purpose does

    message, way = two_lines(brainhive("push", "held", "hub:me/own", *CONFIRMED), 1)

    shutil.rmtree(copy)
    assert "dataset.holdout.test names private pictures (train/cat/cat_0)" in message and "folds" in way


def test_a_check_shows_files_and_card_to_who_has_to_confirm(hub: Any, run: Path) -> None:
    shown = brainhive("push", run.name, "hub:me/own", "--check", "--json")
    document = json.loads(shown.stdout)
    assert shown.exit_code == 3 and "own recordings" in document["missing"][0] and hub.requests == []
    upload, _, card, _ = document["tables"]
    assert {"item": "licence", "value": "none yet"} in upload["rows"] and card["title"].startswith("Card")


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
    assert are_standard(names, places)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("read from /home/jane/data/x.fif here", "an absolute path (/home/jane/data/x.fif)"),
        ('{"root": "/data/study"}', "an absolute path (/data/study)"),
        ("~/study/x", "an absolute path (~/study/x)"),
        (r"C:\Users\jane\x.fif", r"an absolute path (C:\Users\jane\x.fif)"),
        ("C:/Users/jane/x.fif", "an absolute path (C:/Users/jane/x.fif)"),
        (r"\\\\server\\jane", r"an absolute path (\\\\server\\jane)"),
        ("file:///home/jane/x", "an absolute path (file:///home/jane/x)"),
        ("x:/home/jane/y", "an absolute path (x:/home/jane/y)"),
        ("~jane/data", "an absolute path (~jane/data)"),
        ("../../jane/data", "an absolute path (../../jane/data)"),
        ("ask jane.doe@uni.example.org", "an e-mail address (jane.doe@uni.example.org)"),
        ("mailto:jane@uni.org", "an e-mail address (jane@uni.org)"),
        ("sub-01_jane", "a subject's name (sub-01_jane)"),
        (f"in {Path.home()} here", f"the folder of this user ({Path.home()})"),
        ("signals of sub-jane", "a subject's name (sub-jane)"),
        ("signals of Sub_Jane", "a subject's name (Sub_Jane)"),
        ("signals of sub-setareh", "a subject's name (sub-setareh)"),
        ("signals of sub\u2011jane", "a subject's name (sub-jane)"),
        ("signals of \uff53\uff55\uff42-jane", "a subject's name (sub-jane)"),
        ("signals of sub-j\u200bane", "a subject's name (sub-jane)"),
        ("sub%252Djane", "a subject's name (sub-jane)"),
        (r"sub-\u00e9lodie", "a subject's name (sub-élodie)"),
        ("sub-01jane", "a subject's name (sub-01jane)"),
        ("subject-jane", "a subject's name (subject-jane)"),
        ("participant jane", "a subject's name (participant jane)"),
        ("participant Jane was tired", "a subject's name (participant Jane)"),
        ('{"participant_id": "jane"}', 'a subject\'s name (participant_id": "jane)'),
        ("$HOME/study", "an absolute path ($HOME/study)"),
        ("${HOME}/study", "an absolute path (${HOME}/study)"),
        (r"%USERPROFILE%\study", r"an absolute path (%USERPROFILE%\study)"),
        ("FILE:///home/jane", "an absolute path (FILE:///home/jane)"),
        ("smb://nas/jane", "an absolute path (smb://nas/jane)"),
        ("//nas/jane/x", "an absolute path (//nas/jane/x)"),
        ('"/jane"', "an absolute path (/jane)"),
        ("%2Fhome%2Fjane%2Fx", "an absolute path (/home/jane/x)"),
        ("https://jane:secret@server/x", "a password, token or key (http…)"),
        ("https://server/x?a=1&token=abc", "a password, token or key (&tok…)"),
        ("hf_abcdefghijklmnopqrstuvwxyz", "a password, token or key (hf_a…)"),
        (f"wandb key: {'0123456789' * 4}", "a password, token or key (wand…)"),
        ("subjects: [jane, john]", "a subject's name (subjects: [jane)"),
        ('"participants": ["jane"]', 'a subject\'s name (participants": ["jane)'),
        ("subjects:\n- jane", "a subject's name (subjects: - jane)"),
        ("participants Jane and John", "a subject's name (participants Jane)"),
        ("study/subjects/jane/x", "a subject's name (subjects/jane)"),
        ("sub-01-jane", "a subject's name (sub-01-jane)"),
        ("subj01_jane", "a subject's name (subj01_jane)"),
        ("sub-01_tasja", "a subject's name (sub-01_tasja)"),
        ("sub-01_runa", "a subject's name (sub-01_runa)"),
        (r"$env:USERPROFILE\study", r"an absolute path ($env:USERPROFILE\study)"),
        (r"..\..\study", r"an absolute path (..\..\study)"),
        (r"\/home\/jane\/x", "an absolute path (/home/jane/x)"),
        ("github:/home/jane/x", "an absolute path (/home/jane/x)"),
        ("jane@nas:study/x", "an absolute path (jane@nas:study/x)"),
        ("jane (at) uni.example.org", "an e-mail address (jane (at) uni.example.org)"),
        ('"token": "0123456789abcdef"', "a password, token or key (toke…)"),
        ("access_token=abcdefgh", "a password, token or key (acce…)"),
        ("Bearer abcdefgh.ijklmnop", "a password, token or key (Bear…)"),
        ("pwd=hunter", "a password, token or key (pwd=…)"),
        ("subjects: [1, jane]", "a subject's name (subjects: [1, jane)"),
        ('subjects: ["1", "jane"]', 'a subject\'s name (subjects: ["1", "jane)'),
        ("subjects:\n- 1\n- jane", "a subject's name (subjects: - 1 - jane)"),
        ('subject: "jane"', "a subject's name (subject: \"jane)"),
        ("participant_name: jane doe", "a subject's name (participant_name: jane)"),
        (json.dumps({"note": "one\nsub-jane"}), "a subject's name (sub-jane)"),
        (json.dumps({"note": "see\n/home/jane/x"}), "an absolute path (/home/jane/x)"),
        (json.dumps(json.dumps({"participant": "jane"})), 'a subject\'s name (participant": "jane)'),
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
        "runs/train-align/demo-intra-1/cells/sub-01_seed-2025/model, sub-10, sub-01_ses-02_task-x",
        "sub-cortical regions, sub-threshold, sub-second coding, sub-samples",
        "subject_layer: none, 'subject_layers.0.weight', per subject, and subject index",
        'sub-sampled, sub_band, a sub-network, "subject": 1, subject: all',
        "python:brainhive_cli.models.encoders.python:example",
        "subject-specific, subject_adapters.1.weight, subj01-subj08, sub-08_fold-1, subjects: [1, 2]",
        '"token": "clip-h14", token: 1024, submarine, subject 3, participants, subject/session',
        "prompt: a photo of the subject standing, 8k",
        "models/final_subj01_pretrained_40sess_24bs/last.pth, sub-10Hz, sub-2mm, Subject Layer",
        f"&#{'9' * 5000}; a new subject too; subject matter.",
        "backbone.subject_proj.weight, subj_embed.weight, attn.sub_norm.weight, subject_film.bias",
        '"subject": "sub-08", subjects: [sub-01, sub-02]',
    ],
)
def test_an_ordinary_text_is_no_alarm(text: str) -> None:
    assert [*find_private(text)] == [] and cut_paths(text) == text


@pytest.mark.parametrize("text", ["wandb ", "eyJabcdefghij-", "subjects:\n\n", "a (at) ", "token: ", "../"])
def test_a_long_text_is_searched_in_linear_time(text: str) -> None:
    """Some 200 kB took minutes, where each word was compared with all behind it; the test would not end."""
    assert len([*find_private(text * (200_000 // len(text)))]) < 3


def test_the_token_of_this_user_is_found_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TOKEN", "correct-horse-battery")
    assert [*find_private("by correct-horse-battery.")] == ["a token of this user (…)"]


def test_paths_are_cut_to_their_last_part(home: Path) -> None:
    document = {"/data/study/weights.pt": ["/home/jane/x", f"{home}/runs/a/b", "from /home/jane/x.fif on"]}
    assert cut_paths(document) == {"weights.pt": ["x", "runs/a/b", "from x.fif on"]}
