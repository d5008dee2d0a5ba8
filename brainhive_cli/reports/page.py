"""One self-contained HTML page of tables and pictures."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

from brainhive_cli.core.console import Table

LARGE_BYTES = 500_000
"""A picture of more bytes is put into a page as JPEG; the PNG stays a file."""

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title><style>
:root { color-scheme: light dark; --line: #8884; --soft: #8882 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
caption { text-align: left; white-space: nowrap }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0 }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line) }
pre { background: var(--soft); padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere }
.note { opacity: .75 }
img { max-width: 100%; image-rendering: auto; background: #fff; border: 1px solid var(--line) }
</style></head><body>
<h1>{{ title }}</h1><p class="note">{{ note }}</p>
{% for section in sections %}<h2>{{ section.title }}</h2>
{% if section.commands %}<pre>{{ section.commands | join("\n") }}</pre>{% endif %}
{% for table in section.tables %}<table><caption class="note">{{ table.title }}</caption>
<tr>{% for column in table.columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell | cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}{% for name, data in section.images %}<figure><img alt="{{ name }}" src="{{ data }}"></figure>
{% endfor %}{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class Section:
    """A heading with its tables and pictures."""

    title: str
    tables: Sequence[Table] = ()
    pictures: Mapping[str, Path] = field(default_factory=dict)
    commands: Sequence[str] = ()

    @property
    def images(self) -> list[tuple[str, str]]:
        """The pictures as data, so that the page needs no other file; files of other kinds are left out."""
        return [(name, _as_data(path)) for name, path in self.pictures.items() if path.suffix == ".png"]


def write_page(path: Path, title: str, note: str, sections: Sequence[Section]) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        title: Its heading.
        note: What every reader must know first.
        sections: Its body, in order.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["cell"] = lambda cell: f"{cell:.4g}" if isinstance(cell, float) else str(cell)
    page = environment.from_string(TEMPLATE).render(title=title, note=note, sections=sections)
    path.write_text(page, encoding="utf-8")


def _as_data(path: Path) -> str:
    """Give a PNG as a data URL; as JPEG if it is large: a tenth of the bytes for photographs."""
    if path.stat().st_size <= LARGE_BYTES:
        return f"data:image/png;base64,{_base64(path.read_bytes())}"
    jpeg = BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(jpeg, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{_base64(jpeg.getbuffer())}"


def _base64(content: bytes | memoryview) -> str:
    return base64.b64encode(content).decode()
