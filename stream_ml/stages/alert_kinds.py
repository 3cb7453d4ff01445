"""The kinds of alerts: how grave each is, whether it ends, and where to look further.

One table, which every raiser, reader and route goes by. `topics/alerts.toml` names the same kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from stream_ml.records import Alert

__all__ = ["ALERT_KINDS", "SEVERITIES", "AlertKind", "Severity", "subjects_of"]

Severity = Literal["critical", "warning", "info"]
# The gravest first, as lists show them.
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")


@dataclass(frozen=True, slots=True)
class AlertKind:
    """One kind of alert.

    Attributes:
        severity: `critical`: what is served, or the log itself, is affected, look at once;
            `warning`: it will be, look today; `info`: to know.
        ends: whether it opens and resolves; else it is said once, and nothing resolves it.
        meaning: a sentence.
        command: to look further with.
    """

    severity: Severity
    ends: bool
    meaning: str
    command: str


def _ends(severity: Severity, meaning: str, command: str) -> AlertKind:
    return AlertKind(severity, True, meaning, command)


def _once(severity: Severity, meaning: str, command: str) -> AlertKind:
    return AlertKind(severity, False, meaning, command)


_STATUS = "stream-ml status"
_MODELS = "stream-ml models"
_AUDIT = "stream-ml audit verify"
_DRIFT = "stream-ml drift"
_LETTERS = "stream-ml dead-letters"

ALERT_KINDS: dict[str, AlertKind] = {
    # Models.
    "guard": _once(
        "critical", "A model that did gross harm was replaced, or the fallback serves.", _MODELS
    ),
    "gross_harm": _ends(
        "critical", "What serves does gross harm against another model or a baseline.", _MODELS
    ),
    "loss_change": _ends(
        "critical", "The loss of what is served has grown, by more than luck explains.", _STATUS
    ),
    "answers_missing": _ends(
        "critical", "The champion has no answer for most events: the fallback serves.", _MODELS
    ),
    "answers_constant": _ends(
        "critical", "The champion gives one answer for ever, where its answers varied.", _MODELS
    ),
    "challenger_ready": _ends(
        "info", "The evidence suffices to promote a challenger, which is yours to do.", _MODELS
    ),
    "line_quarantined": _ends(
        "warning", "A line's learner has failed: it learns no more until it starts anew.", _MODELS
    ),
    "line_refused": _ends(
        "warning",
        "A line is not renewed: what it publishes is not sound, or its learner has diverged.",
        _MODELS,
    ),
    "shadow_slow": _ends(
        "warning", "A challenger takes too long to answer: it is asked no more.", _MODELS
    ),
    "staleness": _ends(
        "warning",
        "What serves was not renewed at the last five refreshes: paused, or rolled back, by hand, "
        "or started anew, or for a fault that lasts.",
        _MODELS,
    ),
    "snapshot_dear": _once(
        "info", "A line's snapshots cost more than what was learned meanwhile.", _MODELS
    ),
    "serving_set_refused": _once(
        "critical", "Models of a serving set could not be loaded: the former ones serve.", _MODELS
    ),
    # What comes in.
    "lag": _ends("critical", "Answers come ten minutes and more after their events.", _STATUS),
    "poison_rate": _ends(
        "warning", "Much of a topic is refused for one reason, or far more than usual.", _LETTERS
    ),
    "examples_missing": _once(
        "warning", "Examples were removed before they were learned from and judged by.", _STATUS
    ),
    "drift": _ends(
        "warning", "Values of a field, a feature or the labels are not what they were.", _DRIFT
    ),
    "data_fault": _ends(
        "critical",
        "Values look like a fault of the pipeline: frozen, missing, another unit, a new category, "
        "a source of labels that contradicts the others.",
        _DRIFT,
    ),
    "label_outage": _ends("critical", "Events go on, and no labels come.", _DRIFT),
    "event_outage": _ends(
        "critical",
        "A partition of events is silent while the others go on, or all are while labels come.",
        _DRIFT,
    ),
    # Memory that has reached its bound.
    "window_overflow": _ends(
        "warning", "A window of one key is full: its oldest events are dropped.", _STATUS
    ),
    "pending_overflow": _ends(
        "warning", "Too many predictions, or labels, wait: the oldest are dropped.", _STATUS
    ),
    # Features.
    "aggregate_failed": _ends(
        "warning", "A user's aggregate has failed: its features are missing.", _STATUS
    ),
    # Logs and state.
    "topic_made_anew": _once(
        "warning", "A topic is not the one that was read: it is read from its beginning.", _STATUS
    ),
    "records_lost": _once(
        "critical", "Records were removed from a topic before the state held them.", _STATUS
    ),
    "group_reset": _once(
        "warning", "A consumer group's position was set by somebody: it is not believed.", _STATUS
    ),
    "state_lost": _once(
        "critical", "A task's state is gone, and it goes on with an empty one.", _STATUS
    ),
    "state_remade": _once(
        "warning", "A task's state was not what it wrote: it was made again.", _AUDIT
    ),
    "foreign_state": _once(
        "warning", "Somebody else has written where a task's state lies.", _AUDIT
    ),
    "foreign_writer": _once("warning", "Somebody else writes where only the worker may.", _AUDIT),
    "declaration_changed": _once(
        "info", "The declaration is another than the state was made under.", "stream-ml config"
    ),
    # Clocks, on the embedded log.
    "clock_ahead": _once(
        "warning", "A publisher's clock is ahead: its records are stamped anew.", _STATUS
    ),
    "clock_set_back": _once(
        "warning", "The worker's clock is behind what it gave before.", _STATUS
    ),
}


def subjects_of(alert: Alert) -> list[str]:
    """What an alert is about: one subject, or those of its group.

    >>> from stream_ml.records import Alert
    >>> subjects_of(Alert("poison_rate", 5, "join", "Much.", {"subjects": ["a", "b"]}))
    ['a', 'b']
    """
    subjects = alert.details.get("subjects")
    if not alert.subject and isinstance(subjects, list) and subjects:
        return [str(subject) for subject in subjects]
    return [alert.subject]
