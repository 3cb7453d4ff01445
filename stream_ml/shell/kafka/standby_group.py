"""The group of the workers that wait for predict's place, each under the name of its declaration.

Whoever takes predict's place has to have the features that are applied. So a standby is of use to
whoever applies the same declaration as it has; to workers at work, one that has another is.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson

from stream_ml.shell.kafka.metadata import described_members

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.kafka.cluster import Cluster

__all__ = ["STANDBY", "has_other_standby", "has_standby", "standby_client_id"]

STANDBY = "standby"


def standby_client_id(pipeline: Pipeline) -> str:
    """The `client.id` of a standby, by which others know what it waits for.

    Args:
        pipeline: as it is declared.
    """
    texts = orjson.dumps(dict(pipeline.declaration()), option=orjson.OPT_SORT_KEYS)
    return f"stream-ml-standby-{hashlib.sha256(texts).hexdigest()[:16]}"


def has_standby(cluster: Cluster, pipeline: Pipeline) -> bool:
    """Whether somebody waits, ready, for this declaration to be applied.

    Args:
        cluster: the pipeline's place.
        pipeline: as it is declared.
    """
    return standby_client_id(pipeline) in _client_ids(cluster)


def has_other_standby(cluster: Cluster, pipeline: Pipeline) -> bool:
    """Whether somebody waits, ready, to take over from workers of this declaration.

    Args:
        cluster: the pipeline's place.
        pipeline: theirs, as it is declared.
    """
    return bool(_client_ids(cluster) - {standby_client_id(pipeline)})


def _client_ids(cluster: Cluster) -> frozenset[str]:
    members = described_members(cluster, STANDBY) or ()
    return frozenset(member["client_id"] for member in members)
