"""``python -m prebuilt.testing.engines``: get what takes minutes now, so that no test waits for it. Standard library only."""

from __future__ import annotations

import sys

from prebuilt.testing.engines.binfmt import emulator
from prebuilt.testing.engines.buildkit import buildkit_programs
from prebuilt.testing.engines.docker_release import DockerRelease
from prebuilt.testing.engines.kaniko import kaniko_executor
from prebuilt.testing.engines.kubernetes.programs import kubernetes_programs
from prebuilt.testing.engines.process import EngineError
from prebuilt.testing.engines.registry import registry_program


def main() -> int:
    """Get every engine that can be got, the quick ones first; return 1 if one cannot."""
    problems = []
    engines = (
        DockerRelease.current,
        emulator,
        registry_program,
        buildkit_programs,
        kubernetes_programs,
        kaniko_executor,
    )
    for get in engines:
        try:
            get()
        except EngineError as error:
            problems.append(error)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
