"""Commands that are submitted to a cluster: what the scheduler is asked, and what its tasks then do."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.cli import submission
from brainhive_cli.commands import train_align
from brainhive_cli.core import hub
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.signal_stores import SignalStore

SCHEDULER = {
    "sbatch": """
        echo "sbatch $*" >> "$QUEUE/calls"
        if [ -f "$QUEUE/refusal" ]; then cat "$QUEUE/refusal" >&2; exit 1; fi
        number=$(( $(cat "$QUEUE/last" 2>/dev/null || echo 10) + 1 ))
        echo "$number" | tee "$QUEUE/last"
    """,
    "squeue": """
        if [ -s "$QUEUE/busy" ]; then
            head -n 1 "$QUEUE/busy" >&2; sed -i 1d "$QUEUE/busy"; exit 1
        fi
        for word; do case "$word" in --name=*) names=${word#--name=};; esac; done
        if grep -q -e "--job-name=${names%%,*} " "$QUEUE/calls" 2>/dev/null; then
            cut -d " " -f 1 "$QUEUE/tasks" 2>/dev/null || true
        fi
    """,
    "scontrol": 'echo "scontrol $*" >> "$QUEUE/calls"; touch "$QUEUE/requeued"; (sleep 0.3; kill $PPID) &',
}
"""Programs of a scheduler that writes down what it is asked; the test says which tasks are queued."""
PLAN = ("run.cluster.partition=gpu,long", "run.cluster.memory=32G", "run.cluster.time=12:00:00")

ALONE = Launch(0, 1, torch.device("cpu"))
DEMO = "dataset={kind: demo, noise: 0.3, subjects: 2, concepts: 40}"


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a scheduler whose programs are in PATH."""
    folder = tmp_path / "queue"
    (folder / "bin").mkdir(parents=True)
    for name, lines in SCHEDULER.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{lines}")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("QUEUE", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def line(world: Path, small: tuple[str, ...], runs: str, code_allowed: None) -> tuple[str, ...]:
    """A training of four cells, with runs of its own."""
    return ("train-align", *small, "train.epochs=1", "seeds=1,2", runs, "run.device=cpu")


def call(*argv: str) -> Any:
    return CliRunner().invoke(app, list(argv))


def calls(queue: Path) -> list[str]:
    return (queue / "calls").read_text().splitlines() if (queue / "calls").is_file() else []


def submitted(tmp_path: Path, command: str = "train-align") -> Path:
    return next((tmp_path / "runs/.submitted").glob(f"{command}-*"))


def run_task(folder: Path, job: int, number: int, step: str = "train-align") -> int:
    """Run the script of a job as the scheduler would, its output in the log."""
    variables = {"SLURM_ARRAY_JOB_ID": str(job), "SLURM_ARRAY_TASK_ID": str(number)}
    with open(folder / f"logs/{job}_{number}.txt", "a") as log:
        script = ["bash", str(folder / f"{step}.sh")]
        done = subprocess.run(script, env={**os.environ, **variables}, stdout=log, stderr=log, check=False)
    return done.returncode


def test_a_command_of_one_cell_is_submitted_as_one_task(world, runs):
    one_store = ("encoders=demo-clip", "splits=test")
    shown = call("embed", DEMO, runs, *one_store, "run.cluster.tasks=4", "--submit", "--check")

    assert shown.exit_code == 0 and "#SBATCH --array=0-0\n" in shown.stdout, shown.output


def test_weights_that_are_done_without_are_not_to_be_downloaded_first(line, tmp_path, monkeypatch):
    absent = hub.Unreachable("no weights", f"{hub.ELSEWHERE}hf download owner/metric")
    optional = Input("weights of a metric", None, absent, is_optional=True)
    monkeypatch.setattr(train_align, "inputs", lambda recipe: [optional])

    shown = call(*line, "--submit", "--check")

    assert shown.exit_code == 0 and "# Nothing is to be downloaded first" in shown.stdout, shown.output


def test_a_check_prints_the_script_and_asks_no_scheduler(line, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    result = call(*line, *PLAN, "--submit", "--check")

    assert result.exit_code == 0, result.output
    script, _, after = result.stdout.rpartition("#")
    assert after.strip() == "Nothing is to be downloaded first"
    wanted = ("--array=0-3", "--partition=gpu,long", "--mem=32G", "--time=12:00:00", "--requeue")
    assert all(f"#SBATCH {option}\n" in script for option in wanted)
    assert "--gpus-per-node" not in script and "HF_HUB_OFFLINE=1" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert not (tmp_path / "runs/.submitted").exists()


def test_a_job_in_a_container_has_home_and_the_cache_of_the_hub(line, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    options = ("run.cluster.container=lab image.sif", "run.cluster.gpus=2")
    script = call(*line, *options, "--submit", "--check").stdout
    home = os.environ["BRAINHIVE_HOME"]
    words = f"apptainer exec --nv --bind {home} --bind {tmp_path} --bind {tmp_path / 'hub'} "
    assert f"{words}--env HF_HOME={tmp_path / 'hub'} 'lab image.sif' brainhive train-align --recipe" in script


def test_a_line_is_submitted_once_and_then_found_finished(line, queue, tmp_path):
    first = call(*line, "--submit", "run.cluster.tasks=2")
    assert first.exit_code == 0 and "submitted train-align: job 11, 2 tasks" in first.stderr, first.output
    folder = submitted(tmp_path)
    (queue / "tasks").write_text("11_0 RUNNING\n11_1 PENDING\n")
    second = call(*line, "--submit", "run.cluster.tasks=2")
    assert "2 tasks of this line are queued or running" in second.stderr
    job = f"brainhive-{folder.name.rpartition('-')[2]}-train-align"
    assert calls(queue) == [f"sbatch --parsable --job-name={job} {folder / 'train-align.sh'}"]
    assert all(f"scancel --me --name={job}" in shown.stderr for shown in (first, second))

    tasks = [run_task(folder, 11, number) for number in (0, 1)]
    (queue / "tasks").write_text("")
    assert tasks == [0, 0], (folder / "logs/11_0.txt").read_text()
    assert "nothing is submitted" in call(*line, "--submit").stderr
    assert RunFolder(next((tmp_path / "runs/train-align").iterdir())).is_finished and len(calls(queue)) == 1


def test_a_scheduler_that_is_busy_is_not_taken_for_one_without_tasks(line, queue):
    call(*line, "--submit")
    (queue / "busy").write_text("squeue: error: Socket timed out on send/recv operation\n")
    refused = call(*line, "--submit")
    assert refused.exit_code == 1 and "Socket timed out" in refused.stderr and len(calls(queue)) == 1


def test_a_line_without_a_run_is_submitted_again(line, queue):
    call(*line, "--submit")
    assert "job 12" in call(*line, "--submit").stderr


def test_a_finished_line_is_submitted_again_where_its_signals_have_changed(line, queue, tmp_path, world):
    signals = shutil.copytree(world / "signals", tmp_path / "signals")
    line = (*line, f"paths.signals={signals}")
    call(*line, "--submit", "run.cluster.tasks=1")
    folder = submitted(tmp_path)
    assert run_task(folder, 11, 0) == 0, (folder / "logs/11_0.txt").read_text()
    assert "nothing is submitted" in call(*line, "--submit").stderr
    assert "job 12" in call(*line, "--submit", f"paths.signals={tmp_path / 'others'}").stderr
    assert "nothing is submitted" in call(*line, "--submit").stderr

    store = signals / "demo-noise-0.3-40-concepts/default/sub-01.h5"
    recordings = SignalStore.open(store).splits
    changed = {split: replace(read, signal=read.signal[:] + 1) for split, read in recordings.items()}
    SignalStore.write(store, changed)
    assert "job 13" in call(*line, "--submit").stderr


def test_a_line_that_was_finished_in_a_terminal_is_not_submitted_and_stays_as_it_is(line, queue, tmp_path):
    assert call(*line).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/train-align").rglob("*")}
    assert "nothing is submitted" in call(*line, "--submit").stderr and not calls(queue)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/train-align").rglob("*")}
    assert after == before


def test_a_scheduler_may_answer_in_any_coding(line, queue):
    (queue / "refusal").write_bytes("sbatch: error: Partition überlastet\n".encode("latin-1"))
    refused = call(*line, "--submit")
    assert refused.exit_code == 1 and "sbatch: error: Partition \ufffdberlastet" in refused.stderr


def test_steps_with_one_name_in_names_of_files_are_refused(world, small, runs, queue, tmp_path):
    training = {"command": "train-align", "overrides": [*small]}
    for other in ("a-b", "A b"):
        (tmp_path / "steps.yaml").write_text(json.dumps({"steps": {"a b": training, other: training}}))
        line = ("workflow", "--recipe", str(tmp_path / "steps.yaml"), runs, "run.device=cpu", "--allow-code")
        result = call(*line, "--submit")
        assert result.exit_code == 2 and f"'a b' and {other!r} have one name in files" in result.stderr
    assert not calls(queue)


def test_a_finished_line_is_submitted_again_where_it_would_read_another_run(
    world, small, line, queue, tmp_path
):
    training = [*(word for word in small if not word.startswith("seeds")), "train.epochs=1"]
    runs = line[-2]
    evaluation = ("eval-retrieval", runs, "run.device=cpu", "sheet_rows=0")
    assert call("train-align", *training, "seeds=1", runs, "run.device=cpu").exit_code == 0
    assert "job 11" in call(*evaluation, "--submit").stderr
    folder = submitted(tmp_path, "eval-retrieval")
    first = next((tmp_path / "runs/train-align").iterdir()).name
    assert re.search(rf"^align_run:\n- .*{first}\n", (folder / "line.yaml").read_text(), re.MULTILINE)
    assert run_task(folder, 11, 0, "eval-retrieval") == 0, (folder / "logs/11_0.txt").read_text()
    assert "nothing is submitted" in call(*evaluation, "--submit").stderr

    assert call("train-align", *training, "seeds=2", runs, "run.device=cpu").exit_code == 0
    assert "job 12" in call(*evaluation, "--submit").stderr
    assert first not in (folder / "line.yaml").read_text()


@pytest.mark.parametrize("key", ["template", "container"])
def test_a_script_or_image_that_a_file_names_needs_permission(world, small, runs, queue, tmp_path, key):
    recipe = tmp_path / "train-align.yaml"
    recipe.write_text(json.dumps({"extends": "train-align", "run": {"cluster": {key: "theirs"}}}))
    (tmp_path / "theirs").write_text("#!/bin/bash\n")
    line = ("train-align", "--recipe", str(recipe), *small, runs, "run.device=cpu")
    refused = call(*line, "--submit")
    assert refused.exit_code == 2 and f"run.cluster.{key} theirs is code, named by a file" in refused.stderr
    assert not calls(queue)
    assert "job 11" in call(*line, "--submit", "--allow-code").stderr
    assert "job 12" in call(*line, "dim=32", f"run.cluster.{key}=theirs", "--submit").stderr


def test_a_template_runs_no_code_when_it_is_filled_in(line, tmp_path):
    (tmp_path / "job.j2").write_text("{{ name.__class__.__mro__ }}")
    result = call(*line, f"run.cluster.template={tmp_path / 'job.j2'}", "--submit", "--check")
    assert result.exit_code == 2 and "unsafe" in result.stderr


def test_what_is_to_be_downloaded_is_the_last_line_also_where_the_hub_cannot_be_reached(
    home, queue, monkeypatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = ("embed", "--recipe", "demo", "--encoders", "hub:nobody/nothing", "--submit")
    result = call(*line, "--check")
    assert result.exit_code == 3
    last = result.stdout.splitlines()[-1]
    assert last.startswith("# First, where there is a network: hf download nobody/nothing")
    assert call(*line).exit_code == 3 and not calls(queue)


def test_programs_read_the_submission_as_one_document(line, queue, tmp_path):
    planned = json.loads(call(*line, "--submit", "--check", "--json").stdout)
    assert "#SBATCH --array=0-3" in planned["scripts"]["train-align"] and planned["downloads"] == []
    result = json.loads(call(*line, "--submit", "--json").stdout)
    assert result["jobs"] == [{"step": "train-align", "id": "11", "tasks": 4}]
    assert Path(result["folder"]) == submitted(tmp_path)


def test_each_step_of_a_workflow_waits_for_the_one_before(world, small, runs, queue, tmp_path, code_allowed):
    steps = {
        "train-align": {"overrides": [*small, "train.epochs=1"]},
        "eval-retrieval": {"overrides": ["sheet_rows=0"]},
    }
    (tmp_path / "steps.yaml").write_text(json.dumps({"steps": steps}))
    line = ("workflow", "--recipe", str(tmp_path / "steps.yaml"), runs, "run.device=cpu")
    result = call(*line, "--submit")
    assert result.exit_code == 0, result.output

    folder = submitted(tmp_path, "workflow")
    job = f"brainhive-{folder.name.rpartition('-')[2]}"
    assert calls(queue) == [
        f"sbatch --parsable --job-name={job}-train-align {folder / 'train-align.sh'}",
        f"sbatch --parsable --job-name={job}-eval-retrieval "
        "--dependency afterok:11_0?afterok:11_1 --kill-on-invalid-dep=yes "
        + str(folder / "eval-retrieval.sh"),
    ]
    assert run_task(folder, 11, 0) == 0, (folder / "logs/11_0.txt").read_text()
    runs_folder = tmp_path / "runs"
    assert not (runs_folder / "workflow").exists()
    assert "submitted eval-retrieval: job 13" in call(*line, "--submit").stderr
    assert run_task(folder, 13, 0, "eval-retrieval") == 0, (folder / "logs/13_0.txt").read_text()
    assert len([*runs_folder.glob("*/*/metrics.json")]) == 3  # the workflow's own, too
    assert "nothing is submitted" in call(*line, "--submit").stderr


def test_a_line_that_would_make_everything_again_is_refused(line, queue):
    refused = call(*line, "--submit", "--again")
    assert refused.exit_code == 2 and "--again would make everything once more" in refused.stderr
    assert not calls(queue)


def test_steps_after_the_last_one_that_is_asked_for_are_not_submitted(queue, tmp_path, world, small, runs):
    steps = {"train-align": {"overrides": [*small]}, 'what "it" knows': {"command": "eval-retrieval"}}
    (tmp_path / "steps.yaml").write_text(json.dumps({"steps": steps}))
    line = ("workflow", "--recipe", str(tmp_path / "steps.yaml"), runs, "run.device=cpu")
    assert call(*line, "until=train-align", "--submit", "--allow-code").exit_code == 0
    assert len(calls(queue)) == 1


def test_names_with_spaces_quotes_and_percent_signs_reach_the_scheduler_and_come_back(
    queue, tmp_path, world, small
):
    folder, name = tmp_path / "50% of 'all' $(touch broken) runs", 'what "it" learns²; 😀 touch ../broken'
    steps = {name: {"command": "train-align", "overrides": [*small, "train.epochs=1"]}}
    (tmp_path / "steps.yaml").write_text(json.dumps({"steps": steps}, ensure_ascii=False))
    line = (
        "workflow",
        "--recipe",
        str(tmp_path / "steps.yaml"),
        f'paths.runs="{folder}"',
        "run.device=cpu",
        "--allow-code",
    )
    result = call(*line, "--submit")
    assert result.exit_code == 0, result.output

    own, plain = next((folder / ".submitted").iterdir()), "what-it-learns²-touch-..-broken"
    script = (own / f"{plain}.sh").read_text()
    assert f"#SBATCH --job-name='brainhive-{plain}'\n" in script
    option = re.search(r"^#SBATCH (--output=.*)$", script, flags=re.MULTILINE)
    assert option and shlex.split(option[1]) == [f"--output={own}/logs/%A_%a.txt".replace("50%", "50%%")]
    assert run_task(own, 11, 0, plain) == 0, (own / "logs/11_0.txt").read_text()
    assert not [*folder.glob("*broken*")] and "nothing is submitted" in call(*line, "--submit").stderr


@pytest.mark.parametrize("name", ["", "\ufffe"])
def test_a_step_whose_name_has_no_letter_runs_in_its_task(name, world, small, runs, queue, tmp_path):
    steps = {name: {"command": "train-align", "overrides": [*small, "train.epochs=1"]}}
    (tmp_path / "steps.yaml").write_text(json.dumps({"steps": steps}))
    line = ("workflow", "--recipe", str(tmp_path / "steps.yaml"), runs, "run.device=cpu", "--allow-code")
    assert "submitted -: job 11" in call(*line, "--submit").stderr
    folder = submitted(tmp_path, "workflow")
    assert run_task(folder, 11, 0, "-") == 0, (folder / "logs/11_0.txt").read_text()


def test_code_that_the_line_names_may_run_in_its_tasks(world, runs, queue, tmp_path, monkeypatch):
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "lab_encoder.py").write_text("from brainhive_cli.models.encoders.python import example\n")
    monkeypatch.setenv("PYTHONPATH", f"{lab}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(lab))
    encoders, own = "encoders=['python:lab_encoder:example']", f"paths.embeddings={tmp_path / 'embeddings'}"
    line = ("embed", DEMO, encoders, runs, own, "run.device=cpu")
    assert "--allow-code" in call(*line, "--submit", "--check").stdout
    assert call(*line, "--submit").exit_code == 0
    folder = submitted(tmp_path, "embed")
    assert run_task(folder, 11, 0, "embed") == 0, (folder / "logs/11_0.txt").read_text()

    # stores that have gone are made again
    (queue / "tasks").write_text("")
    assert "nothing is submitted" in call(*line, "--submit").stderr
    next((tmp_path / "embeddings").rglob("*.h5")).unlink()
    assert "submitted embed: job 12" in call(*line, "--submit").stderr


@pytest.mark.parametrize("is_time_over", [True, False])
def test_the_script_passes_the_signal_on_and_queues_its_task_again(line, queue, tmp_path, is_time_over):
    call(*line, "--submit", "run.cluster.tasks=2")
    folder = submitted(tmp_path)
    (tmp_path / "worker.sh").write_text("trap 'exit 75' USR1; touch begun; while true; do sleep 0.05; done")
    script = (folder / "train-align.sh").read_text()
    script = re.sub(r"^cd .*$", f"cd {tmp_path}", script, flags=re.MULTILINE)
    script = re.sub(r"^.*-m brainhive_cli .* &$", "bash worker.sh &", script, flags=re.MULTILINE)
    variables = {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "1"}
    task = subprocess.Popen(["bash", "-c", script], env={**os.environ, **variables})
    deadline_s = time.monotonic() + 20
    while not (tmp_path / "begun").is_file() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    task.send_signal(signal.SIGUSR1 if is_time_over else signal.SIGTERM)
    code = task.wait(timeout=20)

    assert code == 75 and (queue / "requeued").exists() is is_time_over
    if is_time_over:
        assert calls(queue)[-1] == "scontrol requeue 11_1"


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("#!/bin/bash\n{% if %}\n", r"job\.j2: "),
        ("#!/bin/bash\n{{ queue }}\n", r"job\.j2: 'queue' is undefined"),
        ("{{ 1 // 0 }}", r"job\.j2: "),
        ("\n{{ name.lines.first }}", r"job\.j2: 'str object' has no attribute 'lines'"),
        ("{{ name | round }}", r"job\.j2: type str doesn't define __round__"),
        ("{% include 'other' %}", r"job\.j2: no loader"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", r"job\.j2: maximum recursion depth"),
        ("{{ " + "(" * 5000 + " }}", r"job\.j2: maximum recursion depth"),
        ("{% for i in range(10**9) %}x{% endfor %}", r"job\.j2: Range too big"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_an_error_with_its_reason(line, tmp_path, template, what):
    (tmp_path / "job.j2").write_text(template)
    result = call(*line, f"run.cluster.template={tmp_path / 'job.j2'}", "--submit", "--check")
    assert result.exit_code == 2 and re.search(what, result.stderr), result.stderr
    assert "the names it may use are account, " in result.stderr
    absent = call(*line, "run.cluster.template=absent.j2", "--submit", "--check")
    assert absent.exit_code == 3 and "no template absent.j2" in absent.stderr


@pytest.mark.parametrize("coding", ["latin-1", "utf-16"])
def test_a_template_is_filled_in_whatever_coding_the_terminal_has(line, tmp_path, monkeypatch, coding):
    monkeypatch.setenv("PYTHONIOENCODING", coding)
    (tmp_path / "job.j2").write_text("{{ folder }} é {{ é }}")
    options = (f"run.cluster.template={tmp_path / 'job.j2'}", "--submit", "--check")
    assert "job.j2: 'é' is undefined" in call(*line, *options).stderr
    (tmp_path / "job.j2").write_text("{{ 'é' }}")
    assert "'é'" in call(*line, *options).stdout


def test_a_template_quotes_each_value_unless_it_says_otherwise(line, tmp_path):
    (tmp_path / "job.j2").write_text(
        "{% macro say(x) %}echo {{ x }}{% endmacro %}"
        "{{ modules[0] ~ ';id' }} {{ '$X' | safe }} {{ '' }}{{ say('$Y') | safe }} {{ name }} {{ line }}"
    )
    options = (f"run.cluster.template={tmp_path / 'job.j2'}", "run.cluster.modules=[a]")
    script = call(*line, *options, "--submit", "--check").stdout
    assert script.startswith(f"'a;id' $X echo '$Y' brainhive-train-align {sys.executable} -m brainhive_cli ")


@pytest.mark.parametrize(
    "value",
    [
        'paths.runs="runs\\ntouch broken"',
        'run.cluster.container="image\\rtouch broken"',
        'signal.name="x\\x85touch broken"',
    ],
)
def test_no_value_of_a_recipe_is_a_line_of_the_script(line, queue, value):
    result = call(*line, value, "--submit")
    assert result.exit_code == 2 and not calls(queue)
    assert len(result.stderr.strip().splitlines()) == 2 and "has a control character, got" in result.stderr


@pytest.mark.parametrize("name", ["home", "working_folder", "line"])
def test_no_name_of_a_folder_is_a_line_of_the_script(line, queue, tmp_path, monkeypatch, name):
    folder = tmp_path / "odd\ntouch broken"
    folder.mkdir()
    if name == "working_folder":
        monkeypatch.chdir(folder)
    elif name == "home":
        (folder / "data").symlink_to(Path(os.environ["BRAINHIVE_HOME"]).absolute())
        monkeypatch.setattr(submission, "home_folder", lambda: folder)
    else:
        monkeypatch.setattr(sys, "executable", str(folder / "python"))
    result = call(*line, "--submit")
    assert result.exit_code == 2 and f"{name} of the script has a control character" in result.stderr
    assert not calls(queue)


def test_a_scheduler_that_is_absent_or_refuses_is_named(line, queue, tmp_path, monkeypatch):
    (queue / "refusal").write_text("sbatch: error: Batch job submission failed: Invalid partition name\n")
    refused = call(*line, "--submit")
    assert refused.exit_code == 1 and "Invalid partition name" in refused.stderr
    shutil.rmtree(queue / "bin")
    if shutil.which("sbatch") is not None:
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    absent = call(*line, "--submit")
    assert absent.exit_code == 4 and "no squeue here" in absent.stderr


def test_what_is_missing_ends_a_submission_before_the_scheduler_is_asked(line, queue, tmp_path):
    result = call(*line, f"paths.embeddings={tmp_path}", "--submit")
    assert result.exit_code == 3 and "no train embeddings" in result.stderr and not calls(queue)


def test_without_a_time_the_script_asks_for_none(line):
    assert "--time" not in call(*line, "--submit", "--check").stdout


@pytest.mark.parametrize(
    ("written", "read"), [("12:00:00", "12:00:00"), ("90:30:00", "90:30:00"), ("1-02:00:00",) * 2]
)
def test_a_time_is_read_as_slurm_writes_it(line, written, read, call_script: Callable[[str], str]):
    assert f"--time={read}\n" in call_script(f"run.cluster.time={written}")


@pytest.fixture
def call_script(line: tuple[str, ...]) -> Callable[[str], str]:
    """Give the script with a further override."""
    return lambda override: str(call(*line, override, "--submit", "--check").stdout)
