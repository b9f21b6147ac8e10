"""What exists and when it is made: the only place that imports dagster."""
