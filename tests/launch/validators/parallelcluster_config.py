"""Checks a configuration from standard input against AWS ParallelCluster's schema; prints the mistakes as JSON."""

from __future__ import annotations

import json
import sys

import yaml
from marshmallow import ValidationError
from pcluster.schemas.cluster_schema import ClusterSchema

try:
    ClusterSchema(cluster_name="hvd-dqn").load(yaml.safe_load(sys.stdin))
    mistakes = {}
except ValidationError as error:
    mistakes = error.messages
print(json.dumps(mistakes))
