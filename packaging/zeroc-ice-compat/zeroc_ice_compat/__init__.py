"""A setuptools plugin that lets zeroc-ice 3.6.5 be built for today's Pythons and compilers.

Two headers and one changed import answer for what CPython dropped since it was published. The
sources are compiled on all cores.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Distribution
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HEADERS = Path(__file__).parent / "include"


def finalize(distribution: Distribution) -> None:
    """Take the place of two commands where zeroc-ice is built; setuptools calls it."""
    if distribution.get_name() == "zeroc-ice" and os.name == "posix":
        distribution.cmdclass |= {"build_py": BuildModules, "build_ext": BuildExtension}


class BuildModules(build_py):
    """``build_py`` without the module ``imp``, which Python 3.12 dropped."""

    def run(self) -> None:
        """Copy the modules, then mend the one that imports it."""
        super().run()
        path = Path(self.build_lib, "Ice.py")
        text = path.read_text(encoding="utf-8")
        text = text.replace("import sys, string, imp,", "import sys, string, types,")
        path.write_text(text.replace("imp.new_module(", "types.ModuleType("), encoding="utf-8")


class BuildExtension(build_ext):
    """``build_ext`` with the headers, an older C++ and a process a core."""

    def build_extensions(self) -> None:
        """Compile and link IcePy."""
        compile_some = self.compiler.compile

        def compile_one(source: str, options: dict[str, Any]) -> list[str]:
            flags = [*options.pop("extra_postargs", ()), f"-I{HEADERS}", "-g0", "-O1"]
            flags += ["-include", str(HEADERS / "zeroc_ice_compat.h")]
            if source.endswith(".cpp"):
                flags.append("-std=gnu++14")  # 17 knows no throw(X) and no auto_ptr
            objects: list[str] = compile_some([source], extra_postargs=flags, **options)
            return objects

        def compile_all(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                parts = pool.map(lambda source: compile_one(source, dict(options)), sources)
                return [name for part in parts for name in part]

        self.compiler.compile = compile_all
        super().build_extensions()
