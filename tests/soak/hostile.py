"""Files that somebody made to crash a reader, write elsewhere, run code, or take all
memory.
"""

import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from brainhive_cli.data.files import hdf5
from tests.soak.runner import Case
from tests.soak.world import COMMON, ENCODER, FRESH, PICTURES, READERS, TEST, TRAIN

SIGNALS = "signals/**/sub-01.h5"
ABSOLUTE = "/dev/shm/brainhive-soak"
CLIMBING = (
    "../../x",
    "../../../outside/x",
    ABSOLUTE,
    "..",
    ".",
    "",
    "a/../../../../b",
    "a//b",
)
ODD = (
    "a\0b",
    "x" * 10_000,
    "\\\\host\\x",
    "C:\\x",
    "a\nb",
    "a\x1b[31mb",
    "\u202eb",
    "a/",
    " ",
    "-x",
    "~/x",
)
HARMLESS = ("enum", "quadruple", "flat", "larger", "soft-link", "strings")
"""Kinds of datasets that may hold what is expected there."""
RESIZED = ("fewer-rows", "more-rows", "no-rows", "axis")
"""What a file of another project, which has no digest, may turn out to have."""
DEEP = "[" * 100_000
Make = Callable[[Path, Path], Any]


def cases(seed: int, count: int) -> Iterator[Case]:
    """Make all cases, in an order of the seed, again with other details until there are
    enough.
    """
    made = 0
    while made < count:
        some = list(_all(random.Random(f"{seed}/{made}")))
        random.Random(seed).shuffle(some)
        for case in some[: count - made]:
            yield case
            made += 1


def _all(chosen: random.Random) -> Iterator[Case]:
    own = (
        _datasets(),
        _attributes(chosen),
        _ids(),
        _recipes(),
        _archives(),
        _documents(),
        _configs(),
    )
    return chain(*own, _weights(), _links(), _facts(), _pictures_and_tables())


def _case(
    kind: str,
    name: str,
    reader: str,
    make: Callable[..., Any],
    *given: Any,
    is_compared: bool = False,
    must_fail: bool = False,
) -> Case:
    """Make a case of a reader's files, which `make` changes: given some values, home
    and a folder outside.
    """
    of = READERS[reader]

    def prepare(home: Path, outside: Path) -> None:
        if of.setup:
            of.setup(home)
        make(*given, home, outside)

    argv, compared = (*of.argv, *COMMON, "--json"), reader if is_compared else ""
    return Case(
        "hostile",
        f"{kind} {name} {reader}",
        argv,
        prepare,
        compared,
        must_fail=must_fail,
    )


def _first(home: Path, pattern: str) -> Path:
    return sorted(home.glob(pattern))[0]


# HDF5


def _h5_kinds() -> dict[str, Callable[..., Any]]:
    def of(dtype: Any, **options: Any) -> Callable[..., Any]:
        return lambda file, name, was, out: file.create_dataset(
            name, was.shape, dtype, **options
        )

    def values(change: Callable[[Any], Any]) -> Callable[..., Any]:
        return lambda file, name, was, out: file.create_dataset(name, data=change(was))

    def virtual(file: Any, name: str, was: Any, out: Path) -> None:
        with h5py.File(out / "other.h5", "w") as other:
            other["x"] = np.ones_like(was) if was.dtype.kind != "S" else was
        layout = h5py.VirtualLayout(was.shape, was.dtype)
        layout[...] = h5py.VirtualSource(out / "other.h5", "x", was.shape)
        file.create_virtual_dataset(name, layout)

    def external(file: Any, name: str, was: Any, out: Path) -> None:
        (out / "raw").write_bytes(b"secret" * was.nbytes)
        file.create_dataset(
            name, was.shape, was.dtype, external=[(str(out / "raw"), 0, was.nbytes)]
        )

    def external_link(file: Any, name: str, was: Any, out: Path) -> None:
        virtual(file, f"{name}-other", was, out)
        del file[f"{name}-other"]
        file[name] = h5py.ExternalLink(str(out / "other.h5"), "x")

    def contiguous(shape: tuple[int, ...]) -> Callable[..., Any]:
        return lambda file, name, was, out: file.create_dataset(
            name, (*shape, *was.shape[1:]), was.dtype
        )

    def chunked(file: Any, name: str, was: Any, out: Path) -> None:
        file.create_dataset(
            name,
            (2**33, *was.shape[1:]),
            was.dtype,
            chunks=(2**12, *was.shape[1:]),
            compression="gzip",
        )

    strings, ref = h5py.string_dtype(), h5py.ref_dtype
    return {
        "vlen-strings": lambda file, name, was, out: file.create_dataset(
            name, data=np.full(was.shape, "x" * 99, object), dtype=strings
        ),
        "vlen-numbers": of(h5py.vlen_dtype(np.float32)),
        "references": lambda file, name, was, out: file.create_dataset(
            name, data=np.full(was.shape, file.ref, object), dtype=ref
        ),
        "regions": of(h5py.regionref_dtype),
        "compound": of(np.dtype([("a", "f4"), ("b", "i8")])),
        "enum": of(h5py.enum_dtype({"a": 1}, "i4")),
        "opaque": of(np.dtype("V16")),
        "strings": of("S8"),
        "complex": values(lambda was: np.zeros(was.shape, np.complex64)),
        "quadruple": values(lambda was: np.zeros(was.shape, np.longdouble)),
        "no-rows": values(lambda was: was[:0]),
        "fewer-rows": values(lambda was: was[:-2]),
        "more-rows": values(lambda was: np.concatenate([was, was[:3]])),
        "scalar": values(lambda was: was.reshape(-1)[0]),
        "axis": values(lambda was: was[None]),
        "flat": values(lambda was: was.reshape(-1)),
        "null": lambda file, name, was, out: file.create_dataset(
            name, data=h5py.Empty(was.dtype)
        ),
        "group": lambda file, name, was, out: file.create_group(name),
        "absent": lambda file, name, was, out: None,
        "type": lambda file, name, was, out: file.__setitem__(name, np.dtype("f4")),
        "huge": contiguous((2**38,)),
        "larger": contiguous((10_000_000,)),
        "bomb": chunked,
        "external": external,
        "virtual": virtual,
        "external-link": external_link,
        "soft-loop": lambda file, name, was, out: file.__setitem__(
            name, h5py.SoftLink(f"/{name}")
        ),
        "soft-link": lambda file, name, was, out: file.__setitem__(
            name, h5py.SoftLink("/done")
        ),
    }


@contextmanager
def changed(path: Path) -> Iterator[Any]:
    """Open a store for changes; it then has checksums and a seal again, as of someone
    who means harm.
    """
    hdf5.unseal(path)
    with h5py.File(path, "r+") as file:
        yield file
        is_ours, names = hdf5.CHECKSUMS in file, []
        if is_ours:
            file[hdf5.CHECKSUMS].visititems(
                lambda name, at: names.append(name) if hasattr(at, "shape") else None
            )
        file.flush()
        for name in names:
            with suppress(Exception):  # of what cannot be read, those of before stay
                sums = hdf5.row_checksums(hdf5.map_numbers(file, name))
                del file[f"{hdf5.CHECKSUMS}/{name}"]
                file[f"{hdf5.CHECKSUMS}/{name}"] = sums
    if is_ours:
        digest = hdf5._digest(path, [], path.stat().st_size)
        with path.open("ab") as end:
            end.write(hdf5.SEAL_FOOTER.pack(digest, 0, hdf5.SEAL_MARK))


def _datasets() -> Iterator[Case]:
    places = {
        TRAIN: (
            ("embedding", "image_id", "concept", "done"),
            ("align", "check", "export-parquet"),
        ),
        TEST: (("embedding", "image_id", "done"), ("eval", "export-npy")),
        SIGNALS: (
            ("train/signal", "train/image_id", "train/repetitions", "test/signal"),
            ("align", "eval"),
        ),
        "latents/**/*.h5": (("embedding", "sizes", "done"), ("latents",)),
        "data/nsd/nsd_stimuli.hdf5": (("imgBrick",), ("nsd",)),
    }
    turn = 0
    for pattern, (datasets, readers) in places.items():
        for dataset, kind in product(datasets, _h5_kinds()):
            turn += 1
            reader = readers[turn % len(readers)]
            is_ours = not pattern.startswith(("data", "vectors"))
            harmless = HARMLESS if is_ours else HARMLESS + RESIZED
            made = (f"{dataset} {kind}", reader, _replace, pattern, dataset, kind)
            yield _case(
                "dataset",
                *made,
                is_compared=is_ours,
                must_fail=not is_ours and kind not in harmless,
            )


def _replace(pattern: str, dataset: str, kind: str, home: Path, outside: Path) -> None:
    with changed(_first(home, pattern)) as file:
        was = file[dataset][()]
        del file[dataset]
        _h5_kinds()[kind](file, dataset, was, outside)


def _attributes(chosen: random.Random) -> Iterator[Case]:
    values: list[Any] = [
        "",
        "{",
        "[]",
        "null",
        "x" * 60_000,
        -1,
        float("nan"),
        np.zeros(3),
        h5py.Empty("S1"),
    ]
    values += [
        b"\xff",
        *CLIMBING[:4],
        "[" * 50_000,
        '{"a": NaN}',
        np.array(["a", "b"], object),
        2**62,
    ]
    values += ["a\0b", True]
    targets = (
        "format encoder dataset split config weights pictures health skipped "
        "alternatives dtype "
    )
    targets += "preprocessing versions latent_space imported"
    signals = "format holds splits channels times_s rate_hz unit provenance space"
    for pattern, names, count, readers in (
        (TRAIN, targets, 5, ("align", "check", "export-npy", "export-parquet")),
        (SIGNALS, signals, 4, ("align", "eval")),
    ):
        for name in names.split():
            for value in chosen.sample(values, count):
                shown = f"{name} {value!r:.20}"
                yield _case(
                    "attribute",
                    shown,
                    chosen.choice(readers),
                    _attribute,
                    pattern,
                    name,
                    value,
                )


def _attribute(pattern: str, name: str, value: Any, home: Path, outside: Path) -> None:
    with changed(_first(home, pattern)) as file:
        if isinstance(value, np.ndarray) and value.dtype == object:
            file.attrs.create(name, value, dtype=h5py.string_dtype())
        elif isinstance(value, bytes):
            file.attrs[name] = np.bytes_(value)
        else:
            text = (
                str(value)
                .replace(ABSOLUTE, str(outside / "absolute"))
                .replace("\0", "_")
            )
            file.attrs[name] = text if isinstance(value, str) else value


def _ids() -> Iterator[Case]:
    readers = ("export-npy", "export-parquet", "eval", "align", "check", "draw")
    for number, name in enumerate((*CLIMBING, *ODD, b"\xff\xfe")):
        for reader in (
            readers[number % len(readers)],
            readers[(number + 2) % len(readers)],
            "draw",
        ):
            yield _case("id", f"{name!r:.30}", reader, _rename, name)
    for field, name, reader in product(
        ("dataset", "split", "encoder"), (*CLIMBING, *ODD[1:4]), readers[:2]
    ):
        yield _case(
            "name", f"{field} {name!r:.30}", reader, _attribute, TRAIN, field, name
        )


def _rename(name: str | bytes, home: Path, outside: Path) -> None:
    """Call the first picture so in all stores."""
    text = (
        name
        if isinstance(name, bytes)
        else name.replace(ABSOLUTE, str(outside / "absolute"))
    )
    packed = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    for path in [*home.glob("embeddings/things-eeg/*/*.h5"), *home.glob(SIGNALS)]:
        with changed(path) as file:
            for dataset in ("image_id", "train/image_id", "test/image_id"):
                if dataset in file:
                    names = file[dataset][()].tolist()
                    del file[dataset]
                    file[dataset] = np.array([packed, *names[1:]], np.bytes_)


# recipes


def _evil(home: Path, outside: Path) -> None:
    """Put a module on the path that says that it ran."""
    (home / "modules/evil").mkdir(parents=True)
    (home / "modules/evil/__init__.py").write_text("")
    text = (
        f"open({str(outside / 'pwned')!r}, 'w').close()\n"
        "def load(): return None, None\n"
    )
    (home / "modules/evil/part.py").write_text(text)


def _recipes() -> Iterator[Case]:
    align, draw, latents = (READERS[name].argv for name in ("align", "draw", "latents"))
    embed, function = ("embed", *PICTURES[:1]), "['python:evil.part:load']"
    code = {
        "encoder": (*embed, f"encoders={function}"),
        "encoder-kind": (*embed, "encoders=[{kind: evil.part}]"),
        "python-kind": (
            *embed,
            "encoders=[{kind: python, source: 'python:evil.part:load'}]",
        ),
        **{
            name: (*align, f"{name}={{kind: evil.part}}")
            for name in ("backbone", "loss", "fuser")
        },
        "dataset": ("embed", f"encoders=[{ENCODER}]", "dataset={kind: evil.part}"),
        "generator": (*draw, "generator={kind: evil.part}"),
        "prior": (*latents, "prior={kind: evil.part}"),
        "similarity": (*latents, f"similarity={function}"),
        "metric": (*READERS["score"].argv, f"metric_encoders={function}"),
        "fid": (*latents, "fid_features='python:evil.part:load'"),
        "import": (*READERS["import-dict-npz"].argv, f"encoders={function}"),
    }
    for (name, argv), more in product(code.items(), ((), ("--check",))):
        # the last override is in a file
        elsewhere = (*argv[:-1], "--recipe", "evil.yaml", *COMMON, *more)
        yield Case(
            "hostile",
            f"code {name} {' '.join(more)}",
            elsewhere,
            partial(_written, argv),
        )
        # all are, as those of a first step
        for command in ("workflow", "demo")[: 1 + (argv[0] == "embed")]:
            words = (command, "--recipe", "evil.yaml", *COMMON, *more)
            made = partial(_written_step, command, argv)
            yield Case("hostile", f"code {name} {' '.join(words)}", words, made)
    launched = (*READERS["encoder"].argv, *COMMON, "--processes", "2")
    for package in ("brainhive_cli", "torch", "site"):  # in the working directory
        yield Case(
            "hostile", f"code launched {package}", launched, partial(_shadowed, package)
        )
    for name in (*CLIMBING, *ODD[:4]):
        dataset = (
            f"dataset={{kind: image-folder, root: pictures, name: {json.dumps(name)}}}"
        )
        yield _command(
            f"dataset.name {name!r:.30}", "embed", dataset, f"encoders=[{ENCODER}]"
        )
        if "\0" not in name:
            run = (
                "eval-retrieval",
                f"align_run=[{json.dumps(name)}]",
                FRESH,
                "sheet_rows=0",
            )
            yield _command(
                f"align_run {name!r:.30}", *run, must_fail=name not in ("", "..", ".")
            )
            signal = f"signal.name={json.dumps(name)}"
            yield _command(f"signal.name {name!r:.30}", *align, signal, must_fail=True)
    for words in (
        ("train-align", "--recipe"),
        ("demo", "--recipe"),
        ("report",),
        ("eval-retrieval", "--run"),
    ):
        yield _command(f"long {words[0]}", *words, "x" * 300, must_fail=True)
    for signals in ("/abs", "**x"):
        yield _command(
            f"dataset.signals {signals}",
            *align,
            f"dataset.signals='{signals}'",
            must_fail=True,
        )
    climbing = (
        "a/b/../.. a/b/../../../../.. ../b /a/b a a/b@../.. a/b/../../../outside a//b @"
    )
    for rest in climbing.split():
        argv = (*embed, f"encoders=['hub:{rest}']", *COMMON)
        yield Case("hostile", f"hub {rest}", argv, _repository, must_fail=True)
    subjects = ("dataset.subjects=999999999999", "dataset.subjects=100000000")
    for many in (*subjects, "seeds=[1,2,3,999999999999999999999]"):
        argv = (
            "train-align",
            "dataset=demo",
            f"encoders=[{ENCODER}]",
            many,
            *COMMON,
            FRESH,
        )
        yield Case("hostile", f"large {many}", argv, must_fail=True)
        yield Case("hostile", f"large {many} --check", (*argv, "--check"))
    sizes = (
        "dim=9999999999",
        "train.batch_size=99999999999",
        "backbone={kind: brain_mlp, hidden: 99999999}",
    )
    for many in sizes:
        yield Case("hostile", f"large {many}", (*align[:5], many, *COMMON, FRESH))
    for many in (
        "resolution_px=8000000",
        "repeats=99999999999",
        "steps=999999999",
        "batch_size=9999999999",
    ):
        yield Case("hostile", f"large {many}", (*draw, many, *COMMON, "--check"))


def _command(name: str, *argv: str, must_fail: bool = False) -> Case:
    return Case("hostile", name, (*argv, *COMMON), must_fail=must_fail)


def _written(argv: tuple[str, ...], home: Path, outside: Path) -> None:
    _evil(home, outside)
    key, _, value = argv[-1].partition("=")
    (home / "evil.yaml").write_text(f"{key}: {value}\n")


def _shadowed(package: str, home: Path, outside: Path) -> None:
    _evil(home, outside)
    (home / package).mkdir()
    for name in ("__init__", "__main__"):
        shutil.copy(home / "modules/evil/part.py", home / package / f"{name}.py")


def _written_step(
    command: str, argv: tuple[str, ...], home: Path, outside: Path
) -> None:
    _evil(home, outside)
    step, overrides = argv[0], [word for word in argv[1:] if "=" in word]
    fields: dict[str, Any] = {"overrides": {step: overrides}, "quick": True}
    if command == "workflow":
        fields = {"steps": {step: {"overrides": overrides}}}
    (home / "evil.yaml").write_text(json.dumps(fields))


def _repository(home: Path, outside: Path) -> None:
    commit = home / "hub/models--a--b/snapshots" / ("0123456789" * 4)
    commit.mkdir(parents=True)
    (home / "hub/models--a--b/refs").mkdir()
    (home / "hub/models--a--b/refs/main").write_text("0123456789" * 4)
    for folder in (outside, home / "hub", commit.parents[1], commit.parent):
        for file in (home / ENCODER).iterdir():
            shutil.copy(file, folder)


# archives and arrays


class _Code:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def _header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[:100], block[100:108] = name.ljust(100, b"\0"), b"0000644\0"
    block[108:124], block[124:136] = b"0000000\0" * 2, size.ljust(12, b"\0")
    block[136:148], block[148:156], block[156:157] = b"00000000000\0", b" " * 8, kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _archives() -> Iterator[Case]:
    sizes = (
        b"-0000000512\0",
        b"-0000001024\0",
        b"77777777777\0",
        b"\xff" * 12,
        b"\x80" + b"\xff" * 11,
    )
    sizes += (
        b"\x80" + bytes(3) + b"\x7f" * 8,
        b"          -\0",
        b"00000000000\0",
        b"x" * 12,
    )
    sizes += (b"-1\0", b"1_0\0")
    for (number, size), kind in product(enumerate(sizes), (b"0", b"x", b"L")):
        content = _header(b"sample1.behav.npy", size, kind) + b"x" * 2048
        yield _case("tar", f"size {number} {kind!r}", "prepare-mindeye2", _tar, content)
    for name in (b"../../x.jpg", b"/x.jpg", b"\xff.jpg", b"a\nb.jpg", b"x" * 100):
        content = (
            _header(name, b"00000000004\0") + b"jpeg".ljust(512, b"\0") + bytes(1024)
        )
        yield _case("tar", f"name {name!r:.20}", "prepare-mindeye2", _tar, content)
    for kind in (b"1", b"2", b"3", b"5", b"6", b"S", b"g", b"K", b"\0", b"D"):
        said = b"30 path=../../../x\n".ljust(1024, b"\0")
        content = (
            _header(b"sample1.behav.npy", b"00000000777\0", kind) + said + bytes(1024)
        )
        yield _case("tar", f"type {kind!r}", "prepare-mindeye2", _tar, content)
    npz = {
        "dict.npz": "dict-npz",
        "tree": "tree",
        "npy/features.npy": "thingsvision-npy",
    }
    headers = {
        "huge": _npy_header("<f4", "99999999999, 128"),
        "negative": _npy_header("<f4", "-1, 128"),
        "overflow": _npy_header("<f4", "4294967296, 4294967296"),
        "objects": _npy_header("|O", "12,"),
        "void": _npy_header("|V1000000000", "12,"),
        "strings": _npy_header("<U100000000", "12, 12"),
        "code": (
            "{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': "
            "(12,), }"
        ),
        "deep": "(" * 3000 + ")" * 3000,
        "bools": _npy_header("<f4", "True, 12"),
        "dates": _npy_header("<M8[s]", "12, 12"),
        "fields": (
            "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': "
            "(12,), }"
        ),
    }
    for (name, text), (place, reader) in product(headers.items(), npz.items()):
        yield _case("array", f"{name} {place}", f"import-{reader}", _array, place, text)
    kinds = {
        "strings": "U3",
        "complex": "c8",
        "bytes": "S9",
        "dates": "M8[s]",
        "longdouble": "g",
    }
    for (name, dtype), (place, reader) in product(kinds.items(), npz.items()):
        made = (f"{name} {place}", f"import-{reader}", _values, place, dtype)
        yield _case("values", *made, must_fail=name != "longdouble")
    yield _case("zip", "bomb", "import-dict-npz", _bomb)
    yield _case(
        "zip", "overlap", "import-dict-npz", _zip_header, 46 - 4, b"\xff\xff\xff\x7f"
    )
    yield _case("zip", "names", "import-dict-npz", _zip_names)
    for place in (
        "dict.npy",
        "dict.npz",
        "dict.pt",
        "old.pth",
        "npy/features.npy",
        "pt/features.pt",
    ):
        folder, slash, _ = place.partition("/")
        reader = (
            f"import-thingsvision-{folder}"
            if slash
            else "import-" + place.replace(".", "-")
        )
        for protocol in (0, 2, 4, 5):
            yield _case(
                "pickle",
                f"{place} {protocol}",
                reader,
                _pickled,
                place,
                protocol,
                must_fail=True,
            )
    bare = "../data/things-eeg/Bare/sub-01/preprocessed_eeg_training.npy"
    for protocol in (0, 2, 4):
        made = (f"recording {protocol}", "things-pickle", _pickled, bare, protocol)
        yield _case("pickle", *made, must_fail=True)
    of_torch = {
        "begun-align/**/checkpoints/*.pt": "align-resumed",
        "begun-prior/**/checkpoints/*.pt": "prior-resumed",
        "weights/timm/pytorch_model.bin": "timm-bin",
        "data/things-eeg/**/sub-01/train.pt": "things",
    }
    for (place, reader), how in product(of_torch.items(), ("zip", "bare", "legacy")):
        yield _case("pickle", f"{place} {how}", reader, _torch_code, place, how)
    for kind in (
        "string complex bfloat16 sparse bool quantized strided meta nan objects".split()
    ):
        is_read = kind in ("bool", "strided", "bfloat16", "nan")
        yield _case("signals", kind, "things", _signals, kind, must_fail=not is_read)
    loops = {
        "memo": b"\x80\x04]\x94(h\x00e.",
        "huge": b"\x80\x04B\xff\xff\xff\x7f",
        "marks": b"(" * 10**6 + b".",
        "deep": b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".",
        "long": b"\x80\x04\x8b\xff\xff\xff\x7f1.",
        "ext": b"\x80\x04\x82\x01.",
        "put": b"\x80\x04Nr\xff\xff\xff\x7f.",
        "frame": b"\x80\x04\x95" + b"\xff" * 8,
    }
    for name, content in loops.items():
        yield _case(
            "pickle",
            name,
            "import-dict-npy",
            _put,
            "vectors/dict.npy",
            content,
            must_fail=True,
        )


def _put(place: str, content: bytes | str, home: Path, outside: Path) -> None:
    path = _first(home, place) if "*" in place else home / place
    path.write_bytes(
        content.encode(errors="surrogatepass") if isinstance(content, str) else content
    )


def _tar(content: bytes, home: Path, outside: Path) -> None:
    _first(home, "data/mindeyev2/**/*.tar").write_bytes(content)


def _place(home: Path, place: str) -> Path:
    return (
        _first(home / "vectors/tree", "**/*.npy")
        if place == "tree"
        else home / "vectors" / place
    )


def _npy_header(dtype: str, shape: str) -> str:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}"


def _npy(text: str, size: int = 12 * 128 * 4) -> bytes:
    header = text.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + bytes(size)


def _array(place: str, text: str, home: Path, outside: Path) -> None:
    if place.endswith("npz"):
        with zipfile.ZipFile(_place(home, place), "w") as archive:
            archive.writestr("ids.npy", _npy(text))
            archive.writestr("vectors.npy", _npy(text))
    else:
        _place(home, place).write_bytes(_npy(text))


def _values(place: str, dtype: str, home: Path, outside: Path) -> None:
    values = np.zeros((12, 128) if place != "tree" else 128, dtype)
    if place.endswith("npz"):
        names = np.load(_place(home, place))["ids"]
        np.savez(_place(home, place), ids=names, vectors=values)
    else:
        np.save(_place(home, place), values)


def _bomb(home: Path, outside: Path) -> None:
    with zipfile.ZipFile(
        home / "vectors/dict.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:
        archive.writestr("ids.npy", _npy(_npy_header("<U9", "12,")))
        with archive.open("vectors.npy", "w", force_zip64=True) as file:
            file.write(_npy(_npy_header("<f4", "12, 83886080"), 0))
            for _ in range(60):
                file.write(bytes(2**26))


def _zip_header(at: int, content: bytes, home: Path, outside: Path) -> None:
    path = home / "vectors/dict.npz"
    changed = bytearray(path.read_bytes())
    central = changed.rfind(b"PK\x01\x02")
    changed[central + at : central + at + len(content)] = content
    path.write_bytes(changed)


def _zip_names(home: Path, outside: Path) -> None:
    with zipfile.ZipFile(home / "vectors/dict.npz", "w") as archive:
        for name in ("../../../../outside/x.npy", "/x.npy", "ids.npy", "ids.npy"):
            archive.writestr(name, _npy(_npy_header("<f4", "12, 128")))


def _pickled(place: str, protocol: int, home: Path, outside: Path) -> None:
    content = {"ids": ["a"], "vectors": _Code(str(outside / "pwned"))}
    path = home / "vectors" / place
    if place.endswith(".npz"):
        np.savez(path, ids=np.array([_Code(str(outside / "pwned"))], object))
    elif place.endswith((".pt", ".pth")):
        is_zip = path.suffix == ".pt"
        torch.save(
            content,
            path,
            pickle_protocol=max(protocol, 2),
            _use_new_zipfile_serialization=is_zip,
        )
    elif protocol == 5:
        np.save(path, np.array(content, object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(content, protocol))


def _torch_code(place: str, how: str, home: Path, outside: Path) -> None:
    path, content = _first(home, place), {"x": _Code(str(outside / "pwned"))}
    if how == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")


def _signals(kind: str, home: Path, outside: Path) -> None:
    path = _first(home, "data/things-eeg/**/sub-01/train.pt")
    content = torch.load(path, weights_only=False)
    eeg = torch.from_numpy(content["eeg"].astype(np.float32))
    content["eeg"] = {
        "string": lambda: np.full(eeg.shape, "a"),
        "complex": lambda: eeg.to(torch.complex64),
        "bfloat16": lambda: eeg.to(torch.bfloat16),
        "sparse": lambda: eeg.to_sparse(),
        "bool": lambda: eeg > 0,
        "quantized": lambda: torch.quantize_per_tensor(eeg, 0.1, 0, torch.qint8),
        "strided": lambda: eeg.transpose(2, 3).contiguous().transpose(2, 3),
        "meta": lambda: eeg.to("meta"),
        "nan": lambda: eeg * float("nan"),
        "objects": lambda: np.full(eeg.shape, None, object),
    }[kind]()
    torch.save(content, path)


# documents


def _documents() -> Iterator[Case]:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for this, last in zip("bcdefghij", "abcdefghi", strict=True):
        bomb += f"{this}: &{this} [{', '.join(['*' + last] * 9)}]\n"
    yaml = {
        **{
            "bomb": bomb,
            "lines": "seeds: [" + "1, " * 3_000_000 + "1]",
            "deep": "seeds: " + DEEP,
        },
        **{"cycle": "seeds: &a [*a]", "cycle-keys": "&a {dataset: *a}"},
        "python": "!!python/object/apply:os.system [touch pwned]",
        **{
            "python-name": "dataset: !!python/name:os.system",
            "date": "seed: 2026-13-45",
        },
        **{"date-key": "2026-01-01: 1", "list-key": "[a, b]: 1", "int": "dim: !!int x"},
        **{
            "float": "dim: !!float x",
            "digits": "dim: " + "9" * 5000,
            "hex": "dim: 0x" + "f" * 200_000,
        },
        **{
            "sexagesimal": "dim: " + "59:" * 5000 + "1",
            "merge": "<<: [1, 2]",
            "two": "a: 1\n---\nb: 2",
        },
        **{
            "binary": "dataset: !!binary '*'",
            "set": "!!set {a, b}",
            "text": "just words",
            "number": "7",
        },
        **{
            "null": "~",
            "nul": "dim: 3\0",
            "latin": "\udcff",
            "bom": "\ufeffdim: 3",
            "tabs": "\tdim: 3",
        },
        **{
            "anchors": "".join(f"k{n}: &a{n} 1\n" for n in range(100_000)),
            "inf": "train: {lr: .inf}",
        },
        **{"nan": "train: {weight_decay: .nan}", "bools": "{y: 1, true: 2, 1: 3}"},
    }
    for name, text in yaml.items():
        yield _case("yaml", name, "recipe", _put, "own.yaml", text)
        yield _case("yaml", name, "eval", _put, "runs/aligned/recipe.yaml", text)
    documents = {
        "eval": "runs/aligned/metrics.json runs/aligned/embeddings.json "
        "runs/aligned/cells/**/model/config.json",
        "draw-against": "runs/drawn/metrics.json",
        "align-finished": "runs/train-align/*/metrics.json",
        "draw": "weights/generator/unet/config.json "
        "weights/generator/scheduler/scheduler_config.json "
        "weights/prior/fusion_encoder/config.json",
        "encoder": "weights/encoder/config.json "
        "weights/encoder/preprocessor_config.json",
        "timm": "weights/timm/config.json",
        "coco": "data/coco/annotations/instances_train2017.json",
    }
    texts = {
        "deep": DEEP,
        "digits": '{"schema": ' + "9" * 5000 + "}",
        "list": "[]",
        "null": "null",
    }
    texts |= {"nan": '{"schema": NaN}', "twice": '{"schema": 1, "schema": 1}'}
    texts |= {"empty": "{}", "number": "1e999"}
    for reader, places in documents.items():
        for place in places.split():
            for name, text in texts.items():
                yield _case("json", f"{place} {name}", reader, _put, place, text)
            for value in (None, [], {}, -1, "x", 1e300, "../../x", [["a"]]):
                yield _case(
                    "json", f"{place} values {value!r}", reader, _document, place, value
                )


def _facts() -> Iterator[Case]:
    for key, place in product(
        ("sources", "titles", "caveats"), ("runs/drawn", "runs/aligned")
    ):
        made = partial(_fact, f"{place}/metrics.json", key)
        must_fail = key == "sources"
        yield Case(
            "hostile",
            f"facts {place} {key}",
            ("report", place, *COMMON),
            made,
            must_fail=must_fail,
        )


def _fact(place: str, key: str, home: Path, outside: Path) -> None:
    """Let the facts of a run's document, which has no digest then, name what it does
    not have.
    """
    path = _first(home, place)
    (path.parent / "SHA256SUMS").unlink()
    document = json.loads(path.read_text())
    document["facts"] = {**document["facts"], key: ["absent", "\u202eabsent"]}
    path.write_text(json.dumps(document))


def _document(place: str, value: Any, home: Path, outside: Path) -> None:
    """Give every second key of a document, at any depth, another value."""
    path, turn = _first(home, place), [0]
    document = json.loads(path.read_text())

    def change(found: Any) -> Any:
        if not isinstance(found, dict):
            return found
        changed = {}
        for key, each in found.items():
            turn[0] += 1
            changed[key] = value if turn[0] % 5 == 0 else change(each)
        return changed

    path.write_text(json.dumps(change(document)))


# configs and weights of others


def _configs() -> Iterator[Case]:
    classes = (
        "DiffusionPipeline os utils AutoPipelineForText2Image __builtins__ UNet2DModel "
        "logging"
    ).split()
    classes += (
        "StableDiffusionPipeline schedulers FrozenDict __file__ AutoencoderKL x "
        "__dict__"
    ).split()
    scheduler, unet, vae = (
        f"weights/generator/{name}.json"
        for name in ("scheduler/scheduler_config", "unet/config", "vae/config")
    )
    encoder, pixels = f"{ENCODER}/config.json", f"{ENCODER}/preprocessor_config.json"
    for name in classes:
        keys = {"_class_name": name}
        yield _case(
            "class", f"scheduler {name}", "draw", _keys, scheduler, keys, must_fail=True
        )
    for name in (*classes[:6], "AsymmetricAutoencoderKL", 3, None, ["a"]):
        yield _case("class", f"vae {name}", "vae", _keys, vae, {"_class_name": name})
    for name in ("bert", "clip", "os", 3, None, ["clip"], "gpt2", "dinov2", "siglip"):
        yield _case(
            "class", f"encoder {name}", "encoder", _keys, encoder, {"model_type": name}
        )
    code = {"AutoModel": "evil.part--load", "AutoImageProcessor": "evil.part"}
    for place in (encoder, pixels):
        keys = {"auto_map": code, "trust_remote_code": True}
        yield _case("class", f"code {place}", "encoder", _with_code, place, keys)
    for name in (
        "vit_base_patch16_224",
        "os",
        "../../x",
        "",
        "hf-hub:a/b",
        "local-dir:/",
        3,
        None,
    ):
        keys = {"architecture": name}
        yield _case(
            "class",
            f"timm {name}",
            "timm",
            _keys,
            "weights/timm/config.json",
            keys,
            must_fail=True,
        )
    sizes = {
        encoder: "hidden_size num_hidden_layers image_size patch_size",
        unet: "cross_attention_dim layers_per_block norm_num_groups",
        vae: "latent_channels layers_per_block scaling_factor",
        "weights/prior/fusion_encoder/config.json": (
            "hidden_size num_layers intermediate_size"
        ),
        "weights/prior/proj/config.json": (
            "sequence_length cross_attention_dim embed_dim"
        ),
        pixels: "size crop_size image_mean resample",
        scheduler: "num_train_timesteps beta_schedule",
    }
    for place, names in sizes.items():
        reader = "encoder" if place.startswith(ENCODER) else "draw"
        for key, value in product(names.split(), (10**12, -1, 0, 1e300, "x", None)):
            yield _case(
                "size", f"{place} {key} {value}", reader, _keys, place, {key: value}
            )


def _keys(place: str, changes: dict[str, Any], home: Path, outside: Path) -> None:
    path = _first(home, place)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _with_code(place: str, changes: dict[str, Any], home: Path, outside: Path) -> None:
    _evil(home, outside)
    for file in (home / "modules/evil").iterdir():
        shutil.copy(file, (home / place).parent)
    _keys(place, changes, home, outside)


def _weights() -> Iterator[Case]:
    places = {
        f"{ENCODER}/model.safetensors": "encoder",
        "weights/prior/proj/diffusion_pytorch_model.safetensors": "draw",
        "weights/generator/unet/diffusion_pytorch_model.safetensors": "draw",
        "weights/generator/empty_prompt.safetensors": "draw",
        "runs/aligned/cells/**/model/*.safetensors": "eval",
        "weights/timm/model.safetensors": "timm",
    }
    hows = "length deep overlap shape negative dtype huge names absent surplus".split()
    for place, reader in places.items():
        for how in hows:
            made = (f"{place} {how}", reader, _header_of, place, how)
            yield _case("safetensors", *made, must_fail=how != "surplus")
        for dtype in ("bfloat16", "int64", "float64", "bool", "complex64", "rank"):
            yield _case("tensors", f"{place} {dtype}", reader, _cast, place, dtype)


def _header_of(place: str, how: str, home: Path, outside: Path) -> None:
    path = _first(home, place)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header.pop("__metadata__", None)
    name = next(iter(header))
    if how == "length":
        path.write_bytes((2**63 + 5).to_bytes(8, "little") + content[8:])
        return
    if how in (
        changes := {
            "overlap": {"data_offsets": [0, len(data) * 9]},
            "shape": {"shape": [2**40, 2**40]},
            "negative": {"shape": [-1, -4]},
            "dtype": {"dtype": "F1024"},
        }
    ):
        header[name] |= changes[how]
    elif how == "names":
        header["../" * 99] = header.pop(name)
    elif how == "absent":
        header = {}
    elif how in ("huge", "surplus"):
        shape, ends = (
            ([2**34], [0, 2**36]) if how == "huge" else ([0], [len(data), len(data)])
        )
        header["more"] = {"dtype": "F32", "shape": shape, "data_offsets": ends}
    text = DEEP.encode() if how == "deep" else json.dumps(header).encode()
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + (b"" if how == "absent" else data)
    )


def _cast(place: str, dtype: str, home: Path, outside: Path) -> None:
    path = _first(home, place)
    cast = (
        (lambda value: value[None])
        if dtype == "rank"
        else (lambda value: value.to(getattr(torch, dtype)))
    )
    state = {key: cast(value).contiguous() for key, value in load_file(path).items()}
    save_file(state, path, metadata={"format": "pt"})


# links, pictures, tables


def _links() -> Iterator[Case]:
    targets = {
        "itself": None,
        "zero": "/dev/zero",
        "random": "/dev/urandom",
        "root": "/",
    }
    targets |= {"memory": "/proc/self/mem", "pipe": "pipe"}
    places = {
        TRAIN: "align",
        "own.yaml": "recipe",
        "weights/encoder/model.safetensors": "encoder",
        "weights/encoder/config.json": "encoder",
        "pictures/concept_0/0.png": "pictures",
        "vectors/dict.npz": "import-dict-npz",
        "vectors/npy/file_names.txt": "import-thingsvision-npy",
        "runs/aligned/metrics.json": "eval",
        "data/mindeyev2/**/*.tar": "prepare-mindeye2",
        "scored/concept_0/0.png": "score",
        "data/nsd-hdf5/**/nsd_expdesign.mat": "prepare-nsd-hdf5",
        "runs/aligned/recipe.yaml": "eval",
    }
    for (place, reader), (name, target) in product(places.items(), targets.items()):
        yield _case("link", f"{place} {name}", reader, _link, place, target)
    for name, target in {**targets, "private": "private"}.items():
        for place in (
            "runs/drawn/**/*.png",
            "runs/drawn/recipe.yaml",
            "runs/drawn/.claim",
        ):
            words = (
                ("report", "runs/drawn")
                if "claim" not in place
                else ("runs", "rm", "drawn", "--yes")
            )
            made = partial(_link, place, target)
            yield Case(
                "hostile", f"link {place} {name} {words[0]}", (*words, *COMMON), made
            )
    for place, reader in (("pictures", "pictures"), ("embeddings", "check")):
        yield _case("link", f"{place}/loop loop", reader, _link, f"{place}/loop", "..")


def _link(place: str, target: str | None, home: Path, outside: Path) -> None:
    path = _first(home, place) if "*" in place else home / place
    path.unlink(missing_ok=True)
    if target == "private":
        target = str(outside / "private")
        shutil.copy(home / "pictures/concept_0/0.png", target)
    os.mkfifo(path) if target == "pipe" else path.symlink_to(target or path)


def _pictures_and_tables() -> Iterator[Case]:
    def bomb(home: Path, outside: Path) -> None:
        Image.new("1", (40_000, 40_000)).save(home / "pictures/concept_0/0.png")

    def frames(home: Path, outside: Path) -> None:
        some = [Image.new("P", (4, 4), n % 250) for n in range(3000)]
        some[0].save(
            home / "pictures/concept_0/0.gif", save_all=True, append_images=some[1:]
        )

    def tiff(home: Path, outside: Path) -> None:
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "tiff")
        (home / "pictures/concept_0/9.tif").write_bytes(
            file.getvalue().replace(b"\x08\x00", b"\xff\xff", 6)
        )

    def names(home: Path, outside: Path) -> None:
        for name in (
            "a\nb.png",
            "a\x1b[31m.png",
            "-rf.png",
            "\udcff.png",
            "x" * 250 + ".png",
        ):
            shutil.copy(
                home / "pictures/concept_0/1.png", home / "pictures/concept_0" / name
            )

    def script(home: Path, outside: Path) -> None:
        text = (
            "%!PS-Adobe-3.0 EPSF-3.0\n"
            "%%BoundingBox: 0 0 9 9\n"
            f"({outside}/pwned) (w) file closefile\n"
        )
        (home / "pictures/concept_0/0.png").write_text(text)

    def lasting(home: Path, outside: Path) -> None:
        some = [Image.new("RGB", (4000, 4000), (n, 0, 0)) for n in range(4)]
        path, shown_ms = home / "pictures/concept_0/0.png", [1, 65_000, 1, 1]
        some[0].save(path, save_all=True, append_images=some[1:], duration=shown_ms)

    for make in (bomb, frames, lasting, tiff, names, script):
        yield _case("picture", make.__name__, "pictures", make)
        yield _case("picture", make.__name__, "score", _scored, make)
    rows = {
        "negative": "1,-5,True",
        "huge": "1,99999999999999999999,True",
        "nul": "1,\0,True",
    }
    rows["quote"] = '1,"2,True'
    rows |= {
        "long": "1," + "9" * 200_000 + ",True",
        "many": "1,2,True\n" * 10,
        "words": "a,b,c",
    }
    for name, row in rows.items():
        text = f"cocoId,nsdId,shared1000\n{row}\n"
        yield _case(
            "table", name, "nsd", _put, "data/nsd/nsd_stim_info_merged.csv", text
        )
    for kind in ("strings", "ragged", "nested", "nulls", "huge", "structs"):
        yield _case("parquet", kind, "import-parquet", _parquet, kind, must_fail=True)
    for kind in ("path", "label", "null", "text"):
        yield _case("parquet", kind, "parquet", _rows, kind)


def _scored(make: Make, home: Path, outside: Path) -> None:
    make(home, outside)
    shutil.copytree(home / "pictures", home / "scored", dirs_exist_ok=True)


def _parquet(kind: str, home: Path, outside: Path) -> None:
    table = pyarrow.parquet.read_table(home / "vectors/table.parquet")
    count = len(table)
    values: Any = {
        "strings": ["x"] * count,
        "ragged": [[1.0] * (n + 1) for n in range(count)],
        "nested": [[[[[1.0]]]]] * count,
        "nulls": [None] * count,
        "huge": [[1.0]] * (count * 100_000),
        "structs": [{"a": 1.0}] * count,
    }[kind]
    columns = {
        "path": [*table["path"].to_pylist()] * (len(values) // count),
        "emb": values,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), home / "vectors/table.parquet")


def _rows(kind: str, home: Path, outside: Path) -> None:
    path = home / "data/parquet/train-00000-of-00001.parquet"
    found = pyarrow.parquet.read_table(path).to_pylist()
    changes: Any = {
        "path": {"image": {**found[0]["image"], "path": "../../../x.jpg"}},
        "label": {"label": 2**40},
        "null": {"image": {"bytes": None, "path": None}},
        "text": {"image": {"bytes": b"%!PS", "path": "a\n\x1b[31mb.jpg"}},
    }[kind]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{**found[0], **changes}, *found[1:]]), path
    )
