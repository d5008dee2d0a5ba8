"""Files that somebody made to crash a reader, write elsewhere, run code, or take all memory."""

import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tools.soak.runner import Case
from tools.soak.world import COMMON, EMBEDDED, ENCODER, FRESH, PICTURES, READERS

TRAIN, TEST, SIGNALS = EMBEDDED.format("train"), EMBEDDED.format("test"), "signals/**/sub-01.h5"
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
ODD = ("a\0b", "x" * 10_000, "\\\\host\\x", "C:\\x", "a\nb", "a\x1b[31mb", "\u202eb", "a/", " ", "-x", "~/x")
HARMLESS = ("enum", "quadruple", "flat", "larger", "soft-link", "strings")
"""Kinds of datasets that may hold what is expected there."""
RESIZED = ("fewer-rows", "more-rows", "no-rows", "axis")
"""What a file of another project, which has no digest, may turn out to have."""
DEEP = "[" * 100_000
Make = Callable[[Path, Path], Any]


def cases(seed: int, count: int) -> Iterator[Case]:
    """Make all cases, in an order of the seed, again with other details until there are enough."""
    made = 0
    while made < count:
        some = list(_all(random.Random(f"{seed}/{made}")))
        random.Random(seed).shuffle(some)
        for case in some[: count - made]:
            yield case
            made += 1


def _all(chosen: random.Random) -> Iterator[Case]:
    yield from _datasets()
    yield from _attributes(chosen)
    yield from _ids()
    yield from _recipes()
    yield from _archives()
    yield from _documents()
    yield from _configs()
    yield from _weights()
    yield from _links()
    yield from _pictures_and_tables()


def _case(
    kind: str, name: str, reader: str, make: Make, is_compared: bool = False, must_fail: bool = False
) -> Case:
    of = READERS[reader]

    def prepare(home: Path, outside: Path) -> None:
        if of.setup:
            of.setup(home)
        make(home, outside)

    argv, compared = (*of.argv, *COMMON, "--json"), reader if is_compared else ""
    return Case("hostile", f"{kind} {name} {reader}", argv, prepare, compared, must_fail=must_fail)


def _first(home: Path, pattern: str) -> Path:
    return sorted(home.glob(pattern))[0]


# HDF5


def _h5_kinds() -> dict[str, Callable[..., Any]]:
    import h5py

    def of(dtype: Any, **options: Any) -> Callable[..., Any]:
        return lambda file, name, was, out: file.create_dataset(name, was.shape, dtype, **options)

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
        file.create_dataset(name, was.shape, was.dtype, external=[(str(out / "raw"), 0, was.nbytes)])

    def external_link(file: Any, name: str, was: Any, out: Path) -> None:
        virtual(file, f"{name}-other", was, out)
        del file[f"{name}-other"]
        file[name] = h5py.ExternalLink(str(out / "other.h5"), "x")

    def contiguous(shape: tuple[int, ...]) -> Callable[..., Any]:
        return lambda file, name, was, out: file.create_dataset(name, (*shape, *was.shape[1:]), was.dtype)

    def chunked(file: Any, name: str, was: Any, out: Path) -> None:
        file.create_dataset(
            name, (2**33, *was.shape[1:]), was.dtype, chunks=(2**12, *was.shape[1:]), compression="gzip"
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
        "null": lambda file, name, was, out: file.create_dataset(name, data=h5py.Empty(was.dtype)),
        "group": lambda file, name, was, out: file.create_group(name),
        "absent": lambda file, name, was, out: None,
        "type": lambda file, name, was, out: file.__setitem__(name, np.dtype("f4")),
        "huge": contiguous((2**38,)),
        "larger": contiguous((10_000_000,)),
        "bomb": chunked,
        "external": external,
        "virtual": virtual,
        "external-link": external_link,
        "soft-loop": lambda file, name, was, out: file.__setitem__(name, h5py.SoftLink(f"/{name}")),
        "soft-link": lambda file, name, was, out: file.__setitem__(name, h5py.SoftLink("/done")),
    }


def unseal(file: Any) -> None:
    """Take away what would tell that a file was changed."""
    for name in [name for name in file if name.startswith(("checksum", "seal", "digest"))]:
        del file[name]
    for name in [name for name in file.attrs if name.startswith(("checksum", "seal", "digest"))]:
        del file.attrs[name]


def _datasets() -> Iterator[Case]:
    places = {
        TRAIN: (("embedding", "image_id", "concept", "done"), ("align", "check", "export-parquet")),
        TEST: (("embedding", "image_id", "done"), ("eval", "export-npy")),
        SIGNALS: (("train/signal", "train/image_id", "train/repetitions", "test/signal"), ("align", "eval")),
        "signals/**/prepared/*.h5": (("signal",), ("align",)),
        "latents/**/*.h5": (("embedding", "sizes", "done"), ("latents",)),
        "data/nsd/nsd_stimuli.hdf5": (("imgBrick",), ("nsd",)),
        "vectors/hdf5/features.hdf5": (("features",), ("import-thingsvision-hdf5",)),
    }
    turn = 0
    for pattern, (datasets, readers) in places.items():
        for dataset in datasets:
            for kind in _h5_kinds():
                turn += 1
                reader = readers[turn % len(readers)]
                make = partial(_replace, pattern=pattern, dataset=dataset, kind=kind)
                is_ours = not pattern.startswith(("data", "vectors"))
                is_seen = is_ours and reader != "check"  # which says that there is no seal
                must_fail = not is_seen and kind not in (*HARMLESS, *(() if is_ours else RESIZED))
                yield _case("dataset", f"{dataset} {kind}", reader, make, is_seen, must_fail)


def _replace(home: Path, outside: Path, pattern: str, dataset: str, kind: str) -> None:
    import h5py

    with h5py.File(_first(home, pattern), "r+") as file:
        unseal(file)
        was = file[dataset][()]
        del file[dataset]
        _h5_kinds()[kind](file, dataset, was, outside)


def _attributes(chosen: random.Random) -> Iterator[Case]:
    import h5py

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
        b"\xff",
    ]
    values += [*CLIMBING[:4], "[" * 50_000, '{"a": NaN}', np.array(["a", "b"], object), 2**62, "a\0b", True]
    names = (
        "format",
        "encoder",
        "dataset",
        "split",
        "config",
        "weights",
        "pictures",
        "health",
        "skipped",
        "alternatives",
    )
    for name in (*names, "dtype", "preprocessing", "versions", "latent_space", "imported"):
        for value in chosen.sample(values, 5):
            reader = chosen.choice(("align", "check", "export-npy", "export-parquet"))
            make = partial(_attribute, pattern=TRAIN, name=name, value=value)
            yield _case("attribute", f"{name} {value!r:.20}", reader, make)
    for name in (
        "format",
        "holds",
        "splits",
        "channels",
        "times_s",
        "rate_hz",
        "unit",
        "provenance",
        "space",
    ):
        for value in chosen.sample(values, 4):
            reader = chosen.choice(("align", "eval"))
            make = partial(_attribute, pattern=SIGNALS, name=name, value=value)
            yield _case("attribute", f"{name} {value!r:.20}", reader, make)


def _attribute(home: Path, outside: Path, pattern: str, name: str, value: Any) -> None:
    import h5py

    with h5py.File(_first(home, pattern), "r+") as file:
        unseal(file)
        if isinstance(value, np.ndarray) and value.dtype == object:
            file.attrs.create(name, value, dtype=h5py.string_dtype())
        elif isinstance(value, bytes):
            file.attrs[name] = np.bytes_(value)
        else:
            text = str(value).replace(ABSOLUTE, str(outside / "absolute")).replace("\0", "_")
            file.attrs[name] = text if isinstance(value, str) else value


def _ids() -> Iterator[Case]:
    for number, name in enumerate((*CLIMBING, *ODD, b"\xff\xfe")):
        readers = ("export-npy", "export-parquet", "eval", "align", "check", "draw")
        for reader in (readers[number % len(readers)], readers[(number + 2) % len(readers)], "draw"):
            yield _case("id", f"{name!r:.30}", reader, partial(_rename, name=name))
    for field in ("dataset", "split", "encoder"):
        for name in (*CLIMBING, *ODD[1:4]):
            for reader in ("export-npy", "export-parquet"):
                make = partial(_attribute, pattern=TRAIN, name=field, value=name)
                yield _case("name", f"{field} {name!r:.30}", reader, make)


def _rename(home: Path, outside: Path, name: str | bytes) -> None:
    """Call the first picture so in all stores."""
    import h5py

    text = name if isinstance(name, bytes) else name.replace(ABSOLUTE, str(outside / "absolute"))
    packed = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    for path in [*home.glob("embeddings/things-eeg/*/*.h5"), *home.glob(SIGNALS)]:
        with h5py.File(path, "r+") as file:
            unseal(file)
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
    text = f"open({str(outside / 'pwned')!r}, 'w').close()\ndef load(): return None, None\n"
    (home / "modules/evil/part.py").write_text(text)


def _recipes() -> Iterator[Case]:
    code = {
        "encoder": ("embed", *PICTURES[:1], "encoders=['python:evil.part:load']"),
        "encoder-kind": ("embed", *PICTURES[:1], "encoders=[{kind: evil.part}]"),
        "python-kind": ("embed", *PICTURES[:1], "encoders=[{kind: python, source: 'python:evil.part:load'}]"),
        "backbone": (*READERS["align"].argv, "backbone={kind: evil.part}"),
        "loss": (*READERS["align"].argv, "loss={kind: evil.part}"),
        "fuser": (*READERS["align"].argv, "fuser={kind: evil.part}"),
        "dataset": ("embed", f"encoders=[{ENCODER}]", "dataset={kind: evil.part}"),
        "generator": (*READERS["draw"].argv, "generator={kind: evil.part}"),
        "prior": (*READERS["latents"].argv, "prior={kind: evil.part}"),
        "similarity": (*READERS["latents"].argv, "similarity=['python:evil.part:load']"),
        "metric": (*READERS["score"].argv, "metric_encoders=['python:evil.part:load']"),
        "fid": (*READERS["latents"].argv, "fid_features='python:evil.part:load'"),
        "import": (*READERS["import-dict-npz"].argv, "encoders=['python:evil.part:load']"),
    }
    for name, argv in code.items():
        for more in ((), ("--check",)):
            yield Case(
                "hostile", f"code {name} {' '.join(more)}", (*_in_file(argv), *more), partial(_written, argv)
            )
    for name in (*CLIMBING, *ODD[:4]):
        dataset = f"dataset={{kind: image-folder, root: pictures, name: {json.dumps(name)}}}"
        yield Case(
            "hostile", f"dataset.name {name!r:.30}", ("embed", dataset, f"encoders=[{ENCODER}]", *COMMON)
        )
        if "\0" not in name:
            run = ("eval-retrieval", f"align_run=[{json.dumps(name)}]", FRESH, "sheet_rows=0", *COMMON)
            yield Case("hostile", f"align_run {name!r:.30}", run, must_fail=name not in ("", "..", "."))
            signal = (*READERS["align"].argv, f"signal.name={json.dumps(name)}", *COMMON)
            yield Case("hostile", f"signal.name {name!r:.30}", signal, must_fail=True)
    for rest in (
        "a/b/../..",
        "a/b/../../../../..",
        "../b",
        "/a/b",
        "a",
        "a/b@../..",
        "a/b/../../../outside",
        "a//b",
        "@",
    ):
        argv = ("embed", *PICTURES[:1], f"encoders=['hub:{rest}']", *COMMON)
        yield Case("hostile", f"hub {rest}", argv, _repository, must_fail=True)
    for many in (
        "dataset.subjects=999999999999",
        "dataset.subjects=100000000",
        "seeds=[1,2,3,999999999999999999999]",
    ):
        argv = ("train-align", "dataset=demo", f"encoders=[{ENCODER}]", many, *COMMON, FRESH)
        yield Case("hostile", f"large {many}", argv, must_fail=True)
        yield Case("hostile", f"large {many} --check", (*argv, "--check"))
    for many in (
        "dim=9999999999",
        "train.batch_size=99999999999",
        "backbone={kind: brain_mlp, hidden: 99999999}",
    ):
        yield Case("hostile", f"large {many}", (*READERS["align"].argv[:5], many, *COMMON, FRESH))
    for many in ("resolution_px=8000000", "repeats=99999999999", "steps=999999999", "batch_size=9999999999"):
        yield Case("hostile", f"large {many}", (*READERS["draw"].argv, many, *COMMON, "--check"))


def _in_file(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Take the command line with its last override in a file, as a recipe from elsewhere has it."""
    return (*argv[:-1], "--recipe", "evil.yaml", *COMMON)


def _written(argv: tuple[str, ...], home: Path, outside: Path) -> None:
    _evil(home, outside)
    key, _, value = argv[-1].partition("=")
    (home / "evil.yaml").write_text(f"{key}: {value}\n")


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
    sizes = (b"-0000000512\0", b"-0000001024\0", b"77777777777\0", b"\xff" * 12, b"\x80" + b"\xff" * 11)
    sizes += (
        b"\x80" + bytes(3) + b"\x7f" * 8,
        b"          -\0",
        b"00000000000\0",
        b"x" * 12,
        b"-1\0",
        b"1_0\0",
    )
    for number, size in enumerate(sizes):
        for kind in (b"0", b"x", b"L"):
            content = _header(b"n01440764_1.jpg", size, kind) + b"x" * 2048
            yield _case("tar", f"size {number} {kind!r}", "tar", partial(_tar, content))
    for name in (b"../../x.jpg", b"/x.jpg", b"\xff.jpg", b"a\nb.jpg", b"x" * 100):
        content = _header(name, b"00000000004\0") + b"jpeg".ljust(512, b"\0") + bytes(1024)
        yield _case("tar", f"name {name!r:.20}", "tar", partial(_tar, content))
    for kind in (b"1", b"2", b"3", b"5", b"6", b"S", b"g", b"K", b"\0", b"D"):
        content = _header(b"n01440764_1.jpg", b"00000000777\0", kind) + b"30 path=../../../x\n".ljust(
            1024, b"\0"
        )
        yield _case("tar", f"type {kind!r}", "tar", partial(_tar, content + bytes(1024)))
    npz = {
        "dict.npz": "import-dict-npz",
        "tree": "import-tree",
        "npy/features.npy": "import-thingsvision-npy",
    }
    headers = {
        "huge": "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 128), }",
        "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 128), }",
        "overflow": "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
        "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (12,), }",
        "void": "{'descr': '|V1000000000', 'fortran_order': False, 'shape': (12,), }",
        "strings": "{'descr': '<U100000000', 'fortran_order': False, 'shape': (12, 12), }",
        "code": "{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (12,), }",
        "deep": "(" * 3000 + ")" * 3000,
        "bools": "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 12), }",
        "dates": "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (12, 12), }",
        "fields": "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (12,), }",
    }
    for name, text in headers.items():
        for place, reader in npz.items():
            yield _case("array", f"{name} {place}", reader, partial(_array, place, text))
    for name, dtype in {
        "strings": "U3",
        "complex": "c8",
        "bytes": "S9",
        "dates": "M8[s]",
        "longdouble": "g",
    }.items():
        for place, reader in npz.items():
            make = partial(_values, place, dtype)
            yield _case("values", f"{name} {place}", reader, make, must_fail=name != "longdouble")
    yield _case("zip", "bomb", "import-dict-npz", _bomb)
    yield _case("zip", "overlap", "import-dict-npz", partial(_zip_header, 46 - 4, b"\xff\xff\xff\x7f"))
    yield _case("zip", "names", "import-dict-npz", _zip_names)
    for place in ("dict.npy", "dict.npz", "dict.pt", "old.pth", "npy/features.npy", "pt/features.pt"):
        reader = "import-" + place.replace(".", "-") if "dict" in place or "old" in place else ""
        reader = reader or f"import-thingsvision-{place.split('/')[0]}"
        for protocol in (0, 2, 4, 5):
            yield _case(
                "pickle", f"{place} {protocol}", reader, partial(_pickled, place, protocol), must_fail=True
            )
    for protocol in (0, 2, 4):
        make = partial(_pickled, "../data/things-eeg/Bare/sub-01/preprocessed_eeg_training.npy", protocol)
        yield _case("pickle", f"recording {protocol}", "things-pickle", make, must_fail=True)
    for place, reader in {
        "begun-align/**/checkpoints/*.pt": "align-resumed",
        "begun-prior/**/checkpoints/*.pt": "prior-resumed",
        "weights/timm/pytorch_model.bin": "timm-bin",
        "data/things-eeg/**/sub-01/train.pt": "things",
    }.items():
        for how in ("zip", "bare", "legacy"):
            yield _case("pickle", f"{place} {how}", reader, partial(_torch_code, place, how))
    for kind in (
        "string",
        "complex",
        "bfloat16",
        "sparse",
        "bool",
        "quantized",
        "strided",
        "meta",
        "nan",
        "objects",
    ):
        make = partial(_signals, kind)
        yield _case(
            "signals", kind, "things", make, must_fail=kind not in ("bool", "strided", "bfloat16", "nan")
        )
    loops = {
        "memo": b"\x80\x04]\x94(h\x00e.",
        "huge": b"\x80\x04B\xff\xff\xff\x7f",
        "marks": b"(" * 10**6 + b".",
    }
    loops |= {
        "deep": b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".",
        "long": b"\x80\x04\x8b\xff\xff\xff\x7f1.",
    }
    loops |= {
        "ext": b"\x80\x04\x82\x01.",
        "put": b"\x80\x04Nr\xff\xff\xff\x7f.",
        "frame": b"\x80\x04\x95" + b"\xff" * 8,
    }
    for name, content in loops.items():
        make = partial(_put, "vectors/dict.npy", content)
        yield _case("pickle", name, "import-dict-npy", make, must_fail=True)


def _put(place: str, content: bytes | str, home: Path, outside: Path) -> None:
    path = _first(home, place) if "*" in place else home / place
    path.write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)


def _tar(content: bytes, home: Path, outside: Path) -> None:
    shutil.rmtree(home / "new")
    (home / "data/tars/imagenet-train-0000.tar").write_bytes(content)


def _place(home: Path, place: str) -> Path:
    return _first(home / "vectors/tree", "**/*.npy") if place == "tree" else home / "vectors" / place


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
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (12, 83886080), }"
    with zipfile.ZipFile(home / "vectors/dict.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("ids.npy", _npy("{'descr': '<U9', 'fortran_order': False, 'shape': (12,), }"))
        with archive.open("vectors.npy", "w", force_zip64=True) as file:
            file.write(_npy(text, 0))
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
            archive.writestr(name, _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (12, 128), }"))


def _pickled(place: str, protocol: int, home: Path, outside: Path) -> None:
    content = {"ids": ["a"], "vectors": _Code(str(outside / "pwned"))}
    path = home / "vectors" / place
    if place.endswith(".npz"):
        np.savez(path, ids=np.array([_Code(str(outside / "pwned"))], object))
    elif place.endswith((".pt", ".pth")):
        import torch

        torch.save(
            content, path, pickle_protocol=max(protocol, 2), _use_new_zipfile_serialization="pth" not in place
        )
    elif protocol == 5:
        np.save(path, np.array(content, object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(content, protocol))


def _torch_code(place: str, how: str, home: Path, outside: Path) -> None:
    import torch

    path, content = _first(home, place), {"x": _Code(str(outside / "pwned"))}
    if how == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")


def _signals(kind: str, home: Path, outside: Path) -> None:
    import torch

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
        "bomb": bomb,
        "lines": "seeds: [" + "1, " * 3_000_000 + "1]",
        "deep": "seeds: " + DEEP,
        "cycle": "seeds: &a [*a]",
        "cycle-keys": "&a {dataset: *a}",
        "python": "!!python/object/apply:os.system [touch pwned]",
        "python-name": "dataset: !!python/name:os.system",
        "date": "seed: 2026-13-45",
        "date-key": "2026-01-01: 1",
        "list-key": "[a, b]: 1",
        "int": "dim: !!int x",
        "float": "dim: !!float x",
        "digits": "dim: " + "9" * 5000,
        "hex": "dim: 0x" + "f" * 200_000,
        "sexagesimal": "dim: " + "59:" * 5000 + "1",
        "merge": "<<: [1, 2]",
        "two": "a: 1\n---\nb: 2",
        "binary": "dataset: !!binary '*'",
        "set": "!!set {a, b}",
        "text": "just words",
        "number": "7",
        "null": "~",
        "nul": "dim: 3\0",
        "latin": "\udcff",
        "bom": "\ufeffdim: 3",
        "tabs": "\tdim: 3",
        "anchors": "".join(f"k{n}: &a{n} 1\n" for n in range(100_000)),
        "inf": "train: {lr: .inf}",
        "nan": "train: {weight_decay: .nan}",
        "bools": "{y: 1, true: 2, 1: 3}",
    }
    for name, text in yaml.items():
        yield _case("yaml", name, "recipe", partial(_put, "own.yaml", text))
        yield _case("yaml", name, "eval", partial(_put, "runs/aligned/recipe.yaml", text))
    documents = {
        "runs/aligned/metrics.json": "eval",
        "runs/aligned/embeddings.json": "eval",
        "runs/aligned/cells/**/model/config.json": "eval",
        "runs/drawn/metrics.json": "draw-against",
        "runs/train-align/*/metrics.json": "align-finished",
        "weights/generator/unet/config.json": "draw",
        "weights/generator/scheduler/scheduler_config.json": "draw",
        "weights/prior/fusion_encoder/config.json": "draw",
        "weights/encoder/config.json": "encoder",
        "weights/encoder/preprocessor_config.json": "encoder",
        "weights/timm/config.json": "timm",
        "data/coco/annotations/instances_train2017.json": "coco",
    }
    texts = {"deep": DEEP, "digits": '{"schema": ' + "9" * 5000 + "}", "list": "[]", "null": "null"}
    texts |= {
        "nan": '{"schema": NaN}',
        "twice": '{"schema": 1, "schema": 1}',
        "empty": "{}",
        "number": "1e999",
    }
    for place, reader in documents.items():
        for name, text in texts.items():
            yield _case("json", f"{place} {name}", reader, partial(_put, place, text))
        for value in (None, [], {}, -1, "x", 1e300, "../../x", [["a"]]):
            make = partial(_document, place, value)
            yield _case("json", f"{place} values {value!r}", reader, make)


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
        "DiffusionPipeline",
        "os",
        "utils",
        "AutoPipelineForText2Image",
        "__builtins__",
        "UNet2DModel",
        "logging",
    )
    classes += (
        "StableDiffusionPipeline",
        "schedulers",
        "FrozenDict",
        "__file__",
        "AutoencoderKL",
        "x",
        "__dict__",
    )
    for name in classes:
        place = "weights/generator/scheduler/scheduler_config.json"
        make = partial(_keys, place, {"_class_name": name})
        yield _case("class", f"scheduler {name}", "draw", make, must_fail=True)
    for name in (*classes[:6], "AsymmetricAutoencoderKL", 3, None, ["a"]):
        make = partial(_keys, "weights/generator/vae/config.json", {"_class_name": name})
        yield _case("class", f"vae {name}", "vae", make)
    for name in ("bert", "clip", "os", 3, None, ["clip"], "gpt2", "dinov2", "siglip"):
        make = partial(_keys, f"{ENCODER}/config.json", {"model_type": name})
        yield _case("class", f"encoder {name}", "encoder", make)
    code = {
        "auto_map": {"AutoModel": "evil.part--load", "AutoImageProcessor": "evil.part"},
        "trust_remote_code": True,
    }
    for place, reader in {
        f"{ENCODER}/config.json": "encoder",
        f"{ENCODER}/preprocessor_config.json": "encoder",
    }.items():
        yield _case("class", f"code {place}", reader, partial(_with_code, place, code))
    for name in ("vit_base_patch16_224", "os", "../../x", "", "hf-hub:a/b", "local-dir:/", 3, None):
        make = partial(_keys, "weights/timm/config.json", {"architecture": name})
        yield _case("class", f"timm {name}", "timm", make, must_fail=True)
    sizes: dict[str, tuple[str, list[str]]] = {
        f"{ENCODER}/config.json": (
            "encoder",
            ["hidden_size", "num_hidden_layers", "image_size", "patch_size"],
        ),
        "weights/generator/unet/config.json": (
            "draw",
            ["cross_attention_dim", "layers_per_block", "norm_num_groups"],
        ),
        "weights/generator/vae/config.json": (
            "draw",
            ["latent_channels", "layers_per_block", "scaling_factor"],
        ),
        "weights/prior/fusion_encoder/config.json": (
            "draw",
            ["hidden_size", "num_layers", "intermediate_size"],
        ),
        "weights/prior/proj/config.json": ("draw", ["sequence_length", "cross_attention_dim", "embed_dim"]),
        f"{ENCODER}/preprocessor_config.json": ("encoder", ["size", "crop_size", "image_mean", "resample"]),
        "weights/generator/scheduler/scheduler_config.json": (
            "draw",
            ["num_train_timesteps", "beta_schedule"],
        ),
    }
    for place, (reader, keys) in sizes.items():
        for key in keys:
            for value in (10**12, -1, 0, 1e300, "x", None):
                make = partial(_keys, place, {key: value})
                yield _case("size", f"{place} {key} {value}", reader, make)


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
    for place, reader in places.items():
        for how in (
            "length",
            "deep",
            "overlap",
            "shape",
            "negative",
            "dtype",
            "huge",
            "names",
            "absent",
            "surplus",
        ):
            yield _case(
                "safetensors",
                f"{place} {how}",
                reader,
                partial(_header_of, place, how),
                must_fail=how != "surplus",
            )
        for dtype in ("bfloat16", "int64", "float64", "bool", "complex64", "rank"):
            yield _case("tensors", f"{place} {dtype}", reader, partial(_cast, place, dtype))


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
    if how == "overlap":
        header[name]["data_offsets"] = [0, len(data) * 9]
    elif how == "shape":
        header[name]["shape"] = [2**40, 2**40]
    elif how == "negative":
        header[name]["shape"] = [-1, -4]
    elif how == "dtype":
        header[name]["dtype"] = "F1024"
    elif how == "huge":
        header["more"] = {"dtype": "F32", "shape": [2**34], "data_offsets": [0, 2**36]}
    elif how == "names":
        header["../" * 99] = header.pop(name)
    elif how == "absent":
        header = {}
    elif how == "surplus":
        header["more"] = {"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]}
    text = DEEP.encode() if how == "deep" else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + (b"" if how == "absent" else data))


def _cast(place: str, dtype: str, home: Path, outside: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = _first(home, place)
    if dtype == "rank":
        state = {key: value[None].contiguous() for key, value in load_file(path).items()}
    else:
        state = {key: value.to(getattr(torch, dtype)) for key, value in load_file(path).items()}
    save_file(state, path, metadata={"format": "pt"})


# links, pictures, tables


def _links() -> Iterator[Case]:
    targets = {
        "itself": None,
        "zero": "/dev/zero",
        "random": "/dev/urandom",
        "root": "/",
        "memory": "/proc/self/mem",
    }
    places = {
        TRAIN: "align",
        "own.yaml": "recipe",
        "weights/encoder/model.safetensors": "encoder",
        "weights/encoder/config.json": "encoder",
        "pictures/concept_0/0.png": "pictures",
        "vectors/dict.npz": "import-dict-npz",
        "vectors/npy/file_names.txt": "import-thingsvision-npy",
        "runs/aligned/metrics.json": "eval",
        "data/categories.tsv": "categories",
        "data/tars/imagenet-train-0000.tar": "tar",
    }
    for place, reader in places.items():
        for name, target in targets.items():
            yield _case("link", f"{place} {name}", reader, partial(_link, place, target))
        yield _case("link", f"{place} pipe", reader, partial(_pipe, place))
    for place, reader in {
        "pictures/loop": "pictures",
        "data/tars/loop": "tar",
        "embeddings/loop": "check",
    }.items():
        yield _case("link", f"{place} loop", reader, partial(_loop, place))


def _link(place: str, target: str | None, home: Path, outside: Path) -> None:
    (home / place).unlink()
    (home / place).symlink_to(target or home / place)


def _pipe(place: str, home: Path, outside: Path) -> None:
    (home / place).unlink()
    os.mkfifo(home / place)


def _loop(place: str, home: Path, outside: Path) -> None:
    (home / place).symlink_to("..")


def _pictures_and_tables() -> Iterator[Case]:
    import io

    from PIL import Image

    def bomb(home: Path, outside: Path) -> None:
        Image.new("1", (40_000, 40_000)).save(home / "pictures/concept_0/0.png")

    def frames(home: Path, outside: Path) -> None:
        some = [Image.new("P", (4, 4), n % 250) for n in range(3000)]
        some[0].save(home / "pictures/concept_0/0.gif", save_all=True, append_images=some[1:])

    def tiff(home: Path, outside: Path) -> None:
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "tiff")
        (home / "pictures/concept_0/9.tif").write_bytes(file.getvalue().replace(b"\x08\x00", b"\xff\xff", 6))

    def names(home: Path, outside: Path) -> None:
        for name in ("a\nb.png", "a\x1b[31m.png", "-rf.png", "\udcff.png", "x" * 250 + ".png"):
            shutil.copy(home / "pictures/concept_0/1.png", home / "pictures/concept_0" / name)

    def script(home: Path, outside: Path) -> None:
        text = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({outside}/pwned) (w) file closefile\n"
        (home / "pictures/concept_0/0.png").write_text(text)

    for name, make in {
        "bomb": bomb,
        "frames": frames,
        "tiff": tiff,
        "names": names,
        "script": script,
    }.items():
        yield _case("picture", name, "pictures", make)
        yield _case("picture", name, "score", partial(_scored, make))
    rows = {
        "negative": "1,-5,True",
        "huge": "1,99999999999999999999,True",
        "nul": "1,\0,True",
        "quote": '1,"2,True',
    }
    rows |= {"long": "1," + "9" * 200_000 + ",True", "many": "1,2,True\n" * 10, "words": "a,b,c"}
    for name, row in rows.items():
        make = partial(_put, "data/nsd/nsd_stim_info_merged.csv", f"cocoId,nsdId,shared1000\n{row}\n")
        yield _case("table", name, "nsd", make)
        yield _case("table", name, "categories", partial(_put, "data/categories.tsv", row))
    for kind in ("strings", "ragged", "nested", "nulls", "huge", "structs"):
        yield _case("parquet", kind, "import-parquet", partial(_parquet, kind), must_fail=True)
    for kind in ("path", "label", "null", "text"):
        yield _case("parquet", kind, "parquet", partial(_rows, kind))


def _scored(make: Make, home: Path, outside: Path) -> None:
    make(home, outside)
    shutil.copytree(home / "pictures", home / "scored", dirs_exist_ok=True)


def _parquet(kind: str, home: Path, outside: Path) -> None:
    import pyarrow
    import pyarrow.parquet

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
    columns = {"path": [*table["path"].to_pylist()] * (len(values) // count), "emb": values}
    pyarrow.parquet.write_table(pyarrow.table(columns), home / "vectors/table.parquet")


def _rows(kind: str, home: Path, outside: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = home / "data/parquet/train-00000-of-00001.parquet"
    found = pyarrow.parquet.read_table(path).to_pylist()
    changes: Any = {
        "path": {"image": {**found[0]["image"], "path": "../../../x.jpg"}},
        "label": {"label": 2**40},
        "null": {"image": {"bytes": None, "path": None}},
        "text": {"image": {"bytes": b"%!PS", "path": "a\n\x1b[31mb.jpg"}},
    }[kind]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**found[0], **changes}, *found[1:]]), path)
