"""The verbs, in the order of their help: a table, so that `memkeep --help` imports none of their modules."""

SECTIONS: dict[str, dict[str, str]] = {
    "Keep": {
        "init": "Make a vault.",
        "backup": "Take a snapshot of every store, or of those at PATH.",
        "status": "Show every store, its last snapshot, and what is unprotected.",
        "run": "Do what the settings say: backup, verify, forget, prune, copy.",
        "schedule": "Have `memkeep run` started again and again, by systemd or cron.",
        "verify": "Prove that a snapshot is good, up to a rung of the ladder.",
        "repair": "Mend a damaged vault as far as it can be, and say what is lost.",
        "copy": "Mirror snapshots into another vault, without restoring them.",
    },
    "Look": {
        "estimate": "Say how much would be moved, how long, and whether it fits.",
        "discover": "Find the stores of agent memory, changing nothing.",
        "snapshots": "List the snapshots of the vault.",
        "show": "Show what one snapshot holds.",
        "diff": "Show which memories differ between two moments.",
        "history": "Follow one memory through all snapshots.",
        "search": "Find words in the memories of one snapshot or of all.",
        "audit": "Look through memories for what should not be there.",
    },
    "Bring back": {
        "restore": "Bring a snapshot back: whole, or record by record.",
        "pack": "Write one snapshot into one file for another machine.",
    },
    "Move": {
        "export": "Write memories as open files, or check such files.",
        "import": "Put an export, or what a product wrote, into a store.",
        "migrate": "Move memory from any product into any other.",
        "embed": "Make the vectors of a store's texts, the missing ones or all.",
    },
    "Tidy": {
        "apply": "Delete the memories that a plan of `memkeep audit` names.",
        "forget": "Forget snapshots that no rule keeps, or those that are named.",
        "prune": "Give back the space of what no snapshot needs any more.",
        "key": "Manage what opens the vault: its passwords and its recovery key.",
    },
    "Learn": {
        "demo": "See all of it work in seconds, on a store made for the purpose.",
        "completion": "Print the completion script of a shell.",
    },
}

VERBS: dict[str, str] = {name: help_ for section in SECTIONS.values() for name, help_ in section.items()}
