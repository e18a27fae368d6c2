"""The compiled messages are those of the .proto files, and agree with TensorFlow's."""

import importlib
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor
from protoc import assert_compiled

from ckptd.formats import messages

PROTO = Path(messages.__file__).parent / "proto"


def test_the_compiled_descriptors_are_those_of_the_proto_files(tmp_path):
    assert_compiled(PROTO, "ckptd_formats.binpb", tmp_path)


def test_the_messages_are_not_in_the_default_pool():
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("ckptd.formats.CheckpointState")


TENSORFLOW_MESSAGES = {
    "CheckpointState": ("tensorflow.python.training.checkpoint_state_pb2", "CheckpointState"),
    "BundleHeader": ("tensorflow.core.protobuf.tensor_bundle_pb2", "BundleHeaderProto"),
    "VersionDef": ("tensorflow.core.framework.versions_pb2", "VersionDef"),
    "BundleEntry": ("tensorflow.core.protobuf.tensor_bundle_pb2", "BundleEntryProto"),
    "TensorShape": ("tensorflow.core.framework.tensor_shape_pb2", "TensorShapeProto"),
    "TensorSlice": ("tensorflow.core.framework.tensor_slice_pb2", "TensorSliceProto"),
    "SavedTensorSlices": ("tensorflow.core.util.saved_tensor_slice_pb2", "SavedTensorSlices"),
    "MetaGraphDef": ("tensorflow.core.protobuf.meta_graph_pb2", "MetaGraphDef"),
    "VariableDef": ("tensorflow.core.framework.variable_pb2", "VariableDef"),
    "SavedModel": ("tensorflow.core.protobuf.saved_model_pb2", "SavedModel"),
    "FingerprintDef": ("tensorflow.core.protobuf.fingerprint_pb2", "FingerprintDef"),
    "TrackableObjectGraph": (
        "tensorflow.core.protobuf.trackable_object_graph_pb2",
        "TrackableObjectGraph",
    ),
}


def assert_subset(ours: Descriptor, theirs: Descriptor, seen: frozenset[str] = frozenset()):
    if ours.full_name in seen:  # messages that hold themselves
        return
    for name, field in ours.fields_by_name.items():
        expected = theirs.fields_by_name[name]
        assert (field.number, field.type) == (expected.number, expected.type), name
        if not ours.GetOptions().map_entry:  # a map's keys are there or not: nothing to be told
            assert field.has_presence == expected.has_presence, name
        if field.message_type is not None:
            assert expected.message_type is not None
            assert_subset(field.message_type, expected.message_type, seen | {ours.full_name})
        if field.enum_type is not None:
            assert expected.enum_type is not None
            for value in field.enum_type.values:
                assert expected.enum_type.values_by_number[value.number].name == value.name


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TENSORFLOW_MESSAGES)
def test_fields_have_the_names_numbers_and_types_of_tensorflow(name, tf):
    module, message = TENSORFLOW_MESSAGES[name]
    theirs = getattr(importlib.import_module(module), message)

    assert_subset(getattr(messages, name).DESCRIPTOR, theirs.DESCRIPTOR)
