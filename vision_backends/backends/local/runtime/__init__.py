"""How a model runs: loading, placement, engines, batches."""
