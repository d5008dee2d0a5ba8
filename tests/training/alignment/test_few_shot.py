"""Models for a new person: zero-shot, alignments without labels and by pairs, and trained ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cell_data import targets_of
from layouts import one_token, spec_of
from trials import make_trials

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.trials import Trials
from brainhive_cli.measurement.ranks import ranks
from brainhive_cli.measurement.retrieval import depends_on_other_trials
from brainhive_cli.models.heads import Head
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.few_shot import (
    FINE_TUNING,
    PERMUTED_SCRATCH,
    PERMUTED_TRANSFER,
    PULLS,
    SCRATCH,
    SUBJECT_LAYER,
    TRAINED_ARMS,
    TRANSFER,
    PersonModel,
    SourceModel,
    fixed_pull,
)
from brainhive_cli.training.alignment.loop import fit
from brainhive_cli.training.alignment.objective import Term
from brainhive_cli.training.alignment.recipe import Train

PICTURES, CHANNELS, SAMPLES, NEW = 60, ("P7", "Oz", "Cz", "Pz"), 6, 9
EMBEDDING = np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)
TERMS = [Term(prediction="token", loss="clip")]
TRAIN = Train(epochs=20, batch_size=16, lr=3e-3, precision="fp32", validation=0)
SIGNAL_PARTS = ("euclidean", "riemannian", "whiten", "channel")
FREE, PAIRED = ("coral", "moments"), ("procrustes", "ridge")


def responses_of(subject: int, pictures=np.arange(PICTURES)) -> Trials:  # noqa: B008
    """Signals that all people share, mixed and shifted by each person's channels, with noise."""
    shared, random = np.random.default_rng(99), np.random.default_rng(subject)
    clean = (EMBEDDING @ shared.normal(size=(8, 24))).reshape(PICTURES, 4, 6)[pictures]
    mixing, mean = np.eye(4) + 0.3 * random.normal(size=(4, 4)), random.normal(size=(4, 1))
    signal = mixing @ (clean + 0.3 * random.normal(size=clean.shape)) + mean
    return make_trials(subject, signal.astype(np.float32), np.array(pictures), CHANNELS, 100.0)


def base_of(normalise: str | None = None, closed: bool = False, subjects=(1, 2, 3)) -> SourceModel:
    """A model of three people, whose signals were normalised or not."""
    people, others = [responses_of(subject) for subject in subjects], []
    for responses in people:
        if normalise is None:
            others.append(responses)
            continue
        normaliser = part(normalise).build(part(normalise).measure([responses.averages]))
        others.append(responses.normalise(normaliser))
    targets = targets_of({"e": torch.from_numpy(EMBEDDING)})
    spec = replace(
        spec_of(CHANNELS, SAMPLES, tuple(subjects)),
        signal={} if normalise is None else {"normalise": part(normalise).model_dump()},
        rate_hz=100.0,
    )
    layout = one_token(spec, 16, {"e": 8}, backbone={"kind": "brain_mlp"})
    if closed:
        backbone = {"kind": "shared_ridge", "alpha": 3.0}
        layout = replace(
            layout, heads={"e": Head((8,), "e")}, backbone=backbone, fuser={"kind": "heads"}, dims={}
        )
    model = fit(layout, CellData(others, targets, np.zeros(PICTURES, np.bool_), None), TERMS, TRAIN, seed=1)
    normalisers = {each.subject: each.normaliser for each in others if each.normaliser is not None}
    model.learned = replace(model.learned, normalisers=normalisers)
    return SourceModel(model, targets, [] if closed else TERMS, TRAIN, people)


def part(kind: str):
    shelf = "normalisations" if kind in SIGNAL_PARTS else "alignments"
    return parts.resolve(shelf, kind)


@pytest.fixture(scope="module")
def base() -> SourceModel:
    return base_of()


@pytest.fixture(scope="module")
def whitened() -> SourceModel:
    return base_of("whiten")


@pytest.fixture(scope="module")
def closed() -> SourceModel:
    return base_of(closed=True)


LEARNED = responses_of(NEW, np.arange(0, PICTURES, 2))
TESTED = responses_of(NEW, np.arange(1, PICTURES, 2))


def decode(decoder: PersonModel, responses: Trials = TESTED) -> torch.Tensor:
    return decoder.encode(responses.averages)


def top1(decoder: PersonModel, responses: Trials) -> float:
    """Share of signals whose picture comes first among those that were shown."""
    with torch.inference_mode():
        gallery = decoder.model.encode_image({"e": torch.from_numpy(EMBEDDING[responses.stimulus])}).float()
    found = ranks(decode(decoder, responses), gallery, torch.arange(len(gallery)))
    return float((found == 1).float().mean())


def relabelled(responses: Trials) -> Trials:
    return replace(responses, stimulus=np.roll(responses.stimulus, 7))


def fit_arm(base: SourceModel, arm: str, responses: Trials = LEARNED, seed: int = 0) -> PersonModel:
    if arm in SIGNAL_PARTS:
        return base.align_signals(part(arm), responses)
    if arm in (*FREE, *PAIRED):
        return base.align_tokens(part(arm), responses)
    return base.train_arm(arm, responses, seed, 0.1, part("euclidean"))


def test_zero_shot_is_the_model_of_other_people_unchanged(base):
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    fit_arm(base, TRANSFER)

    assert base.zero_shot.model is base.model and base.zero_shot.normaliser is None
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    expected = base.model.encode_signal(torch.from_numpy(TESTED.averages), None)
    assert torch.equal(decode(base.zero_shot), expected)


def test_zero_shot_is_normalised_by_the_mean_of_other_people(whitened):
    normalisers = [*whitened.model.learned.normalisers.values()]
    mean, matrix = (np.mean([getattr(each, name) for each in normalisers], 0) for name in ("mean", "matrix"))

    expected = whitened.model.encode_signal(torch.from_numpy(matrix @ (TESTED.averages - mean)), None)

    torch.testing.assert_close(decode(whitened.zero_shot), expected)


def test_zero_shot_is_normalised_as_the_model_says_for_new_people_and_refused_where_nothing_is_known():
    base = base_of("whiten")
    learned = base.model.learned
    of_everybody = Normaliser(np.ones((4, 1), np.float32), np.eye(4, dtype=np.float32))
    base.model.learned = replace(learned, normaliser=of_everybody)
    assert base.zero_shot.normaliser is of_everybody

    base.model.learned = replace(learned, normalisers={})
    with pytest.raises(BrainhiveError, match=r"nothing of the person is known.*whiten") as caught:
        _ = replace(base).zero_shot
    assert "signal.normalise" in caught.value.hint


@pytest.mark.parametrize("kind", SIGNAL_PARTS)
def test_aligned_signals_have_the_statistics_of_other_people(base, kind):
    config = part(kind)
    expected = [config.measure([each.averages]) for each in base.trained]

    decoder = base.align_signals(config, LEARNED)

    aligned = config.measure([decoder.normaliser(LEARNED.averages)])
    for name, values in aligned.items():
        mean = np.mean([statistics[name] for statistics in expected], axis=0)
        size = np.abs(mean).max()
        assert np.abs(config.measure([LEARNED.averages])[name] - mean).max() > 0.1 * size
        np.testing.assert_allclose(values, mean, atol=1e-3 * size)
    assert top1(decoder, TESTED) >= top1(base.zero_shot, TESTED) and decoder.model is base.model


def test_signals_of_a_model_of_normalised_ones_are_normalised_by_the_calibration_alone(whitened):
    expected = part("whiten").build(part("whiten").measure([LEARNED.averages]))

    decoder = whitened.align_signals(part("whiten"), LEARNED)

    np.testing.assert_array_equal(decoder.normaliser.mean, expected.mean)
    np.testing.assert_array_equal(decoder.normaliser.matrix, expected.matrix)
    trained = whitened.train_arm(TRANSFER, LEARNED, 0, 0.1, part("euclidean"))
    assert trained.normaliser.digest == expected.digest  # in place of transfer.align
    with pytest.raises(BrainhiveError, match="trained on signals that whiten normalised") as caught:
        whitened.align_signals(part("euclidean"), LEARNED)
    assert "alignments=whiten" in caught.value.hint


@pytest.mark.parametrize("kind", [*SIGNAL_PARTS, *FREE, *PAIRED])
def test_labels_have_a_part_in_alignments_by_pairs_only(base, kind):
    tokens, others = (decode(fit_arm(base, kind, each)) for each in (LEARNED, relabelled(LEARNED)))

    assert torch.equal(tokens, others) == (kind not in PAIRED)
    assert not torch.equal(tokens, decode(base.zero_shot))


@pytest.mark.parametrize("kind", [*SIGNAL_PARTS, *FREE, *PAIRED, *TRAINED_ARMS])
def test_a_test_trial_is_decoded_without_the_others(base, kind):
    decoder = fit_arm(replace(base, train=TRAIN.model_copy(update={"epochs": 2})), kind)

    assert not depends_on_other_trials(decoder.encode, torch.from_numpy(TESTED.averages))
    together = replace(decoder, align=lambda tokens: tokens - tokens.mean(0))
    assert depends_on_other_trials(together.encode, torch.from_numpy(TESTED.averages))


def test_transfer_gains_from_few_pictures_and_scratch_needs_more(base):
    few = LEARNED.take(np.arange(10))
    transfer, scratch, zero_shot = (
        top1(decoder, TESTED)
        for decoder in (fit_arm(base, TRANSFER, few), fit_arm(base, SCRATCH, few), base.zero_shot)
    )
    assert transfer >= zero_shot and transfer > scratch


def test_a_subject_layer_leaves_the_model_as_it_is(base):
    decoder = fit_arm(base, SUBJECT_LAYER)

    before, after = base.model.state_dict(), decoder.model.state_dict()
    assert {name for name in before if name.startswith(("backbone", "fuser"))} == {*before}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {*after} - {*before} == {"subject_layer.weight"}
    assert not torch.equal(after["subject_layer.weight"][0], torch.eye(4))
    assert top1(decoder, LEARNED) > top1(base.zero_shot, LEARNED)


def test_fine_tuning_begins_with_the_model_and_scratch_does_not(base):
    still = replace(base, train=TRAIN.model_copy(update={"lr": 1e-12, "weight_decay": 0.0, "epochs": 1}))
    same = {arm: decode(fit_arm(still, arm)) for arm in (FINE_TUNING, SCRATCH, SUBJECT_LAYER)}

    zero_shot = decode(base.zero_shot)
    torch.testing.assert_close(same[FINE_TUNING], zero_shot, atol=1e-5, rtol=0)
    torch.testing.assert_close(same[SUBJECT_LAYER], zero_shot, atol=1e-5, rtol=0)
    assert (same[SCRATCH] - zero_shot).abs().max() > 0.1


def test_permuted_arms_learn_wrong_labels(base):
    longer = replace(base, train=TRAIN.model_copy(update={"epochs": 60}))
    learned = {arm: top1(fit_arm(longer, arm), LEARNED) for arm in TRAINED_ARMS}

    assert min(learned[SCRATCH], learned[TRANSFER]) > 0.9  # of the pictures that they learn from
    assert learned[PERMUTED_SCRATCH] < 0.2 and learned[PERMUTED_TRANSFER] < top1(base.zero_shot, LEARNED)
    assert top1(fit_arm(longer, PERMUTED_TRANSFER), TESTED) < top1(base.zero_shot, TESTED)


def test_the_strongest_pull_leaves_only_the_alignment_of_signals(base, whitened):
    aligned = base.align_signals(part("euclidean"), LEARNED)

    pulled = base.train_arm(TRANSFER, LEARNED, 0, 1.0, part("euclidean"))

    assert pulled.model is base.model and torch.equal(decode(pulled), decode(aligned))
    assert not torch.equal(
        decode(base.train_arm(TRANSFER, LEARNED, 0, 0.3, part("euclidean"))), decode(aligned)
    )
    for model in (base, whitened):  # without an alignment, or with that of the model
        assert model.train_arm(TRANSFER, LEARNED, 0, 1.0).model is model.model
    assert torch.equal(decode(base.train_arm(TRANSFER, LEARNED, 0, 1.0)), decode(base.zero_shot))


@pytest.mark.parametrize("pull", [0.0, 0.3, 1.0])
def test_a_kept_model_reads_signals_as_they_are_recorded(base, tmp_path, pull):
    decoder = base.train_arm(TRANSFER, LEARNED, 0, pull, part("euclidean"))

    decoder.save(tmp_path / "model")

    read = aligners.load(tmp_path / "model")
    with torch.inference_mode():
        tokens = read.encode_signal(torch.from_numpy(TESTED.averages))
    torch.testing.assert_close(tokens, decode(decoder), atol=1e-5, rtol=0)


def test_an_alignment_that_no_model_holds_is_not_kept(base, tmp_path):
    for kind in ("whiten", "coral"):
        with pytest.raises(BrainhiveError, match="an alignment outside the model is not kept"):
            fit_arm(base, kind).save(tmp_path / kind)
    assert not any(tmp_path.iterdir())


def test_a_stronger_pull_stays_nearer_to_the_model(base):
    before, distances = base.model.state_dict(), []
    for pull in sorted(PULLS)[:-1]:
        after = base.train_arm(TRANSFER, LEARNED, 0, pull, part("euclidean")).model.state_dict()
        distances.append(sum(float((after[name] - value).norm()) for name, value in before.items()))
    assert distances == sorted(distances, reverse=True) and distances[-1] < distances[0] / 2


def test_one_seed_gives_one_model_and_another_one_another(base):
    first, again, other = (decode(fit_arm(base, SCRATCH, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_few_pictures_are_learned_from_where_the_training_dropped_small_batches(base):
    dropping = replace(base, train=TRAIN.model_copy(update={"last_batch": "drop", "batch_size": 64}))
    assert not torch.equal(decode(fit_arm(dropping, TRANSFER)), decode(fit_arm(base, "euclidean")))


def test_a_closed_form_goes_on_and_has_no_layer_and_no_fine_tuning(closed):
    transfer, scratch = (fit_arm(closed, arm) for arm in (TRANSFER, SCRATCH))

    assert top1(transfer, TESTED) >= max(top1(scratch, TESTED), top1(closed.zero_shot, TESTED))
    with pytest.raises(BrainhiveError, match="a model in closed form has no subject layer"):
        fit_arm(closed, SUBJECT_LAYER)
    with pytest.raises(BrainhiveError, match="fine-tuning in closed form is transfer"):
        fit_arm(closed, FINE_TUNING)


def test_a_fixed_pull_is_weaker_the_more_pictures_there_are():
    pulls = [fixed_pull(pictures) for pictures in (5, 50, 51, 200, 201, 600, 601, 5000)]
    assert pulls == sorted(pulls, reverse=True) and pulls[-1] == 0 and {*pulls} <= {*PULLS}


def test_a_new_person_with_the_number_of_a_trained_one_is_another_person(base):
    same_number = replace(LEARNED, subject=2)
    decoder = base.train_arm(FINE_TUNING, same_number, seed=1)
    assert decoder.model.layout.spec.subjects == (4,) and decoder.subject == 4
    torch.testing.assert_close(decode(decoder), decode(base.train_arm(FINE_TUNING, LEARNED, seed=1)))


def test_voxels_are_refused_before_anything_is_measured_of_them(base):
    voxels = make_trials(NEW, np.zeros((2, 50_000, 1), np.float32), [0, 1], (), None)
    with pytest.raises(BrainhiveError, match="voxels of two people"):
        base.align_signals(part("euclidean"), voxels)


def test_trained_people_are_measured_on_as_many_trials_as_the_new_person(base):
    # four trials of each picture, of which one is learned from
    random = np.random.default_rng(0)

    def with_trials(responses: Trials) -> Trials:
        single = np.repeat(responses.averages[:, None], 4, 1)
        single = (single + random.normal(size=single.shape)).astype(np.float32)
        return replace(responses, signal=single)

    people = [with_trials(person) for person in base.trained]
    new = with_trials(LEARNED)
    one_trial = new.choose(np.arange(4) < np.ones((len(new.stimulus), 1)))
    noisy = SourceModel(base.model, base.targets, TERMS, TRAIN, people)

    # aligned, the person's single trials have the mean product of single trials of the others
    config, is_first = part("euclidean"), np.arange(4) < np.ones((PICTURES, 1))
    aligned = noisy.align_signals(config, one_trial).normaliser(one_trial.averages)
    expected = [config.measure([person.choose(is_first).averages])["reference"] for person in people]
    np.testing.assert_allclose(
        config.measure([aligned])["reference"], np.mean(expected, 0), rtol=1e-3, atol=1e-3
    )


def test_a_person_of_another_width_than_the_normalisation_is_no_stranger_that_is_decoded(whitened):
    wider = np.zeros((3, 7, SAMPLES), np.float32)
    trials = make_trials(NEW, wider, np.arange(3), tuple("ABCDEFG"), 100.0)
    assert not whitened.decodes_strangers(trials) and whitened.decodes_strangers(LEARNED)
    with pytest.raises(BrainhiveError, match="7 channels or voxels, the normalisation is of 4"):
        whitened.zero_shot.encode(wider)
