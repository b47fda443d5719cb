"""What a folder with cases needs so that they run on guests that are fakes."""

CLAIMS = """
sources: {here: a test}
claims:
  - {id: claimed, family: fam, words: Writing works., source: here, otherwise: never did}
"""

#: The conftest of the tests' own sessions: guests are fakes, told by the test how to be.
CONFTEST = """
from harness.errors import *
from harness.model.complaint import ReportKind
from harness.machine.ending import Ending, EndKind
from harness.ops import Pwrite
from harness.model.outcome import How, Observation
from harness.model.audit_outcome import Audit, VolumeSeen
from tests.fakes.leased import FakeGuest, FakeHost, complaint, obedient

def fails(operation):
    return Observation(0, How.FAILED, errno="EIO") if isinstance(operation, Pwrite) else obedient(operation)

def broken_boot(stack):
    raise BootError("the kernel did not come up", "\\n".join([*(f"console line {n}" for n in range(40)), "last words"]))

def no_nvdimm(stack):
    if "nvdimm" in stack.describe():
        raise BootError("the kernel did not come up", "last words")
    return FakeGuest(stack)

FAILED = []

def flaky(stack):
    if stack not in FAILED:
        FAILED.append(stack)
        raise BootError("the kernel did not come up", "last words")
    return FakeGuest(stack)

HOST = FakeHost({make})

def pytest_harness_booter(config):
    return HOST.boot

def pytest_unconfigure(config):
    print("guests booted:", len(HOST.booted), "alive:", len(HOST.alive))
"""

GOOD = "FakeGuest"
FAILING = "lambda stack: FakeGuest(stack, fails)"
