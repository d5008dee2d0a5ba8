"""Errors and their ways out: which ones a command has, how they are written, what was
meant.
"""

import os
import signal
from pathlib import Path

import pytest

from brainhive_cli.core.base.errors import (
    JOB_ID_VARIABLE,
    SUGGESTED,
    BrainhiveError,
    DeviceError,
    Line,
    MissingData,
    MissingExtra,
    RecipeError,
    complete_lines,
    find_rows,
    first_line,
    guess,
    install_line,
    is_asked_to_stop,
    join_words,
    naming,
    raise_if_asked_to_stop,
    raise_if_interrupted,
    remember_interrupts,
    require_kind,
    system_error_number,
    write_value,
)


def test_each_kind_of_error_has_its_exit_code():
    kinds = (BrainhiveError, RecipeError, MissingData, MissingExtra, DeviceError)
    assert [kind("a").exit_code for kind in kinds] == [1, 2, 3, 4, 5]
    assert RecipeError("a", "b", 75).exit_code == 75
    assert BrainhiveError("a", "b").in_one_line == "a (b)"
    assert BrainhiveError("a").in_one_line == "a"


def test_an_error_is_named_by_what_it_is_of():
    with pytest.raises(MissingData) as caught, naming("file x"):
        raise MissingData("is not there")
    assert str(caught.value) == caught.value.message == "file x: is not there"
    with pytest.raises(MissingData) as caught, naming("file x"), naming("file x"):
        raise MissingData("is not there")
    assert caught.value.message == "file x: is not there"
    with pytest.raises(KeyError), naming("file x"):
        raise KeyError


def test_lines_are_completed_by_the_innermost_block():
    line = Line("embed", "x y")
    assert str(line) == line.base_text == "brainhive embed 'x y'"
    with complete_lines(lambda line: Line(line.command, *line.arguments, "--json")):
        with complete_lines(lambda line: Line("other")):
            assert str(line) == "brainhive other"
        assert str(line) == "brainhive embed 'x y' --json"
        # a completion that fails leaves the line as it is
        with complete_lines(lambda line: 1 / 0):  # type: ignore[arg-type,return-value]
            assert str(line) == line.base_text
    assert str(line) == line.base_text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["embed", Path("a b"), 3], "embed 'a b' 3"),
        ([("lr", 2)], "--lr 2"),
        ([("lr", [1, 2])], "--lr 1,2"),
        ([("run", "x", SUGGESTED)], "--run x"),
        ([("run", ""), ("seeds", [])], ""),
        ([("prior", "{kind: a}")], "'prior={kind: a}'"),
        ([("encoders", ["a", "{kind: b}"])], "'encoders=[a, {kind: b}]'"),
    ],
)
def test_words_are_joined_as_they_are_typed(arguments, line):
    assert join_words(arguments) == line


def test_a_value_is_written_in_one_line():
    assert write_value("a") == "a"
    assert write_value(3) == "3"
    assert write_value({"b": [1, 2], "a": None}) == "{b: [1, 2], a: null}"
    assert "\n" not in write_value(["word " * 50] * 3)


def test_the_line_that_installs_is_of_the_checkout(tmp_path, monkeypatch):
    assert install_line("live", tmp_path) == "pip install 'brainhive[live]'"
    (tmp_path / "pyproject.toml").touch()
    assert install_line("", tmp_path) == f"pip install -e {tmp_path}"
    monkeypatch.chdir(tmp_path)
    assert install_line("live", tmp_path) == "pip install -e '.[live]'"


def test_an_argument_of_another_type_is_refused():
    require_kind("subjects", [1], list, "a list")
    with pytest.raises(RecipeError) as caught:
        require_kind("subjects", 1, list, "a list")
    assert caught.value.hint == "a list"
    assert "int" in caught.value.message


def test_a_library_is_quoted_by_its_first_line():
    assert first_line(ValueError("\n a\nb")) == "a"
    assert first_line(ValueError()) == first_line(ValueError("  ")) == "ValueError"


@pytest.mark.parametrize(
    ("name", "known_names", "text"),
    [
        ("lrr", ["lr", "epochs"], "lr"),
        ("EPOCHS", ["lr", "epochs"], "epochs"),
        ("epo", ["epochs_of_a_very_long_name"], "epochs_of_a_very_long_name"),
        ("ep", ["epochs_of_a_very_long_name"], ""),
        ("brain", ["Brain_mlp", "brain_projection", "drain"], "Brain_mlp"),
        ("zzz", ["lr", "epochs"], ""),
        ("clip-h41", ["clip-l14", "clip-h14"], "clip-h14"),
        ("a", [], ""),
    ],
)
def test_the_nearest_known_name_is_guessed(name, known_names, text):
    assert guess(name, known_names) == (f"did you mean {text}? " if text else "")
    assert guess(name, known_names, "x.") == (
        f"did you mean x.{text}? " if text else ""
    )


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(28, "full"), 28),
        (ValueError("x (os error 28)"), 28),
        (RuntimeError("unable to mmap 9 bytes from file <x>: (12)"), 12),
        (ValueError("x"), None),
        (OSError("x"), None),
    ],
)
def test_errors_of_the_system_are_known_by_number(error, number):
    assert system_error_number(error) == number


def test_channels_are_found_by_name_and_then_without_case():
    names = ["Oz", "oz", "Fp1", "P7", "Cz", "Cz"]
    assert find_rows(["Oz", "FP1", "p8"], names, "x") == [0, 2, None]
    # the row of an exact name is taken
    assert find_rows(["OZ", "Oz"], names, "x") == [1, 0]
    assert find_rows(["OZ", "oz", "Oz"], names, "x") == [None, 1, 0]
    assert find_rows([], names, "x") == []
    for name in ("OZ", "Cz", "cz"):
        with pytest.raises(RecipeError):
            find_rows([name], names, "x")


@pytest.fixture
def usual_handlers():
    """Handlers as of a command in a terminal, whatever runs the tests."""
    default_handlers = {signal.SIGINT: signal.default_int_handler}
    default_handlers |= dict.fromkeys((signal.SIGTERM, signal.SIGUSR1), signal.SIG_DFL)
    initial_signals_by_name = {
        number: signal.signal(number, default_handlers[number])
        for number in default_handlers
    }
    yield
    for number, handler in initial_signals_by_name.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_handlers")
def test_a_stop_that_was_asked_for_is_forgotten_with_its_command():
    initial_getsignal = signal.getsignal(signal.SIGUSR1)
    with remember_interrupts():
        assert not is_asked_to_stop()
        raise_if_asked_to_stop()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert is_asked_to_stop()
        raise_if_interrupted()
        with pytest.raises(BrainhiveError) as caught:
            raise_if_asked_to_stop()
        assert caught.value.exit_code == 75
    assert not is_asked_to_stop()
    assert signal.getsignal(signal.SIGUSR1) is initial_getsignal
    with remember_interrupts():
        raise_if_asked_to_stop()


@pytest.mark.usefixtures("usual_handlers")
@pytest.mark.parametrize("variable", ["LOCAL_RANK", JOB_ID_VARIABLE, None])
def test_sigterm_is_left_to_the_launcher_and_asks_a_job_to_stop(monkeypatch, variable):
    for name in ("LOCAL_RANK", JOB_ID_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    with remember_interrupts():
        if variable == "LOCAL_RANK":
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        elif variable == JOB_ID_VARIABLE:
            os.kill(os.getpid(), signal.SIGTERM)
            assert is_asked_to_stop()
            raise_if_interrupted()
        else:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
            assert not is_asked_to_stop()
            with pytest.raises(KeyboardInterrupt):
                raise_if_interrupted()
    raise_if_interrupted()


@pytest.mark.usefixtures("usual_handlers")
def test_an_error_after_an_interrupt_is_the_interrupt():
    with pytest.raises(KeyboardInterrupt), remember_interrupts():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise ValueError
    with pytest.raises(ValueError), remember_interrupts():
        raise ValueError
