"""A conda channel built on the spot: this machine's Python, and packages made of the wheels that the package index has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from prebuilt.testing.conda_channel import CondaChannel, build_channel
from prebuilt.testing.conda_python import python_package
from prebuilt.testing.conda_wheel import wheel_as_conda
from prebuilt.testing.interpreter import Interpreter


def make_channel(folder: Path, wanted: Iterable[str]) -> CondaChannel:
    """Return a channel in `folder` that has Python, the `wanted` distributions and what they need."""
    interpreter = Interpreter.inspect()
    wheels = folder / "wheels"
    download = ("download", "--quiet", "--only-binary=:all:", f"--dest={wheels}")
    subprocess.run([sys.executable, "-m", "pip", *download, *wanted], check=True)
    packages = [wheel_as_conda(wheel, python_xy=interpreter.xy) for wheel in sorted(wheels.glob("*.whl"))]
    return build_channel(folder / "channel", [python_package(interpreter), *packages])
