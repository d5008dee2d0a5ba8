"""Documents: what is right is read as it is, and whatever is wrong with one is one
error that names it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel

from brainhive_cli.core import documents
from brainhive_cli.core.documents import (
    SHA256SUMS,
    digest_file,
    list_documents,
    write_digests,
)
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError

LAUGHS = "a: &a [1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""A list of 9 lists of 9 lists …: 300 characters that stand for gigabytes."""


class Lora(BaseModel):
    r: int
    lora_alpha: float


@dataclass(frozen=True)
class Sizes:
    by_name: dict[str, tuple[int, ...]]


def written(folder: Path, text: str | bytes, suffix: str = ".json") -> Path:
    path = folder / f"document{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_document_is_read_as_what_it_is_said_to_hold(tmp_path: Path) -> None:
    assert documents.read(
        written(tmp_path, '{"r": 4, "lora_alpha": 2, "more": [1]}'), Lora
    ) == Lora(r=4, lora_alpha=2)
    assert documents.read(
        written(tmp_path, '{"by_name": {"a": [1, 2]}}'), Sizes
    ) == Sizes({"a": (1, 2)})
    plain = {
        "a": [1, 2.5, None, True, "ö😀"],
        "b": {"c": 1e999, "model_max_length": 10**30},
    }
    assert documents.read(written(tmp_path, json.dumps(plain))) == plain
    assert documents.read(written(tmp_path, b"\xef\xbb\xbf{}")) == {}


def test_yaml_keeps_dates_as_text_and_anchors_as_what_they_stand_for(
    tmp_path: Path,
) -> None:
    text = (
        "since: 2026-01-01\n"
        "lr: 1.0e-4\n"
        "a: &a {b: [1, no, ~]}\n"
        "c: {<<: *a, d: x}\n"
        "e: *a\n"
    )
    found = documents.read(written(tmp_path, text, ".yaml"))
    a = {"b": [1, False, None]}
    assert found == {
        "since": "2026-01-01",
        "lr": 1e-4,
        "a": a,
        "c": {**a, "d": "x"},
        "e": a,
    }


def test_whatever_is_wrong_with_json_is_one_error_with_its_path(tmp_path: Path) -> None:
    for text, reason in (
        ("", "EOF while parsing"),
        ("[1, 2]", "valid dictionary"),
        ("[" * 100_000, "recursion limit"),
    ):
        path = written(tmp_path, text)
        with pytest.raises(BrainhiveError, match=reason) as caught:
            documents.read(path)
        assert (
            type(caught.value) is BrainhiveError and str(path) in caught.value.message
        )
        assert "\n" not in caught.value.in_one_line and len(caught.value.message) < 1000
    with pytest.raises(MissingData, match="recursion limit"):
        documents.read(path, hint="download it again", error=MissingData)


def test_whatever_is_wrong_with_yaml_is_one_error_with_its_path(tmp_path: Path) -> None:
    for text, reason in (
        ("a: 1\na: 2", "key 'a' appears twice, in lines 1 and 2"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "could not determine a constructor",
        ),
        (LAUGHS, "aliases repeat"),
    ):
        path = written(tmp_path, text, ".yaml")
        with pytest.raises(RecipeError, match=reason) as caught:
            documents.read(path, error=RecipeError)
        assert (
            str(path) in caught.value.message and "\n" not in caught.value.in_one_line
        )


def test_a_file_that_is_absent_too_large_or_not_a_file_is_not_read(
    tmp_path: Path,
) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(MissingData, match="there is no file"):
            documents.read(path)
    with pytest.raises(BrainhiveError, match="too large: 9 bytes, at most 8"):
        documents.read(written(tmp_path, '{"a": 12}'), most=8)


def test_a_document_that_differs_from_its_digest_is_refused_wherever_the_list_lies(
    tmp_path: Path,
) -> None:
    (tmp_path / "cell/model").mkdir(parents=True)
    path = written(tmp_path / "cell/model", '{"a": 1}')
    write_digests(
        tmp_path,
        {name: digest_file(tmp_path / name) for name in list_documents(tmp_path)},
    )
    assert documents.read(path) == {"a": 1}
    written(tmp_path / "cell/model", '{"a": 2}')
    assert documents.read(path) == {"a": 2}  # the list is not that of a run
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(
        BrainhiveError, match="was changed or damaged: SHA256SUMS has another digest"
    ):
        documents.read(path)
    (tmp_path / SHA256SUMS).unlink(missing_ok=True)
    assert documents.read(path) == {"a": 2}
