"""What this extension adds to Metaflow.

For a name that Metaflow has already the last entry wins (metaflow/extension_support/plugins.py): the four decorators
replace the stock ones.

Everything named here is imported by ``import metaflow`` in every process, in tasks too, where neither ``prebuilt`` nor its
dependencies are installed and where Python may be as old as a step asks for. So these modules import Metaflow and the
standard library only, and keep to a language that old interpreters read.
"""

ENVIRONMENTS_DESC = [("prebuilt", ".conda.environment.PrebuiltCondaEnvironment")]

STEP_DECORATORS_DESC = [
    ("conda", ".conda.decorators.PrebuiltCondaStepDecorator"),
    ("pypi", ".conda.decorators.PrebuiltPyPIStepDecorator"),
    ("container", ".container.container_decorator.ContainerDecorator"),
]

FLOW_DECORATORS_DESC = [
    ("conda_base", ".conda.decorators.PrebuiltCondaFlowDecorator"),
    ("pypi_base", ".conda.decorators.PrebuiltPyPIFlowDecorator"),
]

CLIS_DESC = [("container", ".container.container_cli.cli")]

# The same once more, for releases that tell commands which start tasks elsewhere from the others.
TRAMPOLINE_CLIS_DESC = [("container", ".container.container_cli.cli")]
