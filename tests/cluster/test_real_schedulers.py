"""Every script of docs/cluster.md on a real Slurm and a real MPI, on one machine: the numbers of one process each time.

Not part of the usual run: ``tests/cluster/run`` installs what is needed (Debian or Ubuntu, as root) and runs this.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import pytest
import yaml

if not os.environ.get("CLUSTER_TESTS"):
    pytest.skip("a real Slurm and MPI are asked for by CLUSTER_TESTS=1 (tests/cluster/run)", allow_module_level=True)
sys.path.insert(0, str(Path(__file__).parent))

import cluster_models
import slurm
from page import adapted, scripts
from synthetic import dataset, write

ROOT = Path(__file__).parents[2]
needs_slurm = pytest.mark.skipif(bool(slurm.missing()), reason=f"not installed: {', '.join(slurm.missing())}")
needs_mpi = pytest.mark.skipif(not shutil.which("mpiexec"), reason="mpiexec is not installed")
PATIENCE = 300  # seconds for a job
AS_ROOT = {  # Open MPI in a container
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home with the repository under the name of the page, a small survey, and its settings."""
    place = tmp_path_factory.mktemp("cluster")
    (place / "spectra-sensitivity").symlink_to(ROOT)
    tree = {
        "data": {"path": write(place / "data.h5", dataset(n=1500))},
        "model": {"name": "cnn", "cnn": {"filters": [8], "patch_filters": 8, "dense": [16]}},
        "training": {"epochs": 25, "batch_size": 16, "copies": 1, "stop_patience": 0},
        "sensitivity": {"no_spectra": 200, "repeat": 1000, "chunk_size": 2},
    }
    (place / "small.yaml").write_text(yaml.safe_dump(tree))
    return place


@pytest.fixture(scope="module")
def environment(place):
    """What a user's shell has: another home, our programs first, one thread."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "HOME": str(place), "PATH": path, "TF_NUM_INTRAOP_THREADS": "1", **AS_ROOT}


@pytest.fixture(scope="module")
def cluster(place, environment):
    """Slurm on the loopback interface, for the programs of ``environment``."""
    (place / "slurm").mkdir()
    with slurm.running(place / "slurm", {**environment, "SBATCH_OUTPUT": f"{place}/slurm-%j.out"}) as whole:
        yield whole


@pytest.fixture(scope="module")
def reference(place, environment):
    """The folder of the run in one process."""
    command = [
        "python",
        "runfile.py",
        "--quiet",
        "--config",
        place / "small.yaml",
        "--cv",
        2,
        "--output",
        place / "one",
    ]
    subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, check=True)
    return place / "one"


def digest(folder):
    """Return a digest of all weights and all results of a finished run."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("model_*.keras")):
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            _add(whole, file)
    with h5py.File(folder / "results.h5") as file:
        _add(whole, file)
    return whole.hexdigest()


def _add(whole, file):
    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            whole.update(f"{name} {item.shape} {item.dtype}".encode())
            whole.update(item[()].tobytes())

    file.visititems(visit)


def run_script(script, name, place, environment, **options):
    """Write a script into the user's home and start it there; return the process."""
    (place / name).write_text(script)
    interpreter = {"py": "python", "sh": "bash"}[name.split(".")[1]]
    with open(place / f"{name}.out", "w") as file:
        return subprocess.Popen([interpreter, name], cwd=place, env=environment, stdout=file, stderr=file, **options)


def wait_for_jobs(cluster):
    slurm.wait_for(lambda: not slurm.jobs(cluster), PATIENCE, f"the end of {slurm.jobs(cluster)}")


def said(place):
    """Return all that jobs and scripts printed."""
    return "\n".join(path.read_text(errors="replace") for path in sorted(place.rglob("*.out")))


def survey(place, name):
    """What the page calls the results folder and the command, and what is taken for it."""
    return {"/scratch/me/survey": place / name, "runfile.py --cv 5": f"runfile.py --config {place}/small.yaml --cv 2"}


@needs_slurm
def test_job_array_with_a_fold_cancelled_and_submitted_again(place, cluster, reference):
    ((_, script),) = scripts("SLURM, without Dask")
    changes = {**survey(place, "array"), "--array=0-4": "--array=0-1", "--cpus-per-task=4": "--cpus-per-task=1"}
    script = adapted(script, changes)
    assert run_script(script, "array.sh", place, cluster).wait() == 0
    history = place / "array/.unfinished/history_1.csv"
    slurm.wait_for(lambda: history.is_file() and history.read_text().count("\n") > 3, PATIENCE, "epochs of fold 1")
    (first,) = set(slurm.output(["squeue", "-h", "-r", "-o", "%F"], cluster).split()) - last_jobs(cluster)
    subprocess.run(["scancel", f"{first}_1"], env=cluster, check=True)
    wait_for_jobs(cluster)
    epochs = history.read_text().count("\n")
    assert not (place / "array/results.h5").exists() and not (place / "array/.unfinished/model_1.keras").exists()

    assert run_script(script, "array.sh", place, cluster).wait() == 0
    wait_for_jobs(cluster)
    assert (place / "array/results.h5").is_file(), said(place)
    assert 3 < epochs < 26
    assert digest(place / "array") == digest(reference)


def last_jobs(cluster):
    """Return the numbers of jobs that wait for others."""
    lines = slurm.output(["squeue", "-h", "-o", "%F %r"], cluster).splitlines()
    return {line.split()[0] for line in lines if "Dependency" in line}


@needs_slurm
def test_dask_jobqueue_with_a_job_cancelled_in_the_middle(place, cluster, reference):
    pytest.importorskip("dask_jobqueue")
    ((_, script),) = scripts("SLURM, with dask-jobqueue")[:1]
    changes = {
        "/scratch/me/survey": place / "jobqueue", '"5"': '"2"',
        "/home/me/spectra-sensitivity": place / "spectra-sensitivity",
        '/runfile.py",': f'/runfile.py", "--config", "{place}/small.yaml",',
        "cores=8, processes=8": "cores=1, processes=1", "16GB": "2GB", "jobs=4": "jobs=2",
    }  # fmt: skip
    script = run_script(adapted(script, changes), "submit.py", place, cluster)
    maps = place / "jobqueue/.unfinished/maps_sensitivity.bin"
    slurm.wait_for(lambda: maps.is_file() and maps.stat().st_size > 100_000, PATIENCE, f"maps; {said(place)}")
    working = [job for job, (name, state) in slurm.jobs(cluster).items() if "dask" in name and state == "RUNNING"]
    assert len(working) == 2
    subprocess.run(["scancel", working[0]], env=cluster, check=True)
    assert script.wait(PATIENCE) == 0, said(place)
    assert "1 of 2 workers are left" in (place / "jobqueue/run.log").read_text()
    wait_for_jobs(cluster)
    assert digest(place / "jobqueue") == digest(reference)


def by_hand(place, cluster, name, **more):
    """Submit the page's script for one allocation, and wait for its end; return the results folder."""
    _, (_, script) = scripts("SLURM, with dask-jobqueue")
    changes = {
        "/scratch/$USER/survey": place / name, "/scratch/$USER": place, "--ntasks=33": "--ntasks=3",
        "--ntasks=32": "--ntasks=2", "runfile.py --cv 5": f"runfile.py --config {place}/small.yaml --cv 2", **more,
    }  # fmt: skip
    (place / f"{name}.sh").write_text(adapted(script, changes))
    assert slurm.output(["sbatch", "--parsable", "--chdir", str(place), str(place / f"{name}.sh")], cluster)
    wait_for_jobs(cluster)
    assert (place / name / "results.h5").is_file(), said(place)
    return place / name


@needs_slurm
def test_scheduler_and_workers_by_hand_inside_one_allocation(place, cluster, reference):
    assert digest(by_hand(place, cluster, "hand")) == digest(reference)


@needs_slurm
def test_the_same_over_tls(place, cluster, reference):
    ((_, script),) = scripts("Securing Dask")
    assert run_script(script, "tls.sh", place, cluster).wait() == 0, said(place)
    try:
        folder = by_hand(place, cluster, "tls", **{"dask scheduler": "dask scheduler --protocol tls"})
    finally:
        (place / ".config/dask/tls.yaml").unlink()
    assert re.search(r"Scheduler at: +tls://", said(place))
    assert digest(folder) == digest(reference)


@needs_mpi
def test_mpi_with_three_ranks(place, environment, reference):
    pytest.importorskip("mpi4py")
    (_, script), (_, command) = scripts("Your own executor, and MPI")
    changes = {"/scratch/me/survey": reference, "/home/me/spectra-sensitivity/data/ariel_spectra.h5": place / "data.h5"}
    script = adapted(script, changes)
    (place / "survey.py").write_text(script)
    mpi = run_script(adapted(command, {"-n 33": "-n 3"}), "mpi.sh", place, environment)
    assert mpi.wait(PATIENCE) == 0, said(place)
    found = _maps(reference / "survey_map.h5")
    alone = {
        "from mpi4py.futures import MPIPoolExecutor": "from contextlib import nullcontext",
        "MPIPoolExecutor": "nullcontext",
    }
    (reference / "maps.bin").unlink()
    one = run_script(adapted(script, alone), "alone.py", place, {**environment, "PYTHONPATH": str(ROOT)})
    assert one.wait(PATIENCE) == 0, said(place)
    assert found == _maps(reference / "survey_map.h5")


def _maps(path):
    whole = hashlib.sha256()
    with h5py.File(path) as file:
        _add(whole, file)
    path.unlink()
    return whole.hexdigest()


def test_survey_in_blocks_on_local_workers(place, environment, reference):
    ((_, script),) = scripts("Larger than the memory")
    changes = {
        "/scratch/me/survey": reference,
        "/scratch/me/spectra.h5": place / "data.h5",
        "local:4": "local:2 --block 400",
    }
    found = []
    for name, more in (("blocks", {}), ("alone", {"--scheduler local:2": ""})):
        adapted_script = adapted(adapted(script, {**changes, "/scratch/me/map": place / name}), more)
        assert run_script(adapted_script, f"{name}.sh", place, environment).wait(PATIENCE) == 0, said(place)
        assert len(list((place / name).glob("block_*.h5"))) == 4
        found.append(_maps(place / name / "sensitivity.h5"))
    assert found[0] == found[1]


def test_local_worker_beyond_its_limit_of_memory_ends_the_run_with_the_limit(monkeypatch):
    from pipeline import cluster

    monkeypatch.setattr(cluster, "local_limit", lambda n: 300_000_000)
    start = time.monotonic()
    with cluster.open_scheduler("local:1") as executor, pytest.raises(RuntimeError) as raised:
        executor.submit(cluster_models.hold, 400_000_000, 30).result(60)
    assert str(raised.value).endswith("workers died while running it (out of memory? each had a limit of 300 MB)")
    assert time.monotonic() - start < 60
