"""The processors of a job: what TensorFlow may use, and whether it can use the GPU that SLURM granted."""

import contextlib
import gc
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

from zoolib.job.attempts import Unfinished
from zoolib.job.logs import UserError, log

CUDNN = "nvidia-cudnn-cu12"
# From this version on, cuDNN runs on Turing and later GPUs only, and not on a V100, whose capability is 7.0.
# https://github.com/pytorch/pytorch/issues/172352
CUDNN_WITHOUT_VOLTA = (9, 11)
TURING = (7, 5)
# TensorFlow and Keras import them for converters, pictures and wrappers, which no job uses.
NOT_FOR_JOBS = ("jax", "matplotlib", "sklearn")


def granted_gpus():
    """The GPUs that SLURM granted this job.

    Returns:
        Their numbers on the node, such as "0,1"; empty outside SLURM and in a job without a GPU.
    """
    # Snakemake's executor hides the job's variables from its steps; each step has its own.
    return os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or ""


def count_gpus():
    """Count the NVIDIA GPUs of this machine that its jobs would use.

    Returns:
        A number; 0 without NVIDIA's driver, and in an environment whose TensorFlow is for CPUs alone.
        `CUDA_VISIBLE_DEVICES` can leave some or all of them out, as for every program.
    """
    command = shutil.which("nvidia-smi")
    if not command or not _installed("tensorflow"):
        return 0
    try:
        done = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    # Below a divided GPU there is an indented line for each of its parts.
    found = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    # CUDA reads the list up to the first entry that is no GPU.
    names = map(str.strip, visible.split(","))
    return min(found, len(list(takewhile(lambda name: name not in ("", "-1"), names))))


def load_tensorflow():
    """Import TensorFlow and Keras in two thirds of the usual time, which is 8 s on a slow processor.

    Python's garbage collector is off meanwhile, and skips later what is loaded, which all stays. Three
    packages that TensorFlow and Keras import where they find them are hidden; the job itself can import them
    afterwards. Only for jobs: a user of `zoolib.api` may want all of Keras.

    Returns:
        The module `tensorflow`.
    """
    hidden = [name for name in NOT_FOR_JOBS if name not in sys.modules]
    collecting = gc.isenabled()
    # For Python, a module that is None cannot be found.
    sys.modules.update(dict.fromkeys(hidden))
    gc.disable()
    try:
        import tensorflow as tf
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        if collecting:
            gc.enable()
    return tf


def use_threads(count):
    """Let TensorFlow compute with some threads; by itself it takes one for each CPU of the machine.

    A job calls it before it imports what needs TensorFlow.

    Args:
        count: threads for the parts of one operation, and as many for operations side by side.

    Raises:
        RuntimeError: TensorFlow has computed something already.
    """
    tf = load_tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def mixed_policy():
    """The arithmetic of mixed precision that is fast on this machine.

    Returns:
        Name of a Keras policy: mixed_float16 on a GPU, mixed_bfloat16 on a processor with such instructions,
        and float32 on any other, where bfloat16 takes nine times as long. Variables are float32 in all.
    """
    # Imported here, because `count_gpus` needs no TensorFlow.
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return "mixed_float16"
    if multiplies_bfloat16():
        return "mixed_bfloat16"
    log.info("No mixed precision: this processor has no bfloat16 instructions, and float32 is faster on it")
    return "float32"


def multiplies_bfloat16(path="/proc/cpuinfo"):
    """Whether this machine's processor has instructions for bfloat16 (AVX-512 BF16 or AMX).

    Args:
        path: what Linux says of the processors.

    Returns:
        bool; False on other systems.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return bool({"avx512_bf16", "amx_bf16"} & set(flags))


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
    if granted and not found and _installed(CUDNN):
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


def _installed(name):
    """The version of an installed distribution; None where there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_capability(details, place):
    """Stop where the installed cuDNN no longer runs on a GPU."""
    cudnn = _installed(CUDNN)
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
