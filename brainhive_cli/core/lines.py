"""Command lines of Brainhive as values, which hints and messages show as the user would
type them.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Line:
    """A command line that a hint or message names.

    As a text it has what the user's own line had, as far as the next command needs that
    (`completed_by`).

    Attributes:
        command: The subcommand.
        words: What follows it, as `join_words` takes it.
    """

    def __init__(self, command: str, *words: Any) -> None:
        self.command, self.words = command, words

    def __str__(self) -> str:
        """Write the line; plainly where it cannot be completed, so that its error is
        shown in any case.
        """
        # nothing completes lines outside a command, and a completion may fail
        with suppress(Exception):
            return _completion[-1](self).plain
        return self.plain

    @property
    def plain(self) -> str:
        """The line with its own words alone."""
        return join_words(["brainhive", self.command, *self.words])


Hint = str | Line
"""What to do, in one line."""
_completion: list[Callable[[Line], Line]] = []
"""What completes lines, in all threads; the last one counts."""


@contextmanager
def completed_by(complete: Callable[[Line], Line]) -> Iterator[None]:
    """Complete the lines that are written in the block."""
    _completion.append(complete)
    try:
        yield
    finally:
        _completion.pop()


def join_words(words: Iterable[Any]) -> str:
    """Write words as they are typed.

    Args:
        words: Paths, switches and overrides as they are; a key as (key, value), with a
            list of several values. It becomes a flag, or an override where a value is a
            part with knobs; a key without a value is left out.
    """
    typed = list[str]()
    for word in words:
        # paths, switches and overrides as they are
        if not isinstance(word, tuple):
            typed.append(str(word))
        elif word[1]:
            key, value = word
            has_several = isinstance(value, list | tuple)
            texts = [*map(str, value)] if has_several else [str(value)]
            # a part with knobs holds commas, at which a flag would split it
            if any(text.startswith("{") for text in texts):
                text = ", ".join(texts)
                typed.append(f"{key}=[{text}]" if has_several else f"{key}={text}")
            else:
                typed += [f"--{key}", ",".join(texts)]
    return shlex.join(typed)


def write_value(value: Any) -> str:
    """Write a value as an override takes it, in one line."""
    import yaml

    # a width at which nothing is folded; PyYAML marks the end after a bare scalar
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()
