"""What is printed as the next command can be pasted into a shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "memkeep"
# What a path or a name that somebody chose is called in the code.
CHOSEN = frozenset(
    ("path", "folder", "_folder", "file", "target", "place", "live", "top", "parent", "plan", "to", "user", "id")
)


def _commands(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what is given as `hint`, `mend` or `undo`, or to `next`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in {"hint", "mend", "undo"}:
            yield node.value
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "next":
            yield from node.args
        if isinstance(node, ast.Assign) and any(_name(one) in {"hint", "mend", "undo"} for one in node.targets):
            yield node.value


def _name(node: ast.AST) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))


def _bare(node: ast.AST) -> Iterator[str]:
    """Yield what stands in a text as it is; what a call gives is taken to be quoted."""
    if isinstance(node, ast.FormattedValue) and _name(node.value) in CHOSEN:
        yield ast.unparse(node)
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Call):
            yield from _bare(child)


def test_no_command_has_a_path_that_is_not_quoted() -> None:
    found = [
        f"{file.relative_to(SOURCE)}:{command.lineno}: {text}"  # type: ignore[attr-defined]
        for file in SOURCE.rglob("*.py")
        for command in _commands(ast.parse(file.read_text(encoding="utf-8")))
        for text in _bare(command)
    ]
    assert not found, "wrap it in `quoted`"
