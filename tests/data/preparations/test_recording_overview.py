"""What `prepare` shows of own recordings before it prepares them: channels, positions, counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_recordings import CHANNELS, PICTURES, RATE_HZ, Shown, annotate, make_raw, write_pictures

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._recording_channels import interpolate_bad
from brainhive_cli.data.preparations.recording import Config, Own
from brainhive_cli.data.stores.ids import spans
from brainhive_cli.data.stores.recordings import SignalStore

mne = pytest.importorskip("mne")
MORE = ("F3", "F4", "C3", "C4", "P3", "P4", "T7", "T8")
"""Electrodes beyond those of `own_recordings`, so that a head can be fitted to all."""


@pytest.fixture
def folder(home: Path) -> Path:
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir()
    return home / "data/recordings"


def record(
    folder: Path,
    subject: int = 1,
    session: int = 1,
    kind: str = "fif",
    more: dict[str, float] = {},  # noqa: B006 (read only)
    bads: tuple[str, ...] = (),
    pictures: tuple[str, ...] = (),
    names: tuple[str, ...] = CHANNELS,
) -> Any:
    """Save a recording; `more` has further channels of noise of so many microvolts."""
    shown = Shown.of(2, session)
    raw = annotate(make_raw(shown, 10 * subject + session), shown, list(pictures or shown.pictures))
    if more:
        random = np.random.default_rng(subject)
        noise = np.array([[size] for size in more.values()]) * random.normal(size=(len(more), raw.n_times))
        info = mne.create_info(list(more), RATE_HZ, "eeg")
        raw.add_channels([mne.io.RawArray(noise * 1e-6, info, verbose="ERROR")], force_update_info=True)
    raw.info["bads"] = list(bads)
    raw.rename_channels(dict(zip(CHANNELS, names, strict=True)))
    path = folder / f"sub-{subject:02d}_ses-{session:02d}.{kind}"
    if kind == "fif":
        raw.save(path, overwrite=True, verbose="ERROR")
    else:
        mne.export.export_raw(path, raw, verbose="ERROR")
    return raw


def build(**knobs: Any) -> Own:
    return Config(**knobs).build(Paths())


@pytest.mark.parametrize("kind", ("edf", "set", "vhdr"))
def test_what_is_no_eeg_or_not_alive_is_named_with_the_line_that_leaves_it_out(
    folder: Path, kind: str
) -> None:
    more = {"VEOG": 30, "ECG1": 10, "EMG": 10, "Marker": 10, "X9": 10, "Oz": 0, "POz": 200}
    record(folder, kind=kind, more=more)
    overview = build().look_over((1,))
    file = f"sub-01_ses-01.{kind}"
    assert overview.warnings[:3] == (
        "subject 1: VEOG, ECG1, EMG, Marker: EEG by the file, but not by name",
        "subject 1: X9: no electrode of the 10-05 system has that name",
        f"subject 1: Oz is flat in {file}",
    )
    (noisy,) = overview.warnings[3:]
    times = int(noisy.removeprefix("subject 1: POz has ").partition(" times the median variance")[0])
    assert 200 < times < 600  # (200 / 10)² = 400
    override = "'preparation.exclude=[VEOG,ECG1,EMG,Marker,X9,Oz,POz]'"
    assert overview.way.startswith(f"{override} leaves them out")
    after = build(exclude=[*more]).look_over((1,))
    assert after.warnings == () and after.way == ""
    assert after.tables[0].rows[0][3:6] == (6, "–", "10-05, by name")


def test_the_types_bads_and_positions_of_channels_are_shown(folder: Path) -> None:
    for subject in (1, 2, 4):
        record(folder, subject)
        record(folder, subject, 2, bads=("Pz",))
    record(folder, 3, more={"Q": 10})
    channels = build().look_over((1, 2, 3, 4)).tables[0].rows
    names = " ".join(CHANNELS)
    assert channels == (
        ("1–2, 4", "eeg", 6, 5, "Pz (in 1 of 2 files)", "10-05, by name", names),
        ("3", "eeg", 7, 7, "–", "none, without Q", f"{names} Q"),
    )


def test_a_session_that_shows_pictures_unlike_the_others_is_named(folder: Path) -> None:
    record(folder, session=1)
    often, never = PICTURES["train"][:2]
    shown = list(Shown.of(2, 2).pictures)
    replaced = tuple(often if name in (never, *PICTURES["train"][2:5]) else name for name in shown)
    record(folder, session=2, pictures=replaced)
    record(folder, session=3)
    overview = build().look_over((1,))
    assert overview.tables[1].rows == (
        ("1", "1, 3", "train", "6 of 6", "2"),
        ("1", "1–3", "test", "2 of 2", "2"),
        ("1", "2", "train", "2 of 6", "2 to 10, mostly 6"),
    )
    lines = [line for line in overview.warnings if "ses-" in line]
    assert lines == [
        f"subject 1: ses-02 shows train pictures 2 to 10 times, where 2 is usual: {often} 10",
    ]


def test_a_picture_that_a_session_left_out_is_named(folder: Path) -> None:
    record(folder, session=1)
    often, never = PICTURES["train"][:2]
    replaced = tuple(often if name == never else name for name in Shown.of(2, 2).pictures)
    record(folder, session=2, pictures=replaced)
    (line,) = build().look_over((1,)).warnings
    assert line == f"subject 1: ses-02 shows train pictures 0 to 4 times, where 2 is usual: {never} 0"


@pytest.mark.parametrize("numbers", (([3, 1, 2, 7], "1–3, 7"), ([5], "5"), ([1, 2], "1–2")))
def test_numbers_are_written_as_spans(numbers: tuple[list[int], str]) -> None:
    assert spans(numbers[0]) == numbers[1]


def test_subjects_with_different_bad_channels_are_told_and_made_equal_by_the_line_given(
    folder: Path, go: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(folder, 1, bads=("Pz",))
    record(folder, 2, bads=("O1",))
    record(folder, 3, bads=("O1",))
    go("prepare", "preparation.kind=recording")
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "subjects keep different channels, and cannot be trained together: "
        "subject 1 lacks Pz; subject 2–3 lacks O1" in said
    )
    override = "preparation.exclude=[O1,Pz]"
    assert f"try: '{override}' leaves them out; preparation.interpolate=true keeps those" in said
    go("prepare", "preparation.kind=recording", override, "name=equal")
    assert "cannot be trained together" not in capsys.readouterr().err
    stores = sorted((home / "signals/image-folder/equal").glob("sub-*.h5"))
    names = {tuple(SignalStore.open(path)["train"].space.names) for path in stores}
    assert len(stores) == 3 and names == {("Fp1", "Cz", "P7", "O2")}


def test_channels_in_another_order_are_put_in_order_by_the_line_given(folder: Path) -> None:
    record(folder, 1)
    raw = record(folder, 2)
    raw.reorder_channels([*CHANNELS[::-1]]).save(
        folder / "sub-02_ses-01.fif", overwrite=True, verbose="ERROR"
    )
    overview = build().look_over((1, 2))
    assert "different orders" in overview.warnings[0]
    assert overview.way.startswith(f"'preparation.channels=[{','.join(CHANNELS)}]'")
    assert build(channels=CHANNELS).look_over((1, 2)).warnings == ()


def test_bad_channels_are_interpolated_as_mne_interpolates_the_recording(folder: Path) -> None:
    raw = record(folder, more=dict.fromkeys(MORE, 10.0), bads=("Pz", "C3"))
    interpolated = build(interpolate=True, whiten="no").session(1, 1)["train"]
    left_out = build(whiten="no").session(1, 1)["train"]
    assert interpolated.space.names == (*CHANNELS, *MORE) and len(left_out.space.names) == 12
    assert interpolated.provenance["interpolated"] == {"sub-01_ses-01.fif": ["Pz", "C3"]}

    raw.set_montage("standard_1005", verbose="ERROR").interpolate_bads(verbose="ERROR")
    raw.save(folder / "sub-02_ses-01.fif", verbose="ERROR")
    expected = build(whiten="no").session(2, 1)["train"].signal
    np.testing.assert_allclose(
        interpolated.signal, expected, atol=1e-3
    )  # µV, of 10: files of single precision
    assert np.abs(interpolated.signal[:, 0, 3]).max() > 1


def test_interpolated_channels_are_whitened_with_the_others(folder: Path, home: Path, go: Any) -> None:
    for subject, bad in ((1, "Pz"), (2, "C3")):
        record(folder, subject, more=dict.fromkeys(MORE, 10.0), bads=(bad,))
    go("prepare", "preparation.kind=recording", "preparation.interpolate=true")
    for subject in (1, 2):
        train = SignalStore.open(home / f"signals/image-folder/default/sub-{subject:02d}.h5")["train"]
        assert train.space.names == [*CHANNELS, *MORE] and np.isfinite(train.signal).all()
        assert np.abs(train.signal).max() < 20  # noise has a standard deviation of 1


@pytest.mark.parametrize(
    ("more", "types", "message"),
    (
        ({"Q": 10.0}, None, "no position is known of Q"),
        ({}, ["misc"], "only EEG is interpolated, not Pz"),
    ),
)
def test_what_cannot_be_interpolated_is_refused_by_the_plan(
    folder: Path, more: dict[str, float], types: list[str] | None, message: str
) -> None:
    raw = record(folder, more=more, bads=("Pz",))
    if types:
        raw.set_channel_types(dict.fromkeys(CHANNELS, "misc"), verbose="ERROR")
        raw.save(folder / "sub-01_ses-01.fif", overwrite=True, verbose="ERROR")
    with pytest.raises(BrainhiveError, match=message) as error:
        build(interpolate=True, types=types).shapes(1, 1)
    assert "preparation.interpolate=false" in error.value.hint


def test_trials_are_interpolated_around_the_centre_of_the_head_as_mne_does() -> None:
    """Expected: mne's own interpolation of the same signals, in double precision."""
    names, signal = CHANNELS + MORE, np.random.default_rng(0).normal(size=(len(CHANNELS + MORE), 40))
    info = mne.create_info(list(names), 100, "eeg").set_montage("standard_1005")
    info["bads"] = ["Pz", "C3"]
    places = np.array([channel["loc"][:3] for channel in info["chs"]])
    is_bad = np.isin(names, info["bads"])
    whole = interpolate_bad(signal[None, ~is_bad].astype(np.float32), names, info["bads"], places)
    expected = mne.io.RawArray(signal, info, verbose="ERROR").interpolate_bads(verbose="ERROR").get_data()
    np.testing.assert_allclose(whole[0], expected, atol=1e-5)


def test_positions_that_are_no_head_are_refused_by_name() -> None:
    epochs = np.ones((1, 5, 3), np.float32)
    with pytest.raises(BrainhiveError, match="the positions of 6 channels do not lie on a head"):
        interpolate_bad(epochs, ["a", "b", "c", "d", "e", "f"], ["f"], np.zeros((6, 3)))


def test_the_command_and_its_check_show_the_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from brainhive_cli.app import app

    record(folder, more={"EOG": 10})
    for words in (["--check"], []):
        ended = CliRunner().invoke(app, ["prepare", "--from", "recording", *words])
        assert ended.exit_code == 0, ended.stderr
        assert "Channels\n" in ended.stdout and "Pictures that were shown\n" in ended.stdout
        assert "Fp1 Cz P7 Pz O1 O2 EOG" in " ".join(ended.stdout.split())
        assert "warning: subject 1: EOG: EEG by the file, but not by name" in ended.stderr
        assert "  try: 'preparation.exclude=[EOG]' leaves them out" in ended.stderr


def test_names_that_differ_in_case_or_by_what_edf_writes_around_them_are_one(folder: Path) -> None:
    record(folder, 1)
    record(folder, 2, names=("EEG FP1-REF", "CZ", "P7.", "EEG pz", "O1", "O2-LE"))
    own = build(exclude=["EEG O1-REF"])
    overview = own.look_over((1, 2))
    assert not overview.warnings and not overview.way
    recordings = [own.session(subject, 1)["train"] for subject in (1, 2)]
    assert [recording.space.names for recording in recordings] == [("Fp1", "Cz", "P7", "Pz", "O2")] * 2
    assert recordings[1].space.positions is not None


def test_inputs_of_an_amplifier_become_the_electrodes_of_the_cap_that_is_named(folder: Path) -> None:
    record(folder, names=("A1", "A2", "A3", "A4", "B1", "B2"))
    plain = build().look_over((1,))
    assert "called by inputs of BioSemi's amplifier: preparation.montage=biosemi64" in plain.warnings[0]
    assert build().session(1, 1)["train"].space.positions is None  # A1 is no ear here

    space = build(montage="biosemi64").session(1, 1)["train"].space
    assert space.names == ("Fp1", "AF7", "AF3", "F1", "Fpz", "Fp2")
    positions = mne.channels.make_standard_montage("biosemi64").get_positions()["ch_pos"]
    heights = [positions[name][2] for name in space.names]
    assert np.argsort(space.positions[:, 2]).tolist() == np.argsort(heights).tolist()

    with pytest.raises(BrainhiveError, match=r"preparation\.montage is 'biosemi6'") as caught:
        build(montage="biosemi6").shapes(1, 1)
    assert "did you mean biosemi" in caught.value.hint


def test_channels_are_renamed_as_the_recipe_says_and_never_two_to_one_name(folder: Path) -> None:
    record(folder, 1)
    record(folder, 2, names=("Fp1", "Cz", "T5", "Pz", "O1", "O2"))
    own = build(rename={"T5": "P7"})
    assert not own.look_over((1, 2)).warnings
    assert own.session(2, 1)["train"].space.names == CHANNELS

    with pytest.raises(BrainhiveError, match="would have two channels Cz"):
        build(rename={"Pz": "Cz"}).shapes(1, 1)


def test_no_exclusion_is_suggested_that_takes_more_than_a_third_of_the_channels(folder: Path) -> None:
    record(folder, 1)
    record(folder, 2, names=("F1", "F2", "F3", "Pz", "O1", "O2"))
    overview = build().look_over((1, 2))
    assert "subject 1 lacks F1 F2 F3; subject 2 lacks Fp1 Cz P7" in overview.warnings[-1]
    assert "exclude" not in overview.way and overview.way.startswith("preparation.rename={")

    record(folder, 2, names=("F1", "Cz", "P7", "Pz", "O1", "O2"))
    assert build().look_over((1, 2)).way.startswith("'preparation.exclude=[Fp1,F1]'")


def test_eeg_of_no_brain_s_size_is_told(folder: Path) -> None:
    raw = record(folder)
    raw.apply_function(lambda volts: volts * 1e6).save(
        folder / "sub-01_ses-01.fif", overwrite=True, verbose="ERROR"
    )
    assert any("µV: in another unit" in line for line in build().look_over((1,)).warnings)
