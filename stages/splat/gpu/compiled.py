"""CUDA C++ compiled for the GPU at hand when it is first used, in a second and without nvcc.

Torch brings NVIDIA's run-time compiler (NVRTC) and its driver's interface, so that neither a
toolkit nor a compiler of the host is needed.
"""

from ctypes import c_float, c_int, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_FOLDER = Path(__file__).parent  # its files count among the code of stages


class CompileError(RuntimeError):
    """A kernel could not be built or loaded."""


class Kernels:
    """The kernels of one source file, by name."""

    def __init__(self, source: str, defines: tuple[tuple[str, int], ...], *, fast: bool = False):
        """Compile for the current GPU.

        Args:
            source: file in stages/splat/gpu.
            defines: macros.
            fast: approximate division, roots, exponentials and logarithms.

        Raises:
            CompileError: when the driver or the compiler refuses.
        """
        from cuda.bindings import driver  # which torch for a CPU comes without

        torch.cuda.current_stream().synchronize()  # makes torch's context the current one
        self._driver = driver
        image = _compiled(source, defines, fast, torch.cuda.get_device_capability())
        self._module = _checked(driver.cuModuleLoadData(image))
        self._functions: dict[str, object] = {}

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        threads: int,
        *arguments: Tensor | int | float | None,
    ) -> None:
        """Start a kernel on torch's current stream.

        Args:
            name: of the kernel.
            grid: blocks along x, y and z; those left out are 1.
            threads: of a block.
            arguments: tensors (contiguous) as pointers, None as a null pointer, numbers as int or
                float of 32 bits.
        """
        if name not in self._functions:
            found = self._driver.cuModuleGetFunction(self._module, name.encode())
            self._functions[name] = _checked(found)
        values, kinds = zip(*map(_argument, arguments), strict=True)
        _checked(
            self._driver.cuLaunchKernel(
                self._functions[name],
                *(*grid, 1, 1)[:3],
                threads,
                1,
                1,
                0,
                torch.cuda.current_stream().cuda_stream,
                (values, kinds),
                0,
            )
        )


def kernels(source: str, *, fast: bool = False, **defines: int) -> Kernels:
    """The kernels of a file for these macros, compiled once per process and GPU."""
    return _kept(source, tuple(sorted(defines.items())), fast, torch.cuda.current_device())


@cache
def failure() -> str | None:
    """Why kernels cannot be built on this machine; None where they can."""
    try:
        kernels("photometric.cu")
    except (CompileError, ImportError, OSError, RuntimeError) as error:
        return str(error)
    return None


@cache
def _kept(source: str, defines: tuple[tuple[str, int], ...], fast: bool, device: int) -> Kernels:
    return Kernels(source, defines, fast=fast)


def _argument(value: Tensor | int | float | None) -> tuple[int | float, type]:
    if value is None:
        return 0, c_void_p
    if isinstance(value, Tensor):
        assert value.is_contiguous(), "kernels read contiguous tensors"
        return value.data_ptr(), c_void_p
    return value, c_float if isinstance(value, float) else c_int


def _compiled(
    source: str, defines: tuple[tuple[str, int], ...], fast: bool, capability: tuple[int, int]
) -> bytes:
    """Machine code for GPUs of one compute capability."""
    from cuda.bindings import nvrtc

    major, minor = capability
    text = (_FOLDER / source).read_text(encoding="utf-8")
    options = [f"--gpu-architecture=sm_{major}{minor}", "--std=c++17"]
    options += ["--use_fast_math"] * fast + [f"-D{name}={value}" for name, value in defines]
    program = _checked(nvrtc.nvrtcCreateProgram(text.encode(), source.encode(), 0, [], []))
    result = nvrtc.nvrtcCompileProgram(program, len(options), [one.encode() for one in options])
    if result[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        told = log.decode(errors="replace").strip(" \0\n")
        raise CompileError(f"{source}: {told}")
    image = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, image))
    nvrtc.nvrtcDestroyProgram(program)
    return image


def _checked(result: tuple) -> object:
    """What a call returned beside its status; CompileError where that is a failure."""
    status, *values = result
    if int(status) != 0:
        raise CompileError(f"CUDA answers {status.name}")
    return values[0] if values else None
