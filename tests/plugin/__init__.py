"""gpurun's part in a training, in real trainings on the CPU. Needs the extra `demo` and the group `training`."""
