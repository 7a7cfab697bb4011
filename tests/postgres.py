"""A PostgreSQL server of one's own, for as long as a test needs it."""

from __future__ import annotations

import getpass
import glob
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "s3cret/of@tests"


def _program(name):
    places = [shutil.which(name), *sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))]
    found = [place for place in places if place and os.access(place, os.X_OK)]
    if not found:
        pytest.skip(f"needs PostgreSQL's {name}")
    return os.path.realpath(found[0])


def _other_user():
    """PostgreSQL does not run as root."""
    if os.name != "posix" or os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.skip("needs a user other than root for PostgreSQL")


@contextmanager
def server():
    """Yield the folder of a server's socket; its superuser "tester" has a password."""
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("psycopg")
    initdb, postgres, user = _program("initdb"), _program("postgres"), _other_user()
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:  # short: paths of sockets are
        data, password = Path(folder) / "data", Path(folder) / "password"
        password.write_text(PASSWORD + "\n")
        for path in (Path(folder), password):
            if user:
                os.chown(path, user["user"], user["group"])
        options = {"cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, **user}
        command = [initdb, "-D", data, "-U", "tester", "-E", "UTF8", "-A", "scram-sha-256"]
        subprocess.run(
            [*command, f"--pwfile={password}", "--no-sync"],
            check=True,
            capture_output=True,
            **options,
        )
        process = subprocess.Popen(
            [postgres, "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **options,
        )
        try:
            _wait_for(folder, process)
            yield folder
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_for(folder, process):
    import psycopg

    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended with {process.returncode}")
        try:
            psycopg.connect(
                host=folder, user="tester", password=PASSWORD, dbname="postgres"
            ).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"PostgreSQL does not answer to {getpass.getuser()}")
