"""NVDIMMs of a machine that writes its processors' caches when the power fails: nothing is to be flushed."""

from harness.machine.regions.nvdimm import nvdimm_maker

MAKER = nvdimm_maker(machine={"nvdimm-persistence": "cpu"})
