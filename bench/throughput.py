#!/usr/bin/env python
"""Measures env steps per second of train.py and of other DQN libraries, on one core, at the same replay ratio.

First every setting of every implementation (number of environments, length of a burst of updates, library options)
runs once, briefly; each implementation's fastest then runs in all repetitions, which alone count. All processes are
fresh, and the implementations take turns, so that a drift of the machine hits all alike.

    bench/peers/install.sh                                  once: the peers' environment, .bench/peers
    .venv/bin/python bench/throughput.py --output results.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from comparison.bars import judge_bars
from comparison.cases import CASES, Case
from comparison.implementations import IMPLEMENTATIONS, Implementation, Setting
from comparison.machine import OUR_PACKAGES, PEER_PACKAGES, machine, versions
from comparison.measuring import Durations, Measurement, measure
from comparison.report import bars_table, case_table, describe_machine, median, scan_table

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Runs the comparison that the command line asks for."""
    arguments = parse()
    os.sched_setaffinity(0, {arguments.core})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # by way of the `finally` that ends a measurement
    cases = [case for case in CASES if case.name in arguments.cases]
    implementations = [each for each in IMPLEMENTATIONS if each.name in arguments.implementations]
    record: dict[str, Any] = {
        "machine": machine(),
        "core": arguments.core,
        "seconds": arguments.seconds,
        "warm_seconds": arguments.warm_seconds,
        "repetitions": arguments.repetitions,
        "versions": {"ours": versions(sys.executable, OUR_PACKAGES), "peers": peer_versions(arguments.peers_python)},
        "scan": {case.name: [] for case in cases},
        "cases": {case.name: {} for case in cases},
    }
    print(describe_machine(record), flush=True)
    chosen = {}
    for case in cases:
        for implementation in implementations:
            setting, reason = scan(implementation, case, arguments, record["scan"][case.name])
            entry = {"setting": str(setting or ""), "speeds": [], "failures": [], "reason": reason}
            record["cases"][case.name][implementation.name] = entry
            if setting is not None:
                chosen[case.name, implementation.name] = setting
        print("\n" + scan_table(case.name, record), flush=True)
    repeat(cases, implementations, chosen, arguments, record)
    report(record, arguments.output)


def scan(
    implementation: Implementation, case: Case, arguments: argparse.Namespace, tried: list[dict[str, Any]]
) -> tuple[Setting | None, str]:
    """Tries an implementation's settings once each; returns the fastest, or None and the reason."""
    missing = implementation.missing(case)
    if missing:
        return None, f"has no such case: {missing}"
    best, best_speed, reason = None, 0.0, ""
    durations = Durations(arguments.warm_seconds, arguments.scan_seconds, arguments.limit)
    for setting in implementation.settings(case):
        if arguments.without_envpool and setting.in_envpool:
            continue
        measurement = measure(implementation, case, setting, durations, arguments.peers_python, seed=0)
        tried.append(_line(implementation, setting, measurement))
        progress(f"{case.name}: {implementation.name}, {setting}", measurement)
        speed = measurement.env_steps_per_second
        if speed is not None and speed > best_speed:
            best, best_speed = setting, speed
        reason = reason if "not_applicable" in measurement.details else measurement.reason or reason
    return best, "" if best else reason


def repeat(
    cases: list[Case],
    implementations: list[Implementation],
    chosen: dict[tuple[str, str], Setting],
    arguments: argparse.Namespace,
    record: dict[str, Any],
) -> None:
    """Measures the chosen settings, all in turn, once per repetition."""
    durations = Durations(arguments.warm_seconds, arguments.seconds, arguments.limit)
    for repetition in range(1, arguments.repetitions + 1):
        for case in cases:
            for implementation in implementations:
                setting = chosen.get((case.name, implementation.name))
                if setting is None:
                    continue
                entry = record["cases"][case.name][implementation.name]
                measurement = measure(implementation, case, setting, durations, arguments.peers_python, seed=repetition)
                progress(f"repetition {repetition}, {case.name}: {implementation.name}", measurement)
                if measurement.env_steps_per_second is None:
                    entry["failures"].append(measurement.reason)
                    entry["reason"] = measurement.reason
                else:
                    entry["speeds"].append(measurement.env_steps_per_second)
                    entry.setdefault("details", []).append(measurement.details)
        if arguments.output:
            arguments.output.write_text(json.dumps(record, indent=1) + "\n")


def report(record: dict[str, Any], output: Path | None) -> None:
    """Prints the tables and the bars, and writes the record."""
    medians = {
        case: {name: speed for name, entry in entries.items() if (speed := median(entry)) is not None}
        for case, entries in record["cases"].items()
    }
    record["bars"] = judge_bars(medians)
    print("\n\n".join(["", *(case_table(case, record) for case in record["cases"]), bars_table(record["bars"])]))
    if output:
        output.write_text(json.dumps(record, indent=1) + "\n")


def progress(what: str, measurement: Measurement) -> None:
    """Says on stderr how far the comparison is."""
    speed = measurement.env_steps_per_second
    print(f"{what}: {f'{speed:,.0f}' if speed else measurement.reason}", file=sys.stderr, flush=True)


def peer_versions(python: str) -> dict[str, str]:
    """Returns the peers' versions; none where their environment cannot be started, which each peer will then say."""
    try:
        return versions(python, PEER_PACKAGES)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{python} does not run ({error}): make it with bench/peers/install.sh", file=sys.stderr)
        return {}


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    case_names, names = [case.name for case in CASES], [each.name for each in IMPLEMENTATIONS]
    parser.add_argument("--cases", nargs="+", choices=case_names, default=case_names, metavar="CASE")
    parser.add_argument("--implementations", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument(
        "--without-envpool", action="store_true", help="try no setting with EnvPool's environments, of ours or a peer"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="measurements of each that count")
    parser.add_argument("--seconds", type=float, default=5.0, help="least duration of a measurement")
    parser.add_argument("--scan-seconds", type=float, default=2.0, help="the same while settings are tried")
    parser.add_argument("--warm-seconds", type=float, default=3.0, help="learning before a measurement begins")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a process has failed")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="core that everything runs on")
    # Each process starts in a folder of its own, from which a relative path leads nowhere.
    default = REPOSITORY / ".bench" / "peers" / "bin" / "python"
    parser.add_argument("--peers-python", type=os.path.abspath, default=default, help="path of the peers' Python")
    parser.add_argument("--output", type=Path, help="JSON file for everything that was measured")
    return parser.parse_args()


def _line(implementation: Implementation, setting: Setting, measurement: Measurement) -> dict[str, Any]:
    return {
        "implementation": implementation.name,
        "setting": str(setting),
        "env_steps_per_second": measurement.env_steps_per_second,
        "reason": measurement.reason,
        "details": measurement.details,
    }


if __name__ == "__main__":
    main()
