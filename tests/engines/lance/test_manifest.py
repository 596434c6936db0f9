"""Reading manifests without the library: it says what the library says, and garbage is refused."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import lance
import pytest

from memkeep.engines import lance_files, lance_manifest
from memkeep.errors import StoreError

TABLES = [
    "hybrid-2026.4.273/memory/lancedb/memories.lance",
    "hybrid-2026.4.273/memory/lancedb/semantic_query_cache.lance",
    "memory-lancedb-2026.3.13/lancedb/memories.lance",
    "pro-1.1.0-beta.11/lancedb-pro/memories.lance",
    "openclaw-core-2026.9.6/state-dir/memory/lancedb/memories.lance",
]


def read(table: Path) -> lance_manifest.Manifest:
    version = lance_manifest.newest(table)
    assert version is not None
    return lance_manifest.parse((table / "_versions" / version.name).read_bytes(), version.name, version.version)


def library_files(table: Path) -> set[str]:
    """Return the files that the library says the newest version is made of, the manifest excepted."""
    dataset = lance.dataset(str(table))
    tracked = dataset.tracked_files(min_version=dataset.version).read_all().to_pylist()
    return {row["path"] for row in tracked if row["type"] != "manifest"}


def own_files(table: Path) -> set[str]:
    manifest = read(table)
    return {*lance_files.named(manifest), *lance_files.listed(table, manifest), *lance_files.transaction(manifest)}


def assert_same_as_library(table: Path) -> None:
    manifest, dataset = read(table), lance.dataset(str(table))
    assert manifest.version == dataset.version
    assert manifest.rows == dataset.count_rows()
    assert list(manifest.columns) == dataset.schema.names
    assert manifest.storage_version == dataset.data_storage_version
    assert [fragment.id for fragment in manifest.fragments] == [one.fragment_id for one in dataset.get_fragments()]
    for mine, theirs in zip(manifest.fragments, dataset.get_fragments(), strict=True):
        assert mine.physical_rows == theirs.metadata.physical_rows
        assert mine.rows == theirs.count_rows()
        assert [file.path for file in mine.files] == [f"data/{file.path}" for file in theirs.metadata.files]
    assert {index.name for index in manifest.indices} == {index.name for index in dataset.describe_indices()}
    assert own_files(table) == library_files(table)


@pytest.mark.real
@pytest.mark.parametrize("name", TABLES)
def test_a_real_table_is_read_as_the_library_reads_it(copy_store: Callable[..., Path], name: str) -> None:
    assert_same_as_library(copy_store(name))


def test_a_table_that_has_lived_is_read_as_the_library_reads_it(make_table: Callable[..., Path]) -> None:
    table = make_table(40, 30, 20)
    dataset = lance.dataset(str(table))
    dataset.delete("id IN ('memory-00003', 'memory-00050')")
    dataset.update({"category": "'changed'"}, where="id < 'memory-00010'")
    dataset.create_scalar_index("text", "INVERTED")
    dataset.create_scalar_index("id", "BTREE")
    dataset.delete("id < 'memory-00035'")  # so many of a fragment that they are kept as a bitmap
    assert_same_as_library(table)
    assert {index.kind for index in read(table).indices} == {"InvertedIndex", "BTreeIndex"}
    lance.dataset(str(table)).optimize.compact_files()
    assert_same_as_library(table)


@pytest.mark.parametrize("storage", ["legacy", "2.0", "2.1", "2.2"])
def test_every_storage_version_is_read(make_table: Callable[..., Path], storage: str) -> None:
    table = make_table(20, 5, data_storage_version=storage)
    lance.dataset(str(table)).delete("id = 'memory-00004'")
    assert_same_as_library(table)
    assert read(table).vectors == {"vector": 128}


def test_stable_row_ids_and_old_manifest_names_are_read(make_table: Callable[..., Path]) -> None:
    assert_same_as_library(make_table(20, 20, enable_stable_row_ids=True, folder="stable"))
    old = make_table(20, 20, enable_v2_manifest_paths=False, folder="old")
    assert (old / "_versions" / "2.manifest").is_file()
    assert_same_as_library(old)


def test_the_newest_version_is_found_by_either_naming_and_detached_ones_are_passed_over(tmp_path: Path) -> None:
    versions = tmp_path / "_versions"
    versions.mkdir()
    assert lance_manifest.newest(tmp_path) is None
    for name in ("d9223372036854775809.manifest", f"{1 << 63}.manifest", "7.manifest.tmp", "latest_version_hint.json"):
        (versions / name).touch()
    assert lance_manifest.newest(tmp_path) is None
    for name in ("9.manifest", "10.manifest"):
        (versions / name).touch()
    assert lance_manifest.newest(tmp_path) == lance_manifest.VersionFile(version=10, name="10.manifest")
    (versions / f"{2**64 - 1 - 12:020}.manifest").touch()
    assert lance_manifest.newest(tmp_path).version == 12


@pytest.mark.damage
def test_a_manifest_that_is_cut_anywhere_is_refused(make_table: Callable[..., Path]) -> None:
    table = make_table(5)
    data = next((table / "_versions").glob("*.manifest")).read_bytes()
    lance_manifest.parse(data, "whole", 1)
    for length in range(len(data)):
        with pytest.raises(StoreError) as raised:
            lance_manifest.parse(data[:length], "the manifest", 1)
        assert raised.value.code == "lance_manifest"
        assert raised.value.hint


@pytest.mark.damage
def test_a_garbled_manifest_is_refused_or_read_but_nothing_else_happens(make_table: Callable[..., Path]) -> None:
    table = make_table(5, 5)
    lance.dataset(str(table)).delete("id = 'memory-00001'")
    lance.dataset(str(table)).create_scalar_index("text", "INVERTED")
    version = lance_manifest.newest(table)
    data = (table / "_versions" / version.name).read_bytes()
    chance = random.Random(1)
    refused = 0
    for _ in range(3000):
        broken = bytearray(data)
        for _ in range(chance.choice([1, 1, 3])):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        try:
            manifest = lance_manifest.parse(bytes(broken), "the manifest", version.version)
        except StoreError as error:
            refused += error.code == "lance_manifest"
            continue
        for name in lance_files.named(manifest):
            assert not name.startswith("/")
            assert ".." not in name.split("/")
    assert refused > 300


@pytest.mark.parametrize("path", [b"../../x.lance", b"/etc/passwd12", b"a/../../../xy"])
def test_a_file_name_that_leads_out_of_the_table_is_refused(make_table: Callable[..., Path], path: bytes) -> None:
    table = make_table(5)
    file = next((table / "data").iterdir()).name.encode()
    data = next((table / "_versions").glob("*.manifest")).read_bytes()
    bad = data.replace(file, path.ljust(len(file), b"x"))
    assert bad != data
    with pytest.raises(StoreError, match="outside its folder"):
        lance_manifest.parse(bad, "the manifest", 1)


def test_a_version_that_is_not_the_one_its_name_says_is_refused(make_table: Callable[..., Path]) -> None:
    data = next((make_table(5) / "_versions").glob("*.manifest")).read_bytes()
    with pytest.raises(StoreError, match="says version 1, its name says 2"):
        lance_manifest.parse(data, "the manifest", 2)


def test_a_reader_flag_from_the_future_is_refused(make_table: Callable[..., Path]) -> None:
    table = make_table(5)
    lance.dataset(str(table)).delete("id = 'memory-00001'")
    version = lance_manifest.newest(table)
    data = (table / "_versions" / version.name).read_bytes()
    start = int.from_bytes(data[-16:-8], "little")
    message = data[start + 4 : -16]
    newer = message + b"\x48\x80\x20"  # field 9, 4096
    built = data[:start] + len(newer).to_bytes(4, "little") + newer + data[-16:]
    assert lance_manifest.parse(data, "as it is").version == version.version
    with pytest.raises(StoreError, match="does not know"):
        lance_manifest.parse(built, "the manifest")


def test_the_files_of_another_table_are_named_as_being_outside(make_table: Callable[..., Path], tmp_path: Path) -> None:
    table = make_table(10, 10)
    clone = tmp_path / "clone" / "memories.lance"
    lance.dataset(str(table)).shallow_clone(str(clone), 2)
    outside = lance_files.outside(read(clone))
    assert len(outside) == 2
    assert all(str(table) in name for name in outside)
    assert lance_files.named(read(clone)) == []
    shutil.rmtree(table)
    assert lance_files.outside(read(clone)) == outside
