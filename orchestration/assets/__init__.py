"""One file per asset: the listing is the graph. Bodies name the stage function and nothing else."""
