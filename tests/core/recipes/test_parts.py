"""Parts that lie outside the package: found by their import path, and written down by
it.
"""

import importlib
import sys
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter

from brainhive_cli.core.base.errors import BrainhiveError, MissingExtra, RecipeError
from brainhive_cli.core.recipes import parts

PART = '''"""A part."""
from brainhive_cli.models.backbones import BackboneConfig

class Config(BackboneConfig):
    """Its knobs."""
    width: int = 3
'''
OF_ANOTHER_SHELF = PART.replace("BackboneConfig", "FuserConfig").replace(
    "backbones", "fusers"
)
ENCODER = """from brainhive_cli.models.encoders import EncoderConfig

class Config(EncoderConfig):
    size: int = 2
"""


@pytest.fixture
def own_package(tmp_path, monkeypatch, code_allowed):
    package = tmp_path / "own_parts"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "wide_net.py").write_text(PART)
    (package / "colours.py").write_text(ENCODER)
    (package / "no_base.py").write_text(OF_ANOTHER_SHELF)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_parts"
    for name in [name for name in sys.modules if name.startswith("own_parts")]:
        del sys.modules[name]


def test_a_kind_with_a_dot_is_an_import_path(
    own_package,
):
    config = parts.resolve("backbones", {"kind": f"{own_package}.wide_net", "width": 5})

    assert config.model_dump() == {"kind": "own_parts.wide_net", "width": 5}
    assert parts.resolve("backbones", config.model_dump()) == config
    assert parts.resolve("backbones", "linear").kind == "linear"


def test_a_path_without_a_part_is_refused(own_package):
    for module, error in (("absent", MissingExtra), ("no_base", RecipeError)):
        with pytest.raises(error) as caught:
            parts.resolve("backbones", f"{own_package}.{module}")
        assert type(caught.value) is error
        assert f"own_parts.{module}" in str(caught.value)
        assert caught.value.hint


def test_rows_give_values_of_what_their_family_has():
    for shelf in parts.SHELVES:
        for kind in parts.read_rows(shelf):
            holds_a_row(shelf, kind)


def holds_a_row(shelf, kind):
    row, row_part = parts.read_rows(shelf)[kind], parts.load(shelf, kind)
    room, _, name = row.family.rpartition(".")
    in_room = (
        getattr(importlib.import_module(f"brainhive_cli.data.{room}"), name)
        if room
        else None
    )
    family = in_room or parts.load(shelf, row.family).Config

    known_keys = (
        set(family.model_fields) | set(family.__class_vars__) | set(dir(family))
    )
    assert [name for name in row.model_extra if name not in known_keys] == []
    assert issubclass(row_part.Config, family)
    assert row_part.Config().kind == kind
    assert row_part.Config() == parts.resolve(shelf, kind)  # the same class each time
    # which may need a key
    assert parts.resolve(shelf, kind) != family.model_construct()
    assert row_part.__doc__ == (row.about or family.__doc__) != ""


def test_shelves_list_files_and_rows_but_no_shared_pieces():
    kinds = parts.list_kinds("backbones")
    assert kinds == sorted(kinds, key=parts.file_name_from_kind)
    assert "brain-mlp" in kinds
    assert "_layers" not in kinds
    assert set(parts.read_rows("backbones")) <= set(kinds)
    assert set(parts.list_kinds("losses")) == set(parts.import_shelf("losses").TINY)
    assert parts.read_rows("losses") == {}
    for name in ("brain-mlp", "brain_mlp"):
        assert parts.is_kind("backbones", name)
    assert not parts.is_kind("backbones", "brainmlp")
    assert parts.file_name_from_kind("a-b+c") == "a_b_c"
    assert parts.kind_from_file_name("a_b") == "a-b"


def test_a_part_is_named_by_its_kind_and_knobs():
    plain_recipe = parts.resolve("losses", "clip")
    assert str(plain_recipe) == plain_recipe.kind == "clip"
    assert plain_recipe.model_dump()["kind"] == "clip"
    config = parts.resolve("backbones", {"kind": "brain_mlp", "dropout": 0.25})
    assert config.kind == "brain-mlp"
    assert "dropout: 0.25" in str(config)
    assert parts.resolve("backbones", {"dropout": 0.25}, "brain_mlp") == config
    assert parts.resolve("backbones", config) is config


@pytest.mark.parametrize("value", [{}, {"kind": 3}, 3, None, "clop", {"depth": 1}])
def test_what_names_no_part_is_refused(value):
    with pytest.raises(RecipeError):
        parts.resolve("losses", value)
    for kind in ("absent", 3):
        with pytest.raises(RecipeError):
            parts.load("losses", kind)  # type: ignore[arg-type]


def test_papers_of_a_part_and_its_parts_are_listed_once():
    nice = parts.resolve("backbones", "nice")
    papers = list(nice.citations())
    assert papers
    assert parts.list_papers(nice) == papers
    assert parts.list_papers({"a": [nice, nice], "b": 3}) == papers
    assert parts.list_papers(None) == []


def test_a_part_has_to_build_a_module():
    class Odd(parts.Config):
        def build(self, width):
            return width

    with pytest.raises(BrainhiveError):
        parts.build_module(Odd(), 3)
    assert parts.build_module(parts.resolve("losses", "mse")) is not None
    assert Odd().inputs() == []
    assert parts.list_papers(Odd()) == []


def test_another_data_set_may_be_absent():
    adapter = TypeAdapter(parts.OtherDataset)
    assert adapter.validate_python(None) is None
    assert adapter.validate_python("demo").kind == "demo"
    assert adapter.validate_python({"root": "x"}).kind == "things-eeg"
    type_adapter = TypeAdapter(
        Annotated[Any, parts.part_validator("datasets", "things-eeg")]
    )
    with pytest.raises(RecipeError):
        type_adapter.validate_python(None)
