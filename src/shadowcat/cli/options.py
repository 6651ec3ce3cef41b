"""The flags of settings: what each is called on the command line. Everything else stands with the setting."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import click
from click.exceptions import NoSuchOption

from shadowcat.cli.said import say
from shadowcat.errors import CannotAdminister, CannotRecord, CannotTrace, PluginError, StoreUnusable

if TYPE_CHECKING:
    from msgspec import Struct

    from shadowcat.config.load import Flag

T = TypeVar("T")
Tree: TypeAlias = "Callable[[], type[Struct]]"

_MEANT = {"--port": "--listen", "--host": "--listen", "--bind": "--listen", "--url": "--upstream"}
"""What other programs call it, where it reads like nothing that there is."""
_UNITS = {"_s": "SECONDS", "_ms": "MILLISECONDS", "_bytes": "BYTES", "_file": "FILE"}


class FlagOf(NamedTuple):
    """A flag, and the path of the setting that it is for."""

    name: str
    path: str
    metavar: str | None = None
    help: str | None = None
    """In place of the setting's own description."""
    made: Callable[[Any], Any] | None = None
    """What comes of what was written."""
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        return self.name.strip("-").replace("-", "_")


def _upstreams(written: Sequence[str]) -> dict[str, dict[str, str]]:
    from shadowcat.app.upstreams import named_url

    named = [named_url(text) for text in written]
    if len(dict(named)) != len(named):
        raise click.UsageError("two upstreams have one name; write --upstream NAME=URL with a name for each")
    return {name: {"url": url} for name, url in named}


UPSTREAM = FlagOf(
    "--upstream",
    "upstreams",
    "[NAME=]URL",
    "A server's MCP endpoint; if you give several, new sessions are spread over them.",
    _upstreams,
)
ALLOW_TARGET = FlagOf("--allow-target", "forward.allow_targets", "HOST[:PORT]")


def _plugins(written: Sequence[str]) -> dict[str, dict[str, str]]:
    return {use: {"use": use} for use in written}


INTERCEPTING = (
    FlagOf("--rules", "rules.file"),
    FlagOf(
        "--plugin",
        "plugins",
        "PLUGIN",
        "An interceptor: file.py, file.py:Class, module:Class or redact; several see messages in the order given.",
        _plugins,
    ),
)
LISTEN = FlagOf("--listen", "listen", "HOST:PORT")
LOG = (FlagOf("--log-level", "log.level"), FlagOf("--log-format", "log.format"))
RECORDING = (
    FlagOf("--record", "record.directory", "DIR"),
    FlagOf("--record-ring", "record.ring_s"),
    FlagOf("--record-slow", "record.slow_call_s"),
)
SERVING = (
    LISTEN,
    FlagOf("--path", "endpoint.path"),
    FlagOf("--sse-path", "endpoint.sse_path", "PATH"),
    FlagOf("--allow-origin", "endpoint.allow_origins", "ORIGIN"),
    FlagOf("--allow-host", "endpoint.allow_hosts", "HOST"),
    FlagOf("--max-sessions", "sessions.max_sessions", "NUMBER"),
    FlagOf("--max-sessions-per-client", "sessions.max_sessions_per_client", "NUMBER"),
    FlagOf("--session-idle", "sessions.idle_s"),
    FlagOf("--call-deadline", "sessions.call_s"),
    FlagOf("--max-body", "http.body_bytes"),
    FlagOf("--upgrade-after", "sessions.upgrade_after_s"),
    FlagOf("--admin", "admin.listen", "HOST:PORT|off"),
    FlagOf("--otel", "otel"),
    FlagOf("--tls-cert", "tls.cert_file"),
    FlagOf("--tls-key", "tls.key_file"),
    FlagOf("--upstream-ca", "upstream_tls.ca_file"),
    *INTERCEPTING,
    *RECORDING,
    *LOG,
)
"""Of every command that serves MCP clients over HTTP."""
STORING = (
    FlagOf("--store", "store", "URL"),
    FlagOf(
        "--durability",
        "durability.strict",
        help="async may send an event a few milliseconds before it is stored; strict stores it first.",
        made={"async": False, "strict": True}.__getitem__,
        choices=("async", "strict"),
    ),
    FlagOf("--advertise", "cluster.advertise", "URL"),
)


def _settings() -> type[Struct]:
    from shadowcat.app.settings import Settings

    return Settings


class SettingsCommand(click.Command):
    """Its callback gets `flags`: what was written of these. They are looked up when the command is, not before.

    The settings with all their parts take longer to load than the list of commands may take to show.
    """

    def __init__(
        self, *args: Any, flags: Sequence[FlagOf], tree: Tree, profile: str | None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._flags = flags
        self._profile = profile
        self._tree: Tree | None = tree

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if self._tree is not None:
            tree = self._tree()
            defaults = _profile(self._profile)
            self.params = [*(_option(flag, tree, defaults) for flag in self._flags), *self.params]
            self._tree = None
        return super().get_params(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[-1:] == ["--"]:
            # A variable was empty: without its command this would mean something else.
            raise click.UsageError("there is no command after --", ctx)
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            meant = _MEANT.get(error.option_name)
            if meant is None:
                raise
            told = f"No such option {error.option_name!r}. Did you mean {meant!r}?"
            raise click.UsageError(told, ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        ctx.params["flags"] = list(_written(self._flags, ctx.params))
        return super().invoke(ctx)


def with_flags(*flags: FlagOf, tree: Tree = _settings, profile: str | None = None) -> Any:
    """For `cls` of a command that is run from `tree`, with the defaults of `profile`."""
    return partial(SettingsCommand, flags=flags, tree=tree, profile=profile)


def _profile(name: str | None) -> Mapping[str, Any]:
    """Its defaults by path."""
    if name is None:
        return {}
    from shadowcat.app.settings import PROFILES
    from shadowcat.config.compare import flat

    return dict(flat(PROFILES[name]))


def _written(flags: Sequence[FlagOf], params: dict[str, Any]) -> Iterator[Flag]:
    from shadowcat.config.load import Flag

    for flag in flags:
        value = params.pop(flag.variable, None)
        if value is not None and value != ():
            yield Flag(flag.name, flag.path, value if flag.made is None else flag.made(value))


def _option(flag: FlagOf, tree: type[Struct], defaults: Mapping[str, Any]) -> click.Option:
    from shadowcat.config.fields import setting_at

    setting = setting_at(tree, flag.path)
    shape = setting.shape
    choices = flag.choices or shape.choices
    is_switch = shape.base is bool and not choices
    help = flag.help or shape.description
    if (shown := _default(flag, defaults.get(flag.path, setting.default))) is not None:
        help += f"  [default: {shown}]"
    return click.Option(
        [flag.name, flag.variable],
        # Values are looked at where those of a file are.
        type=click.Choice(choices) if choices else None if is_switch else click.STRING,
        is_flag=is_switch,
        default=None,
        multiple=shape.is_list or shape.is_table,
        metavar=flag.metavar or (None if choices or is_switch else _metavar(flag.path)),
        help=help,
    )


def _default(flag: FlagOf, value: Any) -> str | None:
    if flag.choices:
        return flag.choices[0]
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _metavar(path: str) -> str:
    return next(
        (unit for ending, unit in _UNITS.items() if path.endswith(ending)), path.rpartition(".")[2].upper()
    )


config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    envvar="SHADOWCAT_CONFIG",
    help="A TOML file with settings; environment variables and options override it.",
)


def settings_from(load: Callable[[], T]) -> T:
    """What is loaded, or the end with a line for each thing that is wrong."""
    from shadowcat.config.problem import ConfigError

    try:
        return load()
    except ConfigError as error:
        raise CannotStart("\nError: ".join(error.problems)) from error


def serve(profile: str, config: Path | None, flags: Iterable[Flag]) -> None:
    """Serves until told to stop."""
    from shadowcat.app import logs
    from shadowcat.app.inherited import inherited_sockets
    from shadowcat.app.loading import load_settings
    from shadowcat.app.process import run
    from shadowcat.app.reverse import serve_reverse

    inherited = settings_from(lambda: inherited_sockets(os.environ))
    flags = [*flags, *inherited.flags()]
    load = partial(load_settings, profile, file=config, environment=os.environ, flags=flags)
    loaded = settings_from(load)
    settings = loaded.settings
    if profile == "reverse" and not settings.upstreams:
        raise CannotStart("there is no server: give --upstream URL, or upstreams in the configuration")
    logs.set_up(settings.log)
    for warning in loaded.warnings:
        logs.log.warning("%s", warning)
    try:
        run(serve_reverse(settings, lambda line: say(logs.as_printed(settings.log, line)), load, inherited))
    except PluginError as error:
        raise CannotStart(str(error)) from error
    except StoreUnusable as error:
        raise CannotStart(f"the store cannot be used: {error}") from error
    except CannotTrace as error:
        raise CannotStart(f"requests cannot be traced: {error}") from error
    except CannotRecord as error:
        raise cannot_record(error) from error
    except OSError as error:
        raise cannot_listen(settings.listen, error) from error


class CannotStart(click.ClickException):
    """What was asked for can never work."""

    exit_code = 2


def cannot_record(error: CannotRecord) -> click.ClickException:
    return CannotStart(f"cannot record to {error}; name another directory with --record")


def cannot_listen(listen: str, error: OSError) -> click.ClickException:
    if isinstance(error, CannotAdminister):
        listen, flag = error.filename, "--admin"
    else:
        flag = "--listen"
    because = os.strerror(error.errno) if error.errno else str(error)
    return click.ClickException(f"cannot listen on {listen}: {because}; choose another with {flag}")
