"""`python -m twinrun`: the same as the `twinrun` command."""

from twinrun.cli import main

if __name__ == "__main__":
    main()
