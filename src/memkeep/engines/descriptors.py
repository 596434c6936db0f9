"""How many files may be held open at once."""

import os

SPARE = 512  # left to everything else, a library's own reading included
_GUESS = 64  # open ones, where the system does not say


def room(wanted: int) -> int:
    """Return how many descriptors may be taken; raises the soft limit to the hard one when it is too low."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted only
    except OSError:
        used = _GUESS
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft - used - SPARE < wanted and soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # some systems have a lower ceiling than the one that they state
            pass
        else:
            soft = hard if hard != resource.RLIM_INFINITY else wanted + used + SPARE
    return max(0, soft - used - SPARE)
