"""Tests of the published results of devices."""

import re

import pytest

from brainhive_cli.evaluation.planning.assumptions import list_devices

# top-1 of each person with NICE, table 1 of arXiv 2601.21948
NICE_TOP1 = [0.132, 0.135, 0.145, 0.206, 0.101, 0.165, 0.170, 0.229, 0.154, 0.174]
# top-1 of each person with NICE, table 2 of arXiv 2503.04207
NICE_MEG_TOP1 = [0.096, 0.185, 0.142, 0.090]
# top-1 of subjects 1, 2, 5 and 7 with MindEye, in its repository
MINDEYE_TOP1 = [0.947, 0.939, 0.857, 0.858]


@pytest.mark.parametrize(
    ("name", "top1_of_people"),
    [("eeg", NICE_TOP1), ("meg", NICE_MEG_TOP1), ("7t", MINDEYE_TOP1)],
)
def test_results_are_the_published_figures(name, top1_of_people):
    result = list_devices()[name]
    mean = sum(top1_of_people) / len(top1_of_people)
    assert result.top1 == pytest.approx(mean, abs=0.001)
    assert (result.low, result.high) == (min(top1_of_people), max(top1_of_people))
    assert result.people == len(top1_of_people)


def test_every_device_names_its_source_and_range():
    devices = list_devices()
    assert list(devices) == ["eeg", "meg", "3t", "7t", "consumer"]
    for result in devices.values():
        assert re.search(r"\d{4}\.\d{5}", result.source)
        assert 1 / result.test_pictures < result.low < result.top1 < result.high < 1
        assert "assumed" in result.note or "Lowest and highest" in result.note
        assert result.modality in ("EEG", "MEG", "fMRI")


def test_an_assumed_range_has_the_proportions_of_eeg():
    eeg = list_devices()["eeg"]
    for result in list_devices().values():
        if "assumed" in result.note:
            low = result.top1 * eeg.low / eeg.top1
            high = result.top1 * eeg.high / eeg.top1
            assert (result.low, result.high) == pytest.approx((low, high), abs=0.001)
