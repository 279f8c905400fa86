"""What the script of a notebook needs in its job: the package gpurun_notebook, copied into the run's ro/."""
