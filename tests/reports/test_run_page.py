"""The page of runs, made of their metrics and artifacts alone, whatever command wrote them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from brainhive_cli.commands.report import name_by_differences
from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Curve, Line, Row, Sheet, Tile
from brainhive_cli.core.facts import (
    Answer,
    Control,
    Difference,
    Facts,
    ReconstructionFacts,
    RetrievalFacts,
    Variant,
)
from brainhive_cli.core.facts import Cell as CellFacts
from brainhive_cli.core.measurements import ALL, CALIBRATED, CAVEATS, Measurements, Metric
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Cell
from brainhive_cli.reports.paper_tables import paper_table, write_table
from brainhive_cli.reports.run_page import first_pictures, page_of
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun
from brainhive_cli.reports.sentences import MEANINGS, describe_methods, state_finding
from brainhive_cli.reports.tables import tables_of
from brainhive_cli.reports.templates import write_ends


def metric(name: str, value: float, **more: object) -> Metric:
    context = {"n": 40, "pool": 100, "chance": 0.01, "low": value - 0.1, "high": value + 0.1, "seeds": (1, 2)}
    made = {**context, "protocol": "intra, lab", "split": "test", "interval": "t over subjects", **more}
    return Metric(name, value, **made)


def answer(side: str, scope: str = "") -> Answer:
    """The answer that ranks are on this side of chance."""
    better = {"above chance": 0.01, "at chance": 0.5}[side]
    return Answer("which picture", better, 1 - better, 0.0005, 40, 100, "permutations", scope)


def run(tmp_path: Path, label: str, top1: float = 0.5, **facts: object) -> ShownRun:
    """A run that no command of ours wrote, of two subjects and two seeds."""
    folder = RunFolder(tmp_path / "runs/lab" / label)
    scopes = {ALL: {"top1": metric("top1", top1), "mean_rank": metric("mean_rank", 3.0, chance=50.5)}}
    cells = {}
    for subject, more in (("sub-01", 0.1), ("sub-02", -0.1)):
        for seed in (1, 2):
            name = f"{subject}_seed-{seed}"
            scopes[name] = {
                "top1": metric("top1", top1 + more, seeds=(seed,)),
                "mean_rank": metric("mean_rank", 3.0),
            }
            cells[name] = CellFacts(subject=subject, seed=seed)
    artifacts.write(folder, [Curve("Loss", "epoch", [1, 2], [Line("train", [1.0, 0.5])], section="Training")])
    folder.write_text("recipe.yaml", "epochs: 3\n")
    folder.write_json("environment.json", {"versions": {"brainhive": "0.1", "torch": "2.9"}, "device": "cpu"})
    stated = RetrievalFacts(**{"cells": cells, "answers": [answer("above chance")], **facts})
    folder.finish(Measurements(scopes, {"lpips": "pip install it"}, stated))
    return ShownRun(label, folder)


def difference(first: str, second: str, name: str, value: float, p: float, **more: object) -> Difference:
    """How a run differs from another in a metric, with an interval of ± 0.15."""
    numbers = {"difference": value, "low": value - 0.15, "high": value + 0.15, "p_value": p, "p_adjusted": p}
    numbers |= {"n": 40, "subjects": 2, "least_p": 0.001, "cohens_dz": None, "interval": "inversion"}
    about = {"test": "t", "lower_is_better": name == "mean_rank", **more}
    return Difference(first=first, second=second, metric=name, **numbers, **about)


def text_of(page_folder: Path, *groups: RunGroup) -> str:
    page_of(groups).write(page_folder / "page.html")
    return (page_folder / "page.html").read_text()


def validated(value: float, pool: int = 30) -> dict[str, object]:
    """What a training measured on held-out pictures, as eval-retrieval notes it."""
    return {"metric": "top1", "value": value, "measured_on": {"dataset": "lab", "cells": [[40, pool]]}}


def sweep(tmp_path: Path, top1: dict[str, float], validation: dict[str, object] | None = None) -> ShownRun:
    """An evaluated sweep, with top-1 on test of each variant, and what their trainings validated."""
    folder = RunFolder(tmp_path / "runs/eval-retrieval/sweep")
    scopes = {
        f"{name} · {ALL}": {"top1": metric("top1", value), "top5": metric("top5", value)}
        for name, value in top1.items()
    }
    variants = {name: Variant(run=name, validation=(validation or {}).get(name, {})) for name in top1}
    folder.write_text("recipe.yaml", "align_run: a\n")
    folder.finish(Measurements(scopes, facts=Facts(variants=variants)))
    return ShownRun("sweep", folder)


def bold_rows(group: RunGroup, title: str) -> tuple[str, list[str]]:
    """Give the note of a table, and the labels of the rows whose every value is bold."""
    table = next(table for table in tables_of(group) if table.title.startswith(title))
    rows = {row[0]: [cell.is_best for cell in row[1:] if isinstance(cell, Cell)] for row in table.rows}
    assert all(all(cells) or not any(cells) for cells in rows.values())
    return table.note, [label for label, cells in rows.items() if any(cells)]


TOP1 = {"none": 0.5, "zero": 0.1, "half": 0.3}
VALIDATION = {"none": 0.2, "zero": 0.3, "half": 0.4}


@pytest.mark.parametrize(
    "validation",
    [
        {},
        {"none": validated(0.2), "zero": validated(0.3)},
        {"none": validated(0.2), "zero": validated(0.3), "half": validated(0.4, pool=60)},
        dict.fromkeys(TOP1, validated(0.2)),
    ],
    ids=["nothing is validated", "one is not", "one on other pictures", "all are of one training"],
)
def test_where_validation_cannot_choose_a_variant_it_is_stamped_chosen_on_test(tmp_path, validation):
    run = sweep(tmp_path, TOP1, validation)

    assert state_finding(run.measured) == (
        "3 variants were compared: top-1 lies between 10 % and 50 %. "
        "The best, chosen on test among 3, is “none” with 50 %."
    )
    note, bold = bold_rows(RunGroup([run]), "By variant")
    assert note.startswith("Bold: best, chosen on test among 3.") and bold == ["none"]


def test_the_variant_that_is_best_on_validation_is_named_with_its_test_score_though_another_has_more(
    tmp_path,
):
    run = sweep(tmp_path, TOP1, {name: validated(value) for name, value in VALIDATION.items()})

    assert state_finding(run.measured).endswith("The best on validation (top-1) is “half” with 30 %.")
    note, bold = bold_rows(RunGroup([run]), "By variant")
    assert note.startswith("Bold: best on validation (top-1).") and bold == ["half"]


def test_what_was_selected_on_test_is_not_counted_among_the_variants_that_the_best_is_chosen_of(tmp_path):
    run = sweep(tmp_path, TOP1)
    scopes = dict(run.measured.scopes)
    scopes[f"none · {ALL}"] = {"top1": metric("top1", 0.5, selected=True)}
    run.folder.finish(replace(run.measured, scopes=scopes))

    said = state_finding(run.folder.measurements())

    assert said.endswith("The best, chosen on test among 2, is “half” with 30 %.")


def differences(p: float, *others: str, better: float = 1.0) -> list[Difference]:
    """Differences of the run `first` from others in both metrics of `run`, of this p; -1: it is worse."""
    return [
        difference("first", other, name, better * sign, p)
        for other in others
        for name, sign in (("top1", 0.25), ("mean_rank", -0.25))
    ]


def test_of_runs_that_differ_the_best_on_validation_is_bold_in_pages_and_tables_for_papers(tmp_path):
    first = run(tmp_path, "first", 0.5, validation=validated(0.2))
    second = run(tmp_path, "second", 0.25, validation=validated(0.4))
    unknown = run(tmp_path, "unknown", 0.125)

    worse = RunGroup([first, second], differences(0.004, "second"))  # what validation chose
    assert bold_rows(worse, "Run by run")[1] == []
    group = RunGroup([first, second], differences(0.004, "second", better=-1))
    paper, (note, bold) = paper_table(group), bold_rows(group, "Run by run")
    assert note.startswith("Bold: best on validation (top-1).") and bold == ["second"]
    assert "Bold: best on validation (top-1)" in paper.title
    assert [row[1].is_best for row in paper.rows] == [False, True]
    three = RunGroup([first, second, unknown], differences(0.004, "second", "unknown"))
    assert "best, chosen on test among 3." in paper_table(three).title


def test_of_runs_that_are_not_shown_to_differ_none_is_bold(tmp_path):
    first, second = run(tmp_path, "first", 0.5), run(tmp_path, "second", 0.25)
    group = RunGroup([first, second], differences(0.4, "second"))
    note, bold = bold_rows(group, "Run by run")
    assert note.startswith("No best is marked") and not bold
    assert not any(row[1].is_best for row in paper_table(group).rows)


def test_the_best_cell_of_a_training_is_chosen_on_validation(tmp_path):
    folder = RunFolder(tmp_path / "runs/train-align/lab")
    values = {"sub-01_seed-1": 0.5, "sub-02_seed-1": 0.25}
    scopes = {name: {"top1": metric("top1", top1, split="validation")} for name, top1 in values.items()}
    folder.finish(Measurements(scopes, facts=Facts(cells=dict.fromkeys(values, CellFacts()))))

    said = state_finding(folder.measurements())

    assert said.startswith("2 cells were compared: top-1 lies between 25 % and 50 %.")
    assert said.endswith("The best on validation is “sub-01_seed-1” with 50 %.")


def test_a_run_of_any_command_is_shown_with_all_that_its_documents_hold(tmp_path):
    page = text_of(tmp_path, RunGroup([run(tmp_path, "ours")]))
    assert "in 50 % of cases (95 % CI 40 to 60 %; chance 1 %): 40 test pictures of 2 subjects." in page
    assert "top-1 by subject and seed" in page and "0.500 ± 0.141" in page
    assert "Training" in page and "<svg" in page and "epochs: 3" in page and "PyTorch 2.9" in page
    assert "@software" in page or "@inproceedings" in page


def test_the_first_screen_has_pairs_and_the_headline_with_its_chance_and_intervals(tmp_path):
    shown = run(tmp_path, "ours")
    files = [
        artifacts.save_picture(shown.folder, name, Image.new("RGB", (8, 8), name)) for name in ("red", "blue")
    ]
    rows = [Row(f"cat/{n}", [Tile(files[0], ["a cat"]), Tile(files[1], ["a dog"])]) for n in range(6)]
    artifacts.write(
        shown.folder,
        [Sheet("Retrieved", ["seen", "1"], rows, note="2 of 6, drawn at random (seed 0); sub-01")],
    )

    page = page_of([RunGroup([shown])])

    drawn = run(tmp_path, "drawn", sources=[ALL])
    artifacts.write(drawn.folder, [Sheet("Made", ["seen", "made"], [Row("cat/0", [Tile(""), Tile("")])])])
    assert first_pictures([drawn]) == ([], ""), "a gap is no picture"
    assert [(row[0], len(row[1])) for row in page.pictures] == [("seen", 4), ("retrieved first", 4)]
    assert page.chosen == "2 of 6, drawn at random (seed 0)"


@pytest.mark.parametrize(
    ("side", "said"),
    [
        ("above chance", "That is better than chance (p = 0.02)."),
        ("at chance", "That is not shown to be better than chance (p = 1)."),
    ],
)
def test_the_finding_says_what_how_often_how_sure_and_of_whom(tmp_path, side, said):
    about = {"modality": "EEG", "caveats": ["simulated"]}
    page = page_of([RunGroup([run(tmp_path, "ours", answers=[answer(side)], **about)])])
    assert page.lead == [
        "From simulated EEG, the picture that was seen was ranked first of 100 in 50 % of cases "
        f"(95 % CI 40 to 60 %; chance 1 %): 40 test pictures of 2 subjects. {said}"
    ]


def test_the_verdict_on_drawn_pictures_names_what_needs_no_brain(tmp_path):
    scopes = {
        source: {"two_way": metric("two_way", value)} for source, value in (("brain", 0.8), ("mean", 0.6))
    }
    titles = {"brain": "decoded", "mean": "mean training picture"}
    folder = RunFolder(tmp_path / "run")
    missing = {"clip": "no /folder/clip.pt", "swav": "no /folder/swav.pt"}
    facts = ReconstructionFacts(sources=[*titles], titles=titles)
    folder.finish(Measurements({**scopes, ALL: scopes["brain"]}, missing, facts))
    page = page_of([RunGroup([ShownRun("run", folder)])])
    assert page.lead[0].endswith("By comparison: mean training picture 60 %.")


def test_the_verdict_on_clips_with_captions_says_how_often_they_name_the_object(tmp_path):
    captions = metric("caption_object", 0.75, chance=0.0625)
    folder = RunFolder(tmp_path / "run")
    metrics = {"two_way": metric("two_way", 0.8), "caption_object": captions}
    facts = ReconstructionFacts(medium="clip", sources=["brain"], titles={"brain": "brain"})
    folder.finish(Measurements({ALL: metrics, "brain": metrics}, facts=facts))
    finding = page_of([RunGroup([ShownRun("run", folder)])]).lead[0]
    assert finding.endswith("name the object in 75 % of cases (95 % CI 65 to 85 %; chance 6.25 %).")


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.814, 1.0, "81 to 100 %"), (0.0042, 0.0551, "0.42 to 5.5 %")]
)
def test_the_ends_of_an_interval_are_plain_percentages(low, high, said):
    assert write_ends(metric("top1", 0.5, low=low, high=high)) == said


WIDE, NARROW, AT_CHANCE = (0.4, 0.6), (0.45, 0.55), (0.0, 0.55)


NOT_SHOWN = "That is not shown to be better than chance."


@pytest.mark.parametrize(
    ("ends", "these", "people", "whom", "said"),
    [
        (WIDE, NARROW, WIDE, "of 2 subjects.", ""),
        (AT_CHANCE, NARROW, AT_CHANCE, "of 2 subjects.", NOT_SHOWN),
        (NARROW, NARROW, AT_CHANCE, "of these 2 subjects.", ""),
        (NARROW, NARROW, None, "of these 2 subjects.", ""),
        (AT_CHANCE, AT_CHANCE, None, "of these 2 subjects.", NOT_SHOWN),
        ((None, None), None, None, "of 2 subjects.", "That is too little to tell it from chance."),
    ],
    ids=["five", "five, not found", "two", "two who say nothing of people", "two, not found", "no"],
)
def test_where_subjects_are_few_the_finding_is_of_these_subjects(tmp_path, ends, these, people, whom, said):
    found = replace(metric("two_way", 0.5), low=ends[0], high=ends[1], these_subjects=these, people=people)
    if ends == (None, None):
        found = replace(found, interval="none: 5 items are too few")
    folder = RunFolder(tmp_path / "run")
    cells = {name: CellFacts(subject=name) for name in ("sub-01", "sub-02")}
    folder.finish(Measurements({ALL: {"two_way": found}}, facts=Facts(cells=cells)))

    finding = state_finding(folder.measurements())

    assert finding.endswith(f"40 test items {whom} {said}".rstrip())
    assert ("no interval, as 5 items are too few" in finding) == (ends[0] is None)


@pytest.mark.parametrize("answers", [[], [answer("above chance", "these 2 concepts")]])
def test_a_claim_about_few_concepts_says_so_wherever_it_is_made(tmp_path, answers):
    folder, scopes = RunFolder(tmp_path / "run"), {ALL: {"two_way": metric("two_way", 0.5)}}
    folder.finish(Measurements(scopes, facts=Facts(scope="these 2 concepts", answers=answers)))
    shown = ShownRun("run", folder)
    compared = difference("run", "other", "two_way", 0.25, 0.004, scope="these 2 concepts")

    compared_page = page_of([RunGroup([shown], [compared])])

    assert page_of([RunGroup([shown])]).lead[0].endswith("better than chance for these 2 concepts.")
    assert compared_page.lead[0].endswith(", for these 2 concepts.")
    assert "for these 2 concepts." in paper_table(RunGroup([shown])).title


def test_of_runs_that_are_compared_the_verdict_is_their_difference(tmp_path):
    assert page_of([compared(tmp_path)]).lead[0] == (
        "aligned is better than base in top-1: 50 % against 25 % (difference +25.0 points, "
        "95 % CI +10.0 points to +40.0 points; p = 0.004; 40 items, paired)."
    )


def test_of_runs_that_are_compared_the_headline_has_a_bar_each(tmp_path):
    (headline,) = page_of([compared(tmp_path)]).headlines
    assert list(headline.at) == ["aligned", "base"]


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"caveats": ["simulated"]}, "Simulated: a program made the signals"),
        ({"caveats": ["selected on test"]}, "Selected on test"),
        ({"caveats": [CALIBRATED]}, "Calibrated: the left-out subject"),
        ({"answers": [answer("at chance")]}, "Retrieval is at chance"),
        ({"warnings": ["clip failed its health check"]}, "clip failed its health check"),
    ],
)
def test_every_warning_stands_in_one_place_before_the_numbers(tmp_path, facts, says):
    page = text_of(tmp_path, RunGroup([run(tmp_path, "ours", **facts)]))
    place = page.index("What to know before reading a number")
    assert says in page[place : page.index("</section>", place)]


def test_metrics_that_were_not_measured_unfold_below_the_caveats_without_folders_of_the_machine(tmp_path):
    shown = run(tmp_path, "ours", caveats=["simulated"])
    missing = {"lpips": "pip install it", "clip": "/home/me/models/clip.pt is missing; see https://a.org/b/c"}
    shown.folder.finish(replace(shown.measured, missing=missing))

    page = text_of(tmp_path, RunGroup([ShownRun("ours", shown.folder)]))

    start = page.index("What to know before reading a number")
    assert "lpips" not in page[start : page.index("</section>", start)].lower()
    folded = page[page.index("<summary>Not measured: 2<") :]
    lines = folded[: folded.index("</details>")].lower()
    assert "pip install it" in lines and ": clip.pt is missing; see https://a.org/b/c" in lines
    assert "/home/me" not in page


def test_every_caveat_has_a_sentence_of_its_own(tmp_path):
    pages = [
        text_of(tmp_path, RunGroup([run(tmp_path, f"run{n}", caveats=[one])]))
        for n, one in enumerate(CAVEATS)
    ]
    start = "What to know before reading a number"
    said = [page[page.index(start) : page.index("</section>", page.index(start))] for page in pages]
    assert len({*said}) == len(said) == len(MEANINGS)


def test_what_was_published_stands_below_what_was_measured_and_its_set_up_is_not_checked(tmp_path):
    published = {"top1": 0.625, "source": "Table 1", "differs": ["3 epochs", "no seeds"]}
    measured, table, *_ = tables_of(RunGroup([run(tmp_path, "ours", published=published)]))
    assert measured.title == "All cells together" and "published" not in measured.columns
    assert table.title.startswith("Published") and "not checked by Brainhive: Table 1" in table.title
    assert table.rows == ((0.625, "3 epochs; no seeds"),)


TEST = "sign flips over 40 pictures, for these 2 subjects"


def compared(tmp_path: Path) -> RunGroup:
    runs = [run(tmp_path, "aligned", 0.5), run(tmp_path, "base", 0.25)]
    over = {"tests": 12, "tests_of": "6 metrics × 2 runs"}
    pair = difference("aligned", "base", "top1", 0.25, 0.004, test=TEST, limits=["few subjects"], **over)
    return RunGroup(runs, [pair], ["other: another gallery"])


def test_runs_that_are_compared_stand_below_one_another_with_the_best_and_signs(tmp_path):
    group = compared(tmp_path)
    page = text_of(tmp_path, group)
    assert "aligned is better than base in top-1: 50 % against 25 %" in page
    assert "Not compared: other: another gallery" in page and "Of the tests: few subjects." in page
    runs = tables_of(group)[0]
    aligned, base, _ = (row[1] for row in runs.rows)
    assert (aligned.is_best, base.is_best, base.mark) == (True, False, "**")
    assert [table.title for table in tables_of(group)][1] == "top-1 by subject; seeds averaged"


def test_tables_for_papers_have_means_deviations_the_best_and_signs_that_are_explained(tmp_path):
    table = paper_table(compared(tmp_path))
    markdown, latex = write_table(table, "md"), write_table(table, "tex")
    assert "| aligned | **0.500 ± 0.141** |" in markdown and r"0.250 ± 0.141\*\*" in markdown
    assert r"\textbf{0.500 $\pm$ 0.141}" in latex and r"0.250 $\pm$ 0.141$^{**}$" in latex
    assert all(row.count("&") == 2 for row in latex.splitlines() if "&" in row)
    empty = replace(table, columns=[""], rows=[["none"]])
    assert "&" not in write_table(empty, "tex").partition("midrule")[2]
    assert r"mean rank $\downarrow$" in latex and latex.count(r"\\") == 3
    assert r"** p $\leq$ .01" in latex and r"6 metrics $\times$ 2 runs" in latex
    assert latex.isascii()
    for said in (
        "standard deviation over 2 subjects",
        "Bold: best",
        "** p ≤ .01",
        "differs from aligned",
        TEST,
    ):
        assert said in table.title


def test_of_ranks_less_is_better(tmp_path):
    first, second = run(tmp_path, "first"), run(tmp_path, "second")
    scopes = {ALL: {"mean_rank": metric("mean_rank", 2.0, chance=50.5)}}
    second.folder.finish(Measurements(scopes))
    pairs = [difference("first", "second", "mean_rank", 1.0, 0.004)]
    table = paper_table(RunGroup([first, ShownRun("second", second.folder)], pairs))
    column = table.columns.index(next(name for name in table.columns if "mean rank" in name))
    assert [row[column].is_best for row in table.rows] == [False, True]


def test_a_table_of_one_run_has_a_row_a_subject(tmp_path):
    table = paper_table(RunGroup([run(tmp_path, "ours")]))
    assert [row[0] for row in table.rows] == ["sub-01", "sub-02", "mean"]
    assert not any(cell.is_best for row in table.rows for cell in row[1:])


def test_words_that_latex_would_read_as_commands_are_escaped(tmp_path):
    shown = run(tmp_path, "a_b & c%")
    assert r"a\_b \& c\% & " in write_table(paper_table(RunGroup([shown, run(tmp_path, "other")])), "tex")


SET_UP = {
    "dataset": "things-eeg",
    "subjects": [1, 2],
    "mode": "intra",
    "encoders": ["clip-h14", "vae"],
    "backbone.kind": "brain-mlp",
    "epochs": 25,
    "train.batch_size": 1024,
    "train.lr": 5e-4,
    "selection": "last",
    "channels": ["Oz", "O1"],
    "window_ms": [0, 1000],
    "rate_hz": 250.0,
    "repetitions": [80, 80],
    "unit": "whitened",
    "preparation.whiten": "epochs",
    "preparation.whiten_by": "training",
    "preparation.band_hz": [None, 100],
    "cites.dataset": ["gifford2022"],
    "cites.signals": ["guggenmos2018"],
}


@pytest.mark.parametrize(
    "words",
    [
        "2 subjects (1, 2) of things-eeg (Gifford et al. 2022)",
        "2 channels (Oz, O1), 0 to 1000 ms after stimulus onset at 250 Hz, whitened; 80 repetitions",
        "Recordings were filtered below 100 Hz.",
        "over the samples of each trial, of the training trials of each session (Guggenmos et al. 2018)",
        "A model was trained for each subject.",
        "BrainHiVE's brain MLP was trained to predict the embeddings of clip-h14, vae.",
        "25 epochs in batches of 1024 by AdamW with a learning rate of 0.0005. The last epoch was kept.",
        "Whether ranks are above chance (over 12 concepts) was tested by sign flips.",
        "Whether ranks are above chance for these 2 concepts (which picture) was tested by permutations; "
        "concepts in general: not possible with 2 concepts.",
        "Which concept was seen: cannot be tested: concepts and sessions coincide.",
        "The p of the control is the share of its draws that are at least as good.",
    ],
)
def test_the_methods_name_the_whole_set_up_and_the_test_behind_each_p(tmp_path, words):
    about = "these 2 concepts", "concepts in general: not possible with 2 concepts"
    untested = "cannot be tested: concepts and sessions coincide"
    answers = [
        Answer("over 12 concepts", 0.01, 0.99, 0.0005, 24, 24, "sign flips"),
        Answer("which picture", 0.01, 0.99, 0.0004, 24, 24, "permutations", *about),
        Answer("which concept", None, None, 1.0, 24, 24, untested, *about[:1]),
    ]
    control = Control(kind="shuffled", draws=1000, n=24, pool=24, metrics={})
    shown = run(tmp_path, "ours", set_up=SET_UP, answers=answers, control=control)
    assert words in describe_methods([RunGroup([shown])])


def test_every_caption_of_adjusted_p_says_over_how_many_tests_and_of_what(tmp_path):
    group, over = compared(tmp_path), "p adjusted by Benjamini–Hochberg over 12 tests: 6 metrics × 2 runs"
    notes = {table.title: table.note for table in tables_of(group)}

    assert over in notes["Run by run"]
    assert over in notes["Differences of aligned, paired by item and subject"]
    assert over in paper_table(group).title and over in describe_methods([group])


def test_of_runs_that_cannot_be_compared_none_is_the_best(tmp_path):
    group = RunGroup([run(tmp_path, "ours", 0.5), run(tmp_path, "theirs", 0.25)], [], ["other galleries"])

    table = paper_table(group)
    assert not any(cell.is_best for row in table.rows for cell in row[1:])
    assert "Bold" not in table.title and "No best is marked" in table.title
    runs = tables_of(group)[0]
    assert not any(row[1].is_best for row in runs.rows) and "Bold" not in runs.note


def test_a_run_that_was_left_out_of_the_comparison_is_not_the_best_of_the_others(tmp_path):
    group = compared(tmp_path)
    group = replace(group, runs=[*group.runs, run(tmp_path, "other", 0.9)])

    rows = {row[0]: row[1:] for row in paper_table(group).rows}
    assert rows["aligned"][0].is_best and not rows["other"][0].is_best
    assert "Bold: best, chosen on test among 2; compared: aligned, base." in paper_table(group).title
    assert [row[1].is_best for row in tables_of(group)[0].rows[:3]] == [True, False, False]


def test_a_page_lists_in_what_runs_differ(tmp_path):
    fewer = {**SET_UP, "repetitions": [8, 8], "train.lr": 1.0}
    group = RunGroup([run(tmp_path, "ours", set_up=SET_UP), run(tmp_path, "theirs", set_up=fewer)])

    differing = next(table for table in tables_of(group) if table.title.startswith("Set-ups"))
    assert differing.rows == (("theirs", "train.lr 1, not 0.0005"), ("theirs", "repetitions 8, not 80"))


def test_what_stands_after_plus_minus_is_said_for_one_subject_too(tmp_path):
    one = run(tmp_path, "ours")
    document = one.folder.measurements()
    top1 = replace(document.scopes[ALL]["top1"], seed_sd=0.02)
    one.folder.finish(replace(document.stating(cells={}), scopes={ALL: {"top1": top1}}))

    table = paper_table(RunGroup([ShownRun("ours", one.folder)]))
    assert table.rows[-1][1].text == "0.500 ± 0.020"
    assert "± is the standard deviation over the seeds" in table.title


def test_tables_say_below_how_their_values_were_measured(tmp_path):
    (first, *_) = tables_of(RunGroup([run(tmp_path, "ours")]))
    assert "intra, lab" in first.note and not first.section


@pytest.mark.parametrize("count", [3, 12])
def test_a_table_by_subject_has_a_row_a_metric_where_there_are_more_than_a_page_is_wide(tmp_path, count):
    names = [f"metric_{place}" for place in range(count)]
    subjects = {f"sub-{number:02d}_seed-1": f"sub-{number:02d}" for number in (1, 2)}
    scopes = {name: {metric_: metric(metric_, 0.5) for metric_ in names} for name in (ALL, *subjects)}
    folder = RunFolder(tmp_path / "run")
    cells = {name: CellFacts(subject=subject, seed=1) for name, subject in subjects.items()}
    folder.finish(Measurements(scopes, facts=Facts(cells=cells)))
    table = next(
        t for t in tables_of(RunGroup([ShownRun("run", folder)])) if t.title.startswith("By subject")
    )
    heads = [row[0] for row in table.rows]
    if count == 3:
        assert table.columns[0] == "subject" and heads == ["sub-01", "sub-02", "chance"]
    else:
        assert table.columns == ["metric", "sub-01", "sub-02", "chance"] and len(heads) == count


SET_UPS = {
    "brain-mlp": {"dataset": "things-eeg", "backbone.kind": "brain-mlp", "mode": "intra", "epochs": 25},
    "longer": {"dataset": "things-eeg", "backbone.kind": "brain-mlp", "mode": "intra", "epochs": 50},
    "nice": {"dataset": "things-eeg", "backbone.kind": "nice", "mode": "intra", "epochs": 50},
}


def test_a_page_is_called_by_data_set_and_question_or_else_by_its_run(tmp_path):
    shown = {name: run(tmp_path, name, set_up=set_up) for name, set_up in SET_UPS.items()}
    for each in shown.values():  # as the command's folder
        (tmp_path / "runs/eval-retrieval").mkdir(exist_ok=True)
        each.folder.path.rename(tmp_path / "runs/eval-retrieval" / each.label)
    runs = [ShownRun(name, RunFolder(tmp_path / "runs/eval-retrieval" / name)) for name in shown]
    assert page_of([RunGroup(runs[:1])]).title == "things-eeg: which picture was seen?"
    assert page_of([RunGroup([runs[0], runs[2]])]).title == "things-eeg: which picture was seen?"
    assert page_of([RunGroup([run(tmp_path, "alone")])]).title == "alone: lab"


def test_compared_runs_are_called_by_the_fewest_keys_that_tell_them_apart(tmp_path):
    runs = [run(tmp_path, name, set_up=set_up) for name, set_up in SET_UPS.items()]
    assert name_by_differences(runs) == ["brain-mlp, epochs 25", "brain-mlp, epochs 50", "nice, epochs 50"]
    assert name_by_differences(runs[1:]) == ["brain-mlp", "nice"]
    same = [run(tmp_path, name, set_up=SET_UPS["nice"]) for name in ("first", "second")]
    assert name_by_differences(same) == ["first", "second"]
    assert name_by_differences([runs[0], run(tmp_path, "unknown")]) == ["brain-mlp", "unknown"]


def test_a_table_for_papers_has_the_value_of_the_page_though_subjects_average_to_another(tmp_path):
    shown = run(tmp_path, "ours")
    ranks = {ALL: 3.583, "sub-01_seed-1": 3.0, "sub-02_seed-1": 4.334}
    scopes = {name: {"median_rank": metric("median_rank", value)} for name, value in ranks.items()}
    shown.folder.finish(replace(shown.measured, scopes=scopes))
    group = RunGroup([ShownRun("ours", shown.folder), run(tmp_path, "other")])

    row = next(row for row in paper_table(group).rows if row[0] == "ours")
    on_page = next(row for row in tables_of(group)[0].rows if row[0] == "ours")

    assert any(cell.text.startswith("3.583") for cell in row[1:])
    assert any(cell.value == 3.583 for cell in on_page[1:] if isinstance(cell, Cell))


def test_runs_of_several_protocols_have_each_its_own_in_captions_and_on_the_page(tmp_path):
    first, second = run(tmp_path, "first"), run(tmp_path, "second")
    other = "intra, lab, normalised by session"
    scopes = {ALL: {"top1": metric("top1", 0.5, protocol=other)}}
    second.folder.finish(replace(second.measured, scopes=scopes))
    group = RunGroup([first, ShownRun("second", second.folder)])

    caption = paper_table(group).title
    table = next(table for table in tables_of(group) if table.title == "Protocol of each run")

    assert "first: intra, lab;" in caption and f"second: {other};" in caption
    assert table.rows == (("first", "intra, lab"), ("second", other))
    assert "Protocol:" not in tables_of(group)[0].note


def test_one_subject_has_no_bar_beside_that_of_all(tmp_path):
    shown = run(tmp_path, "ours")
    alone = {"sub-01_seed-1": CellFacts(subject="sub-01", seed=1)}
    shown.folder.finish(shown.measured.stating(cells=alone))

    assert page_of([RunGroup([ShownRun("ours", shown.folder)])]).headlines == []


def test_map_is_left_out_where_it_is_mrr_by_definition(tmp_path):
    shown = run(tmp_path, "ours")
    for map_value, names in ((0.4, ["MRR"]), (0.3, ["MRR", "mAP"])):
        metrics = {"mrr": metric("mrr", 0.4), "map": metric("map", map_value)}
        shown.folder.finish(replace(shown.measured, scopes={ALL: metrics}))
        group = RunGroup([ShownRun("ours", shown.folder)])
        assert [row[0] for row in tables_of(group)[0].rows] == names
        assert [name for name in paper_table(group).columns if name in ("MRR", "mAP")] == names


def test_top_5_is_left_out_where_five_candidates_cannot_miss(tmp_path):
    shown = run(tmp_path, "ours")
    for pool, names in ((5, ["top-1"]), (10, ["top-1", "top-5"])):
        chances = {"top1": 1 / pool, "top5": 5 / pool}
        metrics = {name: replace(metric(name, 1.0), chance=chance) for name, chance in chances.items()}
        shown.folder.finish(replace(shown.measured, scopes={ALL: metrics}))
        group = RunGroup([ShownRun("ours", shown.folder)])
        assert [row[0] for row in tables_of(group)[0].rows] == names


def test_no_heading_of_a_page_has_a_code_and_each_number_with_caveats_has_a_footnote_sign(tmp_path):
    caveats = ("simulated", "selected on test")
    shown = run(tmp_path, "ours", caveats=[*caveats])
    scopes = {ALL: {"top1": metric("top1", 0.5, caveats=caveats)}}
    shown.folder.finish(replace(shown.measured, scopes=scopes))
    page = page_of([RunGroup([ShownRun("ours", shown.folder)])])
    html = page.html()

    assert not any("[" in heading for heading in re.findall(r"<h[1-5][^>]*>(.*?)</h", html))
    assert "50 %† of cases" in page.lead[0] and "0.500†" in html
    assert [line[:3] for line in page.warnings] == ["† S", "† S"]
