"""Code of users: imported only if it is allowed, and named where it fails."""

import os
import sys

import pytest

from brainhive_cli.core.base.errors import MissingExtra, RecipeError
from brainhive_cli.core.files import foreign_code
from brainhive_cli.core.files.foreign_code import (
    ALLOW_VARIABLE,
    allow_code,
    describe_suspected_error,
    describe_user_error,
    import_module,
    name_object,
    require_permission,
)

CODE = """class Net:
    def __init__(self):
        self.width = 3

    def fail(self):
        raise ValueError("wrong\\nmore")

def helper():
    return Net().fail()
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch, code_allowed):
    """A module of a user, which was imported."""
    (tmp_path / "own_net").mkdir()
    (tmp_path / "own_net/__init__.py").touch()
    for name, text in (("net", CODE), ("other", CODE), ("broken", "1 / 0")):
        (tmp_path / f"own_net/{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(foreign_code, "_imported", {})
    yield import_module("own_net.net", "own_net.net", "the net", "its contract")
    for name in [name for name in sys.modules if name.startswith("own_net")]:
        del sys.modules[name]


def caught(call, *arguments):
    """The error of a call."""
    with pytest.raises(Exception) as raised:
        call(*arguments)  # type: ignore[operator]
    return raised.value


@pytest.mark.parametrize("variable", [None, "0", "1"])
@pytest.mark.parametrize("is_allowed", [False, True])
def test_code_is_permitted_for_the_length_of_a_command(
    monkeypatch, variable, is_allowed
):
    monkeypatch.delenv(ALLOW_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(ALLOW_VARIABLE, variable)
    with allow_code(is_allowed):
        if is_allowed or variable == "1":
            require_permission("x", "the net")
        else:
            with pytest.raises(RecipeError):
                require_permission("x", "the net")
        # code of this package needs no permission
        require_permission(next(iter(foreign_code.OWN_CODE)), "the example")
    assert os.environ.get(ALLOW_VARIABLE) == variable


def test_only_import_paths_that_import_are_taken(own_module):
    for path in ("a b", "../x", "own_net.", "1a", "own_net.broken"):
        with pytest.raises(RecipeError):
            import_module(path, path, "the net", "its contract")
    for path in ("own_net.absent", "no_such_package"):
        with pytest.raises(MissingExtra):
            import_module(path, path, "the net", "its contract")
    assert list(foreign_code._imported) == ["own_net.net"]
    import_module("brainhive_cli.core.base.seeds", "x", "ours", "c")
    assert list(foreign_code._imported) == ["own_net.net"]


def test_an_error_in_code_of_a_user_is_named_by_its_line(
    own_module,
):
    error = describe_user_error(caught(own_module.helper))
    assert error is not None
    assert error.message == ("the net, line 6 in fail: ValueError: wrong")
    # a module beside it goes by its own name
    other_function = __import__("own_net.other").other
    error = describe_user_error(caught(other_function.Net().fail))
    assert error is not None
    assert error.message.startswith("own_net.other, line 6")


def test_an_object_that_is_called_wrongly_is_named_by_its_class(
    own_module,
):
    net = own_module.Net()
    error = describe_user_error(caught(lambda: net.absent))
    assert error is not None
    assert error.message.startswith("the net, Net in line 1: ")
    assert describe_user_error(caught(lambda: 1 / 0)) is None
    assert name_object(net, "the net") == "the net, Net in line 1"
    assert name_object(own_module, "the net") == "the net"
    assert name_object([], "the list") == "the list list"


def test_errors_after_imported_code_name_it_as_a_possible_cause(
    own_module, monkeypatch
):
    ours = caught(foreign_code.import_module, None, "x", "y", "z")
    suspected_error = describe_suspected_error(ours)
    assert suspected_error is not None
    assert "the net" in suspected_error.message
    assert "brainhive_cli.core.files.foreign_code" in suspected_error.hint
    assert "see its contract" in suspected_error.hint
    assert describe_suspected_error(caught(lambda: 1 / 0)) is None
    monkeypatch.setattr(foreign_code, "_imported", {})
    assert describe_suspected_error(ours) is None
