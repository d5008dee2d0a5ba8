"""Starts and stops a SLURM of one node on this machine, for tests and to look at: no
service, no settings.

    eval "$(python tools/slurm_here.py start /tmp/slurm)"    # then sbatch, squeue,
    scancel as on a cluster python tools/slurm_here.py stop /tmp/slurm

All of it lies in the folder, so that several run side by side. It needs root, as the
daemons do.
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

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
PACKAGES = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
"""Of Debian 12, which has SLURM 22.05; of later ones, too."""
DAEMONS = ("munged", "slurmctld", "slurmd")
"""In the order in which they start; each writes its process id to a file of its
name.
"""
MAX_START_S, MAX_STOP_S = 60.0, 30.0
POLL_S = 0.1
CPUS = 4
"""Tasks at once, whatever the machine has."""
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
"""slurm.conf. Processes are found in /proc, as control groups need systemd: limits of
memory do not hold.
"""


class SlurmError(Exception):
    """SLURM is not installed, does not start, or does not stop."""


def explain_absence() -> str:
    """Say in two lines why SLURM cannot run here; empty if it can."""
    missing = [name for name in NEEDED if not _which(name)]
    if missing:
        return (
            f"SLURM is not installed: {', '.join(missing)} missing\n  try: {PACKAGES}"
        )
    return (
        ""
        if os.geteuid() == 0
        else "SLURM's daemons need root\n  try: the same line as root"
    )


def start(
    folder: Path,
    cpus: int = CPUS,
    kill_wait_s: int = 5,
    min_job_age_s: int = 300,
    requeue_s: int = 120,
) -> dict[str, str]:
    """Start a SLURM of one node, and wait until it takes jobs.

    Args:
        folder: Where its configuration, keys, state and logs are written; a stopped one
            there is continued.
        cpus: CPUs that it hands out, and so tasks of one CPU at once.
        kill_wait_s: From SIGTERM to SIGKILL, at a time limit or `scancel`.
        min_job_age_s: For which `squeue` and `scontrol` know a job that has ended.
        requeue_s: For which a requeued job is held; SLURM's own default is 120.

    Returns:
        Variables of the environment that commands need to use it.

    Raises:
        SlurmError: if it is not installed, slurm.conf cannot hold the folder's name, or
            it does not start within a minute.
    """
    if reason := explain_absence():
        raise SlurmError(reason)
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

    # the folder, with a key that only this SLURM has
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # munged refuses a folder that others may write to
    key = folder / "munge.key"
    if not key.exists():
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)

    # ports that are free now
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        controller_port, node_port = first.getsockname()[1], second.getsockname()[1]
    hardware = subprocess.run(
        [_which("slurmd"), "-C"], capture_output=True, text=True, check=True
    ).stdout
    memory = re.search(r"RealMemory=(\d+)", hardware)
    content = CONFIGURATION.format(
        folder=folder,
        host=socket.gethostname().partition(".")[0],
        memory_mib=memory[1] if memory else 1000,
        **{"controller_port": controller_port, "node_port": node_port, "cpus": cpus},
        **{
            "kill_wait_s": kill_wait_s,
            "min_job_age_s": min_job_age_s,
            "requeue_s": requeue_s,
        },
    )
    conf.write_text(content)

    # the daemons, each of which leaves this process by itself
    files = {"socket": "munge.socket", "pid-file": "munged.pid", "key-file": key.name}
    files |= {"log-file": "log/munged.log", "seed-file": "munge.seed"}
    munge = [
        "--force",
        *(f"--{option}={folder / name}" for option, name in files.items()),
    ]
    lines = {
        "munged": munge,
        "slurmctld": ["-f", str(conf)],
        "slurmd": ["-f", str(conf)],
    }
    environment = {**os.environ, **variables}
    for name in DAEMONS:
        begun = subprocess.run(
            [_which(name), *lines[name]],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if begun.returncode:
            stop(folder)
            raise SlurmError(
                f"{name} does not start: {begun.stderr.strip()[-500:]}\n"
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
    """End all jobs and daemons of the SLURM in a folder; what has ended already is no
    error.

    Raises:
        SlurmError: if a daemon does not end within half a minute.
    """
    # jobs first: their processes outlive slurmd
    folder = folder.resolve()
    variables = {"SLURM_CONF": str(folder / "slurm.conf")}
    deadline_s = time.monotonic() + MAX_STOP_S
    if _takes_jobs(variables, any_state=True):
        for options in (["--state=PENDING"], ["--full", "--signal=KILL"], []):
            _ask("scancel", "--user=root", *options, **variables)
        while (
            _ask("squeue", "--noheader", **variables).strip()
            and time.monotonic() < deadline_s
        ):
            time.sleep(POLL_S)

    # then the daemons, the last one first
    for name in reversed(DAEMONS):
        if (process := _daemon(folder, name)) is None:
            continue
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
        while _daemon(folder, name) is not None:
            if time.monotonic() > deadline_s:
                raise SlurmError(
                    f"{name} ({process}) does not end\n  try: kill -9 {process}"
                )
            time.sleep(POLL_S)


@contextmanager
def running(folder: Path, **settings: int) -> Iterator[dict[str, str]]:
    """Have a SLURM for the block, which gets the variables of its environment; see
    `start`.
    """
    variables = start(folder, **settings)
    try:
        yield variables
    finally:
        stop(folder)


def _which(name: str) -> str:
    """Find a program, also where only root's PATH leads; empty if there is none."""
    return (
        shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        or ""
    )


def _ask(*words: str, **variables: str) -> str:
    """Return what one of SLURM's commands prints; empty if it fails."""
    try:
        ended = subprocess.run(
            words,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return ""
    return ended.stdout if ended.returncode == 0 else ""


def _takes_jobs(variables: Mapping[str, str], any_state: bool = False) -> bool:
    """Whether the controller answers and its node takes jobs, or is in any state."""
    folder = Path(variables["SLURM_CONF"]).parent
    if any(_daemon(folder, name) is None for name in ("munged", "slurmctld")):
        return False  # its commands would wait a minute for an answer
    state = _ask("sinfo", "--noheader", "--format=%T", **variables).strip()
    return bool(state) if any_state else state in ("idle", "mixed", "allocated")


def _daemon(folder: Path, name: str) -> int | None:
    """Return the process of a daemon that runs, and not one that has got the number of
    an ended one.
    """
    try:
        process = int((folder / f"{name}.pid").read_text())
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    is_ours = Path(os.fsdecode(words[0])).name == name and str(folder) in os.fsdecode(
        b" ".join(words)
    )
    return process if is_ours else None


def main() -> None:
    """Start or stop a SLURM as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    begin = actions.add_parser(
        "start", help="start it, and print the line that makes a shell use it"
    )
    end = actions.add_parser("stop", help="end its jobs and daemons")
    for action in (begin, end):
        action.add_argument("folder", type=Path, help="where it lies")
    begin.add_argument(
        "--cpus", type=int, default=CPUS, help="CPUs that it hands out (%(default)s)"
    )
    begin.add_argument(
        "--kill-wait-s",
        type=int,
        default=5,
        help="from SIGTERM to SIGKILL (%(default)s)",
    )
    begin.add_argument(
        "--min-job-age-s",
        type=int,
        default=300,
        help="ended jobs are shown (%(default)s)",
    )
    begin.add_argument(
        "--requeue-s",
        type=int,
        default=120,
        help="a requeued job is held (%(default)s)",
    )
    settings = vars(parser.parse_args())
    action, folder = settings.pop("action"), settings.pop("folder")
    try:
        variables = start(folder, **settings) if action == "start" else stop(folder)
    except SlurmError as error:
        sys.exit(f"error: {error}")
    for name, value in (variables or {}).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
