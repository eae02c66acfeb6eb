"""`python -m twinrun`: the same as the `twinrun` command."""

from twinrun.cli.app import main

if __name__ == "__main__":
    main()
