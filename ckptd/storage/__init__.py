"""The only code that touches a model directory.

Everything here works on a `Directory`: a descriptor held open and bare names inside it, never a
path. `disk` is the one implementation that reaches the kernel; what is built on the interface
(publishing, trash, removal) runs unchanged over the directory in memory that the tests break.
"""
