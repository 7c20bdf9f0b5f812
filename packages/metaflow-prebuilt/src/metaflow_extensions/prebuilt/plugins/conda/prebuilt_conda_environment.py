"""The environment, at its documented path.

It is defined in another module because Metaflow imports the defining module while Metaflow itself is imported: whoever
imports this path before ``metaflow`` would else meet a half-made module.
"""

import metaflow  # noqa: F401 - imports the environment

from metaflow_extensions.prebuilt.plugins.conda.environment import PrebuiltCondaEnvironment

__all__ = ["PrebuiltCondaEnvironment"]
