"""Hold the package gpurun_notebook, which is copied into the run's ro/ for the script of a notebook."""
