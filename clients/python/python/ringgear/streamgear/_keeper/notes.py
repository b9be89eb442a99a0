"""What a script is told while its stream goes on: each thing once."""

from __future__ import annotations

import re
from typing import Any, Mapping

#: Details that are as they should be: a source, or a file of sound, that is at its end.
_EXPECTED = re.compile(r"its source has ended: |the file has ended: ")
#: Numbers and addresses: the same with others is nothing new.
_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+")


class Notes:
    """Remembers what was told."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def new(self, status: Mapping[str, Any]) -> list[str]:
        """What is not well by the daemon's ``status`` of the stream, and was not told before."""
        found: dict[str, str] = {}
        fallbacks = {rendition["name"]: rendition for rendition in status.get("renditions", []) if rendition.get("fallback")}
        for name, rendition in fallbacks.items():
            found[name] = f"{name} is encoded by {rendition['codec']} instead: {rendition['fallback']}"
        audio = status.get("audio") or {}
        for detail in (status.get("detail"), audio.get("detail")):
            is_told = any(rendition["fallback"] == detail for rendition in fallbacks.values())
            if detail and not is_told and not _EXPECTED.match(detail):
                found[_VARYING.sub("", detail)] = detail
        new = [words for kind, words in found.items() if kind not in self._told]
        self._told.update(found)
        return new
