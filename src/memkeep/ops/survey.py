"""Look at a vault as a whole: is everything there that its log says was written, is every plain object itself."""

from memkeep.errors import DamagedError
from memkeep.model import Finding, Severity
from memkeep.vault import format
from memkeep.vault.opening import read_slots
from memkeep.vault.vault import Vault, seal_number


def survey(vault: Vault) -> list[Finding]:
    """Return a finding for each object that is missing or not what was written, without reading packs.

    A vault in which others are at work is not the same from one list to the next: what is wrong is found twice.
    """
    found = _look(vault)
    if not found:
        return []
    again = {(one.code, one.object, one.snapshots) for one in _look(Vault(vault.storage, vault.config, vault.keys))}
    return [one for one in found if (one.code, one.object, one.snapshots) in again]


def _look(vault: Vault) -> list[Finding]:
    there = {stat.key: stat.size for stat in vault.storage.list("")}
    vault.snapshots()
    vault.refresh()
    errors = list(vault.damaged)
    errors += read_slots(vault.storage)[1]
    seals, damaged = vault.log()
    errors += damaged
    findings = [_lost(error.obj, error.message) for error in _once(errors)]
    named = {finding.object for finding in findings}
    sealed: set[str] = set()
    forgotten: set[str] = set()
    for seal in seals.values():
        sealed.update(seal.previous, seal.snapshots, seal.objects)
        forgotten.update(seal.forgotten)
    if seals:
        sealed.update(seals[max(seals, key=seal_number)].keys)
    findings += [_missing(key) for key in sorted(vault.gone(sealed - forgotten - there.keys() - named))]
    named |= {finding.object for finding in findings}
    described = {key: size for key, size in vault.index.packs.items() if key not in named}
    findings += [
        _lost(key, f"{key} is cut off or too long")
        for key, size in described.items()
        if key in there and there[key] != size
    ]
    findings += [_missing(key) for key in vault.gone(described.keys() - there.keys() - forgotten)]
    known = {snapshot for seal in seals.values() for snapshot in seal.snapshots}
    loose = sorted(key for key in there if key.startswith(format.SNAPSHOTS) and key not in known | named)
    findings += [
        Finding(
            code="unsealed",
            severity=Severity.WARNING,
            message=f"{key} has no seal: its backup was interrupted at the very end, or the seal was removed",
            snapshots=(key.removeprefix(format.SNAPSHOTS),),
            mend="memkeep backup",
        )
        for key in loose
    ]
    findings += [_revoked(key) for key in sorted(there) if key.startswith(format.KEYS) and key in forgotten]
    if not seals and not damaged:
        findings.append(_missing(format.SEALS + "*"))
    if vault.keys.encrypted and not any(key.startswith(format.KEYS) for key in there):
        findings.append(_missing(format.KEYS + "*"))
    return findings


def _revoked(key: str) -> Finding:
    return Finding(
        code="key_revoked",
        severity=Severity.WARNING,
        message=f"{key} was revoked and is there: its removal was cut short, or somebody has put it back; it opens the"
        " vault until the next change of keys, which removes it",
        mend="memkeep key list",
    )


def _once(errors: list[DamagedError]) -> list[DamagedError]:
    return list({error.obj: error for error in errors}.values())


def _missing(key: str) -> Finding:
    what = {
        format.SNAPSHOTS: "the snapshot is lost",
        format.KEYS: "its password or recovery key no longer opens the vault",
        format.SEALS: "part of the log is lost, no memory",
        format.INDEX: "the snapshots that need it can't be read",
        format.DATA: "the snapshots that need it can't be read",
    }.get(key.partition("/")[0] + "/", "")
    return _lost(key, f"{key} was removed: {what}")


def mend_of(key: str) -> str:
    """Return what may help when an object of the vault is lost or damaged."""
    if key.startswith(format.SNAPSHOTS):
        identity = key.removeprefix(format.SNAPSHOTS)[:12]
        return f"put the object back from a copy of the vault, or do without it: memkeep forget {identity}"
    if key.startswith((format.DATA, format.INDEX, format.SEALS)):
        return "memkeep repair"
    return "put the object back from a copy of the vault"


def _lost(key: str, message: str) -> Finding:
    hurt = (key.removeprefix(format.SNAPSHOTS),) if key.startswith(format.SNAPSHOTS) else ()
    return Finding(
        code="damaged",
        severity=Severity.ERROR,
        message=message,
        object=key,
        snapshots=hurt,
        mend=mend_of(key),
    )
