"""Mutation testing of the sensitivity test: one change of its code at a time, does a test notice?

mutmut makes the mutants (all of a module in one file, chosen by a variable); pytest collects the tests once, and a fork
of that process runs, for each mutant, the tests that reach the changed function until one fails. So a mutant costs a
tenth of a second, not the start of pytest and of the imports. By hand, with ``pip install mutmut==3.8.1``:

    python tests/mutants.py FOLDER                             all modules, some 20 minutes of processor time
    python tests/mutants.py FOLDER perturbation/accumulate.py     one
    python tests/mutants.py FOLDER --table                     what has been found so far

FOLDER is made, holds a copy of the code and keeps the answers: of a second run only survivors and what changed are
tried again. ``--verbose`` lists the survivors with their changes.
"""

import argparse
import ast
import contextlib
import csv
import difflib
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ["sensitivity.py", *sorted(f"perturbation/{path.name}" for path in (ROOT / "perturbation").glob("[a-z]*.py"))]
SECONDS, FACTOR = 2.0, 10  # a test may take this and so many times what it takes without a change, else: endless loop
SLOW = 0.05  # seconds; slower tests are asked only about functions that no quicker one reaches
MEMORY = 8 << 30  # bytes of addresses
# Without what is slow: TensorFlow in every process, closed forms at 283 bins (64 do), coverage of error bars.
PYTEST = [
    "tests/perturbation", "--ignore-glob=*test_sensitivity_models.py", "--ignore-glob=*test_keras_backends.py",
    "-k", "not 283 and not error_covers", "-q", "-s", "--tb=native", "-p", "no:cacheprovider", "-p", "no:xdist",
]  # fmt: skip


# The mutants, as mutmut makes them


def make_copy(folder, modules):
    """Copy code and tests into ``folder``, the modules with all of their mutants; return the changes by mutant."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import mangled_name_from_mutant_name

    for name in ("perturbation", "tests"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sensitivity.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    os.chdir(folder)
    changes = {}
    for module in modules:
        mutated = mutate_file_contents(module, (ROOT / module).read_text())
        (folder / module).write_text(mutated.code)
        lines = mutated.code.splitlines()
        sources = {
            name: "\n".join(lines[span.start - 1 : span.end])
            for name, span in mutated.line_span_by_function_name.items()
        }
        for name in mutated.mutant_names:
            before = sources[mangled_name_from_mutant_name(name) + "__mutmut_orig"]
            full = f"{module.removesuffix('.py').replace('/', '.')}.{name}"
            changes[full] = (module, before, sources[name])
    return changes


def is_of_a_message(before, after):
    """Whether two versions of a function differ only in what an exception is given to say."""

    class NoMessage(ast.NodeTransformer):
        def visit_Raise(self, node):
            if isinstance(node.exc, ast.Call):
                node.exc.args, node.exc.keywords = [], []
            return node

    def stripped(source):
        tree = ast.parse("class _:\n" + "\n".join("    " + line for line in source.splitlines()))
        tree.body[0].body[0].name = "_"
        return ast.dump(NoMessage().visit(tree))

    return stripped(before) == stripped(after)


def difference(before, after):
    """Return the lines taken out and put in."""
    lines = list(difflib.unified_diff(before.splitlines()[1:], after.splitlines()[1:], n=0, lineterm=""))[2:]
    return [line[0] + " " + line[1:].strip() for line in lines if not line.startswith("@@")]


# The tests, in forks of one process


class MutantRunner:
    """A plugin of pytest that runs the collected tests in forks, once for each mutant."""

    def __init__(self, mutants, done):
        self.mutants = mutants
        self.done = done  # called with mutant, answer
        self.session = None

    def pytest_runtestloop(self, session):
        self.session = session
        reaches, seconds = self.survey()
        kills = defaultdict(Counter)  # of a function: tests that noticed a change
        files = [item.location[0] for item in session.items]  # what a file prepares is prepared once
        for mutant in self.mutants:
            function = mutant.partition("__mutmut_")[0]
            tests = sorted(reaches.get(function, ()), key=lambda k: (-kills[function][k], files[k], seconds[k]))
            start = time.process_time(), os.times().children_user
            answer = self.run(mutant, tests, seconds)
            used = time.process_time() - start[0] + os.times().children_user - start[1]
            if answer.isdigit():
                kills[function][int(answer)] += 1
                answer = session.items[int(answer)].nodeid
            self.done(mutant, answer, round(used, 3))
        return True

    def survey(self):
        """Return the tests that reach each function, and the processor seconds of each test."""
        from mutmut.state import state

        answer = self.fork("stats", self.survey_child, state())
        found = json.loads(answer)
        if "failed" in found:
            raise SystemExit(f"tests: expected all to pass without a change, received {found['failed']}")
        seconds = found["seconds"]
        fast = [t for t in seconds if t < SLOW]
        print(f"{len(fast)} of {len(seconds)} tests, {sum(fast):.1f} of {sum(seconds):.1f} s", flush=True)
        return found["reaches"], seconds

    def survey_child(self, state):
        reaches, slowly, seconds = defaultdict(list), defaultdict(list), []
        items = self.session.items
        for k, (item, after) in enumerate(zip(items, [*items[1:], None], strict=True)):
            start = time.process_time()
            if self.fails(item, after):
                return json.dumps({"failed": item.nodeid})
            seconds.append(time.process_time() - start)
            for function in state._stats:
                (reaches if seconds[-1] < SLOW else slowly)[function].append(k)
            state._stats.clear()
        return json.dumps({"reaches": slowly | reaches, "seconds": seconds})

    def run(self, mutant, tests, seconds):
        """Return the number of the first test that fails, "survived", "no test" or "endless"."""
        if not tests:
            return "no test"
        return self.fork(mutant, self.run_child, tests, seconds) or "endless"

    def run_child(self, tests, seconds):
        items = self.session.items
        for k, after in zip(tests, [*tests[1:], None], strict=True):
            limit = SECONDS + FACTOR * seconds[k]
            signal.setitimer(signal.ITIMER_PROF, limit)
            signal.setitimer(signal.ITIMER_REAL, 6 * limit)
            if self.fails(items[k], None if after is None else items[after]):
                return str(k)
        return "survived"

    def fails(self, item, after):
        item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
        return self.session.testsfailed > 0

    def fork(self, mutant, child, *args):
        """Return the text that ``child(*args)`` returns in a fork in which the mutant is at work; "" if it died."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os.setsid()
                os.close(reader)
                for stream in (1, 2):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                from mutmut.mutation.trampoline import set_mutant_under_test

                set_mutant_under_test(mutant)
                os.write(writer, child(*args).encode())
            os._exit(0)
        os.close(writer)
        with open(reader) as stream:
            text = stream.read()
        os.waitpid(pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what an interrupted test left behind
        return text


# What was found


def table(answers, changes):
    """Return the lines of a table of modules."""
    counts = defaultdict(Counter)
    for mutant, (module, before, after) in changes.items():
        kind = "messages" if is_of_a_message(before, after) else "mutants"
        result = answers[mutant]["result"] if mutant in answers else "not tried"
        state = result if result in ("survived", "no test", "not tried") else "killed"
        for name in (module, "together"):
            counts[name][kind] += 1
            counts[name][kind, state] += 1
    lines = [
        "| Module | mutants | killed | survived | not tried | of messages | of these killed |",
        "|---|" + "--:|" * 6,
    ]
    for name in (*sorted(set(counts) - {"together"}), "together"):
        c = counts[name]
        left = c["mutants", "survived"] + c["mutants", "no test"]
        tried = c["mutants"] - c["mutants", "not tried"]
        share = f" ({100 * c['mutants', 'killed'] / tried:.1f} %)" if tried else ""
        lines.append(
            f"| {name} | {c['mutants']} | {c['mutants', 'killed']}{share} | {left} | {c['mutants', 'not tried']} "
            f"| {c['messages']} | {c['messages', 'killed']} |"
        )
    return lines


def write_survivors(path, answers, changes):
    """Write a row per survivor: its name, the lines taken out and those put in."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["mutant", "result", "taken out", "put in"])
        for name, (_, before, after) in changes.items():
            result = answers.get(name, {}).get("result")
            if result in ("survived", "no test"):
                # mutmut renames the function, which is no change
                lines = [line for line in difference(before, after) if not re.match(r"[-+] def x", line)]
                parts = (" ".join(line[2:] for line in lines if line[0] == sign) for sign in "-+")
                rows.writerow([name.replace("x_", "", 1).replace("__mutmut_", " "), result, *parts])


def digest(before, after):
    return hashlib.sha256(f"{before}\0{after}".encode()).hexdigest()[:16]


def main():
    """Make the mutants, run the tests, print what survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("modules", nargs="*", help=", ".join(MODULES))
    parser.add_argument("--table", action="store_true", help="only say what was found so far")
    parser.add_argument("--verbose", action="store_true", help="list the survivors with their changes")
    parser.add_argument("--survivors", type=Path, metavar="CSV", help="write the survivors with their changes there")
    parser.add_argument("--messages", action="store_true", help="try mutants of messages too")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    folder, survivors = arguments.folder.resolve(), arguments.survivors and arguments.survivors.resolve()
    modules = arguments.modules or MODULES
    changes = make_copy(folder, modules)
    path = folder / "answers.json"
    answers = json.loads(path.read_text()) if path.exists() else {}
    answers = {
        name: answer
        for name, answer in answers.items()
        if name not in changes or answer["digest"] == digest(*changes[name][1:])
    }

    def done(mutant, result, seconds):
        answers[mutant] = {"result": result, "seconds": seconds, "digest": digest(*changes[mutant][1:])}
        if len(answers) % 50 == 0:
            path.write_text(json.dumps(answers, indent=1))

    if not arguments.table:
        import pytest

        wanted = [
            name
            for name, (_, before, after) in changes.items()
            if answers.get(name, {"result": "survived"})["result"] in ("survived", "no test")
            and (arguments.messages or not is_of_a_message(before, after))
        ]
        sys.path.insert(0, str(folder))
        pytest.main([f"--rootdir={folder}", *PYTEST], plugins=[MutantRunner(wanted, done)])
        path.write_text(json.dumps(answers, indent=1))
    print(*table(answers, changes), sep="\n")
    print(f"{sum(answers[name]['seconds'] for name in changes if name in answers):.0f} s of processor time")
    if arguments.survivors:
        write_survivors(survivors, answers, changes)
    if arguments.verbose:
        for name, (_, before, after) in changes.items():
            if answers.get(name, {}).get("result") in ("survived", "no test"):
                print("", f"{name}: {answers[name]['result']}", *difference(before, after), sep="\n")


if __name__ == "__main__":
    main()
