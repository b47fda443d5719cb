"""What guests are made of: kernels, root file systems, initial RAM disks."""
