"""Starts and stops a SLURM of a single node on this machine, without a service.

    eval "$(python tools/slurm_here.py start /tmp/slurm)"
    sbatch job.sh
    python tools/slurm_here.py stop /tmp/slurm

Its files stay in the folder, so several can run at once. The daemons need root.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
PACKAGES = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
"""Packages of Debian 12 (SLURM 22.05) and later."""
DAEMONS = ("munged", "slurmctld", "slurmd")
"""Daemons in the order of their start. Each writes its process id to NAME.pid."""
MAX_START_S = 60.0
MAX_STOP_S = 30.0
POLL_S = 0.1
CPUS = 4
"""Number of simultaneous tasks, which may exceed the machine's."""
CONFIGURATION = """\
ClusterName=local
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_s}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
JobRequeue=1
KillWait={kill_wait_s}
MinJobAge={min_job_age_s}
MailProg=/bin/true
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} \\
  RealMemory={memory_mib} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
"""Content of slurm.conf. Memory limits have no effect without systemd's cgroups."""


class SlurmError(Exception):
    """SLURM is not installed, does not start, or does not stop."""


def explain_absence() -> str:
    """Explain in two lines why SLURM cannot run here, or return an empty text."""
    missing = [name for name in PROGRAMS if not _which(name)]
    if missing:
        return (
            f"SLURM is not installed: {', '.join(missing)} missing\n  try: {PACKAGES}"
        )
    if os.geteuid() != 0:
        return "SLURM's daemons need root\n  try: the same line as root"
    return ""


def start(
    folder: Path,
    cpus: int = CPUS,
    kill_wait_s: int = 5,
    min_job_age_s: int = 300,
    requeue_s: int = 120,
) -> dict[str, str]:
    """Start a SLURM of a single node, and wait until it takes jobs.

    Args:
        folder: Folder of configuration, keys, state and logs. A stopped SLURM in it
            continues.
        cpus: Number of CPUs for tasks.
        kill_wait_s: Seconds from SIGTERM to SIGKILL, at a time limit or `scancel`.
        min_job_age_s: Seconds for which `squeue` and `scontrol` list an ended job.
        requeue_s: Seconds for which a requeued job is held, 120 by default in SLURM.

    Returns:
        Environment variables of commands that use it.

    Raises:
        SlurmError: if it is not installed, does not start within a minute, or the name
            of the folder does not fit slurm.conf.
    """
    absence = explain_absence()
    if absence:
        raise SlurmError(absence)
    folder = folder.resolve()
    if re.search(r"[\s,#=\"']", str(folder)):
        raise SlurmError(
            f"slurm.conf cannot name {folder}\n  try: a folder without spaces and signs"
        )
    conf = folder / "slurm.conf"
    variables = {"SLURM_CONF": str(conf)}
    if _takes_jobs(variables):
        return variables
    stop(folder)

    # make the folder, with a key of its own
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # munged refuses a folder that other users can write to
    key = folder / "munge.key"
    if not key.exists():
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)

    # choose free ports
    with socket.socket() as controller, socket.socket() as node:
        controller.bind(("127.0.0.1", 0))
        node.bind(("127.0.0.1", 0))
        controller_port = controller.getsockname()[1]
        node_port = node.getsockname()[1]
    hardware = subprocess.run(
        [_which("slurmd"), "-C"], capture_output=True, text=True, check=True
    ).stdout
    memory = re.search(r"RealMemory=(\d+)", hardware)
    content = CONFIGURATION.format(
        folder=folder,
        host=socket.gethostname().partition(".")[0],
        memory_mib=memory[1] if memory else 1000,
        controller_port=controller_port,
        node_port=node_port,
        cpus=cpus,
        kill_wait_s=kill_wait_s,
        min_job_age_s=min_job_age_s,
        requeue_s=requeue_s,
    )
    conf.write_text(content)

    # start the daemons, which detach from this process
    options = {
        "munged": [
            "--force",
            f"--socket={folder / 'munge.socket'}",
            f"--pid-file={folder / 'munged.pid'}",
            f"--key-file={key}",
            f"--log-file={folder / 'log/munged.log'}",
            f"--seed-file={folder / 'munge.seed'}",
        ],
        "slurmctld": ["-f", str(conf)],
        "slurmd": ["-f", str(conf)],
    }
    environment = {**os.environ, **variables}
    for name in DAEMONS:
        process = subprocess.run(
            [_which(name)] + options[name],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            stop(folder)
            raise SlurmError(
                f"{name} does not start: {process.stderr.strip()[-500:]}\n"
                f"  try: see {folder}/log"
            )
    deadline_s = time.monotonic() + MAX_START_S
    while not _takes_jobs(variables):
        if time.monotonic() > deadline_s:
            stop(folder)
            raise SlurmError(
                f"SLURM takes no jobs after {MAX_START_S:.0f} s\n"
                f"  try: see {folder}/log"
            )
        time.sleep(POLL_S)
    return variables


def stop(folder: Path) -> None:
    """End all jobs and daemons of the SLURM in a folder, if there are any.

    Raises:
        SlurmError: if a daemon does not end within half a minute.
    """
    # end jobs first, as their processes outlive slurmd
    folder = folder.resolve()
    variables = {"SLURM_CONF": str(folder / "slurm.conf")}
    deadline_s = time.monotonic() + MAX_STOP_S
    if _takes_jobs(variables, any_state=True):
        for options in ("--state=PENDING", "--full --signal=KILL", ""):
            command = f"scancel --user=root {options}".split()
            _run_command(*command, **variables)
        while _run_command("squeue", "--noheader", **variables).strip():
            if time.monotonic() >= deadline_s:
                break
            time.sleep(POLL_S)

    # then end the daemons in reverse order
    for name in reversed(DAEMONS):
        process = _find_daemon(folder, name)
        if process is None:
            continue
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
        while _find_daemon(folder, name) is not None:
            if time.monotonic() > deadline_s:
                raise SlurmError(
                    f"{name} ({process}) does not end\n  try: kill -9 {process}"
                )
            time.sleep(POLL_S)


@contextmanager
def running(folder: Path, **settings: int) -> Iterator[dict[str, str]]:
    """Context manager that runs a SLURM, and yields its environment variables.

    Args:
        folder: Folder of its files.
        settings: Keyword arguments of `start`.
    """
    variables = start(folder, **settings)
    try:
        yield variables
    finally:
        stop(folder)


def _which(name: str) -> str:
    """Find a program in PATH or root's folders, or return an empty text."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return shutil.which(name, path=path) or ""


def _run_command(*arguments: str, **variables: str) -> str:
    """Return the output of a command of SLURM, empty if the command fails."""
    try:
        process = subprocess.run(
            arguments,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return ""
    return process.stdout if process.returncode == 0 else ""


def _takes_jobs(variables: Mapping[str, str], any_state: bool = False) -> bool:
    """Return True if the controller answers and its node takes jobs.

    any_state: If True, a node in any state counts.
    """
    folder = Path(variables["SLURM_CONF"]).parent
    for name in ("munged", "slurmctld"):
        if _find_daemon(folder, name) is None:
            return False  # without daemons, commands wait a minute for an answer
    state = _run_command("sinfo", "--noheader", "--format=%T", **variables).strip()
    return bool(state) if any_state else state in ("idle", "mixed", "allocated")


def _find_daemon(folder: Path, name: str) -> int | None:
    """Return the process id of a daemon that runs.

    The command line must fit, as an ended daemon's id may belong to another process.
    """
    try:
        process = int((folder / f"{name}.pid").read_text())
        command_line = os.fsdecode(Path(f"/proc/{process}/cmdline").read_bytes())
    except (OSError, ValueError):
        return None
    program = Path(command_line.partition("\0")[0]).name
    return process if program == name and str(folder) in command_line else None


def main() -> None:
    """Start or stop a SLURM by the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    start_parser = actions.add_parser(
        "start", help="start it, and print the line that makes a shell use it"
    )
    stop_parser = actions.add_parser("stop", help="end its jobs and daemons")
    for action in (start_parser, stop_parser):
        action.add_argument("folder", type=Path, help="folder of its files")
    start_parser.add_argument(
        "--cpus", type=int, default=CPUS, help="number of CPUs for tasks (%(default)s)"
    )
    start_parser.add_argument(
        "--kill-wait-s",
        type=int,
        default=5,
        help="seconds from SIGTERM to SIGKILL (%(default)s)",
    )
    start_parser.add_argument(
        "--min-job-age-s",
        type=int,
        default=300,
        help="seconds for which ended jobs are listed (%(default)s)",
    )
    start_parser.add_argument(
        "--requeue-s",
        type=int,
        default=120,
        help="seconds for which a requeued job is held (%(default)s)",
    )
    settings = vars(parser.parse_args())
    action, folder = settings.pop("action"), settings.pop("folder")
    variables = {}
    try:
        if action == "start":
            variables = start(folder, **settings)
        else:
            stop(folder)
    except SlurmError as error:
        sys.exit(f"error: {error}")
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
