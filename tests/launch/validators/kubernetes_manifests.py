"""Checks Kubernetes manifests given on standard input; prints one mistake a line.

    kubernetes_manifests.py [CRD.yaml] < manifests.yaml

An MPIJob is checked against the operator's CRD if that is given, and against the fields of its published API if not.
Pods, volumes and storage classes are checked against Kubernetes' own schemas.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = "1.34"
POLICIES = {"enum": ["Never", "OnFailure", "Always", "ExitCode"]}
COUNT = {"type": "integer", "minimum": 0}
# https://www.kubeflow.org/docs/components/trainer/legacy-v1/reference/mpi-operator, for where there is no CRD.
REPLICA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["template"],
    "properties": {"replicas": COUNT, "restartPolicy": POLICIES, "template": {"type": "object"}},
}
MPIJOB = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "kubeflow.org/v2beta1"},
        "kind": {"const": "MPIJob"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["mpiReplicaSpecs"],
            "properties": {
                "slotsPerWorker": COUNT,
                "runLauncherAsWorker": {"type": "boolean"},
                "sshAuthMountPath": {"type": "string"},
                "launcherCreationPolicy": {"enum": ["AtStartup", "WaitForWorkersReady"]},
                "mpiImplementation": {"enum": ["OpenMPI", "Intel", "MPICH"]},
                "runPolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "cleanPodPolicy": {"enum": ["None", "Running", "All"]},
                        "ttlSecondsAfterFinished": COUNT,
                        "activeDeadlineSeconds": COUNT,
                        "backoffLimit": COUNT,
                        "schedulingPolicy": {"type": "object"},
                        "suspend": {"type": "boolean"},
                        "managedBy": {"type": "string"},
                    },
                },
                "mpiReplicaSpecs": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["Launcher", "Worker"],
                    "properties": {"Launcher": REPLICA, "Worker": REPLICA},
                },
            },
        },
    },
}


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a CRD's schema as a JSON schema that, as an API server with strict validation, knows no other fields."""
    schema = copy.deepcopy(schema)
    if schema.pop("x-kubernetes-int-or-string", False):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in schema:
        schema["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = strict(schema["items"])
    return schema


def mpijob_schema(crd_file: str | None) -> dict[str, Any]:
    """Returns the schema that MPIJobs are checked against."""
    if crd_file is None:
        return MPIJOB
    with open(crd_file) as file:
        (version,) = [v for v in yaml.safe_load(file)["spec"]["versions"] if v["name"] == "v2beta1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def mistakes(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Returns what is wrong with a document."""
    if document.get("kind") != "MPIJob":
        return _kubernetes_mistakes(document, document.get("kind", "?"))
    found = [
        f"MPIJob {'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]
    for name, replica in document.get("spec", {}).get("mpiReplicaSpecs", {}).items():
        template = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "x"},
            "template": replica.get("template"),
        }
        found += _kubernetes_mistakes(template, f"MPIJob {name}")
    return found


def _kubernetes_mistakes(document: dict[str, Any], where: str) -> list[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{where} {'/'.join(map(str, error.path))}: {error.message[:300]}"]
    return []


if __name__ == "__main__":
    the_schema = mpijob_schema(sys.argv[1] if len(sys.argv) > 1 else None)
    lines = [line for document in yaml.safe_load_all(sys.stdin) for line in mistakes(document, the_schema)]
    print("\n".join(lines))
    sys.exit(bool(lines))
