"""`python -m memkeep` is the command line."""

from memkeep.cli.main import main

if __name__ == "__main__":
    main()
