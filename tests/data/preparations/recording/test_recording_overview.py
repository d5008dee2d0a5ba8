"""Overview of recordings before they are prepared: channels, positions and counts."""

import re

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.recording import Config
from brainhive_cli.data.recordings import list_recordings
from brainhive_cli.data.signals.spaces import find_channel_rows
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.worlds.own_recordings import (
    CHANNELS,
    RATE_HZ,
    Presentation,
    annotate,
    make_raw,
)

mne = pytest.importorskip("mne")
TIMES_S = np.arange(50) / 100


def record(
    folder,
    subject=1,
    session=1,
    kind="fif",
    noise_uv=None,
    bads=(),
    names=CHANNELS,
):
    """Save a recording of all pictures, each shown twice.

    Args:
        folder: Folder of recordings.
        subject: Number of the subject.
        session: Number of the session.
        kind: Ending of the file.
        noise_uv: Standard deviation of further channels of noise, by name.
        bads: Names of bad channels.
        names: Names of the channels with responses.
    """
    presentation = Presentation.randomize(2, session)
    raw = make_raw(presentation, 10 * subject + session)
    annotate(raw, presentation, list(presentation.pictures))
    if noise_uv:
        random = np.random.default_rng(subject)
        noise = random.normal(size=(len(noise_uv), raw.n_times)) * 1e-6
        noise *= np.array(list(noise_uv.values()))[:, None]
        info = mne.create_info(list(noise_uv), RATE_HZ, "eeg")
        channels = mne.io.RawArray(noise, info, verbose="ERROR")
        raw.add_channels([channels], force_update_info=True)
    raw.info["bads"] = list(bads)
    raw.rename_channels(dict(zip(CHANNELS, names, strict=True)))
    path = folder / f"sub-{subject:02d}_ses-{session:02d}.{kind}"
    if kind == "fif":
        raw.save(path, overwrite=True, verbose="ERROR")
    else:
        mne.export.export_raw(path, raw, verbose="ERROR")
    return raw


def build(**keys):
    return Config(**keys).build(Paths())


def test_channels_that_are_no_eeg_are_named_with_an_override(folder):
    noise_uv = {"VEOG": 30, "ECG1": 10, "EMG": 10, "Marker": 10}
    noise_uv |= {"X9": 10, "Oz": 0, "POz": 200}
    record(folder, kind="edf", noise_uv=noise_uv)
    overview = build().look_over((1,))
    types, names, flat, noisy = overview.warnings
    assert "subject 1: VEOG, ECG1, EMG, Marker" in types
    assert "subject 1: X9" in names
    assert "subject 1: Oz" in flat
    assert "sub-01_ses-01.edf" in flat
    assert "subject 1: POz" in noisy
    times = int(re.search(r"(\d+) times", noisy)[1])
    assert 200 < times < 600  # (200 / 10)² = 400
    override = "'preparation.exclude=[VEOG,ECG1,EMG,Marker,X9,Oz,POz]'"
    assert overview.override.startswith(override)
    without = build(exclude=list(noise_uv)).look_over((1,))
    assert (without.warnings, without.override) == ((), "")
    assert without.tables[0].rows[0][3:6] == (6, "–", "10-05, by name")


def test_the_types_bads_and_positions_of_channels_are_shown(folder):
    for subject in (1, 2, 4):
        record(folder, subject)
        record(folder, subject, 2, bads=("Pz",))
    record(folder, 3, noise_uv={"Q": 10})
    channels = build().look_over((1, 2, 3, 4)).tables[0].rows
    names = " ".join(CHANNELS)
    assert channels == (
        ("1–2, 4", "eeg", 6, 5, "Pz (in 1 of 2 files)", "10-05, by name", names),
        ("3", "eeg", 7, 7, "–", "none, without Q", f"{names} Q"),
    )


def test_an_override_makes_the_channels_of_subjects_equal(
    folder, run_command, home, capsys
):
    record(folder, 1, bads=("Pz",))
    record(folder, 2, bads=("O1",))
    record(folder, 3, bads=("O1",))
    run_command("prepare", "preparation.kind=recording")
    text = " ".join(capsys.readouterr().err.split())
    assert "subject 1 lacks Pz" in text
    assert "subject 2–3 lacks O1" in text
    override = "preparation.exclude=[O1,Pz]"
    assert f"try: '{override}'" in text
    run_command("prepare", "preparation.kind=recording", override, "name=equal")
    assert "lacks" not in capsys.readouterr().err
    stores = sorted((home / "signals/image-folder/equal").glob("sub-*.h5"))
    names = {tuple(SignalStore.open(path)["train"].space.names) for path in stores}
    assert len(stores) == 3
    assert names == {("Fp1", "Cz", "P7", "O2")}


def test_a_montage_names_the_inputs_of_an_amplifier(folder):
    record(folder, names=("A1", "A2", "A3", "A4", "B1", "B2"))
    warnings = build().look_over((1,)).warnings
    assert "preparation.montage=biosemi64" in warnings[0]
    assert build().session(1, 1)["train"].space.positions is None  # A1 is no ear here

    space = build(montage="biosemi64").session(1, 1)["train"].space
    assert space.names == ("Fp1", "AF7", "AF3", "F1", "Fpz", "Fp2")
    montage = mne.channels.make_standard_montage("biosemi64").get_positions()
    heights = [montage["ch_pos"][name][2] for name in space.names]
    assert np.argsort(space.positions[:, 2]).tolist() == np.argsort(heights).tolist()

    problem = r"preparation\.montage .*'biosemi6'"
    with pytest.raises(BrainhiveError, match=problem) as caught:
        build(montage="biosemi6").shapes(1, 1)
    assert "biosemi" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "unit", "factor"),
    [
        ("eeg", 1.0, "1e-06"),
        ("eeg", 1e-12, "1e+06"),
        ("mag", 1.0, "1e-15"),
        ("mag", 1e-30, "1e+15"),
        ("eeg", 1e-6, ""),
        ("mag", 1e-15, ""),
    ],
)
def test_signals_in_a_wrong_unit_cause_a_warning(folder, kind, unit, factor):
    presentation = Presentation.randomize(2, 0)
    raw = make_raw(presentation, 0, 10, unit, kind)
    annotate(raw, presentation, list(presentation.pictures))
    raw.save(folder / "sub-01.fif", verbose="ERROR", fmt="double")
    warnings = build().look_over((1,)).warnings
    lines = [line for line in warnings if "apply_function" in line]
    assert len(lines) == bool(factor)
    assert all(f" {factor} " in line for line in lines)


def test_a_folder_of_epochs_is_named_with_the_way_out(tmp_path):
    (tmp_path / "sub-01-epo.fif").touch()
    with pytest.raises(MissingData, match=r"sub-01-epo\.fif") as caught:
        list_recordings(tmp_path, "*")
    assert "brainhive prepare --from epochs" in caught.value.hint


def test_rates_and_references_are_listed_with_the_subjects(folder):
    for subject, rate_hz in ((1, 500), (2, 200)):
        raw = record(folder, subject).resample(rate_hz, verbose="ERROR")
        if subject == 2:
            raw.set_eeg_reference(["Cz"], verbose="ERROR")
        path = folder / f"sub-{subject:02d}_ses-01.fif"
        raw.save(path, overwrite=True, verbose="ERROR")
    warnings = build(rate_hz=250).look_over((1, 2)).warnings
    (rates,) = [line for line in warnings if "rates" in line]
    assert re.search(r"\b250\b.*\bsubject 1\b", rates)
    assert re.search(r"\b200\b.*\bsubject 2\b", rates)
    (references,) = [line for line in warnings if "references" in line]
    assert "subject 1" in references
    assert "subject 2" in references
    warnings = build(rate_hz=100).look_over((1, 2)).warnings
    assert not any("rates" in line for line in warnings)


def test_references_are_read_from_the_sidecars(folder):
    (folder / "dataset_description.json").write_text('{"Name": "x"}')
    for session, name in ((1, "Cz"), (2, "average")):
        record(folder, session=session)
        path = folder / f"sub-01_ses-{session:02d}.fif"
        path.rename(folder / f"sub-01_ses-{session:02d}_task-view_eeg.fif")
        sidecar = folder / f"sub-01_ses-{session:02d}_task-view_eeg.json"
        sidecar.write_text(f'{{"EEGReference": "{name}"}}')
    preparation = build(whiten="no")
    warnings = preparation.look_over((1,)).warnings
    (line,) = [line for line in warnings if "references" in line]
    assert "Cz of subject 1" in line
    assert "average of subject 1" in line
    assert preparation.session(1, 2)["train"].provenance["reference"] == ["average"]


def test_old_names_of_electrodes_become_new_names(folder):
    record(folder, 1, names=("EEG T3-REF", "T4", "t5", "Pz", "O1", "T6"))
    record(folder, 2, names=("T7", "T8", "P7", "Pz", "O1", "P8"))
    record(folder, 3, names=("T3", "T7", "P7", "Pz", "O1", "P8"))
    preparation = build(whiten="no")
    names = []
    for subject in (1, 2, 3):
        names.append(preparation.session(subject, 1)["train"].space.names)
    assert names[0] == names[1] == ("T7", "T8", "P7", "Pz", "O1", "P8")
    assert names[2][:2] == ("T3", "T7")
    assert find_channel_rows(names[1], ["T3"]).tolist() == [0]


@pytest.mark.parametrize("whiten", ["no", "epochs"])
def test_only_channels_without_a_unit_are_named(folder, whiten):
    raw = record(folder)
    raw._data[[1, 3]] *= 1e6
    raw.save(folder / "sub-01_ses-01.fif", overwrite=True, verbose="ERROR")
    preparation = build(whiten=whiten)
    lines = preparation.look_over((1,)).warnings
    assert not any("flat" in line for line in lines)
    assert sum("unit" in line for line in lines) == 2
    with pytest.raises(BrainhiveError, match="Cz, Pz") as info:
        preparation.session(1, 1)
    assert "flat" not in info.value.message


def test_names_without_a_channel_are_listed(folder):
    record(folder)
    keys = {"rename": {"Fp1": "AF3", "T99": "T7"}, "exclude": ["Fpz"]}
    lines = build(**keys, types=["eeg", "mag"]).look_over((1,)).warnings
    for key, name in (("rename", "T99"), ("exclude", "Fpz"), ("types", "mag")):
        (line,) = [line for line in lines if f"preparation.{key}" in line]
        assert re.search(rf"\b{name}\b", line)


def test_pictures_are_counted_by_subject_and_session(folder):
    """Sessions 1 and 2 show each picture twice, session 3 some of them less often."""
    for session in (1, 2):
        record(folder, session=session)
    raw = record(folder, session=3)
    names = list(raw.annotations.description)
    # cat_0 is not shown, and car_9 is shown once
    is_kept = np.array(["cat_0" not in name for name in names])
    is_kept[names.index("test/car/car_9")] = False
    path = folder / "sub-01_ses-03.fif"
    raw.set_annotations(raw.annotations[is_kept]).save(
        path, overwrite=True, verbose="ERROR"
    )
    *_, pictures = build().look_over((1,)).tables
    assert pictures.rows == (
        ("1", "1–2", "train", "6 of 6", "2"),
        ("1", "1–2", "test", "2 of 2", "2"),
        ("1", "3", "train", "5 of 6", "2"),
        ("1", "3", "test", "2 of 2", "1 to 2, mostly 1.5"),
    )
