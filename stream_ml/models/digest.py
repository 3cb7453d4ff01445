"""The canonical digest: equal learners have equal digests, wherever they were learned.

The bytes of a pickle also tell which strings happened to be one object, in what order a set
hashes its members in this process, and what the operating system seeded a generator with. None
of that is what a learner knows, so:

1. a first pickle replaces generators by a constant, and is read back with each set replaced by
   its members in the order of their own bytes;
2. a second one is written without a memo (`fast`), which expands shared parts.

What a learner draws at random is thus not part of its digest; golden predictions stand for that.
"""

from __future__ import annotations

import copyreg
import hashlib
import io
import pickle
import random
from typing import Any

import numpy as np
from river import proba

from stream_ml.models.pickles import AllowList

__all__ = ["digest"]

# The last protocol that writes a set as a call of `set`, which the reader below can replace.
_PROTOCOL_SETS_AS_CALLS = 3
_PROTOCOL = 5


def digest(learner: Any, *, generators: bool = False) -> str:
    """SHA-256 in hex of what a learner knows.

    Args:
        learner: a river estimator, or a plain dict of them.
        generators: whether the state of random generators counts; that of river's
            distributions, which nobody draws from, never does.
    """
    plain = _without_accidents(learner, _SEEDLESS if generators else _REDUCERS)
    try:
        text = _unshared(plain)
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


def _unshared(plain: Any) -> bytes:
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
    return ("set", *sorted(members, key=_unshared))


class _PathPickler(pickle._Pickler):  # noqa: SLF001 - the C pickler has no hook per object
    """Writes a part that contains itself as its distance up the path; slow, for cycles only."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, _PROTOCOL)
        self.fast = True
        self._path: dict[int, int] = {}

    def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
        if isinstance(obj, str | bytes | int | float | type(None) | type):
            return super().save(obj, save_persistent_id)  # type: ignore[misc]  # missing from typeshed
        above = self._path.get(id(obj))
        if above is not None:
            return super().save(f"up {len(self._path) - above}")  # type: ignore[misc]  # as above
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
