"""Every command in the pages does what a reader will expect of it: it is run, as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import needs
from tests.docs.pages import PAGES, commands, name_of
from tests.docs.sandbox import Sandbox

# Pages that have a test of their own, which knows more of what stands there.
ELSEWHERE = {
    "docs/howto/change-messages.md": "tests/app/test_change_messages.py",
    "docs/howto/forward-proxy.md": "tests/cli/test_forward.py",
    "docs/howto/operate.md": "tests/admin/test_operate.py",
    "docs/howto/record-and-replay.md": "tests/cli/test_record_page.py",
    "docs/howto/look-at-sessions.md": "tests/cli/test_session.py",
    "docs/howto/production.md": "tests/docs/test_production.py",
    "docs/reference/configuration.md": "tests/cli/test_reference.py",
}

# What no test can run, by the first words: it would run the tests, take minutes, or needs what is not here.
NOT_RUN = (
    ("make", "test"),
    ("make", "check"),
    ("make", "bench"),
    ("make", "soak"),
    ("make", "conformance"),
    ("SHADOWCAT_TEST_ALL=1", "make"),
    ("SHADOWCAT_SOAK_S=3600", "make"),
    (".venv/bin/python", "-m", "bench.servers.mcp_upstream"),
    (".venv/bin/python", "-m", "bench.servers.shadowcat_relay"),
    ("wrk",),
    ("claude",),
    # They need a tape. tests/cli/test_record_page.py has one, and runs these lines as they stand on another page.
    (".venv/bin/shadowcat", "replay"),
)


def runnable(page: Path) -> list[list[str]]:
    return [words for words in commands(page) if not any(tuple(words[: len(no)]) == no for no in NOT_RUN)]


RUN_HERE = [page for page in PAGES if name_of(page) not in ELSEWHERE and runnable(page)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", RUN_HERE, ids=name_of)
async def test_the_commands_of_a_page_run_as_they_stand(page: Path, tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    try:
        for words in runnable(page):
            await sandbox.run(words)
    finally:
        await sandbox.close()


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_a_page_that_is_run_elsewhere_is(page: str, test: str) -> None:
    assert Path(page).name in (needs.ROOT / test).read_text()


def test_the_readme_is_run() -> None:
    assert {"README.md", "docs/quick-start.md"} <= {name_of(page) for page in RUN_HERE}
