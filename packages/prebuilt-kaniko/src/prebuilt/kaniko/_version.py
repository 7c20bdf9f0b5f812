"""The version of prebuilt-kaniko; read by hatchling at build time."""

__version__ = "1.0.0"
