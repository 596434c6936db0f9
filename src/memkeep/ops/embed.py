"""Make the vectors of a store's texts, those that are missing or all of them anew.

What the store was is kept as a snapshot first. Vectors are written down as they come (`embedding.journal`), so that
one that was paid for is not paid again, whatever ends the run; when all are there they go into the store together.
"""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from memkeep.embedding.base import Provider
from memkeep.embedding.journal import Journal
from memkeep.embedding.pace import Pace
from memkeep.embedding.work import Item
from memkeep.embedding.work import embed as make
from memkeep.errors import MemkeepError, RefusedError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Severity, Store
from memkeep.ops import embedder, run_state
from memkeep.ops.embed_body import Body
from memkeep.ops.embed_check import OTHER, Compared, Sample, compare, shown
from memkeep.ops.embed_folder import FolderBody
from memkeep.ops.embed_store import StoreBody
from memkeep.ops.embed_texts import Waiting, key_of, sendable, usable
from memkeep.ops.embed_write import Unwritten
from memkeep.ops.embedder import Configured, Embedder
from memkeep.ops.scratch import scratch
from memkeep.vault.vault import Vault


class EmbedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How it is done."""

    every: bool = False  # all texts, not only those without a vector
    batch: int = 64  # texts a request
    parallel: int = 4  # requests at a time
    rate: float | None = None  # requests a second
    snapshot: bool = True  # keep what the store was first, where there is a vault
    dry_run: bool = False


DEFAULTS = EmbedOptions()


class Untouched(msgspec.Struct, frozen=True, kw_only=True):
    """A record that has no new vector, and why."""

    part: str
    record: str
    reason: str


class EmbedResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was made and written, or in a dry run would be."""

    store: str
    system: str
    provider: str
    model: str
    dims: int | None
    records: int  # with a text
    wanted: int  # of them get a vector
    texts: int  # different ones among these
    characters: int
    kept: int  # texts whose vector an earlier run had paid for
    embedded: int  # texts that were embedded now
    written: int
    refused: tuple[Untouched, ...]
    changed: tuple[Untouched, ...]
    compared: tuple[Compared, ...]
    snapshot: str | None
    undo: str | None
    dry_run: bool
    findings: tuple[Finding, ...]


def embed(
    vault: Vault | None,
    store: Store,
    asked: Embedder,
    options: EmbedOptions = DEFAULTS,
    *,
    events: Events = SILENT,
    environ: Mapping[str, str] = os.environ,
) -> EmbedResult:
    """Make vectors and write them into a live store.

    Raises `RefusedError` (`other_model`, `mixed_models`, `no_vault`), `EmbedderError`, `StoreError`. What was paid for
    is kept for the next run.
    """
    if options.every and options.snapshot and not options.dry_run and vault is None:
        raise RefusedError(
            "there is no vault to keep the vectors in that are replaced",
            hint="memkeep init   # or give --no-snapshot, to have no way back",
            code="no_vault",
        )
    return _embed(StoreBody(store, vault if options.snapshot else None), asked, options, events, environ)


def embed_export(
    folder: str,
    asked: Embedder,
    options: EmbedOptions = DEFAULTS,
    *,
    events: Events = SILENT,
    environ: Mapping[str, str] = os.environ,
) -> EmbedResult:
    """Make vectors and write them into the folder of an export. Raises what `embed` does, and `FileError`."""
    return _embed(FolderBody(folder, events), asked, options, events, environ)


def _embed(
    body: Body, asked: Embedder, options: EmbedOptions, events: Events, environ: Mapping[str, str]
) -> EmbedResult:
    known = embedder.configured(body.system, body.fingerprint)
    if not options.every:
        _refuse_other_name(body, asked, known)
    provider = embedder.provider(asked, known, Pace(options.parallel, options.rate), environ)
    try:
        return _Run(body, provider, options, events).run(asked, known)
    finally:
        provider.close()


class _Run:
    """One run."""

    def __init__(self, body: Body, provider: Provider, options: EmbedOptions, events: Events) -> None:
        self._body = body
        self._provider = provider
        self._options = options
        self._events = events
        self._why: dict[bytes, str] = {}  # texts that the provider refused
        self._embedded = 0

    def run(self, asked: Embedder, known: Configured) -> EmbedResult:
        every = self._options.every
        with ExitStack() as stack:
            waiting = Waiting(stack.enter_context(scratch()))
            stack.callback(waiting.close)
            sample = self._read(waiting)
            dims = self._dims(waiting.dims)
            journal = stack.enter_context(Journal(self._journal()))
            if dims is not None and journal.dims not in (None, dims):
                journal.clear()  # of the model as it was once
            result = self._planned(waiting, journal, dims)
            if self._options.dry_run or not waiting.rows:
                return result
            with self._said(journal):
                kept, undo = self._body.keep(self._events)
                compared = [] if every else self._check(sample)
                self._make(waiting, journal, dims, result.texts)
                written = self._body.write(
                    journal, self._provider, self._why, every=every, kept=kept, events=self._events
                )
            result = msgspec.structs.replace(result, dims=journal.dims or dims)
            journal.clear()
        refused, changed = _told(written.refused), _told(written.changed)
        return msgspec.structs.replace(
            result,
            embedded=self._embedded,
            written=written.rows,
            refused=refused,
            changed=changed,
            compared=tuple(compared),
            snapshot=kept,
            undo=undo,
            findings=(*_findings(refused, changed), *_other_settings(asked, known)),
        )

    def _read(self, waiting: Waiting) -> Sample:
        """Find out which texts want a vector, and what the vectors are that are there."""
        self._events.step(f"reading {self._body.path}")
        sample = Sample()
        for place, one in self._body.texts():
            if not one.text.strip():
                continue
            waiting.seen += 1
            good = usable(one.vector)
            if good and one.vector is not None:
                waiting.dims[one.vector.dims] += 1
                sample.add(place, one)
            if self._options.every or not good:
                waiting.add(key_of(self._provider.identity, one.text), sendable(one.text))
        return sample

    def _dims(self, there: Counter[int]) -> int | None:
        """Return the size that vectors must have; None for any."""
        sizes = self._body.sizes()
        if not self._options.every:
            sizes = sizes | there
        if len(sizes) > 1:
            said = ", ".join(f"{size} ({count:,})" for size, count in sorted(there.items()))
            raise RefusedError(
                f"the vectors in {self._body.path} are of several sizes, so of several models: {said}",
                hint=f"memkeep embed {shlex.quote(self._body.path)} --all",
                code="mixed_models",
            )
        return next(iter(sizes), None)

    def _planned(self, waiting: Waiting, journal: Journal, dims: int | None) -> EmbedResult:
        have = journal.keys()
        texts = characters = kept = 0
        for key, text in waiting:
            kept += key in have
            texts += key not in have
            characters += len(text) if key not in have else 0
        return EmbedResult(
            store=self._body.path,
            system=self._body.system,
            provider=self._provider.name,
            model=self._provider.model,
            dims=dims or journal.dims,
            records=waiting.seen,
            wanted=waiting.rows,
            texts=texts,
            characters=characters,
            kept=kept,
            embedded=0,
            written=0,
            refused=(),
            changed=(),
            compared=(),
            snapshot=None,
            undo=None,
            dry_run=self._options.dry_run,
            findings=(),
        )

    def _journal(self) -> Path:
        from blake3 import blake3

        name = blake3(f"{self._body.path}\0{self._provider.identity}".encode("utf-8", "surrogateescape")).hexdigest(12)
        return run_state.made_folder() / f"embed-{name}.journal"

    def _check(self, sample: Sample) -> list[Compared]:
        """Make some of the vectors that are there again; raises `RefusedError` when another model made them."""
        if not (chosen := sample.chosen()):
            return []
        self._events.step("comparing")
        compared = compare(self._provider, chosen)
        cosines = sorted(one.cosine if one.cosine is not None else -1.0 for one in compared)
        if cosines and cosines[len(cosines) // 2] < OTHER:
            raise RefusedError(
                f"{self._provider.model} did not make the vectors that are in {self._body.path}: "
                f"of {len(compared)} made again the cosines are {shown(compared)}",
                code="other_model",
            )
        return compared

    def _make(self, waiting: Waiting, journal: Journal, dims: int | None, count: int) -> None:
        have = journal.keys()
        items = (Item(key, text) for key, text in waiting if key not in have)
        self._events.step(f"embedding with {self._provider.model}", count)
        for done in make(self._provider, items, batch=self._options.batch, dims=dims or journal.dims):
            if done.vectors is not None:
                journal.add([item.key for item in done.items], done.vectors)
                self._embedded += len(done.items)
            self._why |= {item.key: reason for item, reason in done.refused}
            self._events.advance(len(done.items) + len(done.refused))

    @contextmanager
    def _said(self, journal: Journal) -> Iterator[None]:
        """Say of an error what is kept, and what to do about a model that is another."""
        try:
            yield
        except MemkeepError as error:
            if len(journal) and error.unchanged == MemkeepError("").unchanged:
                error.unchanged = f"Nothing was written; {len(journal):,} vectors are kept for when it is run again."
            if error.code == "other_model":
                store = shlex.quote(self._body.path)
                error.hint = (
                    f"memkeep migrate {store} --to {self._body.system}:NEW --dims N   # then embed NEW"
                    if self._options.every
                    else f"memkeep embed {store} --all   # all of them anew, with one model"
                )
            raise


def _refuse_other_name(body: Body, asked: Embedder, known: Configured) -> None:
    if asked.model and known.model and not embedder.same_model(asked.model, known.model):
        raise RefusedError(
            f"the vectors in {body.path} are to be of {known.model}, not of {asked.model}",
            hint=f"memkeep embed {shlex.quote(body.path)} --all --model {shlex.quote(asked.model)}",
            code="other_model",
        )


def _other_settings(asked: Embedder, known: Configured) -> Iterator[Finding]:
    """Say that a product goes on with another model, unless its settings are changed."""
    if asked.model and known.model and not embedder.same_model(asked.model, known.model):
        yield Finding(
            code="other_model_configured",
            severity=Severity.WARNING,
            message=f"what the store says of its model was {known.model}: new memories and questions need the new one",
            mend=f"name {asked.model} in the product's settings",
        )


def _told(left: Iterable[Unwritten]) -> tuple[Untouched, ...]:
    return tuple(Untouched(part=one.place, record=one.id, reason=one.reason) for one in left)


def _findings(refused: Iterable[Untouched], changed: Iterable[Untouched]) -> Iterator[Finding]:
    for code, severity, some, mend in (
        ("text_refused", Severity.ERROR, refused, "shorten the text, or use a model that takes longer ones"),
        ("text_changed", Severity.WARNING, changed, "memkeep embed STORE"),
    ):
        for one in some:
            yield Finding(code=code, severity=severity, part=one.part, record=one.record, message=one.reason, mend=mend)
