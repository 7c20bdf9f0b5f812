"""``@conda``, ``@pypi`` and their ``_base`` forms: the stock ones, which also accept ``--environment=prebuilt``.

The stock decorators refuse any environment but those on a list in their source. They are shown one from the list, and
behave as before under every other environment.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from metaflow.metadata_provider import MetaDatum
from metaflow.plugins.pypi.conda_decorator import CondaFlowDecorator, CondaStepDecorator
from metaflow.plugins.pypi.pypi_decorator import PyPIFlowDecorator, PyPIStepDecorator

from .asked import REQUIREMENT_DECORATORS, check_packages, is_disabled

IMAGE_VARIABLE = "METAFLOW_PREBUILT_IMAGE"
"""Names the image of a task, in that task."""


class _AsConda:
    """An environment as the stock decorators may see it: the same object, of a type that is on their list."""

    TYPE = "conda"

    def __init__(self, environment: Any) -> None:
        self.real = environment

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def _real(environment: Any) -> Any:
    return environment.real if isinstance(environment, _AsConda) else environment


def _shown(environment: Any) -> Any:
    environment = _real(environment)
    return _AsConda(environment) if environment.TYPE == "prebuilt" else environment


class _PrebuiltStep:
    """What both step decorators do under ``--environment=prebuilt``; under others, what they always did."""

    name: str
    step: str
    attributes: dict[str, Any]
    asked_python: str | None = None
    _is_prebuilt = False

    def step_init(
        self, flow: Any, graph: Any, step: str, decos: Any, environment: Any, flow_datastore: Any, logger: Any
    ) -> None:
        """Note the Python version before the stock decorator puts the host's in its place; may be called twice."""
        if not hasattr(self, "environment"):
            base = flow._flow_decorators.get(self.name + "_base")  # noqa: SLF001 - as the stock decorators do
            asked = self.attributes["python"] or (base[0].attributes["python"] if base else None)
            self.asked_python = str(asked) if asked else None
        super().step_init(flow, graph, step, decos, _shown(environment), flow_datastore, logger)  # type: ignore[misc]
        self.environment = _real(environment)
        self._is_prebuilt = self.environment.TYPE == "prebuilt"

    def runtime_init(self, flow: Any, graph: Any, package: Any, run_id: Any) -> None:
        """Keep the code package; it is only unpacked for steps that run here."""
        if self._is_prebuilt:
            self._package = package
        else:
            super().runtime_init(flow, graph, package, run_id)  # type: ignore[misc]

    def runtime_task_created(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: interpreters are known before the first task starts."""
        if not self._is_prebuilt:
            super().runtime_task_created(*args, **kwargs)  # type: ignore[misc]

    def runtime_step_cli(self, cli_args: Any, retry_count: int, max_user_code_retries: int, ubf_context: Any) -> None:
        """Start a step that runs here with the interpreter of its environment."""
        if not self._is_prebuilt:
            super().runtime_step_cli(cli_args, retry_count, max_user_code_retries, ubf_context)  # type: ignore[misc]
            return
        interpreter = self.environment.interpreter(self.step)
        if interpreter:
            cli_args.env.update(self.environment.local_code(self._package).variables)
            cli_args.env["PYTHONNOUSERSITE"] = "1"
            cli_args.entrypoint[0] = interpreter

    def runtime_finished(self, exception: Any) -> None:
        """Remove the unpacked code package."""
        if self._is_prebuilt:
            self.environment.forget_local_code()
        else:
            super().runtime_finished(exception)  # type: ignore[misc]

    def task_pre_step(
        self, step_name: str, task_datastore: Any, meta: Any, run_id: str, task_id: str, flow: Any, *args: Any
    ) -> None:
        """Put the environment's programs on the path and record the image."""
        if not self._is_prebuilt:
            super().task_pre_step(step_name, task_datastore, meta, run_id, task_id, flow, *args)  # type: ignore[misc]
            return
        step = getattr(flow, step_name)
        first = next(deco for deco in step.decorators if deco.name in REQUIREMENT_DECORATORS)
        if is_disabled(step) or first is not self:
            return
        # Not the resolved path: a virtual environment's interpreter is a link to one whose folder holds other programs.
        folder = os.path.dirname(sys.executable)  # noqa: PTH120
        path = os.environ.get("PATH")
        os.environ["PATH"] = folder + os.pathsep + path if path else folder
        image = os.environ.get(IMAGE_VARIABLE)
        if image:
            retry_count = args[1]
            tags = [f"attempt_id:{retry_count}"]
            datum = MetaDatum(field="prebuilt-image", value=image, type="prebuilt-image", tags=tags)
            meta.register_metadata(run_id, step_name, task_id, [datum])


class _PrebuiltFlow:
    def flow_init(self, flow: Any, graph: Any, environment: Any, *args: Any) -> None:
        """Attach the step decorators, which are handed the same environment on."""
        super().flow_init(flow, graph, _shown(environment), *args)  # type: ignore[misc]


# Each class below has an init() of its own where its base has one: Metaflow looks for it in the class itself and would
# skip an inherited one without a word (metaflow/decorators.py, external_init).


class PrebuiltCondaStepDecorator(_PrebuiltStep, CondaStepDecorator):  # noqa: D101 - inherited
    __doc__ = CondaStepDecorator.__doc__

    def init(self) -> None:
        """Read the attributes as the stock decorator does."""
        check_packages(self)
        super().init()


class PrebuiltPyPIStepDecorator(_PrebuiltStep, PyPIStepDecorator):  # noqa: D101
    __doc__ = PyPIStepDecorator.__doc__

    def init(self) -> None:
        """Read the attributes as the stock decorator does."""
        check_packages(self)
        super().init()


class PrebuiltCondaFlowDecorator(_PrebuiltFlow, CondaFlowDecorator):  # noqa: D101
    __doc__ = CondaFlowDecorator.__doc__

    def init(self) -> None:
        """Read the attributes as the stock decorator does."""
        check_packages(self)
        super().init()


class PrebuiltPyPIFlowDecorator(_PrebuiltFlow, PyPIFlowDecorator):  # noqa: D101
    __doc__ = PyPIFlowDecorator.__doc__

    def init(self) -> None:
        """Read the attributes as the stock decorator does."""
        check_packages(self)
        super().init()
