"""A hub that takes uploads, for tests: the shared server, with what it lacks; and this
process led to it.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from brainhive_cli.app import app


@contextmanager
def serving(shared: Path, cache: Path, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Serve an empty hub of the user `me`, and lead the hub's client of this process
    there.

    Added to the shared server: tags that are deleted, and owners to whom `me` may not
    write.
    """
    spec = importlib.util.spec_from_file_location(
        "mini_hub_server", shared / "data/mini_hub_server.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Hub(module.MiniHub):  # type: ignore[misc,name-defined]
        def answer(self, method: str, target: str, body: bytes, headers: Any) -> Any:
            parts = target.split("?")[0].strip("/").split("/")
            if (
                parts[:3] == ["api", "repos", "create"]
                and b"organization" in body
                and b'"other"' in body
            ):
                return (
                    403,
                    {},
                    {
                        "error": (
                            "You don't have the rights to create a model under other"
                        )
                    },
                )
            if method == "DELETE" and parts[4:5] == ["tag"]:
                known = headers.get("Authorization") == f"Bearer {self.token}"
                return (
                    (200, {}, {})
                    if known and self.repos["/".join(parts[2:4])].tags.pop(parts[5])
                    else (401, {}, {})
                )
            return super().answer(method, target, body, headers)

    with Hub() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(
            constants.ENDPOINT, hub.endpoint
        )
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setenv("HF_TOKEN", hub.token)
        yield hub


def client() -> Any:
    """The hub's client, as a person uses it who pushes by hand."""
    from huggingface_hub import HfApi

    return HfApi()


def sha256(content: bytes) -> str:
    """Digest a file's content."""
    return hashlib.sha256(content).hexdigest()


def newest(hub: Any, name: str = "me/demo") -> dict[str, bytes]:
    files: dict[str, bytes] = hub.repos[name].log[-1][2]
    return files


def brainhive(*words: str, answer: str | None = None) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [*words], input=answer)


def done(*words: str) -> Path:
    """Run a command that must succeed; return the folder of its run."""
    shown = brainhive(*words, "--json")
    assert shown.exit_code == 0, shown.stderr
    return Path(json.loads(shown.stdout)["folder"])


def two_lines(shown: Result, exit_code: int) -> tuple[str, str]:
    """Check that a command failed with an error and a way out, a line each."""
    lines = [
        line
        for line in shown.stderr.splitlines()
        if line.startswith(("error: ", "  try: "))
    ]
    assert shown.exit_code == exit_code and len(lines) == 2, shown.stderr
    assert "Traceback" not in shown.stderr
    return lines[0].removeprefix("error: "), lines[1].removeprefix("  try: ")
