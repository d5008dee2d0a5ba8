"""Commands that are submitted to a cluster: what the scheduler is asked, and what its
tasks then do.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.runs.run_folder import RunFolder

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
    "scontrol": (
        'echo "scontrol $*" >> "$QUEUE/calls"; touch "$QUEUE/requeued"; (sleep 0.3; '
        "kill $PPID) &"
    ),
}
"""Programs of a scheduler that writes down what it is asked; the test says which tasks
are queued.
"""
LRS = "sweep.train.lr=1e-3,2e-3"
PLAN = (
    "run.cluster.partition=gpu,long",
    "run.cluster.memory=32G",
    "run.cluster.time=1-02:00:00",
)


@pytest.fixture
def queue(tmp_path, monkeypatch):
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
def line(world, align_overrides, runs, code_allowed):
    """A training of two cells, with runs of its own."""
    return (
        ("train-align",) + align_overrides + ("train.epochs=1", runs, "run.device=cpu")
    )


def call(*argv):
    return CliRunner().invoke(app, list(argv))


def calls(queue):
    return (
        (queue / "calls").read_text().splitlines()
        if (queue / "calls").is_file()
        else []
    )


def submitted(tmp_path, command="train-align"):
    return next((tmp_path / "runs/.submitted").glob(f"{command}-*"))


def run_task(folder, job, number, step="train-align"):
    """Run the script of a job as the scheduler would, its output in the log."""
    variables = {"SLURM_ARRAY_JOB_ID": str(job), "SLURM_ARRAY_TASK_ID": str(number)}
    with open(folder / f"logs/{job}_{number}.txt", "a") as log:
        script = ["bash", str(folder / f"{step}.sh")]
        process = subprocess.run(
            script, env={**os.environ, **variables}, stdout=log, stderr=log, check=False
        )
    return process.returncode


def test_a_check_prints_the_script_and_asks_no_scheduler(line, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    result = call(*line, *PLAN, "--submit", "--check")

    assert result.exit_code == 0, result.output
    script, _, remaining_text = result.stdout.rpartition("#")
    assert remaining_text.strip()
    assert "hf download" not in remaining_text
    expected_lines = (
        "--array=0-1",
        "--partition=gpu,long",
        "--mem=32G",
        "--time=1-02:00:00",
        "--requeue",
    )
    assert all(f"#SBATCH {option}\n" in script for option in expected_lines)
    assert "--gpus-per-node" not in script
    assert "HF_HUB_OFFLINE=1" in script
    assert (
        subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode
        == 0
    )
    assert not (tmp_path / "runs/.submitted").exists()

    # in a container, with home and the hub's cache; and without a time
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    script = call(
        *line,
        "run.cluster.container=lab image.sif",
        "run.cluster.gpus=2",
        "--submit",
        "--check",
        "--allow-code",
    ).stdout
    home = os.environ["BRAINHIVE_HOME"]
    arguments = (
        f"apptainer exec --nv --bind {home} --bind {tmp_path} --bind "
        f"{tmp_path / 'hub'} "
    )
    assert (
        f"{arguments}--env HF_HOME={tmp_path / 'hub'} 'lab image.sif' brainhive "
        "train-align --recipe"
    ) in script
    assert "--time" not in script


@pytest.mark.nightly
def test_a_line_is_submitted_once_and_then_found_finished(line, queue, tmp_path):
    # as programs read it
    planned = json.loads(call(*line, "--submit", "--check", "--json").stdout)
    assert (
        "#SBATCH --array=0-1" in planned["scripts"]["train-align"]
        and planned["downloads"] == []
    )
    first_call = call(*line, "--submit")
    assert (
        first_call.exit_code == 0
        and "submitted train-align: job 11, 2 tasks" in first_call.stderr
    ), first_call.output
    folder = submitted(tmp_path)
    (queue / "tasks").write_text("11_0 RUNNING\n11_1 PENDING\n")
    second = call(*line, "--submit")
    assert second.stderr.startswith("2 tasks ")
    assert "job 12" not in second.stderr
    job = f"brainhive-{folder.name.rpartition('-')[2]}-train-align"
    assert calls(queue) == [
        f"sbatch --parsable --job-name={job} {folder / 'train-align.sh'}"
    ]
    assert all(
        f"scancel --me --name={job}" in shown.stderr for shown in (first_call, second)
    )

    code = run_task(folder, 11, 0)  # alone, it takes the cells of the other task, too
    (queue / "tasks").write_text("")
    assert code == 0, (folder / "logs/11_0.txt").read_text()
    assert "nothing is submitted" in call(*line, "--submit").stderr
    assert RunFolder(next((tmp_path / "runs/train-align").iterdir())).is_finished
    assert len(calls(queue)) == 1
    # a finished line that would read other signals
    other_store = f"paths.signals={tmp_path / 'others'}"
    assert "job 12" in call(*line, "--submit", other_store).stderr


def test_a_script_that_a_file_names_needs_permission(
    world, align_overrides, runs, queue, tmp_path
):
    recipe = tmp_path / "train-align.yaml"
    recipe.write_text(
        json.dumps(
            {"extends": "train-align", "run": {"cluster": {"template": "theirs"}}}
        )
    )
    (tmp_path / "theirs").write_text("#!/bin/bash\n")
    line = (
        ("train-align", "--recipe", str(recipe))
        + align_overrides
        + (runs, "run.device=cpu")
    )
    refused = call(*line, "--submit")
    assert refused.exit_code == 2
    assert "run.cluster.template theirs" in refused.stderr
    assert not calls(queue)
    assert "job 11" in call(*line, "--submit", "--allow-code").stderr


def test_downloads_are_listed_last_even_without_a_network(home, queue, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = ["embed", "--recipe", "demo", "--encoders", "hub:nobody/nothing", "--submit"]
    result = call(*line, "--check")
    assert result.exit_code == 3
    last_line = result.stdout.splitlines()[-1]
    assert last_line.startswith("# ") and ": hf download nobody/nothing" in last_line
    assert call(*line).exit_code == 3
    assert not calls(queue)


def test_each_step_of_a_workflow_waits_for_the_one_before(
    world, align_overrides, runs, queue, tmp_path, code_allowed
):
    steps = {
        "train-align": {"overrides": list(align_overrides) + ["train.epochs=1"]},
        "eval-retrieval": {"overrides": ["sheet_rows=0"]},
    }
    (tmp_path / "steps.yaml").write_text(json.dumps({"steps": steps}))
    result = call(
        "workflow",
        "--recipe",
        str(tmp_path / "steps.yaml"),
        runs,
        "run.device=cpu",
        "--submit",
    )
    assert result.exit_code == 0, result.output

    folder = submitted(tmp_path, "workflow")
    job = f"brainhive-{folder.name.rpartition('-')[2]}"
    assert calls(queue) == [
        f"sbatch --parsable --job-name={job}-train-align {folder / 'train-align.sh'}",
        f"sbatch --parsable --job-name={job}-eval-retrieval "
        "--dependency afterok:11_0?afterok:11_1 --kill-on-invalid-dep=yes "
        + str(folder / "eval-retrieval.sh"),
    ]


def test_a_sweep_is_an_array_of_the_cells_of_all_runs(line, queue, tmp_path):
    assert "job 11, 4 tasks" in call(*line, LRS, "--submit").stderr

    folder = submitted(tmp_path, "workflow")
    script = (folder / "train-align.sh").read_text()
    assert "#SBATCH --array=0-3\n" in script and "until=" in script


@pytest.mark.nightly
def test_tasks_of_a_sweep_share_the_cells_of_all_runs(line, queue, tmp_path):
    call(*line, LRS, "--submit")
    folder = submitted(tmp_path, "workflow")

    with ThreadPoolExecutor() as pool:
        codes = list(pool.map(partial(run_task, folder, 11), (0, 1)))

    logs = [file.read_text() for file in (folder / "logs").iterdir()]
    assert codes == [0, 0], logs
    runs = [RunFolder(path) for path in (tmp_path / "runs/train-align").iterdir()]
    assert len(runs) == 2
    assert all(finished_run.is_finished for finished_run in runs)
    for finished_run in runs:
        epochs = [event["cell"] for event in finished_run.events() if "epoch" in event]
        assert len(epochs) == len(set(epochs)) == 2
    assert "nothing is submitted" in call(*line, LRS, "--submit").stderr


def test_the_script_forwards_the_signal_and_requeues_its_task(line, queue, tmp_path):
    call(*line, "--submit")
    folder = submitted(tmp_path)
    (tmp_path / "worker.sh").write_text(
        "trap 'exit 75' USR1; touch begun; while true; do sleep 0.05; done"
    )
    script = (folder / "train-align.sh").read_text()
    script = re.sub(r"^cd .*$", f"cd {tmp_path}", script, flags=re.MULTILINE)
    script = re.sub(
        r"^.*-m brainhive_cli .* &$", "bash worker.sh &", script, flags=re.MULTILINE
    )
    variables = {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "1"}
    task = subprocess.Popen(["bash", "-c", script], env={**os.environ, **variables})
    deadline_s = time.monotonic() + 20
    while not (tmp_path / "begun").is_file() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    task.send_signal(signal.SIGUSR1)

    assert task.wait(timeout=20) == 75
    assert (queue / "requeued").exists()
    assert calls(queue)[-1] == "scontrol requeue 11_1"


def test_a_template_with_errors_is_refused_with_the_reason(line, tmp_path):
    (tmp_path / "job.j2").write_text("#!/bin/bash\n{{ queue }}\n")
    result = call(
        *line, f"run.cluster.template={tmp_path / 'job.j2'}", "--submit", "--check"
    )
    assert result.exit_code == 2
    assert "job.j2: 'queue' is undefined" in result.stderr
    assert ": account, " in result.stderr
    absent = call(*line, "run.cluster.template=absent.j2", "--submit", "--check")
    assert absent.exit_code == 3
    assert "no template absent.j2" in absent.stderr


def test_a_template_gets_values_as_the_shell_takes_them(line, tmp_path):
    (tmp_path / "job.j2").write_text(
        "{{ modules[0] }} $X {{ container }} {{ name }} {{ line }}"
    )
    script = call(
        *line,
        f"run.cluster.template={tmp_path / 'job.j2'}",
        "run.cluster.modules=[a]",
        "run.cluster.container=lab image;id",
        "--submit",
        "--check",
    ).stdout
    assert script.startswith(
        "a $X 'lab image;id' brainhive-train-align apptainer exec "
    )


def test_a_scheduler_that_is_absent_or_refuses_is_named(
    line, queue, tmp_path, monkeypatch
):
    (queue / "busy").write_text(
        "squeue: error: Socket timed out on send/recv operation\n"
    )
    assert "Socket timed out" in call(*line, "--submit").stderr
    assert not calls(queue)
    (queue / "refusal").write_text(
        "sbatch: error: Batch job submission failed: Invalid partition name\n"
    )
    refused = call(*line, "--submit")
    assert refused.exit_code == 1
    assert "Invalid partition name" in refused.stderr
    shutil.rmtree(queue / "bin")
    if shutil.which("sbatch") is not None:
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    absent = call(*line, "--submit")
    assert absent.exit_code == 4
    assert "no squeue" in absent.stderr


def test_missing_inputs_end_a_submission_before_the_scheduler(line, queue, tmp_path):
    for argument, code, problem in (
        (f"paths.embeddings={tmp_path}", 3, "no train embeddings"),
        ("--again", 2, "--again"),
    ):
        result = call(*line, argument, "--submit")
        assert result.exit_code == code
        assert problem in result.stderr
        assert not calls(queue)


def test_a_folder_with_a_backslash_is_refused(line, tmp_path, monkeypatch):
    """SLURM would write the log to another folder."""
    (tmp_path / "a\\b").mkdir()
    arguments = [argument for argument in line if not argument.startswith("paths.runs")]
    runs = f"paths.runs={tmp_path}/a\\b"
    refused = call(*arguments, runs, "--submit", "--check")
    assert refused.exit_code == 2
    assert "has a backslash" in refused.stderr
