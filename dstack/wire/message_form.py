"""The form of messages: a declaration of each field, with a check, by which a message is written and read back.

A message is frozen and equal by value. Reading JSON is checking JSON, for every message comes from another process.
dataclasses would do the same, and cost a runner's start a millisecond for each class.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    ClassVar,
    Dict,
    Generic,
    Mapping,
    NoReturn,
    Optional,
    Type,
    TypeVar,
)

M = TypeVar("M", bound="Message")
A = TypeVar("A", bound="Message")
R = TypeVar("R", bound="RequestMessage[Any]")

if TYPE_CHECKING:
    from typing import dataclass_transform

    class _Answered(Generic[A]):
        pass
else:

    class _Answered:
        """Stands for Generic, without its work for each class."""

        def __class_getitem__(cls, item):
            return cls

    def dataclass_transform(**_):
        return lambda cls: cls


_NOTHING: Any = object()


class MisfitError(ValueError):
    """A message that breaks the declaration. `field` is the path of the wrong field, "" for the whole message.

    `kind` and `hint` go into the refusal of the runner.
    """

    def __init__(self, text: str, *, field: str = "", kind: str = "request", hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.field = field
        self.kind = kind
        self.hint = hint

    def __str__(self) -> str:
        return "field %r %s" % (self.field, self.text) if self.field else self.text

    def below(self, name: str) -> MisfitError:
        """The same error for the message around, whose field `name` holds the wrong message."""
        joint = "" if not self.field or self.field.startswith("[") else "."
        path = name + joint + self.field if self.field else name
        return MisfitError(self.text, field=path, kind=self.kind, hint=self.hint)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 2**63 - 1


class Kind:
    """A kind of value: `read` checks JSON and gives the value, `write` gives the JSON of a value.

    `read` takes the JSON, and whether another version may have written the JSON. Raises MisfitError.
    """

    def __init__(self, read: Callable[[Any, bool], Any], write: Optional[Callable[[Any], Any]] = None) -> None:
        self.read = read
        self.write = write


class Field:
    """The declaration of one field; see `field`."""

    def __init__(self, kind: Kind, default: Any, absent: Any) -> None:
        self.kind = kind
        self.default = default
        self.is_required = default is _NOTHING
        self.absent = absent if absent is not _NOTHING else default


def field(kind: Kind, *, default: Any = _NOTHING, absent: Any = _NOTHING) -> Any:
    """Declare a field of a message.

    A field with a `default` may be left out, in code and in JSON; a field with the default None is not written while
    the value is None. `absent` is the value in a file of an earlier version, from before the field existed.
    """
    return Field(kind, default, absent)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class Message:
    """A frozen value with declared fields; two are equal when type and fields are."""

    fields: ClassVar[Mapping[str, Field]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        for name in own:
            delattr(cls, name)  # else the declaration would stand in for a missing value
        cls.fields = {**cls.fields, **own}

    def __init__(self, **values: Any) -> None:
        for name, each in self.fields.items():
            value = values.pop(name, each.default)
            if value is _NOTHING:
                raise TypeError("%s lacks %s" % (type(self).__name__, name))
            self.__dict__[name] = value
        if values:
            raise TypeError("%s has no %s" % (type(self).__name__, ", ".join(values)))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("%s is frozen" % type(self).__name__)

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("%s is frozen" % type(self).__name__)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    # Equal by value, and a value may be a mapping, which has no hash.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "%s(%s)" % (type(self).__name__, ", ".join("%s=%r" % item for item in self.__dict__.items()))

    def replace(self: M, **changes: Any) -> M:
        """The same message with other values of some fields."""
        return type(self)(**{**self.__dict__, **changes})

    def to_json(self) -> Dict[str, Any]:
        """The fields as JSON, in the order of their declaration."""
        written = {}
        for name, each in self.fields.items():
            value = self.__dict__[name]
            if value is None and each.default is None:
                continue
            written[name] = value if each.kind.write is None else each.kind.write(value)
        return written

    @classmethod
    def from_json(cls: Type[M], data: object) -> M:
        """A message of this wire version: every field is known, and none is missing.

        Raises MisfitError, with the name of the field.
        """
        return cls._read(data, False)

    @classmethod
    def from_other_version(cls: Type[M], data: object) -> M:
        """A message of an earlier or later version: unknown fields are passed over, and missing fields have their
        values from before the fields existed. Raises MisfitError, with the name of the field."""
        return cls._read(data, True)

    @classmethod
    def _read(cls: Type[M], data: object, tolerant: bool) -> M:
        if not isinstance(data, dict):
            raise MisfitError("must be an object")
        if not tolerant:
            for name in data:
                if name not in cls.fields:
                    raise MisfitError("is unknown", field=str(name)[:100])
        values = {}
        for name, each in cls.fields.items():
            value = data.get(name, _NOTHING)
            instead = each.absent if tolerant else each.default
            if value is _NOTHING and instead is _NOTHING:
                raise MisfitError("is missing", field=name)
            # An earlier version may have written null where this version has a list or a text.
            if value is _NOTHING or (tolerant and value is None and instead is not _NOTHING):
                values[name] = instead
                continue
            try:
                values[name] = each.kind.read(value, tolerant)
            except MisfitError as misfit:
                raise misfit.below(name) from None
        return cls(**values)


class RequestMessage(Message, _Answered[A]):  # the type of the answer
    """A request to a runner. `op` is the operation; `answer_from` reads the answer.

    `streams`: bytes come before the answer, as far as the `window` of the request allows.
    """

    op: ClassVar[str] = ""
    streams: ClassVar[bool] = False
    _answer: ClassVar[Any]

    def __init_subclass__(cls, *, op: str = "", answer: Any = None, streams: bool = False) -> None:
        super().__init_subclass__()
        cls.op, cls._answer, cls.streams = op, answer, streams

    def envelope(self, number: int, window: Optional[int] = None) -> Dict[str, Any]:
        """The whole request as it goes over the wire, as request `number`."""
        streams = {} if window is None else {"window": window}
        return {"id": number, "op": self.op, **self.to_json(), **streams}

    @classmethod
    def from_envelope(cls: Type[R], message: Mapping[str, Any]) -> R:
        """The request in a message off the wire. Raises MisfitError, with the name of the field."""
        around = ("id", "op", "window") if cls.streams else ("id", "op")
        if "window" in around and not _is_count(message.get("window", 0)):
            raise MisfitError("must be a whole number", field="window")
        return cls.from_json({name: value for name, value in message.items() if name not in around})

    def answer_from(self, data: object) -> A:
        """The answer to this request; raises MisfitError."""
        answer: A = self._answer.from_other_version(data)
        return answer


class DoneAnswer(Message):
    """An answer without fields: the request was done."""
