"""Facts of a run: every result of a command that is not a number with an interval.

Each command has its own class of facts, such as `RetrievalFacts`. Some words recur:

- A run is the folder with the results of a command. A sweep is a run that tries several
  variants of its settings.
- A scope is the name of a group of metrics, such as `all` or `subject 1`. In claims, it
  is the set of subjects or stimuli that a claim holds for.
- A cell is a model that was trained for a subject (or for all) with a seed.
- The set-up of a run is the settings of signals, model and training behind its numbers.
- A caveat is a fixed phrase that limits a number (see `measurements.CAVEATS`).
- The pool of an item is the number of candidates among which it is ranked.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field
from pydantic.dataclasses import dataclass

SIGNIFICANCE_LEVEL = 0.05
"""Largest p of a significant difference."""
Side = Literal["above chance", "at chance", "below chance", "not testable"]
SetUp = Mapping[str, Any]
"""Settings behind the numbers of a run, by dotted key. Keys of a recipe are written as
in the recipe, such as `train.lr`. The keys in `SIGNAL_KEYS` describe the signals.
Unknown settings are left out.
"""
SIGNAL_KEYS = (
    "channels",
    "channel_mapping",
    "window_ms",
    "rate_hz",
    "repetitions",
    "unit",
    "preparation",
)
"""Keys of a set-up that describe the tested signals. If two runs differ in these keys,
a comparison of the runs is not a comparison of their models alone.
"""
CITES = "cites"
"""Section of a set-up that lists papers, as keys in reports/references.bib. The papers
describe the data set, the signals, the model, the encoders and the generator.
"""
MAX_LISTED_VALUES = 6
"""Length of the longest list that is written with all its values. For a longer list,
only the length, the first value and the last value are written.
"""
NO_VALUE = "none"
"""Text for a setting without a value."""
MAX_TEXT_LETTERS = 80
"""Longest text of the value of a setting. Longer texts are cut."""


class FrozenModel(BaseModel):
    """Base class of facts: fields with plain values, which cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CellFacts(FrozenModel):
    """Facts of a cell: of the training of a model, or of the test of a trained model.

    Attributes:
        cell: Name of the cell. Empty if the name of the scope is also the name of the
            cell.
        subject: Subject whose signals were used, or None for several subjects.
        seed: Seed of the training.
        source: Origin of the reconstructed pictures, such as `brain`.
        title: Name of the cell in tables.
        variant: Variant of the settings that the cell belongs to, in a sweep.
        epoch: Epoch whose weights were kept.
        selected_on: Data on which this epoch was selected.
        caveats: Phrases that limit the numbers of the cell.
        took: Cost of the training or test: seconds, peak memory in bytes and number of
            parameters, by name.
    """

    cell: str = ""
    subject: int | str | None = None
    seed: int | None = None
    source: str = ""
    title: str = ""
    variant: str = ""
    epoch: int | None = None
    selected_on: str = ""
    caveats: list[str] = []
    took: dict[str, float | None] = {}


@dataclass(frozen=True)
class Answer:
    """Result of a permutation test of mean ranks against chance.

    The question is whether the shown stimuli (or the stimuli of the shown concepts)
    rank better than the other candidates.

    Attributes:
        question: The question, which asks for the seen stimulus or for its concept.
        better: One-sided p for ranks better than chance. It is the probability that the
            mean rank under permuted labels is at most the measured mean rank. None if
            there is no test.
        worse: One-sided p for ranks worse than chance. It is the probability that the
            mean rank under permuted labels is at least the measured mean rank. None if
            there is no test.
        least_p: Smallest two-sided p that the test can give.
        n: Number of tested items over all subjects.
        pool: Number of candidates among which each item is ranked.
        test: Method of the test, or the reason why there is no test.
        scope: Stimuli or concepts that the answer holds for, such as "these 2
            concepts". Empty if it holds for stimuli in general.
        wider: Sentence on a more general claim that the design of the experiment does
            not allow. Empty if the design allows all claims.
        condition: Assumption behind the answer that the data cannot confirm.
    """

    question: str
    better: float | None
    worse: float | None
    least_p: float
    n: int
    pool: int
    test: str
    scope: str = ""
    wider: str = ""
    condition: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p(self) -> float | None:
        """Two-sided p, or None without a test."""
        if self.better is None or self.worse is None:
            return None
        # the two-sided p is twice the smaller one-sided p
        return min(1.0, 2 * min(self.better, self.worse))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def side(self) -> Side:
        """Result of the two-sided test at `SIGNIFICANCE_LEVEL`."""
        # if the smallest possible p is too large, no result can be significant
        if (
            self.better is None
            or self.worse is None
            or self.least_p > SIGNIFICANCE_LEVEL
        ):
            return "not testable"
        if 2 * self.better <= SIGNIFICANCE_LEVEL:
            return "above chance"
        if 2 * self.worse <= SIGNIFICANCE_LEVEL:
            return "below chance"
        return "at chance"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def words(self) -> str:
        """Result of the test in words, or the reason why there is no test.

        The result is followed by the stimuli that it holds for and by its assumption.
        """
        if self.p is None:
            return f"{self.side}: {self.test}"
        scope = f" for {self.scope}" if self.scope else ""
        condition = f", if {self.condition}" if self.condition else ""
        return f"{self.side}{scope}{condition}"

    @property
    def sentence(self) -> str:
        """Sentence with the question, the result, its test and the limit of the claim.

        Without a test, the sentence has the question and the reason.
        """
        if self.p is None:
            return f"{self.question}: {self.test}"
        sentence = (
            f"{self.question}: {self.words} (p {self.p:.2g}, {self.test}, "
            f"{self.n} stimuli among {self.pool})"
        )
        return f"{sentence}; {self.wider}" if self.wider else sentence


class Difference(FrozenModel):
    """Difference of a metric between two runs, sources of pictures or variants.

    Both values of the metric are measured on the same items and subjects.

    Attributes:
        first: Name of the first run, source or variant.
        second: Name of the second run, source or variant.
        metric: Name of the metric.
        difference: First value minus second value, averaged over subjects.
        low: Lower end of the 95 % interval of the difference, or None with too few
            items. The interval contains the differences that the test does not reject.
        high: Upper end of the interval, or None with too few items.
        interval: Method of the interval, and the subjects and items that it holds for.
        n: Number of compared items over all subjects.
        subjects: Number of subjects.
        p_value: Two-sided p, or None with too few items. It is at most .05 exactly if
            the interval excludes 0.
        p_adjusted: Two-sided p after an adjustment for the number of tests in the
            family, or None without an adjustment.
        test: Method of the test, and the subjects and items that it holds for.
        least_p: Smallest p that the test can give.
        cohens_dz: Effect size over subjects: the mean of the differences divided by
            their standard deviation.
        lower_is_better: True if smaller values of this metric are better.
        scope: Subjects or stimuli that the claim holds for. Empty if it holds for
            subjects and stimuli in general.
        limits: Sentences that limit the claim.
        differs: Descriptions of the settings in which the two runs differ.
        caveats: Phrases that limit the first or the second value.
        tests: Number of tests in the family of tests that p is adjusted for. 0 for a
            single test, whose p is not adjusted.
        tests_of: Description of this family of tests.
    """

    # the two values
    first: str = ""
    second: str = ""
    metric: str = ""

    # effect, with its 95 % interval
    difference: float
    low: float | None
    high: float | None
    interval: str

    # items, and the test on them
    n: int
    subjects: int
    p_value: float | None
    p_adjusted: float | None = None
    test: str
    least_p: float
    cohens_dz: float | None
    lower_is_better: bool = False
    scope: str = ""

    # limits of the claim
    limits: list[str] = []
    differs: list[str] = []
    caveats: list[str] = []

    # family of tests that p is adjusted for
    tests: int = 0
    tests_of: str = ""

    @property
    def p(self) -> float | None:
        """The adjusted p if the test belongs to a family of tests, else `p_value`."""
        return self.p_adjusted if self.tests else self.p_value

    @property
    def is_significant(self) -> bool:
        """True if `p` is at most `SIGNIFICANCE_LEVEL`."""
        return self.p is not None and self.p <= SIGNIFICANCE_LEVEL

    @property
    def is_better(self) -> bool:
        """True if the first value is better, even if not significantly."""
        return (self.difference > 0) != self.lower_is_better


class SeenPictures(FrozenModel):
    """Test pictures that were left out, because a model was trained on them.

    Attributes:
        count: Number of pictures that were left out.
        of: Number of test pictures before pictures were left out.
        names: Names of the first few pictures that were left out.
    """

    count: int = 0
    of: int = 0
    names: list[str] = []


class Variant(FrozenModel):
    """Facts of one variant of a sweep.

    Attributes:
        run: Name of the run that has the variant.
        validation: Values on the validation pictures, by name.
        sources: Origins of the variant's pictures, such as `brain`.
    """

    run: str = ""
    validation: dict[str, Any] = {}
    sources: list[str] = []


class Facts(FrozenModel):
    """Facts that a run of any command may have.

    Attributes:
        command: Command of the run.
        caveats: Phrases that limit all numbers of the run.
        warnings: Sentences that the HTML page of the run shows above the numbers.
        dataset: Name of the data set of the test.
        modality: EEG, MEG or fMRI. Empty if unknown.
        stimulus: Kind of the stimuli: `picture`, `clip` or `category`.
        mode: Mode of the training: `intra` (one subject), `inter` (new subjects),
            `joint` (all together) or `finetune` (fitted to a new subject).
        protocol: Description of the measurement in one line.
        run: Name of the training run whose models were tested.
        runs: Names of all training runs whose models were tested.
        units: Noun for the groups of items that count as one in intervals and tests,
            such as `pictures`.
        unit_count: Number of these groups.
        stimuli: Number of different stimuli. A stimulus that several subjects saw
            counts once. 0 if unknown.
        scope: Subjects or stimuli that the claims hold for. Empty if the claims hold
            for subjects and stimuli in general.
        inflation: Factor by which the variance of a mean grows, because the models of
            different folds share training data. 1 without such folds.
        set_up: Settings of signals, model and training by dotted key (see `flatten`).
        seen_in_training: Test pictures that were left out, because a model was trained
            on them.
        published: Values of a paper, with the key `source` for the paper and the key
            `differs` for differences between the methods.
        cells: Facts of the cells (trained models), by scope of the metrics.
        variants: Facts of the variants of a sweep, by label of the variant.
        sources: Origins of pictures that are compared, such as `brain`. The run is
            about the first origin. The others are controls.
        titles: Title in tables, by origin of the pictures.
        comparisons: Differences between origins of pictures, or between variants.
        against: Differences from other runs.
        not_compared: Reasons why other runs were not compared with this run.
        validation: Values of the tested training on the validation pictures, by name.
        answers: Tests of ranks against chance. The first is the main test.
    """

    command: str = ""
    caveats: list[str] = []
    warnings: list[str] = []

    # tested data and protocol
    dataset: str = ""
    modality: str = ""
    stimulus: str = "picture"
    mode: str = ""
    protocol: str = ""
    run: str = ""
    runs: list[str] = []

    # units of intervals and tests
    units: str = ""
    unit_count: int = 0
    stimuli: int = 0
    scope: str = ""
    inflation: float = 1.0

    # set-up, and published values to compare with
    set_up: dict[str, Any] = {}
    seen_in_training: SeenPictures = SeenPictures()
    published: dict[str, Any] = {}

    # groups of metrics
    cells: dict[str, CellFacts] = {}
    variants: dict[str, Variant] = {}
    sources: list[str] = []
    titles: dict[str, str] = {}

    # differences and tests
    comparisons: list[Difference] = []
    against: list[Difference] = []
    not_compared: list[str] = []
    validation: dict[str, Any] = {}
    answers: list[Answer] = []

    @property
    def verdict(self) -> str:
        """Result of the main test against chance. Empty without a test."""
        return self.answers[0].words if self.answers else ""


class TrainingFacts(Facts):
    """Facts of train-align.

    Attributes:
        is_closed_form: True if the models were computed in closed form, without epochs.
    """

    command: str = "train-align"
    is_closed_form: bool = False


class GalleryFacts(FrozenModel):
    """Candidates of a retrieval.

    Attributes:
        dataset: Data set of the candidates.
        splits: Splits whose pictures are candidates.
        pictures: Number of candidates.
        held_out: Description of the held-out trials. Empty if pictures are held out.
        digest: Digest of the candidates. Two runs with the same digest are comparable.
    """

    dataset: str
    splits: Any = None
    pictures: int
    held_out: str = ""
    digest: str


class Control(FrozenModel):
    """Distribution of metrics under shuffled signals or permuted labels.

    Attributes:
        kind: Name of the control.
        draws: Number of draws.
        n: Number of items.
        pool: Number of candidates of each item.
        metrics: Results by metric: the measured value (`measured`), the `mean` of the
            draws, the range of their middle 95 % (`low`, `high`) and `p`.
    """

    kind: str
    draws: int
    n: int
    pool: int
    metrics: dict[str, dict[str, float]]


RIDGE_RECIPE = "ridge.yaml"
"""File with the recipe of the baseline ridge, in the folder of an evaluation."""
MAX_MISFILED_P = 0.001
"""Largest corrected p at which pictures are suspected to be filed in a wrong order. The
orders are tested for each result at chance, so a limit of .05 would suspect one sound
study in twenty.
"""


class Baseline(FrozenModel):
    """Ridge regression in closed form, fitted as a baseline for a model.

    If the model ranks pictures at chance, the baseline also tries whether the pictures
    would be found in another order than they are filed in.

    Attributes:
        reason: Reason why no ridge was fitted, or no other order was tried. Else empty.
        answer: Test of the ridge's ranks against chance.
        orders: Number of other orders that were tried.
        order: Order in which the ridge finds the pictures. Empty if it does not find
            them in any other order.
        order_p: p of this order, corrected for the number of orders.
    """

    reason: str = ""
    answer: Answer | None = None
    orders: int = 0
    order: str = ""
    order_p: float | None = None

    @property
    def may_be_misfiled(self) -> bool:
        """True if the pictures are probably filed in a wrong order."""
        return self.order_p is not None and self.order_p <= MAX_MISFILED_P


class ConfusionMatrix(FrozenModel):
    """Confusion matrix of K concepts.

    Attributes:
        names: Names [K] of the concepts.
        counts: Number of trials [K, K], by seen concept (rows) and decoded concept
            (columns).
    """

    names: list[str]
    counts: list[list[int]]


class RetrievalFacts(Facts):
    """Facts of eval-retrieval.

    Attributes:
        claims: Sentence on the claims that the design allows.
        gallery: Candidates.
        control: Distribution under a control.
        prior: Name of the run of the prior (a model that maps brain tokens to the
            inputs of a generator) that predicted the tokens. None without a prior.
        confusion_matrix: Confusion matrix of trials, or None with many concepts.
        tests_trials: True if trials of training pictures or categories were held out,
            not pictures.
        plain: Differences between the model and simple baselines on the same folds.
        baseline: Ridge that was fitted as a baseline.
        repetitions: Largest number of repetitions of a picture in the noise ceiling,
            which compares halves of them. 0 without a ceiling.
        subset_ways: Requested number of pictures in the subsets of the candidates. 0
            without subsets.
        subset_pools: Numbers of pictures that the subsets have, ascending. A number is
            smaller than requested if a subject saw fewer pictures.
    """

    command: str = "eval-retrieval"
    claims: str = ""
    gallery: GalleryFacts | None = None
    control: Control | None = None
    prior: str | None = None
    confusion_matrix: ConfusionMatrix | None = None
    tests_trials: bool = False
    plain: list[Difference] = []
    baseline: Baseline | None = None
    repetitions: int = 0
    subset_ways: int = 0
    subset_pools: list[int] = []


class ReconstructionFacts(Facts):
    """Facts of reconstruct.

    Attributes:
        medium: Kind of the reconstructions: `picture` or `clip`.
        prior: Run of the prior that predicted the tokens.
        concepts: Concepts whose recall was measured.
        score: Folder of existing reconstructions that were scored. Empty if the run
            generated the reconstructions itself.
        unmatched: Files of this folder that belong to no stimulus.
        without: Stimuli that have no file in this folder.
        originals: Files of this folder that are copies of the stimuli. They were left
            out.
        one_colour: Reconstructions that have a single colour.
    """

    command: str = "reconstruct"
    medium: str = "picture"
    prior: str = ""
    concepts: list[str] = []
    score: str = ""
    unmatched: list[str] = []
    without: list[str] = []
    originals: list[str] = []
    one_colour: list[str] = []


class AxisClaim(FrozenModel):
    """Time, sensor or region whose signals tell which picture was seen.

    Attributes:
        axis: Axis along which positions were tested.
        place: Name of the significant position with the strongest effect. If no
            position is significant, the position with the strongest effect of all.
        p: p of this position, corrected for all positions of all analyses.
        first: First time above chance, or the time by which an effect has begun. Empty
            without such a time, or if a filter hides it.
    """

    axis: Literal["time", "sensor", "region"]
    place: str
    p: float
    first: str = ""

    @property
    def is_significant(self) -> bool:
        """True if a position along the axis is significant."""
        return self.p < SIGNIFICANCE_LEVEL


class ExplanationFacts(Facts):
    """Facts of explain.

    Attributes:
        claims: Positions whose signals tell which picture was seen, first in time, then
            in space.
        untested: Reason why there are no claims.
        draws: Number of permutations of the labels.
        profiles: Result of each analysis: axis, positions, p and first time above
            chance.
        ceilings: Noise ceilings at each position, by metric and name. For encoding
            models they come from halves of the repetitions, averaged over sensors.
        generalisation: p [P, P] of a classifier that is trained at one of P times and
            tested at another.
    """

    command: str = "explain"
    claims: list[AxisClaim] = []
    untested: str = ""
    draws: int = 0
    profiles: list[dict[str, Any]] = []
    ceilings: dict[str, dict[str, list[float]]] = {}  # metric, name, positions
    generalisation: list[list[float]] = []


class Amount(FrozenModel):
    """Amount of recording that calibrates a model to a new person.

    Attributes:
        name: Name of the amount.
        pictures: Number of pictures, averaged over persons.
        trials: Number of trials, averaged over persons.
        minutes: Minutes of recording, averaged over persons, or None if unknown.
    """

    name: str
    pictures: float
    trials: float
    minutes: float | None = None


class Strength(FrozenModel):
    """Strength with which transfer pulls a new model towards the model of other people.

    Attributes:
        pulls: Strength by amount. The value None stands for zero-shot, without any
            training.
        chosen_by: Way in which the strengths were chosen. `people`: by the accuracy in
            other people. `recipe`: by the recipe. `closed form`: the model has none.
            `number of pictures`, `one person` (the model was trained on one person) and
            `another model` (it continued from another model): by the number of
            pictures.
        people: Number of people whose accuracy was used.
        mrr: Mean reciprocal rank by amount and strength. Empty unless people were used.
    """

    pulls: dict[str, float | None]
    chosen_by: Literal[
        "people",
        "recipe",
        "closed form",
        "one person",
        "another model",
        "number of pictures",
    ]
    people: int = 0
    mrr: dict[str, dict[str, float]] = {}


class CalibrationFacts(Facts):
    """Facts of calibrate.

    Attributes:
        arm: Name of the arm (way to calibrate a model, or control) that the finding is
            about. Empty if only controls were measured.
        arms: Description of each arm, by name: the data that it uses from a new person,
            the name of such an evaluation in MOABB, and the method.
        unit: Unit of the amounts.
        amounts: Amounts of recording, ascending. The last is everything.
        people: Top-1 of the arm `arm` with each amount, by person.
        is_above_chance: True if the top-1 of this arm with everything is above chance.
        lead: Amount that the finding is about. It is the smallest amount that surely
            gives 90 % of the top-1 with everything, or else the largest amount below
            everything. Empty for everything.
        suffices: Two indices of amounts, or None if not measured. All amounts that
            surely give less than 90 % of everything lie below the first index. All
            amounts from the second index on surely give 90 % or more.
        better: Two indices of amounts, or None if transfer and scratch were not
            compared or there are too few people. All amounts at which transfer surely
            beats training from scratch lie below the first index. From the second index
            on, transfer surely does not beat it.
        strength: Strength of transfer, by model and person.
        trained_on: Smallest and largest number of people that a model was trained on.
        seen_share: Share of the new persons' pictures that these people saw too.
        epochs: Epochs of each training, or None in closed form.
        pictures_left_out: Number of pictures left out of the recordings, by person.
    """

    command: str = "calibrate"
    arm: str = ""
    # data of the new person, MOABB's name, method
    arms: dict[str, tuple[str, str, str]] = {}
    unit: Literal["pictures", "trials", "minutes"] = "pictures"
    amounts: list[Amount] = []
    people: dict[str, list[float]] = {}
    is_above_chance: bool = False
    lead: str = ""
    suffices: tuple[int, int] | None = None
    better: tuple[int, int] | None = None
    strength: dict[str, Strength] = {}
    trained_on: tuple[int, int] = (0, 0)
    seen_share: float = 0.0
    epochs: int | None = None
    pictures_left_out: dict[str, int] = {}


class LiveFacts(Facts):
    """Facts of live.

    Attributes:
        windows: Number of decoded windows.
        ended: Reason why the session ended.
        latency_ms: Median, 95th percentile and maximum of the latency, by stage of the
            processing, such as `decoding`.
        stream: Counts of the stream, such as lost samples.
        differs: Sentences on differences from the processing offline.
        hits: Number of single trials in which the shown picture ranked first.
        is_interleaved: True if the pictures came in an order that a slow drift of the
            signal cannot explain.
        anytime_p: p that holds whenever the session ends, or None without a test.
        trials_learned_from: Number of trials that the model was trained on.
        unknown_events: Names of the events, if no event belongs to a picture.
        candidates: Names of the pictures in the gallery, if no event belongs to one of
            them.
    """

    command: str = "live"
    windows: int = 0
    ended: str = ""
    latency_ms: dict[str, dict[str, float]] = {}  # stage, quantile
    stream: dict[str, Any] = {}
    differs: list[str] = []
    hits: int = 0
    is_interleaved: bool = True
    anytime_p: float | None = None
    trials_learned_from: int = 0
    unknown_events: list[str] = []
    candidates: list[str] = []


class WorkflowFacts(Facts):
    """Facts of workflow and demo.

    Attributes:
        commands: Command line of each step.
        findings: Finding of each step.
        retrievals: Run of each step that is an eval-retrieval, as a path below the
            folder of runs.
        control_effects: Effect of each control on each head of the model.
    """

    command: str = "workflow"
    commands: list[str] = []
    findings: dict[str, str] = {}
    retrievals: dict[str, str] = {}
    control_effects: list[Difference] = []


FACTS: dict[str, type[Facts]] = {
    str(model.model_fields["command"].default): model
    for model in Facts.__subclasses__()
}
FACTS["demo"] = WorkflowFacts
"""Class of the facts, by command. Other commands have the class `Facts`."""


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into a dict with dotted keys.

    Args:
        fields: Nested mappings, such as settings in the form `{"train": {"lr": 0.1}}`.
        prefix: Key that is put in front of all keys, with a dot. Empty for no prefix.

    Returns:
        Values by dotted key, such as `{"train.lr": 0.1}`. An empty mapping inside of
        `fields` is kept as a value.
    """
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, name)
        else:
            flat[name] = value
    return flat


def cite(**papers: Sequence[str]) -> dict[str, list[str]]:
    """Make the part of a set-up that lists papers.

    Args:
        papers: Keys in reports/references.bib, by topic such as `model`.

    Returns:
        Keys of the papers, each once, by `cites.TOPIC`. Topics without papers are left
        out.
    """
    return {
        f"{CITES}.{topic}": list(dict.fromkeys(keys))
        for topic, keys in papers.items()
        if keys
    }


def merge_set_ups(set_ups: Sequence[SetUp]) -> dict[str, Any]:
    """Merge the settings of several subjects or runs, to describe their mean result.

    Args:
        set_ups: Settings by dotted key, such as `train.lr`. There is a mapping for each
            subject or run.

    Returns:
        Settings by dotted key. A key is left out unless all mappings have the key. If
        the values of a setting differ, the value is a text such as
        `100 Hz or 250 Hz`. Keys that begin with `cites` hold lists of papers. They are
        always kept, and their lists are joined without duplicates.
    """
    # collect the keys in a dict, because a set would lose their order
    keys: dict[str, None] = {}
    for set_up in set_ups:
        keys |= dict.fromkeys(set_up)

    merged: dict[str, Any] = {}
    for key in keys:
        values = [set_up[key] for set_up in set_ups if key in set_up]
        if key.startswith(CITES):
            papers: dict[str, None] = {}
            for value in values:
                papers |= dict.fromkeys(value)
            merged[key] = list(papers)
        elif len(values) < len(set_ups):
            # the setting is unknown for at least one subject or run
            continue
        elif all(value == values[0] for value in values):
            merged[key] = values[0]
        else:
            # write each distinct value as text with its unit
            texts = [format_setting(key, value) for value in values]
            merged[key] = " or ".join(dict.fromkeys(texts))
    return merged


def list_differences(
    first: SetUp, second: SetUp, sections: Collection[str] | None = None
) -> list[str]:
    """List the settings in which two set-ups differ.

    The set-up of a run is the settings behind its numbers, by dotted key. The section
    of a key is the text before the first dot. Some differences are not listed:

    - Sections that only one set-up has, because they are unknown in the other.
    - Papers (the section `cites`).
    - Settings of components of different kinds, such as the loss. Only the kinds are
      listed.
    - Settings of `train` that only one set-up has, if the backbones have different
      kinds. Different backbones may need different settings.

    Args:
        first: Settings of the first run, whose values come first in the texts.
        second: Settings of the second run.
        sections: Sections that are compared, such as `train`, or None for all.

    Returns:
        Texts such as `train.lr 1, not 0.0005`.
    """
    # find the sections that both set-ups have
    first_sections = {_section(key) for key in first}
    second_sections = {_section(key) for key in second}
    shared_sections = (first_sections & second_sections) - {CITES}

    # find the keys whose values differ, and the prefixes of components with different
    # kinds, such as `backbone.`
    differing_keys = []
    other_kinds = []
    for key in {**first, **second}:
        if _section(key) in shared_sections and first.get(key) != second.get(key):
            differing_keys.append(key)
            if key.endswith(".kind"):
                other_kinds.append(key.removesuffix("kind"))

    # describe the differences
    texts = []
    for key in differing_keys:
        if sections is not None and _section(key) not in sections:
            continue

        # skip the settings of components with different kinds
        if not key.endswith(".kind"):
            if key.startswith(tuple(other_kinds)):
                continue
            is_in_both = key in first and key in second
            has_other_backbone = "backbone." in other_kinds
            if has_other_backbone and key.startswith("train.") and not is_in_both:
                continue

        # write both values. Long values may have equal texts, because texts are cut
        name = {"window_ms": "window", "rate_hz": "rate"}.get(key, key)
        name = name.removesuffix(".kind")
        first_text = format_setting(key, first.get(key))
        second_text = format_setting(key, second.get(key))
        if first_text != second_text:
            texts.append(f"{name} {first_text}, not {second_text}")
        elif first_text != NO_VALUE:
            texts.append(f"{name} of other values")
    return texts


def _section(key: str) -> str:
    """Return the section of a dotted key, such as `train` of `train.lr`."""
    return key.split(".")[0]


def describe_signals(set_up: SetUp) -> list[str]:
    """Describe the tested signals in phrases, for the protocol of a metric.

    Args:
        set_up: Settings of the run, by dotted key.

    Returns:
        Phrases on channels, window, rate, repetitions, unit, preparation and
        normalisation, such as `100 Hz`. Unknown settings have no phrase.
    """
    phrases = []

    # describe the channels, and the replacement of missing channels
    channels = set_up.get("channels")
    if isinstance(channels, list) and len(channels) > MAX_LISTED_VALUES:
        phrases.append(f"{len(channels)} channels")
    elif channels is not None:
        phrases.append(format_setting("channels", channels))
    mapping = set_up.get("channel_mapping", NO_VALUE)
    if mapping != NO_VALUE:
        phrases.append(mapping)

    # describe window and rate
    for key in ("window_ms", "rate_hz"):
        value = set_up.get(key)
        if value is not None:
            phrases.append(format_setting(key, value))

    # describe repetitions, unit and preparation
    repetitions = set_up.get("repetitions")
    if repetitions is not None:
        count = format_setting("repetitions", repetitions)
        noun = "repetition" if count == "1" else "repetitions"
        phrases.append(f"{count} {noun} averaged")
    unit = set_up.get("unit")
    if unit:
        phrases.append(str(unit))
    preparation = set_up.get("preparation.kind")
    if preparation:
        phrases.append(f"prepared by {preparation}")

    # describe the normalisation, which may be a name or a component with settings
    normalisation = set_up.get("signal.normalise.kind")
    if not normalisation:
        normalisation = set_up.get("signal.normalise", NO_VALUE)
    if normalisation != NO_VALUE:
        phrases.append(f"normalised by {normalisation}")
    return phrases


def format_setting(key: str, value: Any) -> str:
    """Write the value of a setting as text for tables and pages.

    Args:
        key: Dotted key of the setting, such as `train.lr`. Three keys have a form of
            their own:

            - `window_ms` has the start and end of the time window in milliseconds.
            - `rate_hz` has the sampling rate.
            - `repetitions` has the smallest and largest number of averaged repetitions.
        value: Value of the setting, or None.

    Returns:
        The text. A value that is a text already is returned unchanged. The text of
        another value is cut after `MAX_TEXT_LETTERS`.
    """
    if isinstance(value, str):
        return value
    if value is None or value in ([], {}):
        return NO_VALUE

    # write the values of the three special keys
    if key == "window_ms":
        return f"{value[0]:g} to {value[1]:g} ms"
    if key == "rate_hz":
        return f"{value:g} Hz"
    if key == "repetitions":
        low, high = value
        return f"{high}" if low == high else f"{low} to {high}"

    # For a long list, write only its length, first value and last value. Write a number
    # with at most six digits.
    if isinstance(value, list):
        texts = [format_setting("", item) for item in value]
        if len(texts) <= MAX_LISTED_VALUES:
            text = ", ".join(texts)
        else:
            text = f"{len(texts)}: {texts[0]} … {texts[-1]}"
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    if len(text) <= MAX_TEXT_LETTERS:
        return text
    return f"{text[: MAX_TEXT_LETTERS - 1]}…"
