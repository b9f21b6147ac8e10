"""How each part of the pipeline is made; no Dagster here (these are ML components, not Dagster Components)."""
