"""Build the CPU kernels. All other settings are in pyproject.toml. Without a C++ compiler stochnorm is slower."""

import sys

from setuptools import Extension, setup


def kernel(name: str, *depends: str) -> Extension:
    """Return a plain shared library, which the module of the same name loads through `compiled.py`."""
    return Extension(
        f"stochnorm.nn.cpu._{name}",
        [f"src/stochnorm/nn/cpu/{name}.cpp"],
        depends=[f"src/stochnorm/nn/cpu/{file}" for file in ("compiled.h", *depends)],
        language="c++",
        extra_compile_args=["-O3", "-g0", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"],
        extra_link_args=["-fopenmp"],
        optional=True,
    )


headers = [f"kernel_{part}.h" for part in ("values", "rows", "blocks", "processors")]
kernels = [kernel("kernel", *headers), kernel("depthwise", "depthwise.inc")]
setup(ext_modules=kernels if sys.platform == "linux" else [])  # elsewhere OpenMP would come as a second runtime
