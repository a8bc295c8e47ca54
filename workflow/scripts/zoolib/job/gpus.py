"""The GPUs of a job: a check, before anything long starts, that TensorFlow can use what SLURM granted."""

import contextlib
import importlib.metadata
import os
import socket

from zoolib.job.attempts import Unfinished
from zoolib.job.logs import UserError, log

CUDNN = "nvidia-cudnn-cu12"
# From this version on, cuDNN runs on Turing and later GPUs only, and not on a V100, whose capability is 7.0.
# https://github.com/pytorch/pytorch/issues/172352
CUDNN_WITHOUT_VOLTA = (9, 11)
TURING = (7, 5)


def granted_gpus():
    """The GPUs that SLURM granted this job.

    Returns:
        Their numbers on the node, such as "0,1"; empty outside SLURM and in a job without a GPU.
    """
    # Snakemake's executor hides the job's variables from its steps; each step has its own.
    return os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or ""


def check_gpus():
    """Stop a job whose GPU TensorFlow cannot use; otherwise let TensorFlow take GPU memory as it needs it.

    Without this check a V100 would be idle for days while its job trains on CPUs. Only a job to which SLURM
    granted a GPU is stopped. `ZOO_FAKE_GPU=1` turns the check off, for tests on a SLURM with simulated GPUs;
    the log says so.

    Raises:
        UserError: SLURM granted a GPU, and this environment can use no GPU, or not this one.
        Unfinished: the environment can use GPUs, but TensorFlow sees none on this node; retry on another.
    """
    granted = granted_gpus()
    if granted and os.environ.get("ZOO_FAKE_GPU") == "1":
        log.warning("ZOO_FAKE_GPU=1: whether TensorFlow can use GPU %s is not checked", granted)
        return
    # Imported here, because `granted_gpus` needs no TensorFlow.
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    place = f"SLURM granted this job GPU {granted} on {socket.gethostname()}"
    if granted and not found and _cudnn():
        raise Unfinished(
            f"{place}, but TensorFlow {tf.__version__} sees none, although its environment is made for GPUs;"
            " if other nodes do the same, ask for NVIDIA's driver (525 or newer), see docs/cluster.md."
        )
    if granted and not found:
        raise UserError(
            f"{place}, but TensorFlow {tf.__version__} sees none; expected the environment of"
            " envs/gpu.lock.txt: run `make env-gpu` on the login node and start again, see docs/cluster.md."
        )
    for gpu in found:
        details = tf.config.experimental.get_device_details(gpu)
        if granted:
            _check_capability(details, place)
            log.info("GPU: %s", details.get("device_name", gpu.name))
        # In a notebook TensorFlow may have started already, with all memory.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)


def _cudnn():
    """The version of the installed cuDNN; None where there is none."""
    try:
        return importlib.metadata.version(CUDNN)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_capability(details, place):
    """Stop where the installed cuDNN no longer runs on a GPU."""
    cudnn = _cudnn()
    if not cudnn:
        # The cluster's own cuDNN: its version is not known before it is used.
        return
    capability = details.get("compute_capability", TURING)
    if tuple(int(part) for part in cudnn.split(".")[:2]) >= CUDNN_WITHOUT_VOLTA and capability < TURING:
        raise UserError(
            f"{place}, a {details.get('device_name', 'GPU')} of compute capability"
            f" {'.'.join(map(str, capability))}, which cuDNN {cudnn} does not support; expected cuDNN below"
            f" {'.'.join(map(str, CUDNN_WITHOUT_VOLTA))}, as in envs/gpu.lock.txt: run `make env-gpu` on the"
            " login node and start again, see docs/cluster.md."
        )
