"""The keys of a configuration as a JSON Schema, for editors that complete and check as one types.

Draft 7, which the editors' YAML plugins read. It knows the keys and values of
`ckptd.config.keys`; what several keys say together is checked by `ckptd.config.load` alone.

config/ckptd.schema.json is this, and a test holds it there. To rewrite it:

    python -m ckptd.config.schema > config/ckptd.schema.json
"""

import json
import sys
from typing import Any

from ckptd.config.keys import DOCUMENT, POLICY_KEYS
from ckptd.config.scalars import OFF, Scalar
from ckptd.config.shapes import Entries, Key, NamedSections, Section, SetOf, Shape


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration, as plain data."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "ckptd configuration",
        **_section(DOCUMENT),
        "definitions": {name: _key(key) for name, key in POLICY_KEYS.items()},
    }


def _key(key: Key) -> dict[str, Any]:
    fragment = {"description": key.description, **_shape(key.shape)}
    if key.has_default:
        fragment["default"] = key.shape.to_json(key.default)
    return fragment


def _shape(shape: Shape) -> dict[str, Any]:
    """Return what a value may be; a mapping or list without anything in it is null to YAML."""
    if isinstance(shape, Scalar):
        return shape.schema()
    if isinstance(shape, SetOf):
        listed = {"type": "array", "items": shape.item.schema(), "uniqueItems": True}
        return {"anyOf": [listed, {"enum": [OFF]}]}
    if isinstance(shape, Section):
        if shape.short is not None:
            return {"anyOf": [*shape.short.schema()["anyOf"], _section(shape)]}
        return _section(shape) | {"type": ["object", "null"]}
    if isinstance(shape, NamedSections):
        return {
            "type": ["object", "null"],
            "propertyNames": shape.name.schema(),
            "additionalProperties": _shape(shape.section),
        }
    assert isinstance(shape, Entries)
    return {"type": ["array", "null"], "items": _section(shape.section)}


def _section(section: Section) -> dict[str, Any]:
    fragment: dict[str, Any] = {
        "type": "object",
        "properties": {name: _reference(key) for name, key in section.keys.items()},
        "additionalProperties": False,
    }
    required = [name for name, key in section.keys.items() if key.required]
    return fragment | ({"required": required} if required else {})


def _reference(key: Key) -> dict[str, Any]:
    if POLICY_KEYS.get(key.name) is key:
        return {"$ref": f"#/definitions/{key.name}"}
    return _key(key)


if __name__ == "__main__":
    json.dump(json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
