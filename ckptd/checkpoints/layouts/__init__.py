"""Families of file names, one module each. A name that no layout would have built is a stranger."""
