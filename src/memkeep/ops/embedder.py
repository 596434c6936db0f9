"""Which provider and which model make the vectors: what is asked for, else what the store says of itself."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from memkeep.embedding import ollama, openai
from memkeep.embedding.base import Provider
from memkeep.embedding.pace import Pace
from memkeep.errors import UsageError
from memkeep.model import Value
from memkeep.systems import embedders

Name = Literal["ollama", "openai", "local"]
NAMES: tuple[Name, ...] = ("ollama", "openai", "local")
_HINT = "memkeep embed --help"


class Embedder(Value, kw_only=True):
    """What is asked for; None is left to the store and the environment."""

    provider: Name | None = None
    model: str | None = None
    url: str | None = None
    key: str | None = None
    dims: int | None = None


class Configured(Value, kw_only=True):
    """What a store says, or what its product has built in."""

    provider: str | None = None
    model: str | None = None


def configured(system: str, fingerprint: Mapping[str, Any]) -> Configured:
    """Return what is known of the model that a store's vectors are made with."""
    said = fingerprint.get("embedding")
    said = said if isinstance(said, dict) else {}
    usual = embedders.usual(system) or (None, None)
    model, provider = said.get("model"), said.get("provider")
    if not isinstance(model, str):
        return Configured(provider=usual[0], model=usual[1])
    return Configured(provider=provider if isinstance(provider, str) else None, model=model)


def same_model(one: str, other: str) -> bool:
    """Say whether two names are of one model: some say the maker too, or that it is the latest."""
    return _bare(one) == _bare(other)


def _bare(model: str) -> str:
    return model.lower().removesuffix(":latest").rsplit("/", 1)[-1]


def provider(asked: Embedder, known: Configured, pace: Pace, environ: Mapping[str, str] = os.environ) -> Provider:
    """Return the provider. Raises `UsageError` when nobody says which model, or where it is."""
    model = asked.model or known.model
    if model is None:
        raise UsageError(
            "nothing says which model makes the vectors of this store",
            hint="memkeep embed STORE --provider ollama --model nomic-embed-text",
        )
    name = asked.provider or _name(model, asked, known, environ)
    if name == "local":
        from memkeep.embedding.local import Local

        return Local(model, pace=pace)
    if name == "ollama":
        url = asked.url or environ.get("OLLAMA_URL") or ollama.URL
        return ollama.Ollama(url, model, dims=asked.dims, pace=pace)
    url = asked.url or environ.get("OPENAI_BASE_URL") or openai.URL
    key = asked.key or environ.get("OPENAI_API_KEY") or None
    if key is None and url == openai.URL:
        raise UsageError("OpenAI wants a key", hint="export OPENAI_API_KEY=...   # or give --key-file FILE")
    return openai.OpenAI(url, model, key=key, dims=asked.dims, pace=pace)


def _name(model: str, asked: Embedder, known: Configured, environ: Mapping[str, str]) -> Name:
    if "/" in model and Path(model).expanduser().is_dir():
        return "local"
    said = (known.provider or "").lower()
    if said in NAMES and (asked.model is None or same_model(asked.model, known.model or "")):
        return said
    if environ.get("OLLAMA_URL"):
        return "ollama"
    if environ.get("OPENAI_BASE_URL") or environ.get("OPENAI_API_KEY"):
        return "openai"
    raise UsageError(
        f"nothing says who makes vectors with {model}"
        + (f": the store says {known.provider}, which memkeep does not know" if said else ""),
        hint=f"memkeep embed STORE --provider ollama|openai|local --model {model}",
    )
