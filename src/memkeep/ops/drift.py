"""What the places of a twofold store disagree about, told from the records of a snapshot; and ids that it can mend.

The image of a snapshot stays what the store was. Only what is restored is mended, after its bytes were checked.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from memkeep.engines import sqlite_mend
from memkeep.engines.catalog import engine
from memkeep.errors import DamagedError, MemkeepError
from memkeep.model import Finding, PartImage, Severity, Snapshot, TableMap
from memkeep.ops.entries import place
from memkeep.records.groups import decode
from memkeep.systems.base import LostId, Side, Sides, TwofoldSystem
from memkeep.systems.detect import TWOFOLD_SYSTEMS
from memkeep.vault.vault import Vault


class Mending(msgspec.Struct, frozen=True, kw_only=True):
    """What is mended in the databases that a restore writes."""

    lost: tuple[LostId, ...] = ()
    damage: str = ""  # why it could not be told what is to be mended

    def mend(self, root: Path) -> None:
        """Write the true ids into the databases that lie under a private folder."""
        for part in dict.fromkeys(one.part for one in self.lost):
            mine = [one for one in self.lost if one.part == part]
            file = place(root, part)
            if file.is_file():
                sqlite_mend.write_ids(file, mine[0].columns, {one.was: one.id for one in mine})

    def findings(self, images: Sequence[PartImage]) -> list[Finding]:
        """Return a finding for each id that was mended in the parts that were restored."""
        names = {image.part.name for image in images}
        if self.damage:
            message = f"it can't be told whether SQLite destroyed ids, which would be mended: {self.damage}"
            return [Finding(code="ids_not_checked", severity=Severity.WARNING, message=message, mend="memkeep verify")]
        return [
            Finding(
                code="id_mended",
                severity=Severity.INFO,
                part=one.part,
                record=one.id,
                message=f"the id of a memory was the number {one.was} and is {one.id} again: {one.text[:60]}",
            )
            for one in self.lost
            if one.part in names
        ]


def drift(vault: Vault, system: str, images: Sequence[PartImage]) -> list[Finding]:
    """Return what the places of a store disagree about; nothing of a system whose memory lies in one place."""
    known = _twofold(system)
    return known.drift(_sides(vault, images)) if known is not None else []


def mending(vault: Vault, snapshot: Snapshot) -> Mending:
    """Return what can be mended of the databases of a snapshot, going by all of its parts."""
    known = _twofold(snapshot.system)
    if known is None:
        return Mending()
    try:
        images = [vault.image(part) for part in snapshot.parts]
        return _mending(known, images, _sides(vault, images))
    except DamagedError as error:  # of what is restored or of another part: the restore itself says which
        return Mending(damage=error.message)


def can_come_apart(system: str) -> bool:
    """Say whether the memory of a system lies in two places, so that it takes all of its parts to mend one."""
    return _twofold(system) is not None


def mending_of_files(system: str, images: Sequence[PartImage], root: Path) -> Mending:
    """Return what can be mended of databases that lie under a private folder, going by all parts that lie there.

    The parts are opened, and engines may leave files beside them.
    """
    known = _twofold(system)
    if known is None:
        return Mending()
    sides = {
        map_.collection: Side(part=image.part.name, rows=_read(image, map_, root))
        for image in images
        for map_ in image.part.maps
    }
    try:
        return _mending(known, images, sides)
    except MemkeepError as error:  # of a part that can't be opened: the restore itself says which
        return Mending(damage=error.message)


def _mending(known: TwofoldSystem, images: Sequence[PartImage], sides: Sides) -> Mending:
    engines = {image.part.name: image.part.engine for image in images}
    return Mending(lost=tuple(one for one in known.lost_ids(sides) if engines[one.part] == "sqlite"))


def _twofold(system: str) -> TwofoldSystem | None:
    return next((one for one in TWOFOLD_SYSTEMS if one.name == system), None)


def _sides(vault: Vault, images: Sequence[PartImage]) -> Sides:
    return {
        one.map.collection: Side(
            part=image.part.name,
            rows=_rows(one.map, (vault.reader.chunk(group.chunk) for group in one.groups)),
        )
        for image in images
        for one in image.collections
    }


def _read(image: PartImage, map_: TableMap, root: Path) -> Iterator[dict[str, Any]]:
    with engine(image.part.engine).open(image.part, root) as opened:
        groups = opened.scan({}, ())
        yield from _rows(map_, (group.data for group in groups if group.collection == map_.collection))


def _rows(map_: TableMap, groups: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    portable = {column: field for field, column in map_.fields.items()}
    for group in groups:
        columns, rows = decode(group)
        names = ["id" if column == map_.id else portable.get(column, column) for column in columns]
        for row in rows:
            yield dict(zip(names, row, strict=True))
