"""What gpurun brings to the host: standard library only, Python 3.8 or later, no root, no daemon, no install."""
