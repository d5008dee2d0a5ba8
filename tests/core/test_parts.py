"""Parts that lie outside the package: found by their import path, and written down by it."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.blocks import FusionEncoder
from brainhive_cli.models.encoders import resolve

PART = '''"""A part."""
from brainhive_cli.models.backbones import BackboneConfig

class Config(BackboneConfig):
    """Its knobs."""
    width: int = 3
'''
OF_ANOTHER_SHELF = PART.replace("BackboneConfig", "FuserConfig").replace("backbones", "fusers")
OF_A_ROW = """from brainhive_cli.core import parts

class Config(parts.load("encoders", "demo-clip").Config):
    size: int = 2
"""
ENCODER = """from brainhive_cli.models.encoders import EncoderConfig

class Config(EncoderConfig):
    size: int = 2
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_allowed: None) -> str:
    package = tmp_path / "own_parts"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "wide_net.py").write_text(PART)
    (package / "colours.py").write_text(ENCODER)
    (package / "of_a_row.py").write_text(OF_A_ROW)
    (package / "no_base.py").write_text(OF_ANOTHER_SHELF)
    (package / "no_part.py").write_text("from brainhive_cli.core.parts import Config\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_parts"
    for name in [name for name in sys.modules if name.startswith("own_parts")]:
        del sys.modules[name]


def test_a_kind_with_a_dot_is_an_import_path_and_is_written_as_one(own_package: str) -> None:
    config = parts.resolve("backbones", {"kind": f"{own_package}.wide_net", "width": 5})

    assert config.model_dump() == {"kind": "own_parts.wide_net", "width": 5}
    assert parts.resolve("backbones", config.model_dump()) == config
    assert parts.resolve("backbones", "linear").kind == "linear"


def test_an_encoder_outside_the_package_has_a_name_that_fusers_can_use(own_package: str) -> None:
    config, other = (resolve({"kind": f"{own_package}.colours", "size": size}) for size in (2, 3))

    assert config.name == "own_parts-colours" and other.name.startswith("own_parts-colours-")
    fuser = FusionEncoder({config.name: 12, other.name: 12}, 4, 8)
    assert list(fuser.proj_maps) == [config.name, other.name]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("absent", "backbone own_parts.absent: No module"),
        ("no_part", "is no backbone"),
        ("no_base", "is no backbone"),
    ],
)
def test_a_path_without_a_part_is_refused(own_package: str, module: str, message: str) -> None:
    with pytest.raises(BrainhiveError, match=message) as caught:
        parts.resolve("backbones", f"{own_package}.{module}")
    assert caught.value.hint


@pytest.mark.parametrize("shelf", [shelf for shelf in parts.SHELVES if parts.rows(shelf)])
def test_rows_give_values_of_what_their_family_has(shelf: str) -> None:
    for kind in parts.rows(shelf):
        holds_a_row(shelf, kind)


def holds_a_row(shelf: str, kind: str) -> None:
    row, row_part = parts.rows(shelf)[kind], parts.load(shelf, kind)
    room, _, name = row.family.rpartition(".")
    in_room = getattr(importlib.import_module(f"brainhive_cli.data.{room}"), name) if room else None
    family = in_room or parts.load(shelf, row.family).Config

    known = {*family.model_fields, *family.__class_vars__, *dir(family)}
    assert [name for name in row.model_extra if name not in known] == []
    assert issubclass(row_part.Config, family) and row_part.Config().kind == kind
    assert row_part.Config() == parts.resolve(shelf, kind)  # the same class each time
    assert parts.resolve(shelf, kind) != family.model_construct()  # which may need a key
    assert row_part.__doc__ == (row.about or family.__doc__) != ""


def test_a_part_outside_the_package_may_be_made_of_a_row(own_package: str) -> None:
    config = parts.resolve("encoders", {"kind": f"{own_package}.of_a_row", "size": 3})

    assert config.kind == "own_parts.of_a_row" and config.source == "demo:encoder"
    assert parts.resolve("encoders", config.model_dump()) == config


@pytest.mark.parametrize("shelf", parts.SHELVES)
def test_a_shelf_that_is_a_file_lists_its_table(shelf: str) -> None:
    module = parts.package(shelf)
    if not hasattr(module, "__path__"):
        assert parts.kinds(shelf) == sorted(module.TINY) and parts.rows(shelf) == {}
        assert {kind: parts.load(shelf, kind).TINY for kind in parts.kinds(shelf)} == module.TINY


def test_parts_are_listed_without_importing_their_shelves() -> None:
    program = """if True:
        import sys
        from brainhive_cli.core import parts
        kinds = {shelf: parts.kinds(shelf) for shelf in parts.SHELVES}
        assert {"clip-b32", "transformers-vit"} <= set(kinds["encoders"]) and "clip" in kinds["losses"]
        libraries = ("numpy", "torch", "transformers", "diffusers", "timm", "open_clip")
        print(*{*libraries, *map(parts.path_of, parts.SHELVES)} & set(sys.modules))
    """
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == ""
