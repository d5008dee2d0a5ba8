"""Libraries of the environment that others hide, of PYTHONPATH or ~/.local.

The module imports only Python's own library, because any other may be an old one.
"""

import site
import sys
import traceback
from importlib.metadata import distributions


def describe_hidden_libraries(error: BaseException | None = None) -> str:
    """Name libraries that come before another version of the environment.

    Args:
        error: If given, only libraries that its message or its innermost calls name.

    Returns:
        A hint, which is empty without such libraries.
    """
    # calls below the innermost line of Brainhive
    text = "".join(traceback.format_exception(error)).rpartition("brainhive_cli")[2]
    environment = site.getsitepackages()
    own_versions = _list_versions(environment)
    descriptions: dict[str, str] = {}
    for folder in sys.path:
        if folder in environment:
            break
        for name, version in _list_versions([folder]).items():
            own_version = own_versions.get(name, version)
            if own_version != version and (error is None or name in text):
                description = f"{name} {version} of {folder} comes before {own_version}"
                descriptions.setdefault(name, description)
    if not descriptions:
        return ""
    # Largest number of libraries that a hint names.
    hidden = "; ".join(list(descriptions.values())[:3])
    return f"{hidden}: set PYTHONNOUSERSITE=1, or take the folder out of PYTHONPATH"


def _list_versions(folders: list[str]) -> dict[str, str]:
    """Return the versions of the libraries in folders, by name as in an import."""
    versions = {}
    for library in distributions(path=folders):
        versions[library.name.lower().replace("-", "_")] = library.version
    return versions
