"""Routes of alerts, as a user declares them: where which alerts go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stream_ml.errors import Problem
from stream_ml.schema import short_repr
from stream_ml.stages.alert_kinds import ALERT_KINDS, SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Alerts", "Route", "alert_problems", "is_webhook", "route_texts"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# Each has a thread or two of the worker's process.
ROUTES_MAX = 8


@dataclass(frozen=True, slots=True)
class Route:
    """Somewhere that alerts go, each at least once, however long nobody takes them there.

    Args:
        name: of the route; what was delivered is remembered under it.
        webhook: takes each alert by POST, as Alertmanager's webhook receivers do. Where it is a
            secret, leave it out and set `STREAM_ML_ALERT_WEBHOOKS=NAME=URL`.
        command: a program and its arguments, run for each alert with the same JSON on its input.
        severity: the least grave that goes there: `info`, `warning` or `critical`.
        kinds: those that go there; none given: all.
    """

    name: str
    webhook: str | None = None
    command: Sequence[str] = ()
    severity: str = "warning"
    kinds: Sequence[str] = ()

    def takes(self, kind: str, severity: str) -> bool:
        """Whether an alert goes there.

        Args:
            kind: of the alert.
            severity: likewise.

        >>> Route("oncall", severity="warning").takes("guard", "critical")
        True
        """
        ranks: tuple[str, ...] = SEVERITIES
        is_grave = severity not in ranks or ranks.index(severity) <= ranks.index(self.severity)
        return is_grave and (not self.kinds or kind in self.kinds)


@dataclass(frozen=True, slots=True)
class Alerts:
    """What is done with alerts, beside writing them on the log.

    Args:
        routes: where they go.
    """

    routes: Sequence[Route] = ()


def is_webhook(url: object) -> bool:
    """Whether alerts can be posted there.

    >>> is_webhook("http://127.0.0.1:9093/hook"), is_webhook("oncall")
    (True, False)
    """
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def route_texts(alerts: Alerts) -> Iterator[tuple[str, str]]:
    """Each route as a text by path; of a webhook only that there is one: it may be a secret."""
    for route in sorted(alerts.routes, key=lambda route: route.name):
        targets = ["a webhook"] if route.webhook is not None else []
        if route.command:
            targets.append(f"the command {route.command[0]}")
        kinds = ", ".join(sorted(route.kinds)) or "all kinds"
        where = " and ".join(targets) or "the webhook that is set"
        yield f"alerts.routes.{route.name}", f"{kinds} from {route.severity} on to {where}"


def alert_problems(alerts: Any) -> Iterator[Problem]:
    """The mistakes in it, whatever a user has given."""
    if not isinstance(alerts, Alerts):
        yield Problem("alerts", "Alerts(routes=[Route(...)])", short_repr(alerts))
        return
    routes = alerts.routes
    if not isinstance(routes, list | tuple) or len(routes) > ROUTES_MAX:
        yield Problem("alerts.routes", f"a list of at most {ROUTES_MAX} routes", short_repr(routes))
        return
    names = set()
    for number, route in enumerate(routes):
        path = f"alerts.routes[{number}]"
        if not isinstance(route, Route):
            yield Problem(path, 'Route("oncall", webhook="https://...")', short_repr(route))
            continue
        yield from _route_problems(path, route)
        if isinstance(route.name, str):
            if route.name in names:
                yield Problem(f"{path}.name", "a name of its own", short_repr(route.name))
            names.add(route.name)


def _route_problems(path: str, route: Any) -> Iterator[Problem]:
    if not (isinstance(route.name, str) and _NAME.fullmatch(route.name)):
        yield Problem(f"{path}.name", "lower-case letters, digits, - and _", short_repr(route.name))
    if route.webhook is not None and not is_webhook(route.webhook):
        yield Problem(f"{path}.webhook", "an address http://... or https://...", "another text")
    if not _are_texts(route.command):
        expected = "a program and its arguments, a text each"
        yield Problem(f"{path}.command", expected, short_repr(route.command))
    if route.severity not in SEVERITIES:
        expected = f"one of {', '.join(SEVERITIES)}"
        yield Problem(f"{path}.severity", expected, short_repr(route.severity))
    if not _are_texts(route.kinds) or not ALERT_KINDS.keys() >= set(route.kinds):
        expected = f"kinds of alerts: {', '.join(ALERT_KINDS)}"
        yield Problem(f"{path}.kinds", expected, short_repr(route.kinds))


def _are_texts(values: object) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(value, str) and value and "\x00" not in value for value in values
    )
