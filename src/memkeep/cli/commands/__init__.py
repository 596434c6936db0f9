"""One verb a module, loaded when it is used: `command` is the click command, its first line stands in the table too."""
