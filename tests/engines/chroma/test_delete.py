import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memkeep.engines.chroma import ChromaEngine
from memkeep.engines.chroma_files import INCLUDE
from memkeep.engines.rows import Deleted, Gone, RowDeleter
from memkeep.model import Part, Role


def test_records_go_and_chromadb_finds_the_others(
    made: tuple[Path, Any], truth: Any, tell: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    live = Path(shutil.copytree(made[0], tmp_path / "db"))
    part = Part(name="db", engine="chroma", role=Role.CANONICAL, path=str(live), include=INCLUDE)
    engine = ChromaEngine()
    assert isinstance(engine, RowDeleter)
    gone = [
        Gone(table="queue", columns=("id",), ids=("queue-1", "gone")),
        Gone(table="files", columns=("id",), ids=("files1", "files149"), spelled=False),
        Gone(table="nothing", columns=("id",), ids=("1",)),
    ]
    before = (live / "chroma.sqlite3").read_bytes()
    with engine.delete_rows(part, gone) as one:
        assert one.result == Deleted(tables={"queue": 1, "files": 2})
    assert (live / "chroma.sqlite3").read_bytes() == before
    with engine.delete_rows(part, gone) as one:
        one.commit()
    after = tell(live)
    for name, records in (("queue", {"queue-1"}), ("files", {"files-1", "files-149"}), ("squares", set())):
        assert truth[name]["records"].keys() - after[name]["records"].keys() == records
        assert after[name]["records"].keys() < truth[name]["records"].keys() or not records
    assert not {"files-1", "files-149"} & {found for answer in after["files"]["answers"][0] for found in answer}
