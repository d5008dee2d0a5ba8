"""Damaged files of every kind, read by the command that needs them."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.soak.runner import Case
from tests.soak.world import CPU_KEYS, READERS

FILES_PER_PATTERN = 3
"""Largest number of files that are damaged for each pattern."""
MISSING_KINDS = ("directory", "dangling-link")
"""Damages after which a picture no longer belongs to its data set."""
TEXT_ENDINGS = (".json", ".yaml", ".csv", ".tsv", ".txt", "main")
Damage = Callable[[Path, bytes, random.Random], bytes | None]
"""Function that returns the damaged content, or changes the path and returns None."""


def _make_bit_flip(start, stop):
    """Make a damage that flips a bit between two fractions."""

    def flip(path, content, rng):
        changed = bytearray(content)
        limit = max(int(len(content) * stop), 1)
        position = rng.randrange(int(len(content) * start), limit)
        changed[position] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return flip


def _flip_header(path, content, rng):
    changed = bytearray(content)
    changed[rng.randrange(min(len(content), 256))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _make_page_damage(fill):
    def overwrite(path, content, rng):
        size = min(4096, max(1, len(content) // 4))
        start = rng.randrange(max(1, len(content) // size)) * size
        page = fill(rng, size)[: len(content) - start]
        return content[:start] + page + content[start + size :]

    return overwrite


def _replace_by_folder(path, content, rng):
    path.unlink()
    path.mkdir()


def _replace_by_broken_link(path, content, rng):
    path.unlink()
    path.symlink_to("nowhere")


def _take_other_content(path, content, rng):
    """Read the content of a file of another kind, in the working directory."""
    names = (
        "own.yaml vectors/dict.npz vectors/dict.npy pictures/concept_0/0.png "
        "vectors/table.parquet weights/encoder/model.safetensors "
        "data/nsd/nsd_stimuli.hdf5 vectors/dict.pt weights/encoder/config.json "
        "data/categories.tsv"
    )
    other_kinds = [name for name in names.split() if Path(name).suffix != path.suffix]
    return Path(rng.choice(other_kinds)).read_bytes()


def _replace_text_value(path, content, rng):
    """Replace the text between two separators, such as a value or a key."""
    replacements = (
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
        b"true",
        b"",
    )
    separators = [index for index, byte in enumerate(content) if byte in b":,\n"] or [0]
    start = stop = rng.choice(separators) + 1
    while stop < len(content) and content[stop] not in b",\n}]":
        stop += 1
    return content[:start] + rng.choice(replacements) + content[stop:]


DAMAGES = {
    "emptied": lambda path, content, rng: b"",
    "cut": lambda path, content, rng: content[: rng.randrange(1, max(2, len(content)))],
    "cut-end": lambda path, content, rng: content[: -rng.choice((1, 2, 8, 64))],
    "cut-start": lambda path, content, rng: content[rng.choice((1, 4, 100)) :],
    "longer": lambda path, content, rng: content + rng.randbytes(100),
    "flip-header": _flip_header,
    "flip-payload": _make_bit_flip(0.3, 1.0),
    "flip": _make_bit_flip(0.0, 1.0),
    "zeros": _make_page_damage(lambda rng, size: bytes(size)),
    "noise": _make_page_damage(lambda rng, size: rng.randbytes(size)),
    "all-zeros": lambda path, content, rng: bytes(len(content)),
    "all-noise": lambda path, content, rng: rng.randbytes(len(content)),
    "directory": _replace_by_folder,
    "dangling-link": _replace_by_broken_link,
    "another-kind": _take_other_content,
    "value": _replace_text_value,
}


def cases(seed, count, world, surface="damaged"):
    """Yield cases in which a command of a surface reads one damaged file."""
    rng = random.Random(seed)
    readers = {
        name: reader for name, reader in READERS.items() if reader.surface == surface
    }
    pairs = []
    for name, reader in readers.items():
        pairs += [(name, file) for file in _list_files(reader, world, rng)]
    for number in range(count):
        turn, index = divmod(number, len(pairs))
        name, file = pairs[index]
        is_text = file.endswith(TEXT_ENDINGS)
        kinds = [kind for kind in DAMAGES if kind != "value" or is_text]
        kind, reader = kinds[(turn * 7 + index * 3) % len(kinds)], READERS[name]
        is_missing = file.endswith((".png", ".jpg")) and kind in MISSING_KINDS
        yield Case(
            surface,
            f"{name} {file} {kind} {number}",
            reader.argv + CPU_KEYS + ("--json",),
            partial(_damage, reader, file, kind, f"{seed}/{number}"),
            reader=name,
            has_digest=reader.has_digest and not is_missing,
        )


def _list_files(reader, world, rng):
    """List a few files of each pattern that a command reads."""
    selected_files = list[str]()
    for pattern in reader.files.split():
        paths = [path for path in world.glob(pattern) if path.is_file()]
        files = sorted(path.relative_to(world).as_posix() for path in paths)
        if not files and "new/" not in pattern:
            raise FileNotFoundError(f"the world has no {pattern}")
        selected_files += rng.sample(files, min(FILES_PER_PATTERN, len(files)))
    return selected_files


def _damage(reader, file, kind, seed, home, outside_folder):
    if reader.setup:
        reader.setup(home)
    path, rng = home / file, random.Random(seed)
    content = path.read_bytes()
    changed = DAMAGES[kind](path, content, rng)
    if changed is not None:
        path.write_bytes(changed)
