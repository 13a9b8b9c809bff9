"""Builds the CPU kernel. Everything else stands in pyproject.toml; without a C++ compiler stochnorm works, slower."""

import sys

from setuptools import Extension, setup

kernel = Extension(  # a plain shared library, which stochnorm/nn/kernel.py loads by ctypes
    "stochnorm.nn._kernel",
    ["src/stochnorm/nn/kernel.cpp"],
    language="c++",
    extra_compile_args=["-O3", "-g0", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"],
    extra_link_args=["-fopenmp"],
    optional=True,
)
setup(ext_modules=[kernel] if sys.platform == "linux" else [])  # elsewhere OpenMP would come as a second runtime
