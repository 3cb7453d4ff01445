"""`serve`: checks what is asked for, and runs the server."""

from __future__ import annotations

import ipaddress
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from stream_ml.cli.execution.metering import listen_address, metered
from stream_ml.cli.output import complain, flush, write_json_line, write_line
from stream_ml.client import open_log
from stream_ml.errors import UsageError
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.settings.settings import tokens_text
from stream_ml.web.listening import bind

if TYPE_CHECKING:
    import socket
    from argparse import Namespace
    from collections.abc import Iterable, Iterator

    from stream_ml.metrics.families import Figure
    from stream_ml.metrics.health import ProbeAnswer
    from stream_ml.shell.settings.listening import ListenAddress
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.web.access import Access
    from stream_ml.web.probes import ServiceProbes
    from stream_ml.web.service import Service

__all__ = ["run", "server_names"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Serve until asked to stop."""
    access = _access(arguments, settings)
    # First, for what answers there takes seconds to load.
    with bind(arguments.host, arguments.port) as listener:
        _run(arguments, settings, access, listener)


def _run(arguments: Namespace, settings: Settings, access: Access, listener: socket.socket) -> None:
    try:
        from stream_ml.web.app import create_app  # noqa: PLC0415 - an extra
        from stream_ml.web.gate import Limits  # noqa: PLC0415 - as above
        from stream_ml.web.server import serve  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise UsageError(
            f"serve: expected the extra `web`, given no {error.name}; install it with "
            "`pip install 'stream-ml[web]'`"
        ) from None
    pipeline = pipeline_of(settings, "serve")
    with open_log(settings, pipeline.name) as log:
        key = reading_key(settings, log)
        check_name(settings, log, pipeline.name, key)
    given = {each.name: getattr(arguments, each.name, None) for each in fields(Limits)}
    limits = Limits(**{name: limit for name, limit in given.items() if limit is not None})
    app = create_app(
        settings,
        pipeline,
        access,
        limits,
        hosts=server_names(arguments.host, arguments.host_name),
        isolation=arguments.isolation,
    )
    metering = metered(
        listen_address(arguments, settings),
        settings,
        pipeline,
        key,
        lambda address: _say_metrics(address, as_json=arguments.format == "json"),
        tells_pipeline=False,
        probes=_Probes(app.state.probes),
        figures=partial(_figures, app.state.service),
    )
    with metering:
        if not _is_loopback(arguments.host):
            complain("stream-ml: tokens travel as they are: put TLS before this address")
        say = partial(_say_address, listener, pipeline.name, as_json=arguments.format == "json")
        serve(app, listener, say)


def _say_address(listener: socket.socket, pipeline: str, *, as_json: bool) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if as_json:
        write_json_line({"address": address, "pipeline": pipeline})
    else:
        write_line(f"serving {pipeline} at {address} (the live page: {address}/page)")
    flush()


class _Probes:
    """The probes of a server, for who asks at the address of its metrics.

    Args:
        probes: of the service.
    """

    def __init__(self, probes: ServiceProbes) -> None:
        self._probes = probes

    def ready(self) -> ProbeAnswer:
        """Whether predictions are answered."""
        return _probe_answer(self._probes.ready_now())

    def healthy(self) -> ProbeAnswer:
        """Whether the log answers."""
        return _probe_answer(self._probes.healthy_now())


def _probe_answer(problems: tuple[str, ...]) -> ProbeAnswer:
    from stream_ml.metrics.health import ProbeAnswer  # noqa: PLC0415 - where somebody asks

    return ProbeAnswer(problems)


def _figures(service: Service) -> Iterator[Figure]:
    """What the server has answered, and what waits."""
    from stream_ml.metrics.families import Figure  # noqa: PLC0415 - as above

    for labels, count in service.traffic.requests.copy().items():
        yield Figure("stream_ml_http_requests_total", count, labels)
    for route, histogram in service.traffic.seconds.copy().items():
        yield Figure("stream_ml_http_request_seconds", histogram, (route,))
    yield Figure("stream_ml_http_waiting", service.predictor.waiting_count)
    yield Figure("stream_ml_http_streams", service.stream_count)


def _say_metrics(address: ListenAddress, *, as_json: bool) -> None:
    if as_json:
        write_json_line({"said": "metrics", "address": str(address)})
    else:
        write_line(f"metrics and probes: http://{address}")
    flush()


def _access(arguments: Namespace, settings: Settings) -> Access:
    from stream_ml.web import access  # noqa: PLC0415 - as above

    is_local = _is_loopback(arguments.host)
    file = arguments.tokens or settings.http_tokens
    tokens = {} if file is None else access.parse_tokens(file, tokens_text(file))
    if settings.http_token is not None:
        if "environment" in tokens:
            raise UsageError(
                f"{file}: [tokens.environment]: expected another name, given that of the token in "
                "STREAM_ML_HTTP_TOKEN; rename it, or set one of the two"
            )
        tokens["environment"] = access.token_with_roles(settings.http_token, access.ROLES)
    if not is_local and not tokens:
        raise UsageError(
            f"--host {arguments.host}: expected --tokens FILE or STREAM_ML_HTTP_TOKEN, given "
            "none: whoever is not on this machine may come with a token alone"
        )
    anonymous = arguments.anonymous
    if anonymous is None:
        anonymous = [access.READ, access.PUBLISH] if is_local and not tokens else []
    return access.Access(tokens, frozenset(anonymous))


def server_names(host: str, names: Iterable[str]) -> frozenset[str] | None:
    """The names that requests may be for; None where any may.

    Args:
        host: where it listens.
        names: that it was given.
    """
    from stream_ml.web.gate import LOOPBACK_NAMES  # noqa: PLC0415 - an extra

    given = [name.lower() for name in names]
    if not given and not _is_loopback(host):
        return None
    return frozenset({*LOOPBACK_NAMES, _address_name(host).lower(), *given})


def _address_name(host: str) -> str:
    """An address as a client names it that was told where we listen."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host
    return f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004 - of IP


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
