"""How fast explain's heavy parts are, and how often its statistics hold on simulated signals; prints tables.

Speed, in processor time: similarity of 10 subjects, 200 pictures and 250 times, and the encoding model of 63
sensors and 250 times, each with the ratio to a plain loop over SciPy or scikit-learn on a slice of the same
data in the same run. Statistics: how often noise is called significant anywhere along a course, the mean of
the control, and how often intervals hold the truth. `--fast` leaves the statistics out.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import torch
from scipy.spatial.distance import pdist
from scipy.stats import rankdata, spearmanr
from sklearn.linear_model import Ridge

from brainhive_cli.evaluation.explanation.encoding_model import Slices, along, predict_signals
from brainhive_cli.evaluation.explanation.linear_maps import Products
from brainhive_cli.evaluation.explanation.profiles import Axis, Labels, PermutationTest, Profile
from brainhive_cli.evaluation.explanation.similarity import Models, measure_similarity
from brainhive_cli.measurement.statistics import measure_each
from brainhive_cli.measurement.units import Items

HOW = {"protocol": "simulated", "split": "test"}
LEVEL = 0.05


def seconds(work: Callable[[], object]) -> float:
    """Time some work: processor time, which is that of an idle machine where others use this one too."""
    started = time.process_time()
    work()
    return time.process_time() - started


def plain_similarity(signals: np.ndarray, features: list[np.ndarray]) -> None:
    """Do what rsatoolbox does, subject by subject and time by time, without permutations or items.

    Args:
        signals: [S, N, C, T].
        features: [N, F] of each model.
    """
    models = [pdist(each, "correlation") for each in features]
    for time_ in range(signals.shape[-1]):
        found = [pdist(each[:, :, time_], "correlation") for each in signals]
        ranks = np.stack([rankdata(each) for each in found])
        for subject, each in enumerate(found):
            rest = np.delete(ranks, subject, 0).mean(0)
            for model in (*models, ranks.mean(0), rest):
                spearmanr(each, model)


def similarity_speed(
    subjects: int = 10, pictures: int = 200, times: int = 250, slice_: int = 5
) -> Iterator[str]:
    """Time representational similarity."""
    random = np.random.default_rng(0)
    signals = random.normal(size=(subjects, pictures, 63, times)).astype(np.float32)
    features = [random.normal(size=(pictures, width)) for width in (1024, 512)]
    models = Models.of({str(number): each for number, each in enumerate(features)})

    def run(count: int, draws: int) -> float:
        places = (list(signals[..., place]) for place in range(count))
        return seconds(lambda: measure_similarity(places, models, Items.unnamed([pictures]), draws))

    ours, bare = run(times, 1000), run(slice_, 0)
    plain = seconds(lambda: plain_similarity(signals[..., :slice_], features))
    size = f"{subjects} subjects × {pictures} pictures × {times} times"
    yield f"similarity, {size}, 2 models, 1000 permutations: {ours:.1f} s"
    yield (
        f"  of {slice_} times without permutations: {bare:.2f} s; plain loop over SciPy: {plain:.2f} s, "
        f"{plain / bare:.1f} times as long"
    )


def encoding_speed(train: int = 4000, sensors: int = 63, times: int = 250, width: int = 256) -> Iterator[str]:
    """Time the encoding model: one factorisation for all outputs, against one ridge for each."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(train, width, generator=random)
    signals = torch.randn(train, sensors * times, generator=random)
    test = torch.randn(200, width, generator=random)
    ours = seconds(lambda: Products.of(features - features.mean(0), signals.split(256)).predict(test, 10.0))
    some = list(range(0, sensors * times, sensors * times // 20))
    one = seconds(
        lambda: [Ridge(10.0).fit(features.numpy(), signals[:, q].numpy()).predict(test.numpy()) for q in some]
    )
    plain = one / len(some) * sensors * times
    yield f"encoding, {train} pictures × {width} features to {sensors} × {times} outputs: {ours:.1f} s"
    yield (
        f"  a ridge of scikit-learn for each output, from {len(some)} of them: {plain:.0f} s, "
        f"{plain / ours:.0f} times as long"
    )


def course(
    random: np.random.Generator, effect: float, subjects: int, items: int, times: int
) -> list[Profile]:
    """Draw similarity matrices of subjects, items and labels, smooth over times, and look up profiles.

    Right pairs are more similar by `effect`; pictures differ in how similar they are to all items.
    """
    easy = random.normal(size=(1, items))
    found = []
    for _ in range(subjects):
        noise = random.normal(size=(times + 4, items, items)) + 0.5 * easy
        smooth = np.mean([noise[shift : shift + times] for shift in range(5)], 0)
        matrices = smooth + effect * np.eye(items)
        labels = Labels.of(np.arange(items), np.arange(items), Items.unnamed([items]), 200, 1)
        found.append(Profile.of("margin", Axis("ms", range(times)), matrices, labels))
    return found


def permuted(count: int) -> Iterator[str]:
    """Count how often noise is called significant somewhere, and a weak effect is found."""
    yield "| subjects | effect | any time at corrected p < .05 | a time at p < .05 | mean of the control |"
    yield "|---|---|---|---|---|"
    for subjects, effect in ((1, 0.0), (4, 0.0), (1, 0.15), (4, 0.15)):
        random, anywhere, alone, controls = np.random.default_rng(subjects), [], [], []
        for _ in range(count):
            profiles = course(random, effect, subjects, 40, 20)
            null = np.mean([each.null for each in profiles], 0)
            measured = np.mean([each.values.mean(1) for each in profiles], 0)
            found = PermutationTest.of(measured, null)
            anywhere.append(found.corrected.min() < LEVEL)
            alone.append(np.mean(found.p_values < LEVEL))
            controls.append(null.mean())
        yield (
            f"| {subjects} | {effect} | {np.mean(anywhere):.3f} | {np.mean(alone):.3f} "
            f"| {np.mean(controls):+.4f} |"
        )


def similarity_statistics(count: int) -> Iterator[str]:
    """Count false positives of similarity, and how often its interval holds the mean of all simulations."""
    yield "| signal | mean rho | any of 5 times at corrected p < .05 | interval of one subject holds |"
    yield "|---|---|---|---|"
    for strength in (0.0, 0.5, 1.0):
        random, anywhere, metrics = np.random.default_rng(int(10 * strength)), [], []
        for _ in range(count):
            features = random.normal(size=(40, 12))
            mixing = random.normal(size=(12, 17))
            signals = strength * (features @ mixing)[..., None] / 3 + random.normal(size=(40, 17, 5))
            models = Models.of({"model": features})
            places = ([signals[..., t]] for t in range(5))
            found = measure_similarity(places, models, Items.unnamed([40]), 200)
            test = PermutationTest.of(found.whole.values[0, 0], found.whole.null[:, 0])
            anywhere.append(test.corrected.min() < LEVEL)
            metrics += measure_each("rho", [found.whole.items[0, 0][:1].astype(float)], is_share=False, **HOW)
        truth = np.mean([each.value for each in metrics])
        held = np.mean([each.low <= truth <= each.high for each in metrics])
        yield f"| {strength} | {truth:.3f} | {np.mean(anywhere):.3f} | {held:.3f} |"


def encoding_statistics(count: int) -> Iterator[str]:
    """Count false positives of the encoding model, and how often its interval holds."""
    yield "| signal | mean r | any of 6 times at corrected p < .05 | interval holds |"
    yield "|---|---|---|---|"
    for strength in (0.0, 0.3):
        random, anywhere, metrics = np.random.default_rng(3), [], []
        weights = random.normal(size=(8, 18)) / 8**0.5
        for number in range(count):
            n = {"train": 150, "test": 40}
            features = {split: random.normal(size=(size, 16)) for split, size in n.items()}
            signals = {
                split: strength * each[:, :8] @ weights + random.normal(size=(len(each), 18))
                for split, each in features.items()
            }
            levels = [
                {"a": torch.from_numpy(each[:, :8]).float(), "b": torch.from_numpy(each[:, 8:]).float()}
                for each in features.values()
            ]
            trained = torch.from_numpy(signals["train"]).float()
            wrong = np.roll(np.arange(150), 75), np.roll(np.arange(40), 20)
            found = predict_signals(*levels, lambda: iter([trained]), (3, 6), wrong, 8, None)  # noqa: B023
            measured = signals["test"].reshape(-1, 3, 6)
            places = {time_: np.array([time_]) for time_ in range(6)}
            labels = Labels.of(np.arange(40), np.arange(40), Items.unnamed([40]), 200, number)
            profile = along(found, measured, Slices("ms", places, 2), labels)
            test = PermutationTest.of(profile.values.mean(1), profile.null)
            anywhere.append(test.corrected.min() < LEVEL)
            metrics += measure_each("r", [profile.values[:1]], is_share=False, **HOW)
        truth = np.mean([each.value for each in metrics])
        held = np.mean([each.low <= truth <= each.high for each in metrics])
        yield f"| {strength} | {truth:.3f} | {np.mean(anywhere):.3f} | {held:.3f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=400, help="simulations of each design")
    parser.add_argument("--fast", action="store_true", help="only speed")
    given = parser.parse_args()
    for line in chain(similarity_speed(), encoding_speed()):
        print(line, flush=True)
    if not given.fast:
        for title, table in (
            ("Permuted labels along a course", permuted),
            ("Similarity", similarity_statistics),
            ("Encoding", encoding_statistics),
        ):
            print(f"\n{title}: {given.count} simulations of each design\n")
            for line in table(given.count):
                print(line, flush=True)
