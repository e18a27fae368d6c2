"""The command line: one module per verb, and the only code that prints or exits.

A verb reads its arguments, asks a keeper or the daemon, and shows the answer on a `Screen`. Data
goes to standard output, messages to standard error; the number a verb returns is the exit status.
"""

from ckptd.cli.program import main

__all__ = ["main"]
