"""The four decorators under ``--environment=prebuilt``, and under others."""

from __future__ import annotations

import pytest
from metaflow import FlowSpec, conda, conda_base, pypi, pypi_base, step
from metaflow.decorators import _init_step_decorators
from metaflow.metaflow_environment import InvalidEnvironmentException, MetaflowEnvironment

from metaflow_extensions.prebuilt.plugins.conda.asked import PrebuiltEnvironmentException, asked_of, compute_of


class Mixed(FlowSpec):
    @conda(libraries={"old": "1"}, packages={"new": None, "old": "2"})
    @pypi(packages={"six": "1.16.0"}, python="3.10.4")
    @step
    def start(self):
        self.next(self.off)

    @conda(disabled=True)
    @pypi(packages={"six": "1.16.0"})
    @step
    def off(self):
        self.next(self.end)

    @step
    def end(self):
        pass


@conda_base(libraries={"shared": "1"}, python="3.10")
@pypi_base(packages={"wheel": ">=0.40"})
class Based(FlowSpec):
    @conda(packages={"shared": "2", "own": "3"})
    @pypi(python="3.10.4")
    @step
    def start(self):
        self.next(self.off)

    @conda(disabled=True)
    @step
    def off(self):
        self.next(self.end)

    @pypi(packages={"six": "@ https://example.org/six.whl"})
    @step
    def end(self):
        pass


class TwoPythons(FlowSpec):
    @conda(python="3.10")
    @pypi(python="3.11")
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def test_a_step_may_mix_conda_and_pypi(prepared):
    """Both decorators of a step count; legacy `libraries` yield to `packages`; no version means any."""
    flow, _ = prepared(Mixed)
    asked = asked_of(flow.start)
    assert asked.conda == {"old": "2", "new": ""}
    assert asked.pypi == {"six": "1.16.0"}


@pytest.mark.parametrize("packages", ["six", '["six"]'])
@pytest.mark.parametrize("name", ["conda", "pypi"])
def test_packages_are_names_with_versions(name, packages, prepared):
    """A list, or one name, is refused with the form that is right."""
    with pytest.raises(PrebuiltEnvironmentException, match=rf"packages of @{name}: they are .*six.*'name': 'version'"):
        prepared(Mixed, f"{name}:packages={packages}")


def test_python_is_the_users_or_none(prepared):
    """A Python version that nobody wrote is not taken from @conda, which fills in the host's."""
    flow, _ = prepared(Mixed, "conda")
    assert asked_of(flow.start).python == "3.10.4"
    assert asked_of(flow.end).python is None
    assert next(deco for deco in flow.end.decorators if deco.name == "conda").attributes["python"]


def test_any_disabled_decorator_disables_the_step(prepared):
    """A step of which one decorator is disabled asks for nothing, as upstream."""
    flow, environment = prepared(Mixed)
    assert asked_of(flow.off) is None
    assert environment.is_disabled(flow.off)


def test_a_step_without_decorators_asks_for_nothing(prepared):
    """A step without requirements keeps what it has."""
    flow, _ = prepared(Mixed)
    assert asked_of(flow.end) is None


def test_base_decorators_reach_every_step(prepared):
    """What the flow asks for is there in each step, where the step's own wish wins."""
    flow, _ = prepared(Based)
    assert asked_of(flow.start).conda == {"shared": "2", "own": "3"}
    assert asked_of(flow.start).pypi == {"wheel": ">=0.40"}
    assert asked_of(flow.end).conda == {"shared": "1"}
    assert asked_of(flow.end).pypi == {"wheel": ">=0.40", "six": "@ https://example.org/six.whl"}
    assert asked_of(flow.end).python == "3.10"
    assert asked_of(flow.off) is None


def test_decorators_of_the_command_line_count(prepared):
    """`--with pypi:…` asks on behalf of every step."""
    flow, _ = prepared(Mixed, 'pypi:packages={"attrs": "24"}')
    assert asked_of(flow.end).pypi == {"attrs": "24"}


def test_different_pythons_on_one_step_are_refused(prepared):
    """@conda and @pypi cannot ask for two Pythons."""
    flow, _ = prepared(TwoPythons)
    with pytest.raises(PrebuiltEnvironmentException, match=r"start.*3\.10 and 3\.11"):
        asked_of(flow.start)


def test_the_more_exact_python_wins(prepared):
    """3.10 and 3.10.4 are one wish."""
    flow, _ = prepared(Based)
    assert asked_of(flow.start).python == "3.10.4"


def test_other_environments_are_refused_as_before(fresh):
    """Under the stock environment the decorators say what they always said."""
    flow = fresh(Mixed)
    with pytest.raises(InvalidEnvironmentException, match="--environment=conda"):
        _init_step_decorators(flow, flow._graph, MetaflowEnvironment(flow), None, print)


def test_initialising_twice_changes_nothing(prepared):
    """Metaflow calls step_init more than once on flows with *_base; the answer stays."""
    flow, environment = prepared(Based)
    before = asked_of(flow.start)
    _init_step_decorators(flow, flow._graph, environment, None, print)
    assert asked_of(flow.start) == before


@pytest.mark.parametrize("name", ["container", "kubernetes"])
def test_the_compute_decorator_is_found(prepared, name, monkeypatch):
    """A step's compute decorator is whichever can carry an environment."""
    if name == "kubernetes":
        monkeypatch.setattr("metaflow.plugins.kubernetes.kubernetes_decorator.KubernetesDecorator.step_init", _nothing)
    flow, _ = prepared(Mixed, name)
    assert compute_of(flow.start).name == name


def test_a_step_that_runs_here_has_no_compute_decorator(prepared):
    """Decorators that say nothing about the place do not count as one."""
    flow, _ = prepared(Mixed, "retry", "resources")
    assert compute_of(flow.start) is None


def _nothing(*_, **__):
    pass
