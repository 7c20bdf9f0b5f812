"""The uv command: where it is, how it is run, and its errors in the user's words."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from prebuilt.core.errors import EngineError, ResolveError, redact, without_credentials
from prebuilt.core.tool_process import run_tool

_WARNING = re.compile(r"^warning: (.*)$", re.MULTILINE)
_FETCHED = re.compile(r"Failed to fetch: `?(\S+?)`?$", re.MULTILINE)
_NOT_BUILT = re.compile(r"^error: Failed to (?:download and )?build `([^`]+)`", re.MULTILINE)
_UNSATISFIABLE = re.compile(r"^error: No solution found[^\n]*\n(.*?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
_HINT = re.compile(r"^hint: (.*?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
_NOISE = (
    "warning: Requirements file",
    "hint: ",
    "error: Failed to ",
    "  cause: ",
    "Building ",
    "Resolved ",
)  # of uv, around what the build said
_MAX_REASON = 2000
_ONLY_WHEELS = "because building from source is disabled"
_NO_BUILD = re.compile(r"Building source distributions for `[^`]+` is disabled")  # of what comes from a URL or path
# Variables that choose an interpreter or an output form; each would turn a call of ours into another one.
_NOT_OURS = ("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_MANAGED_PYTHON", "UV_NO_MANAGED_PYTHON", "UV_CUSTOM_COMPILE_COMMAND")

_FINDING = threading.Lock()  # it reads sysconfig, whose first use by two threads at once fails before Python 3.12


def uv_version() -> str:
    """Return the version of uv that is used."""
    return version("uv")


@dataclass(frozen=True, slots=True, kw_only=True)
class UvResult:
    """What a run of uv gave."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def warnings(self) -> list[str]:
        """What uv warned of."""
        return _WARNING.findall(self.stderr)

    @property
    def wants_source(self) -> bool:
        """Whether it failed since some package has no wheel, and source was not allowed."""
        return self.returncode != 0 and (_ONLY_WHEELS in self.stderr or _NO_BUILD.search(self.stderr) is not None)


def run_uv(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    stdin: str = "",
    folder: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> UvResult:
    """Run uv and return what it said, whether it failed or not. It never downloads an interpreter.

    Args:
        arguments: Of uv.
        environ: Its whole environment.
        stdin: What it is fed.
        folder: Where it runs.
        check: Called now and then; raises to stop it, with the build that it may have started.

    Raises:
        ResolveError: There is no uv.
    """
    environ = {name: value for name, value in environ.items() if name not in _NOT_OURS}
    stdout: list[str] = []
    stderr: list[str] = []
    try:
        status = run_tool(
            [_uv(), *arguments, "--no-progress", "--color=never"],
            output=stdout.append,
            errors=stderr.append,
            stdin=[stdin.encode()],
            environ={**environ, "UV_PYTHON_DOWNLOADS": "never"},
            folder=folder,
            check=check,
        )
    except (FileNotFoundError, EngineError) as error:
        raise ResolveError(
            "run uv", reason=str(error), remedy="reinstall it: pip install --force-reinstall uv"
        ) from error
    assert status is not None  # noqa: S101 - it had all the time
    return UvResult(returncode=status, stdout=_text(stdout), stderr=_text(stderr))


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _uv() -> str:
    """Return the path of the uv command."""
    from uv import find_uv_bin

    with _FINDING:
        return str(find_uv_bin())


def interpreter(xy: tuple[int, int], environ: Mapping[str, str]) -> str:
    """Return an interpreter for building: of Python X.Y where this machine has one, else the running one."""
    if sys.version_info[:2] == xy:
        return sys.executable
    found = run_uv(["python", "find", "--no-project", f"{xy[0]}.{xy[1]}"], environ)
    return found.stdout.strip() if found.returncode == 0 else sys.executable


def resolve_error(result: UvResult, tried: str, brought: Mapping[str, str]) -> ResolveError:
    """Return a failed resolution as an error.

    Args:
        result: Of ``uv pip compile``.
        tried: What was being done, as an infinitive.
        brought: Packages that conda brings, by name, with their versions.
    """
    fetched, unsatisfiable = _FETCHED.search(result.stderr), _UNSATISFIABLE.search(result.stderr)
    if fetched:
        return _unreachable(result, tried, fetched[1])
    if unsatisfiable:
        return _no_solution(result, tried, _one_line(unsatisfiable[1]).removeprefix("cause: "), brought)
    not_built = _NOT_BUILT.search(result.stderr)
    if not_built:
        return not_buildable(tried, not_built[1], result.stderr)
    return ResolveError(tried, reason=_one_line(result.stderr).removeprefix("error: ")[:_MAX_REASON])


def not_buildable(tried: str, package: str, output: str) -> ResolveError:
    """Return the error for source that could not be built, with the last lines of `output`."""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith(_NOISE)]
    return ResolveError(
        tried,
        reason=f"there is no fitting wheel of {package}, and its source cannot be built on this machine:\n"
        + "\n".join(redact(line) for line in lines[-12:])
        + "\n",
        remedy="choose a version that has a wheel for this platform, or take the package from conda (@conda)",
    )


def _unreachable(result: UvResult, tried: str, url: str) -> ResolveError:
    causes = [line.strip().removeprefix("cause: ") for line in result.stderr.splitlines() if "cause: " in line]
    host = urlsplit(url).netloc.rpartition("@")[2]
    answered = re.search(r"HTTP status (client|server) error \(([^)]+)\)", result.stderr)
    reason = f"{host} answered {answered[2]}" if answered else f"{host} could not be reached ({causes[-1]})"
    remedy = "check the network, the proxy and the configured package index"
    if answered:
        remedy = "check the URL" if answered[1] == "client" else "try again later, or ask those who run the index"
    return ResolveError(tried, at=without_credentials(url), reason=reason, remedy=remedy)


def _no_solution(result: UvResult, tried: str, because: str, brought: Mapping[str, str]) -> ResolveError:
    hints = [_one_line(hint) for hint in _HINT.findall(result.stderr)]
    kept = [hint for hint in hints if _ONLY_WHEELS not in hint and "--python-version" not in hint]
    unauthorized = next((hint for hint in kept if "authentication credentials" in hint), None)
    named = [f"{name} {version}" for name, version in brought.items() if re.search(rf"\b{re.escape(name)}\b", because)]
    conda = f" (conda brings {', '.join(named)})" if named else ""
    remedy = "loosen one of these requirements"
    if unauthorized:
        remedy = "put credentials for the index into its URL, netrc or a keyring"
    elif "was not found in" in because:
        remedy = "check the name, and that your package index has it"
    elif "no wheels with a matching" in because or _ONLY_WHEELS in result.stderr:
        remedy = "choose a version that has a wheel for this platform, or take the package from conda (@conda)"
    reason = ". ".join(part.rstrip(".") for part in [because[:_MAX_REASON].rstrip(".") + conda, *kept])
    return ResolveError(tried, reason=reason, remedy=remedy)


def _one_line(text: str) -> str:
    return " ".join(text.split())
