from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from hypothesis import settings

from tests.size import sized

# A deadline per example measures the machine, not the code; pytest-timeout still bounds the whole test.
settings.register_profile("shadowcat", deadline=None)
settings.load_profile("shadowcat")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and getattr(item.module, "sized", None) is sized:
            item.add_marker(pytest.mark.soak)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Async tests run on the loop that users run on.

    Session scope lets an async fixture have any scope; a test that uses none wider than itself still gets a
    loop of its own.
    """
    return "asyncio", {"use_uvloop": sys.platform != "win32"}


@pytest.fixture(scope="session", autouse=True)
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What programs under test leave behind by default goes where the test's other things go."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
