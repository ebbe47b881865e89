# syntax=docker/dockerfile:1
# The flow and the headrace command, with the model inside, so that nothing is fetched at start.
#   docker build -t headrace .
#   docker build -t headrace --build-arg MODEL=intfloat/e5-small-v2 .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_PROJECT_ENVIRONMENT=/opt/venv \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1
WORKDIR /src
# Dependencies change less often than the code: a layer of their own.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-install-project --extra openvino --extra registry
COPY . .
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-editable --extra openvino --extra registry

FROM build AS model
# A model with `onnx/model.onnx` on the hub, as sentence-transformers' own have: no torch here. For
# any other, `make install` and `headrace model export` make a bundle to mount and to name.
ARG MODEL=sentence-transformers/all-MiniLM-L6-v2
ENV HEADRACE_MODEL__NAME=${MODEL} \
    HEADRACE_MODEL__CACHE=/opt/models
RUN /opt/venv/bin/headrace model export

FROM python:${PYTHON}-slim
ARG MODEL=sentence-transformers/all-MiniLM-L6-v2
RUN useradd --system --uid 10001 --no-create-home headrace \
    && install -d -o headrace -g headrace /data /app
COPY --from=build /opt/venv /opt/venv
# Owned by the user, since which precision and runtime is the fastest here is noted beside it.
COPY --from=model --chown=headrace:headrace /opt/models /opt/models
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEADRACE_MODEL__NAME=${MODEL} \
    HEADRACE_MODEL__CACHE=/opt/models \
    HEADRACE_TABLE__URI=/data/lancedb \
    HEADRACE_RECOVERY__SUSPECTS=/data/suspects
USER headrace
WORKDIR /app
VOLUME /data
# Asks the flow to commit what it has read; a second one ends it at once.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; a = os.environ.get('HEADRACE_METRICS__ADDRESS', '127.0.0.1:9464'); u.urlopen('http://127.0.0.1:' + a.rsplit(':', 1)[1] + '/health/live', timeout=2)"]
ENTRYPOINT ["python", "-m", "bytewax.run"]
CMD ["flows.embed"]
