"""Builds the native module where it can be built; the package works without it. Everything else is in pyproject.toml."""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

# Without the interpreter's lock there is no limited API yet, and the module is built for one version.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")
SOURCES = "pinecone_embed_async/_wire/native"

NATIVE = Extension(
    "pinecone_embed_async._wire._native",
    sources=[f"{SOURCES}/module.c", f"{SOURCES}/numbers.c", f"{SOURCES}/rows.c"],
    depends=[f"{SOURCES}/numbers.h", f"{SOURCES}/rows.h"],
    extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED else [],
    py_limited_api=LIMITED,
    optional=True,
)

IS_MADE_FOR = os.name == "posix" and sys.maxsize > 2**32 and sys.byteorder == "little"

# Beside the package it would be taken for an installed distribution by whatever runs in this folder, pytest among them.
METADATA = Path("build")
METADATA.mkdir(exist_ok=True)

setup(
    ext_modules=[NATIVE] if IS_MADE_FOR else [],
    options={
        "egg_info": {"egg_base": str(METADATA)},
        "bdist_wheel": {"py_limited_api": "cp311" if IS_MADE_FOR and LIMITED else ""},
    },
)
