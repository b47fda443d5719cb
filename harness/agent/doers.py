"""All families together: what does a step, whatever it is."""

import struct

from harness.agent import files, mappings, pins, pipes, processes, sockets, system
from harness.agent.outcome import MissingNameError, Outcome, ProtocolError
from harness.agent.performer import DOERS, Performer
from harness.ops.program import Step

#: Importing them fills DOERS.
FAMILIES = (files, pipes, sockets, mappings, processes, pins, system)


def perform(me: Performer, index: int, step: Step) -> Outcome:
    """Do one step; what the agent itself cannot do comes back as ``broken``, which ends the program with an error."""
    me.scratch.reset()
    me.writer = index + 1
    try:
        return DOERS[type(step.operation)](me, step.operation)
    except MissingNameError as missing:
        return {"how": "not_run", "attributes": {"missing": str(missing)}}
    except ProtocolError as error:
        return {"how": "broken", "problem": str(error)}  # an unknown volume, a name of the wrong kind
    except (AttributeError, TypeError, ValueError, struct.error, MemoryError, OSError) as error:
        import traceback  # it costs as much to load as all families together

        return {"how": "broken", "problem": f"{type(error).__name__}: {error}\n{traceback.format_exc()}"}
