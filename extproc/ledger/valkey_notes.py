"""Notes in the store, and a copy of them here, because they are read without waiting."""

from collections.abc import Mapping
from typing import Final

import msgspec

from extproc.ledger.notes import Notes
from extproc.ledger.port import NOTES_MAX
from extproc.ledger.valkey_keys import NOTES_KEYS
from extproc.ledger.valkey_link import Away, Link, Script

_SCRIPT: Final = Script.load("notes")


class StoredNotes:
    """The notes of all replicas. What another one wrote is known here after a refresh."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._copy = Notes()
        self._version = b""

    def starting(self, prefix: str) -> dict[str, str]:
        """Those whose names begin with `prefix`."""
        return self._copy.starting(prefix)

    def have_room(self, changes: Mapping[str, str | None]) -> bool:
        """Whether no more than may be are kept after `changes`, as far as is known here."""
        return self._copy.have_room(changes)

    async def change(self, changes: Mapping[str, str | None]) -> bool:
        """Keep what was written, and delete what is None.

        Return False if it can't be, or the store did not answer.
        """
        if not changes:
            return True
        body = {
            "kept": {name: text for name, text in changes.items() if text is not None},
            "deleted": [name for name, text in changes.items() if text is None],
            "max": NOTES_MAX,
        }
        packed = msgspec.msgpack.encode(body)
        try:
            answer = await self._link.call(_SCRIPT, NOTES_KEYS, packed, is_urgent=False)
        except Away:
            return False
        is_done = msgspec.msgpack.decode(answer, type=bool)
        if is_done:
            self._copy.change(changes)
        return is_done

    async def refresh(self) -> None:
        """Have what other replicas wrote.

        Raises:
            Away: the store did not answer.
        """
        version = await self._link.command("GET", NOTES_KEYS[1]) or b""
        if version == self._version:
            return
        texts = await self._link.command("HGETALL", NOTES_KEYS[0])
        try:
            self._copy = Notes({name.decode(): text.decode() for name, text in texts.items()})
        except UnicodeDecodeError as error:
            msg = f"a note in the store is no text: {error}"
            raise Away(msg) from None
        self._version = version
