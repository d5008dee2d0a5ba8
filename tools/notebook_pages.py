"""Hook of mkdocs: shows the notebooks of the guides as pages, without running them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

SUFFIX = ".ipynb"
"""Ending of notebooks."""


class NotebookFile(File):
    """A notebook, which mkdocs treats as a page."""

    def is_documentation_page(self) -> bool:
        """Return True, as for a page in Markdown."""
        return True


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace each notebook by a page."""
    for file in list(files):
        if file.src_uri.endswith(SUFFIX):
            files.remove(file)
            files.append(
                NotebookFile(
                    file.src_uri,
                    src_dir=config.docs_dir,
                    dest_dir=config.site_dir,
                    use_directory_urls=config.use_directory_urls,
                )
            )
    return files


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:
    """Return the Markdown of a notebook, or None for any other page."""
    if not page.file.src_uri.endswith(SUFFIX):
        return None
    notebook = json.loads(page.file.content_string)
    return write_markdown(notebook, Path(page.file.src_uri).name)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Copy a notebook to its page, where the link to download it leads."""
    if page.file.src_uri.endswith(SUFFIX) and page.file.abs_src_path:
        folder = Path(page.file.abs_dest_path).parent
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(page.file.abs_src_path, folder)
    return output


def write_markdown(notebook: Mapping[str, Any], file_name: str) -> str:
    """Write the cells of a notebook as Markdown.

    Args:
        notebook: Document of the notebook, whose first cell has the title.
        file_name: Name of the notebook, to which a link below the title leads.
    """
    paragraphs = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            source = f"```python\n{source}\n```"
        paragraphs.append(source)
    title, _, introduction = paragraphs[0].partition("\n")
    link = f'<a href="{file_name}" download>Download this notebook</a>'
    return "\n\n".join([title, link, introduction, *paragraphs[1:]])
