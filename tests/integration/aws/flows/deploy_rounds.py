"""Deploy the flow of rounds to Step Functions with Metaflow's Deployer, and trigger it."""

from pathlib import Path

from metaflow import Deployer

deployer = Deployer(str(Path(__file__).with_name("rounds.py")), environment="prebuilt")
deployed = deployer.step_functions(name="Rounds").create()
triggered = deployed.trigger(word="two words")
print(f"triggered: {deployed.name} {triggered.pathspec}")
