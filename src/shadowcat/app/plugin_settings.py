"""Which plugins to use, with which options. Apart from the loader, so that commands without any start fast."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from shadowcat.secret import Secret


class PluginSettings(Struct, frozen=True, kw_only=True):
    use: Annotated[
        str,
        Meta(
            description="`redact`, `rules`, or one of your own: `file.py`, `file.py:Class` or `module:Class`."
        ),
    ]
    options: Annotated[dict[str, Any], Meta(description="The plugin's own options.")] = {}

    def shown(self) -> dict[str, Any]:
        """What they are for is known to the plugin alone, so any of them may be secret."""
        return {"options": {name: Secret("") for name in self.options}}


PluginTable = Annotated[
    dict[str, PluginSettings],
    Meta(description="Interceptors by name, in the order that messages pass them, after the rules."),
]
