-- Dagster's database is the server's own; MLflow has one beside it.
CREATE DATABASE mlflow;
