"""Settings of the registry ``gcr``, and the names that they make."""

from __future__ import annotations

import re

import pytest

from prebuilt.core.errors import SettingError
from prebuilt.core.settings import Settings
from prebuilt.gcr.config import GCRConfig
from prebuilt.oci.google import ArtifactRepository, google_location

PKG_DEV = "europe-west1-docker.pkg.dev"


def config(**values: str) -> GCRConfig:
    """Return what these settings, without ``METAFLOW_PREBUILT_``, make."""
    return GCRConfig.from_settings(Settings({f"METAFLOW_PREBUILT_{name}": value for name, value in values.items()}, {}))


@pytest.mark.parametrize(
    ("host", "images", "documents"),
    [
        ("", "gcr.io/acme-ml/metaflow-prebuilt", "gcr.io/acme-ml/metaflow-prebuilt-documents"),
        ("asia.gcr.io", "asia.gcr.io/acme-ml/metaflow-prebuilt", "asia.gcr.io/acme-ml/metaflow-prebuilt-documents"),
        ("gcr.io/acme-ml/", "gcr.io/acme-ml/metaflow-prebuilt", "gcr.io/acme-ml/metaflow-prebuilt-documents"),
        (
            PKG_DEV,
            f"{PKG_DEV}/acme-ml/metaflow-prebuilt/metaflow-prebuilt",
            f"{PKG_DEV}/acme-ml/metaflow-prebuilt-documents/metaflow-prebuilt",
        ),
        (
            f"{PKG_DEV}/acme-ml/flows",
            f"{PKG_DEV}/acme-ml/flows/metaflow-prebuilt",
            f"{PKG_DEV}/acme-ml/flows-documents/metaflow-prebuilt",
        ),
        (
            "127.0.0.1:5000",
            "127.0.0.1:5000/acme-ml/metaflow-prebuilt",
            "127.0.0.1:5000/acme-ml/metaflow-prebuilt-documents",
        ),
    ],
)
def test_every_host_has_the_project_in_its_names(host: str, images: str, documents: str) -> None:
    """The project is in every name, and Artifact Registry's own names have the repository as well."""
    made = config(GCR_HOST=host, GCR_PROJECT="acme-ml")
    assert made.images(made.project) == images
    assert made.documents(made.project) == documents


def test_projects_of_a_domain_are_a_path() -> None:
    """``example.com:project`` is two parts of a name, and one project again for whoever reads the name."""
    for made in (
        config(GCR_HOST=PKG_DEV, GCR_PROJECT="example.com:ml-team"),
        config(GCR_HOST=f"{PKG_DEV}/example.com/ml-team"),
    ):
        assert made.project == "example.com:ml-team"
        name = made.images(made.project)
        assert name == f"{PKG_DEV}/example.com/ml-team/metaflow-prebuilt/metaflow-prebuilt"
        found = ArtifactRepository.find(*name.split("/", 1))
        assert found is not None
        assert (found.project, found.name) == ("example.com:ml-team", "metaflow-prebuilt")


@pytest.mark.parametrize(
    ("host", "location"),
    [
        ("gcr.io", "us"),
        ("us.gcr.io", "us"),
        ("eu.gcr.io", "europe"),
        ("asia.gcr.io", "asia"),
        ("us-docker.pkg.dev", "us"),
        ("northamerica-northeast1-docker.pkg.dev", "northamerica-northeast1"),
        ("docker.pkg.dev", None),
        ("europe-west1-python.pkg.dev", None),
        ("europe-west1-docker.pkg.dev.example.com", None),
        ("notgcr.io", None),
        ("docker.io", None),
    ],
)
def test_hosts_are_known(host: str, location: str | None) -> None:
    """Google's registries are told from others, with the place where they keep images."""
    assert google_location(host) == location
    assert (location is None) or config(GCR_HOST=host).is_google


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GCR_PROJECT", "acme"),
        ("GCR_PROJECT", "Acme-ML"),
        ("GCR_PROJECT", "123456789012"),
        ("GCR_PROJECT", "acme-ml-"),
        ("GCR_PROJECT", "acme_ml"),
        ("GCR_HOST", "europe-docker-west1.pkg.dev"),
        ("GCR_HOST", "europe-west-docker.pkg.dev"),
        ("GCR_HOST", "us-central1-a-docker.pkg.dev"),
        ("GCR_HOST", "eu-docker.pkg.dev"),
        ("GCR_HOST", "docker.pkg.dev"),
        ("GCR_HOST", "fr.gcr.io"),
        ("GCR_HOST", "https://gcr.io"),
        ("GCR_HOST", "europe-west1"),
        ("GCR_HOST", f"{PKG_DEV}/acme-ml/flows/more"),
        ("GCR_HOST", "gcr.io/acme-ml/flows"),
        ("IMAGE_NAMESPACE", "Flows"),
        ("GCR_REPOSITORY", "flows"),
        ("GCR_DOCUMENTS_REPOSITORY", "flows"),
        ("GCR_CREATE_REPOSITORY", "maybe"),
    ],
)
def test_malformed_settings_are_named(name: str, value: str) -> None:
    """The error names the setting, and shows what is wrong with its value."""
    with pytest.raises(SettingError, match=re.escape(f"METAFLOW_PREBUILT_{name}")):
        config(**{name: value})


@pytest.mark.parametrize("name", ["Flows", "1flows", "flows-", "a_b", "a/b", "a" * 64])
def test_malformed_repositories_are_named(name: str) -> None:
    """Artifact Registry takes fewer names than registries do."""
    for setting in ("GCR_REPOSITORY", "GCR_DOCUMENTS_REPOSITORY"):
        with pytest.raises(SettingError, match=f"METAFLOW_PREBUILT_{setting}"):
            config(GCR_HOST=PKG_DEV, **{setting: name})


def test_contradictions_are_refused() -> None:
    """A project in the host and another in its setting: nobody guesses."""
    with pytest.raises(SettingError, match="unset one of the two"):
        config(GCR_HOST=f"{PKG_DEV}/acme-ml/flows", GCR_PROJECT="other-project")
    assert config(GCR_HOST=f"{PKG_DEV}/acme-ml/flows", GCR_PROJECT="acme-ml").project == "acme-ml"


def test_one_repository_may_hold_both() -> None:
    """Who has one repository names it for documents, too; then they are called otherwise than images."""
    made = config(GCR_HOST=PKG_DEV, GCR_PROJECT="acme-ml", GCR_REPOSITORY="flows", GCR_DOCUMENTS_REPOSITORY="flows")
    assert made.documents("acme-ml") == f"{PKG_DEV}/acme-ml/flows/metaflow-prebuilt-documents"
