"""ramdax: to a machine these are e820 regions. The guest gives them another driver, which keeps labels in their last bytes."""

from harness.machine.regions import e820

MAKER = e820.MAKER
