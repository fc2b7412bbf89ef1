"""`python -m supermerge`: the command line."""

from supermerge.cli.main import program

if __name__ == "__main__":
    program()
