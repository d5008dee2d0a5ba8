"""A hub for uploads of tests, based on the shared server."""

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
    """Serve an empty hub of the user `me`, and redirect this process's client to it.

    Unlike the shared server, it deletes tags, and refuses uploads to other owners.
    """
    spec = importlib.util.spec_from_file_location(
        "mini_hub_server", shared / "data/mini_hub_server.py"
    )
    assert spec is not None
    assert spec.loader is not None
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
                error = "You don't have the rights to create a model under other"
                return 403, {}, {"error": error}
            if method == "DELETE" and parts[4:5] == ["tag"]:
                is_user = headers.get("Authorization") == f"Bearer {self.token}"
                name = "/".join(parts[2:4])
                if is_user and self.repos[name].tags.pop(parts[5]):
                    return 200, {}, {}
                return 401, {}, {}
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


def make_client() -> Any:
    """Return the hub's own client, for uploads by hand."""
    from huggingface_hub import HfApi

    return HfApi()


def sha256(content: bytes) -> str:
    """Hash a file's content."""
    return hashlib.sha256(content).hexdigest()


def list_newest_files(hub: Any, name: str = "me/demo") -> dict[str, bytes]:
    files: dict[str, bytes] = hub.repos[name].log[-1][2]
    return files


def brainhive(*arguments: str, answer: str | None = None) -> Result:
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(app, arguments, input=answer)


def run_command(*arguments: str) -> Path:
    """Run a command that must succeed, and return the folder of its run."""
    result = brainhive(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return Path(json.loads(result.stdout)["folder"])


def read_error_lines(result: Result, exit_code: int) -> tuple[str, str]:
    """Check that a command failed, and return its error and way out, a line each."""
    prefixes = ("error: ", "  try: ")
    lines = result.stderr.splitlines()
    lines = [line for line in lines if line.startswith(prefixes)]
    assert result.exit_code == exit_code and len(lines) == 2, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0].removeprefix("error: "), lines[1].removeprefix("  try: ")
