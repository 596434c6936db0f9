"""memkeep as on a machine of its own, with a clock of its own and leases that end soon: for the soak.

SOAK_SKEW    seconds by which its clock is ahead
SOAK_LIFE    seconds that a lease lasts
SOAK_MACHINE its name; processes of one machine see when another of them has died
"""

import os
import socket
from datetime import UTC, datetime, timedelta

from memkeep import clock
from memkeep.cli.main import main
from memkeep.vault import crypto, lease, prune, writer


def _pretend() -> None:
    ahead = timedelta(seconds=float(os.environ["SOAK_SKEW"]))
    life = timedelta(seconds=float(os.environ["SOAK_LIFE"]))
    machine = os.environ["SOAK_MACHINE"]
    here = lease._machine()
    clock.now = lambda: datetime.now(UTC) + ahead
    lease.LIFETIME, lease._RENEW = life, life / 3
    lease._machine = lambda: f"{machine} {here}"
    prune.SKEW = 2 * life
    socket.gethostname = lambda: machine
    writer.PACK_SIZE = 1 << 17
    crypto.ARGON = {"memory_kib": 32, "iterations": 1, "lanes": 1}


if __name__ == "__main__":
    _pretend()
    main()
