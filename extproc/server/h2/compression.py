"""HPACK, the receiving half: RFC 7541, with the table and the Huffman code of `hpack`.

Its `Decoder` takes 70 µs for the headers of a call, nearly all of it for what it has decoded many
times before. A call that is traced brings one new value and moves every index by one, so its
block as a whole is never the same again; its strings are.
"""

from typing import Final

from hpack import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from extproc.server.h2.frames import Code, PeerError

Field = tuple[bytes, bytes]

FIELD_BYTES: Final = 32
"""What a field costs beside its name and value, RFC 7541 §4.1 and RFC 9113 §6.5.2."""

TABLE_BYTES_MAX: Final = 4096
"""The default of HEADER_TABLE_SIZE, which we leave as it is."""

STRINGS_MAX: Final = 256
STRING_BYTES_MAX: Final = 256
"""Of strings that are remembered, as they came."""

_INTEGER_BYTES_MAX: Final = 5
_INDEXED: Final = 0x80
_IS_ADDED: Final = 0x40
_RESIZE: Final = 0x20
_INDEX_7: Final = 0x7F
_INDEX_6: Final = 0x3F
_INDEX_4: Final = 0x0F
_SIZE_5: Final = 0x1F
_LENGTH_7: Final = 0x7F
_IS_HUFFMAN: Final = 0x80


class Compression:
    """The table of one connection, as the peer fills it."""

    def __init__(self, list_bytes_max: int) -> None:
        self._list_bytes_max = list_bytes_max
        self._table = HeaderTable()
        self._strings: dict[bytes, bytes] = {}

    def decode(self, block: bytes) -> tuple[list[Field], bool]:
        """The fields of a block, and whether the same bytes mean the same again.

        Raises:
            PeerError: it is no header block, or too long a one. None can be decoded after it.
        """
        try:
            return self._decode(block)
        except (HPACKError, IndexError) as error:
            raise PeerError(Code.COMPRESSION_ERROR, "no such headers") from error

    def _decode(self, block: bytes) -> tuple[list[Field], bool]:
        table = self._table
        fields: list[Field] = []
        is_lasting = True
        at, size = 0, 0
        while at < len(block):
            first = block[at]
            if first & _INDEXED:
                index, at = _integer(block, at, _INDEX_7)
                field = table.get_by_index(index)
            elif first & _IS_ADDED:
                index, at = _integer(block, at, _INDEX_6)
                field, at = self._literal(block, index, at)
                table.add(*field)
                is_lasting = False
            elif first & _RESIZE:
                bytes_max, at = _integer(block, at, _SIZE_5)
                if fields or bytes_max > TABLE_BYTES_MAX:
                    raise PeerError(Code.COMPRESSION_ERROR, "table resized out of place")
                table.maxsize = bytes_max
                is_lasting = False
                continue
            else:
                index, at = _integer(block, at, _INDEX_4)
                field, at = self._literal(block, index, at)
            fields.append(field)
            size += len(field[0]) + len(field[1]) + FIELD_BYTES
            if size > self._list_bytes_max:
                raise PeerError(Code.ENHANCE_YOUR_CALM, "too many headers")
        return fields, is_lasting

    def _literal(self, block: bytes, index: int, at: int) -> tuple[Field, int]:
        if index:
            name = self._table.get_by_index(index)[0]
        else:
            name, at = self._string(block, at)
        value, at = self._string(block, at)
        return (name, value), at

    def _string(self, block: bytes, at: int) -> tuple[bytes, int]:
        """A string literal, §5.2, and where it ends."""
        is_huffman = block[at] & _IS_HUFFMAN
        length, at = _integer(block, at, _LENGTH_7)
        stop = at + length
        if stop > len(block):
            raise IndexError
        raw = block[at:stop]
        if not is_huffman:
            return raw, stop
        strings = self._strings
        known = strings.get(raw)
        if known is None:
            known = bytes(decode_huffman(raw))
            if length <= STRING_BYTES_MAX:
                if len(strings) >= STRINGS_MAX:
                    strings.clear()
                strings[raw] = known
        return known, stop


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """An integer whose first byte has these bits for it, §5.1, and where it ends."""
    value = block[at] & prefix
    at += 1
    if value < prefix:
        return value, at
    for shift in range(0, 7 * _INTEGER_BYTES_MAX, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  # the last
            return value, at
    raise IndexError
