"""What a route is given: JSON as Alertmanager's webhook receivers take it, version 4.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.stages.alert_kinds import ALERT_KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.shell.views.alerts import AlertView

__all__ = ["notification"]

# What Alertmanager says of an alert that has not ended.
NO_END = "0001-01-01T00:00:00Z"
DETAILS_LENGTH_MAX = 16_384


def notification(route: str, pipeline: str, alerts: Sequence[AlertView]) -> bytes:
    """One record's alerts, which have a cause in common, as JSON.

    Args:
        route: its name, the `receiver`.
        pipeline: whose alerts they are.
        alerts: one or more of one record.
    """
    alert = alerts[0]
    group = {"alertname": alert.kind, "pipeline": pipeline, "stage": alert.stage}
    members = [_alert(pipeline, each) for each in alerts]
    is_firing = any(member["status"] == "firing" for member in members)
    return orjson.dumps(
        {
            "version": "4",
            "groupKey": f'{{}}:{{alertname="{alert.kind}", pipeline="{pipeline}", '
            f'stage="{alert.stage}"}}',
            "truncatedAlerts": 0,
            "status": "firing" if is_firing else "resolved",
            "receiver": route,
            "groupLabels": group,
            "commonLabels": _common([member["labels"] for member in members]),
            "commonAnnotations": _common([member["annotations"] for member in members]),
            "externalURL": "",
            "alerts": members,
        }
    )


def _alert(pipeline: str, alert: AlertView) -> dict[str, Any]:
    row = ALERT_KINDS.get(alert.kind)
    details = orjson.dumps(alert.details).decode()
    return {
        "status": "resolved" if alert.state == "resolved" else "firing",
        "labels": {
            "alertname": alert.kind,
            "severity": alert.severity,
            "pipeline": pipeline,
            "stage": alert.stage,
            "partition": str(alert.partition),
            "subject": alert.subject,
            # `once`: nothing will resolve it.
            "ends": "no" if alert.state == "once" else "yes",
        },
        "annotations": {
            "summary": alert.message,
            "description": "" if row is None else row.meaning,
            "command": alert.command,
            "details": details[:DETAILS_LENGTH_MAX],
            "event_time": _time(alert.ts) if alert.ts >= 0 else "",
        },
        "startsAt": _time(alert.since_append_ms),
        "endsAt": _time(alert.append_ms) if alert.state == "resolved" else NO_END,
        "generatorURL": "",
        "fingerprint": alert.fingerprint,
    }


def _common(members: Sequence[dict[str, str]]) -> dict[str, str]:
    first = members[0]
    return {
        name: text
        for name, text in first.items()
        if all(each.get(name) == text for each in members)
    }


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        return NO_END  # past the year 9999: an event's time is what its producer says
