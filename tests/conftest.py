"""Fixtures that several test files share."""

from __future__ import annotations

import hypothesis
import pytest

pytest.register_assert_rewrite("sagemaker_rig", "sagemaker_trial")

import kernels  # noqa: E402

# the first example of a law may compile a kernel: no example has a deadline
hypothesis.settings.register_profile("fmknn", deadline=None)
hypothesis.settings.load_profile("fmknn")


@pytest.fixture(params=kernels.HOW)
def impl(request):
    """``impl(kernel)`` is the kernel compiled, and in a second run the same as plain Python."""
    return kernels.as_compiled if request.param == "jit" else kernels.as_python
