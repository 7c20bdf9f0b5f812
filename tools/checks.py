"""All checks of the repository, two nox sessions at a time, and what pytest said of each at the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from tools import machine, venv
from tools.floor import Floor

# Cheap ones first: what is wrong most often is said soonest. Then the longest: none is to run alone at the end.
SESSIONS = (
    *("lint", "typing", "packaging", "tests", "minimums(metaflow)"),
    *(f"integration({engine})" for engine in ("docker", "kubernetes", "aws", "metaflow", "buildx")),
    *("integration", "docs", "demo"),
)
_NEEDS = ("nox[uv]>=2025.5.1",)
# Sessions wait for daemons and downloads as long as they compute. With three, tests that have a time limit would feel it.
_AT_ONCE = 2
_NEWS_S = 120.0
_PYTEST = re.compile(r"^=+ (?P<counts>(?:\d+ [a-z]+(?:, )?)+) in (?P<time>\S+)")
_COUNT = re.compile(r"(\d+) ([a-z]+)")
_PROBLEM = re.compile(r"^(?:FAILED|ERROR) \S+::")


@dataclass(slots=True)
class Session:
    """One nox session: how it ended, and what was seen go by in its output."""

    name: str
    result: str = "not run"
    elapsed_s: float = 0.0
    pytest: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def see(self, line: str) -> None:
        """Take note of a line of pytest's that sums up, or names what failed."""
        if _PYTEST.match(line):
            self.pytest.append(line.strip("= \n"))
        elif _PROBLEM.match(line):
            self.problems.append(line.rstrip("\n"))

    def run(self, environment: venv.Environment, floor: Floor) -> None:
        """Run it to its end."""
        began = time.monotonic()
        floor.enter(self.name)
        with subprocess.Popen(
            [str(environment.folder / "bin" / "nox"), "--session", self.name],
            cwd=venv.ROOT,
            env={**environment.variables, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                self.see(line)
                floor.say(self.name, line.rstrip("\n"))
        self.elapsed_s = time.monotonic() - began
        self.result = "failed" if process.returncode else "success"
        last_words = [*self.problems, f"---- {self.name}: {self.result} after {self.elapsed_s:.0f} s"]
        floor.leave(self.name, *last_words)


def summary(sessions: Sequence[Session], elapsed_s: float) -> Iterable[str]:
    """Return a line for each session, then what failed, then the sum of pytest's counts in pytest's own form."""
    for session in sessions:
        said = session.pytest[-1] if session.pytest else ""
        yield f"{session.name:<28} {session.result:<8} {session.elapsed_s:5.0f} s  {said}".rstrip()
    for session in sessions:
        yield from (f"{session.name}: {problem}" for problem in session.problems)
    counts: dict[str, int] = {}
    for said in (said for session in sessions for said in session.pytest):
        for number, word in _COUNT.findall(said.partition(" in ")[0]):
            counts[word] = counts.get(word, 0) + int(number)
    total = ", ".join(f"{number} {word}" for word, number in counts.items()) or "no tests ran"
    yield f"==== {total} in {elapsed_s:.2f}s ===="


def main(arguments: Sequence[str]) -> int:
    """Run the sessions named in `arguments`, or all; return 0 if all went well."""
    began = time.monotonic()
    try:
        environment = venv.ensure("checks", _NEEDS)
        sessions = [Session(name) for name in _names(environment, arguments or SESSIONS)]
        machine.install_engines()
    except (venv.NoEnvironmentError, subprocess.CalledProcessError) as error:
        print(error)
        return 1
    wants_engines = any(session.name.startswith("integration") for session in sessions)
    with machine.engines_on_their_way(venv.ROOT) if wants_engines else contextlib.nullcontext():
        _run(sessions, environment)
    print(*summary(sessions, time.monotonic() - began), sep="\n", flush=True)
    return 0 if all(session.result == "success" for session in sessions) else 1


def _names(environment: venv.Environment, wanted: Sequence[str]) -> list[str]:
    """Return the sessions that `wanted` stands for, in its order: ``tests`` are those of all packages."""
    nox = [str(environment.folder / "bin" / "nox"), "--list", "--json", "--session", *wanted]
    done = subprocess.run(nox, cwd=venv.ROOT, env=environment.variables, check=True, stdout=subprocess.PIPE)
    listed = json.loads(done.stdout)

    def rank(session: dict[str, str]) -> int:
        return next(place for place, name in enumerate(wanted) if name in {session["session"], session["name"]})

    return [session["session"] for session in sorted(listed, key=rank)]


def _run(sessions: Sequence[Session], environment: venv.Environment) -> None:
    floor = Floor(lambda line: print(line, flush=True))
    with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
        running = {pool.submit(session.run, environment, floor) for session in sessions}
        try:
            while running:
                ended, running = wait(running, timeout=_NEWS_S, return_when=FIRST_COMPLETED)
                for each in ended:
                    each.result()
                if not ended:
                    floor.ask_round()
        except BaseException:  # Ctrl-C, which nox has got as well
            pool.shutdown(wait=False, cancel_futures=True)
            raise
