"""gpurun: run a training script on a GPU host over SSH, and bring back what it wrote."""

__version__ = "0.1.0"
