"""The CUDA C++ kernels where there is no GPU: compiled by g++, with cuda_on_host.h."""

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from kernel_device import DEVICE
from torch import Tensor

from stages.splat.gpu import compiled, own, photometric

_HERE = Path(__file__).parent
_KERNELS = Path(compiled.__file__).parent


@contextmanager
def available(folder: Path) -> Iterator[None]:
    """A block in which kernels run: on the GPU, or from libraries built in a folder."""
    if DEVICE == "cuda":
        yield
        return
    if shutil.which("g++") is None:
        pytest.skip("g++ is missing")

    @cache
    def kernels(source: str, *, fast: bool = False, **defines: int) -> HostKernels:
        return HostKernels(source, defines, folder)

    with pytest.MonkeyPatch.context() as patch:
        for module in (own, photometric):
            patch.setattr(module, "kernels", kernels)
        yield


class HostKernels:
    """`compiled.Kernels` on a processor."""

    def __init__(self, source: str, defines: dict[str, int], folder: Path):
        names = re.findall(r"__launch_bounds__\(.*\) (\w+)\(", (_KERNELS / source).read_text())
        table = "".join(f'if (!strcmp(name, "{one}")) start({one}, arguments);' for one in names)
        stem = "_".join([Path(source).stem, *(f"{k}{v}" for k, v in sorted(defines.items()))])
        code, library = folder / f"{stem}.cpp", folder / f"{stem}.so"
        code.write_text(
            f'#include "cuda_on_host.h"\n#include "{_KERNELS / source}"\n'
            'extern "C" void launch(const char* name, int x, int y, int z, int threads,\n'
            "                       void** arguments) {\n"
            "    const auto start = [=](auto kernel, void** values) {\n"
            "        host::launch_with(kernel, values, {unsigned(x), unsigned(y), unsigned(z)},\n"
            "                          {unsigned(threads), 1, 1});\n"
            f"    }};\n    {table}\n}}\n"
        )
        command = ["g++", "-std=c++20", "-O2", "-shared", "-fPIC", f"-I{_HERE}"]
        command += [f"-D{name}={value}" for name, value in defines.items()]
        subprocess.run([*command, "-o", str(library), str(code)], check=True)
        self._library = ctypes.CDLL(str(library))

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        threads: int,
        *arguments: Tensor | int | float | None,
    ) -> None:
        """Run a kernel to its end."""
        values = []
        for argument in arguments:
            number, kind = compiled._argument(argument)
            values.append(kind(number))
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(one) for one in values))
        self._library.launch(name.encode(), *(*grid, 1, 1)[:3], threads, pointers)
