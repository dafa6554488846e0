"""Encodings: the private descriptor pool, canonical protobuf bytes, proto JSON and amino JSON, all derived from descriptors."""
