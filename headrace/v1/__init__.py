"""The records' Protobuf messages, generated from `proto/headrace/v1` by `make proto`."""
