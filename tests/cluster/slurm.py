"""A Slurm of one node on the loopback interface, from Debian's packages, in a folder of its own, while tests run."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "sinfo")
SBIN = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"

# What a plain container carries: no control groups, no accounting, no user but root
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Return the programs that are not installed."""
    return [name for name in PROGRAMS if not shutil.which(name, path=SBIN)]


@contextlib.contextmanager
def running(folder, environment):
    """Start munge and Slurm in ``folder``; yield the environment for their commands; stop what was started."""
    folder, host = Path(folder), socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(host=host, folder=folder, controller_port=free_port(), node_port=free_port())
    )
    environment = {**environment, "SLURM_CONF": str(configuration)}
    files = {name: f"{folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
    munge = [f"--{name}-file={path}" for name, path in files.items() if name != "socket"]
    with contextlib.ExitStack() as daemons:
        for command in (
            ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={files['socket']}", *munge],
            ["slurmctld", "-D", "-f", str(configuration)],
            ["slurmd", "-D", "-f", str(configuration), "-N", host],
        ):
            daemons.enter_context(daemon(command, environment, folder / f"{command[0]}.out"))
        wait_for(
            lambda: "idle" in output(["sinfo", "--noheader", "--format=%T"], environment), 30, f"Slurm in {folder}"
        )
        try:
            yield environment
        finally:
            output(["scancel", "--full", *jobs(environment)], environment)
            wait_for(lambda: not jobs(environment), 30, "the end of all jobs")


@contextlib.contextmanager
def daemon(command, environment, log):
    """Run a daemon in the foreground of its own process; end it."""
    command[0] = shutil.which(command[0], path=SBIN)
    with open(log, "w") as file, subprocess.Popen(command, env=environment, stdout=file, stderr=file) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def output(command, environment):
    """Return what a command prints, without the spaces around it; "" if it fails."""
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()


def jobs(environment):
    """Return {number: (name, state)} of all jobs that have not ended."""
    lines = output(["squeue", "--noheader", "--format=%A|%j|%T"], environment).splitlines()
    return {number: (name, state) for number, name, state in (line.split("|") for line in lines)}


def wait_for(condition, seconds, what):
    """Wait until a condition holds; fail with ``what`` was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.1)


def free_port():
    """Return the number of a port of the loopback interface that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
