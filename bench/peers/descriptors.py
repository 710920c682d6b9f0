"""The descriptors of ext_proc's messages, those that we serve by, for peers to compile."""

from envoy.service.ext_proc.v3 import external_processor_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet


def descriptors() -> FileDescriptorSet:
    """Gather the file of the service and all that it imports, each after what it needs."""
    found = FileDescriptorSet()
    seen: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for needed in file.dependencies:
            add(needed)
        file.CopyToProto(found.file.add())

    add(external_processor_pb2.DESCRIPTOR)
    return found
