from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrollRequest(_message.Message):
    __slots__ = ("token", "request")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    token: str
    request: bytes
    def __init__(self, token: _Optional[str] = ..., request: _Optional[bytes] = ...) -> None: ...

class EnrollReply(_message.Message):
    __slots__ = ("certificate", "node", "renew_after_s")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    RENEW_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    node: str
    renew_after_s: int
    def __init__(self, certificate: _Optional[bytes] = ..., node: _Optional[str] = ..., renew_after_s: _Optional[int] = ...) -> None: ...

class HeldBlock(_message.Message):
    __slots__ = ("cidr", "pool", "epoch", "state", "revision", "reserved")
    CIDR_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    cidr: str
    pool: str
    epoch: int
    state: str
    revision: int
    reserved: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cidr: _Optional[str] = ..., pool: _Optional[str] = ..., epoch: _Optional[int] = ..., state: _Optional[str] = ..., revision: _Optional[int] = ..., reserved: _Optional[_Iterable[str]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("node", "uid", "boot_id", "instance", "epoch", "generation", "counter", "addresses", "labels", "blocks", "table")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    node: str
    uid: str
    boot_id: str
    instance: str
    epoch: int
    generation: str
    counter: int
    addresses: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    blocks: _containers.RepeatedCompositeFieldContainer[HeldBlock]
    table: _containers.RepeatedCompositeFieldContainer[TableRow]
    def __init__(self, node: _Optional[str] = ..., uid: _Optional[str] = ..., boot_id: _Optional[str] = ..., instance: _Optional[str] = ..., epoch: _Optional[int] = ..., generation: _Optional[str] = ..., counter: _Optional[int] = ..., addresses: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., blocks: _Optional[_Iterable[_Union[HeldBlock, _Mapping]]] = ..., table: _Optional[_Iterable[_Union[TableRow, _Mapping]]] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("epoch", "generation", "counter", "node_state", "blocks", "lost", "unconfirmed_boots", "frozen", "pools")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    NODE_STATE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    UNCONFIRMED_BOOTS_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    generation: str
    counter: int
    node_state: str
    blocks: _containers.RepeatedCompositeFieldContainer[HeldBlock]
    lost: _containers.RepeatedScalarFieldContainer[str]
    unconfirmed_boots: bool
    frozen: str
    pools: _containers.RepeatedCompositeFieldContainer[PoolSpec]
    def __init__(self, epoch: _Optional[int] = ..., generation: _Optional[str] = ..., counter: _Optional[int] = ..., node_state: _Optional[str] = ..., blocks: _Optional[_Iterable[_Union[HeldBlock, _Mapping]]] = ..., lost: _Optional[_Iterable[str]] = ..., unconfirmed_boots: _Optional[bool] = ..., frozen: _Optional[str] = ..., pools: _Optional[_Iterable[_Union[PoolSpec, _Mapping]]] = ...) -> None: ...

class ClaimRequest(_message.Message):
    __slots__ = ("node", "uid", "epoch", "pool", "families", "nonce")
    NODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    FAMILIES_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    node: str
    uid: str
    epoch: int
    pool: str
    families: _containers.RepeatedScalarFieldContainer[int]
    nonce: str
    def __init__(self, node: _Optional[str] = ..., uid: _Optional[str] = ..., epoch: _Optional[int] = ..., pool: _Optional[str] = ..., families: _Optional[_Iterable[int]] = ..., nonce: _Optional[str] = ...) -> None: ...

class ClaimReply(_message.Message):
    __slots__ = ("blocks", "counter")
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedCompositeFieldContainer[HeldBlock]
    counter: int
    def __init__(self, blocks: _Optional[_Iterable[_Union[HeldBlock, _Mapping]]] = ..., counter: _Optional[int] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("node", "uid", "epoch", "blocks", "generation")
    NODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    node: str
    uid: str
    epoch: int
    blocks: _containers.RepeatedCompositeFieldContainer[HeldBlock]
    generation: str
    def __init__(self, node: _Optional[str] = ..., uid: _Optional[str] = ..., epoch: _Optional[int] = ..., blocks: _Optional[_Iterable[_Union[HeldBlock, _Mapping]]] = ..., generation: _Optional[str] = ...) -> None: ...

class ReleaseReply(_message.Message):
    __slots__ = ("released",)
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    released: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, released: _Optional[_Iterable[str]] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("node", "uid", "instance")
    NODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    node: str
    uid: str
    instance: str
    def __init__(self, node: _Optional[str] = ..., uid: _Optional[str] = ..., instance: _Optional[str] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MirroredLease(_message.Message):
    __slots__ = ("network", "container_id", "ifname", "addresses", "pod", "gone")
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    IFNAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    network: str
    container_id: str
    ifname: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    pod: str
    gone: bool
    def __init__(self, network: _Optional[str] = ..., container_id: _Optional[str] = ..., ifname: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., pod: _Optional[str] = ..., gone: _Optional[bool] = ...) -> None: ...

class MirrorRequest(_message.Message):
    __slots__ = ("node", "uid", "epoch", "sequence", "whole", "leases")
    NODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    node: str
    uid: str
    epoch: int
    sequence: int
    whole: bool
    leases: _containers.RepeatedCompositeFieldContainer[MirroredLease]
    def __init__(self, node: _Optional[str] = ..., uid: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., whole: _Optional[bool] = ..., leases: _Optional[_Iterable[_Union[MirroredLease, _Mapping]]] = ...) -> None: ...

class MirrorReply(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("after", "frozen")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    after: int
    frozen: bool
    def __init__(self, after: _Optional[int] = ..., frozen: _Optional[bool] = ...) -> None: ...

class TableRow(_message.Message):
    __slots__ = ("cidr", "node", "epoch", "addresses", "state")
    CIDR_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    cidr: str
    node: str
    epoch: int
    addresses: _containers.RepeatedScalarFieldContainer[str]
    state: str
    def __init__(self, cidr: _Optional[str] = ..., node: _Optional[str] = ..., epoch: _Optional[int] = ..., addresses: _Optional[_Iterable[str]] = ..., state: _Optional[str] = ...) -> None: ...

class PoolRow(_message.Message):
    __slots__ = ("name", "cidr", "masquerade")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CIDR_FIELD_NUMBER: _ClassVar[int]
    MASQUERADE_FIELD_NUMBER: _ClassVar[int]
    name: str
    cidr: str
    masquerade: bool
    def __init__(self, name: _Optional[str] = ..., cidr: _Optional[str] = ..., masquerade: _Optional[bool] = ...) -> None: ...

class WatchReply(_message.Message):
    __slots__ = ("revision", "whole", "rows", "gone", "with_pools", "pools", "audit")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    WITH_POOLS_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    revision: int
    whole: bool
    rows: _containers.RepeatedCompositeFieldContainer[TableRow]
    gone: _containers.RepeatedScalarFieldContainer[str]
    with_pools: bool
    pools: _containers.RepeatedCompositeFieldContainer[PoolRow]
    audit: str
    def __init__(self, revision: _Optional[int] = ..., whole: _Optional[bool] = ..., rows: _Optional[_Iterable[_Union[TableRow, _Mapping]]] = ..., gone: _Optional[_Iterable[str]] = ..., with_pools: _Optional[bool] = ..., pools: _Optional[_Iterable[_Union[PoolRow, _Mapping]]] = ..., audit: _Optional[str] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("node", "uid", "epoch", "audit", "blocks", "leases", "problems")
    NODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    node: str
    uid: str
    epoch: int
    audit: str
    blocks: _containers.RepeatedCompositeFieldContainer[HeldBlock]
    leases: _containers.RepeatedCompositeFieldContainer[MirroredLease]
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[str] = ..., uid: _Optional[str] = ..., epoch: _Optional[int] = ..., audit: _Optional[str] = ..., blocks: _Optional[_Iterable[_Union[HeldBlock, _Mapping]]] = ..., leases: _Optional[_Iterable[_Union[MirroredLease, _Mapping]]] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class AuditReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InitRequest(_message.Message):
    __slots__ = ("if_new", "recover")
    IF_NEW_FIELD_NUMBER: _ClassVar[int]
    RECOVER_FIELD_NUMBER: _ClassVar[int]
    if_new: bool
    recover: bool
    def __init__(self, if_new: _Optional[bool] = ..., recover: _Optional[bool] = ...) -> None: ...

class InitReply(_message.Message):
    __slots__ = ("generation", "made")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MADE_FIELD_NUMBER: _ClassVar[int]
    generation: str
    made: bool
    def __init__(self, generation: _Optional[str] = ..., made: _Optional[bool] = ...) -> None: ...

class PoolSpec(_message.Message):
    __slots__ = ("name", "cidr", "block_length", "selector", "reservations", "state", "order", "masquerade", "purpose")
    class SelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CIDR_FIELD_NUMBER: _ClassVar[int]
    BLOCK_LENGTH_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    RESERVATIONS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    MASQUERADE_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    cidr: str
    block_length: int
    selector: _containers.ScalarMap[str, str]
    reservations: _containers.RepeatedScalarFieldContainer[str]
    state: str
    order: int
    masquerade: bool
    purpose: str
    def __init__(self, name: _Optional[str] = ..., cidr: _Optional[str] = ..., block_length: _Optional[int] = ..., selector: _Optional[_Mapping[str, str]] = ..., reservations: _Optional[_Iterable[str]] = ..., state: _Optional[str] = ..., order: _Optional[int] = ..., masquerade: _Optional[bool] = ..., purpose: _Optional[str] = ...) -> None: ...

class PutPoolRequest(_message.Message):
    __slots__ = ("pool", "create")
    POOL_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    pool: PoolSpec
    create: bool
    def __init__(self, pool: _Optional[_Union[PoolSpec, _Mapping]] = ..., create: _Optional[bool] = ...) -> None: ...

class PutPoolReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChangePoolRequest(_message.Message):
    __slots__ = ("pool", "fields")
    POOL_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    pool: PoolSpec
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, pool: _Optional[_Union[PoolSpec, _Mapping]] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class ChangePoolReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeletePoolRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeletePoolReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SettingsSpec(_message.Message):
    __slots__ = ("blocks_per_node", "node_deletion_fences", "unconfirmed_boots", "silence_s", "quarantine_s", "cloud_controller")
    BLOCKS_PER_NODE_FIELD_NUMBER: _ClassVar[int]
    NODE_DELETION_FENCES_FIELD_NUMBER: _ClassVar[int]
    UNCONFIRMED_BOOTS_FIELD_NUMBER: _ClassVar[int]
    SILENCE_S_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_S_FIELD_NUMBER: _ClassVar[int]
    CLOUD_CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    blocks_per_node: int
    node_deletion_fences: bool
    unconfirmed_boots: bool
    silence_s: float
    quarantine_s: float
    cloud_controller: bool
    def __init__(self, blocks_per_node: _Optional[int] = ..., node_deletion_fences: _Optional[bool] = ..., unconfirmed_boots: _Optional[bool] = ..., silence_s: _Optional[float] = ..., quarantine_s: _Optional[float] = ..., cloud_controller: _Optional[bool] = ...) -> None: ...

class PutSettingsRequest(_message.Message):
    __slots__ = ("settings",)
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    settings: SettingsSpec
    def __init__(self, settings: _Optional[_Union[SettingsSpec, _Mapping]] = ...) -> None: ...

class PutSettingsReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("node", "fenced", "wiped", "undo", "force")
    NODE_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    WIPED_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    node: str
    fenced: bool
    wiped: bool
    undo: bool
    force: bool
    def __init__(self, node: _Optional[str] = ..., fenced: _Optional[bool] = ..., wiped: _Optional[bool] = ..., undo: _Optional[bool] = ..., force: _Optional[bool] = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ("state", "blocks")
    STATE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    state: str
    blocks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[str] = ..., blocks: _Optional[_Iterable[str]] = ...) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ("node", "cidr", "pool", "undo")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CIDR_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    node: str
    cidr: str
    pool: str
    undo: bool
    def __init__(self, node: _Optional[str] = ..., cidr: _Optional[str] = ..., pool: _Optional[str] = ..., undo: _Optional[bool] = ...) -> None: ...

class PinReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReleaseBlockRequest(_message.Message):
    __slots__ = ("cidr", "mod_revision")
    CIDR_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    cidr: str
    mod_revision: int
    def __init__(self, cidr: _Optional[str] = ..., mod_revision: _Optional[int] = ...) -> None: ...

class ReleaseBlockReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReleaseMirrorRequest(_message.Message):
    __slots__ = ("node", "mod_revision")
    NODE_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    node: str
    mod_revision: int
    def __init__(self, node: _Optional[str] = ..., mod_revision: _Optional[int] = ...) -> None: ...

class ReleaseMirrorReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShowRequest(_message.Message):
    __slots__ = ("what", "argument")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    what: str
    argument: str
    def __init__(self, what: _Optional[str] = ..., argument: _Optional[str] = ...) -> None: ...

class ShowReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Finding(_message.Message):
    __slots__ = ("kind", "subject", "text", "mend", "mod_revision")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MEND_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    subject: str
    text: str
    mend: str
    mod_revision: int
    def __init__(self, kind: _Optional[str] = ..., subject: _Optional[str] = ..., text: _Optional[str] = ..., mend: _Optional[str] = ..., mod_revision: _Optional[int] = ...) -> None: ...

class CheckReply(_message.Message):
    __slots__ = ("findings",)
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...
