"""Which GPUs there are for a process, and how torch takes their memory.

CUDA_VISIBLE_DEVICES is read and set here alone.
"""

import ctypes
import os
from collections.abc import Sequence

from stages.run.errors import UserError

_VARIABLE = "CUDA_VISIBLE_DEVICES"
# What old versions of SLURM name in jobs without a GPU.
_NONE = "NoDevFiles"


def named_gpus() -> list[str] | None:
    """Indices or UUIDs that CUDA_VISIBLE_DEVICES names; None where it is not set."""
    value = os.environ.get(_VARIABLE)
    if value is None:
        return None
    return [name.strip() for name in value.split(",") if name.strip() not in ("", "-1")]


def management_library() -> ctypes.CDLL | None:
    """NVIDIA's NVML, to be ended by its nvmlShutdown; None where there is no driver."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return nvml if nvml.nvmlInit_v2() == 0 else None


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES names, or else the indices of all GPUs; CUDA stays untouched.

    A container may be given device files that are not numbered from 0, as CUDA's indices are.
    """
    named = named_gpus()
    nvml = management_library() if named is None else None
    if nvml is None:
        return named or []
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    nvml.nvmlShutdown()
    return [str(index) for index in range(count.value)]


def gpu_environment(gpus: Sequence[str]) -> dict[str, str]:
    """The variable of a process that may use these GPUs."""
    return {_VARIABLE: ",".join(gpus)}


def use_gpus(gpus: Sequence[str]) -> None:
    """Restrict this process to these GPUs; CUDA reads it at its first use."""
    os.environ.update(gpu_environment(gpus))


def allow_expandable_segments() -> None:
    """Let torch extend pieces of a GPU's memory in place, unless the user has told it how to.

    Gaussians grow in number, and outgrown pieces would stay reserved. Torch reads it at the first
    use of a GPU's memory.
    """
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the name before torch 2.9
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def has_driver() -> bool:
    """Whether NVIDIA's driver can be loaded, without which torch sees no GPU; takes no time."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def expect_gpu(key: str) -> None:
    """Refuse to work on the CPU in a SLURM job that was given a GPU.

    Called where `key` of params.yaml is auto and no GPU is found. Reads the environment alone.
    Raises UserError in a job with GPUs, unless CUDA_VISIBLE_DEVICES leaves it none of them.
    """
    given = _job_gpus()
    if given:
        raise UserError(
            key,
            f"auto, and this job was given a GPU ({given}), but torch sees none",
            expected="a GPU that torch can use: `nvidia-smi` and `python -m stages.doctor` on "
            f"node {os.environ.get('SLURMD_NODENAME', 'of the job')}",
            fix=f"exclude the node or mend its driver; to work on the CPU set {key}: cpu, or send "
            "the job with `--gres=none`",
        )


def _job_gpus() -> str:
    """The GPUs that SLURM gave to this job, as it names them; empty for none."""
    visible = os.environ.get(_VARIABLE)
    if "SLURM_JOB_ID" not in os.environ or named_gpus() == [] or visible == _NONE:
        return ""
    count = os.environ.get("SLURM_GPUS_ON_NODE", "")
    if count not in ("", "0"):
        return f"SLURM_GPUS_ON_NODE={count}"
    for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", _VARIABLE):
        if os.environ.get(name):
            return f"{name}={os.environ[name]}"
    return ""
