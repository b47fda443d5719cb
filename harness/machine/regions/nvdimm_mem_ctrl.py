"""NVDIMMs of a machine whose memory controllers write what they hold when the power fails: caches are to be flushed."""

from harness.machine.regions.nvdimm import nvdimm_maker

MAKER = nvdimm_maker(machine={"nvdimm-persistence": "mem-ctrl"})
