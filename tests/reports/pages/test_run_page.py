"""Page of runs of any command, made of their metrics and artifacts."""

import re
from dataclasses import replace

import pytest
from PIL import Image

from brainhive_cli.commands.facts import WorkflowFacts
from brainhive_cli.commands.report import name_by_differences
from brainhive_cli.core.base.tables import TableCell
from brainhive_cli.core.results import (
    ALL,
    CAVEATS,
    Answer,
    CellFacts,
    Difference,
    Measurements,
    Metric,
)
from brainhive_cli.core.runs import (
    Curve,
    CurveLine,
    RunFolder,
    Sample,
    Sheet,
    SheetRow,
    SheetTile,
    artifacts,
)
from brainhive_cli.evaluation.retrieval.facts import RetrievalFacts
from brainhive_cli.reports.pages.page import FINDING
from brainhive_cli.reports.pages.run_page import (
    choose_pictures,
    draw_headline,
    lay_out_page,
)
from brainhive_cli.reports.sentences.sentences import (
    MEANINGS,
    count_evaluations,
    describe_methods,
    list_warnings,
    state_finding,
)
from brainhive_cli.reports.tables import (
    RunGroup,
    ShownRun,
    lay_out_tables,
    paper_table,
    write_table,
)


def metric(name, value, **fields):
    context = {
        "n": 40,
        "pool": 100,
        "chance": 0.01,
        "low": value - 0.1,
        "high": value + 0.1,
        "seeds": (1, 2),
    }
    metric_fields = {
        **context,
        "protocol": "intra, lab",
        "split": "test",
        "interval": "t over subjects",
        **fields,
    }
    return Metric(name, value, **metric_fields)


def answer(expected_side, scope=""):
    """Make the answer that ranks are on this side of chance."""
    better = {"above chance": 0.01, "at chance": 0.5}[expected_side]
    return Answer(
        "which picture", better, 1 - better, 0.0005, 40, 100, "mean rank", scope
    )


def write_run(tmp_path, label, top1=0.5, **facts):
    """Write a run of an unknown command, with two subjects and two seeds."""
    folder = RunFolder(tmp_path / "runs/lab" / label)
    scopes = {
        ALL: {
            "top1": metric("top1", top1),
            "mean_rank": metric("mean_rank", 3.0, chance=50.5),
        }
    }
    cells = {}
    for subject, subject_deviation in (("sub-01", 0.1), ("sub-02", -0.1)):
        for seed in (1, 2):
            name = f"{subject}_seed-{seed}"
            scopes[name] = {
                "top1": metric("top1", top1 + subject_deviation, seeds=(seed,)),
                "mean_rank": metric("mean_rank", 3.0),
            }
            cells[name] = CellFacts(subject=subject, seed=seed)
    artifacts.write(
        folder,
        [
            Curve(
                "Loss",
                "epoch",
                [1, 2],
                [CurveLine("train", [1.0, 0.5])],
                section="Training",
            )
        ],
    )
    folder.write_text("recipe.yaml", "epochs: 3\n")
    folder.write_json(
        "environment.json",
        {"versions": {"brainhive": "0.1", "torch": "2.9"}, "device": "cpu"},
    )
    facts_of_run = RetrievalFacts(
        **{"cells": cells, "answers": [answer("above chance")], **facts}
    )
    folder.finish(Measurements(scopes, {"lpips": "pip install it"}, facts_of_run))
    return ShownRun(label, folder)


def difference(first_run, second, name, value, p, **fields):
    """Make a difference between two runs, with an interval of ± 0.15."""
    numbers = {
        "difference": value,
        "low": value - 0.15,
        "high": value + 0.15,
        "p_value": p,
        "p_adjusted": p,
    }
    numbers |= {
        "n": 40,
        "subjects": 2,
        "least_p": 0.001,
        "cohens_dz": None,
        "interval": "inversion",
    }
    test_facts = {"test": "t", "lower_is_better": name == "mean_rank", **fields}
    return Difference(
        first=first_run, second=second, metric=name, **numbers, **test_facts
    )


def write_page(page_folder, *groups):
    lay_out_page(groups).write(page_folder / "page.html")
    # plain spaces between numbers and units
    return (page_folder / "page.html").read_text().replace("\u00a0", " ")


def make_validation(value, pool=30):
    """Make the validation result of a training, as eval-retrieval stores it."""
    return {
        "metric": "top1",
        "value": value,
        "measured_on": {"dataset": "lab", "cells": [[40, pool]]},
    }


def make_sweep(tmp_path, top1, validation=None):
    """Write the workflow of an evaluated sweep.

    Args:
        tmp_path: Folder of the test.
        top1: Top-1 on the test set by step.
        validation: Validation result by step.
    """
    folder = RunFolder(tmp_path / "runs/workflow/sweep")
    scopes = {
        name: {
            "top1": metric("top1", value),
            "top5": metric("top5", value),
        }
        for name, value in top1.items()
    }
    compared = {name: (validation or {}).get(name, {}) for name in top1}
    folder.write_text("recipe.yaml", "steps: {}\n")
    folder.finish(Measurements(scopes, facts=WorkflowFacts(compared=compared)))
    return ShownRun("sweep", folder)


def find_bold_rows(group, title):
    """Return the note of a table, and the labels of its bold rows."""
    table = next(
        table for table in lay_out_tables(group) if table.title.startswith(title)
    )
    rows = {
        row[0]: [cell.is_best for cell in row[1:] if isinstance(cell, TableCell)]
        for row in table.rows
    }
    assert all(all(cells) or not any(cells) for cells in rows.values())
    return table.note, [label for label, cells in rows.items() if any(cells)]


TOP1 = {"test · none": 0.5, "test · zero": 0.1, "test · half": 0.3}
VALIDATION = {"test · none": 0.2, "test · zero": 0.3, "test · half": 0.4}


def test_without_validation_the_best_variant_is_selected_on_test(
    tmp_path,
):
    validation = {
        "test · none": make_validation(0.2),
        "test · zero": make_validation(0.3),
        "test · half": make_validation(0.4, pool=60),
    }
    sweep = make_sweep(tmp_path, TOP1, validation)

    finding = state_finding(sweep.measurements)
    assert "10 % to 50 %" in finding
    assert "“test · none” with 50 %" in finding
    assert "chosen on test among 3" in finding
    note, bold = find_bold_rows(RunGroup([sweep]), "By variant")
    assert note.startswith("Bold: best, chosen on test among 3.")
    assert bold == ["test · none"]


def test_the_best_variant_on_validation_is_named_with_its_score(
    tmp_path,
):
    sweep = make_sweep(
        tmp_path,
        TOP1,
        {name: make_validation(value) for name, value in VALIDATION.items()},
    )

    finding = state_finding(sweep.measurements)
    assert "validation (top-1)" in finding
    assert "“test · half” with 30 %" in finding
    note, bold = find_bold_rows(RunGroup([sweep]), "By variant")
    assert note.startswith("Bold: best on validation (top-1).")
    assert bold == ["test · half"]


def write_sheet(shown_run, ranks, *figures):
    """Write a sheet with two pictures and a rank among 40 in each row, and figures."""
    n_candidates = 40
    files = []
    for name in ("red", "blue"):
        picture = Image.new("RGB", (8, 8), name)
        files.append(artifacts.save_picture(shown_run.folder, name, picture))
    rows = []
    for number, rank in enumerate(ranks):
        tiles = [SheetTile(files[0], ["a_cat"]), SheetTile(files[1], ["a dog"])]
        n = None if rank is None else n_candidates
        rows.append(SheetRow(f"cat/{number}", tiles, rank, n))
    sample = Sample(n_candidates, "test pictures", 7, "sub-03")
    sheet = Sheet("Retrieved", ["seen", "1"], rows, sample)
    artifacts.write(shown_run.folder, [sheet] + list(figures))


def test_the_first_screen_has_ten_pairs_as_its_note_says(tmp_path):
    shown_run = write_run(tmp_path, "ours")
    write_sheet(shown_run, [None] * 12)

    page = lay_out_page([RunGroup([shown_run])])

    assert page.pictures is not None
    assert len(page.pictures.pairs) == 10
    assert page.pictures.n_columns == 5
    assert page.pictures.decoded_heading == "retrieved first"
    for fact in ("10 of 40 test pictures", "seed 7", "sub-03"):
        assert fact in page.pictures.note
    assert page.html().count('<figure class="pair') == 10


def test_a_sheet_with_gaps_has_no_pairs(tmp_path):
    shown_run = write_run(tmp_path, "drawn", sources=[ALL])
    row = SheetRow("cat/0", [SheetTile(""), SheetTile("")])
    artifacts.write(shown_run.folder, [Sheet("Drawn", ["seen", "drawn"], [row])])
    assert choose_pictures([shown_run]) is None


def test_pairs_are_marked_by_the_rank_with_signs_and_text(tmp_path):
    shown_run = write_run(tmp_path, "ours")
    write_sheet(shown_run, [1, 3])

    html = write_page(tmp_path, RunGroup([shown_run]))

    pairs = re.findall(r'<figure class="pair (\w+)">(.*?)</figure>', html, re.S)
    captions_of_pairs = []
    for verdict, pair in pairs:
        (caption,) = re.findall(r"<figcaption>(.*?)</figcaption>", pair)
        captions_of_pairs.append((verdict, re.sub(r"<.*?>", "", caption)))
    assert captions_of_pairs == [
        ("right", "✓ rank 1 of 40"),
        ("wrong", "✗ rank 3 of 40"),
    ]
    alt_texts = re.findall(r'alt="(.*?)"', pairs[1][1])
    assert alt_texts == ["seen: a cat", "retrieved first: a dog: wrong"]


def test_the_finding_and_warnings_come_before_the_pictures(tmp_path):
    shown_run = write_run(tmp_path, "ours", warnings=["clip is ill"])
    lines = [CurveLine("measured", [0.9, 0.1]), CurveLine("chance", [0.5, 0.5])]
    ranks = Curve("Ranks", "rank", ["1", "2"], lines, style="bars", section=FINDING)
    write_sheet(shown_run, [1], ranks)

    html = write_page(tmp_path, RunGroup([shown_run]))

    assert html.count("<h4>Ranks</h4>") == 1
    blocks = ("verdict", "warnings", "pairs", "headlines")
    positions = [html.index(f'class="{block}"') for block in blocks]
    assert positions == sorted(positions)


def test_runs_with_the_same_label_keep_their_findings(tmp_path):
    first_run = write_run(tmp_path / "first", "ours", top1=0.5)
    second = write_run(tmp_path / "second", "ours", top1=0.25)

    html = write_page(tmp_path, RunGroup([first_run]), RunGroup([second]))

    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', html)
    assert "50 %" in lead
    assert "25 %" not in lead
    assert "25 %" in html


def test_the_finding_says_what_how_often_how_sure_and_of_whom(tmp_path):
    """Issue 84, row E: 20 pictures that two people saw were "40 test pictures"."""
    study_facts = {"modality": "EEG", "caveats": ["simulated"], "stimuli": 20}
    for answer_side, p in (("above chance", "p = 0.02"), ("at chance", "p = 1")):
        page = lay_out_page(
            [
                RunGroup(
                    [
                        write_run(
                            tmp_path,
                            answer_side,
                            answers=[answer(answer_side)],
                            **study_facts,
                        )
                    ]
                )
            ]
        )
        (lead,) = page.lead
        for fact in (
            "From simulated EEG",
            "first of 100 in 50 % of cases (95 % CI 40 to 60 %; chance 1 %)",
            "20 test pictures, each decoded in 2 people",
            p,
        ):
            assert fact in lead
        assert "mean rank is 3 of 100 (chance 50.5)," in lead
        assert ("not significantly better" in lead) == (answer_side == "at chance")


def test_a_mean_rank_among_other_pictures_has_no_value(tmp_path):
    """Issue 117: "0.1 % (chance 0.1 %) … better than chance" was the mean rank."""
    answers = [replace(answer("above chance"), pool=50)]

    finding = state_finding(write_run(tmp_path, "ours", answers=answers).measurements)

    assert "mean rank is better than chance" in finding
    assert "3 of" not in finding


def write_evaluation(folder, name, *lines):
    """Write a finished evaluation of subject 1, with changed lines of its recipe."""
    recipe = {
        "  signals lab/default/sub-01": "0f",
        "gallery": "test",
        "control": "none",
    } | dict(line.split(": ") for line in lines)
    run_folder = RunFolder(folder / "runs/eval-retrieval" / name)
    run_folder.path.mkdir(parents=True)
    text = "".join(f"{key}: {value}\n" for key, value in recipe.items())
    run_folder.write_text("recipe.yaml", f"digests:\n{text}\n")
    run_folder.finish(Measurements(facts=RetrievalFacts()))
    return ShownRun(name, run_folder)


@pytest.mark.parametrize(
    ("line", "is_same"),
    [
        ("gallery: train+test", True),
        ("  signals lab/other/sub-01: aa", True),
        ("gallery: test+train", False),
        ("control: shuffled", False),
    ],
)
def test_a_page_counts_evaluations_of_its_test_set(tmp_path, line, is_same):
    """Issue 117: the best of ten models on noise was "better than chance"."""
    evaluation = write_evaluation(tmp_path, "a")
    write_evaluation(tmp_path, "b")
    write_evaluation(tmp_path, "c", line)

    warnings = list_warnings([RunGroup([evaluation])])

    (sentence,) = [text for text in warnings if "evaluations of this test set" in text]
    assert ("one of 3 " in sentence) == is_same == ("p ≤ 0.017" in sentence)


def test_a_single_evaluation_of_a_test_set_is_not_counted(tmp_path):
    shown = write_evaluation(tmp_path, "a")
    write_evaluation(tmp_path, "c", "control: shuffled")
    other_evaluation = write_evaluation(tmp_path, "d", "gallery: train")

    for evaluation in (shown, other_evaluation):
        assert not count_evaluations(evaluation)


def test_the_verdict_on_compared_runs_is_about_their_difference(tmp_path):
    (headline,) = lay_out_page([compared(tmp_path)]).headlines
    assert list(headline.at) == ["aligned", "base"]  # a bar each
    lead = lay_out_page([compared(tmp_path)]).lead[0]
    for fact in (
        "aligned is better than base in top-1: 50 % against 25 %",
        "+25.0 points, 95 % CI +10.0 points to +40.0 points",
        "p = 0.004, adjusted over 12 tests",
        "40 items",
    ):
        assert fact in lead


def test_a_bar_with_an_interval_from_zero_is_still_the_headline(tmp_path):
    """A lower end of 0 was taken for the lack of an interval."""
    headline = draw_headline(write_run(tmp_path, "low", top1=0.1))
    assert headline.style == "bars"
    assert headline.lines[0].low == [0.0]


def test_every_warning_stands_in_one_place_before_the_numbers(tmp_path):
    facts = {
        "caveats": ["simulated"],
        "answers": [answer("at chance")],
        "warnings": ["clip is ill"],
    }
    page = write_page(tmp_path, RunGroup([write_run(tmp_path, "ours", **facts)]))
    heading_position = page.index("Read this before using the numbers")
    for phrase in ("† Simulated:", "Retrieval is at chance", "clip is ill"):
        assert (
            phrase
            in page[heading_position : page.index("</section>", heading_position)]
        )


def test_every_caveat_has_a_sentence_of_its_own(tmp_path):
    runs = [
        write_run(tmp_path, f"run{n}", caveats=[caveat])
        for n, caveat in enumerate(CAVEATS)
    ]
    warnings = [
        "\n".join(lay_out_page([RunGroup([shown_run])]).warnings) for shown_run in runs
    ]
    assert len(set(warnings)) == len(warnings) == len(MEANINGS)


TEST = "sign flips over 40 pictures, for these 2 subjects"


def compared(tmp_path):
    runs = [write_run(tmp_path, "aligned", 0.5), write_run(tmp_path, "base", 0.25)]
    test_counts = {"tests": 12, "tests_of": "6 metrics × 2 runs"}
    pair = difference(
        "aligned",
        "base",
        "top1",
        0.25,
        0.004,
        test=TEST,
        limits=["few subjects"],
        **test_counts,
    )
    return RunGroup(runs, [pair], ["other: another gallery"])


def test_compared_runs_are_rows_with_the_best_and_signs_marked(
    tmp_path,
):
    group = compared(tmp_path)
    page = write_page(tmp_path, group)
    assert re.search(r"aligned .* base .* 50 % .* 25 %", page)
    assert "Not compared: other: another gallery" in page
    assert "few subjects" in page
    runs = lay_out_tables(group)[0]
    aligned, base, _ = (row[1] for row in runs.rows)
    assert (aligned.is_best, base.is_best, base.mark) == (True, False, "**")
    assert [table.title for table in lay_out_tables(group)][
        1
    ] == "top-1 by subject, averaged over seeds"


def test_tables_for_papers_have_means_deviations_and_signs(
    tmp_path,
):
    table = paper_table(compared(tmp_path))
    markdown, latex = write_table(table, "md"), write_table(table, "tex")
    assert "| aligned | **0.500 ± 0.141** |" in markdown
    assert r"0.250 ± 0.141\*\*" in markdown
    assert r"\textbf{0.500 $\pm$ 0.141}" in latex
    assert r"0.250 $\pm$ 0.141$^{**}$" in latex
    assert all(row.count("&") == 2 for row in latex.splitlines() if "&" in row)
    empty = replace(table, columns=[""], rows=[["none"]])
    assert "&" not in write_table(empty, "tex").partition("midrule")[2]
    assert r"mean rank $\downarrow$" in latex
    assert latex.count(r"\\") == 3
    assert r"** p $\leq$ .01" in latex
    assert r"6 metrics $\times$ 2 runs" in latex
    assert latex.isascii()
    for fact in (
        "standard deviation over 2 subjects",
        "Bold: best",
        "** p ≤ .01",
        "differs from aligned",
        TEST,
    ):
        assert fact in table.title


SET_UPS = {
    "brain-mlp": {
        "dataset": "things-eeg",
        "backbone.kind": "brain-mlp",
        "mode": "intra",
        "epochs": 25,
    },
    "longer": {
        "dataset": "things-eeg",
        "backbone.kind": "brain-mlp",
        "mode": "intra",
        "epochs": 50,
    },
    "nice": {
        "dataset": "things-eeg",
        "backbone.kind": "nice",
        "mode": "intra",
        "epochs": 50,
    },
}


def test_compared_runs_are_named_by_the_fewest_distinctive_keys(tmp_path):
    runs = [
        write_run(tmp_path, name, set_up=set_up) for name, set_up in SET_UPS.items()
    ]
    assert name_by_differences(runs) == [
        "brain-mlp, epochs 25",
        "brain-mlp, epochs 50",
        "nice, epochs 50",
    ]
    assert name_by_differences(runs[1:]) == ["brain-mlp", "nice"]
    runs_with_same_settings = [
        write_run(tmp_path, name, set_up=SET_UPS["nice"])
        for name in ("first", "second")
    ]
    assert name_by_differences(runs_with_same_settings) == ["first", "second"]
    assert name_by_differences([runs[0], write_run(tmp_path, "unknown")]) == [
        "brain-mlp",
        "unknown",
    ]


def test_numbers_with_caveats_have_a_footnote_sign(tmp_path):
    caveats = ("simulated", "selected on test")
    shown_run = write_run(tmp_path, "ours", caveats=list(caveats))
    scopes = {ALL: {"top1": metric("top1", 0.5, caveats=caveats)}}
    shown_run.folder.finish(replace(shown_run.measurements, scopes=scopes))
    page = lay_out_page([RunGroup([ShownRun("ours", shown_run.folder)])])
    html = page.html()

    assert not any(
        "[" in heading for heading in re.findall(r"<h[1-5][^>]*>(.*?)</h", html)
    )
    assert "50 %†‡ of cases" in page.lead[0]
    assert "0.500†‡" in html
    assert [line[:3] for line in page.warnings] == ["† S", "‡ S"]


def test_a_picture_is_counted_once_however_many_people_saw_it(tmp_path):
    """Issue 84, row E: they counted a picture for each person who saw it."""
    shown_run = write_run(tmp_path, "ours", stimuli=20)
    unknown = write_run(tmp_path, "shared")

    items = "20 test pictures, each decoded in 2 people, among 100 candidates"
    assert items in paper_table(RunGroup([shown_run])).title
    assert f"were measured on {items}" in describe_methods([RunGroup([shown_run])])
    assert "40 test pictures, 2 people" in paper_table(RunGroup([unknown])).title
