"""Learners to bytes and back, through an allow-list of exact names.

A pickle is a program. Whoever may write one may call whatever `find_class` hands out, so:

1. A name is handed out only when it is on the list *and* what it resolves to says of itself that
   it lives there (`__module__`, `__qualname__`). Thus `river.compose.pipeline` gives `Pipeline`,
   and never the `os.system` that a dotted name could reach through a module's imports.
2. Of river only classes of learning parts are on it: what derives from `river.base.Base`, and a
   list of plain state classes, in the packages below. What reads files or the network
   (`datasets`, `stream`), runs other code (`compat`, `checks`, `evaluate`) or draws is not.
3. `getattr`, which river needs to pickle a bound method of its own, is replaced by one that gives
   the methods listed below and nothing else.
4. Classes of a user's own are handed out where the *declared* estimator is made of them: they are
   collected from it (`classes_in`), and a pickle that names any other is refused.
5. A pickle may also *set attributes on a class* it was handed (`BUILD` does). Everything handed
   out is compared with what it was before, put back, and the pickle refused.

The signature is checked before any of this runs (`snapshot`, `checkpoint`); this list is what
still holds where signatures are switched off, or a key has leaked.
"""

from __future__ import annotations

import copyreg
import gc
import importlib
import inspect
import io
import pickle
import random
import sys
import types
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from river import base, proba
from river.__version__ import __version__ as RIVER_VERSION  # noqa: N812 - a constant of ours

from stream_ml.errors import STOPS, SnapshotRefused, brief_error
from stream_ml.models.learner import STATE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "PICKLE_BYTES_MAX",
    "RIVER_VERSION",
    "AllowList",
    "Classes",
    "classes_in",
    "compress",
    "contain_errors",
    "decompress",
    "dumps",
    "loads",
    "without_collector",
]

PICKLE_BYTES_MAX = STATE_BYTES_MAX

# Classes beside river's that a line's learner may be made of, by module and qualified name.
Classes = dict[tuple[str, str], type]

_PROTOCOL = 5
# `Py_TPFLAGS_HEAPTYPE`: classes written in Python; the others refuse new attributes themselves.
_HEAP_TYPE = 1 << 9
# What can be set on a class or function without standing in its own dictionary.
_CLASS_ATTRIBUTES: tuple[str, ...] = ("__bases__", "__name__", "__qualname__")
_FUNCTION_ATTRIBUTES: tuple[str, ...] = (
    "__code__",
    "__defaults__",
    "__kwdefaults__",
    "__name__",
    "__qualname__",
)

# Packages of river whose classes are parts of a learner.
_PACKAGES = frozenset(
    {
        "anomaly",
        "cluster",
        "compose",
        "covariance",
        "drift",
        "dummy",
        "ensemble",
        "facto",
        "feature_extraction",
        "feature_selection",
        "forest",
        "imblearn",
        "linear_model",
        "metrics",
        "misc",
        "model_selection",
        "multiclass",
        "naive_bayes",
        "neighbors",
        "optim",
        "preprocessing",
        "proba",
        "rules",
        "sketch",
        "stats",
        "tree",
        "utils",
    }
)

# State of river's learners that does not derive from `river.base.Base`.
_STATE_CLASSES = frozenset(
    {
        ("river.cluster.clustream", "CluStreamMicroCluster"),
        ("river.cluster.dbstream", "DBSTREAMMicroCluster"),
        ("river.cluster.denstream", "DenStreamMicroCluster"),
        ("river.covariance.emp", "EmpiricalCovariance"),
        ("river.covariance.emp", "EmpiricalPrecision"),
        ("river.covariance.ewa", "EwaCovariance"),
        ("river.covariance.ewa", "EwaPrecision"),
        ("river.drift.binary.hddm_w", "SampleInfo"),
        ("river.ensemble.streaming_random_patches", "BaseSRPClassifier"),
        ("river.ensemble.streaming_random_patches", "BaseSRPRegressor"),
        ("river.imblearn.hard_sampling", "Triplet"),
        ("river.neighbors.ann.nn_vertex", "Vertex"),
        ("river.neighbors.base", "FunctionWrapper"),
        ("river.rules.base", "NominalLiteral"),
        ("river.rules.base", "NumericLiteral"),
        ("river.sketch.histogram", "Bin"),
        ("river.stats.kolmogorov_smirnov", "_Node"),
        ("river.tree.losses", "BinaryCrossEntropyLoss"),
        ("river.tree.losses", "SquaredErrorLoss"),
        ("river.tree.split_criterion.gini_split_criterion", "GiniSplitCriterion"),
        ("river.tree.split_criterion.hellinger_distance_criterion", "HellingerDistanceCriterion"),
        ("river.tree.split_criterion.info_gain_split_criterion", "InfoGainSplitCriterion"),
        (
            "river.tree.split_criterion.intra_cluster_variance_reduction_split_criterion",
            "IntraClusterVarianceReductionSplitCriterion",
        ),
        (
            "river.tree.split_criterion.variance_ratio_split_criterion",
            "VarianceRatioSplitCriterion",
        ),
        (
            "river.tree.split_criterion.variance_reduction_split_criterion",
            "VarianceReductionSplitCriterion",
        ),
        ("river.tree.splitter.ebst_splitter", "EBSTNode"),
        ("river.tree.splitter.exhaustive_splitter", "ExhaustiveNode"),
        ("river.tree.splitter.qo_splitter", "FeatureQuantizer"),
        ("river.tree.splitter.qo_splitter", "Slot"),
        ("river.tree.utils", "BranchFactory"),
        ("river.tree.utils", "GradHess"),
        ("river.tree.utils", "GradHessMerit"),
        ("river.tree.utils", "GradHessStats"),
        ("river.utils.rolling", "Rolling"),
        ("river.utils.sorted_window", "SortedWindow"),
    }
)

# Names outside the classes above that river's learners do pickle, each met in a learner.
_EXACT = frozenset(
    {
        ("builtins", "bool"),
        ("builtins", "complex"),
        ("builtins", "dict"),
        ("builtins", "float"),
        ("builtins", "frozenset"),
        ("builtins", "int"),
        ("builtins", "list"),
        ("builtins", "set"),
        ("builtins", "tuple"),
        ("collections", "Counter"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("collections", "deque"),
        ("copy", "deepcopy"),
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "timedelta"),
        ("functools", "partial"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy.random._mt19937", "MT19937"),
        ("numpy.random._pcg64", "PCG64"),
        ("numpy.random._pickle", "__bit_generator_ctor"),
        ("numpy.random._pickle", "__generator_ctor"),
        ("numpy.random._pickle", "__randomstate_ctor"),
        ("random", "Random"),
        ("river._river_rust.drift", "AdaptiveWindowing"),
        ("river._river_rust.stats", "RsEWMean"),
        ("river._river_rust.stats", "RsEWVar"),
        ("river._river_rust.stats", "RsIQR"),
        ("river._river_rust.stats", "RsKurtosis"),
        ("river._river_rust.stats", "RsPeakToPeak"),
        ("river._river_rust.stats", "RsQuantile"),
        ("river._river_rust.stats", "RsRollingIQR"),
        ("river._river_rust.stats", "RsRollingPRAUC"),
        ("river._river_rust.stats", "RsRollingQuantile"),
        ("river._river_rust.stats", "RsRollingROCAUC"),
        ("river._river_rust.stats", "RsSkew"),
        ("river._river_rust.vectordict", "VectorDict"),
        ("river._river_rust.vectordict", "euclidean_distance_dict"),
        ("river._river_rust.vectordict", "euclidean_distance_tuple"),
        ("river.naive_bayes.gaussian", "GaussianNB._make_gaussian"),
        ("river.tree.splitter.ebst_splitter", "EBSTNode._update_estimator_multivariate"),
        ("river.tree.splitter.ebst_splitter", "EBSTNode._update_estimator_univariate"),
        ("river.tree.splitter.qo_splitter", "Slot._update_estimator_multivariate"),
        ("river.tree.splitter.qo_splitter", "Slot._update_estimator_univariate"),
        ("river.utils.math", "minkowski_distance"),
        ("statistics", "NormalDist"),
    }
)

# Bound methods that river keeps as state, by the module that defines them.
_METHODS = frozenset(
    {
        ("river.ensemble.bagging", "_leveraging_bag"),
        ("river.ensemble.bagging", "_leveraging_bag_half"),
        ("river.ensemble.bagging", "_leveraging_bag_me"),
        ("river.ensemble.bagging", "_leveraging_bag_wt"),
        ("river.ensemble.bagging", "_leveraging_subag"),
        ("river.linear_model.pa", "_calc_tau_0"),
        ("river.linear_model.pa", "_calc_tau_1"),
        ("river.linear_model.pa", "_calc_tau_2"),
        ("river.preprocessing.scale_target", "_scale"),
        ("river.preprocessing.scale_target", "_unscale"),
        ("river.tree.splitter.nominal_splitter_reg", "_update_estimator_multivariate"),
        ("river.tree.splitter.nominal_splitter_reg", "_update_estimator_univariate"),
        ("river.tree.splitter.qo_splitter", "_update_estimator_multivariate"),
        ("river.tree.splitter.qo_splitter", "_update_estimator_univariate"),
    }
)

# River gives each distribution a generator seeded by the operating system, for `sample`, which
# no learner calls: 2.5 kB of noise per Gaussian, most of a tree's pickle. One idle generator
# stands in for all of them.
_IDLE = random.Random(0)  # noqa: S311 - never drawn from


_NO_CLASSES: Mapping[tuple[str, str], type] = types.MappingProxyType({})


def dumps(learner: Any) -> bytes:
    """The pickle of a learner, or of a plain dict of them.

    Raises:
        SnapshotRefused: `class_not_allowed`, where a part of it cannot be pickled (a function of
            the user's, a lambda); `too_large`, where it is nested too deep, or
            of too many bytes.
    """
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=_PROTOCOL)
    pickler.dispatch_table = _REDUCERS
    with contain_errors(
        "class_not_allowed",
        "expected a learner made of classes that can be written, given one that cannot ({}); "
        "compute what a function of your own computes as a declared feature",
        learner,
    ):
        pickler.dump(learner)
    if buffer.tell() > PICKLE_BYTES_MAX:
        raise SnapshotRefused(
            "too_large",
            f"expected at most {PICKLE_BYTES_MAX} bytes of pickle, given {type(learner).__name__} "
            f"with {buffer.tell()}; bound it",
        )
    return buffer.getvalue()


@contextmanager
def contain_errors(reason: str, message: str, learner: Any = None) -> Iterator[None]:
    """Let a learner's own code run, and contain whatever it raises: Rust panics, `SystemExit`.

    Args:
        reason: of the refusal that anything unexpected becomes.
        message: its words, with `{}` for the error's.
        learner: where it is given, too little memory or stack is told as its size.

    Raises:
        SnapshotRefused: `too_large`, or `reason`. One from within, and what is meant for the
            process (`STOPS`), comes through as it is.
    """
    try:
        yield
    except SnapshotRefused:
        raise
    except STOPS:
        raise
    except BaseException as error:  # noqa: BLE001 - code that is not ours may raise anything
        if learner is not None and isinstance(error, RecursionError | MemoryError):
            raise _too_large(learner, error) from None
        raise SnapshotRefused(reason, message.format(brief_error(error))) from None


def _too_large(learner: Any, error: BaseException) -> SnapshotRefused:
    """That a learner takes more room than there is: of the stack, or of memory."""
    name = type(learner).__name__
    if isinstance(error, MemoryError):
        return SnapshotRefused("too_large", f"{name} takes more memory than there is; bound it")
    return SnapshotRefused("too_large", f"{name} is nested too deep to be pickled; bound it")


@contextmanager
def without_collector() -> Iterator[None]:
    """Let the collector of cycles rest: a learner's parts are many, and none of them garbage.

    Reading back a million of them takes a third of the time (measured).
    """
    resting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if resting:
            gc.enable()


def classes_in(learner: Any) -> Classes:
    """The classes of a user's own that an estimator's pickle names.

    What comes with Python is not among them, whatever holds it: the list above is all of that.

    Args:
        learner: a declared estimator, or one that a trial has taught.

    Raises:
        SnapshotRefused: as `dumps`.
    """
    pickler = _Collector(io.BytesIO(), protocol=_PROTOCOL)
    pickler.dispatch_table = _REDUCERS
    with contain_errors("class_not_allowed", "expected an estimator to write, given {}", learner):
        pickler.dump(learner)
    return pickler.classes


class _Collector(pickle.Pickler):
    """Collects the classes that a pickle names, and that no list has."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.classes: Classes = {}

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, type):
            module, name = obj.__module__, obj.__qualname__
            is_ours = module.partition(".")[0] not in sys.stdlib_module_names | {"river"}
            if is_ours and obj.__flags__ & _HEAP_TYPE and (module, name) not in _EXACT:
                self.classes[module, name] = obj


def loads(data: bytes, classes: Mapping[tuple[str, str], type] = _NO_CLASSES) -> Any:
    """The learner in a pickle; nothing outside the allow-list is called or even imported.

    Args:
        data: the pickle.
        classes: of the declared estimator, beside those on the list.

    Raises:
        SnapshotRefused: `class_not_allowed` or `malformed`.
    """
    unpickler = AllowList(io.BytesIO(data), classes)
    try:
        with (
            contain_errors(
                "malformed", "expected the pickle of a learner, given bytes that raise {}"
            ),
            without_collector(),
        ):
            learner = unpickler.load()
    finally:
        alterations = unpickler.restore()
    if alterations:
        raise SnapshotRefused(
            "class_not_allowed", f"the pickle alters {', '.join(alterations)} instead of a learner"
        )
    return learner


def compress(data: bytes) -> bytes:
    """Fast compression: learners are pickled far more often than they are read."""
    return zlib.compress(data, 1)


def decompress(data: bytes) -> bytes:
    """What `compress` was given, up to `PICKLE_BYTES_MAX`.

    Raises:
        SnapshotRefused: `too_large` or `malformed`.
    """
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, PICKLE_BYTES_MAX + 1)
    except zlib.error as error:
        raise SnapshotRefused("malformed", f"expected a compressed payload: {error}") from None
    if len(plain) > PICKLE_BYTES_MAX:
        raise SnapshotRefused(
            "too_large",
            f"expected at most {PICKLE_BYTES_MAX} bytes of pickle, given a payload of {len(data)} "
            "bytes that holds more",
        )
    if not stream.eof or stream.unused_data:
        raise SnapshotRefused("malformed", "expected a payload that ends where its pickle ends")
    return plain


class AllowList(pickle.Unpickler):
    """Reads a pickle, hands out only what is on the list, and remembers how each thing looked."""

    def __init__(
        self, file: io.BytesIO, classes: Mapping[tuple[str, str], type] = _NO_CLASSES
    ) -> None:
        super().__init__(file)
        self._classes = classes
        self._handed_objects: dict[int, tuple[Any, dict[str, Any]]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name in a pickle stands for; `SnapshotRefused` if it is not on the list.

        Args:
            module: where the name is from, as the pickle has it.
            name: of a class or function.
        """
        if (module, name) == ("builtins", "getattr"):
            return _bound_method
        target = self._classes.get((module, name)) or _resolve(module, name)
        if id(target) not in self._handed_objects:
            self._handed_objects[id(target)] = (target, _attributes(target))
        return target

    def restore(self) -> list[str]:
        """Undo what the pickle did to what it was handed; the names of what it did it to."""
        alterations = []
        for target, original in self._handed_objects.values():
            current = _attributes(target)
            if _is_same(original, current):
                continue
            alterations.append(f"{target.__module__}.{target.__qualname__}")
            for name in current.keys() - original.keys():
                delattr(target, name)
            for name, value in original.items():
                if not _is_same({name: value}, {name: current.get(name, current)}):
                    setattr(target, name, value)
        return alterations


def _resolve(module: str, name: str) -> Any:
    """What the allow-list gives for a name."""
    is_listed = (module, name) in _EXACT
    if not is_listed and not _may_hold_parts(module):
        raise _not_allowed(module, name)
    try:
        target: Any = importlib.import_module(module)
        for part in name.split("."):
            # The class's own dictionary: inheritance and descriptors would be ways around.
            target = inspect.getattr_static(target, part)
    except (ImportError, AttributeError):
        raise _not_allowed(module, name) from None
    if isinstance(target, staticmethod | classmethod):
        target = target.__func__
    if is_listed or (
        isinstance(target, type)
        and target.__module__ == module
        and target.__qualname__ == name
        and (issubclass(target, base.Base) or (module, name) in _STATE_CLASSES)
    ):
        return target
    raise _not_allowed(module, name)


def _may_hold_parts(module: str) -> bool:
    first, _, tail = module.partition(".")
    parts = tail.split(".")
    return first == "river" and parts[0] in _PACKAGES and "datasets" not in parts


def _not_allowed(module: str, name: str) -> SnapshotRefused:
    return SnapshotRefused(
        "class_not_allowed",
        f"expected only parts of river's learners, given {module}.{name}"[:500],
    )


def _bound_method(owner: Any, name: str) -> Any:
    """What `getattr` is to a pickle of ours: a known method of a river object or class."""
    if isinstance(owner, type):  # how protocol 3 spells a dotted name
        return _resolve(owner.__module__, f"{owner.__qualname__}.{name}")
    for cls in type(owner).__mro__:
        method = vars(cls).get(name)
        if method is not None and (cls.__module__, name) in _METHODS:
            if isinstance(method, classmethod):
                return types.MethodType(method.__func__, type(owner))
            return types.MethodType(method, owner)
    raise _not_allowed("builtins", f"getattr of {type(owner).__name__}.{name}")


def _attributes(target: Any) -> dict[str, Any]:
    """The attributes that a pickle could set on what it was handed."""
    if isinstance(target, type):
        if not target.__flags__ & _HEAP_TYPE:
            return {}
        special = _CLASS_ATTRIBUTES
    elif isinstance(target, types.FunctionType):
        special = _FUNCTION_ATTRIBUTES
    else:
        return {}
    return {**vars(target), **{name: getattr(target, name) for name in special}}


def _is_same(original: dict[str, Any], current: dict[str, Any]) -> bool:
    return original.keys() == current.keys() and all(
        # Names and bases are made anew at each look; the rest is the same object or altered.
        current[name] is value or (isinstance(value, str | tuple) and current[name] == value)
        for name, value in original.items()
    )


def _reduce_random(generator: random.Random) -> Any:
    if generator is _IDLE:
        return random.Random, (0,)
    return generator.__reduce_ex__(_PROTOCOL)


def _reduce_distribution(distribution: Any) -> Any:
    if distribution.seed is not None:
        return distribution.__reduce_ex__(_PROTOCOL)
    state = {**distribution.__dict__, "_rng": _IDLE}
    return copyreg.__newobj__, (type(distribution),), state  # type: ignore[attr-defined]  # missing from typeshed


_DISTRIBUTIONS = (proba.Beta, proba.Gaussian, proba.Multinomial, proba.MultivariateGaussian)

_REDUCERS: dict[type, Any] = {
    **copyreg.dispatch_table,
    random.Random: _reduce_random,
    **dict.fromkeys(_DISTRIBUTIONS, _reduce_distribution),
}
