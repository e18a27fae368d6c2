"""What lives in time: one loop, its workers, and the hints that wake it.

`service` has the loop and `run_daemon`; `adoption` finds the model directories, `tending` looks
after each of them, `watching` and `calendar` say when, `listening` answers the commands.
"""
