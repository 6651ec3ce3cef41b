from __future__ import annotations

import stat
from pathlib import Path

from shadowcat.stores.sole_user import sole_user


def test_a_second_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "state" / "sessions.db"
    with sole_user(path) as first:
        with sole_user(path) as second, sole_user(tmp_path / "another.db") as another:
            assert (first, second, another) == (True, False, True)
        with sole_user(path) as third:
            assert not third
    with sole_user(path) as next_one:
        assert next_one
    assert not path.exists()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_where_nothing_can_be_written_nobody_is_known(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with sole_user(tmp_path / "file" / "sessions.db") as alone:
        assert alone
