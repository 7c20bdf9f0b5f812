"""The import ladder: which package may import which, held by import-linter.

The contracts are made from the packages that are there, so that a new one is held to them from its first day.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from importlinter.cli import lint_imports

from tools.declared import DeclaredContract
from tools.packages import Package, all_packages

# Rungs, lowest first. A package that is not named here is a backend: it stands on these and on no other backend.
_FOUNDATIONS: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "oci": frozenset({"core"}),
    "lock": frozenset({"core"}),
}
_GLUE = "metaflow"
_SUITES = "testing"  # for tests: nothing that is shipped to users imports it


def allowed_imports(package: Package, packages: Iterable[Package]) -> frozenset[str]:
    """Return the short names of the packages that `package` may import."""
    if package.short in _FOUNDATIONS:
        return _FOUNDATIONS[package.short]
    if package.short == _GLUE:
        return frozenset(other.short for other in packages) - {_SUITES}
    return frozenset(_FOUNDATIONS)


def contracts(packages: list[Package]) -> list[dict[str, Any]]:
    """Return import-linter's contracts for `packages`."""
    made: list[dict[str, Any]] = []
    for package in packages:
        allowed = allowed_imports(package, packages) | {package.short}
        forbidden = [other.module for other in packages if other.short not in allowed]
        if package.short != _GLUE:
            forbidden.append("metaflow")
        made.extend(
            (
                {
                    "name": f"{package.name} stands on {', '.join(sorted(allowed - {package.short})) or 'nothing'}",
                    "type": "forbidden",
                    "source_modules": [package.module],
                    "forbidden_modules": forbidden,
                },
                {
                    "name": f"{package.name} imports what it declares",
                    "type": "declared",
                    "package": package.name,
                    "module": package.module,
                    "declared": sorted(package.dependency_names),
                },
            )
        )
    return made


def config(packages: list[Package]) -> str:
    """Return the text of import-linter's configuration file, in TOML."""
    lines = [
        "[tool.importlinter]",
        f"root_packages = {json.dumps([package.module for package in packages])}",
        "include_external_packages = true",
        f"contract_types = {json.dumps([f'declared: {DeclaredContract.__module__}.{DeclaredContract.__name__}'])}",
    ]
    for contract in contracts(packages):
        lines += ["", "[[tool.importlinter.contracts]]"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in contract.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Check the packages as they are installed; return import-linter's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ladder.toml"
        file.write_text(config(list(all_packages().values())), encoding="utf-8")
        return lint_imports(config_filename=str(file), no_cache=True, no_logo=True)


if __name__ == "__main__":
    raise SystemExit(main())
