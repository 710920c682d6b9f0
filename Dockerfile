# Why: the service as an image: `docker build -t llm-extproc:0.1.0 .` (not built by the tests; they
# hold the paths and the order of this file to the checkout).
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/llm-extproc
WORKDIR /build
# Dependencies first: they change less often than what is built upon them.
COPY requirements/runtime.txt requirements/last.txt requirements/
RUN /opt/llm-extproc/bin/pip install --require-hashes -r requirements/runtime.txt
# After all others: xds-protos lays an old copy of OTLP's messages over opentelemetry-proto.
RUN /opt/llm-extproc/bin/pip install --require-hashes --no-deps --force-reinstall -r requirements/last.txt
# Isolated: setuptools builds it, and is not in the image afterwards. What it fetches for that is the
# one thing here that no hash holds.
COPY pyproject.toml README.md LICENSE ./
COPY extproc extproc
RUN /opt/llm-extproc/bin/pip install --no-deps .

FROM python:3.11-slim
ENV PATH=/opt/llm-extproc/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/llm-extproc /opt/llm-extproc
# Nobody: no files are his but what is mounted.
USER 65532:65532
EXPOSE 50051 9090
ENTRYPOINT ["llm-extproc"]
CMD ["serve", "--settings", "/etc/llm/policy.yaml"]
