"""The extras of pyproject.toml: tools/check_extras.sh tries each, and braindecode's torch fits torchaudio."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

CHECKOUT = Path(__file__).resolve().parents[1]
EXTRAS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_every_extra_has_a_step_in_the_script_that_tries_them():
    script = (CHECKOUT / "tools" / "check_extras.sh").read_text()

    assert set(re.findall(r"^        ([a-z0-9-]+)\)", script, re.M)) == {"none", "wheel", *EXTRAS, "all"}


def test_braindecode_is_installed_with_a_torch_of_the_cuda_that_its_torchaudio_was_built_for():
    """torchaudio 2.11 states no torch, and refuses any CUDA but 13.0: that of torch 2.11 to 2.14 on Linux."""
    (torch,) = [each for each in map(Requirement, EXTRAS["braindecode"]) if each.name == "torch"]

    assert list(torch.specifier.filter(["2.10.0", "2.11.0", "2.14.1", "2.15.0"])) == ["2.11.0", "2.14.1"]
    assert torch.marker and torch.marker.evaluate({"platform_system": "Linux"})
    assert not torch.marker.evaluate(
        {"platform_system": "Darwin"}
    )  # wheels without CUDA, which nothing refuses
