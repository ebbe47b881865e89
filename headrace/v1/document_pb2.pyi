from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Document(_message.Message):
    __slots__ = ("text", "metadata_json", "timestamp")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    text: str
    metadata_json: str
    timestamp: int
    def __init__(self, text: _Optional[str] = ..., metadata_json: _Optional[str] = ..., timestamp: _Optional[int] = ...) -> None: ...
