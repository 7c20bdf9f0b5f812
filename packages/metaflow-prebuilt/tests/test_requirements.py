"""From what a step asks for to requirements, and to the image that its image stands on."""

from __future__ import annotations

import platform
import sys

import pytest
from metaflow import FlowSpec, metaflow_config, pypi, resources, step
from metaflow.plugins.kubernetes.kubernetes_decorator import KubernetesDecorator

from metaflow_extensions.prebuilt.deploy.base_image import base_image
from metaflow_extensions.prebuilt.deploy.requirements import conda_channels, image_requirements, local_requirements
from metaflow_extensions.prebuilt.plugins.conda.asked import Asked, compute_of
from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import InvalidValueError, SettingError
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.core.url_secrets import remembered_credentials

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
NOTHING = Settings({}, {})


class Sized(FlowSpec):
    @pypi(packages={"six": "1"})
    @resources(gpu=1, memory=8000, cpu=2)
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def asked(python=None, **packages):
    return Asked(python=python, conda=packages.get("conda", {}), pypi=packages.get("pypi", {}))


def on_nodes(selector):
    """Return a @kubernetes that has read its attributes."""
    compute = KubernetesDecorator(attributes={"node_selector": selector})
    compute.external_init()
    return compute


@pytest.fixture
def compute(prepared):
    """Return the compute decorator of a step without `@resources`."""
    flow, _ = prepared(Sized, "container")
    return compute_of(flow.end)


@pytest.fixture
def gpu_compute(prepared):
    """Return the compute decorator of a step that wants a GPU."""
    flow, _ = prepared(Sized, "container")
    return compute_of(flow.start)


def test_another_wheel_under_the_same_path_is_another_requirement(tmp_path, monkeypatch):
    """A rebuilt wheel, or that of a colleague's project, does not get the lock that was kept for the first."""
    monkeypatch.chdir(tmp_path)
    wheel = tmp_path / "own-1.0-py3-none-any.whl"
    seen = set()
    for content in (b"one", b"two", b"one"):
        wheel.write_bytes(content)
        seen.add(local_requirements(asked(pypi={"own": f"@ ./{wheel.name}"}), "local", NOTHING).req_id)
    assert len(seen) == 2


def test_channels_are_those_of_condas_configuration(tmp_path, monkeypatch):
    """.condarc names them, unless CONDA_CHANNELS does; passwords in their URLs stay out of requirements."""
    assert conda_channels() == ("conda-forge",)
    (tmp_path / ".condarc").write_text("channels: ['https://me:pw@conda.example/c', other]\n")
    assert conda_channels() == ("https://conda.example/c", "other")
    monkeypatch.setenv("CONDA_CHANNELS", "mine, conda-forge")
    assert conda_channels() == ("mine", "conda-forge")


def test_a_package_of_a_custom_channel_is_asked_of_that(tmp_path):
    """``channel::name`` means what conda's configuration calls so, and not the public channel of that name."""
    (tmp_path / ".condarc").write_text("custom_channels: {team: 'https://me:pw@conda.example/c'}\n")
    requirements = local_requirements(
        asked(conda={"team::own": "1", "conda-forge::six": "", "idna": ""}), "local", NOTHING
    )
    assert set(requirements.conda) == {"https://conda.example/c/team::own", "conda-forge::six", "idna"}


def test_password_of_the_alias_is_remembered(monkeypatch):
    """Packages of a lock that is kept are downloaded with it, though nothing is resolved."""
    monkeypatch.setenv("CONDA_CHANNEL_ALIAS", "https://me:pw@alias.example/api")
    assert conda_channels()
    login = remembered_credentials("https://alias.example/api/team/noarch/six-1.0-0.conda")
    assert login == Credentials(username="me", secret="pw")


@pytest.mark.parametrize(("driver", "cuda"), [("12.1", "12.1"), ("", None)])
def test_local_conda_steps_see_the_driver(monkeypatch, tmp_path, driver, cuda):
    """What conda would find on this machine; who asks for wheels alone has the same lock with a GPU as without."""
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", driver)  # rattler's own way to play a machine with one
    settings = Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path)}, {})
    assert local_requirements(asked(conda={"six": ""}), "local", settings).target.cuda == cuda
    assert local_requirements(asked(pypi={"six": ""}), "local", settings).target.cuda is None


def test_an_override_that_is_no_version_is_named(monkeypatch, tmp_path):
    """The message names the variable."""
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "!!")
    settings = Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path)}, {})
    with pytest.raises(SettingError, match="CONDA_OVERRIDE_CUDA"):
        local_requirements(asked(conda={"six": ""}), "local", settings)


class TestImages:
    def test_python_is_the_deploying_machines_unless_given(self, compute):
        """Artifacts are pickled, so a step gets the Python of who deploys, any patch release."""
        assert image_requirements(asked(), compute, "local", NOTHING).python == HERE
        assert image_requirements(asked("3.10.4"), compute, "local", NOTHING).python == "3.10.4"

    def test_the_platform_is_that_of_the_compute_decorator(self, compute):
        """A container on this machine has this machine's architecture, on Linux."""
        target = image_requirements(asked(), compute, "local", NOTHING).target
        assert target.platform == Platform(os="linux", architecture=Platform.host().architecture)

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("kubernetes.io/arch=arm64", "linux/arm64"),
            ("beta.kubernetes.io/arch=arm64,disk=ssd", "linux/arm64"),
            ("kubernetes.io/arch=amd64", "linux/amd64"),
            ("disk=ssd", "linux/arm64"),
        ],
    )
    def test_a_node_selector_says_for_sure_which_architecture(self, monkeypatch, selector, expected):
        """A selector of an architecture wins over what Metaflow is configured for, which other selectors leave alone."""
        monkeypatch.setattr(KubernetesDecorator, "target_platform", "linux-aarch64")
        compute = on_nodes(selector)
        assert str(image_requirements(asked(), compute, "s3", NOTHING).target.platform) == expected

    def test_an_architecture_without_packages_is_refused_by_name(self):
        """Nodes that nothing can be baked for are named before anything is resolved."""
        with pytest.raises(InvalidValueError, match="linux/s390x"):
            image_requirements(asked(), on_nodes("kubernetes.io/arch=s390x"), "s3", NOTHING)

    @pytest.mark.parametrize(("datastore", "needed"), [("local", set()), ("s3", {"boto3"}), ("gs", {"google-auth"})])
    def test_metaflows_needs_depend_on_the_datastore(self, compute, datastore, needed):
        """Each image has what Metaflow itself needs to reach the datastore."""
        assert {"requests"} | needed <= set(image_requirements(asked(), compute, datastore, NOTHING).runtime)

    def test_gpu_steps_get_a_cuda_version(self, compute, gpu_compute):
        """A GPU that @resources asks for sets the virtual package, from a setting; other steps have none."""
        setting = Settings({"METAFLOW_PREBUILT_CUDA_VERSION": "11.8"}, {})
        assert image_requirements(asked(), gpu_compute, "local", NOTHING).target.cuda == "12.4"
        assert image_requirements(asked(), gpu_compute, "local", setting).target.cuda == "11.8"
        assert image_requirements(asked(), compute, "local", setting).target.cuda is None
        with pytest.raises(SettingError, match="METAFLOW_PREBUILT_CUDA_VERSION: 'newest' is not a version"):
            image_requirements(
                asked(), gpu_compute, "local", Settings({"METAFLOW_PREBUILT_CUDA_VERSION": "newest"}, {})
            )

    def test_channels_are_those_of_metaflows_conda(self, compute, monkeypatch):
        """CONDA_CHANNELS is read as Metaflow's own @conda reads it."""
        assert image_requirements(asked(), compute, "local", NOTHING).channels == ("conda-forge",)
        monkeypatch.setenv("CONDA_CHANNELS", "mine, https://u:p@example.org/theirs")
        channels = image_requirements(asked(), compute, "local", NOTHING).channels
        assert channels == ("mine", "https://example.org/theirs")


class TestHere:
    def test_the_target_is_this_machine(self):
        """A step without a compute decorator is resolved for this machine and its interpreter."""
        requirements = local_requirements(asked(pypi={"six": "1"}), "local", NOTHING)
        assert requirements.target.platform == Platform.host()
        assert requirements.target.base_python == platform.python_version()
        assert requirements.python_source == "base"

    def test_another_python_comes_from_conda(self):
        """The interpreter that is there does not serve a step that wants another."""
        assert local_requirements(asked("3.9"), "local", NOTHING).python_source == "conda"


class TestBaseImage:
    def test_by_default_it_is_the_slim_python_of_the_step(self, compute):
        """Nothing is set: the stock image gives way to its slim form, with the step's own Python."""
        assert base_image(compute, None, NOTHING) == f"python:{HERE}-slim"
        assert base_image(compute, "3.9.2", NOTHING) == "python:3.9-slim"

    def test_metaflows_own_default_goes_before(self, compute, monkeypatch):
        """A site that configured an image for its tasks keeps it as the base."""
        monkeypatch.setattr(metaflow_config, "DEFAULT_CONTAINER_IMAGE", "python:3.8")
        compute.attributes["image"] = "python:3.8"
        assert base_image(compute, None, NOTHING) == "python:3.8"

    def test_a_configured_registry_is_kept(self, compute):
        """A site's mirror is in the stock image's name already."""
        compute.attributes["image"] = f"mirror.example:5000/python:{HERE}"
        assert base_image(compute, "3.10", NOTHING) == "mirror.example:5000/python:3.10-slim"

    def test_the_steps_own_image_goes_before(self, prepared):
        """`image=` of the compute decorator is the base, also where it looks like the stock image."""
        flow, _ = prepared(Sized, "container:image=python:3.8")
        assert base_image(compute_of(flow.end), "3.10", NOTHING) == "python:3.8"

    def test_our_setting_goes_before_all(self, prepared):
        """METAFLOW_PREBUILT_BASE_IMAGE wins over the step's own image."""
        flow, _ = prepared(Sized, "container:image=python:3.8")
        setting = Settings({"METAFLOW_PREBUILT_BASE_IMAGE": "ours"}, {})
        assert base_image(compute_of(flow.end), None, setting) == "ours"

    def test_gpu_steps_have_a_setting_of_their_own(self, compute, gpu_compute):
        """The GPU setting is for GPU steps alone; without it they take the one for all."""
        both = Settings({"METAFLOW_PREBUILT_BASE_IMAGE": "ours", "METAFLOW_PREBUILT_GPU_BASE_IMAGE": "cuda"}, {})
        one = Settings({"METAFLOW_PREBUILT_BASE_IMAGE": "ours"}, {})
        assert [base_image(deco, None, both) for deco in (compute, gpu_compute)] == ["ours", "cuda"]
        assert base_image(gpu_compute, None, one) == "ours"
