"""A contract for import-linter: a package imports what its pyproject.toml declares."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

from tools.packages import name_of

_TYPES_ONLY = {"_typeshed"}  # brought by type checkers, never imported when a program runs


class DeclaredContract(Contract):
    """A package imports the standard library and what its pyproject.toml declares, nothing that happens to be there."""

    package = fields.StringField()
    module = fields.StringField()
    declared = fields.SetField(fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001 - import-linter's signature
        """Look at each import that leaves the package."""
        del verbose
        module, declared = str(self.module), {name_of(str(name)) for name in self.declared}  # type: ignore[attr-defined]
        providers = packages_distributions()
        broken = [
            f"{importer} imports {imported}"
            for importer in sorted({module, *graph.find_descendants(module)})
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if not _is_below(imported, module) and not _is_declared(imported, declared, providers)
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name the imports."""
        for line in check.metadata["broken"]:
            output.print_error(f"{line}, which {self.package} does not declare")


def _is_below(module: str, parent: str) -> bool:
    return module == parent or module.startswith(f"{parent}.")


def _is_declared(imported: str, declared: set[str], providers: Mapping[str, list[str]]) -> bool:
    parts = imported.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] in _TYPES_ONLY:
        return True
    if parts[0] == "prebuilt":
        return f"prebuilt-{parts[1]}" in declared
    # What is not installed here, such as a backport that this Python does not need, is taken to be called as it is imported.
    return any(name_of(name) in declared for name in providers.get(parts[0], parts[:1]))
