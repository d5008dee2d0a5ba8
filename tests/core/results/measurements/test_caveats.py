"""Caveats are said once, wherever a number is shown."""

import json

from brainhive_cli.core.results import (
    CAVEATS,
    SELECTED_ON_TEST,
    SIMULATED,
    TRAINED_ON_SIMULATED,
    UNKNOWN_HISTORY,
    Facts,
    Measurements,
    Metric,
    add_footnotes,
    extend_protocol,
    extend_title,
    list_footnotes,
    mark,
    merge_caveats,
)
from brainhive_cli.reports.sentences.sentences import MEANINGS, explain_caveats


def test_a_title_and_a_protocol_name_caveats_in_order():
    caveats = [SELECTED_ON_TEST, SIMULATED]

    assert (
        extend_title("Retrieval", caveats) == "Retrieval (simulated, selected on test)"
    )
    assert extend_protocol("intra", caveats) == "intra, simulated, selected on test"
    assert (
        extend_title("Retrieval", []) == extend_protocol("Retrieval", []) == "Retrieval"
    )


def test_a_caveat_that_another_includes_is_left_out():
    assert merge_caveats([TRAINED_ON_SIMULATED], [SIMULATED]) == [SIMULATED]


def test_the_caveats_of_a_metric_are_data():
    metric = Metric(
        "top1",
        0.5,
        10,
        5,
        0.2,
        None,
        None,
        (1,),
        "intra, a data set that is called simulated",
        "test",
        "none",
        selected=True,
        caveats=(UNKNOWN_HISTORY,),
    )

    # they are not read from the protocol
    assert metric.caveats == (UNKNOWN_HISTORY, SELECTED_ON_TEST)
    assert metric.as_dict()["caveats"] == list(metric.caveats)
    measurements = Measurements.from_document(
        json.loads(json.dumps(Measurements({"all": {"top1": metric}}).as_dict())),
        "here",
    )
    assert measurements.overall["top1"] == metric


def test_every_caveat_of_a_result_is_explained_behind_the_sign():
    caveats = explain_caveats(Measurements(facts=Facts(caveats=[SIMULATED])))

    assert caveats == [f"† {MEANINGS[SIMULATED]}"]
    assert set(MEANINGS) == set(CAVEATS)


def test_one_sign_means_one_caveat():
    """Issue 84, row E: simulated and selected on test had the same dagger."""
    caveats = [SELECTED_ON_TEST, SIMULATED]

    assert len(set(CAVEATS.values())) == len(CAVEATS)
    assert mark("0.5", caveats) == "0.5†‡"
    assert mark("0.5", []) == "0.5"
    assert list_footnotes(caveats) == "† simulated; ‡ selected on test"
    assert add_footnotes("Intra, simulated.", caveats[1:]) == (
        "Intra, simulated. † simulated"
    )
    noted = add_footnotes("N 40.", caveats)
    assert add_footnotes(noted, caveats) == noted
