"""The formats that memkeep writes and reads; a further one is one module and one name here, in alphabetical order."""

from memkeep.records.formats import alf, csv, json, jsonl, markdown, oc_memory, parquet
from memkeep.records.formats.base import Format

FORMATS: tuple[Format, ...] = (alf, csv, json, jsonl, markdown, oc_memory, parquet)
