"""Files are replaced whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from fmknn._files import replacing


def test_replaces_at_the_end_only(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_leaves_the_old_file_and_nothing_beside(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_stays_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not an ordinary file"), replacing(path):
        pass
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_private_file_stays_private_and_a_new_one_obeys_the_umask(tmp_path):
    private, new = tmp_path / "private", tmp_path / "new"
    private.touch(mode=0o600)
    old = os.umask(0o027)
    try:
        for path in (private, new):
            with replacing(path) as file:
                file.write(b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
