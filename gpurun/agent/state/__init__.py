"""What a run is: its journal, its checkpoints, its machine."""
