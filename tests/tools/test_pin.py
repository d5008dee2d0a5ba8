"""Results of four studies are the pinned results, or libraries explain why not."""

import sys
import warnings

import pytest

from tools import gratings_recordings, pin, pinned


@pytest.mark.parametrize(
    "name",
    [
        "demo-real",
        pytest.param("gratings", marks=pytest.mark.nightly),
        pytest.param("digits", marks=pytest.mark.nightly),
        pytest.param("demo", marks=pytest.mark.nightly),
    ],
)
def test_results_are_as_pinned(name, tmp_path):
    try:
        study = pin.run_study(name, tmp_path)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    nearest = pinned.find_nearest(pinned.read(name), study.environment)

    comparison = pinned.compare(nearest, study)

    explanation = comparison.explain(name)
    assert not comparison.failures, explanation
    if comparison.changes:
        warnings.warn(explanation, stacklevel=1)


def test_a_study_whose_recordings_are_missing_is_not_run(tmp_path, monkeypatch, capsys):
    line = ["pin", "gratings", "--recordings", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", line)

    with pytest.raises(SystemExit) as caught:
        pin.main()

    text = capsys.readouterr().out
    assert caught.value.code == 1
    assert gratings_recordings.FILES[0] in text
    assert "--recordings" in text
