"""The table of published results."""

from collections.abc import Mapping
from typing import Any

from brainhive_cli.core.console import Table


def published_table(published: Mapping[str, dict[str, Any]]) -> Table:
    """Show what was published, by the variant of a sweep, and whether with this set-up."""
    rows = [
        (*([variant] if variant else []), *(each.get(name, "–") for name in ("top1", "top5")), shown(each))
        for variant, each in published.items()
    ]
    columns = (*(["variant"] if "" not in published else []), "top-1", "top-5", "measured with")
    source = next(iter(published.values()))["source"]
    return Table(f"Published, on the test pictures: {source}", columns, tuple(rows))


def shown(published: dict[str, Any]) -> str:
    """Say whether it was published with this set-up, or how that differs."""
    differs = published["differs"]
    return f"another set-up: {'; '.join(differs)}" if differs else "this set-up"
