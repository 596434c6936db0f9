"""Write docs/reference/ from the program itself, so that it can't say anything else than the program does.

python docs/generate.py        (or: make docs; a test says when the pages are behind)
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import msgspec

from memkeep import config, errors
from memkeep.cli.results import result_types
from memkeep.cli.table import SECTIONS
from memkeep.cli.words import root
from memkeep.model import Role
from memkeep.storage import base as storage_errors

HERE = Path(__file__).resolve().parent / "reference"
SOURCE = Path(errors.__file__).parent
MADE = "<!-- Made by docs/generate.py from the program itself: change that, then run `make docs`. -->\n"

STATUSES = {
    0: ("done", ""),
    3: ("finished, but some of the source could not be read; the findings name it", ""),
    4: ("finished, and problems were found; the findings name them", ""),
    130: ("interrupted by Ctrl-C, SIGTERM or SIGHUP", "`interrupted`"),
}
OTHER_CODES = {
    "internal": ("an error in memkeep itself; `MEMKEEP_TRACEBACK=1` shows where", 1),
    "system": ("the operating system refused something that no other code names", 1),
}
VARIABLES = {
    "MEMKEEP_CONFIG": "the settings file to use instead of the user's own; the flag is `--config`",
    "MEMKEEP_VAULT": "the vault: a folder, a URL, or a name from the settings; the flag is `--vault`",
    "MEMKEEP_PASSWORD": "the vault's password (there is no flag: other users can see command lines)",
    "MEMKEEP_PASSWORD_FILE": "a file that holds the password; the flag is `--password-file`",
    "MEMKEEP_PASSWORD_COMMAND": "a command that prints the password; the flag is `--password-command`",
    "MEMKEEP_FROM_PASSWORD": "the password of the vault that `repair --from` names",
    "MEMKEEP_FROM_PASSWORD_FILE": "a file that holds it; the flag is `--from-password-file`",
    "MEMKEEP_FROM_PASSWORD_COMMAND": "a command that prints it; the flag is `--from-password-command`",
    "MEMKEEP_TO_PASSWORD": "the password of the vault that `copy --to` names",
    "MEMKEEP_TO_PASSWORD_FILE": "a file that holds it; the flag is `--to-password-file`",
    "MEMKEEP_TO_PASSWORD_COMMAND": "a command that prints it; the flag is `--to-password-command`",
    "MEMKEEP_CACHE_DIR": "where objects of far vaults are kept, instead of the user's cache folder; safe to delete",
    "CREDENTIALS_DIRECTORY": "systemd's own: the folder of a service's credentials, such as `memkeep-password`",
    "MEMKEEP_TRACEBACK": "if set, every error is preceded by its traceback",
    "NO_COLOR": "if set, no colours (`TERM=dumb` does the same)",
    "OC_MEMORY_BACKUP_HOST": "oc-memory's own, `[user@]host` of a server: the vault, when nothing else names one, is"
    " `sftp://[user@]host/~/backups/memkeep`",
    "OLLAMA_URL": "where Ollama is, instead of `http://localhost:11434`, for `embed`",
    "OPENAI_API_KEY": "the key of an OpenAI-compatible endpoint, for `embed`; the flag is `--key-file`",
    "OPENAI_BASE_URL": "where that endpoint is, instead of OpenAI's own; the flag is `--url`",
    "OPENCLAW_STATE_DIR": "OpenClaw's own: where its state folder is, instead of `~/.openclaw`",
    "TMPDIR": "where scratch copies are made",
}


def pages() -> dict[str, str]:
    """Return the text of every page by its name."""
    made = {
        "commands.md": _commands(),
        "exit-codes.md": _exit_codes(),
        "settings.md": _settings(),
        "json.md": _json(),
    }
    return {name: MADE + text for name, text in made.items()}


def _commands() -> str:
    group = root()
    top = click.Context(group, info_name="memkeep", terminal_width=80, max_content_width=80)
    lines = ["# Commands", "", *_block(group.get_help(top))]
    for section, verbs in SECTIONS.items():
        lines += ["", f"## {section}"]
        for verb in verbs:
            command = group.get_command(top, verb)
            if command is None:
                raise LookupError(verb)
            lines += ["", f"### memkeep {verb}", "", *_block(command.get_help(_context(command, verb, top)))]
    return "\n".join(lines) + "\n"


def _context(command: click.Command, verb: str, parent: click.Context) -> click.Context:
    return click.Context(command, info_name=verb, parent=parent, terminal_width=80, max_content_width=80)


def _block(text: str, language: str = "text") -> list[str]:
    return [f"```{language}", *text.rstrip().splitlines(), "```"]


def _exit_codes() -> str:
    rows = dict(STATUSES)
    for kind in _classes(errors.MemkeepError):
        if kind.exit != errors.MemkeepError.exit and kind.exit not in rows:
            rows[kind.exit] = (_sentence(kind), f"`{kind.code}`")
    rows[1] = ("failed; the code says how", "see below")
    codes = {kind.code: (_sentence(kind), kind.exit) for kind in _classes(errors.MemkeepError)} | OTHER_CODES
    for code, kind in _special_codes():
        codes.setdefault(code, (f"a case of `{kind.code}`", kind.exit))
    lines = ["# Exit statuses and error codes", "", "| status | meaning | code |", "|---|---|---|"]
    lines += [f"| {status} | {meaning} | {code} |" for status, (meaning, code) in sorted(rows.items())]
    lines += [
        "",
        "Where several things went wrong (several stores, the steps of `memkeep run`) the worst says the status: best",
        "is 0, then 4, then 3, then the failures by their number.",
        "",
        "An error is three lines on standard error: what and which; what was (not) changed; the next command. With",
        "`--json` it is one document on standard output whose `error.code` is one of these. Codes are only ever added.",
        "",
        "| code | meaning | status |",
        "|---|---|---|",
        *(f"| `{code}` | {meaning} | {status} |" for code, (meaning, status) in sorted(codes.items())),
    ]
    return "\n".join(lines) + "\n"


def _classes(base: type[errors.MemkeepError]) -> Iterator[type[errors.MemkeepError]]:
    if base.__module__ in (errors.__name__, storage_errors.__name__):
        yield base
    for below in base.__subclasses__():
        yield from _classes(below)


def _sentence(kind: type) -> str:
    text = (kind.__doc__ or "").splitlines()[0].rstrip(".").replace("|", "\\|")
    return text[:1].lower() + text[1:]


def _special_codes() -> Iterator[tuple[str, type[errors.MemkeepError]]]:
    """Yield the codes given where an error is raised: `raise StoreError(..., code="no_snapshot")`."""
    kinds = {kind.__name__: kind for kind in _classes(errors.MemkeepError)}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                for word in node.keywords:
                    if word.arg == "code" and isinstance(word.value, ast.Constant) and word.value.value:
                        yield str(word.value.value), kinds[node.func.id]


def _settings() -> str:
    summary, _, rest = (config.__doc__ or "").partition("\n\n")
    where, _, rest = rest.partition("\n\n")
    example, _, after = rest.partition("\n\nA vault's")
    lines = [
        "# Settings",
        "",
        summary,
        "",
        where,
        "",
        *_block(_dedent(example), "toml"),
        "",
        f"A vault's{after}".rstrip().replace(": see `settle`", ""),
    ]
    lines += ["", "## Keys", "", "| key | type | default |", "|---|---|---|"]
    lines += [f"| `{key}` | {kind} | {default} |" for key, kind, default in _keys(config.Config, "")]
    lines += ["", "## Environment", "", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in VARIABLES.items()]
    return "\n".join(lines) + "\n"


def _dedent(text: str) -> str:
    return re.sub(r"(?m)^    ", "", text)


def _keys(kind: type[msgspec.Struct], at: str) -> Iterator[tuple[str, str, str]]:
    """Yield each key of the settings, those of tables by their whole name."""
    for field in msgspec.structs.fields(kind):
        if (kind, field.name) == (config.Config, "file"):
            continue
        name = f"{at}{field.encode_name}"
        inner = re.search(r"memkeep\.config\.(\w+)", str(field.type))
        if inner and isinstance(getattr(config, inner[1]), type):
            shape = str(field.type)
            middle = ".NAME." if shape.startswith("dict") else "[]." if shape.startswith("tuple") else "."
            yield from _keys(getattr(config, inner[1]), name + middle)
        else:
            yield name, _type_name(field.type), _default(field)


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        return f"list of {_type_name(get_args(kind)[0])}"
    name = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    name = re.sub(r"^typing\.Optional\[(.*)\]$", r"\1", name)
    words = {
        "memkeep.config.Size": "size such as `500kB`, `2 MB`, `1GiB`",
        "memkeep.config.Rate": "speed such as `500kB/s`, `2 MB/s`, `1GiB/s`",
        "memkeep.config.Period": "time such as `30d`, `12h`, `1d12h`",
        "memkeep.model.Role": " | ".join(f"`{role.value}`" for role in Role),
        "tuple[str, ...]": "list of text",
        " | None": "",
        "str": "text",
        "int": "number",
        "bool": "true | false",
        "|": "or",
    }
    for python, plain in words.items():
        name = name.replace(python, plain)
    return name


def _default(field: Any) -> str:
    if field.required:
        return "needed"
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if field.type is config.Size:
        return f'`"{default / 10**9:g}GB"`'
    return "" if default in (None, "", ()) else f"`{json.dumps(default)}`"


def _json() -> str:
    types = result_types()
    _, components = msgspec.json.schema_components(types.values(), ref_template="#/$defs/{name}")
    lines = [
        "# JSON",
        "",
        "With `--json` every verb prints exactly one document on standard output, whether it succeeds or fails:",
        "",
        *_block('{"schema": "memkeep/backup/1", "ok": true, "result": {...}}', "json"),
        "",
        *_block(
            '{"schema": "memkeep/backup/1", "ok": false,\n'
            ' "error": {"code": "...", "message": "...", "hint": "...", "exit": 10, "unchanged": "..."}}',
            "json",
        ),
        "",
        "`schema` is `memkeep/error/1` when the words name no verb. A verb that finishes with problems (exit status 3,",
        "4, or 20 with findings) is `ok`; its findings and its exit status say what is wrong. Fields are only ever",
        "added. Text that is not Unicode (a file's name, say) has its bytes as `\\udc80` to `\\udcff`; a number that",
        "JSON does not know is null. For the codes see [exit-codes.md](exit-codes.md).",
        "",
        "| verb | schema | result |",
        "|---|---|---|",
        *(f"| `{verb}` | `memkeep/{verb.split()[0]}/1` | `{kind.__name__}` |" for verb, kind in types.items()),
        "",
        "The results as JSON Schema:",
        "",
        *_block(json.dumps({"$defs": dict(sorted(components.items()))}, indent=2), "json"),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the pages that differ."""
    HERE.mkdir(exist_ok=True)
    for name, text in pages().items():
        path = HERE / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
