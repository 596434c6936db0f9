"""The user's keyring, where there is one (extra `keyring`): one more place for a password, never the only one.

A headless machine has none, or one that fails in ways of its own: when a password is looked for, all of them mean
"not there".
"""

from pathlib import Path

from memkeep.errors import UnsupportedError

SERVICE = "memkeep"


def find(url: str) -> str | None:
    """Return the password that the keyring has for a vault; None when it has none, is locked, or is not there."""
    try:
        import keyring

        return keyring.get_password(SERVICE, _user(url)) or None
    except Exception:  # noqa: BLE001 - the many backends raise what they like, and other ways may do
        return None


def store(url: str, password: str) -> None:
    """Put a password into the keyring; `UnsupportedError` when there is none that takes it."""
    try:
        import keyring

        keyring.set_password(SERVICE, _user(url), password)
    except ImportError as error:
        raise UnsupportedError(
            "the extra `keyring` is not installed", hint="pip install 'memkeep[keyring]'", code="extra_missing"
        ) from error
    except Exception as error:
        raise UnsupportedError(
            f"the keyring of this machine does not take the password: {error}",
            hint="memkeep status --password-file FILE",
            code="no_keyring",
        ) from error


def remove(url: str) -> bool:
    """Take a vault's password out of the keyring; return whether it was there."""
    if find(url) is None:
        return False
    import keyring

    keyring.delete_password(SERVICE, _user(url))
    return True


def _user(url: str) -> str:
    """Return the name that a vault has in the keyring: its URL, or the whole path of its folder."""
    return url if "://" in url else str(Path(url).expanduser().absolute())
