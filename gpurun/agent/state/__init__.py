"""Record what a run is: its journal, its checkpoints, its host."""
