"""Any endpoint that speaks as OpenAI's `/embeddings` does: LM Studio, vLLM, llama.cpp, LocalAI, OpenRouter ..."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from memkeep.embedding.base import TextRefusedError, TryLaterError
from memkeep.embedding.endpoint import TIMEOUT, Endpoint
from memkeep.embedding.pace import Pace
from memkeep.embedding.vectors import matrix
from memkeep.model import Value

if TYPE_CHECKING:
    import numpy as np

URL = "https://api.openai.com/v1"


class _One(Value):
    embedding: list[float] | str
    index: int | None = None


class _Answer(Value):
    data: list[_One]


_decode = msgspec.json.Decoder(_Answer).decode


class OpenAI:
    """An OpenAI-compatible endpoint; a `base.Provider`."""

    name = "openai"

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        dims: int | None = None,
        pace: Pace | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        """`dims` are asked for where the model can make vectors of several sizes."""
        self.model = model
        self.pace = pace or Pace()
        hint = f"curl -sS {url.rstrip('/')}/models"
        self._endpoint = Endpoint(url, key=key, pace=self.pace, timeout=timeout, hint=hint)
        self.identity = f"openai {self._endpoint.url} {model} {dims or ''}"
        self._body: dict[str, Any] = {"model": model} | ({"dimensions": dims} if dims else {})
        # A quarter of the bytes, exact, and nothing to parse; who does not know it answers with numbers.
        self._packed = True

    def embed(self, texts: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Return the vectors of texts."""
        packed = self._packed
        body = self._body | {"input": list(texts), "encoding_format": "base64" if packed else "float"}
        try:
            data = self._endpoint.post("/embeddings", body)
        except TextRefusedError as error:
            if not packed or not any(word in str(error) for word in ("encoding_format", "base64")):
                raise
            self._packed = False
            return self.embed(texts)
        try:
            found = _decode(data).data
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise TryLaterError(f"its answer can't be read: {error}") from error
        places = [one.index for one in found]
        if sorted(place for place in places if place is not None) == list(range(len(found))):
            found = sorted(found, key=lambda one: one.index or 0)
        elif any(place is not None for place in places):
            raise TryLaterError("its answer does not say which vector is of which text")
        return matrix([one.embedding for one in found], len(texts))

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()
