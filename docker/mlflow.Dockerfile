# The MLflow server: the release that constraints.txt pins, and Postgres' driver. Build context: the repository.
FROM python:3.11.14-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

COPY constraints.txt /tmp/constraints.txt
RUN pip install --constraint /tmp/constraints.txt mlflow "psycopg[binary]==3.3.9"

# A named volume takes its owner from the folder it covers.
RUN useradd --create-home mlflow && install --directory --owner=mlflow --group=mlflow /artifacts
USER mlflow
WORKDIR /home/mlflow
EXPOSE 5000
