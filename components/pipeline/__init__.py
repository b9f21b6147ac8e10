"""How each asset of the graph is made from its parents, as plain functions of a workspace; no Dagster.

This floor joins recipes, data, families, captioning, training and evaluation. An asset under ``orchestration/assets``
calls one function from here, and so does the benchmark that measures what the graph itself costs.
"""
