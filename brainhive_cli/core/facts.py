"""Facts of a run, one model a command; the set-up behind its numbers: signals, model
and training.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field
from pydantic.dataclasses import dataclass

LEVEL = 0.05
"""p up to which a difference is called one."""
Side = Literal["above chance", "at chance", "below chance", "not testable"]
SetUp = Mapping[str, Any]
"""Plain values by key. Keys of a recipe are those that users write (`train.lr`);
signals are described by `SIGNALS`. A key whose value is not known is left out.
"""
SIGNALS = (
    "channels",
    "channel_mapping",
    "window_ms",
    "rate_hz",
    "repetitions",
    "unit",
    "preparation",
)
"""Keys of the signals that models were tested on: runs that differ in them compare more
than models.
"""
CITES = "cites"
"""Section of the papers behind the data set, the signals, the model, its encoders and
the generator, by the keys of reports/references.bib.
"""
LISTED = 6
"""Values of a list that are named one by one; of a longer one its length, first and
last.
"""
NOTHING = "none"
"""Word for a value that is not there."""
TEXT = 80
"""Characters of a value that is shown in a difference."""


class Model(BaseModel):
    """Base of everything in facts: plain values that do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CellFacts(Model):
    """One training, or what one model was tested on.

    Attributes:
        cell: Name of the training, where the scope has another.
        subject: Subject of the signals; None where there are several.
        seed: Seed of the training.
        source: Source of the pictures of a reconstruction, as `brain`.
        title: Name in tables.
        variant: Variant of a sweep.
        epoch: The epoch that was kept.
        selected_on: What chose that epoch.
        caveats: What a reader must know of its numbers.
        took: Seconds, peak memory and parameters.
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
    """Answer to one question: do the shown stimuli, or those of their concepts, rank
    better than others?

    Attributes:
        question: What was asked: which stimulus was seen, or of which concept.
        better: Probability that permuted labels have a mean rank as small; None where
            nothing was tested.
        worse: Probability that they have one as large.
        least_p: The smallest two-sided p that the test can give.
        n: Items that were tested, over all subjects.
        pool: Candidates of each.
        test: How the probabilities were computed, or why nothing could be tested.
        scope: What the answer is about, as "these 2 concepts"; empty for units in
            general.
        wider: The wider claim that the design does not allow; empty where it does.
        condition: What the answer takes for granted, as nothing says it.
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
        """The two-sided p."""
        if self.better is None or self.worse is None:
            return None
        return min(1.0, 2 * min(self.better, self.worse))  # both tails

    @computed_field  # type: ignore[prop-decorator]
    @property
    def side(self) -> Side:
        """Side of chance on which the ranks are, two-sided at .05."""
        # a test whose smallest p exceeds LEVEL cannot tell, whatever the ranks are
        if self.better is None or self.worse is None or self.least_p > LEVEL:
            return "not testable"
        if 2 * self.better <= LEVEL:
            return "above chance"
        return "below chance" if 2 * self.worse <= LEVEL else "at chance"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def words(self) -> str:
        """The answer in words, with whom it is about; or why there is none."""
        if self.p is None:
            return f"{self.side}: {self.test}"
        scope = f" for {self.scope}" if self.scope else ""
        condition = f", if {self.condition}" if self.condition else ""
        return f"{self.side}{scope}{condition}"

    @property
    def sentence(self) -> str:
        """The answer with its test, and the wider claim that is not possible."""
        if self.p is None:
            return f"{self.question}: {self.test}"
        tested = (
            f"{self.words} (p {self.p:.2g}, {self.test}, {self.n} stimuli among "
            f"{self.pool})"
        )
        return "; ".join(filter(None, [f"{self.question}: {tested}", self.wider]))


class Difference(Model):
    """Difference of one metric between two runs, sources or variants, on the same items
    and subjects.

    Attributes:
        first: What is compared.
        second: What it is compared with.
        metric: Name of the metric.
        difference: First less second, mean over subjects.
        low: Lower end of its 95 % interval: the differences that the test does not
            reject; None where the items are too few.
        high: Upper end.
        interval: How the interval was made, and for whom it holds.
        n: Items that were compared, over all subjects.
        subjects: Number of subjects.
        p_value: Two-sided; at most .05 exactly where 0 is not in the interval. None
            where items are too few.
        p_adjusted: The same, adjusted over all `tests` that stand together.
        test: What it is, and whom it is about.
        least_p: The smallest p that the test can give.
        cohens_dz: Effect size over subjects: mean difference over the standard
            deviation of differences.
        lower_is_better: Whether less is better in this metric.
        scope: Units of the claim; empty for units in general.
        limits: Sentences that limit the test.
        differs: Keys in which the set-ups differ.
        caveats: What a reader must know of either.
        tests: Number of tests that p is adjusted over.
        tests_of: Of what these are.
    """

    # what is compared
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

    # what limits the claim
    limits: list[str] = []
    differs: list[str] = []
    caveats: list[str] = []

    # family of tests that p is adjusted over
    tests: int = 0
    tests_of: str = ""

    @property
    def p(self) -> float | None:
        """The p that is shown: adjusted, where it stands among others."""
        # a difference that stands alone needs no adjustment
        return self.p_adjusted if self.tests else self.p_value

    @property
    def is_significant(self) -> bool:
        """Whether a difference may be claimed; its interval then excludes 0."""
        return self.p is not None and self.p <= LEVEL

    @property
    def is_better(self) -> bool:
        """Whether the first is better, significantly or not."""
        return (self.difference > 0) != self.lower_is_better


class Seen(Model):
    """Tested pictures that were left out, as a model had learned from them: count,
    total, first names.
    """

    count: int = 0
    of: int = 0
    names: list[str] = []


class Variant(Model):
    """Run of one variant of a sweep, its result on validation, and the sources of its
    pictures.
    """

    run: str = ""
    validation: dict[str, Any] = {}
    sources: list[str] = []


class Facts(Model):
    """Facts that runs of any command may state.

    Attributes:
        command: The command.
        caveats: What a reader must know of every number.
        warnings: Sentences that a reader needs before any number.
        dataset: Data set that was tested.
        modality: Kind of the recordings: EEG, MEG or fMRI; empty where it is not known.
        stimulus: What subjects saw, in the singular: `picture`, `clip` or `category`.
        mode: Mode of the training.
        protocol: How it was measured.
        run: The run that was measured.
        runs: All of them.
        units: What items are grouped by in intervals and tests.
        unit_count: Number of units.
        stimuli: Number of stimuli, each counted once however many subjects saw it; 0
            where it is not known.
        scope: Units of the claims; empty for units in general.
        inflation: Factor of the spread where folds share training data.
        set_up: Signals, model and training by key, as `flatten` makes it.
        seen_in_training: Tested pictures that were left out.
        published: Values that a paper prints, with `source` and `differs`.
        cells: Cells by the scope of their metrics.
        variants: Variants of a sweep by their label.
        sources: Sources of pictures that are compared; the first is the one that the
            run is about.
        titles: Names of sources for people.
        comparisons: Differences between sources, or variants.
        against: Differences from other runs.
        not_compared: Why others were not compared.
        validation: Result on validation of the training that was measured.
        answers: Whether ranks are above chance; further questions after the first.
    """

    command: str = ""
    caveats: list[str] = []
    warnings: list[str] = []

    # what was tested, and how
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
    seen_in_training: Seen = Seen()
    published: dict[str, Any] = {}

    # scopes of the metrics
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
        """The first answer in words; empty without any."""
        return self.answers[0].words if self.answers else ""


class TrainingFacts(Facts):
    """Facts of train-align; `is_closed_form` of models that have no epochs."""

    command: str = "train-align"
    is_closed_form: bool = False


class GalleryFacts(Model):
    """Candidates of a retrieval; runs are compared by their digest.

    Attributes:
        dataset: Data set of the candidates.
        splits: Splits whose pictures are candidates.
        pictures: Number of candidates.
        held_out: What was held out, where trials were.
        digest: Digest of all of it.
    """

    dataset: str
    splits: Any = None
    pictures: int
    held_out: str = ""
    digest: str


class Control(Model):
    """Draws with shuffled signals or permuted labels.

    `metrics` has, by name, a metric as `measured`, its `mean` and middle 95 % (`low`,
    `high`) over the draws, and `p`.
    """

    kind: str
    draws: int
    n: int
    pool: int
    metrics: dict[str, dict[str, float]]


RIDGE_RECIPE = "ridge.yaml"
"""The recipe of the ridge next to a model, in the folder of its evaluation."""


MISFILED = 0.001
"""Largest corrected p at which pictures may be filed in a wrong order. Every result at
chance is looked at, so that at .05 one honest study in twenty would be suspected.
"""


class Baseline(Model):
    """Closed-form ridge next to a model.

    Attributes:
        reason: Why none was fitted, or no other orders were tried; else empty.
        answer: Whether its ranks are above chance.
        orders: Other orders of the pictures that were tried, as the model does not find
            them as filed.
        order: The order in which the ridge finds them, where it does not as filed; else
            empty.
        order_p: Its p, corrected for all orders.
    """

    reason: str = ""
    answer: Answer | None = None
    orders: int = 0
    order: str = ""
    order_p: float | None = None

    @property
    def may_be_misfiled(self) -> bool:
        """Whether the pictures may be filed in a wrong order."""
        return self.order_p is not None and self.order_p <= MISFILED


class ConfusionMatrix(Model):
    """Counts [K, K] of each concept that was seen, by the one that it was taken for."""

    names: list[str]
    counts: list[list[int]]


class RetrievalFacts(Facts):
    """Facts of eval-retrieval.

    Attributes:
        claims: Statements that the design allows.
        gallery: The candidates.
        control: Distribution under a control.
        prior: Prior that the tokens are of.
        confusion_matrix: Which concept was taken for which, of trials, where concepts
            are few.
        tests_trials: Whether trials of known pictures or categories were held out.
        plain: Differences from plain baselines on the same folds.
        baseline: The ridge next to the model.
        repetitions: Most repetitions of a picture of which halves were compared; 0
            without a ceiling.
        subset_ways: Pictures that subsets should have; 0 without subsets.
        subset_pools: Pictures that they have: fewer where a subject was shown fewer.
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
        medium: What is reconstructed: `picture` or `clip`.
        prior: The prior that drew.
        concepts: Concepts whose recall was measured.
        score: Folder that was scored, where nothing was generated.
        unmatched: Files of it without a stimulus.
        without: Stimuli without a file.
        originals: Files of it that are the true ones, which were left out.
        one_colour: Files of the reconstructions that are of one colour.
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


class AxisClaim(Model):
    """Position along one axis at which signals carry what was seen.

    Attributes:
        axis: What was looked along.
        place: The strongest of the significant positions, else of all, in words.
        p: Its p, corrected over all positions of all analyses.
        first: The first time above chance, or by when an effect begins; empty where
            there is none, or a filter hides it.
    """

    axis: Literal["time", "sensor", "region"]
    place: str
    p: float
    first: str = ""

    @property
    def is_significant(self) -> bool:
        """Whether any position along the axis is shown to carry what was seen."""
        return self.p < LEVEL


class ExplanationFacts(Facts):
    """Facts of explain.

    Attributes:
        claims: When, and then where signals carry what was seen.
        untested: Why there are none.
        draws: Permutations of the labels.
        profiles: Each analysis: axis, positions, p, first time above chance.
        ceilings: By metric and name, at each position: of similarity, and of half of
            the repetitions of encoding, over sensors.
        generalisation: p of each pair of training and test times.
    """

    command: str = "explain"
    claims: list[AxisClaim] = []
    untested: str = ""
    draws: int = 0
    profiles: list[dict[str, Any]] = []
    ceilings: dict[str, dict[str, list[float]]] = {}  # metric, name, positions
    generalisation: list[list[float]] = []


class Amount(Model):
    """Name of an amount of calibration, and its mean pictures, trials and minutes
    (None: not known).
    """

    name: str
    pictures: float
    trials: float
    minutes: float | None = None


class Strength(Model):
    """Strength of transfer of one model, and how it was chosen.

    Attributes:
        pulls: By amount; None is zero-shot.
        chosen_by: What chose them: other people, the recipe, or the number of pictures
            of a model that learned from one person, or that went on from another one.
        people: How many people chose.
        mrr: Mean reciprocal rank by amount and strength; empty where nobody chose.
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
        arm: Arm of the finding; empty where only controls were measured.
        arms: What each arm is given of a new person, MOABB's name of that, and what it
            is.
        unit: Unit of the amounts.
        amounts: The amounts, ascending; the last one is everything.
        people: Top-1 of each person after each amount, by the arm of the finding.
        is_above_chance: Whether its top-1 with everything is above chance; else nothing
            suffices.
        lead: Amount of the finding: the first that surely suffices, or the largest
            below everything; empty for everything.
        suffices: How many amounts surely give less than 90 % of everything, and the
            index of that from which on all surely give as much; None where that was not
            measured.
        better: How many amounts reach up to one after which transfer surely beats
            scratch, and the index of that from which on it surely does not; None where
            they were not compared, or people are too few.
        strength: How the pull of transfer was chosen, by model and person.
        trained_on: Fewest and most people whom models learned from.
        seen_share: Share of the new persons' pictures that these people saw.
        epochs: Epochs of each training; None in closed form.
        pictures_left_out: Pictures left out of each person's recordings.
    """

    command: str = "calibrate"
    arm: str = ""
    # data of the person, MOABB's name, description
    arms: dict[str, tuple[str, str, str]] = {}
    unit: Literal["pictures", "trials", "minutes"] = "pictures"
    amounts: list[Amount] = []
    people: dict[str, list[float]] = {}
    is_above_chance: bool = False
    lead: str = ""
    # amounts below 90 %, index of the first above
    suffices: tuple[int, int] | None = None
    better: tuple[int, int] | None = None
    strength: dict[str, Strength] = {}
    trained_on: tuple[int, int] = (0, 0)  # fewest, most
    seen_share: float = 0.0
    epochs: int | None = None
    pictures_left_out: dict[str, int] = {}


class LiveFacts(Facts):
    """Facts of live.

    Attributes:
        windows: Windows that were decoded.
        ended: Why the session ended.
        latency_ms: Median, 95 % and most by stage.
        stream: Counts of the stream.
        differs: What is not as it was offline.
        hits: Single trials that ranked the shown picture first.
        is_interleaved: Whether pictures came in an order that a signal which drifts
            cannot follow.
        anytime_p: p that holds at every moment; None where nothing was tested.
        trials_learned_from: Trials that the model had learned from.
        unknown_events: Names of events of which no picture is known, where no event has
            one.
        candidates: Names of the pictures of the gallery, where no event is one of them.
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
        commands: Lines of the steps.
        findings: Their findings, by step.
        retrievals: Their runs of eval-retrieval, by step, below the folder of runs.
        control_effects: What controls cost each head.
    """

    command: str = "workflow"
    commands: list[str] = []
    findings: dict[str, str] = {}
    retrievals: dict[str, str] = {}
    control_effects: list[Difference] = []


FACTS: dict[str, type[Facts]] = {
    # each class states its command as a default; a demo has facts of a workflow
    **{
        str(model.model_fields["command"].default): model
        for model in Facts.__subclasses__()
    },
    "demo": WorkflowFacts,
}
"""The model of each command that has one of its own."""


def flatten(fields: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Give nested values by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        name = f"{before}.{key}" if before else key
        flat |= (
            flatten(value, name)
            if isinstance(value, Mapping) and value
            else {name: value}
        )
    return flat


def cite(**papers: Sequence[str]) -> dict[str, list[str]]:
    """Give the papers behind each part of a set-up, each once; parts without any are
    left out.
    """
    return {
        f"{CITES}.{part}": [*dict.fromkeys(keys)]
        for part, keys in papers.items()
        if keys
    }


def merge(set_ups: Sequence[SetUp]) -> dict[str, Any]:
    """Put several into one, as those of the subjects or the runs that one number is of.

    What they differ in is said in words. Keys that some do not know are left out;
    papers are those of all.
    """
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(chain(*set_ups)):
        values = [set_up[key] for set_up in set_ups if key in set_up]
        # papers of all; any other key only where all know it
        if key.startswith(CITES):
            merged[key] = [*dict.fromkeys(chain(*values))]
        elif len(values) == len(set_ups):
            # a value that all have, or each of theirs in words
            words = dict.fromkeys(say(key, value) for value in values)
            merged[key] = (
                values[0]
                if all(value == values[0] for value in values)
                else " or ".join(words)
            )
    return merged


def differences(
    here: SetUp, there: SetUp, only: Collection[str] | None = None
) -> list[str]:
    """Say in which keys two set-ups differ, as `train.lr 1, not 0.0005`.

    A key that only one of them has counts where both have keys of its section; else the
    other does not know the whole section. Backbones of two kinds may read other keys of
    `train`, which do not count, as papers.

    Args:
        here: The one that is spoken of.
        there: The other.
        only: First parts of the keys that are compared; default: all.
    """
    # keys of sections that both know
    said = []
    known = {key.split(".")[0] for key in here} & {
        key.split(".")[0] for key in there
    } - {CITES}
    keys = [key for key in {**here, **there} if key.split(".")[0] in known]
    differing = [key for key in keys if here.get(key) != there.get(key)]
    other_kinds = [
        key.removesuffix("kind") for key in differing if key.endswith(".kind")
    ]
    for key in differing:
        if only is not None and key.split(".")[0] not in only:
            continue
        is_of_part = any(key.startswith(part) for part in other_kinds)
        is_read_by_one = "backbone." in other_kinds and (
            key not in here or key not in there
        )
        if not key.endswith(".kind") and (
            is_of_part or (is_read_by_one and key.startswith("train."))
        ):
            continue  # knobs of another part

        # values in words, which may be the same for long ones
        one, other = (say(key, set_up.get(key)) for set_up in (here, there))
        name = {"window_ms": "window", "rate_hz": "rate"}.get(
            key, key.removesuffix(".kind")
        )
        if one != other:
            said.append(f"{name} {one}, not {other}")
        elif one != NOTHING:
            said.append(f"{name} of other values")
    return said


def describe_signals(set_up: SetUp) -> list[str]:
    """Say which signals a model was tested on, for a protocol: channels, window, rate,
    repetitions, unit.
    """
    # channels and their mapping, window and rate
    channels = set_up.get("channels")
    repetitions = set_up.get("repetitions")
    words = []
    if channels is not None:
        many = isinstance(channels, list) and len(channels) > LISTED
        words.append(f"{len(channels)} channels" if many else say("channels", channels))
    mapping = set_up.get("channel_mapping", NOTHING)
    if mapping != NOTHING:
        words.append(mapping)
    for key in ("window_ms", "rate_hz"):
        value = set_up.get(key)
        if value is not None:
            words.append(say(key, value))

    # repetitions, unit and preparation
    if repetitions is not None:
        count = say("repetitions", repetitions)
        words.append(f"{count} repetition{'s' * (count != '1')} averaged")
    if unit := set_up.get("unit"):
        words.append(str(unit))
    if preparation := set_up.get("preparation.kind"):
        words.append(f"prepared by {preparation}")

    # normalisation, if there is one
    how = set_up.get("signal.normalise.kind") or set_up.get("signal.normalise", "none")
    return words if how == "none" else [*words, f"normalised by {how}"]


def say(key: str, value: Any) -> str:
    """Write a value for people, by what its key is."""
    if isinstance(value, str):
        return value
    if value is None or value in ([], {}):
        return NOTHING

    # numbers with their units
    if key == "window_ms":
        return f"{value[0]:g} to {value[1]:g} ms"
    if key == "rate_hz":
        return f"{value:g} Hz"
    if key == "repetitions":
        least, most = value
        return f"{most}" if least == most else f"{least} to {most}"

    # long lists by their length, first and last
    if isinstance(value, list):
        texts = [say("", inner) for inner in value]
        lists_all = len(texts) <= LISTED
        text = (
            ", ".join(texts) if lists_all else f"{len(texts)}: {texts[0]} … {texts[-1]}"
        )
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"
