"""Measures bakes against Dockerfiles and prints a table with ratios.

Usage: python benchmarks [--environment B] [--repeat 3] [--against buildkit docker]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bases import push_base, push_base_with_uv
from contestants import Result, bake_natively, bake_with_buildkit, bake_with_docker, know_base
from environments import CHANGES, ENVIRONMENTS, SMALL_CHANGES
from uploads import blob_sizes, uploaded_bytes

from prebuilt.testing.engines.buildkit import buildkit_daemon
from prebuilt.testing.engines.docker import docker_engine
from prebuilt.testing.engines.registry import distribution_registry


@dataclass(kw_only=True)
class Bench:
    """One environment, one registry, and the contestants that push to it."""

    environment: str
    folder: Path
    host: str
    base: str
    rivals: dict[str, Callable[[str, Path], Result]] = field(default_factory=dict)

    @property
    def packages(self) -> dict[str, str]:
        """What is baked."""
        return ENVIRONMENTS[self.environment]

    def cold(self, repeat: int) -> None:
        """Bake everything from nothing, each contestant in turn, `repeat` times; print medians, ratios, and each time.

        Times are in their order, since who writes much is slowed down by what was written before and is not on the disk yet.
        """
        results: dict[str, list[Result]] = {}
        for run in range(repeat):
            know_base(self.base, repository=f"{self.host}/cold-{run}", cache=self.folder / f"cache-{run}")
            results.setdefault("native", []).append(self.native(f"cold-{run}", self.packages, f"cache-{run}"))
            for name, bake in self.rivals.items():
                results.setdefault(name, []).append(
                    bake(f"{self.host}/{name}-{run}:env", self.folder / f"{name}-{run}")
                )
        ours = statistics.median(result.seconds for result in results["native"])
        for name, of_name in results.items():
            seconds = [result.seconds for result in of_name]
            median = statistics.median(seconds)
            each = ", ".join(f"{one:.1f}" for one in seconds)
            row(f"cold bake + push, {name}", f"{median:.1f} s", f"{median / ours:.2f} x native ({each})")
        watched = self.native("watched", self.packages, "cache-watched", watch_memory=True)
        row("peak memory, native, all processes", f"{(watched.peak_bytes or 0) / 1e6:.0f} MB", "")

    def warm(self) -> None:
        """Bake again what is there, and with one package changed; print times and bytes that went up."""
        again = self.native("cold-0", self.packages, "cache-0")
        row("second bake, nothing changed", f"{again.seconds:.2f} s", "")
        fresh = self.native("cold-0", self.packages, "cache-empty")
        row("the same from a machine with empty caches", f"{fresh.seconds:.2f} s", "")
        for what, changes in (("one package changed", CHANGES), ("one small package changed", SMALL_CHANGES)):
            before = blob_sizes(self.folder / "registry")
            changed = self.native("cold-0", {**self.packages, **changes[self.environment]}, "cache-empty")
            size = uploaded_bytes(before, blob_sizes(self.folder / "registry"))
            row(what, f"{changed.seconds:.1f} s", f"{size / 1e6:.1f} MB uploaded")

    def native(self, repository: str, packages: dict[str, str], cache: str, *, watch_memory: bool = False) -> Result:
        """Bake with ours."""
        return bake_natively(
            packages,
            repository=f"{self.host}/{repository}",
            base=self.base,
            cache=self.folder / cache,
            watch_memory=watch_memory,
        )


def row(what: str, value: str, remark: str) -> None:
    """Print one line of the table."""
    print(f"| {what:42} | {value:>9} | {remark:20} |", flush=True)


def main() -> None:
    """Start the engines, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", choices=ENVIRONMENTS, default="A")
    parser.add_argument("--repeat", type=int, default=1, help="cold bakes of each contestant; medians are printed")
    parser.add_argument("--against", nargs="*", choices=["buildkit", "docker"], default=[], help="Dockerfile builders")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prebuilt-bench-")))
        host = stack.enter_context(distribution_registry(folder / "registry", release="current"))
        base = push_base(host)
        bench = Bench(environment=options.environment, folder=folder, host=host, base=base)
        if "buildkit" in options.against:
            buildkit = stack.enter_context(buildkit_daemon(folder / "buildkit", registry=host))
            with_uv = push_base_with_uv(base, buildkit, folder / "uv")
            bench.rivals["buildkit"] = lambda name, context: bake_with_buildkit(
                bench.packages, buildkit=buildkit, name=name, base=base, base_with_uv=with_uv, folder=context
            )
        if "docker" in options.against:
            engine = stack.enter_context(docker_engine())
            bench.rivals["docker"] = lambda name, context: bake_with_docker(
                bench.packages, environ={**os.environ, **engine.environ}, name=name, base=base, folder=context
            )
        print(f"environment {options.environment}: {', '.join(f'{k} {v}' for k, v in bench.packages.items())}\n")
        bench.cold(options.repeat)
        bench.warm()


if __name__ == "__main__":
    main()
