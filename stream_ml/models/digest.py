"""The canonical digest: equal learners have equal digests, wherever they were learned.

The bytes of a pickle also tell which strings happened to be one object, in what order a set
hashes its members in this process, and what the operating system seeded a generator with. None
of that is what a learner knows. So the digest is that of a pickle in which

1. equal strings count as one object, and tuples, numpy's scalars and types by what is in them;
2. sets are their members in the order of their own bytes;
3. generators are a constant: what a learner draws at random is not part of its digest, golden
   predictions stand for that.

Which other parts are shared, or know each other in a circle, is what a learner is, and stays: a
part is written once, so that this costs about what a pickle costs (a forest of Mondrian trees,
whose nodes know their parents, took thirty times as long where shared parts were written out).

A digest names its scheme. Those of before have none; they are computed as they were, for the
snapshots that bear them.
"""

from __future__ import annotations

import copyreg
import hashlib
import io
import pickle
import random
from typing import TYPE_CHECKING, Any

import numpy as np
from river import proba

from stream_ml.models.pickles import AllowList, contain_errors, without_collector

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["digest", "digest_and_size"]

# What a digest of this scheme begins with.
_GRAPH = "graph:"
_RAISES = "expected a learner with a digest, given one that raises {}"
# The last protocol that writes a set as a call of `set`, which the reader below can replace.
_PROTOCOL_SETS_AS_CALLS = 3
_PROTOCOL = 5


def digest(learner: Any, *, generators: bool = False, like: str = _GRAPH) -> str:
    """What a learner knows, as the name of the scheme and a SHA-256 in hex.

    Args:
        learner: a river estimator, or a plain dict of them.
        generators: whether the state of random generators counts; that of river's
            distributions, which nobody draws from, never does.
        like: a digest, whose scheme is taken.

    Raises:
        SnapshotRefused: `too_large`, where it is nested too deep; `class_not_allowed`, where it
            raises anything else.
    """
    with contain_errors("class_not_allowed", _RAISES, learner), without_collector():
        if not like.startswith(_GRAPH):
            return _unshared_digest(learner, _SEEDLESS if generators else _REDUCERS)
        return _GRAPH + _graph(learner, _BY_VALUE if generators else _WITHOUT_GENERATORS)[0]


def digest_and_size(learner: Any) -> tuple[str, int]:
    """The digest, and how many bytes it was taken of: equal for equal learners, as no pickle is."""
    with contain_errors("class_not_allowed", _RAISES, learner), without_collector():
        name, length = _graph(learner, _WITHOUT_GENERATORS)
    return _GRAPH + name, length


def _graph(learner: Any, by_value: dict[type, Any]) -> tuple[str, int]:
    sink = _Sink()
    pickler = pickle.Pickler(sink, _PROTOCOL)
    pickler.persistent_id = _reference(by_value)  # type: ignore[method-assign]  # as documented
    pickler.dispatch_table = _SEEDLESS
    pickler.dump(learner)
    return sink.hash.hexdigest(), sink.length


class _Sink:
    """A file that keeps a hash of what is written to it."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.length = 0

    def write(self, data: Any) -> None:
        self.hash.update(data)
        self.length += len(data)


def _reference(by_value: dict[type, Any]) -> Callable[[Any], Any]:
    """What a pickler is to write in the place of an object that has no identity, marked as such.

    A closure, for it is called for each part of a learner: as a method it took a tenth longer.
    """
    first = dict[Any, Any]().setdefault
    value_of = by_value.get

    def reference(part: Any) -> Any:
        kind = type(part)
        if kind is str or kind is bytes:
            # The pickler remembers objects, not values: of equal ones it is given the first.
            return first(part, part)
        by_value = value_of(kind)
        return None if by_value is None else by_value(part)

    return reference


def _members(collection: Any) -> dict[str, list[Any]]:
    if all(type(member) is str for member in collection):
        return {"set": sorted(collection)}
    return {"set": sorted(collection, key=lambda member: _graph(member, _BY_VALUE)[0])}


_BY_VALUE: dict[type, Any] = {
    tuple: list,
    set: _members,
    frozenset: _members,
    **dict.fromkeys(
        {np.dtype(code).type for code in np.typecodes["All"]} - {np.void, np.object_},
        lambda number: {number.dtype.str: number.tobytes()},
    ),
    **dict.fromkeys(
        {type(np.dtype(code)) for code in np.typecodes["All"]} - {type(np.dtype("V"))},
        lambda dtype: {"dtype": dtype.str},
    ),
}
_WITHOUT_GENERATORS: dict[type, Any] = {
    **_BY_VALUE,
    **dict.fromkeys(
        (random.Random, np.random.RandomState, np.random.Generator), lambda _: "generator"
    ),
}


def _unshared_digest(learner: Any, reducers: dict[type, Any]) -> str:
    plain = _without_accidents(learner, reducers)
    try:
        text = _plain_bytes(plain)
    except ValueError:
        # Fast mode gives up on cycles, such as a node that knows its parent.
        buffer = io.BytesIO()
        _PathPickler(buffer).dump(plain)
        text = buffer.getvalue()
    return hashlib.sha256(text).hexdigest()


def _without_accidents(learner: Any, reducers: dict[type, Any]) -> Any:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=_PROTOCOL_SETS_AS_CALLS)
    pickler.dispatch_table = reducers
    pickler.dump(learner)
    buffer.seek(0)
    return _SetReader(buffer).load()


def _plain_bytes(plain: Any) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=_PROTOCOL)
    pickler.fast = True
    pickler.dump(plain)
    return buffer.getvalue()


class _SetReader(AllowList):
    """Reads what this module wrote a moment ago, with sets as sorted tuples."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "builtins" and name in {"set", "frozenset"}:
            return _sorted_set
        return super().find_class(module, name)


def _sorted_set(members: Any = ()) -> tuple[Any, ...]:
    return ("set", *sorted(members, key=_plain_bytes))


class _PathPickler(pickle._Pickler):  # noqa: SLF001 - the C pickler has no hook per object
    """Writes a part that contains itself as its distance up the path; slow, for cycles only."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, _PROTOCOL)
        self.fast = True
        self._path: dict[int, int] = {}

    def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
        if isinstance(obj, str | bytes | int | float | type(None) | type):
            return super().save(obj, save_persistent_id)  # type: ignore[misc]  # missing from typeshed
        depth = self._path.get(id(obj))
        if depth is not None:
            return super().save(f"up {len(self._path) - depth}")  # type: ignore[misc]  # as above
        self._path[id(obj)] = len(self._path)
        try:
            return super().save(obj, save_persistent_id)  # type: ignore[misc]  # missing from typeshed
        finally:
            del self._path[id(obj)]


def _no_generator(_: Any) -> Any:
    return float, (0,)


def _no_sampling(distribution: Any) -> Any:
    if distribution.seed is not None:
        return distribution.__reduce_ex__(_PROTOCOL)
    state = {name: value for name, value in distribution.__dict__.items() if name != "_rng"}
    return copyreg.__newobj__, (type(distribution),), state  # type: ignore[attr-defined]  # missing from typeshed


_DISTRIBUTIONS = (proba.Beta, proba.Gaussian, proba.Multinomial, proba.MultivariateGaussian)
_SEEDLESS: dict[type, Any] = {
    **copyreg.dispatch_table,
    **dict.fromkeys(_DISTRIBUTIONS, _no_sampling),
}
_REDUCERS: dict[type, Any] = {
    **copyreg.dispatch_table,
    random.Random: _no_generator,
    np.random.RandomState: _no_generator,
    np.random.Generator: _no_generator,
}
