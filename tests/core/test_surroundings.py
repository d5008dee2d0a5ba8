"""Variables and dotfiles of the user: one that made a library fail is named, and no other."""

import os
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from brainhive_cli.cli.execute import describe_error
from brainhive_cli.core import surroundings
from brainhive_cli.core.errors import RecipeError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().endswith("_PROXY") or name.startswith("HF_")]:
        monkeypatch.delenv(name)


def request(error: Exception) -> None:
    """Fail as an HTTP library does: in a module of its name."""
    code = compile("raise error", "httpx.py", "exec")
    exec(code, {"__name__": "httpx", "error": error})


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("HTTPS_PROXY", "socks5://me:secret@a:1", ImportError("no socksio"), "needs the package socksio"),
        ("https_proxy", "http://a:b", ValueError("Invalid port"), "Port could not be cast"),
        ("ALL_PROXY", "ftp://a:1", ValueError("Unknown scheme"), "no address that begins with http://"),
        ("HF_ENDPOINT", "mirror.org", ValueError("no protocol"), "no address that begins with http://"),
        ("SSL_CERT_FILE", "/nowhere", FileNotFoundError(2, "No such file"), "No such file"),
        ("SSL_CERT_FILE", __file__, ssl.SSLError(1, "no certificate found"), "no certificate found"),
        ("MPLBACKEND", "mine", ValueError("Key backend: 'mine' is not valid"), "Key backend"),
        ("HF_HUB_ETAG_TIMEOUT", "ten", ValueError("base 10: 'ten'"), "base 10"),
        ("HF_HOME", "/a/file", NotADirectoryError(20, "Not a directory", "/a/file/token"), "Not a directory"),
    ],
)
def test_the_variable_that_made_a_library_fail_is_named(monkeypatch, name, value, error, said) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(type(error)) as caught:
        request(error)

    described = describe_error(caught.value)
    assert isinstance(described, RecipeError) and described.exit_code == 2
    assert described.message.startswith(f"the environment variable {name} is '") and said in described.message
    assert described.hint.endswith(f"unset {name}") and "secret" not in described.message


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("HTTPS_PROXY", "http://proxy:80", ValueError("wrong shape")),
        ("MNE_LOGGING_LEVEL", "error", ValueError("an error of the file")),
        ("HF_HOME", "/data/hf", ValueError("wrong shape")),
        ("HF_TOKEN", "hf_secret", ValueError("no user 'hf_secret'")),
        ("SSL_CERT_FILE", "/nowhere", ValueError("wrong shape")),
    ],
)
def test_a_variable_that_has_no_part_in_an_error_is_not_named(monkeypatch, name, value, error) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError) as caught:
        request(error)
    assert surroundings.explain(caught.value) is None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    fname = str(path)
    yield open(fname, encoding="utf-8").read()  # noqa: SIM115


def test_a_dotfile_that_a_library_could_not_read_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code = ".local/lib/module.py"
    for path in (tmp_path / name for name in (".config/matplotlib/matplotlibrc", "data.txt", code)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff")
        with pytest.raises(UnicodeDecodeError) as caught, reading(path):
            pass
        cause = surroundings.explain(caught.value)
        assert (cause is not None) == (path.name == "matplotlibrc")
        assert cause is None or cause.message.startswith(f"{path}: 'utf-8' codec")


def test_the_way_to_the_hub_is_said_without_passwords(monkeypatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert surroundings.describe_route() == ""
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:80")
    assert surroundings.describe_route() == " through HTTPS_PROXY http://…@proxy:80"
