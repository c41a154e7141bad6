"""The extensions and how they are compiled; everything else is in pyproject.toml.

Switches, from the environment: FASTPROD_DEBUG=1 (assertions, bounds checks,
symbols), FASTPROD_SANITIZE=1 (ASan and UBSan) or =thread (TSan),
FASTPROD_COVERAGE=1 (gcov), FASTPROD_JOBS (compilers at a time), FASTPROD_TESTS=1
(the extension that tests reach the core by, which a development checkout always has).
"""

import os
import sys
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("FASTPROD_DEBUG") == "1"
SANITIZE = {"1": "address,undefined", "thread": "thread"}.get(os.environ.get("FASTPROD_SANITIZE", ""))
JOBS = int(os.environ.get("FASTPROD_JOBS", "0"))
COVERAGE = os.environ.get("FASTPROD_COVERAGE") == "1"

compile_args = ["-std=c11", "-D_GNU_SOURCE", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
link_args = []
if DEBUG or SANITIZE:
    compile_args += ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"]
else:
    compile_args += ["-O3", "-g0"]
if SANITIZE:
    compile_args += [f"-fsanitize={SANITIZE}"]
    link_args += [f"-fsanitize={SANITIZE}"]
if COVERAGE:
    compile_args += ["--coverage"]
    link_args += ["--coverage"]

# State must exist once, so each .c file is linked into exactly one extension.
C_SOURCES = {"fastprod.librdkafka.functions": ["csrc/librdkafka.c"]}

SOURCES = {
    path.removeprefix("src/").removesuffix(".pyx").replace(os.sep, "."): path
    for path in sorted(glob("src/fastprod/**/*.pyx", recursive=True))
}
if os.environ.get("FASTPROD_TESTS") == "1" or not {"--inplace", "editable_wheel"}.isdisjoint(sys.argv):
    SOURCES["fastprod_core_access"] = "tests/core_access.pyx"

extensions = [
    Extension(
        name,
        [path, *C_SOURCES.get(name, [])],
        include_dirs=["csrc"],
        depends=glob("csrc/*.h"),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for name, path in SOURCES.items()
]

setup(
    ext_modules=cythonize(
        extensions,
        include_path=["src"],
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "auto_pickle": False,
            "embedsignature": True,
            "embedsignature.format": "python",
        },
        nthreads=JOBS,
    ),
    options={"build_ext": {"parallel": JOBS or None}},
)
