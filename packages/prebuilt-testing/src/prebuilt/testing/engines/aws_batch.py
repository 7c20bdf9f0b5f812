"""What moto's Batch lacks for jobs that are Metaflow's: what AWS tells a job, the node's pull, attempts, and how a job ended.

The jobs themselves are real: moto runs each as a container of the Docker Engine that ``DOCKER_HOST`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from docker.errors import APIError, ImageNotFound
from moto.batch import models
from moto.batch.responses import BatchResponse
from moto.moto_api import state_manager

_attempts: ContextVar[int] = ContextVar("attempts", default=1)
"""How often the job that is being submitted may be tried; moto does not hand it on."""


def complete_batch(*, job_variables: Mapping[str, str], log_in: Callable[[], Mapping[str, str]]) -> None:
    """Have this process's moto run jobs as AWS does.

    Args:
        job_variables: What the network, the role and the node of a job give it on AWS, as environment variables.
        log_in: Returns user name and password for the registry, as the node's agent gets them before it pulls.
    """
    state_manager.set_transition("batch::job", {"progression": "immediate"})  # else each state takes half a second
    models.platform = (
        "none of moto's"  # else it names the machine in each container, for which Docker wants its own bridge
    )
    models.Job = type("Job", (_Job,), {"variables": job_variables, "log_in": staticmethod(log_in)})
    theirs = BatchResponse.submitjob

    def submit_job(response: Any) -> Any:  # noqa: ANN401 - moto has no types
        _attempts.set((response._get_param("retryStrategy") or {}).get("attempts", 1))  # noqa: SLF001 - as moto has it
        return theirs(response)

    BatchResponse.submitjob = submit_job


class _Job(models.Job):  # type: ignore[misc] # moto has no types
    """A job that is told what AWS tells it, pulls as nodes do, and is tried as often as was asked."""

    variables: Mapping[str, str]
    log_in: Callable[[], Mapping[str, str]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - whatever moto says
        super().__init__(*args, **kwargs)
        self._attempt, self._most_attempts = 1, _attempts.get()
        self._is_tried_again = False

    def run(self) -> None:
        """Run the container until it succeeds, as often as was asked."""
        try:
            self._pull(self.job_definition.container_properties["image"])
        except APIError as error:
            self.job_stopped_reason = f"CannotPullContainerError: {error.explanation}"
            super()._mark_stopped(success=False)
            return
        super().run()
        while self._is_tried_again:
            self._is_tried_again = False
            self._attempt += 1
            super().run()

    def _pull(self, image: str) -> None:
        try:
            self.docker_client.images.get(image)
        except ImageNotFound:
            self.docker_client.images.pull(image, auth_config=self.log_in())

    def _mark_stopped(self, success: bool = True) -> None:  # noqa: FBT001, FBT002 - moto's
        # moto says success in the end whatever it said before, and then looks whether the job was stopped already.
        if not success and not self.stop and self._attempt < self._most_attempts:
            self._is_tried_again = True
        if not self._is_tried_again:
            super()._mark_stopped(success)

    def _get_container_property(self, p: str, default: Any) -> Any:  # noqa: ANN401 - as moto has it
        """Return also what every job finds in its environment; moto sets the job's id alone.

        Source: https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html
        """
        found = super()._get_container_property(p, default)
        if p != "environment":
            return found
        ours = {
            "AWS_BATCH_JOB_ATTEMPT": str(self._attempt),
            "AWS_BATCH_JQ_NAME": self.job_queue.name,
            "AWS_EXECUTION_ENV": "AWS_ECS_EC2",
            **self.variables,
        }
        there = {each["name"] for each in found}
        return [*found, *({"name": name, "value": ours[name]} for name in ours if name not in there)]

    def _container_details(self) -> dict[str, Any]:
        """Return also what the container may use, and how it ended, which moto loses where it describes the rest."""
        required = self._get_container_property("resourceRequirements", [])
        ended = {} if self.exit_code is None else {"exitCode": self.exit_code}
        return {**super()._container_details(), "resourceRequirements": required, **ended}
