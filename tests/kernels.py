"""A kernel as it is compiled, and as the plain Python that it was written in."""

from __future__ import annotations

HOW = ("jit", "python")


def as_compiled(kernel):
    """The kernel itself, which numba compiles when it is called."""
    return kernel


def as_python(kernel):
    """The function under the kernel: what coverage sees and a debugger can step through."""
    return kernel.py_func
