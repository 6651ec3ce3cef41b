from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.e2e.stage import Stage, staged


@pytest.fixture(scope="package")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("stage")) as stage:
        yield stage
