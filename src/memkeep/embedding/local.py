"""A model in a folder of this machine: model2vec's own form, or whatever sentence-transformers can load."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec

from memkeep.embedding.pace import Pace
from memkeep.embedding.vectors import checked
from memkeep.errors import EmbedderError, UnsupportedError, UsageError

if TYPE_CHECKING:
    import numpy as np


class Local:
    """A model of this machine; a `base.Provider`. Nothing is fetched: a model that is not there is no model."""

    name = "local"

    def __init__(self, folder: str, *, pace: Pace | None = None) -> None:
        """Load it; raises `UsageError` for what is no folder of a model."""
        path = Path(folder).expanduser()
        if not (path / "config.json").is_file():
            raise UsageError(
                f"{folder} is not the folder of a model: it has no config.json",
                hint="memkeep embed STORE --provider local --model FOLDER",
            )
        self.model = folder
        self.pace = pace or Pace()
        self.identity = f"local {_digest(path)}"
        self._model = _load(path)
        self._one = Lock()  # one call uses all cores that it can

    def embed(self, texts: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Return the vectors of texts."""
        import numpy as np

        with self.pace.slot(), self._one:
            made = self._model.encode(list(texts), show_progress_bar=False)
        return checked(np.asarray(made, np.float32))

    def close(self) -> None:
        """Let go of nothing: the model goes with this object."""


def _load(path: Path) -> Any:
    try:
        if _is_static(path):
            from model2vec import StaticModel

            return StaticModel.from_pretrained(path, force_download=False)
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(path), local_files_only=True)
    except ImportError as error:
        package = "'memkeep[embed]'" if _is_static(path) else "sentence-transformers"
        raise UnsupportedError(
            f"the model in {path} can't be loaded without a package: {error}", hint=f"pip install {package}"
        ) from error
    except Exception as error:
        raise EmbedderError(
            f"{path} holds no model that can be loaded: {error}", hint=f"ls {shlex.quote(str(path))}"
        ) from error


def _is_static(path: Path) -> bool:
    """Say whether a model is model2vec's: its settings say so, or its only layers are a table of words."""
    said = _read(path / "config.json")
    layers = _read(path / "modules.json")
    if isinstance(said, dict) and said.get("model_type") == "model2vec":
        return True
    return isinstance(layers, list) and any(
        isinstance(one, dict) and str(one.get("type")).endswith(".StaticEmbedding") for one in layers
    )


def _read(file: Path) -> Any:
    try:
        return msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _digest(path: Path) -> str:
    """Return what names the model's own files: a folder may be filled anew."""
    from blake3 import blake3

    made = blake3()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            made.update(file.relative_to(path).as_posix().encode() + b"\0")
            made.update_mmap(file)
    return made.hexdigest(16)
