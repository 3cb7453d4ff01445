"""What `docker compose --profile observe up` brings: Prometheus with alerts, Grafana's dashboard.

`make rules` tests the alerts by Prometheus's own tool; here their names are held against the code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream_ml.metrics.families import FAMILIES
from stream_ml.shell.settings.listening import ListenAddress
from tools.dashboard import FILE, dashboard

ROOT = Path(__file__).parents[1]
OBSERVE = ROOT / "observe"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())[
    "services"
]
RULES = yaml.safe_load((OBSERVE / "rules.yml").read_text())["groups"][0]["rules"]
TESTS = yaml.safe_load((OBSERVE / "rules_test.yml").read_text())["tests"]
# Of Prometheus itself, and of every client library.
STANDARD = {
    "up",
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
}
# PromQL's own words, where no bracket follows.
WORDS = {"by", "on", "or", "le", "and"}


def unknown(query: str) -> set[str]:
    """Names and labels in a query that no metric of its has."""
    text = re.sub(r'"[^"]*"', '""', query)
    text = re.sub(r"\[[^]]*\]", "", text)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=(?!=))", text))
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", text):
        labels |= set(re.findall(r"\w+", group))
    text = re.sub(r"\{[^}]*\}", "", text)
    text = re.sub(r"\b(?:by|on)\s*\([^)]*\)", "", text)
    names = set(re.findall(r"\b([a-z_]{2,})\b(?!\s*\()", text)) - WORDS
    families = {}
    for name in names:
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        family = FAMILIES.get(name) or FAMILIES.get(base)
        if family is not None and (name == family.name) == (family.kind != "histogram"):
            families[name] = family
    known = {label for family in families.values() for label in family.labels}
    known |= {"le", "job", "instance"}
    return (names - families.keys() - STANDARD) | (labels - known)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_is_about_what_there_is(rule: dict[str, Any]) -> None:
    """Its metrics and labels exist, and it says how grave it is, and in words."""
    assert set() == unknown(rule["expr"])
    assert {"severity"} == rule["labels"].keys()
    assert {"summary", "description"} == rule["annotations"].keys()


def test_every_alert_is_tried_both_ways() -> None:
    """By `make rules`: it fires on what it is for, and stays silent on what is usual."""
    names = sorted(rule["alert"] for rule in RULES)
    silent, firing = (test["alert_rule_test"] for test in TESTS)

    assert names == sorted(each["alertname"] for each in silent if "exp_alerts" not in each)
    assert names == sorted(each["alertname"] for each in firing if each["exp_alerts"])


def test_the_dashboard_is_the_one_that_is_drawn() -> None:
    """`python -m tools.dashboard` writes the file; nobody edits it by hand."""
    assert dashboard() == json.loads(FILE.read_text())


def test_every_panel_shows_what_there_is() -> None:
    """Each query is of metrics that there are, of the source that is provisioned; none overlap."""
    drawn = json.loads(FILE.read_text())
    source = yaml.safe_load(
        (OBSERVE / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    uid = source["datasources"][0]["uid"]
    places: set[tuple[int, int]] = set()
    for panel in drawn["panels"]:
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not places & covered, panel["title"]
        assert place["x"] + place["w"] <= 24
        places |= covered
        for target in panel.get("targets", ()):
            assert uid == target["datasource"]["uid"]
            assert set() == unknown(target["expr"]), panel["title"]
    assert len(drawn["panels"]) == len({panel["id"] for panel in drawn["panels"]})


def test_prometheus_finds_every_worker_where_it_answers() -> None:
    """It asks the stages' names at the port that their setting says, from inside alone."""
    config = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    addresses = {SERVICES[name]["environment"]["STREAM_ML_METRICS"] for name in found["names"]}

    assert {"predict", "join", "learn", "evaluate"} == set(found["names"])
    assert [found["port"]] == [ListenAddress.parse(each).port for each in addresses]
    assert all("ports" not in SERVICES[name] for name in found["names"])
    assert "stream-ml" == job["job_name"]
    assert ["rules.yml"] == config["rule_files"]


def test_what_is_mounted_is_there_and_no_port_is_open_to_others() -> None:
    """Each file of ours is read only, and who asks from another machine gets no answer."""
    for name in ("prometheus", "grafana"):
        service = SERVICES[name]
        assert ["observe"] == service["profiles"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        ours = [volume for volume in service["volumes"] if volume.startswith("./")]
        for volume in ours:
            source, _, mode = volume.split(":")
            assert (ROOT / source).exists(), source
            assert "ro" == mode
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert FILE.name == Path(home).name
    assert "[demo,metrics]" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize(
    "query",
    [
        "rate(stream_ml_records_inn_total[5m])",
        'stream_ml_lag_seconds{stag="predict"}',
        "sum by (model) (stream_ml_score)",
        "stream_ml_answer_seconds",
        "stream_ml_commits_total_bucket",
    ],
)
def test_a_planted_name_is_found(query: str) -> None:
    """The checker of queries finds what it is there to find."""
    assert unknown(query)
