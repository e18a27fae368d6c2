"""`python -m ckptd` is the command `ckptd`."""

from ckptd.cli import main

if __name__ == "__main__":
    main()
