"""What the tests of the operations share: small stores, and a vault's writer who lies."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from memkeep.library import OpenVault
from memkeep.model import Entry, PartImage, StoredEntry
from memkeep.testing import agent

Change = Callable[[PartImage, Callable[..., StoredEntry]], PartImage]


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch, private_tmp: Path) -> None:
    """Sync nothing: no power fails here. And leave nothing in scratch."""
    assert private_tmp.is_dir()
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Return a small openclaw-hybrid store: `facts.db`, a LanceDB table and a log."""
    return agent.build(tmp_path / "agent" / "memory")


@pytest.fixture
def forge() -> Callable[[OpenVault, Change], str]:
    """Return `forge(vault, change)`: commit the latest snapshot again, its images changed by a writer who lies.

    `change` gets an image and `store(bytes, **entry)`, which stores bytes and makes an entry of them.
    """

    def forged(vault: OpenVault, change: Change) -> str:
        inner = vault._vault
        latest = inner.resolve("latest")
        with inner.writer() as writer:

            def store(data: bytes, **values: Any) -> StoredEntry:
                return StoredEntry(entry=Entry(size=len(data), **values), recipe=writer.put_stream([data]))

            parts = []
            for part in latest.parts:
                image = msgspec.msgpack.encode(change(inner.image(part), store))
                parts.append(msgspec.structs.replace(part, image=writer.put_stream([image])))
            writer.flush()
            lie = msgspec.structs.replace(latest, parts=tuple(parts), created=datetime.now(UTC).isoformat())
            return writer.commit(lie, *inner.next_seal()).id

    return forged
