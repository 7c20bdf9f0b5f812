"""The registry ``layout``: an OCI image layout, which is a folder of this machine."""

from __future__ import annotations

from prebuilt.core.settings import Settings
from prebuilt.native.config import layout_folder
from prebuilt.oci.registry import RepositoryRegistry


class LayoutRegistry(RepositoryRegistry):
    """Keeps images in the folder that ``METAFLOW_PREBUILT_LAYOUT`` names. Other machines do not see it."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Use the folder of `settings`; those of this process if None. It is made when the first image comes."""
        settings = settings or Settings.load()
        super().__init__(f"oci:{layout_folder(settings)}", settings=settings)
