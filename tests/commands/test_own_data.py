"""The README's lines for one's own data, run as they stand there."""

import os
import re
import subprocess
import sys

import pytest
from own_recordings import Shown, annotate, codes, make_raw, write_pictures, write_table
from test_architecture import CHECKOUT

from brainhive_cli.data.stores.recordings import SignalStore

pytest.importorskip("mne")


def lines_of_the_readme() -> str:
    section = (CHECKOUT / "README.md").read_text().partition("### Your own data in ten lines")[2]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0]


def test_one_s_own_data_takes_ten_lines_as_the_readme_has_them(tmp_path):
    write_pictures(tmp_path / "pictures")
    (tmp_path / "recordings").mkdir()
    shown = Shown.of(3, seed=0)
    raw = annotate(make_raw(shown, seed=0), shown, [str(code) for code in codes(shown)])
    raw.save(tmp_path / "recordings/sub-01_ses-01.fif", verbose="ERROR")
    write_table(tmp_path / "recordings/events.csv")
    command = tmp_path / "bin/brainhive"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m brainhive_cli "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join([str(command.parent), os.environ["PATH"]])
    hidden = {"BRAINHIVE_HOME", "PYTHONSAFEPATH"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"HOME": str(tmp_path), "PATH": path, "PYTHONPATH": str(CHECKOUT)}
    script = lines_of_the_readme()
    assert len(script.splitlines()) <= 10
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path / "work", env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "18 train, 6 test trials" in done.stdout.replace("\n", " ")
    store = SignalStore.open(tmp_path / "work/signals/image-folder/default/sub-01.h5")
    assert store["test"].repetitions.tolist() == [3, 3]
    assert re.search(r"Retrieval of test pictures: intra, image-folder", done.stdout)
    assert "next: brainhive train-align --dataset image-folder" in done.stderr
