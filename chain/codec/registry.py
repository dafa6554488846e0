"""The chain's protobuf schema: one FileDescriptorSet in a private pool, message classes made from it on demand.

A private pool lets this package live in one process with any other copy of the Cosmos schemas. ``make proto`` compiles
``proto/`` into ``chain/codec/descriptors.binpb``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError, Message

from chain.errors import UnpackAnyError

if api_implementation.Type() != "upb":
    raise ImportError(
        f"stratos needs protobuf's upb backend, found {api_implementation.Type()!r}: unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION "
        "and install protobuf from a binary wheel"
    )


def _load() -> tuple[descriptor_pool.DescriptorPool, tuple[str, ...]]:
    raw = resources.files("chain.codec").joinpath("descriptors.binpb").read_bytes()
    file_set = descriptor_pb2.FileDescriptorSet.FromString(raw)
    pool = descriptor_pool.DescriptorPool()
    for file in file_set.file:
        pool.Add(file)
    names = tuple(file.name for file in file_set.file)
    # Registers the extensions (amino.*, gogoproto.*, …) so that options parse.
    message_factory.GetMessageClassesForFiles(list(names), pool)
    return pool, names


POOL, FILES = _load()
"""The private pool and the names of the files in it."""


@cache
def message_class(full_name: str) -> Any:
    """The class of a message, as ``cosmos.bank.v1beta1.MsgSend``. Raises KeyError for an unknown name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))


def file_descriptors() -> Iterator[FileDescriptor]:
    """Every file of the schema, dependencies first."""
    for name in FILES:
        yield POOL.FindFileByName(name)


def services() -> Iterator[ServiceDescriptor]:
    """Every service of the schema, in file order."""
    for file in file_descriptors():
        yield from file.services_by_name.values()


def extension(full_name: str) -> FieldDescriptor:
    """An option's descriptor, as ``cosmos.msg.v1.signer``; use with ``option_of``."""
    return POOL.FindExtensionByName(full_name)


Any_: Final = message_class("google.protobuf.Any")


def option_of(descriptor: Any, option: FieldDescriptor) -> Any:
    """The value of a custom option on a message, field, method, … descriptor; None when it is not set (empty list if repeated)."""
    options = _options(descriptor)
    if option.is_repeated:
        return list(options.Extensions[option])
    return options.Extensions[option] if options.HasExtension(option) else None


_OPTION_TYPES: Final = {
    "Descriptor": "google.protobuf.MessageOptions",
    "FieldDescriptor": "google.protobuf.FieldOptions",
    "MethodDescriptor": "google.protobuf.MethodOptions",
    "ServiceDescriptor": "google.protobuf.ServiceOptions",
    "EnumDescriptor": "google.protobuf.EnumOptions",
}


@cache
def _options(descriptor: Any) -> Any:
    # GetOptions() answers in the default pool, which does not know our extensions: parse the same bytes in ours.
    kind = type(descriptor).__name__
    return message_class(_OPTION_TYPES[kind]).FromString(descriptor.GetOptions().SerializeToString())


def type_url(message: Message | Descriptor) -> str:
    """``/package.Name`` of a message, the form Cosmos uses in Any and in ``message.action`` events."""
    descriptor = message if isinstance(message, Descriptor) else message.DESCRIPTOR
    return "/" + descriptor.full_name


def pack_any(message: Message) -> Any:
    """An Any holding ``message`` in canonical bytes."""
    from chain.codec.canonical import encode

    return Any_(type_url="/" + message.DESCRIPTOR.full_name, value=encode(message))


def unpack_any(wrapped: Any) -> Any:
    """The message inside an Any. Raises UnpackAnyError (sdk/34) for a type that is not in the schema or bytes that do not parse."""
    url = wrapped.type_url
    if not url.startswith("/"):
        raise UnpackAnyError(f"type URL must start with '/', got {url[:200]!r}")
    try:
        cls = message_class(url[1:])
    except KeyError:
        raise UnpackAnyError(f"no concrete type registered for type URL {url[:200]}") from None
    try:
        return cls.FromString(wrapped.value)
    except DecodeError as error:
        raise UnpackAnyError(f"bytes of {url[:200]} do not parse: {error}") from None
