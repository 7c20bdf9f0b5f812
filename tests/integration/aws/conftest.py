"""A cloud for all tests, with base images in it, and flows that run there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import DockerBuildService
from prebuilt.core.lock import Lock
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.core.spec import BaseImage
from prebuilt.ecr import ECRRegistry
from prebuilt.oci.open import open_repository
from prebuilt.oci.reference import parse_reference
from prebuilt.oci.transport import close_connections
from prebuilt.testing.amazon_ecr import ACCOUNT, HOST, REGION
from prebuilt.testing.base_image import BaseContents, push_base_image
from prebuilt.testing.conformance.materials import Materials, push_runnable_base
from prebuilt.testing.conformance.stage import SuiteStage
from prebuilt.testing.engines.aws import OTHER_REGION, Amazon, amazon_cloud
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.python_index import PackageIndex
from prebuilt.testing.validate import ImageReport, validate
from prebuilt.testing.waiting import eventually

FLOWS = Path(__file__).parent / "flows"
BASES = f"{HOST}/bases"
OTHER_ACCOUNT = "210987654321"
PREFIX = "/opt/prebuilt/env"
OWNERS = ("user", "owner")
PATIENCE_S = 1200.0
INSTALLERS = {"pip", "pip3", "conda", "mamba", "micromamba", "uv", "ensurepip", "metaflow.plugins.pypi.bootstrap"}
LIMIT = 8192
"""Of the characters of a job's command, by AWS."""


@contextmanager
def configured_as(environ: Mapping[str, str]) -> Iterator[None]:
    """Have this process configured as a user's in the body."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AWS_", "METAFLOW_")):
                patch.delenv(name)
        for name, value in environ.items():
            patch.setenv(name, value)
        yield
        close_connections()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One job of Batch that has ended."""

    job: Mapping[str, Any]
    image: str
    output: str

    @property
    def seen(self) -> dict[str, Any]:
        """What the task showed of where it ran, in its last attempt."""
        return json.loads(re.findall(r"seen: (.*)", self.output)[-1])

    @property
    def command(self) -> str:
        """What its shell was given."""
        return " ".join(self.job["container"]["command"])

    @property
    def started(self) -> set[str]:
        """Programs and Python modules that its shells and its own process started."""
        commands = [_words(line) for line in re.findall(r"^\++ (.*)", self.output, re.MULTILINE)]
        modules = {words[words.index("-m") + 1] for words in commands if "-m" in words[:-1] and "python" in words[0]}
        programs = {words[0] for words in commands if words} | set(self.seen["started"])
        return {Path(program).name for program in programs} | modules

    @property
    def step(self) -> str:
        """Name of its step."""
        return self.job["parameters"]["metaflow.step_name"]


def _words(command: str) -> list[str]:
    """Return the words of a command that a shell has traced; one of several lines is cut off after its first."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command printed, both streams together, how it ended, and what its user's jobs have become."""

    text: str
    code: int
    tasks: Sequence[Task]

    def of(self, step: str) -> list[Task]:
        """Return the tasks of a step, the oldest first."""
        return [task for task in self.tasks if task.step == step]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one user deploys from: a folder of their own, and what is configured there."""

    user: str
    folder: Path
    amazon: Amazon
    variables: Mapping[str, str]

    def run(self, flow: str, *arguments: str) -> Outcome:
        """Run a flow's command line to its end."""
        return self.call(f"{flow}.py", "--environment=prebuilt", *arguments)

    def call(self, program: str, *arguments: str) -> Outcome:
        """Run a Python program of the folder of flows to its end."""
        done = subprocess.run(
            [sys.executable, str(FLOWS / program), *arguments],
            cwd=self.folder,
            env={**self.variables, "METAFLOW_USER": self.user},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Outcome(text=done.stdout, code=done.returncode, tasks=self.tasks())

    def tasks(self) -> list[Task]:
        """Return what became of the user's jobs, the oldest first."""
        amazon = self.amazon
        mine = [
            job for job in amazon.jobs() if self.user in (job["parameters"].get("metaflow." + who) for who in OWNERS)
        ]
        return [
            Task(job=job, image=amazon.image_of(job["jobDefinition"]), output=amazon.output_of(job)) for job in mine
        ]

    def first_image(self) -> str:
        """Wait for the user's first job; return its image."""
        return eventually(self.tasks, within_s=PATIENCE_S, every_s=0.5)[0].image

    def images(self, machine: str) -> dict[str, str]:
        """Return the image of each step of a state machine as it is deployed now."""
        client = self.amazon.client("stepfunctions")
        found = client.describe_state_machine(stateMachineArn=self._arn(machine))
        states = json.loads(found["definition"])["States"]
        return {step: self.amazon.image_of(state["Parameters"]["JobDefinition"]) for step, state in states.items()}

    def deploy(self, *commands: Sequence[str], machine: str) -> Deployed:
        """Run programs that deploy and trigger a state machine; wait for the end of its execution."""
        said = ""
        for command in commands:
            outcome = self.call(*command)
            assert outcome.code == 0, outcome.text
            said += outcome.text
        client = self.amazon.client("stepfunctions")
        (execution,) = client.list_executions(stateMachineArn=self._arn(machine))["executions"]

        def ended_execution() -> dict[str, Any] | None:
            found = client.describe_execution(executionArn=execution["executionArn"])
            return None if found["status"] == "RUNNING" else found

        found = eventually(ended_execution, within_s=PATIENCE_S, every_s=0.5)
        ended = Outcome(text=str(found), code=found["status"] != "SUCCEEDED", tasks=self.tasks())
        return Deployed(place=self, said=said, execution=ended)

    def _arn(self, machine: str) -> str:
        machines = self.amazon.client("stepfunctions").list_state_machines()["stateMachines"]
        return next(each["stateMachineArn"] for each in machines if each["name"] == machine)


@dataclass(kw_only=True)
class Judge:
    """Reads images that tasks ran in, each once."""

    environ: Mapping[str, str]
    images: dict[str, ImageReport] = field(default_factory=dict)

    def image(self, reference: str, base: str) -> ImageReport:
        """Return an image of the registry, all of it read and checked; the tag `base` is what it stands on."""
        if reference not in self.images:
            with configured_as(self.environ):
                image = parse_reference(reference)
                below = validate(open_repository(BASES), base)
                self.images[reference] = validate(open_repository(image.repository), image.identifier, base=below)
        return self.images[reference]

    def lock(self, image: ImageReport) -> Lock:
        """Return the lock that an image was made of, which is kept in the registry."""
        requirements = image.config.labels["metaflow-prebuilt.requirements"]
        with configured_as(self.environ):
            return Lock.parse(ECRRegistry(Settings.load()).documents().get(f"lock-{requirements}"))

    def check(self, task: Task, *, base: str = "python") -> None:
        """Check that a task found everything in its image, and had no other place to get it from."""
        assert re.fullmatch(rf"{re.escape(HOST)}/metaflow-prebuilt@sha256:[0-9a-f]{{64}}", task.image)
        lock, seen = self.lock(self.image(task.image, base)), task.seen
        site_packages = f"{PREFIX}/{lock.site_packages}"
        locked = {f"{site_packages}/{each.name}=={each.version}" for each in lock.packages}
        assert {package.lower() for package in seen["packages"]} == locked
        assert seen["image"] == task.image
        assert seen["python"] == f"{PREFIX}/bin/python"
        assert seen["default_routes"] == []
        assert "unreachable" in seen["way_out"]
        assert task.started >= {"python", "metaflow.mflog.save_logs"}  # what is started is seen
        assert not task.started & INSTALLERS
        assert len(task.command) < LIMIT / 2


@pytest.fixture(scope="session")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Amazon]:
    """Give one cloud for all tests."""
    pytest.importorskip("moto", reason="moto plays Amazon's APIs: pip install 'moto[server]'")
    with wanted_engine(), amazon_cloud(tmp_path_factory.mktemp("amazon")) as amazon:
        amazon.client("ecr").create_repository(repositoryName="bases")
        yield amazon


@pytest.fixture(scope="session")
def environ(amazon: Amazon, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of every user; they share caches."""
    folder = tmp_path_factory.mktemp("users")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW_", "AWS_"))}
    return {
        **kept,
        **amazon.environ,
        "METAFLOW_HOME": str(folder / "home"),
        "METAFLOW_PREBUILT_BUILD_SERVICE": "native",
        "METAFLOW_PREBUILT_CACHE_DIR": str(folder / "cache"),
    }


@pytest.fixture(scope="session")
def push_base(environ: Mapping[str, str]) -> Callable[..., str]:
    """Return a function that pushes a base image with this process's Python to the registry; the names are tags."""

    def push(tag: str, **contents: Any) -> str:
        with configured_as(environ):
            platforms = [Platform.parse("linux/amd64")]
            made = BaseContents(with_bytecode=True, **contents)  # a job starts Python five times
            return push_base_image(open_repository(BASES), tag=tag, platforms=platforms, contents=made)

    return push


@pytest.fixture
def configured(environ: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Configure this process for the cloud; the registry's repositories are the test's own, and are not there yet."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "METAFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("METAFLOW_PREBUILT_IMAGE_NAMESPACE", f"of/{tmp_path.name.lower().strip('_')}")
    yield
    close_connections()


@pytest.fixture(scope="session")
def distant_base(environ: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> BaseImage:
    """Push a base image in which build stages run to a registry of another account, in another region."""
    host = HOST.replace(ACCOUNT, OTHER_ACCOUNT).replace(REGION, OTHER_REGION)
    with configured_as(environ):
        return push_runnable_base(open_repository(f"{host}/bases"), tmp_path_factory.mktemp("base"))


@pytest.fixture
def build_in_ecr(
    configured: None, distant_base: BaseImage, tmp_path: Path
) -> Iterator[Callable[[DockerBuildService], None]]:
    """Return what has a builder make an image on that base, and looks at what is pushed."""
    del configured
    registry = ECRRegistry()
    with PackageIndex().serving() as index:
        materials = Materials(
            index=index,
            folder=tmp_path / "wheels",
            target=open_repository(registry.repository, registry.credentials_source),
            base=distant_base,
            stage=SuiteStage(),
        )

        def build(builder: DockerBuildService) -> None:
            built = materials.deploy(builder, registry, materials.spec(materials.wheel("one")))
            validate(materials.target, built.digest, foreign=True)

        yield build


@pytest.fixture(scope="session")
def judge(environ: Mapping[str, str]) -> Judge:
    """Return one for all tests."""
    return Judge(environ=environ)


@pytest.fixture(scope="session")
def new_place(
    amazon: Amazon, environ: Mapping[str, str], push_base: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Place]:
    """Return a function that makes the place of a user of this cluster, whose operator has chosen a base image."""
    base = push_base("python")

    def new_place(user: str, **variables: str) -> Place:
        configured = {**environ, "METAFLOW_BATCH_CONTAINER_IMAGE": base, **variables}
        return Place(user=user, folder=tmp_path_factory.mktemp(user), amazon=amazon, variables=configured)

    return new_place


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A flow on Step Functions.

    Attributes:
        place: Where it was deployed from.
        said: What was printed meanwhile.
        execution: How its first execution ended.
    """

    place: Place
    said: str
    execution: Outcome


@pytest.fixture(scope="session")
def under_way(new_place: Callable[..., Place], push_base: Callable[..., str]) -> Iterator[dict[str, Future[Any]]]:
    """Start every flow at once, since most of it is waiting; return what becomes of each."""
    rounds, deployer, pair = new_place("rounds"), new_place("deployer"), new_place("pair")
    parts = new_place(
        "parts",
        TEST_OTHER_BASE=push_base("other", layers=2),
        METAFLOW_PREBUILT_GPU_BASE_IMAGE=push_base("gpu", layers=3),
    )

    def deploy_rounds() -> Deployed:
        return deployer.deploy(["deploy_rounds.py"], machine="Rounds")

    def deploy_pair() -> Deployed:
        """Deploy where the cluster's image has what Metaflow needs: here, one that was baked for another flow."""
        configured = {
            "METAFLOW_PREBUILT_BASE_IMAGE": pair.variables["METAFLOW_BATCH_CONTAINER_IMAGE"],
            "METAFLOW_BATCH_CONTAINER_IMAGE": rounds.first_image(),
        }
        place = replace(pair, variables={**pair.variables, **configured})
        flow = ["pair.py", "--environment=prebuilt", "step-functions"]
        return place.deploy(
            [*flow, "create", "--compress-state-machine"], [*flow, "trigger", "--word", "two words"], machine="PairFlow"
        )

    with ThreadPoolExecutor() as threads:
        yield {
            "rounds": threads.submit(rounds.run, "rounds", "run", "--with", "batch", "--word", "two words"),
            "parts": threads.submit(parts.call, "run_parts.py"),
            "deployed_rounds": threads.submit(deploy_rounds),
            "deployed_pair": threads.submit(deploy_pair),
        }


@pytest.fixture(scope="session")
def rounds(under_way: Mapping[str, Future[Outcome]]) -> Outcome:
    """Return what became of the flow of rounds, on Batch."""
    return under_way["rounds"].result()


@pytest.fixture(scope="session")
def parts(under_way: Mapping[str, Future[Outcome]]) -> Outcome:
    """Return what became of the flow of parts, on Batch."""
    return under_way["parts"].result()


@pytest.fixture(scope="session")
def deployed_rounds(under_way: Mapping[str, Future[Deployed]]) -> Deployed:
    """Return what became of the flow of rounds, on Step Functions."""
    return under_way["deployed_rounds"].result()


@pytest.fixture(scope="session")
def deployed_pair(under_way: Mapping[str, Future[Deployed]]) -> Deployed:
    """Return what became of the flow of two steps, on Step Functions."""
    return under_way["deployed_pair"].result()


@pytest.fixture(scope="session")
def check_rounds(judge: Judge) -> Callable[[Outcome], None]:
    """Return a function that checks the tasks of a flow of rounds, wherever it ran."""

    def check(outcome: Outcome) -> None:
        assert outcome.code == 0, outcome.text
        for task in outcome.tasks:
            judge.check(task)
        (start,), (join,), (end,) = outcome.of("start"), outcome.of("join"), outcome.of("end")
        assert start.seen["word"] == "two words"
        assert start.seen["version"] == "1.16.0"
        assert start.seen["file"].startswith(f"{PREFIX}/lib/")
        assert join.seen["results"] == end.seen["results"] == [1, 4]
        squares = outcome.of("square")
        assert {square.seen["version"] for square in squares} == {"3.0.2"}
        assert max(square.seen["attempt"] for square in squares) == 1
        # One image for each environment, whatever the task and the attempt.
        assert join.image == end.image == start.image
        assert len({square.image for square in squares} - {start.image}) == 1

    return check
