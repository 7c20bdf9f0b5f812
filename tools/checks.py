"""All checks of the repository, one nox session after another, and what pytest said of each at the end."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tools import machine, venv

# Cheap ones first: what is wrong most often is said soonest.
SESSIONS = ("lint", "typing", "packaging", "tests", "minimums(metaflow)", "integration", "docs", "demo")
_NEEDS = ("nox[uv]>=2025.5.1",)
_SESSION = re.compile(r"^nox > Running session (?P<name>.+)$")
_RESULT = re.compile(r"^nox > \* (?P<name>.+?): (?P<result>\w+)")
_PYTEST = re.compile(r"^=+ (?P<counts>(?:\d+ [a-z]+(?:, )?)+) in (?P<time>\S+)")
_COUNT = re.compile(r"(\d+) ([a-z]+)")


@dataclass(slots=True)
class Tally:
    """What was seen go by in nox's output."""

    session: str = ""
    pytest: list[tuple[str, str]] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)

    def see(self, line: str) -> None:
        """Take note of a line that begins a session, ends one, or sums one up."""
        if match := _SESSION.match(line):
            self.session = match["name"]
        elif match := _RESULT.match(line):
            self.results[match["name"]] = match["result"]
        elif match := _PYTEST.match(line):
            self.pytest.append((self.session, line.strip("= \n")))

    def lines(self, elapsed_s: float) -> Iterable[str]:
        """Return the summary: a line for each session, then the sum of pytest's counts in pytest's own form."""
        said = dict(self.pytest)
        for name, result in self.results.items():
            yield f"{name:<28} {result:<8} {said.get(name, '')}".rstrip()
        counts: dict[str, int] = {}
        for _, summary in self.pytest:
            for number, word in _COUNT.findall(summary.partition(" in ")[0]):
                counts[word] = counts.get(word, 0) + int(number)
        total = ", ".join(f"{number} {word}" for word, number in counts.items()) or "no tests ran"
        yield f"==== {total} in {elapsed_s:.2f}s ===="


def main(arguments: Sequence[str]) -> int:
    """Run the sessions named in `arguments`, or all; return 0 if all went well."""
    began = time.monotonic()
    try:
        environment = venv.ensure("checks", _NEEDS)
    except (venv.NoEnvironmentError, subprocess.CalledProcessError) as error:
        print(error)
        return 1
    machine.install_engines()
    nox = [str(environment.folder / "bin" / "nox"), "--session", *(arguments or SESSIONS)]
    tally = Tally()
    wants_engines = not arguments or any(name.startswith("integration") for name in arguments)
    with (
        machine.engines_on_their_way(venv.ROOT) if wants_engines else contextlib.nullcontext(),
        subprocess.Popen(
            nox,
            cwd=venv.ROOT,
            env={**environment.variables, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        for line in process.stdout or ():
            print(line, end="", flush=True)
            tally.see(line)
    print(*tally.lines(time.monotonic() - began), sep="\n", flush=True)
    return process.returncode
