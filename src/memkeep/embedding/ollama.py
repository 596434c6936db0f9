"""Ollama: `/api/embed`, and `/api/embeddings` of versions before 0.3, which take one text at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from memkeep.embedding.base import TryLaterError
from memkeep.embedding.endpoint import TIMEOUT, Endpoint, MissingError
from memkeep.embedding.pace import Pace
from memkeep.embedding.vectors import matrix
from memkeep.errors import EmbedderError
from memkeep.model import Value

if TYPE_CHECKING:
    import numpy as np

URL = "http://localhost:11434"


class _Answer(Value):
    embeddings: list[list[float]]


class _OldAnswer(Value):
    embedding: list[float]


_decode = msgspec.json.Decoder(_Answer).decode
_decode_old = msgspec.json.Decoder(_OldAnswer).decode


class Ollama:
    """An Ollama server; a `base.Provider`."""

    name = "ollama"

    def __init__(
        self, url: str, model: str, *, dims: int | None = None, pace: Pace | None = None, timeout: float = TIMEOUT
    ) -> None:
        """`url` may lack its scheme and port, as in Ollama's own OLLAMA_HOST."""
        self.model = model
        self.pace = pace or Pace()
        hint = f"curl -sS {_whole(url)}/api/tags"
        self._endpoint = Endpoint(_whole(url), key=None, pace=self.pace, timeout=timeout, hint=hint)
        self.identity = f"ollama {self._endpoint.url} {model} {dims or ''}"
        self._body: dict[str, Any] = {"model": model} | ({"dimensions": dims} if dims else {})
        self._old = False

    def embed(self, texts: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Return the vectors of texts."""
        if not self._old:
            try:
                data = self._endpoint.post("/api/embed", self._body | {"input": list(texts)})
            except MissingError as error:
                if self._lacks_model(error):
                    raise self._no_model(error) from error
                self._old = True
            else:
                return matrix(_read(data, _decode).embeddings, len(texts))
        try:
            found = [
                _read(self._endpoint.post("/api/embeddings", self._body | {"prompt": text}), _decode_old).embedding
                for text in texts
            ]
        except MissingError as error:
            raise (self._no_model(error) if self._lacks_model(error) else error) from error
        return matrix(found, len(texts))

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _lacks_model(self, error: MissingError) -> bool:
        return "model" in error.message and self.model.split(":")[0] in error.message

    def _no_model(self, error: MissingError) -> EmbedderError:
        return EmbedderError(error.message, hint=f"ollama pull {self.model}", code="embedder_missing")


def _whole(url: str) -> str:
    if "://" in url:
        return url
    return f"http://{url}" if ":" in url else f"http://{url}:11434"


def _read(data: bytes, decode: Any) -> Any:
    try:
        return decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise TryLaterError(f"its answer can't be read: {error}") from error
