"""What the evidence of hvd-dqn doctor means: one finding per subject, and for each problem what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from hvd_dqn.cli.examination import Evidence
from hvd_dqn.version import __version__

_SHM_BYTES_PER_RANK = 16 * 2**20
_MEMORY_BYTES_PER_RANK = 2**30
_FOLDER_BYTES = 2**30
_CLOCK_SECONDS = 1.0
_LATENCY_SECONDS = 2e-3
_BYTES_PER_SECOND = 50e6
_ACTIVATE = "source .venv/bin/activate"


class Finding(NamedTuple):
    """One line of the report."""

    mark: Literal["ok", "warning", "fault"]
    """fault: training cannot run like this."""
    name: str
    text: str
    remedy: str = ""
    """What to change; empty if all is well."""


def judge(evidence: Evidence) -> list[Finding]:
    """Returns the findings, in the order of the report."""
    ranks = evidence.ranks
    found: list[Finding] = []
    if ranks:
        found += [_program(ranks), *_packages(ranks), _system(ranks), _ranks(evidence)]
        if all("native_problem" in rank for rank in ranks):  # the libraries were loaded
            found += [_horovod(evidence), _mpi(ranks), _native(ranks), _gpus(ranks)]
        found += [_cores(ranks), _memory(ranks), _shm(ranks)]
        found += [*_folder(evidence), *_clocks(evidence), *_allreduces(evidence), *_variables(ranks)]
    return [*found, *_end(evidence)]


def _by_host(ranks: list[dict[str, Any]], describe: Callable[[dict[str, Any]], str]) -> str:
    """Returns a description that all ranks share, or each description with the hosts and ranks that it is for."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for rank in ranks:
        groups.setdefault(describe(rank), []).append(rank)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{_places(group)}: {text}" for text, group in groups.items())


def _places(ranks: list[dict[str, Any]]) -> str:
    hosts = ", ".join(dict.fromkeys(rank["host"] for rank in ranks))
    return f"{hosts} (rank {', '.join(str(rank['rank']) for rank in ranks)})"


def _differ(ranks: list[dict[str, Any]], name: str) -> bool:
    return any(rank.get(name) != ranks[0].get(name) for rank in ranks)


def _per_host(ranks: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Returns the facts of one rank of each host, and the number of its ranks."""
    hosts: dict[str, list[dict[str, Any]]] = {}
    for rank in ranks:
        hosts.setdefault(rank["host"], []).append(rank)
    return [(group[0], len(group)) for group in hosts.values()]


def _program(ranks: list[dict[str, Any]]) -> Finding:
    text = f"{__version__}, " + _by_host(ranks, lambda rank: f"revision {rank['revision']}, code {rank['code']}")
    if _differ(ranks, "code"):
        return Finding("fault", "hvd-dqn", text, "install the same version of hvd-dqn on all hosts")
    return Finding("ok", "hvd-dqn", text)


def _packages(ranks: list[dict[str, Any]]) -> list[Finding]:
    """Returns the packages; those that differ between the ranks come first, since training refuses them."""
    first = ranks[0]["versions"]
    differing = [name for name in first if any(rank["versions"].get(name) != first[name] for rank in ranks)]
    remedy = "install the same versions on all hosts"
    found = [Finding("fault", name, _versions_by_host(ranks, name), remedy) for name in differing]
    same = ", ".join(f"{name} {version}" for name, version in first.items() if name not in differing)
    return [*found, Finding("ok", "packages", same)]


def _versions_by_host(ranks: list[dict[str, Any]], package: str) -> str:
    return _by_host(ranks, lambda rank: str(rank["versions"].get(package)))


def _system(ranks: list[dict[str, Any]]) -> Finding:
    text = _by_host(ranks, lambda rank: f"{rank['system']}, {rank['processor']}")
    return Finding("ok", "system", f"{text}; {_by_host(ranks, lambda rank: rank['python'])}")


def _ranks(evidence: Evidence) -> Finding:
    ranks, launch = evidence.ranks, evidence.launch
    counts = ", ".join(f"{count} on {rank['host']}" for rank, count in _per_host(ranks))
    if len(ranks) < launch.size:
        counts = f"{launch.size} started, not joined"
    text = f"{counts}; launcher: {ranks[0]['launcher']}; controller: {evidence.controller or 'unknown'}"
    if evidence.controller == "Gloo" and not any(rank["gpus"] for rank in ranks):
        remedy = "on CPUs start the ranks by mpirun or horovodrun --mpi: Gloo's allreduce is slower"
        return Finding("warning", "ranks", text, remedy)
    return Finding("ok", "ranks", text)


def _horovod(evidence: Evidence) -> Finding:
    ranks = evidence.ranks
    if any("horovod_error" in rank for rank in ranks):
        text = _by_host(ranks, lambda rank: rank.get("horovod_error", "can be imported"))
        remedy = "compile Horovod for this TensorFlow and this MPI: make setup, or docs/how-to/install.md"
        mark: Literal["fault", "warning"] = "fault" if evidence.launch.size > 1 else "warning"
        return Finding(mark, "horovod", text, remedy)
    text = _by_host(
        ranks,
        lambda rank: "built with " + (", ".join(name for name, has in rank["horovod"].items() if has) or "nothing"),
    )
    if any(rank.get("tensorflow_gpus") and not rank["horovod"]["NCCL"] for rank in ranks):
        remedy = (
            "compile Horovod with HOROVOD_GPU_OPERATIONS=NCCL: gradients of GPUs otherwise take the way over the CPU"
        )
        return Finding("warning", "horovod", text, remedy)
    return Finding("ok", "horovod", text)


def _mpi(ranks: list[dict[str, Any]]) -> Finding:
    if any("mpi_error" in rank for rank in ranks):
        text = _by_host(ranks, lambda rank: rank.get("mpi_error", rank.get("mpi", "")))
        return Finding("warning", "MPI", text, "install openmpi and mpi4py: make setup")
    text = _by_host(ranks, lambda rank: f"{rank['mpi']}, mpirun: {rank['mpirun'] or 'not in PATH'}")
    if any(rank["mpirun"] is None for rank in ranks) and ranks[0]["launcher"] == "none":
        return Finding("warning", "MPI", text, f"{_ACTIVATE}: mpirun and horovodrun are there")
    return Finding("ok", "MPI", text)


def _native(ranks: list[dict[str, Any]]) -> Finding:
    problems = [rank for rank in ranks if rank["native_problem"]]
    if problems:
        return Finding(
            "warning", "native learner", _by_host(problems, lambda rank: rank["native_problem"]), "make setup"
        )
    return Finding("ok", "native learner", "its kernels can be loaded")


def _gpus(ranks: list[dict[str, Any]]) -> Finding:
    if any("tensorflow_error" in rank for rank in ranks):
        text = _by_host(ranks, lambda rank: rank.get("tensorflow_error", "can be imported"))
        return Finding("fault", "TensorFlow", text, "install TensorFlow 2.18.1: make setup")
    text = _by_host(ranks, _gpus_of)
    no_device = [rank for rank in ranks if rank.get("no_device")]
    if no_device:
        return Finding("fault", "GPUs", text, _by_host(no_device, lambda rank: rank["no_device"]))
    if any(rank["gpus"] and rank.get("tensorflow_gpus") == 0 for rank in ranks):
        remedy = 'install TensorFlow with CUDA (make setup EXTRAS="gpu"), and look at CUDA_VISIBLE_DEVICES'
        return Finding("warning", "GPUs", text, remedy)
    return Finding("ok", "GPUs", text)


def _gpus_of(rank: dict[str, Any]) -> str:
    if not rank["gpus"]:
        return "none; computes on " + rank.get("device", "the CPU")
    seen = rank.get("tensorflow_gpus", "an unknown number")
    return f"{', '.join(rank['gpus'])}; TensorFlow sees {seen}; computes on {rank.get('device', 'unknown')}"


def _cores(ranks: list[dict[str, Any]]) -> Finding:
    parts, crowded, busy = [], False, False
    for rank, count in _per_host(ranks):
        quota = "" if rank["cpu_quota"] is None else f", quota of the control group {rank['cpu_quota']:g}"
        parts.append(
            f"{rank['host']}: {rank['cores_of_host']}, {rank['cores']} usable{quota}, {count} rank(s), load "
            f"{rank['load']:.1f}"
        )
        usable = len({core for other in ranks if other["host"] == rank["host"] for core in other["affinity"]})
        usable = min(usable, int(rank["cpu_quota"] or usable) or 1)
        crowded |= count > usable
        busy |= rank["load"] > rank["cores_of_host"] + count
    bound = ", ".join(f"rank {rank['rank']}: {_ranges(rank['own_cores'])}" for rank in ranks if "own_cores" in rank)
    text = "; ".join(parts) + (f"; bound: {bound}; threads per rank: {ranks[0]['threads']}" if bound else "")
    if crowded:
        return Finding("warning", "cores", text, "start at most one rank per core: ranks wait for one another")
    if busy:
        return Finding("warning", "cores", text, "other processes use the cores: one slow rank slows all")
    return Finding("ok", "cores", text)


def _ranges(numbers: list[int]) -> str:
    """Returns sorted numbers in short form: 0-3, 8."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _memory(ranks: list[dict[str, Any]]) -> Finding:
    text = _by_host(ranks, lambda rank: f"{rank['memory'] / 2**30:.0f} GiB available")
    if any(rank["memory"] < count * _MEMORY_BYTES_PER_RANK for rank, count in _per_host(ranks)):
        return Finding("warning", "memory", text, "allow 1 GiB per rank and the replay: fewer ranks, or a higher limit")
    return Finding("ok", "memory", text)


def _shm(ranks: list[dict[str, Any]]) -> Finding:
    text = _by_host(ranks, lambda rank: f"{rank['shm_free'] / 2**20:,.0f} of {rank['shm_total'] / 2**20:,.0f} MiB free")
    if any(rank["shm_free"] < count * _SHM_BYTES_PER_RANK for rank, count in _per_host(ranks)):
        remedy = "enlarge it (docker run --shm-size 1g, or a larger tmpfs): ranks of one host communicate through it"
        return Finding("warning", "/dev/shm", text, remedy)
    return Finding("ok", "/dev/shm", text)


def _folder(evidence: Evidence) -> list[Finding]:
    rank = evidence.ranks[0]
    if evidence.folder_problem is None:
        return []
    if evidence.folder_problem:
        remedy = "give a folder that all ranks share and can write, as --folder here and as --runs-dir for training"
        return [Finding("fault", "folder", evidence.folder_problem, remedy)]
    text = f"{rank['folder']}: rank 0 can write, all ranks see it, {rank['folder_free'] / 2**30:,.0f} GiB free"
    if rank["folder_free"] < _FOLDER_BYTES:
        return [Finding("warning", "folder", text, "free some space, or give another --runs-dir")]
    return [Finding("ok", "folder", text)]


def _clocks(evidence: Evidence) -> list[Finding]:
    if not evidence.clocks:
        return []
    least = [max(low, -high, 0.0) for low, high in evidence.clocks]
    rank = max(range(len(least)), key=least.__getitem__)
    spread = max((high - low) / 2 for low, high in evidence.clocks)
    if least[rank] > _CLOCK_SECONDS:
        text = f"that of {_places([evidence.ranks[rank]])} differs from rank 0's by at least {least[rank]:.1f} s"
        return [
            Finding("warning", "clocks", text, "synchronise the hosts' clocks (chrony, ntpd): logs and leases use them")
        ]
    return [Finding("ok", "clocks", f"equal within {1e3 * (max(least) + spread):.2f} ms")]


def _allreduces(evidence: Evidence) -> list[Finding]:
    size = evidence.launch.size
    found = []
    for by in dict.fromkeys(entry["by"] for entry in evidence.allreduces):
        entries = [entry for entry in evidence.allreduces if entry["by"] == by]
        text = ", ".join(f"{entry['bytes']:,} bytes in {1e3 * entry['seconds']:.3f} ms" for entry in entries)
        wrong = sorted({rank for entry in entries for rank in entry["wrong"]})
        # Each rank of a ring sends 2 (W - 1) / W of the vector.
        speed = entries[-1]["bytes"] * 2 * (size - 1) / size / entries[-1]["seconds"]
        complete = entries[-1]["bytes"] > 2**20
        text += f"; {speed / 1e6:,.0f} MB/s" if complete else ""
        name = f"allreduce by {by}"
        if wrong:
            remedy = f"the sums are wrong on rank(s) {', '.join(map(str, wrong))}: install the same MPI on all hosts"
            found.append(Finding("fault", name, text, remedy))
        elif entries[0]["seconds"] > _LATENCY_SECONDS:
            remedy = "every learner step waits for one: use MPI on CPUs, one core per rank, and the fastest network"
            found.append(Finding("warning", name, text, remedy))
        elif complete and speed < _BYTES_PER_SECOND:
            remedy = "choose the fast network: OMPI_MCA_btl_tcp_if_include, or horovodrun --network-interfaces"
            found.append(Finding("warning", name, text, remedy))
        else:
            found.append(Finding("ok", name, f"{text}; the sums are right on all ranks"))
    return found


def _variables(ranks: list[dict[str, Any]]) -> list[Finding]:
    variables = " ".join(f"{name}={value}" for name, value in ranks[0]["variables"].items())
    return [Finding("ok", "variables", variables)] if variables else []


def _end(evidence: Evidence) -> list[Finding]:
    """Returns what ended the examination early, if anything did."""
    reason = evidence.problem or evidence.ended
    if not reason:
        return []
    remedy = "see the lines of other ranks; are all hosts reachable, and was the same command started on each?"
    if evidence.launch.size == 1:
        remedy = "repair the installation: make setup"
    return [Finding("fault", evidence.doing, reason, remedy)]
