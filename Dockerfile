# One image for every service: worker, beat, Flower and `db upgrade` differ by their command only.

FROM python:3.13-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends postgresql-client-17
RUN pip install --no-cache-dir --root-user-action=ignore uv
# The interpreter is the image's own; bytecode is made here because the container's file system is read-only.
ENV UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/venv UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1
WORKDIR /src
# Dependencies first: this layer stays as long as the lock file does.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --all-extras --group tasks --no-install-project
COPY README.md LICENSE ./
COPY conventions conventions
RUN uv sync --locked --no-dev --all-extras --group tasks --no-editable

FROM python:3.13-slim
# pg_dump and pg_restore (BackupDatabase) need these libraries only; the package would bring Perl, 60 MB more.
# Their major version must be the server's or later: 17 here and in docker-compose.yml.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libpq5 liblz4-1 libzstd1 zlib1g \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin app \
 && install -d -o app -g app /app/output
COPY --from=build /usr/lib/postgresql/17/bin/pg_dump /usr/lib/postgresql/17/bin/pg_restore /usr/local/bin/
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY deploy/worker_heartbeat.py deploy/beat_heartbeat.py deploy/
COPY tasks tasks
COPY beat_schedule.py ./
USER 10001:10001
CMD ["celery", "-A", "tasks", "worker", "--loglevel", "INFO"]
