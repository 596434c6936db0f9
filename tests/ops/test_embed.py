import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from memkeep.errors import EmbedderError, FileError, RefusedError, UnsupportedError, UsageError
from memkeep.library import OpenVault, discover
from memkeep.model import Store
from memkeep.ops import records, run_state
from memkeep.ops.embed import EmbedOptions, embed, embed_export
from memkeep.ops.embed_write import Writing
from memkeep.ops.embedder import Embedder, Name
from memkeep.ops.export import export
from memkeep.ops.exported import metadata_of, verify_export
from memkeep.ops.records import Filters
from memkeep.records.formats.catalog import FORMATS
from memkeep.records.record import Record
from memkeep.testing.embedder import Embedder as Endpoint
from memkeep.testing.embedder import embedder

pytestmark = pytest.mark.usefixtures("home")
ALL = EmbedOptions(every=True, snapshot=False)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with embedder(dims=16) as server:
        yield server


@pytest.fixture
def pro(copy_store: Callable[..., Path]) -> Store:
    return discover(copy_store("pro-1.1.0-beta.11", "lancedb-pro"))[0]


def ollama(endpoint: Endpoint, model: str = "m") -> Embedder:
    return Embedder(provider="ollama", model=model, url=endpoint.url)


def lance_rows(store: Store, table: str = "memories.lance") -> dict[str, tuple[str, bytes | None]]:
    import lance

    found = lance.dataset(f"{store.path}/{table}").to_table(columns=["id", "text", "vector"]).to_pylist()
    return {
        row["id"]: (row["text"], row["vector"] and np.asarray(row["vector"], np.float32).tobytes()) for row in found
    }


def change(store: Store, values: dict[str, str], where: str) -> None:
    import lance

    lance.dataset(f"{store.path}/memories.lance").update(values, where=where)


def journals() -> list[Path]:
    return list(run_state.folder().glob("embed-*"))


def test_all_vectors_are_made_anew_each_from_its_own_text(pro: Store, endpoint: Endpoint) -> None:
    before = lance_rows(pro)
    result = embed(None, pro, ollama(endpoint), ALL)
    after = lance_rows(pro)
    assert (result.written, result.wanted, result.dims) == (len(before), len(before), 16)
    assert {key: text for key, (text, _) in after.items()} == {key: text for key, (text, _) in before.items()}
    texts = [text for text, _ in after.values()]
    assert [row.tobytes() for row in endpoint.vectors("m", texts)] == [vector for _, vector in after.values()]
    assert set(endpoint.served.values()) == {1}
    assert not journals()


def test_only_what_is_missing_is_made_and_zeros_are_missing_too(pro: Store, endpoint: Endpoint) -> None:
    embed(None, pro, ollama(endpoint), ALL)
    whole = lance_rows(pro)
    none, zeros = list(whole)[3:5]
    change(pro, {"vector": "NULL"}, f"id = '{none}'")
    change(pro, {"vector": str([0.0] * 16)}, f"id = '{zeros}'")
    endpoint.served.clear()
    result = embed(None, pro, ollama(endpoint))
    assert lance_rows(pro) == whole
    assert (result.wanted, result.written) == (2, 2)
    assert {whole[one][0] for one in (none, zeros)} <= set(endpoint.served)
    assert len(endpoint.served) <= 2 + 5  # and those that were compared
    assert [one.cosine for one in result.compared] == pytest.approx([1.0] * 5)
    again = embed(None, pro, ollama(endpoint))
    assert (again.wanted, again.written) == (0, 0)


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_a_dry_run_needs_no_library_to_ask_with(pro: Store, provider: Name, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    asked = Embedder(provider=provider, model="m", url="http://127.0.0.1:1")
    assert embed(None, pro, asked, EmbedOptions(every=True, dry_run=True)).dry_run
    with pytest.raises(UnsupportedError, match="httpx") as caught:
        embed(None, pro, asked, ALL)
    assert "embed" in caught.value.hint


def test_a_dry_run_asks_nobody_and_changes_nothing(pro: Store, endpoint: Endpoint) -> None:
    before = lance_rows(pro)
    result = embed(None, pro, ollama(endpoint), EmbedOptions(every=True, dry_run=True))
    assert (result.wanted, result.written, endpoint.requests) == (len(before), 0, 0)
    assert result.characters == sum(len(text) for text in {text for text, _ in before.values()})
    assert lance_rows(pro) == before
    assert not journals()


def test_what_another_model_made_is_not_mixed_with(pro: Store, endpoint: Endpoint) -> None:
    change(pro, {"vector": "NULL"}, f"id = '{next(iter(lance_rows(pro)))}'")
    before = lance_rows(pro)
    with pytest.raises(RefusedError) as caught:
        embed(None, pro, ollama(endpoint))
    assert caught.value.code == "other_model"
    assert "m did not make the vectors" in caught.value.message
    assert caught.value.message.count("0.") >= 5
    assert "--all" in caught.value.hint
    assert lance_rows(pro) == before


def test_a_model_that_the_store_does_not_name_is_refused_before_anybody_is_asked(
    pro: Store, endpoint: Endpoint
) -> None:
    named = msgspec.structs.replace(pro, fingerprint={"embedding": {"provider": "ollama", "model": "nomic-embed-text"}})
    with pytest.raises(RefusedError, match="are to be of nomic-embed-text, not of m"):
        embed(None, named, ollama(endpoint))
    assert endpoint.requests == 0
    same = ollama(endpoint, "nomic-embed-text:latest")
    assert embed(None, named, same, EmbedOptions(dry_run=True)).model == "nomic-embed-text:latest"
    result = embed(None, named, ollama(endpoint), ALL)
    assert [one.code for one in result.findings] == ["other_model_configured"]


def test_vectors_of_another_size_than_the_table_takes_are_refused(pro: Store) -> None:
    before = lance_rows(pro)
    with embedder(dims=17) as other, pytest.raises(RefusedError) as caught:
        embed(None, pro, ollama(other), ALL)
    assert caught.value.code == "other_model"
    assert "17 dimensions, not of 16" in caught.value.message
    assert "migrate" in caught.value.hint
    assert sum(other.served.values()) == 1
    assert lance_rows(pro) == before


def test_vectors_are_not_replaced_without_a_way_back_unless_that_is_said(pro: Store, endpoint: Endpoint) -> None:
    with pytest.raises(RefusedError) as caught:
        embed(None, pro, ollama(endpoint), EmbedOptions(every=True))
    assert caught.value.code == "no_vault"
    assert endpoint.requests == 0


def test_the_old_vectors_are_in_a_snapshot_and_one_command_brings_them_back(
    pro: Store, endpoint: Endpoint, new_vault: Callable[..., OpenVault]
) -> None:
    vault, before = new_vault(), lance_rows(pro)
    result = embed(vault._vault, pro, ollama(endpoint), EmbedOptions(every=True))
    assert lance_rows(pro) != before
    assert result.snapshot is not None
    assert result.undo == f"memkeep restore {result.snapshot[:12]} --in-place --confirm=openclaw-lancedb"
    vault.restore(result.snapshot, in_place=True, confirm="openclaw-lancedb")
    assert lance_rows(pro) == before


def test_a_text_that_the_model_does_not_take_is_named_and_the_others_go_in(pro: Store, endpoint: Endpoint) -> None:
    before = lance_rows(pro)
    long = max(before, key=lambda key: len(before[key][0]))
    endpoint.longest = len(before[long][0]) - 1
    result = embed(None, pro, ollama(endpoint), ALL)
    after = lance_rows(pro)
    assert [(one.record, "context length" in one.reason) for one in result.refused] == [(long, True)]
    assert [key for key in before if after[key] == before[key]] == [long]
    assert [one.record for one in result.findings] == [long]


def test_a_text_that_was_changed_meanwhile_gets_no_vector_of_the_old_one(
    pro: Store, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lance_rows(pro)
    changed, gone, *others = before
    real = Writing.write

    def meanwhile(*args: object, **more: object) -> object:
        import lance

        change(pro, {"text": "'said otherwise'"}, f"id = '{changed}'")
        lance.dataset(f"{pro.path}/memories.lance").delete(f"id = '{gone}'")
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Writing, "write", meanwhile)
    result = embed(None, pro, ollama(endpoint), ALL)
    after = lance_rows(pro)
    assert [one.record for one in result.changed] == [changed]
    assert after[changed] == ("said otherwise", before[changed][1])
    assert gone not in after
    assert result.written == len(others)


def test_what_was_paid_for_before_a_failure_is_not_paid_again(
    pro: Store, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memkeep.clock.pause", lambda _: None)
    before = lance_rows(pro)
    options = EmbedOptions(every=True, snapshot=False, batch=8, parallel=1)
    endpoint.faults.extend([None, None, None, *["500"] * 400])
    with pytest.raises(EmbedderError) as caught:
        embed(None, pro, ollama(endpoint), options)
    assert "17 vectors are kept" in caught.value.unchanged
    assert lance_rows(pro) == before
    assert len(journals()) == 1
    assert embed(None, pro, ollama(endpoint), EmbedOptions(every=True, dry_run=True)).kept == 17
    endpoint.faults.clear()
    result = embed(None, pro, ollama(endpoint), options)
    assert (result.kept, result.embedded + result.kept) == (17, len({text for text, _ in before.values()}))
    assert set(endpoint.served.values()) == {1}
    assert not journals()


def test_vectors_of_another_model_that_were_kept_are_not_used(pro: Store, endpoint: Endpoint) -> None:
    endpoint.faults.extend([None, None, "401"])
    with pytest.raises(EmbedderError):
        embed(None, pro, ollama(endpoint), EmbedOptions(every=True, snapshot=False, batch=8, parallel=1))
    assert embed(None, pro, ollama(endpoint, "n"), EmbedOptions(every=True, dry_run=True)).kept == 0
    assert embed(None, pro, ollama(endpoint), EmbedOptions(every=True, dry_run=True)).kept >= 9


def test_nobody_saying_which_model_or_where_is_told(pro: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, said in (
        (Embedder(), "which model"),
        (Embedder(model="m"), "who makes vectors with m"),
        (Embedder(model="m", provider="openai"), "a key"),
    ):
        with pytest.raises(UsageError, match=said):
            embed(None, pro, asked, ALL, environ={})


@pytest.mark.parametrize("format_", ["json", "jsonl", "parquet", "alf"])
def test_an_export_gets_the_vectors_that_it_lacks_and_is_whole(
    copy_store: Callable[..., Path], tmp_path: Path, format_: str
) -> None:
    store, folder = copy_store("oc-memory") / "memory.db", tmp_path / "exported"
    with records.of(None, str(store), filters=Filters(vectors=False)) as source:
        export(source, folder, format_)
    before = {made.id: made for made in _read(folder, format_)}
    assert not any(made.vectors for made in before.values())
    with embedder(dims=24) as server:
        asked = Embedder(url=server.url)
        result = embed_export(str(folder), asked)
        assert embed_export(str(folder), asked).wanted == 0
    assert not verify_export(folder).findings
    after = {made.id: made for made in _read(folder, format_)}
    memories = [made for made in before.values() if made.primary]
    assert result.written == result.wanted == len(memories)
    for made in memories:
        vector = after[made.id].vectors[""]
        assert vector.data == server.vectors("nomic-embed-text", [made.text])[0].tobytes()
        assert vector.model == "ollama/nomic-embed-text"
        assert msgspec.structs.replace(after[made.id], vectors={}) == made
    assert after.keys() == before.keys()
    assert "vectors" not in metadata_of(folder)["filters"]


def test_an_export_that_was_changed_or_that_loses_things_is_not_written_anew(
    copy_store: Callable[..., Path], tmp_path: Path, endpoint: Endpoint
) -> None:
    store = copy_store("oc-memory") / "memory.db"
    for format_, kind in (("json", FileError), ("markdown", UsageError)):
        folder = tmp_path / format_
        with records.of(None, str(store)) as source:
            export(source, folder, format_)
        if format_ == "json":
            data = (folder / "export.json").read_bytes()
            (folder / "export.json").write_bytes(data.replace(b"a", b"b", 1))
        before = {path: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(kind):
            embed_export(str(folder), Embedder(url=endpoint.url))
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert endpoint.requests == 0


def _read(folder: Path, format_: str) -> list[Record]:
    found = next(one for one in FORMATS if one.name == format_)
    return [made for made in found.read(folder) if isinstance(made, Record)]
