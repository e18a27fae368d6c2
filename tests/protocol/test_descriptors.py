"""The compiled messages are those of the .proto file."""

from pathlib import Path

from protoc import assert_compiled

from ckptd.protocol import control

PROTO = Path(control.__file__).parent / "proto"


def test_the_compiled_descriptors_are_those_of_the_proto_files(tmp_path):
    assert_compiled(PROTO, "ckptd_protocol.binpb", tmp_path)


def test_every_verb_has_its_number():
    numbers = control._POOL.FindEnumTypeByName("ckptd.protocol.Verb").values_by_name

    assert {verb.name: verb.value for verb in control.Verb} == {
        name: value.number for name, value in numbers.items() if value.number
    }
