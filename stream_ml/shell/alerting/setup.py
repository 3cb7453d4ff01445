"""Couriers as the declaration and the settings want them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stream_ml.errors import UsageError
from stream_ml.shell.alerting.bookmarks import FileBookmark, GroupBookmark
from stream_ml.shell.alerting.courier import Address, Courier, Couriers
from stream_ml.shell.alerting.recipients import Program, Webhook
from stream_ml.shell.log.sqlite import MEMORY
from stream_ml.shell.settings.settings import SETTINGS

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.routes import Alerts
    from stream_ml.shell.alerting.bookmarks import Bookmark
    from stream_ml.shell.alerting.courier import Turn
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.settings.settings import Settings

__all__ = ["addresses", "couriers"]


def addresses(alerts: Alerts, settings: Settings) -> list[Address]:
    """Where alerts go.

    Args:
        alerts: as declared.
        settings: may have other webhooks for its routes.

    Raises:
        UsageError: a route has nowhere to go to, or there is a webhook of no route.
    """
    return list(_addresses(alerts, settings))


def _addresses(alerts: Alerts, settings: Settings) -> Iterator[Address]:
    webhooks, variable = settings.alert_webhooks, SETTINGS["alert_webhooks"].variable
    names = [route.name for route in alerts.routes]
    for name in webhooks:
        if name not in names:
            known = ", ".join(names) or "none"
            raise UsageError(
                f"{variable}: expected routes that are declared ({known}), given {name!r}"
            )
    for route in alerts.routes:
        url = webhooks.get(route.name, route.webhook)
        if url is None and not route.command:
            raise UsageError(
                f"alerts.routes: expected a webhook or a command of the route {route.name!r}, "
                f"given neither; declare one, or set {variable}={route.name}=URL"
            )
        if url is not None:
            yield Address(route, f"{route.name}.webhook", Webhook(url))
        if route.command:
            yield Address(route, f"{route.name}.command", Program(route.command))


def couriers(
    pipeline: Pipeline,
    settings: Settings,
    key: bytes,
    *,
    open_log: Callable[[], Log],
    say: Callable[[str], object],
) -> Couriers:
    """A courier for each address, not at work yet; none for a log in memory, which ends with us.

    Args:
        pipeline: with its routes.
        settings: see `addresses`; and where the log is.
        key: what alerts are sealed with.
        open_log: opens the log anew, for each courier.
        say: tells the operator.

    Raises:
        UsageError: see `addresses`.
    """
    found = [] if settings.path == MEMORY else addresses(pipeline.alerts, settings)

    turn: Turn | None = None
    if found and settings.on_kafka:
        # The client is slow to load, and on the embedded log nobody needs it.
        from stream_ml.shell.kafka.turn import GroupTurn  # noqa: PLC0415

        turn = GroupTurn(settings.cluster(pipeline.name), "couriers", "alerts")

    def bookmark(log: Log, name: str) -> Bookmark:
        if settings.on_kafka:
            return GroupBookmark(log, name)  # type: ignore[arg-type]  # a cluster's, as is set
        return FileBookmark(settings.task_path, name, log.identity)

    def make(address: Address, stop: threading.Event) -> Courier:
        return Courier(
            address,
            key,
            pipeline.name,
            open_log=open_log,
            bookmark=bookmark,
            say=say,
            stop=stop,
            turn=turn,
        )

    return Couriers([partial(make, address) for address in found], turn)
