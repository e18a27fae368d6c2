"""TensorFlow's bytes to values and back: no paths, no clock, no policy.

    checksum, varint, dtypes, arrays    what all of them share; `arrays` is where numpy comes in
    messages, proto/                    TensorFlow's messages, under names of our own
    sorted_table                        the container of every index and every V1 file
    bundle_index, tensor_bundle         V2, read: the index alone; the tensors too
    bundle_layout, bundle_writer        V2, written: where each byte goes; the bytes
    regions, slices, partitions,        parts of tensors: where they lie, what their rows are called,
      stitching                           how a tensor is cut and put together
    string_tensor, piece_checksum       strings and variants; checksums of what passes by
    v1_table, v1_checkpoint, v1_writer  V1: what a file promises; read; written
    tensors, tensor_values              what every reader offers; what a writer takes
    object_graph, object_pruning        the tree of objects behind a TF2 checkpoint
    state_file                          the text file named `checkpoint`
    graph_file, graph, meta_graph,      graphs: which kind a file is, the nodes, how they are saved and
      saved_model, saved_tensors, ...     called; `graph_shapes` and `op_outputs` say what comes out
    freezing, variable_uses,            a graph and its weights made one
      restore_wiring, graph_walk

The only thing read here that a caller did not hand in is the compiled form of our own ``.proto``
files, which ships with the package.
"""
