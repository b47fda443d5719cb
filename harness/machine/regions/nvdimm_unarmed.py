"""NVDIMMs that ACPI announces as not armed: what is stored in them may be lost, so the kernel makes their regions read-only."""

from harness.machine.regions.nvdimm import nvdimm_maker

MAKER = nvdimm_maker(device=("unarmed=on",))
