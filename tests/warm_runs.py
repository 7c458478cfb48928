"""Real processes of ``runfile.py`` for the tests: children of one process that has imported everything.

Each run is a forked child, so it can be killed by SIGKILL, and costs no second import of TensorFlow. The parent
executes no operation of TensorFlow, which is what makes forking safe. What is done to a run is done at an event, a
change on disk, and never at a time: so it happens on a slow machine as on a fast one.
"""

import errno
import gc
import importlib
import json
import os
import re
import runpy
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 600  # seconds until a run is taken to hang
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


@dataclass
class Outcome:
    """How a run ended: exit status (-9 when killed), output, and changes on disk that it made."""

    status: int
    stdout: str
    stderr: str
    changes: int


class Warm:
    """A process that runs ``runfile.main``, or a script, in children; each returns the `Outcome`."""

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
        ``kill_at_open``, die before a file of this name is opened there, to be read or written;
        ``interrupt_at_change``, Ctrl-C before that change; ``copy_at``, numbers of changes before which the folder
        is copied to ``scratch/<number>``: what a run that dies there leaves; ``full_at``, no space is left for files
        of this name; ``file_limit``, the largest file in bytes; ``nan_model``, the network predicts NaN for the first
        spectrum; ``quick_figures``, one small file in place of the figures and the report, which take longer than
        all the rest of a tiny run; ``few_figures``, the report and two of its figures; ``eager``, TensorFlow does every
        step as it comes and compiles none, which takes longer than the steps of a tiny run; ``one_core``, the run may
        use one processor core, so that it trains its folds itself; ``fork_workers``, processes that it starts by
        ``multiprocessing`` have everything imported, too; ``env``, changes of the environment, made before anything
        else.
        """
        return self.run_together([argv], [scratch], **options)[0]

    def run_together(self, argvs, scratches, **options):
        """Run several command lines at the same time; return their outcomes. Else as `run`."""
        jobs = [
            {"argv": [str(a) for a in argv], "scratch": str(scratch), **options}
            for argv, scratch in zip(argvs, scratches, strict=True)
        ]
        self.process.stdin.write(json.dumps(jobs, default=str) + "\n")
        self.process.stdin.flush()
        answers = json.loads(self.process.stdout.readline())
        return [_outcome(answer, Path(scratch)) for answer, scratch in zip(answers, scratches, strict=True)]

    def script(self, path, argv, scratch, **options):
        """Run the Python file ``path``, or the module of that name, as ``python PATH *argv`` would."""
        return self.run(argv, scratch, script=str(path), **options)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def _outcome(answer, scratch):
    read = [(scratch / name).read_text(errors="replace") for name in ("stdout", "stderr")]
    return Outcome(answer["status"], *read, answer["changes"])


def serve():
    """Read a list of jobs per line, run each in a child, answer with one line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import keras  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import tensorflow  # noqa: F401

    import runfile  # noqa: F401

    for name in ("loaders", "pipeline.evaluate", "pipeline.training", "report.page", "report.pictures", "sensitivity"):
        importlib.import_module(name)
    sys.modules["pipeline.training"].STATE_SECONDS = 0  # a state after every epoch, on any machine
    gc.freeze()  # so that children share this memory instead of copying it as they look through it
    for line in iter(sys.stdin.readline, ""):
        begun = [begin(job) for job in json.loads(line)]
        print(json.dumps([follow(*child) for child in begun]), file=answers, flush=True)


def begin(job):
    """Fork; return (process of the child, pipe that closes when it ends, job)."""
    scratch = Path(job["scratch"])
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "changes").unlink(missing_ok=True)
    ended, held_by_the_child = os.pipe()
    child = os.fork()
    if not child:
        run_child(job, scratch)
    os.close(held_by_the_child)
    return child, ended, job


def follow(child, ended, job):
    """Wait for the child; end it when it hangs, or when the tests are gone."""
    if ended not in select.select([ended, sys.stdin], [], [], PATIENCE)[0]:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(ended)
    count = Path(job["scratch"]) / "changes"
    return {
        "status": os.waitstatus_to_exitcode(status),
        "changes": int(count.read_text()) if count.exists() else -1,
    }


def run_child(job, scratch):
    """Be the run: never returns."""
    status = 99
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            file = os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
        os.environ.update(job.get("env", {}))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if job.get("file_limit"):
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writes fail with EFBIG
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], resource.RLIM_INFINITY))
        if job.get("nan_model"):
            predict_nan()
        if job.get("quick_figures"):
            replace_figures(setattr)
        if job.get("few_figures"):
            leave_out_figures()
        if job.get("eager"):
            compile_nothing()
        if job.get("one_core"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        if job.get("fork_workers"):
            fork_workers()
        changes = watch(job)
        try:
            status = run_script(job) if job.get("script") else run_main(job["argv"])
        except SystemExit as end:
            status = end.code or 0
            if isinstance(status, str):
                print(status, file=sys.stderr)
                status = 1
        sys.stdout.flush()
        if job.get("file_limit"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (scratch / "changes").write_text(str(changes[0]))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status if isinstance(status, int) else 98)


def run_main(argv):
    import runfile

    return runfile.main(argv)


def run_script(job):
    """Be ``python script *argv``."""
    script = job["script"]
    sys.argv[:] = [script, *job["argv"]]
    if script.endswith(".py"):
        sys.path.insert(0, str(Path(script).parent))
        runpy.run_path(script, run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__", alter_sys=True)
    return 0


def watch(job):
    """Count the changes on disk below ``job["watch"]``, and do what the job wants at one of them."""
    count, folder, copying = [0], job.get("watch"), []

    def hook(event, arguments):
        if copying:
            return
        if event == "open":
            path, _, flags = arguments
            if job.get("kill_at_open") and str(path).endswith("/" + job["kill_at_open"]):
                os.kill(os.getpid(), signal.SIGKILL)
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in WRITES:
            path = arguments[1] if event == "os.rename" else arguments[0]
        else:
            return
        if isinstance(path, int) or folder is None or not os.fsdecode(path).startswith(folder):
            return
        if job.get("full_at") and re.sub(r"^\.part\d+-", "", Path(os.fsdecode(path)).name) == job["full_at"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        count[0] += 1
        if count[0] in job.get("copy_at", ()):
            copying.append(True)
            if Path(folder).exists():
                shutil.copytree(folder, Path(job["scratch"]) / str(count[0]), symlinks=True)
            copying.clear()
        if count[0] == job.get("kill_at_change"):
            os.kill(os.getpid(), signal.SIGKILL)
        if count[0] == job.get("interrupt_at_change"):
            os.kill(os.getpid(), signal.SIGINT)

    sys.addaudithook(hook)
    return count


def replace_figures(set_attribute):
    """Put ``quick_figures`` in place of the figures, and a word in place of the report."""
    from report import page

    set_attribute(page, "write_figures", quick_figures)
    set_attribute(page, "write_report", lambda run, **rest: (run.folder / "report.html").write_text("report"))


def quick_figures(run, *rest, **others):
    """Write one small figure."""
    (run.folder / "figures").mkdir(exist_ok=True)
    (run.folder / "figures/one.png").write_bytes(run.folds[0].y_pred.tobytes())


def leave_out_figures(kept=("sensitivity_shares", "loss_curves")):
    """Draw and write these figures alone, and the report with them."""
    from report import page

    make = page.make_figures
    page.make_figures = lambda *asked: {name: picture for name, picture in make(*asked).items() if name in kept}


def compile_nothing():
    """Let TensorFlow run every operation as it comes, but for those that prepare the data."""
    import warnings

    import tensorflow as tf

    warnings.filterwarnings("ignore", message="Even though the `tf.config.experimental_run_functions_eagerly`")
    tf.config.run_functions_eagerly(True)


def fork_workers():
    """Let ``multiprocessing`` fork instead of starting Python anew: TensorFlow is then imported, and not yet used."""
    import logging
    import multiprocessing

    os.register_at_fork(after_in_child=logging.getLogger().handlers.clear)  # a new process writes no log of its own
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context("fork")


def predict_nan():
    """Let every network return NaN for the first spectrum."""
    import keras
    import numpy as np

    predict = keras.Model.predict_on_batch

    def spoilt(self, *arguments, **keywords):
        answer = np.array(predict(self, *arguments, **keywords))
        answer[0] = float("nan")
        return answer

    keras.Model.predict_on_batch = spoilt


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    serve()
