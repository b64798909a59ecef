"""Who is speaking: one process, its own child another, and no secret among its attributes."""

import os

import pytest

from watchkeep import names
from watchkeep.resource import follow, resource


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_child_speaks_for_itself():
    """The resource that the pipeline holds names the child's process and an instance of its own."""
    held = follow(resource({}))
    before = held.attributes[names.SERVICE_INSTANCE_ID]
    child = os.fork()
    if child == 0:
        own = held.attributes
        os._exit(own[names.PROCESS_PID] != os.getpid() or own[names.SERVICE_INSTANCE_ID] == before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert held.attributes[names.SERVICE_INSTANCE_ID] == before


def test_a_secret_among_resource_attributes_is_masked():
    """What was put into OTEL_RESOURCE_ATTRIBUTES by mistake does not leave."""
    key = "sk-proj-" + "a1B2" * 12
    assert key not in repr(resource({"OTEL_RESOURCE_ATTRIBUTES": f"deployment.note={key}"}).attributes)
