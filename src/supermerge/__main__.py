"""`python -m supermerge`: the command line."""

from supermerge.cli.main import main

if __name__ == "__main__":
    main()
