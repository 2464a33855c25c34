"""A SLURM of one node on loopback, for one test: four processes that end with it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "sinfo")

# Without accounting there is nothing that sacct could ask; submitit asks nobody else.
SACCT = """\
#!{python}
import re, subprocess
print("JobID|State|NodeList")
shown = subprocess.run(["scontrol", "-o", "show", "job"], capture_output=True, text=True).stdout
for line in shown.splitlines():
    job = dict(field.split("=", 1) for field in line.split() if "=" in field)
    if "JobId" not in job:
        continue
    name = job["JobId"]
    if "ArrayJobId" in job:
        task = job["ArrayTaskId"].split("%")[0]
        name = job["ArrayJobId"] + "_" + (task if task.isdigit() else f"[{{task}}]")
    print(name, job["JobState"], job.get("NodeList", ""), sep="|")
"""


def missing_programs() -> list[str]:
    found = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=found) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_configuration(root: Path) -> Path:
    for name in ("state", "spool", "bin", "munge"):
        (root / name).mkdir(mode=0o755)
    key = root / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    sacct = root / "bin" / "sacct"
    sacct.write_text(SACCT.format(python=sys.executable))
    sacct.chmod(0o755)
    with open("/proc/meminfo") as lines:
        memory_mb = int(next(line for line in lines if line.startswith("MemTotal")).split()[1]) // 1024
    settings = {
        "ClusterName": "test",
        "SlurmctldHost": "localhost(127.0.0.1)",
        "SlurmctldPort": free_port(),
        "SlurmdPort": free_port(),
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={root / 'munge' / 'socket'}",
        "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
        "StateSaveLocation": root / "state",
        "SlurmdSpoolDir": root / "spool",
        "SlurmctldPidFile": root / "slurmctld.pid",
        "SlurmdPidFile": root / "slurmd.pid",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SchedulerParameters": "sched_interval=2,bf_interval=2",
        "MpiDefault": "none",
        "ReturnToService": 2,
        "MinJobAge": 300,
    }
    node = f"NodeName=localhost NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={memory_mb // 2}"
    lines = [f"{key}={value}" for key, value in settings.items()]
    lines += [
        f"{node} State=UNKNOWN",
        "PartitionName=debug Nodes=localhost Default=YES MaxTime=INFINITE State=UP",
    ]
    path = root / "slurm.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def slurm(root: Path):
    """Environment of commands that use it; its processes are stopped by their ids at the end.

    Parameters
    ----------
    root : Path
        An empty folder with a short path: a socket lies in it.
    """
    configuration = write_configuration(root)
    path = f"{root / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(configuration)}
    munge = root / "munge"
    files = [f"--{kind}-file={munge / kind}" for kind in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files],
        ["slurmctld", "-D", "-f", str(configuration)],
        ["slurmd", "-D", "-N", "localhost", "-f", str(configuration)],
    ]
    processes: list[subprocess.Popen] = []
    try:
        for command in commands:
            log = (root / f"{command[0]}.log").open("w")
            program = shutil.which(command[0], path=path)
            processes.append(
                subprocess.Popen([program, *command[1:]], stdout=log, stderr=log, env=environment)
            )
            log.close()
            time.sleep(0.5)
        _wait_until_idle(root, environment)
        yield environment
    finally:
        subprocess.run(["scancel", "-u", "root"], env=environment, capture_output=True)
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_idle(root: Path, environment: dict[str, str]) -> None:
    for _ in range(60):
        shown = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
        )
        if shown.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-1500:] for path in sorted(root.glob("*.log")))
    raise RuntimeError(f"SLURM did not start ({shown.stdout.strip()} {shown.stderr.strip()})\n{logs}")
