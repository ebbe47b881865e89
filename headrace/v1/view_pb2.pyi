from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class View(_message.Message):
    __slots__ = ("user_id", "product_id", "title", "category", "in_stock", "timestamp")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    IN_STOCK_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    product_id: str
    title: str
    category: str
    in_stock: bool
    timestamp: int
    def __init__(self, user_id: _Optional[str] = ..., product_id: _Optional[str] = ..., title: _Optional[str] = ..., category: _Optional[str] = ..., in_stock: _Optional[bool] = ..., timestamp: _Optional[int] = ...) -> None: ...

class Inventory(_message.Message):
    __slots__ = ("product_id", "in_stock", "quantity", "timestamp")
    PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
    IN_STOCK_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    product_id: str
    in_stock: bool
    quantity: int
    timestamp: int
    def __init__(self, product_id: _Optional[str] = ..., in_stock: _Optional[bool] = ..., quantity: _Optional[int] = ..., timestamp: _Optional[int] = ...) -> None: ...
