"""Reads protobuf messages by field number, so that answers are judged without generated code."""


def varint(message, at):
    """The number at that place, and the place after it."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(message):
    """Every field: number -> list of integers (varint, fixed) or bytes."""
    found = {}
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = int.from_bytes(message[at:at + size], "little"), at + size
        else:
            assert kind == 2, f"wire type {kind}"
            length, at = varint(message, at)
            value, at = message[at:at + length], at + length
            assert len(value) == length, "a field is cut off"
        found.setdefault(tag >> 3, []).append(value)
    return found


def text(message, number):
    """The last string of that field, empty if there is none."""
    return fields(message).get(number, [b""])[-1].decode()


def number(message, which):
    """The last number of that field, 0 if there is none."""
    return fields(message).get(which, [0])[-1]
