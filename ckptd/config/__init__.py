"""YAML text -> frozen `Config`, or every problem in it at once.

`load.load_config` reads, `values` is what it returns, `keys` describes every key once for the
reader, the JSON Schema (`schema`), the sample config/ckptd.yaml and the command line's options.
"""
