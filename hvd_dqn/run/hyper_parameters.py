"""Hyper-parameters for TensorBoard's HPARAMS tab, as the summaries that its plugin reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METRICS = ("final_evaluation/mean_return", "evaluation/mean_return", "training/mean_return")
"""The tags of the scalars by which runs are compared."""


def summary_of(values: Mapping[str, Any], unix_time: float) -> Any:
    """Returns the summary (of tensorboard.compat.proto.summary_pb2) of a run's hyper-parameters.

    Args:
      values: bool, int, float, str or list by name; the names are those of the configuration's fields.
      unix_time: start of the run, in seconds.
    """
    from google.protobuf import struct_pb2
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(start_time_secs=unix_time)
    experiment = api_pb2.Experiment(time_created_secs=unix_time)
    for tag in METRICS:
        group, _, name = tag.partition("/")
        experiment.metric_infos.add(name=api_pb2.MetricName(tag=tag), display_name=f"{group} {name}")
    for name, value in values.items():
        if isinstance(value, bool):
            kind, entry = api_pb2.DATA_TYPE_BOOL, struct_pb2.Value(bool_value=value)
        elif isinstance(value, (int, float)):
            kind, entry = api_pb2.DATA_TYPE_FLOAT64, struct_pb2.Value(number_value=value)
        else:
            kind, entry = api_pb2.DATA_TYPE_STRING, struct_pb2.Value(string_value=str(value))
        start.hparams[name].CopyFrom(entry)
        experiment.hparam_infos.add(name=name, display_name=name, type=kind)
    parts = {
        metadata.EXPERIMENT_TAG: plugin_data_pb2.HParamsPluginData(experiment=experiment),
        metadata.SESSION_START_INFO_TAG: plugin_data_pb2.HParamsPluginData(session_start_info=start),
    }
    return Summary(
        value=[
            Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)
            for tag, data in parts.items()
        ]
    )
