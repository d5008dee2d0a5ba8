"""Documents: what is right is read as it is, and whatever is wrong with one is one
error that names it.
"""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import documents
from brainhive_cli.core.files.documents import (
    SHA256SUMS,
    digest_file,
    list_documents,
    write_digests,
)

LAUGHS = "a: &a [1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{key}'] * 9)}]\n"
    for key, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""A list of 9 lists of 9 lists …: 300 characters that stand for gigabytes."""


class Lora(BaseModel):
    r: int
    lora_alpha: float


@dataclass(frozen=True)
class Sizes:
    by_name: dict[str, tuple[int, ...]]


def write_document(folder, text, suffix=".json"):
    path = folder / f"document{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_document_is_read_as_what_it_is_said_to_hold(tmp_path):
    assert documents.read(
        write_document(tmp_path, '{"r": 4, "lora_alpha": 2, "more": [1]}'), Lora
    ) == Lora(r=4, lora_alpha=2)
    assert documents.read(
        write_document(tmp_path, '{"by_name": {"a": [1, 2]}}'), Sizes
    ) == Sizes({"a": (1, 2)})
    fields = {
        "a": [1, 2.5, None, True, "ö😀"],
        "b": {"c": 1e999, "model_max_length": 10**30},
    }
    assert documents.read(write_document(tmp_path, json.dumps(fields))) == fields
    assert documents.read(write_document(tmp_path, b"\xef\xbb\xbf{}")) == {}


def test_yaml_keeps_dates_as_text_and_resolves_anchors(
    tmp_path,
):
    text = (
        "since: 2026-01-01\n"
        "lr: 1.0e-4\n"
        "a: &a {b: [1, false, ~]}\n"
        "c: {<<: *a, d: x}\n"
        "e: *a\n"
    )
    document = documents.read(write_document(tmp_path, text, ".yaml"))
    mapping = {"b": [1, False, None]}
    assert document == {
        "since": "2026-01-01",
        "lr": 1e-4,
        "a": mapping,
        "c": {**mapping, "d": "x"},
        "e": mapping,
    }


def test_whatever_is_wrong_with_json_is_one_error_with_its_path(tmp_path):
    for text, reason in (
        ("", "EOF while parsing"),
        ("[1, 2]", "valid dictionary"),
        ("[" * 100_000, "recursion limit"),
    ):
        path = write_document(tmp_path, text)
        with pytest.raises(BrainhiveError, match=reason) as caught:
            documents.read(path)
        assert type(caught.value) is BrainhiveError
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.in_one_line
        assert len(caught.value.message) < 1000
    with pytest.raises(MissingData, match="recursion limit"):
        documents.read(path, hint="download it again", error=MissingData)


def test_whatever_is_wrong_with_yaml_is_one_error_with_its_path(tmp_path):
    for text, reason in (
        ("a: 1\na: 2", "key 'a' appears twice, in lines 1 and 2"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "could not determine a constructor",
        ),
        (LAUGHS, "aliases repeat"),
    ):
        path = write_document(tmp_path, text, ".yaml")
        with pytest.raises(RecipeError, match=reason) as caught:
            documents.read(path, error=RecipeError)
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.in_one_line


def test_absent_huge_and_irregular_files_are_not_read(
    tmp_path,
):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(MissingData) as caught:
            documents.read(path)
        assert str(path) in caught.value.message
    with pytest.raises(BrainhiveError, match=r"\b9\b.*\b8\b"):
        documents.read(write_document(tmp_path, '{"a": 12}'), max_bytes=8)


def test_a_document_that_differs_from_its_digest_is_refused(
    tmp_path,
):
    (tmp_path / "cell/model").mkdir(parents=True)
    path = write_document(tmp_path / "cell/model", '{"a": 1}')
    write_digests(
        tmp_path,
        {name: digest_file(tmp_path / name) for name in list_documents(tmp_path)},
    )
    assert documents.read(path) == {"a": 1}
    write_document(tmp_path / "cell/model", '{"a": 2}')
    assert documents.read(path) == {"a": 2}  # the list is not that of a run
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(BrainhiveError, match="SHA256SUMS"):
        documents.read(path)
    (tmp_path / SHA256SUMS).unlink(missing_ok=True)
    assert documents.read(path) == {"a": 2}


def test_messages_show_values_in_one_line_and_cut():
    assert documents.show_value({"a": "b\nc"}) == r"{'a': 'b\nc'}"
    assert documents.show_value("x" * 298) == repr("x" * 298)
    assert documents.show_value("x" * 299) == "'" + "x" * 299 + "…"


def test_a_check_names_key_reason_and_value():
    with pytest.raises(MissingData) as caught:
        documents.check({"r": "x", "lora_alpha": 1}, "here", Lora, "do", MissingData)
    assert caught.value.message.startswith("here: r: ")
    assert caught.value.hint == "do"
    assert caught.value.message.endswith("got 'x'")
    with pytest.raises(BrainhiveError) as caught:
        documents.check({"r": 1}, "here", Lora)
    assert "lora_alpha" in caught.value.message
    assert "got" not in caught.value.message
    with pytest.raises(BrainhiveError) as caught:
        documents.check(3, "here", dict[str, int])
    assert caught.value.message.startswith("here: Input")


class Odd(BaseModel):
    """A model with a check of its own."""

    way: str

    @model_validator(mode="after")
    def _is_refused(self):
        if self.way == "missing":
            raise MissingData("no file")
        raise RecipeError("no such way", "" if self.way == "none" else self.way)


def test_checks_of_our_own_are_named_by_the_file():
    for choice, hint in (("left", "left"), ("none", "do")):
        with pytest.raises(MissingData) as caught:
            documents.check({"way": choice}, "here", Odd, "do", MissingData)
        assert caught.value.message == "here: no such way"
        assert caught.value.hint == hint
    # missing data stays what it is
    with pytest.raises(MissingData) as caught:
        documents.check({"way": "missing"}, "here", Odd, "do", RecipeError)
    assert caught.value.message == "no file"


def test_json_may_hold_nan_where_that_is_said(tmp_path):
    path = write_document(tmp_path, '{"a": NaN}')
    with pytest.raises(BrainhiveError):
        documents.read(path)
    document = documents.read(path, has_nan=True)
    assert document["a"] != document["a"]
    # a YAML file of another name
    other_path = write_document(tmp_path, "a: 1", ".txt")
    assert documents.read(other_path, is_yaml=True) == {"a": 1}
    with pytest.raises(BrainhiveError):
        documents.read(other_path)
    with pytest.raises(RecipeError):
        documents.read(write_document(tmp_path, b'{"a": "\xff"}'), error=RecipeError)


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        ("a: &x [1, 2]\nb: *x", True),
        ("1: a", False),
        ("null: a", False),
        ("? [a]\n: b", False),
        ("a: {b: 1, b: 2}", False),
        ("- {b: 1}\n- {b: 2}", True),
        ("", True),
        ("a: 2026-01-01T00:00:00", True),
    ],
)
def test_yaml_has_the_keys_and_types_of_json(text, is_valid):
    if is_valid:
        documents.parse(text, "here", Any, is_yaml=True)
        return
    with pytest.raises(BrainhiveError):
        documents.parse(text, "here", Any, is_yaml=True)


def test_words_of_older_yaml_are_texts():
    text = "[yes, NO, on, Off, 010, 12:30, -7, 0, true]"
    tree = documents.parse(text, "here", Any, is_yaml=True)
    assert tree == ["yes", "NO", "on", "Off", "010", "12:30", -7, 0, True]


def test_only_documents_of_this_schema_are_read():
    documents.require_schema({"schema": 3}, 3, "x is")
    for document in ({"schema": 2}, {}, {"schema": "3"}):
        with pytest.raises(BrainhiveError):
            documents.require_schema(document, 3, "x is")


def test_changes_of_listed_files_are_named(tmp_path):
    for name in ("a.json", "b.json", "c.html", "d.json"):
        (tmp_path / name).write_text(name)
    digest_files_by_name = {
        path.name: digest_file(path) for path in sorted(tmp_path.iterdir())
    }
    write_digests(tmp_path, digest_files_by_name)
    assert list(documents.find_changes(tmp_path)) == []
    (tmp_path / "a.json").write_text("other")
    (tmp_path / "c.html").write_text("other")
    (tmp_path / "b.json").unlink()
    (tmp_path / "d.json").unlink()
    changes = list(documents.find_changes(tmp_path, {"d.json", ".json"}))
    assert [line.split()[0] for line in changes] == [
        str(tmp_path / "b.json"),
        str(tmp_path / "c.html"),
    ]
    assert changes[0].endswith("is missing")
    assert len(list(documents.find_changes(tmp_path))) == 4


def test_the_file_list_leaves_out_hidden_files_and_trackers(
    tmp_path,
):
    names = ["b.json", "a/x.yaml", "a/x.csv", "a/x.png", "a/plain", ".a/x.json"]
    names += ["a/.x.json", "wandb/x.json", "run-1/x.json", "a/wandb/x.json", "c.html"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "d.json").mkdir()
    assert list(list_documents(tmp_path)) == [
        "a/wandb/x.json",
        "a/x.csv",
        "a/x.yaml",
        "b.json",
        "c.html",
    ]


def test_a_list_of_digests_is_read_line_by_line(tmp_path):
    assert documents.read_digests(tmp_path) == {}
    digest = "0123456789abcdef" * 4
    lines = [f"{digest}  a b", f"{digest} *c", f"{digest} d", f"{digest[1:]}  e", "x"]
    (tmp_path / SHA256SUMS).write_text("\n".join(lines))
    assert documents.read_digests(tmp_path) == {"a b": digest, "c": digest}
    write_digests(tmp_path, {"b": digest, "a": digest})
    assert (tmp_path / SHA256SUMS).read_text() == f"{digest}  a\n{digest}  b\n"
    assert list(documents.read_digests(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(("depth", "is_refused"), [(5, True), (6, False)])
def test_a_list_governs_documents_up_to_five_folders_below(tmp_path, depth, is_refused):
    folder = tmp_path.joinpath(*"abcdef"[:depth])
    folder.mkdir(parents=True)
    path = write_document(folder, "{}")
    (tmp_path / "metrics.json").touch()
    name = path.relative_to(tmp_path).as_posix()
    write_digests(tmp_path, {name: "0" * 64})
    if is_refused:
        with pytest.raises(BrainhiveError):
            documents.read(path)
        return
    assert documents.read(path) == {}
