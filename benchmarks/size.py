"""What surrounds the computation, at an eighth to all of the size of published data.

Each size of a case runs in a process of its own. The table shows processor seconds,
the share of them that the computation alone takes, the largest memory next to the
memory of the data, and the exponent with which seconds grow.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import numpy as np
import torch
from scipy.linalg import eigh
from synthetic import RATE_HZ

from brainhive_cli.core.documents import digest_text
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.published.things_eeg import POSTERIOR
from brainhive_cli.data.signal_stores import SignalStore
from brainhive_cli.data.spaces import Sensors, Voxels
from brainhive_cli.data.targets.targets import StoreTargets, Targets
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.retrieval import baseline
from brainhive_cli.evaluation.retrieval.baseline import ORDERS
from brainhive_cli.measurement import verdict
from brainhive_cli.measurement.linear_maps import Products
from brainhive_cli.measurement.units import Items
from brainhive_cli.measurement.verdict import judge
from brainhive_cli.models.backbones.ridge import Config as Ridge
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.loop import fit
from brainhive_cli.training.alignment.recipe import Train

Work = Callable[[], object]
SHARES = ("1/8", "1/4", "1/2", "1")
"""Shares of the published size."""
GB, PAUSE_S = 1e9, 0.01
EMBEDDING_WIDTH = 1024
"""Outputs of a ridge."""
COMPONENTS, MAX_EXACT = 1000, 5000
"""Components of a ridge; signals or numbers up to which they are exact."""


@dataclass(frozen=True)
class Task:
    """Work of one size.

    Attributes:
        run: What is measured. It may return `Measured` where processes that it starts
            do the work.
        compute: The computation alone, which gives the share of pure computing.
        data_bytes: Memory of the data that `run` uses.
    """

    run: Work
    compute: Work | None = None
    data_bytes: int = 0


@dataclass(frozen=True)
class Case:
    """A task that is measured at several sizes.

    Attributes:
        what: Its row in the table.
        count: Items of the published size.
        prepare: Makes the task of a number of items, with a folder to write in.
    """

    what: str
    count: int
    prepare: Callable[[int, Path], Task]


@dataclass(frozen=True)
class Measured:
    """Figures of one size.

    Attributes:
        count: Items.
        cpu_s: Processor seconds of the work.
        compute_s: Processor seconds of the computation alone; NaN if not measured.
        peak_gb: Most memory that the work added.
        data_gb: Memory of its data.
    """

    count: int
    cpu_s: float
    compute_s: float
    peak_gb: float
    data_gb: float


def processor_s() -> float:
    """Return the processor seconds of this process and of its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def read_memory_gb() -> float:
    """Read the memory of this process that no file holds (RssAnon)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["RssAnon"].split()[0]) * 1024 / GB


class Peak:
    """The largest memory while a block runs, by samples of a thread."""

    def __enter__(self) -> Self:
        """Begin to sample."""
        self.most_gb = self.before_gb = read_memory_gb()
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def _sample(self) -> None:
        while not self.is_over.wait(PAUSE_S):
            self.most_gb = max(self.most_gb, read_memory_gb())

    def __exit__(self, *problem: object) -> None:
        """End, and keep what the block added."""
        self.is_over.set()
        self.thread.join()
        self.added_gb = max(self.most_gb, read_memory_gb()) - self.before_gb


def measure(case: Case, count: int, folder: Path) -> Measured:
    """Run a task of one size in this process."""
    task = case.prepare(count, folder)
    start_s = processor_s()
    with Peak() as peak:
        result = task.run()
    cpu_s = processor_s() - start_s
    if isinstance(result, Measured):
        return result

    compute_s = np.nan
    if task.compute is not None:
        start_s = processor_s()
        task.compute()
        compute_s = processor_s() - start_s
    return Measured(count, cpu_s, compute_s, peak.added_gb, task.data_bytes / GB)


def fit_exponent(rows: Sequence[Measured]) -> float:
    """Fit the exponent with which seconds grow with the number of items."""
    counts = np.log([row.count for row in rows])
    seconds = np.log([max(row.cpu_s, 1e-4) for row in rows])
    return float(np.polyfit(counts, seconds, 1)[0]) if len(rows) > 1 else np.nan


def write_row(what: str, row: Measured, exponent: str = "") -> str:
    """Write a row of the table."""
    share = row.compute_s / row.cpu_s
    computing = "–" if np.isnan(share) else f"{share:.0%}"
    return (
        f"{what:44} {row.count:>10,} {row.cpu_s:9.3f} {computing:>9} "
        f"{row.peak_gb:8.2f} {row.data_gb:8.2f}  {exponent}"
    ).rstrip()


def write_signals(folder: Path, shape: tuple[int, int, int, int]) -> Trials:
    """Write a store of random signals [N, R, C, T] in float16, and open it."""
    count, _, channels, samples = shape
    random = np.random.default_rng(0)
    signal = np.empty(shape, np.float16)
    for row in signal:
        row[:] = random.standard_normal(row.shape, np.float32)
    is_eeg = samples > 1
    space = Sensors(POSTERIOR[:channels]) if is_eeg else Voxels({})
    times_s = np.arange(samples) / RATE_HZ
    names = [f"{number:06d}" for number in range(count)]
    rate_hz = RATE_HZ if is_eeg else None
    path = folder / "sub-01.h5"
    recording = Trials(signal, names, space, times_s, rate_hz, "random")
    SignalStore.write(path, {"train": recording})
    stored = SignalStore.open(path)["train"]
    return replace(stored, subject=1, stimulus=np.arange(count))


def prepare_ridge(
    repetitions: int, channels: int, samples: int
) -> Callable[[int, Path], Task]:
    """Prepare a ridge of an evaluation: 1,000 components, 1,024 outputs."""

    def prepare(count: int, folder: Path) -> Task:
        trials = write_signals(folder, (count, repetitions, channels, samples))
        random = torch.Generator().manual_seed(0)
        embeddings = torch.randn(count, EMBEDDING_WIDTH, generator=random)
        targets = Targets({"embedding": StoreTargets(embeddings)})
        names = trials.space.names if isinstance(trials.space, Sensors) else ()
        layout = Layout(
            SignalSpec(names, samples, (1,), (channels,)),
            {"embedding": Head((EMBEDDING_WIDTH,), "embedding")},
            backbone=Ridge(
                alpha="auto", standardise=False, components=COMPONENTS
            ).model_dump(),
            encoders={"embedding": "embedding"},
            similarity="cosine_from_mean",
        )
        data = CellData([trials], targets, np.zeros(count, bool), None)

        def compute() -> None:
            signal = torch.from_numpy(trials.averages).flatten(1)
            solve_ridge(signal, embeddings)

        return Task(
            lambda: fit(layout, data, [], Train(validation=0)),
            compute,
            count * channels * samples * 4,
        )


def import_vectors(count: int, folder: Path) -> Task:
    """Import the vectors of three encoders of small pictures, which are here."""
    import pyarrow
    import pyarrow.parquet
    import torch
    from PIL import Image

    from brainhive_cli.commands import import_embeddings
    from brainhive_cli.core.launch import Launch

    os.environ["BRAINHIVE_HOME"] = str(folder)
    random = np.random.default_rng(0)
    names = [f"concept{row // 10}/picture{row}" for row in range(count)]
    for name in names:
        path = folder / f"pictures/train/{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
        coarse.resize((96, 96)).save(path)

    widths = {"clip-b32": 512, "dinov2-b14": 768, "vae": 1024}
    for encoder, width in widths.items():
        values = random.standard_normal((count, width), np.float32)
        vectors = pyarrow.FixedSizeListArray.from_arrays(values.ravel(), width)
        table = pyarrow.table({"image_id": names, "emb": vectors})
        file = f"pictures_train_{encoder}-part-00000-of-00000.parquet"
        pyarrow.parquet.write_table(table, folder / file)
    keys = {
        "dataset": {"kind": "image-folder", "root": str(folder / "pictures")},
        "sources": [str(folder / "*.parquet")],
        "encoders": list(widths),
        "splits": ["train"],
    }
    recipe = import_embeddings.Recipe.resolve("import-embeddings", None, keys, [])
    launch = Launch(0, 1, torch.device("cpu"))
    data_bytes = 4 * count * sum(widths.values())
    return Task(lambda: import_embeddings.run(recipe, launch), data_bytes=data_bytes)


def draw_hashes(count: int) -> np.ndarray:
    """Draw the hashes of square pictures, whose views 0, 7 and 10 are the same."""
    hashes = np.random.default_rng(count).integers(0, 2**63, (count, 24), np.uint64)
    for view in (7, 10):
        hashes[:, 2 * view : 2 * view + 2] = hashes[:, :2]
    return hashes


def compare_tested(tested_count: int) -> Callable[[int, Path], Task]:
    """Make the task of comparing tested pictures with learned ones by their hashes."""

    def prepare(count: int, _: Path) -> Task:
        from brainhive_cli.data.media.near_copies import find_candidates

        tested, learned = draw_hashes(tested_count), draw_hashes(count)
        learned[: tested_count // 20] = tested[: tested_count // 20]
        bytes_used = tested.nbytes + learned.nbytes
        return Task(lambda: find_candidates(tested, learned), data_bytes=bytes_used)

    return prepare


def solve_ridge(signal: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Solve a ridge on principal components without anything around it."""
    centred = (signal - signal.mean(0)).double()
    if min(centred.shape) > MAX_EXACT:
        scores, lengths, _ = torch.svd_lowrank(centred.float(), COMPONENTS, niter=4)
    else:
        count = min(COMPONENTS, *centred.shape)
        is_wide = centred.shape[1] > len(centred)
        gram = centred @ centred.T if is_wide else centred.T @ centred
        largest = (len(gram) - count, len(gram) - 1)
        squares, vectors = map(
            torch.from_numpy, eigh(gram.numpy(), subset_by_index=largest)
        )
        lengths = squares.clamp(min=1e-9).sqrt()
        scores = vectors if is_wide else centred @ vectors / lengths
    return scores.float().T @ targets


def train_published(count: int, folder: Path) -> Task:
    """Train a model on files of a subject of THINGS-EEG2, to be evaluated."""
    import harness
    import synthetic

    ids = {
        "train": synthetic.things_ids("train", max(2, count // 10)),
        "test": synthetic.things_ids("test"),
    }
    synthetic.write_published(folder, 1, ids)
    for split, names in ids.items():
        synthetic.write_targets(folder, "things-eeg", split, names, {"vae": 64})
    settings = ["epochs=1", "warmup_steps=0", "precision=fp32"]
    words = ["train-align", "encoders=vae", "subjects=1", "seeds=1"]
    words += [f"train.{setting}" for setting in settings]
    harness.run(**harness.brainhive(words, folder))

    # averages of 17 channels and 250 samples, in float32
    data_bytes = count * 17 * 250 * 4
    # no pictures are here to be drawn on a sheet
    words = ["eval-retrieval", "sheet_rows=0"]
    return Task(partial(evaluate, count, folder, words, data_bytes))


def train_demo(count: int, folder: Path) -> Task:
    """Train models on the demo's simulated subjects, to be evaluated."""
    import harness

    words = ["--recipe", "demo", f"dataset={{kind: demo, subjects: {count}}}"]
    for command in ("embed", "train-align"):
        harness.run(**harness.brainhive([command, *words], folder))
    # averages of 864 pictures, 17 channels and 75 samples, in float32
    data_bytes = count * 864 * 17 * 75 * 4
    words = ["eval-retrieval", "--recipe", "demo", "align_run=null"]
    return Task(partial(evaluate, count, folder, [*words, words[-1]], data_bytes))


def evaluate(
    count: int, folder: Path, words: Sequence[str], data_bytes: int
) -> Measured:
    """Evaluate the newest run with its ridge, and without it as the computation."""
    import harness

    # as in a new home
    used = {}
    for name in ("ridge", "none"):
        (folder / ".likenesses").unlink(missing_ok=True)
        command = harness.brainhive([*words, f"baseline={name}"], folder)
        used[name] = harness.run(**command)
    cpu_s = used["ridge"].cpu_s
    peak_gb = used["ridge"].own_gib * 2**30 / GB
    return Measured(count, cpu_s, used["none"].cpu_s, peak_gb, data_bytes / GB)


def prepare_trials(count: int, folder: Path) -> Task:
    """Make the ranks of 200 categories by single trials, for one verdict."""
    random = np.random.default_rng(0)
    ranks = random.integers(1, 201, (count, 200)).astype(np.uint16)
    label_of = dict(enumerate(random.integers(0, 200, count).tolist()))
    items = Items.independent([range(count)], "trials")
    data_bytes = 2 * count * verdict.DRAWS  # the permutations

    return Task(
        lambda: judge([ranks], items, range(200), label_of=label_of),
        data_bytes=data_bytes + ranks.nbytes,
    )


def prepare_verdicts(count: int, folder: Path) -> Task:
    """Make the ranks of pictures by their signals, for the verdicts of ten models."""
    ranks = np.random.default_rng(0).permuted(
        np.tile(np.arange(1, count + 1), (count, 1)), axis=1
    )

    def judge_models(models: int = 10) -> None:
        for _ in range(models):
            items = Items.independent([range(count)], "pictures")
            judge([ranks], items, range(count))

    return Task(judge_models, lambda: judge_models(1), ranks.nbytes)


def prepare_products(count: int, folder: Path) -> Task:
    """Make 240 signals of up to 17 channels and 250 samples, for a ridge."""
    random = np.random.default_rng(0)
    signals = torch.from_numpy(random.normal(size=(240, count)))
    centred = signals - signals.mean(0)
    targets = torch.from_numpy(random.normal(size=(240, 512)))

    return Task(
        lambda: Products.of(centred, [targets]).predict(centred),
        lambda: torch.linalg.eigh(centred @ centred.T),
        8 * signals.numel(),
    )


def prepare_orders(count: int, folder: Path) -> Task:
    """Make a subject's signals as a ridge reads them, to be tried in four orders."""
    random = torch.Generator().manual_seed(0)
    train, targets = torch.randn(count, 1000, generator=random), make_units(count)
    test, candidates = torch.randn(200, 1000, generator=random), make_units(200)
    orders = {name: refile(np.arange(count)).copy() for name, refile in ORDERS.items()}

    # a subject without signals, which are made above
    model = SimpleNamespace(
        stores=lambda split: {},
        pictures=lambda split: SimpleNamespace(concepts=np.arange(200)),
    )
    cell = SimpleNamespace(tested_on=[1], fold=1)
    dataset = SimpleNamespace(alike_by="concept", stimulus="picture")
    job = SimpleNamespace(
        runs=[SimpleNamespace(origin=None, recipe=None, dataset=dataset)],
        groups=[[cell]],
        recipe=SimpleNamespace(split="test", only_shown=False, baseline="ridge"),
        open_models=lambda group, device: [model],
    )
    replaced = {
        "open_gallery": lambda *_, **__: SimpleNamespace(tested=np.arange(200)),
        "read_targets": lambda *_: candidates,
        "read_signals": lambda *_: (train, test, targets, orders, np.arange(200)),
    }
    for name, value in replaced.items():
        setattr(baseline, name, value)

    def compute() -> None:
        products = train.T @ train
        torch.linalg.eigh(products.double())
        for _ in orders:
            train.T @ targets

    data_bytes = 4 * (train.numel() + targets.numel())
    return Task(
        lambda: baseline.find_order(job, torch.device("cpu")), compute, data_bytes
    )


def make_units(count: int) -> torch.Tensor:
    """Make random unit embeddings, [count, 1024]."""
    random = torch.Generator().manual_seed(count)
    return torch.nn.functional.normalize(torch.randn(count, 1024, generator=random))


def prepare_runs(count: int, folder: Path) -> Task:
    """Make a home of finished evaluations, which are listed by a command."""
    run = make_run(folder / "runs")
    digests = (run / "SHA256SUMS").read_text()
    environment = (run / "environment.json").read_text()
    finished = json.loads(environment)["finished"]

    # copies, each finished a second before the last one
    for number in range(1, count):
        copied = run.with_name(f"{run.name}-{number:04d}")
        shutil.copytree(run, copied)
        time = datetime.fromisoformat(finished) - timedelta(seconds=number)
        text = environment.replace(finished, time.isoformat())
        (copied / "environment.json").write_text(text)
        listed = digests.replace(digest_text(environment), digest_text(text))
        (copied / "SHA256SUMS").write_text(listed)
    home = {**os.environ, "BRAINHIVE_HOME": str(folder)}
    command = [sys.executable, "-m", "brainhive_cli", "runs"]

    def list_runs() -> None:
        subprocess.run(command, env=home, check=True, capture_output=True)

    return Task(list_runs)


def make_run(runs: Path) -> Path:
    """Make an evaluation of four subjects, with pictures of its sheet.

    Returns:
        The folder of the run.
    """
    run = RunFolder(runs / "eval-retrieval" / "evaluation")
    (run.path / "artifacts" / "gallery").mkdir(parents=True)
    for number in range(40):
        picture = run.path / f"artifacts/gallery/{number}.webp"
        picture.write_bytes(bytes(4000))
    run.write_text("recipe.yaml", "align_run: [training]\n")
    run.write_json("environment.json", {"versions": {}, "device": "cpu"})

    # metrics of 200 pictures, by subject
    metric = Metric("top1", 0.25, 200, 200, 0.005, 0.2, 0.3, (1,), "cosine", "test", "")
    names = ["all", *(f"sub-{subject:02d}" for subject in range(1, 5))]
    items = {
        name: {"image_ids": [*map(str, range(200))], "ranks": [*range(1, 201)]}
        for name in names[1:]
    }
    scopes = {name: {"top1": metric} for name in names}
    run.finish(Measurements(scopes, items=items))
    return run.path


def compare_training(count: int, _: Path) -> Task:
    """Compare a tenth of training pictures, held out, with all of them."""
    from brainhive_cli.data.media.near_copies import find_candidates
    from brainhive_cli.training.alignment.batches import MAX_COPY_DISTANCE

    learned = draw_hashes(count)
    held_out = learned[: count // 10].copy()
    held_out[::2] = draw_hashes(count // 10)[::2]
    bytes_used = held_out.nbytes + learned.nbytes
    return Task(
        lambda: find_candidates(held_out, learned, MAX_COPY_DISTANCE),
        data_bytes=bytes_used,
    )


def name_pictures(count: int) -> list[str]:
    """Name pictures of 1,000 folders, which repeat the names of their files."""
    return [f"n{row % 1000:08}/{row // 1000}" for row in range(count)]


def match_full_names(count: int, _: Path) -> Task:
    """Match names of pictures that are paths in another folder."""
    from brainhive_cli.data.stores.ids import match_names

    image_ids = name_pictures(count)
    names = [f"/data/train/{image_id}.JPEG" for image_id in image_ids]
    bytes_used = sum(map(sys.getsizeof, (*image_ids, *names)))
    return Task(lambda: match_names(names, image_ids), data_bytes=bytes_used)


def run_command(words: str, home: Path) -> float:
    """Run a command in a process of its own; return its processor seconds."""
    from harness import brainhive, run

    return run(**brainhive(words.split(), home)).cpu_s


def prepare_start_up(words: str, made_by: Sequence[str], _: int, home: Path) -> Task:
    """Make a home by some commands, in which a command is then measured."""
    for command in made_by:
        run_command(command, home)

    def measure() -> Measured:
        return Measured(1, run_command(words, home), np.nan, 0.0, 0.0)

    return Task(measure)


def prepare_epoch(_: int, home: Path) -> Task:
    """Embed the demo, for a training of one epoch next to the loop of that epoch."""
    run_command("embed --recipe demo", home)
    run_command(f"{TRAINING} train.epochs=2", home)  # which also makes the signals

    def measure() -> Measured:
        one_s = run_command(TRAINING, home)
        loops_s = run_command(f"{TRAINING} train.epochs=11", home) - one_s
        return Measured(1, one_s, loops_s / 10, 0.0, 0.0)

    return Task(measure)


TRAINING = "train-align --recipe demo train.epochs=1"
MADE = ("embed --recipe demo", TRAINING, "eval-retrieval --recipe demo")
START_UP = {
    "start_up_help": ("--help", ()),
    "start_up_check": ("eval-retrieval --recipe demo --check", MADE),
    "start_up_check_with_prior": (f"{TRAINING} --check", MADE[:1]),
    "start_up_finished_training": (TRAINING, MADE[:2]),
    "start_up_finished_evaluation": ("eval-retrieval --recipe demo", MADE),
}
"""Commands whose start is measured, and those that make what they find."""
CASES: Mapping[str, Case] = {
    "ridge_eeg": Case(
        "ridge of THINGS-EEG2, 4 x 17 x 250", 16_540, prepare_ridge(4, 17, 250)
    ),
    "ridge_nsd": Case(
        "ridge of NSD, 3 x 15,000 voxels", 9_000, prepare_ridge(3, 15_000, 1)
    ),
    "evaluation": Case("evaluate THINGS-EEG2 with its ridge", 16_540, train_published),
    "demo_evaluation": Case("evaluate the demo's subjects", 4, train_demo),
    "judge_trials": Case("verdict on trials of 200 categories", 40_000, prepare_trials),
    "verdict": Case("verdicts on the pictures of ten models", 1000, prepare_verdicts),
    "products": Case("ridge of 240 signals", 4250, prepare_products),
    "find_order": Case("other orders of 16,540 pictures", 16_540, prepare_orders),
    "list_runs": Case("runs: list the runs of a home", 3000, prepare_runs),
    "import_embeddings": Case(
        "Import of three encoders, pictures", 16_540, import_vectors
    ),
    "near_copies": Case(
        "1,000 tested of NSD among learned pictures", 72_000, compare_tested(1000)
    ),
    "near_copies_things": Case(
        "200 tested of THINGS among learned pictures", 26_107, compare_tested(200)
    ),
    "training_copies": Case(
        "A tenth of NSD among training pictures", 73_000, compare_training
    ),
    "match_names": Case("Names of ImageNet, files repeat", 1_281_167, match_full_names),
    **{
        name: Case(words, 1, partial(prepare_start_up, words, made_by))
        for name, (words, made_by) in START_UP.items()
    },
    "start_up_epoch": Case("train-align of one epoch, the demo's", 1, prepare_epoch),
}


def main() -> None:
    """Measure the chosen cases, each size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--shares", nargs="+", default=SHARES, help="of the full size")
    parser.add_argument("--folder", help="where there is room; default: the system's")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.count is not None:
        case = CASES[args.only[0]]
        print(json.dumps(asdict(measure(case, args.count, Path(args.folder)))))
        return

    heads = ("items", "CPU s", "computing", "peak GB", "data GB")
    print(
        f"{'what':44} {heads[0]:>10} {heads[1]:>9} {heads[2]:>9} {heads[3]} {heads[4]}"
    )
    for name in args.only:
        rows = []
        sizes = [round(Fraction(share) * CASES[name].count) for share in args.shares]
        for count in sorted({max(1, size) for size in sizes}):
            rows.append(measure_apart(name, count, args.folder))
            exponent = ""
            if count >= max(sizes) and len(rows) > 1:
                exponent = f"exponent {fit_exponent(rows):.2f}"
            print(write_row(CASES[name].what, rows[-1], exponent), flush=True)


def measure_apart(name: str, count: int, folder: str | None) -> Measured:
    """Measure one size of a case in a process of its own.

    Raises:
        SystemExit: if the process fails.
    """
    with tempfile.TemporaryDirectory(dir=folder) as home:
        words = ["--only", name, "--count", str(count), "--folder", home]
        done = subprocess.run(
            [sys.executable, __file__, *words], capture_output=True, text=True
        )
    if done.returncode:
        raise SystemExit(f"{name} of {count} failed\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
