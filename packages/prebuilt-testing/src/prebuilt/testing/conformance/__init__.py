"""Suites that hold the contracts of ``docs/reference/contracts.md``: a backend subclasses one and gives it one fixture.

::

    class TestMyRegistry(RegistryContract):
        @pytest.fixture
        def new_registry(self):
            return MyRegistry  # what makes one: called with no arguments, several times
"""

import pytest

pytest.register_assert_rewrite(
    "prebuilt.testing.conformance.builder_contract",
    "prebuilt.testing.conformance.builder_world",
    "prebuilt.testing.conformance.registry_contract",
)

from prebuilt.testing.conformance.builder_contract import BuilderContract  # noqa: E402 - after the rewrite is asked for
from prebuilt.testing.conformance.registry_contract import RegistryContract  # noqa: E402

__all__ = ["BuilderContract", "RegistryContract"]
