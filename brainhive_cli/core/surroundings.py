"""Environment variables and dotfiles of the user, where one of them made a library fail."""

import importlib.util
import os
import re
from pathlib import Path
from traceback import walk_tb
from urllib.parse import urlsplit

from brainhive_cli.core.errors import RecipeError, first_line
from brainhive_cli.core.files import home_folder

OF_LIBRARIES = re.compile(
    "HF|HUGGING|TRANSFORMERS|DIFFUSERS|ACCELERATE|TOKENIZERS|TORCH|PYTORCH|CUDA|OMP|MKL|NUM|MPL|MATPLOTLIB|"
    "MNE|SSL|REQUESTS|CURL|XDG_.*_HOME|WANDB|HDF5"
)
"""How the names of variables begin that libraries read."""
SECRET = re.compile("(TOKEN|KEY|PASSWORD|SECRET)$")
"""How the names of those end whose values are shown nowhere."""
CERTIFICATES = ("SSL_CERT_FILE", "SSLKEYLOGFILE")
OF_THE_NETWORK = {"httpx", "httpx2", "httpcore", "ssl", "urllib", "huggingface_hub"}
"""Packages that read the variables of proxies, addresses and certificates."""
PROXIES = ("http", "https", "socks5", "socks5h")
"""Schemes of proxies that httpx knows."""
MIN_LENGTH = 3
"""Least letters of a value that is looked for in the text of an error: `1` is in any."""
INNERMOST, MAX_CONFIG_BYTES = 4, 1 << 20
"""Frames of an error that may name the file that was read, and the most bytes of a dotfile."""


def explain(error: BaseException) -> RecipeError | None:
    """Name the variable or the dotfile that made a library fail; None where none is known to be the cause."""
    # what was said, and where
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    text, reason = " ".join(map(str, chain)), first_line(error)
    frames = [frame for one in chain for frame, _ in walk_tb(one.__traceback__)]
    packages = {str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in frames}

    # an error about a file below home is one of the user's data, not of a variable
    if str(getattr(error, "filename", None) or "").startswith(os.path.abspath(home_folder()) + os.sep):
        return None

    # an address or certificate, which no error names; other variables by their value in the text
    for name, value in os.environ.items():
        problem, way = "", f"correct it, or unset {name}"
        if _is_address(name):
            if packages & OF_THE_NETWORK:
                problem, need = _describe_address(value, PROXIES[: 2 if name == "HF_ENDPOINT" else 4])
                way = need + way
        elif name in CERTIFICATES:
            # a key log is created in its folder; certificates must be there
            folder = os.path.dirname(value) if name == "SSLKEYLOGFILE" else value
            is_bad = not os.path.exists(folder) or "certificate" in reason
            problem = reason if is_bad and isinstance(error, OSError) and packages & OF_THE_NETWORK else ""
        elif OF_LIBRARIES.match(name) and len(value) >= MIN_LENGTH and not SECRET.search(name):
            before = r"(?<!\w)" if "/" in value else "['\"]|: "  # words as `error` are in any text
            problem = reason if re.search(rf"(?:{before}){re.escape(value)}(?!\w)", text) else ""
        if problem:
            shown = _without_password(value)
            return RecipeError(f"the environment variable {name} is {shown!r}: {problem}", way)

    # the dotfile that was read when it failed
    for frame in frames[: -1 - INNERMOST : -1]:
        for path in filter(_is_dotfile, frame.f_locals.values()):
            return RecipeError(f"{path}: {reason}", "correct this file, or move it away")
    return None


def describe_route() -> str:
    """Say through which proxy or mirror the hub was looked for, where there is one; offline there is none."""
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        return ""
    names = [name for name in os.environ if _is_address(name) and os.environ[name]]
    said = [f"{name} {_without_password(os.environ[name])}" for name in names]
    return f" through {', '.join(said)}" if said else ""


def _is_address(name: str) -> bool:
    return name == "HF_ENDPOINT" or name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def _without_password(address: str) -> str:
    return re.sub("//[^/@]*@", "//…@", address)[:80]


def _describe_address(value: str, schemes: tuple[str, ...]) -> tuple[str, str]:
    """Say why an address is none, or which package it needs; two empty texts for a good one."""
    # a proxy may stand without a scheme, HF_ENDPOINT may not
    try:
        parts = urlsplit(value if "://" in value or len(schemes) < len(PROXIES) else f"http://{value}")
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        return first_line(error), ""
    if not value:
        return "", ""
    if parts.scheme not in schemes or not is_address:
        return f"no address that begins with {', '.join(f'{scheme}://' for scheme in schemes)}", ""
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        return "a SOCKS proxy needs the package socksio", "pip install 'httpx[socks]'; or "
    return "", ""


def _is_dotfile(value: object) -> bool:
    """Whether a value names a config of the user's: a small file behind a dot, and no code, model or data."""
    if not isinstance(value, str | Path) or not os.path.isabs(value):
        return False
    path, user, home = Path(value), Path(os.path.expanduser("~")), Path(os.path.abspath(home_folder()))
    is_ours = home != user and path.is_relative_to(home)
    # hidden below the user's folder, without code and caches that lie there too
    is_hidden = path.is_relative_to(user) and str(path.relative_to(user))[:1] == "."
    is_code = path.suffix in (".py", ".pyc", ".so") or {"site-packages", "hub"} & {*path.parts}
    is_config = (is_hidden and path != user) or path.name == "matplotlibrc"
    # a text among the variables of a frame may be no path
    try:
        is_small = path.is_file() and path.stat().st_size < MAX_CONFIG_BYTES
        return bool(is_config and is_small and not (is_ours or is_code))
    except (OSError, ValueError):
        return False
