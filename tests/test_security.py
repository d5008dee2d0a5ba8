"""Promises of SECURITY.md about the workflows that run on a server."""

from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[1]
WORKFLOWS = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_only_the_publication_of_pages_may_write(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        if (path.stem, name) == ("docs", "deploy"):
            # tags are made by maintainers only
            assert job["if"] == "startsWith(github.ref, 'refs/tags/v')"
            assert job["permissions"] == {"contents": "write"}
        else:
            assert "permissions" not in job
            checkouts = [
                step["with"]
                for step in job["steps"]
                if step.get("uses", "").startswith("actions/checkout@")
            ]
            assert [keys["persist-credentials"] for keys in checkouts] == [False]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_use_neither_secrets_nor_texts_of_strangers(path):
    text = path.read_text()
    assert "secrets." not in text
    assert "pull_request_target" not in text
    for job in yaml.safe_load(text)["jobs"].values():
        for step in job["steps"]:
            # titles and names of branches would run as commands
            assert "${{" not in step.get("run", "")
            assert step.get("uses", "actions/").startswith("actions/")
