"""The document of metrics: what is written is read back, and another schema is
refused.
"""

from dataclasses import replace

import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.facts import Facts
from brainhive_cli.core.results.measurements import (
    SEEN_COPIES,
    SELECTED_ON_TEST,
    SIMULATED,
    UNKNOWN_HISTORY,
    UNKNOWN_PICTURES,
    UNKNOWN_SELECTION,
    Measurements,
    Metric,
    choose_headlines,
    index_by_name,
    interval_text,
    is_share,
    list_metric_caveats,
    lower_is_better,
    merge_caveats,
    metric_title,
    name_rows,
    scope,
    second_interval_heading,
    sort_by_agreement,
    with_arrow,
)
from brainhive_cli.core.runs.driver import start_run
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.training.alignment.facts import TrainingFacts
from tests.worlds.named_run import NamedRun

TOP1 = Metric(
    "top1",
    0.5,
    4,
    200,
    0.005,
    0.1,
    0.25,
    (0, 1),
    "cosine",
    "test",
    "t",
    **{
        "these_subjects": (0.2, 0.225),
        "people": (0.1, 0.25),
        "seed_sd": 0.01,
        "selected": None,
    },
)
"""Of five subjects or more: the interval is that for people in general."""
OF_FEW = replace(TOP1, low=0.2, high=0.225)
"""Of two to four: the interval is that of these subjects."""
OF_ONE = replace(TOP1, these_subjects=None, people=None)
MADE = Measurements(
    {
        "all": index_by_name([TOP1]),
        scope("brain", "subject 1"): index_by_name([OF_ONE]),
    },
    {"fid": "fewer than 10 pictures"},
    Facts(caveats=["simulated"], mode="intra"),
    {"subject 1": {"image_ids": ["a", "b"], "ranks": [1, 2]}},
)


def test_what_a_run_measured_is_read_back_as_it_was(home):
    run_folder = start_run(NamedRun("train-align"), Launch(0, 1, torch.device("cpu")))
    run_folder.finish(MADE)

    assert run_folder.measurements() == MADE
    assert list(run_folder.read_json("metrics.json")) == [
        "schema",
        "scopes",
        "missing",
        "facts",
        "items",
    ]
    assert (MADE.overall["top1"].value, MADE.caveats) == (0.5, ["simulated"])


def test_another_schema_is_refused_in_one_line():
    with pytest.raises(BrainhiveError) as caught:
        Measurements.from_document({**MADE.as_dict(), "schema": 1}, "run-1")
    for fact in ("run-1", "schema 1", "schema 4"):
        assert fact in caught.value.message


def test_beside_the_interval_stands_the_one_for_the_others():
    for metrics, heading, column in (
        ([TOP1], "these subjects", "0.20–0.23"),
        ([OF_FEW], "people in general", "0.10–0.25"),
        # too wide to say anything
        ([replace(OF_FEW, people=None)], "people in general", "–"),
        ([OF_ONE], "", "–"),
    ):
        assert second_interval_heading(metrics) == heading
        assert metrics[0].second_interval_text(2) == column


def metric(name, **changes):
    """A metric of another name."""
    return replace(TOP1, **{"name": name, **changes})


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.1234, 0.5678, "0.123–0.568"),
        (-0.1, 0.5, "-0.100 to 0.500"),
        (0.0, 0.5, "0.000–0.500"),
        (None, 0.5, "–"),
        (0.5, None, "–"),
    ],
)
def test_an_interval_is_written_with_both_ends(low, high, text):
    written_metric = metric("top1", low=low, high=high)
    assert interval_text(low, high) == written_metric.interval_text() == text
    assert interval_text(0.125, 0.25, 1) == metric(
        "top1", low=0.125, high=0.25
    ).interval_text(1)


def test_beside_text_has_three_digits_unless_asked():
    assert TOP1.second_interval_text() == "0.200–0.225"
    assert OF_FEW.second_interval_text() == "0.100–0.250"


def test_a_metric_is_plain_for_json():
    plain_document = TOP1.as_dict()
    assert plain_document["seeds"] == [0, 1]
    assert plain_document["these_subjects"] == [
        0.2,
        0.225,
    ]
    assert plain_document["value"] == 0.5
    assert plain_document["selected"] is None
    assert metric("a", selected=True).caveats == (SELECTED_ON_TEST,)
    assert metric("a", selected=False).caveats == ()


def test_intervals_and_agreement_have_their_own_columns():
    first_metrics, second = replace(
        MADE, scopes={"all": index_by_name([TOP1, metric("ssim", people=None)])}
    ).rows()
    assert list(first_metrics)[:3] == ["scope", "metric", "value"]
    assert "name" not in first_metrics
    assert (first_metrics["scope"], first_metrics["metric"]) == ("all", "top1")
    assert (first_metrics["people_low"], first_metrics["people_high"]) == (0.1, 0.25)
    assert (
        first_metrics["these_subjects_low"],
        first_metrics["these_subjects_high"],
    ) == (0.2, 0.225)
    assert first_metrics["agreement"] is None
    assert second["agreement"] == 0.112
    assert second["people_low"] is second["people_high"] is None


def test_two_measurements_are_put_together():
    other_measurements = Measurements(
        {"all": index_by_name([OF_ONE])},
        {"fid": "b", "kid": "c"},
        items={"x": {"y": [1]}},
    )
    joined = MADE | other_measurements
    assert joined.scopes == {**MADE.scopes, **other_measurements.scopes}
    assert joined.missing == {"fid": "b", "kid": "c"}
    assert joined.facts == MADE.facts
    assert joined.items == {**MADE.items, "x": {"y": [1]}}
    assert joined.with_facts(mode="inter").facts == Facts(
        caveats=["simulated"], mode="inter"
    )
    assert Measurements().overall == {}


def test_facts_are_those_of_their_command():
    facts = TrainingFacts(is_closed_form=True)
    measurements = Measurements(facts=facts)
    assert measurements.require_facts(TrainingFacts) is facts
    assert measurements.require_facts(Facts) is facts
    with pytest.raises(BrainhiveError):
        MADE.require_facts(TrainingFacts)
    loaded_measurements = Measurements.from_document(measurements.as_dict(), "run")
    assert loaded_measurements == measurements
    assert type(loaded_measurements.facts) is TrainingFacts


@pytest.mark.parametrize(
    "change",
    [
        {"facts": None},
        {"facts": {"command": "x", "unknown": 1}},
        {"facts": {"command": "eval-retrieval", "is_closed_form": True}},
        {"facts": {"sources": ["brain"]}},
        {"items": [1]},
        {"scopes": {"all": {"top1": {"value": 1}}}},
    ],
    ids=str,
)
def test_a_damaged_document_of_metrics_is_refused(change):
    with pytest.raises(BrainhiveError):
        Measurements.from_document({**MADE.as_dict(), **change}, "run")


def test_sources_are_scopes():
    facts = Facts(sources=["all"])
    simulated = replace(MADE, facts=facts)
    assert Measurements.from_document(simulated.as_dict(), "run").facts == facts


def test_rows_are_told_apart_by_caveats_that_not_all_have():
    plain_metric, simulated = metric("a"), metric("a", caveats=(SIMULATED,))
    both_metric = metric("a", caveats=(SIMULATED, SEEN_COPIES))
    assert list_metric_caveats([None, both_metric, plain_metric]) == [
        SIMULATED,
        SEEN_COPIES,
    ]
    assert name_rows({"x": [simulated], "y": [both_metric, None]}) == {
        "x": "x",
        "y": f"y ({SEEN_COPIES})",
    }
    rows = name_rows({"x": [simulated], "y": [plain_metric]})
    assert rows == {"x": f"x ({SIMULATED})", "y": "y"}
    assert name_rows({}) == {}


def test_a_worse_caveat_stands_for_those_it_holds():
    caveats = [UNKNOWN_PICTURES, UNKNOWN_SELECTION, SIMULATED]
    assert merge_caveats(list(caveats) + [UNKNOWN_HISTORY]) == [
        SIMULATED,
        UNKNOWN_HISTORY,
    ]
    assert set(merge_caveats(caveats)) == set(caveats)


@pytest.mark.parametrize(
    ("name", "text", "is_lower_better", "share"),
    [
        ("top1", "top-1", False, True),
        ("two_way_clip", "two-way (clip)", False, True),
        ("own_metric", "own metric", False, False),
        ("video_50way_strict", None, False, True),
        ("frame_2way", None, False, True),
        ("frame_40way", "40-way (frame)", False, True),
        ("video_40way_strict", "40-way strict (video)", False, True),
        ("fid", None, True, False),
        ("mean_rank", None, True, False),
        ("mse", None, True, False),
    ],
)
def test_names_of_metrics_say_how_they_are_read(name, text, is_lower_better, share):
    assert text is None or metric_title(name) == text
    assert lower_is_better(name) is is_lower_better
    assert is_share(name) is share
    assert with_arrow(name) == metric_title(name) + " ↓" * is_lower_better


@pytest.mark.parametrize(
    ("names", "chosen_names"),
    [
        (["top5", "mrr", "validation_loss", "top1"], ["top1", "top5"]),
        (["ssim", "two_way_clip", "pixcorr"], ["two_way_clip", "ssim"]),
        (["ssim", "clip", "video_50way", "two_way_x"], ["clip", "video_50way"]),
        (["video_2way", "frame_40way", "video_40way", "ssim"], ["video_40way", "ssim"]),
        (["pixcorr", "lpips", "fid"], ["pixcorr", "lpips"]),
        (["ssim", "a"], ["ssim"]),
        ([], []),
    ],
)
def test_a_run_is_summarised_by_two_metrics_at_most(names, chosen_names):
    assert choose_headlines(names) == chosen_names


def test_metrics_that_agree_with_people_come_first():
    names = ["own", "ssim", "effnet", "other", "clip"]
    expected = ["effnet", "clip", "ssim", "own", "other"]
    assert sort_by_agreement(names) == expected
    assert scope("", "brain", "", "subject 1") == "brain · subject 1"
