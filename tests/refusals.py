"""What an error must look like: the right type, one line, the culprit named."""

from __future__ import annotations

import re

import pytest


def refused(error, *words):
    """Expect an error of that type whose message is a single line and holds all the words."""
    holds = "".join(f"(?=.*{re.escape(str(word))})" for word in words)
    return pytest.raises(error, match=rf"\A(?!.*\n)(?s:{holds})")
