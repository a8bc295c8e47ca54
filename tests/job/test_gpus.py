"""A job to which SLURM granted a GPU never runs on CPUs instead without an error.

The machine of the tests has no GPU, so TensorFlow really sees none; the V100, its capability and the version
of cuDNN are simulated.
"""

import importlib.metadata
import inspect

import pytest
import tensorflow as tf
from zoolib import finetune, predict, train
from zoolib.job import gpus
from zoolib.job.attempts import Unfinished
from zoolib.job.logs import UserError, log


@pytest.fixture
def granted(monkeypatch):
    """A job to which SLURM granted the first GPU."""
    monkeypatch.delenv("ZOO_FAKE_GPU", raising=False)
    monkeypatch.setenv("SLURM_STEP_GPUS", "0")


@pytest.fixture
def v100(granted, monkeypatch):
    """A simulated V100, its details, and which devices take memory as they need it."""
    device, growing = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU"), {}
    details = {"device_name": "Tesla V100-SXM2-16GB", "compute_capability": (7, 0)}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [device])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", growing.__setitem__)
    return {"device": device, "details": details, "growing": growing}


@pytest.mark.parametrize(
    ("flags", "policy"),
    [("fpu avx512_bf16", "mixed_bfloat16"), ("amx_bf16 amx_tile", "mixed_bfloat16"), ("fpu avx2", "float32")],
)
def test_mixed_precision_is_what_is_fast_on_a_processor(tmp_path, monkeypatch, flags, policy):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    # Other systems do not have this file.
    assert not gpus.multiplies_bfloat16(tmp_path / "nothing")
    has = gpus.multiplies_bfloat16(tmp_path / "cpuinfo")
    monkeypatch.setattr(gpus, "multiplies_bfloat16", lambda *path: has)
    assert gpus.mixed_policy() == policy


def test_mixed_precision_is_float16_on_a_gpu(v100):
    assert gpus.mixed_policy() == "mixed_float16"


@pytest.fixture
def machine(mock_nvidia_smi, installed_for_gpus, monkeypatch):
    """A machine on which a mock of nvidia-smi lists two GPUs, the first in parts, and TensorFlow for GPUs."""
    monkeypatch.setenv("PATH", str(mock_nvidia_smi))
    monkeypatch.syspath_prepend(installed_for_gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return mock_nvidia_smi / "nvidia-smi"


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 2), ("0", 1), ("1,0", 2), ("GPU-5f3e", 1), ("0,1,2", 2), ("", 0), ("-1", 0), ("1,-1,0", 1)],
)
def test_the_gpus_of_a_machine_are_counted(machine, monkeypatch, visible, count):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.count_gpus() == count


@pytest.mark.parametrize(
    "answer", ["exit 9", "echo 'NVIDIA-SMI has failed'; exit 9", "echo 'No devices found'"]
)
def test_a_driver_without_gpus_has_none(machine, answer):
    machine.write_text(f"#!/bin/sh\n{answer}\n")
    assert gpus.count_gpus() == 0


def test_a_machine_without_a_driver_has_none(machine, monkeypatch):
    machine.unlink()
    assert gpus.count_gpus() == 0


def test_tensorflow_for_cpus_uses_no_gpu(machine, monkeypatch):
    install_cudnn(monkeypatch, None)
    assert gpus.count_gpus() == 0


def test_tensorflow_gets_the_threads_of_the_job(monkeypatch):
    # Only recorded: TensorFlow of these tests has started, and then it refuses another number.
    given = {}
    for kind in ("intra", "inter"):
        monkeypatch.setattr(
            tf.config.threading,
            f"set_{kind}_op_parallelism_threads",
            lambda count, kind=kind: given.update({kind: count}),
        )
    gpus.use_threads(3)
    assert given == {"intra": 3, "inter": 3}


@pytest.mark.parametrize(
    "rule",
    [
        *("train_member", "finetune_task", "probe_task", "predict_chunk"),
        *("recalibrate_member", "recalibrate_ensemble"),
    ],
)
def test_each_job_of_tensorflow_says_its_threads_before_its_work(repo, rule):
    lines = [line.strip() for line in (repo / f"workflow/scripts/{rule}.py").read_text().splitlines()]
    assert "use_threads(snakemake.threads)" in lines[: lines.index(f"{rule}(")]


def install_cudnn(monkeypatch, version):
    """Pretend that a version of cuDNN is installed; None for none that pip knows."""

    def found(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        assert name == "nvidia-cudnn-cu12"
        return version

    monkeypatch.setattr(importlib.metadata, "version", found)


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="this machine has a GPU")
@pytest.mark.parametrize("stage", [train.train_member, predict.predict_chunk, finetune.finetune_task])
def test_each_stage_stops_before_it_reads_anything(granted, stage):
    arguments = dict.fromkeys(inspect.signature(stage).parameters)
    with pytest.raises(UserError, match="SLURM granted this job GPU 0 on .* sees none; .*make env-gpu"):
        stage(**arguments)


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="this machine has a GPU")
def test_a_node_without_a_driver_is_retried(granted, monkeypatch):
    install_cudnn(monkeypatch, "9.10.2.21")
    with pytest.raises(Unfinished, match="sees none, although its environment is made for GPUs"):
        gpus.check_gpus()


@pytest.mark.parametrize("variable", [None, "SLURM_JOB_ID"])
def test_without_a_granted_gpu_nothing_stops(monkeypatch, variable):
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "7")
    gpus.check_gpus()


def test_fake_gpus_are_not_checked_and_the_log_says_so(granted, monkeypatch, caplog):
    monkeypatch.setenv("ZOO_FAKE_GPU", "1")
    monkeypatch.setattr(log, "propagate", True)
    gpus.check_gpus()
    assert "ZOO_FAKE_GPU=1" in caplog.text


@pytest.mark.parametrize("version", ["9.11.0.98", "9.28.1.2", "10.0.0.1"])
def test_a_cudnn_without_volta_is_refused(v100, monkeypatch, version):
    install_cudnn(monkeypatch, version)
    message = rf"Tesla V100-SXM2-16GB of compute capability 7\.0, which cuDNN {version} does not support"
    with pytest.raises(UserError, match=message):
        gpus.check_gpus()


@pytest.mark.parametrize("version", ["9.10.2.21", "8.9.7.29", None])
def test_a_v100_is_used_and_its_memory_grows(v100, monkeypatch, version):
    install_cudnn(monkeypatch, version)
    gpus.check_gpus()
    assert v100["growing"] == {v100["device"]: True}


def test_a_newer_gpu_takes_any_cudnn(v100, monkeypatch):
    install_cudnn(monkeypatch, "9.28.1.2")
    v100["details"]["compute_capability"] = (7, 5)
    gpus.check_gpus()


def test_a_gpu_without_slurm_grows_its_memory_too(v100, monkeypatch):
    monkeypatch.delenv("SLURM_STEP_GPUS")
    install_cudnn(monkeypatch, "9.28.1.2")
    gpus.check_gpus()
    assert v100["growing"]


def test_tensorflow_that_has_started_is_left_alone(v100, monkeypatch):
    def started(device, enable):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    install_cudnn(monkeypatch, None)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", started)
    gpus.check_gpus()
