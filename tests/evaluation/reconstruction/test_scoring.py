"""Metrics in batches: the values of the whole, and nothing computed twice."""

from collections import Counter
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torchvision.transforms.v2.functional import pil_to_tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.facts import ReconstructionFacts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.evaluation.reconstruction import scoring
from brainhive_cli.evaluation.reconstruction.evaluation import measure_run
from brainhive_cli.evaluation.reconstruction.metric_parts import (
    PICTURE_METRICS,
    known_metrics,
    load,
    scale_of,
)
from brainhive_cli.evaluation.reconstruction.recipe import Scoring
from brainhive_cli.evaluation.reconstruction.scoring import GeneratedSet, Scorer, Stimuli
from brainhive_cli.measurement.metrics import MetricPart, networks
from brainhive_cli.measurement.metrics import image as metrics
from brainhive_cli.measurement.metrics.networks import NETWORKS, Network

HERE = Launch(0, 1, torch.device("cpu"))
ITEMS, REPEATS = 5, 3

PICTURE_NETWORKS = ("alexnet", "inception", "clip", "effnet", "swav")


class Counting(nn.Module):
    """A small network of given nodes that counts the pictures it sees."""

    def __init__(self, seen: Counter[str], name: str, nodes: tuple[str, ...]) -> None:
        super().__init__()
        self.seen, self.name, self.nodes = seen, name, nodes

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.seen[self.name] += len(images)
        coarse = nn.functional.adaptive_avg_pool2d(images, 6)
        return {node: coarse * (1 + place) + coarse.roll(place, 3) for place, node in enumerate(self.nodes)}


class Small(Network):
    """A network that takes no file."""

    def is_here(self) -> bool:
        return True

    def fetch(self) -> Path:
        return Path()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Small networks in the place of the large ones: how often each was loaded, how many pictures it saw."""
    counts: Counter[str] = Counter()

    def load(name: str, nodes: tuple[str, ...], path: Path) -> nn.Module:
        counts[f"{name} loaded"] += 1
        return Counting(counts, name, nodes)

    for name, real in NETWORKS.items():
        small = Small(real.title, 16, real.nodes, "", partial(load, name, real.nodes))
        monkeypatch.setitem(networks.NETWORKS, name, small)
    return counts


def picture(seed: int) -> Image.Image:
    """A smooth picture that its seed decides."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)


SEEN = [picture(n) for n in range(ITEMS)]
MADE = [
    Image.blend(SEEN[n], picture(100 + n * REPEATS + r).resize((48, 40)), 0.5)
    for n in range(ITEMS)
    for r in range(REPEATS)
]
EACH = {n: n for n in range(ITEMS)}
OWN = np.repeat(np.arange(ITEMS), REPEATS)


def scored(batch_size: int, protocol: str = "mindeye2", rounds: int = 1) -> dict[str, np.ndarray]:
    parts, _ = load(PICTURE_METRICS, [], HERE)
    scorer = Scorer(parts, protocol, batch_size, HERE.device, [lambda each=each: each for each in SEEN])
    with console.progress("scores", 1) as bar:
        for _ in range(rounds):
            found = scorer.score([lambda each=each: each for each in MADE], OWN, np.arange(ITEMS), bar)
    return found


def test_every_network_is_loaded_once_and_sees_every_stimulus_once(counted):
    scored(4, rounds=2)

    for name in PICTURE_NETWORKS:
        assert counted[f"{name} loaded"] == 1
        assert counted[name] == ITEMS + 2 * len(MADE)


def measured(folder: Path, names: dict[str, dict[int, int]]) -> tuple[Measurements, Counter[str]]:
    """Measure reconstructions by pixels and one network; count how often each stimulus is opened.

    For each subject: the items, and of which item the reconstruction really is.
    """
    opened: Counter[str] = Counter()

    def opens(image_id: str) -> Image.Image:
        opened[image_id] += 1
        return SEEN[int(image_id)]

    for number, made in enumerate(MADE):
        made.save(folder / f"{number}.png")
    generated = [
        GeneratedSet(
            "brain", name, (), {str(n): [folder / f"{of * REPEATS}.png"] for n, of in items.items()}, subject
        )
        for subject, (name, items) in enumerate(names.items())
    ]
    scoring = Scoring(metrics=["pixcorr", "inception"], sheet_rows=0)
    measure_run(
        RunFolder(folder), scoring, generated, Stimuli(opens, str), "test", HERE, {}, ReconstructionFacts()
    )
    return RunFolder(folder).measurements(), opened


def test_features_of_stimuli_are_computed_once_for_all_that_are_compared_with_them(counted, tmp_path):
    metrics, opened = measured(tmp_path, {"one": EACH, "other": EACH, "third": {0: 0, 1: 1}})

    assert opened == Counter(map(str, range(ITEMS))) + Counter("0")  # the first, to tell pictures from clips
    assert counted["inception"] == ITEMS + ITEMS + ITEMS + 2
    assert metrics.items["brain · one"] == metrics.items["brain · other"]


def test_a_reconstruction_is_identified_among_the_pictures_of_its_own_subject(counted, tmp_path):
    metrics, _ = measured(tmp_path, {"all": EACH, "few": {0: 2, 1: 3}})

    whole, few = (metrics.scopes[f"brain · {name}"]["inception"] for name in ("all", "few"))
    assert (whole.pool, few.pool) == (ITEMS, 2)
    assert set(metrics.items["brain · few"]["inception"]) <= {
        0.0,
        1.0,
    }  # the one other picture is more alike, or not; 2 and 3 are no rivals


@pytest.mark.parametrize("protocol", ["mindeye2", "brainhive"])
def test_batches_give_the_values_of_the_public_functions_on_the_whole(counted, protocol):
    """Features and pixels of `brainhive` too are resized from its own size, with no step between."""
    found, whole = scored(4, protocol), scored(1000, protocol)

    assert list(found) == list(PICTURE_METRICS)
    assert all(np.abs(found[name] - whole[name]).max() < 1e-9 for name in PICTURE_METRICS)
    seen, made = (
        torch.cat([metrics.prepare(pil_to_tensor(p)[None] / 255, protocol) for p in some])
        for some in (SEEN, MADE)
    )
    features = NETWORKS["swav"].build(HERE.device)
    for repeat in range(REPEATS):
        mine = made[repeat::REPEATS]
        true, own = features(seen)["avgpool"], features(mine)["avgpool"]
        standard, rows = [metrics.standardise(x) for x in (true, own)], torch.arange(len(own))
        expected = {
            "pixcorr": metrics.pixcorr(seen, mine),
            "ssim": metrics.ssim(seen, mine),
            "swav": metrics.correlation_distance(*standard, rows),
            "inception": metrics.two_way_identification(
                *standard, rows
            ),  # the same small network, of one node
        }
        for name, values in expected.items():
            assert np.abs(found[name][repeat::REPEATS] - values.numpy()).max() < 1e-6, name


@pytest.mark.parametrize(("free_bytes", "home"), [(2**40, "cuda"), (2**20, "cpu")])
def test_stimuli_stay_on_the_device_where_their_features_fit(free_bytes, home, monkeypatch):
    monkeypatch.setattr(scoring, "free_bytes", lambda device: free_bytes)
    rows, opens = torch.tensor([3, 1]), [lambda each=each: each for each in SEEN]

    with FakeTensorMode(allow_non_fake_inputs=True):  # tensors of a GPU without one, and without values
        scorer = Scorer({"ssim": metrics.PARTS["ssim"]}, "mindeye2", 2, torch.device("cuda"), opens)
        seen = scorer.seen[metrics.local_moments]
        values = metrics.structural_similarity(seen, seen[:2], rows)

    assert seen.shape == (ITEMS, 3, 425, 425)
    assert (seen.device.type, values.device.type) == (home, home)


def test_media_are_decoded_while_others_are_compared():
    is_decoding_next, waited = Event(), []

    def open_second() -> Image.Image:
        is_decoding_next.set()
        return SEEN[1]

    def features(media: Tensor) -> Tensor:
        waited.append(is_decoding_next.wait(timeout=30))
        return media

    part = MetricPart(features, metrics.correlation)
    assert (
        len(Scorer({"x": part}, "mindeye2", 1, HERE.device, [lambda: SEEN[0], open_second]).seen[features])
        == 2
    )
    assert waited == [True, True]


def test_two_way_in_batches_equals_the_reference(golden):
    reference = load_file(golden / "image_metrics.safetensors")
    true, made = (metrics.standardise(reference[f"feature_{name}"]) for name in ("image", "reconstruction"))

    parts = [
        metrics.two_way_identification(true, made[n : n + 5], torch.arange(len(made))[n : n + 5])
        for n in range(0, len(made), 5)
    ]

    assert torch.cat(parts).mean().item() == pytest.approx(reference["two_way"].item(), abs=1e-6)


def test_metrics_without_weights_are_missing_with_the_way_to_get_them(image_networks_absent):
    parts, missing = load(PICTURE_METRICS, [], HERE)

    assert list(parts) == ["pixcorr", "ssim"] and list(missing) == list(PICTURE_METRICS[2:])
    assert "curl" in missing["swav"] and "hf download" in missing["clip"]


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match="no metric called 'fid'") as caught:
        known_metrics(["ssim", "fid"])
    with pytest.raises(RecipeError, match=r"the metric my_parts\.warmth is code, named by a file"):
        known_metrics(["ssim", "my_parts.warmth"])
    assert scale_of("two_way_clip-b32.class").chance == 0.5  # an encoder's name, and no module's
    assert "alexnet2" in caught.value.hint


def test_chance_belongs_to_identification_only():
    assert [scale_of(name).chance for name in ("ssim", "swav", "clip", "two_way_x")] == [None, None, 0.5, 0.5]
