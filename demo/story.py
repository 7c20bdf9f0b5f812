"""The demo itself: surroundings, a first deploy, a second one, and what they took."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from surroundings import LOCAL, can_be_reached, make_locally

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / ".cache" / "demo"
COMMAND = ("demo/flow.py", "--environment=prebuilt", "run", "--with", "container")
_ENGINE = "METAFLOW_PREBUILT_CONTAINER_ENGINE"  # whoever wants to see it with another one may choose
_LAUNCHED = "Task is starting."
_MADE, _FOUND = "image pushed", "image is there"
_SECOND_DEPLOY_S = 5.0  # it takes a third of a second; a machine that does other things meanwhile may take longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run of the flow took.

    Attributes:
        deploy_s: Seconds from the command to the first task.
        total_s: Seconds in all.
        made: Images that were baked.
        found: Images that were there.
        status: The command's exit status.
    """

    deploy_s: float
    total_s: float
    made: int
    found: int
    status: int

    def own_s(self, import_s: float) -> float:
        """Return what of `deploy_s` is ours: all but the import of Metaflow."""
        return max(self.deploy_s - import_s, 0.0)


def main() -> int:
    """Tell it; return 0 if it went as it should."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    print(f"Everything is kept in {FOLDER.relative_to(HERE.parent)}.", flush=True)
    variables = _own_settings()
    if not can_be_reached():
        print(LOCAL, flush=True)
        variables |= make_locally(FOLDER)
    first = _run("First run: images are baked, each step runs inside its own.", variables)
    if first.status != 0:
        return first.status
    second = _run("Second run: the same command.", variables)
    import_s = _import_s(variables)
    print(_table(first, second, import_s))
    if second.own_s(import_s) > _SECOND_DEPLOY_S:
        print(f"The second deploy took more than {_SECOND_DEPLOY_S:.0f} s, though there was nothing to bake.")
        return 1
    return second.status or int(first.made == 0 or second.made != 0)


def _own_settings() -> dict[str, str]:
    """Return an environment in which nothing of the user's Metaflow is read or written."""
    kept = {name: value for name, value in os.environ.items() if name == _ENGINE or not name.startswith("METAFLOW")}
    return {
        **kept,
        "METAFLOW_HOME": str(FOLDER / "metaflow-home"),
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(FOLDER / "datastore"),
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_USER": "demo",
        "METAFLOW_PREBUILT_BUILD_SERVICE": "native",
        "METAFLOW_PREBUILT_IMAGE_REGISTRY": "layout",
        "METAFLOW_PREBUILT_CACHE_DIR": str(FOLDER / "cache"),
        "METAFLOW_PREBUILT_LAYOUT": str(FOLDER / "images"),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": str(shutil.get_terminal_size().columns),
    }


def _run(heading: str, variables: Mapping[str, str]) -> Run:
    print(f"\n== {heading}\n$ python {' '.join(COMMAND)}", flush=True)
    began, launched, said = time.monotonic(), None, ""
    with _started([sys.executable, *COMMAND], variables) as (process, output):
        while piece := _read(output):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            said += piece.decode(errors="replace")
            if launched is None and _LAUNCHED in said:
                launched = time.monotonic()
        status = process.wait()
    ended = time.monotonic()
    return Run(
        deploy_s=(launched or ended) - began,
        total_s=ended - began,
        made=said.count(_MADE),
        found=said.count(_FOUND),
        status=status,
    )


@contextlib.contextmanager
def _started(command: Sequence[str], variables: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a command and give what to read its output from: a terminal's, if we write to one, so that its lines are live."""
    ours, theirs = pty.openpty() if sys.stdout.isatty() else os.pipe()
    with subprocess.Popen(command, cwd=HERE.parent, env=dict(variables), stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            os.close(ours)


def _read(output: int) -> bytes:
    """Return the next output, or nothing at its end, which Linux reports as an error where the output is a terminal's."""
    try:
        return os.read(output, 1 << 16)
    except OSError:
        return b""


def _import_s(variables: Mapping[str, str]) -> float:
    """Return the seconds that Metaflow takes to be imported, which every command begins with."""

    def once() -> float:
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import metaflow.cli"], check=True, env=dict(variables))
        return time.monotonic() - began

    return min(once() for _ in range(3))


def _table(first: Run, second: Run, import_s: float) -> str:
    rows = [f"{'':<12}{'images baked':>14}{'found there':>13}{'deploy':>10}{'in all':>10}"]
    rows += [
        f"{name:<12}{run.made:>14}{run.found:>13}{run.own_s(import_s):>8.1f} s{run.total_s:>8.1f} s"
        for name, run in (("first run", first), ("second run", second))
    ]
    note = f"deploy: from the command to the first task, less the {import_s:.1f} s that importing Metaflow takes"
    return "\n".join(["", *rows, "", note])


if __name__ == "__main__":
    raise SystemExit(main())
