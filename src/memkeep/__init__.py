"""memkeep keeps the memory of AI agents safe: back it up, prove the backup, bring it back, show what changed."""

__version__ = "0.1.0"
