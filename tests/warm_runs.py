"""Real processes of ``runfile.py`` for the tests: children of one process that has imported everything.

Each run is a forked child, so it can be killed by SIGKILL, and costs no second import of TensorFlow. The parent
executes no operation of TensorFlow, which is what makes forking safe.
"""

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


@dataclass
class Outcome:
    """How a run ended: exit status (-9 when killed), output, CPU seconds and changes on disk that it made."""

    status: int
    stdout: str
    stderr: str
    cpu: float
    changes: int


class Warm:
    """A process that runs ``runfile.main`` in children; ``run`` returns the `Outcome`."""

    def __init__(self):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1", "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, argv, scratch, **options):
        """Run the command line ``argv``; files of the run's output go to ``scratch``.

        Options: ``watch``, the folder whose changes count; ``kill_at_change``, die before that change;
        ``kill_at_cpu``, be killed after so many seconds of CPU; ``interrupt_at_change``, Ctrl-C before that
        change; ``full_at``, no space is left for files of this name; ``file_limit``, the largest file in bytes;
        ``nan_model``, the network predicts NaN for the first spectrum; ``quick_figures``, one small file in place
        of the figures and the report, which take longer than all the rest of a tiny run.
        """
        job = {"argv": [str(a) for a in argv], "scratch": str(scratch), **options}
        self.process.stdin.write(json.dumps(job, default=str) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        read = [(Path(scratch) / name).read_text(errors="replace") for name in ("stdout", "stderr")]
        return Outcome(answer["status"], *read, answer["cpu"], answer["changes"])

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


def serve():
    """Read one job per line, run it in a child, answer with one line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import keras  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import tensorflow  # noqa: F401

    import runfile  # noqa: F401

    for name in ("loaders", "pipeline.judge", "pipeline.training", "report.page", "report.pictures", "sensitivity"):
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(follow(json.loads(line))), file=answers, flush=True)


def follow(job):
    """Fork, wait for the child, kill it when its time has come."""
    scratch = Path(job["scratch"])
    scratch.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if not child:
        run_child(job, scratch)
    limit, start = job.get("kill_at_cpu"), time.monotonic()
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if (limit is not None and cpu_seconds(child) >= limit) or time.monotonic() - start > 300:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    count = scratch / "changes"
    return {
        "status": os.waitstatus_to_exitcode(status),
        "cpu": usage.ru_utime + usage.ru_stime,
        "changes": int(count.read_text()) if count.exists() else -1,
    }


def cpu_seconds(process):
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_child(job, scratch):
    """Be the run: never returns."""
    status = 99
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            file = os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
        (scratch / "changes").unlink(missing_ok=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if job.get("file_limit"):
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writes fail with EFBIG
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], resource.RLIM_INFINITY))
        if job.get("nan_model"):
            predict_nan()
        if job.get("quick_figures"):
            from report import page

            page.write_figures = quick_figures
            page.write_report = lambda run, **rest: (run.folder / "report.html").write_text("report")
        changes = watch(job)
        import runfile

        try:
            status = runfile.main(job["argv"])
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
        if job.get("file_limit"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (scratch / "changes").write_text(str(changes[0]))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status if isinstance(status, int) else 98)


def watch(job):
    """Count the changes on disk below ``job["watch"]``, and do what the job wants at one of them."""
    count, folder = [0], job.get("watch")

    def hook(event, arguments):
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in WRITES:
            path = arguments[1] if event == "os.rename" else arguments[0]
        else:
            return
        if isinstance(path, int) or folder is None or not os.fsdecode(path).startswith(folder):
            return
        if job.get("full_at") and Path(os.fsdecode(path)).name.strip(".").removesuffix(".part") == job["full_at"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        count[0] += 1
        if count[0] == job.get("kill_at_change"):
            os.kill(os.getpid(), signal.SIGKILL)
        if count[0] == job.get("interrupt_at_change"):
            os.kill(os.getpid(), signal.SIGINT)

    sys.addaudithook(hook)
    return count


def quick_figures(run):
    """Write one small figure."""
    (run.folder / "figures").mkdir(exist_ok=True)
    (run.folder / "figures/one.png").write_bytes(run.folds[0].y_pred.tobytes())


def predict_nan():
    """Let every network return NaN for the first spectrum."""
    import keras

    predict = keras.Model.predict

    def spoilt(self, *arguments, **keywords):
        answer = predict(self, *arguments, **keywords).copy()
        answer[0] = float("nan")
        return answer

    keras.Model.predict = spoilt


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    serve()
