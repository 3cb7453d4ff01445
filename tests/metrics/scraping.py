"""Scrapes and probes of a process, as Prometheus and an orchestrator make them."""

from __future__ import annotations

import time
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from stream_ml.shell.settings.listening import ListenAddress
from tests.shell.processes import DEADLINE_S

if TYPE_CHECKING:
    from prometheus_client import Metric

FREE = ListenAddress("127.0.0.1", 0)


def fetch(address: ListenAddress, path: str) -> tuple[int, bytes]:
    """Status and body of an answer."""
    with closing(HTTPConnection(*address, timeout=DEADLINE_S)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def scrape(address: ListenAddress) -> dict[str, Metric]:
    """The families of a scrape, by the names that their samples have."""
    status, body = fetch(address, "/metrics")
    assert 200 == status
    return {
        sample.name: family
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def figures(families: dict[str, Metric], name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The figures of a name, by some of its labels."""
    if name not in families:
        return {}
    samples = [each for each in families[name].samples if each.name == name]
    return {tuple(each.labels[label] for label in labels): each.value for each in samples}


def until(
    address: ListenAddress, name: str, label: str, wanted: dict[str, float]
) -> dict[str, Metric]:
    """The first scrape in which a metric has these figures, by one of its labels."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        families = scrape(address)
        found = figures(families, name, label)
        if all(found.get((value,)) == figure for value, figure in wanted.items()):
            return families
        assert time.monotonic() < deadline, found
