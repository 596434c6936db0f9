"""The command line: parse, call one operation, render. No logic of its own.

Starting must stay cheap, so a module here imports nothing heavier than click at its top; a verb's module is imported
when the verb is used, and everything else inside functions.
"""
