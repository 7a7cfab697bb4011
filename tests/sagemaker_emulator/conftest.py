"""No doctests here: pytest --doctest-modules would import this package without boto3 and moto."""

from __future__ import annotations

collect_ignore_glob = ["*.py"]
