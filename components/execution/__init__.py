"""Where work runs: in this process or on Ray.

What belongs here: executors, which place work on workers and bring back results. What does not: what the work is
(captioning, training), and anything about Dagster runs.
"""
