from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Unit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNIT_UNSPECIFIED: _ClassVar[Unit]
    UNIT_TOKENS: _ClassVar[Unit]
    UNIT_MICRO_USD: _ClassVar[Unit]
    UNIT_REQUESTS: _ClassVar[Unit]
    UNIT_CONCURRENT_REQUESTS: _ClassVar[Unit]
UNIT_UNSPECIFIED: Unit
UNIT_TOKENS: Unit
UNIT_MICRO_USD: Unit
UNIT_REQUESTS: Unit
UNIT_CONCURRENT_REQUESTS: Unit

class Budget(_message.Message):
    __slots__ = ("tenant", "budget", "unit", "limit", "granted", "committed", "reserved", "remaining", "window", "on_exhausted", "grants")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    ON_EXHAUSTED_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    budget: str
    unit: Unit
    limit: int
    granted: int
    committed: int
    reserved: int
    remaining: int
    window: Window
    on_exhausted: str
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    def __init__(self, tenant: _Optional[str] = ..., budget: _Optional[str] = ..., unit: _Optional[_Union[Unit, str]] = ..., limit: _Optional[int] = ..., granted: _Optional[int] = ..., committed: _Optional[int] = ..., reserved: _Optional[int] = ..., remaining: _Optional[int] = ..., window: _Optional[_Union[Window, _Mapping]] = ..., on_exhausted: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: float
    end: float
    def __init__(self, start: _Optional[float] = ..., end: _Optional[float] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("id", "amount", "until", "reason", "by", "at", "is_reset")
    ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    IS_RESET_FIELD_NUMBER: _ClassVar[int]
    id: str
    amount: int
    until: float
    reason: str
    by: str
    at: float
    is_reset: bool
    def __init__(self, id: _Optional[str] = ..., amount: _Optional[int] = ..., until: _Optional[float] = ..., reason: _Optional[str] = ..., by: _Optional[str] = ..., at: _Optional[float] = ..., is_reset: _Optional[bool] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("tenant", "budget")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    budget: str
    def __init__(self, tenant: _Optional[str] = ..., budget: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("tenant_prefix", "page_size", "page_token")
    TENANT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant_prefix: str
    page_size: int
    page_token: str
    def __init__(self, tenant_prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("budgets", "next_page_token")
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    budgets: _containers.RepeatedCompositeFieldContainer[Budget]
    next_page_token: str
    def __init__(self, budgets: _Optional[_Iterable[_Union[Budget, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("tenants",)
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    tenants: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenants: _Optional[_Iterable[str]] = ...) -> None: ...

class AdjustRequest(_message.Message):
    __slots__ = ("tenant", "budget", "amount", "until", "reason", "id", "withdraw")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    budget: str
    amount: int
    until: float
    reason: str
    id: str
    withdraw: str
    def __init__(self, tenant: _Optional[str] = ..., budget: _Optional[str] = ..., amount: _Optional[int] = ..., until: _Optional[float] = ..., reason: _Optional[str] = ..., id: _Optional[str] = ..., withdraw: _Optional[str] = ...) -> None: ...

class ResetRequest(_message.Message):
    __slots__ = ("tenant", "budget", "reason")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    budget: str
    reason: str
    def __init__(self, tenant: _Optional[str] = ..., budget: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AdjustResponse(_message.Message):
    __slots__ = ("budget", "grant")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    budget: Budget
    grant: Grant
    def __init__(self, budget: _Optional[_Union[Budget, _Mapping]] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("path", "headers", "claims", "peer_uri", "body")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ClaimsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PATH_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    PEER_URI_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    path: str
    headers: _containers.ScalarMap[str, str]
    claims: _containers.ScalarMap[str, str]
    peer_uri: str
    body: bytes
    def __init__(self, path: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., claims: _Optional[_Mapping[str, str]] = ..., peer_uri: _Optional[str] = ..., body: _Optional[bytes] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("explanation_json",)
    EXPLANATION_JSON_FIELD_NUMBER: _ClassVar[int]
    explanation_json: str
    def __init__(self, explanation_json: _Optional[str] = ...) -> None: ...
