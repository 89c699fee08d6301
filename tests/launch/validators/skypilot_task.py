"""Reads a SkyPilot task as `sky` does and prints what it understood, as JSON.

skypilot_task.py TASK.yaml [NAME=VALUE...]
"""

from __future__ import annotations

import json
import sys

import sky
import yaml

with open(sys.argv[1]) as file:
    content = yaml.safe_load(file)
variables = [tuple(argument.split("=", 1)) for argument in sys.argv[2:]]
try:
    task = sky.Task.from_yaml_config(content, env_overrides=variables)
except ValueError as error:
    sys.exit(f"refused: {error}")
resources = [
    {"cloud": str(choice.cloud), "spot": choice.use_spot, "recovery": choice.job_recovery} for choice in task.resources
]
print(
    json.dumps(
        {"nodes": task.num_nodes, "run": task.run, "setup": task.setup, "envs": task.envs, "resources": resources}
    )
)
