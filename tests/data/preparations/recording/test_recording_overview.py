"""Overview of recordings before they are prepared: channels, positions and counts."""

import re

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.preparations.recording import (
    Config,
    _tabulate_pictures,
)
from brainhive_cli.data.recordings import as_trials, list_recordings, warn_of_size
from brainhive_cli.data.signals.spaces import find_channel_rows
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.worlds.own_recordings import (
    CHANNELS,
    RATE_HZ,
    Presentation,
    annotate,
    make_raw,
    write_pictures,
)

mne = pytest.importorskip("mne")
TIMES_S = np.arange(50) / 100


@pytest.fixture
def folder(home):
    write_pictures(home / "data/image-folder")
    (home / "data/recordings").mkdir()
    return home / "data/recordings"


def record(
    folder,
    subject=1,
    session=1,
    kind="fif",
    extra_columns={},  # noqa: B006 (read only)
    bads=(),
    pictures=(),
    names=CHANNELS,
):
    """Save a recording.

    Args:
        more: Standard deviation in µV of further channels of noise, by name.
    """
    presentation = Presentation.randomize(2, session)
    raw = annotate(
        make_raw(presentation, 10 * subject + session),
        presentation,
        list(pictures or presentation.pictures),
    )
    if extra_columns:
        random = np.random.default_rng(subject)
        noise = np.array([[size] for size in extra_columns.values()]) * random.normal(
            size=(len(extra_columns), raw.n_times)
        )
        info = mne.create_info(list(extra_columns), RATE_HZ, "eeg")
        raw.add_channels(
            [mne.io.RawArray(noise * 1e-6, info, verbose="ERROR")],
            force_update_info=True,
        )
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


def test_channels_that_are_no_eeg_are_named_with_an_override(
    folder,
):
    extra_channels = {
        "VEOG": 30,
        "ECG1": 10,
        "EMG": 10,
        "Marker": 10,
        "X9": 10,
        "Oz": 0,
        "POz": 200,
    }
    record(folder, kind="edf", extra_columns=extra_channels)
    overview = build().look_over((1,))
    types, names, flat, noisy = overview.warnings
    assert "subject 1: VEOG, ECG1, EMG, Marker" in types
    assert "subject 1: X9" in names
    assert "subject 1: Oz" in flat and "sub-01_ses-01.edf" in flat
    assert "subject 1: POz" in noisy
    times = int(re.search(r"(\d+) times", noisy)[1])
    assert 200 < times < 600  # (200 / 10)² = 400
    override = "'preparation.exclude=[VEOG,ECG1,EMG,Marker,X9,Oz,POz]'"
    assert overview.override.startswith(override)
    final_over = build(exclude=list(extra_channels)).look_over((1,))
    assert final_over.warnings == () and final_over.override == ""
    assert final_over.tables[0].rows[0][3:6] == (6, "–", "10-05, by name")


def test_the_types_bads_and_positions_of_channels_are_shown(folder):
    for subject in (1, 2, 4):
        record(folder, subject)
        record(folder, subject, 2, bads=("Pz",))
    record(folder, 3, extra_columns={"Q": 10})
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
    assert "subject 1 lacks Pz" in text and "subject 2–3 lacks O1" in text
    override = "preparation.exclude=[O1,Pz]"
    assert f"try: '{override}'" in text
    run_command("prepare", "preparation.kind=recording", override, "name=equal")
    assert "lacks" not in capsys.readouterr().err
    stores = sorted((home / "signals/image-folder/equal").glob("sub-*.h5"))
    names = {tuple(SignalStore.open(path)["train"].space.names) for path in stores}
    assert len(stores) == 3 and names == {("Fp1", "Cz", "P7", "O2")}


def test_a_montage_names_the_inputs_of_an_amplifier(
    folder,
):
    record(folder, names=("A1", "A2", "A3", "A4", "B1", "B2"))
    plain_over = build().look_over((1,))
    assert "preparation.montage=biosemi64" in plain_over.warnings[0]
    assert build().session(1, 1)["train"].space.positions is None  # A1 is no ear here

    space = build(montage="biosemi64").session(1, 1)["train"].space
    assert space.names == ("Fp1", "AF7", "AF3", "F1", "Fpz", "Fp2")
    positions = mne.channels.make_standard_montage("biosemi64").get_positions()[
        "ch_pos"
    ]
    heights = [positions[name][2] for name in space.names]
    assert np.argsort(space.positions[:, 2]).tolist() == np.argsort(heights).tolist()

    with pytest.raises(
        BrainhiveError, match=r"preparation\.montage .*'biosemi6'"
    ) as caught:
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
def test_signals_in_a_wrong_unit_cause_a_warning(tmp_path, kind, unit, factor):
    presentation = Presentation.randomize(2, 0)
    raw = annotate(
        make_raw(presentation, 0, 10, unit, kind),
        presentation,
        list(presentation.pictures),
    )
    raw.save(tmp_path / "sub-01.fif", verbose="ERROR", fmt="double")
    write_pictures(tmp_path / "pictures")
    stimuli = {"kind": "image-folder", "root": str(tmp_path / "pictures")}
    config = Config.model_validate({"root": str(tmp_path), "stimuli": stimuli})
    warnings = config.build(Paths()).look_over((1,)).warnings
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
        raw = record(folder, subject)
        raw.resample(rate_hz, verbose="ERROR")
        if subject == 2:
            raw.set_eeg_reference(["Cz"], verbose="ERROR")
        raw.save(
            folder / f"sub-{subject:02d}_ses-01.fif", overwrite=True, verbose="ERROR"
        )
    warnings = build(rate_hz=250).look_over((1, 2)).warnings
    (rates,) = [line for line in warnings if "rates" in line]
    assert re.search(r"\b250\b.*\bsubject 1\b", rates)
    assert re.search(r"\b200\b.*\bsubject 2\b", rates)
    (references,) = [line for line in warnings if "references" in line]
    assert "subject 1" in references and "subject 2" in references
    assert not any(
        "rates" in line for line in build(rate_hz=100).look_over((1, 2)).warnings
    )


def test_references_are_read_from_the_sidecars(folder):
    (folder / "dataset_description.json").write_text('{"Name": "x"}')
    for session, name in ((1, "Cz"), (2, "average")):
        record(folder, session=session)
        path = folder / f"sub-01_ses-{session:02d}.fif"
        path.rename(folder / f"sub-01_ses-{session:02d}_task-view_eeg.fif")
        sidecar = folder / f"sub-01_ses-{session:02d}_task-view_eeg.json"
        sidecar.write_text(f'{{"EEGReference": "{name}"}}')
    preparation = build(whiten="no")
    (line,) = [
        line for line in preparation.look_over((1,)).warnings if "references" in line
    ]
    assert "Cz of subject 1" in line and "average of subject 1" in line
    assert preparation.session(1, 2)["train"].provenance["reference"] == ["average"]


def test_old_names_of_electrodes_become_new_names(folder):
    record(folder, 1, names=("EEG T3-REF", "T4", "t5", "Pz", "O1", "T6"))
    record(folder, 2, names=("T7", "T8", "P7", "Pz", "O1", "P8"))
    record(folder, 3, names=("T3", "T7", "P7", "Pz", "O1", "P8"))
    preparation = build(whiten="no")
    names = [preparation._channels(subject).ch_names for subject in (1, 2, 3)]
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


@pytest.mark.parametrize("unit", ["V", "µV"])
def test_arrays_in_a_wrong_unit_cause_a_warning(unit, capsys):
    signal = np.random.default_rng(0).normal(size=(5, 6, 50)) * 10
    trials = as_trials(signal, None, unit=unit, channels=CHANNELS, times_s=TIMES_S)
    warn_of_size(trials, "sub-01")
    assert ("sub-01: eeg" in capsys.readouterr().err) == (unit == "V")


def test_names_without_a_channel_are_listed(folder):
    record(folder)
    keys = {"rename": {"Fp1": "AF3", "T99": "T7"}, "exclude": ["Fpz"]}
    lines = build(**keys, types=["eeg", "mag"]).look_over((1,)).warnings
    for key, name in (("rename", "T99"), ("exclude", "Fpz"), ("types", "mag")):
        (line,) = [line for line in lines if f"preparation.{key}" in line]
        assert re.search(rf"\b{name}\b", line)


def test_pictures_are_counted_by_subject_and_session():
    array = np.array([2, 0, 1, 4, 1])
    splits = {"train": np.array([0, 1, 2]), "test": np.array([3, 4]), "none": array[:0]}
    second_array = np.array([1, 1, 1, 0, 0])
    table = _tabulate_pictures(
        {1: {1: array, 2: array, 3: second_array}, 4: {1: second_array}}, splits
    )
    assert table.rows == (
        ("1", "1–2", "train", "2 of 3", "1 to 2, mostly 1.5"),
        ("1", "1–2", "test", "2 of 2", "1 to 4, mostly 2.5"),
        ("1", "3", "train", "3 of 3", "1"),
        ("4", "1", "train", "3 of 3", "1"),
    )
