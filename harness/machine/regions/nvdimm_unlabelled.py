"""NVDIMMs without a label area: each region is one namespace, which comes raw and keeps no mode but in its first bytes."""

from harness.machine.regions.nvdimm import nvdimm_maker

MAKER = nvdimm_maker()
