"""Damaged files of every kind, each opened by the command that reads it."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.soak.runner import Case
from tests.soak.world import COMMON, READERS, Reader

EACH = 3
"""Files of a pattern that are damaged."""
GONE = ("directory", "dangling-link")
"""A picture of a data set that is gone so is none of its pictures."""
TEXT = (".json", ".yaml", ".csv", ".tsv", ".txt", "main")
Damage = Callable[[Path, bytes, random.Random], bytes | None]


def _flip(first: float, last: float) -> Damage:
    def flip(path: Path, content: bytes, chosen: random.Random) -> bytes:
        changed = bytearray(content)
        at = chosen.randrange(
            int(len(content) * first), max(int(len(content) * last), 1)
        )
        changed[at] ^= 1 << chosen.randrange(8)
        return bytes(changed)

    return flip


def _flip_header(path: Path, content: bytes, chosen: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chosen.randrange(min(len(content), 256))] ^= 1 << chosen.randrange(8)
    return bytes(changed)


def _page(fill: Callable[[random.Random, int], bytes]) -> Damage:
    def overwrite(path: Path, content: bytes, chosen: random.Random) -> bytes:
        size = min(4096, max(1, len(content) // 4))
        at = chosen.randrange(max(1, len(content) // size)) * size
        return (
            content[:at]
            + fill(chosen, size)[: len(content) - at]
            + content[at + size :]
        )

    return overwrite


def _directory(path: Path, content: bytes, chosen: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path, content: bytes, chosen: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _another(path: Path, content: bytes, chosen: random.Random) -> bytes:
    """Take the content of a file of another kind."""
    pool = (
        "own.yaml vectors/dict.npz vectors/dict.npy pictures/concept_0/0.png "
        "vectors/table.parquet "
    )
    pool += "weights/encoder/model.safetensors data/nsd/nsd_stimuli.hdf5 "
    pool += "vectors/dict.pt weights/encoder/config.json data/categories.tsv"
    return Path(
        chosen.choice(
            [name for name in pool.split() if Path(name).suffix != path.suffix]
        )
    ).read_bytes()


def _json(path: Path, content: bytes, chosen: random.Random) -> bytes:
    """Change a value's type, or take a key away, in a text of keys and values."""
    texts = (
        b"null",
        b"[]",
        b"{}",
        b"-1",
        b"1e999",
        b"NaN",
        b'"\xff"',
        b'""',
        b"9" * 5000,
        b"[" * 3000,
    )
    places = [at for at, byte in enumerate(content) if byte in b":,\n"] or [0]
    start = chosen.choice(places) + 1
    stop = next(
        (at for at in range(start, len(content)) if content[at] in b",\n}]"),
        len(content),
    )
    return content[:start] + chosen.choice((*texts, b"true", b"")) + content[stop:]


DAMAGES: dict[str, Damage] = {
    "emptied": lambda path, content, chosen: b"",
    "cut": lambda path, content, chosen: content[
        : chosen.randrange(1, max(2, len(content)))
    ],
    "cut-end": lambda path, content, chosen: content[: -chosen.choice((1, 2, 8, 64))],
    "cut-start": lambda path, content, chosen: content[chosen.choice((1, 4, 100)) :],
    "longer": lambda path, content, chosen: content + chosen.randbytes(100),
    "flip-header": _flip_header,
    "flip-payload": _flip(0.3, 1.0),
    "flip": _flip(0.0, 1.0),
    "zeros": _page(lambda chosen, size: bytes(size)),
    "noise": _page(lambda chosen, size: chosen.randbytes(size)),
    "all-zeros": lambda path, content, chosen: bytes(len(content)),
    "all-noise": lambda path, content, chosen: chosen.randbytes(len(content)),
    "directory": _directory,
    "dangling-link": _link,
    "another-kind": _another,
    "value": _json,
}


def cases(
    seed: int, count: int, world: Path, surface: str = "damaged"
) -> Iterator[Case]:
    """Make cases in which one file that a command of a surface reads is damaged."""
    chosen = random.Random(seed)
    readers = {
        name: reader for name, reader in READERS.items() if reader.surface == surface
    }
    pairs = [
        (name, file)
        for name, reader in readers.items()
        for file in _files(reader, world, chosen)
    ]
    for made in range(count):
        turn, place = divmod(made, len(pairs))
        name, file = pairs[place]
        suits = [kind for kind in DAMAGES if kind != "value" or file.endswith(TEXT)]
        kind, reader = suits[(turn * 7 + place * 3) % len(suits)], READERS[name]
        change = partial(_damage, reader, file, kind, f"{seed}/{made}")
        is_seen = reader.has_digest and not (
            file.endswith((".png", ".jpg")) and kind in GONE
        )
        argv = (*reader.argv, *COMMON, "--json")
        yield Case(surface, f"{name} {file} {kind} {made}", argv, change, name, is_seen)


def _files(reader: Reader, world: Path, chosen: random.Random) -> list[str]:
    """List files that a command reads, of each pattern a few."""
    found = list[str]()
    for pattern in reader.files.split():
        of = sorted(
            path.relative_to(world).as_posix()
            for path in world.glob(pattern)
            if path.is_file()
        )
        if not of and "new/" not in pattern:
            raise FileNotFoundError(f"the world has no {pattern}")
        found += chosen.sample(of, min(EACH, len(of)))
    return found


def _damage(
    reader: Reader, file: str, kind: str, seed: str, home: Path, outside: Path
) -> None:
    if reader.setup:
        reader.setup(home)
    path, chosen = home / file, random.Random(seed)
    content = path.read_bytes()
    changed: Any = DAMAGES[kind](path, content, chosen)
    if changed is not None:
        path.write_bytes(changed)
