"""What a step asks for, read from its decorators. Runs in tasks too: Metaflow and the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from metaflow.exception import MetaflowException

REQUIREMENT_DECORATORS = ("conda", "pypi")
# Decorators from before Metaflow had `supports_conda_environment`; newer ones carry that attribute.
_COMPUTE_DECORATORS = ("batch", "kubernetes")


class PrebuiltEnvironmentException(MetaflowException):
    """Something about images or environments that the user can do something about."""

    headline = "Prebuilt environment"


class Asked(NamedTuple):
    """What one step asks for.

    Attributes:
        python: The Python version that the user wrote; None if none was written.
        conda: Conda packages, name to version.
        pypi: PyPI packages, name to version.
    """

    python: str | None
    conda: dict[str, str]
    pypi: dict[str, str]


def asked_of(step: Any) -> Asked | None:
    """Return what `step` asks for; None if it asks for nothing or has its environment disabled.

    Raises:
        PrebuiltEnvironmentException: Its decorators ask for different Python versions.
    """
    if is_disabled(step):
        return None
    decorators = _requirement_decorators(step)
    return Asked(
        python=_python(step.name, [deco.asked_python for deco in decorators.values()]),
        conda=_packages(decorators.get("conda")),
        pypi=_packages(decorators.get("pypi")),
    )


def check_packages(deco: Any) -> None:
    """Refuse packages that are no names with versions, of a decorator that asks for some."""
    packages = deco.attributes["packages"]
    if not isinstance(packages, Mapping):
        raise PrebuiltEnvironmentException(
            f"tried to read the packages of @{deco.name}: they are {packages!r}; write packages={{'name': 'version'}}"
        )


def is_disabled(step: Any) -> bool:
    """Return whether `step` has no environment of its own: no decorator asks for one, or any of them is disabled."""
    decorators = _requirement_decorators(step).values()
    return not decorators or any(str(deco.attributes["disabled"]).lower() == "true" for deco in decorators)


def compute_of(step: Any) -> Any | None:
    """Return the decorator that sends `step` to another machine or into a container; None if it runs as it is, here."""
    for deco in step.decorators:
        if getattr(deco, "supports_conda_environment", False) or deco.name in _COMPUTE_DECORATORS:
            return deco
    return None


def _requirement_decorators(step: Any) -> dict[str, Any]:
    return {deco.name: deco for deco in step.decorators if deco.name in REQUIREMENT_DECORATORS}


def _packages(deco: Any | None) -> dict[str, str]:
    packages = deco.attributes["packages"] if deco else {}
    return {name: "" if version is None else str(version).strip() for name, version in packages.items()}


def _python(step_name: str, asked: list[str | None]) -> str | None:
    wanted = sorted({python for python in asked if python}, key=lambda python: (len(python), python))
    if not wanted:
        return None
    exact = wanted[-1]
    if any(python != exact and not exact.startswith(python + ".") for python in wanted):
        raise PrebuiltEnvironmentException(
            f"tried to read the Python version of step *{step_name}*: "
            f"@conda and @pypi ask for different ones ({' and '.join(wanted)}); give it once"
        )
    return exact
