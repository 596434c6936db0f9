"""Whether the vectors of a store are of one model, and of the one that it says.

Some things show without any model: several sizes, several names, vectors of unit length beside others. When a model is
at hand a few texts are embedded again: the cosine of what comes and what is there tells.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from memkeep.config import Config
from memkeep.embedding.pace import Pace
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Severity
from memkeep.ops import embedder, mixtures, records
from memkeep.ops.embed_check import ALIKE, OTHER, Compared, Sample, compare
from memkeep.ops.embed_texts import Text, usable
from memkeep.ops.embedder import Configured, Embedder
from memkeep.ops.mixtures import Mixture
from memkeep.records.record import Record
from memkeep.systems import embedders
from memkeep.vault.vault import Vault

SAMPLE = 20
_NAMED = 3  # records that a finding names
_MEND = "memkeep embed STORE --all   # all of them anew, with one model"


class VectorKind(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of one collection that are of one size."""

    collection: str
    vector: str  # its name; "" for the main one
    dims: int
    count: int


class VectorsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the vectors are, and what speaks against their being of one model."""

    path: str
    system: str
    snapshot: str | None
    configured: str | None  # the model that the store names
    model: str | None  # the one that was asked; None: nobody was
    kinds: tuple[VectorKind, ...]
    compared: tuple[Compared, ...]
    findings: tuple[Finding, ...]


def look(
    vault: Vault | None,
    name: str,
    asked: Embedder | None = None,
    *,
    sample: int = SAMPLE,
    config: Config | None = None,
    events: Events = SILENT,
    environ: Mapping[str, str] = os.environ,
) -> VectorsReport:
    """Look at the vectors of a snapshot or a live store; with `asked` make some of them again.

    Raises what `records.of` does, and `EmbedderError`.
    """
    chosen = Sample(sample)
    with records.of(vault, name, config=config, events=events) as source:
        about = source.about
        seen = _Seen(embedders.model_columns(about.system))
        for made in source.records():
            seen.add(made)
            if "" in made.vectors:
                chosen.add(made.collection, Text(made.id, made.text, made.vectors[""]))
    known = embedder.configured(about.system, about.fingerprint)
    findings = list(seen.findings(known))
    compared: list[Compared] = []
    model = None
    if asked is not None:
        provider = embedder.provider(asked, known, Pace(), environ)
        try:
            model = provider.model
            events.step(f"embedding with {model}")
            compared = compare(provider, chosen.chosen())
        finally:
            provider.close()
        findings += _judged(compared, model)
    return VectorsReport(
        path=about.path,
        system=about.system,
        snapshot=about.snapshot,
        configured=known.model,
        model=model,
        kinds=tuple(seen.kinds()),
        compared=tuple(compared),
        findings=tuple(findings),
    )


class _Seen:
    """What was seen of all vectors."""

    def __init__(self, columns: "tuple[embedders.ModelColumn, ...]") -> None:
        self._columns = {one.collection: one.column for one in columns}
        self._sizes: dict[tuple[str, str], Counter[int]] = {}
        self._models: dict[str, Counter[str]] = {}
        self._mixtures: dict[str, Mixture] = {}

    def add(self, made: Record) -> None:
        column = self._columns.get(made.collection)
        said: Any = made.metadata.get(column) if column is not None else None
        for name, vector in made.vectors.items():
            if vector.type not in {"f16", "f32", "f64"} or not usable(vector):
                continue
            self._sizes.setdefault((made.collection, name), Counter())[vector.dims] += 1
            if not name:
                self._mixtures.setdefault(made.collection, Mixture()).add(made.id, vector)
        if isinstance(said, str) and made.vectors:
            self._models.setdefault(made.collection, Counter())[said] += 1

    def kinds(self) -> Iterator[VectorKind]:
        for (collection, name), sizes in sorted(self._sizes.items()):
            for dims, count in sorted(sizes.items()):
                yield VectorKind(collection=collection, vector=name, dims=dims, count=count)

    def findings(self, known: Configured) -> Iterator[Finding]:
        for (collection, name), sizes in sorted(self._sizes.items()):
            if len(sizes) > 1:
                said = ", ".join(f"{count:,} of {dims} dimensions" for dims, count in sizes.most_common())
                yield _mixed(collection, f"vectors of several models{f' in {name}' if name else ''}: {said}")
        for collection, models in sorted(self._models.items()):
            said = ", ".join(f"{count:,} of {model}" for model, count in models.most_common())
            if len(models) > 1:
                yield _mixed(collection, f"the records name several models: {said}")
            elif known.model and not embedder.same_model(next(iter(models)), known.model):
                yield _other(collection, f"the records name another model than the store ({known.model}): {said}")
        for collection, mixture in sorted(self._mixtures.items()):
            for code, message in mixtures.judged(mixture):
                yield Finding(
                    code=code,
                    severity=Severity.WARNING,
                    part=collection,
                    message=message,
                    mend="memkeep verify STORE --vectors --model M --provider P   # shows which are of this model",
                )


def _judged(compared: list[Compared], model: str) -> Iterator[Finding]:
    """Say what the cosines mean."""
    other = [one for one in compared if one.cosine is None or one.cosine < OTHER]
    near = [one for one in compared if one.cosine is not None and OTHER <= one.cosine < ALIKE]
    if other and len(other) == len(compared):
        yield _other(None, f"{model} made none of the {len(compared)} vectors that were made again: {_shown(other)}")
    elif other:
        yield _mixed(
            None,
            f"{model} made {len(compared) - len(other)} of {len(compared)} vectors that were made again; "
            f"of another model, or another text, are {_shown(other)}",
        )
    if near:
        yield Finding(
            code="vectors_differ",
            severity=Severity.WARNING,
            message=f"{len(near)} of {len(compared)} vectors are near to what {model} makes, but not the same: "
            f"{_shown(near)}. It may be given other words before the text, or the text was changed",
        )


def _shown(some: list[Compared]) -> str:
    worst = sorted(some, key=lambda one: one.cosine if one.cosine is not None else -2.0)[:_NAMED]
    said = ", ".join(
        f"{one.record} ({f'cosine {one.cosine:.3f}' if one.cosine is not None else f'{one.dims} dimensions'})"
        for one in worst
    )
    return said + (", ..." if len(some) > _NAMED else "")


def _mixed(collection: str | None, message: str) -> Finding:
    return Finding(code="mixed_models", severity=Severity.ERROR, part=collection, message=message, mend=_MEND)


def _other(collection: str | None, message: str) -> Finding:
    return Finding(code="other_model", severity=Severity.ERROR, part=collection, message=message, mend=_MEND)
