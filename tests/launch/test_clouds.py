"""The cloud templates: read by their own tools where those work offline, and the SkyPilot task really run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import Hosts, running_hosts, wait_until
from launching import ROOT, read_metrics
from tools import environment, published

pytestmark = pytest.mark.launch
pytest_plugins = ["partly"]

CLOUD = ROOT / "launch" / "cloud"
VALIDATORS = Path(__file__).parent / "validators"
SKYPILOT, PARALLELCLUSTER = "skypilot==0.14.1", "aws-parallelcluster==3.16.1"
TOOLKIT = "https://raw.githubusercontent.com/GoogleCloudPlatform/cluster-toolkit/v1.95.0"
CYCLECLOUD = "https://raw.githubusercontent.com/Azure/cyclecloud-slurm/4.0.9/templates/slurm.txt"


def load(name: str) -> dict[str, Any]:
    """Returns a template's content."""
    content = yaml.safe_load((CLOUD / name).read_text())
    assert isinstance(content, dict)
    return content


# ---- SkyPilot


def skypilot(task: Path, home: Path, *variables: str) -> dict[str, Any]:
    """Returns what SkyPilot understands of a task; fails with its message if it refuses it."""
    command = [environment(SKYPILOT), VALIDATORS / "skypilot_task.py", task, *variables]
    own = os.environ | {"HOME": str(home)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=own, check=False)
    assert done.returncode == 0, done.stderr
    understood = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(understood, dict)
    return understood


def test_skypilot_rents_spot_machines_anywhere_and_recovers(tmp_path: Path) -> None:
    task = skypilot(CLOUD / "skypilot.yaml", tmp_path, "CHECKPOINTS=s3://bucket")
    assert task["nodes"] == 2
    assert {choice["cloud"] for choice in task["resources"]} == {"AWS", "GCP", "Azure"}
    for choice in task["resources"]:
        assert choice["spot"] is True
        assert choice["recovery"]["recover_on_exit_codes"] == [75]
    assert task["envs"]["CHECKPOINTS"] == "s3://bucket"
    assert os.access(ROOT / task["run"], os.X_OK)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda task: None, "CHECKPOINTS"),  # which nobody has given
        (lambda task: task.update(num_node=2), "num_node"),
        (lambda task: task["resources"].update(any_of=[{"infra": "awz"}]), "awz"),
        (lambda task: task["resources"].update(use_spot="perhaps"), "perhaps"),
    ],
    ids=["no bucket", "unknown field", "unknown cloud", "wrong type"],
)
def test_skypilot_refuses_a_broken_task(spoil: Callable[[dict[str, Any]], Any], says: str, tmp_path: Path) -> None:
    task = load("skypilot.yaml")
    spoil(task)
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    with pytest.raises(AssertionError, match=says):
        skypilot(tmp_path / "task.yaml", tmp_path, *(["CHECKPOINTS=s3://b"] if says != "CHECKPOINTS" else []))


RUN_OPTIONS = (
    "--env CartPole-v1 --total-env-steps 60000 --learning-starts 200 --checkpoint-period 2000 --log-period 1000 "
    "--evaluation-period 0 --final-evaluation-episodes 2"
)


@contextlib.contextmanager
def rented_machines(folder: Path, bucket: Path) -> Iterator[tuple[Hosts, Path, list[subprocess.Popen[bytes]]]]:
    """Gives two new machines on which SkyPilot's command has been started, its output, and the two processes.

    Machines have disks of their own, and the bucket in common.
    """
    folder.mkdir()
    (folder / "hosts").mkdir()
    log = folder / "run.log"
    with running_hosts(folder / "hosts", nodes=2) as hosts, log.open("wb") as output:
        processes = []
        for rank, node in enumerate(hosts.nodes):
            variables = {
                **{name: str(value) for name, value in load("skypilot.yaml")["envs"].items()},
                "CHECKPOINTS": bucket.as_uri(),
                "RUN": "spot",
                "OPTIONS": f"{RUN_OPTIONS} --runs-dir {folder}/disk",
                "RANKS_PER_NODE": "1",
                "SKYPILOT_NODE_RANK": str(rank),
                "SKYPILOT_NODE_IPS": "\n".join(host.address for host in hosts.nodes),
                "SKYPILOT_NUM_NODES": "2",
                "SKYPILOT_NUM_GPUS_PER_NODE": "0",
            }
            own = [f"{name}={value}" for name, value in variables.items()]
            command = node.command("env", *own, "bash", "-c", load("skypilot.yaml")["run"])
            processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
            )
        yield hosts, log, processes


@pytest.mark.slow
def test_the_skypilot_task_goes_on_on_new_machines_from_the_bucket(tmp_path: Path) -> None:
    """Its own command on two machines that are taken away without a word, disks and all, and on two others."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    with rented_machines(tmp_path / "first", bucket) as (hosts, log, processes):
        assert processes[1].wait(30) == 0
        wait_until(
            lambda: len(list(bucket.glob("spot/*/manifest.json"))) >= 2 or processes[0].poll() is not None,
            150.0,
            f"there are checkpoints:\n{log.read_text()}",
        )
        assert {"node1", "node2"} <= set(hosts.ranks()), log.read_text()
        for node in hosts.nodes:
            node.kill()
        assert processes[0].wait(30) != 0
    steps = [int(path.parent.name) for path in bucket.glob("spot/*/manifest.json")]
    assert 0 < max(steps) < 60_000
    with rented_machines(tmp_path / "second", bucket) as (_, log, processes):
        assert processes[0].wait(280) == 0, log.read_text()
        output = log.read_text()
    assert f"resumed from the checkpoint at env step {max(steps):,}" in output
    env_steps = [record["env_steps"] for record in read_metrics(tmp_path / "second/disk/CartPole-v1/spot", "training")]
    assert env_steps == sorted(set(env_steps))
    assert env_steps[0] < max(steps) < env_steps[-1]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"CHECKPOINTS": ""}, "CHECKPOINTS"),
        ({"CHECKPOINTS": "bucket"}, "CHECKPOINTS"),
        ({"RUN": "a/b"}, "RUN"),
    ],
)
def test_the_skypilot_command_refuses_what_is_not_given(variables: dict[str, str], says: str) -> None:
    own = {"CHECKPOINTS": "s3://b", "RUN": "x", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "127.0.0.1"} | variables
    done = subprocess.run(
        [CLOUD / "skypilot_run.sh"], env=os.environ | own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert says in done.stderr


# ---- AWS ParallelCluster


def parallelcluster(configuration: dict[str, Any]) -> dict[str, Any]:
    """Returns what ParallelCluster's schema says against a configuration."""
    done = subprocess.run(
        [environment(PARALLELCLUSTER), VALIDATORS / "parallelcluster_config.py"],
        input=yaml.safe_dump(configuration),
        env=os.environ | {"AWS_DEFAULT_REGION": "us-east-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    mistakes = json.loads(done.stdout)
    assert isinstance(mistakes, dict)
    return mistakes


def test_the_parallelcluster_configuration_is_valid_and_costs_nothing_idle() -> None:
    configuration = load("parallelcluster.yaml")
    assert parallelcluster(configuration) == {}
    queues = {queue["Name"]: queue for queue in configuration["Scheduling"]["SlurmQueues"]}
    assert set(queues) == {"cpu", "gpu"}
    for queue in queues.values():
        assert queue["CapacityType"] == "SPOT"
        assert all(resource["MinCount"] == 0 for resource in queue["ComputeResources"])
    assert [storage["MountDir"] for storage in configuration["SharedStorage"]] == ["/shared"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c: c["HeadNode"].update(Instance="c5.xlarge"), "Instance"),
        (lambda c: c["Scheduling"]["SlurmQueues"][0].update(CapacityType="CHEAP"), "CapacityType"),
        (lambda c: c["HeadNode"].pop("InstanceType"), "InstanceType"),
    ],
    ids=["unknown field", "unknown capacity", "missing field"],
)
def test_parallelcluster_refuses_a_broken_configuration(spoil: Callable[[dict[str, Any]], Any], says: str) -> None:
    configuration = load("parallelcluster.yaml")
    spoil(configuration)
    assert says in json.dumps(parallelcluster(configuration))


# ---- Google's Cluster Toolkit


def blueprint_mistakes(blueprint: dict[str, Any], fell_short: list[str]) -> list[str]:
    """Returns what is wrong with a blueprint: references, and settings that its modules do not have."""
    found, known = [], set()
    for module in (module for group in blueprint["deployment_groups"] for module in group["modules"]):
        missing = [name for name in module.get("use", []) if name not in known]
        found += [f"{module['id']} uses {name}, which is not above it" for name in missing]
        found += [f"{module['id']} is there twice"] if module["id"] in known else []
        known.add(module["id"])
        files = ["variables.tf"] + (["variables_controller_instance.tf"] if "-controller" in module["source"] else [])
        paths = [published("HVD_DQN_CLUSTER_TOOLKIT", TOOLKIT, f"{module['source']}/{file}") for file in files]
        if None in paths:
            fell_short.append(
                "the Cluster Toolkit blueprint by its references, not by its modules' variables, which are out of "
                f"reach: name a checkout of the toolkit in HVD_DQN_CLUSTER_TOOLKIT ({TOOLKIT})"
            )
            continue
        text = "".join(path.read_text() for path in paths if path is not None)
        variables = set(re.findall(r'^variable "(\w+)"', text, re.MULTILINE))
        unknown = sorted(set(module.get("settings", {})) - variables)
        found += [f"{module['id']} has no setting {name}" for name in unknown]
    return found


def test_the_cluster_toolkit_blueprint_fits_its_modules_and_costs_little_idle(fell_short: list[str]) -> None:
    blueprint = load("cluster_toolkit.yaml")
    assert blueprint_mistakes(blueprint, fell_short) == []
    modules = {module["id"]: module for group in blueprint["deployment_groups"] for module in group["modules"]}
    for partition in ("cpu", "gpu"):
        settings = modules[f"{partition}_nodeset"]["settings"]
        assert settings["enable_spot_vm"] is True
        assert "node_count_static" not in settings
        assert modules[f"{partition}_partition"]["use"] == [f"{partition}_nodeset"]
        assert f"{partition}_partition" in modules["controller"]["use"]
    assert modules["shared"]["settings"]["local_mount"] == "/shared"
    assert "shared" in modules["controller"]["use"]


def test_a_broken_blueprint_is_found(fell_short: list[str]) -> None:
    blueprint = load("cluster_toolkit.yaml")
    modules = blueprint["deployment_groups"][0]["modules"]
    modules[-1]["use"].append("storage")
    modules[0]["settings"] = {"mtux": 1}
    out_of_reach: list[str] = []
    found = blueprint_mistakes(blueprint, out_of_reach)
    fell_short += out_of_reach
    assert "controller uses storage, which is not above it" in found
    assert out_of_reach or "network has no setting mtux" in found


# ---- Azure CycleCloud


def test_the_cyclecloud_parameters_are_the_slurm_templates(fell_short: list[str]) -> None:
    parameters = json.loads((CLOUD / "cyclecloud.json").read_text())
    assert all(isinstance(value, str | bool | int) for value in parameters.values())
    assert parameters["HTCUseLowPrio"] is True
    assert parameters["GPUUseLowPrio"] is True
    template = published("HVD_DQN_CYCLECLOUD_TEMPLATE", CYCLECLOUD)
    if template is None:
        fell_short.append(
            "CycleCloud's parameters by themselves, not by its Slurm template, which is out of reach: name the file in "
            f"HVD_DQN_CYCLECLOUD_TEMPLATE ({CYCLECLOUD})"
        )
        return
    known = set(re.findall(r"^\s*\[\[\[parameter (\w+)\]\]\]", template.read_text(), re.MULTILINE))
    assert set(parameters) <= known
