"""Each rank has a GPU of its own, or is refused; TensorFlow's GPUs are made up, as the machine may have none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tensorflow as tf

from hvd_dqn.distributed.devices import own_gpu, pin, visible_gpus
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.errors import UserError


def launch(local_rank: int, local_size: int) -> Launch:
    """Returns how a rank of the second host of two was started."""
    return Launch(local_size + local_rank, 2 * local_size, local_rank, local_size, under_launcher=True)


@pytest.mark.parametrize(
    ("device", "num_gpus", "local_rank", "local_size", "own"),
    [
        ("auto", 0, 1, 2, None),
        ("auto", 1, 0, 1, 0),
        ("auto", 4, 0, 4, 0),
        ("auto", 4, 3, 4, 3),
        ("auto", 8, 1, 2, 1),
        ("cpu", 0, 0, 1, None),
        ("cpu", 4, 3, 8, None),
        ("visible-gpu", 1, 3, 4, 0),
    ],
)
def test_a_rank_takes_the_gpu_of_its_number_on_its_host(
    device: str, num_gpus: int, local_rank: int, local_size: int, own: int | None
) -> None:
    assert own_gpu(device, num_gpus, launch(local_rank, local_size)) == own


@pytest.mark.parametrize("local_rank", [0, 3])
def test_fewer_gpus_than_ranks_on_a_host_are_refused_on_every_rank_of_it(local_rank: int) -> None:
    with pytest.raises(UserError, match=r"4 ranks on this host and 2 GPU\(s\) .* start at most 2 here"):
        own_gpu("auto", 2, launch(local_rank, 4))


def test_a_gpu_that_is_asked_for_and_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="--device visible-gpu, and TensorFlow sees no GPU"):
        own_gpu("visible-gpu", 0, launch(0, 1))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Returns what TensorFlow is told of two GPUs that it believes to see."""
    calls: list[tuple] = []
    gpus = [SimpleNamespace(name=f"/physical_device:GPU:{k}") for k in range(2)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda gpu, kind: calls.append(("visible", gpu, kind)))
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, grows: calls.append(("grows", gpu, grows))
    )
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": f"NVIDIA {gpu.name}"})
    return calls


def test_tensorflow_sees_the_own_gpu_alone_and_takes_its_memory_bit_by_bit(told: list[tuple]) -> None:
    gpus = visible_gpus("auto")
    assert pin(gpus[1]) == "NVIDIA /physical_device:GPU:1"
    assert told == [("visible", gpus[1], "GPU"), ("grows", gpus[1], True)]


def test_gpus_are_hidden_where_the_cpu_is_asked_for(told: list[tuple]) -> None:
    assert visible_gpus("cpu") == []
    assert told == [("visible", [], "GPU")]
