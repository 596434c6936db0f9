"""Whether the vectors of a store are of one model, and of the one that it says.

Some things show without any model: several sizes, several names, vectors of unit length beside others. When a model is
at hand a few texts are embedded again: the cosine of what comes and what is there tells.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from memkeep.config import Config
from memkeep.embedding.pace import Pace
from memkeep.errors import UsageError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Severity, Snapshot, Store
from memkeep.ops import embedder, mixtures, records
from memkeep.ops.embed_check import ALIKE, OTHER, Compared, Sample, compare
from memkeep.ops.embed_texts import NUMPY, Opening, Place, Text, opened, opened_snapshot, places, usable
from memkeep.ops.embedder import Configured, Embedder
from memkeep.ops.mixtures import Mixture
from memkeep.records.shape import Row
from memkeep.systems import embedders
from memkeep.vault.vault import Vault

SAMPLE = 20
_NAMED = 3  # records that a finding names
_MEND = "memkeep embed STORE --all   # all of them anew, with one model"


class VectorKind(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of one collection that are of one size."""

    collection: str
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

    Raises `StoreError`, `DamagedError` and `EmbedderError`.
    """
    chosen = Sample(sample)
    with _opened(vault, name, config, events) as (opening, where, told):
        seen = _Seen()
        for place in where:
            for one in opening.texts(place):
                seen.add(place.map.collection, one)
                chosen.add(place.map.collection, one)
        columns = {one.collection: one.column for one in embedders.model_columns(opening.store.system)}
        for part in opening.store.parts:
            for map_ in part.maps:
                if map_.collection in columns:
                    seen.add_models(map_.collection, opening.rows(part, map_), columns[map_.collection])
    known = embedder.configured(told.system, told.fingerprint)
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
        path=told.path,
        system=told.system,
        snapshot=told.id if isinstance(told, Snapshot) else None,
        configured=known.model,
        model=model,
        kinds=tuple(seen.kinds()),
        compared=tuple(compared),
        findings=tuple(findings),
    )


@contextmanager
def _opened(
    vault: Vault | None, name: str, config: Config | None, events: Events
) -> Iterator[tuple[Opening, list[Place], Store | Snapshot]]:
    """Open a live store or a snapshot."""
    if records.is_live(name, config):
        store = records.store_at(name, config)
        chosen = places(store)
        named = {one.collection for one in embedders.model_columns(store.system)}
        parts = [part for part in store.parts if named & {map_.collection for map_ in part.maps}]
        with opened(store, chosen, parts) as opening:
            yield opening, chosen, store
        return
    if vault is None:
        raise UsageError(f"{name} is no path: a snapshot needs its vault", hint="memkeep snapshots --vault VAULT")
    snapshot = vault.resolve(name)
    with opened_snapshot(vault, snapshot, events) as (opening, chosen):
        yield opening, chosen, snapshot


class _Seen:
    """What was seen of all vectors."""

    def __init__(self) -> None:
        self._sizes: dict[str, Counter[int]] = {}
        self._models: dict[str, Counter[str]] = {}
        self._mixtures: dict[str, Mixture] = {}

    def add(self, collection: str, one: Text) -> None:
        vector = one.vector
        if vector is None or vector.type not in NUMPY or not usable(vector):
            return
        self._sizes.setdefault(collection, Counter())[vector.dims] += 1
        self._mixtures.setdefault(collection, Mixture()).add(str(one.id), vector)

    def add_models(self, collection: str, rows: Iterable[Row], column: str) -> None:
        named = Counter(said for row in rows if isinstance(said := row.get(column), str) and said)
        self._models[collection] = named

    def kinds(self) -> Iterator[VectorKind]:
        for collection, sizes in sorted(self._sizes.items()):
            for dims, count in sorted(sizes.items()):
                yield VectorKind(collection=collection, dims=dims, count=count)

    def findings(self, known: Configured) -> Iterator[Finding]:
        for collection, sizes in sorted(self._sizes.items()):
            if len(sizes) > 1:
                said = ", ".join(f"{count:,} of {dims} dimensions" for dims, count in sizes.most_common())
                yield _mixed(collection, f"vectors of several models: {said}")
        for collection, models in sorted(self._models.items()):
            said = ", ".join(f"{count:,} of {model}" for model, count in models.most_common())
            if len(models) > 1:
                yield _mixed(collection, f"the records name several models: {said}")
            elif models and known.model and not embedder.same_model(next(iter(models)), known.model):
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
