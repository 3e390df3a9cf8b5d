# Every Ray node: the project with its pinned packages, so that driver and workers run the same code.
# Build context: the repository.
FROM python:3.11.14-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY orchestrator/ orchestrator/
COPY trainers/ trainers/
COPY dashboards/ dashboards/
COPY search_spaces/ search_spaces/
RUN pip install --constraint constraints.txt .

# A named volume takes its owner from the folder it covers.
RUN useradd --create-home orch && install --directory --owner=orch --group=orch /sweeps /cache /weights
USER orch
WORKDIR /sweeps
