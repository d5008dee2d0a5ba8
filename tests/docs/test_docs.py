"""The pages: each can be found, its links lead somewhere, its lines parse against the
real command line.
"""

import importlib
import re
import shlex
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from typer.testing import CliRunner

from brainhive_cli import __version__
from brainhive_cli.app import app
from brainhive_cli.cli import execute
from brainhive_cli.commands.recipes import import_recipe
from brainhive_cli.core.base.errors import (
    INTERRUPTED_EXIT_CODE,
    BrainhiveError,
)
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.results.facts import ROOMS
from brainhive_cli.data.datasets.image_folder import FEW_PICTURES
from tests.test_architecture import CHECKOUT
from tools import gallery, keys_page
from tools.house import CODE_SPAN

RECIPE_KEY = re.compile(r"\b[a-z_]+(?:\.\w+)+(?==)")
"""Key of a recipe before its value."""

DOCS = CHECKOUT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
KEYS = sorted((DOCS / "keys").glob("*.md"))
"""Generated pages: an index, and one for each command."""
OUTSIDE = [
    CHECKOUT / name
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
]
CODE = re.compile(r"^```.*?^```$|^(?: {4}[^\n]*\n)+", re.DOTALL | re.MULTILINE)
"""A fenced or an indented block."""


def named_in(nav):
    """Name the pages of mkdocs' nav, section by section."""
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            (children,) = entry.values()
            yield from named_in([children] if isinstance(children, str) else children)


def anchors(page):
    """Make the names that mkdocs and repositories' sites give to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.MULTILINE)
    plain_lowers = (
        re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings
    )
    return {re.sub(r"[\s]+", "-", heading) for heading in plain_lowers}


def test_navigation_and_indices_list_every_page():
    nav = list(named_in(yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text())["nav"]))
    page_paths = list(PAGES) + list(KEYS) + list(DOCS.glob("*.ipynb"))
    pages = [page.relative_to(DOCS).as_posix() for page in page_paths]
    assert sorted(nav) == sorted(pages), "list each page in mkdocs.yml"
    assert KEYS
    assert "](docs/index.md)" in (CHECKOUT / "README.md").read_text()

    # the index links all guides, that of the keys all pages of keys
    for index, linked in (
        (DOCS / "index.md", [page.name for page in PAGES] + ["keys/index.md"]),
        (DOCS / "keys/index.md", [page.name for page in KEYS]),
    ):
        text = index.read_text()
        assert [
            name for name in linked if name != "index.md" and f"]({name})" not in text
        ] == []


def test_every_relative_link_leads_somewhere():
    for page in tuple(PAGES) + tuple(KEYS) + tuple(OUTSIDE):
        links = re.findall(
            r"\]\((?!https?:|mailto:)([^)\s]+)\)", CODE.sub("", page.read_text())
        )
        for link in links:
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.is_file(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_the_gallery_shows_each_picture_below_its_command():
    page = (DOCS / "gallery.md").read_text()
    entry = r"^    brainhive [^\n]+\n\n!\[[^\]]+\]\(gallery/(\w+)\.png\)\n\n"
    entry += r"\*[^\n]* \d\.\d{3} [^\n]*\*\n"
    names = re.findall(entry, page, re.MULTILINE)
    assert names == list(gallery.PICTURES)
    assert page.count("![") == len(names)
    sizes = {path.name: path.stat().st_size for path in (DOCS / "gallery").iterdir()}
    in_readme = re.findall(r'<img src="([^"]+)"', (CHECKOUT / "README.md").read_text())
    assert len(in_readme) == 3
    assert sum(sizes.values()) < 600_000
    shown_files = {f"{name}.png" for name in names} | {
        Path(name).name for name in in_readme
    }
    assert sizes.keys() == shown_files


def lines_of(page):
    """Find the lines of a page that call Brainhive, in blocks and in the text, with
    variables filled in.
    """
    text = page.read_text()
    for block in CODE.findall(text):
        variables = dict(re.findall(r'^\s*(\w+)="(.*)"$', block, re.MULTILINE))
        for line in block.replace("\\\n", " ").splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            for piece in re.split(
                r"&&|\|(?= )|;", line.partition(" # ")[0].split("   #")[0]
            ):
                if re.match(r"\s*(?:PYTHONPATH=\. )?brainhive ", piece):
                    yield piece.partition("brainhive ")[2].strip()
    yield from re.findall(r"`brainhive ([^`\n]+)`", CODE.sub("", text))


LINES = [
    (page, line)
    for page in list(PAGES) + list(KEYS) + list(OUTSIDE)
    for line in lines_of(page)
    if "…" not in line and "my_parts" not in line  # those are run by test_extending
]


ELSEWHERE = ("tutorial-eeg.md",)
"""Pages whose lines other tests run."""
LEFT_OUT = (
    "--install-completion",
    "demo",
    "doctor",
    "live",
    "workflow",
    "fetch",
    "COMMAND",
    "runs rm",
)
LEFT_OUT = tuple(LEFT_OUT) + (
    "train-align --recipe own-fmri",
    "train-align --dataset image-folder --prior demo:prior backbone.kind=voxel-ridge",
)
"""Lines that other tests run (also those of `mirrored`, a part of the user's), or that
change the machine.
"""
OTHERS = re.compile("mirrored|--submit|--cancel|hub:owner/")
"""Lines that other tests run, wherever these words stand in them."""
GUIDES = [
    (page, line)
    for page, line in LINES
    if page not in KEYS  # which list recipes
    and page.name not in ELSEWHERE
    and not line.startswith(LEFT_OUT)
    and not OTHERS.search(line)
]
"""Lines that `test_guides.py` runs or plans."""


def resolve(
    command,
    common,
    flags,
    arguments,
    *_,
):
    """Stand in for a command: resolve its recipe, and do nothing."""
    pipeline = importlib.import_module(
        f"brainhive_cli.commands.{command.replace('-', '_')}"
    )
    pipeline.Recipe.resolve(command, common["recipe"], flags, arguments)
    return 0


def test_every_line_parses_against_the_real_command_line(home, monkeypatch):
    monkeypatch.setattr(execute, "_run", resolve)
    for name in ("my.yaml", "mine.yaml"):
        (home / name).write_text("")
    # of own vectors, which lines name
    (home / "embeddings/image-folder/train").mkdir(parents=True)
    (home / "embeddings/image-folder/train/my-model.h5").touch()
    assert len(LINES) > 200
    planned = {line for _, line in GUIDES}
    for line in dict.fromkeys(line for _, line in LINES if line not in planned):
        arguments = shlex.split(line)
        if (
            arguments[0].isupper()
            or arguments[0] == "help"
            or set(arguments) & {"--version", "--install-completion"}
        ):
            continue
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code in (0, 3), f"brainhive {line}\n{result.stderr}"


NAMED_BY_USERS = (
    "sweep",
    "steps",
    "train.stages",
    "preparation.regions",
    "preparation.thresholds",
)
"""Keys below which a user's names, or numbers of a list, stand."""


def list_known_keys():
    """List the keys of all commands, and those of parts, below a `*`."""
    key_names = {"*.kind"}
    for command in ROOMS:
        key_names |= {key.path for key in keys_page.list_keys(import_recipe(command))}
    for shelf in parts.SHELVES:
        for kind in parts.list_kinds(shelf):
            config = parts.load(shelf, kind).Config
            key_names |= {f"*.{key.path}" for key in keys_page.list_keys(config)}
    # a section is set as a whole, too
    return key_names | {key.rpartition(".")[0] for key in key_names}


def test_a_guide_names_only_keys_that_exist():
    known_keys = list_known_keys()
    key_names = []
    for page in list(PAGES) + list(OUTSIDE):
        for code in CODE_SPAN.findall(page.read_text()):
            key_names += [(page.name, key) for key in RECIPE_KEY.findall(code)]
    assert len(key_names) > 150

    unknown = []
    for page_name, key in key_names:
        first_step, *steps = key.split(".")
        # a part may have parts in it
        ends = {f"*.{'.'.join(steps[index:])}" for index in range(len(steps))}
        is_key = bool(({key} | set(ends)) & known_keys) or key.startswith(
            NAMED_BY_USERS
        )
        if not is_key and first_step != "key":
            unknown.append(f"{page_name}: {key} was renamed, or never was a key")
    assert unknown == []


ELSEWHERE_NAMED = {
    "eeg_features",
    "image_features",
    "soft_clip",
    "sdxl_unclip",
    "video_2way",
    "video_50way",
    "frame_2way",
    "frame_50way",  # composed names
}
"""Names in code of a guide that the code does not spell out."""


def test_a_guide_names_only_what_the_code_names():
    spelt = set(ELSEWHERE_NAMED)
    for path in (CHECKOUT / "brainhive_cli").rglob("*"):
        if path.suffix in (".py", ".json", ".yaml", ".txt"):
            spelt |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    for page in list(PAGES) + list(OUTSIDE):
        for name in re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", page.read_text()):
            assert name in spelt, f"{page.name}: {name} was renamed"


def test_the_page_on_errors_has_every_error_with_its_exit_code():
    table = (DOCS / "errors.md").read_text()
    kinds, ahead = [], [BrainhiveError]
    while ahead:
        kinds.append(ahead.pop())
        ahead += kinds[-1].__subclasses__()
    public = {
        kind
        for kind in kinds
        if kind.__module__.startswith("brainhive_cli") and kind.__name__[0] != "_"
    }
    absent = [
        kind.__name__
        for kind in public
        if f"| {kind.exit_code} | `{kind.__name__}` |" not in table
    ]
    assert len(public) > 5
    assert absent == []
    assert f"| {INTERRUPTED_EXIT_CODE} |" in table


def test_the_readme_has_its_two_commands_and_ci_runs_the_second():
    commands = re.findall(
        r"```bash\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.S
    )[0].splitlines()
    assert commands == [
        "pip install -e . && brainhive demo",
        'pip install -e ".[test]" && pytest -n 2 --dist loadfile',
    ]
    ci = (CHECKOUT / ".ci" / "run").read_text()
    pattern = re.search(r"""eval "\$\(grep -m 1 -F '(.+)' README.md\)\"""", ci)
    assert pattern is not None
    assert pattern[1] in commands[1]


def test_the_readme_is_short_and_numbers_of_several_pages_agree():
    readme = (CHECKOUT / "README.md").read_text()
    assert len(readme.split()) <= 800
    comments = re.findall(r"^[^#\n]*\s(#.*)$", "\n".join(CODE.findall(readme)), re.M)
    assert max(map(len, comments)) <= 60

    # numbers that stand in several places, as each of them writes them
    gallery_page, start = (
        (DOCS / name).read_text() for name in ("gallery.md", "start.md")
    )
    assert "64.6 % of cases (95 % CI 59 to 69 %" in readme
    assert ".646 (.594–.695)" in gallery_page
    assert f"up to {FEW_PICTURES} training pictures" in readme
    for number in ("15 seconds", "6 GB"):
        assert number in readme
        assert number in start
    minutes = re.findall(r"# (\d+) minutes", (CHECKOUT / "CONTRIBUTING.md").read_text())
    assert minutes == ["7"]
    assert "seven minutes on two cores" in readme


def test_dependencies_have_lower_bounds_only_as_the_guide_says():
    assert "lower bounds only" in (DOCS / "start.md").read_text().replace("\n", " ")
    pyproject = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    for line in pyproject["project"]["dependencies"]:
        operators = {bound.operator for bound in Requirement(line).specifier}
        assert operators == {">="}, line


def test_the_citation_has_this_version_and_the_four_papers():
    cited = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert cited["version"] == __version__
    identifiers = {
        identifier["value"]
        for paper in cited["references"]
        for identifier in paper["identifiers"]
    }
    assert identifiers == {
        f"arXiv:{id}" for id in ("2602.07495", "2502.03081", "2510.03122", "2503.11167")
    }
    readme = (CHECKOUT / "README.md").read_text()
    assert all(paper["title"] in readme for paper in cited["references"])


def test_the_newest_changes_have_the_version_of_the_citation():
    sections = re.findall(
        r"^## (\S+) \((.+)\)$", (CHECKOUT / "CHANGELOG.md").read_text(), re.M
    )
    cited = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert sections[0] == (__version__, str(cited.get("date-released", "not released")))
    # it is read before a tag is made
    assert len((CHECKOUT / "CHANGELOG.md").read_text().splitlines()) <= 30
    # the version is written once
    pyproject = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert pyproject["tool"]["hatch"]["version"]["path"] == "brainhive_cli/__init__.py"
    assert pyproject["project"]["dynamic"] == ["version"]
