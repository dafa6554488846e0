"""The application described to clients that build themselves from it: interfaces and who implements them, services, sign modes, files.

All of it comes from the schema: ``cosmos_proto.implements_interface`` on messages, and the handlers that are registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor

from chain.codec.registry import extension, file_descriptors, message_class, option_of
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto import keys
from chain.errors import InvalidRequest
from chain.module import Query
from chain.store.api import StateReader
from chain.tx import signing

V1BETA1: Final = "cosmos.base.reflection.v1beta1."
V2ALPHA1: Final = "cosmos.base.reflection.v2alpha1."
FILES: Final = "cosmos.reflection.v1."
MESSAGE: Final = "cosmos.base.v1beta1.Msg"
_IMPLEMENTS: Final = extension("cosmos_proto.implements_interface")
_BESIDE_THE_SCHEMA: Final = {
    "cosmos.crypto.PubKey": [
        url[1:] for url in (keys.SECP256K1_URL, keys.ETH_SECP256K1_URL, keys.SECP256R1_URL, keys.ED25519_URL, keys.MULTISIG_URL)
    ],
    "cosmos.auth.v1beta1.AccountI": [
        f"cosmos.vesting.v1beta1.{kind}Account"
        for kind in ("BaseVesting", "ContinuousVesting", "DelayedVesting", "PeriodicVesting", "PermanentLocked")
    ],
}
"""What the SDK registers in code and says nothing of in its .proto files."""
_SIGN_MODES: Final = {
    "SIGN_MODE_DIRECT": signing.DIRECT,
    "SIGN_MODE_DIRECT_AUX": signing.DIRECT_AUX,
    "SIGN_MODE_LEGACY_AMINO_JSON": signing.LEGACY_AMINO_JSON,
}


@cache
def _implementers() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}

    def visit(descriptor: Descriptor) -> None:
        for name in option_of(descriptor, _IMPLEMENTS):
            found.setdefault(name, []).append(descriptor.full_name)
        for inner in descriptor.nested_types:
            visit(inner)

    for file in file_descriptors():
        for descriptor in file.message_types_by_name.values():
            visit(descriptor)
    for name, implementers in _BESIDE_THE_SCHEMA.items():
        found.setdefault(name, []).extend(implementers)
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def handlers(app: Any) -> Mapping[str, Query]:
    """The methods of the SDK's three reflection services by path; ``app`` has ``queries``, ``modules`` and ``chain_id``."""

    def interfaces() -> dict[str, tuple[str, ...]]:
        return {**_implementers(), MESSAGE: tuple(sorted(name for module in app.modules for name in module.messages))}

    def list_interfaces(ctx: Context, state: StateReader, request: Any) -> Any:
        return message_class(V1BETA1 + "ListAllInterfacesResponse")(interface_names=sorted(interfaces()))

    def list_implementations(ctx: Context, state: StateReader, request: Any) -> Any:
        if not request.interface_name:
            raise InvalidRequest("invalid interface name")
        names = interfaces().get(request.interface_name, ())
        return message_class(V1BETA1 + "ListImplementationsResponse")(implementation_message_names=[f"/{name}" for name in names])

    def authn(ctx: Context, state: StateReader, request: Any) -> Any:
        response = message_class(V2ALPHA1 + "GetAuthnDescriptorResponse")()
        for name, number in _SIGN_MODES.items():
            response.authn.sign_modes.add(name=name, number=number)
        return response

    def chain(ctx: Context, state: StateReader, request: Any) -> Any:
        return message_class(V2ALPHA1 + "GetChainDescriptorResponse")(chain={"id": app.chain_id})

    def codec(ctx: Context, state: StateReader, request: Any) -> Any:
        response = message_class(V2ALPHA1 + "GetCodecDescriptorResponse")()
        for name, implementers in sorted(interfaces().items()):
            shown = response.codec.interfaces.add(fullname=name)
            for one in implementers:
                shown.interface_implementers.add(fullname=one, type_url=f"/{one}")
        return response

    def configuration(ctx: Context, state: StateReader, request: Any) -> Any:
        return message_class(V2ALPHA1 + "GetConfigurationDescriptorResponse")(config={"bech32_account_address_prefix": bech32.ACCOUNT})

    def query_services(ctx: Context, state: StateReader, request: Any) -> Any:
        response = message_class(V2ALPHA1 + "GetQueryServicesDescriptorResponse")()
        by_service: dict[str, Any] = {}
        for path in app.queries.paths:
            service, _, method = path.lstrip("/").partition("/")
            if service not in by_service:
                by_service[service] = response.queries.query_services.add(fullname=service)
            by_service[service].methods.add(name=method, full_query_path=path)
        return response

    def tx(ctx: Context, state: StateReader, request: Any) -> Any:
        response = message_class(V2ALPHA1 + "GetTxDescriptorResponse")(tx={"fullname": "cosmos.tx.v1beta1.Tx"})
        for name in interfaces()[MESSAGE]:
            response.tx.msgs.add(msg_type_url=f"/{name}")
        return response

    def files(ctx: Context, state: StateReader, request: Any) -> Any:
        response = message_class(FILES + "FileDescriptorsResponse")()
        for file in file_descriptors():
            response.files.add().ParseFromString(file.serialized_pb)
        return response

    return {
        f"/{V1BETA1}ReflectionService/ListAllInterfaces": list_interfaces,
        f"/{V1BETA1}ReflectionService/ListImplementations": list_implementations,
        f"/{V2ALPHA1}ReflectionService/GetAuthnDescriptor": authn,
        f"/{V2ALPHA1}ReflectionService/GetChainDescriptor": chain,
        f"/{V2ALPHA1}ReflectionService/GetCodecDescriptor": codec,
        f"/{V2ALPHA1}ReflectionService/GetConfigurationDescriptor": configuration,
        f"/{V2ALPHA1}ReflectionService/GetQueryServicesDescriptor": query_services,
        f"/{V2ALPHA1}ReflectionService/GetTxDescriptor": tx,
        f"/{FILES}ReflectionService/FileDescriptors": files,
    }
