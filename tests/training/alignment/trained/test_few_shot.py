"""Adaptation to a new person: zero-shot, alignment and training."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.data.signals import Normaliser
from brainhive_cli.measurement import depends_on_other_trials, rank_targets
from brainhive_cli.training.alignment import Stage, Term, Train
from brainhive_cli.training.alignment.trained import (
    FINE_TUNING,
    PERMUTED_SCRATCH,
    PERMUTED_TRANSFER,
    SCRATCH,
    SUBJECT_LAYER,
    TRAINED_ARMS,
    TRANSFER,
    SourceModel,
    choose_pull,
    few_shot,
)
from brainhive_cli.training.alignment.training import CellData, fit
from tests.worlds.alignment_cells import make_targets
from tests.worlds.array_trials import make_trials
from tests.worlds.model_layouts import make_signal_spec, make_token_layout

PICTURES, CHANNELS, SAMPLES, NEW = 60, ("P7", "Oz", "Cz", "Pz"), 6, 9
EMBEDDING = np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)
TERMS = [Term(prediction="token", loss="clip")]
TRAIN = Train(epochs=20, batch_size=16, lr=3e-3, precision="fp32", validation=0)
SIGNAL_PARTS = ("euclidean", "riemannian", "whiten", "channel")
FREE, PAIRED = ("coral", "moments"), ("procrustes", "ridge")


def responses_of(subject, pictures=np.arange(PICTURES)):  # noqa: B008
    """Signals that all people share, mixed and shifted by each person's channels, with
    noise.
    """
    shared, random = np.random.default_rng(99), np.random.default_rng(subject)
    clean = (EMBEDDING @ shared.normal(size=(8, 24))).reshape(PICTURES, 4, 6)[pictures]
    mixing, mean = (
        np.eye(4) + 0.3 * random.normal(size=(4, 4)),
        random.normal(size=(4, 1)),
    )
    signal = mixing @ (clean + 0.3 * random.normal(size=clean.shape)) + mean
    return make_trials(
        subject, signal.astype(np.float32), np.array(pictures), CHANNELS, 100.0
    )


def base_of(normalise=None):
    """A model of three people, whose signals were normalised or not."""
    people = other_responses = [responses_of(subject) for subject in (1, 2, 3)]
    if normalise:
        config = load_part(normalise)
        other_responses = [
            person.normalise(config.build(config.measure([person.averages])))
            for person in people
        ]
    targets = make_targets({"e": torch.from_numpy(EMBEDDING)})
    spec = replace(
        make_signal_spec(CHANNELS, SAMPLES, (1, 2, 3)),
        signal={"normalise": load_part(normalise).model_dump()} if normalise else {},
        rate_hz=100.0,
    )
    layout = make_token_layout(spec, 16, {"e": 8}, backbone={"kind": "brain_mlp"})
    model = fit(
        layout,
        CellData(other_responses, targets, np.zeros(PICTURES, np.bool_), None),
        TERMS,
        TRAIN,
        seed=1,
    )
    normalisers = {
        person.subject: person.normaliser
        for person in other_responses
        if person.normaliser is not None
    }
    model.learned = replace(model.learned, normalisers=normalisers)
    return SourceModel(model, targets, TERMS, TRAIN, people)


def load_part(kind):
    shelf = "normalisations" if kind in SIGNAL_PARTS else "alignments"
    return parts.resolve(shelf, kind)


@pytest.fixture(scope="module")
def base():
    return base_of()


@pytest.fixture(scope="module")
def whitened():
    return base_of("whiten")


LEARNED = responses_of(NEW, np.arange(0, PICTURES, 2))
TESTED = responses_of(NEW, np.arange(1, PICTURES, 2))


def decode(decoder, responses=TESTED):
    return decoder.encode(responses.averages)


def top1(decoder, responses):
    """Return the share of signals whose picture has rank 1 among the shown ones."""
    with torch.inference_mode():
        gallery = decoder.model.encode_image(
            {"e": torch.from_numpy(EMBEDDING[responses.stimulus])}
        ).float()
    targets = rank_targets(
        decode(decoder, responses), gallery, torch.arange(len(gallery))
    )
    return float((targets == 1).float().mean())


def fit_arm(base, arm, responses=LEARNED, seed=0):
    if arm in SIGNAL_PARTS:
        return base.align_signals(load_part(arm), responses)
    if arm in tuple(FREE) + tuple(PAIRED):
        return base.align_tokens(load_part(arm), responses)
    return base.train_arm(arm, responses, seed, 0.1, load_part("euclidean"))


def test_zero_shot_is_normalised_by_the_mean_of_other_people(whitened):
    normalisers = list(whitened.model.learned.normalisers.values())
    mean, matrix = (
        np.mean([getattr(normaliser, name) for normaliser in normalisers], 0)
        for name in ("mean", "matrix")
    )
    expected = whitened.model.encode_signal(
        torch.from_numpy(matrix @ (TESTED.averages - mean)), None
    )
    torch.testing.assert_close(decode(whitened.zero_shot), expected)

    changed = replace(whitened, model=copy.deepcopy(whitened.model))
    of_everybody = Normaliser(np.ones((4, 1), np.float32), np.eye(4, dtype=np.float32))
    changed.model.learned = replace(changed.model.learned, normaliser=of_everybody)
    assert changed.zero_shot.normaliser is of_everybody
    changed.model.learned = replace(whitened.model.learned, normalisers={})
    with pytest.raises(BrainhiveError, match=r"whiten.*needs recordings") as caught:
        _ = replace(changed).zero_shot
    assert "signal.normalise" in caught.value.hint


@pytest.mark.nightly
def test_aligned_signals_have_the_statistics_of_other_people(base):
    for config in map(load_part, SIGNAL_PARTS):
        expected = [
            config.measure([training_trial.averages])
            for training_trial in base.training_trials
        ]

        decoder = base.align_signals(config, LEARNED)

        aligned = config.measure([decoder.normaliser(LEARNED.averages)])
        for name, values in aligned.items():
            mean = np.mean([statistics[name] for statistics in expected], axis=0)
            size = np.abs(mean).max()
            assert (
                np.abs(config.measure([LEARNED.averages])[name] - mean).max()
                > 0.1 * size
            )
            np.testing.assert_allclose(values, mean, atol=1e-3 * size)
        assert top1(decoder, TESTED) >= top1(base.zero_shot, TESTED)
        assert decoder.model is base.model


def test_labels_have_a_part_in_alignments_by_pairs_only(base):
    relabelled = replace(LEARNED, stimulus=np.roll(LEARNED.stimulus, 7))
    for kind in tuple(SIGNAL_PARTS) + tuple(FREE) + tuple(PAIRED):
        tokens, other_tokens = (
            decode(fit_arm(base, kind, labels)) for labels in (LEARNED, relabelled)
        )

        assert torch.equal(tokens, other_tokens) == (kind not in PAIRED), kind
        assert not torch.equal(tokens, decode(base.zero_shot)), kind


def test_a_test_trial_is_decoded_without_the_others(base):
    short_signal, tensor = (
        replace(base, train=TRAIN.model_copy(update={"epochs": 2})),
        torch.from_numpy(TESTED.averages),
    )
    for kind in (
        tuple(SIGNAL_PARTS) + tuple(FREE) + tuple(PAIRED) + (TRANSFER, SUBJECT_LAYER)
    ):
        decoder = fit_arm(short_signal, kind)

        assert not depends_on_other_trials(decoder.encode, tensor), kind
        joint_decoder = replace(decoder, align=lambda tokens: tokens - tokens.mean(0))
        assert depends_on_other_trials(joint_decoder.encode, tensor), kind


@pytest.mark.nightly
def test_permuted_arms_learn_wrong_labels(base):
    longer = replace(base, train=TRAIN.model_copy(update={"epochs": 60}))
    arms = (SCRATCH, TRANSFER, PERMUTED_SCRATCH, PERMUTED_TRANSFER)
    fitted = {arm: fit_arm(longer, arm) for arm in arms}
    learned = {arm: top1(decoder, LEARNED) for arm, decoder in fitted.items()}

    # of the pictures that they are trained on
    assert min(learned[SCRATCH], learned[TRANSFER]) > 0.9
    assert learned[PERMUTED_SCRATCH] < 0.2
    assert learned[PERMUTED_TRANSFER] < top1(base.zero_shot, LEARNED)
    assert top1(fitted[PERMUTED_TRANSFER], TESTED) < top1(base.zero_shot, TESTED)


def test_the_strongest_pull_leaves_only_the_alignment_of_signals(base):
    aligned = base.align_signals(load_part("euclidean"), LEARNED)

    strong, weak = (
        base.train_arm(TRANSFER, LEARNED, 0, pull, load_part("euclidean"))
        for pull in (1.0, 0.3)
    )

    assert strong.model is base.model
    assert torch.equal(decode(strong), decode(aligned))
    assert not torch.equal(decode(weak), decode(aligned))
    assert torch.equal(
        decode(base.train_arm(TRANSFER, LEARNED, 0, 1.0)), decode(base.zero_shot)
    )


def repeated(subject, *, voxels=False):
    """Responses with up to three repetitions of a picture."""
    random = np.random.default_rng(subject)
    signal = responses_of(subject).signal[:, None] + random.normal(
        size=(PICTURES, 3, 4, 6)
    )
    counts = random.integers(1, 4, PICTURES)
    signal[np.arange(3) >= counts[:, None]] = np.nan
    names, rate_hz = ((), None) if voxels else (CHANNELS, 100.0)
    return make_trials(
        subject,
        signal[..., : 1 if voxels else 6].astype(np.float32),
        np.arange(PICTURES),
        names,
        rate_hz,
        counts,
    )


@pytest.fixture
def fits(monkeypatch):
    """Arguments of the trainings, which are not run."""
    calls = []

    def note(layout, data, terms, train, start, seed, *, launch):
        calls.append((layout, data, train, start, seed))
        return start

    monkeypatch.setattr(few_shot, "fit", note)
    return calls


def test_arms_decode_the_recorded_tokens(base, recorded):
    short_training = replace(base, train=TRAIN.model_copy(update={"epochs": 1}))
    tokens = {
        arm: decode(short_training.train_arm(arm, LEARNED, 3, 0.1))
        for arm in TRAINED_ARMS
    }
    recorded(3, **tokens)


def test_alignments_decode_the_recorded_tokens(base, whitened, recorded, monkeypatch):
    # counts of the people differ, and few tokens are references
    monkeypatch.setattr(few_shot, "MAX_REFERENCE_TOKENS", 50)
    people = [repeated(subject) for subject in (1, 2, 3)]
    source, person = replace(base, training_trials=people), repeated(NEW)

    tokens = {
        kind: decode(fit_arm(source, kind, person))
        for kind in tuple(SIGNAL_PARTS) + tuple(FREE) + tuple(PAIRED)
    }
    tokens["own"] = decode(whitened.align_signals(load_part("whiten"), person))
    tokens |= {f"whitened {k}": decode(fit_arm(whitened, k, person)) for k in FREE}

    assert source._reference_tokens.shape == (60, 16)
    recorded(3, references=source._reference_tokens, **tokens)


def test_each_arm_changes_its_part_of_the_training(base, fits):
    drop = replace(base, train=TRAIN.model_copy(update={"last_batch": "drop"}))
    for model, last_batch in ((base, TRAIN.last_batch), (drop, "even")):
        for arm in TRAINED_ARMS:
            with np.errstate(all="ignore"):
                model.train_arm(arm, LEARNED, 5, 0.25)
            layout, data, train, start, _ = fits.pop()

            is_transfer = arm in (TRANSFER, PERMUTED_TRANSFER)
            assert train.start_pull == (0.25 if is_transfer else TRAIN.start_pull)
            assert (train.selection, train.last_batch) == ("last", last_batch)
            assert (start is None) == (arm in (SCRATCH, PERMUTED_SCRATCH))
            assert layout.spec.subjects == (NEW,)
            assert (layout.subject_layer == "linear") == (arm == SUBJECT_LAYER)
            frozen = [Stage(epochs=20, lr=10 * TRAIN.lr, freeze=["backbone", "fuser"])]
            assert train.stages == (frozen if arm == SUBJECT_LAYER else TRAIN.stages)
            assert data.held_out.shape == (LEARNED.stimulus.max() + 1,)
            assert not data.held_out.any()
            assert data.seed == 5
            assert sorted(data.trials[0].stimulus) == sorted(LEARNED.stimulus)
            is_moved = (data.trials[0].stimulus != LEARNED.stimulus).any()
            assert is_moved == (arm in (PERMUTED_TRANSFER, PERMUTED_SCRATCH))


def test_a_subject_layer_starts_as_the_model_itself(base, fits):
    base.train_arm(SUBJECT_LAYER, LEARNED, 0)
    start = fits[0][3].eval()
    signal = torch.from_numpy(TESTED.averages)
    first_zeros = torch.zeros(len(signal), dtype=torch.long)
    with torch.inference_mode():
        layered = start.encode_signal(signal, first_zeros)
        plain_signal = base.model.encode_signal(
            signal, base.model.make_subject_index(None, len(signal))
        )
    torch.testing.assert_close(layered, plain_signal)
    assert start.losses == base.model.losses


def test_a_person_gets_a_number_that_nobody_has(base, whitened, fits):
    for subject, number in ((NEW, NEW), (2, 4)):
        person = replace(LEARNED, subject=subject)
        for model in (base, whitened):
            arm = model.train_arm(FINE_TUNING, person, 0)
            layout, data, *_ = fits.pop()
            assert layout.spec.subjects == (number,)
            assert arm.subject == number
            known_subjects = [subject] if model is whitened else []
            assert list(data.history.normalisers) == known_subjects


def test_seeds_of_a_person_differ(base, fits):
    for seed in (1, 1, 2):
        base.train_arm(PERMUTED_SCRATCH, LEARNED, seed)
    first_fit, repeated_fit, other_fit = fits
    assert first_fit[4] == repeated_fit[4] != other_fit[4]
    orders = [arm_fit[1].trials[0].stimulus.tolist() for arm_fit in fits]
    assert orders[0] == orders[1] != orders[2]


def test_signals_are_aligned_before_transfer_alone(base, whitened, fits):
    aligned = base.align_signals(load_part("euclidean"), LEARNED).normaliser
    for arm in TRAINED_ARMS:
        normaliser = base.train_arm(
            arm, LEARNED, 0, 0.5, load_part("euclidean")
        ).normaliser
        if arm in (TRANSFER, PERMUTED_TRANSFER):
            np.testing.assert_array_equal(normaliser.matrix, aligned.matrix)
        else:
            assert normaliser is None
        own_normaliser = whitened.train_arm(
            arm, LEARNED, 0, 0.5, load_part("euclidean")
        ).normaliser
        expected = whitened._fit_normaliser(LEARNED)
        np.testing.assert_array_equal(own_normaliser.matrix, expected.matrix)


def test_tokens_of_blocks_are_the_tokens_of_all(base, monkeypatch):
    expected = decode(base.zero_shot)
    monkeypatch.setattr(few_shot, "SIGNALS_PER_BLOCK", 7)
    torch.testing.assert_close(decode(base.zero_shot), expected)


def test_other_channels_are_not_read_by_zero_shot(whitened):
    zeros = np.zeros((2, 5, SAMPLES), np.float32)
    with pytest.raises(BrainhiveError):
        whitened.zero_shot.encode(zeros)
    trials = make_trials(NEW, zeros, [0, 1], tuple(CHANNELS) + ("O1",), 100.0)
    assert not whitened.can_decode_new_people(trials)
    assert whitened.can_decode_new_people(TESTED)


def test_people_of_several_widths_have_no_mean_normaliser(whitened):
    eye = np.eye(5, dtype=np.float32)
    wider = {**whitened.model.learned.normalisers, 3: Normaliser(eye[:, :1], eye)}
    model = copy.deepcopy(whitened.model)
    model.learned = replace(model.learned, normalisers=wider)
    with pytest.raises(BrainhiveError):
        _ = replace(whitened, model=model).zero_shot


def test_signals_are_aligned_as_the_model_was_trained(base, whitened):
    with pytest.raises(BrainhiveError):
        whitened.align_signals(load_part("euclidean"), LEARNED)
    with pytest.raises(BrainhiveError):
        base.align_signals(load_part("channel"), repeated(NEW, voxels=True))


def test_models_in_closed_form_have_arms_of_their_own(base, fits):
    layout = make_token_layout(
        base.model.layout.spec, 8, {"e": 8}, backbone={"kind": "ridge"}
    )
    model = copy.deepcopy(base.model)
    model.layout = layout
    closed_form = replace(base, model=model)
    for arm in (SUBJECT_LAYER, FINE_TUNING):
        with pytest.raises(BrainhiveError):
            closed_form.train_arm(arm, LEARNED, 0)
    # where transfer is trained whatever its strength
    closed_form.train_arm(TRANSFER, LEARNED, 0, 1.0)
    assert len(fits) == 1


def test_models_of_voxels_have_no_subject_layer(base, fits):
    person = repeated(NEW, voxels=True)
    with pytest.raises(BrainhiveError):
        base.train_arm(SUBJECT_LAYER, person, 0)
    base.train_arm(FINE_TUNING, person, 0)
    assert fits[0][0].spec.names == ()


def test_transfer_is_weaker_the_more_pictures_there_are():
    counts = (5, 50, 51, 200, 201, 600, 601)
    expected = [0.3, 0.3, 0.1, 0.1, 0.03, 0.03, 0]
    assert [choose_pull(count) for count in counts] == expected
