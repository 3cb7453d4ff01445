"""Writes the dashboard that Grafana opens in `docker compose --profile observe up`.

    python -m tools.dashboard

What is drawn stands in `ROWS`; a test holds the file against it, and its metrics against those that
there are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FILE", "ROWS", "Panel", "dashboard"]

FILE = Path(__file__).parents[1] / "observe/grafana/dashboards/stream_ml.json"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24


@dataclass(frozen=True)
class Panel:
    """A picture.

    Attributes:
        title: of it.
        queries: PromQL, by legend.
        unit: as Grafana calls it.
        width: of 24 columns.
        kind: `timeseries`, or `stat` for one figure.
        is_log: whether its axis is logarithmic.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    is_log: bool = False


def _stat(title: str, query: str, unit: str = "short", legend: str = "") -> Panel:
    return Panel(title, {legend: query}, unit, width=4, kind="stat")


def _quantile(quantile: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return (
        f"histogram_quantile({quantile}, sum by ({labels}) "
        f"(rate({metric}_bucket[$__rate_interval])))"
    )


_RATE = "[$__rate_interval]"

ROWS: dict[str, tuple[Panel, ...]] = {
    "At a glance": (
        _stat("Ready processes", "sum(stream_ml_ready)"),
        _stat(
            "Champion",
            'max by (line) (stream_ml_serving_version{role="champion"})',
            legend="{{line}}",
        ),
        _stat("Events", f'sum(rate(stream_ml_records_in_total{{topic="events"}}{_RATE}))', "reqps"),
        _stat("Answered within, 99 %", _quantile(0.99, "stream_ml_answer_seconds"), "s"),
        _stat("First event that waits", 'max(stream_ml_lag_seconds{stage="predict"})', "s"),
        _stat("Open alerts", "sum(stream_ml_alerts_open)"),
    ),
    "Flow": (
        Panel(
            "Records in",
            {
                "{{stage}} {{topic}}": "sum by (stage, topic) "
                f"(rate(stream_ml_records_in_total{_RATE}))"
            },
            "reqps",
        ),
        Panel(
            "Records out",
            {"{{topic}}": f"sum by (topic) (rate(stream_ml_records_out_total{_RATE}))"},
            "reqps",
        ),
        Panel(
            "Lag",
            {"{{stage}} {{line}} {{topic}}": "max by (stage, line, topic) (stream_ml_lag_seconds)"},
            "s",
        ),
        Panel(
            "From event to prediction",
            {f"{q:g}": _quantile(q, "stream_ml_answer_seconds") for q in (0.5, 0.9, 0.99)},
            "s",
        ),
        Panel(
            "A batch, 90 %", {"{{stage}}": _quantile(0.9, "stream_ml_batch_seconds", "stage")}, "s"
        ),
        Panel(
            "A commit",
            {f"{q:g}": _quantile(q, "stream_ml_commit_seconds") for q in (0.5, 0.99)},
            "s",
        ),
    ),
    "Models": (
        Panel(
            "Loss of the last examples",
            {
                "{{line}} {{score}}": "max by (line, score) "
                '(stream_ml_score{form="windowed",score=~"log_loss|mae"})'
            },
            width=12,
        ),
        Panel(
            "Evidence against the champion, and what is needed",
            {
                "{{line}}": "max by (line) (stream_ml_evidence)",
                "needed": "max(stream_ml_evidence_needed)",
            },
            width=12,
            is_log=True,
        ),
        Panel(
            "Age of snapshots, in the time of events",
            {"{{role}} {{line}}": "max by (role, line) (stream_ml_snapshot_age_seconds)"},
            "s",
        ),
        Panel("Decisions", {"{{kind}}": "max by (kind) (stream_ml_decisions_total)"}),
        Panel(
            "Cost of learning an example",
            {"{{line}}": "max by (line) (stream_ml_line_example_seconds)"},
            "s",
        ),
    ),
    "Data": (
        Panel(
            "Refused",
            {
                "{{stage}} {{reason}}": "sum by (stage, reason) "
                f"(rate(stream_ml_dead_letters_total{_RATE}))"
            },
            "reqps",
        ),
        Panel(
            "What became of labels",
            {"{{outcome}}": f"max by (outcome) (rate(stream_ml_labels_total{_RATE}))"},
            "reqps",
        ),
        Panel(
            "Predictions with a label, and with an answer",
            {
                "label": "max(stream_ml_labelled_ratio)",
                "answer of {{line}}": "max by (line) (stream_ml_answer_ratio)",
            },
            "percentunit",
        ),
        Panel(
            "From event to label",
            {
                "{{percentile}} %": "max by (percentile) "
                '(stream_ml_label_delay_seconds{line="served"})'
            },
            "s",
        ),
        Panel(
            "Columns that are not as usual",
            {"{{sign}}": "max by (sign) (stream_ml_drift_columns)"},
        ),
        Panel(
            "Open alerts",
            {"{{severity}} {{kind}}": "sum by (severity, kind) (stream_ml_alerts_open)"},
        ),
    ),
    "Processes": (
        Panel("Memory", {"{{instance}}": "process_resident_memory_bytes"}, "bytes"),
        Panel("CPU", {"{{instance}}": f"rate(process_cpu_seconds_total{_RATE})"}, "percentunit"),
        Panel(
            "Held in memory",
            {"{{kind}}": 'max by (kind) (stream_ml_held{kind=~"predictions|labels|keys"})'},
        ),
        Panel(
            "Tasks that take over",
            {"{{stage}}": 'sum by (stage) (stream_ml_task_state{state="recovering"})'},
        ),
        Panel(
            "Started again",
            {
                "{{instance}}": "changes(process_start_time_seconds[1h])",
                "{{stage}} by up": "sum by (stage) (increase(stream_ml_restarts_total[1h]))",
            },
        ),
        Panel(
            "Waiting in inboxes", {"{{stage}}": "sum by (stage) (stream_ml_inbox_bytes)"}, "bytes"
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana keeps it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {
                "type": "row",
                "id": len(panels) + 1,
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }
        )
        y, x = y + 1, 0
        height = 4 if row[0].kind == "stat" else 8
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y = 0, y + height
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            panels.append(_members(panel, len(panels) + 1, place))
            x += panel.width
        y += height
    return {
        "uid": "stream-ml",
        "title": "stream_ml",
        "tags": ["stream-ml"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "panels": panels,
    }


def _members(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    scale = {"type": "log", "log": 10} if panel.is_log else {"type": "linear"}
    custom = {} if panel.kind == "stat" else {"custom": {"scaleDistribution": scale}}
    return {
        "type": panel.kind,
        "id": number,
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **custom}, "overrides": []},
        "options": {"textMode": "auto"}
        if panel.kind == "stat"
        else {"legend": {"showLegend": True}},
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": DATASOURCE,
                "expr": query,
                "legendFormat": legend,
            }
            for n, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def main() -> None:
    """Write the file."""
    FILE.write_text(json.dumps(dashboard(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
