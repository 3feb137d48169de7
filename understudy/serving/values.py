"""Feast's two wire formats, read without Feast: the key of an entity's row, and a feature's value.

Entity keys are version 3 of Feast's serialisation (``feast/infra/key_encoding_utils.py``); values are the protocol
buffer ``feast.types.Value`` (``protos/feast/types/Value.proto``), of which the types that our features have are
declared here. A test holds both against Feast.
"""

import struct
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = ["DecodeError", "decode", "entity_key"]

_TEXT = 2  # feast.value_type.ValueType.STRING
_Field = descriptor_pb2.FieldDescriptorProto
_PLAIN = {
    "string_val": (2, _Field.TYPE_STRING),
    "int32_val": (3, _Field.TYPE_INT32),
    "int64_val": (4, _Field.TYPE_INT64),
    "double_val": (5, _Field.TYPE_DOUBLE),
    "float_val": (6, _Field.TYPE_FLOAT),
}
_LISTS = {
    "string_list_val": (12, _Field.TYPE_STRING),
    "int64_list_val": (14, _Field.TYPE_INT64),
    "double_list_val": (15, _Field.TYPE_DOUBLE),
    "float_list_val": (16, _Field.TYPE_FLOAT),
}


def entity_key(keys: tuple[str, ...], values: tuple[str, ...]) -> bytes:
    """The key of the row of an entity, or of several together.

    Args:
        keys: names of the join keys, such as ``user_id``; values: theirs.
    """
    pairs = sorted(zip(keys, values, strict=True))
    parts = [struct.pack("<I", len(pairs))]
    parts += [struct.pack("<II", _TEXT, len(key.encode())) + key.encode() for key, _ in pairs]
    parts += [struct.pack("<II", _TEXT, len(value.encode())) + value.encode() for _, value in pairs]
    return b"".join(parts)


def decode(data: bytes) -> Any:
    """A feature's value: text, number, list of either, or None.

    Raises:
        DecodeError: these bytes are no value.
    """
    message = _VALUE()
    message.ParseFromString(data)
    kind = message.WhichOneof("val")
    if kind is None:
        return None
    value = getattr(message, kind)
    return value.val if kind in _LISTS else value


def _declared() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="understudy/value.proto", package="understudy", syntax="proto3")
    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="val")
    for name, (number, kind) in _PLAIN.items():
        value.field.add(name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL, oneof_index=0)
    for name, (number, kind) in _LISTS.items():
        held = file.message_type.add(name=f"{name.title().replace('_', '')}")
        held.field.add(name="val", number=1, type=kind, label=_Field.LABEL_REPEATED)
        value.field.add(
            name=name,
            number=number,
            type=_Field.TYPE_MESSAGE,
            type_name=f".understudy.{held.name}",
            label=_Field.LABEL_OPTIONAL,
            oneof_index=0,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("understudy.Value"))


_VALUE = _declared()
