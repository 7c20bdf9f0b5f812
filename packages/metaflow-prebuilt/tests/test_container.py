"""``@container``: its attributes, the command line of a task, and what a task sees of this machine."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from metaflow import FlowSpec, environment, resources, step, timeout
from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY
from metaflow.plugins.datastores.local_storage import LocalStorage

from metaflow_extensions.prebuilt.deploy.container_engine import EngineSearch
from metaflow_extensions.prebuilt.deploy.container_task import HOME, TIMED_OUT, ContainerTask
from metaflow_extensions.prebuilt.plugins.conda.asked import PrebuiltEnvironmentException, compute_of
from metaflow_extensions.prebuilt.plugins.container import container_cli
from metaflow_extensions.prebuilt.plugins.container.container_decorator import ContainerException
from prebuilt.core.errors import (
    ContainerError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    UnauthorizedError,
)
from prebuilt.oci import containers

IMAGE = "registry.example/images@sha256:" + "d" * 64


class Sized(FlowSpec):
    @timeout(minutes=5)
    @resources(gpu=1, memory=8000, cpu=2)
    @environment(vars={"COLOUR": "green", "NUMBER": 7})
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


class Large(FlowSpec):
    @resources(memory=8000, cpu=2)
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture
def task():
    """Return a task that asks for little."""
    return ContainerTask(
        step_name="start",
        step_command="python -u flow.py step start --input-paths ${METAFLOW_INPUT_PATHS_0}",
        image=IMAGE,
        cpus=1.0,
        gpus=0,
        memory_mb=4096,
        time_limit_s=100,
        code_package_metadata="{}",
        code_package_sha="sha",
        code_package_url="/store/package",
        variables={"METAFLOW_RUN_ID": "7"},
    )


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Return a local datastore in a folder of this test."""
    monkeypatch.setattr(LocalStorage, "SYSROOT_VAR", str(tmp_path))
    return SimpleNamespace(TYPE="local", datastore_root=str(tmp_path / ".metaflow"))


class TestDecorator:
    def test_resources_are_merged(self, prepared):
        """The larger of what @resources and @container ask for counts, as for @batch."""
        flow, _ = prepared(Sized, "container:memory=9000")
        assert compute_of(flow.start).attributes["memory"] == "9000.0"
        assert compute_of(flow.start).attributes["cpu"] == "2"
        assert compute_of(flow.start).attributes["gpu"] == "1"
        assert compute_of(flow.end).attributes["cpu"] == "1"

    def test_the_time_limit_is_that_of_timeout(self, prepared):
        """@timeout also limits the container."""
        flow, _ = prepared(Sized, "container")
        assert compute_of(flow.start).run_time_limit == 300

    @pytest.mark.parametrize(("name", "value"), [("memory", "8G"), ("cpu", "two"), ("gpu", "[1]")])
    def test_an_amount_is_a_number(self, name, value, prepared):
        """What is none is refused before anything is baked."""
        with pytest.raises(ContainerException, match=rf"end.*{name}=.*number"):
            prepared(Sized, f"container:{name}={value}")

    def test_two_places_are_refused(self, prepared):
        """A step runs in one place."""
        with pytest.raises(ContainerException, match=r"container.*kubernetes"):
            prepared(Sized, "container", "kubernetes")

    def test_the_fallback_of_catch_needs_no_container(self, prepared):
        """After all attempts what is left to do is done here."""
        flow, _ = prepared(Sized, "container")
        cli_args = SimpleNamespace(commands=["step"], command_args=["start"], command_options={}, entrypoint=["x"])
        compute_of(flow.start).runtime_step_cli(cli_args, 2, 1, None)
        assert cli_args.commands == ["step"]
        compute_of(flow.start).runtime_step_cli(cli_args, 1, 1, None)
        assert cli_args.commands == ["container", "step"]
        assert cli_args.command_options["image"].startswith("python:")


class TestTask:
    def test_it_runs_what_a_cluster_runs(self, task, prepared):
        """Package, bootstrap, step; without the log capture, and with signals going to the step."""
        _, prebuilt = prepared(Sized, "container")
        shell, flag, script = task.command(prebuilt, "local")
        assert (shell, flag) == ("bash", "-c")
        wanted = prebuilt.get_package_commands("/store/package", "local", "{}")
        assert "flush_mflogs" in wanted
        assert "cp /store/package job.tar" in script
        assert "&& flush_mflogs &&" not in script
        assert "mflog.tee" not in script
        assert script.endswith(
            "export METAFLOW_DEFAULT_ENVIRONMENT=prebuilt && "
            "exec python -u flow.py step start --input-paths ${METAFLOW_INPUT_PATHS_0}"
        )

    def test_it_is_told_what_a_cluster_tells(self, task, store, monkeypatch, tmp_path):
        """Code, user, datastore and metadata are named; the user's cloud credentials are forwarded, nothing else is."""
        monkeypatch.setattr("metaflow_extensions.prebuilt.deploy.container_task.get_username", lambda: "tester")
        monkeypatch.setenv("AWS_PROFILE", "mine")
        monkeypatch.setenv("METAFLOW_PREBUILT_CACHE_DIR", "private")
        monkeypatch.setenv("UNRELATED", "private")
        variables = task.environment_variables("local", "local")
        assert variables["METAFLOW_CODE_URL"] == "/store/package"
        assert variables["METAFLOW_USER"] == "tester"
        assert variables["METAFLOW_DEFAULT_METADATA"] == "local"
        assert variables["METAFLOW_DATASTORE_SYSROOT_LOCAL"] == str(tmp_path)
        assert variables["METAFLOW_PREBUILT_IMAGE"] == IMAGE
        assert variables["METAFLOW_RUN_ID"] == "7"
        assert variables["AWS_PROFILE"] == "mine"
        assert "private" not in variables.values()

    def test_it_may_use_the_metadata_service(self, task, tmp_path):
        """A profile may hold the headers for the service as JSON; tasks get them as on a cluster."""
        profile = tmp_path / "home" / "config.json"
        profile.parent.mkdir()
        profile.write_text(json.dumps({"METAFLOW_SERVICE_HEADERS": {"x-api-key": "k"}}))
        program = (
            "from metaflow_extensions.prebuilt.deploy.container_task import ContainerTask as Task\n"
            f"print(Task(**{asdict(task)}).environment_variables('local', 'service')['METAFLOW_SERVICE_HEADERS'])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {"x-api-key": "k"}

    def test_files_are_found_from_where_it_starts(self, task, store, monkeypatch, tmp_path, prepared):
        """A task has another working folder and another home: it is told where the files are, which are mounted there."""
        for name in ("config", "credentials"):
            (tmp_path / name).touch()
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("AWS_CONFIG_FILE", "config")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "~/credentials")
        run = _run(task, store, prepared, monkeypatch)
        places = {run.env["AWS_CONFIG_FILE"], run.env["AWS_SHARED_CREDENTIALS_FILE"]}
        assert places == {str(tmp_path / "config"), str(tmp_path / "credentials")}
        assert places <= {mount.target for mount in run.mounts if mount.read_only}

    def test_it_sees_the_datastore_and_credentials(self, task, store, monkeypatch, tmp_path, prepared):
        """The datastore is where it is here, writable; files that hold credentials are there once, read-only."""
        bundle = tmp_path / "ca.pem"
        bundle.touch()
        (tmp_path / ".aws").mkdir()
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        run = _run(task, store, prepared, monkeypatch)
        mounts = {mount.target: (mount.source, mount.read_only) for mount in run.mounts}
        home = mounts.pop(HOME)
        assert mounts == {
            store.datastore_root: (Path(store.datastore_root), False),
            str(bundle): (bundle, True),
            f"{HOME}/.aws": (tmp_path / ".aws", True),
        }
        assert not home[1]
        assert not home[0].exists()  # removed with the task

    def test_it_is_limited(self, task, store, monkeypatch, prepared):
        """Memory and processors are those of the decorator."""
        run = _run(task, store, prepared, monkeypatch)
        assert (run.image, run.memory_mb, run.cpus, run.gpus) == (IMAGE, 4096, 1.0, 0)

    def test_its_exit_code_is_the_containers(self, task, store, monkeypatch, prepared):
        """A task that dies of its own accord says how."""
        _, prebuilt = prepared(Sized, "container")
        _engine(monkeypatch, lambda: 7)
        assert task.run(prebuilt, store, SimpleNamespace(TYPE="local")) == 7

    def test_it_is_stopped_after_its_time(self, task, store, monkeypatch, prepared):
        """A task that does not heed its @timeout is ended from outside."""
        monkeypatch.setattr("metaflow_extensions.prebuilt.deploy.container_task._GRACE_S", -99)
        _, prebuilt = prepared(Sized, "container")
        _engine(monkeypatch, lambda: time.sleep(30))
        assert task.run(prebuilt, store, SimpleNamespace(TYPE="local")) == TIMED_OUT

    def test_its_time_begins_when_its_image_is_there(self, task, store, monkeypatch, prepared):
        """To pull or unpack an image may take longer than the task is allowed to."""
        left_s = []

        def look(*_):
            left_s.append(signal.getitimer(signal.ITIMER_REAL)[0])
            return 0

        _, prebuilt = prepared(Sized, "container")
        _engine(monkeypatch, look, prepare=look)
        assert task.run(prebuilt, store, SimpleNamespace(TYPE="local")) == 0
        prepared_with, waited_with = left_s
        assert prepared_with == 0
        assert 0 < waited_with <= task.time_limit_s + 60

    def test_what_cannot_be_run_is_a_clean_message(self, task, store, monkeypatch, prepared):
        """Errors of the engine are Metaflow's by the time they leave."""

        def fail():
            raise ContainerError("run a container", reason="there is no room")

        _, prebuilt = prepared(Sized, "container")
        _engine(monkeypatch, fail)
        with pytest.raises(PrebuiltEnvironmentException, match="no room"):
            task.run(prebuilt, store, SimpleNamespace(TYPE="local"))


class TestCommand:
    def test_long_input_paths_are_cut(self):
        """The paths of a join over a wide foreach do not fit into one variable, and come together again."""
        paths = "x" * 70_000
        variables = container_cli._input_variables(paths)
        assert len(variables) == 3
        assert "".join(variables.values()) == paths
        assert container_cli._input_variables(None) == {}

    def test_declared_variables_are_text(self, prepared):
        """@environment may hold numbers."""
        flow, _ = prepared(Sized)
        assert container_cli._declared_variables(flow.start) == {"COLOUR": "green", "NUMBER": "7"}

    def test_retries_wait_as_on_a_cluster(self, monkeypatch):
        """minutes_between_retries counts from the second attempt on."""
        slept = []
        monkeypatch.setattr(container_cli.time, "sleep", slept.append)
        retry = SimpleNamespace(name="retry", attributes={"minutes_between_retries": 2})
        node = SimpleNamespace(decorators=[retry])
        container_cli._wait_before_retry(node, 0, print)
        container_cli._wait_before_retry(node, 1, print)
        assert slept == [120]

    def test_file_names_and_tags_come_through_as_they_are(self, store, monkeypatch, prepared):
        """Spaces, quotes and backslashes are the user's, and no shell's."""
        flow, prebuilt = prepared(Sized, "container")
        runs = []
        _engine(monkeypatch, lambda: 0, prepare=runs.append)
        tags = ["Ann's", 'the "big" one', "back\\slash"]
        monkeypatch.setattr("sys.argv", ["/home/my flow.py"])
        asked = [*_asked(), *(f"--tag={tag}" for tag in tags)]
        with pytest.raises(SystemExit, match="0"):
            container_cli.cli.main(asked, obj=_state(flow, prebuilt, store, print), standalone_mode=False)
        script = runs[0].command[2]
        words = shlex.split(script[script.index("exec ") :])
        assert words[words.index("-u") + 1] == "my flow.py"
        assert [words[place + 1] for place, word in enumerate(words) if word == "--tag"] == tags

    def test_a_datastore_may_be_named_by_a_relative_path(self, store, monkeypatch, prepared, tmp_path):
        """It is mounted, and the task finds its code and its root there, though it starts in another folder."""
        monkeypatch.setattr(LocalStorage, "SYSROOT_VAR", "data")
        store.datastore_root = "data/.metaflow"
        flow, prebuilt = prepared(Sized, "container")
        runs = []
        _engine(monkeypatch, lambda: 0, prepare=runs.append)
        monkeypatch.setattr("sys.argv", ["flow.py"])
        asked = [argument.replace("/store", "data/.metaflow") for argument in _asked()]
        with pytest.raises(SystemExit, match="0"):
            container_cli.cli.main(asked, obj=_state(flow, prebuilt, store, print), standalone_mode=False)
        root = str(tmp_path / "data" / ".metaflow")
        assert root in {mount.target for mount in runs[0].mounts}
        assert f"cp {root}/package job.tar" in runs[0].command[2]
        assert f"--datastore-root {root} " in runs[0].command[2]

    def test_the_tasks_of_a_parallel_step_share_a_container(self, store, monkeypatch, prepared):
        """The first one starts the others, as it does on this machine; alone among tasks it is told that it is there."""
        flow, prebuilt = prepared(Sized, "container")
        runs = []
        _engine(monkeypatch, lambda: 0, prepare=runs.append)
        monkeypatch.setattr("sys.argv", ["flow.py"])
        for options in (["--ubf-context=ubf_control", "--num-parallel=2"], []):
            with pytest.raises(SystemExit, match="0"):
                state = _state(flow, prebuilt, store, print)
                container_cli.cli.main([*_asked(), *options], obj=state, standalone_mode=False)
        assert [run.env["METAFLOW_RUNTIME_ENVIRONMENT"] for run in runs] == ["local", "container"]
        assert "--ubf-context ubf_control --num-parallel 2" in runs[0].command[2]
        assert "--num-parallel" not in runs[1].command[2]

    @pytest.mark.parametrize(
        ("failure", "code"),
        [
            (RegistryUnreachableError("pull an image", reason="connection reset"), 1),
            (RateLimitedError("pull an image", reason="429", status=429), 1),
            (RegistryError("pull an image", reason="503", status=503), 1),
            (UnauthorizedError("pull an image", reason="401", status=401), METAFLOW_EXIT_DISALLOW_RETRY),
            (ContainerError("run a container", reason="there is no room"), METAFLOW_EXIT_DISALLOW_RETRY),
        ],
    )
    def test_a_registry_that_is_away_is_tried_again(self, failure, code, store, monkeypatch, prepared):
        """@retry is for what may pass: not for an image that nobody may pull."""

        def fail(_):
            raise failure

        flow, prebuilt = prepared(Sized, "container")
        _engine(monkeypatch, lambda: 0, prepare=fail)
        said = []
        state = _state(flow, prebuilt, store, said.append)
        monkeypatch.setattr("sys.argv", ["flow.py"])
        with pytest.raises(SystemExit) as ended:
            container_cli.cli.main(_asked(), obj=state, standalone_mode=False)
        assert ended.value.code == code
        assert failure.reason in said[0]


class TestEngineSearch:
    def test_limits_that_are_not_held_are_said_once(self, prepared, monkeypatch):
        """One line for what somebody asked for; none for defaults."""
        monkeypatch.setenv("METAFLOW_PREBUILT_CONTAINER_ENGINE", "rootless")
        monkeypatch.setattr("prebuilt.oci.containers.rootless.RootlessEngine.check", lambda _: None)
        flow, _ = prepared(Large, f"container:image={IMAGE}")
        lines = []
        computes = {"start": compute_of(flow.start), "again": compute_of(flow.start), "end": compute_of(flow.end)}
        assert EngineSearch(computes, lambda line, **_: lines.append(line)).name() == "rootless"
        assert len(lines) == 1
        assert "8000" in lines[0]
        assert "4096" not in lines[0]

    def test_none_that_works_is_a_clean_message(self, prepared, monkeypatch):
        """Whoever has no engine is told why, once, before a task is started."""
        monkeypatch.setenv("METAFLOW_PREBUILT_CONTAINER_ENGINE", "charcoal")
        flow, _ = prepared(Sized, f"container:image={IMAGE}")
        with pytest.raises(PrebuiltEnvironmentException, match="charcoal"):
            EngineSearch({"start": compute_of(flow.start)}, print).name()

    @pytest.mark.parametrize(
        ("flow_class", "image", "reason"),
        [
            (Sized, IMAGE, r"GPUs for step start.*use Docker or Podman"),
            (Large, "registry.example/images:tag", r"for step start at .*:tag.*docker login"),
        ],
    )
    def test_a_step_that_the_engine_cannot_run_is_named_before_any_starts(
        self, flow_class, image, reason, prepared, monkeypatch
    ):
        """Nobody waits for the steps before it to hear that a GPU is missing, or a digest."""
        monkeypatch.setenv("METAFLOW_PREBUILT_CONTAINER_ENGINE", "rootless")
        monkeypatch.setattr("prebuilt.oci.containers.rootless.RootlessEngine.check", lambda _: None)
        flow, prebuilt = prepared(flow_class, f"container:image={image}")
        prebuilt._engine_search = EngineSearch({"start": compute_of(flow.start)}, print)
        with pytest.raises(PrebuiltEnvironmentException, match=reason):
            compute_of(flow.end).runtime_init(
                flow, flow._graph, None, "1"
            )  # Metaflow's first word to each step of a run


def _engine(monkeypatch, wait, prepare=lambda _: None):
    """Have tasks run on an engine whose containers end with what `wait` returns."""
    container = SimpleNamespace(wait=wait, kill=lambda: None, send_signal=lambda _: None)

    def prepared(run):
        prepare(run)
        return lambda *_: container

    engine = SimpleNamespace(prepare=prepared)
    monkeypatch.setattr("metaflow_extensions.prebuilt.deploy.container_task.select_engine", lambda _: engine)


def _state(flow, prebuilt, store, say) -> SimpleNamespace:
    """Return what Metaflow's command line hands to a command."""
    return SimpleNamespace(
        graph=flow._graph,
        environment=prebuilt,
        flow_datastore=store,
        metadata=SimpleNamespace(TYPE="local"),
        echo_always=lambda line, **_: say(line),
    )


def _asked() -> list[str]:
    """Return the arguments for one task."""
    return ["container", "step", "start", "{}", "sha", "/store/package", f"--image={IMAGE}", "--run-id=7"]


def _run(task, store, prepared, monkeypatch) -> containers.ContainerRun:
    """Return the run that an engine is asked for."""
    runs = []
    _, prebuilt = prepared(Sized, "container")
    _engine(monkeypatch, lambda: 0, prepare=runs.append)
    assert task.run(prebuilt, store, SimpleNamespace(TYPE="local")) == 0
    return runs[0]
