"""`python -m minilong` is the command `minilong`."""

from minilong.cli import main

if __name__ == "__main__":
    main(prog_name="minilong")
