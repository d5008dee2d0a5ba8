"""The README's lines for one's own data, run as they stand there."""

import os
import re
import shlex
import subprocess

import pytest
from own_recordings import Shown, annotate, codes, make_raw, write_pictures, write_table
from test_architecture import CHECKOUT

from brainhive_cli.data.stores.recordings import SignalStore

pytest.importorskip("mne")


def lines_of_the_readme() -> str:
    section = (CHECKOUT / "README.md").read_text().partition("### Your own data in ten lines")[2]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0]


def test_one_s_own_data_takes_ten_lines_as_the_readme_has_them(tmp_path, brainhive, monkeypatch):
    write_pictures(tmp_path / "pictures")
    (tmp_path / "recordings").mkdir()
    shown = Shown.of(3, seed=0)
    raw = annotate(make_raw(shown, seed=0), shown, [str(code) for code in codes(shown)])
    raw.save(tmp_path / "recordings/sub-01_ses-01.fif", verbose="ERROR")
    write_table(tmp_path / "recordings/events.csv")
    monkeypatch.delenv("BRAINHIVE_HOME", raising=False)
    work, told = tmp_path / "work", []
    work.mkdir()
    script = lines_of_the_readme()
    assert len(script.splitlines()) <= 10
    for line in script.splitlines():
        if line.startswith("brainhive "):
            told.append(brainhive(*shlex.split(line, comments=True)[1:], cwd=work))
            assert told[-1].returncode == 0, told[-1].stderr
        else:
            subprocess.run(
                ["bash", "-ec", line], cwd=work, env={**os.environ, "HOME": str(tmp_path)}, check=True
            )
    output = "".join(ended.stdout for ended in told)
    assert "18 train, 6 test trials" in output.replace("\n", " ")
    store = SignalStore.open(work / "signals/image-folder/default/sub-01.h5")
    assert store["test"].repetitions.tolist() == [3, 3]
    assert "Retrieval, test" in output and "Protocol: intra, image-folder" in output
    assert "next: brainhive train-align --dataset image-folder" in "".join(ended.stderr for ended in told)
