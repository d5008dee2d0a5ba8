"""Parts that lie outside the package: found by their import path, and written down by
it.
"""

import importlib
import sys
from pathlib import Path

import pytest

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError

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
def own_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_allowed: None
) -> str:
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


def test_a_kind_with_a_dot_is_an_import_path_and_is_written_as_one(
    own_package: str,
) -> None:
    config = parts.resolve("backbones", {"kind": f"{own_package}.wide_net", "width": 5})

    assert config.model_dump() == {"kind": "own_parts.wide_net", "width": 5}
    assert parts.resolve("backbones", config.model_dump()) == config
    assert parts.resolve("backbones", "linear").kind == "linear"


def test_a_path_without_a_part_is_refused(own_package: str) -> None:
    for module, message in (
        ("absent", "backbone own_parts.absent: No module"),
        ("no_base", "is no backbone"),
    ):
        with pytest.raises(BrainhiveError, match=message) as caught:
            parts.resolve("backbones", f"{own_package}.{module}")
        assert caught.value.hint


def test_rows_give_values_of_what_their_family_has() -> None:
    for shelf in parts.SHELVES:
        for kind in parts.rows(shelf):
            holds_a_row(shelf, kind)


def holds_a_row(shelf: str, kind: str) -> None:
    row, row_part = parts.rows(shelf)[kind], parts.load(shelf, kind)
    room, _, name = row.family.rpartition(".")
    in_room = (
        getattr(importlib.import_module(f"brainhive_cli.data.{room}"), name)
        if room
        else None
    )
    family = in_room or parts.load(shelf, row.family).Config

    known = {*family.model_fields, *family.__class_vars__, *dir(family)}
    assert [name for name in row.model_extra if name not in known] == []
    assert issubclass(row_part.Config, family) and row_part.Config().kind == kind
    assert row_part.Config() == parts.resolve(shelf, kind)  # the same class each time
    # which may need a key
    assert parts.resolve(shelf, kind) != family.model_construct()
    assert row_part.__doc__ == (row.about or family.__doc__) != ""
