"""TensorFlow's bytes to values and back: no paths, no clock, no policy.

The only thing read here that a caller did not hand in is the compiled form of our own ``.proto``
files, which ships with the package.
"""
