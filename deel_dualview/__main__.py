"""`python -m deel_dualview`: the command line."""

from deel_dualview.cli import main

if __name__ == "__main__":
    main(prog_name="python -m deel_dualview")
