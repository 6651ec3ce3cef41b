"""What users of the library need for their own tests. Needs pytest, which the library itself does not."""

import pytest

# Has to come before the import: it lets a failing assert of the kit say what it compared.
pytest.register_assert_rewrite("shadowcat.testing.store")

from shadowcat.testing.store import StoreContract  # noqa: E402 - see above

__all__ = ["StoreContract"]
