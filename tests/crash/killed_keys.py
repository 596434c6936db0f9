"""Kill a change of a vault's keys at every change that it makes to the vault; print how many those were.

killed_keys.py ACTION FOLDER      ACTION is a name from ACTIONS; FOLDER is for new vaults
"""

import sys
from pathlib import Path

import memkeep
from memkeep.errors import WrongKeyError
from memkeep.ops import keys
from memkeep.ops.survey import survey
from memkeep.storage.local import LocalStorage
from memkeep.testing.snapshots import read, take
from memkeep.testing.strikes import killed
from memkeep.vault import crypto, opening
from memkeep.vault.vault import Vault


def mine(vault: Vault) -> str:
    return next(row.id for row in keys.list_keys(vault, "pw").slots if row.yours)


ACTIONS = {
    "add": lambda vault: keys.add_password(vault, "pw", "two"),
    "change": lambda vault: keys.change_password(vault, "pw", "two"),
    "recovery": lambda vault: keys.new_recovery(vault, "pw"),
    "remove": lambda vault: keys.remove_key(vault, "pw", None, confirm=mine(vault)),
}


def main(action: str, folder: Path) -> int:
    crypto.ARGON.update(memory_kib=32, iterations=1, lanes=1)
    at = 0
    while True:
        at += 1
        place = folder / f"{action} {at}"
        recovery = memkeep.init_vault(place, "pw").recovery_key
        vault = opened(place, "pw")
        snapshot = take(vault, {"a": b"x" * 1000}, created="1")
        was_killed = killed(place, at, lambda vault=vault: ACTIONS[action](vault))
        ways = [word for word in ("pw", "two", recovery) if opens(place, word)]
        # A known password opens it, save where that was to be revoked: then the recovery key does.
        assert {"pw", "two"} & set(ways) or (action == "remove" and ways), (at, ways)
        left = opened(place, ways[0])
        assert [finding for finding in survey(left) if finding.object] == []
        assert read(left, snapshot) == {"a": b"x" * 1000}
        take(left, {"a": b"y" * 1000}, created="2")
        left = opened(place, ways[0])
        assert {finding.code for finding in survey(left)} <= {"key_revoked"}  # half of it, which is finished now
        keys.add_password(left, ways[0], "three")  # which finishes what was left half revoked
        assert {row.state for row in keys.list_keys(left, "three").slots} == {"good"}
        assert opens(place, "three")
        assert survey(left) == []
        if not was_killed:
            assert ("pw" in ways) == (action in {"add", "recovery"})
            assert (recovery in ways) == (action != "recovery")
            return at - 1


def opened(place: Path, secret: str) -> Vault:
    return opening.open_vault(LocalStorage(place), secret)


def opens(place: Path, secret: str) -> bool:
    try:
        opened(place, secret)
    except WrongKeyError:
        return False
    return True


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2])))  # noqa: T201 - what the test reads
