"""The numbers in an object, as bytes, in the places that the object has for them.

The bytes hold numbers and nothing else: no name, no class, no size. Where each belongs is said by
a *template*, an object that the declared learner made itself. So bytes can change how a learner
weighs, and never what it is made of; what does not fit the template to the byte is refused.

Two places may hold one array (scikit-learn's averaged weights do): which do is told with each
array, by the number of the earlier one, or -1.
"""

from __future__ import annotations

import copy
import hashlib
import struct
from typing import Any

import numpy as np

__all__ = ["NumberReader", "read", "write"]

# Kinds of numpy's types that are plain numbers, whatever their bytes.
_KINDS = "biuf"
# Of a generator; numpy believes any position within them.
_WORDS = 624
# That an array is no earlier one.
_NEW = -1
_TRUTHS = {b"\0": False, b"\1": True}
_NUMBER = struct.Struct("<q")


class NumberReader:
    """Bytes that are read from the front, and refused where they end too soon.

    Args:
        data: the bytes.

    >>> numbers = NumberReader(b"12345")
    >>> numbers.take(4), numbers.left
    (b'1234', 1)
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._next = data, 0

    def take(self, size: int) -> bytes:
        """The next bytes.

        Args:
            size: how many.

        Raises:
            ValueError: there are fewer.
        """
        if size > self.left:
            raise ValueError(f"expected {size} more bytes, given {self.left}")
        self._next += size
        return self._data[self._next - size : self._next]

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._next


def write(value: Any) -> tuple[bytes, bytes]:
    """The numbers in a value, and the digest of its layout: of all that is no number.

    Args:
        value: numbers, arrays of numbers, texts, None, numpy's generators, lists and dicts of
            them, and objects with attributes of such kinds.

    Raises:
        ValueError: something else is in it; it is named.
    """
    writer = _Writer()
    layout = writer.layout(value, "state")
    digest = hashlib.sha256(repr(layout).encode()).digest()
    return b"".join(writer.parts), digest


def read(template: Any, digest: bytes, numbers: NumberReader) -> Any:
    """A value like the template, with these numbers in it.

    Args:
        template: a value of the same layout; it is not changed.
        digest: of the layout that the numbers were written of.
        numbers: what `write` gave.

    Raises:
        ValueError: the layout is another one, or they are no such numbers (a KeyError, where one
            that is no truth stands for it).
    """
    if digest != write(template)[1]:
        raise ValueError("expected a state of the layout that the declared learner has")
    return _Reader(numbers).value(template)


class _Writer:
    """Collects the numbers of a value, in the order of its layout."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._objects: dict[int, int] = {}
        self._arrays: dict[int, int] = {}

    def layout(self, value: Any, path: str) -> Any:
        """The layout of a value: what it is, without its numbers.

        Args:
            value: any.
            path: where it is, for messages.
        """
        if value is None or isinstance(value, str):
            return [type(value).__name__, value]
        if isinstance(value, bool | int | float | np.generic):
            return self._number(value, path)
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if id(value) in self._objects:
            return ["same", self._objects[id(value)]]
        self._objects[id(value)] = len(self._objects)
        return self._compound(value, path)

    def _compound(self, value: Any, path: str) -> Any:
        if isinstance(value, np.random.RandomState):
            return self._generator(value, path)
        if isinstance(value, list | tuple):
            kind = type(value).__name__
            return [kind, [self.layout(each, f"{path}[{n}]") for n, each in enumerate(value)]]
        if isinstance(value, dict):
            items = value.items()
            return [
                "dict",
                [[repr(name), self.layout(v, f"{path}[{name!r}]")] for name, v in items],
            ]
        return self._object(value, path)

    def _number(self, value: Any, path: str) -> Any:
        if isinstance(value, np.generic) and not isinstance(value, float):
            if value.dtype.kind not in _KINDS:
                raise ValueError(f"{path}: expected a number, given {value.dtype}")
            self.parts.append(value.tobytes())
            return ["scalar", value.dtype.str]
        if isinstance(value, bool):
            self.parts.append(struct.pack("<?", value))
            return ["bool"]
        if isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise ValueError(f"{path}: expected an int of 64 bits, given {value}")
            self.parts.append(struct.pack("<q", value))
            return ["int"]
        # One that was a numpy scalar is written alike: the two are equal, to the last bit.
        self.parts.append(struct.pack("<d", value))
        return ["float"]

    def _array(self, array: np.ndarray[Any, Any], path: str) -> Any:
        if array.dtype.kind not in _KINDS:
            raise ValueError(f"{path}: expected an array of numbers, given one of {array.dtype}")
        number = self._arrays.get(id(array), _NEW)
        self.parts.append(_NUMBER.pack(number))
        if number == _NEW:
            self._arrays[id(array)] = len(self._arrays)
            self.parts.append(array.tobytes(_order(array)))
        return ["array", *_form(array)]

    def _generator(self, generator: np.random.RandomState, path: str) -> Any:
        state: Any = generator.get_state(legacy=False)
        inner = state["state"]
        return [
            state["bit_generator"],
            self.layout([inner["key"], inner["pos"], state["has_gauss"], state["gauss"]], path),
        ]

    def _object(self, value: Any, path: str) -> Any:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if isinstance(value, type) or callable(value):
            raise ValueError(f"{path}: expected numbers, given {value!r}"[:200])  # noqa: TRY004
        if not hasattr(value, "__dict__"):
            # What has no attributes to read, such as a loss of scikit-learn's, holds nothing that
            # is learned; what does would answer otherwise when read back, which is tried.
            return ["constant", kind]
        attributes = sorted(vars(value).items())
        return [kind, [[name, self.layout(v, f"{path}.{name}")] for name, v in attributes]]


class _Reader:
    """Makes a value like a template, of numbers in the order of the template's layout."""

    def __init__(self, numbers: NumberReader) -> None:
        self._numbers = numbers
        self._objects: dict[int, Any] = {}
        self._arrays: list[np.ndarray[Any, Any]] = []

    def value(self, template: Any) -> Any:
        """The value in the place of a template.

        Args:
            template: what lies there in the template.
        """
        if template is None or isinstance(template, str):
            return template
        if isinstance(template, bool | int | float | np.generic):
            return self._number(template)
        if isinstance(template, np.ndarray):
            return self._array(template)
        if id(template) not in self._objects:
            self._objects[id(template)] = self._compound(template)
        return self._objects[id(template)]

    def _number(self, template: Any) -> Any:
        if isinstance(template, np.generic):
            return np.frombuffer(self._numbers.take(template.dtype.itemsize), template.dtype)[0]
        if isinstance(template, bool):
            return _TRUTHS[self._numbers.take(1)]
        form = "<q" if isinstance(template, int) else "<d"
        (number,) = struct.unpack(form, self._numbers.take(8))
        return number

    def _array(self, template: np.ndarray[Any, Any]) -> Any:
        (number,) = _NUMBER.unpack(self._numbers.take(_NUMBER.size))
        if number == _NEW:
            data = np.frombuffer(self._numbers.take(template.nbytes), template.dtype)
            # Its own memory, to be written to, and in the order that it had: sums go by it.
            array: np.ndarray[Any, Any] = data.reshape(template.shape, order=_order(template)).copy(
                order="K"
            )
            self._arrays.append(array)
            return array
        if not 0 <= number < len(self._arrays) or _form(self._arrays[number]) != _form(template):
            raise ValueError(f"expected an array of the form {_form(template)}, given no such")
        return self._arrays[number]

    def _compound(self, template: Any) -> Any:
        if isinstance(template, np.random.RandomState):
            return self._generator(template)
        if isinstance(template, list | tuple):
            return type(template)([self.value(each) for each in template])
        if isinstance(template, dict):
            return {name: self.value(each) for name, each in template.items()}
        if not hasattr(template, "__dict__"):
            return template
        value = copy.copy(template)
        for name, each in sorted(vars(template).items()):
            vars(value)[name] = self.value(each)
        return value

    def _generator(self, template: np.random.RandomState) -> np.random.RandomState:
        state: Any = template.get_state(legacy=False)
        inner = state["state"]
        key, position, has_gauss, gauss = self.value(
            [inner["key"], inner["pos"], state["has_gauss"], state["gauss"]]
        )
        if not (0 <= position <= _WORDS and has_gauss in {0, 1}):  # numpy would read beyond it
            raise ValueError(f"expected a position within {_WORDS} words, given {position}")
        generator = np.random.RandomState()
        generator.set_state(("MT19937", key, position, has_gauss, gauss))
        return generator


def _form(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    """What an array is, without its numbers."""
    return array.dtype.str, array.shape, _order(array)


def _order(array: np.ndarray[Any, Any]) -> Any:
    """How the numbers of an array lie: by rows, unless it is by columns alone."""
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
